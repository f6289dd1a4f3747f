//! What docs/tui.md says of keys, commands and looks is what the tables say.
#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

use std::fmt::Write as _;
use std::path::Path;

use sls_tui::keys::{Keymap, TABLE};
use sls_tui::theme::ROLES;
use sls_tui::update::listed;

/// Set, the page is written anew in place of being compared.
const WRITE: &str = "SLS_WRITE_DOCS";

fn keys() -> String {
    let map = Keymap::default();
    let mut text = "| keys | name | what it does |\n|---|---|---|\n".to_owned();
    for entry in TABLE {
        let keys: Vec<String> = map
            .keys_of(entry.action)
            .iter()
            .map(|keys| format!("`{keys}`"))
            .collect();
        let _ = writeln!(
            text,
            "| {} | {} | {} |",
            keys.join(" "),
            entry.name,
            entry.help
        );
    }
    text
}

fn commands() -> String {
    let mut text = "| command | what it does |\n|---|---|\n".to_owned();
    for [name, arguments, help] in listed() {
        let arguments = arguments.replace('|', "\\|");
        let _ = writeln!(text, "| `{name} {arguments}` | {help} |");
    }
    text
}

fn put(page: &str, (from, to): (&str, &str), text: &str) -> String {
    let (before, rest) = page.split_once(from).unwrap();
    let (_, after) = rest.split_once(to).unwrap();
    format!("{before}{from}{text}{to}{after}")
}

#[test]
fn the_page_says_what_the_tables_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/tui.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let roles: Vec<&str> = ROLES.iter().map(|(name, _)| *name).collect();
    let keys = format!("\n{}", keys());
    let commands = format!("\n{}", commands());
    let mut made = put(&page, ("<!-- keys -->", "<!-- end -->"), &keys);
    made = put(&made, ("<!-- commands -->", "<!-- end -->"), &commands);
    made = put(
        &made,
        ("<!-- roles -->", "<!-- roles end -->"),
        &roles.join(", "),
    );
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(&path, &made).unwrap();
        return;
    }
    assert_eq!(
        page, made,
        "write it anew: {WRITE}=1 cargo test -p sls-tui --test manual"
    );
}
