//! What processes that are made anew together have from one another: each thing is made by one of
//! them, and the others have it from there.
//!
//! What nobody has a descriptor for by which the others could reach it (a pipe, memory that is only
//! mapped) its maker keeps open under a number that nobody wants, until all have it.

use std::collections::BTreeMap;

use sls_record::{Connected, File, FileKind, Mapping, Process, Socket};

use super::pipes::{is_unnamed_pipe, is_writer};
use super::unnamed::is_memory;
use crate::given::Given;
use crate::shared::is_memory_only;

/// Between the numbers that a process uses, with room for what is opened for a moment, and the first
/// under which something is kept.
const ROOM: i32 = 16;

/// What several may have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Thing {
    /// By its name.
    Pipe(String),
    /// Memory, or a file, without a name, by device and inode.
    Memory(u64, u64),
    /// Two sockets that are connected to each other, by their inodes.
    Pair(u64, u64),
}

impl Thing {
    /// Numbers it takes where it is kept: one for each end.
    pub fn ends(&self) -> i32 {
        match self {
            Self::Pipe(_) | Self::Pair(..) => 2,
            Self::Memory(..) => 1,
        }
    }
}

/// Where a descriptor comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The process opens it by itself.
    Own,
    /// Opened by way of what this other process has made.
    OpenedBy(i32),
    /// What this process keeps under that number.
    Kept(i32, i32),
    /// The open file description of another process, by its descriptor.
    Shared(i32, i32),
    /// That of a descriptor of whoever has it made.
    Given(i32),
    /// The master of a pseudo terminal, which we have made.
    Master(i32),
}

/// Something a process keeps open for all that have it: under this number, and its other end, if it
/// has one, under the next.
#[derive(Debug)]
pub struct Kept<'a> {
    pub thing: &'a Thing,
    pub fd: i32,
}

/// System V shared memory by device and inode of what was mapped: its number, or why it cannot be had.
pub type Segments = BTreeMap<(u64, u64), Result<i32, String>>;

/// Processes that are made anew together.
#[derive(Debug)]
pub struct Kin<'a> {
    all: &'a [Process],
    given: &'a [Given],
    segments: &'a Segments,
    /// Who makes each, and under which number it is there; kept only for the others if so.
    makers: BTreeMap<Thing, Maker>,
    /// Masters of pseudo terminals that we keep for them, by number.
    masters: BTreeMap<u32, i32>,
    /// So many of them, the first, live: they are not made.
    living: usize,
    is_apart: bool,
    has_layer: bool,
}

#[derive(Debug, Clone, Copy)]
struct Maker {
    pid: i32,
    fd: i32,
    is_kept: bool,
    /// Of memory that a living one has no descriptor of: where it is mapped.
    mapped: Option<(u64, u64)>,
}

impl<'a> Kin<'a> {
    /// `given` is for what was open on something of its name.
    pub fn new(all: &'a [Process], segments: &'a Segments, given: &'a [Given]) -> Self {
        let mut kin = Self::nothing_made(all, segments, given);
        kin.make();
        kin
    }

    /// The first of `all` live, and `have` what they have when the others come to it.
    pub fn beside(
        all: &'a [Process],
        living: usize,
        segments: &'a Segments,
        have: impl Fn(&Process, &File) -> bool,
    ) -> Self {
        let mut kin = Self::nothing_made(all, segments, &[]);
        kin.living = living;
        for process in &all[..living] {
            let pipes = process.files.iter().filter(|f| is_unnamed_pipe(f));
            for file in pipes.filter(|file| have(process, file)) {
                let thing = Thing::Pipe(file.target.clone());
                kin.made(thing, process.pid, file.fd, false);
            }
            for map in process.mappings.iter().filter(|m| is_nameless(m)) {
                let maker = Maker {
                    pid: process.pid,
                    fd: 0,
                    is_kept: false,
                    mapped: Some((map.start, map.end)),
                };
                let thing = Thing::Memory(map.dev, map.inode);
                kin.makers.entry(thing).or_insert(maker);
            }
        }
        kin.make();
        kin
    }

    fn nothing_made(all: &'a [Process], segments: &'a Segments, given: &'a [Given]) -> Self {
        Self {
            all,
            segments,
            given,
            makers: BTreeMap::new(),
            masters: BTreeMap::new(),
            living: 0,
            is_apart: false,
            has_layer: false,
        }
    }

