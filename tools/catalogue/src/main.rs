//! sls-catalogue: sled, where nothing of it can harm anybody. Started by slsd for each question.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use sls_catalogue::Change;
use sls_catalogue::protocol::{Answer, Question};

/// Damaged files have made sled ask for all there is.
const MEMORY: u64 = 2 << 30;
const CACHE: u64 = 16 << 20;
/// What sled and we make in the folder; nothing else is ever removed.
const OURS: [&str; 3] = ["db", "conf", "blobs"];
const LOCK: &str = "lock";

/// What the last panic said.
static SAID: Mutex<String> = Mutex::new(String::new());

fn main() -> ExitCode {
    let folder = std::env::args_os().nth(1);
    let Some(folder) = folder.filter(|_| !io::stdin().is_terminal()) else {
        eprintln!("sls-catalogue: slsd starts this; what it keeps may be removed at any time");
        return ExitCode::from(2);
    };
    bound();
    let mut asked = Vec::new();
    let answer = match io::stdin().read_to_end(&mut asked) {
        Ok(_) => answer(Path::new(&folder), &asked),
        Err(error) => Answer::Failed(error.to_string()),
    };
    let told = postcard::to_stdvec(&answer).map_err(io::Error::other);
    match told.and_then(|told| io::stdout().write_all(&told)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// It takes no more memory than that, leaves no core, and ends with who asks.
fn bound() {
    // Where one of them cannot be set, it was less already.
    let _ = setrlimit(Resource::RLIMIT_AS, MEMORY, MEMORY);
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    let _ = set_pdeathsig(Signal::SIGKILL);
    std::panic::set_hook(Box::new(|info| {
        let said = info.to_string();
        let first = said.lines().last().unwrap_or_default();
        *SAID.lock().unwrap_or_else(PoisonError::into_inner) = first.to_owned();
    }));
}

fn answer(folder: &Path, asked: &[u8]) -> Answer {
    let question = match postcard::from_bytes(asked) {
        Ok(question) => question,
        Err(error) => return Answer::Failed(error.to_string()),
    };
    let lock = match lock(folder) {
        Ok(Some(lock)) => lock,
        Ok(None) => return Answer::InUse,
        Err(error) => return Answer::Failed(error.to_string()),
    };
    let done = catch_unwind(AssertUnwindSafe(|| carry_out(folder, question)));
    drop(lock);
    match done {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => Answer::Failed(error.to_string()),
        Err(_) => {
            let said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
            Answer::Failed(format!("sled panics: {said}"))
        }
    }
}

/// One process at a time; None while another one has the folder.
fn lock(folder: &Path) -> io::Result<Option<Flock<File>>> {
    let mut made = fs::DirBuilder::new();
    made.mode(0o700).recursive(true).create(folder)?;
    let meta = fs::symlink_metadata(folder)?;
    if !meta.is_dir() || meta.uid() != nix::unistd::geteuid().as_raw() || meta.mode() & 0o022 != 0 {
        return Err(io::Error::other("not a folder of this user alone"));
    }
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(folder.join(LOCK))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, error)) => Err(error.into()),
    }
}

fn carry_out(folder: &Path, question: Question) -> Result<Answer, sled::Error> {
    match question {
        Question::Load => load(folder).map(Answer::Loaded),
        Question::Save(changes) => save(folder, changes).map(|()| Answer::Done),
        Question::Clear => clear(folder).map(|()| Answer::Done).map_err(Into::into),
    }
}

fn open(folder: &Path) -> Result<sled::Db, sled::Error> {
    // Of a snapshot that was not ended; sled would refuse its folder for good.
    for entry in fs::read_dir(folder)?.flatten() {
        if entry.path().extension().is_some_and(|e| e == "generating") {
            fs::remove_file(entry.path())?;
        }
    }
    sled::Config::new()
        .path(folder)
        .cache_capacity(CACHE)
        .flush_every_ms(None)
        .open()
}

fn load(folder: &Path) -> Result<Vec<Change>, sled::Error> {
    let db = open(folder)?;
    let all = db.iter().map(|entry| {
        let (key, value) = entry?;
        Ok(Change {
            key: key.to_vec(),
            value: Some(value.to_vec()),
        })
    });
    all.collect()
}

fn save(folder: &Path, changes: Vec<Change>) -> Result<(), sled::Error> {
    let db = open(folder)?;
    let mut batch = sled::Batch::default();
    for Change { key, value } in changes {
        match value {
            Some(value) => batch.insert(key, value),
            None => batch.remove(key),
        }
    }
    db.apply_batch(batch)?;
    db.flush()?;
    drop(db);
    // sled's flush does not wait for the disk.
    File::open(folder.join("db"))?.sync_data()?;
    Ok(())
}

fn clear(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)?.flatten() {
        let name = entry.file_name();
        let ours = OURS.iter().any(|ours| name == *ours);
        if !ours && !name.to_string_lossy().starts_with("snap.") {
            continue;
        }
        match entry.file_type()?.is_dir() {
            true => fs::remove_dir_all(entry.path())?,
            false => fs::remove_file(entry.path())?,
        }
    }
    Ok(())
}
