//! Who descends from the members of a group.
//!
//! Ids are given one after the other: nobody was born as long as the last one given is the same,
//! and else the born are among those given since.

use std::io;

use sls_sys::births::Births;
use sls_sys::procfs;

/// More ids than this were given since: a walk down the tree is cheaper.
const MOST_IDS: usize = 512;

/// Looks for descendants.
#[derive(Debug)]
pub struct Descendants {
    births: Births,
    /// The last id given at the last look; None: look at all there are.
    last: Option<i32>,
    /// To be looked at again, who could not join yet.
    again: Vec<i32>,
    /// Who was let go, and what comes of it.
    left_out: Vec<i32>,
}

impl Descendants {
    /// The first look finds all there are.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            births: Births::open()?,
            last: None,
            again: Vec::new(),
            left_out: Vec::new(),
        })
    }

    /// The next look is at all there are, as the first is.
    pub fn look_at_all(&mut self) {
        self.last = None;
    }

    /// Look at this one again next time.
    pub fn again(&mut self, pid: i32) {
        self.again.push(pid);
    }

    /// This one, and who descends from it from now on, does not belong here any more.
    pub fn leave_out(&mut self, pid: i32) {
        self.left_out.push(pid);
    }

    /// Processes that descend from `members` and are none of them, each with its parent, parents
    /// first. Who was made since the last look is found, whoever its parent is by now as long as
    /// that is a member or found.
    pub fn look(&mut self, members: &[i32]) -> io::Result<Vec<(i32, i32)>> {
        let now = self.births.last()?;
        if self.last == Some(now) && self.again.is_empty() {
            return Ok(Vec::new());
        }
        let mut candidates = std::mem::take(&mut self.again);
        let all = match self.last.replace(now) {
            None => true,
            Some(then) => {
                let born = self.births.between(then, now).take(MOST_IDS + 1);
                candidates.extend(born);
                candidates.len() > MOST_IDS
            }
        };
        self.left_out.retain(|&pid| !procfs::is_dead(pid));
        if all {
            return Ok(self.walk(members));
        }
        let mut found: Vec<(i32, i32)> = Vec::new();
        for id in candidates {
            let Ok(status) = procfs::status(id) else {
                continue;
            };
            let belongs = |pid: i32| {
                !self.left_out.contains(&pid)
                    && (members.contains(&pid) || found.iter().any(|f| f.0 == pid))
            };
            let is_new = status.tgid == id && !members.contains(&id);
            if is_new && belongs(status.ppid) && !self.left_out.contains(&id) {
                found.push((id, status.ppid));
            }
        }
        Ok(found)
    }

    /// Down the tree from each member.
    fn walk(&self, members: &[i32]) -> Vec<(i32, i32)> {
        let mut found = Vec::new();
        let mut from: Vec<i32> = members.to_vec();
        while let Some(parent) = from.pop() {
            if self.left_out.contains(&parent) {
                continue;
            }
            for child in procfs::children(parent) {
                if !members.contains(&child) && !self.left_out.contains(&child) {
                    found.push((child, parent));
                    from.push(child);
                }
            }
        }
        found
    }
}
