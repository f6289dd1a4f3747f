//! Every call that can block, in a process under a hundred checkpoints a second, beside a twin that
//! nobody captures: no EINTR, no short count but those of docs/limits.md, and timeouts on time.

use std::time::Duration;

use testkit::{Board, Case, Dice, Row, Sls, Target, rounds_of, seed};

use super::fallback::named;
use crate::blocking::SystemV;
use crate::campaign::epochs;

/// A timeout may be later than the twin's latest by the length of a stop and of the wait for a
/// CPU, both of which the machine's other work makes longer.
const MARGIN_US: u64 = 60_000;
/// A call that nothing ends for so long is stuck.
const PATIENCE: Duration = Duration::from_secs(5);

/// One process of the oracle.
struct Oracle {
    target: Target,
    board: Board,
    _left_behind: SystemV,
}

impl Oracle {
    fn start(sls: &Sls, group: &str, name: &str) -> Self {
        let folder = sls.subfolder(name);
        let mut command = sls.program(&testkit::tracee("oracle"));
        command.args([group, "board"]).current_dir(&folder);
        let target = Target::start(&folder, command);
        testkit::wait_until(Duration::from_secs(10), "the oracle is ready", || {
            target.output().contains("ready")
        });
        Self {
            _left_behind: SystemV(target.output()),
            board: Board::of(&folder),
            target,
        }
    }

    /// Each case must end a call from now on.
    fn assert_goes_on(&self) {
        let now = now_ns();
        let stuck = || {
            let cases = self.board.cases().into_iter();
            let stuck = cases.filter(|c| c.last_ns < now).map(|c| c.name);
            stuck.collect::<Vec<_>>()
        };
        let deadline = now + u64::try_from(PATIENCE.as_nanos()).unwrap();
        while !stuck().is_empty() {
            assert!(now_ns() < deadline, "stuck: {:?}", stuck());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn now_ns() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap();
    u64::try_from(Duration::from(now).as_nanos()).unwrap()
}

/// What the captured process saw and the twin did not.
fn judge(row: &mut Row, captured: &[Case], twin: &[Case]) {
    let mut notes = Vec::new();
    for (case, twin) in captured.iter().zip(twin) {
        let limit = MARGIN_US + 2 * twin.worst_us();
        let late = case.later_than(limit);
        let not_twins = |ours: u64, theirs: u64| if theirs == 0 { ours } else { 0 };
        let harmed = not_twins(case.interrupted, twin.interrupted)
            + not_twins(case.early, twin.early)
            + not_twins(case.wrong, twin.wrong)
            + late;
        row.tries += case.calls;
        row.harmed += harmed;
        if harmed > 0 {
            println!("HARMED {case:?}\n  twin {twin:?}");
        }
        if case.shorts > twin.shorts {
            notes.push(format!("{} {} short", case.shorts, case.name));
        }
        if case.lost > 0 {
            notes.push(format!("{} signals before {}", case.lost, case.name));
        }
    }
    row.unharmed = row.tries - row.harmed;
    let worst = |cases: &[Case]| cases.iter().map(Case::worst_us).max().unwrap_or(0) / 1000;
    let (ours, theirs) = (worst(captured), worst(twin));
    notes.insert(
        0,
        format!("timeouts at most {ours} ms late, the twin's {theirs} ms"),
    );
    row.note = notes.join(", ");
}

/// Rewinds among the checkpoints, until the time is over.
fn rewind_at_random(sls: &Sls, oracle: &mut Oracle, dice: &mut Dice, seconds: u64) {
    let until = now_ns() + seconds * 1_000_000_000;
    let mut told = 0;
    while now_ns() < until {
        std::thread::sleep(Duration::from_millis(100 + dice.below(300)));
        let known = epochs(sls);
        let to = known[usize::try_from(dice.below(known.len() as u64)).unwrap()];
        oracle.board.tell(told + 1);
        let out = sls.try_run(&["rewind", "-m", &format!("@{to}")]);
        told += 2;
        oracle.board.tell(told);
        // Thinned since the list was read.
        let refused = out.stderr.contains("no checkpoint");
        assert!(out.code == 0 || refused, "@{to}: {}", out.stderr);
        oracle.target.assert_alive();
        oracle.assert_goes_on();
    }
}

fn campaign(group: &str, how: &str, without: &str, rewinds: bool) {
    let seconds = rounds_of(1, 60);
    let mut row = Row {
        campaign: named(&format!("calls that block, {how}: {group}"), without),
        about: "a process that makes every call that can block, captured a hundred times a second, beside a twin that is not: each call must give both the same".to_owned(),
        seed: seed(11),
        ..Row::default()
    };
    let mut dice = Dice::new(row.seed);
    let sls = Sls::without(without);
    let twin = Oracle::start(&sls, group, "twin");
    let mut captured = Oracle::start(&sls, group, "captured");
    sls.run(&[
        "partadd", "memory", "-o", "mem", "--budget", "256M", "--keep", "log",
    ]);
    let pid = captured.target.p();
    sls.run(&["attach", "-p", &pid, "-m", "-t", "10"]);
    let begun = || !epochs(&sls).is_empty();
    testkit::wait_until(PATIENCE, "the first checkpoint", begun);
    if rewinds {
        rewind_at_random(&sls, &mut captured, &mut dice, seconds);
    } else {
        std::thread::sleep(Duration::from_secs(seconds));
    }
    captured.assert_goes_on();
    let part = &sls.json(&["stat"])["partitions"][0];
    println!("{group}: {part}");
    row.epochs = part["taken"].as_u64().unwrap();
    // Comparing everything takes longer than a period.
    let least = if without.contains("wp_async") { 1 } else { 10 };
    assert!(row.epochs > least * seconds, "too few: {part}");
    sls.run(&["detach", "-p", &pid]);
    captured.target.assert_unharmed();
    judge(&mut row, &captured.board.cases(), &twin.board.cases());
    row.report();
}

macro_rules! groups {
    ($how:ident, $without:literal, $rewinds:literal: $($group:ident)*) => {
        mod $how {
            $(#[test] fn $group() {
                super::campaign(stringify!($group), stringify!($how), $without, $rewinds);
            })*
        }
    };
}

groups!(captured, "", false: files pipes waits epoll rings long sleeps futexes ipc sockets
    limits children interrupted);
// Not rings: what a request in flight gives does not go back with the process (docs/limits.md).
groups!(rewound, "", true: files pipes waits epoll sleeps futexes ipc sockets limits children
    interrupted);
groups!(compared, "wp_async", false: files pipes waits epoll rings long sleeps futexes ipc
    sockets limits children interrupted);
groups!(scanned, "wp_async,pagemap_scan", false: files pipes waits epoll rings long sleeps futexes
    ipc sockets limits children interrupted);
groups!(filtered, "suspend_seccomp", false: files pipes waits epoll rings long sleeps futexes ipc
    sockets limits children interrupted);
groups!(plain, "privileges", false: files pipes waits epoll rings long sleeps futexes ipc sockets
    limits children interrupted);
groups!(rewound_compared, "wp_async", true: files pipes waits epoll sleeps futexes ipc sockets
    limits children interrupted);
groups!(rewound_scanned, "wp_async,pagemap_scan", true: files pipes waits epoll sleeps futexes ipc
    sockets limits children interrupted);
groups!(rewound_filtered, "suspend_seccomp", true: files pipes waits epoll sleeps futexes ipc
    sockets limits children interrupted);
groups!(rewound_plain, "privileges", true: files pipes waits epoll sleeps futexes ipc sockets
    limits children interrupted);
