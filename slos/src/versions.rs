use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::SegmentId;
use crate::codec::Encoding;
use crate::log::{Loc, Segment};

/// What a page map holds for a page: a stored version, the zero page, or nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Value(u32);

/// One stored page version. A version lives while a map stamp or a dependent XOR version needs it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Version {
    pub uid: u64,
    pub segment: SegmentId,
    pub offset: u32,
    base: Value,
    /// crc32c of the raw page.
    pub crc: u32,
    pub length: u16,
    pub encoding: Encoding,
    /// How much deltas against it have cost, as a share of 255 of its own length.
    wear: u8,
    /// The partition that wrote it.
    pub owner: u32,
    stamps: u32,
    dependents: u32,
}

/// Bytes a page version costs in its segment beside its body.
const TABLE_ENTRY: u32 = 12;
const CHUNK: usize = 1024;
/// A delta this small costs little more than its table entry, whatever its base.
const FREE_DELTA: u16 = 64;

/// All stored versions, and how much of each segment is live because of them and of records.
#[derive(Default)]
pub(crate) struct Versions {
    /// Chunked, so that growing never doubles the memory the budget has to hold.
    chunks: Vec<Vec<Version>>,
    free: Vec<u32>,
    by_content: HashMap<u32, u32>,
    pub segments: BTreeMap<SegmentId, SegmentEntry>,
    owned: BTreeMap<u32, u64>,
    live_bytes: u64,
}

pub(crate) struct SegmentEntry {
    pub segment: Arc<Segment>,
    pub live: u64,
    /// The cleaner met damage in it and leaves it where it is.
    pub stuck: bool,
}

impl Value {
    pub const ABSENT: Value = Value(u32::MAX);
    pub const ZERO: Value = Value(u32::MAX - 1);

    pub fn is_version(self) -> bool {
        self.0 < Value::ZERO.0
    }
}

impl Versions {
    pub fn get(&self, value: Value) -> &Version {
        let at = value.0 as usize;
        &self.chunks[at / CHUNK][at % CHUNK]
    }

    fn get_mut(&mut self, value: Value) -> &mut Version {
        let at = value.0 as usize;
        &mut self.chunks[at / CHUNK][at % CHUNK]
    }

    /// Adds a version that nothing holds yet: [`Versions::hold`] or [`Versions::release`] follows.
    pub fn insert(&mut self, draft: NewVersion) -> Value {
        if let Some(base) = draft.base {
            let base = self.get_mut(base);
            base.dependents += 1;
            base.wear_by(draft.length);
        }
        let version = Version {
            uid: draft.uid,
            segment: draft.segment,
            offset: draft.offset,
            base: draft.base.unwrap_or(Value::ABSENT),
            crc: draft.crc,
            length: draft.length,
            encoding: draft.encoding,
            wear: 0,
            owner: draft.owner,
            stamps: 0,
            dependents: 0,
        };
        let value = self.place(version);
        self.charge_version(&version);
        if matches!(version.encoding, Encoding::Raw | Encoding::Lz4) {
            self.by_content.insert(version.crc, value.0);
        }
        value
    }

    /// One more map stamp holds the version.
    pub fn hold(&mut self, value: Value) {
        if value.is_version() {
            self.get_mut(value).stamps += 1;
        }
    }

    /// A map stamp let go of the version.
    pub fn unhold(&mut self, value: Value) {
        if value.is_version() {
            let version = self.get_mut(value);
            version.stamps -= 1;
            self.release(value);
        }
    }

    /// Frees the version if nothing holds it, and then its base if nothing holds that.
    pub fn release(&mut self, value: Value) {
        let mut next = Some(value);
        while let Some(value) = next {
            let version = *self.get(value);
            if version.stamps > 0 || version.dependents > 0 {
                return;
            }
            self.discharge_version(&version);
            if self.by_content.get(&version.crc) == Some(&value.0) {
                self.by_content.remove(&version.crc);
            }
            self.get_mut(value).uid = 0;
            self.free.push(value.0);
            next = version.base();
            if let Some(base) = next {
                self.get_mut(base).dependents -= 1;
            }
        }
    }

    /// A stored version whose raw page has this checksum; the caller compares the contents.
    pub fn candidate(&self, crc: u32) -> Option<Value> {
        self.by_content.get(&crc).map(|&slot| Value(slot))
    }

    /// Whether only XOR versions still need this one.
    pub fn is_pinned_base(&self, value: Value) -> bool {
        let version = self.get(value);
        version.stamps == 0 && version.dependents > 0
    }

    /// Whether deltas against this base have together cost as much as a new base would: from here
    /// on a new one is cheaper, whatever comes, within a factor of two.
    pub fn is_worn(&self, value: Value) -> bool {
        self.get(value).wear == u8::MAX
    }

