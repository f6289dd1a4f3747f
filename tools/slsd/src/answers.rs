//! One request, one answer.

use std::sync::atomic::Ordering;
use std::time::Duration;

use libsls::protocol::{Answer, Failure, Keep, Request, Stat};
use slos::Epoch;
use sls_engine::{Given, Wish};

use crate::registry::{Refusal, Registry};
use crate::worker::{Command, Reply};
use crate::{branch, bundle, check, history, names, transfer};

/// Shortest period between checkpoints.
const SHORTEST_PERIOD_MS: u64 = 1;

/// Answers a request; what fails is told, never dropped.
/// `given` is what the client gives for a restore.
pub fn answer(registry: &Registry, request: Request, given: Vec<Given>) -> Answer {
    obey(registry, request, given).unwrap_or_else(|r| Answer::Failed {
        kind: r.kind,
        message: r.message,
    })
}

fn period(ms: Option<u64>) -> Result<Option<Duration>, Refusal> {
    match ms {
        Some(ms) if ms < SHORTEST_PERIOD_MS => Err(Refusal::new(
            Failure::Usage,
            "-t takes a period of at least 1 ms",
        )),
        ms => Ok(ms.map(Duration::from_millis)),
    }
}

fn obey(registry: &Registry, request: Request, given: Vec<Given>) -> Result<Answer, Refusal> {
    match request {
        Request::PartAdd {
            part,
            keep,
            budget,
            period_ms,
            store,
        } => {
            let period = period(period_ms)?;
            let part = match store {
                Some(store) => registry.add_durable(&part, &store, keep, budget, period)?,
                None => registry.add(&part, keep, budget, period)?,
            };
            part.figures().awaits = true;
            Ok(Answer::Done)
        }
        Request::PartDel { part } => registry.remove(&part).map(|()| Answer::Done),
        Request::Attach {
            pid,
            part,
            period_ms,
            follow,
            hold,
            begins,
        } => {
            let how = How {
                period: period(period_ms)?,
                follow,
                hold,
                begins,
            };
            attach(registry, pid, &part, how)
        }
        Request::Detach { pid, part } => {
            let part = match pid {
                Some(pid) => registry.find_pid(pid)?,
                None => registry.find(part.as_deref())?,
            };
            command(part.command(Command::Detach { pid })?)
        }
        Request::Checkpoint { part, name, follow } => {
            names::checkpoint(name.as_deref())?;
            let part = registry.find(part.as_deref())?;
            let taken = part.command(Command::Checkpoint { name, follow })?;
            if let (Reply::Checkpoint(taken), Some(flusher)) = (&taken, part.flusher()) {
                flusher.wait(Epoch(taken.epoch), None)?;
            }
            command(taken)
        }
        Request::Rewind {
            part,
            epoch,
            stay_stopped,
        } => {
            let part = registry.find(part.as_deref())?;
            command(part.command(Command::Rewind {
                to: Epoch(epoch),
                stay_stopped,
            })?)
        }
        Request::Restore {
            part,
            epoch,
            stay_stopped,
            force,
            inherit: _,
            lazy,
            pidns,
            tcp_close,
        } => {
            let part = registry.find(part.as_deref())?;
            let wish = Wish {
                stay_stopped,
                force,
                lazy,
                pidns,
                branch: false,
                tcp_close,
                given,
            };
            let from = Epoch(epoch);
            command(part.command(Command::Restore { from, wish })?)
        }
        Request::Branch {
            part,
            epoch,
            into,
            stay_stopped,
            force,
            lazy,
        } => {
            let wish = Wish {
                stay_stopped,
                force,
                lazy,
                branch: true,
                ..Wish::default()
            };
            let (part, into) = (part.as_deref(), into.as_deref());
            command(branch::branch(registry, part, Epoch(epoch), into, wish)?)
        }
        Request::Ended { part, pid } => {
            let part = registry.find(part.as_deref())?;
            command(part.command(Command::Ended { pid })?)
        }
        Request::Suspend { part } => {
            command(registry.find(part.as_deref())?.command(Command::Suspend)?)
        }
        Request::Resume { part } => {
            command(registry.find(part.as_deref())?.command(Command::Resume)?)
        }
        Request::Ps => Ok(Answer::Ps(
            registry.all().iter().flat_map(|p| p.ps()).collect(),
        )),
        Request::History { part } => {
            history::history(&*registry.find(part.as_deref())?).map(Answer::History)
        }
        Request::Record { part, epoch } => {
            history::record(&*registry.find(part.as_deref())?, epoch)
        }
        Request::Pages {
            part,
            epoch,
            space,
            runs,
        } => history::pages(&*registry.find(part.as_deref())?, epoch, space, &runs),
        Request::Changed {
            part,
            from,
            to,
            pages,
        } => history::changed(&*registry.find(part.as_deref())?, (from, to), &pages),
        Request::Steady {
            part,
            pid,
            from,
            epochs,
            pages,
        } => history::steady(
            &*registry.find(part.as_deref())?,
            pid,
            (from, &epochs),
            &pages,
        ),
        Request::DiffPages {
            part,
            from,
            to,
            space,
        } => history::diff_pages(&*registry.find(part.as_deref())?, (from, to), space),
        Request::Kept { part, epoch, space } => {
            history::kept(&*registry.find(part.as_deref())?, epoch, space)
        }
        Request::Name { part, epoch, name } => {
            names::checkpoint(name.as_deref())?;
            let part = registry.find(part.as_deref())?;
            part.history
                .set_name(Epoch(epoch), name)
                .map_err(Refusal::other)?;
            if let Some(flusher) = part.flusher() {
                flusher.renamed();
            }
            Ok(Answer::Done)
        }
        Request::Export {
            part,
            first,
            last,
            store,
            name,
        } => {
            let range = (first, last);
            transfer::export(registry, part.as_deref(), range, &store, name.as_deref())
                .map(Answer::Moved)
        }
        Request::Import {
            store,
            from,
            part,
            budget,
        } => transfer::import(registry, &store, from.as_deref(), part.as_deref(), budget)
            .map(Answer::Moved),
        Request::Bundle {
            part,
            first,
            last,
            file,
            name,
        } => {
            let part = registry.find(part.as_deref())?;
            bundle::pack(&part, (first, last), &file, name.as_deref()).map(Answer::Bundled)
        }
        Request::Files { part } => {
            let part = registry.find(part.as_deref())?;
            Ok(Answer::Files(part.brought()))
        }
        Request::Unstore { store, part } => {
            transfer::remove(registry, &store, &part).map(|()| Answer::Done)
        }
        Request::Snapshots { store } => {
            transfer::snapshots(registry, store.as_deref()).map(Answer::Snapshots)
        }
        Request::Watch { .. } => Err(Refusal::new(
            Failure::Usage,
            "a watch is a client's own: it is not asked from within",
        )),
        Request::Control { .. } => Err(Refusal::new(
            Failure::Usage,
            "control is a client's own: it is not asked from within",
        )),
        Request::EpochWait { part, epoch } => wait(registry, part.as_deref(), epoch),
        Request::Stat => Ok(Answer::Stat(stat(registry))),
        Request::Check => Ok(Answer::Check(check::rows(&registry.probe))),
    }
}

