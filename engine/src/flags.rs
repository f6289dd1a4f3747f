//! What of mappings is told by /proc/PID/smaps only: what is locked, what was advised, which have
//! protection keys, and which grow down.

use std::time::{Duration, Instant};

use sls_record::Advice;
use sls_sys::pagemap;
use sls_sys::procfs::MapLine;
use sls_sys::smaps::{self, Flagged};

/// In periodic checkpoints it is read so rarely that it takes no more than this part of the time.
const SHARE: u32 = 200;

/// As they were read last.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// By address.
    all: Vec<Flagged>,
    guards: Vec<(u64, u64)>,
    /// Not before then again.
    next: Option<Instant>,
    unlocked: bool,
}

impl Flags {
    /// Reads them when it is time, or at once. Off the clock: the kernel walks all page tables for it.
    pub fn read(&mut self, pid: i32, at_once: bool) {
        let begun = Instant::now();
        if !at_once && self.next.is_some_and(|next| begun < next) {
            return;
        }
        // One that has ended since has those it had.
        if let Ok(all) = smaps::read(pid) {
            self.all = all;
        }
        if let Ok(guards) = pagemap::guards(pid) {
            self.guards = guards;
        }
        let took: Duration = begun.elapsed();
        self.next = Some(begun + took * SHARE);
        self.unlocked = false;
    }

    /// As its status tells.
    pub fn nothing_is_locked(&mut self) {
        self.unlocked = true;
    }

    fn at(&self, map: &MapLine) -> Option<&Flagged> {
        let at = self.all.partition_point(|f| f.end <= map.start);
        let found = self.all.get(at);
        found.filter(|f| f.start <= map.start && map.end <= f.end)
    }

    fn of(&self, map: &MapLine) -> &[[u8; 2]] {
        self.at(map).map_or(&[], |f| &f.flags)
    }

    /// Where memory has guards (MADV_GUARD_INSTALL).
    pub fn guards(&self) -> &[(u64, u64)] {
        &self.guards
    }

    /// MAP_GROWSDOWN.
    pub fn grows_down(&self, map: &MapLine) -> bool {
        self.of(map).contains(b"gd")
    }

    /// pkey_mprotect(2).
    pub fn key(&self, map: &MapLine) -> u8 {
        self.at(map).map_or(0, |f| f.key)
    }

    /// mlock(2).
    pub fn is_locked(&self, map: &MapLine) -> bool {
        !self.unlocked && self.of(map).contains(b"lo")
    }

    /// madvise(2).
    pub fn advice(&self, map: &MapLine) -> Vec<Advice> {
        let advice = |flag: &[u8; 2]| match flag {
            b"dd" => Some(Advice::NotDumped),
            b"dc" => Some(Advice::NotForked),
            b"wf" => Some(Advice::WipedOnFork),
            b"hg" => Some(Advice::HugePages),
            b"nh" => Some(Advice::NoHugePages),
            b"mg" => Some(Advice::Mergeable),
            b"rr" => Some(Advice::Random),
            b"sr" => Some(Advice::Sequential),
            _ => None,
        };
        self.of(map).iter().filter_map(advice).collect()
    }
}
