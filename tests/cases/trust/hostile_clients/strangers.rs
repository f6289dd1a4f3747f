//! Users who are not ours: let in through no door.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};
use std::time::Duration;

use testkit::{Sls, Target, program, wait_until};

const NOBODY: u32 = 65534;
/// Greets, asks, and prints what comes.
const ASKS: &str = "
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.settimeout(10)
s.connect(sys.argv[1])
try:
    s.sendall(bytes.fromhex(sys.argv[2]))
    print(s.recv(100))
except (BrokenPipeError, ConnectionResetError):
    print(b'')
";

fn as_nobody(command: &mut Command) -> Output {
    command.uid(NOBODY).gid(NOBODY).output().unwrap()
}

/// A client's first words, as Python reads them.
fn hello() -> String {
    let hello = super::attacks::hello();
    hello.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn ask(sls: &Sls) -> Output {
    let mut python = Command::new("python3");
    as_nobody(python.args(["-c", ASKS]).arg(sls.socket()).arg(hello()))
}

fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        println!("only root can become somebody else: nothing is tried");
    }
    root
}

#[test]
fn another_user_is_not_let_in() {
    if !is_root() {
        return;
    }
    let sls = Sls::new();
    let mut target = Target::tracee(sls.folder(), "ticker", &[]);
    sls.run(&["attach", "-p", &target.p(), "-m", "-t", "10"]);
    let closed = ask(&sls);
    let said = String::from_utf8_lossy(&closed.stderr);
    assert!(said.contains("Permission denied"), "{closed:?}");
    // Whatever the modes say, the peer's uid counts.
    let open = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    };
    open(sls.folder(), 0o755);
    open(&sls.socket(), 0o666);
    for _ in 0..testkit::rounds(20) {
        let refused = ask(&sls);
        assert_eq!(refused.stdout, b"b''\n", "{refused:?}");
    }
    // Such visits do not count, so they keep nobody from being served or from leaving.
    assert_eq!(sls.json(&["stat"])["clients"], 1);
    // Root's own are served the same way.
    let mut root = Command::new("python3");
    let served = root
        .args(["-c", ASKS])
        .arg(sls.socket())
        .arg(hello())
        .output()
        .unwrap();
    assert_ne!(served.stdout, b"b''\n", "{served:?}");
    target.assert_unharmed();
}

/// A folder that a stranger made first could hold a link where the log is to be.
#[test]
fn a_folder_of_somebody_else_is_not_used() {
    if !is_root() {
        return;
    }
    let sls = Sls::new();
    let state = libsls::state_folder(&sls.socket());
    let victim = sls.folder().join("victim");
    std::fs::write(&victim, "precious").unwrap();
    std::fs::create_dir(&state).unwrap();
    for name in ["slsd.log", "lock"] {
        symlink(&victim, state.join(name)).unwrap();
    }
    std::os::unix::fs::chown(&state, Some(NOBODY), Some(NOBODY)).unwrap();
    let mut slsd = Command::new(program("slsd"));
    let out = slsd
        .arg("--socket")
        .arg(sls.socket())
        .arg("--background")
        .output()
        .unwrap();
    assert!(!out.status.success());
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(said.contains("belongs to uid 65534"), "{said}");
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "precious");
    assert!(!sls.socket().exists());
}

/// A link in the socket's place is replaced; what it points to is left alone.
#[test]
fn a_link_in_the_sockets_place_is_replaced() {
    let sls = Sls::new();
    let victim = sls.folder().join("victim");
    std::fs::write(&victim, "precious").unwrap();
    symlink(&victim, sls.socket()).unwrap();
    let mut slsd = Command::new(program("slsd"));
    let started = slsd
        .arg("--socket")
        .arg(sls.socket())
        .arg("--background")
        .status();
    assert!(started.unwrap().success());
    wait_until(Duration::from_secs(5), "slsd listens", || {
        !sls.socket().is_symlink() && sls.try_run(&["ps"]).code == 0
    });
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "precious");
}
