//! The scripts of dtrace/ over a daemon that runs, by stock bpftrace.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use testkit::{Sls, Target, kill, program};

/// What bpftrace takes for its probes once it has said how many there are.
const ATTACHING: Duration = Duration::from_secs(1);

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../dtrace")
}

/// Each script by name, with its text.
fn scripts() -> Vec<(String, String)> {
    let files = fs::read_dir(folder())
        .unwrap()
        .map(|file| file.unwrap().path());
    let scripts = files.filter(|path| path.extension().is_some_and(|e| e == "bt"));
    let read = |path: PathBuf| {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        (name, fs::read_to_string(path).unwrap())
    };
    scripts.map(read).collect()
}

/// Probes of a program, by its notes.
fn probes(of: &str) -> BTreeSet<String> {
    let out = Command::new("readelf")
        .arg("-n")
        .arg(program(of))
        .output()
        .unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    let mut names = BTreeSet::new();
    let mut lines = text.lines().map(str::trim);
    while let Some(line) = lines.next() {
        if line == "Provider: sls" {
            let name = lines.next().and_then(|line| line.strip_prefix("Name: "));
            names.insert(name.unwrap().to_owned());
        }
    }
    names
}

/// A script names probes of the one program that it is about, and every probe is in a script.
#[test]
fn scripts_and_programs_name_the_same_probes() {
    let mut unused: BTreeSet<String> = BTreeSet::new();
    for program in ["slsd", "slfs", "sls-pager"] {
        unused.extend(probes(program));
    }
    for (script, text) in scripts() {
        let about = match script.as_str() {
            "mount" => "slfs",
            "lazily" => "sls-pager",
            _ => "slsd",
        };
        let there = probes(about);
        for line in text.lines() {
            let Some(named) = line.strip_prefix("usdt::sls:") else {
                continue;
            };
            let name = named.split([' ', '{', ',']).next().unwrap();
            assert!(
                there.contains(name),
                "{script}: {about} has no probe {name}"
            );
            unused.remove(name);
        }
    }
    assert!(unused.is_empty(), "in no script: {unused:?}");
    let readme = fs::read_to_string(folder().join("README.md")).unwrap();
    for (script, _) in scripts() {
        assert!(readme.contains(&format!("## {script}.bt")), "{script}");
    }
}

/// A script that listens.
struct Listening {
    tracer: Child,
    out: BufReader<std::process::ChildStdout>,
}

impl Listening {
    /// It says that it begins before its probes are there: see [`Listening::heard`].
    fn to(pid: i32, script: &str, args: &[&str]) -> Self {
        let path = folder().join(format!("{script}.bt"));
        let mut tracer = Command::new("bpftrace")
            .args(["-p", &pid.to_string()])
            .arg(path)
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(tracer.stdout.take().unwrap());
        let mut line = String::new();
        while !line.starts_with("Attaching") {
            line.clear();
            assert_ne!(
                out.read_line(&mut line).unwrap(),
                0,
                "{script} did not begin"
            );
        }
        Self { tracer, out }
    }

    /// Gives it time until its probes are there.
    fn heard(self) -> Self {
        std::thread::sleep(ATTACHING);
        self
    }

    /// What it says at its end.
    fn table(mut self) -> String {
        kill(self.tracer.id().cast_signed(), libc::SIGINT);
        let mut text = String::new();
        self.out.read_to_string(&mut text).unwrap();
        self.tracer.wait().unwrap();
        text
    }
}

/// The number of lines of a histogram or of figures for each key must not be none.
fn has(table: &str, keys: &[&str]) {
    for key in keys {
        let told = table.lines().any(|line| {
            let rest = line.strip_prefix(key);
            rest.is_some_and(|rest| rest.starts_with(['[', ':']))
        });
        assert!(told, "{key} is not in: {table}");
    }
}

#[test]
fn every_script_tells_of_a_live_daemon() {
    let sls = Sls::new();
    let target = Target::tracee(sls.folder(), "ticker", &[]);
    let store = sls.folder().join("store");
    let made = Command::new(program("newfs_sls"))
        .args(["--size", "256M"])
        .arg(&store)
        .output();
    assert!(made.unwrap().status.success());
    let path = store.to_str().unwrap();
    sls.run(&["partadd", "slos", "-o", "kept", "--store", path]);
    sls.run(&["attach", "-p", &target.p(), "-o", "kept", "-t", "20"]);
    sls.run(&["checkpoint", "-o", "kept", "-n", "then"]);
    let daemon = sls.daemon();
    let pid = target.p();
    let tables = [
        "stop", "sizes", "ahead", "rewind", "flush", "requests", "tax",
    ];
    let listening = tables.map(|script| (script, Listening::to(daemon, script, &[&pid])));
    std::thread::sleep(ATTACHING);
    sls.run(&["rewind", "-o", "kept", "@then"]);
    sls.run(&["checkpoint", "-o", "kept"]);
    std::thread::sleep(Duration::from_millis(1500));
    for (script, tracer) in listening {
        let table = tracer.table();
        let keys: &[&str] = match script {
            "stop" => &[
                "@quiesce_us",
                "@scan_us",
                "@copy_us",
                "@let_go_us",
                "@stop_us",
            ],
            "sizes" => &["@checkpoints", "@pages", "@bytes", "@record"],
            "ahead" => &["@ahead[0]", "@under_the_stop"],
            "rewind" => &[
                "@keep_the_present_us",
                "@plan_us",
                "@carry_out_us",
                "@let_go_us",
                "@pages",
            ],
            "flush" => &["@append_us", "@sync_us", "@to_the_store_us", "@bytes"],
            "requests" => &["@us"],
            _ => &["@checkpoints", "@stopped_ns", "@faults"],
        };
        let named: Vec<&str> = keys.to_vec();
        has(&table, &named);
    }

    let tracer = Listening::to(daemon, "restore", &[]).heard();
    let number = target.pid();
    drop(target);
    sls.run(&["restore", "-o", "kept", "@then", "-d"]);
    has(
        &tracer.table(),
        &[
            "@skeletons_us",
            "@plan_us",
            "@fill_us",
            "@the_rest_us",
            "@pages",
        ],
    );
    kill(number, libc::SIGKILL);
    let mount = sls.folder().join("mount");
    fs::create_dir(&mount).unwrap();
    let server = sls.json(&["mount", mount.to_str().unwrap()])["pid"].clone();
    let server = i32::try_from(server.as_i64().unwrap()).unwrap();
    let tracer = Listening::to(server, "mount", &[]).heard();
    fs::read(mount.join("kept/@1/core")).unwrap();
    let table = tracer.table();
    assert!(
        Command::new("umount")
            .arg(&mount)
            .status()
            .unwrap()
            .success()
    );
    has(&table, &["@us[1]", "@us[15]"]);
}
