//! A checkpoint, step by step (ARCHITECTURE.md): copy ahead while the target runs, stop, copy the
//! rest, let go, then encode and keep.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use slos::{Base, Draft, Epoch, PageIndex, Partition, Slot, SpaceDelta, SpaceId};
use sls_keeper::rendezvous::Verdict;
use sls_keeper::{Collected, Refusal};
use sls_record::Event;
use sls_sys::procfs::{self, MapLine};
use sls_sys::urgent::{Awake, Urgent};

use crate::copy::Copies;
use crate::error::{CaptureError, KeeperError};
use crate::files;
use crate::former::is_being_let_go;
use crate::keeper::{Quiesced, Read};
use crate::ranges::{Range, gaps, normalise};
use crate::record::{self, Context};
use crate::runs::is_tracked;
use crate::shared;
use crate::space::Found;
use crate::target::{Target, Tracker};

const PAGE: u64 = sls_sys::PAGE;
const STOP_DEADLINE_MS: u32 = 1000;
/// Copying ahead goes on while a round finds more than this many pages, about 1 ms of copying.
const WORTH_A_ROUND: u64 = 512;
const MOST_ROUNDS: usize = 6;
/// An earlier slsd's keeper has a thread for some 100 us at a time.
const FORMER_PATIENCE: Duration = Duration::from_millis(500);
const FORMER_STEP: Duration = Duration::from_millis(2);
/// Times a checkpoint starts over when it meets an exec.
const STARTS: usize = 3;
/// What only injected calls tell is asked anew this often in periodic checkpoints.
const FACTS_EVERY: Duration = Duration::from_secs(1);
/// First address that no user mapping reaches.
const USER_END: u64 = 1 << 47;
/// Staging kept faulted in beyond what the last stop used.
const SPARE_PAGES: usize = 1024;

/// What to take and where to keep it.
pub struct Request<'a> {
    /// Where.
    pub partition: &'a Partition,
    /// On which branch.
    pub branch: &'a str,
    /// Under which name.
    pub name: Option<String>,
    /// Not periodic: ask everything.
    pub explicit: bool,
    /// Why, when something is about to happen.
    pub event: Option<Event>,
    /// Do not let go after it.
    pub stay_stopped: bool,
}

/// A checkpoint that was taken and kept.
#[derive(Debug, Clone)]
pub struct Capture {
    /// Its number.
    pub epoch: Epoch,
    /// Pages that changed.
    pub pages: u64,
    /// Bytes appended.
    pub bytes: u64,
    /// Epochs that retention dropped for it.
    pub dropped: Vec<Epoch>,
    /// Its cost to the target.
    pub cost: StopCost,
}

/// Where the stop's time went, ns.
#[derive(Debug, Clone, Copy, Default)]
pub struct StopCost {
    /// From the first interrupt until the last thread ran again.
    pub stop_ns: u64,
    /// Of that, until the last thread stood still.
    pub quiesce_ns: u64,
    /// Waiting for the map list.
    pub maps_ns: u64,
    /// Scanning and protecting.
    pub scan_ns: u64,
    /// Copying.
    pub copy_ns: u64,
    /// Pages copied under the stop.
    pub copied: u64,
    /// Waiting for the rest of the record, which the keeper reads meanwhile, and letting go.
    pub record_ns: u64,
}

/// What is read while the target stands still, not understood yet.
pub(crate) struct Still {
    pub maps: Arc<[MapLine]>,
    pub found: Found,
    pub shared: Vec<SharedCopy>,
    pub buffers: Vec<Range>,
}

/// Pages of one shared object.
pub(crate) struct SharedCopy {
    pub space: u32,
    pub copies: Copies,
    /// Address minus offset in the object, to number its pages.
    pub shift: u64,
    pub holes: Vec<Range>,
}

