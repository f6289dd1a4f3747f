//! What nothing may add to, however long it goes on.

use std::fmt;
use std::time::Duration;

use testkit::{children, descriptors, field, mappings, rss};

/// A program may take so much more than at first: its own doing, such as a buffer for a client.
/// Twenty pages a second lost for a quarter of an hour are seventy MiB.
const OWN: u64 = 16 << 20;
const FEW: usize = 4;

/// A program as it was at first.
#[derive(Default)]
pub struct Was {
    rss: u64,
    mappings: usize,
    descriptors: usize,
    threads: u64,
}

fn threads(pid: i32) -> u64 {
    field(pid, "Threads:").parse().unwrap_or(0)
}

impl Was {
    pub fn of(pid: i32) -> Self {
        Self {
            rss: rss(pid),
            mappings: mappings(pid),
            descriptors: descriptors(pid),
            threads: threads(pid),
        }
    }

    pub fn assert_no_growth(&self, name: &str, pid: i32) {
        let now = Self::of(pid);
        println!(
            "{name}: {} then {} MiB, {} then {} mappings, {} then {} descriptors",
            self.rss >> 20,
            now.rss >> 20,
            self.mappings,
            now.mappings,
            self.descriptors,
            now.descriptors
        );
        assert!(now.rss <= self.rss + OWN, "{name} has grown");
        assert!(now.mappings <= self.mappings + 2 * FEW, "{name}: mappings");
        assert!(
            now.descriptors <= self.descriptors + 1,
            "{name}: descriptors"
        );
        assert_eq!(now.threads, self.threads, "{name}: threads");
    }
}

/// One daemon and its keepers, again and again.
#[derive(Default)]
pub struct Daemon {
    samples: Vec<Sample>,
}

struct Sample {
    rss: u64,
    keepers_rss: u64,
    descriptors: usize,
    threads: u64,
}

impl Daemon {
    pub fn sample(&mut self, pid: i32) {
        let keepers = children(pid);
        let of = |what: fn(i32) -> u64| keepers.iter().map(|&k| what(k)).sum::<u64>();
        let descriptors_of = |pid| descriptors(pid) as u64;
        self.samples.push(Sample {
            rss: rss(pid),
            keepers_rss: of(rss),
            descriptors: descriptors(pid) + usize::try_from(of(descriptors_of)).unwrap(),
            threads: threads(pid) + of(threads),
        });
    }

    /// The later half beside the earlier: a page lost at each checkpoint would be more than what
    /// is allowed once that is some minutes long.
    pub fn assert_no_growth(&self, time: Duration) {
        let (early, late) = self.samples.split_at(self.samples.len() / 2);
        let most = |half: &[Sample], of: fn(&Sample) -> u64| half.iter().map(of).max().unwrap();
        let lost = 4096 * 60 * time.as_secs() / 2;
        let allowed = if time > Duration::from_secs(300) {
            lost / 4
        } else {
            OWN
        };
        for (what, of) in [
            ("slsd", (|s| s.rss) as fn(&Sample) -> u64),
            ("keepers", |s| s.keepers_rss),
        ] {
            let (then, now) = (most(early, of), most(late, of));
            println!("{what}: {} then {} MiB", then >> 20, now >> 20);
            assert!(
                now <= then + allowed,
                "{what} has grown from {then} to {now}"
            );
        }
        let descriptors: fn(&Sample) -> u64 = |s| s.descriptors as u64;
        let threads: fn(&Sample) -> u64 = |s| s.threads;
        for (what, of, few) in [("descriptors", descriptors, 20), ("threads", threads, 4)] {
            let (then, now) = (most(early, of), most(late, of));
            println!("{what}: {then} then {now}");
            assert!(now <= then + few, "{what}: from {then} to {now}");
        }
    }
}

impl fmt::Display for Daemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Some(first), Some(last)) = (self.samples.first(), self.samples.last()) else {
            return Ok(());
        };
        write!(
            f,
            "slsd {} then {} MiB, {} then {} descriptors",
            first.rss >> 20,
            last.rss >> 20,
            first.descriptors,
            last.descriptors
        )
    }
}
