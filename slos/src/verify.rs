//! Reading everything back: what fsck and the tests ask for.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::error::ReadError;
use crate::index::Index;
use crate::partition::Partition;
use crate::recover::Damage;
use crate::scan::{Found, Identity, header_of, scan};
use crate::store::Store;
use crate::versions::Value;
use crate::{Epoch, PAGE};

/// Something a verification found wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Bytes of a segment; whether something live lies there, the other faults tell.
    Segment(Damage),
    /// Pages of a checkpoint cannot be read.
    Pages { partition: String, epoch: Epoch },
    /// The record of a checkpoint cannot be read.
    Record { partition: String, epoch: Epoch },
    /// The index counts a version's holders wrongly: a defect of this library.
    Count { uid: u64 },
    /// The index holds pages that no checkpoint reads: a defect of this library.
    Idle { partition: String, stamps: usize },
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    pub faults: Vec<Fault>,
    pub versions: u64,
    pub checkpoints: u64,
}

impl Store {
    /// Checks every segment, decodes every live version and record, and recounts references.
    /// Commits wait meanwhile; readers do not.
    pub fn verify(&self) -> Result<VerifyReport, ReadError> {
        let _writer = self.shared.writer().map_err(|_| ReadError::Dead)?;
        let mut report = VerifyReport::default();
        let index = self.shared.read()?;
        check_segments(&index, &mut report);
        let bad = check_versions(&index, &mut report);
        for history in index.histories.values() {
            let partition = history.name.clone();
            let holed = history.lines.readers(|value| bad.contains(&value));
            report
                .faults
                .extend(holed.into_iter().map(|e| Fault::Pages {
                    partition: partition.clone(),
                    epoch: Epoch(e),
                }));
        }
        check_counts(&index, &mut report);
        let epochs: Vec<(u32, String, Epoch)> = index
            .histories
            .values()
            .flat_map(|h| h.live().map(|(e, _)| (h.id, h.name.clone(), e)))
            .collect();
        drop(index);
        report.checkpoints = epochs.len() as u64;
        for (id, partition, epoch) in epochs {
            let handle = Partition::new(self.shared.clone(), id, &partition);
            if handle.record(epoch).is_err() {
                report.faults.push(Fault::Record { partition, epoch });
            }
        }
        Ok(report)
    }
}

impl VerifyReport {
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.faults.is_empty()
    }
}

fn check_segments(index: &Index, report: &mut VerifyReport) {
    let found: Vec<Found> = index
        .versions
        .segments
        .iter()
        .map(|(&id, entry)| Found {
            id,
            file: entry.segment.file.clone(),
            header: header_of(&*entry.segment.file),
        })
        .collect();
    let headers = || found.iter().filter_map(|f| f.header.as_ref().ok());
    let Some(first) = headers().next() else {
        return;
    };
    let identity = Identity {
        uuid: first.uuid,
        generation: headers().map(|h| h.generation).max().unwrap_or(1),
    };
    for segment in &found {
        let mut damage = Vec::new();
        let whole = |length| Damage {
            segment: segment.id,
            offset: 0,
            length,
            epoch: None,
        };
        if segment.header.is_err() {
            damage.push(whole(64));
        }
        match scan(segment, &identity, &mut damage, |_| {}) {
            Ok(scanned) if index.slots => damage.extend(scanned.damaged_tail),
            Ok(scanned) if scanned.end < scanned.len => damage.push(Damage {
                offset: scanned.end,
                ..whole(scanned.len - scanned.end)
            }),
            Ok(_) => {}
            Err(_) => damage.push(whole(0)),
        }
        report.faults.extend(damage.into_iter().map(Fault::Segment));
    }
}

fn check_versions(index: &Index, report: &mut VerifyReport) -> HashSet<Value> {
    let mut page = [0; PAGE];
    let mut bad = HashSet::new();
    for (value, _) in index.versions.iter() {
        report.versions += 1;
        if index.locate(value).read(&mut page).is_err() {
            bad.insert(value);
        }
    }
    bad
}

fn check_counts(index: &Index, report: &mut VerifyReport) {
    let mut stamps: HashMap<Value, u32> = HashMap::new();
    for value in index.histories.values().flat_map(|h| h.lines.held()) {
        *stamps.entry(value).or_default() += 1;
    }
    let mut dependents: HashMap<Value, u32> = HashMap::new();
    for base in index.versions.iter().filter_map(|(_, v)| v.base()) {
        *dependents.entry(base).or_default() += 1;
    }
    for history in index.histories.values() {
        let stamps = history.lines.idle();
        if stamps > 0 {
            let partition = history.name.clone();
            report.faults.push(Fault::Idle { partition, stamps });
        }
    }
    let count = |counts: &HashMap<Value, u32>, value| counts.get(&value).copied().unwrap_or(0);
    let wrong: BTreeSet<u64> = index
        .versions
        .iter()
        .filter(|(value, v)| v.holders() != (count(&stamps, *value), count(&dependents, *value)))
        .map(|(_, v)| v.uid)
        .collect();
    report
        .faults
        .extend(wrong.into_iter().map(|uid| Fault::Count { uid }));
}
