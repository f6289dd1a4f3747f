//! A checkpoint as an ELF core in a file.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use libsls::Kept;
use libsls::elf_core::{Core, Load};
use libsls::record::{Backing, Mapping};
use libsls::view::CheckpointView;
use serde_json::json;
use tempfile::NamedTempFile;

use crate::arguments::{Place, ProcessArg, WrongUsage};
use crate::look::answer_from;
use crate::output::bytes;
use crate::progress::{Progress, Shown};
use crate::session::{Outcome, Session};

const PAGE: u64 = 4096;
/// Bytes read by one question.
const STEP: u64 = 1 << 20;

/// Write a checkpoint as an ELF core, which gdb and lldb open
#[derive(Debug, Args)]
#[command(
    after_help = "Example: slsctl dump -m @7 seven.core && gdb -batch -ex bt ./program seven.core"
)]
pub struct Dump {
    /// What is written: @N, @name, @-1, or pid:PID for a process as it is now
    #[arg(value_name = "VIEW")]
    place: Place,
    /// The core; a file of this name is replaced once the new one is whole
    #[arg(value_name = "FILE.core")]
    file: PathBuf,
    #[command(flatten)]
    which: ProcessArg,
}

impl Dump {
    pub fn run(&self, session: &Session) -> anyhow::Result<Outcome> {
        if let Place::Core(path) = &self.place {
            let message = format!("{} is a core already", path.display());
            return Err(WrongUsage(message).into());
        }
        answer_from(session, &self.which, &self.place, |look| {
            let view = look.checkpoint().context("a core has no record")?;
            let dumped =
                dump(view, &self.file).with_context(|| format!("write {}", self.file.display()))?;
            let json = json!({
                "partition": view.partition(),
                "epoch": look.epoch(),
                "pid": view.process().pid,
                "file": self.file.display().to_string(),
                "pages": dumped.pages,
                "bytes": dumped.len,
                "missing": dumped.missing,
            });
            session.answer(&json, |paint| {
                let mut text = format!(
                    "{}: process {} with {}; open it with gdb {} {0}\n",
                    self.file.display(),
                    view.process().pid,
                    bytes(dumped.pages * PAGE),
                    view.process().exe,
                );
                for what in &dumped.missing {
                    text += &format!("{} {what}\n", paint.bad("not in it:"));
                }
                text
            })
        })
    }
}

#[derive(Debug, Default)]
struct Dumped {
    /// Pages that were written; what else is in the core was never touched.
    pages: u64,
    len: u64,
    missing: Vec<String>,
}

/// Writes beside the file and takes its place at the end: there is never half a core.
fn dump(view: &CheckpointView, path: &Path) -> anyhow::Result<Dumped> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let file = NamedTempFile::new_in(folder)?;
    let (core, kept) = Core::of_view(view)?;
    file.as_file().write_all_at(core.head(), 0)?;
    let shown = Shown::counted("dump", core.loads().len());
    let mut dumped = Dumped {
        len: core.len(),
        ..Dumped::default()
    };
    write_loads(
        view,
        &core,
        &kept,
        file.as_file(),
        &mut dumped,
        shown.progress(),
    )?;
    drop(shown);
    file.as_file().set_len(core.len())?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(dumped)
}

fn write_loads(
    view: &CheckpointView,
    core: &Core,
    kept: &Kept,
    file: &File,
    dumped: &mut Dumped,
    progress: &Progress,
) -> io::Result<()> {
    let process = view.process();
    for load in core.loads() {
        let maps = &process.mappings;
        let at = maps.partition_point(|m| m.end <= load.start);
        if let Some(map) = maps.get(at) {
            match map.backing {
                Backing::File => write_run(
                    view,
                    load,
                    load.start..load.start + load.len,
                    map,
                    file,
                    dumped,
                )?,
                _ => {
                    for run in kept.within(process, map) {
                        write_run(view, load, run, map, file, dumped)?;
                    }
                }
            }
        }
        progress.step();
    }
    Ok(())
}

fn write_run(
    view: &CheckpointView,
    load: &Load,
    run: Range<u64>,
    map: &Mapping,
    file: &File,
    dumped: &mut Dumped,
) -> io::Result<()> {
    let mut buf = Vec::new();
    let mut at = run.start;
    while at < run.end {
        let len = STEP.min(run.end - at);
        buf.resize(usize::try_from(len).unwrap_or(0), 0);
        if let Err(why) = view.read_run(at, &mut buf) {
            // Page by page, so that only what cannot be read is missing; once it is named.
            let name = if map.path.is_empty() {
                "memory"
            } else {
                &map.path
            };
            dumped
                .missing
                .push(format!("some of {name} at {at:#x}: {}", why.reason));
            read_what_can_be(view, at, &mut buf);
        }
        file.write_all_at(&buf, load.offset + (at - load.start))?;
        dumped.pages += len / PAGE;
        at += len;
    }
    Ok(())
}

fn read_what_can_be(view: &CheckpointView, address: u64, buf: &mut [u8]) {
    for (at, page) in (address..).step_by(4096).zip(buf.chunks_mut(4096)) {
        if view.read_run(at, page).is_err() {
            page.fill(0);
        }
    }
}
