//! What /proc/PID tells, parsed without allocation beyond the result.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

fn bad(what: &str, pid: i32) -> io::Error {
    io::Error::other(format!("/proc/{pid}/{what} does not read as expected"))
}

/// One line of /proc/PID/maps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // The kernel's four permission letters.
pub struct MapLine {
    /// First address.
    pub start: u64,
    /// First address after.
    pub end: u64,
    /// r.
    pub read: bool,
    /// w.
    pub write: bool,
    /// x.
    pub exec: bool,
    /// s.
    pub shared: bool,
    /// Offset in the file, bytes.
    pub offset: u64,
    /// makedev(major, minor).
    pub dev: u64,
    /// Inode.
    pub inode: u64,
    /// Path, with the kernel's octal escapes as they are.
    pub path: String,
}

/// What a file of /proc says. It has no length to go by: asked for in growing pieces, as of any other
/// file, it takes three times as many calls, and under a stop at that.
///
/// # Errors
/// It is not there, or what it is about has gone.
pub fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    let mut file = fs::File::open(path)?;
    let mut text = vec![0; 4 << 10];
    let mut len = 0;
    loop {
        if len == text.len() {
            text.resize(4 * len, 0);
        }
        match file.read(&mut text[len..]) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    text.truncate(len);
    Ok(text)
}

/// The same as text.
///
/// # Errors
/// As of [`read`], or it is no text.
pub fn read_text(path: impl AsRef<Path>) -> io::Result<String> {
    String::from_utf8(read(path)?).map_err(io::Error::other)
}

/// A /proc file that is read again and again: opening it costs more than reading it.
#[derive(Debug)]
pub struct Reread {
    file: fs::File,
    text: Vec<u8>,
}

impl Reread {
    /// Opens /proc/PID/`name`.
    ///
    /// # Errors
    /// The process is gone or not ours to look at.
    pub fn open(pid: i32, name: &str) -> io::Result<Self> {
        let file = fs::File::open(format!("/proc/{pid}/{name}"))?;
        Ok(Self {
            file,
            text: vec![0; 64 << 10],
        })
    }

    /// Its text now.
    ///
    /// # Errors
    /// ESRCH: the process is gone.
    pub fn read(&mut self) -> io::Result<&[u8]> {
        use std::os::unix::fs::FileExt;
        let mut len = 0;
        loop {
            if self.text.len() - len < 8 << 10 {
                self.text.resize(self.text.len() * 2, 0);
            }
            match self.file.read_at(&mut self.text[len..], len as u64)? {
                0 => return Ok(&self.text[..len]),
                n => len += n,
            }
        }
    }
}

/// The task folder of a process, held open.
#[derive(Debug)]
pub struct Tasks {
    folder: fs::File,
}

impl Tasks {
    /// Opens /proc/PID/task.
    ///
    /// # Errors
    /// The process is gone or not ours to look at.
    pub fn open(pid: i32) -> io::Result<Self> {
        let folder = fs::File::open(format!("/proc/{pid}/task"))?;
        Ok(Self { folder })
    }

    /// Number of threads, by the link count of the folder: much cheaper than listing it.
    ///
    /// # Errors
    /// The process is gone.
    pub fn count(&self) -> io::Result<u64> {
        use std::os::unix::fs::MetadataExt;
        Ok(self.folder.metadata()?.nlink().saturating_sub(2))
    }
}

/// Parses the map list.
#[must_use]
pub fn parse_maps(text: &[u8]) -> Vec<MapLine> {
    String::from_utf8_lossy(text)
        .lines()
        .filter_map(map_line)
        .collect()
}

/// The map list of a process; empty for a zombie or a kernel thread.
///
/// # Errors
/// ESRCH or ENOENT: the process is gone.
pub fn maps(pid: i32) -> io::Result<Vec<MapLine>> {
    read(format!("/proc/{pid}/maps")).map(|text| parse_maps(&text))
}

/// The first address, if any, at which a userfaultfd brings missing pages. Walks all page tables.
///
/// # Errors
/// ENOENT: there is no such process.
pub fn brought_by_userfaultfd(pid: i32) -> io::Result<Option<u64>> {
    let text = read_text(format!("/proc/{pid}/smaps"))?;
    let mut start = None;
    for line in text.lines() {
        if let Some(flags) = line.strip_prefix("VmFlags:") {
            if flags.split_whitespace().any(|f| f == "um" || f == "ui") {
                return Ok(start);
            }
        } else if let Some(map) = map_line(line) {
            start = Some(map.start);
        }
    }
    Ok(None)
}

