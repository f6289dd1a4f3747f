//! Screens: a fixed history, keys, what is shown, at two sizes; colours apart.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a failed test may panic"
)]

mod fixture;

use fixture::Bench;
use libsls::protocol::Rewound;
use ratatui::style::{Color, Modifier};
use sls_tui::theme::Theme;
use sls_tui::update::Event;

const SMALL: (u16, u16) = (80, 24);
const MIDDLE: (u16, u16) = (120, 36);
const LARGE: (u16, u16) = (160, 48);

fn after(keys: &str) -> Bench {
    let mut bench = Bench::new();
    bench.keys(keys);
    bench
}

#[test]
fn live() {
    insta::assert_snapshot!("live_80x24", after("").screen(SMALL));
    insta::assert_snapshot!("live_160x48", after("").screen(LARGE));
}

#[test]
fn looking_back() {
    // Into the branch that was left: @8 is not on the way to the newest.
    let bench = after("kkkk");
    insta::assert_snapshot!("past_80x24", bench.screen(SMALL));
    insta::assert_snapshot!("past_160x48", bench.screen(LARGE));
}

#[test]
fn open_variables() {
    let bench = after(",4jj<Enter>jjjj<Enter>jjj<Enter>");
    insta::assert_snapshot!("variables_80x24", bench.screen(SMALL));
    insta::assert_snapshot!("variables_160x48", bench.screen(LARGE));
}

#[test]
fn memory_against_a_base() {
    let bench = after("<Home>gd<End>5");
    insta::assert_snapshot!("memory_80x24", bench.screen(SMALL));
    insta::assert_snapshot!("memory_160x48", bench.screen(LARGE));
}

#[test]
fn every_tab() {
    for (name, keys) in [
        ("assembly", "3]"),
        ("pages", "5]"),
        ("fds", "5]]"),
        ("results", "4G<Up><Up>t"),
        ("log", "m,m:nonsense<Enter>:tab log<Enter>"),
    ] {
        let bench = after(keys);
        insta::assert_snapshot!(format!("{name}_80x24"), bench.screen(SMALL));
        insta::assert_snapshot!(format!("{name}_120x36"), bench.screen(MIDDLE));
    }
}

#[test]
fn threads_source_and_the_tree() {
    insta::assert_snapshot!("stacks_80x24", after("2j<Down>jj<Enter>").screen(SMALL));
    insta::assert_snapshot!("stacks_120x36", after("2j<Down>jj<Enter>").screen(MIDDLE));
    // Zoomed, the timeline is a tree of branches.
    insta::assert_snapshot!("tree_80x24", after("m1+").screen(SMALL));
    insta::assert_snapshot!("watch_80x24", after("ecounter<Enter>").screen(SMALL));
    insta::assert_snapshot!("filter_80x24", after("4/count<Enter>").screen(SMALL));
    insta::assert_snapshot!("palette_80x24", after("<C-p>chang").screen(SMALL));
    insta::assert_snapshot!("jump_80x24", after("m'").screen(SMALL));
    insta::assert_snapshot!("completion_80x24", after("ecoun<Tab>").screen(SMALL));
    insta::assert_snapshot!("prefix_80x24", after("g").screen(SMALL));
}

#[test]
fn overlays() {
    insta::assert_snapshot!("help_80x24", after("?").screen(SMALL));
    insta::assert_snapshot!("help_160x48", after("?").screen(LARGE));
    insta::assert_snapshot!("confirm_80x24", after(",,R").screen(SMALL));
    insta::assert_snapshot!(
        "prompt_80x24",
        after("estate.ticks * 世<Left>").screen(SMALL)
    );
    let mut bench = after(",,Ry");
    bench.take(Event::Rewound(Ok(Rewound {
        from: 13,
        to: 10,
        branch: "rewind-2".into(),
        pages: 1234,
        stop_us: 4567,
        not_restored: vec!["bytes sent on descriptor 7 (socket)".into()],
    })));
    insta::assert_snapshot!("rewound_80x24", bench.screen(SMALL));
    insta::assert_snapshot!("rewound_160x48", bench.screen(LARGE));
    insta::assert_snapshot!("confirm_160x48", after(",,R").screen(LARGE));
    insta::assert_snapshot!(
        "prompt_160x48",
        after("estate.ticks * 世<Left>").screen(LARGE)
    );
}