    /// Finds out who makes what.
    fn make(&mut self) {
        let all = self.all;
        let kin = self;
        for process in all {
            for file in process.files.iter().filter(|f| is_made(f)) {
                if kin.is_first(process, file) {
                    kin.made(memory_of(file), process.pid, file.fd, false);
                }
            }
        }
        for process in &all[kin.living..] {
            let mut fd = 1 + ROOM + highest(process);
            for file in process.files.iter().filter(|f| is_unnamed_pipe(f)) {
                if kin.has_both_ends(&file.target) {
                    let thing = Thing::Pipe(file.target.clone());
                    fd += 2 * i32::from(kin.made(thing, process.pid, fd, true));
                }
            }
            for file in &process.files {
                if let Some(pair) = kin.pair(file) {
                    fd += 2 * i32::from(kin.made(pair, process.pid, fd, true));
                }
            }
            for map in process.mappings.iter().filter(|m| is_nameless(m)) {
                if kin.attaches(process, map).is_some() {
                    continue;
                }
                let thing = Thing::Memory(map.dev, map.inode);
                fd += i32::from(kin.made(thing, process.pid, fd, true));
            }
        }
    }

    /// With masters of pseudo terminals that we keep for them, by number.
    #[must_use]
    pub fn with_masters(mut self, masters: BTreeMap<u32, i32>) -> Self {
        self.masters = masters;
        self
    }

    /// They are made in a PID namespace of their own.
    #[must_use]
    ///
    /// `has_layer`: whatever they write to files nobody else sees.
    pub fn apart(mut self, is_apart: bool, has_layer: bool) -> Self {
        (self.is_apart, self.has_layer) = (is_apart, has_layer);
        self
    }

    /// Is what they do to files theirs alone?
    pub fn has_layer(&self) -> bool {
        self.has_layer
    }

    /// The number under which each is born with a pidfd of this process, where they cannot name it.
    pub fn lent(&self) -> Option<i32> {
        self.is_apart.then(|| lent(self.all))
    }

    /// True: nobody else makes it.
    fn made(&mut self, thing: Thing, pid: i32, fd: i32, is_kept: bool) -> bool {
        let is_new = !self.makers.contains_key(&thing);
        self.makers.entry(thing).or_insert(Maker {
            pid,
            fd,
            is_kept,
            mapped: None,
        });
        is_new
    }

    pub fn has_both_ends(&self, pipe: &str) -> bool {
        let mut ends = self.ends(pipe).peekable();
        let first = ends.peek().map(|f| is_writer(f));
        ends.any(|f| Some(is_writer(f)) != first)
    }

