//! Debug files by build id, from the servers of DEBUGINFOD_URLS (debuginfod(8), its web interface; debuginfod_find_debuginfo(3),
//! its variables and its cache, which is shared with gdb's client).

mod cache;
mod transfer;

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cache::{Cache, Kept};
use transfer::{Transfer, TransferError};

/// A transfer in which so many seconds bring less than 100 KB is given up.
const TIMEOUT: u64 = 90;

/// How far a transfer has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    pub bytes: u64,
    /// None where the server does not say.
    pub whole: Option<u64>,
}

type Shown = Box<dyn Fn(&str, Progress) + Send + Sync>;

/// The servers that are asked, one after the other, and what is kept of their answers.
pub struct Client {
    servers: Vec<String>,
    cache: Cache,
    transfer: Transfer,
    shown: Shown,
    /// One file at a time: threads that want the same one find it then.
    troubles: Mutex<Vec<String>>,
}

impl Client {
    /// None without DEBUGINFOD_URLS: nobody is asked who was not named.
    #[must_use]
    pub fn from_environment() -> Option<Self> {
        let urls = std::env::var("DEBUGINFOD_URLS").ok()?;
        let timeout = std::env::var("DEBUGINFOD_TIMEOUT").ok();
        let timeout = timeout.and_then(|seconds| seconds.parse().ok());
        let timeout = Duration::from_secs(timeout.filter(|&some| some > 0).unwrap_or(TIMEOUT));
        Self::new(&urls, Cache::folder_of_user()?, timeout)
    }

    /// Of servers with blanks between them.
    #[must_use]
    pub fn new(urls: &str, folder: PathBuf, timeout: Duration) -> Option<Self> {
        let servers = urls.split_whitespace();
        let servers: Vec<String> = servers
            .map(|url| url.trim_end_matches('/').to_owned())
            .collect();
        (!servers.is_empty()).then(|| Self {
            servers,
            cache: Cache::new(folder),
            transfer: Transfer::new(timeout),
            shown: Box::new(|_, _| {}),
            troubles: Mutex::default(),
        })
    }

    /// The same, which says how far each transfer has come.
    #[must_use]
    pub fn showing(mut self, shown: impl Fn(&str, Progress) + Send + Sync + 'static) -> Self {
        self.shown = Box::new(shown);
        self
    }

    /// The file, from the cache or from the first server that has it.
    fn find(&self, build_id: &[u8], troubles: &mut Vec<String>) -> Option<PathBuf> {
        let id: String = build_id.iter().map(|byte| format!("{byte:02x}")).collect();
        match self.cache.kept(&id) {
            Some(Kept::File(path)) => return Some(path),
            Some(Kept::Nowhere) => return None,
            None => {}
        }
        let mut all_answered = true;
        for server in &self.servers {
            if self.cache.is_away(server) {
                all_answered = false;
                continue;
            }
            let url = format!("{server}/buildid/{id}/debuginfo");
            let got = self.cache.receive(&id, |file| {
                self.transfer
                    .fetch(&url, file, &|progress| (self.shown)(server, progress))
            });
            match got {
                Ok(path) => return Some(path),
                Err(TransferError::NotThere) => {}
                Err(why) => {
                    all_answered = false;
                    if why.is_of_server() {
                        self.cache.note_away(server);
                    }
                    troubles.push(format!(
                        "{server}: {why}; debug files that are only there are not known"
                    ));
                }
            }
        }
        if all_answered {
            self.cache.note_nowhere(&id);
        }
        None
    }
}

impl introspect::Source for Client {
    fn debug_file(&self, build_id: &[u8]) -> Option<PathBuf> {
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        self.find(build_id, &mut troubles)
    }

    fn troubles(&self) -> Vec<String> {
        let troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        troubles.clone()
    }
}
