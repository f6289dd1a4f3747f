//! A daemon for one test.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::target::{Target, threads};

/// A program of this project, beside the running test or below a folder that the test is in.
///
/// # Panics
/// It was not built: run `./x test`, which builds first.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let exe = std::env::current_exe().expect("a test has a path");
    let found = exe
        .ancestors()
        .flat_map(|dir| [dir.join(name), dir.join("release").join(name)])
        .find(|program| program.is_file());
    found.unwrap_or_else(|| panic!("{name} is not built; `./x test` builds it first"))
}

/// Rounds of a campaign: `short` in `./x test`, more under SLS_ROUNDS.
#[must_use]
pub fn rounds(short: u64) -> u64 {
    std::env::var("SLS_ROUNDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(short)
}

/// What a command said.
#[derive(Debug)]
pub struct Output {
    /// Exit status.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// slsctl on a socket of its own; everything is gone when it is dropped.
#[derive(Debug)]
pub struct Sls {
    folder: tempfile::TempDir,
    mask: String,
    /// Whose it is, when not ours.
    user: Option<u32>,
}

/// A user who may do nothing that others may not.
const NOBODY: u32 = 65534;
/// What everything must work without, as [`Sls::without`] takes it.
pub const FALLBACKS: [&str; 4] = [
    "wp_async",
    "wp_async,pagemap_scan",
    "suspend_seccomp",
    "privileges",
];

impl Default for Sls {
    fn default() -> Self {
        Self::new()
    }
}

impl Sls {
    /// A fresh socket; the daemon comes with the first command.
    #[must_use]
    pub fn new() -> Self {
        Self::masked("")
    }

    /// The same with kernel features taken away.
    #[must_use]
    pub fn masked(mask: &str) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("sls-test-")
            .tempdir()
            .expect("a folder");
        Self {
            folder,
            mask: mask.to_owned(),
            user: None,
        }
    }

    /// As a plain user, who owns the folder. The build's own folders may be closed to others: the
    /// programs are copied.
    ///
    /// # Panics
    /// They cannot be.
    #[must_use]
    pub fn plain() -> Self {
        let mut sls = Self::new();
        if nix::unistd::geteuid().is_root() {
            std::os::unix::fs::chown(sls.folder(), Some(NOBODY), Some(NOBODY)).expect("ours");
            for name in ["slsctl", "slsd", "sls-keeper"] {
                std::fs::copy(program(name), sls.folder().join(name)).expect("room");
            }
            sls.user = Some(NOBODY);
        }
        sls
    }

    /// Without one of [`FALLBACKS`], or with everything for "".
    #[must_use]
    pub fn without(what: &str) -> Self {
        match what {
            "privileges" => Self::plain(),
            mask => Self::masked(mask),
        }
    }

    /// May its keepers suspend a seccomp filter? Only root may.
    #[must_use]
    pub fn suspends_seccomp(&self) -> bool {
        self.user.is_none() && !self.mask.contains("suspend_seccomp")
    }

    /// One of our tracees, run by the daemon's user.
    ///
    /// # Panics
    /// It does not start.
    #[must_use]
    pub fn tracee(&self, name: &str, args: &[&str]) -> Target {
        let mut command = self.program(&crate::tracee(name));
        command.args(args).current_dir("/");
        Target::ready(self.folder(), command)
    }

    /// A program to be run by the daemon's user.
    ///
    /// # Panics
    /// There is no room for a copy, where it lies in a folder that is closed to that user.
    #[must_use]
    pub fn program(&self, path: &Path) -> Command {
        let Some(user) = self.user else {
            return Command::new(path);
        };
        let open = path.starts_with("/usr");
        let copy = self.folder().join(path.file_name().expect("a program"));
        if !open && !copy.exists() {
            std::fs::copy(path, &copy).expect("room");
        }
        let mut command = Command::new(if open { path } else { &copy });
        command.uid(user).gid(user);
        command
    }

    /// A new folder of the daemon's user.
    ///
    /// # Panics
    /// It is there already.
    #[must_use]
    pub fn subfolder(&self, name: &str) -> PathBuf {
        let folder = self.folder().join(name);
        std::fs::create_dir(&folder).expect("a new folder");
        if let Some(user) = self.user {
            std::os::unix::fs::chown(&folder, Some(user), Some(user)).expect("ours");
        }
        folder
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("s")
    }

    /// A folder for the test's own files.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The file that says which step of a restore is to fail; see `sls_sys::fault`.
    #[must_use]
    pub fn fault(&self) -> PathBuf {
        self.folder.path().join("fault")
    }

    /// A command ready to run.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = match self.user {
            None => Command::new(program("slsctl")),
            Some(user) => {
                let mut command = Command::new(self.folder().join("slsctl"));
                command.uid(user).gid(user).current_dir("/");
                command
            }
        };
        command.arg("--socket").arg(self.socket()).args(args);
        command.env("SLS_MASK", &self.mask).stdin(Stdio::null());
        command.env("SLS_FAULT", self.fault());
        command
    }

    /// Runs slsctl, whatever comes of it.
    #[must_use]
    pub fn try_run(&self, args: &[&str]) -> Output {
        let out = self.command(args).output().expect("slsctl starts");
        Output {
            code: out.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
        }
    }

    /// Runs slsctl; it must succeed.
    ///
    /// # Panics
    /// It did not.
    pub fn run(&self, args: &[&str]) -> String {
        let out = self.try_run(args);
        assert_eq!(out.code, 0, "slsctl {args:?}: {}{}", out.stderr, self.log());
        out.stdout
    }

    /// Runs slsctl --json; it must succeed and print one document.
    ///
    /// # Panics
    /// It did not.
    pub fn json(&self, args: &[&str]) -> Value {
        let mut all = vec!["--json"];
        all.extend_from_slice(args);
        let out = self.run(&all);
        serde_json::from_str(&out).unwrap_or_else(|e| panic!("slsctl {args:?}: {e}: {out}"))
    }

    /// slsctl must fail with this status and say this.
    ///
    /// # Panics
    /// It did not.
    pub fn refused(&self, args: &[&str], code: i32, says: &str) {
        let out = self.try_run(args);
        assert_eq!(out.code, code, "slsctl {args:?}: {out:?}");
        assert!(
            out.stderr.contains(says),
            "slsctl {args:?} says {:?}, not {says:?}",
            out.stderr
        );
    }

    /// The daemon's log.
    #[must_use]
    pub fn log(&self) -> String {
        let path = libsls::state_folder(&self.socket()).join("slsd.log");
        std::fs::read_to_string(path).unwrap_or_default()
    }

    /// The daemon's process id, started if need be.
    ///
    /// # Panics
    /// `stat` has none.
    #[must_use]
    pub fn daemon(&self) -> i32 {
        let pid = self.json(&["stat"])["pid"]
            .as_i64()
            .expect("stat has a pid");
        i32::try_from(pid).expect("a pid")
    }

    /// SIGKILL for the daemon, which must be gone after.
    ///
    /// # Panics
    /// It stays.
    pub fn kill_daemon(&self) {
        end(self.daemon(), 9);
    }

    /// The folder its histories are kept in, there as long as a partition is.
    #[must_use]
    pub fn memory(&self) -> PathBuf {
        let uid = self.user.unwrap_or(nix::unistd::geteuid().as_raw());
        Path::new(&format!("/dev/shm/sls-{uid}")).join(libsls::memory_name(&self.socket()))
    }
}

