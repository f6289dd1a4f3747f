//! Terminals of processes that are made anew: the masters of their pseudo terminals are made first,
//! under their old numbers, and kept for them; modes are set last, when nothing can fail any more.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use serde_bytes::ByteBuf;
use sls_record::{FileKind, Process, Terminal};
use sls_sys::terminals;

/// Masters, by their numbers.
#[derive(Debug)]
pub struct Terminals {
    masters: BTreeMap<u32, OwnedFd>,
}

impl Terminals {
    /// Makes the masters that any of them had. A number that somebody else has by now is left out.
    pub fn make(all: &[Process]) -> Self {
        let numbers = of(all).filter_map(|(_, terminal)| terminal.master);
        let masters = numbers.filter_map(|n| Some((n, terminals::master(n).ok()?)));
        Self {
            masters: masters.collect(),
        }
    }

    /// Our descriptors of them, by number.
    pub fn kept(&self) -> BTreeMap<u32, i32> {
        let kept = self.masters.iter();
        kept.map(|(&number, fd)| (number, fd.as_raw_fd())).collect()
    }

    /// What waited in a terminal that was made again. One that was there all the time has it still.
    fn what_is_gone(&self, path: &str, terminal: &Terminal) -> Option<String> {
        let slave = || path.strip_prefix("/dev/pts/")?.parse().ok();
        let number = terminal.master.or_else(slave)?;
        let is_ours = terminal.waiting > 0 && self.masters.contains_key(&number);
        let by = match terminal.master {
            Some(_) => "by its master",
            None => "in it",
        };
        is_ours.then(|| {
            let bytes = terminal.waiting;
            format!(
                "terminal /dev/pts/{number}: {bytes} bytes that waited to be read {by} are gone"
            )
        })
    }

    /// Gives each terminal its modes. That it does not work is no reason to fail: named.
    pub fn set_modes(&self, all: &[Process]) -> Vec<String> {
        let mut done = Vec::new();
        let mut failed = Vec::new();
        for (path, terminal) in of(all) {
            let gone = self.what_is_gone(path, terminal);
            failed.extend(gone.filter(|line| !failed.contains(line)));
            let path = match terminal.master {
                Some(number) => format!("/dev/pts/{number}"),
                None => path.to_owned(),
            };
            if done.contains(&path) {
                continue;
            }
            let set = match terminal.master.map(|number| self.masters.get(&number)) {
                Some(Some(master)) => terminals::set(master.as_fd(), &of_record(terminal)),
                Some(None) => continue, // Named already.
                None => set_by_path(&path, terminal),
            };
            if let Err(error) = set {
                failed.push(format!("modes of terminal {path}: {error}"));
            }
            done.push(path);
        }
        failed
    }
}

/// Terminals and their paths, masters first: those have the size as well.
fn of(all: &[Process]) -> impl Iterator<Item = (&str, &Terminal)> {
    let files = || all.iter().flat_map(|p| &p.files);
    let terminals = move |master: bool| {
        files().filter_map(move |file| match &file.kind {
            FileKind::Device {
                terminal: Some(terminal),
            } if terminal.master.is_some() == master => Some((&*file.target, &**terminal)),
            _ => None,
        })
    };
    terminals(true).chain(terminals(false))
}

fn set_by_path(path: &str, terminal: &Terminal) -> std::io::Result<()> {
    let mut open = OpenOptions::new();
    let open = open.read(true).write(true);
    let file = open
        .custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK)
        .open(path)?;
    terminals::set(file.as_fd(), &of_record(terminal))
}

fn of_record(terminal: &Terminal) -> terminals::Terminal {
    terminals::Terminal {
        master: terminal.master,
        modes: ByteBuf::from(terminal.modes.clone()),
        window: terminal.window,
        packets: terminal.packets,
        waiting: 0,
    }
}
