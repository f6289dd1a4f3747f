//! Opening a store: scan the log, replay the manifests that live checkpoints build on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use crate::bodies::{Bodies, StoredBody};
use crate::catalogue::{Catalogue, Filed, Mark};
use crate::error::OpenError;
use crate::format::{
    COUNTER_LIMIT, HeaderFault, RecordHeader, RecordType, SEGMENT_HEADER, VERSION,
};
use crate::history::Settings;
use crate::index::Index;
use crate::log::{Loc, Resume, Segment};
use crate::manifest::Manifest;
use crate::medium::{Layout, Medium};
use crate::outline::{Outlines, Sketch, skim};
use crate::pages::read_table;
use crate::replay::replay;
use crate::scan::{Found, Identity, Record, Scanned, header_of, scan};
use crate::tail::settle;
use crate::versions::SegmentEntry;
use crate::{Epoch, SegmentId, WriteError};

/// Bytes of a segment that are not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    pub segment: SegmentId,
    pub offset: u64,
    pub length: u64,
    /// The checkpoint whose record it was, where a header still tells.
    pub epoch: Option<Epoch>,
}

/// What opening a store found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    pub segments: u64,
    /// Of these, those whose pages did not have to be read: see [`Outlines`](crate::Outlines).
    pub skimmed: u64,
    pub records: u64,
    pub checkpoints: u64,
    /// Bytes of a write that its process did not live to end; nothing acknowledged was in them.
    pub torn_bytes: u64,
    pub damage: Vec<Damage>,
    /// Live checkpoints that are lost: their maps cannot be built. By partition name.
    pub lost: Vec<(String, Epoch)>,
    /// Live checkpoints of which some pages cannot be read. By partition name.
    pub holed: Vec<(String, Epoch)>,
}

impl RecoveryReport {
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.damage.is_empty() && self.lost.is_empty() && self.holed.is_empty()
    }
}

pub(crate) struct Recovered {
    pub index: Index,
    pub resume: Resume,
    pub filed: Filed,
    pub report: RecoveryReport,
}

pub(crate) struct StoredManifest {
    pub lsn: u64,
    pub manifest: Manifest,
    pub locs: Vec<Loc>,
}

/// All that the scan gathers.
#[derive(Default)]
pub(crate) struct Gathered {
    pub bodies: Bodies,
    pub manifests: BTreeMap<(u32, u64), StoredManifest>,
    pub records: BTreeMap<(u32, u64), Vec<Loc>>,
    pub marks: Vec<(u64, Mark)>,
    pub catalogue: Option<(u64, Catalogue, Vec<Loc>)>,
    /// Largest epoch that any record header of a partition names.
    pub last_epochs: BTreeMap<u32, u64>,
    pub last_lsn: u64,
    pub last_uid: u64,
    pub records_seen: u64,
    undecodable: Vec<Damage>,
    partial: Option<Partial>,
}

/// A logical record whose fragments have not all come yet.
struct Partial {
    header: RecordHeader,
    next_lsn: u64,
    payload: Vec<u8>,
    locs: Vec<Loc>,
}

/// Uids left out after a recovery, so that none in a record that could not be read comes again.
const UID_GAP: u64 = 1 << 24;

