//! Descriptors that were closed come back by a rewind.

use std::fs::OpenOptions;
use std::io::Write;
use std::process::Command;
use std::time::Duration;

use testkit::{Sls, Target, wait_until};

/// Obeys the lines of the fifo named in its argument.
const PYTHON: &str = r#"
import os, sys, fcntl
r, w = os.pipe()
os.set_blocking(r, False)
os.write(w, b"in the pipe")
orders = open(sys.argv[1])
print("ready", flush=True)
while True:
    order = orders.readline().strip()
    if order == "close":
        os.close(r)
        os.close(w)
        print("closed", flush=True)
    elif order == "read":
        print("read", os.read(r, 100), os.get_blocking(r), os.get_inheritable(w), flush=True)
        os.write(w, b"more")
        print("read", os.read(r, 100), flush=True)
"#;

#[test]
fn a_pipe_closed_at_both_ends() {
    let sls = Sls::new();
    let fifo = sls.folder().join("orders");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-c", PYTHON]).arg(&fifo);
    let mut target = Target::start(sls.folder(), command);
    let mut orders = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&fifo)
        .unwrap();
    let says = |target: &Target, what: &str| {
        wait_until(Duration::from_secs(10), what, || {
            target.output().contains(what)
        });
    };
    says(&target, "ready");
    sls.run(&["attach", "-p", &target.p(), "-m"]);
    let epoch = sls.json(&["checkpoint", "-m"])["epoch"].as_u64().unwrap();
    // Twice: the pipe that was made again is not the one the checkpoint knows.
    for _ in 0..2 {
        orders.write_all(b"close\n").unwrap();
        says(&target, "closed");
        let done = sls.json(&["rewind", "-m", &format!("@{epoch}")]);
        let lost = done["not_restored"].to_string();
        assert!(!lost.contains("pipe:"), "{lost}");
    }
    orders.write_all(b"read\n").unwrap();
    says(&target, "read b'in the pipe' False False");
    says(&target, "read b'more'");
    sls.run(&["detach", "-p", &target.p()]);
    target.assert_unharmed();
}
