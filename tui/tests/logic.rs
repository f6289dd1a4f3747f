//! What events do to the model, and what they ask for.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a failed test may panic"
)]

mod fixture;

use fixture::{Bench, history, look, progress, target};
use libsls::control::{Act, Breakpoint, Location, Reason, State, Stop, What};
use sls_tui::data::MemoryAt;
use sls_tui::driver::{Drive, Points};
use sls_tui::keys::parse;
use sls_tui::model::{Base, Model, Standing};
use sls_tui::overlay::{Deed, Overlay};
use sls_tui::place::{Pane, Tab};
use sls_tui::update::{Effect, Event, update};

fn press(model: &mut Model, keys: &str) -> Vec<Effect> {
    let keys = parse(keys).unwrap();
    let all = keys
        .into_iter()
        .flat_map(|key| update(model, Event::Key(key)));
    all.filter(|effect| matches!(effect, Effect::Ask { .. }))
        .collect()
}

fn ask(effect: &Effect) -> (u64, u64) {
    match effect {
        Effect::Ask { number, question } => (*number, question.epoch),
        other => panic!("{other:?}"),
    }
}

fn answer(model: &mut Model, effect: &Effect) -> Vec<Effect> {
    let Effect::Ask { number, question } = effect else {
        panic!("{effect:?}")
    };
    let look = Ok(Box::new(look(question)));
    let number = *number;
    let effects = update(model, Event::Looked { number, look });
    let asks = effects.into_iter();
    asks.filter(|effect| matches!(effect, Effect::Ask { .. }))
        .collect()
}

#[test]
fn only_the_newest_question_counts() {
    let mut model = Model::new(target());
    let first = update(&mut model, progress(history()));
    answer(&mut model, &first[0]);
    let asked = press(&mut model, ",,,");
    assert_eq!(
        asked.iter().map(|a| ask(a).1).collect::<Vec<_>>(),
        [11, 10, 9]
    );
    // The old content stays until the answer that counts is here, and is known for what it is.
    answer(&mut model, &asked[0]);
    assert_eq!(model.look.as_ref().unwrap().question.epoch, 12);
    assert_eq!(model.at, 9);
    answer(&mut model, &asked[2]);
    assert_eq!(model.look.as_ref().unwrap().question.epoch, 9);
    assert!(model.pending.is_none());
}

#[test]
fn following_waits_for_the_answer_under_way() {
    let mut model = Model::new(target());
    let mut short = history();
    short.checkpoints.truncate(10);
    short.head = 10;
    let first = update(&mut model, progress(short));
    assert_eq!(ask(&first[0]).1, 10);
    // Newer checkpoints cancel nothing: else a fast history would never be shown.
    assert!(update(&mut model, progress(history())).is_empty());
    let next = answer(&mut model, &first[0]);
    assert_eq!((model.at, ask(&next[0]).1), (10, 12));
    assert!(answer(&mut model, &next[0]).is_empty());
    assert_eq!((model.at, model.standing()), (12, Standing::Live));
}

#[test]
fn stepping_follows_the_branch() {
    let mut bench = Bench::new();
    let mut line = vec![bench.model.at];
    for _ in 0..9 {
        bench.keys(",");
        line.push(bench.model.at);
    }
    // @9 came from @5: the future that was left is not on the way.
    assert_eq!(line, [12, 11, 10, 9, 5, 4, 3, 2, 1, 1]);
    assert!(bench.model.notice.is_some());
    for _ in 0..4 {
        bench.keys(".");
    }
    assert_eq!(bench.model.at, 5);
    bench.keys(".");
    assert_eq!(bench.model.at, 9);
    // By number the other branch is reached, and stepping stays on it.
    bench.keys("1k");
    assert_eq!(bench.model.at, 8);
    bench.keys(",,,");
    assert_eq!(bench.model.at, 5);
    bench.keys("<End>");
    assert_eq!((bench.model.at, bench.model.following), (12, true));
}

#[test]
fn a_checkpoint_that_is_no_longer_kept_has_neighbours() {
    let mut bench = Bench::new();
    bench.keys("<Home>...");
    assert_eq!(bench.model.at, 4);
    let mut thinned = history();
    thinned.checkpoints.retain(|row| row.epoch != 4);
    bench.take(progress(thinned));
    assert_eq!(bench.model.at, 4);
    bench.keys(",");
    assert_eq!(bench.model.at, 3);
}

