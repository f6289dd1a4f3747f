//! Screens: a fixed history, keys, what is shown, at three sizes; colours apart.
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

/// What is shown, by the keys that lead there: every pane and every tab, overlays, and what only some moments show.
const SCREENS: &[(&str, &str)] = &[
    ("live", ""),
    // Into the branch that was left: @8 is not on the way to the newest.
    ("past", "kkkk"),
    // Zoomed, the timeline is a tree of branches.
    ("tree", "m1+"),
    ("stacks", "2j<Down>jj<Enter>"),
    ("source", "3jj"),
    ("source_alone", "3+"),
    ("assembly", "3]"),
    ("intel", ":syntax intel<Enter>3]"),
    ("variables", ",4jj<Enter>jjjj<Enter>jjj<Enter>"),
    ("elements", "4G<Enter>"),
    ("watch", "ecounter<Enter>"),
    ("filter", "4/count<Enter>"),
    ("memory", "<Home>gd<End>5"),
    ("pages", "5]"),
    ("fds", "5]]"),
    ("maps", ":tab maps<Enter>"),
    ("sockets", ":tab sockets<Enter>"),
    ("signals", ":tab signals<Enter>"),
    ("heap", ":tab heap<Enter>"),
    ("results", "4G<Up><Up>t"),
    ("log", "m,m:nonsense<Enter>:tab log<Enter>"),
    ("help", "?"),
    ("palette", "<C-p>chang"),
    ("jump", "m'"),
    ("completion", "ecoun<Tab>"),
    ("prefix", "g"),
    ("prompt", "estate.ticks * 世<Left>"),
    ("confirm", ",,R"),
    ("control", "c"),
    ("running", "cy"),
];

#[test]
fn every_screen_at_three_sizes() {
    for (name, keys) in SCREENS {
        at_three_sizes(name, &after(keys));
    }
}

fn at_three_sizes(name: &str, bench: &Bench) {
    for (columns, rows) in [SMALL, MIDDLE, LARGE] {
        insta::assert_snapshot!(
            format!("{name}_{columns}x{rows}"),
            bench.screen((columns, rows))
        );
    }
}

#[test]
fn what_a_rewind_has_done() {
    let mut bench = after(",,Ry");
    bench.take(Event::Rewound(Ok(Rewound {
        from: 13,
        to: 10,
        branch: "rewind-2".into(),
        pages: 1234,
        stop_us: 4567,
        not_restored: vec!["bytes sent on descriptor 7 (socket)".into()],
    })));
    at_three_sizes("rewound", &bench);
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

/// Each theme in its own words; what stands for a meaning is the same everywhere.
#[test]
fn themes_have_their_own_colours() {
    let bench = after(",");
    for (theme, changed, past, inline) in [
        (
            Theme::dark(),
            Color::Yellow,
            Color::Yellow,
            Color::Indexed(109),
        ),
        (
            Theme::light(),
            Color::Indexed(130),
            Color::Indexed(130),
            Color::Indexed(66),
        ),
        (Theme::sixteen(), Color::Yellow, Color::Yellow, Color::Cyan),
        (Theme::none(), Color::Reset, Color::Reset, Color::Reset),
    ] {
        let colour = |text| style_of(&bench, text, theme).fg;
        assert_eq!(colour("110  was 100"), Some(changed));
        assert_eq!(colour(" PAST @11"), Some(past));
        assert_eq!(colour("◂ step = 1"), Some(inline));
    }
}

/// A terminal of sixteen colours is sent no other, on any screen.
#[test]
fn sixteen_colours_are_enough() {
    for (name, keys) in SCREENS {
        let buffer = after(keys).buffer(LARGE, Theme::sixteen());
        let other = |colour| matches!(colour, Color::Indexed(_) | Color::Rgb(..));
        let found = buffer
            .content
            .iter()
            .find(|cell| other(cell.fg) || other(cell.bg));
        assert_eq!(found, None, "{name}");
    }
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
