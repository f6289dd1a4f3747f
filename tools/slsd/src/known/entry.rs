//! Keys, and values that tell when they are not what was put there.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// What an entry is of a store, whose uuid the key begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Where it lies, its fingerprint, its histories but for their checkpoints.
    Store = 1,
    /// Some checkpoints of one history.
    Checkpoints = 2,
    /// Of one segment.
    Outline = 3,
}

impl Kind {
    pub const ALL: &'static [Kind] = &[Kind::Store, Kind::Checkpoints, Kind::Outline];
}

/// Of what is in the values. Those of another version are none.
const VERSION: u8 = 1;
const CHECK: usize = 8;

pub fn key(store: &[u8; 16], kind: Kind, rest: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(17 + rest.len());
    key.extend_from_slice(store);
    key.push(kind as u8);
    key.extend_from_slice(rest);
    key
}

pub fn is(key: &[u8], kind: Kind) -> bool {
    key.get(16) == Some(&(kind as u8))
}

/// Version, a hash over key and body, the body.
pub fn seal<T: Serialize>(key: &[u8], body: &T) -> Option<Vec<u8>> {
    let body = postcard::to_stdvec(body).ok()?;
    let mut sealed = vec![VERSION];
    sealed.extend_from_slice(&check(key, &body));
    sealed.extend_from_slice(&body);
    Some(sealed)
}

pub fn unseal<T: DeserializeOwned>(key: &[u8], sealed: &[u8]) -> Option<T> {
    let (&version, rest) = sealed.split_first()?;
    let (told, body) = rest.split_first_chunk::<CHECK>()?;
    if version != VERSION || *told != check(key, body) {
        return None;
    }
    postcard::from_bytes(body).ok()
}

fn check(key: &[u8], body: &[u8]) -> [u8; CHECK] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(key.len() as u64).to_le_bytes());
    hasher.update(key).update(body);
    let mut check = [0; CHECK];
    check.copy_from_slice(&hasher.finalize().as_bytes()[..CHECK]);
    check
}
