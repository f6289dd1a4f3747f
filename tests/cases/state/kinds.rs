//! Memory that is more than its content: guards, protection keys, mappings that grow down.

use std::fs;
use std::time::Duration;

use testkit::{Again, Sls, Target, field, kill, wait_until};

const SOON: Duration = Duration::from_secs(10);

/// What it says of itself, by each kind: 1 as it was made, 2 not to be had here.
fn asked(sls: &Sls, pid: i32) -> String {
    let path = sls.folder().join("kinds.out");
    // What it says next lies where the rewind has put its offset.
    fs::write(&path, "").unwrap();
    kill(pid, 10);
    let said = || fs::read_to_string(&path).unwrap();
    wait_until(SOON, "an answer", || said().ends_with('\n'));
    said().trim_matches(['\0', '\n']).to_owned()
}

#[test]
fn they_come_back() {
    let sls = Sls::new();
    let mut target = Target::tracee(sls.folder(), "kinds", &[]);
    let pid = target.pid();
    sls.run(&["attach", "-p", &target.p(), "-m"]);
    let as_made = asked(&sls, pid);
    assert!(!as_made.contains('0'), "{as_made}");
    // A kernel that has guards but does not tell of them (before 6.16) leaves them out.
    let has_keys = field_of_cpus("pku") && !as_made.contains("key 2");
    assert_eq!(has_keys, as_made.contains("key 1"), "{as_made}");
    sls.run(&["checkpoint", "-m", "-n", "it"]);
    for _ in 0..2 {
        sls.run(&["rewind", "-m", "@it"]);
        assert_eq!(asked(&sls, pid), as_made);
    }
    kill(pid, 9);
    target.wait(SOON);
    for how in [&["@it"][..], &["@it", "--lazy"]] {
        let (again, told) = Again::made(&sls, how);
        assert_eq!(asked(&sls, pid), as_made, "{told}");
        // And from a checkpoint of what was restored.
        sls.run(&["checkpoint", "-m", "-n", "again"]);
        sls.run(&["rewind", "-m", "@again"]);
        assert_eq!(asked(&sls, pid), as_made);
        again.end();
    }
    assert_eq!(field(pid, "State:"), "");
}

fn field_of_cpus(flag: &str) -> bool {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap();
    cpus.split_whitespace().any(|word| word == flag)
}
