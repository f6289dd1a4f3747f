//! Histories that go to a store in a file or on a loop device, and come back from it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use libsls::Client;
use libsls::protocol::{Answer, Request};
use serde_json::{Value, json};
use testkit::{Again, Sls, Target, end_all, field, program, wait_until};

const SOON: Duration = Duration::from_secs(20);

/// Keeps a table of its own hashes and looks at all of it in every round.
const CHECKS_ITSELF: &str = r#"
import hashlib, time
seen, n = {}, 0
def of(n): return hashlib.sha256(b"%d" % n).digest()
print("ready", flush=True)
while True:
    n += 1
    seen[n % 500] = of(n)
    for back in range(max(1, n - 499), n + 1):
        assert seen[back % 500] == of(back), (n, back)
    if n % 20 == 0:
        print("round", n, flush=True)
    time.sleep(0.002)
"#;

fn newfs(store: &Path, how: &[&str]) -> (i32, String) {
    let out = Command::new(program("newfs_sls"))
        .args(how)
        .arg(store)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    (out.status.code().unwrap(), said)
}

fn file_store(sls: &Sls, size: &str) -> (PathBuf, String) {
    let path = sls.folder().join("kept.store");
    assert_eq!(newfs(&path, &["--size", size]), (0, String::new()));
    let text = path.to_str().unwrap().to_owned();
    (path, text)
}

pub fn fsck(sls: &Sls, store: &str, how: &[&str]) -> (i32, Value) {
    let out = sls.try_run(&[&["--json", "fsck", store], how].concat());
    (
        out.code,
        serde_json::from_str(&out.stdout).unwrap_or_default(),
    )
}

/// The history but for what each medium counts for itself.
pub fn history(sls: &Sls, part: &str) -> Vec<Value> {
    let told = sls.json(&["history", "-o", part]);
    let rows = told["checkpoints"].as_array().unwrap().iter().cloned();
    rows.map(|mut row| {
        row["bytes"] = json!(null);
        row
    })
    .collect()
}

/// Every byte of every checkpoint: the records, and the pages of every space.
fn contents(sls: &Sls, part: &str) -> BTreeMap<u64, (Vec<u8>, u64, u64)> {
    let mut client = Client::connect(&sls.socket()).unwrap();
    let part = Some(part.to_owned());
    let epochs = client.history(part.as_deref()).unwrap().checkpoints;
    let mut all = BTreeMap::new();
    for row in epochs {
        let epoch = row.epoch;
        let asked = Request::Record {
            part: part.clone(),
            epoch,
        };
        let Answer::Record(bytes) = client.ask(&asked).unwrap() else {
            panic!()
        };
        let record = libsls::record::decode(&bytes).unwrap();
        let (mut sum, mut count) = (0, 0);
        for process in &record.processes {
            for mapping in &process.mappings {
                let (first, last) = (mapping.start >> 12, mapping.end >> 12);
                let mut at = first;
                while at < last {
                    let some = (last - at).min(4096);
                    let asked = Request::Pages {
                        part: part.clone(),
                        epoch,
                        space: process.space,
                        runs: vec![(at, u32::try_from(some).unwrap())],
                    };
                    let Answer::Pages { present, bytes } = client.ask(&asked).unwrap() else {
                        panic!()
                    };
                    for (page, bytes) in bytes.chunks(4096).enumerate() {
                        sum = fold(fold(sum, &(at + page as u64).to_le_bytes()), bytes);
                    }
                    count += present.iter().filter(|p| **p).count() as u64;
                    for here in present {
                        sum = fold(sum, &[u8::from(here)]);
                    }
                    at += some;
                }
            }
        }
        all.insert(epoch, (bytes, count, sum));
    }
    all
}

/// FNV-1a over words: order and every bit count.
fn fold(sum: u64, bytes: &[u8]) -> u64 {
    bytes.chunks(8).fold(sum, |sum, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        (sum ^ u64::from_le_bytes(word))
            .wrapping_mul(0x0100_0000_01b3)
            .rotate_left(29)
    })
}

/// Ends the daemon and takes away all that it had in memory.
fn lose_memory(sls: &Sls) {
    let memory = sls.memory();
    sls.kill_daemon();
    fs::remove_dir_all(&memory).unwrap();
}