fn map_line(line: &str) -> Option<MapLine> {
    let mut fields = line.splitn(6, ' ');
    let (start, end) = fields.next()?.split_once('-')?;
    let perms = fields.next()?.as_bytes();
    let offset = u64::from_str_radix(fields.next()?, 16).ok()?;
    let (major, minor) = fields.next()?.split_once(':')?;
    let dev = libc::makedev(
        u32::from_str_radix(major, 16).ok()?,
        u32::from_str_radix(minor, 16).ok()?,
    );
    let inode = fields.next()?.parse().ok()?;
    let path = fields.next().unwrap_or("").trim_start().to_owned();
    Some(MapLine {
        start: u64::from_str_radix(start, 16).ok()?,
        end: u64::from_str_radix(end, 16).ok()?,
        read: perms.first() == Some(&b'r'),
        write: perms.get(1) == Some(&b'w'),
        exec: perms.get(2) == Some(&b'x'),
        shared: perms.get(3) == Some(&b's'),
        offset,
        dev,
        inode,
        path,
    })
}

/// Thread ids, main thread first.
///
/// # Errors
/// The process is gone.
pub fn tasks(pid: i32) -> io::Result<Vec<i32>> {
    let mut tids = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        if let Some(tid) = entry?.file_name().to_str().and_then(|s| s.parse().ok()) {
            tids.push(tid);
        }
    }
    tids.sort_unstable_by_key(|&t| (t != pid, t));
    Ok(tids)
}

/// Children of a process, those of all its threads.
#[must_use]
pub fn children(pid: i32) -> Vec<i32> {
    let mut found = Vec::new();
    for tid in tasks(pid).unwrap_or_default() {
        // Needs CONFIG_PROC_CHILDREN.
        match read_text(format!("/proc/{pid}/task/{tid}/children")) {
            Ok(list) => found.extend(
                list.split_whitespace()
                    .filter_map(|id| id.parse::<i32>().ok()),
            ),
            Err(_) if is_dead(tid) => {}
            Err(_) => return children_of_all(pid),
        }
    }
    found
}

fn children_of_all(pid: i32) -> Vec<i32> {
    let mut all = processes().unwrap_or_default();
    all.retain(|&other| status(other).is_ok_and(|s| s.ppid == pid));
    all
}

/// Every process there is to be seen.
///
/// # Errors
/// There is no /proc.
pub fn processes() -> io::Result<Vec<i32>> {
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc")? {
        pids.extend(
            entry?
                .file_name()
                .to_str()
                .and_then(|s| s.parse::<i32>().ok()),
        );
    }
    Ok(pids)
}

/// The numbers of a thread as its own PID namespace has them; 0 for what is outside of that.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Numbers {
    /// Of its process.
    pub tgid: i32,
    /// Its own.
    pub tid: i32,
    /// Process group.
    pub pgid: i32,
    /// Session.
    pub sid: i32,
    /// PID namespaces between the reader's and its own.
    pub depth: usize,
}

/// Fields of /proc/PID/status that matter here.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// State letter.
    pub state: char,
    /// Thread group.
    pub tgid: i32,
    /// Parent.
    pub ppid: i32,
    /// Process group.
    pub pgid: i32,
    /// Session.
    pub sid: i32,
    /// The same as its own PID namespace has them.
    pub own: Numbers,
    /// Tracer, 0 for none.
    pub tracer: i32,
    /// Real, effective, saved, file system user.
    pub uids: [u32; 4],
    /// The same of groups.
    pub gids: [u32; 4],
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Capabilities: inheritable, permitted, effective, bounding, ambient.
    pub capabilities: [u64; 5],
    /// PR_SET_NO_NEW_PRIVS.
    pub no_new_privs: bool,
    /// umask.
    pub umask: u32,
    /// Seccomp mode.
    pub seccomp: u32,
    /// Pending for the thread.
    pub sig_pending: u64,
    /// Pending for the process.
    pub shared_pending: u64,
    /// Blocked.
    pub sig_blocked: u64,
    /// Ignored.
    pub sig_ignored: u64,
    /// Caught.
    pub sig_caught: u64,
    /// Threads.
    pub threads: u32,
    /// Command name.
    pub name: String,
    /// Page tables, KiB.
    pub vm_pte_kib: u64,
    /// Locked memory, KiB.
    pub vm_lck_kib: u64,
    /// Resident set, KiB.
    pub vm_rss_kib: u64,
}

