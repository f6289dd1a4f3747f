//! The tracee `lives`: it execs, forks, crashes or ends when it is told to.

use std::io::Write;
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::{Sls, Target, tracee, wait_until};

/// A running `lives`, to be told once (after an exec once more).
#[derive(Debug)]
pub struct Lives {
    target: Target,
    fifo: PathBuf,
}

impl Lives {
    /// Starts one that will do `what`, and attaches to it.
    #[must_use]
    pub fn attached(sls: &Sls, what: &str, how: &[&str]) -> Self {
        let fifo = sls.folder().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("a fifo");
        let mut command = Command::new(tracee("lives"));
        command.arg(what).arg(&fifo);
        let target = Target::start(sls.folder(), command);
        // It says that it is ready only once it has been told: until then it sleeps in open(2).
        std::thread::sleep(Duration::from_millis(100));
        sls.run(&[&["attach", "-p", &target.p(), "-m"], how].concat());
        Self { target, fifo }
    }

    /// Has it do it.
    pub fn go(&self) {
        let mut fifo = std::fs::OpenOptions::new()
            .write(true)
            .open(&self.fifo)
            .expect("the fifo");
        fifo.write_all(b"go\n").expect("it reads the fifo");
    }

    /// After a fork: the child ran to its end as it should, and the parent runs on once let go.
    ///
    /// # Panics
    /// One of them did not.
    pub fn assert_both_unharmed(&mut self, sls: &Sls) {
        wait_until(Duration::from_secs(10), "the child is unharmed", || {
            self.output().contains("child unharmed")
        });
        sls.run(&["detach", "-p", &self.p()]);
        self.assert_unharmed();
    }
}

impl Deref for Lives {
    type Target = Target;

    fn deref(&self) -> &Target {
        &self.target
    }
}

impl DerefMut for Lives {
    fn deref_mut(&mut self) -> &mut Target {
        &mut self.target
    }
}