/// The style of the cell where `text` begins.
fn style_of(bench: &Bench, text: &str, theme: Theme) -> ratatui::style::Style {
    let buffer = bench.buffer(LARGE, theme);
    let wanted: Vec<String> = text.chars().map(String::from).collect();
    let symbols: Vec<&str> = buffer.content.iter().map(|cell| cell.symbol()).collect();
    let at = symbols
        .windows(wanted.len())
        .position(|window| window.iter().zip(&wanted).all(|(a, b)| a == b))
        .unwrap_or_else(|| panic!("{text:?} is not on the screen"));
    buffer.content[at].style()
}

#[test]
fn changes_have_a_colour_and_a_sign() {
    let bench = after(",");
    assert_eq!(
        style_of(&bench, "110  was 100", Theme::dark()).fg,
        Some(Color::Yellow)
    );
    assert_eq!(
        style_of(&bench, "*   counter", Theme::dark()).fg,
        Some(Color::Yellow)
    );
    // What did not change has neither.
    let steady = style_of(&bench, "    step: int = 1", Theme::dark());
    assert_eq!(steady.fg, Some(Color::Reset));
}

#[test]
fn standings_have_their_colours() {
    for (keys, word, colour) in [
        ("", " LIVE @12", Color::Green),
        (",", " PAST @11", Color::Yellow),
    ] {
        assert_eq!(
            style_of(&after(keys), word, Theme::dark()).fg,
            Some(colour),
            "{word}"
        );
    }
    let mut dead = after("");
    dead.take(Event::Progress {
        history: fixture::history(),
        state: "dead".into(),
        comm: None,
        trouble: None,
    });
    assert_eq!(
        style_of(&dead, " DEAD @12", Theme::dark()).fg,
        Some(Color::Red)
    );
}

#[test]
fn without_colours_only_modifiers_remain() {
    for keys in ["", ",4jj<Enter>", "<Home>gd<End>5", "?", ",R"] {
        let buffer = after(keys).buffer(LARGE, Theme::none());
        for cell in &buffer.content {
            assert_eq!((cell.fg, cell.bg), (Color::Reset, Color::Reset), "{keys}");
        }
        let marked = buffer
            .content
            .iter()
            .any(|cell| cell.modifier.contains(Modifier::REVERSED));
        assert!(marked, "{keys}");
    }
}

#[test]
fn every_size_can_be_drawn_and_nothing_raw_reaches_the_terminal() {
    for keys in [
        "",
        ",4jj<Enter>",
        "5",
        "?",
        ",R",
        "/世",
        "2jj<Enter>",
        "3]",
        "5]",
        "5]]",
        ":heap<Enter>",
        "<C-p>wa",
        "+",
        "e世",
        "ecoun<Tab>",
    ] {
        let bench = after(keys);
        for width in [1, 2, 20, 29, 30, 31, 79, 80, 119, 120, 300] {
            for height in [1, 7, 8, 9, 10, 24, 36, 100] {
                let buffer = bench.buffer((width, height), Theme::dark());
                for cell in &buffer.content {
                    let raw = |c: char| c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c);
                    assert!(
                        !cell.symbol().contains(raw),
                        "{:?} at {width}x{height}",
                        cell.symbol()
                    );
                }
            }
        }
    }
}

#[test]
fn the_help_is_whole_on_a_small_screen() {
    for ours in [true, false] {
        let mut bench = after("?");
        bench.model.target.ours = ours;
        let mut seen = String::new();
        for _ in 0..12 {
            seen += &bench.screen(SMALL);
            bench.keys("<PgDn>");
        }
        // What is beside the box may be cut, what is in it not.
        let inside = |line: &str| line.split('║').nth(1).map(str::to_owned);
        let cut = seen
            .lines()
            .filter_map(inside)
            .find(|text| text.contains('…'));
        assert_eq!(cut, None);
        for entry in sls_tui::keys::TABLE {
            assert!(seen.contains(entry.help), "{}", entry.help);
        }
        let end = if ours { "lets go of it" } else { "stays so" };
        assert!(seen.contains(end), "{seen}");
    }
}

#[test]
fn control() {
    let mut bench = after("c");
    insta::assert_snapshot!("control_80x24", bench.screen(SMALL));
    insta::assert_snapshot!("control_160x48", bench.screen(LARGE));
    bench.keys("y");
    insta::assert_snapshot!("running_80x24", bench.screen(SMALL));
}
