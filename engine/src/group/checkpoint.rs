//! A checkpoint, step by step (ARCHITECTURE.md): copy ahead while the targets run, stop them all,
//! copy the rest, let go, then encode and keep.

use std::time::{SystemTime, UNIX_EPOCH};

use slos::{Base, Draft, Epoch, Partition, SpaceId};
use sls_keeper::Collected;
use sls_keeper::rendezvous::Verdict;
use sls_record::{Event, Record};
use sls_sys::urgent::{Awake, Urgent};

use super::Group;
use crate::capture::{Common, Part, Still, Stop, StopCost, has_ring, recycle};
use crate::error::{AttachError, CaptureError, KeeperError};
use crate::probes;
use crate::shared::Taken;
use crate::target::Target;
use crate::unnamed;

/// Times a checkpoint starts over when it meets an exec, or an end.
const STARTS: usize = 3;
/// Times it looks for those that were born while the last ones joined.
const LOOKS: usize = 16;

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
    /// They stand still only until whoever started them lets them run: it says that they run.
    pub begins: bool,
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

/// What failed, and with which member.
struct Failed {
    member: usize,
    error: CaptureError,
}

impl Failed {
    fn of<E: Into<CaptureError>>(member: usize) -> impl FnOnce(E) -> Self {
        move |error| Self {
            member,
            error: error.into(),
        }
    }
}

/// What was read of each member under a stop, and how long its states on the board are.
type Stills = Vec<(Still, u64)>;

impl Group {
    /// Takes a checkpoint and keeps it. Everybody runs again when this returns, unless asked
    /// otherwise; on error they always do.
    ///
    /// # Errors
    /// The target is gone, did not stop in time, or the log has no room.
    pub fn checkpoint(&mut self, request: Request<'_>) -> Result<Capture, CaptureError> {
        let mut result = self.attempt(&request);
        for _ in 0..STARTS * self.members.len() {
            match &result {
                Err(failed) if self.mend(failed)? => result = self.attempt(&request),
                _ => break,
            }
        }
        result.map_err(|failed| failed.error)
    }

    /// Finds out whether what failed was an exec, an end or a killed keeper: then it is worth
    /// another attempt.
    fn mend(&mut self, failed: &Failed) -> Result<bool, CaptureError> {
        let others = self.members.len() > 1;
        let Some(member) = self.members.get_mut(failed.member) else {
            return Ok(false);
        };
        let mended = match &failed.error {
            // Killed: it let everything go.
            CaptureError::Keeper(KeeperError::Gone(_)) => {
                member.revive().map_err(CaptureError::from)
            }
            // A map list that reads empty is an ended process or a replaced program; starting over
            // tells which. It may be replaced once more meanwhile.
            CaptureError::Dead(_) => member.start_over(),
            _ if member.is_another_program() => member.start_over(),
            _ => return Ok(false),
        };
        if mended.is_err() && others && member.ends_soon() {
            self.bury_at(failed.member);
            return Ok(true);
        }
        mended.map(|()| true)
    }

    fn attempt(&mut self, request: &Request<'_>) -> Result<Capture, Failed> {
        let result = self.take(request);
        if result.is_err() {
            self.members.iter_mut().for_each(Target::give_up_tracking);
            self.staging.reset();
        }
        result
    }

    fn take(&mut self, request: &Request<'_>) -> Result<Capture, Failed> {
        self.is_dead().map_err(Failed::of(0))?;
        let mut wasted_ns = 0;
        loop {
            let (stills, mut cost) = self.stop_and_copy(request)?;
            let mut sure = true;
            for (at, (member, (still, _))) in self.members.iter_mut().zip(&stills).enumerate() {
                sure &= member.saw_everything(still).map_err(Failed::of(at))?;
            }
            if sure {
                cost.stop_ns += wasted_ns;
                return self.keep(request, stills, cost);
            }
            // What it copied is as good as copied ahead.
            wasted_ns += cost.stop_ns;
        }
    }

    /// One stop of all: what it found and copied, and its cost.
    fn stop_and_copy(&mut self, request: &Request<'_>) -> Result<(Stills, StopCost), Failed> {
        let joining = |error| Failed::of(usize::MAX)(CaptureError::Joining(error));
        self.meet_newcomers().map_err(joining)?;
        for (at, member) in self.members.iter_mut().enumerate() {
            member
                .copy_ahead(&mut self.staging)
                .map_err(Failed::of(at))?;
        }
        self.find_connections(request.explicit)?;
        let mut cost = StopCost::default();
        let lets_go = !(request.stay_stopped || self.is_stopped());
        let awake = Awake::begin();
        let urgent = Urgent::begin();
        let pid = self.members[0].pid;
        probes::stop_requested(pid);
        let result = self.stop_all(request.explicit, &mut cost);
        if result.is_ok() {
            probes::stop_reached(pid);
        }
        // Whoever stands still for something that nobody has heard of yet goes on once it is heard.
        let lets_go = lets_go && !self.has_event();
        let result = result.and_then(|alone| self.read_all(alone, lets_go, &mut cost));
        if (lets_go || result.is_err()) && self.is_stopped() {
            let resumed = self.resume_all();
            let resumed = resumed.map_err(|(at, error)| Failed::of(at)(error));
            if result.is_ok() {
                cost.stop_ns += resumed?; // Else the first cause is the one that is told.
            }
        }
        probes::resumed(pid);
        let (stills, told_ns) = result?;
        cost.record_ns = cost.stop_ns.saturating_sub(told_ns);
        drop(urgent);
        drop(awake);
        Ok((stills, cost))
    }

