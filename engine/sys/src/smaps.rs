//! What only /proc/PID/smaps tells of mappings. It takes a walk of all page tables, so it is read
//! rarely and never while anybody waits for it.

use std::io;

/// A range of memory with what the kernel lists of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flagged {
    pub start: u64,
    pub end: u64,
    /// Two letters each (VmFlags in proc(5)).
    pub flags: Vec<[u8; 2]>,
    /// Protection key, 0 for none.
    pub key: u8,
}

/// Every mapping with its flags.
///
/// # Errors
/// The process is gone or not ours to look at.
pub fn read(pid: i32) -> io::Result<Vec<Flagged>> {
    Ok(parse(&crate::procfs::read_text(format!(
        "/proc/{pid}/smaps"
    ))?))
}

fn parse(text: &str) -> Vec<Flagged> {
    let (mut found, mut range, mut key) = (Vec::new(), None, 0);
    for line in text.lines() {
        if let Some(flags) = line.strip_prefix("VmFlags:") {
            let flags = flags.split_whitespace();
            let flags = flags.filter_map(|flag| flag.as_bytes().try_into().ok());
            found.extend(range.take().map(|(start, end)| Flagged {
                start,
                end,
                flags: flags.collect(),
                key: std::mem::take(&mut key),
            }));
        } else if let Some(number) = line.strip_prefix("ProtectionKey:") {
            key = number.trim().parse().unwrap_or(0);
        } else if let Some((start, rest)) = line.split_once('-') {
            let hex = |digits: &str| u64::from_str_radix(digits, 16).ok();
            let end = rest.split(' ').next().and_then(hex);
            range = hex(start).zip(end).or(range);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_as_the_kernel_lists_them() {
        let text = "7f00-8f00 rw-p 00000000 00:00 0 \nSize: 4 kB\nTHPeligible:           0\n\
            ProtectionKey:         5\nVmFlags: rd wr lo dd \n9000-a000 r--p 00001000 fe:00 7 /a-b/c-d\nVmFlags: rd mr\n";
        let flagged = |start, end, flags: &[&[u8; 2]], key| Flagged {
            start,
            end,
            flags: flags.iter().map(|flag| **flag).collect(),
            key,
        };
        let expected = [
            flagged(0x7f00, 0x8f00, &[b"rd", b"wr", b"lo", b"dd"], 5),
            flagged(0x9000, 0xa000, &[b"rd", b"mr"], 0),
        ];
        assert_eq!(parse(text), expected);
    }
}
