//! What a checkpoint takes of one process: copied ahead while it runs, then the rest under the stop,
//! then what is made of it for the record and the draft. The order of all that is in `group`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use slos::{Base, PageIndex, Slot, SpaceDelta, SpaceId, Staging};
use sls_keeper::Collected;
use sls_record::Process;
use sls_sys::procfs::{self, MapLine};

use crate::copy::Copies;
use crate::error::{CaptureError, KeeperError};
use crate::files;
use crate::former;
use crate::keeper::{Quiesced, Read};
use crate::probes;
use crate::ranges::{Range, gaps, normalise};
use crate::record::{self, Context};
use crate::runs::is_tracked;
use crate::shared::{self, Spaces, Taken};
use crate::space::Found;
use crate::target::{Target, Tracker};
use crate::unnamed::{self, Bodies};

const PAGE: u64 = sls_sys::PAGE;
const STOP_DEADLINE_MS: u32 = 1000;
/// Copying ahead goes on while a round finds more than this many pages, about 1 ms of copying.
const WORTH_A_ROUND: u64 = 512;
const MOST_ROUNDS: usize = 6;
/// An earlier slsd's keeper has a thread for so long at most, while others may stand still.
const FORMER_PATIENCE: Duration = Duration::from_millis(500);
/// What only injected calls tell is asked anew this often in periodic checkpoints.
const FACTS_EVERY: Duration = Duration::from_secs(1);
/// First address that no user mapping reaches.
const USER_END: u64 = 1 << 47;
/// Staging kept faulted in beyond what the last stop used.
const SPARE_PAGES: usize = 1024;

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

/// How a stop is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stop {
    /// Ask all that only injected calls tell.
    pub everything: bool,
    /// Nobody else is stopped with it: it is let go as soon as it was copied.
    pub alone: bool,
}

/// What the processes of a group have together while they stand still.
pub(crate) struct Common<'a> {
    pub staging: &'a mut Staging,
    pub spaces: &'a mut Spaces,
    /// What others took of shared objects.
    pub taken: &'a Taken,
}

/// One process's part of a checkpoint.
pub(crate) struct Part {
    pub still: Still,
    /// Its own pages.
    pub pages: Vec<(u64, Slot)>,
    /// What its files without a name hold, where it changed.
    pub bodies: Bodies,
}

impl Part {
    /// Spaces of the objects of which it has something.
    pub fn objects(&self) -> impl Iterator<Item = u32> {
        let shared = self.still.shared.iter().map(|copy| copy.space);
        shared.chain(self.bodies.iter().map(|body| body.0))
    }
}

/// Pages of one shared object.
pub(crate) struct SharedCopy {
    pub space: u32,
    /// What of the object was looked at, bytes.
    pub range: Range,
    pub copies: Copies,
    /// Address minus offset in the object, to number its pages.
    pub shift: u64,
    pub holes: Vec<Range>,
}

impl Target {
    /// Pages that changed since the last checkpoint, as far as it can be told while the target runs;
    /// they are copied as well, for the next checkpoint.
    pub(crate) fn look_ahead(&mut self, staging: &mut Staging) -> Result<Vec<u64>, CaptureError> {
        let result = self.copy_ahead(staging);
        if result.is_err() {
            self.give_up_tracking();
        }
        result.map(|()| self.copies.indices().collect())
    }

    /// Pages that scans reported were not kept: nobody vouches for them any more.
    pub(crate) fn give_up_tracking(&mut self) {
        self.copies.clear();
        // Nor for what was told to have changed: the next stop asks everything.
        self.told.at = None;
        match &mut self.tracker {
            Tracker::Kernel(space) => space.distrust(),
            Tracker::Content(content) => content.invalidate(),
        }
    }

    /// Asks it to stop; [`Target::await_stop`] waits until it has.
    pub(crate) fn ask_to_stop(&mut self, how: Stop) -> Result<(), KeeperError> {
        let facts = how.everything || self.facts_are_old();
        let alone = how.alone;
        self.keeper.ask_to_stop(STOP_DEADLINE_MS, facts, alone)
    }

