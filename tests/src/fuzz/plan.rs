//! What a restore would do by a record that anybody may have written: its plans, and no process.

use libsls::Client;
use libsls::record;

use super::untrue::untrue;
use super::{sample, within};
use crate::{Dice, Ring, Sls, Target, seed};

/// A thread of a few dozen bytes has steps for each capability; a group of one byte is set in each
/// thread.
const BYTES_A_BYTE: usize = 16 << 10;
const BYTES_IN_ANY_CASE: usize = 64 << 20;
/// Records to begin with that decode and are not true.
const UNTRUE: usize = 600;

/// Plans by these bytes.
pub fn plan(bytes: &[u8]) {
    let limit = bytes.len() * BYTES_A_BYTE + BYTES_IN_ANY_CASE;
    let plans = within(limit, "a plan", || sls_engine::rehearse(bytes));
    // What cannot be made is an error, whatever it says.
    drop(plans);
}

/// Records of one of everything and of programs that run: threads, a tree, sockets.
pub fn records() -> Vec<Vec<u8>> {
    let mut seeds = super::wire::records();
    seeds.push(tree_of_samples());
    let sls = Sls::new();
    let ring = Ring::attached(&sls, 3, &[]);
    let threads = Target::tracee(sls.folder(), "ticker", &[]);
    let sockets = Target::python(sls.folder(), SOCKETS);
    sls.run(&["attach", "-p", &threads.p(), "-o", "threads"]);
    sls.run(&["attach", "-p", &sockets.p(), "-o", "sockets"]);
    for part in ["threads", "sockets", "mem"] {
        sls.run(&["checkpoint", "-o", part]);
        seeds.push(newest(&sls, part));
    }
    drop(ring);
    let plans = seeds
        .iter()
        .filter(|seed| sls_engine::rehearse(seed).is_ok());
    assert!(plans.count() >= 4, "records of running programs are plans");
    let decoded = |seed: &Vec<u8>| record::decode(seed).expect("a good one");
    let good: Vec<_> = seeds.iter().map(decoded).collect();
    let mut dice = Dice::new(seed(31));
    for record in good.iter().cycle().take(UNTRUE) {
        seeds.push(untrue(record, &mut dice));
    }
    seeds
}

const SOCKETS: &str = "
import socket, os, time
a, b = socket.socketpair(); a.send(b'waits')
l = socket.socket(); l.bind(('127.0.0.1', 0)); l.listen(3)
u = socket.socket(type=socket.SOCK_DGRAM); u.bind(('127.0.0.1', 0))
r, w = os.pipe(); os.write(w, b'held'); d = os.memfd_create('m'); os.ftruncate(d, 8192)
print('ready', flush=True); time.sleep(1000)
";

fn newest(sls: &Sls, part: &str) -> Vec<u8> {
    let mut client = Client::connect(&sls.socket()).expect("it listens");
    let record = client.record(Some(part), 1).expect("its record");
    record::encode(&record).expect("a record of the daemon's")
}

fn tree_of_samples() -> Vec<u8> {
    let parent = sample::process();
    let mut child = sample::process();
    (child.pid, child.ppid) = (9, parent.pid);
    child.threads[0].tid = 9;
    for file in &mut child.files {
        file.shared_with = Some((parent.pid, file.fd));
    }
    let tree = record::Record {
        processes: vec![parent, child],
        ended: vec![sample::ended()],
        ..record::Record::default()
    };
    record::encode(&tree).expect("a record of ours")
}
