//! Clients: accepted, checked, answered; a slow or hostile one costs itself only.
//!
//! Memory that clients can make the daemon hold: a request each while it comes (256 KiB), a short
//! answer each (64 KiB), what [`QUESTIONS`] at once take to be answered, and [`Room`] for the long
//! answers.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use libsls::protocol::{
    Answer, Failure, Hello, MAGIC, MAX_ANSWER, MAX_PAGES, MAX_REQUEST, Request, VERSION,
};
use libsls::{FrameError, read_frame, write_frame};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt};
use sls_engine::Given;

use crate::answers::answer;
use crate::control;
use crate::gate::Gate;
use crate::guests::{self, Seat};
use crate::names::shown;
use crate::probes;
use crate::registry::Registry;
use crate::room::Room;
use crate::timed::Timed;
use crate::watch::{Wanted, watch};

/// A message must come or go whole within this; between messages a client may be silent.
const PATIENCE: Duration = Duration::from_secs(10);
/// For those that are only told that there are too many.
const SHORT_PATIENCE: Duration = Duration::from_secs(1);
/// An answer up to this needs no room of its own.
const SHORT_ANSWER: usize = 64 << 10;
/// Questions about histories that are worked on at once.
static QUESTIONS: Gate = Gate::new(8);
/// Long answers that are not yet read: of all, and of one process.
static ROOM: Room = Room::new(160 << 20, 40 << 20);
const STACK: usize = 512 << 10;
/// Descriptors that one client may give.
const MOST_GIVEN: usize = 64;

/// Serves for ever; the idle watch ends the process.
pub fn accept(listener: &UnixListener, registry: &Arc<Registry>) {
    for stream in listener.incoming() {
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "accept");
                std::thread::sleep(Duration::from_millis(50)); // Out of descriptors: let some go.
                continue;
            }
        };
        let Some(pid) = admitted(&stream) else {
            continue;
        };
        // Clients that come and go would cost a thread each, and those in line wait meanwhile.
        if has_left(&stream) {
            continue;
        }
        let visit = Visit::new(registry);
        // Counted first: whoever closes after this sees the count.
        if registry.is_closed() {
            continue;
        }
        let Some(seat) = registry.guests.seat(pid, stream) else {
            continue;
        };
        let spawned = std::thread::Builder::new()
            .name("client".into())
            .stack_size(STACK)
            .spawn(move || {
                // Whoever writes nonsense is told; in the log it would be a way to fill the disk.
                if let Err(error) = serve(&seat, visit) {
                    tracing::debug!(pid, %error, "client");
                }
            });
        if let Err(error) = spawned {
            tracing::warn!(%error, "no thread for a client");
        }
    }
}

/// The peer's process. Nobody but our user and root is let in, not even for a greeting.
fn admitted(stream: &UnixStream) -> Option<i32> {
    let own = nix::unistd::geteuid().as_raw();
    let peer = getsockopt(stream, sockopt::PeerCredentials).ok()?;
    (peer.uid() == own || peer.uid() == 0).then_some(peer.pid())
}

/// Has the peer closed its end already?
fn has_left(stream: &UnixStream) -> bool {
    let mut fds = [PollFd::new(stream.as_fd(), PollFlags::empty())];
    let polled = poll(&mut fds, PollTimeout::ZERO);
    polled.is_ok() && (fds[0].revents()).is_some_and(|e| e.contains(PollFlags::POLLHUP))
}

/// A client's stay. However it ends, the client counts no more, and what it had made for a look at
/// a live process goes.
struct Visit {
    registry: Arc<Registry>,
    temporary: Vec<String>,
}

impl Visit {
    fn new(registry: &Arc<Registry>) -> Self {
        registry.clients.fetch_add(1, Ordering::SeqCst);
        Self {
            registry: Arc::clone(registry),
            temporary: Vec::new(),
        }
    }