#[test]
fn a_history_outlives_daemon_and_memory() {
    let sls = Sls::new();
    let (_, store) = file_store(&sls, "256M");
    let mut target = Target::python(sls.folder(), CHECKS_ITSELF);
    let pid = target.pid();
    sls.run(&["attach", "-p", &target.p(), "-m"]);
    for n in 0..6 {
        std::thread::sleep(Duration::from_millis(60));
        sls.run(&["checkpoint", "-m", "-n", &format!("n{n}")]);
    }
    sls.run(&["rewind", "-m", "@n2"]);
    std::thread::sleep(Duration::from_millis(60));
    sls.run(&["checkpoint", "-m", "-n", "other"]);
    let told = sls.json(&["export", "-m", "--to", &store]);
    assert_eq!(
        (&told["partition"], &told["passed"]),
        (&json!("mem"), &json!([]))
    );
    let before = (history(&sls, "mem"), contents(&sls, "mem"));
    assert_eq!(told["checkpoints"], before.0.len());
    assert!(
        before.1.values().all(|(_, pages, _)| *pages > 500),
        "pages are compared"
    );
    end_all(&mut target, &[pid]);
    lose_memory(&sls);
    assert_eq!(
        sls.json(&["listsnaps", "--store", &store])["snapshots"]
            .as_array()
            .unwrap()
            .len(),
        before.0.len()
    );
    let told = sls.json(&["import", &store]);
    assert_eq!(
        (&told["partition"], &told["checkpoints"]),
        (&json!("mem"), &json!(before.0.len()))
    );
    assert_eq!(history(&sls, "mem"), before.0);
    assert_eq!(contents(&sls, "mem"), before.1);
    assert_eq!(fsck(&sls, &store, &[]).0, 0);
    // It goes on from each of two branches, and has its past.
    for at in ["@n4", "@other"] {
        wait_until(SOON, "its number is free", || {
            field(pid, "State:").is_empty()
        });
        let output = sls.folder().join("python3.out");
        let (again, told) = Again::made(&sls, &[at]);
        assert_eq!(told["pids"][pid.to_string()], pid, "{told}");
        let rounds = || {
            fs::read_to_string(&output)
                .unwrap()
                .matches("round")
                .count()
        };
        let then = rounds();
        wait_until(SOON, "it goes on and finds itself whole", || {
            assert!(
                !field(pid, "State:").starts_with('Z'),
                "{}",
                fs::read_to_string(&output).unwrap()
            );
            rounds() > then + 3
        });
        sls.run(&["rewind", "-m", "@n1"]);
        let then = rounds();
        wait_until(SOON, "it goes on from before", || rounds() > then + 3);
        again.end();
    }
    assert!(
        !fs::read_to_string(sls.folder().join("python3.out"))
            .unwrap()
            .contains("Assertion")
    );
}

