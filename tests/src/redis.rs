//! A redis-server of a test's own.

use std::net::{TcpListener, TcpStream};
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::{Target, wait_until};

/// A running redis-server that saves nothing.
#[derive(Debug)]
pub struct Redis {
    target: Target,
    port: u16,
}

impl Redis {
    /// Starts one on a free port and waits until it listens.
    ///
    /// # Panics
    /// It does not; `./x setup` installs it.
    #[must_use]
    pub fn start(folder: &Path) -> Self {
        let port = free_port();
        let mut command = Command::new("redis-server");
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1"]);
        command.args(["--save", "", "--dir"]).arg(folder);
        let target = Target::start(folder, command);
        wait_until(Duration::from_secs(5), "redis-server listens", || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Self { target, port }
    }

    /// Where it listens.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// A port of the loopback that nobody has just now.
#[must_use]
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("its number").port()
}

impl Deref for Redis {
    type Target = Target;

    fn deref(&self) -> &Target {
        &self.target
    }
}

impl DerefMut for Redis {
    fn deref_mut(&mut self) -> &mut Target {
        &mut self.target
    }
}
