//! What the program has advised the kernel of its memory (madvise): once it holds what it is to hold.

use sls_keeper::Want;
use sls_record::{Advice, Mapping, Process};

use super::Steps;
use super::mappings::is_fixed;

/// Linux 4.14.
const MADV_WIPEONFORK: i32 = 18;
const MADV_KEEPONFORK: i32 = 19;

/// The call that gives a piece of advice.
fn gives(advice: Advice) -> i32 {
    match advice {
        Advice::NotDumped => libc::MADV_DONTDUMP,
        Advice::NotForked => libc::MADV_DONTFORK,
        Advice::WipedOnFork => MADV_WIPEONFORK,
        Advice::HugePages => libc::MADV_HUGEPAGE,
        Advice::NoHugePages => libc::MADV_NOHUGEPAGE,
        Advice::Mergeable => libc::MADV_MERGEABLE,
        Advice::Random => libc::MADV_RANDOM,
        Advice::Sequential => libc::MADV_SEQUENTIAL,
    }
}

/// The one that takes it back; there is none for huge pages but the opposite.
fn takes_back(advice: Advice) -> Option<i32> {
    match advice {
        Advice::NotDumped => Some(libc::MADV_DODUMP),
        Advice::NotForked => Some(libc::MADV_DOFORK),
        Advice::WipedOnFork => Some(MADV_KEEPONFORK),
        Advice::Mergeable => Some(libc::MADV_UNMERGEABLE),
        Advice::Random | Advice::Sequential => Some(libc::MADV_NORMAL),
        Advice::HugePages | Advice::NoHugePages => None,
    }
}

/// Adds the steps.
pub fn steps(steps: &mut Steps, from: &Process, to: &Process) {
    for map in to.mappings.iter().filter(|m| !is_fixed(m)) {
        let advised = from.mappings.iter().filter(|was| !was.advice.is_empty());
        let overlap = advised.filter(|was| was.start < map.end && map.start < was.end);
        for was in overlap {
            let part = (was.start.max(map.start), was.end.min(map.end));
            let gone = was.advice.iter().filter(|a| !map.advice.contains(a));
            for &advice in gone {
                take_back(steps, part, map, advice);
            }
        }
        // What was mapped anew meanwhile has none, whatever it had: so it is given in any case.
        for &advice in &map.advice {
            call(steps, gives(advice), (map.start, map.end), map);
        }
    }
}

fn take_back(steps: &mut Steps, part: (u64, u64), map: &Mapping, advice: Advice) {
    let is_huge = |a: &Advice| matches!(a, Advice::HugePages | Advice::NoHugePages);
    match takes_back(advice) {
        Some(nr) => call(steps, nr, part, map),
        None if map.advice.iter().any(is_huge) => {} // The opposite is given.
        None => steps.not_restored.push(format!(
            "{}: advice about huge pages that was given since stays",
            name(part, map)
        )),
    }
}

fn name((start, end): (u64, u64), map: &Mapping) -> String {
    format!("memory {start:#x}-{end:#x} {}", map.path)
}

fn call(steps: &mut Steps, advice: i32, part: (u64, u64), map: &Mapping) {
    let args = vec![
        part.0.into(),
        (part.1 - part.0).into(),
        u64::from(advice.cast_unsigned()).into(),
    ];
    let want = Want::Report(name(part, map));
    steps.call(format!("advise {advice}"), libc::SYS_madvise, args, want);
}
