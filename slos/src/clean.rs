//! The cleaner: copies what lives out of sparse segments, so that they can be removed.

use std::collections::BTreeMap;

use crate::codec::Encoding;
use crate::error::{PageFault, ReadError, WriteError};
use crate::format::RecordType;
use crate::index::Index;
use crate::log::{Loc, Subject};
use crate::manifest::{Manifest, ManifestSpace};
use crate::pages::{PageRow, PagesWriter};
use crate::partition::{load, segment};
use crate::probes;
use crate::store::{Shared, Writer};
use crate::tree::{History, Node, SpaceNode};
use crate::versions::Value;
use crate::{Epoch, PAGE, SegmentId};

/// A segment is cleaned when at least this part of it is dead.
const WORTH: u64 = 16;
/// Segments cleaned after one commit when no budget presses.
const AT_LEISURE: usize = 2;
/// With fewer slots left for checkpoints a segment is cleaned after each.
const FEW_SLOTS: u64 = 4;

impl Shared {
    /// Removes dead segments, and cleans a few when more than half of the log is dead.
    pub(crate) fn reclaim(&self, writer: &mut Writer) -> Result<(), WriteError> {
        self.remove_dead(writer)?;
        let few = writer.log.slots_left().is_some_and(|left| left < FEW_SLOTS);
        if few && self.gains_a_slot(writer)? {
            self.clean_one(writer)?;
        }
        let slack = 2 * u64::from(writer.log.segment_size());
        for _ in 0..AT_LEISURE {
            let (files, live) = {
                let index = self.read()?;
                (index.versions.file_bytes(), index.versions.live_bytes())
            };
            if files <= 2 * live + slack || !self.clean_one(writer)? {
                break;
            }
        }
        Ok(())
    }

    /// On a medium of slots: is so much dead, or unused, in those that are taken that copying what lives
    /// together can give one back?
    pub(crate) fn gains_a_slot(&self, writer: &Writer) -> Result<bool, WriteError> {
        let index = self.read()?;
        let size = u64::from(writer.log.segment_size());
        let taken = index.versions.segments.len() as u64 * size;
        Ok(taken.saturating_sub(index.versions.live_bytes()) >= 3 * size)
    }

    /// Cleans the segment that pays best; `false` when none is worth it, or there is no room to
    /// copy what lives in it.
    pub(crate) fn clean_one(&self, writer: &mut Writer) -> Result<bool, WriteError> {
        let before = writer.log.making_room(true);
        let cleaned = self.clean_a_segment(writer);
        writer.log.making_room(before);
        cleaned
    }

    fn clean_a_segment(&self, writer: &mut Writer) -> Result<bool, WriteError> {
        let room = writer.log.room_to_clean();
        let mut victim = self.read()?.victim(writer.log.active(), room);
        if victim.is_none() {
            // What is dead may all be in the segment that is being written.
            let active = writer.log.active();
            let worth = |a| self.read().is_ok_and(|i| i.is_worth_cleaning(a, room));
            if !active.is_some_and(worth) {
                return Ok(false);
            }
            writer.log.seal()?;
            victim = active;
        }
        let Some(victim) = victim else {
            return Ok(false);
        };
        self.clean_victim(writer, victim)
    }

    /// Copies what lives in a segment elsewhere, so that it goes; `false` when it is not there.
    fn clean_victim(&self, writer: &mut Writer, victim: SegmentId) -> Result<bool, WriteError> {
        let last_lsn = match self.read()?.versions.segments.get(&victim) {
            Some(entry) => entry.segment.last_lsn(),
            None => return Ok(false),
        };
        if last_lsn >= writer.filed.first_lsn {
            self.file_catalogue(writer)?;
        }
        tracing::debug!(%victim, "cleaning");
        if !self.evacuate(writer, victim)? {
            if let Some(entry) = self.write()?.versions.segments.get_mut(&victim) {
                entry.stuck = true;
            }
            return Ok(true);
        }
        self.write()?.cleaned += 1;
        probes::cleaned(victim.0.into());
        self.remove_dead(writer)?;
        Ok(true)
    }

    /// Empties segments, however much lives in them.
    pub(crate) fn empty(
        &self,
        writer: &mut Writer,
        segments: &[SegmentId],
    ) -> Result<(), WriteError> {
        let before = writer.log.making_room(true);
        let mut done = Ok(());
        for &segment in segments {
            done = done.and_then(|()| self.clean_victim(writer, segment).map(|_| ()));
        }
        writer.log.making_room(before);
        done?;
        writer.log.sync()
    }

