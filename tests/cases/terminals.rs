//! Programs on terminals, made anew.

use std::fs;
use std::io::{Read, Write};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::pty::{PtyMaster, grantpt, posix_openpt, ptsname_r, unlockpt};
use testkit::{Again, Sls, Target, end_all, end_those, rounds_of, wait_until};

const SOON: Duration = Duration::from_secs(20);

/// A terminal as an emulator has it: what is shown is read all the time.
struct Screen {
    master: PtyMaster,
    slave: String,
    shown: String,
}

impl Screen {
    fn new() -> Self {
        let master =
            posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)
                .unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        Self {
            slave: ptsname_r(&master).unwrap(),
            master,
            shown: String::new(),
        }
    }

    fn type_in(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until this is shown after what was shown before.
    fn await_text(&mut self, text: &str) {
        let until = Instant::now() + SOON;
        let mut bytes = [0; 4096];
        while !self.shown.contains(text) {
            assert!(Instant::now() < until, "no {text:?} in {:?}", self.shown);
            match self.master.read(&mut bytes) {
                Ok(len) => self.shown += &String::from_utf8_lossy(&bytes[..len]),
                // Nobody has it open, or nothing is there yet.
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
        let at = self.shown.find(text).unwrap() + text.len();
        self.shown.drain(..at);
    }
}

/// bash with job control on a terminal whose other end the test has: killed with a job stopped and one
/// in the foreground, and made anew on the same terminal.
#[test]
fn bash_has_its_jobs_and_its_terminal() {
    let sls = Sls::new();
    let mut screen = Screen::new();
    let terminal = screen.slave.clone();
    let mut bash = Command::new("bash");
    let line = "exec setsid --ctty env 'PS1=$((1+1))> ' bash --norc --noprofile -i <$0 >$0 2>&1";
    bash.args(["-c", line, &terminal]);
    bash.env("TERM", "dumb");
    let mut bash = Target::start(sls.folder(), bash);
    let pid = bash.pid();
    screen.await_text("2> ");
    screen.type_in("one=1; sleep 1000\n");
    std::thread::sleep(Duration::from_millis(300));
    screen.type_in("\x1a");
    screen.await_text("2> ");
    screen.type_in("cat\n");
    std::thread::sleep(Duration::from_millis(300));
    screen.type_in("hello\n");
    screen.await_text("hello\r\nhello\r\n");
    sls.run(&["attach", "-p", &pid.to_string(), "-m", "-r"]);
    sls.run(&["checkpoint", "-m", "-n", "cat"]);
    screen.type_in("\x04");
    screen.await_text("2> ");
    std::thread::sleep(Duration::from_millis(200));
    sls.run(&["checkpoint", "-m", "-n", "prompt"]);
    let mut last = sls.pids();
    end_all(&mut bash, &last);
    for _ in 0..rounds_of(2, 20) {
        for at in ["@cat", "@prompt"] {
            screen.shown.clear();
            let (again, told) = Again::made(&sls, &[at]);
            let lines = told["not_restored"].to_string();
            assert!(!lines.contains("terminal"), "{lines}");
            last.clone_from(&again.0);
            if at == "@cat" {
                // It is in the foreground: it reads what is typed, and the end goes to it.
                screen.type_in("again\n");
                screen.await_text("again\r\nagain\r\n");
                screen.type_in("\x03");
                screen.await_text("2> ");
            }
            screen.type_in("echo $one-$?\n");
            screen.await_text("1-");
            screen.await_text("2> ");
            screen.type_in("jobs\n");
            screen.await_text("Stopped");
            screen.await_text("2> ");
            screen.type_in("sleep 0.1; fg\n");
            screen.await_text("sleep 1000");
            std::thread::sleep(Duration::from_millis(300));
            screen.type_in("\x03");
            screen.await_text("2> ");
            again.end();
        }
    }
}

/// Modes that a program set, and those that it had before.
#[test]
fn modes_come_back() {
    let sls = Sls::new();
    let screen = Screen::new();
    let program = "
import os, sys, termios, time, tty
mine = os.open(sys.argv[1], os.O_RDWR | os.O_NOCTTY)
master, slave = os.openpty()
def echoes(): return [bool(termios.tcgetattr(fd)[3] & termios.ECHO) for fd in (mine, slave)]
print('ready', flush=True)
while not os.path.exists('raw'): time.sleep(0.01)
tty.setraw(mine); tty.setraw(slave)
# Opened once: one that is renamed after each line is open without its name in some checkpoint.
says = os.open('echoes', os.O_CREAT | os.O_WRONLY)
while True:
    time.sleep(0.01)
    os.pwrite(says, f'{echoes()!s:16}'.encode(), 0)
";
    let mut python = Command::new("python3");
    python
        .args(["-c", program, &screen.slave])
        .current_dir(sls.folder());
    let mut target = Target::ready(sls.folder(), python);
    let file = |name: &str| sls.folder().join(name);
    let says = |what: &str| {
        // Emptied, so that what is read was said from now on.
        let _ = fs::File::create(file("echoes"));
        wait_until(SOON, &format!("it says {what}"), || {
            fs::read_to_string(file("echoes")).is_ok_and(|said| said.trim_end() == what)
        });
    };
    sls.run(&["attach", "-p", &target.p(), "-m"]);
    sls.run(&["checkpoint", "-m", "-n", "cooked"]);
    fs::write(file("raw"), "").unwrap();
    says("[False, False]");
    sls.run(&["checkpoint", "-m", "-n", "raw"]);
    // It sets them anew, and is rewound to when it had.
    let told = sls.json(&["rewind", "-m", "@cooked"]);
    let lines = told["not_restored"].to_string();
    assert!(!lines.contains("terminal"), "{lines}");
    let echo = || {
        let modes = nix::sys::termios::tcgetattr(&screen.master).unwrap();
        modes
            .local_flags
            .contains(nix::sys::termios::LocalFlags::ECHO)
    };
    says("[False, False]");
    fs::remove_file(file("raw")).unwrap();
    sls.run(&["rewind", "-m", "@cooked"]);
    assert!(echo(), "as it was");
    sls.run(&["rewind", "-m", "@raw"]);
    assert!(!echo());
    end_all(&mut target, &sls.pids());
    let mut cooked = nix::sys::termios::tcgetattr(&screen.master).unwrap();
    cooked.local_flags |= nix::sys::termios::LocalFlags::ECHO;
    let now = nix::sys::termios::SetArg::TCSANOW;
    nix::sys::termios::tcsetattr(&screen.master, now, &cooked).unwrap();
    let (_again, told) = Again::made(&sls, &["@raw"]);
    let lines = told["not_restored"].to_string();
    assert!(!lines.contains("terminal"), "{lines}");
    says("[False, False]");
}

/// A tmux server of the test's own; ended with it.
struct Tmux(String);

impl Tmux {
    fn run(&self, args: &[&str]) -> String {
        let mut tmux = Command::new("tmux");
        let out = tmux.args(["-L", &self.0, "-f", "/dev/null"]).args(args);
        let out = out.output().expect("tmux is installed");
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    fn pid(&self) -> i32 {
        let said = self.run(&["display-message", "-p", "#{pid}"]);
        said.trim().parse().unwrap()
    }

    fn type_in(&self, window: &str, keys: &str) {
        self.run(&["send-keys", "-t", window, keys, "Enter"]);
    }

    fn await_text(&self, window: &str, text: &str) {
        let shown = || self.run(&["capture-pane", "-p", "-t", window]);
        let until = Instant::now() + SOON;
        while !shown().contains(text) {
            let screen = shown();
            assert!(Instant::now() < until, "{text} in {window}:\n{screen}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        self.run(&["kill-server"]);
    }
}

#[test]
fn tmux_has_its_windows() {
    let sls = Sls::new();
    let name = sls.folder().file_name().unwrap().to_string_lossy();
    let tmux = Tmux(name.into_owned());
    let shell = "env PS1='$ ' bash --norc --noprofile";
    tmux.run(&["new-session", "-d", "-x", "90", "-y", "30", shell]);
    tmux.run(&["new-window", shell]);
    for window in [":0", ":1"] {
        tmux.type_in(window, &format!("own=window{window}; clear; echo now $own"));
        tmux.await_text(window, &format!("now window{window}"));
    }
    tmux.type_in(":1", "cat");
    let runs = || {
        tmux.run(&[
            "display-message",
            "-p",
            "-t",
            ":1",
            "#{pane_current_command}",
        ])
    };
    wait_until(SOON, "cat runs", || runs().contains("cat"));
    tmux.type_in(":1", "typed");
    tmux.await_text(":1", "typed\ntyped");
    sls.run(&["attach", "-p", &tmux.pid().to_string(), "-m", "-r"]);
    sls.run(&["checkpoint", "-m", "-n", "windows"]);
    let pids = sls.pids();
    assert_eq!(pids.len(), 4);
    end_those(&pids);
    for round in 0..rounds_of(2, 20) {
        let (again, told) = Again::made(&sls, &["@windows"]);
        let lines = told["not_restored"].to_string();
        assert!(!lines.contains("terminal"), "{lines}");
        // What was on the screens is there, and the programs go on.
        tmux.await_text(":0", "now window:0");
        tmux.await_text(":1", "typed\ntyped");
        tmux.type_in(":1", &format!("round {round}"));
        tmux.await_text(":1", &format!("round {round}\nround {round}"));
        tmux.run(&["send-keys", "-t", ":1", "C-c"]);
        // A line that comes before it has ended is read by it.
        wait_until(SOON, "cat has ended", || runs().contains("bash"));
        tmux.type_in(":1", "echo still $own $COLUMNS");
        tmux.await_text(":1", "still window:1 90");
        tmux.type_in(":0", "echo still $own; tty");
        tmux.await_text(":0", "still window:0\n/dev/pts/");
        // A new window is on a terminal of another number.
        tmux.run(&["new-window", "tty; sleep 1000"]);
        tmux.await_text(":2", "/dev/pts/");
        let all = sls.pids();
        drop(again);
        end_those(&all);
    }
}

/// A look would take it out, so it is not kept: it is said how much it was.
#[test]
fn what_waited_in_one_is_named() {
    let mut it = testkit::Obedient::start();
    it.order("import os, pty, tty; master, slave = pty.openpty()", "open");
    it.order("tty.setraw(slave); os.write(master, b'typed')", "typed");
    it.order("os.write(slave, b'said it')", "said");
    let waits = it.checkpoint();
    let lost = it.restore(waits).concat();
    assert!(
        lost.contains(": 5 bytes that waited to be read in it are gone"),
        "{lost}"
    );
    assert!(
        lost.contains(": 7 bytes that waited to be read by its master are gone"),
        "{lost}"
    );
    it.end();
}
