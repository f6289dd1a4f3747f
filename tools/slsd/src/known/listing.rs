//! What a store held when it was closed: as entries, and back.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use libsls::protocol::{History, HistoryRow};
use serde::{Deserialize, Serialize};
use slos::Fingerprint;
use sls_catalogue::Entries;

use super::entry::{Kind, is, key, unseal};

/// What [`entries`] makes.
pub const KINDS: &[Kind] = &[Kind::Store, Kind::Checkpoints];

/// Checkpoints an entry: those that stay as they are need not be saved again.
const TOGETHER: usize = 256;

/// A store as it was when it was closed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Seen {
    path: Vec<u8>,
    log: [u8; 32],
    pub seen_ns: u64,
    histories: Vec<Head>,
}

/// A history without its checkpoints.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Head {
    partition: String,
    head: u64,
    branch: String,
    checkpoints: u64,
}

/// A value before it is sealed.
#[derive(Serialize)]
#[serde(untagged)]
pub enum Body {
    Store(Seen),
    Checkpoints(Vec<HistoryRow>),
}

impl Seen {
    pub fn is_at(&self, path: &Path) -> bool {
        self.path == path.as_os_str().as_bytes()
    }

    /// Does anything lie where it was?
    pub fn is_there(&self) -> bool {
        Path::new(std::ffi::OsStr::from_bytes(&self.path)).exists()
    }
}

/// Every store that is known, by its uuid.
pub fn stores(entries: &Entries) -> impl Iterator<Item = ([u8; 16], Seen)> {
    entries
        .iter()
        .filter(|(key, _)| is(key, Kind::Store))
        .filter_map(|(key, value)| Some((*key.first_chunk()?, unseal(key, value)?)))
}

pub fn entries(
    path: &Path,
    fingerprint: &Fingerprint,
    histories: &[History],
) -> BTreeMap<Vec<u8>, Body> {
    let mut entries = BTreeMap::new();
    let store = &fingerprint.store;
    for (which, history) in (0u32..).zip(histories) {
        for (n, some) in (0u32..).zip(history.checkpoints.chunks(TOGETHER)) {
            let key = key(store, Kind::Checkpoints, &place(which, n));
            entries.insert(key, Body::Checkpoints(some.to_vec()));
        }
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let since = since.unwrap_or_default().as_nanos();
    let seen = Seen {
        path: path.as_os_str().as_bytes().to_vec(),
        log: fingerprint.log,
        seen_ns: u64::try_from(since).unwrap_or(u64::MAX),
        histories: histories.iter().map(Head::of).collect(),
    };
    entries.insert(key(store, Kind::Store, &[]), Body::Store(seen));
    entries
}

/// The histories of the store, if it is the one that was seen and all of them are whole.
pub fn told(entries: &Entries, fingerprint: &Fingerprint) -> Option<Vec<History>> {
    let store = &fingerprint.store;
    let at = key(store, Kind::Store, &[]);
    let seen: Seen = unseal(&at, entries.get(&at)?)?;
    if seen.log != fingerprint.log {
        return None;
    }
    let each = (0u32..).zip(seen.histories);
    each.map(|(which, head)| {
        let mut checkpoints: Vec<HistoryRow> = Vec::new();
        let count = usize::try_from(head.checkpoints).ok()?;
        for n in 0..u32::try_from(count.div_ceil(TOGETHER)).ok()? {
            let at = key(store, Kind::Checkpoints, &place(which, n));
            let some: Vec<HistoryRow> = unseal(&at, entries.get(&at)?)?;
            checkpoints.extend(some);
        }
        (checkpoints.len() == count).then_some(History {
            partition: head.partition,
            head: head.head,
            branch: head.branch,
            checkpoints,
        })
    })
    .collect()
}

fn place(history: u32, n: u32) -> [u8; 8] {
    let mut place = [0; 8];
    place[..4].copy_from_slice(&history.to_be_bytes());
    place[4..].copy_from_slice(&n.to_be_bytes());
    place
}

impl Head {
    fn of(history: &History) -> Head {
        Head {
            partition: history.partition.clone(),
            head: history.head,
            branch: history.branch.clone(),
            checkpoints: history.checkpoints.len() as u64,
        }
    }
}
