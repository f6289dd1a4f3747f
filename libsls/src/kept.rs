//! Which pages of a process a checkpoint has, and reading them in long runs.

use std::collections::BTreeMap;
use std::ops::Range;

use introspect::Unavailable;
use sls_record::{Backing, Mapping, Process};

use crate::client::ClientError;
use crate::protocol::{Answer, MAX_PAGES, Request};
use crate::view::{CheckpointView, place};

const PAGE: u64 = 4096;
const PAGE_BYTES: usize = 4096;

/// The pages a checkpoint has, by space: first page and count, ascending.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kept(BTreeMap<u32, Vec<(u64, u64)>>);

impl FromIterator<(u32, Vec<(u64, u64)>)> for Kept {
    fn from_iter<T: IntoIterator<Item = (u32, Vec<(u64, u64)>)>>(spaces: T) -> Self {
        Self(spaces.into_iter().collect())
    }
}

impl Kept {
    /// Is any page of a mapping among them?
    #[must_use]
    pub fn any_of(&self, process: &Process, map: &Mapping) -> bool {
        self.within(process, map).next().is_some()
    }

    /// The addresses of a mapping whose pages are kept, ascending and apart.
    pub fn within<'a>(
        &'a self,
        process: &Process,
        map: &Mapping,
    ) -> impl Iterator<Item = Range<u64>> + use<'a> {
        let (start, end) = (map.start, map.end);
        let place = place(process, map, start);
        let runs = place.and_then(|(space, _)| self.0.get(&space));
        let first = place.map_or(0, |(_, first)| first);
        let last = first.saturating_add(end.saturating_sub(start) / PAGE);
        let runs = runs.map_or(&[][..], |runs| {
            let from = runs.partition_point(|run| run.0.saturating_add(run.1) <= first);
            &runs[from..]
        });
        runs.iter().map_while(move |&(page, count)| {
            let (from, to) = (page.max(first), page.saturating_add(count).min(last));
            (from < to).then(|| start + (from - first) * PAGE..start + (to - first) * PAGE)
        })
    }
}

impl CheckpointView {
    /// Which pages it has.
    ///
    /// # Errors
    /// slsd does not answer, or no longer has the checkpoint.
    pub fn kept(&self) -> Result<Kept, ClientError> {
        let process = self.process();
        let mut kept = Kept::default();
        for map in &process.mappings {
            let Some((space, _)) = place(process, map, map.start) else {
                continue;
            };
            if kept.0.contains_key(&space) {
                continue;
            }
            let request = Request::Kept {
                part: Some(self.partition().to_owned()),
                epoch: self.epoch(),
                space,
            };
            match self.ask(&request)? {
                Answer::PageRuns(runs) => kept.0.insert(space, runs),
                other => return Err(ClientError::OutOfTurn(format!("{other:?}"))),
            };
        }
        Ok(kept)
    }

    /// Reads whole pages of one mapping with few questions, and remembers none of them.
    ///
    /// # Errors
    /// The first page that is not there; those before it have been read.
    pub fn read_run(&self, address: u64, buf: &mut [u8]) -> Result<(), Unavailable> {
        let most = MAX_PAGES as usize * PAGE_BYTES;
        let mut at = address;
        for part in buf.chunks_mut(most) {
            self.read_pages(at, part)?;
            at += part.len() as u64;
        }
        Ok(())
    }

    fn read_pages(&self, address: u64, buf: &mut [u8]) -> Result<(), Unavailable> {
        let because = |error: ClientError| Unavailable::because(error.to_string());
        let map = self.mapping_at(address)?;
        let Some((space, first)) = place(self.process(), map, address) else {
            return Err(Unavailable::not_mapped(address));
        };
        let count = u32::try_from(buf.len() / PAGE_BYTES).unwrap_or(MAX_PAGES);
        let request = Request::Pages {
            part: Some(self.partition().to_owned()),
            epoch: self.epoch(),
            space,
            runs: vec![(first, count)],
        };
        let Answer::Pages { present, bytes } = self.ask(&request).map_err(because)? else {
            return Err(Unavailable::because("slsd answered out of turn"));
        };
        let mut pages = bytes.chunks_exact(PAGE_BYTES);
        let addresses = (address..).step_by(PAGE_BYTES);
        for ((into, here), at) in buf.chunks_mut(PAGE_BYTES).zip(present).zip(addresses) {
            let page = if here { pages.next() } else { None };
            match page {
                Some(page) => into.copy_from_slice(&page[..into.len()]),
                None if map.backing == Backing::File => self.read_file(map, at, into)?,
                None => into.fill(0),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_cut_to_the_mapping() {
        let map = Mapping {
            start: 0x10_000,
            end: 0x14_000,
            perms: sls_record::Perms::default(),
            offset: 0x2000,
            dev: 0,
            inode: 0,
            path: String::new(),
            backing: Backing::Shared { space: 9 },
            file_mtime_ns: 0,
            grows_down: false,
            locked: false,
            advice: Vec::new(),
            key: 0,
        };
        let process = Process::default();
        let kept = Kept::from_iter([(9, vec![(0, 3), (4, 1), (5, 100)])]);
        let runs: Vec<_> = kept.within(&process, &map).collect();
        assert_eq!(
            runs,
            [0x10_000..0x11_000, 0x12_000..0x13_000, 0x13_000..0x14_000]
        );
        assert!(!Kept::default().any_of(&process, &map));
    }
}
