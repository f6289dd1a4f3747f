//! What is in the text files: as /proc(5) and the man pages of gdb would have it.

use std::fmt::Write;

use libsls::record::{File, FileKind, Mapping, Process};

/// /proc/PID/maps.
pub fn maps(process: &Process) -> String {
    let mut text = String::new();
    for map in &process.mappings {
        let line = map_line(map);
        writeln!(text, "{}", line.trim_end()).expect("a string takes all");
    }
    text
}

fn map_line(map: &Mapping) -> String {
    let (major, minor) = (libc::major(map.dev), libc::minor(map.dev));
    let line = format!(
        "{:08x}-{:08x} {} {:08x} {major:02x}:{minor:02x} {} ",
        map.start, map.end, map.perms, map.offset, map.inode
    );
    format!("{line:<73}{}", map.path)
}

/// A block for each thread: its number and name, then a register a line.
pub fn regs(process: &Process) -> String {
    let mut text = String::new();
    for thread in &process.threads {
        writeln!(text, "thread {} {}", thread.tid, thread.name).expect("a string takes all");
        for (name, value) in thread.regs.named() {
            writeln!(text, "{name:<8} {value:#018x}").expect("a string takes all");
        }
        text.push('\n');
    }
    text
}

/// A descriptor a line: number, flags (octal, as /proc/PID/fdinfo has them), offset, and what it is
/// open on.
pub fn fds(process: &Process) -> String {
    let mut text = String::new();
    for file in &process.files {
        let File {
            fd, flags, offset, ..
        } = file;
        let what = what(file);
        writeln!(text, "{fd:<4} 0{flags:<9o} {offset:<10} {what}").expect("a string takes all");
    }
    text
}

fn what(file: &File) -> String {
    match &file.kind {
        FileKind::Socket { description, .. } => format!("{} {description}", file.target),
        FileKind::EventFd { count } => format!("{} count {count}", file.target),
        _ => file.target.clone(),
    }
}

#[cfg(test)]
mod tests {
    use libsls::record::{Backing, Perms};

    use super::*;

    #[test]
    fn mappings_are_written_as_proc_does() {
        let map = Mapping {
            start: 0x5562_0000_0000,
            end: 0x5562_0000_1000,
            perms: Perms {
                read: true,
                exec: true,
                ..Perms::default()
            },
            offset: 0x2000,
            dev: libc::makedev(254, 1),
            inode: 77,
            path: "/usr/bin/x".into(),
            backing: Backing::File,
            file_mtime_ns: 0,
            grows_down: false,
            locked: false,
            advice: Vec::new(),
            key: 0,
        };
        assert_eq!(
            map_line(&map),
            "556200000000-556200001000 r-xp 00002000 fe:01 77                         /usr/bin/x"
        );
    }
}
