//! Builds the tracees: small programs that check themselves.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=tracees");
    let out = std::env::var("OUT_DIR").unwrap_or_default();
    for entry in std::fs::read_dir("tracees").into_iter().flatten().flatten() {
        let path = entry.path();
        let stem = path
            .file_stem()
            .and_then(|s| s.to_str())
            .unwrap_or_default();
        let target = Path::new(&out).join(stem);
        let mut compiler = match path.extension().and_then(|e| e.to_str()) {
            Some("c") => command("gcc", &["-std=gnu11"]),
            Some("cpp") => command("g++", &["-std=c++17"]),
            Some("rs") => command("rustc", &["--edition", "2021", "-C", "opt-level=1"]),
            _ => continue,
        };
        compiler.arg("-g").arg("-o").arg(&target).arg(&path);
        if path.extension().is_some_and(|e| e != "rs") {
            compiler.args(["-O1", "-Wall", "-pthread", "-fno-omit-frame-pointer"]);
        }
        match compiler.status() {
            Ok(status) if status.success() => {}
            other => panic!("{compiler:?}: {other:?}; ./x setup installs the compilers"),
        }
    }
}

fn command(program: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args);
    command
}
