//! What events do to the model, and what they ask for.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a failed test may panic"
)]

mod fixture;

use fixture::{Bench, history, look, progress, target};
use sls_tui::data::MemoryAt;
use sls_tui::keys::parse;
use sls_tui::model::{Base, Model, Overlay, Pane, Standing};
use sls_tui::update::{Effect, Event, update};

fn press(model: &mut Model, keys: &str) -> Vec<Effect> {
    let keys = parse(keys).unwrap();
    keys.into_iter()
        .flat_map(|key| update(model, Event::Key(key)))
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
    update(
        model,
        Event::Looked {
            number: *number,
            look,
        },
    )
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
    assert_eq!(bench.model.overlays, [Overlay::Confirm { to: 10 }]);
    bench.keys("n").keys("R<Esc>").keys("Rx,");
    assert!(bench.rewinds.is_empty());
    assert_eq!(bench.model.at, 10, "keys under a question do not step");
    bench.keys("y");
    assert_eq!(bench.rewinds, [10]);
    bench.take(Event::Rewound(Err("a thread cannot be made again".into())));
    assert!(bench.model.notice.as_ref().unwrap().bad);
    assert_eq!(bench.model.standing(), Standing::Past);
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
    bench.keys("<Home>d<End>");
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
    assert_eq!(rows(&bench), closed + 33);
    assert_eq!(bench.model.rows.last().unwrap().text, "... 999968 more");
    bench.keys(&"j".repeat(33)).keys("<Enter>");
    assert_eq!(rows(&bench), closed + 129);
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
    bench.keys("/a + b<Enter>");
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
    bench.keys("4jm");
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
}

#[test]
fn escape_closes_one_thing_and_q_quits_from_anywhere() {
    for keys in ["q", "?q", ",Rq", "gq q"] {
        let mut bench = Bench::new();
        bench.keys(keys);
        assert!(bench.model.quit, "{keys}");
    }
    let mut bench = Bench::new();
    bench.keys("?<Esc><Esc>/q<Esc>");
    assert!(!bench.model.quit && bench.model.overlays.is_empty());
}
