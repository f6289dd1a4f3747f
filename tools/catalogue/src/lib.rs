//! Where a daemon keeps what it knows of stores until the next one.
//!
//! Nothing is only here: whoever asks proves what is told against the store, and can find it there
//! again. So a [`Catalogue`] may lose anything at any time, and is begun anew when it is damaged. It is not
//! to be confused with the CATALOGUE records of a store's log, which are the truth.
//!
//! [`InSled`] keeps it in sled. sled panics over damaged files, keeps threads, and may be left with files that it
//! refuses for good; so it lives in a process of its own, `sls-catalogue`, which is started for each
//! question and may end in any way. [`InMemory`] is for who has no folder, and for tests.
//!
//! - **Invariant**: whatever lies in the folder, and whatever becomes of the process, who asks gets an answer
//!   or an error within [`PATIENCE`].
//! - Deliberately absent: what the keys and values mean.

mod apart;
mod memory;
pub mod protocol;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use apart::InSled;
pub use memory::InMemory;

/// How long a question may take.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// All that is kept.
pub type Entries = BTreeMap<Vec<u8>, Vec<u8>>;

/// One entry that is put in the place of another, or taken out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    #[serde(with = "serde_bytes")]
    pub key: Vec<u8>,
    #[serde(with = "serde_bytes")]
    pub value: Option<Vec<u8>>,
}

/// Why what is known could not be loaded, or not be kept.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    #[error("{0} is in use by another process")]
    InUse(PathBuf),
    #[error("{folder}: {cause}")]
    Failed { folder: PathBuf, cause: String },
}

/// Keeps entries from one daemon to the next.
pub trait Catalogue: Send + Sync {
    /// All that was saved, as far as it is still there.
    fn load(&self) -> Result<Entries, Trouble>;
    /// Makes changes, all or none unless the machine ends meanwhile.
    fn save(&self, changes: &[Change]) -> Result<(), Trouble>;
    /// Begins anew, with nothing in it: what cannot be loaded is of no use to anybody.
    fn clear(&self) -> Result<(), Trouble>;
}
