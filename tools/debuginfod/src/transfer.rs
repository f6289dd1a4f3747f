//! One file from one server. It is received by a thread of its own: a server that stalls is left alone with it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use ureq::Agent;

use crate::Progress;

/// A server that is there answers sooner.
const CONNECT: Duration = Duration::from_secs(3);
/// Until it begins to send: it may have to unpack a package first.
const ANSWER: Duration = Duration::from_secs(10);
/// Less in the time that is allowed is no transfer (debuginfod_find_debuginfo(3)).
const LEAST: u64 = 100 << 10;
/// Nothing longer is a debug file.
const LONGEST: u64 = 8 << 30;
const CHUNK: usize = 64 << 10;

#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    #[error("it does not have it")]
    NotThere,
    #[error("it answers {0}")]
    Status(u16),
    #[error("it cannot be asked ({0}); it is left alone for a minute")]
    Ask(String),
    #[error("it has sent less than 100 KB in {0} s, and was given up")]
    Slow(u64),
    #[error("what it sent ended too early: {0}")]
    Cut(String),
    #[error("cannot keep {path}: {source}")]
    Keep { path: PathBuf, source: io::Error },
}

impl TransferError {
    /// Whether it would likely be the same with the next file.
    pub fn is_of_server(&self) -> bool {
        matches!(self, Self::Ask(_) | Self::Slow(_))
    }
}

enum Received {
    Begun(Option<u64>),
    Bytes(Vec<u8>),
    Done,
    Failed(TransferError),
}

pub struct Transfer {
    agent: Agent,
    timeout: Duration,
}

impl Transfer {
    pub fn new(timeout: Duration) -> Self {
        let config = Agent::config_builder()
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(ANSWER.min(timeout)))
            .http_status_as_error(false)
            .user_agent(concat!("sls/", env!("CARGO_PKG_VERSION")))
            .build();
        Self {
            agent: config.into(),
            timeout,
        }
    }

    pub fn fetch(
        &self,
        url: &str,
        into: &mut File,
        shown: &dyn Fn(Progress),
    ) -> Result<(), TransferError> {
        let (sender, receiver) = sync_channel(16);
        let (agent, asked) = (self.agent.clone(), url.to_owned());
        std::thread::spawn(move || {
            let end = match receive(&agent, &asked, &sender) {
                Ok(()) => Received::Done,
                Err(why) => Received::Failed(why),
            };
            // Nobody listens to what was given up.
            sender.send(end).unwrap_or_default();
        });
        let (mut whole, mut bytes) = (None, 0);
        let (mut since, mut then) = (Instant::now(), 0);
        loop {
            let left = self.timeout.saturating_sub(since.elapsed());
            match receiver.recv_timeout(left.max(Duration::from_millis(1))) {
                Ok(Received::Begun(length)) => whole = length,
                Ok(Received::Bytes(some)) => {
                    into.write_all(&some)
                        .map_err(|source| TransferError::Keep {
                            path: url.into(),
                            source,
                        })?;
                    bytes += some.len() as u64;
                    shown(Progress { bytes, whole });
                }
                Ok(Received::Done) if whole.is_some_and(|whole| whole != bytes) => {
                    return Err(TransferError::Cut(format!("after {bytes} bytes")));
                }
                Ok(Received::Done) => return Ok(()),
                Ok(Received::Failed(why)) => return Err(why),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(TransferError::Cut("its thread failed".to_owned()));
                }
            }
            if since.elapsed() >= self.timeout {
                if bytes - then < LEAST {
                    return Err(TransferError::Slow(self.timeout.as_secs()));
                }
                (since, then) = (Instant::now(), bytes);
            }
        }
    }
}

fn receive(agent: &Agent, url: &str, to: &SyncSender<Received>) -> Result<(), TransferError> {
    let answer = agent.get(url).call();
    let answer = answer.map_err(|error| TransferError::Ask(error.to_string()))?;
    match answer.status().as_u16() {
        200 => {}
        404 => return Err(TransferError::NotThere),
        other => return Err(TransferError::Status(other)),
    }
    let length = answer.headers().get("content-length");
    let length = length.and_then(|text| text.to_str().ok()?.parse().ok());
    let body = answer.into_body();
    let mut reader = body.into_with_config().limit(LONGEST).reader();
    let cut = |error: io::Error| TransferError::Cut(error.to_string());
    if to.send(Received::Begun(length)).is_err() {
        return Ok(());
    }
    loop {
        let mut chunk = vec![0; CHUNK];
        let count = reader.read(&mut chunk).map_err(cut)?;
        chunk.truncate(count);
        if count == 0 || to.send(Received::Bytes(chunk)).is_err() {
            return Ok(());
        }
    }
}
