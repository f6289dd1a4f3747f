use lz4_flex::block::{compress_into, decompress_into, get_maximum_output_size};

use crate::PAGE;
use crate::format::crc32c;

/// How the body of a page version is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Raw = 0,
    Lz4 = 1,
    /// The difference to the base, by lz4.
    Xor = 2,
    /// The difference to the base, as the few words that have one.
    Words = 3,
    /// Recovery found maps that name the version, but not its body.
    Lost = 4,
}

/// The largest delta worth keeping against a base that some map still holds; beyond, the page is
/// stored whole and becomes a base itself.
const LARGE_DELTA: usize = 1024;
/// The same against a base that only deltas keep alive: it is let go earlier.
const LARGE_DELTA_DEAD_BASE: usize = 256;
/// A delta of few words is listed, which takes a tenth of the time that lz4 takes to find them; as
/// long as the list is so short, lz4 would hardly make it shorter.
const SHORT_LIST: usize = 256;
/// Of a delta's 512 words so many may differ from zero, or packing it is not tried: each costs lz4
/// about three bytes.
const HOPELESS: usize = 384;
/// lz4 has to save a fifth, or reading the page back raw is the better deal.
const WORTHWHILE: usize = PAGE / 5 * 4;

impl Encoding {
    pub fn from_bits(bits: u64) -> Option<Encoding> {
        match bits {
            0 => Some(Encoding::Raw),
            1 => Some(Encoding::Lz4),
            2 => Some(Encoding::Xor),
            3 => Some(Encoding::Words),
            _ => None,
        }
    }

    /// Whether the body is nothing without a base.
    pub fn is_delta(self) -> bool {
        matches!(self, Encoding::Xor | Encoding::Words)
    }
}

pub(crate) fn is_zero(page: &[u8]) -> bool {
    let (words, rest) = page.as_chunks::<64>();
    words.iter().all(|w| w.iter().fold(0, |a, b| a | b) == 0) && rest.iter().all(|&b| b == 0)
}

/// Encodes pages one at a time into its own scratch space.
pub(crate) struct Encoder {
    /// What the next delta is made against.
    pub base: Box<[u8; PAGE]>,
    delta: Box<[u8; PAGE]>,
    packed: Vec<u8>,
}

pub(crate) struct Body<'a> {
    pub encoding: Encoding,
    pub bytes: &'a [u8],
}

impl Encoder {
    pub fn new() -> Encoder {
        Encoder {
            base: Box::new([0; PAGE]),
            delta: Box::new([0; PAGE]),
            packed: vec![0; get_maximum_output_size(PAGE)],
        }
    }

    /// The delta of `page` against `self.base` if it is small enough to keep.
    pub fn delta(&mut self, page: &[u8; PAGE], dead: bool) -> Option<Body<'_>> {
        xor(&mut self.delta, page, &self.base);
        if let Some(len) = list_words(&self.delta, &mut self.packed) {
            return Some(Body {
                encoding: Encoding::Words,
                bytes: &self.packed[..len],
            });
        }
        let words = self.delta.as_chunks::<8>().0.iter();
        if words.filter(|w| u64::from_ne_bytes(**w) != 0).count() > HOPELESS {
            return None;
        }
        let limit = if dead {
            LARGE_DELTA_DEAD_BASE
        } else {
            LARGE_DELTA
        };
        let len = compress_into(&self.delta[..], &mut self.packed).ok()?;
        (len <= limit).then(|| Body {
            encoding: Encoding::Xor,
            bytes: &self.packed[..len],
        })
    }

    pub fn whole<'a>(&'a mut self, page: &'a [u8; PAGE]) -> Body<'a> {
        match compress_into(&page[..], &mut self.packed) {
            Ok(len) if len <= WORTHWHILE => Body {
                encoding: Encoding::Lz4,
                bytes: &self.packed[..len],
            },
            _ => Body {
                encoding: Encoding::Raw,
                bytes: page,
            },
        }
    }
}

