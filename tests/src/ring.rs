//! Processes that pass a number round; one state of all is told from a mixture of several.

use std::time::Duration;

use serde_json::Value;

use crate::daemon::{Sls, wait_until};
use crate::target::{Target, field};

/// The ring, all of it in a partition.
#[derive(Debug)]
pub struct Ring {
    /// Its root.
    pub target: Target,
    /// All of them, in the order of the ring.
    pub pids: Vec<i32>,
}

impl Ring {
    /// Starts so many and attaches to them, `how` besides.
    ///
    /// # Panics
    /// It does not work.
    #[must_use]
    pub fn attached(sls: &Sls, processes: usize, how: &[&str]) -> Self {
        let all = processes.to_string();
        let target = Target::tracee(sls.folder(), "ring", &[&all, "200"]);
        let pid = target.p();
        let mut args = vec!["attach", "-p", &pid, "-m", "-r"];
        args.extend(how);
        sls.run(&args);
        let pids = sls.pids();
        assert_eq!(pids.len(), processes, "{pids:?}");
        Self { target, pids }
    }

    /// Lines that tell of rounds so far.
    #[must_use]
    pub fn rounds(&self) -> usize {
        self.target.output().lines().count()
    }

    /// It goes round, each number once.
    ///
    /// # Panics
    /// It does not.
    pub fn assert_goes_round(&mut self, when: &str) {
        self.target.assert_unharmed();
        let before = self.rounds();
        let what = format!("{when}: the ring goes round\n{}", self.target.output());
        wait_until(Duration::from_secs(30), &what, || {
            self.rounds() > before + 1
        });
        let output = self.target.output();
        assert!(!output.contains("WRONG"), "{when}: {output}");
    }

    /// All of them live.
    ///
    /// # Panics
    /// One does not.
    pub fn assert_alive(&self, when: &str) {
        for &pid in &self.pids {
            let state = field(pid, "State:");
            let lives = !state.is_empty() && !state.starts_with(['Z', 'X']);
            assert!(lives, "{when}: {pid} has ended: {}", self.target.output());
        }
    }

    /// What each noted last at a checkpoint.
    ///
    /// # Panics
    /// It cannot be read.
    #[must_use]
    pub fn notes(&self, sls: &Sls, epoch: u64) -> Vec<u64> {
        let at = format!("@{epoch}");
        let note = |pid: &i32| {
            let pid = pid.to_string();
            let printed = sls.json(&["print", "-m", &at, "mine", "--pid", &pid]);
            printed["value"].as_u64().expect("a number")
        };
        self.pids.iter().map(note).collect()
    }

    /// A checkpoint is one state of all: what they noted last are neighbours in the order of the
    /// ring.
    ///
    /// # Panics
    /// They are not.
    pub fn assert_one_cut(&self, sls: &Sls, epoch: u64) {
        let notes = self.notes(sls, epoch);
        let newest = *notes.iter().max().expect("a ring");
        let last = notes.iter().position(|&n| n == newest).unwrap_or(0);
        for back in 0..notes.len() {
            let at = (last + notes.len() - back) % notes.len();
            assert_eq!(notes[at], newest - back as u64, "@{epoch}: {notes:?}");
        }
    }
}

impl Sls {
    /// Processes of all partitions, in the order in which they came.
    ///
    /// # Panics
    /// The daemon does not tell.
    #[must_use]
    pub fn pids(&self) -> Vec<i32> {
        let ps = self.json(&["ps"]);
        let rows = ps["processes"].as_array().expect("rows").iter();
        let pid = |row: &Value| i32::try_from(row["pid"].as_i64().unwrap_or(0));
        rows.map(|row| pid(row).expect("a number")).collect()
    }
}
