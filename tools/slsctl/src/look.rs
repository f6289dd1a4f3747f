//! Views opened for a verb: a checkpoint, a live process, a core.

use std::ops::Deref;
use std::path::{Path, PathBuf};

use introspect::{CoreView, Finder, Program, Programs, ThreadView, View};
use libsls::protocol::Request;
use libsls::record::Process;
use libsls::view::{CheckpointView, SharedClient};
use serde_json::{Value as Json, json};

use crate::arguments::{PartArg, Place, ProcessArg, WrongUsage};
use crate::output::one_line;
use crate::processes::{How, More, attach, ps};
use crate::progress::Shown;
use crate::session::{Outcome, Session};
use crate::time::take;

/// Something that is looked at.
pub struct Look {
    seen: Seen,
    /// Removes what was made for the look; after `seen`, which reads from it.
    _temporary: Option<Temporary>,
}

enum Seen {
    Checkpoint { view: CheckpointView, live: bool },
    Core { view: CoreView, path: PathBuf },
}

/// A program. What was found missing of its debug information while it was asked is told once it is no longer needed:
/// after the answer, and also where there was none.
pub struct Loaded(Program, Finder);

/// The programs of a history; likewise.
#[derive(Default)]
pub struct Histories(Programs);

impl Deref for Histories {
    type Target = Programs;

    fn deref(&self) -> &Programs {
        &self.0
    }
}

impl Drop for Histories {
    fn drop(&mut self) {
        tell(self.0.troubles());
    }
}

/// Says what was not found.
pub fn tell(troubles: Vec<String>) {
    for trouble in troubles {
        eprintln!("slsctl: note: {}", one_line(&trouble));
    }
}

impl Deref for Loaded {
    type Target = Program;

    fn deref(&self) -> &Program {
        &self.0
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        tell(
            self.0
                .troubles()
                .into_iter()
                .chain(self.1.troubles())
                .collect(),
        );
    }
}

impl Look {
    /// Opens `place`.
    pub fn open(session: &Session, which: &ProcessArg, place: &Place) -> anyhow::Result<Self> {
        let seen = match place {
            Place::Checkpoint(reference) => {
                let history = session.history(which.part.name().as_deref())?;
                let epoch = reference.resolve(&history)?;
                let client = session.client()?;
                let view = CheckpointView::open(client, &history.partition, epoch, which.pid)?;
                Seen::Checkpoint { view, live: false }
            }
            Place::Live(pid) => return Self::live(session, *pid),
            Place::Core(path) => Seen::Core {
                view: CoreView::open(path).map_err(anyhow::Error::from)?,
                path: path.clone(),
            },
        };
        Ok(Self {
            seen,
            _temporary: None,
        })
    }

    /// A process as it is now: a checkpoint of its own partition when it is held, else of one that
    /// is made for the purpose.
    fn live(session: &Session, pid: i32) -> anyhow::Result<Self> {
        let client = session.client()?;
        let rows = ps(session)?;
        let held = rows.iter().find(|row| {
            row.pid == pid && row.state != "dead" && !libsls::is_temporary(&row.partition)
        });
        let (part, temporary) = match held {
            Some(row) => (row.partition.clone(), None),
            None => {
                let part = libsls::temporary_name(pid);
                let how = How { period_ms: None };
                attach(
                    session,
                    pid,
                    &PartArg::of_name(&part),
                    &how,
                    More::default(),
                )?;
                let temporary = Temporary {
                    client: client.clone(),
                    part: part.clone(),
                };
                (part, Some(temporary))
            }
        };
        let taken = take(session, Some(part.clone()), None, false)?;
        let view = CheckpointView::open(client, &part, taken.epoch, Some(pid))?;
        let seen = Seen::Checkpoint {
            view,
            live: temporary.is_some(),
        };
        Ok(Self {
            seen,
            _temporary: temporary,
        })
    }

    pub fn view(&self) -> &dyn View {
        match &self.seen {
            Seen::Checkpoint { view, .. } => view,
            Seen::Core { view, .. } => view,
        }
    }

    /// Its record; a core has none.
    pub fn process(&self) -> Option<&Process> {
        match &self.seen {
            Seen::Checkpoint { view, .. } => Some(view.process()),
            Seen::Core { .. } => None,
        }
    }

    /// The checkpoint, where it is none of a core.
    pub fn checkpoint(&self) -> Option<&CheckpointView> {
        match &self.seen {
            Seen::Checkpoint { view, .. } => Some(view),
            Seen::Core { .. } => None,
        }
    }

    /// The file, where it is a core.
    pub fn core(&self) -> Option<&Path> {
        match &self.seen {
            Seen::Core { path, .. } => Some(path),
            Seen::Checkpoint { .. } => None,
        }
    }

    /// Its number, null for what is no numbered checkpoint that stays.
    pub fn epoch(&self) -> Json {
        match &self.seen {
            Seen::Checkpoint { view, live: false } => json!(view.epoch()),
            _ => Json::Null,
        }
    }

    /// Its program's files and their debug information.
    pub fn program(&self) -> Loaded {
        let _shown = Shown::waiting("debug information");
        let finder = Finder::default();
        Loaded(Program::load(self.view(), &finder), finder)
    }

    /// The threads asked for: that one, all, or the one that stopped, else the main one.
    pub fn threads(&self, tid: Option<u32>, all: bool) -> anyhow::Result<Vec<ThreadView>> {
        let mut threads = self.view().threads();
        match tid {
            Some(tid) => {
                let there: Vec<String> = threads.iter().map(|t| t.tid.to_string()).collect();
                threads.retain(|thread| thread.tid == tid);
                if threads.is_empty() {
                    let message =
                        format!("there is no thread {tid}; there are: {}", there.join(", "));
                    return Err(anyhow::Error::msg(message));
                }
            }
            None if !all => {
                let selected = self.view().selected();
                threads.retain(|thread| selected.is_none_or(|tid| thread.tid == tid));
                threads.truncate(1);
            }
            None => {}
        }
        Ok(threads)
    }
}

/// Why a verb cannot be done on a core.
pub fn not_in_a_core(what: &str) -> WrongUsage {
    WrongUsage(format!(
        "a core has no {what}; look at a checkpoint, or at pid:PID"
    ))
}

/// A partition made for one look. slsd would remove it with the connection; this says what fails.
struct Temporary {
    client: SharedClient,
    part: String,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let request = Request::PartDel {
            part: self.part.clone(),
        };
        if let Err(error) = self.client.borrow_mut().tell(&request) {
            eprintln!(
                "slsctl: remove the temporary partition {}: {error}",
                self.part
            );
        }
    }
}

/// Opens a place, answers from it: what every view verb does.
pub fn answer_from(
    session: &Session,
    which: &ProcessArg,
    place: &Place,
    answer: impl FnOnce(&Look) -> anyhow::Result<()>,
) -> anyhow::Result<Outcome> {
    let look = Look::open(session, which, place)?;
    answer(&look)?;
    Ok(Outcome::Done)
}
