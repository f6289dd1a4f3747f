use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::SegmentId;
use crate::bases::BaseCache;
use crate::catalogue::{Filed, Mark};
use crate::device::Device;
use crate::error::{OpenError, ReadError, WriteError};
use crate::history::Settings;
use crate::index::Index;
use crate::log::{Log, Resume};
use crate::medium::{FolderMedium, Medium};
use crate::outline::Outlines;
use crate::partition::Partition;
use crate::recover::{Recovered, RecoveryReport, recover};
use crate::retain::Headroom;
use crate::slots::DeviceMedium;
use crate::tree::Node;
use crate::versions::SegmentEntry;

/// How a store is made. The budget is not written down: pass it again when opening.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Bytes of segments and index together. `None` is without limit; of a store that is opened, it
    /// is what the budgets of its partitions make together, where each has one.
    pub budget: Option<u64>,
    /// Bytes of a segment, 64 KiB to 1 GiB; `None` picks 16 MiB, less for small budgets.
    pub segment_size: Option<u64>,
}

/// A folder of segments with the histories in it. Cheap to clone; all clones are one store.
#[derive(Clone)]
pub struct Store {
    pub(crate) shared: Arc<Shared>,
}

/// Bytes a store holds, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeldBytes {
    /// Segment files, each rounded up to pages of the host.
    pub segments: u64,
    /// Of these, what some checkpoint still needs.
    pub live: u64,
    /// Of these, bodies that only deltas keep alive.
    pub pinned_bases: u64,
    /// Of these, records and manifests of live checkpoints.
    pub records: u64,
    /// Estimate of the index in memory, and the cache of base pages.
    pub index: u64,
    pub versions: u64,
    pub checkpoints: u64,
    /// Segments cleaned since the store was opened.
    pub cleaned: u64,
}

/// A partition as [`Store::partitions`] lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionInfo {
    pub name: String,
    pub settings: Settings,
    pub checkpoints: u64,
    /// Bytes of bodies, manifests and index that count against the partition's budget.
    pub held: u64,
}

pub(crate) struct Shared {
    index: RwLock<Index>,
    writer: Mutex<Writer>,
    pub budget: Option<u64>,
}

/// What only one thread at a time does: appending, dropping, cleaning.
pub(crate) struct Writer {
    pub log: Log,
    pub filed: Filed,
    pub bases: BaseCache,
    pub headroom: Headroom,
}

const DEFAULT_SEGMENT: u64 = 16 << 20;
const SMALLEST_SEGMENT: u64 = 64 << 10;
const LARGEST_SEGMENT: u64 = 1 << 30;
/// Segments a budget is divided into, at the least.
const SEGMENTS_PER_BUDGET: u64 = 16;

impl Store {
    /// Makes a store in a new or empty folder.
    pub fn create(dir: &Path, options: Options) -> Result<Store, OpenError> {
        let medium = FolderMedium::create(dir).map_err(|e| folder_error(dir, e))?;
        Store::create_on(Box::new(medium), dir, options)
    }

    /// Makes a store on any medium; `label` names it in errors.
    pub fn create_on(
        medium: Box<dyn Medium>,
        label: &Path,
        options: Options,
    ) -> Result<Store, OpenError> {
        let found = medium.list().map_err(|e| folder_error(label, e))?;
        if !found.is_empty() {
            return Err(OpenError::Exists {
                path: label.to_owned(),
            });
        }
        let resume = Resume {
            uuid: new_uuid().map_err(|e| folder_error(label, e))?,
            generation: 1,
            segment_size: segment_size(&options)?,
            next_segment: 1,
            next_lsn: 1,
            next_uid: 1,
        };
        Store::start(
            Index::new(),
            Log::new(medium, resume),
            Filed::default(),
            options,
        )
    }

    /// Opens a store, recovering what was acknowledged before its last user ended, however that
    /// was. Damage does not keep a store from opening: it is in the report.
    pub fn open(dir: &Path, options: Options) -> Result<(Store, RecoveryReport), OpenError> {
        let path = dir.to_owned();
        if !dir.is_dir() {
            return Err(OpenError::NoStore { path });
        }
        let medium = FolderMedium::open(dir).map_err(|e| folder_error(dir, e))?;
        Store::open_on(Box::new(medium), dir, options)
    }