impl Status {
    /// Does a signal end it? One with a handler does not, nor one whose default action leaves it alive.
    #[must_use]
    pub fn ends_by(&self, signal: i32) -> bool {
        let harmless = matches!(
            signal,
            libc::SIGCHLD
                | libc::SIGCONT
                | libc::SIGURG
                | libc::SIGWINCH
                | libc::SIGSTOP
                | libc::SIGTSTP
                | libc::SIGTTIN
                | libc::SIGTTOU
        );
        let bit = signal
            .checked_sub(1)
            .and_then(|at| 1u64.checked_shl(at.cast_unsigned()));
        let bit = bit.unwrap_or(0);
        (self.sig_caught | self.sig_ignored) & bit == 0 && !harmless
    }
}

/// Status of a process, or of a thread through its own id.
///
/// # Errors
/// It is gone.
pub fn status(pid: i32) -> io::Result<Status> {
    let text = read(format!("/proc/{pid}/status"))?;
    parse_status(&text).ok_or_else(|| bad("status", pid))
}

/// Signals with a handler, of the text of /proc/PID/status, without parsing all of it.
#[must_use]
pub fn caught_in(text: &[u8]) -> u64 {
    let mut lines = text.rsplit(|&b| b == b'\n');
    let value = lines.find_map(|line| line.strip_prefix(b"SigCgt:\t"));
    value
        .and_then(|hex| std::str::from_utf8(hex).ok())
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0)
}

/// Is the process of this text of /proc/PID/status in a PID namespace below the reader's?
#[must_use]
pub fn has_own_numbers(text: &[u8]) -> bool {
    let mut lines = text.split(|&b| b == b'\n');
    let numbers = lines.find_map(|line| line.strip_prefix(b"NSpid:\t"));
    numbers.is_some_and(|numbers| numbers.contains(&b'\t'))
}

/// Parses /proc/PID/status.
#[must_use]
pub fn parse_status(text: &[u8]) -> Option<Status> {
    let text = String::from_utf8_lossy(text);
    let mut s = Status::default();
    let hex = |v: &str| u64::from_str_radix(v, 16).unwrap_or(0);
    let innermost = |v: &str| v.split_whitespace().next_back()?.parse().ok();
    let four = |v: &str| {
        let mut ids = [0; 4];
        for (id, word) in ids.iter_mut().zip(v.split_whitespace()) {
            *id = word.parse().unwrap_or(0);
        }
        ids
    };
    for line in text.lines() {
        let Some((key, value)) = line.split_once(':') else {
            continue;
        };
        let value = value.trim();
        let first = || value.split_whitespace().next().unwrap_or("");
        match key {
            "Name" => value.clone_into(&mut s.name),
            "Umask" => s.umask = u32::from_str_radix(value, 8).unwrap_or(0),
            "State" => s.state = value.chars().next().unwrap_or('?'),
            "Tgid" => {
                s.tgid = value.parse().unwrap_or(0);
                s.own.tgid = s.tgid;
            }
            "Pid" => s.own.tid = value.parse().unwrap_or(0),
            "PPid" => s.ppid = value.parse().unwrap_or(0),
            "NStgid" => s.own.tgid = innermost(value).unwrap_or(0),
            "NSpid" => {
                s.own.tid = innermost(value).unwrap_or(0);
                s.own.depth = value.split_whitespace().count().saturating_sub(1);
            }
            "NSpgid" => {
                s.pgid = first().parse().unwrap_or(0);
                s.own.pgid = innermost(value).unwrap_or(0);
            }
            "NSsid" => {
                s.sid = first().parse().unwrap_or(0);
                s.own.sid = innermost(value).unwrap_or(0);
            }
            "TracerPid" => s.tracer = value.parse().unwrap_or(0),
            "Uid" => s.uids = four(value),
            "Gid" => s.gids = four(value),
            "Groups" => {
                s.groups = value
                    .split_whitespace()
                    .filter_map(|v| v.parse().ok())
                    .collect();
            }
            "CapInh" => s.capabilities[0] = hex(value),
            "CapPrm" => s.capabilities[1] = hex(value),
            "CapEff" => s.capabilities[2] = hex(value),
            "CapBnd" => s.capabilities[3] = hex(value),
            "CapAmb" => s.capabilities[4] = hex(value),
            "NoNewPrivs" => s.no_new_privs = value == "1",
            "Seccomp" => s.seccomp = value.parse().unwrap_or(0),
            "SigPnd" => s.sig_pending = hex(value),
            "ShdPnd" => s.shared_pending = hex(value),
            "SigBlk" => s.sig_blocked = hex(value),
            "SigIgn" => s.sig_ignored = hex(value),
            "SigCgt" => s.sig_caught = hex(value),
            "Threads" => s.threads = value.parse().unwrap_or(0),
            "VmPTE" => s.vm_pte_kib = first().parse().unwrap_or(0),
            "VmLck" => s.vm_lck_kib = first().parse().unwrap_or(0),
            "VmRSS" => s.vm_rss_kib = first().parse().unwrap_or(0),
            _ => {}
        }
    }
    (s.tgid != 0).then_some(s)
}