#[test]
fn a_rewind_is_asked_about_and_only_then_done() {
    let mut bench = Bench::new();
    bench.keys("R");
    assert!(
        bench.model.overlays.is_empty(),
        "now is no place to go back to"
    );
    bench.keys(",,R");
    assert_eq!(bench.model.overlays, [Overlay::Confirm(Deed::Rewind(10))]);
    bench.keys("n").keys("R<Esc>").keys("Rx,");
    assert!(bench.rewinds.is_empty());
    assert_eq!(bench.model.at, 10, "keys under a question do not step");
    bench.keys("y");
    assert_eq!(bench.rewinds, [10]);
    bench.take(Event::Rewound(Err("a thread cannot be made again".into())));
    assert!(bench.model.notice.as_ref().unwrap().bad);
    assert_eq!(bench.model.standing(), Standing::Past);
}

fn stop(function: &str, line: u32) -> Stop {
    Stop {
        state: State::Stopped,
        reason: Some(Reason::Step),
        epoch: Some(12),
        tid: 4712,
        function: Some(function.to_owned()),
        file: Some("/src/ticker.c".to_owned()),
        line: Some(line),
        ..Stop::default()
    }
}

#[test]
fn control_is_asked_about_once() {
    let mut bench = Bench::new();
    bench.keys("s");
    assert!(matches!(
        bench.model.overlays[..],
        [Overlay::Confirm(Deed::Control(Drive::Run(Act::Pause)))]
    ));
    bench.keys("n");
    assert!(bench.drives.is_empty(), "nothing is done without leave");
    bench.keys("sy");
    assert_eq!(bench.drives[0], Drive::List);
    assert_eq!(
        bench.drives[1],
        Drive::Run(Act::Pause),
        "one that runs stands first"
    );
    bench.keys("n");
    assert_eq!(bench.drives.len(), 2, "one step after the other");
    bench.keys(",").take(Event::Stopped(Ok(stop("tick", 7))));
    assert_eq!(
        bench.model.standing(),
        Standing::Live,
        "it is shown where it stopped"
    );
    assert_eq!(
        (bench.model.tid, bench.model.target.word()),
        (Some(4712), "paused")
    );
    let said = &bench.model.notice.as_ref().unwrap().text;
    assert_eq!(said, "step: tick at ticker.c:7");
    bench.keys("n");
    assert!(matches!(
        bench.drives[2],
        Drive::Run(Act::Step { over: true, .. })
    ));
    bench.take(Event::Stopped(Err("no line information".into())));
    assert!(bench.model.notice.as_ref().unwrap().bad);
    bench.keys("c");
    assert_eq!(bench.drives.len(), 4);
    bench.keys("s");
    assert_eq!(bench.drives.len(), 4, "it runs");
    bench.keys("p");
    assert_eq!(bench.drives[4], Drive::Run(Act::Pause));
    let at = bench.model.at;
    bench.take(Event::Stopped(Ok(stop("tick", 8))));
    bench.keys("S");
    assert_eq!(
        (bench.drives.len(), bench.model.at),
        (5, at - 1),
        "back is to look back"
    );
}

#[test]
fn a_breakpoint_is_where_the_cursor_is() {
    let mut bench = Bench::new();
    bench.keys("3jby");
    let line = bench
        .model
        .look
        .as_ref()
        .unwrap()
        .source
        .as_ref()
        .unwrap()
        .line
        + 1;
    let place = format!("/src/ticker.c:{line}");
    let set =
        |drive: &Drive| matches!(drive, Drive::Set { what: What::Place(at), .. } if *at == place);
    assert!(bench.drives.iter().any(set), "{:?}", bench.drives);
    let point = Breakpoint {
        number: 3,
        locations: vec![Location {
            function: Some("tick".into()),
            file: Some("/src/ticker.c".into()),
            line: Some(line),
            ..Location::default()
        }],
        enabled: true,
        ..Breakpoint::default()
    };
    bench.take(Event::Points(Ok(Points {
        all: vec![point.clone()],
        set: Some(point),
    })));
    let said = &bench.model.notice.as_ref().unwrap().text;
    assert!(said.starts_with("breakpoint 3: tick at"), "{said}");
    bench.keys("gB");
    assert_eq!(bench.model.results.as_ref().unwrap().rows.len(), 1);
    bench.keys("3b");
    assert_eq!(bench.drives.last(), Some(&Drive::Delete(3)));
    bench.keys(":break tick if count > 3<Enter>");
    let condition = Some("count > 3".to_owned());
    let what = What::Place("tick".to_owned());
    assert_eq!(bench.drives.last(), Some(&Drive::Set { what, condition }));
    // After slsd was killed nobody is attached, and nothing is set.
    bench.take(Event::Progress {
        history: history(),
        state: "detached".into(),
        comm: None,
        trouble: None,
    });
    assert!(bench.model.control.points.is_empty());
    bench.keys("c");
    let said = &bench.model.notice.as_ref().unwrap().text;
    assert!(said.contains("slsctl attach -p 4711 -o mem"), "{said}");
}