/// Ends a daemon by a signal; it must be gone after.
///
/// # Panics
/// It stays.
pub fn end(pid: i32, signal: i32) {
    kill(pid, signal);
    assert!(leaves(pid, Duration::from_secs(10)), "{pid} stays");
}

/// Does the process leave in time?
#[must_use]
pub fn leaves(pid: i32, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    while is_there(pid) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    !is_there(pid)
}

/// Sends a signal.
pub fn kill(pid: i32, signal: i32) {
    let signal = nix::sys::signal::Signal::try_from(signal).expect("a signal");
    // Gone already is as good.
    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal);
}

/// Processes that a process has started and that have not ended: a daemon's keepers.
///
/// # Panics
/// The process has ended.
#[must_use]
pub fn children(pid: i32) -> Vec<i32> {
    let mut children = all_children(pid);
    children.retain(|p| is_there(*p));
    children
}

/// With those that have ended and that it has not taken note of.
pub(crate) fn all_children(pid: i32) -> Vec<i32> {
    let of = |tid: i32| {
        let path = format!("/proc/{pid}/task/{tid}/children");
        std::fs::read_to_string(path).unwrap_or_default()
    };
    let text: String = threads(pid).into_iter().map(of).collect();
    text.split_whitespace()
        .filter_map(|p| p.parse().ok())
        .collect()
}

