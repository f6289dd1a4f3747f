//! What the kernel's write tracking does not say by itself (kernel traps), each caught.

use std::time::Duration;

use testkit::{Sls, Target, field, rounds_of};

/// A reservation of 64 GiB costs neither time nor page tables.
#[test]
fn a_sparse_reservation() {
    let sls = Sls::new();
    let mut target = Target::tracee(sls.folder(), "sparse", &[]);
    sls.run(&["attach", "-p", &target.p(), "-m"]);
    let kib = || {
        field(target.pid(), "VmPTE:")
            .split_whitespace()
            .next()
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    let before = kib();
    let mut scans = Vec::new();
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(5));
        let answer = sls.json(&["checkpoint", "-m"]);
        scans.push(answer["cost"]["scan_ns"].as_u64().unwrap());
    }
    assert!(
        kib() <= before + 64,
        "page tables grew from {before} to {} KiB",
        kib()
    );
    scans.sort_unstable();
    println!("scan p50 {} us", scans[10] / 1000);
    // Everything the process has is in this figure, at whatever load; a walk over the hole's
    // slots would be tens of milliseconds.
    assert!(scans[10] < 1_000_000, "{scans:?}");
    sls.run(&["detach", "-p", &target.p()]);
    target.assert_unharmed();
}

/// The mutator checks every page it reads; rewound at random it must never find a stale one.
fn a_mutator_rewound(checkpoints: u64, rewinds: u64) {
    let sls = Sls::new();
    let mut target = Target::tracee(sls.folder(), "mutator", &["50"]);
    let not_restored = crate::campaign::run(&sls, &mut target, checkpoints, rewinds);
    assert!(
        not_restored.iter().all(|l| l.contains("memfd")),
        "{not_restored:?}"
    );
    assert!(!target.output().contains("FAIL"), "{}", target.output());
}

#[test]
fn a_mutator_rewound_now_and_then() {
    a_mutator_rewound(rounds_of(400, 2000), rounds_of(35, 100));
}

/// Again and again to its first moments, when stacks were short and threads young.
#[test]
fn a_mutator_rewound_all_the_time() {
    a_mutator_rewound(testkit::rounds(250), 200);
}
