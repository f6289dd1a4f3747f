//! Memory and descriptors.

use clap::Args;
use introspect::{Context, Mapping, Unavailable, Value, View};
use libsls::record::{File, FileKind, Queued};
use serde_json::{Value as Json, json};

use crate::arguments::{Place, ProcessArg, WrongUsage, number, size, split_place};
use crate::explain::explained;
use crate::look::{Look, answer_from, not_in_a_core};
use crate::output::{Paint, Table, left, right};
use crate::session::{Outcome, Session};

const DEFAULT_COUNT: u64 = 64;
/// Most bytes one `x` shows.
const MOST: u64 = 16 << 20;
const A_LINE: usize = 16;

/// Show memory
#[derive(Debug, Args)]
#[command(
    override_usage = "slsctl x [OPTIONS] [@N|pid:PID|core:FILE] ADDR [COUNT]",
    after_help = "Example: slsctl x @7 '&buffer' 256\n\n\
        ADDR is a number or an expression: of a pointer its value, of anything else where it lies."
)]
pub struct X {
    /// Where to look [default: @-1], the address, and how many bytes [default: 64]
    #[arg(value_name = "VIEW|ADDR|COUNT", required = true, num_args = 1..=3)]
    words: Vec<String>,
    #[command(flatten)]
    which: ProcessArg,
}

impl X {
    pub fn run(&self, session: &Session) -> anyhow::Result<Outcome> {
        let (place, words) = split_place(&self.words)?;
        let (address, count) = match words[..] {
            [address] => (address, DEFAULT_COUNT),
            [address, count] => (address, byte_count(count)?),
            _ => return Err(WrongUsage("give an address and perhaps a count".into()).into()),
        };
        answer_from(session, &self.which, &place, |look| {
            let address = match number(address) {
                Some(address) => address,
                None => address_of(look, address)?,
            };
            let (bytes, missing) = read_up_to(look.view(), address, count);
            let json = x_json(look, address, &bytes, missing.as_ref());
            session.answer(&json, |paint| {
                dump(address, &bytes, paint) + &missing.map_or(String::new(), |m| format!("{m}\n"))
            })
        })
    }
}

fn byte_count(text: &str) -> Result<u64, WrongUsage> {
    let count = number(text)
        .map_or_else(|| size(text), Ok)
        .map_err(WrongUsage)?;
    if count == 0 || count > MOST {
        return Err(WrongUsage(format!("{count} bytes: ask for 1 to {MOST}")));
    }
    Ok(count)
}

/// What an expression points at, or where it lies.
fn address_of(look: &Look, expr: &str) -> anyhow::Result<u64> {
    let answer = look
        .program()
        .evaluate(look.view(), &Context::default(), expr)
        .map_err(|error| explained(expr, error))?;
    let number = match answer.value {
        Value::Pointer { address, .. } => Some(address),
        Value::Unsigned(number) if answer.address.is_none() => u64::try_from(number).ok(),
        Value::Signed(number) if answer.address.is_none() => {
            i64::try_from(number).ok().map(i64::cast_unsigned)
        }
        _ => answer.address,
    };
    number.ok_or_else(|| anyhow::Error::msg(format!("{expr} is not in memory: {}", answer.text)))
}

/// As many bytes as are there, and why not all of them.
fn read_up_to(view: &dyn View, address: u64, count: u64) -> (Vec<u8>, Option<Unavailable>) {
    const PAGE: u64 = 4096;
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < count {
        let done = bytes.len();
        let Some(at) = address.checked_add(done as u64) else {
            return (bytes, Some(Unavailable::not_mapped(u64::MAX)));
        };
        let step = (count - done as u64).min(PAGE - at % PAGE);
        bytes.resize(done + usize::try_from(step).unwrap_or(0), 0);
        if let Err(why) = view.read(at, &mut bytes[done..]) {
            bytes.truncate(done);
            return (bytes, Some(why));
        }
    }
    (bytes, None)
}