fn is_there(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|s| !s.rsplit(") ").next().unwrap_or("Z").starts_with('Z'))
}

/// Waits for something to come true.
///
/// # Panics
/// It does not in time.
pub fn wait_until(patience: Duration, what: &str, done: impl FnMut() -> bool) {
    assert!(comes(patience, done), "not in {patience:?}: {what}");
}

/// Whether something comes true in time.
pub fn comes(patience: Duration, mut done: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + patience;
    while !done() {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

/// Where each thread of a process waits, for the message of a test that failed.
#[must_use]
pub fn where_it_is(pid: i32) -> String {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
    let tasks = tasks.into_iter().flatten().flatten().map(|entry| {
        let read = |name| std::fs::read_to_string(entry.path().join(name)).unwrap_or_default();
        let status = read("status");
        let told = [
            "State",
            "TracerPid",
            "SigPnd",
            "ShdPnd",
            "SigBlk",
            "SigIgn",
            "SigCgt",
        ];
        let kept = status
            .lines()
            .filter(|l| told.iter().any(|t| l.starts_with(t)));
        let kept: Vec<&str> = kept.collect();
        let (tid, call) = (entry.file_name(), read("syscall"));
        format!(
            "{}: {} in {} {}",
            tid.display(),
            kept.join(" "),
            call.trim(),
            read("wchan")
        )
    });
    let tasks: Vec<String> = tasks.collect();
    let timers = std::fs::read_to_string(format!("/proc/{pid}/timers")).unwrap_or_default();
    format!("process {pid}: {}\n{timers}", tasks.join("\n"))
}

impl Drop for Sls {
    /// Removes the partitions, so that the daemon leaves and its memory is given back.
    fn drop(&mut self) {
        if !self.socket().exists() {
            return;
        }
        let out = self.try_run(&["--json", "stat"]);
        let stat: Value = serde_json::from_str(&out.stdout).unwrap_or_default();
        let mut emptied = true;
        for part in stat["partitions"].as_array().into_iter().flatten() {
            if let Some(name) = part["partition"].as_str() {
                emptied &= self.try_run(&["partdel", "-o", name]).code == 0;
            }
        }
        if std::thread::panicking() {
            eprintln!("the daemon's log:\n{}", self.log());
        }
        // An emptied daemon leaves by itself and takes its folder with it.
        let pid = stat["pid"].as_i64().and_then(|p| i32::try_from(p).ok());
        if let Some(pid) = pid.filter(|_| !emptied) {
            kill(pid, 15);
            if !leaves(pid, Duration::from_secs(10)) {
                eprintln!("slsd {pid} does not leave");
            }
            // Another daemon would find its histories there; none will come on this socket.
            let _ = std::fs::remove_dir_all(self.memory());
        }
    }
}
