//! What a tab shows of one checkpoint: descriptors, mappings, sockets, signals, pages, heap.

use introspect::View;
use libsls::compare::differing_pages;
use libsls::record::{File, FileKind, Process, Queued};

use super::Content;
use crate::access::{Access, AccessError, Seen};
use crate::data::{Heat, HeatRow};
use crate::place::Tab;
use crate::query::heap_of;
use crate::table::{Lead, Row, Table, compared, left, right};
use crate::text::size;
use crate::turn::Turn;

const PAGE: u64 = 4096;

pub fn detail(
    access: &mut Access,
    turn: &Turn,
    tab: Tab,
    epoch: u64,
    base: Option<u64>,
) -> Result<Content, AccessError> {
    let view = access.view(epoch)?;
    let then = match base.map(|base| access.view(base)).transpose() {
        Err(error) if error.is_hangup() => return Err(error),
        // A base that is gone is no reason to show nothing.
        other => other.ok().flatten(),
    };
    turn.check()?;
    let then = then.as_deref();
    Ok(Content::Table(match tab {
        Tab::Pages => return Ok(Content::Heat(heat(&view, then)?)),
        Tab::Heap => heap_of(access, turn, epoch, base)?,
        Tab::Maps => maps(&view, then),
        Tab::Sockets => of_process(&view, then, "sockets", &SOCKETS, 1, sockets)?,
        Tab::Signals => of_process(&view, then, "signals", &SIGNALS, 2, signals)?,
        _ => of_process(&view, then, "descriptors", &FDS, 1, descriptors)?,
    }))
}

use crate::table::Column;

const FDS: [Column; 5] = [
    right("FD"),
    left("KIND"),
    right("OFFSET"),
    left("TARGET"),
    left("MORE"),
];
const SOCKETS: [Column; 4] = [right("FD"), left("SOCKET"), left("STATE"), left("QUEUED")];
const SIGNALS: [Column; 4] = [left("OF"), left("WHAT"), left("SIGNAL"), left("MORE")];

fn of_process(
    view: &Seen,
    then: Option<&Seen>,
    what: &'static str,
    columns: &[Column],
    keys: usize,
    rows: fn(&Process) -> Vec<Row>,
) -> Result<Table, AccessError> {
    let now = view.checkpoint().ok_or(AccessError::NotInACore(what))?;
    let then = then.and_then(Seen::checkpoint);
    let all = rows(now.process());
    let count = all.len();
    let all = match then {
        Some(then) => compared(all, &rows(then.process()), keys),
        None => all,
    };
    Ok(Table {
        title: what.to_owned(),
        columns: columns.to_vec(),
        rows: all,
        note: (count == 0).then(|| format!("no {what}")),
    })
}

fn descriptors(process: &Process) -> Vec<Row> {
    let row = |file: &File| {
        let (kind, more) = kind(file);
        Row::new([
            file.fd.to_string(),
            kind.to_owned(),
            file.offset.to_string(),
            file.target.clone(),
            more,
        ])
    };
    process.files.iter().map(row).collect()
}

/// What a descriptor is, and what is special about it.
fn kind(file: &File) -> (&'static str, String) {
    match &file.kind {
        FileKind::Regular { size: bytes, .. } => ("file", size(*bytes)),
        FileKind::Directory => ("directory", String::new()),
        FileKind::Pipe { content, .. } => ("pipe", queued(content)),
        FileKind::Socket {
            description,
            listening,
            ..
        } => {
            let listens = if *listening { ", listening" } else { "" };
            ("socket", format!("{description}{listens}"))
        }
        FileKind::EventFd { count } => ("eventfd", format!("count {count}")),
        FileKind::TimerFd { value_ns, .. } => {
            ("timerfd", format!("{} ms left", value_ns / 1_000_000))
        }
        FileKind::SignalFd { mask } => ("signalfd", format!("mask {mask:#x}")),
        FileKind::Epoll { members } => ("epoll", format!("{} members", members.len())),
        FileKind::Inotify { watches, .. } => ("inotify", format!("{} watches", watches.len())),
        FileKind::Memory { size: bytes } => ("memory", size(*bytes)),
        FileKind::Device { terminal: Some(_) } => ("terminal", String::new()),
        FileKind::Device { terminal: None } => ("device", String::new()),
        FileKind::MessageQueue(queue) => {
            let (waiting, capacity) = (queue.waiting, queue.capacity);
            ("mqueue", format!("{waiting} of {capacity} messages"))
        }
        FileKind::Other => ("other", String::new()),
    }
}

fn queued(content: &Queued) -> String {
    match content {
        Queued::Bytes(bytes) if bytes.is_empty() => "empty".to_owned(),
        Queued::Bytes(bytes) => {
            let text: String = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned();
            format!("{} bytes {text:?}", bytes.len())
        }
        Queued::Unread(why) => format!("not read: {why}"),
    }
}