/// Only what is new goes there; names follow; several histories share a store, and can be removed.
#[test]
fn exports_add_up() {
    let sls = Sls::new();
    let (_, store) = file_store(&sls, "64M");
    let target = sls.tracee("ticker", &[]);
    sls.run(&["attach", "-p", &target.p(), "-o", "web"]);
    let export =
        |more: &[&str]| sls.json(&[&["export", "-o", "web", "--to", &store], more].concat());
    let mut total = 0;
    for _ in 0..4 {
        for _ in 0..3 {
            sls.run(&["checkpoint", "-o", "web"]);
        }
        assert_eq!(export(&[])["checkpoints"], 3);
        assert_eq!(export(&[])["checkpoints"], 0);
        total += 3;
    }
    assert_eq!(export(&["@4..@6", "--as", "part"])["checkpoints"], 3);
    let told = export(&["--as", "part"]);
    assert_eq!(
        (&told["checkpoints"], &told["passed"]),
        (&json!(total - 6), &json!([1, 2, 3]))
    );
    let snaps = sls.json(&["listsnaps", "--store", &store]);
    let of = |name: &str| {
        let rows = snaps["snapshots"].as_array().unwrap().iter();
        rows.filter(|row| row["partition"] == name).count()
    };
    assert_eq!((of("web"), of("part")), (12, 9));
    sls.refused(&["import", &store], 2, "say which one");
    sls.refused(
        &["import", &store, "-o", "web"],
        1,
        "there is a partition web already",
    );
    sls.run(&["import", &store, "-o", "copy", "--from", "web"]);
    assert_eq!(contents(&sls, "copy"), contents(&sls, "web"));
    sls.run(&["import", &store, "-o", "part"]);
    let of =
        |part: &str, at: &str| sls.json(&["print", "-o", part, at, "counter"])["value"].clone();
    assert_eq!(of("part", "@5"), of("web", "@5"));
    sls.run(&["partdel", "-o", "web", "--store", &store]);
    sls.refused(
        &["import", &store, "-o", "x", "--from", "web"],
        1,
        "no history web; it holds: part",
    );
    assert_eq!(
        fsck(&sls, &store, &[]).1["partitions"],
        json!([{"partition": "part", "checkpoints": 9}])
    );
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let sls = Sls::new();
    let (path, store) = file_store(&sls, "8M");
    let target = sls.tracee("ticker", &[]);
    sls.run(&["attach", "-p", &target.p(), "-m"]);
    sls.refused(&["export", "-m", "--to", &store], 2, "nothing to export");
    sls.run(&["checkpoint", "-m"]);
    let missing = format!("{store}.no");
    sls.refused(&["export", "-m", "--to", &missing], 1, "newfs_sls --size");
    sls.refused(&["import", &missing], 1, "newfs_sls --size");
    fs::write(&missing, vec![1; 8 << 20]).unwrap();
    sls.refused(&["export", "-m", "--to", &missing], 1, "holds no store");
    assert!(
        fs::read(&missing).unwrap().iter().all(|b| *b == 1),
        "it is as it was"
    );
    sls.refused(&["import", &store], 1, "holds no history yet");
    sls.run(&["export", "-m", "--to", &store]);
    let (code, said) = newfs(&path, &["--force"]);
    assert!(
        code == 1 && said.contains("in use by a running slsd"),
        "{said}"
    );
    let (code, _) = fsck(&sls, &store, &["--repair"]);
    assert_eq!(code, 1, "slsd has it");
    assert_eq!(fsck(&sls, &store, &[]).0, 0, "a look is free");
    // Another history under the same name and numbers.
    sls.run(&["partdel", "-o", "mem"]);
    sls.run(&["attach", "-p", &target.p(), "-m"]);
    sls.run(&["checkpoint", "-m"]);
    sls.refused(
        &["export", "-m", "--to", &store],
        1,
        "another history under the name mem",
    );
    sls.run(&["export", "-m", "--to", &store, "--as", "mem-2"]);
    // A store that is too small says so, and keeps what it has.
    let big = Target::python(
        sls.folder(),
        "import os,time\nb=os.urandom(12<<20)\nprint('ready',flush=True)\ntime.sleep(999)",
    );
    sls.run(&["attach", "-p", &big.p(), "-o", "big"]);
    sls.run(&["checkpoint", "-o", "big"]);
    sls.refused(&["export", "-o", "big", "--to", &store], 1, "is full");
    let snaps = sls.json(&["listsnaps", "--store", &store]);
    assert_eq!(snaps["snapshots"].as_array().unwrap().len(), 2, "{snaps}");
    wait_until(SOON, "an idle store is let go", || {
        newfs(&path, &[]).1.contains("holds a store")
    });
    assert_eq!(newfs(&path, &["--force"]).0, 0);
    assert_eq!(
        sls.json(&["listsnaps", "--store", &store])["snapshots"],
        json!([])
    );
}