#[test]
fn a_watchpoint_is_called_by_what_it_watches() {
    let mut bench = Bench::new();
    let point = Breakpoint {
        number: 2,
        expr: "rounds".into(),
        watches: true,
        locations: vec![Location {
            address: 0x40d8,
            ..Location::default()
        }],
        ..Breakpoint::default()
    };
    bench.take(Event::Points(Ok(Points {
        all: vec![point.clone()],
        set: Some(point),
    })));
    let said = &bench.model.notice.as_ref().unwrap().text;
    assert_eq!(said, "watchpoint 2: rounds at 0x40d8");
}

#[test]
fn a_dead_process_is_not_rewound() {
    let mut bench = Bench::new();
    bench.take(Event::Progress {
        history: history(),
        state: "dead".into(),
        comm: Some(String::new()),
        trouble: None,
    });
    assert_eq!(bench.model.target.comm, "ticker", "its name is remembered");
    bench.keys(",R");
    assert!(bench.model.overlays.is_empty());
    assert_eq!(bench.model.standing(), Standing::Dead);
}

#[test]
fn the_base_is_set_and_taken_back() {
    let mut bench = Bench::new();
    assert_eq!(bench.model.question().base, Some(11));
    bench.keys("<Home>gd<End>");
    assert_eq!(bench.model.question().base, Some(1));
    bench.keys("<Home>");
    assert_eq!(
        bench.model.question().base,
        None,
        "nothing differs from itself"
    );
    bench.keys("gd");
    assert_eq!(bench.model.base, Base::Previous);
}

#[test]
fn variables_open_lazily() {
    let mut bench = Bench::new();
    let rows = |bench: &Bench| bench.model.rows.len();
    let closed = rows(&bench);
    // A million elements: a few are decoded, more when asked for.
    bench.keys("4");
    let squares = bench
        .model
        .rows
        .iter()
        .position(|row| row.name == "squares")
        .unwrap();
    bench.keys(&"j".repeat(squares)).keys("<Enter>");
    let names = |bench: &Bench| -> Vec<String> {
        bench
            .model
            .rows
            .iter()
            .map(|row| row.name.clone())
            .collect()
    };
    // The first hundred, then nodes of hundreds and of ten thousands.
    assert_eq!(rows(&bench), closed + 100 + 99 + 99);
    let before = names(&bench);
    assert_eq!(before.last().unwrap(), "[990000..999999]");
    bench.keys("G<Enter>");
    assert_eq!(rows(&bench), closed + 298 + 100);
    bench.keys("G<Enter>");
    let last = bench.model.rows.last().unwrap();
    assert_eq!(
        (last.name.as_str(), last.text.as_str()),
        ("[999999]", "999999")
    );
    assert_eq!(last.kind.path(), Some("squares[999999]"));
    // Closed again, nothing of it is asked for.
    bench.keys("<Left><Left><Left><Left>");
    assert_eq!(names(&bench), before);
    assert!(bench.model.question().stretches.is_empty());
    // Globals that are not shown are not read.
    let globals = bench
        .model
        .rows
        .iter()
        .position(|row| row.name == "Globals")
        .unwrap();
    bench
        .keys(&"k".repeat(500))
        .keys(&"j".repeat(globals))
        .keys("<Left>");
    assert!(!bench.model.question().globals);
    assert!(bench.model.look.as_ref().unwrap().globals.is_empty());
}

