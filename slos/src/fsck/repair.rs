//! Puts a store in order: what two copies say is written over what one of them says no more, and
//! checkpoints that are damaged go, so that nothing is left that cannot be read.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::{Finding, FsckReport, Watcher, fsck_watched};
use crate::device::Device;
use crate::error::{OpenError, WriteError};
use crate::slots::blank_slot;
use crate::store::Store;
use crate::superblock::{self, PLACE, Place};
use crate::{Epoch, SegmentId};

/// What a repair came to.
pub struct Repaired {
    pub before: FsckReport,
    pub after: FsckReport,
    /// Damaged checkpoints, which are not there any more.
    pub dropped: Vec<(String, Epoch)>,
}

/// Only for the one who has the device to himself.
pub fn repair(device: &Arc<dyn Device>, label: &Path) -> Result<Repaired, OpenError> {
    repair_watched(device, label, &|_, _, _| {})
}

/// The same, telling how far its checks have come: there is one before and one after.
pub fn repair_watched(
    device: &Arc<dyn Device>,
    label: &Path,
    watcher: &Watcher<'_>,
) -> Result<Repaired, OpenError> {
    let before = fsck_watched(&**device, watcher)?;
    blank(&**device, &before).map_err(|source| OpenError::Device {
        path: label.to_owned(),
        source,
    })?;
    // Opening writes superblock, headers and catalogue anew.
    let (store, report) = Store::open_device(Arc::clone(device), label)?;
    let mut dropped = report.lost.clone();
    let damaged = before.damaged().into_iter();
    let damaged = damaged.map(|(partition, epoch)| (partition.to_owned(), epoch));
    for (partition, epoch) in damaged.chain(report.holed) {
        if !dropped.contains(&(partition.clone(), epoch)) {
            drop_checkpoint(&store, &partition, epoch)?;
            dropped.push((partition, epoch));
        }
    }
    let segments = before.findings.iter().filter_map(|finding| match finding {
        Finding::Bytes { segment, .. } => Some(*segment),
        _ => None,
    });
    let mut segments: Vec<SegmentId> = segments.collect();
    segments.extend(report.damage.iter().map(|d| d.segment));
    segments.sort_unstable();
    segments.dedup();
    store.empty_segments(&segments)?;
    drop(store);
    let after = fsck_watched(&**device, watcher)?;
    dropped.sort();
    Ok(Repaired {
        before,
        after,
        dropped,
    })
}

fn drop_checkpoint(store: &Store, partition: &str, epoch: Epoch) -> Result<(), WriteError> {
    let Ok(part) = store.partition(partition) else {
        return Ok(());
    };
    if part.info(epoch).is_err() {
        return Ok(());
    }
    part.unpin(epoch)?;
    part.drop_epoch(epoch)
}

fn blank(device: &dyn Device, report: &FsckReport) -> io::Result<()> {
    let places = superblock::places(device)?;
    let zeros = vec![0; usize::try_from(PLACE).map_err(io::Error::other)?];
    for (offset, _) in places.iter().filter(|(_, place)| *place == Place::Bad) {
        device.write_at(&zeros, *offset)?;
    }
    let Some(superblock) = superblock::newest(&places) else {
        return Ok(());
    };
    for finding in &report.findings {
        // Of two headers of which one is blank, the slot is free.
        if let Finding::Slot { slot } | Finding::Header { slot } = finding {
            blank_slot(device, &superblock, *slot)?;
        }
    }
    device.flush()
}