impl Target {
    /// Takes a checkpoint and keeps it. The target runs again when this returns, unless asked
    /// otherwise; on error it always does.
    ///
    /// # Errors
    /// The target is gone, did not stop in time, or the log has no room.
    pub fn checkpoint(&mut self, request: Request<'_>) -> Result<Capture, CaptureError> {
        let mut result = self.attempt(&request);
        // A map list that reads empty is an ended process or a replaced program; starting over
        // tells which. It may be replaced once more meanwhile.
        for _ in 0..STARTS {
            match &result {
                // Killed: it let everything go.
                Err(CaptureError::Keeper(KeeperError::Gone(_))) => {
                    self.revive()?;
                    result = self.attempt(&request);
                    continue;
                }
                Err(CaptureError::Dead(_)) => {}
                Err(_) if self.is_another_program() => {}
                _ => break,
            }
            self.start_over()?;
            result = self.attempt(&request);
        }
        result
    }

    fn attempt(&mut self, request: &Request<'_>) -> Result<Capture, CaptureError> {
        let result = self.take(request);
        if result.is_err() {
            self.give_up_tracking();
        }
        result
    }

    /// Pages that changed since the last checkpoint, as far as it can be told while the target runs;
    /// they are copied as well, for the next checkpoint.
    pub(crate) fn look_ahead(&mut self) -> Result<Vec<u64>, CaptureError> {
        let result = self.copy_ahead();
        if result.is_err() {
            self.give_up_tracking();
        }
        result.map(|()| self.copies.indices().collect())
    }

    /// Pages that scans reported were not kept: nobody vouches for them any more.
    fn give_up_tracking(&mut self) {
        self.copies.clear();
        self.staging.reset();
        match &mut self.tracker {
            Tracker::Kernel(space) => space.distrust(),
            Tracker::Content(content) => content.invalidate(),
        }
    }

    fn take(&mut self, request: &Request<'_>) -> Result<Capture, CaptureError> {
        if self.is_dead() {
            return Err(CaptureError::Dead(self.pid));
        }
        let mut wasted_ns = 0;
        loop {
            let (still, collected, mut cost) = self.stop_and_copy(request)?;
            if self.saw_everything(&still)? {
                cost.stop_ns += wasted_ns;
                let states = self.keeper.states(collected)?;
                self.siblings.clone_from(&states.siblings);
                return self.keep(request, still, states, cost);
            }
            // What it copied is as good as copied ahead.
            wasted_ns += cost.stop_ns;
        }
    }

    /// One stop: what it found and copied, the length of the states on the board, its cost.
    fn stop_and_copy(
        &mut self,
        request: &Request<'_>,
    ) -> Result<(Still, u64, StopCost), CaptureError> {
        self.copy_ahead()?;
        let facts = request.explicit || self.facts_are_old();
        let mut cost = StopCost::default();
        let already = self.stopped;
        let lets_go = !(request.stay_stopped || already);
        let awake = Awake::begin();
        let urgent = Urgent::begin();
        let quiesced = self.stop(facts)?;
        cost.quiesce_ns = quiesced.quiesce_ns;
        self.stopped = true;
        self.copies.stop();
        let still = self.read_still(lets_go, &mut cost);
        let may_go = lets_go && !still.as_ref().is_ok_and(has_ring);
        let verdict = if may_go {
            Verdict::LetGo
        } else {
            Verdict::Stay
        };
        let told_ns = sls_sys::monotonic().saturating_sub(quiesced.since_ns);
        let read = self.keeper.collected(verdict);
        let still = still.and_then(|still| self.copy_unvouched(still, &read));
        let gone = read.as_ref().ok().and_then(|read| read.stop_ns);
        if let Some(stop_ns) = gone {
            self.stopped = false;
            cost.stop_ns = stop_ns;
        } else if lets_go || still.is_err() || read.is_err() {
            self.stopped = false;
            cost.stop_ns = self.keeper.resume()?;
        }
        cost.record_ns = cost.stop_ns.saturating_sub(told_ns);
        drop(urgent);
        drop(awake);
        Ok((still?, read?.bytes, cost))
    }

    /// Stops the target; an earlier keeper that has a thread of it for a moment is waited for.
    fn stop(&mut self, facts: bool) -> Result<Quiesced, KeeperError> {
        let deadline = Instant::now() + FORMER_PATIENCE;
        loop {
            match self.keeper.stop(STOP_DEADLINE_MS, facts) {
                Err(KeeperError::Refused {
                    refusal: Refusal::Traced,
                    ..
                }) if is_being_let_go(self.pid) && Instant::now() < deadline => {
                    std::thread::sleep(FORMER_STEP);
                }
                other => return other,
            }
        }
    }

