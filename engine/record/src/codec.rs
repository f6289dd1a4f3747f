//! Bytes of a record: magic, version, postcard.

use crate::Record;

/// Version written; readers refuse others by name.
pub const FORMAT_VERSION: u16 = 6;

const MAGIC: [u8; 4] = *b"SLSr";
const HEADER: usize = 6;

/// Why bytes are not a record.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Too short or another magic.
    #[error("not a checkpoint record ({0} bytes)")]
    Magic(usize),
    /// Written by another version.
    #[error("record format {found}, this program reads {FORMAT_VERSION}")]
    Version {
        /// Version found.
        found: u16,
    },
    /// Content does not parse.
    #[error("damaged record: {0}")]
    Damaged(#[source] postcard::Error),
    /// Bytes after the end.
    #[error("damaged record: {0} bytes after its end")]
    Trailing(usize),
}

/// Encodes a record.
///
/// # Errors
/// Only when memory runs out inside the serializer.
pub fn encode(record: &Record) -> Result<Vec<u8>, postcard::Error> {
    let mut out = Vec::with_capacity(64 << 10);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    postcard::to_extend(record, out)
}

/// Decodes a record that may come from anywhere. Never allocates more than the input justifies:
/// postcard reserves by remaining input.
///
/// # Errors
/// [`DecodeError`] for anything that [`encode`] did not write.
pub fn decode(bytes: &[u8]) -> Result<Record, DecodeError> {
    let Some((head, body)) = bytes.split_at_checked(HEADER) else {
        return Err(DecodeError::Magic(bytes.len()));
    };
    if head[..4] != MAGIC {
        return Err(DecodeError::Magic(bytes.len()));
    }
    let found = u16::from_le_bytes([head[4], head[5]]);
    if found != FORMAT_VERSION {
        return Err(DecodeError::Version { found });
    }
    let (record, rest) = postcard::take_from_bytes(body).map_err(DecodeError::Damaged)?;
    if rest.is_empty() {
        Ok(record)
    } else {
        Err(DecodeError::Trailing(rest.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn round_trip() {
        let record = Record {
            event: None,
            processes: Vec::new(),
            ended: Vec::new(),
            renamed: Vec::new(),
        };
        assert_eq!(decode(&encode(&record).unwrap()).unwrap(), record);
    }

    proptest! {
        #[test]
        fn hostile_bytes_are_an_error_never_a_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
            let _ = decode(&bytes);
            if bytes.len() >= HEADER {
                bytes[..4].copy_from_slice(&MAGIC);
                bytes[4..6].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
                let _ = decode(&bytes);
            }
        }
    }
}
