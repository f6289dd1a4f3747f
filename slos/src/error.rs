use std::io;
use std::path::PathBuf;

use crate::{Epoch, PageIndex, SegmentId, SpaceId};

/// Why a store could not be created or opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{path}: {source}")]
    Folder { path: PathBuf, source: io::Error },
    #[error("{path} already holds a store")]
    Exists { path: PathBuf },
    #[error("{path} holds no store")]
    NoStore { path: PathBuf },
    #[error("{path} is in use by another process")]
    InUse { path: PathBuf },
    #[error("{path} has format version {found}; this build reads version {supported}")]
    Version {
        path: PathBuf,
        found: u32,
        supported: u32,
    },
    #[error("{path}: {source}")]
    Device { path: PathBuf, source: io::Error },
    #[error("segment size {0} is outside 64 KiB to 1 GiB")]
    SegmentSize(u64),
    #[error("reading {segment}: {source}")]
    Segment {
        segment: SegmentId,
        source: io::Error,
    },
    #[error("writing to the recovered store: {0}")]
    Write(#[from] WriteError),
}

/// Why a change of a store (name, pin, drop, settings, partition) was not made.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error("the store is dead after a failed write; reopen it")]
    Dead,
    #[error("writing {segment}: {source}")]
    Append {
        segment: SegmentId,
        source: io::Error,
    },
    #[error("making what was written last: {0}")]
    Flush(io::Error),
    /// The log is as it was before: the same may be tried again once there is room.
    #[error("there is no room for {segment}: {source}")]
    Full {
        segment: SegmentId,
        source: io::Error,
    },
    #[error("segment numbers are used up")]
    SegmentsUsedUp,
    #[error("a record of {0} bytes is too large")]
    TooLarge(usize),
    #[error("no partition {0:?}")]
    NoPartition(String),
    #[error("partition {0:?} exists already")]
    PartitionExists(String),
    #[error("no checkpoint {0}")]
    NoEpoch(Epoch),
    #[error("checkpoint {0} is pinned")]
    Pinned(Epoch),
    #[error("number {0} was given away before")]
    Passed(Epoch),
    #[error("the budget of {budget} bytes cannot hold the {held} bytes that must be kept")]
    Budget { budget: u64, held: u64 },
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl WriteError {
    /// Is there nothing wrong but that the medium has no room?
    #[must_use]
    pub fn is_full(&self) -> bool {
        match self {
            Self::Full { .. } => true,
            Self::Append { source, .. } => {
                matches!(
                    source.kind(),
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
                )
            }
            _ => false,
        }
    }
}

/// Why a draft did not become a checkpoint. The history is as it was, but for what thinning
/// dropped, unless the store is dead.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    #[error("no parent checkpoint {0}")]
    NoParent(Epoch),
    #[error("{0} appears twice in the draft")]
    SpaceTwice(SpaceId),
    #[error("{space} has no map in the parent checkpoint to build on")]
    NoBase { space: SpaceId },
    #[error("{page} of {space} is not in ascending order")]
    Unsorted { space: SpaceId, page: PageIndex },
    #[error("{page} of {space} has {len} bytes instead of 4096")]
    PageSize {
        space: SpaceId,
        page: PageIndex,
        len: usize,
    },
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Why checkpoints could not be taken over from another history.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    #[error("{0} is another checkpoint there than here: they are not one history")]
    Strangers(Epoch),
    #[error(transparent)]
    Commit(#[from] CommitError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl TransferError {
    /// Is there nothing wrong but that the medium has no room?
    #[must_use]
    pub fn is_full(&self) -> bool {
        match self {
            Self::Commit(CommitError::Write(error)) | Self::Write(error) => error.is_full(),
            _ => false,
        }
    }
}

/// Why something could not be read back.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("the store is dead after a failed write; reopen it")]
    Dead,
    #[error("no partition {0:?}")]
    NoPartition(String),
    #[error("no checkpoint {0}")]
    NoEpoch(Epoch),
    #[error("checkpoint {epoch} has no {space}")]
    NoSpace { epoch: Epoch, space: SpaceId },
    #[error("{older} is not an ancestor of {newer}")]
    NotAncestor { older: Epoch, newer: Epoch },
    #[error("{page} of {space} in checkpoint {epoch} is damaged: {cause}")]
    Page {
        epoch: Epoch,
        space: SpaceId,
        page: PageIndex,
        cause: PageFault,
    },
    #[error("the record of checkpoint {epoch} is damaged: {cause}")]
    Record { epoch: Epoch, cause: RecordFault },
    #[error("a stored page version is damaged: {0}")]
    Version(PageFault),
    #[error("the page map of checkpoint {epoch} is damaged: {cause}")]
    Map { epoch: Epoch, cause: RecordFault },
    #[error("the buffer of {len} bytes does not fit {pages} pages")]
    Buffer { len: usize, pages: usize },
}

/// What is wrong with one stored page version.
#[derive(Debug, thiserror::Error)]
pub enum PageFault {
    #[error("its bytes are lost")]
    Lost,
    #[error("reading {segment}: {source}")]
    Io {
        segment: SegmentId,
        source: io::Error,
    },
    #[error("its bytes in {0} do not decode")]
    Decode(SegmentId),
    #[error("its checksum in {0} does not match")]
    Checksum(SegmentId),
}

/// What is wrong with one record of the log.
#[derive(Debug, thiserror::Error)]
pub enum RecordFault {
    #[error("reading {segment}: {source}")]
    Io {
        segment: SegmentId,
        source: io::Error,
    },
    #[error("its header or checksum at {offset} of {segment} does not match")]
    Checksum { segment: SegmentId, offset: u32 },
    #[error("its payload does not decode")]
    Decode,
}
