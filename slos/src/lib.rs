//! The segmented log: pages, epochs, partitions; bytes, not processes.
//!
//! A [`Store`] is one folder of append-only segment files. It holds the histories of one or more
//! [`Partition`]s; a history is a tree of immutable, numbered checkpoints ([`Epoch`]), each a set of
//! address spaces ([`SpaceId`]) that map page indexes to page versions, plus one opaque record.
//!
//! - **Invariant**: a checkpoint never changes once it is numbered, and numbers are never used again.
//! - **Invariant**: a page version is stored once, however many epochs and spaces hold it.
//! - **Invariant**: what [`Partition::commit`] acknowledged survives a `kill -9` of this process.
//! - **Invariant**: any byte read from a segment may be hostile; a page is handed out only when its
//!   decoded content matches the checksum its writer took of the raw page.
//! - Deliberately absent: processes, addresses below page granularity, and the meaning of records.
//!
//! The layout of segments is described by [`format`].

mod aside;
mod bases;
mod bodies;
mod catalogue;
mod clean;
mod codec;
mod commit;
mod device;
mod difference;
mod error;
mod excerpt;
mod fingerprint;
pub mod format;
pub mod fsck;
mod history;
mod ids;
mod index;
mod log;
mod manifest;
mod medium;
mod outline;
mod pagemap;
mod pages;
mod partition;
mod pass;
mod probes;
mod recover;
mod replay;
mod retain;
mod scan;
mod shrink;
mod slots;
mod staging;
mod store;
mod superblock;
mod tail;
mod transfer;
mod tree;
mod verify;
mod versions;

pub use aside::Aside;
pub use commit::{Base, Committed, Draft, SpaceDelta};
pub use device::{Device, FileDevice, is_block};
pub use error::{CommitError, OpenError, PageFault, ReadError, TransferError, WriteError};
pub use excerpt::{Excerpt, ExcerptError};
pub use fingerprint::{Fingerprint, fingerprint};
pub use history::{CheckpointInfo, Keep, Settings};
pub use ids::{Epoch, PAGE, PageIndex, SegmentId, SpaceId};
pub use medium::{FolderMedium, Layout, Medium, SegmentFile, private_memory_folder};
pub use outline::{Outline, Outlines};
pub use partition::{Hold, Partition, Presence};
pub use recover::{Damage, RecoveryReport};
pub use shrink::shrink;
pub use slots::{DeviceMedium, format_device, format_device_in_slots, holds_store};
pub use staging::{Slot, Staging, StagingFull};
pub use store::{HeldBytes, Options, PartitionInfo, Store};
pub use transfer::{Progress, Taken};
pub use verify::{Fault, VerifyReport};
