use lz4_flex::block::{compress_into, decompress_into, get_maximum_output_size};

use crate::PAGE;
use crate::format::crc32c;

/// How the body of a page version is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Raw = 0,
    Lz4 = 1,
    Xor = 2,
    /// Recovery found maps that name the version, but not its body.
    Lost = 3,
}

/// The largest delta worth keeping against a base that some map still holds; beyond, the page is
/// stored whole and becomes a base itself.
const LARGE_DELTA: usize = 1024;
/// The same against a base that only deltas keep alive: it is let go earlier.
const LARGE_DELTA_DEAD_BASE: usize = 256;
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
            _ => None,
        }
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

/// Decodes an XOR body over `out`, which holds the base page.
pub(crate) fn decode_delta(body: &[u8], out: &mut [u8; PAGE]) -> Option<()> {
    let mut delta = [0; PAGE];
    unpack(body, &mut delta)?;
    let base = *out;
    xor(out, &base, &delta);
    Some(())
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
