//! The payload of an EPOCH record: one checkpoint's maps, as a difference from its base epoch's.
//!
//! | bytes | field |
//! |---|---|
//! | 8 | bytes the commit appended |
//! | 1 | flags: bit 0, live when written; bit 1, named; bit 2, pinned |
//! | varint each | epoch, parent or 0, base epoch or 0, depth, time, stop time, pages, record length |
//! | varint + bytes each | branch, name if flagged, meta |
//! | varint | number of spaces; for each: |
//! | varint each | space, `from + 1` or 0, number of runs; for each run: |
//! | varint | gap since the end of the run before |
//! | varint | `(length - 1) * 4 + kind`: 0 versions of ascending uid, 1 zero, 2 absent; length to 64 |
//! | varint | kind 0: zigzag difference of the first uid from the one expected |
//!
//! Runs are short so that what a manifest expands to stays in proportion to its bytes.

use std::sync::Arc;

use crate::format::{Cursor, put_blob, put_varint};
use crate::history::CheckpointInfo;
use crate::{Epoch, SpaceId};

/// What a manifest says of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Version(u64),
    Zero,
    Absent,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub live: bool,
    pub info: CheckpointInfo,
    pub base: Option<Epoch>,
    pub depth: u64,
    pub record_len: u64,
    pub spaces: Vec<ManifestSpace>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ManifestSpace {
    pub space: SpaceId,
    pub from: Option<SpaceId>,
    /// Ascending.
    pub changes: Vec<(u64, Entry)>,
}

const MAX_RUN: u64 = 64;

impl Manifest {
    /// The payload; its first eight bytes, the bytes appended, are patched by
    /// [`Manifest::set_bytes`] once the length is known.
    pub fn encode(&self) -> Vec<u8> {
        let info = &self.info;
        let mut out = info.bytes.to_le_bytes().to_vec();
        let named = u8::from(info.name.is_some()) << 1;
        out.push(u8::from(self.live) | named | u8::from(info.pinned) << 2);
        let number = |e: Option<Epoch>| e.map_or(0, |e| e.0);
        for value in [
            info.epoch.0,
            number(info.parent),
            number(self.base),
            self.depth,
            info.time_ns,
            info.stop_us,
            info.pages,
            self.record_len,
        ] {
            put_varint(&mut out, value);
        }
        put_blob(&mut out, info.branch.as_bytes());
        if let Some(name) = &info.name {
            put_blob(&mut out, name.as_bytes());
        }
        put_blob(&mut out, &info.meta);
        put_varint(&mut out, self.spaces.len() as u64);
        for space in &self.spaces {
            put_varint(&mut out, u64::from(space.space.0));
            put_varint(&mut out, space.from.map_or(0, |f| u64::from(f.0) + 1));
            put_runs(&mut out, &space.changes);
        }
        out
    }

    pub fn set_bytes(payload: &mut [u8], bytes: u64) {
        payload[..8].copy_from_slice(&bytes.to_le_bytes());
    }

    pub fn decode(payload: &[u8]) -> Option<Manifest> {
        let mut c = Cursor(payload);
        let bytes = u64::from_le_bytes(*c.bytes(8)?.first_chunk()?);
        let flags = c.bytes(1)?[0];
        let some = |n: u64| (n != 0).then_some(Epoch(n));
        let epoch = some(c.varint()?)?;
        let parent = some(c.varint()?);
        let base = some(c.varint()?);
        let depth = c.varint()?;
        let [time_ns, stop_us, pages, record_len] =
            [c.varint()?, c.varint()?, c.varint()?, c.varint()?];
        let branch = std::str::from_utf8(c.blob()?).ok()?;
        let name = match flags & 2 {
            0 => None,
            _ => Some(std::str::from_utf8(c.blob()?).ok()?.to_owned()),
        };
        let meta = c.blob()?;
        if base.is_some_and(|b| b >= epoch) {
            return None;
        }
        let spaces = get_spaces(&mut c)?;
        Some(Manifest {
            live: flags & 1 != 0,
            info: CheckpointInfo {
                epoch,
                parent,
                branch: Arc::from(branch),
                name,
                time_ns,
                stop_us,
                pages,
                bytes,
                meta: Arc::from(meta),
                pinned: flags & 4 != 0,
            },
            base,
            depth,
            record_len,
            spaces,
        })
    }
}

