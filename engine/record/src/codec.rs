//! Bytes of a record: magic, version, postcard.

use crate::{Lock, Process, Record};

/// Version written; readers refuse others by name.
pub const FORMAT_VERSION: u16 = 9;

const MAGIC: [u8; 4] = *b"SLSr";
const HEADER: usize = 6;
/// Higher numbers the kernel gives to no descriptor (sysctl_nr_open_max).
const MOST_DESCRIPTORS: i32 = 1 << 30;
/// NGROUPS_MAX.
const MOST_GROUPS: usize = 65_536;

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
    /// Content that no process can have: whoever reads it may count on that.
    #[error("damaged record: process {pid} has {what}")]
    Impossible {
        /// Process.
        pid: i32,
        /// What it has.
        what: String,
    },
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
    let (record, rest): (Record, _) =
        postcard::take_from_bytes(body).map_err(DecodeError::Damaged)?;
    if !rest.is_empty() {
        return Err(DecodeError::Trailing(rest.len()));
    }
    for process in &record.processes {
        possible(process).map_err(|what| DecodeError::Impossible {
            pid: process.pid,
            what,
        })?;
    }
    Ok(record)
}

/// Lengths and numbers next to these are reckoned with.
fn possible(process: &Process) -> Result<(), String> {
    for map in &process.mappings {
        let (start, end) = (map.start, map.end);
        let len = end.checked_sub(start);
        if len.and_then(|len| map.offset.checked_add(len)).is_none() {
            let offset = map.offset;
            return Err(format!(
                "a mapping {start:#x}-{end:#x} at offset {offset:#x}"
            ));
        }
    }
    let fds = process.files.iter().map(|file| file.fd);
    if let Some(fd) = fds
        .into_iter()
        .find(|fd| !(0..MOST_DESCRIPTORS).contains(fd))
    {
        return Err(format!("a descriptor {fd}"));
    }
    let mut locks = process.files.iter().flat_map(|file| &file.locks);
    let is_turned = |lock: &&Lock| {
        lock.end
            .is_some_and(|end| end < lock.start || end == u64::MAX)
    };
    if let Some(lock) = locks.find(is_turned) {
        return Err(format!("a lock that begins at {}", lock.start));
    }
    match process.attributes.groups.len() {
        groups if groups > MOST_GROUPS => Err(format!("{groups} groups")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Backing, Mapping, Perms};
    use proptest::prelude::*;

    #[test]
    fn round_trip() {
        let record = Record::default();
        assert_eq!(decode(&encode(&record).unwrap()).unwrap(), record);
    }

    #[test]
    fn what_cannot_be_is_an_error() {
        let with = |change: fn(&mut Process)| {
            let mut process = Process {
                pid: 7,
                ..Process::default()
            };
            change(&mut process);
            let record = Record {
                processes: vec![process],
                ..Record::default()
            };
            decode(&encode(&record).unwrap()).map_err(|e| e.to_string())
        };
        fn mapping(start: u64, end: u64, offset: u64) -> Mapping {
            Mapping {
                start,
                end,
                offset,
                perms: Perms::default(),
                dev: 0,
                inode: 0,
                path: String::new(),
                backing: Backing::Anonymous,
                file_mtime_ns: 0,
                grows_down: false,
                locked: false,
                advice: Vec::new(),
                key: 0,
            }
        }
        with(|_| {}).unwrap();
        with(|p| p.mappings = vec![mapping(1, 2, 3)]).unwrap();
        let turned = with(|p| p.mappings = vec![mapping(2, 1, 0)]).unwrap_err();
        assert!(
            turned.contains("process 7 has a mapping 0x2-0x1"),
            "{turned}"
        );
        let beyond = with(|p| p.mappings = vec![mapping(0, 2, u64::MAX)]).unwrap_err();
        assert!(beyond.contains("at offset 0xffff"), "{beyond}");
        let groups = with(|p| p.attributes.groups = vec![0; MOST_GROUPS + 1]).unwrap_err();
        assert!(groups.contains("65537 groups"), "{groups}");
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
