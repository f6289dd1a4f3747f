//! Clients: accepted, checked, answered; a slow or hostile one costs itself only.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use libsls::protocol::{Answer, Failure, Hello, MAGIC, MAX_ANSWER, MAX_REQUEST, Request, VERSION};
use libsls::{FrameError, read_frame, write_frame};
use nix::sys::socket::{getsockopt, sockopt};

use crate::answers::answer;
use crate::registry::Registry;

/// Connections served at once; more are told so.
const MOST_CLIENTS: u64 = 512;
/// A message must come or go whole within this; between messages a client may be silent.
const PATIENCE: Duration = Duration::from_secs(10);
const STACK: usize = 512 << 10;

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
        let visit = Visit::new(registry);
        // Counted first: whoever closes after this sees the count.
        if registry.is_closed() {
            continue;
        }
        let spawned = std::thread::Builder::new()
            .stack_size(STACK)
            .spawn(move || {
                if let Err(error) = serve(stream, visit)
                    && !error.is_end()
                {
                    tracing::info!(%error, "client");
                }
            });
        if let Err(error) = spawned {
            tracing::warn!(%error, "no thread for a client");
        }
    }
}

/// A client's stay. However it ends, the client counts no more, and what it had made for a look at
/// a live process goes.
struct Visit {
    registry: Arc<Registry>,
    /// Clients that were there already.
    before: u64,
    temporary: Vec<String>,
}

impl Visit {
    fn new(registry: &Arc<Registry>) -> Self {
        Self {
            registry: Arc::clone(registry),
            before: registry.clients.fetch_add(1, Ordering::SeqCst),
            temporary: Vec::new(),
        }
    }

    fn answer(&mut self, request: Request) -> Answer {
        let answer = answer(&self.registry, request);
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

fn serve(mut stream: UnixStream, mut visit: Visit) -> Result<(), FrameError> {
    let own = nix::unistd::geteuid().as_raw();
    let peer = getsockopt(&stream, sockopt::PeerCredentials).map_err(std::io::Error::from)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    if peer.uid() != own && peer.uid() != 0 {
        return Ok(()); // Nobody but our user and root is let in, not even for a greeting.
    }
    let hello: Hello = read_frame(&mut stream, 64)?;
    write_frame(
        &mut stream,
        &Hello {
            magic: MAGIC,
            version: VERSION,
        },
        64,
    )?;
    if hello.magic != MAGIC || hello.version != VERSION {
        return Ok(());
    }
    loop {
        let request = next(&mut stream)?;
        let reply = if visit.before >= MOST_CLIENTS {
            Answer::Failed {
                kind: Failure::Other,
                message: format!("slsd serves {MOST_CLIENTS} connections already; try again later"),
            }
        } else {
            visit.answer(request)
        };
        send(&mut stream, &reply)?;
    }
}

/// The next request: its first byte may take for ever, the rest may not.
fn next(stream: &mut UnixStream) -> Result<Request, FrameError> {
    let mut first = [0];
    stream.set_read_timeout(None)?;
    stream.read_exact(&mut first)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    read_frame(&mut (&first[..]).chain(stream), MAX_REQUEST)
}

fn send(stream: &mut UnixStream, reply: &Answer) -> Result<(), FrameError> {
    match write_frame(stream, reply, MAX_ANSWER) {
        Err(FrameError::TooLong { len, limit }) => {
            let message = format!("the answer has {len} bytes, {limit} are allowed; ask for less");
            let failed = Answer::Failed {
                kind: Failure::Usage,
                message,
            };
            write_frame(stream, &failed, MAX_ANSWER)
        }
        other => other,
    }?;
    stream.flush()?;
    Ok(())
}