    fn answer(&mut self, request: Request, given: Vec<Given>) -> Answer {
        probes::asked();
        let answer = answer(&self.registry, request, given);
        probes::answered();
        if let Answer::Attached { part, .. } = &answer
            && libsls::is_temporary(part)
        {
            self.temporary.push(part.clone());
        }
        answer
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        for part in &self.temporary {
            match self.registry.remove(part) {
                // It was removed by who made it, as it should be.
                Err(refusal) if refusal.kind != Failure::NotFound => {
                    tracing::warn!(part, error = refusal.message, "remove");
                }
                _ => {}
            }
        }
        self.registry.clients.fetch_sub(1, Ordering::SeqCst);
    }
}

fn serve(seat: &Seat, mut visit: Visit) -> Result<(), FrameError> {
    let stream = &*seat.stream;
    let patience = if seat.too_many {
        SHORT_PATIENCE
    } else {
        PATIENCE
    };
    let mut timed = Timed::new(stream, patience);
    let hello: Hello = read_frame(&mut timed, 64)?;
    write_frame(
        &mut timed,
        &Hello {
            magic: MAGIC,
            version: VERSION,
        },
        64,
    )?;
    if hello.magic != MAGIC || hello.version != VERSION {
        return Ok(());
    }
    if seat.too_many {
        let _: Request = read_frame(&mut timed, MAX_REQUEST)?;
        return send(stream, &too_many());
    }
    loop {
        let request = match next(stream) {
            Ok(request) => request,
            Err(error) => {
                // It may not listen any more.
                let _ = send(stream, &nonsense(&error));
                return Err(error);
            }
        };
        seat.heard();
        attend(seat, &mut visit, request)?;
    }
}

/// The next request: its first byte may take for ever, the rest may not.
fn next(mut stream: &UnixStream) -> Result<Request, FrameError> {
    let mut first = [0];
    stream.set_read_timeout(None)?;
    stream.read_exact(&mut first)?;
    let rest = Timed::new(stream, PATIENCE);
    read_frame(&mut (&first[..]).chain(rest), MAX_REQUEST)
}

/// Answers one request.
fn attend(seat: &Seat, visit: &mut Visit, request: Request) -> Result<(), FrameError> {
    if is_question(&request) {
        return tell(seat, visit, request);
    }
    if let Request::Watch {
        part,
        pid,
        expr,
        tid,
        frame,
    } = request
    {
        let wanted = Wanted {
            pid,
            expr,
            tid,
            frame,
        };
        return send(
            &seat.stream,
            &watched(seat, visit, part.as_deref(), &wanted),
        );
    }
    if let Request::Control { part, pid, act } = request {
        let gone = || has_left(&seat.stream);
        let done = control::serve(&visit.registry, part.as_deref(), pid, act, &gone);
        let reply = done.unwrap_or_else(|refusal| failed(refusal.kind, refusal.message));
        return send(&seat.stream, &reply);
    }
    let reply = {
        let _turn = seat.process.turns.enter();
        match given(&seat.stream, &request) {
            Ok(given) => visit.answer(request, given),
            Err(message) => failed(Failure::Other, message),
        }
    };
    send(&seat.stream, &reply)
}

/// Takes no turn of the client's: it does nothing most of the time.
fn watched(seat: &Seat, visit: &Visit, part: Option<&str>, wanted: &Wanted) -> Answer {
    let gone = || has_left(&seat.stream);
    match watch(&visit.registry, part, wanted, &gone) {
        Ok(watched) => Answer::Watched(watched),
        Err(refusal) => failed(refusal.kind, refusal.message),
    }
}

/// The descriptors that a client gives for a restore.
fn given(stream: &UnixStream, request: &Request) -> Result<Vec<Given>, String> {
    let Request::Restore { inherit, .. } = request else {
        return Ok(Vec::new());
    };
    if inherit.len() > MOST_GIVEN {
        return Err(format!("at most {MOST_GIVEN} descriptors can be given"));
    }
    let take = |(number, name): &(i32, String)| {
        let given = Given::of_peer(stream.as_fd(), *number, name.clone());
        given.map_err(|error| format!("take descriptor {number}, for {}: {error}", shown(name)))
    };
    inherit.iter().map(take).collect()
}

