//! Pages of the target into staging, scattered ranges in few calls.
#![allow(unsafe_code)] // One call into sls-sys's raw copy; see the SAFETY comment.

use std::collections::BTreeMap;

use slos::{Slot, Staging};
use sls_sys::RemoteMemory;
use sls_sys::remote::Copy;

use crate::error::CaptureError;
use crate::space::Range;

const PAGE: u64 = sls_sys::PAGE;

/// Copies of pages, the newest round's last. Kept until the checkpoint is committed.
#[derive(Debug, Default)]
pub struct Copies {
    rounds: Vec<Vec<(u64, Slot)>>,
}

impl Copies {
    /// Pages copied so far, later rounds counted again.
    pub fn len(&self) -> usize {
        self.rounds.iter().map(Vec::len).sum()
    }

    /// Starts over.
    pub fn clear(&mut self) {
        self.rounds.clear();
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

    /// Every page once, by index, newest copy; without those in `absent` unless the last round
    /// (made under the stop) has them.
    pub fn merged(&self, absent: &[Range]) -> Vec<(u64, Slot)> {
        if let [only] = &self.rounds[..] {
            return only.clone();
        }
        let Some((last, early)) = self.rounds.split_last() else {
            return Vec::new();
        };
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
        all.extend(last.iter().copied());
        all.into_iter().collect()
    }
}

fn run_len(run: &std::ops::Range<Slot>) -> u32 {
    run.start.pages_to(run.end)
}
