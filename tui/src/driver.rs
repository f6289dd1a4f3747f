//! Forward control of the live process: each order on a thread and a connection of its own, since one that waits for the
//! next stop must not be in the way of another that asks for it.

use std::sync::mpsc::Sender;

use libsls::ClientError;
use libsls::control::{Act, Breakpoint, Stop, What};

use crate::access::Origin;
use crate::made::Made;
use crate::update::Event;
use crate::watcher;

/// What is asked of the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Drive {
    /// Answered by where it stops.
    Run(Act),
    /// A breakpoint or a watchpoint.
    Set {
        what: What,
        condition: Option<String>,
    },
    Delete(u32),
    /// Which there are.
    List,
}

/// Breakpoints as they are now, and the one that was just set.
#[derive(Debug)]
pub struct Points {
    pub all: Vec<Breakpoint>,
    pub set: Option<Breakpoint>,
}

/// Does it, and tells.
pub fn drive(origin: Origin, made: Made, drive: Drive, events: Sender<Event>) {
    let is_long = matches!(drive, Drive::Run(Act::Continue { .. } | Act::Finish { .. }));
    let under_way = made.begin(is_long);
    let thread = events.clone();
    // Not joined: who waits for a stop when the program ends holds nothing.
    let _ = crate::worker::guarded(thread, move || {
        let told = match drive {
            Drive::Run(act) => {
                let stop = run(&origin, &made, act, &events);
                Event::Stopped(stop.map_err(|error| error.to_string()))
            }
            other => {
                let points = points(&origin, &made, other);
                Event::Points(points.map_err(|error| error.to_string()))
            }
        };
        drop(under_way);
        // Nobody listens when the program is ending already.
        let _ = events.send(told);
    });
}

fn run(
    origin: &Origin,
    made: &Made,
    act: Act,
    events: &Sender<Event>,
) -> Result<Stop, ClientError> {
    let mut client = origin.connect()?;
    made.drives(&mut client, &origin.part);
    let stop = client.run(Some(&origin.part), origin.pid, act)?;
    // The checkpoint of the stop is seen at once, not when the history is next asked for.
    if let Ok(progress) = watcher::progress(&mut client, origin) {
        let _ = events.send(progress);
    }
    // Their hits are counted.
    if stop.number.is_some()
        && let Ok(all) = client.breakpoints(Some(&origin.part), origin.pid, Act::List)
    {
        let _ = events.send(Event::Points(Ok(Points { all, set: None })));
    }
    Ok(stop)
}

fn points(origin: &Origin, made: &Made, drive: Drive) -> Result<Points, ClientError> {
    let mut client = origin.connect()?;
    let part = Some(origin.part.as_str());
    let mut set = None;
    match drive {
        Drive::Set { what, condition } => {
            let act = Act::Break {
                what,
                condition,
                tid: None,
                temporary: false,
            };
            set = client
                .breakpoints(part, origin.pid, act)?
                .into_iter()
                .next();
            if let Some(set) = &set {
                made.sets(&origin.part, set.number);
            }
        }
        Drive::Delete(number) => client.change_breakpoint(part, Act::Delete { number })?,
        Drive::List | Drive::Run(_) => {}
    }
    let all = client.breakpoints(part, origin.pid, Act::List)?;
    Ok(Points { all, set })
}
