//! Pages that are brought to processes made anew while they run already.
//!
//! sls-pager does it, a process of its own that has all it takes: the segments that the pages lie in, and of
//! each process a userfaultfd by which it is told of what somebody waits for. It goes on whatever becomes of slsd, and ends
//! when everything is there.
//!
//! - **Invariant**: nobody runs without what is missing: slsd has the userfaultfds too until all is brought, and
//!   ends the processes when sls-pager does not bring it.

mod owed;
mod serve;

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::{Deserialize, Serialize};
use slos::Excerpt;
use sls_sys::channel::Channel;
use sls_sys::missing::Missing;
use sls_sys::{fault, fd, procfs};

use crate::ranges::Range;

pub use serve::serve;

/// A note's name begins so, and ends in the number of a pager at work.
pub(crate) const NOTE: &str = "pages-";
const PROGRAM: &str = "sls-pager";
/// How long whoever attaches waits for pages that an earlier slsd's pager brings.
const PATIENCE: Duration = Duration::from_secs(60);
const STEP: Duration = Duration::from_millis(2);
const SIGKILL: i32 = 9;

/// What a pager is told, with a descriptor each.
#[derive(Debug, Serialize, Deserialize)]
enum Tell {
    /// A [`List`].
    List,
    /// A segment of the excerpt.
    Segment { id: u32 },
    /// A process, whose userfaultfd comes along. It is the owner of the excerpt's space that is as far
    /// down its list.
    Process { pid: i32 },
    /// That is all.
    Begin { note: PathBuf },
    /// They are about to run: all is brought, whatever happens. Until then it ends with slsd.
    Keep,
}

/// What is too long for a message: where pages are missing in each process, and an [`Excerpt`]'s list.
#[derive(Debug, Serialize, Deserialize)]
struct List {
    ranges: Vec<Vec<Range>>,
    #[serde(with = "serde_bytes")]
    excerpt: Vec<u8>,
}

/// What it says.
#[derive(Debug, Serialize, Deserialize)]
enum Say {
    Ready,
    /// All is brought.
    Done,
    /// The processes were ended.
    Failed {
        why: String,
    },
}

/// A process with what is missing in it.
#[derive(Debug)]
pub struct Debtor {
    /// Its number here.
    pub pid: i32,
    /// As those know it who asked for it.
    pub known_as: i32,
    pub missing: Missing,
    pub ranges: Vec<Range>,
}

/// The pager of the processes of a restore. Dropped before it was told to keep on it brings nothing any more.
#[derive(Debug)]
pub struct Pager {
    child: Option<Child>,
    channel: Channel,
    /// For as long as it is at work, so that it cannot be missed unseen.
    debtors: Vec<Debtor>,
    lives: Vec<OwnedFd>,
    is_kept: bool,
}

impl Pager {
    /// Starts it; it brings pages from here on. `beside` is a program of ours, `state` the folder of notes.
    ///
    /// # Errors
    /// It does not start, or cannot have what it takes.
    pub(crate) fn start(
        beside: &Path,
        state: &Path,
        excerpt: &Excerpt,
        debtors: Vec<Debtor>,
    ) -> io::Result<Self> {
        let program = beside.with_file_name(PROGRAM);
        let (channel, theirs) = Channel::pair()?;
        let first = debtors.first().map_or(0, |debtor| debtor.known_as);
        let what = format_args!("start {} for process {first}", program.display());
        let child = fault::step(what, || {
            let mut command = Command::new(&program);
            let command = command.stdin(Stdio::from(theirs)).stdout(Stdio::null());
            command.spawn()
        })?;
        let mut pager = Self {
            child: Some(child),
            channel,
            lives: Vec::with_capacity(debtors.len()),
            debtors,
            is_kept: false,
        };
        let what = format_args!("tell sls-pager what is missing in process {first}");
        fault::step(what, || pager.brief(excerpt, state))?;
        Ok(pager)
    }