    /// Waits for the stop that was asked for; an earlier keeper that has a thread of it for a moment
    /// is waited for.
    pub(crate) fn await_stop(&mut self, how: Stop) -> Result<Quiesced, KeeperError> {
        let mut again = false;
        let pid = self.pid;
        let attempt = || {
            if std::mem::replace(&mut again, true) {
                self.ask_to_stop(how)?;
            }
            self.keeper.await_stop()
        };
        let stopped = former::patiently(pid, FORMER_PATIENCE, attempt, former::is_traced);
        let quiesced = stopped?;
        self.stopped = true;
        self.since_ns = quiesced.since_ns;
        self.copies.stop();
        Ok(quiesced)
    }

    /// After the stop: did the scans of it see everything? To be called once.
    pub(crate) fn saw_everything(&mut self, still: &Still) -> Result<bool, CaptureError> {
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
    pub(crate) fn copy_ahead(&mut self, staging: &mut Staging) -> Result<(), CaptureError> {
        let pid = self.pid;
        let system = |what| move |source| CaptureError::System { what, pid, source };
        let mut last = if self.fresh { self.resident() } else { 0 };
        for round in 0..MOST_ROUNDS {
            // Before the scan, since the target writes meanwhile. Rounds get shorter, so that what
            // this one leaves is enough for the stop.
            self.reserve(staging, last)?;
            let Tracker::Kernel(space) = &mut self.tracker else {
                return Ok(());
            };
            let maps = self.maps.read().map_err(system("read the mappings"))?;
            let mut dirty = Vec::new();
            space.sweep(&maps, &mut dirty).map_err(system("scan"))?;
            let pages: u64 = dirty.iter().map(|r| (r.1 - r.0) / PAGE).sum();
            self.copies.take(&self.memory, staging, &dirty)?;
            probes::ahead(pid, round as u64, pages);
            // The first tells nothing: it is as long as the time since the last checkpoint.
            if pages < WORTH_A_ROUND || round > 1 && pages > last / 4 * 3 {
                break;
            }
            last = pages;
        }
        self.reserve(staging, 0)
    }

    /// Faults in staging for so many pages and a few more.
    fn reserve(&self, staging: &mut Staging, pages: u64) -> Result<(), CaptureError> {
        let pid = self.pid;
        staging
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
    pub(crate) fn read_still(
        &mut self,
        quick: bool,
        common: &mut Common<'_>,
        cost: &mut StopCost,
    ) -> Result<Still, CaptureError> {
        if matches!(self.tracker, Tracker::Kernel(_))
            && let Some(maps) = self.maps.guess()
        {
            let still = self.scan_and_copy((maps, true), quick, common, cost);
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
        let still = self.scan_and_copy((maps, false), quick, common, cost)?;
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
        (maps, guess): (Arc<[MapLine]>, bool),
        quick: bool,
        common: &mut Common<'_>,
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
        probes::scanned(pid, || found.dirty.iter().map(|r| (r.1 - r.0) / PAGE).sum());
        let before = self.copies.len();
        self.copies
            .take(&self.memory, common.staging, &found.dirty)?;
        let shared = self.copy_shared(&maps, common)?;
        cost.scan_ns += ns(scanned);
        cost.copy_ns += ns(clock.elapsed() - scanned);
        cost.copied = (self.copies.len() - before) as u64;
        probes::copied(pid, cost.copied);
        Ok(Still {
            maps,
            found,
            shared,
            buffers: Vec::new(),
        })
    }

    /// Buffers that the kernel writes behind every scan's back. On the clock, and only then decoded
    /// on it, when the target has a ring at all.
    pub(crate) fn copy_unvouched(
        &mut self,
        mut still: Still,
        read: Read,
        staging: &mut Staging,
    ) -> Result<Still, CaptureError> {
        if !has_ring(&still) {
            return Ok(still);
        }
        still.buffers = files::unvouched_buffers(&self.keeper.states(read.bytes)?.files);
        normalise(&mut still.buffers);
        self.copies.take(&self.memory, staging, &still.buffers)?;
        Ok(still)
    }

    fn copy_shared(
        &mut self,
        maps: &[MapLine],
        common: &mut Common<'_>,
    ) -> Result<Vec<SharedCopy>, CaptureError> {
        let pid = self.pid;
        let mut out = Vec::new();
        for map in maps.iter().filter(|m| shared::is_captured(m)) {
            let space = common.spaces.of_object(map);
            let range = (map.offset, map.offset + (map.end - map.start));
            if common.taken.has(space, range) {
                continue; // By another process of the group.
            }
            let ranges = shared::populated(pid, map).map_err(|source| CaptureError::System {
                what: "look into shared memory",
                pid,
                source,
            })?;
            let mut copies = Copies::default();
            copies.take(&self.memory, common.staging, &ranges)?;
            let holes = gaps((map.start, map.end), &ranges);
            let shift = map.start.wrapping_sub(map.offset);
            out.push(SharedCopy {
                space,
                range,
                copies,
                shift,
                holes,
            });
        }
        Ok(out)
    }

    /// Its part of the record. Off the clock.
    pub(crate) fn process(
        &mut self,
        still: &Still,
        mut states: Collected,
        (time_ns, explicit): (u64, bool),
        spaces: &mut Spaces,
    ) -> (Process, Bodies) {
        let context = Context {
            pid: self.pid,
            start_ticks: self.start_ticks,
            time_ns,
            former: &self.former,
            space: self.space,
            tracking: &self.tracking,
            explicit,
        };
        let mut files = std::mem::take(&mut states.files);
        let (nameless, bodies) = unnamed::take(&mut files, &still.maps, spaces);
        let mut process = record::build(
            context,
            still,
            states,
            &mut self.told,
            spaces,
            &mut self.file_times,
        );
        if explicit {
            self.watches.forget();
        }
        let (sockets, watches) = (&mut self.sockets, &mut self.watches);
        process.files = files::understand(files, self.pid, sockets, watches);
        unnamed::note(&mut process.files, nameless);
        (process, bodies)
    }

    /// What of its memory goes into the draft.
    pub(crate) fn deltas<'a>(
        &'a self,
        part: &'a Part,
        staging: &'a Staging,
        base: Base,
        known: &[SpaceId],
        spaces: &mut Vec<SpaceDelta<'a>>,
    ) {
        let Still {
            maps,
            found,
            shared,
            ..
        } = &part.still;
        spaces.push(SpaceDelta {
            space: SpaceId(self.space),
            base,
            dropped: dropped(maps, &found.absent),
            pages: bytes_of(staging, &part.pages, 0),
        });
        for object in shared {
            let pages = bytes_of(staging, &object.copies.merged(&[]), object.shift);
            add_shared(spaces, object, pages, known);
        }
    }

    /// The checkpoint is kept.
    pub(crate) fn kept(&mut self) {
        self.fresh = false;
        self.fork_of = None;
        if let Tracker::Kernel(space) = &mut self.tracker {
            space.trust();
        }
    }
}

fn bytes_of<'a>(
    staging: &'a Staging,
    pages: &[(u64, Slot)],
    shift: u64,
) -> Vec<(PageIndex, &'a [u8])> {
    let bytes = |&(page, slot): &(u64, Slot)| {
        let page = page.wrapping_sub(shift / PAGE);
        (PageIndex(page), &staging.bytes(slot)[..])
    };
    pages.iter().map(bytes).collect()
}

/// Takes the buffers back; a rare large copy does not stay allocated for ever.
pub(crate) fn recycle(staging: &mut Staging, used: usize) {
    staging.reset();
    if staging.capacity() > 4 * (used + SPARE_PAGES) + (16 << 8) {
        staging.shrink(2 * (used + SPARE_PAGES));
    }
}

pub(crate) fn ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

pub(crate) fn has_ring(still: &Still) -> bool {
    let mut maps = still.maps.iter();
    maps.any(|m| m.path == "anon_inode:[io_uring]")
}

fn add_shared<'a>(
    spaces: &mut Vec<SpaceDelta<'a>>,
    part: &SharedCopy,
    pages: Vec<(PageIndex, &'a [u8])>,
    known: &[SpaceId],
) {
    let offset = |address: u64| PageIndex(address.wrapping_sub(part.shift) / PAGE);
    let dropped = part.holes.iter().map(|h| offset(h.0)..offset(h.1));
    unnamed::add_to(spaces, SpaceId(part.space), pages, dropped, known);
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
