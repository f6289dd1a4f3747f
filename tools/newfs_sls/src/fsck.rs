//! fsck_sls: checks a store, and puts it in order. `slsctl fsck` is this program.

mod progress;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::Parser;
use serde_json::{Value, json};
use slos::fsck::{Finding, FsckReport, Repaired, fsck_watched, repair_watched};
use slos::{Device, Epoch, FileDevice};

use progress::Shown;

/// Check a store for damage; it may be in use meanwhile
#[derive(Parser)]
#[command(
    version,
    max_term_width = 100,
    after_help = "Example: fsck_sls history.store\n\n\
        Exit status: 0 clean, 1 failed, 2 wrong usage, 3 damage was found."
)]
struct Args {
    /// Put right what there is a copy of, and remove checkpoints that are damaged; the store must not be in use
    #[arg(long)]
    repair: bool,
    /// Print one JSON document on standard output and nothing else there
    #[arg(long)]
    json: bool,
    /// A block device, or a plain file
    #[arg(value_name = "DEVICE|FILE")]
    path: PathBuf,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(3),
        Err(error) => {
            eprintln!("fsck: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether the store was clean.
fn run(args: &Args) -> anyhow::Result<bool> {
    let path = &args.path;
    let shown = Shown::new();
    let (report, repaired) = if args.repair {
        let repaired = mend(path, &shown)?;
        (repaired.before, Some((repaired.after, repaired.dropped)))
    } else {
        let device = FileDevice::read_only(path).with_context(|| path.display().to_string())?;
        (
            fsck_watched(&device, &|stage, done, total| {
                shown.tell(stage, done, total)
            })
            .with_context(|| path.display().to_string())?,
            None,
        )
    };
    drop(shown);
    if args.json {
        println!("{}", document(&report, repaired.as_ref()));
    } else {
        print!("{}", text(path, &report, repaired.as_ref()));
    }
    Ok(report.is_clean())
}

fn mend(path: &Path, progress: &Shown) -> anyhow::Result<Repaired> {
    let shown = path.display();
    let device: Arc<dyn Device> = match FileDevice::open(path) {
        Ok(device) => Arc::new(device),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            bail!(
                "{shown} is in use by a running slsd; only a check without --repair works beside it"
            )
        }
        Err(error) => return Err(error).context(shown.to_string()),
    };
    let watcher = |stage, done, total| progress.tell(stage, done, total);
    repair_watched(&device, path, &watcher).with_context(|| shown.to_string())
}

type Mended = (FsckReport, Vec<(String, Epoch)>);

fn text(path: &Path, report: &FsckReport, repaired: Option<&Mended>) -> String {
    let mut text = String::new();
    for finding in &report.findings {
        text += &format!("{finding}\n");
    }
    if let Some((after, dropped)) = repaired {
        for (partition, epoch) in dropped {
            text += &format!("{partition} {epoch}: removed\n");
        }
        for finding in &after.findings {
            text += &format!("still: {finding}\n");
        }
    }
    let verdict = match (report.is_clean(), repaired) {
        (true, _) => "clean".to_owned(),
        (false, None) => format!("damaged, {} findings", report.findings.len()),
        (false, Some((after, _))) if after.is_clean() => "was damaged, is clean now".to_owned(),
        (false, Some(_)) => "is still damaged".to_owned(),
    };
    let parts: Vec<String> = report
        .partitions
        .iter()
        .map(|(name, count)| format!("{name} ({count})"))
        .collect();
    let parts = if parts.is_empty() {
        "no partition".to_owned()
    } else {
        parts.join(", ")
    };
    text + &format!(
        "{}: {verdict}; {} checkpoints, {} page versions, {} of {} segments in use: {parts}\n",
        path.display(),
        report.checkpoints,
        report.versions,
        report.used,
        report.slots
    )
}

fn document(report: &FsckReport, repaired: Option<&Mended>) -> Value {
    let row = |finding: &Finding| {
        let subject = finding.subject();
        json!({
            "partition": subject.map(|s| s.0),
            "epoch": subject.map(|s| s.1.0),
            "what": finding.to_string(),
        })
    };
    let parts = report.partitions.iter();
    let mut document = json!({
        "clean": report.is_clean(),
        "checkpoints": report.checkpoints,
        "versions": report.versions,
        "segments": report.used,
        "slots": report.slots,
        "partitions": parts.map(|(name, count)| json!({"partition": name, "checkpoints": count})).collect::<Vec<_>>(),
        "damage": report.findings.iter().map(row).collect::<Vec<_>>(),
    });
    if let Some((after, dropped)) = repaired {
        let dropped = dropped.iter();
        let removed: Vec<Value> = dropped
            .map(|(partition, epoch)| json!({"partition": partition, "epoch": epoch.0}))
            .collect();
        document["removed"] = removed.into();
        document["left"] = after.findings.iter().map(row).collect::<Vec<_>>().into();
    }
    document
}
