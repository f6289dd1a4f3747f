//! Checks a store on a device, by reading alone: a second reader of the format, which shares with the
//! first one only what describes single headers, rows and bodies.
//!
//! It may run beside whoever writes to the store. What was written after it began is not looked at;
//! where segments went meanwhile it looks again.

mod histories;
mod repair;
mod walk;

use std::collections::BTreeSet;
use std::fmt;
use std::io;

use crate::device::Device;
use crate::error::OpenError;
use crate::slots::{End, ends};
use crate::superblock::{self, Place, Superblock};
use crate::{Epoch, SegmentId};
use histories::Gathered;
pub use repair::{Repaired, repair, repair_watched};
use walk::Segment;

/// Times that a store which changes meanwhile is looked at.
const ATTEMPTS: usize = 8;

/// What a check is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Reading every record of every segment.
    Segments,
    /// Decoding every version of a page that a checkpoint needs.
    Pages,
}

/// Told as a check goes on: at which stage it is, and how much of how much of that is done.
pub type Watcher<'a> = dyn Fn(Stage, u64, u64) + 'a;

/// Something that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Finding {
    /// One of the places of the superblock; another one counts.
    Superblock { offset: u64 },
    /// One of a slot's two headers; the other one tells.
    Header { slot: u32 },
    /// Both headers of a slot: what was in it is lost.
    Slot { slot: u32 },
    /// Bytes of a segment; what lay there, if anybody needs it, the others tell.
    Bytes {
        segment: SegmentId,
        offset: u64,
        length: u64,
    },
    /// Pages of a checkpoint.
    Pages {
        partition: String,
        epoch: Epoch,
        pages: u64,
    },
    /// All pages of a checkpoint: how its map was told is lost.
    Map { partition: String, epoch: Epoch },
    /// The record of a checkpoint.
    Record { partition: String, epoch: Epoch },
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FsckReport {
    pub uuid: [u8; 16],
    pub bytes: u64,
    pub slots: u32,
    pub used: u32,
    pub checkpoints: u64,
    pub versions: u64,
    /// By name, with their checkpoints.
    pub partitions: Vec<(String, u64)>,
    pub findings: Vec<Finding>,
}

impl FsckReport {
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    /// Checkpoints that cannot be read whole.
    pub fn damaged(&self) -> BTreeSet<(&str, Epoch)> {
        self.findings.iter().filter_map(Finding::subject).collect()
    }
}

impl Finding {
    /// The checkpoint that it is about.
    #[must_use]
    pub fn subject(&self) -> Option<(&str, Epoch)> {
        match self {
            Self::Pages {
                partition, epoch, ..
            }
            | Self::Map { partition, epoch }
            | Self::Record { partition, epoch } => Some((partition, *epoch)),
            _ => None,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Superblock { offset } => write!(
                f,
                "a copy of the superblock, at {offset}, is damaged; others are whole"
            ),
            Self::Header { slot } => {
                write!(
                    f,
                    "one header of slot {slot} is damaged; the other is whole"
                )
            }
            Self::Slot { slot } => write!(
                f,
                "both headers of slot {slot} are damaged: what was in it is lost"
            ),
            Self::Bytes {
                segment,
                offset,
                length,
            } => write!(f, "{length} bytes at {offset} of {segment} are damaged"),
            Self::Pages {
                partition,
                epoch,
                pages,
            } => write!(f, "{partition} {epoch}: {pages} pages are damaged"),
            Self::Map { partition, epoch } => write!(f, "{partition} {epoch}: its pages are lost"),
            Self::Record { partition, epoch } => {
                write!(f, "{partition} {epoch}: its record is damaged")
            }
        }
    }
}

/// Checks everything; only what cannot be read for another reason than damage is an error.
pub fn fsck(device: &dyn Device) -> Result<FsckReport, OpenError> {
    fsck_watched(device, &|_, _, _| {})
}

/// The same, telling how far it has come.
pub fn fsck_watched(device: &dyn Device, watcher: &Watcher<'_>) -> Result<FsckReport, OpenError> {
    let path = std::path::PathBuf::from("the store");
    let failed = |source| OpenError::Device {
        path: path.clone(),
        source,
    };
    let places = superblock::places(device).map_err(failed)?;
    let Some(superblock) = superblock::newest(&places) else {
        let version = places.iter().find_map(|(_, place)| match place {
            Place::Version(version) => Some(*version),
            _ => None,
        });
        return Err(match version {
            Some(found) => OpenError::Version {
                path,
                found,
                supported: superblock::VERSION,
            },
            None => OpenError::NoStore { path },
        });
    };
    if device.size().map_err(failed)? < superblock.bytes {
        return Err(failed(io::ErrorKind::UnexpectedEof.into()));
    }
    let mut attempts = 1;
    loop {
        let (report, settled) = check(device, &superblock, watcher).map_err(failed)?;
        if settled || attempts == ATTEMPTS {
            let mut report = report;
            let bad = places.iter().filter(|(_, place)| *place == Place::Bad);
            let bad = bad.map(|&(offset, _)| Finding::Superblock { offset });
            report.findings.splice(0..0, bad);
            return Ok(report);
        }
        attempts += 1;
    }
}

/// One look; whether nothing went away in the midst of it.
fn check(
    device: &dyn Device,
    superblock: &Superblock,
    watcher: &Watcher<'_>,
) -> io::Result<(FsckReport, bool)> {
    let mut report = FsckReport {
        uuid: superblock.uuid,
        bytes: superblock.bytes,
        slots: superblock.slots,
        ..FsckReport::default()
    };
    let segments = table(device, superblock, &mut report.findings);
    report.used = u32::try_from(segments.len()).unwrap_or(u32::MAX);
    let mut gathered = Gathered::default();
    let horizon = walk::horizon(device, superblock, &segments)?;
    for (at, segment) in segments.iter().enumerate() {
        watcher(Stage::Segments, at as u64, segments.len() as u64);
        let next = segments.get(at + 1);
        let visit = |record: walk::Record<'_>| gathered.take(&record);
        let damage = walk::walk(device, superblock, (segment, next), horizon, visit)?;
        report.findings.extend(damage);
    }
    gathered.judge(device, horizon, &mut report, watcher);
    let still = table(device, superblock, &mut Vec::new());
    let gone = segments.iter().any(|s| !still.contains(s));
    Ok((report, !gone))
}

/// The segments by their numbers.
fn table(
    device: &dyn Device,
    superblock: &Superblock,
    findings: &mut Vec<Finding>,
) -> Vec<Segment> {
    let mut segments: Vec<Segment> = Vec::new();
    for slot in 0..superblock.slots {
        let pair = ends(device, superblock, slot);
        let header = match pair {
            [End::Bad, End::Bad] => {
                findings.push(Finding::Slot { slot });
                continue;
            }
            [End::Header(header), _] | [_, End::Header(header)] => Some(header),
            _ => None,
        };
        if pair.contains(&End::Bad) {
            findings.push(Finding::Header { slot });
        }
        segments.extend(header.map(|header| Segment { slot, header }));
    }
    segments.sort_by_key(|s| (s.header.segment, std::cmp::Reverse(s.header.generation)));
    segments.dedup_by_key(|s| s.header.segment);
    segments
}
