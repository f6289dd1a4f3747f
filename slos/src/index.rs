use std::collections::BTreeMap;
use std::sync::Arc;

use crate::codec::{Encoding, decode_delta, decode_whole, matches};
use crate::error::PageFault;
use crate::history::Settings;
use crate::log::Segment;
use crate::manifest::Entry;
use crate::tree::History;
use crate::versions::{Value, Version, Versions};
use crate::{PAGE, SegmentId};

/// All that readers look at: which versions exist, where they lie, and every partition's history.
pub(crate) struct Index {
    pub versions: Versions,
    pub histories: BTreeMap<u32, History>,
    pub next_partition: u32,
    /// Bytes the writer's cache of base pages may take.
    pub base_cache: u64,
    /// Segments cleaned since the store was opened.
    pub cleaned: u64,
    /// Segments lie in slots, and what follows their last records means nothing.
    pub slots: bool,
}

/// A page version found under the index's lock, readable without it: segments stay readable for
/// whoever holds them, wherever the cleaner moves the version meanwhile.
pub(crate) enum Located {
    Absent,
    Zero,
    Whole(Body),
    Delta { base: Body, delta: Body },
    Lost,
}

#[derive(Clone)]
pub(crate) struct Body {
    pub segment: Arc<Segment>,
    pub place: Place,
}

/// Where the bytes of a version lie, and what they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub segment: SegmentId,
    pub offset: u32,
    pub length: u16,
    pub encoding: Encoding,
    /// crc32c of the raw page.
    pub crc: u32,
}

impl Index {
    pub fn new() -> Index {
        Index {
            versions: Versions::default(),
            histories: BTreeMap::new(),
            next_partition: 1,
            base_cache: 0,
            cleaned: 0,
            slots: false,
        }
    }

    pub fn add_history(&mut self, id: u32, name: String, settings: Settings) {
        self.next_partition = self.next_partition.max(id.saturating_add(1));
        self.histories.insert(id, History::new(id, name, settings));
    }

    pub fn remove_history(&mut self, id: u32) {
        if let Some(mut history) = self.histories.remove(&id) {
            history.clear(&mut self.versions);
        }
    }

    /// What the budgets of all partitions make together; `None` when one has none, or there is no
    /// partition.
    pub fn budgets(&self) -> Option<u64> {
        let budgets = self.histories.values().map(|h| h.settings.budget);
        let sum: Option<u64> = budgets.sum();
        sum.filter(|_| !self.histories.is_empty())
    }

    /// What counts against a partition's budget: the bodies it wrote, its manifests and records,
    /// and its index, each with its share of what is dead in the segments.
    pub fn partition_bytes(&self, id: u32) -> u64 {
        let Some(history) = self.histories.get(&id) else {
            return 0;
        };
        let live = self.versions.live_bytes().max(1);
        let own = self.versions.owned_bytes(id) + history.log_bytes();
        let files = self.versions.file_bytes().max(live);
        let share = u128::from(files) * u128::from(own) / u128::from(live);
        u64::try_from(share).unwrap_or(u64::MAX) + history.memory()
    }

    pub fn history_named(&self, name: &str) -> Option<&History> {
        self.histories.values().find(|h| h.name == name)
    }

    /// Estimate of the heap the index takes.
    pub fn memory(&self) -> u64 {
        let histories = self.histories.values().map(History::memory);
        self.versions.memory() + self.base_cache + histories.sum::<u64>()
    }

    pub fn held_bytes(&self) -> u64 {
        self.versions.file_bytes() + self.memory()
    }

    pub fn locate(&self, value: Value) -> Located {
        if value == Value::ABSENT {
            return Located::Absent;
        }
        if value == Value::ZERO {
            return Located::Zero;
        }
        let version = *self.versions.get(value);
        let Some(body) = self.body(version) else {
            return Located::Lost;
        };
        match (version.encoding, version.base()) {
            (delta, Some(base)) if delta.is_delta() => match self.body(*self.versions.get(base)) {
                Some(base) => Located::Delta { base, delta: body },
                None => Located::Lost,
            },
            (delta, None) if delta.is_delta() => Located::Lost,
            _ => Located::Whole(body),
        }
    }

    /// How a manifest names the value.
    pub fn entry(&self, value: Value) -> Entry {
        match value {
            Value::ABSENT => Entry::Absent,
            Value::ZERO => Entry::Zero,
            version => Entry::Version(self.versions.get(version).uid),
        }
    }

    fn body(&self, version: Version) -> Option<Body> {
        if version.encoding == Encoding::Lost {
            return None;
        }
        let entry = self.versions.segments.get(&version.segment)?;
        Some(Body {
            segment: Arc::clone(&entry.segment),
            place: Place {
                segment: version.segment,
                offset: version.offset,
                length: version.length,
                encoding: version.encoding,
                crc: version.crc,
            },
        })
    }
}

impl Located {
    /// Decodes the page; `false` when there is none, and then `out` is zero.
    pub fn read(&self, out: &mut [u8; PAGE]) -> Result<bool, PageFault> {
        match self {
            Located::Absent | Located::Zero => {
                out.fill(0);
                Ok(matches!(self, Located::Zero))
            }
            Located::Whole(body) => {
                body.whole(out)?;
                body.check(out)?;
                Ok(true)
            }
            Located::Delta { base, delta } => {
                base.whole(out)?;
                base.check(out)?;
                delta.over(out)?;
                delta.check(out)?;
                Ok(true)
            }
            Located::Lost => Err(PageFault::Lost),
        }
    }

    /// Whether this is the page's content. Bytes that are equal need no checksum.
    pub fn holds(&self, page: &[u8; PAGE]) -> bool {
        let mut stored = [0; PAGE];
        let decoded = match self {
            Located::Whole(body) => body.whole(&mut stored),
            Located::Delta { base, delta } => base
                .whole(&mut stored)
                .and_then(|()| delta.over(&mut stored)),
            Located::Absent | Located::Zero | Located::Lost => return false,
        };
        decoded.is_ok() && stored == *page
    }
}

impl Body {
    /// The stored bytes as they lie.
    pub fn load<'a>(&self, buffer: &'a mut [u8; PAGE]) -> Result<&'a [u8], PageFault> {
        let bytes = &mut buffer[..usize::from(self.place.length).min(PAGE)];
        self.segment
            .file
            .read_at(bytes, u64::from(self.place.offset))
            .map_err(|source| PageFault::Io {
                segment: self.place.segment,
                source,
            })?;
        Ok(bytes)
    }

    fn whole(&self, out: &mut [u8; PAGE]) -> Result<(), PageFault> {
        let mut bytes = [0; PAGE];
        let body = self.load(&mut bytes)?;
        decode_whole(self.place.encoding, body, out).ok_or(self.undecodable())
    }

    /// Applies a delta to its base.
    fn over(&self, out: &mut [u8; PAGE]) -> Result<(), PageFault> {
        let mut bytes = [0; PAGE];
        let body = self.load(&mut bytes)?;
        decode_delta(self.place.encoding, body, out).ok_or(self.undecodable())
    }

    fn check(&self, page: &[u8; PAGE]) -> Result<(), PageFault> {
        if matches(page, self.place.crc) {
            Ok(())
        } else {
            Err(PageFault::Checksum(self.place.segment))
        }
    }

    fn undecodable(&self) -> PageFault {
        PageFault::Decode(self.place.segment)
    }
}
