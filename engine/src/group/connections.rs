//! TCP connections with both ends in the group: what waits in them belongs to a checkpoint.
//!
//! Of all others, of which a server may have thousands, nothing is asked under the stop. So which
//! ones those are is looked up before it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::time::{Duration, Instant};

use sls_sys::connections;

/// For checkpoints that are taken one after the other.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Looks for them.
#[derive(Debug, Default)]
pub struct Connections {
    looked_at: Option<Instant>,
}

/// Of one process: the inodes of its ends, and of the other ends.
pub type Ends = BTreeMap<u64, u64>;

impl Connections {
    /// Those of each of these processes; None: it is too soon to look again.
    pub fn look(&mut self, pids: &[i32], at_once: bool) -> Option<Vec<Ends>> {
        let is_fresh = self.looked_at.is_some_and(|at| at.elapsed() < LOOK_AGAIN);
        if is_fresh && !at_once {
            return None;
        }
        self.looked_at = Some(Instant::now());
        let mut pairs = HashMap::new();
        if pids.iter().all(|&pid| is_in_our_network(pid)) {
            pairs = connections::tcp().unwrap_or_default();
        }
        if pairs.is_empty() {
            return Some(pids.iter().map(|_| Ends::new()).collect());
        }
        let of = |pid: &i32| {
            let inodes = connections::of(*pid).into_iter();
            inodes.filter_map(|(_, inode)| Some((inode, *pairs.get(&inode)?)))
        };
        let mut ends: Vec<Ends> = pids.iter().map(|pid| of(pid).collect()).collect();
        let here: HashSet<u64> = ends.iter().flat_map(|ends| ends.keys().copied()).collect();
        for ends in &mut ends {
            ends.retain(|_, other| here.contains(other));
        }
        Some(ends)
    }
}

/// The kernel is asked about the network that slsd is in.
pub fn is_in_our_network(pid: i32) -> bool {
    let network = |of: &str| fs::read_link(format!("/proc/{of}/ns/net")).ok();
    network("self") == network(&pid.to_string())
}
