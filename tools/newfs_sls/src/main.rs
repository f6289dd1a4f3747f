//! newfs_sls: makes an empty store on a device or in a file.

mod signatures;

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Parser;
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use slos::{Device, FileDevice, format_device, holds_store, is_block};

/// Files of unknown content are known by it within so many bytes.
const LOOKED_AT: u64 = 1 << 20;

/// Make an empty store on a device or in a file, which is created
#[derive(Parser)]
#[command(
    version,
    max_term_width = 100,
    after_help = "Example: newfs_sls --size 4G history.store && slsctl export -m --to history.store\n\n\
        Exit status: 0 done, 1 failed, 2 wrong usage."
)]
struct Args {
    /// Even if a store or something else is there already: it is lost
    #[arg(long)]
    force: bool,
    /// Bytes of the file, which are set aside for it
    #[arg(long, value_name = "BYTES", value_parser = size)]
    size: Option<u64>,
    /// A block device, or a plain file
    #[arg(value_name = "DEVICE|FILE")]
    path: PathBuf,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("newfs_sls: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let path = &args.path;
    let shown = path.display();
    let there = path.exists();
    let block = there && is_block(path).with_context(|| shown.to_string())?;
    match (args.size, block, there) {
        (Some(_), true, _) => return Ok(usage("--size is for files: a device is taken whole")),
        (None, _, false) => {
            return Ok(usage(&format!(
                "{shown} is not there: say how large it is to be, as --size 4G"
            )));
        }
        _ => {}
    }
    if there {
        refuse_in_use(path, block)?;
        let device = FileDevice::read_only(path).with_context(|| shown.to_string())?;
        refuse_content(&device, path, block, args.force)?;
    }
    let made = make(args, block);
    if made.is_err() && !there {
        // Nothing but a half-made store is in it.
        let _ = std::fs::remove_file(path);
    }
    let bytes = made?;
    println!("{shown}: an empty store of {} MiB", bytes >> 20);
    Ok(ExitCode::SUCCESS)
}

fn make(args: &Args, block: bool) -> anyhow::Result<u64> {
    let shown = args.path.display();
    if !block {
        set_aside(&args.path, args.size).with_context(|| format!("make room for {shown}"))?;
    }
    let device = match FileDevice::open(&args.path) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            bail!("{shown} is in use by a running slsd; end it first (`slsctl stat` names it)")
        }
        other => other.with_context(|| shown.to_string())?,
    };
    format_device(&device).with_context(|| shown.to_string())?;
    Ok(device.size()?)
}

/// All of the file's blocks, so that the store never meets a full file system.
fn set_aside(path: &Path, size: Option<u64>) -> io::Result<()> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600)
        .open(path)?;
    if let Some(size) = size {
        file.set_len(size)?;
    }
    let size = i64::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
    match fallocate(&file, FallocateFlags::empty(), 0, size.max(1)) {
        Ok(()) | Err(Errno::EOPNOTSUPP) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Somebody works on it, whatever --force says.
fn refuse_in_use(path: &Path, block: bool) -> anyhow::Result<()> {
    let shown = path.display();
    match FileDevice::open(path) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
            bail!("{shown} is mounted, or a part of something that is; unmount it first")
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            bail!("{shown} is in use by a running slsd; end it first (`slsctl stat` names it)")
        }
        Err(error) => return Err(error).context(shown.to_string()),
    }
    if let (false, Some(device)) = (block, loop_device(path)) {
        bail!("{shown} is the file of {device}; detach that first: losetup -d {device}");
    }
    Ok(())
}

/// The loop device that a file is behind.
fn loop_device(path: &Path) -> Option<String> {
    let path = path.canonicalize().ok()?;
    let entries = std::fs::read_dir("/sys/block").ok()?;
    entries.flatten().find_map(|entry| {
        let behind = std::fs::read_to_string(entry.path().join("loop/backing_file")).ok()?;
        let device = format!("/dev/{}", entry.file_name().to_string_lossy());
        (Path::new(behind.trim_end()) == path).then_some(device)
    })
}

fn refuse_content(
    device: &dyn Device,
    path: &Path,
    block: bool,
    force: bool,
) -> anyhow::Result<()> {
    let shown = path.display();
    if force {
        return Ok(());
    }
    if holds_store(device)? {
        bail!("{shown} holds a store already; --force makes a new one, and the old one is lost");
    }
    if let Some(what) = signatures::foreign(device)? {
        bail!("{shown} holds {what}; --force makes a store of it, and what it holds is lost");
    }
    if !block && signatures::has_content(device, LOOKED_AT)? {
        bail!("{shown} holds something else; --force makes a store of it, and that is lost");
    }
    Ok(())
}

fn usage(message: &str) -> ExitCode {
    eprintln!("newfs_sls: {message}");
    ExitCode::from(2)
}

/// Bytes, with K, M, G, T (1024 each).
fn size(text: &str) -> Result<u64, String> {
    let bad = || format!("{text:?} is no size: write 16M, 4G or a number of bytes");
    let shift = match text.bytes().last().map(|b| b.to_ascii_uppercase()) {
        Some(b'K') => 10,
        Some(b'M') => 20,
        Some(b'G') => 30,
        Some(b'T') => 40,
        _ => 0,
    };
    let digits = if shift == 0 {
        text
    } else {
        &text[..text.len() - 1]
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad());
    }
    let number: u64 = digits.parse().map_err(|_| bad())?;
    number.checked_mul(1 << shift).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(path: &Path, more: &[&str]) -> Args {
        let words = [&["newfs_sls"], more, &[path.to_str().unwrap()]].concat();
        Args::try_parse_from(words).unwrap()
    }

    #[test]
    fn sizes() {
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("2k"), Ok(2048));
        assert_eq!(size("3T"), Ok(3 << 40));
        for bad in ["", "G", "-1", "1.5G", "99999999999T"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_there_is_not_lost() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let new = run(&args(&path, &[])).unwrap();
        assert_eq!(format!("{new:?}"), format!("{:?}", ExitCode::from(2)));
        run(&args(&path, &["--size", "8M"])).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 8 << 20);
        let refused = run(&args(&path, &[])).unwrap_err().to_string();
        assert!(refused.contains("holds a store already"), "{refused}");
        run(&args(&path, &["--force"])).unwrap();
        let held = FileDevice::open(&path).unwrap();
        let refused = run(&args(&path, &["--force"])).unwrap_err().to_string();
        assert!(refused.contains("in use"), "{refused}");
        drop(held);
        for (bytes, at, what) in [
            (&[0x53, 0xef][..], 0x438, "ext"),
            (b"XFSB", 0, "XFS"),
            (b"hello", 9000, "something else"),
        ] {
            let mut content = vec![0; 4 << 20];
            content[at..at + bytes.len()].copy_from_slice(bytes);
            std::fs::write(&path, &content).unwrap();
            let refused = run(&args(&path, &[])).unwrap_err().to_string();
            assert!(refused.contains(what), "{refused}");
            assert_eq!(std::fs::read(&path).unwrap(), content);
        }
        run(&args(&path, &["--force"])).unwrap();
        // One that is too small is not left behind.
        let small = dir.path().join("small");
        assert!(run(&args(&small, &["--size", "64K"])).is_err());
        assert!(!small.exists());
    }
}
