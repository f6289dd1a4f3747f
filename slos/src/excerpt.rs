//! Pages of a checkpoint apart from their store: where each lies, and the segments they lie in. Another
//! process reads them from these after the store's own has ended, whatever the cleaner does.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::codec::Encoding;
use crate::error::{PageFault, ReadError};
use crate::index::{Body, Located, Place};
use crate::log::Segment;
use crate::partition::space_of;
use crate::versions::Value;
use crate::{Epoch, PAGE, PageIndex, Partition, SegmentId, SpaceId};

/// Pages of some spaces of one checkpoint. Pages of zeros are left out, as is what a space has not.
pub struct Excerpt {
    spaces: Vec<Vec<(PageIndex, Located)>>,
    /// Those that the pages lie in.
    segments: BTreeMap<SegmentId, Arc<Segment>>,
}

/// Why an excerpt cannot be handed over, or is none.
#[derive(Debug, thiserror::Error)]
pub enum ExcerptError {
    #[error("{0} is not a file of its own, which another process could read")]
    NotAFile(SegmentId),
    #[error("the list of pages does not parse: {0}")]
    Unreadable(#[from] postcard::Error),
    #[error("the list of pages names {0}, which did not come along")]
    Missing(SegmentId),
    #[error("the list of pages has an encoding of number {0}")]
    Encoding(u8),
}

/// A body as it is handed over.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Row {
    segment: u32,
    offset: u32,
    length: u16,
    encoding: u8,
    crc: u32,
}

/// A page with its body, and that of its base.
type Line = (u64, Row, Option<Row>);

impl Partition {
    /// An excerpt of those pages of some spaces that lie in ranges, ascending and apart.
    ///
    /// # Errors
    /// There is no such checkpoint or space; a page's bytes are lost.
    pub fn excerpt(
        &self,
        epoch: Epoch,
        wanted: &[(SpaceId, Vec<Range<PageIndex>>)],
    ) -> Result<Excerpt, ReadError> {
        self.with(|index, history| {
            let mut excerpt = Excerpt {
                spaces: Vec::with_capacity(wanted.len()),
                segments: BTreeMap::new(),
            };
            for (space, ranges) in wanted {
                let node = space_of(history, epoch, *space)?;
                let mut pages = Vec::new();
                for (page, value) in history.visible(node, epoch) {
                    let page = PageIndex(page);
                    if value == Value::ZERO || !is_in(ranges, page) {
                        continue;
                    }
                    let located = index.locate(value);
                    if matches!(located, Located::Lost) {
                        return Err(ReadError::Page {
                            epoch,
                            space: *space,
                            page,
                            cause: PageFault::Lost,
                        });
                    }
                    excerpt.note_segments(&located);
                    pages.push((page, located));
                }
                excerpt.spaces.push(pages);
            }
            Ok(excerpt)
        })
    }
}

impl Excerpt {
    /// The pages of the space that was wanted as this one of all, ascending.
    pub fn pages(&self, space: usize) -> impl Iterator<Item = PageIndex> {
        let pages = self.spaces.get(space);
        pages.into_iter().flatten().map(|(page, _)| *page)
    }

    /// The first of those pages from this one on.
    #[must_use]
    pub fn next(&self, space: usize, from: PageIndex) -> Option<PageIndex> {
        let pages = self.spaces.get(space)?;
        let at = pages.partition_point(|(page, _)| *page < from);
        pages.get(at).map(|(page, _)| *page)
    }