    /// Tells the keepers which connections to look at.
    fn find_connections(&mut self, explicit: bool) -> Result<(), Failed> {
        let pids: Vec<i32> = self.members.iter().map(|m| m.pid).collect();
        if let Some(found) = self.connections.look(&pids, explicit) {
            for (member, ends) in self.members.iter_mut().zip(found) {
                member.sockets.within = ends;
            }
        }
        for (at, member) in self.members.iter_mut().enumerate() {
            let inodes = member.sockets.within.keys().copied().collect();
            let looks = member.notes.look_at(&mut member.keeper, inodes);
            looks.map_err(Failed::of(at))?;
        }
        Ok(())
    }

    /// Stops everybody, those included that were born until they all stood still. True: the one that is
    /// there has told of its states already.
    fn stop_all(&mut self, everything: bool, cost: &mut StopCost) -> Result<bool, Failed> {
        let mut from = 0;
        let mut together = false;
        for _ in 0..LOOKS {
            let alone = self.members.len() == 1 && !together;
            self.stop_from(from, Stop { everything, alone }, cost)?;
            from = self.members.len();
            let met = self.meet_newcomers();
            let joining = |error: AttachError| Failed::of(usize::MAX)(CaptureError::Joining(error));
            let met = met.map_err(joining)?;
            if !(met.joined || alone && met.ended) {
                return Ok(alone);
            }
            if alone {
                // What it shares was read before the others stood still, or had ended.
                together = true;
                let again = |(at, error)| Failed::of(at)(error);
                cost.stop_ns += self.resume_all().map_err(again)?;
                from = 0;
            }
        }
        let error = CaptureError::Crowd(self.members[0].pid);
        Err(Failed::of(usize::MAX)(error))
    }