    /// Writes a checkpoint's manifest anew from the index, as a difference from what is above it
    /// now, so that the manifests it had absorbed are dead.
    pub(crate) fn rewrite_manifest(
        &self,
        writer: &mut Writer,
        id: u32,
        epoch: Epoch,
    ) -> Result<(), WriteError> {
        let payload = match self.read()?.current_manifest(id, epoch) {
            Some(manifest) => manifest.encode(),
            None => return Ok(()),
        };
        let subject = Subject {
            kind: RecordType::Epoch,
            epoch: epoch.0,
            partition: id,
        };
        let locs = writer.log.append_split(subject, &payload)?;
        self.adopt_segments(writer)?;
        writer.filed.since += length(&locs);
        self.replace_locs(id, epoch, &locs, |node| {
            let mut old = std::mem::replace(&mut node.manifest, locs.clone());
            old.append(&mut node.absorbed);
            old
        })
    }

    fn remove_dead(&self, writer: &mut Writer) -> Result<(), WriteError> {
        let active = writer.log.active();
        let before = writer.filed.first_lsn;
        let dead: Vec<SegmentId> = {
            let index = self.read()?;
            let all = index.versions.segments.iter();
            let dead = all.filter(|(id, entry)| {
                entry.live == 0 && Some(**id) != active && entry.segment.last_lsn() < before
            });
            dead.map(|(&id, _)| id).collect()
        };
        if !dead.is_empty() {
            // What says that nothing of them is needed has to last before they go.
            writer.log.sync()?;
        }
        for id in dead {
            writer.log.remove(id)?;
            self.write()?.versions.segments.remove(&id);
        }
        Ok(())
    }

    /// Copies all that lives out of a segment; `false` when damage keeps some of it there.
    fn evacuate(&self, writer: &mut Writer, victim: SegmentId) -> Result<bool, WriteError> {
        let sound = self.move_bodies(writer, victim)?;
        let moved = self.move_records(writer, victim)?;
        Ok(sound && moved)
    }

    fn move_bodies(&self, writer: &mut Writer, victim: SegmentId) -> Result<bool, WriteError> {
        let mut owners: BTreeMap<u32, Vec<(u64, Value)>> = BTreeMap::new();
        for (value, version) in self.read()?.versions.iter() {
            if version.segment == victim && version.encoding != Encoding::Lost {
                let owned = owners.entry(version.owner).or_default();
                owned.push((version.uid, value));
            }
        }
        let mut sound = true;
        for (owner, mut values) in owners {
            values.sort_unstable();
            let mut out = PagesWriter::new(owner);
            let mut moved = Vec::with_capacity(values.len());
            for (_, value) in values {
                let mut buffer = [0; PAGE];
                let (row, body) = match self.read()?.stored(value, &mut buffer) {
                    Ok((row, len)) => (row, &buffer[..len]),
                    Err(fault) => {
                        tracing::warn!(%victim, %fault, "left where it is");
                        sound = false;
                        continue;
                    }
                };
                out.add(&mut writer.log, row, body)?;
                moved.push(value);
            }
            out.flush(&mut writer.log)?;
            writer.filed.since += out.appended;
            self.adopt_segments(writer)?;
            let mut index = self.write()?;
            for (value, (segment, offset)) in moved.into_iter().zip(out.placed()) {
                index.versions.moved(value, segment, offset);
            }
        }
        Ok(sound)
    }

    fn move_records(&self, writer: &mut Writer, victim: SegmentId) -> Result<bool, WriteError> {
        let (manifests, records) = self.read()?.records_in(victim);
        for (id, epoch) in manifests {
            self.rewrite_manifest(writer, id, epoch)?;
        }
        let mut sound = true;
        for (id, epoch) in records {
            sound &= self.move_record(writer, id, epoch)?;
        }
        Ok(sound)
    }

    fn move_record(&self, writer: &mut Writer, id: u32, epoch: Epoch) -> Result<bool, WriteError> {
        let parts = {
            let index = self.read()?;
            let node = index.node(id, epoch);
            let locs = node.map_or(&[][..], |n| &n.record);
            locs.iter()
                .map(|&l| (segment(&index, l), l))
                .collect::<Vec<_>>()
        };
        let payload = match load(&parts) {
            Ok(payload) => payload,
            Err(fault) => {
                tracing::warn!(%epoch, %fault, "the record is left where it is");
                return Ok(false);
            }
        };
        let subject = Subject {
            kind: RecordType::Blob,
            epoch: epoch.0,
            partition: id,
        };
        let locs = writer.log.append_split(subject, &payload)?;
        self.adopt_segments(writer)?;
        writer.filed.since += length(&locs);
        self.replace_locs(id, epoch, &locs, |node| {
            std::mem::replace(&mut node.record, locs.clone())
        })?;
        Ok(true)
    }