#[test]
fn the_cursor_stays_on_its_variable_while_others_come_and_go() {
    let mut bench = Bench::new();
    bench.keys("4");
    let counter = bench
        .model
        .rows
        .iter()
        .position(|row| row.name == "counter")
        .unwrap();
    bench.keys(&"j".repeat(counter)).keys(",");
    assert_eq!(bench.model.selected_variable().unwrap().name, "counter");
    bench.keys("ea + b<Enter>");
    assert_eq!(bench.model.rows[1].name, "a + b");
    // The cursor shows what was asked for; it is taken away where it stands, and nowhere else.
    assert_eq!(bench.model.selected_variable().unwrap().name, "a + b");
    bench.keys("k<Del>");
    assert_eq!(bench.model.watches, ["a + b"], "the title is no expression");
    bench.keys("j<Del>");
    assert!(bench.model.watches.is_empty());
}

#[test]
fn differences_are_found_by_key_and_nan_is_none() {
    let mut bench = Bench::new();
    bench.keys(",4jj<Enter>");
    let row = |bench: &Bench, name: &str| {
        bench
            .model
            .rows
            .iter()
            .find(|row| row.name == name)
            .cloned()
            .unwrap()
    };
    assert_eq!(row(&bench, "ticks").changed.as_deref(), Some("100"));
    assert_eq!(row(&bench, "mean").changed, None);
    bench.keys("jjjj<Enter>");
    assert_eq!(row(&bench, "[\"steady\"]").changed, None);
    assert_eq!(row(&bench, "[\"moving\"]").changed.as_deref(), Some("100"));
}

#[test]
fn memory_goes_to_the_variable_and_on_from_there() {
    let mut bench = Bench::new();
    bench.keys("4jgm");
    assert_eq!(bench.model.memory, MemoryAt::Variable("step".into()));
    assert_eq!(bench.model.focus, Pane::Memory);
    bench.keys("jj");
    assert_eq!(bench.model.memory, MemoryAt::Address(0x7fff_0000_1020));
}

#[test]
fn threads_and_frames_are_selected() {
    let mut bench = Bench::new();
    bench.keys("2jjj<Enter>");
    assert_eq!(
        bench.model.question().frame.unwrap().function.as_deref(),
        Some("main")
    );
    bench.keys("j<Enter>");
    assert_eq!(bench.model.question().tid, Some(4712));
    assert_eq!(bench.model.question().frame, None);
    // A frame of a thread that is not selected selects both.
    bench.keys("ggG<Enter>");
    assert_eq!(bench.model.question().frame.unwrap().index, 2);
    // And the frames can be gone along from anywhere.
    let mut bench = Bench::new();
    bench.keys("u");
    assert_eq!(
        bench.model.question().frame.unwrap().function.as_deref(),
        Some("main")
    );
    bench.keys("dd");
    assert_eq!(
        bench.model.question().frame.unwrap().function.as_deref(),
        Some("usleep")
    );
    bench.keys("d");
    assert!(bench.model.notice.is_some());
}

#[test]
fn escape_closes_one_thing_and_q_quits_from_anywhere() {
    for keys in ["q", "?q", ",Rq", "gq", "<C-c>", "/<C-c>", "<C-p><C-c>"] {
        let mut bench = Bench::new();
        bench.keys(keys);
        assert!(bench.model.quit, "{keys}");
    }
    let mut bench = Bench::new();
    bench.keys("?<Esc><Esc>/q<Esc>:q<Esc><C-p>q<Esc>g<Esc>");
    assert!(!bench.model.quit && bench.model.overlays.is_empty());
}

#[test]
fn bookmarks_come_back_and_go() {
    let mut bench = Bench::new();
    bench.keys(",,m<End>'a");
    assert_eq!((bench.model.at, bench.model.following), (10, false));
    bench.keys("m");
    assert!(bench.model.bookmarks.is_empty());
}

#[test]
fn what_is_asked_leads_to_its_checkpoint_and_escape_gives_it_up() {
    let mut bench = Bench::new();
    bench.keys("4Gkt");
    assert_eq!(
        (bench.model.tab(), bench.model.focus),
        (Tab::Results, Pane::Memory)
    );
    bench.keys("ggjj<Enter>");
    assert_eq!(bench.model.at, 3);
    // Changes of the selected value, both ways.
    bench.keys("4>");
    assert_eq!(bench.model.at, 5);
    bench.keys("<lt>");
    assert_eq!(bench.model.at, 3);
    bench.holds = Some(sls_tui::clerk::Desk::Query);
    bench.keys(":blame counter<Enter>");
    assert!(bench.model.query.is_some());
    bench.keys("<Esc>");
    assert!(bench.model.query.is_none(), "given up");
    let results = bench.model.results.clone();
    let (desk, number, job) = bench.held.pop().unwrap();
    let found = Ok(Box::new(fixture::finding(&job)));
    bench.take(Event::Found {
        desk,
        number,
        found,
    });
    assert_eq!(
        bench.model.results, results,
        "what was given up does not come"
    );
}

