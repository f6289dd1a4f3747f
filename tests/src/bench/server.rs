//! redis-server and its load.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use testkit::Redis;

/// Bytes of a value.
const VALUE: &str = "1024";

/// A redis-server to be loaded.
pub struct Server {
    redis: Redis,
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
    pub fn start(folder: &Path) -> Self {
        Self {
            redis: Redis::start(folder),
        }
    }

    pub fn pid(&self) -> String {
        self.redis.p()
    }

    /// It must be alive, untraced and not stopped.
    pub fn assert_unharmed(&mut self) {
        self.redis.assert_unharmed();
    }

    fn port(&self) -> String {
        self.redis.port().to_string()
    }

    fn load(&self, requests: u64) -> Command {
        let mut command = Command::new("redis-benchmark");
        command.args([
            "-p",
            &self.port(),
            "-t",
            "set",
            "-r",
            "100000",
            "-c",
            "20",
            "-d",
            VALUE,
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

    /// Gives it so many MiB of values of a kilobyte, each another.
    pub fn fill(&self, mebibytes: u64) -> anyhow::Result<()> {
        const SCRIPT: &str = "for i = 1, ARGV[1] do redis.call('SET', 'key:' .. i, string.rep(string.format('%08x', i), 128)) end";
        let mut command = Command::new("redis-cli");
        command.args(["-p", &self.port(), "EVAL", SCRIPT, "0"]);
        command.arg((mebibytes * 1024).to_string());
        let out = command.stderr(Stdio::inherit()).output()?;
        let said = String::from_utf8_lossy(&out.stdout);
        ensure!(said.trim().is_empty(), "redis-cli EVAL: {said}");
        Ok(())
    }

    /// Waits for an answer.
    pub fn ping(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            if self.asked().is_ok() {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "redis does not answer");
        }
    }

    fn asked(&self) -> std::io::Result<()> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.redis.port()))?;
        stream.write_all(b"PING\r\n")?;
        let mut answer = [0; 7];
        stream.read_exact(&mut answer)
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
            .args(["-p", &self.port(), "BGSAVE"])
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
