//! redis-server and its load.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use testkit::Target;

/// Bytes of a value.
const VALUE: &str = "1024";

/// A redis-server of its own.
pub struct Server {
    target: Target,
    port: String,
}

/// What a load saw.
#[derive(Debug, Clone, Copy)]
pub struct Served {
    /// Requests a second.
    pub rate: f64,
    /// Slowest request, ms.
    pub worst_ms: f64,
}

impl Server {
    pub fn start(folder: &Path) -> anyhow::Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = Command::new("redis-server");
        command.args([
            "--port",
            &port.to_string(),
            "--save",
            "",
            "--bind",
            "127.0.0.1",
        ]);
        command.arg("--dir").arg(folder);
        let target = Target::start(folder, command);
        for _ in 0..250 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Ok(Self {
                    target,
                    port: port.to_string(),
                });
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("redis-server does not listen: {}", target.output())
    }

    pub fn pid(&self) -> String {
        self.target.p()
    }

    fn load(&self, requests: u64) -> Command {
        let mut command = Command::new("redis-benchmark");
        command.args([
            "-p", &self.port, "-t", "set", "-r", "100000", "-c", "20", "-d", VALUE,
        ]);
        command.args(["--csv", "-n", &requests.to_string()]);
        command
    }

    /// SETs of random keys, until so many are served.
    pub fn serve(&self, requests: u64) -> anyhow::Result<Served> {
        let out = self
            .load(requests)
            .output()
            .context("redis-benchmark; ./x setup installs it")?;
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        ensure!(out.status.success(), "redis-benchmark: {text}");
        served(&text).with_context(|| format!("redis-benchmark said {text:?}"))
    }

    /// The same without end; the caller ends it.
    pub fn serve_on(&self) -> anyhow::Result<Child> {
        let mut command = self.load(1_000_000_000);
        Ok(command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?)
    }

    /// Asks for a snapshot by fork; one that runs already is as good.
    pub fn save(&self) -> anyhow::Result<()> {
        let mut command = Command::new("redis-cli");
        command
            .args(["-p", &self.port, "BGSAVE"])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        ensure!(command.status()?.success(), "redis-cli BGSAVE");
        Ok(())
    }
}

fn served(csv: &str) -> Option<Served> {
    let line = csv.lines().find(|l| l.starts_with("\"SET\""))?;
    let cells: Vec<&str> = line.split(',').map(|c| c.trim_matches('"')).collect();
    Some(Served {
        rate: cells.get(1)?.parse().ok()?,
        worst_ms: cells.last()?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_redis_benchmark_prints() {
        let csv = "\"test\",\"rps\",\"avg\",\"max\"\n\"SET\",\"1000.50\",\"0.1\",\"9.2\"\n";
        let served = super::served(csv).unwrap();
        assert!((served.rate - 1000.5).abs() < 0.01 && (served.worst_ms - 9.2).abs() < 0.01);
    }
}
