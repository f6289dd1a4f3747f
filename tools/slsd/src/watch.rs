//! A condition that is checked at each checkpoint as it comes.
//!
//! It is evaluated as any client evaluates it, over the wire protocol, by a client inside the daemon: what is asked of
//! histories is bounded and checked there already.

use std::cell::RefCell;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use introspect::{Checker, Context, FrameSelector, PredicateError, Programs};
use libsls::protocol::{Answer, Breach, Failure, Hello, MAX_ANSWER, MAX_REQUEST, Watched};
use libsls::view::PartitionHistory;
use libsls::{Client, FrameError, read_frame, write_frame};
use slos::{Epoch, Hold};

use crate::answers::answer;
use crate::part::Part;
use crate::registry::{Refusal, Registry};

/// How often it looks for a new checkpoint.
const STEP: Duration = Duration::from_millis(5);
/// How long after a breach the checkpoint that follows is waited for, to be kept.
const AFTERMATH: Duration = Duration::from_secs(60);
/// Expressions and debug information are walked by recursion.
const STACK: usize = 16 << 20;
/// What a checkpoint with a breach is called, unless it has a name.
const NAME: &str = "breach";

/// What is to be watched.
pub struct Wanted {
    pub pid: Option<i32>,
    pub expr: String,
    pub tid: Option<u32>,
    pub frame: Option<String>,
}

impl Wanted {
    fn context(&self) -> Context {
        let frame = match &self.frame {
            None => FrameSelector::Default,
            Some(text) => text.parse().map_or_else(
                |_| FrameSelector::Function(text.clone()),
                FrameSelector::Index,
            ),
        };
        Context {
            tid: self.tid,
            frame,
            ..Context::default()
        }
    }
}

/// Watches until there is a breach or nothing to watch any more, or `gone` says that nobody listens.
pub fn watch(
    registry: &Arc<Registry>,
    part: Option<&str>,
    wanted: &Wanted,
    gone: &(dyn Fn() -> bool + Sync),
) -> Result<Watched, Refusal> {
    let part = registry.find(part)?;
    let (inner, outer) = UnixStream::pair().map_err(Refusal::other)?;
    std::thread::scope(|scope| {
        let served = std::thread::Builder::new().name("watch-io".into());
        served
            .spawn_scoped(scope, || serve(registry, &outer))
            .map_err(Refusal::other)?;
        let watcher = std::thread::Builder::new()
            .name("watch".into())
            .stack_size(STACK);
        let watcher = watcher
            .spawn_scoped(scope, || Watcher::new(&part, wanted, inner)?.run(gone))
            .map_err(Refusal::other)?;
        watcher
            .join()
            .unwrap_or_else(|_| Err(Refusal::other("the watch has panicked; see the log")))
    })
}

/// Answers the client inside, until it closes its end.
fn serve(registry: &Registry, mut stream: &UnixStream) {
    let mut answer_all = || -> Result<(), FrameError> {
        let hello: Hello = read_frame(&mut stream, 64)?;
        write_frame(&mut stream, &hello, 64)?;
        loop {
            let request = read_frame(&mut stream, MAX_REQUEST)?;
            let reply = answer(registry, request, Vec::new());
            match write_frame(&mut stream, &reply, MAX_ANSWER) {
                Err(FrameError::TooLong { .. }) => {
                    let message = "the answer is too long".to_owned();
                    let kind = Failure::Usage;
                    write_frame(&mut stream, &Answer::Failed { kind, message }, MAX_ANSWER)?;
                }
                other => other?,
            }
        }
    };
    // It ends when the client inside has been dropped.
    if let Err(error) = answer_all() {
        tracing::debug!(%error, "the watch has ended");
    }
}

struct Watcher<'a> {
    part: &'a Arc<Part>,
    expr: &'a str,
    history: PartitionHistory,
    checker: Checker,
    /// The last one that was looked at, which must stay as long as the next may turn out to be a breach.
    before: Option<Hold>,
    result: Watched,
    failure: Option<PredicateError>,
}

impl<'a> Watcher<'a> {
    fn new(part: &'a Arc<Part>, wanted: &'a Wanted, stream: UnixStream) -> Result<Self, Refusal> {
        let client = Client::over(stream).map_err(Refusal::other)?;
        let client = Rc::new(RefCell::new(client));
        Ok(Self {
            part,
            expr: &wanted.expr,
            history: PartitionHistory::unlisted(&client, &part.name, wanted.pid),
            checker: Checker::new(Programs::default(), wanted.context(), &wanted.expr),
            before: None,
            result: Watched {
                partition: part.name.clone(),
                ..Watched::default()
            },
            failure: None,
        })
    }