    /// Pages of all spaces together.
    #[must_use]
    pub fn len(&self) -> usize {
        self.spaces.iter().map(Vec::len).sum()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads a page; `false` where the excerpt has none, and then `out` is zero.
    ///
    /// # Errors
    /// Its bytes cannot be read, or are not what was stored.
    pub fn read(
        &self,
        space: usize,
        page: PageIndex,
        out: &mut [u8; PAGE],
    ) -> Result<bool, PageFault> {
        let pages = self.spaces.get(space).map_or(&[][..], |pages| pages);
        match pages.binary_search_by_key(&page, |(page, _)| *page) {
            Ok(at) => pages[at].1.read(out),
            Err(_) => Located::Absent.read(out),
        }
    }

    /// The list of its pages, for [`Excerpt::from_parts`] in another process.
    ///
    /// # Errors
    /// It does not fit into memory.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ExcerptError> {
        let lines = |pages: &Vec<(PageIndex, Located)>| -> Vec<Line> {
            pages.iter().filter_map(line).collect()
        };
        let spaces: Vec<Vec<Line>> = self.spaces.iter().map(lines).collect();
        Ok(postcard::to_stdvec(&spaces)?)
    }

    /// The segments that its pages lie in.
    ///
    /// # Errors
    /// One is not a file of its own.
    pub fn segments(&self) -> Result<Vec<(SegmentId, BorrowedFd<'_>)>, ExcerptError> {
        let each = self.segments.iter().map(|(&id, segment)| {
            let descriptor = segment.file.descriptor();
            Ok((id, descriptor.ok_or(ExcerptError::NotAFile(id))?))
        });
        each.collect()
    }

    /// An excerpt again, from its list and segments.
    ///
    /// # Errors
    /// The list is none, or not of these segments.
    pub fn from_parts(
        bytes: &[u8],
        segments: Vec<(SegmentId, OwnedFd)>,
    ) -> Result<Self, ExcerptError> {
        let spaces: Vec<Vec<Line>> = postcard::from_bytes(bytes)?;
        let mut excerpt = Self {
            spaces: Vec::with_capacity(spaces.len()),
            // How far it is written is the writer's business.
            segments: segments
                .into_iter()
                .map(|(id, fd)| (id, Arc::new(Segment::new(Arc::new(File::from(fd)), 0, 0))))
                .collect(),
        };
        for lines in spaces {
            let mut pages = Vec::with_capacity(lines.len());
            for (page, body, base) in lines {
                let body = excerpt.body(body)?;
                let located = match base {
                    None => Located::Whole(body),
                    Some(base) => Located::Delta {
                        base: excerpt.body(base)?,
                        delta: body,
                    },
                };
                pages.push((PageIndex(page), located));
            }
            excerpt.spaces.push(pages);
        }
        Ok(excerpt)
    }

    fn body(&self, row: Row) -> Result<Body, ExcerptError> {
        let id = SegmentId(row.segment);
        let segment = self.segments.get(&id).ok_or(ExcerptError::Missing(id))?;
        let encoding = Encoding::from_bits(u64::from(row.encoding));
        Ok(Body {
            segment: Arc::clone(segment),
            place: Place {
                segment: id,
                offset: row.offset,
                length: row.length,
                encoding: encoding.ok_or(ExcerptError::Encoding(row.encoding))?,
                crc: row.crc,
            },
        })
    }

    fn note_segments(&mut self, located: &Located) {
        let mut note = |body: &Body| {
            let all = &mut self.segments;
            all.entry(body.place.segment)
                .or_insert_with(|| Arc::clone(&body.segment));
        };
        match located {
            Located::Whole(body) => note(body),
            Located::Delta { base, delta } => {
                note(base);
                note(delta);
            }
            Located::Absent | Located::Zero | Located::Lost => {}
        }
    }
}

fn line((page, located): &(PageIndex, Located)) -> Option<Line> {
    match located {
        Located::Whole(body) => Some((page.0, row(body), None)),
        Located::Delta { base, delta } => Some((page.0, row(delta), Some(row(base)))),
        Located::Absent | Located::Zero | Located::Lost => None,
    }
}

fn row(body: &Body) -> Row {
    let place = body.place;
    Row {
        segment: place.segment.0,
        offset: place.offset,
        length: place.length,
        encoding: place.encoding as u8,
        crc: place.crc,
    }
}

fn is_in(ranges: &[Range<PageIndex>], page: PageIndex) -> bool {
    let at = ranges.partition_point(|range| range.end <= page);
    ranges.get(at).is_some_and(|range| range.start <= page)
}