fn wait(registry: &Registry, part: Option<&str>, epoch: Option<u64>) -> Result<Answer, Refusal> {
    let part = registry.find(part)?;
    let flusher = part.flusher().ok_or_else(|| {
        let name = &part.name;
        let message = format!(
            "partition {name} is only in memory; `slsctl export -o {name} --to STORE` brings it to a store"
        );
        Refusal::new(Failure::Usage, message)
    })?;
    let epoch = match epoch.map(Epoch) {
        Some(epoch) => part.history.info(epoch).map_err(Refusal::other)?.epoch,
        None => part
            .history
            .newest()
            .map_err(Refusal::other)?
            .unwrap_or(Epoch(0)),
    };
    flusher.wait(epoch, None)?;
    Ok(Answer::Done)
}

/// How to attach.
struct How {
    period: Option<Duration>,
    follow: bool,
    hold: bool,
    begins: bool,
}

fn attach(registry: &Registry, pid: i32, part: &str, how: How) -> Result<Answer, Refusal> {
    if let Ok(holder) = registry.find_pid(pid)
        && !holder.figures().dead
    {
        return Err(Refusal::new(
            Failure::Exists,
            format!(
                "process {pid} is attached already, to partition {}",
                holder.name
            ),
        ));
    }
    let (part, fresh) = match registry.find(Some(part)) {
        Ok(part) => (part, false),
        Err(_) => (registry.add(part, Keep::All, None, None)?, true),
    };
    match part.command(Command::Attach {
        pid,
        period: how.period,
        follow: how.follow,
        hold: how.hold,
        begins: how.begins,
    }) {
        Ok(Reply::Attached(tracking)) => Ok(Answer::Attached {
            part: part.name.clone(),
            tracking,
        }),
        Ok(other) => Err(Refusal::other(format!("{other:?}"))),
        Err(refusal) => {
            // Another client may have attached to it meanwhile.
            if fresh && !part.is_held() {
                registry.remove(&part.name)?;
            }
            Err(refusal)
        }
    }
}

fn command(reply: Reply) -> Result<Answer, Refusal> {
    Ok(match reply {
        Reply::Done => Answer::Done,
        Reply::Attached(tracking) => Answer::Attached {
            part: String::new(),
            tracking,
        },
        Reply::Checkpoint(checkpoint) => Answer::Checkpoint(checkpoint),
        Reply::Rewound(rewound) => Answer::Rewound(rewound),
        Reply::Restored(restored) => Answer::Restored(restored),
        Reply::Ended(status) => Answer::Ended(status),
        Reply::Stop(stop) => Answer::Stop(*stop),
        Reply::Points(points) => Answer::Breakpoints(points),
        Reply::Runs { .. } => Answer::Done,
    })
}

fn stat(registry: &Registry) -> Stat {
    let pid = std::process::id().cast_signed();
    Stat {
        pid,
        uptime_ms: u64::try_from(registry.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        clients: registry.clients.load(Ordering::SeqCst),
        rss_bytes: sls_engine::procfs::status(pid).map_or(0, |s| s.vm_rss_kib * 1024),
        partitions: registry.all().iter().map(|p| p.stat()).collect(),
    }
}
