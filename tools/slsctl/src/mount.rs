//! Histories as files.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use clap::Args;
use serde_json::json;

use crate::session::{Outcome, Session, beside};

/// Show the histories as files, cores for gdb and lldb among them; `umount DIR` ends it
#[derive(Debug, Args)]
#[command(
    after_help = "Example: slsctl mount /mnt && gdb ./program /mnt/mem/@7/core\n\n\
        DIR/PART/@N/core is the core of the root process, DIR/PART/@N/PID/ has core, maps, regs, fds, mem\n\
        (sparse, by address) and record.json of each. Names of checkpoints, and @-1, are links. Read-only,\n\
        and for the user who mounts it."
)]
pub struct Mount {
    /// An empty folder
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

impl Mount {
    /// Starts slfs, a process of its own, and waits until it has mounted.
    pub fn run(&self, session: &Session) -> anyhow::Result<Outcome> {
        let folder = usable(&self.folder)?;
        session.client()?; // Starts the daemon where none runs.
        let program = beside("slfs")?;
        let mut server = Command::new(&program)
            .arg("--socket")
            .arg(session.socket()?)
            .arg(&folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {}; it belongs beside slsctl", program.display()))?;
        let mut line = String::new();
        if let Some(out) = server.stdout.take() {
            BufReader::new(out).read_line(&mut line)?;
        }
        if line != "mounted\n" {
            let mut why = String::new();
            if let Some(mut error) = server.stderr.take() {
                error.read_to_string(&mut why)?;
            }
            server.wait()?;
            let why = why.trim_start_matches("Error: ").trim_end();
            bail!("{}: {why}", folder.display());
        }
        let json = json!({ "mounted": folder.display().to_string(), "pid": server.id() });
        session.answer(&json, |_| {
            format!(
                "histories are in {0}; umount {0} ends that\n",
                folder.display()
            )
        })?;
        Ok(Outcome::Done)
    }
}

/// The folder, in full; one on which a server has died is told from one that is not there.
fn usable(folder: &Path) -> anyhow::Result<PathBuf> {
    let shown = folder.display();
    match folder.metadata() {
        Ok(meta) if !meta.is_dir() => bail!("{shown} is no folder"),
        Ok(_)
            if folder
                .read_dir()
                .is_ok_and(|mut entries| entries.next().is_some()) =>
        {
            bail!("{shown} is not empty, and what is in it would be hidden: mount somewhere else")
        }
        Ok(_) => {}
        Err(error) if error.raw_os_error() == Some(libc::ENOTCONN) => {
            bail!("{shown} is a mount whose server has ended: umount {shown} first")
        }
        Err(error) => return Err(error).context(folder.display().to_string()),
    }
    std::path::absolute(folder).with_context(|| folder.display().to_string())
}
