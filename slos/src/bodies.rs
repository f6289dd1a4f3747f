//! Where the bodies of page versions lie, as a scan of the log gathers them.

use crate::SegmentId;
use crate::pages::PageRow;
use crate::versions::Value;

/// A version's body as the scan met it; of several copies the last one counts.
pub(crate) struct StoredBody {
    pub row: PageRow,
    pub segment: SegmentId,
    pub offset: u32,
    pub owner: u32,
    /// The slot it has been given in the index.
    pub value: Option<Value>,
}

/// All bodies by uid. They come nearly in order, and are asked for in runs.
#[derive(Default)]
pub(crate) struct Bodies {
    all: Vec<StoredBody>,
    sorted: bool,
    /// Behind the one that was asked for last.
    next: usize,
}

impl Bodies {
    pub fn add(&mut self, body: StoredBody) {
        self.sorted = false;
        self.all.push(body);
    }

    /// To be called when all are there.
    pub fn sort(&mut self) {
        self.all.sort_by_key(|body| body.row.uid);
        // The copies of one keep their order.
        self.all.dedup_by(|later, kept| {
            let same = later.row.uid == kept.row.uid;
            if same {
                std::mem::swap(later, kept);
            }
            same
        });
        self.sorted = true;
    }

    /// Where a body stands; cheap for the uid that follows the one asked for before.
    pub fn find(&mut self, uid: u64) -> Option<usize> {
        let hinted = self.all.get(self.next).is_some_and(|b| b.row.uid == uid);
        let at = match hinted {
            true => self.next,
            false => self.search(uid)?,
        };
        self.next = at + 1;
        Some(at)
    }

    /// The same out of order: bases lie anywhere.
    pub fn search(&self, uid: u64) -> Option<usize> {
        debug_assert!(self.sorted);
        self.all.binary_search_by_key(&uid, |b| b.row.uid).ok()
    }

    pub fn at(&mut self, place: usize) -> &mut StoredBody {
        &mut self.all[place]
    }
}
