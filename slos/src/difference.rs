//! What changed between checkpoints.

use std::collections::BTreeSet;

use crate::error::ReadError;
use crate::index::Index;
use crate::partition::{Partition, live, live_above, read_value, space_of};
use crate::tree::{History, SpaceNode};
use crate::versions::Value;
use crate::{Epoch, PAGE, PageIndex, SpaceId};

impl Partition {
    /// Pages of a space whose content or presence differs between two checkpoints, ascending.
    /// Contents are compared, so a page that went back to what it was is not listed.
    pub fn diff_pages(
        &self,
        a: Epoch,
        b: Epoch,
        space: SpaceId,
    ) -> Result<Vec<PageIndex>, ReadError> {
        self.with(|index, history| {
            let (old, new) = (space_of(history, a, space)?, space_of(history, b, space)?);
            let pages = match candidates(history, a, b, space) {
                Some(pages) => pages,
                None => all_pages(history, (old, a), (new, b)),
            };
            let mut differing = Vec::new();
            for page in pages {
                let pair = (history.value(old, a, page), history.value(new, b, page));
                if differs(index, pair.0, pair.1)? {
                    differing.push(PageIndex(page));
                }
            }
            Ok(differing)
        })
    }

    /// Pages of a space whose versions differ between two checkpoints, ascending: all of
    /// [`Partition::diff_pages`], and those that went back to what they were. Reads no content.
    pub fn touched_pages(
        &self,
        a: Epoch,
        b: Epoch,
        space: SpaceId,
    ) -> Result<Vec<PageIndex>, ReadError> {
        self.with(|_, history| {
            let (old, new) = (space_of(history, a, space)?, space_of(history, b, space)?);
            let pages = candidates(history, a, b, space);
            let pages = pages.unwrap_or_else(|| all_pages(history, (old, a), (new, b)));
            let touched = |p: &u64| history.value(old, a, *p) != history.value(new, b, *p);
            Ok(pages.into_iter().filter(touched).map(PageIndex).collect())
        })
    }

    /// Whether any of these pages differs between two checkpoints. A space that only one of them
    /// has differs by all the pages it holds there.
    pub fn changed(
        &self,
        a: Epoch,
        b: Epoch,
        space: SpaceId,
        pages: &[PageIndex],
    ) -> Result<bool, ReadError> {
        self.with(|index, history| {
            let old = live(history, a)?.space(space);
            let new = live(history, b)?.space(space);
            any_differs(index, history, (old, a), (new, b), pages)
        })
    }

    /// The live checkpoints on the path from `a` (exclusive) down to its descendant `b`
    /// (inclusive) at which any of these pages differs from the checkpoint before, ascending.
    pub fn change_points(
        &self,
        a: Epoch,
        b: Epoch,
        space: SpaceId,
        pages: &[PageIndex],
    ) -> Result<Vec<Epoch>, ReadError> {
        self.with(|index, history| {
            live(history, a)?;
            live(history, b)?;
            let mut points = Vec::new();
            let mut at = b;
            while at != a {
                let above = live_above(history, at).filter(|&up| up >= a);
                let above = above.ok_or(ReadError::NotAncestor { older: a, newer: b })?;
                if step_changes(index, history, above, at, space, pages)? {
                    points.push(at);
                }
                at = above;
            }
            points.reverse();
            Ok(points)
        })
    }
}

/// Whether the pages change in one step down the tree; the node's own list of changes tells for
/// most steps that they do not.
fn step_changes(
    index: &Index,
    history: &History,
    above: Epoch,
    at: Epoch,
    space: SpaceId,
    pages: &[PageIndex],
) -> Result<bool, ReadError> {
    let old = live(history, above)?.space(space);
    let node = live(history, at)?;
    let new = node.space(space);
    if let Some(new) = new {
        let listed = new.from == Some(space) && node.up == Some(above);
        if listed
            && pages
                .iter()
                .all(|p| new.changes.binary_search(&p.0).is_err())
        {
            return Ok(false);
        }
    }
    any_differs(index, history, (old, above), (new, at), pages)
}

fn any_differs(
    index: &Index,
    history: &History,
    old: (Option<&SpaceNode>, Epoch),
    new: (Option<&SpaceNode>, Epoch),
    pages: &[PageIndex],
) -> Result<bool, ReadError> {
    let value = |(node, epoch): (Option<&SpaceNode>, Epoch), page: PageIndex| {
        node.map_or(Value::ABSENT, |n| history.value(n, epoch, page.0))
    };
    for &page in pages {
        if differs(index, value(old, page), value(new, page))? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Pages listed as changed on the way between two checkpoints, if every step on it lists them.
fn candidates(history: &History, a: Epoch, b: Epoch, space: SpaceId) -> Option<BTreeSet<u64>> {
    let (mut a, mut b) = (a, b);
    let mut pages = BTreeSet::new();
    while a != b {
        let later = if a > b { &mut a } else { &mut b };
        let node = &history.nodes[later];
        let changed = node.space(space).filter(|s| s.from == Some(space))?;
        pages.extend(&changed.changes);
        *later = node.up?;
    }
    Some(pages)
}

fn all_pages(
    history: &History,
    old: (&SpaceNode, Epoch),
    new: (&SpaceNode, Epoch),
) -> BTreeSet<u64> {
    let old = history.visible(old.0, old.1);
    let new = history.visible(new.0, new.1);
    old.iter().chain(&new).map(|&(page, _)| page).collect()
}

fn differs(index: &Index, a: Value, b: Value) -> Result<bool, ReadError> {
    if a == b {
        return Ok(false);
    }
    if !a.is_version() || !b.is_version() {
        return Ok(true);
    }
    if index.versions.get(a).crc != index.versions.get(b).crc {
        return Ok(true);
    }
    let (mut left, mut right) = ([0; PAGE], [0; PAGE]);
    read_value(index, a, &mut left).map_err(ReadError::Version)?;
    read_value(index, b, &mut right).map_err(ReadError::Version)?;
    Ok(left != right)
}
