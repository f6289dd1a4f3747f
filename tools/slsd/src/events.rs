//! Events of held targets, as the record keeps them.

use libsls::record::{Event, SigInfo};
use sls_engine::Event as Seen;

/// None when the process is gone and there is nothing left to look at.
pub fn of_record(seen: &Seen) -> Option<Event> {
    Some(match seen {
        Seen::Fatal { tid, info } => Event::Fatal {
            tid: *tid,
            info: SigInfo(info.clone()),
        },
        Seen::Exec { tid } => Event::Exec { tid: *tid },
        Seen::Fork { tid, child } => Event::Fork {
            tid: *tid,
            child: *child,
        },
        Seen::Exit { status } => Event::Exit { status: *status },
        Seen::Gone { .. } => return None,
    })
}

/// The name its checkpoint gets: `@crash`, `@exec`, `@fork`, `@exit`.
pub fn name(event: &Event) -> String {
    match event {
        Event::Fatal { .. } => "crash",
        Event::Exec { .. } => "exec",
        Event::Fork { .. } => "fork",
        Event::Exit { .. } => "exit",
    }
    .to_owned()
}
