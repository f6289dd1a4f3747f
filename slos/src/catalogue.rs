//! MARK and CATALOGUE records: everything of a store that is neither a page nor a checkpoint.
//!
//! Marks are small changes. A catalogue lists all partitions and their live checkpoints, so that
//! every mark before it may go with its segment; the cleaner only touches segments that are
//! older than the newest catalogue, so marks younger than it are always there.

use serde::{Deserialize, Serialize};

use crate::error::WriteError;
use crate::format::RecordType;
use crate::history::Settings;
use crate::index::Index;
use crate::log::{Loc, Subject};
use crate::store::{Shared, Writer};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Mark {
    AddPartition {
        id: u32,
        name: String,
        settings: Settings,
    },
    RemovePartition {
        id: u32,
    },
    Settings {
        id: u32,
        settings: Settings,
    },
    Name {
        id: u32,
        epoch: u64,
        name: Option<String>,
    },
    Pin {
        id: u32,
        epoch: u64,
        pinned: bool,
    },
    Drop {
        id: u32,
        epochs: Vec<u64>,
    },
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Catalogue {
    pub next_partition: u32,
    pub next_uid: u64,
    pub partitions: Vec<CataloguePartition>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CataloguePartition {
    pub id: u32,
    pub name: String,
    pub settings: Settings,
    pub next_epoch: u64,
    /// Live checkpoints, ascending.
    pub epochs: Vec<CatalogueEpoch>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CatalogueEpoch {
    pub epoch: u64,
    pub pinned: bool,
    pub name: Option<String>,
}

impl Mark {
    /// Does it let go of something, so that there is more room in the end?
    fn makes_room(&self) -> bool {
        matches!(self, Self::RemovePartition { .. } | Self::Drop { .. })
    }
}

/// Where the newest catalogue lies.
#[derive(Default)]
pub(crate) struct Filed {
    pub first_lsn: u64,
    pub locs: Vec<Loc>,
    /// Bytes appended since.
    pub since: u64,
}

/// Segments hold so many times the catalogue's own size before the next one is written.
const SPACING: u64 = 16;

impl Catalogue {
    pub fn of(index: &Index, next_uid: u64) -> Catalogue {
        let partitions = index.histories.values().map(|history| CataloguePartition {
            id: history.id,
            name: history.name.clone(),
            settings: history.settings,
            next_epoch: history.next_epoch,
            epochs: history
                .live()
                .map(|(epoch, node)| CatalogueEpoch {
                    epoch: epoch.0,
                    pinned: node.info.pinned,
                    name: node.info.name.clone(),
                })
                .collect(),
        });
        Catalogue {
            next_partition: index.next_partition,
            next_uid,
            partitions: partitions.collect(),
        }
    }
}

impl Shared {
    /// Appends marks; they hold once this returns.
    pub(crate) fn mark(&self, writer: &mut Writer, marks: &[Mark]) -> Result<(), WriteError> {
        let payload = encode(&marks);
        let subject = Subject {
            kind: RecordType::Mark,
            epoch: 0,
            partition: 0,
        };
        let makes_room = marks.iter().all(Mark::makes_room);
        let before = writer
            .log
            .making_room(makes_room || writer.log.makes_room());
        let appended = writer.log.append_split(subject, &payload);
        writer.log.making_room(before);
        for loc in appended? {
            writer.filed.since += u64::from(loc.length);
        }
        self.adopt_segments(writer)
    }

    /// Writes a catalogue when enough was appended since the last one.
    pub(crate) fn file_catalogue_if_due(&self, writer: &mut Writer) -> Result<(), WriteError> {
        let size: u64 = writer.filed.locs.iter().map(|l| u64::from(l.length)).sum();
        let due = (size * SPACING).max(u64::from(writer.log.segment_size()));
        if writer.filed.since >= due {
            self.file_catalogue(writer)?;
        }
        Ok(())
    }

    pub(crate) fn file_catalogue(&self, writer: &mut Writer) -> Result<(), WriteError> {
        let payload = encode(&Catalogue::of(&*self.read()?, writer.log.next_uid));
        let subject = Subject {
            kind: RecordType::Catalogue,
            epoch: 0,
            partition: 0,
        };
        // A roll inside the append would put a footer's lsn first, which does no harm: it only
        // makes the catalogue look older than it is.
        let first_lsn = writer.log.next_lsn;
        // The one before it goes.
        let before = writer.log.making_room(true);
        let locs = writer.log.append_split(subject, &payload);
        writer.log.making_room(before);
        let locs = locs?;
        self.adopt_segments(writer)?;
        let mut index = self.write()?;
        for &loc in &locs {
            index.versions.charge(loc);
        }
        let filed = Filed {
            first_lsn,
            locs,
            since: 0,
        };
        let old = std::mem::replace(&mut writer.filed, filed);
        for loc in old.locs {
            index.versions.discharge(loc);
        }
        Ok(())
    }
}

pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_stdvec(value).expect("plain data always encodes into a growing buffer")
}
