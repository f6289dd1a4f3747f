//! The process that brings the pages: those that somebody waits for at once, the others in the order
//! in which the last was waited for and those after it.

use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::{fs, process};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use slos::{Excerpt, PageIndex, SegmentId};
use sls_sys::channel::Channel;
use sls_sys::fd;
use sls_sys::missing::{Brought, Event, Missing};

use super::owed::Owed;
use super::{List, Say, Tell};
use crate::probes;
use crate::ranges::Range;

const PAGE: u64 = sls_sys::PAGE;
const PAGE_BYTES: usize = slos::PAGE;
/// Pages brought at once: while it is at them nobody else is served.
const BATCH: usize = 32;
const SIGKILL: i32 = 9;

/// One address space, of a process that was made anew or one that it made.
struct Space {
    missing: Missing,
    owed: Owed,
    /// Which of the excerpt's spaces it began as.
    origin: usize,
    /// Those that somebody waits for.
    waited_for: Vec<u64>,
    /// Where to go on by itself.
    next: u64,
}

/// What has come over the channel, and the processes that depend on it.
struct Pager {
    channel: Channel,
    excerpt: Excerpt,
    spaces: Vec<Space>,
    /// By descriptors: a number may be another's by then.
    processes: Vec<OwnedFd>,
    /// They run, or may: what was begun is carried through.
    is_kept: bool,
    note: Note,
}

/// The file that tells later attaches to wait.
struct Note(Option<std::path::PathBuf>);

impl Drop for Note {
    fn drop(&mut self) {
        // Not there is as wanted; one that stays names a process that has ended.
        let _ = self.0.take().map(fs::remove_file);
    }
}

/// Serves what comes over the channel until all is brought.
///
/// # Errors
/// A page cannot be read or brought: the processes are ended then, since none may go on without.
pub fn serve(stdin: OwnedFd) -> io::Result<()> {
    let _ = nix::unistd::setsid(); // EPERM: it leads one already.
    let Some(mut pager) = Pager::receive(Channel::from(stdin))? else {
        return Ok(());
    };
    let served = pager.run();
    if let Err(error) = &served {
        pager.end_all();
        let why = error.to_string();
        let _ = pager.channel.send(&Say::Failed { why }, None); // Nobody has to be there.
    }
    served
}

impl Pager {
    /// None: whoever began has given up.
    fn receive(mut channel: Channel) -> io::Result<Option<Self>> {
        let mut list = None;
        let (mut segments, mut missing, mut processes) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            let Some((tell, fd)) = channel.receive::<Tell>()? else {
                return Ok(None);
            };
            let fd = || fd.ok_or_else(|| io::Error::other("a message without its descriptor"));
            match tell {
                Tell::List => list = Some(read_list(fd()?)?),
                Tell::Segment { id } => segments.push((SegmentId(id), fd()?)),
                Tell::Process { pid } => {
                    processes.push(fd::pidfd_open(pid)?);
                    missing.push(Missing::from(fd()?));
                }
                Tell::Begin { note } => {
                    let list = list.ok_or_else(|| io::Error::other("no list of pages"))?;
                    let excerpt = Excerpt::from_parts(&list.excerpt, segments);
                    let note = note_at(&note)?;
                    channel.send(&Say::Ready, None)?;
                    return Ok(Some(Self {
                        channel,
                        excerpt: excerpt.map_err(io::Error::other)?,
                        spaces: spaces(missing, &list.ranges),
                        processes,
                        is_kept: false,
                        note,
                    }));
                }
                Tell::Keep => return Err(io::Error::other("nothing was begun")),
            }
        }
    }

    fn run(&mut self) -> io::Result<()> {
        let mut bytes = vec![0; BATCH * PAGE_BYTES];
        let mut turn = 0;
        loop {
            if !self.is_kept && !self.heed()? {
                return Ok(());
            }
            self.read_events()?;
            for at in 0..self.spaces.len() {
                self.serve_waiting(at, &mut bytes)?;
            }
            if self.spaces.iter().all(Space::is_done) {
                if self.is_kept {
                    self.spaces.clear();
                    drop(self.note.0.take().map(fs::remove_file));
                    // Nobody has to be there to hear it.
                    let _ = self.channel.send(&Say::Done, None);
                    return Ok(());
                }
                self.sleep();
                continue;
            }
            turn = (turn + 1) % self.spaces.len();
            self.go_on(turn, &mut bytes)?;
        }
    }

    /// Looks whether it was told that they run; false: it never will be.
    fn heed(&mut self) -> io::Result<bool> {
        let mut fds = [PollFd::new(self.channel.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::ZERO).unwrap_or(0) == 0 {
            return Ok(true);
        }
        match self.channel.receive::<Tell>()? {
            Some((Tell::Keep, _)) => self.is_kept = true,
            Some(_) => return Err(io::Error::other("a message out of turn")),
            None => return Ok(false),
        }
        Ok(true)
    }

    /// Until something happens.
    fn sleep(&self) {
        let spaces = self.spaces.iter().map(|space| space.missing.as_fd());
        let all = spaces.chain([self.channel.as_fd()]);
        let mut fds: Vec<_> = all.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        let _ = poll(&mut fds, PollTimeout::NONE); // EINTR: the loop looks again.
    }

    fn read_events(&mut self) -> io::Result<()> {
        let mut at = 0;
        while at < self.spaces.len() {
            while let Some(event) = self.spaces[at].missing.event()? {
                let space = &mut self.spaces[at];
                match event {
                    Event::Fault(address) => space.waited_for.push(address),
                    Event::Moved(from, to, len) => space.owed.shift(from, to, len),
                    Event::Gone(start, end) => drop(space.owed.cut(start, end)),
                    Event::Fork(missing) => {
                        let child = Space {
                            missing,
                            owed: space.owed.clone(),
                            origin: space.origin,
                            waited_for: Vec::new(),
                            next: space.next,
                        };
                        self.spaces.push(child);
                    }
                }
            }
            at += 1;
        }
        Ok(())
    }

    /// Brings what somebody waits for; what has to wait for events to be read stays.
    fn serve_waiting(&mut self, at: usize, bytes: &mut [u8]) -> io::Result<()> {
        let mut later = Vec::new();
        for address in std::mem::take(&mut self.spaces[at].waited_for) {
            let space = &mut self.spaces[at];
            let brought = if space.owed.at(address).is_some() {
                space.next = address;
                let brought = space.bring(address, &self.excerpt, bytes)?;
                probes::page_brought(address);
                brought
            } else {
                Brought::There
            };
            let has_to_wait = match brought {
                Brought::There => !space.has_brought_zeros(address)?,
                other => other == Brought::Later,
            };
            later.extend(has_to_wait.then_some(address));
        }
        self.spaces[at].waited_for.append(&mut later);
        Ok(())
    }

    /// Some more pages, although nobody waits for them.
    fn go_on(&mut self, at: usize, bytes: &mut [u8]) -> io::Result<()> {
        let space = &mut self.spaces[at];
        if let Some(debt) = space.owed.next(space.next) {
            space.next = debt.start;
            space.bring(debt.start, &self.excerpt, bytes)?;
        }
        Ok(())
    }

    /// What cannot be brought must not read as zeros.
    fn end_all(&self) {
        for process in &self.processes {
            let _ = fd::pidfd_signal(process.as_fd(), SIGKILL); // It may have ended.
        }
    }
}

