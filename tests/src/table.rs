//! Adds the rows that campaigns reported to those known and renders all: table KNOWN.jsonl FOLDER >PAGE.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result, bail};
use testkit::Row;

const HEAD: &str = "\
# What shows that no target is hurt

Written by `./x soak`, which runs the campaigns below whole; `./x test` runs a short share of each. Chance is drawn from a
seed, so the same seed does the same again as far as the machine lets it.

- **tries**: times a running program was put at risk. Each is one of: **unharmed**, it did not notice; **put right**, it stood
  halted until the next daemon put it right; **harmed**, it was mixed, wrong or dead.
- **epochs**: checkpoints compared, by somebody else than who took them, with what they should hold; **wrong**, those that differ.
- **commit**: what the campaign last ran at; `./x soak NAME` runs one again and leaves the rows of the others (trust.jsonl keeps them all).

| campaign | tries | unharmed | put right | harmed | epochs | wrong | seed | commit |
|---|--:|--:|--:|--:|--:|--:|--:|---|
";

fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(known), Some(folder)) = (arguments.next(), arguments.next()) else {
        bail!("usage: table KNOWN.jsonl FOLDER, with the rows that SLS_TRUST=FOLDER gave");
    };
    let (known, folder) = (Path::new(&known), Path::new(&folder));
    let mut rows = known_rows(known)?;
    rows.extend(new_rows(folder)?);
    let lines: Result<String, _> = rows
        .values()
        .map(|row| serde_json::to_string(row).map(|line| line + "\n"))
        .collect();
    std::fs::write(known, lines?).with_context(|| known.display().to_string())?;
    print!("{}", page(rows.values()));
    Ok(())
}

type Rows = BTreeMap<String, Row>;

/// A row a line; none where there is no file yet.
fn known_rows(path: &Path) -> Result<Rows> {
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Rows::new()),
        text => text.with_context(|| path.display().to_string())?,
    };
    let row = |line| {
        let row: Row =
            serde_json::from_str(line).with_context(|| format!("{}: {line}", path.display()))?;
        Ok((row.campaign.clone(), row))
    };
    text.lines().map(row).collect()
}

/// A file a row.
fn new_rows(folder: &Path) -> Result<Rows> {
    let mut rows = Rows::new();
    for entry in folder
        .read_dir()
        .with_context(|| folder.display().to_string())?
    {
        rows.extend(known_rows(&entry?.path())?);
    }
    Ok(rows)
}

fn page<'a>(rows: impl Iterator<Item = &'a Row> + Clone) -> String {
    let mut out = HEAD.to_owned();
    for r in rows.clone() {
        let Row {
            campaign,
            tries,
            unharmed,
            put_right,
            harmed,
            epochs,
            wrong,
            seed,
            commit,
            ..
        } = r;
        let _ = writeln!(
            out,
            "| {campaign} | {tries} | {unharmed} | {put_right} | {harmed} | {epochs} | {wrong} | {seed} | {commit} |"
        );
    }
    out += "\n## What each one does\n";
    for r in rows {
        let _ = write!(out, "\n**{}**", r.campaign);
        for text in [&r.about, &r.note].into_iter().filter(|t| !t.is_empty()) {
            let _ = write!(out, "\\\n{}.", text.trim_end_matches('.'));
        }
        if let Some(test) = r.test.strip_prefix("trust::") {
            let _ = write!(out, "\\\nAlone: `SLS_SEED={} ./x soak {test}`", r.seed);
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_tells_what_and_how() {
        let row = Row {
            campaign: "killed while it rewinds".into(),
            about: "slsd is killed in the middle of a rewind".into(),
            test: "trust::random_kills::while_rewinding".into(),
            seed: 7,
            commit: "abc1234".into(),
            tries: 12,
            unharmed: 11,
            put_right: 1,
            note: "2 refused".into(),
            ..Row::default()
        };
        let page = page(std::iter::once(&row));
        let line = "| killed while it rewinds | 12 | 11 | 1 | 0 | 0 | 0 | 7 | abc1234 |\n";
        assert!(page.contains(line), "{page}");
        let told = "\n**killed while it rewinds**\\\nslsd is killed in the middle of a rewind.\\\n2 refused.\\\nAlone: `SLS_SEED=7 ./x soak random_kills::while_rewinding`\n";
        assert!(page.ends_with(told), "{page}");
    }
}
