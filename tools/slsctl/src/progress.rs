//! Signs of life, on a terminal, for what takes over a second.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const SILENT: Duration = Duration::from_secs(1);
const STEP: Duration = Duration::from_millis(100);
const WIDTH: u64 = 30;

/// How far it has come.
#[derive(Debug, Default)]
pub struct Progress {
    done: AtomicU64,
    /// Known only for work that can be counted.
    total: OnceLock<u64>,
}

impl Progress {
    pub fn step(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    fn line(&self, what: &str, elapsed: Duration) -> String {
        let Some(&total) = self.total.get() else {
            return format!("{what}: {} s", elapsed.as_secs());
        };
        let done = self.done.load(Ordering::Relaxed).min(total);
        let filled = done * WIDTH / total.max(1);
        let bar: String = (0..WIDTH)
            .map(|at| if at < filled { '#' } else { '.' })
            .collect();
        format!("{what} [{bar}] {done}/{total}")
    }
}

/// Draws until it is dropped.
pub struct Shown {
    progress: Arc<Progress>,
    drawer: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Shown {
    /// Work of unknown length.
    pub fn waiting(what: &'static str) -> Self {
        Self::start(what, Progress::default())
    }

    /// So many steps.
    pub fn counted(what: &'static str, total: usize) -> Self {
        let total = OnceLock::from(total as u64);
        Self::start(
            what,
            Progress {
                total,
                ..Progress::default()
            },
        )
    }

    pub fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    fn start(what: &'static str, progress: Progress) -> Self {
        let progress = Arc::new(progress);
        let drawer = io::stderr().is_terminal().then(|| {
            let (stop, stopped) = channel::<()>();
            let progress = Arc::clone(&progress);
            let draw = move || {
                let start = Instant::now();
                let mut wait = SILENT;
                while stopped.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                    // A terminal that cannot be drawn on loses its bar, not the answer.
                    let _ = write!(
                        io::stderr(),
                        "\r\x1b[K{}",
                        progress.line(what, start.elapsed())
                    );
                    wait = STEP;
                }
                if wait == STEP {
                    let _ = write!(io::stderr(), "\r\x1b[K");
                }
            };
            (stop, std::thread::spawn(draw))
        });
        Self { progress, drawer }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.drawer.take() {
            drop(stop);
            // Joined, or its last stroke could land in the answer; a panic there is nobody's loss.
            let _ = thread.join();
        }
    }
}

/// How far a debug file of a server has come, on a terminal; the line is wiped when it is all there.
pub fn transfer(server: &str, progress: sls_debuginfod::Progress) {
    if !io::stderr().is_terminal() {
        return;
    }
    let line = transfer_line(server, progress);
    // As above: what cannot be drawn is no loss.
    let _ = write!(io::stderr(), "\r\x1b[K{line}");
}

fn transfer_line(server: &str, progress: sls_debuginfod::Progress) -> String {
    const MIB: u64 = 1 << 20;
    let so_far = progress.bytes / MIB;
    match progress.whole {
        Some(whole) if whole == progress.bytes => String::new(),
        Some(whole) => format!("{server}: debug file, {so_far} of {} MiB", whole / MIB),
        None => format!("{server}: debug file, {so_far} MiB"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars() {
        let shown = Shown::counted("epochs", 4);
        shown.progress().step();
        let line = shown.progress().line("epochs", Duration::ZERO);
        assert_eq!(line, "epochs [#######.......................] 1/4");
        let empty = Progress {
            total: OnceLock::from(0),
            ..Progress::default()
        };
        assert!(empty.line("x", Duration::ZERO).ends_with("0/0"));
    }
}
