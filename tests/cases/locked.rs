//! Memory that is locked, as /proc/PID/smaps tells.

use std::time::Duration;

use testkit::{Sls, Target, kill, wait_until};

const SIGUSR1: i32 = 10;

/// First address and length of what is locked, in KiB, neighbours as one.
fn locked(pid: i32) -> Vec<(u64, u64)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap_or_default();
    let mut found: Vec<(u64, u64)> = Vec::new();
    let mut range = (0, 0);
    for line in text.lines() {
        let first = line.split(' ').next().unwrap_or_default();
        if let Some((start, end)) = first.split_once('-') {
            let hex = |digits| u64::from_str_radix(digits, 16).unwrap();
            range = (hex(start), (hex(end) - hex(start)) >> 10);
        }
        if line.starts_with("VmFlags:") && line.contains(" lo") {
            match found.last_mut() {
                Some(last) if last.0 + (last.1 << 10) == range.0 => last.1 += range.1,
                _ => found.push(range),
            }
        }
    }
    found
}

#[test]
fn a_rewind_and_a_restore_lock_what_was() {
    const START: u64 = 0x3000_0000_0000;
    let sls = Sls::new();
    let mut target = Target::tracee(sls.folder(), "locked", &[]);
    let pid = target.pid();
    let first = [(START, 32)];
    let then = [(START, 8), (START + (6 << 12), 8), (START + (12 << 12), 8)];
    sls.run(&["attach", "-p", &target.p(), "-m"]);
    sls.run(&["checkpoint", "-m", "-n", "first"]);
    assert_eq!(locked(pid), first);
    kill(pid, SIGUSR1);
    wait_until(Duration::from_secs(5), "it locks others", || {
        locked(pid) == then
    });
    sls.run(&["checkpoint", "-m", "-n", "then"]);
    sls.run(&["rewind", "-m", "@first"]);
    assert_eq!(locked(pid), first);
    sls.run(&["rewind", "-m", "@then"]);
    assert_eq!(locked(pid), then);
    kill(pid, 9);
    target.wait(Duration::from_secs(5));
    for (at, was) in [("@first", &first[..]), ("@then", &then[..])] {
        wait_until(Duration::from_secs(5), "it is gone", || {
            !std::path::Path::new(&format!("/proc/{pid}")).exists()
        });
        let done = sls.json(&["restore", "-m", at, "-d"]);
        assert_eq!(locked(pid), was, "{done}");
        kill(pid, 9);
    }
}
