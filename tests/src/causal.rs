//! What tests/tracees/causal.c says of its own memory, and whether a checkpoint of it is true: every page
//! whole and of the version it should have, no effect without its cause.

use introspect::View;
use libsls::record::{FileKind, Queued};
use libsls::view::CheckpointView;

const PAGE: usize = 4096;
const WORDS: usize = PAGE / 8;
const REGIONS: usize = 24;
const PAGES: usize = 64;
const LINKS: usize = 8;
const STREAMS: usize = 4;
/// Words of struct region and struct stream.
const REGION: usize = 2 + 8 + 2 * PAGES;
const STREAM: usize = 2 + 5;
const DIRECTORY: usize = 2 + REGIONS * REGION + LINKS + STREAMS * STREAM + 1;
/// In place of a version: not mapped.
const GONE: u64 = u64::MAX;
/// Written by the kernel or another process, in any order, also while the target stands still.
const LOOSE: u64 = 1;

/// Everything the program wrote down, as it was in one checkpoint. Layout: struct directory in
/// tests/tracees/causal/region.h.
#[derive(Debug)]
pub struct Causal {
    regions: Vec<Region>,
    links: Vec<u64>,
    streams: Vec<Stream>,
    told: u64,
}

#[derive(Debug)]
struct Region {
    owner: u64,
    name: String,
    loose: bool,
    pages: usize,
    at: u64,
    to: u64,
    changing: std::ops::Range<usize>,
    next: u64,
    rounds: u64,
    versions: Vec<u64>,
    places: Vec<u64>,
}

#[derive(Debug)]
struct Stream {
    name: String,
    fd: u64,
    sending: u64,
    sent: u64,
    got: u64,
}

/// What a look at one checkpoint found.
#[derive(Debug, Default, Clone)]
pub struct Look {
    /// What is not as it should be.
    pub wrong: Vec<String>,
    /// Pages compared.
    pub pages: u64,
    /// Of those, being changed at the time.
    pub changing: u64,
    /// Rounds each region's owner has gone, by name.
    pub rounds: Vec<(String, u64)>,
}

