//! Renders the rows that campaigns reported as docs/trust.md: table FOLDER.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use testkit::Row;

const HEAD: &str = "\
# What shows that no target is hurt

Each row is a campaign of `./x soak`, which renews this page; `./x test` runs a short share of each from the same seed.
A try puts the target at risk once: it did not notice, or stood halted until the next slsd put it right, or was harmed.
Epochs are compared with what they should hold, by somebody else than who took them.

| campaign | seed | tries | unharmed | put right | harmed | epochs compared | wrong | |
|---|--:|--:|--:|--:|--:|--:|--:|---|
";

fn main() -> Result<()> {
    let folder = std::env::args_os()
        .nth(1)
        .context("usage: table FOLDER, with the rows that SLS_TRUST=FOLDER gave")?;
    print!("{}", page(&rows(Path::new(&folder))?));
    Ok(())
}

fn rows(folder: &Path) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for entry in folder
        .read_dir()
        .with_context(|| folder.display().to_string())?
    {
        let path = entry?.path();
        let text = std::fs::read(&path).with_context(|| path.display().to_string())?;
        rows.push(serde_json::from_slice(&text).with_context(|| path.display().to_string())?);
    }
    rows.sort_by(|a: &Row, b| a.campaign.cmp(&b.campaign));
    Ok(rows)
}

fn page(rows: &[Row]) -> String {
    let mut out = HEAD.to_owned();
    for r in rows {
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            r.campaign,
            r.seed,
            r.tries,
            r.unharmed,
            r.put_right,
            r.harmed,
            r.epochs,
            r.wrong,
            r.note
        );
    }
    out
}
