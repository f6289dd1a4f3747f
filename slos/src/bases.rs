//! Decoded base pages by uid, so that a page that is written again and again does not have its
//! base unpacked each time. Direct-mapped: a page finds its place by its uid alone.

use crate::PAGE;
use crate::versions::{Value, Versions};

/// The cache takes one such part of the store's budget, up to [`LARGEST`] pages.
const SHARE: u64 = 32;
const LARGEST: u64 = 4096;

pub(crate) struct BaseCache {
    slots: Vec<Option<Cached>>,
}

struct Cached {
    uid: u64,
    page: Box<[u8; PAGE]>,
}

impl BaseCache {
    pub fn new(budget: Option<u64>) -> BaseCache {
        let pages = budget.map_or(LARGEST, |b| b / SHARE / PAGE as u64);
        let pages = usize::try_from(pages.min(LARGEST)).unwrap_or(0);
        let mut slots = Vec::new();
        slots.resize_with(pages, || None);
        BaseCache { slots }
    }

    /// Bytes the cache may grow to, all of which count as held from the start.
    pub fn reserved(budget: Option<u64>) -> u64 {
        BaseCache::new(budget).slots.len() as u64 * (PAGE + size_of::<Option<Cached>>()) as u64
    }

    pub fn get(&self, versions: &Versions, base: Value) -> Option<&[u8; PAGE]> {
        let uid = versions.get(base).uid;
        let cached = self.slots.get(self.place(uid)?)?.as_ref()?;
        (cached.uid == uid).then_some(&*cached.page)
    }

    pub fn put(&mut self, uid: u64, page: &[u8; PAGE]) {
        let Some(at) = self.place(uid) else { return };
        match &mut self.slots[at] {
            Some(cached) => {
                cached.uid = uid;
                cached.page.copy_from_slice(page);
            }
            empty => {
                let page = Box::new(*page);
                *empty = Some(Cached { uid, page });
            }
        }
    }

    fn place(&self, uid: u64) -> Option<usize> {
        let at = uid.checked_rem(self.slots.len() as u64)?;
        usize::try_from(at).ok()
    }
}
