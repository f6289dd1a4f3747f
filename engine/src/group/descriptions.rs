//! Which processes share open file descriptions: those that fork made of one another do.

use std::collections::BTreeMap;

use sls_record::Process;
use sls_sys::running::compare_files;

/// A descriptor: of which process in the list, and its number.
type Place = (usize, i32);

/// Notes of each what it shares with one before it. Asked while they run again: a file that was
/// closed and opened again under its number since the stop is told as it is now.
pub fn note_shared(processes: &mut [Process]) {
    for places in alike(processes) {
        let mut firsts: Vec<Place> = Vec::new();
        for place in places {
            let is_same = |&first: &Place| {
                let name = |(at, fd): Place| (processes[at].pid, fd);
                first.0 != place.0
                    && compare_files(name(first), name(place)).is_ok_and(std::cmp::Ordering::is_eq)
            };
            let Some(first) = firsts.iter().copied().find(is_same) else {
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
