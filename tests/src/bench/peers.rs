//! What others stop the same target for.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::ensure;

use crate::felt::Observer;

/// gdb's core of a running process, onto tmpfs.
pub fn gcore(observer: &Observer) -> anyhow::Result<u64> {
    let folder = tempfile::Builder::new()
        .prefix("bench-gcore-")
        .tempdir_in("/dev/shm")?;
    let prefix = folder.path().join("core");
    observer.longest_during(|| {
        run(Command::new("gcore")
            .arg("-o")
            .arg(&prefix)
            .arg(observer.pid().to_string()))
    })
}

/// CRIU's image of a running process, onto tmpfs. None without `CRIU=PATH`.
pub fn criu(observer: &Observer) -> anyhow::Result<Option<u64>> {
    let Some(program) = std::env::var_os("CRIU") else {
        return Ok(None);
    };
    let folder = tempfile::Builder::new()
        .prefix("bench-criu-")
        .tempdir_in("/dev/shm")?;
    let dump = || {
        let mut command = Command::new(&program);
        command.args([
            "dump",
            "--leave-running",
            "--shell-job",
            "-t",
            &observer.pid().to_string(),
        ]);
        run(command.arg("-D").arg(folder.path()))
    };
    observer.longest_during(dump).map(Some)
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let out = command.stdin(Stdio::null()).output()?;
    let program = Path::new(command.get_program()).display().to_string();
    let said = String::from_utf8_lossy(&out.stderr);
    ensure!(out.status.success(), "{program}: {}: {said}", out.status);
    Ok(())
}