    fn brief(&mut self, excerpt: &Excerpt, state: &Path) -> io::Result<()> {
        let list = List {
            ranges: self.debtors.iter().map(|d| d.ranges.clone()).collect(),
            excerpt: excerpt.to_bytes().map_err(io::Error::other)?,
        };
        let list = postcard::to_stdvec(&list).map_err(io::Error::other)?;
        let mut file = File::from(memfd_create("sls-pages", MFdFlags::MFD_CLOEXEC)?);
        file.write_all(&list)?;
        self.channel.send(&Tell::List, Some(file.as_fd()))?;
        for (id, fd) in excerpt.segments().map_err(io::Error::other)? {
            let tell = Tell::Segment { id: id.0 };
            self.channel.send(&tell, Some(fd))?;
        }
        for debtor in &self.debtors {
            self.lives.push(fd::pidfd_open(debtor.pid)?);
            let tell = Tell::Process { pid: debtor.pid };
            self.channel.send(&tell, Some(debtor.missing.as_fd()))?;
        }
        let note = state.to_owned();
        self.channel.send(&Tell::Begin { note }, None)?;
        match self.channel.receive::<Say>()? {
            Some((Say::Ready, _)) => Ok(()),
            Some((other, _)) => Err(io::Error::other(format!("{PROGRAM} said {other:?}"))),
            None => Err(io::Error::other(format!("{PROGRAM} has ended"))),
        }
    }

    /// The processes are about to run.
    pub(crate) fn keep(&mut self) -> io::Result<()> {
        self.channel.send(&Tell::Keep, None)?;
        self.is_kept = true;
        Ok(())
    }

    /// Readable once it has something to say.
    #[must_use]
    pub fn voice(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }

    /// Has it brought everything?
    ///
    /// # Errors
    /// It does not, and the processes were ended.
    pub fn is_done(&mut self) -> Result<bool, String> {
        if !fd::is_readable_within(self.voice(), Duration::ZERO) {
            return Ok(false);
        }
        self.await_end().map(|()| true)
    }

    /// Waits until it has brought everything.
    ///
    /// # Errors
    /// As [`Pager::is_done`].
    pub fn await_end(&mut self) -> Result<(), String> {
        let why = match self.channel.receive::<Say>() {
            Ok(Some((Say::Done, _))) => {
                self.debtors.clear();
                return Ok(());
            }
            Ok(Some((Say::Failed { why }, _))) => why,
            Ok(other) => format!("{PROGRAM} has ended before all was there ({other:?})"),
            Err(error) => error.to_string(),
        };
        self.end_all();
        Err(why)
    }

    /// Those that depend on it and what they have made since: nothing may run on with zeros in the place
    /// of what is missing.
    fn end_all(&mut self) {
        let mut all: Vec<i32> = self.debtors.iter().map(|d| d.pid).collect();
        let mut at = 0;
        while at < all.len() {
            let children = procfs::children(all[at]);
            all.extend(
                children
                    .into_iter()
                    .filter(|pid| !all.contains(pid))
                    .collect::<Vec<_>>(),
            );
            at += 1;
        }
        for life in &self.lives {
            let _ = fd::pidfd_signal(life.as_fd(), SIGKILL); // It may have ended.
        }
        for pid in all.into_iter().skip(self.debtors.len()) {
            let _ = fd::pidfd_open(pid).and_then(|life| fd::pidfd_signal(life.as_fd(), SIGKILL));
        }
        self.debtors.clear();
    }
}

impl Drop for Pager {
    /// One that was told to keep on does so, whoever is there; somebody has to take note of its end.
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        if self.is_kept {
            std::thread::spawn(move || child.wait());
        } else {
            // The processes have ended, or do; it may have, too.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Waits until no pager at work brings pages to a process: until then nobody can tell what it holds.
///
/// # Errors
/// It takes too long.
pub(crate) fn await_pages(pid: i32, state: &Path) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while is_one_at_work(state) && procfs::brought_by_userfaultfd(pid)?.is_some() {
        if Instant::now() > deadline {
            let why = "its pages are still being brought by sls-pager; try again later";
            return Err(io::Error::new(io::ErrorKind::TimedOut, why));
        }
        std::thread::sleep(STEP);
    }
    Ok(())
}

fn is_one_at_work(state: &Path) -> bool {
    let Ok(entries) = fs::read_dir(state) else {
        return false;
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut pagers = names.filter_map(|name| name.strip_prefix(NOTE)?.parse::<i32>().ok());
    pagers.any(|pid| procfs::status(pid).is_ok_and(|s| s.name == PROGRAM && s.state != 'Z'))
}