    fn replace_locs(
        &self,
        id: u32,
        epoch: Epoch,
        new: &[Loc],
        swap: impl FnOnce(&mut Node) -> Vec<Loc>,
    ) -> Result<(), WriteError> {
        let mut guard = self.write()?;
        let index = &mut *guard;
        let history = index.histories.get_mut(&id);
        if let Some(old) = history.and_then(|h| h.edit(epoch, swap)) {
            new.iter().for_each(|&loc| index.versions.charge(loc));
            old.into_iter()
                .for_each(|loc| index.versions.discharge(loc));
        }
        Ok(())
    }
}

impl Index {
    fn node(&self, id: u32, epoch: Epoch) -> Option<&Node> {
        self.histories.get(&id)?.nodes.get(&epoch)
    }

    /// Cost-benefit: what is dead in it, weighed by age, against what reading and copying costs.
    fn victim(&self, active: Option<SegmentId>, room: u64) -> Option<SegmentId> {
        let newest = self.versions.segments.keys().next_back()?.0;
        let all = self.versions.segments.iter();
        let worth = all.filter(|(id, e)| {
            Some(**id) != active && !e.stuck && self.is_worth_cleaning(**id, room)
        });
        let score = |id: SegmentId, used: u64, live: u64| {
            let age = u128::from(newest - id.0 + 1);
            u128::from(used - live.min(used)) * age * 1000 / u128::from(used + live)
        };
        worth
            .max_by_key(|(id, e)| score(**id, e.segment.used(), e.live))
            .map(|(&id, _)| id)
    }

    /// Enough of it is dead, and there is room to copy what is not.
    fn is_worth_cleaning(&self, id: SegmentId, room: u64) -> bool {
        self.versions.segments.get(&id).is_some_and(|entry| {
            let used = entry.segment.used();
            let dead = used - entry.live.min(used);
            dead * WORTH >= used && entry.live <= room
        })
    }

    /// Checkpoints with manifests, and with records, in a segment.
    #[allow(clippy::type_complexity)] // two lists of the same pairs read better than a struct
    fn records_in(&self, victim: SegmentId) -> (Vec<(u32, Epoch)>, Vec<(u32, Epoch)>) {
        let inside = |locs: &[Loc]| locs.iter().any(|l| l.segment == victim);
        let (mut manifests, mut records) = (Vec::new(), Vec::new());
        for history in self.histories.values() {
            for (&epoch, node) in &history.nodes {
                if inside(&node.manifest) || inside(&node.absorbed) {
                    manifests.push((history.id, epoch));
                }
                if inside(&node.record) {
                    records.push((history.id, epoch));
                }
            }
        }
        (manifests, records)
    }

    /// A body as it lies, with the row that describes it.
    fn stored(&self, value: Value, out: &mut [u8; PAGE]) -> Result<(PageRow, usize), ReadError> {
        let version = self.versions.get(value);
        let entry = self.versions.segments.get(&version.segment);
        let entry = entry.ok_or(ReadError::Version(PageFault::Lost))?;
        let len = usize::from(version.length);
        let (segment, at) = (version.segment, u64::from(version.offset));
        let read = entry.segment.file.read_at(&mut out[..len], at);
        read.map_err(|source| ReadError::Version(PageFault::Io { segment, source }))?;
        let row = PageRow {
            uid: version.uid,
            base: version.base().map(|b| self.versions.get(b).uid),
            crc: version.crc,
            length: version.length,
            encoding: version.encoding,
        };
        Ok((row, len))
    }

    fn current_manifest(&self, id: u32, epoch: Epoch) -> Option<Manifest> {
        let history = self.histories.get(&id)?;
        let node = history.nodes.get(&epoch)?;
        let spaces = node.spaces.iter().map(|space| ManifestSpace {
            space: space.space,
            from: space.from,
            changes: self.changes(history, space, epoch),
        });
        Some(Manifest {
            live: node.live,
            info: node.info.clone(),
            base: node.up,
            depth: node.depth,
            record_len: node.record_len,
            spaces: spaces.collect(),
        })
    }

    fn changes(
        &self,
        history: &History,
        space: &SpaceNode,
        epoch: Epoch,
    ) -> Vec<(u64, crate::manifest::Entry)> {
        let entry = |(page, value)| (page, self.entry(value));
        if space.from.is_none() {
            return history
                .visible(space, epoch)
                .into_iter()
                .map(entry)
                .collect();
        }
        let listed = space.changes.iter();
        let values = listed.map(|&page| (page, history.value(space, epoch, page)));
        values.map(entry).collect()
    }
}

fn length(locs: &[Loc]) -> u64 {
    locs.iter().map(|l| u64::from(l.length)).sum()
}
