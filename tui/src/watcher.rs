//! Follows the history and does what changes the process, on a thread and a connection of its own.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use libsls::protocol::{Answer, PsRow, Request, Rewound};
use libsls::{Client, ClientError};

use crate::access::Origin;
use crate::overlay::{Choice, Item};
use crate::session::core_history;
use crate::update::Event;

/// How often the history is asked for.
const PERIOD: Duration = Duration::from_millis(150);
/// Of the time, one part in so many is spent asking.
const SHARE: u32 = 8;

/// What is to be done beside following.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    Rewind(u64),
    /// List what can be looked at.
    Places,
}

/// Starts the thread; it ends when nobody listens or orders any more. Of a core all is known at once.
pub fn start(origin: Origin, client: Option<Client>, events: Sender<Event>) -> Sender<Order> {
    let (orders, incoming) = std::sync::mpsc::channel();
    if origin.core.is_some() {
        let progress = Event::Progress {
            history: core_history(&origin.part),
            state: "core".to_owned(),
            comm: None,
            trouble: None,
        };
        // Nobody listens when the program is ending already.
        let _ = events.send(progress);
        return orders;
    }
    crate::worker::guarded(events.clone(), move || {
        let watcher = Watcher {
            origin,
            client,
            events,
            complained: false,
        };
        watcher.run(&incoming);
    });
    orders
}

struct Watcher {
    origin: Origin,
    client: Option<Client>,
    events: Sender<Event>,
    complained: bool,
}

impl Watcher {
    fn run(mut self, orders: &Receiver<Order>) {
        loop {
            let began = Instant::now();
            let event = self.progress();
            if event.is_some_and(|event| self.events.send(event).is_err()) {
                return;
            }
            let pause = PERIOD.max(began.elapsed() * SHARE);
            match orders.recv_timeout(pause) {
                Ok(order) => {
                    let event = match order {
                        Order::Rewind(epoch) => {
                            let rewound = self.rewind(epoch);
                            Event::Rewound(rewound.map_err(|error| error.to_string()))
                        }
                        Order::Places => {
                            let places = self.places();
                            Event::Places(places.map_err(|error| error.to_string()))
                        }
                    };
                    if self.events.send(event).is_err() {
                        return;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// How things are; a daemon that does not answer is complained of once.
    fn progress(&mut self) -> Option<Event> {
        match self.ask_progress() {
            Ok(event) => {
                self.complained = false;
                Some(event)
            }
            Err(error) => {
                if matches!(error, ClientError::Frame(_)) {
                    self.client = None;
                }
                let first = !std::mem::replace(&mut self.complained, true);
                first.then(|| Event::Lost(error.to_string()))
            }
        }
    }

    fn ask_progress(&mut self) -> Result<Event, ClientError> {
        let origin = self.origin.clone();
        progress(self.client()?, &origin)
    }

    fn rewind(&mut self, epoch: u64) -> Result<Rewound, ClientError> {
        let request = Request::Rewind {
            part: Some(self.origin.part.clone()),
            epoch,
            stay_stopped: false,
        };
        match self.client()?.ask(&request)? {
            Answer::Rewound(rewound) => Ok(rewound),
            other => Err(ClientError::OutOfTurn(format!("{other:?}"))),
        }
    }

    /// Every process of every partition, then partitions whose processes are gone.
    fn places(&mut self) -> Result<Vec<Item>, ClientError> {
        let client = self.client()?;
        let rows = ps(client)?;
        let histories = match client.ask(&Request::Snapshots { store: None })? {
            Answer::Snapshots(histories) => histories,
            other => return Err(ClientError::OutOfTurn(format!("{other:?}"))),
        };
        let item = |part: &str, pid: Option<i32>, detail: String| Item {
            text: match pid {
                Some(pid) => format!("{part}  {pid}"),
                None => part.to_owned(),
            },
            detail,
            letter: None,
            choice: Choice::Place(part.to_owned(), pid),
        };
        let mut places: Vec<Item> = rows
            .iter()
            .map(|row| {
                let detail = format!(
                    "{}, {}, {} checkpoints",
                    row.comm, row.state, row.checkpoints
                );
                item(&row.partition, Some(row.pid), detail)
            })
            .collect();
        let alone = histories
            .iter()
            .filter(|history| rows.iter().all(|row| row.partition != history.partition));
        places.extend(alone.map(|history| {
            let detail = format!("no process, {} checkpoints", history.checkpoints.len());
            item(&history.partition, None, detail)
        }));
        Ok(places)
    }

    fn client(&mut self) -> Result<&mut Client, ClientError> {
        let client = match self.client.take() {
            Some(client) => client,
            None => self.origin.connect()?,
        };
        Ok(self.client.insert(client))
    }
}

/// The history as it is, and how the process is.
///
/// # Errors
/// As [`Client::ask`].
pub fn progress(client: &mut Client, origin: &Origin) -> Result<Event, ClientError> {
    let (part, pid) = (origin.part.clone(), origin.pid);
    let mut history = client.history(Some(&part))?;
    if let Some(pid) = pid {
        history.checkpoints.retain(|row| row.pids.contains(&pid));
    }
    let row = ps(client)?
        .into_iter()
        .find(|row| row.partition == part && pid.is_none_or(|pid| row.pid == pid));
    Ok(Event::Progress {
        history,
        state: row
            .as_ref()
            .map_or("detached".into(), |row| row.state.clone()),
        comm: row.as_ref().map(|row| row.comm.clone()),
        trouble: row.and_then(|row| row.trouble),
    })
}

/// The processes that are held.
///
/// # Errors
/// As [`Client::ask`].
pub fn ps(client: &mut Client) -> Result<Vec<PsRow>, ClientError> {
    match client.ask(&Request::Ps)? {
        Answer::Ps(rows) => Ok(rows),
        other => Err(ClientError::OutOfTurn(format!("{other:?}"))),
    }
}