    fn saw_everything(&mut self, still: &Still) -> Result<bool, CaptureError> {
        let pid = self.pid;
        match &mut self.tracker {
            Tracker::Content(_) => Ok(true),
            Tracker::Kernel(space) => {
                space
                    .verify(&still.found)
                    .map_err(|source| CaptureError::System {
                        what: "look at the page tables again",
                        pid,
                        source,
                    })
            }
        }
    }

    /// Copies what changed while the target runs, so that little is left for the stop.
    fn copy_ahead(&mut self) -> Result<(), CaptureError> {
        let pid = self.pid;
        let system = |what| move |source| CaptureError::System { what, pid, source };
        let mut last = if self.fresh { self.resident() } else { 0 };
        for round in 0..MOST_ROUNDS {
            // Before the scan, since the target writes meanwhile. Rounds get shorter, so that what
            // this one leaves is enough for the stop.
            self.reserve(last)?;
            let Tracker::Kernel(space) = &mut self.tracker else {
                return Ok(());
            };
            let maps = self.maps.read().map_err(system("read the mappings"))?;
            let mut dirty = Vec::new();
            space.sweep(&maps, &mut dirty).map_err(system("scan"))?;
            let pages: u64 = dirty.iter().map(|r| (r.1 - r.0) / PAGE).sum();
            self.copies.take(&self.memory, &mut self.staging, &dirty)?;
            // The first tells nothing: it is as long as the time since the last checkpoint.
            if pages < WORTH_A_ROUND || round > 1 && pages > last / 4 * 3 {
                break;
            }
            last = pages;
        }
        self.reserve(0)
    }

    /// Faults in staging for so many pages and a few more.
    fn reserve(&mut self, pages: u64) -> Result<(), CaptureError> {
        let pid = self.pid;
        self.staging
            .reserve(sls_sys::size(pages) + SPARE_PAGES)
            .map_err(|source| CaptureError::Staging { pid, source })
    }

    /// Pages in memory, 0 where nobody can tell.
    fn resident(&self) -> u64 {
        procfs::status(self.pid).map_or(0, |s| s.vm_rss_kib * 1024 / PAGE)
    }

    fn facts_are_old(&self) -> bool {
        let caught = procfs::status(self.pid).map_or(0, |s| s.sig_caught);
        caught != self.told.caught || self.told.at.is_none_or(|at| at.elapsed() > FACTS_EVERY)
    }

    /// Everything that must be read while nothing moves. On the clock.
    ///
    /// Where changes are tracked by the kernel, it goes by the map list as it was a moment ago, while
    /// the keeper reads it as it is; where the two differ it starts over.
    fn read_still(&mut self, quick: bool, cost: &mut StopCost) -> Result<Still, CaptureError> {
        if matches!(self.tracker, Tracker::Kernel(_))
            && let Some(maps) = self.maps.guess()
        {
            let still = self.scan_and_copy(maps, true, quick, cost);
            let clock = Instant::now();
            let list = self.keeper.maps();
            let right = list.is_some_and(|list| self.maps.is(&list));
            cost.maps_ns = ns(clock.elapsed());
            match still {
                Ok(still) if right => {
                    self.settled(&still.found);
                    return Ok(still);
                }
                // By a wrong list, most likely: the true one tells.
                Ok(_) | Err(_) => self.copies.restart(),
            }
        }
        let clock = Instant::now();
        let maps = self.maps.read().map_err(|source| CaptureError::System {
            what: "read the mappings",
            pid: self.pid,
            source,
        })?;
        if maps.is_empty() {
            return Err(CaptureError::Dead(self.pid));
        }
        cost.maps_ns += ns(clock.elapsed());
        let still = self.scan_and_copy(maps, false, quick, cost)?;
        self.settled(&still.found);
        Ok(still)
    }

