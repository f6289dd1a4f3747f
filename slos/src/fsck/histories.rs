//! What the records of all segments say together: which checkpoints there are, and whether each can
//! be read whole.

use std::collections::{BTreeMap, BTreeSet};

use super::walk::Record;
use super::{Finding, FsckReport, Stage, Watcher};
use crate::catalogue::{Catalogue, Mark};
use crate::codec::{decode_delta, decode_whole, matches};
use crate::device::Device;
use crate::format::{Cursor, RecordType};
use crate::manifest::{Entry, Manifest};
use crate::pages::{PageRow, read_table};
use crate::{Epoch, PAGE, SpaceId};

type Key = (u32, u64);

/// It is told once for so many pages.
const TOLD: u64 = 256;

#[derive(Default)]
pub(super) struct Gathered {
    bodies: BTreeMap<u64, (PageRow, u64)>,
    manifests: BTreeMap<Key, (u64, Manifest)>,
    blobs: BTreeMap<Key, Vec<u8>>,
    marks: Vec<(u64, Mark)>,
    catalogue: Option<(u64, Catalogue)>,
    /// The last lsn that a checkpoint's own records are known to have.
    begun: BTreeMap<Key, u64>,
    seen: BTreeSet<u64>,
    /// A logical record that is still coming: its first lsn, the next one, and what came.
    partial: Option<(u64, u64, Vec<u8>)>,
}

impl Gathered {
    pub fn take(&mut self, record: &Record<'_>) {
        let header = &record.header;
        self.seen.insert(header.lsn);
        if matches!(header.kind, RecordType::Blob | RecordType::Epoch) {
            self.begun
                .insert((header.partition, header.subject), header.lsn);
        }
        if header.kind == RecordType::Pages {
            for (row, at) in read_table(record.payload, record.payload.len()).unwrap_or_default() {
                self.bodies
                    .insert(row.uid, (row, record.at + u64::from(at)));
            }
            return;
        }
        if matches!(header.kind, RecordType::Footer | RecordType::Flushed) {
            return;
        }
        let (first, mut payload) = match self.partial.take() {
            Some((first, next, bytes)) if header.continued && next == header.lsn => (first, bytes),
            _ if header.continued => return,
            _ => (header.lsn, Vec::new()),
        };
        payload.extend_from_slice(record.payload);
        if header.more {
            self.partial = Some((first, header.lsn + 1, payload));
        } else {
            self.take_whole(
                header.kind,
                (header.partition, header.subject),
                first,
                payload,
            );
        }
    }

    fn take_whole(&mut self, kind: RecordType, key: Key, lsn: u64, payload: Vec<u8>) {
        match kind {
            RecordType::Epoch => {
                let manifest = Manifest::decode(&payload);
                if let Some(manifest) = manifest.filter(|m| m.info.epoch.0 == key.1) {
                    self.manifests.insert(key, (lsn, manifest));
                }
            }
            RecordType::Blob => {
                self.blobs.insert(key, payload);
            }
            RecordType::Mark => {
                let marks: Vec<Mark> = postcard::from_bytes(&payload).unwrap_or_default();
                self.marks.extend(marks.into_iter().map(|m| (lsn, m)));
            }
            RecordType::Catalogue => {
                if let Ok(catalogue) = postcard::from_bytes(&payload) {
                    self.catalogue = Some((lsn, catalogue));
                }
            }
            _ => {}
        }
    }

    /// Adds to the report what every checkpoint lacks.
    pub fn judge(
        &self,
        device: &dyn Device,
        horizon: u64,
        report: &mut FsckReport,
        watcher: &Watcher<'_>,
    ) {
        let (names, live) = self.live(horizon);
        let wanted = self.closure(&live);
        let bad = self.bad_versions(device, &wanted, report, watcher);
        let damaged = self.damaged_pages(&wanted, &bad);
        let told = self.told(&wanted);
        for (part, epochs) in &live {
            let partition = names
                .get(part)
                .cloned()
                .unwrap_or(format!("recovered-{part}"));
            for &epoch in epochs {
                let key = (*part, epoch);
                let subject = (partition.clone(), Epoch(epoch));
                report
                    .findings
                    .extend(self.lacks(key, subject, told.contains(&key), &damaged));
            }
            report.checkpoints += epochs.len() as u64;
            report.partitions.push((partition, epochs.len() as u64));
        }
    }

