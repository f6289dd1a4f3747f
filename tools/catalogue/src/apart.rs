//! The daemon's side: starts `sls-catalogue`, asks it one thing, and sees its end.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use crate::protocol::{Answer, LONGEST, Question};
use crate::{Catalogue, Change, Entries, PATIENCE, Trouble};

/// A catalogue in a private folder, kept by sled in a process of its own.
pub struct InSled {
    program: PathBuf,
    folder: PathBuf,
    patience: Duration,
}

impl InSled {
    /// `program` is sls-catalogue; the folder is made when something is saved.
    #[must_use]
    pub fn new(program: &Path, folder: &Path) -> InSled {
        InSled {
            program: program.to_owned(),
            folder: folder.to_owned(),
            patience: PATIENCE,
        }
    }

    /// Gives up on a question sooner.
    #[must_use]
    pub fn within(self, patience: Duration) -> InSled {
        InSled { patience, ..self }
    }

    fn ask(&self, question: &Question) -> Result<Answer, Trouble> {
        let asked = postcard::to_stdvec(question).map_err(|e| self.failed(&e))?;
        let mut child = self.start().map_err(|e| self.failed(&e))?;
        let (to, from) = (child.stdin.take(), child.stdout.take());
        let (tell, told) = channel();
        // Threads of their own: what it does not read or say must not keep anybody.
        std::thread::spawn(move || to.map(|mut to| to.write_all(&asked)));
        std::thread::spawn(move || {
            let mut answer = Vec::new();
            let read = from.map(|from| from.take(LONGEST).read_to_end(&mut answer));
            // Nobody listens any more when the deadline is over.
            let _ = tell.send(read.transpose().map(|_| answer));
        });
        let answer = told.recv_timeout(self.patience);
        if answer.is_err() {
            // It may have ended just now.
            let _ = child.kill();
        }
        let status = child.wait().map_err(|e| self.failed(&e))?;
        let Ok(answer) = answer else {
            let patience = self.patience;
            return Err(self.failed(&format_args!("sls-catalogue took longer than {patience:?}")));
        };
        let answer = answer.map_err(|e| self.failed(&e))?;
        match postcard::from_bytes(&answer) {
            Ok(Answer::InUse) => Err(Trouble::InUse(self.folder.clone())),
            Ok(Answer::Failed(cause)) => Err(self.failed(&cause)),
            Ok(answer) if status.success() => Ok(answer),
            _ => Err(self.failed(&format_args!("sls-catalogue ended early: {status}"))),
        }
    }

    fn start(&self) -> io::Result<Child> {
        let mut command = Command::new(&self.program);
        command
            .arg(&self.folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // What a panic says is in the answer.
            .stderr(Stdio::null())
            .current_dir("/");
        command.spawn().map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("start {}: {error}", self.program.display()),
            )
        })
    }

    fn failed(&self, cause: &dyn std::fmt::Display) -> Trouble {
        Trouble::Failed {
            folder: self.folder.clone(),
            cause: cause.to_string(),
        }
    }

    fn done(&self, answer: &Answer) -> Result<(), Trouble> {
        match answer {
            Answer::Done => Ok(()),
            other => Err(self.failed(&format_args!("sls-catalogue answers {other:?}"))),
        }
    }
}

impl Catalogue for InSled {
    fn load(&self) -> Result<Entries, Trouble> {
        if !self.folder.exists() {
            return Ok(Entries::new());
        }
        match self.ask(&Question::Load)? {
            Answer::Loaded(all) => {
                let all = all.into_iter();
                Ok(all.filter_map(|c| Some((c.key, c.value?))).collect())
            }
            other => Err(self.failed(&format_args!("sls-catalogue answers {other:?}"))),
        }
    }

    fn save(&self, changes: &[Change]) -> Result<(), Trouble> {
        self.done(&self.ask(&Question::Save(changes.to_vec()))?)
    }

    fn clear(&self) -> Result<(), Trouble> {
        self.done(&self.ask(&Question::Clear)?)
    }
}