pub(crate) fn recover(
    medium: &dyn Medium,
    label: &Path,
    outlines: Option<&dyn Outlines>,
) -> Result<Recovered, OpenError> {
    let mut found = find_segments(medium, label)?;
    let slots = medium.layout();
    let identity = match slots {
        Some(layout) => layout.identity(),
        None => identify(&found, label)?,
    };
    let mut gathered = Gathered::default();
    let mut report = RecoveryReport::default();
    let mut next_lsn = 1;
    if slots.is_some() {
        let settled = settle(medium, found, &identity)?;
        found = settled.found;
        next_lsn = settled.next_lsn;
        report.torn_bytes = settled.torn_bytes;
    }
    let mut index = Index::new();
    let last = found.last().map(|f| f.id);
    for (at, segment) in found.iter().enumerate() {
        let scanned = read(segment, &identity, outlines, &mut gathered, &mut report);
        let mut scanned = scanned.map_err(|source| OpenError::Segment {
            segment: segment.id,
            source,
        })?;
        if segment.header.is_err() && scanned.len <= SEGMENT_HEADER as u64 {
            // Its maker died before the header was whole; nothing was ever in it.
            report.torn_bytes += scanned.len;
            let removed = medium.remove(segment.id);
            removed.map_err(|source| OpenError::Segment {
                segment: segment.id,
                source,
            })?;
            continue;
        }
        if slots.is_some() {
            judge_slot(segment, &scanned, found.get(at + 1), &mut report);
        } else {
            judge_tail(segment, &mut scanned, Some(segment.id) == last, &mut report)?;
        }
        let known = Segment::new(Arc::clone(&segment.file), scanned.len, scanned.last_lsn);
        let entry = SegmentEntry {
            segment: Arc::new(known),
            live: 0,
            stuck: false,
        };
        index.versions.segments.insert(segment.id, entry);
    }
    if let Some(outlines) = outlines {
        outlines.keep_only(&identity.uuid, &found.iter().map(|f| f.id).collect());
    }
    report.segments = found.len() as u64;
    report.records = gathered.records_seen;
    report.damage.append(&mut gathered.undecodable);
    let size = found.iter().find_map(|f| f.header.as_ref().ok());
    let size = size.map_or(1 << 24, |h| h.size).clamp(1 << 16, 1 << 30);
    let resume = Resume {
        uuid: identity.uuid,
        generation: slots.map_or(identity.generation.saturating_add(1), |s| s.generation),
        segment_size: slots.map_or(size, |s| s.segment_size),
        next_segment: last
            .map_or(Some(1), |l| l.0.checked_add(1))
            .ok_or(OpenError::Write(WriteError::SegmentsUsedUp))?,
        next_lsn: next_lsn.max(gathered.last_lsn + 1),
        next_uid: gathered.next_uid(),
    };
    let filed = replay(&mut index, gathered, &mut report);
    Ok(Recovered {
        index,
        resume,
        filed,
        report,
    })
}

/// All records of a segment; by its outline where there is one.
fn read(
    segment: &Found,
    identity: &Identity,
    outlines: Option<&dyn Outlines>,
    gathered: &mut Gathered,
    report: &mut RecoveryReport,
) -> std::io::Result<Scanned> {
    let known = outlines.and_then(|o| o.outline(&identity.uuid, segment.id));
    if let Some(outline) = known
        && let Some(scanned) = skim(segment, identity, &outline, |r| gathered.take(r))?
    {
        report.skimmed += 1;
        return Ok(scanned);
    }
    let mut sketch = outlines.map(|_| Sketch::default());
    let before = (report.damage.len(), gathered.undecodable.len());
    let scanned = scan(segment, identity, &mut report.damage, |record| {
        if let Some(sketch) = &mut sketch {
            sketch.add(&record);
        }
        gathered.take(record);
    })?;
    let damaged = before != (report.damage.len(), gathered.undecodable.len());
    let outline = sketch.and_then(|sketch| sketch.finish(segment, &scanned, damaged));
    if let (Some(outlines), Some(outline)) = (outlines, outline) {
        outlines.keep(&identity.uuid, segment.id, outline);
    }
    Ok(scanned)
}

fn find_segments(medium: &dyn Medium, label: &Path) -> Result<Vec<Found>, OpenError> {
    let ids = medium.list().map_err(|source| OpenError::Folder {
        path: label.to_owned(),
        source,
    })?;
    ids.into_iter()
        .map(|id| {
            let file = medium.open(id).map_err(|source| OpenError::Segment {
                segment: id,
                source,
            })?;
            let header = header_of(&*file);
            Ok(Found { id, file, header })
        })
        .collect()
}

