//! The workbench in a real terminal: tmux, with a server of its own.

use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use testkit::{Sls, Target, program};

const PATIENCE: Duration = Duration::from_secs(20);

/// A terminal of 80x24 that runs one command.
struct Terminal {
    server: String,
}

impl Terminal {
    fn start(sls: &Sls, command: &str) -> Self {
        let name = sls
            .folder()
            .file_name()
            .unwrap()
            .to_string_lossy()
            .into_owned();
        // Each has its own: the last one's may not have gone yet.
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let terminal = Self {
            server: format!("{name}-{number}"),
        };
        // The shell stays, so that what is left on the screen can be read.
        let line = format!("{command}; echo ended $?; exec sleep 1000");
        let out = terminal.tmux(&[
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            "80",
            "-y",
            "24",
            &line,
        ]);
        assert!(out.status.success(), "{out:?}");
        terminal
    }

    fn tmux(&self, args: &[&str]) -> Output {
        let mut command = Command::new("tmux");
        command.arg("-L").arg(&self.server).args(args);
        command.output().expect("tmux is installed")
    }

    fn keys(&self, keys: &[&str]) {
        for key in keys {
            let out = self.tmux(&["send-keys", key]);
            assert!(out.status.success(), "{key}: {out:?}");
        }
    }

    fn screen(&self) -> String {
        String::from_utf8_lossy(&self.tmux(&["capture-pane", "-p"]).stdout).into_owned()
    }

