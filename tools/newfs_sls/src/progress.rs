//! How far a check has come, on a terminal, when it takes over a second.

use std::cell::Cell;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use slos::fsck::Stage;

const SILENT: Duration = Duration::from_secs(1);
const STEP: Duration = Duration::from_millis(100);
const WIDTH: u64 = 30;

/// Clears its line when it is dropped.
pub struct Shown {
    /// When the next line may be drawn; none without a terminal.
    next: Cell<Option<Instant>>,
    drawn: Cell<bool>,
}

impl Shown {
    pub fn new() -> Shown {
        let terminal = io::stderr().is_terminal();
        Shown {
            next: Cell::new(terminal.then(|| Instant::now() + SILENT)),
            drawn: Cell::new(false),
        }
    }

    pub fn tell(&self, stage: Stage, done: u64, total: u64) {
        let now = Instant::now();
        if self.next.get().is_none_or(|next| now < next) {
            return;
        }
        // A terminal that cannot be drawn on loses its bar, not the answer.
        let _ = write!(io::stderr(), "\r\x1b[K{}", line(stage, done, total));
        self.drawn.set(true);
        self.next.set(Some(now + STEP));
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        if self.drawn.get() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

fn line(stage: Stage, done: u64, total: u64) -> String {
    let what = match stage {
        Stage::Segments => "segments",
        Stage::Pages => "pages",
    };
    let filled = done.min(total) * WIDTH / total.max(1);
    let bar: String = (0..WIDTH)
        .map(|at| if at < filled { '#' } else { '.' })
        .collect();
    format!("{what} [{bar}] {done}/{total}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars() {
        let bar = line(Stage::Segments, 1, 4);
        assert_eq!(bar, "segments [#######.......................] 1/4");
        assert!(line(Stage::Pages, 0, 0).ends_with("0/0"));
        let full = line(Stage::Pages, 9, 9);
        assert!(full.starts_with("pages [##") && !full.contains('.'));
    }
}
