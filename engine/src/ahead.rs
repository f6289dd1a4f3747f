//! Pages of the past that were decoded before the stop.

use std::collections::{BTreeSet, HashMap};

use slos::{Epoch, PageIndex, Partition, Presence, ReadError, SpaceId};

const PAGE_BYTES: usize = slos::PAGE;
/// Pages read ahead at most, 1 GiB.
const MOST: usize = 1 << 18;

/// By space and page.
#[derive(Debug, Default)]
pub struct Ahead {
    pages: HashMap<(u32, u64), Box<[u8; PAGE_BYTES]>>,
}

impl Ahead {
    /// Decodes what the rewind of one that lives will most likely need: everything that differs from
    /// the newest checkpoint, and what has `changed` since. Off the clock.
    pub fn read(
        partition: &Partition,
        newest: Option<Epoch>,
        to: Epoch,
        space: SpaceId,
        changed: Vec<u64>,
    ) -> Result<Self, ReadError> {
        let mut pages: BTreeSet<PageIndex> = changed.into_iter().map(PageIndex).collect();
        if let Some(newest) = newest {
            match partition.touched_pages(newest, to, space) {
                Err(ReadError::NoSpace { .. }) => {} // It was not in the group then.
                touched => pages.extend(touched?),
            }
        }
        let mut ahead = Self::default();
        ahead.add(partition, to, space, pages)?;
        Ok(ahead)
    }

    /// Decodes all of a space as well.
    pub fn read_all(
        &mut self,
        partition: &Partition,
        to: Epoch,
        space: SpaceId,
    ) -> Result<(), ReadError> {
        let pages = partition.page_map(to, space)?;
        self.add(partition, to, space, pages)
    }

    fn add(
        &mut self,
        partition: &Partition,
        to: Epoch,
        space: SpaceId,
        pages: impl IntoIterator<Item = PageIndex>,
    ) -> Result<(), ReadError> {
        let room = MOST.saturating_sub(self.pages.len());
        for page in pages.into_iter().take(room) {
            let mut bytes = Box::new([0; PAGE_BYTES]);
            if partition.read_page(to, space, page, &mut bytes)? == Presence::Present {
                self.pages.insert((space.0, page.0), bytes);
            }
        }
        Ok(())
    }

    pub fn get(&self, space: u32, page: u64) -> Option<&[u8; PAGE_BYTES]> {
        self.pages.get(&(space, page)).map(|bytes| &**bytes)
    }
}