fn identify(found: &[Found], label: &Path) -> Result<Identity, OpenError> {
    let path = || label.to_owned();
    let headers = || found.iter().filter_map(|f| f.header.as_ref().ok());
    if let Some(first) = headers().next() {
        let ours = headers().filter(|h| h.uuid == first.uuid);
        return Ok(Identity {
            uuid: first.uuid,
            generation: ours.map(|h| h.generation).max().unwrap_or(1),
        });
    }
    let versions = found.iter().find_map(|f| match f.header {
        Err(HeaderFault::Version(version)) => Some(version),
        _ => None,
    });
    Err(match versions {
        Some(found) => OpenError::Version {
            path: path(),
            found,
            supported: VERSION,
        },
        None => OpenError::NoStore { path: path() },
    })
}

/// Bytes after the last valid record: in the last segment they are a write that was not ended,
/// and go; elsewhere they are damage.
fn judge_tail(
    found: &Found,
    scanned: &mut Scanned,
    is_last: bool,
    report: &mut RecoveryReport,
) -> Result<(), OpenError> {
    let rest = scanned.len - scanned.end;
    if found.header.is_err() {
        report.damage.push(Damage {
            segment: found.id,
            offset: 0,
            length: 64,
            epoch: None,
        });
    }
    if rest == 0 {
        return Ok(());
    }
    match scanned.damaged_tail.take() {
        Some(damage) => report.damage.push(damage),
        None if !is_last => report.damage.push(Damage {
            segment: found.id,
            offset: scanned.end,
            length: rest,
            epoch: None,
        }),
        None => {
            report.torn_bytes += rest;
            let cut = found.file.truncate(scanned.end);
            cut.map_err(|source| OpenError::Segment {
                segment: found.id,
                source,
            })?;
            scanned.len = scanned.end;
        }
    }
    Ok(())
}

/// Bytes after the last valid record of a slot mean nothing, unless a record should be there.
fn judge_slot(found: &Found, scanned: &Scanned, next: Option<&Found>, report: &mut RecoveryReport) {
    let follows = next.filter(|n| n.id.0 == found.id.0 + 1);
    let follows = follows.and_then(|n| n.header.as_ref().ok());
    let missing = follows.is_some_and(|h| h.first_lsn != scanned.last_lsn + 1);
    if let Some(damage) = scanned.damaged_tail.clone() {
        report.damage.push(damage);
    } else if missing {
        report.damage.push(Damage {
            segment: found.id,
            offset: scanned.end,
            length: scanned.len - scanned.end,
            epoch: None,
        });
    }
}

impl Layout {
    fn identity(&self) -> Identity {
        Identity {
            uuid: self.uuid,
            generation: self.generation,
        }
    }
}

impl Gathered {
    fn take(&mut self, record: Record<'_>) {
        let Record {
            header,
            loc,
            payload,
        } = record;
        self.records_seen += 1;
        self.last_lsn = self.last_lsn.max(header.lsn);
        if header.subject != 0 {
            let last = self.last_epochs.entry(header.partition).or_default();
            *last = header.subject.max(*last);
        }
        let continued = self.partial.take();
        if !header.more && !header.continued {
            self.take_whole(&header, payload, vec![loc], header.lsn);
            return;
        }
        let partial = match continued {
            Some(mut partial) if header.continued && partial.next_lsn == header.lsn => {
                partial.payload.extend_from_slice(payload);
                partial.locs.push(loc);
                partial.next_lsn = header.lsn + 1;
                partial
            }
            _ if header.continued => return,
            _ => Partial {
                header,
                next_lsn: header.lsn + 1,
                payload: payload.to_vec(),
                locs: vec![loc],
            },
        };
        if header.more {
            self.partial = Some(partial);
        } else {
            let first = partial.header.lsn;
            self.take_whole(&partial.header, &partial.payload, partial.locs, first);
        }
    }

