//! What inotify descriptors watch, from the lines of fdinfo. Off the clock.

use std::collections::HashMap;
use std::path::PathBuf;

use sls_record::Watch;
use sls_sys::handles;

/// Paths of what is watched, by the line that tells of it: they are looked up once, and again for
/// checkpoints that were asked for.
#[derive(Debug, Default)]
pub struct Watches(HashMap<String, Option<String>>);

impl Watches {
    /// Looks for all paths again.
    pub fn forget(&mut self) {
        self.0.clear();
    }

    /// "inotify wd:2 ino:3c4a7 sdev:fe00000 mask:200 ignored_mask:0 fhandle-bytes:8 fhandle-type:1
    /// f_handle:a7c4030000000000", all in hex; by number.
    pub fn understand(&mut self, info: &[u8]) -> Vec<Watch> {
        let text = String::from_utf8_lossy(info);
        let lines = text.lines().filter(|l| l.starts_with("inotify "));
        let mut watches: Vec<Watch> = lines.filter_map(|l| self.watch(l)).collect();
        watches.sort_by_key(|w| w.number);
        watches
    }

    fn watch(&mut self, line: &str) -> Option<Watch> {
        let number = |key: &str| u64::from_str_radix(word(line, key)?, 16).ok();
        let path = self.0.entry(line.to_owned()).or_insert_with(|| {
            let path = path(line)?.into_os_string().into_string().ok()?;
            Some(path)
        });
        Some(Watch {
            number: i32::try_from(number("wd:")?).ok()?,
            dev: device(number("sdev:")?),
            inode: number("ino:")?,
            mask: u32::try_from(number("mask:")?).ok()?,
            path: path.clone(),
        })
    }
}

fn word<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    let mut words = line.split_whitespace();
    words.find_map(|word| word.strip_prefix(key))
}

/// From the kernel's own form: 20 bits are the minor number.
fn device(sdev: u64) -> u64 {
    let half = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    libc::makedev(half(sdev >> 20), half(sdev & 0xf_ffff))
}

fn path(line: &str) -> Option<PathBuf> {
    let sdev = u64::from_str_radix(word(line, "sdev:")?, 16).ok()?;
    let kind = i32::from_str_radix(word(line, "fhandle-type:")?, 16).ok()?;
    let digits = word(line, "f_handle:")?;
    let byte = |at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
    let handle: Option<Vec<u8>> = (0..digits.len()).step_by(2).map(byte).collect();
    handles::path(device(sdev), kind, &handle?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watches_as_the_kernel_prints_them() {
        let info = b"pos:\t0\nflags:\t00\ninotify wd:1a ino:3c4a7 sdev:fe00001 mask:200 \
            ignored_mask:0 fhandle-bytes:8 fhandle-type:1 f_handle:a7c4030000000000 \n";
        let found = Watches::default().understand(info);
        let [watch] = &found[..] else {
            panic!("one of them: {found:?}");
        };
        assert_eq!((watch.number, watch.inode), (26, 0x3c4a7));
        assert_eq!((watch.dev, watch.mask), (libc::makedev(0xfe, 1), 0x200));
    }
}
