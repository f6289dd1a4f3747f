//! Outlines in memory, and what may become of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use proptest::sample::Index;
use slos::{Outline, Outlines, SegmentId};

/// Encoded, as who keeps them has them.
#[derive(Default)]
pub struct Kept(Mutex<BTreeMap<SegmentId, Vec<u8>>>);

impl Outlines for Kept {
    fn outline(&self, _: &[u8; 16], segment: SegmentId) -> Option<Outline> {
        let kept = self.0.lock().unwrap();
        postcard::from_bytes(kept.get(&segment)?).ok()
    }

    fn keep(&self, _: &[u8; 16], segment: SegmentId, outline: Outline) {
        let bytes = postcard::to_stdvec(&outline).unwrap();
        self.0.lock().unwrap().insert(segment, bytes);
    }

    fn keep_only(&self, _: &[u8; 16], segments: &BTreeSet<SegmentId>) {
        self.0.lock().unwrap().retain(|s, _| segments.contains(s));
    }
}

impl Kept {
    /// Flips bits, and gives segments the outlines of others.
    pub fn scribble(&self, flips: &[(Index, Index, u32)], swaps: &[(Index, Index)]) {
        let mut kept = self.0.lock().unwrap();
        let mut all: Vec<Vec<u8>> = kept.values().cloned().collect();
        for (a, b) in swaps {
            let (a, b) = (a.index(all.len()), b.index(all.len()));
            all.swap(a, b);
        }
        for (which, at, bit) in flips {
            let which = which.index(all.len());
            let at = at.index(all[which].len());
            all[which][at] ^= 1 << bit;
        }
        for (kept, scribbled) in kept.values_mut().zip(all) {
            *kept = scribbled;
        }
    }
}
