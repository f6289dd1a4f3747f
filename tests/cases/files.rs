//! Histories as files: cores that stock gdb opens, written by `dump` and read by way of a mount.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use testkit::{Sls, Target, tracee, wait_until};

const PATIENCE: Duration = Duration::from_secs(10);

/// Prints the thread and the pc of every frame that has machine code of its own.
const FRAMES: &str = "python
for thread in gdb.selected_inferior().threads():
    thread.switch()
    frame = gdb.newest_frame()
    while frame:
        if frame.type() != gdb.INLINE_FRAME:
            print('frame', thread.ptid[1], hex(frame.pc()))
        frame = frame.older()
end
";

/// (thread, pc) of each frame, by gdb.
fn by_gdb(folder: &Path, program: &Path, core: &Path) -> Vec<(u64, u64)> {
    let script = folder.join("frames.gdb");
    fs::write(&script, FRAMES).unwrap();
    let mut gdb = Command::new("gdb");
    let gdb = gdb.args(["-nx", "-q", "-batch", "-x"]).arg(script);
    let out = gdb.args([program, core]).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    let frame = |line: &str| {
        let mut words = line.strip_prefix("frame ")?.split(' ');
        Some((words.next()?.parse().ok()?, number(words.next()?)))
    };
    let mut frames: Vec<_> = text.lines().filter_map(frame).collect();
    assert!(
        !frames.is_empty(),
        "{text}{}",
        String::from_utf8_lossy(&out.stderr)
    );
    frames.sort_by_key(|(tid, _)| *tid);
    frames
}

fn number(text: &str) -> u64 {
    u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap()
}

/// The same by `bt`.
fn by_ours(answer: &Value) -> Vec<(u64, u64)> {
    let mut frames = Vec::new();
    for thread in answer["threads"].as_array().unwrap() {
        let own = thread["frames"].as_array().unwrap().iter();
        let own = own.filter(|f| f["inlined"] == false);
        let tid = thread["tid"].as_u64().unwrap();
        frames.extend(own.map(|f| (tid, number(f["pc"].as_str().unwrap()))));
    }
    frames.sort_by_key(|(tid, _)| *tid);
    frames
}

/// A mount that ends with its test.
struct Mounted(PathBuf);

impl Mounted {
    fn of(sls: &Sls) -> Self {
        let folder = sls.folder().join("histories");
        fs::create_dir(&folder).unwrap();
        sls.run(&["mount", folder.to_str().unwrap()]);
        Self(folder)
    }

    fn end(&self) -> bool {
        let umount = Command::new("umount").arg(&self.0).output().unwrap();
        umount.status.success()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Of what has ended already it fails.
        self.end();
    }
}

fn two_checkpoints(sls: &Sls) -> Target {
    let target = Target::tracee(sls.folder(), "ticker", &[]);
    sls.run(&["attach", "-p", &target.p(), "-m"]);
    sls.run(&["checkpoint", "-m"]);
    std::thread::sleep(Duration::from_millis(50));
    sls.run(&["checkpoint", "-m", "-n", "second"]);
    target
}

#[test]
fn gdb_opens_what_dump_wrote() {
    let sls = Sls::new();
    let target = two_checkpoints(&sls);
    let core = sls.folder().join("t.core");
    let path = core.to_str().unwrap();
    for place in ["@1", "@second", &format!("pid:{}", target.p())] {
        let dumped = sls.json(&["dump", "-m", place, path]);
        assert_eq!(dumped["pid"].to_string(), target.p());
        assert_eq!(dumped["bytes"], core.metadata().unwrap().len());
        assert_eq!(dumped["missing"], serde_json::json!([]));
        let seen = by_gdb(sls.folder(), &tracee("ticker"), &core);
        let view = format!("core:{path}");
        assert_eq!(seen, by_ours(&sls.json(&["bt", "--all-threads", &view])));
        if place.starts_with('@') {
            assert_eq!(
                seen,
                by_ours(&sls.json(&["bt", "-m", "--all-threads", place]))
            );
            for expr in ["counter", "state", "squares", "list"] {
                let [kept, dumped] = [place, &view].map(|p| sls.json(&["print", p, expr]));
                assert_eq!(kept["value"], dumped["value"], "{expr}");
            }
        }
    }
    sls.refused(
        &["dump", &format!("core:{path}"), "x"],
        2,
        "is a core already",
    );
    sls.refused(&["dump", "-m", "@1", "/proc/none/x"], 1, "/proc/none/x");
}

