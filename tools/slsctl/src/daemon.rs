//! The daemon's own figures, and what the machine supports.

use clap::Args;
use libsls::protocol::{Answer, CheckRow, PartStat, Request, Stat as Figures};
use serde_json::{Value as Json, json};

use crate::output::{Paint, Table, bytes, duration_ns, left, micros, right};
use crate::session::{Outcome, Session, out_of_turn};

/// Show what the daemon holds and what its checkpoints cost
#[derive(Debug, Args)]
#[command(after_help = "Example: slsctl stat")]
pub struct Stat {}

impl Stat {
    pub fn run(&self, session: &Session) -> anyhow::Result<Outcome> {
        let figures = match session.ask(&Request::Stat)? {
            Answer::Stat(figures) => figures,
            other => return Err(out_of_turn(&other)),
        };
        session.answer(&stat_json(&figures), |paint| stat_text(&figures, paint))?;
        Ok(Outcome::Done)
    }
}

fn stat_json(figures: &Figures) -> Json {
    json!({
        "pid": figures.pid,
        "uptime_ms": figures.uptime_ms,
        "clients": figures.clients,
        "rss_bytes": figures.rss_bytes,
        "partitions": figures.partitions.iter().map(part_json).collect::<Vec<_>>(),
    })
}

fn part_json(part: &PartStat) -> Json {
    json!({
        "partition": part.partition,
        "checkpoints": part.checkpoints,
        "budget": part.budget,
        "held_bytes": part.held_bytes,
        "segment_bytes": part.segment_bytes,
        "live_bytes": part.live_bytes,
        "record_bytes": part.record_bytes,
        "index_bytes": part.index_bytes,
        "pinned_base_bytes": part.pinned_base_bytes,
        "cleaned_segments": part.cleaned_segments,
        "taken": part.taken,
        "failed": part.failed,
        "dropped": part.dropped,
        "missed_periods": part.missed_periods,
        "stop_us_p50": part.stop_us_p50,
        "stop_us_p99": part.stop_us_p99,
        "stop_us_max": part.stop_us_max,
        "last_error": part.last_error,
        "store": part.kept.as_ref().map(|kept| json!({
            "path": kept.store,
            "durable": kept.durable,
            "behind": kept.behind,
            "trouble": kept.trouble,
        })),
    })
}

fn stat_text(figures: &Figures, paint: Paint) -> String {
    let up = duration_ns(figures.uptime_ms.saturating_mul(1_000_000));
    let mut text = format!(
        "slsd {}: up {up}, {} resident, {} clients\n",
        figures.pid,
        bytes(figures.rss_bytes),
        figures.clients
    );
    if figures.partitions.is_empty() {
        return text;
    }
    let mut table = Table::new([
        left("PARTITION").coloured(Paint::name),
        right("CHECKPOINTS"),
        right("HELD"),
        right("BUDGET"),
        right("TAKEN"),
        right("FAILED"),
        right("DROPPED"),
        right("MISSED"),
        right("STOP P50"),
        right("P99"),
        right("MAX"),
        left("LAST ERROR").coloured(Paint::bad),
    ]);
    for part in &figures.partitions {
        table.row([
            part.partition.clone(),
            part.checkpoints.to_string(),
            bytes(part.held_bytes),
            part.budget.map_or("-".into(), bytes),
            part.taken.to_string(),
            part.failed.to_string(),
            part.dropped.to_string(),
            part.missed_periods.to_string(),
            micros(part.stop_us_p50),
            micros(part.stop_us_p99),
            micros(part.stop_us_max),
            part.last_error.clone().unwrap_or_default(),
        ]);
    }
    text += &table.text(paint);
    for part in &figures.partitions {
        if let Some(kept) = &part.kept {
            text += &format!(
                "{} is in {} up to @{}, {} checkpoints behind\n",
                part.partition, kept.store, kept.durable, kept.behind
            );
            if let Some(trouble) = &kept.trouble {
                text += &format!("{}\n", paint.bad(trouble));
            }
        }
    }
    text
}

/// Show what this machine supports, and the remedy for what it does not
#[derive(Debug, Args)]
#[command(after_help = "Example: slsctl check")]
pub struct Check {}

impl Check {
    pub fn run(&self, session: &Session) -> anyhow::Result<Outcome> {
        let rows = match session.ask(&Request::Check)? {
            Answer::Check(rows) => rows,
            other => return Err(out_of_turn(&other)),
        };
        session.answer(&check_json(&rows), |paint| check_text(&rows, paint))?;
        Ok(Outcome::Done)
    }
}

fn check_json(rows: &[CheckRow]) -> Json {
    let row = |row: &CheckRow| json!({"name": row.name, "ok": row.ok, "effect": row.effect, "remedy": row.remedy});
    json!({
        "ok": rows.iter().all(|row| row.ok),
        "checks": rows.iter().map(row).collect::<Vec<_>>(),
    })
}

fn check_text(rows: &[CheckRow], paint: Paint) -> String {
    let mut text = String::new();
    for row in rows {
        let mark = if row.ok {
            paint.name("yes")
        } else {
            paint.bad("no ")
        };
        text += &format!("{mark}  {}: {}\n", row.name, row.effect);
        if let Some(remedy) = &row.remedy {
            text += &format!("     remedy: {remedy}\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_feature_comes_with_its_remedy() {
        let row = |ok| CheckRow {
            name: "userfaultfd".into(),
            ok,
            effect: "writes are tracked".into(),
            remedy: (!ok).then(|| "a newer kernel".into()),
        };
        let rows = [row(true), row(false)];
        assert_eq!(check_json(&rows)["ok"], false);
        let text = check_text(&rows, Paint::PLAIN);
        assert!(
            text.contains("no   userfaultfd: writes are tracked\n     remedy: a newer kernel\n")
        );
    }

    #[test]
    fn stat_names_the_trouble() {
        let figures = Figures {
            partitions: vec![PartStat {
                partition: "mem".into(),
                last_error: Some("no room".into()),
                ..PartStat::default()
            }],
            ..Figures::default()
        };
        assert!(stat_text(&figures, Paint::PLAIN).ends_with("no room\n"));
        assert_eq!(
            stat_json(&figures)["partitions"][0]["last_error"],
            "no room"
        );
    }
}
