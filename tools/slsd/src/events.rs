//! Events of held targets, as the record keeps them.

use libsls::record::{Event, SigInfo};
use sls_engine::Event as Seen;
use sls_engine::procfs;

/// By its own number, which it has as long as it stands still for this.
fn own(tid: i32) -> i32 {
    procfs::status(tid).map_or(tid, |status| status.own.tid)
}

/// None when the process is gone and there is nothing left to look at.
pub fn of_record(seen: &Seen) -> Option<Event> {
    Some(match seen {
        Seen::Fatal { tid, info } => Event::Fatal {
            tid: own(*tid),
            info: SigInfo(info.clone()),
        },
        Seen::Exec { tid } => Event::Exec { tid: own(*tid) },
        Seen::Fork { tid, child } => Event::Fork {
            tid: own(*tid),
            child: own(*child),
        },
        Seen::Exit { status } => Event::Exit { status: *status },
        Seen::Gone { .. } | Seen::Trap { .. } | Seen::Watch { .. } | Seen::Replaced { .. } => {
            return None;
        }
    })
}

/// A thread stands still, for somebody to look at.
pub fn stop(tid: i32) -> Event {
    Event::Stop { tid: own(tid) }
}

/// The name its checkpoint gets: `@crash`, `@exec`, `@fork`, `@exit`.
pub fn name(event: &Event) -> String {
    match event {
        Event::Fatal { .. } => "crash",
        Event::Exec { .. } => "exec",
        Event::Fork { .. } => "fork",
        Event::Exit { .. } => "exit",
        Event::Stop { .. } => "stop",
    }
    .to_owned()
}
