//! Which processes share open file descriptions: those that fork made of one another do.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};

use sls_record::Process;
use sls_sys::running::compare_files;

/// A descriptor: of which process in the list, and its number.
type Place = (usize, i32);

/// Descriptors that were found to be the same description, and those that were not.
#[derive(Debug, Default)]
pub struct Descriptions {
    last: HashMap<[(i32, i32); 2], bool>,
}

impl Descriptions {
    /// Notes of each what it shares with one before it. Asked while they run again: a file that was
    /// closed and opened again under its number since the stop is told as it is now. Of one that has
    /// ended since it is as it was at the last checkpoint.
    pub fn note_shared(&mut self, processes: &mut [Process]) {
        let last = std::mem::take(&mut self.last);
        for places in alike(processes) {
            let mut firsts: Vec<Place> = Vec::new();
            for place in places {
                let mut is_same = |&first: &Place| {
                    let name = |(at, fd): Place| (processes[at].pid, fd);
                    let pair = [name(first), name(place)];
                    let compared = compare_files(pair[0], pair[1]).map(Ordering::is_eq);
                    let known = || last.get(&pair).copied();
                    let is_same = compared.ok().or_else(known).unwrap_or(false);
                    self.last.insert(pair, is_same);
                    first.0 != place.0 && is_same
                };
                let Some(first) = firsts.iter().copied().find(&mut is_same) else {
                    firsts.push(place);
                    continue;
                };
                let first = (processes[first.0].pid, first.1);
                let files = &mut processes[place.0].files;
                if let Some(file) = files.iter_mut().find(|f| f.fd == place.1) {
                    file.shared_with = Some(first);
                }
            }
        }
    }
}

/// Descriptors of several processes that may be the same description: their links read the same.
fn alike(processes: &[Process]) -> Vec<Vec<Place>> {
    let mut by_link: BTreeMap<&str, Vec<Place>> = BTreeMap::new();
    for (at, process) in processes.iter().enumerate() {
        for file in process.files.iter().filter(|f| f.shares.is_none()) {
            by_link.entry(&file.target).or_default().push((at, file.fd));
        }
    }
    let of_several = |places: &Vec<Place>| places.iter().any(|p| p.0 != places[0].0);
    by_link.into_values().filter(of_several).collect()
}