/// Decodes a raw or lz4 body into a page; `None` when the bytes are not one.
pub(crate) fn decode_whole(encoding: Encoding, body: &[u8], out: &mut [u8; PAGE]) -> Option<()> {
    match encoding {
        Encoding::Raw if body.len() == PAGE => out.copy_from_slice(body),
        Encoding::Lz4 => unpack(body, out)?,
        _ => return None,
    }
    Some(())
}

/// Decodes a delta over `out`, which holds the base page.
pub(crate) fn decode_delta(encoding: Encoding, body: &[u8], out: &mut [u8; PAGE]) -> Option<()> {
    match encoding {
        Encoding::Xor => {
            let mut delta = [0; PAGE];
            unpack(body, &mut delta)?;
            let base = *out;
            xor(out, &base, &delta);
            Some(())
        }
        Encoding::Words => apply_words(body, out),
        _ => None,
    }
}

/// Lists the words of a delta that are not zero: 16 bits with the word's place (9) and its length
/// less one (3), then that many bytes, those above being zero. `None` when the list gets long.
fn list_words(delta: &[u8; PAGE], out: &mut [u8]) -> Option<usize> {
    let mut len = 0;
    for (line, words) in delta.as_chunks::<64>().0.iter().enumerate() {
        if words.iter().fold(0, |a, b| a | b) == 0 {
            continue;
        }
        for (at, word) in words.as_chunks::<8>().0.iter().enumerate() {
            let value = u64::from_le_bytes(*word);
            if value == 0 {
                continue;
            }
            let bytes = 8 - value.leading_zeros() as usize / 8;
            if len + 2 + bytes > SHORT_LIST {
                return None;
            }
            let head = u16::try_from((line * 8 + at) * 8 + bytes - 1).ok()?;
            out[len..len + 2].copy_from_slice(&head.to_le_bytes());
            out[len + 2..len + 10].copy_from_slice(word);
            len += 2 + bytes;
        }
    }
    Some(len)
}

fn apply_words(mut list: &[u8], out: &mut [u8; PAGE]) -> Option<()> {
    let words = out.as_chunks_mut::<8>().0;
    while let Some((head, rest)) = list.split_first_chunk::<2>() {
        let head = usize::from(u16::from_le_bytes(*head));
        let (bytes, rest) = rest.split_at_checked(head % 8 + 1)?;
        let word = words.get_mut(head / 8)?;
        word.iter_mut().zip(bytes).for_each(|(w, b)| *w ^= b);
        list = rest;
    }
    list.is_empty().then_some(())
}

pub(crate) fn matches(page: &[u8; PAGE], crc: u32) -> bool {
    crc32c(page) == crc
}

fn unpack(body: &[u8], out: &mut [u8; PAGE]) -> Option<()> {
    (decompress_into(body, out).ok()? == PAGE).then_some(())
}

fn xor(out: &mut [u8; PAGE], a: &[u8; PAGE], b: &[u8; PAGE]) {
    for ((o, a), b) in out.iter_mut().zip(a).zip(b) {
        *o = a ^ b;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_words_are_listed_by_their_low_bytes() {
        let mut encoder = Encoder::new();
        encoder.base.fill(7);
        let mut page = *encoder.base;
        page[0] ^= 1;
        page[8 * 511 + 7] ^= 0x80;
        let body = encoder.delta(&page, true).unwrap();
        assert_eq!(body.encoding, Encoding::Words);
        assert_eq!(body.bytes.len(), (2 + 1) + (2 + 8));
        let list = body.bytes.to_vec();
        let mut out = *encoder.base;
        decode_delta(Encoding::Words, &list, &mut out).unwrap();
        assert!(out == page);
        for cut in 1..list.len() {
            let whole_word = cut == 3;
            let decoded = decode_delta(Encoding::Words, &list[..cut], &mut out);
            assert_eq!(decoded.is_some(), whole_word, "cut at {cut}");
        }
    }

    #[test]
    fn a_long_list_is_left_to_lz4() {
        let mut encoder = Encoder::new();
        let mut page = [0; PAGE];
        for word in page.as_chunks_mut::<8>().0.iter_mut().step_by(2) {
            word[0] = 1;
        }
        let body = encoder.delta(&page, false).unwrap();
        assert_eq!(body.encoding, Encoding::Xor);
    }
}
