//! A connection to slsd.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;

use crate::frame::{FrameError, read_frame, write_frame};
use crate::protocol::{
    Answer, Failure, Hello, History, MAGIC, MAX_ANSWER, MAX_REQUEST, Request, VERSION,
};

const START_DEADLINE: Duration = Duration::from_secs(5);

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens and none could be started.
    #[error("connect to {path}: {source}")]
    Connect {
        /// Socket.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The daemon could not be started.
    #[error("start {path}: {source}; slsd belongs beside slsctl")]
    Start {
        /// Program.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The daemon started and did not answer.
    #[error("slsd was started but does not answer on {0}; its log is {log}", log = crate::state_folder(.0).join("slsd.log").display())]
    Silent(PathBuf),
    /// Another version answers.
    #[error(
        "slsd speaks protocol {theirs}, this program {VERSION}: end it{} and run again (the processes it holds run on, its histories are left to the next one), or use the slsctl beside it",
        by_kill(*.pid)
    )]
    Version {
        /// Its version.
        theirs: u32,
        /// Its process, where the kernel tells.
        pid: Option<i32>,
    },
    /// The connection broke.
    #[error("{0}; slsd may have been stopped: the request can be made again")]
    Frame(#[from] FrameError),
    /// slsd refused.
    #[error("{message}")]
    Failed {
        /// Kind.
        kind: Failure,
        /// For people.
        message: String,
    },
    /// It answered something else.
    #[error("slsd answered out of turn: {0}")]
    OutOfTurn(String),
}

fn by_kill(pid: Option<i32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (kill {pid})"))
}

/// Who is at the other end, where that is told: of another PID namespace it is 0.
fn peer(stream: &UnixStream) -> Option<i32> {
    let peer = getsockopt(stream, PeerCredentials).ok()?;
    Some(peer.pid()).filter(|&pid| pid > 0)
}

impl ClientError {
    /// Is nobody there? A daemon that is just being killed still has its socket and says nothing.
    fn is_absence(&self) -> bool {
        match self {
            Self::Connect { source, .. } => matches!(
                source.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ),
            Self::Frame(error) => error.is_end(),
            _ => false,
        }
    }
}

/// One connection; requests are answered in order.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
}

impl Client {
    /// Connects to a daemon that runs.
    ///
    /// # Errors
    /// Nobody listens there, or another version.
    pub fn connect(socket: &Path) -> Result<Self, ClientError> {
        let at = |source| ClientError::Connect {
            path: socket.into(),
            source,
        };
        Self::over(UnixStream::connect(socket).map_err(at)?)
    }

    /// Greets whoever is at the other end of a connection.
    ///
    /// # Errors
    /// It does not greet back, or in another version.
    pub fn over(mut stream: UnixStream) -> Result<Self, ClientError> {
        write_frame(
            &mut stream,
            &Hello {
                magic: MAGIC,
                version: VERSION,
            },
            MAX_REQUEST,
        )?;
        let hello: Hello = read_frame(&mut stream, MAX_REQUEST)?;
        if hello.version != VERSION || hello.magic != MAGIC {
            return Err(ClientError::Version {
                theirs: hello.version,
                pid: peer(&stream),
            });
        }
        Ok(Self { stream })
    }

    /// Connects; starts `daemon` when nobody listens. One that recovers a long history greets when
    /// it is done.
    ///
    /// # Errors
    /// As [`Client::connect`], or the daemon cannot be started.
    pub fn connect_or_start(socket: &Path, daemon: &Path) -> Result<Self, ClientError> {
        match Self::connect(socket) {
            Err(error) if error.is_absence() => {}
            other => return other,
        }
        Command::new(daemon)
            .arg("--socket")
            .arg(socket)
            .arg("--background")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .map_err(|source| ClientError::Start {
                path: daemon.into(),
                source,
            })?;
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            match Self::connect(socket) {
                Err(error) if error.is_absence() && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(error) if error.is_absence() => {
                    return Err(ClientError::Silent(socket.into()));
                }
                other => return other,
            }
        }
    }

    /// Asks and waits.
    ///
    /// # Errors
    /// The connection broke, or slsd refused.
    pub fn ask(&mut self, request: &Request) -> Result<Answer, ClientError> {
        write_frame(&mut self.stream, request, MAX_REQUEST)?;
        match read_frame(&mut self.stream, MAX_ANSWER)? {
            Answer::Failed { kind, message } => Err(ClientError::Failed { kind, message }),
            answer => Ok(answer),
        }
    }

    /// Asks for something that only succeeds or fails.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub fn tell(&mut self, request: &Request) -> Result<(), ClientError> {
        match self.ask(request)? {
            Answer::Done => Ok(()),
            other => Err(ClientError::OutOfTurn(format!("{other:?}"))),
        }
    }

    /// The history of a partition.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub fn history(&mut self, part: Option<&str>) -> Result<History, ClientError> {
        match self.ask(&Request::History {
            part: part.map(str::to_owned),
        })? {
            Answer::History(history) => Ok(history),
            other => Err(ClientError::OutOfTurn(format!("{other:?}"))),
        }
    }

    /// The record of a checkpoint.
    ///
    /// # Errors
    /// As [`Client::ask`], or it does not decode.
    pub fn record(
        &mut self,
        part: Option<&str>,
        epoch: u64,
    ) -> Result<sls_record::Record, ClientError> {
        match self.ask(&Request::Record {
            part: part.map(str::to_owned),
            epoch,
        })? {
            Answer::Record(bytes) => sls_record::decode(&bytes).map_err(|e| ClientError::Failed {
                kind: Failure::Other,
                message: format!("the record of @{epoch}: {e}"),
            }),
            other => Err(ClientError::OutOfTurn(format!("{other:?}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_of_another_version_is_told_how_to_be_ended() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let hello = Hello {
            magic: MAGIC,
            version: VERSION + 1,
        };
        write_frame(&mut theirs, &hello, MAX_REQUEST).unwrap();
        let refused = Client::over(ours).unwrap_err().to_string();
        let wanted = format!("(kill {})", std::process::id());
        assert!(refused.contains(&wanted), "{refused}");
    }
}
