//! Files without a name in a checkpoint: what they hold is kept as pages, by offset, under a space of
//! the object, as shared memory is.

use std::collections::BTreeSet;

use slos::{Base, PageIndex, SpaceDelta, SpaceId};
use sls_record::{Content, File, Process, Unnamed};
use sls_sys::descriptors::Raw;
use sls_sys::procfs::MapLine;
use sls_sys::unnamed::Body;

use crate::shared::{Spaces, is_captured};

const PAGE: usize = slos::PAGE;
/// No file has so many.
const NO_PAGE: PageIndex = PageIndex(u64::MAX >> 12);

/// What those that changed hold, in whole pages, by space.
pub type Bodies = Vec<(u32, Vec<u8>)>;

/// Takes what was read of them out of the raw texts; what the record says of each, by descriptor.
pub fn take(
    raws: &mut [Raw],
    maps: &[MapLine],
    spaces: &mut Spaces,
) -> (Vec<(i32, Unnamed)>, Bodies) {
    let (mut all, mut bodies) = (Vec::new(), Bodies::new());
    for raw in raws {
        let (Some(told), Some(stat)) = (raw.unnamed.take(), raw.stat) else {
            continue;
        };
        let object = (stat.dev, stat.ino);
        let content = match told.body {
            Body::Same => Content::Space(spaces.of(object)),
            Body::Bytes(bytes) => {
                let space = spaces.of(object);
                let mut bytes = bytes.into_vec();
                bytes.resize(bytes.len().next_multiple_of(PAGE), 0);
                bodies.push((space, bytes));
                Content::Space(space)
            }
            Body::Mapped if is_mapped(maps, object, stat.size) => Content::Space(spaces.of(object)),
            Body::Mapped => Content::Unread("it was unmapped in that moment".to_owned()),
            Body::Unread(why) => Content::Unread(why),
        };
        let unnamed = Unnamed {
            size: stat.size,
            mode: stat.mode & 0o7777,
            uid: stat.owner.0,
            gid: stat.owner.1,
            seals: told.seals,
            content,
        };
        all.push((raw.fd, unnamed));
    }
    (all, bodies)
}

fn is_mapped(maps: &[MapLine], object: (u64, u64), size: u64) -> bool {
    let its = |m: &&MapLine| (m.dev, m.inode) == object && m.offset == 0 && is_captured(m);
    maps.iter().filter(its).any(|m| m.end - m.start >= size)
}

/// Notes what was taken of them.
pub fn note(files: &mut [File], all: Vec<(i32, Unnamed)>) {
    for (fd, unnamed) in all {
        if let Some(file) = files.iter_mut().find(|f| f.fd == fd) {
            file.unnamed = Some(Box::new(unnamed));
        }
    }
}

/// One whose pages are in none of these spaces is named: it did not change since a checkpoint that
/// is not the parent of this one.
pub fn check(processes: &mut [Process], there: &BTreeSet<u32>) {
    for file in processes.iter_mut().flat_map(|p| &mut p.files) {
        if let Some(unnamed) = &mut file.unnamed
            && let Content::Space(space) = unnamed.content
            && !there.contains(&space)
        {
            let why = "it was not looked at in that moment";
            unnamed.content = Content::Unread(why.to_owned());
        }
    }
}

/// Adds what changed of them to a draft, and those that did not change.
pub fn add<'a>(
    spaces: &mut Vec<SpaceDelta<'a>>,
    processes: &[Process],
    bodies: &'a [(u32, Vec<u8>)],
    known: &[SpaceId],
) {
    for (space, bytes) in bodies {
        let pages = (0..).map(PageIndex).zip(bytes.chunks_exact(PAGE));
        let end = PageIndex((bytes.len() / PAGE) as u64);
        add_to(
            spaces,
            SpaceId(*space),
            pages.collect(),
            Some(end..NO_PAGE),
            known,
        );
    }
    for space in processes
        .iter()
        .flat_map(|p| &p.files)
        .filter_map(File::content)
    {
        add_to(spaces, SpaceId(space), Vec::new(), None, known);
    }
}

/// Adds pages of an object that somebody may have added others of: the same bytes, perhaps other
/// parts of it.
pub fn add_to<'a>(
    spaces: &mut Vec<SpaceDelta<'a>>,
    space: SpaceId,
    pages: Vec<(PageIndex, &'a [u8])>,
    dropped: impl IntoIterator<Item = std::ops::Range<PageIndex>>,
    known: &[SpaceId],
) {
    if let Some(delta) = spaces.iter_mut().find(|d| d.space == space) {
        delta.pages.extend(pages);
        delta.pages.sort_by_key(|p| p.0);
        delta.pages.dedup_by_key(|p| p.0);
        delta.dropped.extend(dropped);
        return;
    }
    let base = if known.contains(&space) {
        Base::Parent
    } else {
        Base::Empty
    };
    spaces.push(SpaceDelta {
        space,
        base,
        dropped: dropped.into_iter().collect(),
        pages,
    });
}