    /// Stops the members from this one on.
    fn stop_from(&mut self, from: usize, how: Stop, cost: &mut StopCost) -> Result<(), Failed> {
        let mut failed = None;
        let mut asked = Vec::new();
        for (at, member) in self.members.iter_mut().enumerate().skip(from) {
            match member.ask_to_stop(how) {
                Ok(()) => asked.push(at),
                Err(error) => failed = failed.or(Some(Failed::of(at)(error))),
            }
        }
        for at in asked {
            match self.members[at].await_stop(how) {
                Ok(quiesced) => {
                    let since = self.members[0].since_ns;
                    let still_ns = quiesced.since_ns + quiesced.quiesce_ns;
                    cost.quiesce_ns = cost.quiesce_ns.max(still_ns.saturating_sub(since));
                }
                Err(error) => failed = failed.or(Some(Failed::of(at)(error))),
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Reads all that must be read while nothing moves; with it comes how long after the first
    /// interrupt the keepers were told what is to become of the targets. One that is alone may be
    /// let go by that.
    fn read_all(
        &mut self,
        alone: bool,
        lets_go: bool,
        cost: &mut StopCost,
    ) -> Result<(Stills, u64), Failed> {
        let mut stills = Vec::with_capacity(self.members.len());
        let mut failed = None;
        for (at, member) in self.members.iter_mut().enumerate().filter(|_| !alone) {
            member.keeper.ask_to_collect().map_err(Failed::of(at))?;
        }
        let mut taken = Taken::default();
        for (at, member) in self.members.iter_mut().enumerate() {
            let mut common = Common {
                staging: &mut self.staging,
                spaces: &mut self.spaces,
                taken: &taken,
            };
            match member.read_still(lets_go, &mut common, cost) {
                Ok(still) => {
                    for object in &still.shared {
                        taken.take(object.space, object.range);
                    }
                    stills.push(still);
                }
                Err(error) => {
                    failed = Some(Failed::of(at)(error));
                    break;
                }
            }
        }
        self.find_zombies();
        let verdict = match &failed {
            None if alone && lets_go && !stills.iter().any(has_ring) => Verdict::LetGo,
            _ => Verdict::Stay,
        };
        let told_ns = sls_sys::monotonic().saturating_sub(self.members[0].since_ns);
        let mut reads = Vec::with_capacity(stills.len());
        for (at, member) in self.members.iter_mut().enumerate() {
            match member.keeper.collected(verdict) {
                Ok(read) => {
                    if let Some(stop_ns) = read.stop_ns {
                        member.stopped = false;
                        cost.stop_ns += stop_ns;
                    }
                    reads.push(read);
                }
                Err(error) => failed = failed.or(Some(Failed::of(at)(error))),
            }
        }
        if let Some(failed) = failed {
            return Err(failed);
        }
        let mut whole = Vec::with_capacity(stills.len());
        for (at, (still, read)) in stills.into_iter().zip(reads).enumerate() {
            let member = &mut self.members[at];
            let still = member
                .copy_unvouched(still, read, &mut self.staging)
                .map_err(Failed::of(at))?;
            whole.push((still, read.bytes));
        }
        Ok((whole, told_ns))
    }

    /// Builds the record, encodes and appends. Off the clock.
    fn keep(
        &mut self,
        request: &Request<'_>,
        stills: Stills,
        cost: StopCost,
    ) -> Result<Capture, Failed> {
        let time = SystemTime::now().duration_since(UNIX_EPOCH);
        let time_ns = u64::try_from(time.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX);
        let mut processes = Vec::with_capacity(stills.len());
        let mut parts = Vec::with_capacity(stills.len());
        for (at, (mut still, bytes)) in stills.into_iter().enumerate() {
            let member = &mut self.members[at];
            let states: Collected = member.keeper.states(bytes).map_err(Failed::of(at))?;
            member.siblings.clone_from(&states.siblings);
            let when = (time_ns, request.explicit);
            let (process, bodies) = member.process(&still, states, when, &mut self.spaces);
            processes.push(process);
            let mut pages = std::mem::take(&mut member.copies).merged(&still.found.absent);
            let found = &mut still.found;
            member
                .traps
                .leave_out(&mut pages, &self.staging, &mut found.absent);
            parts.push(Part {
                still,
                pages,
                bodies,
            });
        }
        let known = self.spaces_of_parent(request.partition);
        let there = known.iter().map(|space| space.0);
        let there = there.chain(parts.iter().flat_map(Part::objects)).collect();
        unnamed::check(&mut processes, &there);
        self.descriptions.note_shared(&mut processes);
        if request.begins {
            processes.iter_mut().for_each(|p| p.stopped = false);
        }
        let event = request.event.clone();
        let record = Record {
            event,
            processes,
            ended: self.zombies.clone(),
            renamed: self.renamed.clone(),
            taken_ns: sls_sys::boottime_of(self.members[0].since_ns),
            is_family: self.descendants.is_some(),
        };
        let pid = self.members[0].pid;
        let encoded = sls_record::encode(&record).map_err(|source| {
            Failed::of(0)(CaptureError::System {
                what: "encode the record",
                pid,
                source: std::io::Error::other(source),
            })
        })?;
        probes::recorded(pid, encoded.len() as u64);
        let mut spaces = Vec::new();
        for (member, part) in self.members.iter().zip(&parts) {
            let base = self.base_of(member, &known);
            member.deltas(part, &self.staging, base, &known, &mut spaces);
        }
        for part in &parts {
            unnamed::add(&mut spaces, &record.processes, &part.bodies, &known);
        }
        let pids = self.members.iter().flat_map(|m| m.pid.to_le_bytes());
        let draft = Draft {
            parent: self.parent,
            branch: request.branch.to_owned(),
            name: request.name.clone(),
            time_ns,
            stop_us: cost.stop_ns.div_ceil(1000),
            record: &encoded,
            spaces,
            meta: pids.collect(),
        };
        let committed = request.partition.commit(&draft);
        let committed = committed
            .map_err(|source| CaptureError::Commit { pid, source })
            .map_err(Failed::of(usize::MAX))?;
        probes::checkpoint(pid, cost.stop_ns, committed.pages, committed.bytes);
        self.parent = Some(committed.epoch);
        self.members.iter_mut().for_each(Target::kept);
        let used = parts.iter().map(|part| part.pages.len()).sum();
        recycle(&mut self.staging, used);
        Ok(Capture {
            epoch: committed.epoch,
            pages: committed.pages,
            bytes: committed.bytes,
            dropped: committed.dropped,
            cost,
        })
    }

    /// What a member's page map starts from.
    fn base_of(&self, member: &Target, known: &[SpaceId]) -> Base {
        let has = |space: u32| known.contains(&SpaceId(space));
        match member.fork_of {
            _ if self.parent.is_none() => Base::Empty,
            Some(space) if has(space) => Base::Fork(SpaceId(space)),
            _ if member.fresh || !has(member.space) => Base::Empty,
            _ => Base::Parent,
        }
    }

    fn spaces_of_parent(&self, partition: &Partition) -> Vec<SpaceId> {
        self.parent
            .and_then(|p| partition.spaces(p).ok())
            .unwrap_or_default()
    }
}
