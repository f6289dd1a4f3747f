//! Descriptors from outside in the place of what a process had open.

use std::fs::{self, File};
use std::io::{Read, Seek};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::unistd::pipe2;
use testkit::{Again, Sls, Target, field, is_gone, kill, wait_gone, wait_until};

const SOON: Duration = Duration::from_secs(10);

/// Two that share a pipe and a log; each says where it is on both.
const WRITERS: &str = "
import os, time
log = open('log', 'w', buffering=1)
me = 'child' if os.fork() == 0 else 'parent'
time.sleep(0.1)
if me == 'parent': open('ready', 'w').close()
while True:
    os.write(1, (me + '\\n').encode()); log.write(me + '\\n'); time.sleep(0.02)
";

/// A program that writes to a pipe whose reader is the test's, checkpointed and killed; the name of
/// the pipe.
fn killed(sls: &Sls, program: &str) -> (Vec<i32>, String) {
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-c", program]).current_dir(sls.folder());
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = child.id().to_string();
    wait_until(SOON, "it is ready", || sls.folder().join("ready").exists());
    sls.run(&["attach", "-p", &pid, "-m", "-r"]);
    sls.run(&["checkpoint", "-m"]);
    let pids = sls.pids();
    let fds = sls.json(&["fds", "-m", "@1"]);
    let rows = fds["fds"].as_array().unwrap();
    let one = rows.iter().find(|row| row["fd"] == 1).unwrap();
    let name = one["target"].as_str().unwrap().to_owned();
    assert!(name.starts_with("pipe:["), "{name}");
    pids.iter().for_each(|&pid| kill(pid, 9));
    child.wait().unwrap();
    wait_gone(&pids);
    (pids, name)
}

/// Runs slsctl with this descriptor besides the standard three.
fn with(sls: &Sls, fd: &OwnedFd, args: &[&str]) -> Output {
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    let out = sls.command(args).output().unwrap();
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
    out
}

fn read(file: &mut File) -> String {
    let mut bytes = [0; 4096];
    let n = file.read(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes[..n]).into_owned()
}

#[test]
fn a_pipe_of_the_callers_in_the_place_of_another() {
    let sls = Sls::new();
    let (pids, name) = killed(&sls, WRITERS);
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC).unwrap();
    let number = writer.as_raw_fd();
    let inherit = format!("fd[{number}]:{name}");
    let out = with(
        &sls,
        &writer,
        &["--json", "restore", "-m", "-d", "--inherit-fd", &inherit],
    );
    assert!(out.status.success(), "{out:?}{}", sls.log());
    let again = Again(pids.clone());
    drop(writer);
    let told = String::from_utf8_lossy(&out.stdout);
    assert!(!told.contains("pipe:["), "{told}");
    let mut reader = File::from(reader);
    let mut said = String::new();
    wait_until(SOON, "both write to it", || {
        said += &read(&mut reader);
        said.contains("parent\n") && said.contains("child\n")
    });
    // One open file of both, as it was; and nobody else has it.
    let links = pids
        .iter()
        .map(|pid| fs::read_link(format!("/proc/{pid}/fd/1")).unwrap());
    let links: Vec<_> = links.collect();
    assert_eq!(links[0], links[1]);
    assert!(links[0].to_string_lossy() != name);
    for &pid in &pids {
        assert_eq!(field(pid, "TracerPid:"), "0");
    }
    // A rewind knows it by its new name, and leaves it where it is.
    sls.run(&["checkpoint", "-m"]);
    let back = sls.json(&["rewind", "-m", "@1"]);
    said.clear();
    wait_until(SOON, "both write to it after a rewind", || {
        said += &read(&mut reader);
        said.contains("parent\n") && said.contains("child\n")
    });
    assert!(
        !back["not_restored"].to_string().contains("closed since"),
        "{back}"
    );
    again.end();
    let mut rest = String::new();
    reader.read_to_string(&mut rest).unwrap(); // Ends: nobody keeps the other end.
}

#[test]
fn a_file_in_the_place_of_one_that_is_gone() {
    let sls = Sls::new();
    let program = "
import os, time
f = open('gone', 'w+'); f.write('0123456789'); f.flush(); f.truncate(2 << 20); os.remove('gone')
print('ready', flush=True)
while not os.path.exists('go'): time.sleep(0.01)
os.write(f.fileno(), b'here'); open('done', 'w').close(); time.sleep(100)
";
    let target = Target::python(sls.folder(), program);
    let pid = target.pid();
    sls.run(&["attach", "-p", &target.p(), "-m"]);
    sls.run(&["checkpoint", "-m"]);
    let mut target = target;
    testkit::end_all(&mut target, &[pid]);
    sls.refused(&["restore", "-m", "-d"], 1, "deleted");
    let mut other = File::options()
        .create(true)
        .truncate(true)
        .read(true)
        .write(true)
        .open(sls.folder().join("other"))
        .unwrap();
    let fd = OwnedFd::from(other.try_clone().unwrap());
    let gone = sls.folder().join("gone");
    let inherit = format!("fd[{}]:{} (deleted)", fd.as_raw_fd(), gone.display());
    let out = with(
        &sls,
        &fd,
        &["restore", "-m", "-d", "--inherit-fd", &inherit],
    );
    assert!(out.status.success(), "{out:?}");
    let again = Again(vec![pid]);
    fs::write(sls.folder().join("go"), "").unwrap();
    wait_until(SOON, "it has written", || {
        sls.folder().join("done").exists()
    });
    again.end();
    other.rewind().unwrap();
    assert_eq!(read(&mut other), "here");
}

#[test]
fn what_is_for_nothing_is_refused() {
    let sls = Sls::new();
    let (pids, name) = killed(&sls, WRITERS);
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC).unwrap();
    let refused = |fd: &OwnedFd, resource: &str, says: &str| {
        let inherit = format!("fd[{}]:{resource}", fd.as_raw_fd());
        let out = with(&sls, fd, &["restore", "-m", "-d", "--inherit-fd", &inherit]);
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(1), "{said}");
        assert!(said.contains(says), "{said}");
        assert!(pids.iter().all(|&pid| is_gone(pid)), "{said}");
    };
    refused(&writer, "pipe:[1]", "no descriptor was open on pipe:[1]");
    refused(
        &reader,
        &name,
        "is not open for reading or writing as that was",
    );
    let inherit = format!("fd[1000]:{name}");
    sls.refused(
        &["restore", "-m", "-d", "--inherit-fd", &inherit],
        1,
        "take descriptor 1000",
    );
    sls.refused(
        &["restore", "-m", "-d", "--inherit-fd", "1:x"],
        2,
        "fd[N]:RESOURCE",
    );
}