/// Answers a question. Where the answer will be long, or turns out to be, it is worked out once
/// there is room for it: what is only asked can be asked again.
fn tell(seat: &Seat, visit: &mut Visit, request: Request) -> Result<(), FrameError> {
    let until = Instant::now() + PATIENCE;
    let mut expected = expected(&request);
    loop {
        let share = match expected {
            0..=SHORT_ANSWER => None,
            _ => ROOM.take(seat.process.pid, expected, until),
        };
        if share.is_none() && expected > SHORT_ANSWER {
            return send(&seat.stream, &no_room(expected));
        }
        let frame = {
            let _turn = seat.process.turns.enter();
            let _question = QUESTIONS.enter();
            framed(&visit.answer(request.clone(), Vec::new()))?
        };
        if frame.len() <= expected.max(SHORT_ANSWER) {
            return put(&seat.stream, &frame);
        }
        expected = frame.len() + frame.len() / 8; // A history grows meanwhile.
    }
}

/// Bytes that the answer can have, where the question tells.
fn expected(request: &Request) -> usize {
    match request {
        Request::Pages { runs, .. } => {
            let pages: u64 = runs.iter().map(|run| u64::from(run.1)).sum();
            // More than these are refused in a few words.
            let pages = usize::try_from(pages).unwrap_or(0);
            if pages > MAX_PAGES as usize {
                0
            } else {
                pages * (slos::PAGE + 1) + 64
            }
        }
        _ => 0,
    }
}

/// Is it about histories, changes nothing, and can have a long answer?
fn is_question(request: &Request) -> bool {
    matches!(
        request,
        Request::History { .. }
            | Request::Record { .. }
            | Request::Pages { .. }
            | Request::Changed { .. }
            | Request::DiffPages { .. }
            | Request::Kept { .. }
            | Request::Steady { .. }
            | Request::Snapshots { .. }
    )
}

/// The bytes of an answer, or of why it cannot be had.
fn framed(reply: &Answer) -> Result<Vec<u8>, FrameError> {
    let mut frame = Vec::new();
    match write_frame(&mut frame, reply, MAX_ANSWER) {
        Err(FrameError::TooLong { len, limit }) => {
            let message = format!("the answer has {len} bytes, {limit} are allowed; ask for less");
            let failed = failed(Failure::Usage, message);
            write_frame(&mut frame, &failed, MAX_ANSWER)?;
        }
        other => other?,
    }
    Ok(frame)
}

fn send(stream: &UnixStream, reply: &Answer) -> Result<(), FrameError> {
    put(stream, &framed(reply)?)
}

fn put(stream: &UnixStream, frame: &[u8]) -> Result<(), FrameError> {
    Timed::new(stream, PATIENCE).write_all(frame)?;
    Ok(())
}

fn failed(kind: Failure, message: String) -> Answer {
    Answer::Failed { kind, message }
}

fn too_many() -> Answer {
    let most = guests::MOST;
    failed(
        Failure::Other,
        format!("slsd serves {most} connections already, most of them of this process; end some"),
    )
}

fn no_room(len: usize) -> Answer {
    failed(
        Failure::Other,
        format!(
            "slsd has no room for an answer of {len} bytes: earlier ones are not read; read them, or try again later"
        ),
    )
}

fn nonsense(error: &FrameError) -> Answer {
    let seconds = PATIENCE.as_secs();
    let message = match error {
        FrameError::Io(e) if e.kind() == std::io::ErrorKind::TimedOut => {
            format!("the request did not come whole within {seconds} s")
        }
        other => other.to_string(),
    };
    failed(Failure::Usage, message)
}
