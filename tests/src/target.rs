//! Processes to be looked at; each is ended with its test.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::daemon::wait_until;

/// Path of a tracee of this folder, built with it.
#[must_use]
pub fn tracee(name: &str) -> PathBuf {
    PathBuf::from(env!("OUT_DIR")).join(name)
}

/// A running target.
#[derive(Debug)]
pub struct Target {
    child: Child,
    output: PathBuf,
    ended: bool,
}

impl Target {
    /// Starts a program with its output in a file of `folder`.
    ///
    /// # Panics
    /// It does not start.
    #[must_use]
    pub fn start(folder: &std::path::Path, mut command: Command) -> Self {
        let name = PathBuf::from(command.get_program());
        let name = name
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let output = folder.join(format!("{name}.out"));
        let file = File::create(&output).expect("an output file");
        let errors = file.try_clone().expect("a descriptor");
        let child = command
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(errors)
            .spawn()
            .unwrap_or_else(|e| panic!("{command:?}: {e}"));
        Self {
            child,
            output,
            ended: false,
        }
    }

    /// Starts one of our tracees and waits until it says that it is ready.
    ///
    /// # Panics
    /// It does not.
    #[must_use]
    pub fn tracee(folder: &std::path::Path, name: &str, args: &[&str]) -> Self {
        let mut command = Command::new(tracee(name));
        command.args(args);
        Self::ready(folder, command)
    }

    /// Starts a Python program in `folder` and waits until it says that it is ready.
    ///
    /// # Panics
    /// It does not.
    #[must_use]
    pub fn python(folder: &std::path::Path, program: &str) -> Self {
        let mut command = Command::new("/usr/bin/python3");
        command.args(["-c", program]).current_dir(folder);
        Self::ready(folder, command)
    }

    /// Starts a tracee and waits until it says that it is ready.
    ///
    /// # Panics
    /// It does not.
    #[must_use]
    pub fn ready(folder: &std::path::Path, command: Command) -> Self {
        let target = Self::start(folder, command);
        wait_until(Duration::from_secs(10), "the tracee is ready", || {
            target.output().contains("ready")
        });
        target
    }

    /// Process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Process id as text.
    #[must_use]
    pub fn p(&self) -> String {
        self.pid().to_string()
    }

    /// What it has printed.
    #[must_use]
    pub fn output(&self) -> String {
        std::fs::read_to_string(&self.output).unwrap_or_default()
    }

    /// It must be alive, untraced and not stopped.
    ///
    /// # Panics
    /// It is not; its output is shown.
    pub fn assert_unharmed(&mut self) {
        self.assert_alive();
        let pid = self.pid();
        wait_until(Duration::from_secs(5), "the target runs untraced", || {
            field(pid, "TracerPid:") == "0" && !field(pid, "State:").starts_with(['T', 't'])
        });
    }

    /// CPU time it has used, in hundredths of a second.
    #[must_use]
    pub fn ticks(&self) -> u64 {
        ticks(self.pid())
    }

    /// It must use the CPU from now on: a program that always has something to do is not stuck.
    ///
    /// # Panics
    /// It does not within seconds.
    pub fn assert_goes_on(&mut self) {
        let before = self.ticks();
        let what = format!("the target goes on\n{}", self.output());
        wait_until(Duration::from_secs(20), &what, || self.ticks() > before + 2);
    }

    /// It must not have ended.
    ///
    /// # Panics
    /// It has; its output is shown.
    pub fn assert_alive(&mut self) {
        let status = self.child.try_wait().expect("a child");
        assert!(
            status.is_none(),
            "the target has ended: {status:?}\n{}",
            self.output()
        );
    }

    /// Waits until it ends by itself.
    ///
    /// # Panics
    /// It does not in time.
    pub fn wait(&mut self, patience: Duration) -> std::process::ExitStatus {
        let mut status = None;
        wait_until(patience, "the target ends", || {
            status = self.child.try_wait().expect("a child");
            status.is_some()
        });
        self.ended = true;
        status.expect("it has ended")
    }
}

/// CPU time that a process has used, in hundredths of a second.
#[must_use]
pub fn ticks(pid: i32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
    let used = fields.skip(11).take(2);
    used.filter_map(|f| f.parse::<u64>().ok()).sum()
}

/// A field of /proc/PID/status.
#[must_use]
pub fn field(pid: i32, key: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    text.lines()
        .find_map(|l| l.strip_prefix(key))
        .map(|v| v.trim().to_owned())
        .unwrap_or_default()
}

/// Threads of a process.
///
/// # Panics
/// The process has ended.
#[must_use]
pub fn threads(pid: i32) -> Vec<i32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it is there");
    let name = |task: std::io::Result<std::fs::DirEntry>| task.expect("a thread").file_name();
    tasks
        .map(|task| name(task).to_str().and_then(|tid| tid.parse().ok()))
        .map(|tid| tid.expect("a number"))
        .collect()
}

impl Drop for Target {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.child.kill(); // It may have ended by itself.
            let _ = self.child.wait();
        }
    }
}