/// What an import had made when its daemon was killed is not taken for a partition.
#[test]
fn half_an_import_is_none() {
    let sls = Sls::new();
    let (_, store) = file_store(&sls, "64M");
    let target = sls.tracee("ticker", &[]);
    sls.run(&["attach", "-p", &target.p(), "-m"]);
    sls.run(&["checkpoint", "-m"]);
    sls.run(&["export", "-m", "--to", &store]);
    let (from, to) = (sls.memory().join("mem"), sls.memory().join("half"));
    sls.kill_daemon();
    fs::create_dir(&to).unwrap();
    for entry in fs::read_dir(&from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
    fs::write(to.join("half-imported"), "").unwrap();
    sls.run(&["import", &store, "-o", "half"]);
    assert_eq!(contents(&sls, "half"), contents(&sls, "mem"));
}

/// A bit that flips in the file is found beside the daemon, told by checkpoint, and put right.
#[test]
fn damage_is_found_and_put_right() {
    let sls = Sls::new();
    let (path, store) = file_store(&sls, "64M");
    let secret = "the-page-that-will-be-hit";
    let target = Target::python(
        sls.folder(),
        &format!(
            "import os,time\nb=bytearray(os.urandom(4096*40))\nb[4096*20:4096*20+25]=b'{secret}'\nprint('ready',flush=True)\nwhile True:\n b[0]=(b[0]+1)%256\n time.sleep(0.01)"
        ),
    );
    sls.run(&["attach", "-p", &target.p(), "-m"]);
    for _ in 0..3 {
        sls.run(&["checkpoint", "-m"]);
    }
    let whole = sls.json(&["export", "-m", "--to", &store])["checkpoints"].clone();
    let clean = fsck(&sls, &store, &[]);
    assert_eq!((clean.0, &clean.1["checkpoints"]), (0, &whole));
    let bytes = fs::read(&path).unwrap();
    let at = bytes
        .windows(secret.len())
        .rposition(|w| w == secret.as_bytes())
        .unwrap();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[bytes[at + 3] ^ 1], at as u64 + 3)
        .unwrap();
    let (code, told) = fsck(&sls, &store, &[]);
    assert_eq!(code, 3, "{told}");
    let hit = told["damage"].as_array().unwrap().iter();
    let hit: Vec<&Value> = hit.filter(|row| row["partition"] == "mem").collect();
    assert!(!hit.is_empty(), "{told}");
    wait_until(SOON, "slsd lets the store go", || {
        fsck(&sls, &store, &["--repair"]).0 == 3
    });
    let (code, told) = fsck(&sls, &store, &[]);
    assert_eq!(code, 0, "{told}");
    assert_eq!(
        told["checkpoints"].as_u64().unwrap(),
        whole.as_u64().unwrap() - hit.len() as u64
    );
    // What is still in memory can be brought there anew.
    sls.run(&["export", "-m", "--to", &store, "--as", "anew"]);
    assert_eq!(fsck(&sls, &store, &[]).0, 0);
}

/// The daemon is killed at any moment of exports; the store has what was told, whole.
#[test]
fn exports_of_a_killed_daemon_are_whole() {
    let sls = Sls::new();
    let (_, store) = file_store(&sls, "128M");
    killed_exports(&sls, &store, testkit::rounds(12));
}

fn killed_exports(sls: &Sls, store: &str, rounds: u64) {
    let mut target = sls.tracee("ticker", &[]);
    sls.run(&["attach", "-p", &target.p(), "-m"]);
    for round in 0..rounds {
        for _ in 0..4 {
            sls.run(&["checkpoint", "-m"]);
        }
        let mut export = sls.command(&["export", "-m", "--to", store]);
        let mut export = export
            .stderr(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_micros(3000 + 1700 * (round % 23)));
        sls.kill_daemon();
        export.wait().unwrap();
        let (code, told) = fsck(sls, store, &[]);
        assert_eq!(code, 0, "round {round}: {told}");
        target.assert_unharmed();
        sls.run(&["attach", "-p", &target.p(), "-m"]);
    }
    sls.run(&["export", "-m", "--to", store]);
    assert_eq!(fsck(sls, store, &[]).0, 0);
    sls.run(&["import", store, "-o", "copy"]);
    assert_eq!(history(sls, "copy"), history(sls, "mem"));
    assert_eq!(contents(sls, "copy"), contents(sls, "mem"));
}

