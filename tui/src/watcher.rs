//! Follows the history and does what changes the process, on a thread and a connection of its own.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use libsls::protocol::{Answer, PsRow, Request, Rewound};
use libsls::{Client, ClientError};

use crate::update::Event;
use crate::worker::Origin;

/// How often the history is asked for.
const PERIOD: Duration = Duration::from_millis(150);
/// Of the time, one part in so many is spent asking.
const SHARE: u32 = 8;

/// A wish for a rewind.
pub struct Order {
    pub epoch: u64,
}

/// Starts the thread; it ends when nobody listens or orders any more.
pub fn start(origin: Origin, client: Client, events: Sender<Event>) -> Sender<Order> {
    let (orders, incoming) = std::sync::mpsc::channel();
    crate::worker::guarded(events.clone(), move || {
        let watcher = Watcher {
            origin,
            client: Some(client),
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
                    let rewound = self.rewind(order.epoch).map_err(|error| error.to_string());
                    if self.events.send(Event::Rewound(rewound)).is_err() {
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
        let (part, pid) = (self.origin.part.clone(), self.origin.pid);
        let client = self.client()?;
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

    fn client(&mut self) -> Result<&mut Client, ClientError> {
        let client = match self.client.take() {
            Some(client) => client,
            None => self.origin.connect()?,
        };
        Ok(self.client.insert(client))
    }
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