    fn run(mut self, gone: &dyn Fn() -> bool) -> Result<Watched, Refusal> {
        let mut next = self.newest()?.max(1);
        loop {
            // Asked before the look: what comes between the two is seen by the look.
            let over = self.is_over();
            while next <= self.newest()? {
                if let Some(breach) = self.look(Epoch(next))? {
                    self.result.breach = Some(breach);
                    return Ok(self.result);
                }
                next += 1;
            }
            if over || gone() {
                return self.end();
            }
            std::thread::sleep(STEP);
        }
    }

    fn newest(&self) -> Result<u64, Refusal> {
        let newest = self.part.history.newest().map_err(Refusal::other)?;
        Ok(newest.map_or(0, |epoch| epoch.0))
    }

    /// Nobody is there any more whose state could change.
    fn is_over(&self) -> bool {
        let figures = self.part.figures();
        figures.dead || figures.pids.is_empty()
    }

    fn end(self) -> Result<Watched, Refusal> {
        match self.failure {
            Some(error) if self.result.untold == self.result.checked => {
                Err(Refusal::new(Failure::Other, error.to_string()))
            }
            _ => Ok(self.result),
        }
    }

    fn look(&mut self, epoch: Epoch) -> Result<Option<Breach>, Refusal> {
        // One that is gone already was thinned, or is not whole yet.
        let Ok(hold) = self.part.history.hold(epoch) else {
            return Ok(None);
        };
        self.result.checked += 1;
        let truth = self.checker.at(&self.history, epoch.0);
        self.result.evaluations = self.checker.evaluations as u64;
        let breach = match truth {
            Ok((true, _)) => None,
            Ok((false, found)) => Some(self.breach(epoch, found.text)?),
            // Names that are wrong are wrong from the start.
            Err(error @ PredicateError::Untold { .. }) => {
                return Err(Refusal::new(Failure::Other, error.to_string()));
            }
            Err(error) if self.result.checked == 1 && is_wrong(&error) => {
                return Err(Refusal::new(Failure::Other, error.to_string()));
            }
            Err(error) => {
                self.result.untold += 1;
                self.failure.get_or_insert(error);
                None
            }
        };
        self.before = Some(hold);
        Ok(breach)
    }

    /// Keeps the checkpoint, the one before and the one that comes, and gives it a name.
    fn breach(&mut self, epoch: Epoch, text: String) -> Result<Breach, Refusal> {
        let history = &self.part.history;
        let info = history.info(epoch).map_err(Refusal::other)?;
        let before = history.ancestor(epoch).map_err(Refusal::other)?;
        let kept: Vec<Epoch> = before.into_iter().chain([epoch]).collect();
        for one in &kept {
            history.pin(*one).map_err(Refusal::other)?;
        }
        let name = match info.name {
            Some(name) => name,
            None => {
                history
                    .set_name(epoch, Some(NAME.to_owned()))
                    .map_err(Refusal::other)?;
                NAME.to_owned()
            }
        };
        if let Some(flusher) = self.part.flusher() {
            flusher.renamed();
        }
        tracing::info!(part = self.part.name, %epoch, expr = self.expr, "a condition is broken");
        keep_next(self.part, epoch);
        Ok(Breach {
            epoch: epoch.0,
            time: info.time_ns,
            name: Some(name),
            text,
            kept: kept.iter().map(|epoch| epoch.0).collect(),
        })
    }
}

/// No view of any checkpoint can give it a meaning: it was not read at all, or by no name that is there.
fn is_wrong(error: &PredicateError) -> bool {
    matches!(error, PredicateError::Expr { error, .. } if !error.message.starts_with("no frame"))
}

/// Keeps the checkpoint that follows one, when it comes.
fn keep_next(part: &Arc<Part>, epoch: Epoch) {
    let part = Arc::clone(part);
    let until = Instant::now() + AFTERMATH;
    let wait = move || {
        while Instant::now() < until {
            let newest = part.history.newest().ok().flatten();
            let later = newest.map_or(0, |newest| newest.0);
            let follows = |one: &u64| {
                let parent = part.history.ancestor(Epoch(*one));
                parent.is_ok_and(|parent| parent == Some(epoch))
            };
            if let Some(next) = (epoch.0 + 1..=later).find(follows) {
                if let Err(error) = part.history.pin(Epoch(next)) {
                    tracing::warn!(part = part.name, next, %error, "keep what follows a breach");
                }
                return;
            }
            std::thread::sleep(STEP);
        }
    };
    let spawned = std::thread::Builder::new()
        .name("aftermath".into())
        .spawn(wait);
    if let Err(error) = spawned {
        tracing::warn!(%error, "no thread to keep what follows a breach");
    }
}