/// What a checkpoint of such a partition was told to be lasts, whatever is lost after.
#[test]
fn a_partition_is_kept_in_its_store() {
    let sls = Sls::new();
    let (_, store) = file_store(&sls, "128M");
    let mut target = Target::python(sls.folder(), CHECKS_ITSELF);
    let pid = target.pid();
    let add = || sls.run(&["partadd", "slos", "-o", "disk", "--store", &store]);
    add();
    sls.run(&["attach", "-p", &target.p(), "-o", "disk", "-t", "20"]);
    std::thread::sleep(Duration::from_millis(300));
    let told = sls.json(&["checkpoint", "-o", "disk", "-n", "told"]);
    sls.run(&["detach", "-o", "disk"]);
    sls.run(&["epochwait", "-o", "disk"]);
    let stat = sls.json(&["stat"])["partitions"][0]["store"].clone();
    assert_eq!(
        (&stat["path"], &stat["behind"], &stat["trouble"]),
        (&json!(store), &json!(0), &json!(null))
    );
    let before = (history(&sls, "disk"), contents(&sls, "disk"));
    assert!(before.0.len() > 5, "{before:?}");
    assert_eq!(fsck(&sls, &store, &[]).0, 0);
    end_all(&mut target, &[pid]);
    lose_memory(&sls);
    add();
    assert_eq!(history(&sls, "disk"), before.0);
    assert_eq!(contents(&sls, "disk"), before.1);
    let restored = sls.json(&["restore", "-o", "disk", "@told", "-d"]);
    assert_eq!(restored["epoch"], told["epoch"]);
    let again = Again(vec![pid]);
    let output = sls.folder().join("python3.out");
    let rounds = || {
        fs::read_to_string(&output)
            .unwrap()
            .matches("round")
            .count()
    };
    let then = rounds();
    wait_until(SOON, "it goes on and finds itself whole", || {
        rounds() > then + 3
    });
    // Its new branch goes to the store as well, and the next daemon goes on with it by itself.
    let newer = sls.json(&["checkpoint", "-o", "disk", "-n", "newer"]);
    assert!(newer["epoch"].as_u64() > told["epoch"].as_u64());
    sls.kill_daemon();
    sls.run(&["attach", "-p", &pid.to_string(), "-o", "disk"]);
    sls.run(&["checkpoint", "-o", "disk", "-n", "newest"]);
    let snaps = sls.json(&["listsnaps", "--store", &store]).to_string();
    assert!(
        ["told", "newer", "newest"]
            .iter()
            .all(|n| snaps.contains(n)),
        "{snaps}"
    );
    again.end();
}

/// slsd is killed again and again while it writes to the store, now and then with all that it had in
/// memory: what was told to last is there.
#[test]
fn what_was_told_to_last_lasts() {
    let sls = Sls::new();
    let (_, store) = file_store(&sls, "256M");
    let mut target = sls.tracee("ticker", &[]);
    let add = || {
        sls.run(&[
            "partadd", "slos", "-o", "disk", "--store", &store, "--keep", "last:200",
        ])
    };
    add();
    let mut told = BTreeMap::new();
    for round in 0..testkit::rounds(10) {
        sls.run(&["attach", "-p", &target.p(), "-o", "disk", "-t", "3"]);
        let name = format!("told-{round}");
        let epoch = sls.json(&["checkpoint", "-o", "disk", "-n", &name])["epoch"].clone();
        told.insert(name, epoch);
        std::thread::sleep(Duration::from_millis(5 + 7 * (round % 11)));
        if round % 3 == 2 {
            lose_memory(&sls);
            assert_eq!(fsck(&sls, &store, &[]).0, 0, "round {round}");
            add();
        } else {
            sls.kill_daemon();
        }
        target.assert_unharmed();
        let rows = history(&sls, "disk");
        for (name, epoch) in &told {
            assert!(
                rows.iter()
                    .any(|r| r["name"] == *name && r["epoch"] == *epoch),
                "round {round}: {name}"
            );
        }
        let counter =
            |name: &str| sls.json(&["print", "-o", "disk", &format!("@{name}"), "counter"]);
        assert!(counter("told-0")["value"].as_i64().is_some());
    }
    sls.run(&["epochwait", "-o", "disk"]);
    assert_eq!(fsck(&sls, &store, &[]).0, 0);
}

/// A store that is full, or not there, costs the process nothing, and is named.
#[test]
fn trouble_with_the_store_is_told() {
    let sls = Sls::new();
    let (path, store) = file_store(&sls, "8M");
    sls.refused(&["partadd", "slos", "-o", "disk"], 2, "--store");
    sls.refused(
        &["partadd", "memory", "-o", "x", "--store", &store],
        2,
        "partadd slos",
    );
    sls.refused(
        &["partadd", "slos", "-o", "x", "--store", "/nowhere/s"],
        1,
        "newfs_sls --size",
    );
    let mut target = Target::python(
        sls.folder(),
        "import os,time\nprint('ready',flush=True)\nwhile True:\n b=os.urandom(3<<20)\n time.sleep(0.01)",
    );
    sls.run(&["attach", "-p", &target.p(), "-m"]);
    sls.run(&["checkpoint", "-m"]);
    sls.refused(&["epochwait", "-m"], 2, "is only in memory");
    sls.run(&["partdel", "-o", "mem"]);
    sls.run(&["partadd", "slos", "-o", "disk", "--store", &store]);
    sls.run(&["attach", "-p", &target.p(), "-o", "disk"]);
    let full = (0..20)
        .find_map(|_| Some(sls.try_run(&["checkpoint", "-o", "disk"])).filter(|out| out.code != 0));
    let said = full.expect("it gets full").stderr;
    assert!(
        said.contains("is in memory, but not in its store") && said.contains("is full"),
        "{said}"
    );
    let stat = sls.json(&["stat"])["partitions"][0]["store"].clone();
    assert!(
        stat["behind"].as_u64() > Some(0) && stat["trouble"].is_string(),
        "{stat}"
    );
    target.assert_unharmed();
    let newest = history(&sls, "disk").len();
    assert_eq!(
        sls.json(&["history", "-o", "disk"])["head"],
        newest,
        "all are in memory"
    );
    assert_eq!(fsck(&sls, path.to_str().unwrap(), &[]).0, 0);
}

