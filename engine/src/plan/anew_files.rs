//! Descriptors of a process made anew: what it opens by itself, then what it has from its kin.

use std::collections::BTreeMap;

use sls_keeper::{Arg, Want};
use sls_record::{File, FileKind, Process, Queued};

use super::files::{
    F_DUPFD_CLOEXEC, Table, above, close_one, close_saved, description, duplicate, epolls, fill,
    move_up, name_once, set_flags, share, table,
};
use super::kin::{Kept, Kin, Origin, Thing};
use super::opening::Openings;
use super::{Steps, anew, int, locks, pairs, pipes};

/// The descriptors of one of them.
pub struct Files<'a> {
    kin: &'a Kin<'a>,
    skeleton: &'a Process,
    to: &'a Process,
    table: Table<'a>,
    above: i32,
}

impl<'a> Files<'a> {
    pub fn new(kin: &'a Kin<'a>, skeleton: &'a Process, to: &'a Process) -> Self {
        let table = table(to);
        Self {
            kin,
            skeleton,
            to,
            above: above(&table, &table),
            table,
        }
    }

    /// What it opens by itself, and what it keeps for others.
    pub fn own(&self, steps: &mut Steps) {
        for Kept { thing, fd } in self.kin.kept_by(self.to.pid) {
            match thing {
                Thing::Pipe(target) => pipes::make_kept(steps, self.kin, target, fd),
                Thing::Pair(low, high) => pairs::make(steps, self.kin, (*low, *high), fd),
                Thing::Memory(dev, inode) => {
                    let maps = self.to.mappings.iter();
                    let mut same = maps.filter(|m| (m.dev, m.inode) == (*dev, *inode));
                    if let Some(map) = same.next() {
                        anew::make_memory(steps, map, self.kin.size(*dev, *inode));
                        keep(steps, 0, fd);
                    }
                }
            }
        }
        self.open_all(steps, |origin| {
            matches!(origin, Origin::Own | Origin::Given(_) | Origin::Master(_))
        });
        if let Some(lent) = self.kin.lent() {
            close_one(steps, lent);
        }
    }

    /// What others have made, and it has by way of them; connections begin.
    pub fn made_by_others(&self, steps: &mut Steps) {
        for Kept { thing, fd } in self.kin.kept_by(self.to.pid) {
            if let Thing::Pair(low, high) = thing {
                pairs::begin(steps, self.kin, (*low, *high), fd);
            }
        }
        let is_made = |origin: &Origin| matches!(origin, Origin::OpenedBy(_) | Origin::Kept(..));
        self.open_all(steps, is_made);
    }

    /// What it shares with others, who have it by now; and what takes all of its descriptors.
    pub fn shared(&self, steps: &mut Steps) {
        self.open_all(steps, |origin| matches!(origin, Origin::Shared(..)));
        let none = BTreeMap::new();
        epolls(steps, &Table::new(), &self.table, &none);
        locks::steps(steps, self.skeleton, self.to, |_| false);
    }

    /// Closes what was kept for others, who have it by now.
    pub fn close_kept(&self, steps: &mut Steps) {
        for Kept { thing, fd } in self.kin.kept_by(self.to.pid) {
            (fd..fd + thing.ends()).for_each(|fd| close_one(steps, fd));
        }
    }

    /// Of each description one descriptor is opened, the others are its duplicates.
    fn open_all(&self, steps: &mut Steps, is_meant: impl Fn(&Origin) -> bool) {
        let mut openings = Openings::anew(self.skeleton, self.above, (self.kin, self.to));
        for file in self.table.values() {
            let first = description(file);
            let Some(opened) = self.table.get(&first) else {
                continue;
            };
            let origin = self.kin.origin(self.to, opened);
            if !is_meant(&origin) {
                continue;
            }
            match origin {
                _ if first != file.fd => share(steps, first, file),
                Origin::Shared(pid, fd) | Origin::Kept(pid, fd) => {
                    self.take(steps, (pid, fd), file)
                }
                Origin::Given(fd) => self.given(steps, fd, file),
                Origin::Master(fd) => {
                    self.have_ours(steps, fd, file);
                    set_flags(steps, file);
                }
                Origin::Own | Origin::OpenedBy(_) => {
                    openings.open(steps, file);
                    fill(steps, file);
                }
            }
        }
    }

    /// The open file description of another process, or one that is kept.
    fn take(&self, steps: &mut Steps, (pid, fd): (i32, i32), file: &File) {
        if pid == self.to.pid {
            share(steps, fd, file);
            return set_flags(steps, file);
        }
        self.have(steps, (pid, fd), file);
        if let FileKind::Socket { .. } = file.kind {
            set_flags(steps, file);
        }
    }

    /// A descriptor of this process's in its place: flags, offset and content are as they are.
    fn given(&self, steps: &mut Steps, fd: i32, file: &File) {
        self.have_ours(steps, fd, file);
        if let FileKind::Pipe {
            content: Queued::Bytes(bytes),
            ..
        } = &file.kind
            && !bytes.is_empty()
        {
            let (target, len) = (&file.target, bytes.len());
            name_once(
                steps,
                format!("{len} bytes that waited in {target}, for which another is given"),
            );
        }
    }

    /// A descriptor of this process's.
    fn have_ours(&self, steps: &mut Steps, fd: i32, file: &File) {
        let Some(lent) = self.kin.lent() else {
            return self.have(steps, (std::process::id().cast_signed(), fd), file);
        };
        let what = format!("{} as it is given", file.fd);
        let args = vec![int(lent), int(F_DUPFD_CLOEXEC), 0.into()];
        steps.call(&*what, libc::SYS_fcntl, args, Want::Save(2));
        self.take_from(steps, &what, fd, file);
    }

    fn have(&self, steps: &mut Steps, (pid, fd): (i32, i32), file: &File) {
        let what = format!("{} as process {pid} has it", file.fd);
        let args = vec![int(pid), 0.into()];
        steps.call(&*what, libc::SYS_pidfd_open, args, Want::Save(2));
        self.take_from(steps, &what, fd, file);
    }

    /// From the process behind the pidfd that is saved as 2, which is closed.
    fn take_from(&self, steps: &mut Steps, what: &str, fd: i32, file: &File) {
        let args = vec![Arg::Saved(2), int(fd), 0.into()];
        steps.call(what, libc::SYS_pidfd_getfd, args, Want::Save(0));
        close_saved(steps, 2);
        move_up(steps, 0, 1, self.above);
        duplicate(steps, 1, file);
        close_saved(steps, 1);
    }
}

/// Moves a saved descriptor to where it is kept.
pub fn keep(steps: &mut Steps, saved: u8, fd: i32) {
    let args = vec![Arg::Saved(saved), int(F_DUPFD_CLOEXEC), int(fd)];
    let want = Want::Exactly(u64::from(fd.cast_unsigned()));
    steps.call("keep it for others", libc::SYS_fcntl, args, want);
    close_saved(steps, saved);
}
