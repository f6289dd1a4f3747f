//! What a keeper that was killed may leave in a process, noted before it can: the next attach reads
//! the notes and puts it right.
//!
//! - `journal-PID`: a rewind. Threads that wait half way go back to the present, a scratch area goes.
//! - `agreement-PID`: a rewind of several processes goes forward; the number is the root's.
//! - `descriptor-PID`: the making of a userfaultfd, which is the target's own for a moment.
//! - `pages-PID`: a pager (pager.rs) of that number brings pages to processes that run already.
//! - `traps-PID`: bytes of its text that breakpoints stand in the place of, while it runs.
//! - `connections-PID`: TCP connections that are looked at, which send nothing for a moment.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use sls_keeper::{Agreement, Journal, Outcome, Trap, journal};
use sls_sys::{RemoteMemory, procfs, repair};

use crate::error::KeeperError;
use crate::former;
use crate::keeper::{Keeper, Progress};
use crate::pager;
use crate::target::Options;
use crate::together::{self, Party};

const JOURNAL: &str = "journal-";
const DESCRIPTOR: &str = "descriptor-";
const CONNECTIONS: &str = "connections-";
const TRAPS: &str = "traps-";
const AGREEMENT: &str = "agreement-";
const USERFAULTFD: &str = "anon_inode:[userfaultfd]";

/// The notes on one process.
#[derive(Debug, Clone)]
pub struct Notes {
    pid: i32,
    start_ticks: u64,
    journal: PathBuf,
    descriptor: PathBuf,
    connections: PathBuf,
    traps: PathBuf,
}

/// Connections that are looked at: start time of the process in ticks, and their inodes.
type LookedAt = (u64, Vec<u64>);

/// Breakpoints: start time of the process in ticks, and what belongs there.
type Trapped = (u64, Vec<Trap>);

/// A userfaultfd is being made: start time of the process in ticks, and those it has of its own.
type Making = (u64, Vec<i32>);

impl Notes {
    pub fn on(pid: i32, start_ticks: u64, folder: &Path) -> Self {
        Self {
            pid,
            start_ticks,
            journal: folder.join(format!("{JOURNAL}{pid}")),
            descriptor: folder.join(format!("{DESCRIPTOR}{pid}")),
            connections: folder.join(format!("{CONNECTIONS}{pid}")),
            traps: folder.join(format!("{TRAPS}{pid}")),
        }
    }

    /// Where a rewind is written down.
    pub fn journal(&self) -> &Path {
        &self.journal
    }

    /// Lets the keeper make a userfaultfd in the process.
    pub fn userfaultfd(&self, keeper: &mut Keeper) -> Result<OwnedFd, KeeperError> {
        let making: Making = (self.start_ticks, userfaultfds(self.pid)?);
        let bytes = postcard::to_stdvec(&making).map_err(io::Error::other)?;
        fs::write(&self.descriptor, bytes)?;
        let result = keeper.userfaultfd(false);
        if !matches!(result, Err(KeeperError::Gone(_))) {
            remove(&self.descriptor);
        }
        result
    }

    /// Has the keeper look at these connections from the next stop on.
    pub fn look_at(&self, keeper: &mut Keeper, inodes: Vec<u64>) -> Result<(), KeeperError> {
        if !keeper.looks_at(&inodes) && !inodes.is_empty() {
            let looked_at: LookedAt = (self.start_ticks, inodes.clone());
            let bytes = postcard::to_stdvec(&looked_at).map_err(io::Error::other)?;
            fs::write(&self.connections, bytes)?;
        }
        keeper.look_at(inodes)
    }

    /// Writes down what belongs where breakpoints are about to be. None are: nothing is to be put right.
    pub fn trap(&self, traps: &[Trap]) -> io::Result<()> {
        if traps.is_empty() {
            remove(&self.traps);
            return Ok(());
        }
        let trapped: Trapped = (self.start_ticks, traps.to_vec());
        let bytes = postcard::to_stdvec(&trapped).map_err(io::Error::other)?;
        // Whole or not at all: a moment without it could be the one.
        let fresh = self.traps.with_extension("new");
        fs::write(&fresh, bytes)?;
        fs::rename(&fresh, &self.traps)
    }

    /// Breakpoints that a keeper which was killed has left are no longer in the text. At once: whoever
    /// meets one without a tracer ends by it.
    pub fn untrap(&self) -> io::Result<()> {
        let Ok(bytes) = fs::read(&self.traps) else {
            return Ok(());
        };
        if let Ok((start_ticks, traps)) = postcard::from_bytes::<Trapped>(&bytes)
            && start_ticks == self.start_ticks
            && procfs::stat(self.pid).is_ok_and(|stat| stat.start_ticks == start_ticks)
        {
            let memory = RemoteMemory::open(self.pid)?;
            traps.iter().for_each(|trap| trap.remove(&memory));
        }
        remove(&self.traps);
        Ok(())
    }

    /// Nothing of it is looked at any more.
    pub fn look_away(&self) {
        remove(&self.connections);
    }

    /// Connections that were looked at when the keeper was killed send again.
    fn end_repairs(&self) -> io::Result<()> {
        let Ok(bytes) = fs::read(&self.connections) else {
            return Ok(());
        };
        if let Ok((start_ticks, inodes)) = postcard::from_bytes::<LookedAt>(&bytes)
            && start_ticks == self.start_ticks
        {
            repair::end(self.pid, &inodes)?;
        }
        remove(&self.connections);
        Ok(())
    }

