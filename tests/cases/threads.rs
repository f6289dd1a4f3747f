//! Threads whose number has gone to another one since.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::process::Command;
use std::time::Duration;

use testkit::{Sls, Target, wait_until};

struct Obedient {
    target: Target,
    orders: File,
}

impl Obedient {
    fn start(sls: &Sls, name: &str) -> Self {
        let fifo = sls.folder().join(name);
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let mut command = Command::new(testkit::tracee("reused"));
        command.arg(&fifo);
        let target = Target::start(sls.folder(), command);
        let orders = OpenOptions::new().read(true).write(true).open(&fifo);
        let it = Self {
            target,
            orders: orders.unwrap(),
        };
        it.says("ready");
        it
    }

    fn order(&mut self, what: &str) {
        writeln!(self.orders, "{what}").unwrap();
    }

    fn says(&self, what: &str) {
        wait_until(Duration::from_secs(10), what, || {
            self.target.output().contains(what)
        });
    }
}

#[test]
fn an_id_that_another_thread_has_by_now() {
    let sls = Sls::new();
    let mut it = Obedient::start(&sls, "orders");
    sls.run(&["attach", "-p", &it.target.p(), "-m"]);
    let epoch = sls.json(&["checkpoint", "-m"])["epoch"].as_u64().unwrap();
    it.order("end");
    it.says("same id");
    sls.run(&["rewind", "-m", &format!("@{epoch}")]);
    // Its output's offset was put back, not the content.
    let output = sls.folder().join("reused.out");
    let output = OpenOptions::new().write(true).open(output).unwrap();
    output.set_len("ready\n".len() as u64).unwrap();
    it.order("end");
    it.says("joined 0");
    it.says("same id");
    it.order("join");
    it.says("joined 1");
    sls.run(&["detach", "-p", &it.target.p()]);
    it.target.assert_unharmed();
}
