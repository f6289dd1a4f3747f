//! Where the daemon listens and keeps its files.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Why there is no safe place for the socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The folder belongs to somebody else or is open to others.
    #[error(
        "{path} belongs to uid {uid} with mode {mode:o}: remove it, or name another socket with --socket PATH or SLS_SOCKET"
    )]
    Unsafe {
        /// Folder.
        path: PathBuf,
        /// Its owner.
        uid: u32,
        /// Its mode.
        mode: u32,
    },
    /// It could not be made.
    #[error("make {path}: {source}; name another socket with --socket PATH or SLS_SOCKET")]
    Make {
        /// Folder.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
}

/// The socket of this user's daemon: /run/sls for root, $XDG_RUNTIME_DIR/sls or /tmp/sls-UID for
/// others. The folder is made when missing and checked to be this user's alone.
///
/// # Errors
/// The folder is not safe or cannot be made.
pub fn default_socket() -> Result<PathBuf, SocketError> {
    let folder = socket_folder();
    private_folder(&folder)?;
    Ok(folder.join(SOCKET))
}

const SOCKET: &str = "slsd.sock";

fn socket_folder() -> PathBuf {
    let uid = nix::unistd::geteuid().as_raw();
    match std::env::var_os("XDG_RUNTIME_DIR").filter(|d| !d.is_empty()) {
        _ if uid == 0 => PathBuf::from("/run/sls"),
        Some(dir) => PathBuf::from(dir).join("sls"),
        None => PathBuf::from(format!("/tmp/sls-{uid}")),
    }
}

/// The folder for what the user's daemon, the one on the default socket, keeps over a reboot: /var/lib/sls
/// for root, $XDG_STATE_HOME/sls or ~/.local/state/sls for others. None for a daemon on another
/// socket, and without a home.
#[must_use]
pub fn lasting_folder(socket: &Path) -> Option<PathBuf> {
    if socket != socket_folder().join(SOCKET) {
        return None;
    }
    if nix::unistd::geteuid().is_root() {
        return Some(PathBuf::from("/var/lib/sls"));
    }
    // A relative one is to be taken for none (XDG base directory specification).
    let absolute = |name: &str| {
        let dir = std::env::var_os(name).map(PathBuf::from);
        dir.filter(|dir| dir.is_absolute())
    };
    let state = absolute("XDG_STATE_HOME");
    let state = state.or_else(|| Some(absolute("HOME")?.join(".local/state")));
    Some(state?.join("sls"))
}

/// The folder for journals and logs of the daemon behind `socket`: beside it.
#[must_use]
pub fn state_folder(socket: &Path) -> PathBuf {
    let mut name = socket
        .file_name()
        .map(std::ffi::OsStr::to_owned)
        .unwrap_or_default();
    name.push(".d");
    socket.with_file_name(name)
}

/// The folder in memory of the daemon behind `socket`, within its user's: one a socket.
#[must_use]
pub fn memory_name(socket: &Path) -> String {
    let name = socket.to_string_lossy().replace('/', "-");
    name.trim_start_matches(['-', '.']).to_owned()
}

/// Makes a folder when it is missing, and checks that it is this user's alone: in a folder of
/// somebody else's every file may be a link to anywhere.
///
/// # Errors
/// It is not safe or cannot be made.
pub fn private_folder(path: &Path) -> Result<(), SocketError> {
    let made = fs::DirBuilder::new().mode(0o700).create(path);
    if let Err(source) = made
        && source.kind() != io::ErrorKind::AlreadyExists
    {
        return Err(SocketError::Make {
            path: path.into(),
            source,
        });
    }
    let meta = fs::symlink_metadata(path).map_err(|source| SocketError::Make {
        path: path.into(),
        source,
    })?;
    let own = meta.uid() == nix::unistd::geteuid().as_raw();
    if meta.is_dir() && own && meta.mode() & 0o022 == 0 {
        Ok(())
    } else {
        Err(SocketError::Unsafe {
            path: path.into(),
            uid: meta.uid(),
            mode: meta.mode() & 0o7777,
        })
    }
}
