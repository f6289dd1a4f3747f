//! What two sockets of the group have between them: drained and sent again. Of a connection to
//! somebody else what was said stays so.

use std::collections::BTreeMap;

use sls_keeper::Step;
use sls_record::{Connected, File, FileKind, Process};

use super::Steps;
use super::common::Common;

/// What any buffer takes.
const ROOM: usize = 32 << 10;

/// One end of a connection, open under the same number now and then.
#[derive(Debug, Clone, Copy)]
pub struct End<'a> {
    pid: i32,
    fd: i32,
    now: &'a Connected,
    then: &'a Connected,
}

/// By inode.
pub type Ends<'a> = BTreeMap<u64, End<'a>>;

/// Notes those of one process.
pub fn note<'a>(ends: &mut Ends<'a>, from: &'a Process, to: &'a Process) {
    for file in &to.files {
        let same = |now: &&File| (now.fd, now.inode) == (file.fd, file.inode);
        let now = from.files.iter().find(same).and_then(connected);
        if let (Some(now), Some(then)) = (now, connected(file)) {
            let end = End {
                pid: from.outside(),
                fd: file.fd,
                now,
                then,
            };
            ends.entry(file.inode).or_insert(end);
        }
    }
}

fn connected(file: &File) -> Option<&Connected> {
    match &file.kind {
        FileKind::Socket { state, .. } => state.as_deref()?.connected.as_ref(),
        _ => None,
    }
}

/// Of sockets that stay open. One that listens is as it was.
pub fn steps(steps: &mut Steps, kept: &[&File], common: &mut Common<'_>) {
    for file in kept {
        let FileKind::Socket {
            description,
            listening: false,
            ..
        } = &file.kind
        else {
            continue;
        };
        let talk = between(common.ends(), file.inode);
        match talk.filter(|talk| common.is_root || talk.longest <= ROOM) {
            None => steps.not_restored.push(format!(
                "socket {} ({description}): what was sent and received since stays so",
                file.fd
            )),
            Some(talk) if talk.is_as_it_was => {}
            Some(talk) => {
                if common.sees_to(&file.target) {
                    steps.list.push(talk.step);
                }
            }
        }
    }
}

/// What is to be done about what comes to a socket.
struct Talk {
    is_as_it_was: bool,
    /// Bytes that wait now or waited then.
    longest: usize,
    step: Step,
}

/// None: its other end is somebody else's, or something between them is not known.
fn between(ends: &Ends<'_>, inode: u64) -> Option<Talk> {
    let here = ends.get(&inode)?;
    let there = ends.get(&here.now.peer)?;
    let are_pair = here.then.peer == here.now.peer && there.now.peer == inode;
    let now = here.now.to_read(there.now)?;
    let then = here.then.to_read(there.then)?;
    (are_pair && there.is_as_open()).then(|| Talk {
        is_as_it_was: now == then && here.now.messages == here.then.messages,
        longest: now.len().max(then.len()),
        step: Step::Refill {
            what: format!(
                "what waits in descriptor {} of process {}",
                here.fd, here.pid
            ),
            reader: (here.pid, here.fd),
            writer: (there.pid, there.fd),
            bytes: then,
            messages: here.then.messages.clone(),
        },
    })
}

impl End<'_> {
    /// What has been shut down cannot be opened again.
    fn is_as_open(&self) -> bool {
        let state = |end: &Connected| end.tcp.as_ref().map(|tcp| tcp.state);
        state(self.now) == state(self.then)
    }
}
