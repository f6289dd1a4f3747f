//! One run of the program: its daemon, how it answers, how it ends.

use std::cell::{OnceCell, RefCell};
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;

use anyhow::Context;
use libsls::protocol::{Answer, Failure, History, Request};
use libsls::view::SharedClient;
use libsls::{Client, ClientError};
use serde_json::Value as Json;

use crate::arguments::{PartArg, WrongUsage};
use crate::cli::Common;
use crate::output::{Paint, print};

/// How a verb ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Done,
    Failed,
    WrongUsage,
    /// A checked condition was false.
    False,
    /// The status of the program that was run.
    Status(u8),
}

impl Outcome {
    pub fn code(self) -> ExitCode {
        ExitCode::from(match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::WrongUsage => 2,
            Self::False => 3,
            Self::Status(status) => status,
        })
    }

    /// Wrong usage may be found here, or by the daemon.
    pub fn of_error(error: &anyhow::Error) -> Self {
        let refused = |cause: &ClientError| {
            matches!(
                cause,
                ClientError::Failed {
                    kind: Failure::Usage,
                    ..
                }
            )
        };
        if error.downcast_ref::<ClientError>().is_some_and(refused) || error.is::<WrongUsage>() {
            Self::WrongUsage
        } else {
            Self::Failed
        }
    }
}

/// One run of the program.
pub struct Session {
    common: Common,
    client: OnceCell<SharedClient>,
}

impl Session {
    pub fn new(common: Common) -> Self {
        Self {
            common,
            client: OnceCell::new(),
        }
    }

    /// The daemon, which is started if need be.
    pub fn client(&self) -> anyhow::Result<&SharedClient> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let client = Client::connect_or_start(&self.socket()?, &beside("slsd")?)?;
        Ok(self.client.get_or_init(|| Rc::new(RefCell::new(client))))
    }

    /// Where the daemon listens.
    pub fn socket(&self) -> anyhow::Result<PathBuf> {
        Ok(match &self.common.socket {
            Some(path) => std::path::absolute(path).context("--socket")?,
            None => libsls::default_socket()?,
        })
    }

    pub fn ask(&self, request: &Request) -> anyhow::Result<Answer> {
        Ok(self.client()?.borrow_mut().ask(request)?)
    }

    pub fn tell(&self, request: &Request) -> anyhow::Result<()> {
        Ok(self.client()?.borrow_mut().tell(request)?)
    }

    /// The partition meant; the daemon refuses when it is none or not clear which.
    pub fn part(&self, given: &PartArg) -> anyhow::Result<String> {
        match given.name() {
            Some(name) => Ok(name),
            None => Ok(self.history(None)?.partition),
        }
    }

    pub fn history(&self, part: Option<&str>) -> anyhow::Result<History> {
        Ok(self.client()?.borrow_mut().history(part)?)
    }

    pub fn json(&self) -> bool {
        self.common.json
    }

    /// Answers as one document, or as text; the text is only made when it is wanted.
    pub fn answer(&self, json: &Json, text: impl FnOnce(Paint) -> String) -> anyhow::Result<()> {
        if self.common.json {
            print(&format!("{json}\n"))
        } else {
            print(&text(Paint::of_stdout()))
        }
    }

    /// Says on standard error why the verb failed.
    pub fn complain(&self, error: &anyhow::Error) {
        let text = format!("{error:#}");
        eprintln!("slsctl: {}", text.trim_end());
    }
}

/// A program of ours: it belongs beside this one.
pub fn beside(name: &str) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().with_context(|| format!("find the folder of {name}"))?;
    Ok(own.with_file_name(name))
}

/// An answer of another kind than the request has.
pub fn out_of_turn(answer: &Answer) -> anyhow::Error {
    let text: String = format!("{answer:?}").chars().take(200).collect();
    ClientError::OutOfTurn(text).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_told_from_failure() {
        let refused = |kind| {
            anyhow::Error::from(ClientError::Failed {
                kind,
                message: String::new(),
            })
        };
        assert_eq!(
            Outcome::of_error(&refused(Failure::Usage)),
            Outcome::WrongUsage
        );
        assert_eq!(
            Outcome::of_error(&refused(Failure::NotFound)),
            Outcome::Failed
        );
        let here = anyhow::Error::from(WrongUsage("x".into())).context("y");
        assert_eq!(Outcome::of_error(&here), Outcome::WrongUsage);
    }
}