    fn take_whole(&mut self, header: &RecordHeader, payload: &[u8], locs: Vec<Loc>, lsn: u64) {
        let first = locs[0];
        let key = (header.partition, header.subject);
        let understood = match header.kind {
            RecordType::Pages => {
                let length = header.length as usize;
                self.take_pages(header.partition, length, payload, first)
            }
            RecordType::Epoch => self.take_manifest(key, payload, locs, lsn),
            RecordType::Blob => {
                self.records.insert(key, locs);
                Some(())
            }
            RecordType::Mark => postcard::from_bytes::<Vec<Mark>>(payload)
                .ok()
                .map(|marks| self.marks.extend(marks.into_iter().map(|m| (lsn, m)))),
            RecordType::Catalogue => postcard::from_bytes(payload)
                .ok()
                .map(|catalogue| self.catalogue = Some((lsn, catalogue, locs))),
            RecordType::Footer | RecordType::Flushed => Some(()),
        };
        if understood.is_none() {
            self.undecodable.push(Damage {
                segment: first.segment,
                offset: u64::from(first.offset),
                length: u64::from(first.length),
                epoch: Some(Epoch(header.subject)).filter(|e| e.0 != 0),
            });
        }
    }

    fn take_pages(&mut self, owner: u32, length: usize, payload: &[u8], loc: Loc) -> Option<()> {
        for (row, at) in read_table(payload, length)? {
            self.last_uid = self.last_uid.max(row.uid);
            let body = StoredBody {
                row,
                segment: loc.segment,
                offset: loc.offset + crate::format::RECORD_HEADER_U32 + at,
                owner,
                value: None,
            };
            self.bodies.add(body);
        }
        Some(())
    }

    fn take_manifest(
        &mut self,
        key: (u32, u64),
        payload: &[u8],
        locs: Vec<Loc>,
        lsn: u64,
    ) -> Option<()> {
        let manifest = Manifest::decode(payload)?;
        if manifest.info.epoch.0 != key.1 {
            return None;
        }
        let stored = StoredManifest {
            lsn,
            manifest,
            locs,
        };
        self.manifests.insert(key, stored);
        Some(())
    }

    fn next_uid(&self) -> u64 {
        let filed = self.catalogue.as_ref().map_or(0, |(_, c, _)| c.next_uid);
        self.last_uid.max(filed.min(COUNTER_LIMIT)) + UID_GAP
    }

    /// The partitions that exist, with their live checkpoints as catalogue, manifests and marks
    /// tell them.
    pub fn live(&self, index: &mut Index) -> BTreeMap<u32, BTreeSet<u64>> {
        let mut live: BTreeMap<u32, BTreeSet<u64>> = BTreeMap::new();
        let mut since = 0;
        if let Some((lsn, catalogue, _)) = &self.catalogue {
            since = *lsn;
            index.next_partition = index.next_partition.max(catalogue.next_partition);
            for part in &catalogue.partitions {
                index.add_history(part.id, part.name.clone(), part.settings);
                let epochs = part.epochs.iter().map(|e| e.epoch);
                live.insert(part.id, epochs.collect());
                if let Some(history) = index.histories.get_mut(&part.id) {
                    let next = part.next_epoch.min(COUNTER_LIMIT);
                    history.next_epoch = history.next_epoch.max(next);
                }
            }
        }
        for (&(part, epoch), stored) in &self.manifests {
            if stored.lsn > since && stored.manifest.live {
                live.entry(part).or_default().insert(epoch);
            }
        }
        let mut removed = BTreeSet::new();
        for (_, mark) in self.marks.iter().filter(|(lsn, _)| *lsn > since) {
            match mark {
                Mark::AddPartition { id, name, settings } => {
                    index.add_history(*id, name.clone(), *settings);
                }
                Mark::RemovePartition { id } => {
                    index.histories.remove(id);
                    removed.insert(*id);
                }
                Mark::Settings { id, settings } => {
                    if let Some(history) = index.histories.get_mut(id) {
                        history.settings = *settings;
                    }
                }
                Mark::Drop { id, epochs } => {
                    if let Some(live) = live.get_mut(id) {
                        epochs.iter().for_each(|e| {
                            live.remove(e);
                        });
                    }
                }
                Mark::Name { .. } | Mark::Pin { .. } => {}
            }
        }
        live.retain(|id, _| !removed.contains(id));
        for &id in live.keys() {
            // Its mark is damaged, but its checkpoints are not: they get a name to be found by.
            if !index.histories.contains_key(&id) {
                index.add_history(id, format!("recovered-{id}"), Settings::default());
            }
        }
        live
    }
}