/// What a manifest of so many changes will take, roughly, to judge whether rewriting pays.
pub(crate) fn estimate(changes: u64) -> u64 {
    256 + changes * 5
}

fn put_runs(out: &mut Vec<u8>, changes: &[(u64, Entry)]) {
    let mut body = Vec::with_capacity(changes.len() * 4);
    let mut count = 0;
    let mut at = 0;
    let (mut page_end, mut uid_end) = (0, 0);
    while let Some(&(page, entry)) = changes.get(at) {
        let len = run_length(&changes[at..]);
        put_varint(&mut body, page - page_end);
        let kind = match entry {
            Entry::Version(_) => 0,
            Entry::Zero => 1,
            Entry::Absent => 2,
        };
        put_varint(&mut body, (len - 1) * 4 + kind);
        if let Entry::Version(uid) = entry {
            put_varint(&mut body, zigzag(uid.wrapping_sub(uid_end)));
            uid_end = uid + len;
        }
        page_end = page + len;
        at += usize::try_from(len).expect("runs are short");
        count += 1;
    }
    put_varint(out, count);
    out.extend_from_slice(&body);
}

fn run_length(changes: &[(u64, Entry)]) -> u64 {
    let (page, entry) = changes[0];
    let follows = |&(i, &(p, e)): &(u64, &(u64, Entry))| {
        let expected = match entry {
            Entry::Version(uid) => Entry::Version(uid + i),
            same => same,
        };
        i < MAX_RUN && p == page + i && e == expected
    };
    (0..).zip(changes).take_while(follows).count() as u64
}

fn get_spaces(c: &mut Cursor<'_>) -> Option<Vec<ManifestSpace>> {
    let mut spaces: Vec<ManifestSpace> = Vec::new();
    for _ in 0..c.varint()? {
        let space = SpaceId(c.varint32()?);
        let from = match c.varint()? {
            0 => None,
            n => Some(SpaceId(u32::try_from(n - 1).ok()?)),
        };
        let changes = get_runs(c)?;
        if spaces.last().is_some_and(|s| s.space >= space) {
            return None;
        }
        spaces.push(ManifestSpace {
            space,
            from,
            changes,
        });
    }
    Some(spaces)
}

fn get_runs(c: &mut Cursor<'_>) -> Option<Vec<(u64, Entry)>> {
    let mut changes = Vec::new();
    let (mut page_end, mut uid_end) = (0u64, 0u64);
    for _ in 0..c.varint()? {
        let page = page_end.checked_add(c.varint()?)?;
        let word = c.varint()?;
        let len = word / 4 + 1;
        if len > MAX_RUN {
            return None;
        }
        page_end = page.checked_add(len)?;
        let uid = match word % 4 {
            0 => Some(uid_end.wrapping_add(unzigzag(c.varint()?))),
            1 | 2 => None,
            _ => return None,
        };
        if let Some(uid) = uid {
            uid_end = uid.checked_add(len)?;
        }
        changes.extend((0..len).map(|i| {
            let entry = match (uid, word % 4) {
                (Some(uid), _) => Entry::Version(uid + i),
                (None, 1) => Entry::Zero,
                (None, _) => Entry::Absent,
            };
            (page + i, entry)
        }));
    }
    Some(changes)
}

fn zigzag(difference: u64) -> u64 {
    let signed = difference.cast_signed();
    ((signed << 1) ^ (signed >> 63)).cast_unsigned()
}

fn unzigzag(value: u64) -> u64 {
    (value >> 1) ^ (value & 1).wrapping_neg()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry() -> impl Strategy<Value = Entry> {
        prop_oneof![
            (1u64..5000).prop_map(Entry::Version),
            Just(Entry::Version(u64::MAX - 70)),
            Just(Entry::Zero),
            Just(Entry::Absent),
        ]
    }

    proptest! {
        #[test]
        fn maps_survive(changes in proptest::collection::btree_map(0u64..400, entry(), 0..300)) {
            let changes: Vec<_> = changes.into_iter().collect();
            let mut out = Vec::new();
            put_runs(&mut out, &changes);
            prop_assert_eq!(get_runs(&mut Cursor(&out)), Some(changes));
        }

        #[test]
        fn hostile_payloads_stay_small(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Some(manifest) = Manifest::decode(&bytes) {
                let pages: usize = manifest.spaces.iter().map(|s| s.changes.len()).sum();
                prop_assert!(pages <= bytes.len() * 64);
            }
        }
    }
}