impl Status {
    /// Real user.
    #[must_use]
    pub fn uid(&self) -> u32 {
        self.uids[0]
    }
}

/// Fields of /proc/PID/stat that matter here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stat {
    /// State letter.
    pub state: char,
    /// Parent.
    pub ppid: i32,
    /// Start time in clock ticks since boot.
    pub start_ticks: u64,
    /// Where the parts of the program lie; 0 when hidden.
    pub layout: Layout,
    /// Wait status of an ended process.
    pub exit_code: i32,
    /// The signal its parent gets at its end.
    pub exit_signal: i32,
    /// Its controlling terminal as a device number, 0 for none.
    pub terminal: u64,
    /// The process group in the foreground of that.
    pub foreground: i32,
}

/// Addresses of a program's parts, as the kernel keeps them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)] // Named as in proc_pid_stat(5).
pub struct Layout {
    pub start_code: u64,
    pub end_code: u64,
    pub start_data: u64,
    pub end_data: u64,
    pub start_brk: u64,
    pub start_stack: u64,
    pub arg_start: u64,
    pub arg_end: u64,
    pub env_start: u64,
    pub env_end: u64,
}

/// Stat of a process.
///
/// # Errors
/// It is gone.
pub fn stat(pid: i32) -> io::Result<Stat> {
    let text = read_text(format!("/proc/{pid}/stat"))?;
    // The name in parentheses may hold anything, a closing parenthesis included.
    let (_, rest) = text.rsplit_once(") ").ok_or_else(|| bad("stat", pid))?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    // Field numbers of proc(5) start at 1 with the pid; `fields` starts at number 3.
    let number = |n: usize| fields.get(n - 3).and_then(|v| v.parse::<i64>().ok());
    let word = |n: usize| number(n).map_or(0, i64::cast_unsigned);
    let int = |n: usize| number(n).and_then(|v| i32::try_from(v).ok()).unwrap_or(0);
    Ok(Stat {
        state: fields
            .first()
            .and_then(|v| v.chars().next())
            .ok_or_else(|| bad("stat", pid))?,
        ppid: int(4),
        start_ticks: word(22),
        layout: Layout {
            start_code: word(26),
            end_code: word(27),
            start_data: word(45),
            end_data: word(46),
            start_brk: word(47),
            start_stack: word(28),
            arg_start: word(48),
            arg_end: word(49),
            env_start: word(50),
            env_end: word(51),
        },
        exit_code: int(52),
        exit_signal: int(38),
        terminal: word(7),
        foreground: int(8),
    })
}

/// Is it gone for a debugger: a zombie, or no longer there?
#[must_use]
pub fn is_dead(pid: i32) -> bool {
    stat(pid).map_or(true, |s| matches!(s.state, 'Z' | 'X'))
}