/// A loop device over a file of its own; detached with the test.
struct Loop(String);

impl Loop {
    /// None, said aloud, where this machine has none to give.
    fn new(folder: &Path, size: u64) -> Option<Loop> {
        let file = folder.join("behind");
        fs::File::create(&file).unwrap().set_len(size).unwrap();
        let out = Command::new("losetup")
            .args(["-f", "--show"])
            .arg(&file)
            .output()
            .ok()?;
        if !out.status.success() {
            eprintln!(
                "no loop device here: {}",
                String::from_utf8_lossy(&out.stderr)
            );
            return None;
        }
        Some(Loop(
            String::from_utf8(out.stdout).unwrap().trim().to_owned(),
        ))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        // The file goes with its folder; a device that stays would be seen by the next test.
        let _ = Command::new("losetup").args(["-d", &self.0]).status();
    }
}

#[test]
fn a_device_is_a_store_too() {
    let sls = Sls::new();
    let Some(device) = Loop::new(sls.folder(), 96 << 20) else {
        return;
    };
    let path = Path::new(&device.0);
    assert!(
        Command::new("mkfs.ext4")
            .args(["-q", &device.0])
            .status()
            .unwrap()
            .success()
    );
    let (code, said) = newfs(path, &[]);
    assert!(code == 1 && said.contains("an ext file system"), "{said}");
    let (code, said) = newfs(&sls.folder().join("behind"), &["--force"]);
    assert!(code == 1 && said.contains("losetup -d"), "{said}");
    let mounted = sls.subfolder("mounted");
    assert!(
        Command::new("mount")
            .arg(&device.0)
            .arg(&mounted)
            .status()
            .unwrap()
            .success()
    );
    let (code, said) = newfs(path, &["--force"]);
    assert!(
        Command::new("umount")
            .arg(&mounted)
            .status()
            .unwrap()
            .success()
    );
    assert!(code == 1 && said.contains("is mounted"), "{said}");
    assert_eq!(newfs(path, &["--size", "64M"]).0, 2);
    assert_eq!(newfs(path, &["--force"]), (0, String::new()));
    killed_exports(&sls, &device.0, testkit::rounds(4));
    // The daemon has it until it is idle.
    wait_until(SOON, "the device is let go", || {
        newfs(path, &[]).1.contains("holds a store")
    });
}

/// A partition in a plain file needs nothing made before.
#[test]
fn a_file_is_made_for_a_partition() {
    let sls = Sls::new();
    let mut target = sls.tracee("ticker", &[]);
    let path = sls.folder().join("web.store");
    let store = path.to_str().unwrap();
    let add = ["partadd", "file", "-o", "web", "--store", store];
    sls.run(&[&add[..], &["--size", "64M"]].concat());
    assert_eq!(fs::metadata(&path).unwrap().len(), 64 << 20);
    sls.run(&["attach", "-p", &target.p(), "-o", "web"]);
    let epoch = sls.json(&["checkpoint", "-o", "web"])["epoch"].clone();
    sls.run(&["partdel", "-o", "web"]);
    target.assert_unharmed();
    // What it holds is the past of the next one of that name.
    sls.run(&add);
    assert_eq!(history(&sls, "web")[0]["epoch"], epoch);
    sls.refused(&["partadd", "file", "-o", "x"], 2, "--store");
    sls.refused(
        &["partadd", "memory", "-o", "x", "--size", "1G"],
        2,
        "partadd file",
    );
    let nowhere = ["partadd", "file", "-o", "x", "--store", "/no/such"];
    sls.refused(&nowhere, 1, "No such file");
    sls.run(&["partdel", "-o", "web"]);
}