    /// Opens the store on a device, as [`format_device`](crate::format_device) or an earlier user left it.
    pub fn open_device(
        device: Arc<dyn Device>,
        label: &Path,
    ) -> Result<(Store, RecoveryReport), OpenError> {
        let medium = DeviceMedium::open(device, label)?;
        Store::open_on(Box::new(medium), label, Options::default())
    }

    /// The same, reading no pages in segments whose outlines are known; those of the others are kept.
    pub fn open_device_by(
        device: Arc<dyn Device>,
        label: &Path,
        outlines: &dyn Outlines,
    ) -> Result<(Store, RecoveryReport), OpenError> {
        let medium = DeviceMedium::open(device, label)?;
        let recovered = recover(&medium, label, Some(outlines))?;
        Store::go_on(Box::new(medium), recovered, Options::default())
    }

    pub fn open_on(
        medium: Box<dyn Medium>,
        label: &Path,
        options: Options,
    ) -> Result<(Store, RecoveryReport), OpenError> {
        let recovered = recover(&*medium, label, None)?;
        Store::go_on(medium, recovered, options)
    }

    fn go_on(
        medium: Box<dyn Medium>,
        recovered: Recovered,
        options: Options,
    ) -> Result<(Store, RecoveryReport), OpenError> {
        let log = Log::new(medium, recovered.resume);
        let budget = options.budget.or_else(|| recovered.index.budgets());
        let options = Options { budget, ..options };
        let store = Store::start(recovered.index, log, recovered.filed, options)?;
        Ok((store, recovered.report))
    }

    fn start(
        mut index: Index,
        log: Log,
        filed: Filed,
        options: Options,
    ) -> Result<Store, OpenError> {
        index.slots = log.slots_left().is_some();
        index.base_cache = BaseCache::reserved(options.budget);
        let bases = BaseCache::new(options.budget);
        let shared = Shared {
            index: RwLock::new(index),
            writer: Mutex::new(Writer {
                headroom: Headroom::new(log.segment_size()),
                log,
                filed,
                bases,
            }),
            budget: options.budget,
        };
        let store = Store {
            shared: Arc::new(shared),
        };
        // The catalogue proves the folder to be a store, and makes all found segments cleanable.
        let mut writer = store.shared.writer()?;
        let filed = store.shared.file_catalogue(&mut writer);
        let filed = filed.and_then(|()| writer.log.sync());
        let filed = filed.and_then(|()| match writer.log.slots_left() {
            // The catalogue of each opening begins a slot: that of the last one is free now.
            Some(_) => store.shared.reclaim(&mut writer),
            None => Ok(()),
        });
        let settled = filed.and_then(|()| {
            store
                .shared
                .keep_within_budget(&mut writer, &mut Vec::new())
        });
        match settled {
            // What was found can be looked at, and is settled when there is room.
            Err(WriteError::Full { .. }) if !writer.filed.locs.is_empty() => {}
            done => drop(done?),
        }
        drop(writer);
        Ok(store)
    }

    /// A new partition. Its name is any string; the caller gives names meaning.
    pub fn add_partition(&self, name: &str, settings: Settings) -> Result<Partition, WriteError> {
        let shared = &self.shared;
        let mut writer = shared.writer()?;
        let id = {
            let index = shared.read()?;
            if index.history_named(name).is_some() {
                return Err(WriteError::PartitionExists(name.to_owned()));
            }
            index.next_partition
        };
        let mark = Mark::AddPartition {
            id,
            name: name.to_owned(),
            settings,
        };
        shared.mark(&mut writer, &[mark])?;
        writer.log.sync()?;
        shared.write()?.add_history(id, name.to_owned(), settings);
        Ok(Partition::new(Arc::clone(shared), id, name))
    }

    pub fn partition(&self, name: &str) -> Result<Partition, ReadError> {
        let index = self.shared.read()?;
        let history = index.history_named(name);
        let id = history
            .ok_or_else(|| ReadError::NoPartition(name.to_owned()))?
            .id;
        Ok(Partition::new(Arc::clone(&self.shared), id, name))
    }

    /// The partitions in the order they were added.
    pub fn partitions(&self) -> Result<Vec<PartitionInfo>, ReadError> {
        let index = self.shared.read()?;
        let infos = index.histories.values().map(|history| PartitionInfo {
            name: history.name.clone(),
            settings: history.settings,
            checkpoints: history.live_count() as u64,
            held: index.partition_bytes(history.id),
        });
        Ok(infos.collect())
    }

