//! The terminal: taken over at the start, given back at the end, on a panic and on a signal to end.

use std::io::{self, IsTerminal, Stdout, stdout};
use std::sync::mpsc::Sender;

use crossterm::event::{self, KeyEventKind};
use crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use crossterm::{cursor, execute};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::draw::{Canvas, draw};
use crate::model::Model;
use crate::theme::Theme;
use crate::update::Event;

pub struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
    theme: Theme,
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
        enable_raw_mode()?;
        let taken = execute!(stdout(), EnterAlternateScreen, cursor::Hide)
            .and_then(|()| Terminal::new(CrosstermBackend::new(stdout())));
        match taken {
            Ok(terminal) => Ok(Self {
                terminal,
                theme: Theme::of_environment(),
            }),
            Err(error) => {
                give_back();
                Err(error)
            }
        }
    }

    /// Shows the model.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn show(&mut self, model: &Model) -> io::Result<()> {
        let theme = self.theme;
        self.terminal.draw(|frame| {
            let mut canvas = Canvas {
                buffer: frame.buffer_mut(),
                theme,
            };
            draw(model, &mut canvas);
        })?;
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

fn give_back() {
    // At the end nothing is left to be told that this failed.
    let _ = execute!(stdout(), LeaveAlternateScreen, cursor::Show);
    let _ = disable_raw_mode();
}

/// Sends signals to end on.
///
/// # Errors
/// The signals cannot be waited for.
pub fn heed_signals(events: &Sender<Event>) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGHUP, SIGINT])?;
    let ended = events.clone();
    std::thread::spawn(move || {
        for _ in signals.forever() {
            if ended.send(Event::Quit).is_err() {
                return;
            }
        }
    });
    Ok(())
}

/// Sends keys and changes of size on.
pub fn listen(events: Sender<Event>) {
    std::thread::spawn(move || {
        loop {
            let event = match event::read() {
                Ok(event::Event::Key(key)) if key.kind != KeyEventKind::Release => Event::Key(key),
                Ok(event::Event::Resize(..)) => Event::Resized,
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
