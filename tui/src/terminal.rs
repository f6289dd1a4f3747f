//! The terminal: taken over at the start, given back at the end, on a panic, on a signal to end and while stopped.

use std::io::{self, IsTerminal, Stdout, stdout};
use std::sync::mpsc::Sender;

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
use crate::model::Model;
use crate::update::Event;

pub struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
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
        let taken = take_over().and_then(|()| Terminal::new(CrosstermBackend::new(stdout())));
        match taken {
            Ok(terminal) => Ok(Self { terminal }),
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

    /// Shows the model. Only cells that are other than before are sent.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn show(&mut self, model: &Model) -> io::Result<()> {
        self.terminal.draw(|frame| {
            let mut canvas = Canvas {
                buffer: frame.buffer_mut(),
                theme: model.theme,
            };
            draw(model, &mut canvas);
        })?;
        Ok(())
    }

    /// Sends every cell again: somebody else has written on the terminal.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn redraw(&mut self) -> io::Result<()> {
        // Terminal::clear asks the terminal where the cursor is, and another thread reads what it answers.
        self.terminal = Terminal::new(CrosstermBackend::new(stdout()))?;
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

fn take_over() -> io::Result<()> {
    enable_raw_mode()?;
    execute!(
        stdout(),
        EnterAlternateScreen,
        EnableMouseCapture,
        cursor::Hide
    )
}

fn give_back() {
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