/// When a thread last came off a CPU, in ns of that CPU's own clock, where the kernel tells
/// (CONFIG_SCHED_DEBUG): the start of its sleep.
#[must_use]
pub fn last_ran_ns(pid: i32, tid: i32) -> Option<u64> {
    let text = read_text(format!("/proc/{pid}/task/{tid}/sched")).ok()?;
    let value = text
        .lines()
        .find_map(|l| l.strip_prefix("se.exec_start"))?
        .rsplit(':')
        .next()?
        .trim();
    let (millis, micros) = value.split_once('.')?;
    Some(millis.parse::<u64>().ok()? * 1_000_000 + micros.parse::<u64>().ok()?)
}

/// The kernel function a thread sleeps in; None when it has ended, empty when it does not sleep.
#[must_use]
pub fn sleeps_in(pid: i32, tid: i32) -> Option<String> {
    let name = read_text(format!("/proc/{pid}/task/{tid}/wchan")).ok()?;
    Some(if name == "0" { String::new() } else { name })
}

/// Threads of these processes that wait for a child of vfork, which nothing but that child can end.
pub fn in_vfork(pids: impl Iterator<Item = i32>) -> Vec<i32> {
    // Where wait_for_vfork_done is, inlined or not.
    let waits = |place: String| matches!(place.as_str(), "kernel_clone" | "wait_for_vfork_done");
    let threads = |pid| {
        let tids = tasks(pid).unwrap_or_default().into_iter();
        tids.filter(move |&tid| sleeps_in(pid, tid).is_some_and(waits))
    };
    pids.flat_map(threads).collect()
}

/// The CPU a sleeping thread last ran on; None when it does not sleep.
#[must_use]
pub fn sleeps_on(pid: i32, tid: i32) -> Option<usize> {
    let text = read_text(format!("/proc/{pid}/task/{tid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(") ")?;
    // Fields 3 and 39 of proc(5), as in `stat`.
    let mut fields = rest.split_whitespace();
    matches!(fields.next()?, "S" | "D").then(|| fields.nth(35)?.parse().ok())?
}

/// How often the scheduler has run a thread: unchanged means it has not run.
#[must_use]
pub fn times_run(pid: i32, tid: i32) -> Option<u64> {
    let text = read_text(format!("/proc/{pid}/task/{tid}/schedstat")).ok()?;
    text.split_whitespace().nth(2)?.parse().ok()
}

/// Link target as text, empty when it cannot be read.
#[must_use]
pub fn link(pid: i32, name: &str) -> String {
    fs::read_link(format!("/proc/{pid}/{name}"))
        .map(|p| p.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// Auxiliary vector.
///
/// # Errors
/// It is gone or not ours to look at.
pub fn auxv(pid: i32) -> io::Result<Vec<(u64, u64)>> {
    let bytes = read(format!("/proc/{pid}/auxv"))?;
    let word = |b: &[u8]| u64::from_le_bytes(b.try_into().unwrap_or_default());
    Ok(bytes
        .chunks_exact(16)
        .map(|p| (word(&p[..8]), word(&p[8..])))
        .take_while(|&(key, _)| key != 0)
        .collect())
}

/// ELF class of the running executable: true for 64 bits.
///
/// # Errors
/// The executable cannot be read.
pub fn is_64_bit(pid: i32) -> io::Result<bool> {
    use io::Read;
    let mut head = [0u8; 5];
    fs::File::open(format!("/proc/{pid}/exe"))?.read_exact(&mut head)?;
    Ok(head == *b"\x7fELF\x02")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_maps_hold_this_function() {
        let pid = std::process::id().cast_signed();
        let here = own_maps_hold_this_function as *const () as u64;
        let maps = maps(pid).unwrap();
        assert!(
            maps.iter()
                .any(|m| m.exec && m.start <= here && here < m.end)
        );
    }

    #[test]
    fn a_path_with_spaces_and_newlines_stays_whole() {
        let line = "7f00-7f01 r--p 00001000 fe:00 12345      /a b/c\\012d (deleted)";
        let m = map_line(line).unwrap();
        assert_eq!(m.path, "/a b/c\\012d (deleted)");
        assert_eq!(
            (m.offset, m.inode, m.read, m.write),
            (0x1000, 12345, true, false)
        );
    }

    #[test]
    fn own_status() {
        let pid = std::process::id().cast_signed();
        let s = status(pid).unwrap();
        assert_eq!(s.tgid, pid);
        assert!(s.threads >= 1);
        assert!(!is_dead(pid));
        assert!(is_64_bit(pid).unwrap());
        assert!(stat(pid).unwrap().start_ticks > 0);
    }
}