    /// All descriptors of a pipe, whose ever.
    pub fn ends(&self, pipe: &str) -> impl Iterator<Item = &'a File> {
        let files = self.all.iter().flat_map(|p| &p.files);
        files.filter(move |f| is_unnamed_pipe(f) && f.target == pipe)
    }

    /// The socket of an inode, whose ever.
    pub fn socket(&self, inode: u64) -> Option<&'a Socket> {
        let mut files = self.all.iter().flat_map(|p| &p.files);
        files.find_map(|file| match &file.kind {
            FileKind::Socket {
                state: Some(state), ..
            } if file.inode == inode => Some(&**state),
            _ => None,
        })
    }

    /// A socket that is connected to another that is here, and with nothing lost between them.
    pub fn pair(&self, file: &File) -> Option<Thing> {
        let end = |inode: u64| self.socket(inode)?.connected.as_ref();
        let here = end(file.inode).filter(|_| is_socket(file))?;
        let there = end(here.peer).filter(|there| there.peer == file.inode)?;
        let is_whole = is_whole(here, there) && is_whole(there, here);
        let ends = (here.peer.min(file.inode), here.peer.max(file.inode));
        let of_living = self.all[..self.living].iter().flat_map(|p| &p.files);
        let is_end = |f: &File| is_socket(f) && [ends.0, ends.1].contains(&f.inode);
        let lives = of_living.into_iter().any(is_end); // What it has it keeps.
        (is_whole && ends.0 != ends.1 && !lives).then_some(Thing::Pair(ends.0, ends.1))
    }

    /// System V shared memory that is mapped; None for what is none.
    pub fn segment(&self, map: &Mapping) -> Option<&'a Result<i32, String>> {
        self.segments.get(&(map.dev, map.inode))
    }

    /// The number of the System V shared memory that `process` attaches there, as by one call.
    pub fn attaches(&self, process: &Process, map: &Mapping) -> Option<i32> {
        let is_whole = process.segments.iter().any(|s| s.is_whole_at(map));
        let had = self.segment(map).filter(|_| is_whole)?;
        had.as_ref().ok().copied()
    }

    /// A descriptor of a file without a name that is mapped, whose ever.
    pub fn descriptor(&self, map: &Mapping) -> Option<&'a File> {
        let files = self.all.iter().flat_map(|p| &p.files);
        let mut made = files.filter(|f| is_made(f));
        made.find(|f| (f.dev, f.inode) == (map.dev, map.inode))
    }

    /// Bytes that memory must have for all that map it.
    pub fn size(&self, dev: u64, inode: u64) -> u64 {
        let maps = self.all.iter().flat_map(|p| &p.mappings);
        let same = maps.filter(|m| m.perms.shared && (m.dev, m.inode) == (dev, inode));
        let ends = same.map(|m| m.offset.saturating_add(m.len()));
        ends.max().unwrap_or(0)
    }

    /// Our descriptor of a pseudo terminal's master.
    fn master(&self, file: &File) -> Option<i32> {
        let FileKind::Device {
            terminal: Some(terminal),
        } = &file.kind
        else {
            return None;
        };
        self.masters.get(&terminal.master?).copied()
    }

    /// What `pid` keeps open for those that have it.
    pub fn kept_by(&self, pid: i32) -> impl Iterator<Item = Kept<'_>> {
        let own = self.makers.iter();
        let own = own.filter(move |(_, m)| m.pid == pid && m.is_kept);
        own.map(|(thing, m)| Kept { thing, fd: m.fd })
    }

    /// Where a descriptor of `process` comes from, which is the lowest of its description.
    pub fn origin(&self, process: &Process, file: &File) -> Origin {
        if let Some((pid, fd)) = self.shared(process, file) {
            return Origin::Shared(pid, fd);
        }
        if let Some(given) = self.given.iter().find(|given| given.is_for(file)) {
            return Origin::Given(given.number());
        }
        if let Some(fd) = self.master(file) {
            return Origin::Master(fd);
        }
        match self.maker(file) {
            // A socket cannot be opened.
            Some((maker, end)) if is_socket(file) => Origin::Kept(maker.pid, maker.fd + end),
            Some((maker, _)) if maker.pid != process.pid => Origin::OpenedBy(maker.pid),
            _ => Origin::Own,
        }
    }

    /// The path by which `process` opens what is made by one of them; None: it makes it.
    pub fn path(&self, process: &Process, file: &File) -> Option<String> {
        let (maker, end) = self.maker(file)?;
        let is_it = !maker.is_kept && (maker.pid, maker.fd) == (process.pid, file.fd);
        (!is_it).then(|| path(process.pid, maker, end))
    }

    /// The path by which `process` maps memory without a name.
    pub fn memory(&self, process: &Process, map: &Mapping) -> Option<String> {
        let maker = self.makers.get(&Thing::Memory(map.dev, map.inode))?;
        Some(path(process.pid, *maker, 0))
    }

    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Do some of them live, in the sessions and groups that they are in?
    pub fn has_living(&self) -> bool {
        self.living > 0
    }

    /// Is anybody in this process group?
    pub fn has_group(&self, group: i32) -> bool {
        self.all.iter().any(|p| p.pgid == group)
    }

    /// The one of this number, if it is one of them.
    pub fn one(&self, pid: i32) -> Option<&'a Process> {
        self.all.iter().find(|p| p.pid == pid)
    }

    /// Has anybody anything of another?
    pub fn share(&self) -> bool {
        let of_another = |process: &Process| {
            let descriptor = |f: &File| match self.origin(process, f) {
                Origin::Own | Origin::Given(_) | Origin::Master(_) => false,
                Origin::Shared(pid, _) | Origin::Kept(pid, _) | Origin::OpenedBy(pid) => {
                    pid != process.pid
                }
            };
            let memory = |m: &Mapping| {
                let maker = self.makers.get(&Thing::Memory(m.dev, m.inode));
                is_nameless(m) && maker.is_some_and(|maker| maker.pid != process.pid)
            };
            process.files.iter().any(descriptor) || process.mappings.iter().any(memory)
        };
        // A group of processes must be there before it can be in the foreground.
        let has_terminal = |process: &Process| process.terminal.is_some();
        let needs = |process: &Process| of_another(process) || has_terminal(process);
        self.all.len() > 1 && self.all.iter().any(needs)
    }

    /// Who makes what it is an end of, and which end of it: the second of a pipe is for writing, of
    /// a pair of sockets it is that with the higher inode.
    fn maker(&self, file: &File) -> Option<(Maker, i32)> {
        let (thing, end) = match &file.kind {
            FileKind::Pipe { .. } => (Thing::Pipe(file.target.clone()), is_writer(file)),
            FileKind::Memory { .. } => (memory_of(file), false),
            _ if is_made(file) => (memory_of(file), false),
            FileKind::Socket { .. } => match self.pair(file)? {
                Thing::Pair(low, high) => (Thing::Pair(low, high), file.inode == high),
                _ => return None,
            },
            _ => return None,
        };
        let maker = *self.makers.get(&thing)?;
        // Of what is not kept one end leads to the other.
        Some((maker, i32::from(end && maker.is_kept)))
    }

    /// The description that another has and opens by itself. What a record says that cannot be is
    /// not heeded: only one that comes before.
    fn shared(&self, process: &Process, file: &File) -> Option<(i32, i32)> {
        let (pid, fd) = file.shared_with?;
        let before = self.all.iter().take_while(|p| p.pid != process.pid);
        let other = before.filter(|p| p.pid == pid).last()?;
        let other = other.files.iter().find(|f| f.fd == fd)?;
        let is_its = other.shared_with.is_none() && other.shares.is_none();
        (is_its && other.target == file.target).then_some((pid, fd))
    }

    fn is_first(&self, process: &Process, file: &File) -> bool {
        file.shares.is_none() && self.shared(process, file).is_none()
    }
}

