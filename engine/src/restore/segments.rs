//! System V shared memory of processes that are made anew: a segment that is still there is attached
//! again, one that is gone is made under its number and key.
//!
//! Segments outlive processes: what was made is removed when the restore fails. A slsd that is killed
//! in the middle of one leaves them, as empty as they are then, for the next restore to attach.

use std::collections::BTreeMap;

use sls_record::{Process, Segment};
use sls_sys::sysv;

use crate::plan::kin::Segments;

/// Those of all processes.
#[derive(Debug, Default)]
pub struct Prepared {
    /// By device and inode of what is mapped: its number, or why it cannot be had.
    pub all: Segments,
    /// To be removed if the restore fails.
    made: Vec<i32>,
    /// To be removed once it is attached.
    removed: Vec<i32>,
}

impl Prepared {
    /// Looks for each, and makes what is not there.
    pub fn of(all: &[Process]) -> Self {
        let mut prepared = Self::default();
        let there = sysv::segments().unwrap_or_default();
        let wanted: BTreeMap<i32, Segment> = all
            .iter()
            .flat_map(|p| p.segments.iter().map(|s| (s.id, *s)))
            .collect();
        for was in wanted.values() {
            let had = prepared.have(was, &there);
            for map in all
                .iter()
                .flat_map(|p| &p.mappings)
                .filter(|m| was.is_at(m))
            {
                prepared.all.insert((map.dev, map.inode), had.clone());
            }
        }
        prepared
    }

    fn have(&mut self, was: &Segment, there: &[sysv::Segment]) -> Result<i32, String> {
        let name = format!("System V shared memory {} (key {:#x})", was.id, was.key);
        if let Some(now) = there.iter().find(|now| now.id == was.id) {
            if (now.key, now.size) == (was.key, was.size) {
                return Ok(was.id);
            }
            return Err(format!("{name}: another segment has its number now"));
        }
        let of_another = format!("{name}: another segment has its key now");
        if was.key != 0 && there.iter().any(|now| now.key == was.key) {
            return Err(of_another);
        }
        let segment = sysv::Segment {
            id: was.id,
            key: was.key,
            size: was.size,
            mode: was.mode,
            removed: was.removed,
            attached: 0,
            uid: was.uid,
            gid: was.gid,
        };
        sysv::make(&segment).map_err(|error| match error.raw_os_error() {
            Some(libc::EEXIST) => of_another,
            _ => format!("{name} cannot be made again: {error}"),
        })?;
        self.made.push(was.id);
        if was.removed {
            self.removed.push(was.id);
        }
        Ok(was.id)
    }

    /// All have attached what they had.
    pub fn attached(&mut self) {
        for id in self.removed.drain(..) {
            let _ = sysv::remove(id); // Somebody else may have done so by now.
        }
    }

    /// The restore is done: they stay.
    pub fn keep(mut self) {
        self.made.clear();
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        for id in self.made.drain(..) {
            let _ = sysv::remove(id); // As above.
        }
    }
}
