//! Campaigns: how long they are, from which seed, and the row each adds to docs/trust.md.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

/// Is this `./x soak`, where campaigns run whole?
#[must_use]
pub fn whole() -> bool {
    std::env::var_os("SLS_TRUST").is_some()
}

/// Rounds of a campaign: `short` in `./x test`, `long` in `./x soak`; SLS_ROUNDS overrules both.
#[must_use]
pub fn rounds_of(short: u64, long: u64) -> u64 {
    crate::rounds(if whole() { long } else { short })
}

/// What chance is drawn from: SLS_SEED, or the same each time.
#[must_use]
pub fn seed(usual: u64) -> u64 {
    std::env::var("SLS_SEED")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(usual)
}

/// What a campaign found. Of `tries`, each is unharmed, put right, or harmed.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Row {
    /// Its name; the test's own where there is one.
    pub campaign: String,
    /// What it does, in a sentence.
    #[serde(default)]
    pub about: String,
    /// Where it is among the tests; filled in by [`Row::report`].
    #[serde(default)]
    pub test: String,
    /// The commit it ran at; filled in by [`Row::report`] from SLS_COMMIT.
    #[serde(default)]
    pub commit: String,
    /// Seed that was used.
    pub seed: u64,
    /// Times the target was put at risk.
    pub tries: u64,
    /// Times it did not notice.
    pub unharmed: u64,
    /// Times it stood halted until the next slsd put it right.
    pub put_right: u64,
    /// Times it was mixed, wrong or dead.
    pub harmed: u64,
    /// Checkpoints compared with what they should hold.
    pub epochs: u64,
    /// Of those, wrong ones.
    pub wrong: u64,
    /// Figures in a few words.
    pub note: String,
}

impl Row {
    /// Prints the row, and adds it to the table when `./x soak` wants one.
    ///
    /// # Panics
    /// The target was harmed or an epoch wrong: that is the test's verdict too.
    pub fn report(&self) {
        let thread = std::thread::current();
        let row = Self {
            test: thread.name().unwrap_or_default().to_owned(),
            commit: std::env::var("SLS_COMMIT").unwrap_or_default(),
            ..self.clone()
        };
        println!("{row:?}");
        if let Some(folder) = std::env::var_os("SLS_TRUST") {
            let name = self.campaign.replace('/', " ");
            let path = PathBuf::from(folder).join(format!("{name}.json"));
            let text = serde_json::to_string(&row).expect("a row is plain");
            std::fs::write(path, text).expect("SLS_TRUST names a folder");
        }
        assert_eq!((self.harmed, self.wrong), (0, 0), "{row:?}");
    }
}

/// Every CPU is busy as long as this lives.
#[derive(Debug)]
pub struct Load(Arc<AtomicBool>);

impl Load {
    /// As many threads that do nothing useful as there are CPUs.
    #[must_use]
    pub fn begin() -> Self {
        let done = Arc::new(AtomicBool::new(false));
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            let done = Arc::clone(&done);
            std::thread::spawn(move || while !done.load(Ordering::Relaxed) {});
        }
        Self(done)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Numbers that look random and are the same each time.
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// The same seed gives the same numbers.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(2) + 1)
    }

    /// One of 0..n.
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n.max(1)
    }
}
