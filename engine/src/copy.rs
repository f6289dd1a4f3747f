//! Pages of the target into staging, scattered ranges in few calls.
#![allow(unsafe_code)] // One call into sls-sys's raw copy; see the SAFETY comment.

use std::collections::BTreeMap;

use slos::{Slot, Staging};
use sls_sys::RemoteMemory;
use sls_sys::remote::Copy;

use crate::error::CaptureError;
use crate::ranges::Range;

const PAGE: u64 = sls_sys::PAGE;

/// Copies of pages, the newest round's last. Kept until the checkpoint is committed.
#[derive(Debug, Default)]
pub struct Copies {
    rounds: Vec<Vec<(u64, Slot)>>,
    /// Rounds that were made while the target ran.
    ahead: usize,
}

impl Copies {
    /// Pages copied so far, later rounds counted again.
    pub fn len(&self) -> usize {
        self.rounds.iter().map(Vec::len).sum()
    }

    /// Starts over.
    pub fn clear(&mut self) {
        self.rounds.clear();
        self.ahead = 0;
    }

    /// Copies every page of `ranges`; a page that is gone is left out.
    pub fn take(
        &mut self,
        memory: &RemoteMemory,
        staging: &mut Staging,
        ranges: &[Range],
    ) -> Result<(), CaptureError> {
        let pid = memory.pid();
        let pages: u64 = ranges.iter().map(|r| (r.1 - r.0) / PAGE).sum();
        if pages == 0 {
            return Ok(());
        }
        let runs = staging
            .alloc_run(sls_sys::size(pages))
            .map_err(|source| CaptureError::Staging { pid, source })?;
        let mut round = Vec::with_capacity(sls_sys::size(pages));
        let mut copies = Vec::with_capacity(ranges.len() + runs.len());
        let mut slots = runs.into_iter();
        let mut slot: Option<std::ops::Range<Slot>> = slots.next();
        for &(start, end) in ranges {
            let mut at = start;
            while at < end {
                let Some(run) = slot.as_mut() else { break };
                let free = run_len(run);
                let n = ((end - at) / PAGE).min(u64::from(free));
                let count = u32::try_from(n).unwrap_or(free);
                copies.push(Copy {
                    remote: at,
                    local: staging
                        .run_mut(&(run.start..run.start.offset(count)))
                        .as_mut_ptr(),
                    len: sls_sys::size(n * PAGE),
                });
                for i in 0..count {
                    round.push((at / PAGE + u64::from(i), run.start.offset(i)));
                }
                at += n * PAGE;
                run.start = run.start.offset(count);
                if run_len(run) == 0 {
                    slot = slots.next();
                }
            }
        }
        let mut lost = Vec::new();
        // SAFETY: every `local` is the start of `len` bytes of one staging run that was allocated
        // above for this round alone, and staging is borrowed mutably until the end.
        unsafe { memory.copy(&copies, |address| lost.push(address / PAGE)) }.map_err(|source| {
            match source.raw_os_error() {
                Some(libc::ESRCH) => CaptureError::Dead(pid),
                _ => CaptureError::System {
                    what: "copy pages",
                    pid,
                    source,
                },
            }
        })?;
        if !lost.is_empty() {
            round.retain(|(page, _)| lost.binary_search(page).is_err());
        }
        self.rounds.push(round);
        Ok(())
    }

    /// Numbers of the pages copied so far, some more than once.
    pub fn indices(&self) -> impl Iterator<Item = u64> {
        self.rounds.iter().flatten().map(|(page, _)| *page)
    }

    /// Marks that every round from here on is made under the stop.
    pub fn stop(&mut self) {
        self.ahead = self.rounds.len();
    }

    /// Forgets what was copied since [`Copies::stop`].
    pub fn restart(&mut self) {
        self.rounds.truncate(self.ahead);
    }

    /// Every page once, by index, newest copy. A page in `absent` that was copied ahead has gone
    /// since; one that was copied under the stop was there.
    pub fn merged(&self, absent: &[Range]) -> Vec<(u64, Slot)> {
        if let ([only], 0) = (&self.rounds[..], self.ahead) {
            return only.clone();
        }
        let (early, late) = self.rounds.split_at(self.ahead.min(self.rounds.len()));
        let mut all: BTreeMap<u64, Slot> = early.iter().flatten().copied().collect();
        for &(start, end) in absent {
            let gone: Vec<u64> = all
                .range(start / PAGE..end / PAGE)
                .map(|(&page, _)| page)
                .collect();
            for page in gone {
                all.remove(&page);
            }
        }
        all.extend(late.iter().flatten().copied());
        all.into_iter().collect()
    }
}

fn run_len(run: &std::ops::Range<Slot>) -> u32 {
    run.start.pages_to(run.end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_went_after_it_was_copied_ahead_is_gone() {
        let mut staging = Staging::new(16);
        let slot = |staging: &mut Staging| staging.alloc().unwrap();
        let (a, b, c) = (slot(&mut staging), slot(&mut staging), slot(&mut staging));
        let mut copies = Copies {
            rounds: vec![vec![(5, a), (7, b)]],
            ahead: 0,
        };
        copies.stop();
        // Nothing was written since, so the stop adds no round at all.
        assert_eq!(copies.merged(&[(5 * PAGE, 6 * PAGE)]), [(7, b)]);
        copies.rounds.push(vec![(5, c)]);
        assert_eq!(copies.merged(&[(5 * PAGE, 6 * PAGE)]), [(5, c), (7, b)]);
    }
}