    fn settled(&mut self, found: &Found) {
        if let Tracker::Kernel(space) = &mut self.tracker {
            space.settled(found);
        }
    }

    /// A target that stays stopped has time for the thorough scan.
    fn scan_and_copy(
        &mut self,
        maps: Arc<[MapLine]>,
        guess: bool,
        quick: bool,
        cost: &mut StopCost,
    ) -> Result<Still, CaptureError> {
        let pid = self.pid;
        let clock = Instant::now();
        let mut found = Found::default();
        match &mut self.tracker {
            Tracker::Kernel(space) => space.settle(&maps, guess, quick, &mut found),
            Tracker::Content(content) => content.settle(&self.memory, &maps, &mut found),
        }
        .map_err(|source| CaptureError::System {
            what: "scan",
            pid,
            source,
        })?;
        if self.fresh {
            let vdso = maps.iter().filter(|m| m.path == "[vdso]");
            found.dirty.extend(vdso.map(|m| (m.start, m.end)));
        }
        normalise(&mut found.dirty);
        let scanned = clock.elapsed();
        let before = self.copies.len();
        self.copies
            .take(&self.memory, &mut self.staging, &found.dirty)?;
        let shared = self.copy_shared(&maps)?;
        cost.scan_ns += ns(scanned);
        cost.copy_ns += ns(clock.elapsed() - scanned);
        cost.copied = (self.copies.len() - before) as u64;
        Ok(Still {
            maps,
            found,
            shared,
            buffers: Vec::new(),
        })
    }

    /// Buffers that the kernel writes behind every scan's back. On the clock, and only then decoded
    /// on it, when the target has a ring at all.
    fn copy_unvouched(
        &mut self,
        mut still: Still,
        read: &Result<Read, KeeperError>,
    ) -> Result<Still, CaptureError> {
        let Some(read) = read.as_ref().ok().filter(|_| has_ring(&still)) else {
            return Ok(still);
        };
        still.buffers = files::unvouched_buffers(&self.keeper.states(read.bytes)?.files);
        normalise(&mut still.buffers);
        self.copies
            .take(&self.memory, &mut self.staging, &still.buffers)?;
        Ok(still)
    }

    fn copy_shared(&mut self, maps: &[MapLine]) -> Result<Vec<SharedCopy>, CaptureError> {
        let pid = self.pid;
        let mut out = Vec::new();
        for map in maps.iter().filter(|m| shared::is_captured(m)) {
            let ranges = shared::populated(pid, map).map_err(|source| CaptureError::System {
                what: "look into shared memory",
                pid,
                source,
            })?;
            let mut copies = Copies::default();
            copies.take(&self.memory, &mut self.staging, &ranges)?;
            let holes = gaps((map.start, map.end), &ranges);
            let shift = map.start.wrapping_sub(map.offset);
            out.push(SharedCopy {
                space: self.objects.space(map),
                copies,
                shift,
                holes,
            });
        }
        Ok(out)
    }

    /// Builds the record, encodes and appends. Off the clock.
    fn keep(
        &mut self,
        request: &Request<'_>,
        still: Still,
        states: Collected,
        cost: StopCost,
    ) -> Result<Capture, CaptureError> {
        let pid = self.pid;
        let time = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let time_ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let record = self.record(request, &still, states, time_ns)?;
        let copies = std::mem::take(&mut self.copies);
        let Still {
            maps,
            found,
            shared,
            ..
        } = &still;
        let pages = copies.merged(&found.absent);
        let mut spaces = vec![SpaceDelta {
            space: SpaceId(0),
            base: if self.fresh || self.parent.is_none() {
                Base::Empty
            } else {
                Base::Parent
            },
            dropped: dropped(maps, &found.absent),
            pages: self.bytes_of(&pages, 0),
        }];
        let known = self.spaces_of_parent(request.partition);
        for part in shared {
            let pages = self.bytes_of(&part.copies.merged(&[]), part.shift);
            add_shared(&mut spaces, part, pages, &known);
        }
        let draft = Draft {
            parent: self.parent,
            branch: request.branch.to_owned(),
            name: request.name.clone(),
            time_ns,
            stop_us: cost.stop_ns.div_ceil(1000),
            record: &record,
            spaces,
            meta: pid.to_le_bytes().to_vec(),
        };
        let committed = request
            .partition
            .commit(&draft)
            .map_err(|source| CaptureError::Commit { pid, source })?;
        self.parent = Some(committed.epoch);
        self.fresh = false;
        if let Tracker::Kernel(space) = &mut self.tracker {
            space.trust();
        }
        self.recycle(pages.len());
        Ok(Capture {
            epoch: committed.epoch,
            pages: committed.pages,
            bytes: committed.bytes,
            dropped: committed.dropped,
            cost,
        })
    }

