//! What only /proc/PID/smaps tells of mappings. It takes a walk of all page tables, so it is read
//! rarely and never while anybody waits for it.

use std::{fs, io};

/// A range of memory with the flags the kernel lists of it, two letters each.
pub type Flagged = (u64, u64, Vec<[u8; 2]>);

/// Every mapping with its flags (VmFlags in proc(5)).
///
/// # Errors
/// The process is gone or not ours to look at.
pub fn read(pid: i32) -> io::Result<Vec<Flagged>> {
    Ok(parse(&fs::read_to_string(format!("/proc/{pid}/smaps"))?))
}

fn parse(text: &str) -> Vec<Flagged> {
    let (mut found, mut range) = (Vec::new(), None);
    for line in text.lines() {
        if let Some(flags) = line.strip_prefix("VmFlags:") {
            let flags = flags.split_whitespace();
            let flags = flags.filter_map(|flag| flag.as_bytes().try_into().ok());
            found.extend(
                range
                    .take()
                    .map(|(start, end)| (start, end, flags.collect())),
            );
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
            VmFlags: rd wr lo dd \n9000-a000 r--p 00001000 fe:00 7 /a-b/c-d\nVmFlags: rd mr\n";
        let expected: [Flagged; 2] = [
            (0x7f00, 0x8f00, vec![*b"rd", *b"wr", *b"lo", *b"dd"]),
            (0x9000, 0xa000, vec![*b"rd", *b"mr"]),
        ];
        assert_eq!(parse(text), expected);
    }
}
