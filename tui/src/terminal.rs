//! The terminal: taken over at the start, given back at the end, on a panic, on a signal to end and while stopped.

use std::cell::Cell;
use std::io::{self, IsTerminal, stdout};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use crossterm::clipboard::CopyToClipboard;
use crossterm::event::{self, DisableMouseCapture, EnableMouseCapture, KeyEventKind};
use crossterm::terminal::{
    Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use crossterm::{cursor, execute};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGTERM, SIGTSTP};
use signal_hook::iterator::Signals;

use crate::draw::{Canvas, draw};
use crate::line::{Line, Pace};
use crate::model::Model;
use crate::update::Event;

pub struct Screen {
    terminal: Terminal<CrosstermBackend<Line>>,
    /// Bytes since they were last counted.
    sent: Rc<Cell<usize>>,
    pace: Option<Pace>,
}

/// Whether there is a terminal to work on.
pub fn is_there() -> bool {
    io::stdin().is_terminal() && stdout().is_terminal()
}

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    /// It cannot be set up.
    pub fn take() -> io::Result<Self> {
        let before = std::panic::take_hook();
        let drawing = std::thread::current().id();
        std::panic::set_hook(Box::new(move |panic| {
            // The other threads' panics arrive as events.
            if std::thread::current().id() == drawing {
                give_back();
                before(panic);
            }
        }));
        let sent = Rc::default();
        let taken = take_over().and_then(|()| terminal(&sent));
        match taken {
            Ok(terminal) => Ok(Self {
                terminal,
                sent,
                pace: Pace::of_environment(),
            }),
            Err(error) => {
                give_back();
                Err(error)
            }
        }
    }

    /// Columns and rows.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn size(&self) -> io::Result<(u16, u16)> {
        let size = self.terminal.size()?;
        Ok((size.width, size.height))
    }

    /// Shows the model. Only cells that are other than before are sent; on a line that has not taken the last frame yet
    /// nothing is, and how long that takes is returned.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn show(&mut self, model: &Model) -> io::Result<Option<Duration>> {
        if let Some(pace) = &mut self.pace {
            pace.sent(self.sent.take());
            let wait = pace.wait(Instant::now());
            if wait.is_some() {
                return Ok(wait);
            }
        }
        self.terminal.draw(|frame| {
            let mut canvas = Canvas {
                buffer: frame.buffer_mut(),
                theme: model.theme,
            };
            draw(model, &mut canvas);
        })?;
        Ok(None)
    }

    /// Sends every cell again: somebody else has written on the terminal.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn redraw(&mut self) -> io::Result<()> {
        // Terminal::clear asks the terminal where the cursor is, and another thread reads what it answers.
        self.terminal = terminal(&self.sent)?;
        take_over()?;
        execute!(stdout(), Clear(ClearType::All))
    }

    /// Gives the terminal back, stands still until somebody lets this program run on, and takes it again.
    ///
    /// # Errors
    /// The terminal is gone, or this program cannot be stopped.
    pub fn suspend(&mut self) -> io::Result<()> {
        give_back();
        signal_hook::low_level::emulate_default_handler(SIGTSTP)?;
        self.redraw()
    }

    /// To the clipboard of the terminal, by OSC 52: it works over ssh too.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn copy(text: &str) -> io::Result<()> {
        execute!(stdout(), CopyToClipboard::to_clipboard_from(text))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

fn terminal(sent: &Rc<Cell<usize>>) -> io::Result<Terminal<CrosstermBackend<Line>>> {
    Terminal::new(CrosstermBackend::new(Line::new(Rc::clone(sent))))
}

/// Given back once: a second time would put the cursor back on what was said meanwhile.
static TAKEN: AtomicBool = AtomicBool::new(false);

fn take_over() -> io::Result<()> {
    TAKEN.store(true, Ordering::SeqCst);
    enable_raw_mode()?;
    execute!(
        stdout(),
        EnterAlternateScreen,
        EnableMouseCapture,
        cursor::Hide
    )
}

fn give_back() {
    if !TAKEN.swap(false, Ordering::SeqCst) {
        return;
    }
    // At the end nothing is left to be told that this failed.
    let _ = execute!(
        stdout(),
        DisableMouseCapture,
        LeaveAlternateScreen,
        cursor::Show
    );
    let _ = disable_raw_mode();
}

/// Sends signals to end, to stop and to go on on.
///
/// # Errors
/// The signals cannot be waited for.
pub fn heed_signals(events: &Sender<Event>) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGHUP, SIGINT, SIGTSTP, SIGCONT])?;
    let events = events.clone();
    std::thread::spawn(move || {
        for signal in signals.forever() {
            let event = match signal {
                SIGTSTP => Event::Suspended,
                SIGCONT => Event::Continued,
                _ => Event::Quit,
            };
            if events.send(event).is_err() {
                return;
            }
        }
    });
    Ok(())
}

/// Sends keys, the mouse and changes of size on.
pub fn listen(events: Sender<Event>) {
    std::thread::spawn(move || {
        loop {
            let event = match event::read() {
                Ok(event::Event::Key(key)) if key.kind != KeyEventKind::Release => Event::Key(key),
                Ok(event::Event::Mouse(mouse)) => Event::Mouse(mouse),
                Ok(event::Event::Resize(columns, rows)) => Event::Resized(columns, rows),
                Ok(_) => continue,
                Err(_) => Event::Quit,
            };
            let last = matches!(event, Event::Quit);
            if events.send(event).is_err() || last {
                return;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::process::Command;

    use nix::pty::openpty;
    use nix::sys::termios::tcgetattr;

    use super::*;

    const INSIDE: &str = "SLS_TEST_PANICS";

    /// The test runs itself once more in a terminal, and that one panics while it draws.
    #[test]
    fn a_panic_gives_the_terminal_back() {
        if std::env::var_os(INSIDE).is_some() {
            let _screen = Screen::take().unwrap();
            panic!("while the terminal is ours");
        }
        let pty = openpty(None, None).unwrap();
        let before = tcgetattr(&pty.slave).unwrap();
        let slave = std::fs::File::from(pty.slave);
        let mut inside = Command::new(std::env::current_exe().unwrap());
        inside.args(["a_panic_gives_the_terminal_back", "--nocapture"]);
        inside.env(INSIDE, "1").env("TERM", "xterm");
        inside.stdin(slave.try_clone().unwrap());
        inside.stdout(slave.try_clone().unwrap());
        inside.stderr(slave.try_clone().unwrap());
        let mut child = inside.spawn().unwrap();
        drop(inside);
        assert!(!child.wait().unwrap().success());
        let after = tcgetattr(&slave).unwrap();
        drop(slave);
        let mut said = Vec::new();
        // It ends in EIO once nobody has the other end.
        let _ = std::fs::File::from(pty.master).read_to_end(&mut said);
        let said = String::from_utf8_lossy(&said);
        let at = |text: &str| {
            said.rfind(text)
                .unwrap_or_else(|| panic!("no {text:?}: {said:?}"))
        };
        let (taken, left) = (at("\u{1b}[?1049h"), at("\u{1b}[?1049l"));
        assert!(taken < left, "{said:?}");
        assert_eq!(said.matches("\u{1b}[?1049l").count(), 1, "{said:?}");
        assert!(at("\u{1b}[?1000h") < at("\u{1b}[?1000l"), "{said:?}");
        assert!(at("\u{1b}[?25l") < at("\u{1b}[?25h"), "{said:?}");
        // What it has to say stands on the user's screen.
        assert!(left < at("while the terminal is ours"), "{said:?}");
        assert_eq!(after, before);
    }
}
