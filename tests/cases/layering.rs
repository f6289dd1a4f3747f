//! Who may import whom (ARCHITECTURE.md): any other edge between our crates fails here.
#![allow(clippy::unwrap_used)] // A test.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Allowed imports, dev-dependencies aside.
const ALLOWED: &[(&str, &[&str])] = &[
    ("sls-record", &[]),
    ("sls-sys", &[]),
    ("slos", &[]),
    ("introspect", &[]),
    ("sls-keeper", &["sls-sys"]),
    (
        "sls-engine",
        &["sls-record", "sls-sys", "slos", "sls-keeper"],
    ),
    ("libsls", &["sls-record", "sls-sys", "introspect"]),
    ("sls-debuginfod", &["introspect"]),
    ("sls-tui", &["libsls", "introspect", "sls-debuginfod"]),
    ("slfs", &["sls-record", "slos", "libsls"]),
    ("newfs_sls", &["slos"]),
    ("slsctl", &["libsls", "introspect", "sls-debuginfod"]),
    ("sls-catalogue", &[]),
    (
        "slsd",
        &[
            "sls-engine",
            "slos",
            "libsls",
            "introspect",
            "sls-catalogue",
        ],
    ),
    (
        "testkit",
        &[
            "sls-record",
            "sls-sys",
            "slos",
            "introspect",
            "sls-keeper",
            "sls-engine",
            "libsls",
            "sls-tui",
            "slsctl",
            "slsd",
        ],
    ),
];

#[test]
fn only_the_allowed_edges() {
    let out = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let ours: BTreeSet<&str> = packages
        .iter()
        .map(|p| p["name"].as_str().unwrap())
        .collect();
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.iter().copied().collect();
    let mut wrong = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap();
        let Some(may) = allowed.get(name) else {
            wrong.push(format!("{name} is not in the list of rooms"));
            continue;
        };
        for dependency in package["dependencies"].as_array().unwrap() {
            let on = dependency["name"].as_str().unwrap();
            let only_for_tests = dependency["kind"] == "dev";
            if ours.contains(on) && !may.contains(&on) && !only_for_tests {
                wrong.push(format!("{name} imports {on}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(
        ours.len(),
        ALLOWED.len(),
        "a room is missing from the workspace"
    );
}

#[test]
fn one_version_of_the_named_crates() {
    let out = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--workspace",
            "--duplicates",
            "--depth",
            "0",
            "-e",
            "normal",
            "--offline",
        ])
        .output()
        .unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    let twice: BTreeSet<&str> = text
        .lines()
        .filter(|l| {
            ["gimli ", "object ", "crossterm ", "ratatui "]
                .iter()
                .any(|c| l.starts_with(c))
        })
        .collect();
    assert!(twice.is_empty(), "{twice:?}");
}
