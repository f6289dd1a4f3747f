//! Runs the workbench: events in, changes, effects out, the screen.

use std::process::ExitCode;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use crossterm::event::KeyEvent;

use crate::cli::{Cli, Screen};
use crate::dump;
use crate::model::{Model, Notice};
use crate::session::Session;
use crate::terminal;
use crate::update::{Effect, Event, update};
use crate::watcher::{self, Order};
use crate::worker::Worker;

/// Runs what the command line asks for.
///
/// # Errors
/// The daemon or the terminal fails.
pub fn run(cli: &Cli) -> anyhow::Result<ExitCode> {
    if cli.dump.is_none() && !terminal::is_there() {
        eprintln!(
            "sls-tui: not on a terminal; `--dump SCREEN` prints a screen as text: timeline, threads, source, \
             variables, memory, help or all"
        );
        return Ok(ExitCode::from(2));
    }
    let (sender, events) = channel();
    // Before anything is attached: a signal must not leave it so.
    terminal::heed_signals(&sender)?;
    let (session, client) = Session::open(cli)?;
    let mut model = Model::new(session.target.clone());
    model.notice = session
        .remark
        .clone()
        .map(|text| Notice { text, bad: false });
    let mut app = App {
        model,
        worker: Worker::start(session.origin.clone(), sender.clone()),
        orders: watcher::start(session.origin.clone(), client, sender.clone()),
        events,
    };
    let keys = cli.keys.as_ref().map_or(&[][..], |keys| &keys.0);
    let done = match cli.dump {
        Some(screen) => app.dump(keys, screen),
        None => app.interact(keys, sender),
    };
    session.close()?;
    done?;
    if let Some(failure) = app.model.failure {
        anyhow::bail!(failure);
    }
    Ok(ExitCode::SUCCESS)
}

pub struct App {
    pub model: Model,
    worker: Worker,
    orders: Sender<Order>,
    events: Receiver<Event>,
}

impl App {
    /// Prints one screen.
    fn dump(&mut self, keys: &[KeyEvent], screen: Screen) -> anyhow::Result<()> {
        self.settle()?;
        self.type_in(keys)?;
        anyhow::ensure!(
            self.model.look.is_some() || !self.model.quit,
            "ended before the first screen"
        );
        match self.model.notice.as_ref().filter(|notice| notice.bad) {
            Some(notice) => anyhow::bail!("{}", notice.text),
            None => dump::print(&self.model, screen),
        }
    }

    /// Works on the terminal until the user quits.
    fn interact(&mut self, keys: &[KeyEvent], sender: Sender<Event>) -> anyhow::Result<()> {
        let mut screen = terminal::Screen::take()?;
        terminal::listen(sender);
        screen.show(&self.model)?;
        if !keys.is_empty() {
            self.settle()?;
            self.type_in(keys)?;
        }
        while !self.model.quit {
            screen.show(&self.model)?;
            let event = self.events.recv()?;
            self.take(event);
            // What has piled up is shown at once, not one after the other.
            while let Ok(event) = self.events.try_recv() {
                self.take(event);
            }
        }
        Ok(())
    }

    fn take(&mut self, event: Event) {
        for effect in update(&mut self.model, event) {
            match effect {
                Effect::Ask { number, question } => self.worker.ask(number, question),
                Effect::Rewind { epoch } => {
                    if self.orders.send(Order { epoch }).is_err() {
                        self.model.quit = true;
                    }
                }
            }
        }
    }

    /// Takes events in until nothing is under way, or something failed.
    ///
    /// # Errors
    /// It takes too long.
    fn settle(&mut self) -> anyhow::Result<()> {
        const PATIENCE: Duration = Duration::from_secs(30);
        let deadline = std::time::Instant::now() + PATIENCE;
        while !self.model.quit && self.is_busy() {
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            match self.events.recv_timeout(left) {
                Ok(event) => self.take(event),
                Err(_) => anyhow::bail!("slsd did not answer within {PATIENCE:?}"),
            }
            if self.model.notice.as_ref().is_some_and(|notice| notice.bad) {
                break;
            }
        }
        Ok(())
    }

    fn is_busy(&self) -> bool {
        let model = &self.model;
        // A partition without a process and without checkpoints has nothing more to come.
        let empty =
            model.history.is_some() && model.checkpoints().is_empty() && model.target.is_gone();
        let first = model.look.is_none() && !empty;
        first || model.rewinding.is_some() || model.pending.is_some()
    }

    fn type_in(&mut self, keys: &[KeyEvent]) -> anyhow::Result<()> {
        for key in keys {
            self.take(Event::Key(*key));
            self.settle()?;
        }
        Ok(())
    }
}