    fn lacks(
        &self,
        key: Key,
        (partition, epoch): (String, Epoch),
        is_told: bool,
        damaged: &BTreeMap<Key, BTreeSet<(SpaceId, u64)>>,
    ) -> Vec<Finding> {
        let mut lacks = Vec::new();
        if !is_told {
            let partition = partition.clone();
            lacks.push(Finding::Map { partition, epoch });
        }
        if let Some(pages) = damaged.get(&key) {
            lacks.push(Finding::Pages {
                partition: partition.clone(),
                epoch,
                pages: pages.len() as u64,
            });
        }
        if !self.blobs.get(&key).is_some_and(|blob| unpacks(blob)) {
            lacks.push(Finding::Record { partition, epoch });
        }
        lacks
    }

    /// Partitions with their names, and the checkpoints that each has.
    fn live(&self, horizon: u64) -> (BTreeMap<u32, String>, BTreeMap<u32, BTreeSet<u64>>) {
        let mut names = BTreeMap::new();
        let mut live: BTreeMap<u32, BTreeSet<u64>> = BTreeMap::new();
        let mut since = 0;
        if let Some((lsn, catalogue)) = &self.catalogue {
            since = *lsn;
            for part in &catalogue.partitions {
                names.insert(part.id, part.name.clone());
                let epochs = part.epochs.iter().map(|e| e.epoch);
                live.insert(part.id, epochs.collect());
            }
        }
        for (&(part, epoch), (lsn, manifest)) in &self.manifests {
            if *lsn > since && manifest.live {
                live.entry(part).or_default().insert(epoch);
            }
        }
        // A record that is missing where a manifest should be was one.
        for (&(part, epoch), last) in &self.begun {
            let next = last + 1;
            let lost = *last > since && next < horizon && !self.seen.contains(&next);
            if lost && !self.manifests.contains_key(&(part, epoch)) {
                live.entry(part).or_default().insert(epoch);
            }
        }
        for (_, mark) in self.marks.iter().filter(|(lsn, _)| *lsn > since) {
            match mark {
                Mark::AddPartition { id, name, .. } => {
                    names.insert(*id, name.clone());
                    live.entry(*id).or_default();
                }
                Mark::RemovePartition { id } => {
                    names.remove(id);
                    live.remove(id);
                }
                Mark::Drop { id, epochs } => {
                    if let Some(live) = live.get_mut(id) {
                        live.retain(|epoch| !epochs.contains(epoch));
                    }
                }
                _ => {}
            }
        }
        (names, live)
    }

    /// The live checkpoints, and those that their maps are told from.
    fn closure(&self, live: &BTreeMap<u32, BTreeSet<u64>>) -> BTreeSet<Key> {
        let each = live
            .iter()
            .flat_map(|(&p, epochs)| epochs.iter().map(move |&e| (p, e)));
        let mut open: Vec<Key> = each.collect();
        let mut wanted = BTreeSet::new();
        while let Some(key) = open.pop() {
            if wanted.insert(key) {
                open.extend(self.base(key));
            }
        }
        wanted
    }

    fn base(&self, (part, epoch): Key) -> Option<Key> {
        let (_, manifest) = self.manifests.get(&(part, epoch))?;
        manifest.base.map(|base| (part, base.0))
    }

    /// Those whose maps are told from others that are there, down to one that stands alone.
    fn told(&self, wanted: &BTreeSet<Key>) -> BTreeSet<Key> {
        let mut told = BTreeSet::new();
        // Ascending: what a map is told from comes before it.
        for &key in wanted {
            if self.is_told(key, &told) {
                told.insert(key);
            }
        }
        told
    }

    fn is_told(&self, key: Key, told: &BTreeSet<Key>) -> bool {
        let Some((_, manifest)) = self.manifests.get(&key) else {
            return false;
        };
        let base = self.base(key);
        if base.is_some_and(|base| !told.contains(&base)) {
            return false;
        }
        let base = base.and_then(|base| self.manifests.get(&base));
        let has =
            |from: SpaceId| base.is_some_and(|(_, b)| b.spaces.iter().any(|s| s.space == from));
        let mut from = manifest.spaces.iter().filter_map(|s| s.from);
        from.all(has)
    }