#[test]
fn names_and_members_are_completed() {
    let mut bench = Bench::new();
    let line = |bench: &Bench| match bench.model.overlays.last() {
        Some(Overlay::Prompt(prompt)) => prompt.text.clone(),
        other => panic!("{other:?}"),
    };
    bench.keys(":rew<Tab>");
    assert_eq!(line(&bench), "rewind");
    bench.keys("<Esc>ecou<Tab>");
    assert_eq!(line(&bench), "count");
    bench.keys("<Tab><Tab>");
    assert_eq!(line(&bench), "counter");
    bench.keys("<Esc>elen(state.la<Tab>");
    assert_eq!(line(&bench), "len(state.label");
    // Lines typed before come back.
    bench.keys("<Esc>:base @3<Enter>:<Up>");
    assert_eq!(
        (line(&bench).as_str(), bench.model.base),
        ("base @3", Base::At(3))
    );
}

#[test]
fn a_daemon_that_is_gone_takes_nothing_away() {
    let mut bench = Bench::new();
    bench.keys(",");
    bench.take(Event::Lost("connect: refused".into()));
    bench.keys(",");
    assert_eq!(
        bench.model.look.as_ref().unwrap().question.epoch,
        11,
        "the old stays"
    );
    bench.take(progress(history()));
    assert_eq!(bench.model.look.as_ref().unwrap().question.epoch, 10);
    assert!(bench.model.lost.is_none());
}

#[test]
fn the_mouse_selects_scrolls_and_scrubs_and_never_rewinds() {
    use crossterm::event::{KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
    let mut bench = Bench::new();
    let mouse = |bench: &mut Bench, kind, column, row| {
        let modifiers = KeyModifiers::NONE;
        bench.take(Event::Mouse(MouseEvent {
            kind,
            column,
            row,
            modifiers,
        }));
    };
    let down = MouseEventKind::Down(MouseButton::Left);
    mouse(&mut bench, down, 3, 3);
    assert_eq!((bench.model.at, bench.model.focus), (3, Pane::Timeline));
    mouse(&mut bench, MouseEventKind::Drag(MouseButton::Left), 5, 3);
    assert_eq!(bench.model.at, 5);
    mouse(&mut bench, down, 10, 17);
    assert_eq!(bench.model.focus, Pane::Variables);
    let selected = bench.model.cursors.row(Tab::Variables);
    mouse(&mut bench, MouseEventKind::ScrollDown, 10, 17);
    assert!(bench.model.cursors.row(Tab::Variables) > selected);
    bench.keys("R");
    for row in 0..24 {
        mouse(&mut bench, down, 30, row);
    }
    assert!(bench.rewinds.is_empty());
}

#[test]
fn a_resize_while_something_is_asked_lays_out_anew_and_loses_nothing() {
    let mut model = Model::new(target());
    let first = update(&mut model, progress(history()));
    answer(&mut model, &first[0]);
    let mut asked = press(&mut model, ",");
    for (columns, rows) in [(60, 15), (160, 48), (20, 5), (120, 36)] {
        let effects = update(&mut model, Event::Resized(columns, rows));
        asked.extend(
            effects
                .into_iter()
                .filter(|effect| matches!(effect, Effect::Ask { .. })),
        );
        let screen = fixture::screen_of(&model, (columns, rows));
        let whole = columns >= 60;
        assert_eq!(screen.contains("PAST @11"), whole, "{screen}");
        // What was there before is shown until the answer is here.
        assert_eq!(screen.contains("counter"), whole, "{screen}");
        assert_eq!(model.look.as_ref().unwrap().question.epoch, 12);
    }
    answer(&mut model, asked.last().unwrap());
    assert!(model.pending.is_none());
    let screen = fixture::screen_of(&model, (120, 36));
    assert!(screen.contains("counter = 110  was 100"), "{screen}");
}

#[test]
fn a_fault_of_a_thread_ends_the_program_in_good_order() {
    let mut model = Model::new(target());
    update(&mut model, progress(history()));
    let why = "a fault in this program: x";
    assert!(update(&mut model, Event::Failed(why.into())).is_empty());
    assert_eq!((model.quit, model.failure.as_deref()), (true, Some(why)));
}