impl Space {
    fn is_done(&self) -> bool {
        self.owed.is_empty() && self.waited_for.is_empty()
    }

    /// Brings the page at an address that is owed, if the checkpoint has it, and some after it. [`Brought::There`]: none
    /// was, up to what is owed no more now.
    fn bring(&mut self, address: u64, excerpt: &Excerpt, bytes: &mut [u8]) -> io::Result<Brought> {
        let Some(debt) = self.owed.at(address) else {
            return Ok(Brought::There);
        };
        let first = PageIndex(debt.origin / PAGE);
        let end = first.0 + (debt.end - debt.start) / PAGE;
        let has = |page: u64| excerpt.next(self.origin, PageIndex(page)) == Some(PageIndex(page));
        if !has(first.0) {
            let next = excerpt.next(self.origin, first);
            let next = next.map_or(end, |page| page.0.min(end));
            let until = address + (next - first.0) * PAGE;
            self.owed.cut(address, until);
            self.next = until;
            return Ok(Brought::There);
        }
        let mut count = 0;
        let (buffers, _) = bytes.as_chunks_mut::<PAGE_BYTES>();
        for (buffer, page) in buffers.iter_mut().zip(first.0..end) {
            let read = excerpt.read(self.origin, PageIndex(page), buffer);
            if !read.map_err(io::Error::other)? {
                break;
            }
            count += 1;
        }
        self.place(address, &bytes[..count * PAGE_BYTES])
    }

    /// Pages that are owed there.
    fn place(&mut self, address: u64, bytes: &[u8]) -> io::Result<Brought> {
        let mut done = 0;
        while done < bytes.len() {
            let at = address + done as u64;
            let brought = self.missing.bring(at, &bytes[done..])?;
            let step = match brought {
                Brought::All => bytes.len() - done,
                Brought::Part(part) => sls_sys::size(part),
                Brought::There | Brought::Elsewhere => {
                    self.missing.wake(at)?;
                    PAGE_BYTES
                }
                Brought::Later => return Ok(Brought::Later),
                Brought::Over => {
                    self.owed = Owed::default();
                    return Ok(Brought::Over);
                }
            };
            done += step;
            self.next = address + done as u64;
            self.owed.cut(at, self.next);
        }
        Ok(Brought::All)
    }

    /// For who waits where nothing is owed; false: not yet.
    fn has_brought_zeros(&mut self, address: u64) -> io::Result<bool> {
        match self.missing.bring_zeros(address)? {
            Brought::Later => return Ok(false),
            Brought::There | Brought::Elsewhere => self.missing.wake(address)?,
            Brought::All | Brought::Part(_) => {}
            Brought::Over => self.owed = Owed::default(),
        }
        Ok(true)
    }
}

fn read_list(fd: OwnedFd) -> io::Result<List> {
    let mut bytes = Vec::new();
    let mut file = fs::File::from(fd);
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    postcard::from_bytes(&bytes).map_err(io::Error::other)
}

fn spaces(missing: Vec<Missing>, ranges: &[Vec<Range>]) -> Vec<Space> {
    let each = missing.into_iter().zip(ranges).enumerate();
    each.map(|(origin, (missing, ranges))| Space {
        missing,
        next: ranges.first().map_or(0, |range| range.0),
        owed: Owed::new(ranges),
        origin,
        waited_for: Vec::new(),
    })
    .collect()
}

/// Says in the folder of notes that it is at work.
fn note_at(folder: &Path) -> io::Result<Note> {
    let path = folder.join(format!("{}{}", super::NOTE, process::id()));
    fs::write(&path, b"")?;
    Ok(Note(Some(path)))
}
