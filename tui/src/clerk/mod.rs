//! Does what takes longer than a look, each desk on a thread of its own: details of a checkpoint, the user's queries,
//! and what is found out beside it.

mod completion;
mod details;
mod hits;
mod sparks;

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

pub use completion::Members;
pub use hits::Hit;
pub use sparks::{Point, Spark};

use crate::access::{Access, AccessError, Origin};
use crate::data::Heat;
use crate::place::Tab;
use crate::query::{Query, Standpoint, run};
use crate::table::Table;
use crate::turn::{Newest, Turn};
use crate::update::Event;
use crate::worker::guarded;

/// How often a desk tells how far it has come.
const REPORTS: Duration = Duration::from_millis(100);

/// Who does it. A newer job of a desk cancels its older ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Desk {
    /// The tab that is looked at.
    Detail,
    /// What the user asked.
    Query,
    /// Where checkpoints stopped.
    Hits,
    /// Histories of watches.
    Sparks,
    /// Names to complete with.
    Names,
}

impl Desk {
    pub const ALL: [Self; 5] = [
        Self::Detail,
        Self::Query,
        Self::Hits,
        Self::Sparks,
        Self::Names,
    ];
}

#[derive(Debug, Clone, PartialEq)]
pub enum Job {
    Detail {
        tab: Tab,
        epoch: u64,
        base: Option<u64>,
    },
    Query {
        query: Query,
        from: Standpoint,
    },
    /// The checkpoint before or after at which a value is another one.
    Change {
        expr: String,
        from: Standpoint,
        forward: bool,
    },
    Hits {
        epochs: Vec<u64>,
    },
    Sparks {
        exprs: Vec<String>,
        from: Standpoint,
    },
    Members {
        expr: String,
        from: Standpoint,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub enum Finding {
    Detail(Content),
    Table(Table),
    /// None: it stays the same to the end.
    Change(Option<u64>),
    Hits(Vec<(u64, Option<Hit>)>),
    Sparks(Vec<(String, Spark)>),
    Members(Members),
}

/// What a tab shows.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    Table(Table),
    Heat(Heat),
}

/// The threads, started when they first have something to do.
pub struct Clerks {
    origin: Origin,
    events: Sender<Event>,
    desks: [Option<Hired>; Desk::ALL.len()],
}

struct Hired {
    jobs: Sender<(u64, Job)>,
    newest: Newest,
}

impl Clerks {
    pub fn new(origin: Origin, events: Sender<Event>) -> Self {
        Self {
            origin,
            events,
            desks: Default::default(),
        }
    }

    /// Hands a job over; what the desk is at is given up.
    pub fn hand(&mut self, desk: Desk, number: u64, job: Job) {
        let (origin, events) = (&self.origin, &self.events);
        let place = &mut self.desks[desk as usize];
        let hired = place.get_or_insert_with(|| hire(desk, origin.clone(), events.clone()));
        hired.newest.set(number);
        // A thread that is gone has said so by an event.
        let _ = hired.jobs.send((number, job));
    }

    /// Gives up what the desk is at.
    pub fn cancel(&self, desk: Desk) {
        if let Some(hired) = &self.desks[desk as usize] {
            hired.newest.set(0);
        }
    }
}

fn hire(desk: Desk, origin: Origin, events: Sender<Event>) -> Hired {
    let (jobs, incoming) = channel();
    let newest = Newest::default();
    let watched = newest.clone();
    // Not joined at the end, as a worker is not.
    guarded(events.clone(), move || {
        serve(desk, origin, &incoming, &events, &watched);
    });
    Hired { jobs, newest }
}

fn serve(
    desk: Desk,
    origin: Origin,
    incoming: &Receiver<(u64, Job)>,
    events: &Sender<Event>,
    newest: &Newest,
) {
    let mut access = Access::new(origin);
    let mut remembered = sparks::Remembered::default();
    while let Ok((number, job)) = incoming.recv() {
        let turn = newest.turn(number);
        let reporter = (desk == Desk::Query).then(|| report(&turn, desk, number, events));
        let found = access.retried(|access| work(access, &mut remembered, &turn, &job));
        drop(reporter);
        let found = match found {
            Err(AccessError::Cancelled(_)) => continue,
            _ if turn.is_over() => continue,
            other => other.map_err(|error| error.to_string()),
        };
        let event = Event::Found {
            desk,
            number,
            found: found.map(Box::new),
        };
        if events.send(event).is_err() {
            return;
        }
    }
}

/// Tells how far a turn has come until the sender is dropped.
fn report(turn: &Turn, desk: Desk, number: u64, events: &Sender<Event>) -> Sender<()> {
    let (over, waits) = channel::<()>();
    let (turn, events) = (turn.clone(), events.clone());
    std::thread::spawn(move || {
        use std::sync::mpsc::RecvTimeoutError::Timeout;
        let mut last = (0, 0);
        while waits.recv_timeout(REPORTS) == Err(Timeout) && !turn.is_over() {
            let now = turn.progress();
            if std::mem::replace(&mut last, now) != now {
                let (done, total) = now;
                let event = Event::Came {
                    desk,
                    number,
                    done,
                    total,
                };
                if events.send(event).is_err() {
                    return;
                }
            }
        }
    });
    over
}

fn work(
    access: &mut Access,
    remembered: &mut sparks::Remembered,
    turn: &Turn,
    job: &Job,
) -> Result<Finding, AccessError> {
    turn.check()?;
    Ok(match job {
        Job::Detail { tab, epoch, base } => {
            Finding::Detail(details::detail(access, turn, *tab, *epoch, *base)?)
        }
        Job::Query { query, from } => Finding::Table(run(access, turn, query, from)?),
        Job::Change {
            expr,
            from,
            forward,
        } => Finding::Change(sparks::change(access, turn, expr, from, *forward)?),
        Job::Hits { epochs } => Finding::Hits(hits::hits(access, turn, epochs)?),
        Job::Sparks { exprs, from } => {
            Finding::Sparks(sparks::sparks(access, turn, remembered, exprs, from)?)
        }
        Job::Members { expr, from } => {
            Finding::Members(completion::members(access, turn, expr, from)?)
        }
    })
}