fn x_json(look: &Look, address: u64, bytes: &[u8], missing: Option<&Unavailable>) -> Json {
    let mut json = json!({
        "epoch": look.epoch(),
        "address": format!("{address:#x}"),
        "bytes": hex(bytes),
        "count": bytes.len(),
    });
    if let Some(missing) = missing {
        json["unavailable"] = json!(missing.to_string());
    }
    json
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// Address, sixteen bytes, their ASCII.
fn dump(address: u64, bytes: &[u8], paint: Paint) -> String {
    let mut text = String::new();
    for (line, chunk) in (0u64..).zip(bytes.chunks(A_LINE)) {
        let at = address.wrapping_add(line * A_LINE as u64);
        let mut columns = String::new();
        for (index, byte) in chunk.iter().enumerate() {
            columns += if index == A_LINE / 2 { "  " } else { " " };
            columns += &hex(&[*byte]);
        }
        let ascii: String = chunk
            .iter()
            .map(|byte| match byte {
                0x20..0x7f => char::from(*byte),
                _ => '.',
            })
            .collect();
        text += &format!(
            "{} {columns:<49}  |{ascii}|\n",
            paint.faint(&format!("{at:#018x}"))
        );
    }
    text
}

/// List the mappings
#[derive(Debug, Args)]
#[command(after_help = "Example: slsctl maps @-1")]
pub struct Maps {
    /// Where to look: @N, @name, @-1, pid:PID or core:FILE
    #[arg(value_name = "VIEW", default_value = "@-1")]
    place: Place,
    #[command(flatten)]
    which: ProcessArg,
}

impl Maps {
    pub fn run(&self, session: &Session) -> anyhow::Result<Outcome> {
        answer_from(session, &self.which, &self.place, |look| {
            let mappings = look.view().mappings();
            let json = json!({
                "epoch": look.epoch(),
                "maps": mappings.iter().map(mapping_json).collect::<Vec<_>>(),
            });
            session.answer(&json, |paint| mappings_text(&mappings, paint))
        })
    }
}

fn perms(mapping: &Mapping) -> String {
    let p = mapping.perms;
    let bit = |on, c| if on { c } else { '-' };
    let last = if p.shared { 's' } else { 'p' };
    String::from_iter([
        bit(p.read, 'r'),
        bit(p.write, 'w'),
        bit(p.execute, 'x'),
        last,
    ])
}

fn mapping_json(mapping: &Mapping) -> Json {
    json!({
        "start": format!("{:#x}", mapping.start),
        "end": format!("{:#x}", mapping.end),
        "perms": perms(mapping),
        "offset": mapping.offset,
        "path": mapping.path,
    })
}

fn mappings_text(mappings: &[Mapping], paint: Paint) -> String {
    let mut table = Table::new([
        left("START").coloured(Paint::faint),
        left("END").coloured(Paint::faint),
        left("PERMS"),
        right("SIZE"),
        right("OFFSET"),
        left("PATH").coloured(Paint::name),
    ]);
    for mapping in mappings {
        table.row([
            format!("{:#018x}", mapping.start),
            format!("{:#018x}", mapping.end),
            perms(mapping),
            crate::output::bytes(mapping.end.saturating_sub(mapping.start)),
            format!("{:#x}", mapping.offset),
            mapping.path.clone(),
        ]);
    }
    table.text(paint)
}

/// List the open descriptors
#[derive(Debug, Args)]
#[command(after_help = "Example: slsctl fds @7")]
pub struct Fds {
    /// Where to look: @N, @name, @-1 or pid:PID
    #[arg(value_name = "VIEW", default_value = "@-1")]
    place: Place,
    #[command(flatten)]
    which: ProcessArg,
}

impl Fds {
    pub fn run(&self, session: &Session) -> anyhow::Result<Outcome> {
        answer_from(session, &self.which, &self.place, |look| {
            if look.core().is_some() {
                return Err(not_in_a_core("descriptors").into());
            }
            let files = look.process().map_or(&[][..], |process| &process.files);
            let json = json!({
                "epoch": look.epoch(),
                "fds": files.iter().map(file_json).collect::<Vec<_>>(),
            });
            session.answer(&json, |paint| files_text(files, paint))
        })
    }
}

/// A descriptor: what all have, then what its kind has.
pub fn file_json(file: &File) -> Json {
    let (kind, details) = kind(&file.kind);
    let mut json = json!({
        "fd": file.fd,
        "kind": kind,
        "target": file.target,
        "offset": file.offset,
        "flags": flags(file.flags),
    });
    if let (Json::Object(out), Json::Object(details)) = (&mut json, details) {
        out.extend(details);
        out.extend(file.shares.map(|fd| ("shares".to_owned(), json!(fd))));
    }
    json
}

fn kind(kind: &FileKind) -> (&'static str, Json) {
    match kind {
        FileKind::Regular { size, .. } => ("file", json!({ "size": size })),
        FileKind::Directory => ("directory", json!({})),
        FileKind::Pipe {
            content,
            capacity,
            packets,
        } => (
            "pipe",
            match content {
                Queued::Bytes(bytes) => {
                    json!({"queued": bytes.len(), "capacity": capacity, "packets": packets, "bytes": hex(bytes)})
                }
                Queued::Unread(why) => json!({"queued": {"unavailable": why}}),
            },
        ),
        FileKind::Socket {
            description,
            listening,
            ..
        } => (
            "socket",
            json!({"description": description, "listening": listening}),
        ),
        FileKind::EventFd { count } => ("eventfd", json!({ "count": count })),
        FileKind::TimerFd {
            clock,
            ticks,
            value_ns,
            interval_ns,
            ..
        } => (
            "timerfd",
            json!({"clock": clock, "ticks": ticks, "value_ns": value_ns, "interval_ns": interval_ns}),
        ),
        FileKind::SignalFd { mask } => ("signalfd", json!({ "mask": mask })),
        FileKind::Epoll { members } => (
            "epoll",
            json!({"members": members.iter().map(|m| json!({"fd": m.fd, "events": m.events, "data": m.data})).collect::<Vec<_>>()}),
        ),
        FileKind::Inotify { watches, waiting } => (
            "inotify",
            json!({"watches": watches.iter().map(|w| json!({"number": w.number, "mask": w.mask, "inode": w.inode, "path": w.path})).collect::<Vec<_>>(), "waiting": waiting}),
        ),
        FileKind::Memory { size } => ("memory", json!({ "size": size })),
        FileKind::Device { terminal } => match terminal {
            Some(t) => (
                "terminal",
                json!({"rows": t.window[0], "columns": t.window[1], "master": t.master}),
            ),
            None => ("device", json!({})),
        },
        FileKind::MessageQueue(queue) => (
            "mqueue",
            json!({"waiting": queue.waiting, "capacity": queue.capacity, "longest": queue.longest}),
        ),
        FileKind::Other => ("other", json!({})),
    }
}

/// The O_* names of open(2).
fn flags(bits: u32) -> String {
    let bits = bits.cast_signed();
    let access = match bits & libc::O_ACCMODE {
        libc::O_WRONLY => "O_WRONLY",
        libc::O_RDWR => "O_RDWR",
        _ => "O_RDONLY",
    };
    let others = [
        (libc::O_APPEND, "O_APPEND"),
        (libc::O_NONBLOCK, "O_NONBLOCK"),
        (libc::O_CLOEXEC, "O_CLOEXEC"),
        (libc::O_DIRECT, "O_DIRECT"),
        (libc::O_ASYNC, "O_ASYNC"),
        (libc::O_PATH, "O_PATH"),
        (libc::O_SYNC, "O_SYNC"),
    ];
    let set = others.iter().filter(|(flag, _)| bits & flag == *flag);
    set.fold(access.to_owned(), |text, (_, name)| text + "|" + name)
}

fn files_text(files: &[File], paint: Paint) -> String {
    let mut table = Table::new([
        right("FD"),
        left("KIND").coloured(Paint::name),
        left("FLAGS").coloured(Paint::faint),
        right("OFFSET"),
        left("TARGET"),
    ]);
    for file in files {
        let target = match &file.kind {
            FileKind::Socket { description, .. } => format!("{} {description}", file.target),
            _ => file.target.clone(),
        };
        table.row([
            file.fd.to_string(),
            kind(&file.kind).0.to_owned(),
            flags(file.flags),
            file.offset.to_string(),
            target,
        ]);
    }
    table.text(paint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_shows_hex_and_ascii() {
        let text = dump(0x1000, b"hello\0world, twice", Paint::PLAIN);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            "0x0000000000001000  68 65 6c 6c 6f 00 77 6f  72 6c 64 2c 20 74 77 69  |hello.world, twi|"
        );
        assert_eq!(lines[1].find('|'), lines[0].find('|'));
    }

    struct OnePage;

    impl View for OnePage {
        fn read(&self, address: u64, buf: &mut [u8]) -> Result<(), Unavailable> {
            let end = address.saturating_add(buf.len() as u64);
            if address < 0x1000 || end > 0x2000 {
                return Err(Unavailable::not_mapped(address.max(0x2000)));
            }
            buf.fill(7);
            Ok(())
        }

        fn threads(&self) -> Vec<introspect::ThreadView> {
            Vec::new()
        }

        fn mappings(&self) -> Vec<Mapping> {
            Vec::new()
        }
    }

    #[test]
    fn what_is_there_is_read_up_to_the_hole() {
        let (bytes, missing) = read_up_to(&OnePage, 0x1ff0, 64);
        assert_eq!((bytes.len(), missing.unwrap().address), (16, Some(0x2000)));
        let (bytes, missing) = read_up_to(&OnePage, u64::MAX - 3, 64);
        assert!(bytes.is_empty() && missing.is_some());
        assert_eq!(read_up_to(&OnePage, 0x1000, 4096).0.len(), 4096);
    }

    #[test]
    fn descriptors_carry_what_their_kind_has() {
        let file = File {
            fd: 3,
            target: "pipe:[1]".into(),
            flags: (libc::O_WRONLY | libc::O_NONBLOCK).cast_unsigned(),
            offset: 0,
            dev: 0,
            inode: 1,
            kind: FileKind::Pipe {
                content: Queued::Bytes(vec![1, 0xff]),
                capacity: 4096,
                packets: Vec::new(),
            },
            shares: Some(2),
            shared_with: None,
            locks: Vec::new(),
            unnamed: None,
        };
        let json = file_json(&file);
        assert_eq!(json["kind"], "pipe");
        assert_eq!(json["flags"], "O_WRONLY|O_NONBLOCK");
        assert_eq!(json["bytes"], "01ff");
        assert_eq!(json["shares"], 2);
    }

    #[test]
    fn counts_are_bounded() {
        assert_eq!(byte_count("0x10").unwrap(), 16);
        assert_eq!(byte_count("2K").unwrap(), 2048);
        assert!(byte_count("0").is_err() && byte_count("1G").is_err());
    }
}