    /// The cleaner copied the body elsewhere.
    pub fn moved(&mut self, value: Value, segment: SegmentId, offset: u32) {
        let old = *self.get(value);
        self.discharge_version(&old);
        let version = self.get_mut(value);
        version.segment = segment;
        version.offset = offset;
        let new = *version;
        self.charge_version(&new);
    }

    /// Whether the slot holds this version, and not another one since.
    pub fn is_uid(&self, value: Value, uid: u64) -> bool {
        self.get(value).uid == uid
    }

    pub fn iter(&self) -> impl Iterator<Item = (Value, &Version)> {
        let all = self.chunks.iter().flatten().enumerate();
        all.filter(|(_, v)| v.uid != 0).map(|(at, v)| {
            let slot = u32::try_from(at).expect("slots are handed out as u32");
            (Value(slot), v)
        })
    }

    pub fn charge(&mut self, loc: Loc) {
        self.live_bytes += u64::from(loc.length);
        if let Some(entry) = self.segments.get_mut(&loc.segment) {
            entry.live += u64::from(loc.length);
        }
    }

    pub fn discharge(&mut self, loc: Loc) {
        self.live_bytes -= u64::from(loc.length);
        if let Some(entry) = self.segments.get_mut(&loc.segment) {
            entry.live -= u64::from(loc.length);
        }
    }

    /// Bytes of segments that something still needs.
    pub fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// Bytes of page bodies that a partition wrote and that are still needed.
    pub fn owned_bytes(&self, owner: u32) -> u64 {
        self.owned.get(&owner).copied().unwrap_or(0)
    }

    /// Bytes of segment files, dead ones included.
    pub fn file_bytes(&self) -> u64 {
        let used = self.segments.values().map(|e| e.segment.used());
        used.map(|u| u.next_multiple_of(4096)).sum()
    }

    /// Estimate of the heap this index takes.
    pub fn memory(&self) -> u64 {
        let slots = self.chunks.len() * CHUNK * size_of::<Version>();
        let tables = self.free.capacity() * 4 + self.by_content.capacity() * 10;
        (slots + tables + self.segments.len() * 200) as u64
    }

    fn place(&mut self, version: Version) -> Value {
        if let Some(slot) = self.free.pop() {
            *self.get_mut(Value(slot)) = version;
            return Value(slot);
        }
        if self.chunks.last().is_none_or(|c| c.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        let chunk = self.chunks.len() - 1;
        let at = chunk * CHUNK + self.chunks[chunk].len();
        self.chunks[chunk].push(version);
        let slot = u32::try_from(at).expect("2^32 versions are 160 GB of index");
        assert!(slot < Value::ZERO.0, "the version index is full");
        Value(slot)
    }

    fn charge_version(&mut self, version: &Version) {
        if let Some(loc) = version.loc() {
            self.charge(loc);
            *self.owned.entry(version.owner).or_default() += u64::from(loc.length);
        }
    }

    fn discharge_version(&mut self, version: &Version) {
        if let Some(loc) = version.loc() {
            self.discharge(loc);
            if let Some(owned) = self.owned.get_mut(&version.owner) {
                *owned -= u64::from(loc.length);
            }
        }
    }
}

impl Version {
    /// The whole version that an XOR body is a delta against.
    pub fn base(&self) -> Option<Value> {
        Some(self.base).filter(|b| b.is_version())
    }

    /// How many map stamps and how many deltas hold it.
    pub fn holders(&self) -> (u32, u32) {
        (self.stamps, self.dependents)
    }

    fn wear_by(&mut self, delta: u16) {
        let excess = u32::from(delta.saturating_sub(FREE_DELTA));
        let share = (excess * 255).div_ceil(u32::from(self.length.max(1)));
        let share = u8::try_from(share).unwrap_or(u8::MAX);
        self.wear = self.wear.saturating_add(share);
    }

    fn loc(&self) -> Option<Loc> {
        (self.encoding != Encoding::Lost).then_some(Loc {
            segment: self.segment,
            offset: self.offset,
            length: u32::from(self.length) + TABLE_ENTRY,
        })
    }
}

pub(crate) struct NewVersion {
    pub uid: u64,
    pub segment: SegmentId,
    pub offset: u32,
    pub base: Option<Value>,
    pub crc: u32,
    pub length: u16,
    pub encoding: Encoding,
    pub owner: u32,
}

impl NewVersion {
    /// A version that maps name, but whose body is nowhere.
    pub fn lost(uid: u64) -> NewVersion {
        NewVersion {
            uid,
            segment: SegmentId(0),
            offset: 0,
            base: None,
            crc: 0,
            length: 0,
            encoding: Encoding::Lost,
            owner: 0,
        }
    }
}
