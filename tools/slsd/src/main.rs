//! slsd: owns partitions, takes checkpoints, answers clients.

mod answers;
mod branch;
mod bundle;
mod check;
mod child;
mod connection;
mod control;
mod events;
mod flush;
mod gate;
mod guests;
mod history;
mod known;
mod leave;
mod mailbox;
mod names;
mod part;
mod probes;
mod registry;
mod room;
mod stops;
mod stores;
mod timed;
mod transfer;
mod trouble;
mod watch;
mod worker;

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Parser;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use sls_engine::Probe;

use crate::registry::Registry;

/// How long an earlier daemon may take to be gone.
const PREDECESSOR: Duration = Duration::from_secs(10);

/// The daemon of the single level store. slsctl and sls-tui start it when they need it.
#[derive(Parser)]
#[command(
    version,
    after_help = "Example: slsd --socket /tmp/test.sock --foreground"
)]
struct Args {
    /// Listen here [default: /run/sls/slsd.sock for root, a private folder for others]
    #[arg(long, env = "SLS_SOCKET")]
    socket: Option<PathBuf>,
    /// Go to the background once the socket is there
    #[arg(long, conflicts_with = "foreground")]
    background: bool,
    /// Stay in the foreground and log to standard error
    #[arg(long)]
    foreground: bool,
    /// Leave these kernel features unused: wp_async, pagemap_scan, suspend_seccomp, sched_debug
    #[arg(long, env = "SLS_MASK", default_value = "", hide_default_value = true)]
    mask: String,
    /// How much to log: error, warn, info or debug (a line for each checkpoint, where its time went)
    #[arg(long, env = "SLS_LOG", default_value = "info")]
    log: tracing::Level,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    // Who started us may hold locks and pipes by them, and is not to wait for our end. Before Linux 5.11 it does.
    let _ = sls_engine::pass_on_none();
    let socket = match &args.socket {
        Some(path) => path.clone(),
        None => libsls::default_socket()?,
    };
    let state = libsls::state_folder(&socket);
    if let Some(parent) = state.parent() {
        fs::DirBuilder::new()
            .mode(0o700)
            .recursive(true)
            .create(parent)?;
    }
    libsls::private_folder(&state)?;
    if args.background {
        return background(&socket, &state, &args.mask);
    }
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(false)
        .with_max_level(args.log)
        .init();
    serve(&socket, &state, &args.mask)
}

/// Starts the daemon proper in a session of its own, with its log beside the socket.
fn background(socket: &Path, state: &Path, mask: &str) -> anyhow::Result<()> {
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(state.join("slsd.log"))?;
    let mut daemon = Command::new(std::env::current_exe()?);
    daemon
        .arg("--socket")
        .arg(socket)
        .arg("--foreground")
        .args(["--mask", mask]);
    // Else glibc keeps what a long answer took, up to 32 MiB a thread's arena, for the next one.
    daemon.env("MALLOC_MMAP_THRESHOLD_", "131072");
    daemon
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    std::os::unix::process::CommandExt::process_group(&mut daemon, 0);
    daemon.spawn().context("start slsd")?;
    Ok(())
}

fn serve(socket: &Path, state: &Path, mask: &str) -> anyhow::Result<()> {
    let _ = nix::unistd::setsid(); // EPERM: already leads a session.
    let Some(_lock) = lock(socket, state)? else {
        return Ok(()); // Another one was quicker; clients find that one.
    };
    raise_descriptor_limit();
    let probe = Probe::run().mask(mask).map_err(anyhow::Error::msg)?;
    let keeper = std::env::current_exe()?.with_file_name("sls-keeper");
    // Before anything is recovered: gigabytes of history take seconds, for which clients wait in line.
    let listener = listen(socket)?;
    let door = leave::Door::of(socket)?;
    tracing::info!(socket = %socket.display(), "listening");
    let registry = Arc::new(Registry::open(socket, probe, keeper)?);
    tracing::info!(socket = %socket.display(), "ready");
    leave::watch(&registry, door)?;
    connection::accept(&listener, &registry);
    Ok(())
}

fn listen(socket: &Path) -> anyhow::Result<UnixListener> {
    if let Err(error) = fs::remove_file(socket)
        && error.kind() != io::ErrorKind::NotFound
    {
        bail!("remove the old socket {}: {error}", socket.display());
    }
    let listener =
        UnixListener::bind(socket).with_context(|| format!("listen on {}", socket.display()))?;
    fs::set_permissions(socket, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Each client and each 16 MiB of history is a descriptor; the usual 1,024 are soon used up.
fn raise_descriptor_limit() {
    let done = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = done {
        tracing::warn!(%error, "raise the limit of descriptors");
    }
}

/// One daemon a socket; None when another one serves it. One that is leaving, or was killed and
/// still gives its memory back, serves nobody: its end is waited for.
fn lock(socket: &Path, state: &Path) -> anyhow::Result<Option<Flock<fs::File>>> {
    let path = state.join("lock");
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(|| format!("open {}", path.display()))?;
    let deadline = Instant::now() + PREDECESSOR;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(Some(lock)),
            Err((back, nix::errno::Errno::EWOULDBLOCK)) => file = back,
            Err((_, error)) => bail!("lock {}: {error}", path.display()),
        }
        if libsls::Client::connect(socket).is_ok() {
            return Ok(None);
        }
        if Instant::now() > deadline {
            bail!(
                "another slsd holds {} and does not answer; end it: fuser -k {0}",
                path.display()
            );
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
