//! A Python program that does as it is told, line by line.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::process::Command;
use std::time::Duration;

use crate::again::Again;
use crate::daemon::{Sls, kill, wait_until};
use crate::target::Target;

const SOON: Duration = Duration::from_secs(10);

/// Obeys the lines of the fifo named in its argument: each is a line of Python.
const PYTHON: &str = r#"
import os, sys, socket
orders = open(sys.argv[1])
print("ready", flush=True)
while True:
    exec(orders.readline())
"#;

/// It, and who looks after it.
#[derive(Debug)]
pub struct Obedient {
    /// The daemon.
    pub sls: Sls,
    target: Option<Target>,
    again: Option<Again>,
    pid: i32,
    orders: File,
    asked: u32,
    attached: bool,
}

impl Obedient {
    /// Starts it; its working directory is the daemon's folder.
    ///
    /// # Panics
    /// It does not start.
    #[must_use]
    pub fn start() -> Self {
        let sls = Sls::new();
        let fifo = sls.folder().join("orders");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("a fifo");
        let mut command = Command::new("/usr/bin/python3");
        command
            .args(["-c", PYTHON])
            .arg(&fifo)
            .current_dir(sls.folder());
        // Opened first: whoever opens a fifo waits for its other end.
        let orders = OpenOptions::new().read(true).write(true).open(&fifo);
        let orders = orders.expect("the fifo");
        let target = Target::ready(sls.folder(), command);
        Self {
            sls,
            pid: target.pid(),
            target: Some(target),
            again: None,
            orders,
            asked: 0,
            attached: false,
        }
    }

    /// Process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Has it run a line, and waits until it says so.
    ///
    /// # Panics
    /// It does not, or fails.
    pub fn order(&mut self, line: &str, says: &str) {
        assert_eq!(self.ask(&format!("{says:?}"), line), says);
    }

    /// Has it run a line; what the expression then is, as text.
    ///
    /// # Panics
    /// It does not answer.
    pub fn ask(&mut self, expression: &str, line: &str) -> String {
        self.asked += 1;
        let answer = self.sls.folder().join(format!("answer{}", self.asked));
        let (at, next) = (answer.display(), answer.with_extension("next"));
        let next = next.display();
        let write = format!(
            "f_ = open('{next}', 'w'); f_.write(str(({expression}))); f_.close(); \
             os.rename('{next}', '{at}'); del f_"
        );
        let line = format!("{line}; {write}\n");
        self.orders.write_all(line.as_bytes()).expect("an order");
        let output = self.sls.folder().join("python3.out");
        let said = || std::fs::read_to_string(&output).unwrap_or_default();
        let what = format!("it does {line}");
        wait_until(SOON, &what, || {
            answer.exists() || said().contains("Traceback")
        });
        std::fs::read_to_string(&answer).unwrap_or_else(|_| panic!("{line}{}", said()))
    }

    /// What an expression is, as text.
    pub fn tell(&mut self, expression: &str) -> String {
        self.ask(expression, "pass")
    }

    /// Attaches it in a way of one's own.
    pub fn attach(&mut self, how: &[&str]) {
        let pid = self.pid.to_string();
        self.sls.run(&[&["attach", "-p", &pid, "-m"], how].concat());
        self.attached = true;
    }

    /// The number of a checkpoint of now.
    ///
    /// # Panics
    /// It cannot be taken.
    pub fn checkpoint(&mut self) -> u64 {
        if !self.attached {
            self.attach(&[]);
        }
        let taken = self.sls.json(&["checkpoint", "-m"]);
        taken["epoch"].as_u64().expect("a number")
    }

    /// What could not be put back.
    #[allow(clippy::must_use_candidate)] // A test may be about something else.
    pub fn rewind(&self, epoch: u64) -> String {
        let done = self.sls.json(&["rewind", "-m", &format!("@{epoch}")]);
        done["not_restored"].to_string()
    }

    /// Kills it; its number is free then.
    pub fn kill(&mut self) {
        if self.target.is_none() && self.again.is_none() {
            return;
        }
        if let Some(mut target) = self.target.take() {
            kill(self.pid, 9);
            target.wait(SOON);
        }
        if let Some(again) = self.again.take() {
            again.end();
        }
        wait_until(SOON, "its end is known", || {
            self.sls.json(&["ps"])["processes"][0]["state"] == "dead"
        });
    }

    /// Kills it and makes it anew; what is not as it was, but for the descriptors and the session
    /// that whoever runs the tests gave it.
    pub fn restore(&mut self, epoch: u64) -> Vec<String> {
        self.restore_as(&[&format!("@{epoch}")])
    }

    /// The same, in a way of one's own.
    ///
    /// # Panics
    /// It cannot be made.
    pub fn restore_as(&mut self, how: &[&str]) -> Vec<String> {
        self.kill();
        let (again, told) = Again::made(&self.sls, how);
        self.again = Some(again);
        let lines = told["not_restored"].as_array().expect("a list");
        let lines = lines.iter().filter_map(|line| line.as_str());
        let own = lines.filter(|line| !is_given(line));
        own.map(ToOwned::to_owned).collect()
    }

    /// It must be as well as ever.
    ///
    /// # Panics
    /// It is not.
    pub fn end(mut self) {
        if self.attached {
            self.sls.run(&["detach", "-p", &self.pid.to_string()]);
        }
        if let Some(target) = &mut self.target {
            target.assert_unharmed();
        }
        assert_eq!(self.tell("6 * 7"), "42");
    }
}

fn is_given(line: &str) -> bool {
    let number = line.strip_prefix("descriptor ");
    let number = number.and_then(|rest| rest.split(' ').next()?.parse::<i32>().ok());
    line.starts_with("session ") || number.is_some_and(|fd| fd > 9)
}