    /// Removes a partition with its whole history, pins notwithstanding.
    pub fn remove_partition(&self, name: &str) -> Result<(), WriteError> {
        let shared = &self.shared;
        let mut writer = shared.writer()?;
        let id = match shared.read()?.history_named(name) {
            Some(history) => history.id,
            None => return Err(WriteError::NoPartition(name.to_owned())),
        };
        shared.mark(&mut writer, &[Mark::RemovePartition { id }])?;
        shared.write()?.remove_history(id);
        shared.reclaim(&mut writer)?;
        writer.log.sync()
    }

    /// Did a write fail? Then only what lies there counts: open it again.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.shared.writer().is_err()
    }

    /// Copies what lives in these segments elsewhere and removes them.
    pub(crate) fn empty_segments(&self, segments: &[SegmentId]) -> Result<(), WriteError> {
        let mut writer = self.shared.writer()?;
        self.shared.empty(&mut writer, segments)
    }

    /// Bytes that count against the budget; much cheaper than [`Store::stats`].
    pub fn held(&self) -> Result<u64, ReadError> {
        Ok(self.shared.read()?.held_bytes())
    }

    /// Walks all versions and checkpoints.
    pub fn stats(&self) -> Result<HeldBytes, ReadError> {
        let index = self.shared.read()?;
        let versions = &index.versions;
        let pinned = versions.iter().filter(|(v, _)| versions.is_pinned_base(*v));
        let nodes = index.histories.values().flat_map(|h| h.nodes.values());
        let locs = nodes.flat_map(Node::locs);
        Ok(HeldBytes {
            segments: versions.file_bytes(),
            live: versions.live_bytes(),
            pinned_bases: pinned.map(|(_, v)| u64::from(v.length)).sum(),
            records: locs.map(|l| u64::from(l.length)).sum(),
            index: index.memory(),
            versions: versions.iter().count() as u64,
            cleaned: index.cleaned,
            checkpoints: index
                .histories
                .values()
                .map(|h| h.live_count() as u64)
                .sum(),
        })
    }
}

impl HeldBytes {
    /// What the budget is compared with.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.segments + self.index
    }
}

impl Shared {
    pub fn read(&self) -> Result<RwLockReadGuard<'_, Index>, ReadError> {
        self.index.read().map_err(|_| ReadError::Dead)
    }

    pub fn write(&self) -> Result<RwLockWriteGuard<'_, Index>, WriteError> {
        self.index.write().map_err(|_| WriteError::Dead)
    }

    pub fn writer(&self) -> Result<MutexGuard<'_, Writer>, WriteError> {
        let writer = self.writer.lock().map_err(|_| WriteError::Dead)?;
        if writer.log.is_dead() {
            return Err(WriteError::Dead);
        }
        Ok(writer)
    }

    /// Makes segments that the log began known to readers and to the cleaner.
    pub fn adopt_segments(&self, writer: &mut Writer) -> Result<(), WriteError> {
        if writer.log.born.is_empty() {
            return Ok(());
        }
        let mut index = self.write()?;
        for (id, segment) in std::mem::take(&mut writer.log.born) {
            let entry = SegmentEntry {
                segment,
                live: 0,
                stuck: false,
            };
            index.versions.segments.insert(id, entry);
        }
        Ok(())
    }
}

fn segment_size(options: &Options) -> Result<u32, OpenError> {
    let share = |budget: u64| {
        let share = (budget / SEGMENTS_PER_BUDGET).clamp(SMALLEST_SEGMENT, DEFAULT_SEGMENT);
        share.next_multiple_of(4096)
    };
    let chosen = options.budget.map_or(DEFAULT_SEGMENT, share);
    let size = options.segment_size.unwrap_or(chosen);
    if !(SMALLEST_SEGMENT..=LARGEST_SEGMENT).contains(&size) {
        return Err(OpenError::SegmentSize(size));
    }
    u32::try_from(size).map_err(|_| OpenError::SegmentSize(size))
}

fn folder_error(path: &Path, source: io::Error) -> OpenError {
    let path: PathBuf = path.to_owned();
    match source.kind() {
        io::ErrorKind::WouldBlock => OpenError::InUse { path },
        _ => OpenError::Folder { path, source },
    }
}

fn new_uuid() -> io::Result<[u8; 16]> {
    let mut uuid = [0; 16];
    random(&mut uuid)?;
    Ok(uuid)
}

pub(crate) fn random(bytes: &mut [u8]) -> io::Result<()> {
    std::fs::File::open("/dev/urandom")?.read_exact(bytes)
}