#[test]
fn resident_and_kept_pages_are_counted() {
    let sls = Sls::new();
    let target = two_checkpoints(&sls);
    let counted = sls.json(&["pgresident", "-m"]);
    assert_eq!(counted["epoch"], 2);
    let row = &counted["processes"][0];
    assert_eq!(row["pid"].to_string(), target.p());
    let [resident, kept] = ["resident", "kept"].map(|key| row[key].as_u64().unwrap());
    assert!(0 < kept && kept <= resident, "{counted}");
    let core = sls.folder().join("t.core");
    let dumped = sls.json(&["dump", "-m", "@2", core.to_str().unwrap()]);
    assert!(kept <= dumped["pages"].as_u64().unwrap(), "{dumped}");
}

#[test]
fn a_mount_shows_every_checkpoint() {
    let sls = Sls::new();
    let target = two_checkpoints(&sls);
    let mounted = Mounted::of(&sls);
    let epoch = mounted.0.join("mem/@2");
    assert_eq!(
        fs::read_link(mounted.0.join("mem/@second")).unwrap(),
        Path::new("@2")
    );
    assert_eq!(
        fs::read_link(mounted.0.join("mem/@-1")).unwrap(),
        Path::new("@2")
    );
    let own = epoch.join(target.p());
    let core = sls.folder().join("t.core");
    sls.run(&["dump", "-m", "@2", core.to_str().unwrap()]);
    let dumped = fs::read(&core).unwrap();
    assert!(dumped == fs::read(epoch.join("core")).unwrap());
    assert!(dumped == fs::read(own.join("core")).unwrap());
    let seen = by_gdb(sls.folder(), &tracee("ticker"), &epoch.join("core"));
    assert_eq!(
        seen,
        by_ours(&sls.json(&["bt", "-m", "--all-threads", "@2"]))
    );

    let at = sls.json(&["print", "-m", "@2", "&counter"])["value"]["ptr"].clone();
    let counter = sls.json(&["print", "-m", "@2", "counter"])["value"].clone();
    let mem = File::open(own.join("mem")).unwrap();
    let mut bytes = [0; 8];
    mem.read_exact_at(&mut bytes, number(at.as_str().unwrap()))
        .unwrap();
    assert_eq!(i64::from_le_bytes(bytes), counter.as_i64().unwrap());
    assert!(mem.read_at(&mut bytes, 0).is_err());
    let record: Value =
        serde_json::from_slice(&fs::read(own.join("record.json")).unwrap()).unwrap();
    assert_eq!(record["comm"], "ticker");
    let maps = fs::read_to_string(own.join("maps")).unwrap();
    assert!(
        maps.contains("[stack]") && maps.contains("/ticker\n"),
        "{maps}"
    );
    let regs = fs::read_to_string(own.join("regs")).unwrap();
    assert_eq!(
        regs.matches("thread ").count(),
        record["threads"].as_array().unwrap().len()
    );
    assert!(
        fs::read_to_string(own.join("fds"))
            .unwrap()
            .contains("ticker.out")
    );

    for nothing in ["none", "mem/@77", "mem/@2/1", "mem/@2/x"] {
        assert!(!mounted.0.join(nothing).exists(), "{nothing}");
    }
    assert!(
        fs::write(own.join("regs"), "x").is_err(),
        "history is read-only"
    );
    sls.run(&["checkpoint", "-m"]);
    wait_until(PATIENCE, "the newest is there", || {
        mounted.0.join("mem/@3/core").exists()
    });
    sls.refused(&["mount", mounted.0.to_str().unwrap()], 1, "not empty");
}

/// A mount outlives slsd, and a target that is being checkpointed may well have files of it open.
#[test]
fn a_mount_and_its_ends() {
    let sls = Sls::new();
    let _target = two_checkpoints(&sls);
    let folder = sls.folder().join("histories");
    fs::create_dir(&folder).unwrap();
    let server = sls.json(&["mount", folder.to_str().unwrap()])["pid"].clone();
    let mounted = Mounted(folder);
    sls.kill_daemon();
    wait_until(PATIENCE, "it is found again", || {
        sls.run(&["ps"]);
        mounted.0.join("mem/@2/core").exists()
    });
    let held = File::open(mounted.0.join("mem/@2/core")).unwrap();
    assert!(!mounted.end(), "a file of it is open");
    drop(held);
    wait_until(PATIENCE, "it can be unmounted", || mounted.end());
    let status = PathBuf::from(format!("/proc/{server}/stat"));
    wait_until(PATIENCE, "its server ends", || {
        fs::read_to_string(&status).map_or(true, |stat| stat.contains(") Z "))
    });
    sls.refused(&["mount", "/proc/none"], 1, "/proc/none");
}
