//! The memory pane's bytes, what variables lie in them, and where words in them point.

use introspect::{Mapping, Program, Value, View, ViewExt};

use crate::data::{Laid, Look, MEMORY_BYTES, Memory, MemoryAt, Pointed};
use crate::roots::{Moment, memory_start};
use crate::turn::Turn;

const PAGE: u64 = 4096;
const LINE: u64 = 16;
/// Pointers followed from one word.
const CHAIN: usize = 4;
/// Bytes of a text that a pointer leads to.
const TEXT: usize = 32;
/// Fewer characters are no text.
const SHORTEST: usize = 4;
/// Members named of one struct.
const MEMBERS: usize = 64;
/// A variable that begins so far before the bytes may reach into them.
const LARGEST: u64 = 1 << 20;

/// The bytes that the memory pane shows; what lies in them where it is looked at.
pub fn memory(
    program: &Program,
    now: &Moment<'_>,
    then: Option<&Moment<'_>>,
    look: &Look,
    turn: &Turn,
) -> Result<Memory, String> {
    let start = memory_start(program, now, &look.question.memory)? & !(LINE - 1);
    let mut memory = Memory {
        start,
        bytes: bytes(now.view, start),
        old: then.map(|then| bytes(then.view, start)),
        objects: Vec::new(),
        pointers: Vec::new(),
    };
    if look.question.laid {
        memory.objects = objects(program, now, look, start);
        memory.pointers = pointers(program, now.view, &memory, turn);
    }
    Ok(memory)
}

fn bytes(view: &dyn View, start: u64) -> Vec<Option<u8>> {
    let mut all = Vec::with_capacity(MEMORY_BYTES);
    while all.len() < MEMORY_BYTES {
        let Some(at) = start.checked_add(all.len() as u64) else {
            break;
        };
        let left = usize::try_from(PAGE - at % PAGE).unwrap_or(MEMORY_BYTES);
        let mut part = vec![0; left.min(MEMORY_BYTES - all.len())];
        match view.read(at, &mut part) {
            Ok(()) => all.extend(part.into_iter().map(Some)),
            Err(_) => all.extend(part.iter().map(|_| None)),
        }
    }
    all
}

/// Variables within the bytes; of structs their members.
fn objects(program: &Program, now: &Moment<'_>, look: &Look, start: u64) -> Vec<Laid> {
    let end = start.saturating_add(MEMORY_BYTES as u64);
    let near = |address: &u64| (start.saturating_sub(LARGEST)..end).contains(address);
    let roots = look.locals.iter().chain(&look.globals).chain(&look.watches);
    let mut paths: Vec<String> = roots
        .filter(|root| root.address.as_ref().is_some_and(near))
        .map(|root| root.path.clone())
        .collect();
    if let MemoryAt::Variable(path) = &look.question.memory
        && !paths.contains(path)
    {
        paths.push(path.clone());
    }
    let mut laid = Vec::new();
    for path in paths {
        lay(program, now, &path, &mut laid);
    }
    laid.retain(|laid| laid.start < end && laid.start.saturating_add(laid.len) > start);
    laid.sort_by_key(|laid| (laid.start, std::cmp::Reverse(laid.len)));
    laid.dedup_by_key(|laid| (laid.start, laid.len, laid.name.clone()));
    laid
}

fn lay(program: &Program, now: &Moment<'_>, path: &str, laid: &mut Vec<Laid>) {
    let Ok(answer) = now.evaluate(program, path, 1) else {
        return;
    };
    if let Value::Struct(members) = &answer.value {
        let before = laid.len();
        for (name, _) in members.iter().take(MEMBERS) {
            one(program, now, &format!("{path}.{name}"), laid);
        }
        if laid.len() > before {
            return;
        }
    }
    one(program, now, path, laid);
}

fn one(program: &Program, now: &Moment<'_>, path: &str, laid: &mut Vec<Laid>) {
    let size = now.evaluate(program, &format!("sizeof({path})"), 1);
    let len = match size.map(|answer| answer.value) {
        Ok(Value::Unsigned(size)) => u64::try_from(size).unwrap_or(0),
        Ok(Value::Signed(size)) => u64::try_from(size).unwrap_or(0),
        _ => return,
    };
    if let Ok(answer) = now.evaluate(program, path, 1)
        && let Some(start) = answer.address
    {
        laid.push(Laid {
            start,
            len,
            name: path.to_owned(),
            type_name: answer.type_name,
        });
    }
}

fn pointers(program: &Program, view: &dyn View, memory: &Memory, turn: &Turn) -> Vec<Pointed> {
    let mappings = view.mappings();
    let words = memory
        .bytes
        .chunks_exact(8)
        .zip((memory.start..).step_by(8));
    let mut found = Vec::new();
    for (bytes, at) in words {
        if turn.is_over() {
            break;
        }
        let word = bytes
            .iter()
            .rev()
            .try_fold(0u64, |word, byte| Some(word << 8 | u64::from((*byte)?)));
        let chain = word.map(|word| chain(program, view, &mappings, word));
        if let Some(chain) = chain.filter(|chain| !chain.is_empty()) {
            found.push(Pointed { at, chain });
        }
    }
    found
}

/// What an address leads to, stop by stop; empty where it is none.
fn chain(program: &Program, view: &dyn View, mappings: &[Mapping], first: u64) -> Vec<String> {
    let mut stops = Vec::new();
    let mut seen = vec![first];
    let mut address = first;
    while stops.len() < CHAIN {
        let Some(mapping) = mapping_of(mappings, address) else {
            break;
        };
        stops.push(place(program, mapping, address));
        if let Some(text) = text_at(view, address) {
            stops.push(text);
            break;
        }
        match view.read_u64(address) {
            Ok(next) if !mapping.perms.execute && !seen.contains(&next) => {
                seen.push(next);
                address = next;
            }
            _ => break,
        }
    }
    stops
}

fn mapping_of(mappings: &[Mapping], address: u64) -> Option<&Mapping> {
    let at = mappings.partition_point(|mapping| mapping.end <= address);
    mappings.get(at).filter(|mapping| mapping.contains(address))
}

fn place(program: &Program, mapping: &Mapping, address: u64) -> String {
    if let Some((name, offset)) = program.symbol_at(address) {
        return match offset {
            0 => format!("{address:#x} {name}"),
            _ => format!("{address:#x} {name}+{offset}"),
        };
    }
    let name = crate::text::file_name(&mapping.path);
    let name = if name.is_empty() { "anonymous" } else { name };
    format!("{address:#x} {name}")
}

/// A text that begins here, quoted.
fn text_at(view: &dyn View, address: u64) -> Option<String> {
    let (bytes, whole) = view.read_c_string(address, TEXT).ok()?;
    let text = std::str::from_utf8(&bytes).ok()?;
    let readable = text.chars().all(|c| !c.is_control());
    let long = text.chars().count() >= SHORTEST;
    (readable && long).then(|| format!("{text:?}{}", if whole { "" } else { "..." }))
}