    /// Puts right what the notes tell of. What became of a rewind, if there was one; of several
    /// processes all are put right.
    pub fn put_right(
        &self,
        keeper: &mut Keeper,
        options: &Options,
    ) -> Result<Option<Outcome>, KeeperError> {
        self.untrap()?;
        self.end_repairs()?;
        self.close_descriptor(keeper)?;
        let Some(journal) = self.read() else {
            return Ok(None);
        };
        let mut outcomes = match &journal.agreement {
            None => {
                self.ask_to_put_right(keeper)?;
                match keeper.progress()? {
                    Progress::Ended(outcome) => vec![outcome],
                    Progress::Awaits => return Err(KeeperError::OutOfTurn("Awaits".to_owned())),
                }
            }
            Some(agreement) => self.put_all_right(keeper, agreement, options)?,
        };
        let halted = |outcome: &Outcome| matches!(outcome, Outcome::Halted { .. });
        if let Some(at) = outcomes.iter().position(halted) {
            return Ok(Some(outcomes.swap_remove(at)));
        }
        remove(&self.journal);
        Ok(outcomes.pop())
    }

    /// Has a keeper begin to put right what the journal tells of. False: there is none, or it is of
    /// another process that had the number, or it was not written to its end, and nothing begun.
    pub fn ask_to_put_right(&self, keeper: &mut Keeper) -> Result<bool, KeeperError> {
        if self.read().is_none() {
            return Ok(false);
        }
        // How far it came is noted in it.
        let file = File::options().read(true).write(true).open(&self.journal)?;
        keeper.ask_to_put_right(&file.into())?;
        Ok(true)
    }

    fn read(&self) -> Option<Journal> {
        let journal = journal::read(&File::open(&self.journal).ok()?).ok()?;
        Some(journal.plans).filter(|plans| plans.start_ticks == self.start_ticks)
    }

    /// This one and all that were rewound with it, each by a keeper that leaves then.
    fn put_all_right(
        &self,
        keeper: &mut Keeper,
        agreement: &Agreement,
        options: &Options,
    ) -> Result<Vec<Outcome>, KeeperError> {
        let folder = self.journal.parent().unwrap_or(Path::new(""));
        let mut others = Vec::new();
        for &pid in agreement.all.iter().filter(|&&pid| pid != self.pid) {
            let Ok(stat) = procfs::stat(pid) else {
                continue;
            };
            let notes = Self::on(pid, stat.start_ticks, folder);
            let same = |j: Journal| j.agreement.is_some_and(|a| a.token == agreement.token);
            if notes.read().is_some_and(same) {
                let start = || Keeper::start(&options.keeper, pid, &options.probe, false);
                let other = former::patiently(pid, former::LONG, start, former::is_traced)?;
                others.push((notes, other));
            }
        }
        let mut parties = vec![Left {
            notes: self,
            keeper,
        }];
        let left = |(notes, keeper)| Left { notes, keeper };
        parties.extend(others.iter_mut().map(|(n, k)| left((&*n, k))));
        for party in &mut parties {
            party.again()?;
        }
        let outcomes = together::left(&mut parties, agreement)?;
        let whole = !outcomes.iter().any(|o| matches!(o, Outcome::Halted { .. }));
        for (notes, keeper) in others {
            keeper.leave();
            if whole {
                remove(&notes.journal);
            }
        }
        if whole {
            agreement.forget();
        }
        Ok(outcomes)
    }

    fn close_descriptor(&self, keeper: &mut Keeper) -> Result<(), KeeperError> {
        let Ok(bytes) = fs::read(&self.descriptor) else {
            return Ok(());
        };
        if let Ok((start_ticks, own)) = postcard::from_bytes::<Making>(&bytes)
            && start_ticks == self.start_ticks
        {
            let mut ours = userfaultfds(self.pid)?;
            ours.retain(|fd| !own.contains(fd));
            if !ours.is_empty() {
                keeper.close(ours)?;
            }
        }
        remove(&self.descriptor);
        Ok(())
    }
}

/// One that an earlier slsd left half way.
struct Left<'a> {
    notes: &'a Notes,
    keeper: &'a mut Keeper,
}

impl Party for Left<'_> {
    fn keeper(&mut self) -> &mut Keeper {
        self.keeper
    }

    fn again(&mut self) -> Result<bool, KeeperError> {
        self.notes.ask_to_put_right(self.keeper)
    }
}

fn userfaultfds(pid: i32) -> io::Result<Vec<i32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let entry = entry?;
        let is_one = fs::read_link(entry.path()).is_ok_and(|l| l == Path::new(USERFAULTFD));
        let number = entry
            .file_name()
            .to_str()
            .and_then(|n| n.parse::<i32>().ok());
        found.extend(number.filter(|_| is_one));
    }
    Ok(found)
}

/// Whether all of the group with this root go forward in a rewind, in a file.
pub fn agreement(root: i32, folder: &Path) -> PathBuf {
    folder.join(format!("{AGREEMENT}{root}"))
}

/// Removes the notes on processes that have ended. True: none are left.
///
/// # Errors
/// The folder cannot be read.
pub fn clean(folder: &Path) -> io::Result<bool> {
    let mut left = false;
    let kinds = [
        JOURNAL,
        DESCRIPTOR,
        CONNECTIONS,
        TRAPS,
        AGREEMENT,
        pager::NOTE,
    ];
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let pid = kinds
            .iter()
            .find_map(|kind| name.strip_prefix(kind)?.parse().ok());
        match pid {
            Some(pid) if procfs::is_dead(pid) => remove(&entry.path()),
            _ => left = true,
        }
    }
    Ok(!left)
}

/// Not there is as wanted; anything else is met again by the next note, by name.
pub fn remove(path: &Path) {
    let _ = fs::remove_file(path);
}
