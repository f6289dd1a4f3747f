//! slfs: serves a mount. `slsctl mount` starts it; it ends with the mount.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use slfs::adapter::Mounted;
use slfs::histories::Histories;

/// Serve the histories that slsd holds as files, until the folder is unmounted. `slsctl mount` starts it.
#[derive(Parser)]
#[command(
    version,
    after_help = "Example: slfs --socket /run/sls/slsd.sock /mnt/histories"
)]
struct Args {
    /// The daemon's socket [default: /run/sls/slsd.sock for root, a private folder for others]
    #[arg(long, env = "SLS_SOCKET")]
    socket: Option<PathBuf>,
    /// Where to mount
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let socket = match args.socket {
        Some(socket) => socket,
        None => libsls::default_socket()?,
    };
    let mut histories = Histories::connect(socket)?;
    let folder = args.folder.display().to_string();
    let mut mounted = Mounted::at(&args.folder).with_context(|| format!("mount at {folder}"))?;
    let mut unmounter = mounted.unmounter();
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    std::thread::spawn(move || {
        for _ in signals.forever() {
            // EBUSY: somebody is in it. The next signal tries again.
            if let Err(error) = unmounter.unmount() {
                eprintln!("slfs: unmount {folder}: {error}");
            }
        }
    });
    // Who waits for the mount reads this line; nothing is ever said there again.
    writeln!(std::io::stdout(), "mounted").context("say that it is mounted")?;
    mounted.run(&mut histories).context("serve the mount")
}