    fn record(
        &mut self,
        request: &Request<'_>,
        still: &Still,
        mut states: Collected,
        time_ns: u64,
    ) -> Result<Vec<u8>, CaptureError> {
        let pid = self.pid;
        let context = Context {
            pid,
            start_ticks: self.start_ticks,
            time_ns,
            former: &self.former,
            event: request.event.clone(),
            tracking: &self.tracking,
        };
        let (told, objects) = (&mut self.told, &mut self.objects);
        let files = std::mem::take(&mut states.files);
        let record = record::build(context, still, states, told, objects, &mut self.file_times);
        record::finish(record, files, &mut self.sockets).map_err(|source| CaptureError::System {
            what: "encode the record",
            pid,
            source,
        })
    }

    fn spaces_of_parent(&self, partition: &Partition) -> Vec<SpaceId> {
        self.parent
            .and_then(|p| partition.spaces(p).ok())
            .unwrap_or_default()
    }

    fn bytes_of(&self, pages: &[(u64, Slot)], shift: u64) -> Vec<(PageIndex, &[u8])> {
        pages
            .iter()
            .map(|&(page, slot)| {
                let page = page.wrapping_sub(shift / PAGE);
                (PageIndex(page), &self.staging.bytes(slot)[..])
            })
            .collect()
    }

    /// Takes the buffers back; a rare large copy does not stay allocated for ever.
    fn recycle(&mut self, used: usize) {
        self.staging.reset();
        if self.staging.capacity() > 4 * (used + SPARE_PAGES) + (16 << 8) {
            self.staging.shrink(2 * (used + SPARE_PAGES));
        }
    }
}

fn ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn has_ring(still: &Still) -> bool {
    let mut maps = still.maps.iter();
    maps.any(|m| m.path == "anon_inode:[io_uring]")
}

fn add_shared<'a>(
    spaces: &mut Vec<SpaceDelta<'a>>,
    part: &SharedCopy,
    pages: Vec<(PageIndex, &'a [u8])>,
    known: &[SpaceId],
) {
    let space = SpaceId(part.space);
    let offset = |address: u64| PageIndex(address.wrapping_sub(part.shift) / PAGE);
    let dropped = part.holes.iter().map(|h| offset(h.0)..offset(h.1));
    if let Some(delta) = spaces.iter_mut().find(|d| d.space == space) {
        // The same object mapped twice: the same bytes, perhaps other parts of it.
        delta.pages.extend(pages);
        delta.pages.sort_by_key(|p| p.0);
        delta.pages.dedup_by_key(|p| p.0);
        delta.dropped.extend(dropped);
        return;
    }
    let base = if known.contains(&space) {
        Base::Parent
    } else {
        Base::Empty
    };
    spaces.push(SpaceDelta {
        space,
        base,
        dropped: dropped.collect(),
        pages,
    });
}

/// What the process's own page map must not hold: absent pages and everything that is not a
/// tracked mapping.
fn dropped(maps: &[MapLine], absent: &[Range]) -> Vec<std::ops::Range<PageIndex>> {
    let mut own: Vec<Range> = maps
        .iter()
        .filter(|m| is_tracked(m) || m.path == "[vdso]")
        .map(|m| (m.start, m.end))
        .collect();
    normalise(&mut own);
    let mut all = gaps((0, USER_END), &own);
    all.extend_from_slice(absent);
    normalise(&mut all);
    all.into_iter()
        .map(|r| PageIndex(r.0 / PAGE)..PageIndex(r.1 / PAGE))
        .collect()
}