fn name(words: &[u64]) -> String {
    let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

fn index(word: u64) -> usize {
    usize::try_from(word).expect("a small number")
}

fn read_words(view: &CheckpointView, at: u64, words: usize) -> Result<Vec<u64>, String> {
    let mut bytes = vec![0; words * 8];
    view.read(at, &mut bytes).map_err(|e| e.to_string())?;
    let words = bytes.chunks_exact(8);
    Ok(words
        .map(|w| u64::from_le_bytes(w.try_into().unwrap_or_default()))
        .collect())
}

/// What word `k` of a page of `content` holds: the last one is a sum.
fn word(content: u64, k: usize) -> u64 {
    if k < WORDS - 1 {
        content
    } else {
        content.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

impl Region {
    fn read(owner: usize, words: &[u64]) -> Self {
        let [flags, pages, at, to, first, count, next, rounds] =
            *words[2..].first_chunk().expect("a region's words");
        Self {
            owner: owner as u64 + 1,
            name: name(&words[..2]),
            loose: flags & LOOSE != 0,
            pages: index(pages),
            at,
            to,
            changing: index(first)..index(first + count),
            next,
            rounds,
            versions: words[10..10 + PAGES].to_vec(),
            places: words[10 + PAGES..].to_vec(),
        }
    }

    fn content(&self, page: usize, version: u64) -> u64 {
        if version == 0 {
            return 0;
        }
        version << 16 | self.owner << 8 | page as u64
    }

    fn place(&self, base: u64, page: usize) -> u64 {
        if base == 0 {
            return self.places[page];
        }
        base + (page * PAGE) as u64
    }

    /// Compares every page. While the region moves it lies at either place, as a whole.
    fn look(&self, view: &CheckpointView, look: &mut Look) {
        let mut here = Look::default();
        self.look_at(view, self.at, &mut here);
        if self.to != 0 && !here.wrong.is_empty() {
            here = Look::default();
            self.look_at(view, self.to, &mut here);
        }
        look.wrong.append(&mut here.wrong);
        look.pages += here.pages;
        look.changing += here.changing;
        look.rounds.push((self.name.clone(), self.rounds));
    }

    fn look_at(&self, view: &CheckpointView, base: u64, look: &mut Look) {
        for page in 0..self.pages {
            let version = self.versions[page];
            let next = self.changing.contains(&page).then_some(self.next);
            if version == GONE || next == Some(GONE) {
                continue;
            }
            let at = self.place(base, page);
            let found = read_words(view, at, WORDS)
                .and_then(|words| self.judge(page, &words, version, next));
            look.pages += 1;
            look.changing += u64::from(next.is_some());
            if let Err(why) = found {
                let name = &self.name;
                let of =
                    format!("{name}, page {page} at {at:#x}, version {version}, next {next:?}");
                look.wrong.push(format!("{of}: {why}"));
            }
        }
    }

    /// A page that nobody changes is of one version; another has the next one up to somewhere, and
    /// what was there before from there on.
    fn judge(
        &self,
        page: usize,
        words: &[u64],
        version: u64,
        next: Option<u64>,
    ) -> Result<(), String> {
        let old = self.content(page, version);
        let new = next.map_or(old, |next| self.content(page, next));
        let mut done = false;
        for (k, &found) in words.iter().enumerate() {
            let (is_old, is_new) = (found == word(old, k), found == word(new, k));
            done |= !is_new;
            let fits = if self.loose {
                is_new || is_old
            } else {
                !done && is_new || is_old
            };
            if !fits {
                return Err(format!(
                    "{found:#x} at word {k}, {old:#x} was there, {new:#x} follows"
                ));
            }
        }
        Ok(())
    }
}

impl Stream {
    fn read(words: &[u64]) -> Self {
        let [fd, sending, sent, _getting, got] =
            *words[2..].first_chunk().expect("a stream's words");
        Self {
            name: name(&words[..2]),
            fd,
            sending,
            sent,
            got,
        }
    }

    /// Nothing was received that was not sent; of a pipe, nothing is missing in between either.
    fn look(&self, view: &CheckpointView) -> Result<(), String> {
        let Self {
            sending, sent, got, ..
        } = *self;
        let said = format!("{}: sending {sending}, sent {sent}, got {got}", self.name);
        if got > sending || sending < sent || sending > sent + 1 {
            return Err(said);
        }
        if self.fd == 0 {
            return Ok(());
        }
        let files = &view.process().files;
        let pipe = files
            .iter()
            .find(|f| u64::from(f.fd.unsigned_abs()) == self.fd);
        let bytes = match pipe.map(|f| &f.kind) {
            Some(FileKind::Pipe {
                content: Queued::Bytes(bytes),
                ..
            }) => bytes,
            other => return Err(format!("{said}; {other:?}")),
        };
        let held: Vec<u64> = bytes
            .chunks(8)
            .map(|w| w.try_into().map_or(0, u64::from_le_bytes))
            .collect();
        // Who has just read a number may not have written that down yet, nor who has just sent one.
        let fits = |from: u64, to: u64| held.iter().copied().eq(from + 1..=to);
        let either = [got, got + 1].map(|from| fits(from, sent) || fits(from, sending));
        if either.contains(&true) {
            return Ok(());
        }
        let ends = (held.len(), held.first(), held.last());
        Err(format!("{said}; the pipe holds {ends:?}"))
    }
}

impl Causal {
    /// Reads the directory at an address that the program has printed.
    ///
    /// # Errors
    /// It is not there.
    pub fn read(view: &CheckpointView, at: u64) -> Result<Self, String> {
        let words = read_words(view, at, DIRECTORY)?;
        if name(&words[..2]) != "causal 1" {
            return Err(format!("no directory at {at:#x}"));
        }
        let (regions, rest) = words[2..].split_at(REGIONS * REGION);
        let (links, rest) = rest.split_at(LINKS);
        let (streams, told) = rest.split_at(STREAMS * STREAM);
        let regions = regions.chunks_exact(REGION).enumerate();
        Ok(Self {
            regions: regions
                .map(|(n, words)| Region::read(n, words))
                .filter(|r| r.pages > 0)
                .collect(),
            links: links.iter().copied().filter(|&at| at != 0).collect(),
            streams: streams
                .chunks_exact(STREAM)
                .map(Stream::read)
                .filter(|s| !s.name.is_empty())
                .collect(),
            told: told[0],
        })
    }

    /// Compares everything with what it should be.
    #[must_use]
    pub fn look(&self, view: &CheckpointView) -> Look {
        let mut look = Look::default();
        for region in &self.regions {
            region.look(view, &mut look);
        }
        for stream in &self.streams {
            look.wrong.extend(stream.look(view).err());
        }
        look.wrong.extend(self.look_at_links(view).err());
        look.wrong.extend(self.look_at_told(view).err());
        look
    }

    /// No counter is ahead of the one it follows.
    fn look_at_links(&self, view: &CheckpointView) -> Result<(), String> {
        let values: Result<Vec<u64>, String> = self
            .links
            .iter()
            .map(|&at| Ok(read_words(view, at, 1)?[0]))
            .collect();
        let values = values?;
        if values.is_sorted_by(|a, b| a >= b) {
            Ok(())
        } else {
            Err(format!("a counter is ahead of its cause: {values:?}"))
        }
    }

    /// Another process has not taken what was not sent to it.
    fn look_at_told(&self, view: &CheckpointView) -> Result<(), String> {
        let Some(stream) = self.streams.iter().find(|s| s.name == "told") else {
            return Ok(());
        };
        let told = read_words(view, self.told, 1)?[0];
        if told <= stream.sending {
            Ok(())
        } else {
            Err(format!("{told} was taken, of {}", stream.sending))
        }
    }
}
