//! Frames: a length and a body, bounded before anything is allocated.

use std::io::{self, Read, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why a frame could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The connection failed or ended.
    #[error("connection: {0}")]
    Io(#[from] io::Error),
    /// Longer than this kind of message may be.
    #[error("a message of {len} bytes, {limit} are allowed")]
    TooLong {
        /// Announced.
        len: u32,
        /// Allowed.
        limit: u32,
    },
    /// The body does not parse.
    #[error("a message that does not parse: {0}")]
    Malformed(#[from] postcard::Error),
}

impl FrameError {
    /// Did the other side merely leave?
    #[must_use]
    pub fn is_end(&self) -> bool {
        matches!(self, Self::Io(e) if matches!(e.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset))
    }
}

/// Writes one frame.
///
/// # Errors
/// The connection failed, or the message is longer than `limit`.
pub fn write_frame<T: Serialize>(
    to: &mut impl Write,
    message: &T,
    limit: u32,
) -> Result<(), FrameError> {
    // Known first, so that memory is taken once, and none for what is too long.
    let size = postcard::experimental::serialized_size(message)?;
    let len = u32::try_from(size).unwrap_or(u32::MAX);
    if len > limit {
        return Err(FrameError::TooLong { len, limit });
    }
    let mut bytes = Vec::with_capacity(size + 4);
    bytes.extend_from_slice(&len.to_le_bytes());
    let bytes = postcard::to_extend(message, bytes)?;
    to.write_all(&bytes)?;
    Ok(())
}

/// Reads one frame of at most `limit` bytes. Memory grows with what arrives, not with what the
/// length announces.
///
/// # Errors
/// The connection failed, the frame is too long or does not parse.
pub fn read_frame<T: DeserializeOwned>(from: &mut impl Read, limit: u32) -> Result<T, FrameError> {
    let mut head = [0; 4];
    from.read_exact(&mut head)?;
    let len = u32::from_le_bytes(head);
    if len > limit {
        return Err(FrameError::TooLong { len, limit });
    }
    let mut bytes = Vec::new();
    let got = from.take(u64::from(len)).read_to_end(&mut bytes)?;
    if got as u64 != u64::from(len) {
        return Err(FrameError::Io(io::ErrorKind::UnexpectedEof.into()));
    }
    let (value, rest) = postcard::take_from_bytes(&bytes)?;
    if rest.is_empty() {
        Ok(value)
    } else {
        Err(postcard::Error::SerdeDeCustom.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{MAX_REQUEST, Request};

    #[test]
    fn a_frame_comes_back() {
        let request = Request::History {
            part: Some("mem".into()),
        };
        let mut wire = Vec::new();
        write_frame(&mut wire, &request, MAX_REQUEST).unwrap();
        assert_eq!(
            read_frame::<Request>(&mut &wire[..], MAX_REQUEST).unwrap(),
            request
        );
    }

    #[test]
    fn a_huge_length_costs_nothing() {
        let wire = u32::MAX.to_le_bytes();
        assert!(matches!(
            read_frame::<Request>(&mut &wire[..], MAX_REQUEST),
            Err(FrameError::TooLong { .. })
        ));
    }

    #[test]
    fn half_a_frame_is_an_end() {
        let mut wire = Vec::new();
        write_frame(&mut wire, &Request::Ps, MAX_REQUEST).unwrap();
        wire[0] += 4;
        assert!(
            read_frame::<Request>(&mut &wire[..], MAX_REQUEST)
                .unwrap_err()
                .is_end()
        );
    }
}
