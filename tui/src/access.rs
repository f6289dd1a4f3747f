//! What is looked at, opened: a checkpoint of a partition, or a core. Each thread has one of its own.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use introspect::{
    CoreError, CoreView, Global, Mapping, Program, Programs, ThreadView, Unavailable, View,
};
use libsls::protocol::History;
use libsls::view::{CheckpointView, SharedClient};
use libsls::{Client, ClientError};

use crate::turn::Cancelled;

/// Checkpoints whose pages are kept at hand.
const VIEWS: usize = 4;
/// Programs whose names are kept: one before and one after an exec or a dlopen.
const PROGRAMS: usize = 2;

/// Where the daemon is, and what is asked about.
#[derive(Clone)]
pub struct Origin {
    pub socket: PathBuf,
    pub daemon: PathBuf,
    pub part: String,
    pub pid: Option<i32>,
    /// A core in the place of a partition: its one checkpoint is [`CORE_EPOCH`].
    pub core: Option<PathBuf>,
    pub shelf: Arc<Shelf>,
}

/// The number under which a core is looked at.
pub const CORE_EPOCH: u64 = 1;

impl Origin {
    /// A connection; the daemon is started if nobody listens.
    ///
    /// # Errors
    /// As [`Client::connect_or_start`].
    pub fn connect(&self) -> Result<Client, ClientError> {
        Client::connect_or_start(&self.socket, &self.daemon)
    }
}

/// A program with the names in it.
#[derive(Clone)]
pub struct Known {
    pub program: Arc<Program>,
    pub globals: Arc<Vec<Global>>,
    /// What completion offers.
    pub names: Arc<Vec<String>>,
}

/// Programs that all threads share: debug information is read once.
#[derive(Default)]
pub struct Shelf {
    pub programs: Programs,
    known: Mutex<Vec<Known>>,
}

impl Shelf {
    /// The program that a view shows.
    pub fn of(&self, view: &dyn View) -> Known {
        let program = self.programs.of(view);
        let mut known = self
            .known
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(found) = known
            .iter()
            .find(|known| Arc::ptr_eq(&known.program, &program))
        {
            return found.clone();
        }
        let mut globals = program.globals();
        globals.retain(|global| !global.is_toolchain());
        let names = globals.iter().map(|global| global.path.clone()).collect();
        let found = Known {
            program,
            globals: Arc::new(globals),
            names: Arc::new(names),
        };
        known.truncate(PROGRAMS - 1);
        known.insert(0, found.clone());
        found
    }
}

/// Why something cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Core(#[from] CoreError),
    #[error("a core has no {0}: open a partition")]
    NotInACore(&'static str),
    #[error("{0}")]
    Query(String),
}

impl AccessError {
    /// The connection is gone: the daemon was restarted perhaps, and its history outlives it.
    pub fn is_hangup(&self) -> bool {
        matches!(self, Self::Client(ClientError::Frame(_)))
    }
}

/// One checkpoint, or a core.
pub enum Seen {
    Checkpoint(CheckpointView),
    Core(CoreView),
}

impl Seen {
    /// The checkpoint, where it is one.
    pub fn checkpoint(&self) -> Option<&CheckpointView> {
        match self {
            Self::Checkpoint(view) => Some(view),
            Self::Core(_) => None,
        }
    }

    fn view(&self) -> &dyn View {
        match self {
            Self::Checkpoint(view) => view,
            Self::Core(view) => view,
        }
    }
}

impl View for Seen {
    fn read(&self, address: u64, buf: &mut [u8]) -> Result<(), Unavailable> {
        self.view().read(address, buf)
    }

    fn each_page(&self, start: u64, end: u64, each: &mut dyn FnMut(u64, &[u8])) {
        self.view().each_page(start, end, each);
    }

    fn threads(&self) -> Vec<ThreadView> {
        self.view().threads()
    }

    fn mappings(&self) -> Vec<Mapping> {
        self.view().mappings()
    }

    fn auxv(&self) -> Vec<(u64, u64)> {
        self.view().auxv()
    }

    fn debug_roots(&self) -> Vec<std::path::PathBuf> {
        self.view().debug_roots()
    }

    fn open_file(&self, mapping: &Mapping) -> std::io::Result<std::sync::Arc<[u8]>> {
        self.view().open_file(mapping)
    }
}

/// A thread's own connection and views.
pub struct Access {
    pub origin: Origin,
    client: Option<SharedClient>,
    views: VecDeque<(u64, Rc<Seen>)>,
}

impl Access {
    pub fn new(origin: Origin) -> Self {
        Self {
            origin,
            client: None,
            views: VecDeque::new(),
        }
    }

    /// The connection.
    ///
    /// # Errors
    /// There is none to be had, or a core is looked at.
    pub fn client(&mut self) -> Result<SharedClient, AccessError> {
        if self.origin.core.is_some() {
            return Err(AccessError::NotInACore("history"));
        }
        if let Some(client) = &self.client {
            return Ok(Rc::clone(client));
        }
        let client = Rc::new(RefCell::new(self.origin.connect()?));
        self.client = Some(Rc::clone(&client));
        Ok(client)
    }

    /// The history, as far as the process looked at is in it.
    ///
    /// # Errors
    /// The daemon does not answer.
    pub fn history(&mut self) -> Result<History, AccessError> {
        let client = self.client()?;
        let mut history = client.borrow_mut().history(Some(&self.origin.part))?;
        if let Some(pid) = self.origin.pid {
            history.checkpoints.retain(|row| row.pids.contains(&pid));
        }
        Ok(history)
    }

    /// A checkpoint.
    ///
    /// # Errors
    /// It is not there, or the daemon does not answer.
    pub fn view(&mut self, epoch: u64) -> Result<Rc<Seen>, AccessError> {
        if let Some(at) = self.views.iter().position(|(known, _)| *known == epoch)
            && let Some(found) = self.views.remove(at)
        {
            let view = Rc::clone(&found.1);
            self.views.push_back(found);
            return Ok(view);
        }
        let seen = if let Some(path) = &self.origin.core {
            Seen::Core(CoreView::open(path)?)
        } else {
            let client = self.client()?;
            let (part, pid) = (&self.origin.part, self.origin.pid);
            Seen::Checkpoint(CheckpointView::open(&client, part, epoch, pid)?)
        };
        let view = Rc::new(seen);
        self.views.push_back((epoch, Rc::clone(&view)));
        if self.views.len() > VIEWS {
            self.views.pop_front();
        }
        Ok(view)
    }

    /// Does it, and once more with a new connection where the old one broke.
    ///
    /// # Errors
    /// Those of `work`.
    pub fn retried<T>(
        &mut self,
        mut work: impl FnMut(&mut Self) -> Result<T, AccessError>,
    ) -> Result<T, AccessError> {
        match work(self) {
            Err(error) if error.is_hangup() => {
                self.client = None;
                self.views.clear();
                work(self)
            }
            other => other,
        }
    }
}