fn sockets(process: &Process) -> Vec<Row> {
    let each = process.files.iter().filter_map(|file| {
        let FileKind::Socket {
            description,
            listening,
            state,
        } = &file.kind
        else {
            return None;
        };
        let connected = state.as_ref().and_then(|state| state.connected.as_ref());
        let word = match (listening, connected) {
            (true, _) => "listening",
            (false, Some(_)) => "connected",
            _ => "",
        };
        let waiting = connected.map(|connected| queued(&connected.queued));
        Some(Row::new([
            file.fd.to_string(),
            description.clone(),
            word.to_owned(),
            waiting.unwrap_or_default(),
        ]))
    });
    each.collect()
}

/// Handlers and ignored signals of the process, then what each thread blocks and has pending.
fn signals(process: &Process) -> Vec<Row> {
    let row = |of: &str, what: &str, signal: String, more: String| {
        Row::new([of.to_owned(), what.to_owned(), signal, more])
    };
    let mut rows = Vec::new();
    for action in &process.signals.actions {
        let (what, more) = match action.handler {
            0 => continue,
            1 => ("ignores", String::new()),
            handler => ("handles", format!("{handler:#x}")),
        };
        rows.push(row("process", what, name_of(action.signo), more));
    }
    for info in &process.signals.pending {
        rows.push(row(
            "process",
            "pending",
            name_of(info.signo()),
            String::new(),
        ));
    }
    for thread in &process.threads {
        let of = format!("thread {}", thread.tid);
        if thread.sigmask != 0 {
            let blocked: Vec<String> = (1..=64)
                .filter(|signo| thread.sigmask >> (signo - 1) & 1 == 1)
                .map(name_of)
                .collect();
            rows.push(row(&of, "blocks", blocked.join(" "), String::new()));
        }
        for info in &thread.pending {
            rows.push(row(&of, "pending", name_of(info.signo()), String::new()));
        }
    }
    rows
}

fn name_of(signo: i32) -> String {
    match signal_hook::low_level::signal_name(signo) {
        Some(name) => name.to_owned(),
        None => format!("signal {signo}"),
    }
}

fn maps(view: &Seen, then: Option<&Seen>) -> Table {
    let rows = |view: &Seen| -> Vec<Row> {
        let row = |mapping: introspect::Mapping| {
            let p = mapping.perms;
            let bit = |on, c| if on { c } else { '-' };
            let perms = [
                bit(p.read, 'r'),
                bit(p.write, 'w'),
                bit(p.execute, 'x'),
                if p.shared { 's' } else { 'p' },
            ];
            Row::new([
                format!("{:#x}", mapping.start),
                format!("{:#x}", mapping.end),
                String::from_iter(perms),
                size(mapping.end.saturating_sub(mapping.start)),
                mapping.path,
            ])
            .leading(Lead::Address(mapping.start, None))
        };
        view.mappings().into_iter().map(row).collect()
    };
    let all = rows(view);
    let all = match then {
        Some(then) => compared(all, &rows(then), 1),
        None => all,
    };
    Table {
        title: "mappings".to_owned(),
        columns: vec![
            left("START"),
            left("END"),
            left("PERM"),
            right("SIZE"),
            left("PATH"),
        ],
        rows: all,
        note: None,
    }
}

fn heat(view: &Seen, then: Option<&Seen>) -> Result<Heat, AccessError> {
    let now = view
        .checkpoint()
        .ok_or(AccessError::NotInACore("pages of its own"))?;
    let differing = match then.and_then(Seen::checkpoint) {
        Some(then) => differing_pages(then, now)?,
        None => Vec::new(),
    };
    let kept = now.kept()?;
    let rows = now.process().mappings.iter().map(|mapping| {
        let within = |(start, count): &(u64, u64)| {
            let (from, to) = (
                (*start).max(mapping.start),
                start
                    .saturating_add(count.saturating_mul(PAGE))
                    .min(mapping.end),
            );
            (from < to).then(|| ((from - mapping.start) / PAGE, (to - from) / PAGE))
        };
        let kept = kept.within(now.process(), mapping).map(|run| {
            (
                (run.start - mapping.start) / PAGE,
                (run.end - run.start) / PAGE,
            )
        });
        HeatRow {
            start: mapping.start,
            pages: (mapping.end - mapping.start) / PAGE,
            label: mapping.path.clone(),
            touched: differing.iter().filter_map(within).collect(),
            kept: kept.collect(),
        }
    });
    Ok(Heat {
        rows: rows.collect(),
        touched: differing.iter().map(|(_, count)| count).sum(),
    })
}
