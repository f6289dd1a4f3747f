//! The public face of the single level store: what slsd is asked, how, and what comes back.
//!
//! [`Client`] speaks the wire protocol of [`protocol`]; with the feature `view`, [`view`] shows
//! checkpoints to `introspect` and [`compare`] says where two of them differ; [`elf_core`] shows them to
//! debuggers. Deliberately absent: anything that traces or keeps pages.

#[cfg(feature = "view")]
pub mod bundle;
mod client;
#[cfg(feature = "view")]
pub mod compare;
pub mod control;
#[cfg(feature = "view")]
pub mod elf_core;
mod frame;
#[cfg(feature = "view")]
mod kept;
pub mod protocol;
mod reference;
mod socket;
#[cfg(feature = "view")]
pub mod standing;
#[cfg(feature = "view")]
pub mod view;

pub use client::{Client, ClientError};
pub use frame::{FrameError, read_frame, write_frame};
#[cfg(feature = "view")]
pub use kept::Kept;
pub use reference::{EpochRef, ReferenceError, is_temporary, partition_name, temporary_name};
pub use sls_record as record;
pub use socket::{
    SocketError, default_socket, lasting_folder, memory_name, private_folder, state_folder,
};