/// A stream of TCP would have a hole where something is not known.
fn is_whole(here: &Connected, there: &Connected) -> bool {
    match (&here.tcp, &there.tcp) {
        (Some(_), Some(_)) => here.to_read(there).is_some(),
        (None, None) => true,
        _ => false,
    }
}

fn path(pid: i32, maker: Maker, end: i32) -> String {
    if let Some((start, end)) = maker.mapped {
        return format!("/proc/{}/map_files/{start:x}-{end:x}", maker.pid);
    }
    let fd = maker.fd + end;
    if maker.pid == pid {
        format!("/proc/self/fd/{fd}")
    } else {
        format!("/proc/{}/fd/{fd}", maker.pid)
    }
}

/// A number beyond those that any of them uses.
pub fn lent(all: &[Process]) -> i32 {
    let kept = |p: &Process| 2 * (p.files.len() + p.mappings.len());
    let kept = all.iter().map(kept).sum::<usize>();
    let highest = all.iter().map(highest).max().unwrap_or(0);
    highest + 4 * ROOM + i32::try_from(kept).unwrap_or(0)
}

fn highest(process: &Process) -> i32 {
    process.files.iter().map(|f| f.fd).max().unwrap_or(0)
}

fn memory_of(file: &File) -> Thing {
    Thing::Memory(file.dev, file.inode)
}

fn is_socket(file: &File) -> bool {
    matches!(file.kind, FileKind::Socket { .. })
}

/// A file without a name that is made again.
fn is_made(file: &File) -> bool {
    is_memory(file) || file.content().is_some()
}

/// Shared memory that has no name by which it could be opened.
pub fn is_nameless(map: &Mapping) -> bool {
    let has_name = map.path.starts_with("/dev/shm/") && !map.path.ends_with(" (deleted)");
    // The first System V segment of all has the number 0, and that is its inode.
    let is_object = map.inode != 0 || map.path.starts_with("/SYSV");
    map.perms.shared && is_object && is_memory_only(&map.path) && !has_name
}