    /// The versions that the maps name and that do not read as they were written.
    fn bad_versions(
        &self,
        device: &dyn Device,
        wanted: &BTreeSet<Key>,
        report: &mut FsckReport,
        watcher: &Watcher<'_>,
    ) -> BTreeSet<u64> {
        let maps = wanted.iter().filter_map(|key| self.manifests.get(key));
        let changes = maps.flat_map(|(_, m)| m.spaces.iter().flat_map(|s| &s.changes));
        let uids = changes.filter_map(|(_, entry)| match entry {
            Entry::Version(uid) => Some(*uid),
            _ => None,
        });
        let uids: BTreeSet<u64> = uids.collect();
        report.versions = uids.len() as u64;
        let each = (0u64..).zip(uids).filter(|&(at, uid)| {
            if at.is_multiple_of(TOLD) {
                watcher(Stage::Pages, at, report.versions);
            }
            !self.reads(device, uid)
        });
        each.map(|(_, uid)| uid).collect()
    }

    fn reads(&self, device: &dyn Device, uid: u64) -> bool {
        let mut page = [0; PAGE];
        let Some((row, at)) = self.bodies.get(&uid) else {
            return false;
        };
        let whole = |row: &PageRow, at: u64, page: &mut [u8; PAGE]| {
            let body = body(device, row, at)?;
            decode_whole(row.encoding, &body, page)?;
            matches(page, row.crc).then_some(())
        };
        let read = match row.base {
            None => whole(row, *at, &mut page),
            Some(base) => self.bodies.get(&base).and_then(|(base, base_at)| {
                whole(base, *base_at, &mut page)?;
                decode_delta(row.encoding, &body(device, row, *at)?, &mut page)?;
                matches(&page, row.crc).then_some(())
            }),
        };
        read.is_some()
    }

    /// By checkpoint, the pages that read a bad version: where a map names one, and below it as far
    /// as no other names another for the page.
    fn damaged_pages(
        &self,
        wanted: &BTreeSet<Key>,
        bad: &BTreeSet<u64>,
    ) -> BTreeMap<Key, BTreeSet<(SpaceId, u64)>> {
        let mut damaged: BTreeMap<Key, BTreeSet<(SpaceId, u64)>> = BTreeMap::new();
        if bad.is_empty() {
            return damaged;
        }
        // Ascending: what a map is told from comes before it.
        for &key in wanted {
            let Some((_, manifest)) = self.manifests.get(&key) else {
                continue;
            };
            let above = self.base(key).and_then(|base| damaged.get(&base)).cloned();
            let mut pages = BTreeSet::new();
            for space in &manifest.spaces {
                let inherited = above.iter().flatten();
                let inherited = inherited.filter(|(from, _)| Some(*from) == space.from);
                let kept = inherited.filter(|(_, page)| {
                    let changed = space.changes.binary_search_by_key(page, |c| c.0);
                    changed.is_err()
                });
                pages.extend(kept.map(|&(_, page)| (space.space, page)));
                let named = space
                    .changes
                    .iter()
                    .filter(|(_, entry)| matches!(entry, Entry::Version(uid) if bad.contains(uid)));
                pages.extend(named.map(|&(page, _)| (space.space, page)));
            }
            if !pages.is_empty() {
                damaged.insert(key, pages);
            }
        }
        damaged
    }
}

fn body(device: &dyn Device, row: &PageRow, at: u64) -> Option<Vec<u8>> {
    let mut bytes = vec![0; usize::from(row.length)];
    device.read_at(&mut bytes, at).ok()?;
    Some(bytes)
}

fn unpacks(blob: &[u8]) -> bool {
    let mut c = Cursor(blob);
    let length = c.varint().and_then(|l| usize::try_from(l).ok());
    let length = length.filter(|&l| l <= c.0.len().saturating_mul(255));
    length
        .is_some_and(|l| lz4_flex::block::decompress(c.0, l).is_ok_and(|record| record.len() == l))
}