    /// Waits until the screen is as wanted.
    fn shows(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let screen = self.screen();
            if wanted(&screen) {
                return screen;
            }
            assert!(Instant::now() < deadline, "not shown: {what}\n{screen}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}

fn tui(sls: &Sls, arguments: &str) -> String {
    let tui = program("sls-tui");
    let own = sls.folder().display();
    format!(
        "XDG_STATE_HOME={own}/state XDG_CONFIG_HOME={own}/config {} --socket {} {arguments}",
        tui.display(),
        sls.socket().display()
    )
}

/// The checkpoint that the status line names.
fn looked_at(screen: &str) -> Option<u64> {
    let status = screen.lines().next()?;
    let words = ["LIVE", "PAST", "REWOUND", "DEAD"];
    let after = words.iter().find_map(|word| status.split_once(word))?.1;
    after
        .trim_start()
        .strip_prefix('@')?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

/// A global's value as the variables pane has it.
fn counter(screen: &str) -> Option<i64> {
    let line = screen.lines().find(|line| line.contains(" counter: "))?;
    line.split_once(" = ")?
        .1
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

/// How many of its own process's ticks a checkpoint has, from the other program.
fn printed(sls: &Sls, epoch: u64) -> i64 {
    sls.json(&["print", "-m", &format!("@{epoch}"), "counter"])["value"]
        .as_i64()
        .unwrap()
}

#[test]
fn a_session_in_a_terminal() {
    let sls = Sls::new();
    let mut target = Target::tracee(sls.folder(), "ticker", &[]);
    let terminal = Terminal::start(&sls, &tui(&sls, &format!("attach {} -t 50", target.p())));
    let at_least = |screen: &str| looked_at(screen).is_some_and(|at| at > 10);
    let live = terminal.shows("a history that grows", |s| {
        s.contains(" LIVE @") && at_least(s)
    });
    assert!(
        live.contains(&format!(" ticker {}  mem  ", target.p())),
        "{live}"
    );

    // Back: nothing moves any more, and the values are those of that checkpoint.
    let loaded = |s: &str, at: u64| looked_at(s) == Some(at) && !s.contains("loading");
    terminal.keys(&[","]);
    let first = terminal.shows("a look back", |s| s.contains(" PAST @"));
    let at = looked_at(&first).unwrap() - 2;
    terminal.keys(&[",", ","]);
    let past = terminal.shows("two more back", |s| loaded(s, at));
    assert_eq!(counter(&past), Some(printed(&sls, at)), "{past}");
    assert!(
        past.contains("ticker.c:") && past.contains(" was "),
        "{past}"
    );
    terminal.keys(&["."]);
    let next = terminal.shows("the next one", |s| loaded(s, at + 1));
    assert!(counter(&next) > counter(&past), "{next}");

    // A watch has a history, and what differs is a list.
    terminal.keys(&["e", "counter + 1", "Enter"]);
    terminal.shows("the watch", |s| {
        s.lines()
            .any(|line| line.contains("counter + 1: ") && line.contains('▁'))
    });
    terminal.keys(&["g", "D"]);
    terminal.shows("what differs", |s| {
        s.contains("variable") && s.contains("diff @")
    });
    // Stopped as by the shell, it gives the terminal back, and comes again.
    let pid = nix::unistd::Pid::from_raw(sls_tui_of(&target));
    nix::sys::signal::kill(pid, nix::sys::signal::SIGTSTP).unwrap();
    terminal.shows("the shell's screen", |s| !s.contains("Timeline"));
    nix::sys::signal::kill(pid, nix::sys::signal::SIGCONT).unwrap();
    terminal.shows("the screen again", |s| {
        s.contains("Timeline") && s.contains("diff @")
    });

    terminal.keys(&["?"]);
    terminal.shows("the help", |s| {
        s.contains("Help") && s.contains("the checkpoint before")
    });
    terminal.keys(&["Escape"]);
    terminal.shows("no help", |s| !s.contains("Help"));

    // The terminal grows, everything is laid out anew.
    terminal.tmux(&["resize-window", "-x", "160", "-y", "48"]);
    terminal.shows("all panes", |s| {
        s.contains("5 Memory") && s.contains("4 Variables")
    });

    terminal.keys(&["R"]);
    let asked = terminal.shows("the question", |s| s.contains("Enter or y"));
    assert!(asked.contains(&format!("to @{}?", at + 1)), "{asked}");
    terminal.keys(&["y"]);
    terminal.shows("the rewind's report", |s| {
        s.contains(" REWOUND @") && s.contains("pages written")
    });
    terminal.keys(&["Escape", "End"]);
    terminal.shows("the new branch", |s| {
        s.contains(" LIVE @") && s.contains("branch rewind-")
    });

    terminal.keys(&["q"]);
    let left = terminal.shows("its end", |s| s.contains("ended 0"));
    assert!(
        !left.contains("Timeline"),
        "the terminal is not given back:\n{left}"
    );
    target.assert_unharmed();
    // It attached the process, so it let go; the history stays.
    let held = sls.json(&["ps"]);
    assert_eq!(held["processes"].as_array().unwrap().len(), 0, "{held}");
    assert_eq!(printed(&sls, at), counter(&past).unwrap());
}

#[test]
fn a_process_attached_before_stays_attached() {
    let sls = Sls::new();
    let mut target = Target::tracee(sls.folder(), "ticker", &[]);
    sls.run(&["attach", "-p", &target.p(), "-m", "-t", "50"]);
    let terminal = Terminal::start(&sls, &tui(&sls, &format!("attach {}", target.p())));
    terminal.shows("a history", |s| {
        s.contains(" LIVE @") && counter(s).is_some()
    });
    // Asked to end, it leaves the terminal as it found it.
    let pid = sls_tui_of(&target);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGTERM).unwrap();
    let left = terminal.shows("its end", |s| s.contains("ended 0"));
    assert!(!left.contains("Timeline"), "{left}");
    let held = sls.json(&["ps"]);
    assert_eq!(
        held["processes"][0]["pid"].as_i64(),
        Some(target.pid().into()),
        "{held}"
    );
    target.assert_unharmed();
}

/// The process is made to stand, and runs on when the workbench is left.
#[test]
fn a_process_is_run_by_keys() {
    let sls = Sls::new();
    let mut target = Target::tracee(sls.folder(), "ticker", &[]);
    sls.run(&["attach", "-p", &target.p(), "-m"]);
    sls.run(&["checkpoint", "-m"]);
    let terminal = Terminal::start(&sls, &tui(&sls, "open mem"));
    terminal.shows("a history", |s| s.contains(" LIVE @1"));
    terminal.keys(&["s"]);
    terminal.shows("a question", |s| s.contains("control it"));
    terminal.keys(&["y"]);
    terminal.shows("a stop", |s| {
        s.contains(" paused ") && said(s).starts_with(" pause: ")
    });
    terminal.keys(&["n"]);
    terminal.shows("the next line", |s| said(s).starts_with(" step: "));
    let before = ticks(&mut target);
    terminal.keys(&["3", "b"]);
    let set = terminal.shows("a breakpoint", |s| said(s).starts_with(" breakpoint 1: "));
    assert!(set.contains('●'), "{set}");
    for epoch in [4, 5] {
        terminal.keys(&["c"]);
        terminal.shows("its hit", |s| {
            said(s).starts_with(" breakpoint 1: ") && looked_at(s) == Some(epoch)
        });
    }
    assert!(ticks(&mut target) <= before + 3, "it stands at each stop");
    terminal.keys(&["p"]);
    terminal.shows("another stop", |s| said(s).starts_with(" pause: "));
    terminal.keys(&["q"]);
    terminal.shows("its end", |s| s.contains("ended 0"));
    let left = sls.json(&["break", "-m"]);
    assert_eq!(
        left["breakpoints"].as_array().map(Vec::len),
        Some(0),
        "{left}"
    );
    let held = sls.json(&["ps"]);
    let state = held["processes"][0]["state"].as_str();
    assert!(matches!(state, Some("running" | "sleeping")), "{held}");
    target.assert_unharmed();
    target.assert_goes_on();
}

/// What is still under way when the workbench is left is undone as well.
#[test]
fn one_that_leaves_at_once_leaves_nobody_standing() {
    let sls = Sls::new();
    let mut target = Target::tracee(sls.folder(), "ticker", &[]);
    sls.run(&["attach", "-p", &target.p(), "-m"]);
    sls.run(&["checkpoint", "-m"]);
    for keys in ["pyq", "pycq", "pyq", "cyq"] {
        let terminal = Terminal::start(&sls, &tui(&sls, "open mem"));
        terminal.shows("a history", |s| s.contains(" LIVE @"));
        terminal.keys(&[keys]);
        terminal.shows("its end", |s| s.contains("ended 0"));
        let held = sls.json(&["ps"]);
        let state = held["processes"][0]["state"].as_str();
        assert!(
            matches!(state, Some("running" | "sleeping")),
            "{keys}: {held}"
        );
        target.assert_goes_on();
    }
}

/// The line at the bottom.
fn said(screen: &str) -> &str {
    screen
        .lines()
        .rfind(|line| !line.is_empty())
        .unwrap_or_default()
}

/// Lines it has printed.
fn ticks(target: &mut Target) -> usize {
    target.output().lines().count()
}

/// The screen in README.md is one that there is, but for what its panes are filled with.
#[test]
fn the_readme_shows_a_screen_that_there_is() {
    const WRITE: &str = "SLS_WRITE_DOCS";
    const MARKS: (&str, &str) = ("<!-- screen -->\n```text\n", "```\n<!-- screen end -->");
    let sls = Sls::new();
    let target = Target::tracee(sls.folder(), "ticker", &[]);
    sls.run(&["attach", "-p", &target.p(), "-m"]);
    let checkpoints = |count: u32| {
        for _ in 0..count {
            std::thread::sleep(Duration::from_millis(30));
            sls.run(&["checkpoint", "-m"]);
        }
    };
    checkpoints(12);
    sls.run(&["checkpoint", "-m", "-n", "before"]);
    checkpoints(6);
    sls.run(&["rewind", "-m", "@before"]);
    checkpoints(12);
    let mut command = Command::new(program("sls-tui"));
    command.arg("--socket").arg(sls.socket());
    command.args(["open", "mem", "--dump", "all", "--keys", ","]);
    command.env("COLUMNS", "100").env("LINES", "30");
    command.env("XDG_CONFIG_HOME", sls.folder().join("config"));
    let out = command.output().unwrap();
    assert!(out.status.success(), "{out:?}");
    let screen = String::from_utf8(out.stdout).unwrap();
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(MARKS.0).unwrap();
    let (shown, after) = rest.split_once(MARKS.1).unwrap();
    if std::env::var_os(WRITE).is_some() {
        let page = format!("{before}{}{screen}{}{after}", MARKS.0, MARKS.1);
        return std::fs::write(&path, page).unwrap();
    }
    assert_eq!(
        frame(shown),
        frame(&screen),
        "write it anew: {WRITE}=1 cargo nextest run --release -p testkit -E 'test(readme_shows)'\n{screen}"
    );
}

/// Borders with their titles and the keys at the bottom, each with the number of its line.
fn frame(screen: &str) -> Vec<(usize, String)> {
    let last = screen.lines().count() - 1;
    let lines = screen.lines().enumerate();
    let is_frame =
        |(at, line): &(usize, &str)| *at == last || line.starts_with(['┏', '┗', '┌', '└']);
    let framed = lines.filter(is_frame);
    framed
        .map(|(at, line)| (at, line.trim_end().to_owned()))
        .collect()
}

/// The workbench that looks at a process.
fn sls_tui_of(target: &Target) -> i32 {
    let wanted = format!("attach\0{}\0", target.p());
    let runs = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        line.split('\0')
            .next()
            .is_some_and(|name| name.ends_with("/sls-tui"))
            && line.contains(&wanted)
    };
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    let found = pids
        .filter_map(|entry| entry.file_name().to_string_lossy().parse().ok())
        .find(runs);
    found.expect("the workbench runs")
}

#[test]
fn a_screen_as_text() {
    let sls = Sls::new();
    let target = Target::tracee(sls.folder(), "ticker", &[]);
    sls.run(&["attach", "-p", &target.p(), "-m"]);
    for _ in 0..3 {
        sls.run(&["checkpoint", "-m"]);
        std::thread::sleep(Duration::from_millis(30));
    }
    let dump = |arguments: &[&str]| {
        let mut command = Command::new(program("sls-tui"));
        command.arg("--socket").arg(sls.socket()).args(arguments);
        command.env_remove("COLUMNS").env_remove("LINES");
        command.env("XDG_STATE_HOME", sls.folder().join("state"));
        command.env("XDG_CONFIG_HOME", sls.folder().join("config"));
        let out = command.output().unwrap();
        (
            out.status.code(),
            String::from_utf8(out.stdout).unwrap(),
            String::from_utf8(out.stderr).unwrap(),
        )
    };
    let (code, text, errors) = dump(&["open", "mem", "--dump", "variables", "--keys", ","]);
    assert_eq!((code, errors.as_str()), (Some(0), ""), "{text}");
    assert_eq!(looked_at(&text), Some(2), "{text}");
    assert_eq!(counter(&text), Some(printed(&sls, 2)), "{text}");
    assert_eq!(text.lines().count(), 24);
    assert!(!text.contains('\u{1b}'));
    for (screen, has) in [
        ("timeline", "3 checkpoints"),
        ("threads", "main"),
        ("source", "ticker.c:"),
        ("memory", "00 00"),
        ("help", "quit"),
        ("all", "4 Variables"),
        ("assembly", "=>"),
        ("pages", "[heap]"),
        ("fds", "KIND"),
        ("maps", "r-xp"),
        ("sockets", "no sockets"),
        ("signals", "SIGNAL"),
        ("heap", "struct node"),
        ("log", "nothing was said"),
    ] {
        let (code, text, errors) = dump(&["attach", &target.p(), "--dump", screen]);
        assert_eq!((code, errors.as_str()), (Some(0), ""));
        assert!(text.contains(has), "{screen}: {text}");
    }
    let asked = [
        "open",
        "mem",
        "--dump",
        "results",
        "--keys",
        ":changes counter<Enter>",
    ];
    let (code, text, errors) = dump(&asked);
    assert_eq!((code, errors.as_str()), (Some(0), ""), "{text}");
    assert!(
        text.contains("@3") && text.contains(&printed(&sls, 3).to_string()),
        "{text}"
    );
    // Without a terminal there is nothing to work on.
    let (code, text, errors) = dump(&["open", "mem"]);
    assert_eq!((code, text.as_str()), (Some(2), ""));
    assert!(errors.contains("--dump"), "{errors}");
    assert_eq!(dump(&["open", "nothing", "--dump", "all"]).0, Some(1));
    // A core, a store and a bundle are looked at too.
    let file = |name: &str| sls.folder().join(name).display().to_string();
    let (core, store, bundle) = (file("x.core"), file("x.store"), file("x.sls"));
    sls.run(&["dump", "-m", "@2", &core]);
    let (code, text, errors) = dump(&["open", &core, "--dump", "variables"]);
    assert_eq!((code, errors.as_str()), (Some(0), ""), "{text}");
    assert!(
        text.contains("  CORE") && counter(&text) == Some(printed(&sls, 2)),
        "{text}"
    );
    let made = Command::new(program("newfs_sls"))
        .args(["--size", "64M", &store])
        .output();
    assert!(made.unwrap().status.success());
    let newest = printed(&sls, 3);
    for to in [&store, &bundle] {
        sls.run(&["export", "-m", "--to", to]);
        let (code, text, errors) = dump(&["open", to, "--dump", "variables"]);
        assert_eq!((code, errors.as_str()), (Some(0), ""), "{text}");
        assert_eq!(counter(&text), Some(newest), "{text}");
    }
    // Nothing of what was opened is left.
    let stat = sls.json(&["stat"]);
    assert_eq!(stat["partitions"].as_array().unwrap().len(), 1, "{stat}");
}

/// The journey of docs/tui.md on a Rust program: far back, what differs, a vector of a million, a watch, a rewind.
#[test]
fn a_hundred_checkpoints_back_and_a_million_elements() {
    let sls = Sls::new();
    let mut target = Target::tracee(sls.folder(), "million", &[]);
    let terminal = Terminal::start(&sls, &tui(&sls, &format!("attach {} -t 20", target.p())));
    let newest = terminal.shows("a history", |s| {
        s.contains(" LIVE @") && looked_at(s) > Some(110)
    });
    let newest = looked_at(&newest).unwrap();
    terminal.keys(&[","]);
    let first = terminal.shows("a look back", |s| s.contains(" PAST @"));
    let first = looked_at(&first).unwrap();
    assert!(first + 1 >= newest, "{first} comes before {newest}");
    terminal.tmux(&["send-keys", "-N", "99", ","]);
    let at = first - 99;
    let loaded = |s: &str| looked_at(s) == Some(at) && !s.contains("loading");
    terminal.shows("a hundred back", loaded);

    // All of it by name and number; only what is in sight is read.
    let element = |number: u64| {
        let expr = format!("numbers[{number}]");
        let told = sls.json(&["print", "-m", &format!("@{at}"), &expr]);
        told["value"].as_u64().unwrap()
    };
    terminal.keys(&["4", "/numbers", "Enter", "g", "g", "j", "Enter"]);
    let (third, last) = (element(3), element(999_999));
    terminal.shows("its elements", |s| s.contains(&format!("[3] = {third}")));
    terminal.keys(&["e", "numbers[999999]", "Enter"]);
    terminal.shows("the last one, watched", |s| {
        let mut lines = s.lines();
        let line = lines.find(|line| line.contains("numbers[999999]: u64 = "));
        line.is_some_and(|line| line.contains(&format!(" {last} ")))
    });
    terminal.keys(&["Escape", "g", "D"]);
    terminal.shows("what differs", |s| {
        s.contains(&format!("diff @{} @{at}", at - 1)) && s.contains("numbers")
    });
    terminal.keys(&["R", "y"]);
    terminal.shows("the rewind's report", |s| {
        s.contains(&format!(" REWOUND @{at}")) && s.contains("pages written")
    });
    terminal.keys(&["Escape", "q"]);
    terminal.shows("its end", |s| s.contains("ended 0"));
    target.assert_unharmed();
    target.assert_goes_on();
    assert!(!target.output().contains("FAIL"), "{}", target.output());
}
