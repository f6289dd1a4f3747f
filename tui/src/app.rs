//! Runs the workbench: events in, changes, effects out, the screen.

use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use crossterm::event::KeyEvent;

use crate::access::Origin;
use crate::clerk::Clerks;
use crate::cli::{Cli, Dump};
use crate::config::Config;
use crate::kept::Kept;
use crate::made::Made;
use crate::model::Model;
use crate::paint::Painter;
use crate::session::Session;
use crate::terminal::{self, Screen};
use crate::update::{Effect, Event, update};
use crate::watcher::{self, Order};
use crate::worker::Worker;
use crate::{driver, dump};

/// How often a spinner turns.
const TICK: Duration = Duration::from_millis(100);
/// How long a script's step may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs what the command line asks for.
///
/// # Errors
/// The daemon or the terminal fails.
pub fn run(cli: &Cli) -> anyhow::Result<ExitCode> {
    if cli.dump.is_none() && !terminal::is_there() {
        eprintln!(
            "sls-tui: not on a terminal; `--dump SCREEN` prints a screen as text: all, help, or a pane such as \
             timeline, threads, source, variables, memory (`sls-tui --help` lists them)"
        );
        return Ok(ExitCode::from(2));
    }
    let (sender, events) = channel();
    // Before anything is attached: a signal must not leave it so.
    terminal::heed_signals(&sender)?;
    let mut session = Session::open(cli)?;
    let mut app = App::new(&mut session, &sender, events);
    let keys = cli.keys.as_ref().map_or(&[][..], |keys| &keys.0);
    let done = match cli.dump {
        Some(dump) => app.dump(&mut session, keys, dump),
        None => app.interact(&mut session, keys),
    };
    let failure = app.model.failure.take();
    drop(app);
    session.close()?;
    done?;
    if let Some(failure) = failure {
        anyhow::bail!(failure);
    }
    Ok(ExitCode::SUCCESS)
}

struct App {
    model: Model,
    hands: Hands,
    sender: Sender<Event>,
    events: Receiver<Event>,
    /// None for a script, which sees nothing of the user's past and leaves nothing behind.
    kept: Option<Kept>,
    screen: Option<Screen>,
}

/// The threads that do something about one partition.
struct Hands {
    worker: Worker,
    clerks: Clerks,
    painter: Painter,
    orders: Sender<Order>,
    origin: Origin,
    made: Made,
}

impl Hands {
    fn of(session: &mut Session, sender: &Sender<Event>) -> Self {
        let origin = &session.origin;
        Self {
            worker: Worker::start(origin.clone(), sender.clone()),
            clerks: Clerks::new(origin.clone(), sender.clone()),
            painter: Painter::start(sender.clone()),
            orders: watcher::start(origin.clone(), session.client.take(), sender.clone()),
            origin: origin.clone(),
            made: session.made.clone(),
        }
    }
}

impl App {
    fn new(session: &mut Session, sender: &Sender<Event>, events: Receiver<Event>) -> Self {
        let config = Config::load();
        let mut model = Model::new(session.target.clone());
        model.keymap = config.keymap;
        model.theme = config.theme;
        for complaint in config.complaints {
            model.say(complaint, true);
        }
        if let Some(remark) = session.remark.take() {
            model.say(remark, false);
        }
        Self {
            model,
            hands: Hands::of(session, sender),
            sender: sender.clone(),
            events,
            kept: None,
            screen: None,
        }
    }

    /// Prints one screen.
    fn dump(&mut self, session: &mut Session, keys: &[KeyEvent], dump: Dump) -> anyhow::Result<()> {
        let (columns, rows) = dump::size();
        // What the configuration has wrong is said on a screen, and is no failure of a script.
        self.model.notice = None;
        self.take(Event::Resized(columns, rows))?;
        self.settle()?;
        self.type_in(session, keys)?;
        if let Dump::Tab(tab) = dump {
            self.model.shown.set(tab);
            self.model.focus = tab.pane();
            self.take(Event::Resized(columns, rows))?;
            self.settle()?;
        }
        let model = &self.model;
        anyhow::ensure!(
            model.look.is_some() || !model.quit,
            "ended before the first screen"
        );
        match model.notice.as_ref().filter(|notice| notice.bad) {
            Some(notice) => anyhow::bail!("{}", notice.text),
            None => dump::print(model, dump),
        }
    }

    /// Works on the terminal until the user quits.
    fn interact(&mut self, session: &mut Session, keys: &[KeyEvent]) -> anyhow::Result<()> {
        let screen = Screen::take()?;
        let (columns, rows) = screen.size()?;
        self.screen = Some(screen);
        terminal::listen(self.sender.clone());
        self.kept = Some(Kept::of_user());
        self.restore();
        self.take(Event::Resized(columns, rows))?;
        self.show()?;
        if !keys.is_empty() {
            self.settle()?;
            self.type_in(session, keys)?;
        }
        while !self.model.quit {
            let held = self.show()?;
            if let Some(event) = self.next(held)? {
                self.take(event)?;
            }
            // What has piled up is shown at once, not one after the other.
            while let Ok(event) = self.events.try_recv() {
                self.take(event)?;
            }
            self.switch(session);
        }
        self.save();
        self.screen = None;
        Ok(())
    }

    fn restore(&mut self) {
        if let Some(kept) = &self.kept {
            kept.restore(&mut self.model);
        }
    }

    fn save(&self) {
        if let Some(kept) = &self.kept {
            kept.save(&self.model);
        }
    }

    /// Shows how things are; the time to wait where the line to the terminal is not free for it.
    fn show(&mut self) -> anyhow::Result<Option<Duration>> {
        Ok(match &mut self.screen {
            Some(screen) => screen.show(&self.model)?,
            None => None,
        })
    }

    /// The next event: a tick while something is under way, none once a frame that was held back can be shown.
    fn next(&self, held: Option<Duration>) -> anyhow::Result<Option<Event>> {
        let tick = self.model.is_busy().then_some(TICK);
        let Some(patience) = held.into_iter().chain(tick).min() else {
            return Ok(Some(self.events.recv()?));
        };
        match self.events.recv_timeout(patience) {
            Err(RecvTimeoutError::Timeout) => Ok((tick == Some(patience)).then_some(Event::Tick)),
            other => Ok(Some(other?)),
        }
    }

    fn take(&mut self, event: Event) -> anyhow::Result<()> {
        for effect in update(&mut self.model, event) {
            self.effect(effect)?;
        }
        Ok(())
    }

    fn effect(&mut self, effect: Effect) -> anyhow::Result<()> {
        let hands = &mut self.hands;
        match effect {
            Effect::Ask { number, question } => hands.worker.ask(number, question),
            Effect::Hand { desk, number, job } => hands.clerks.hand(desk, number, job),
            Effect::Cancel(desk) => hands.clerks.cancel(desk),
            Effect::Paint { path, text } => hands.painter.paint(path, text),
            Effect::Places => self.order(Order::Places),
            Effect::Rewind { epoch } => self.order(Order::Rewind(epoch)),
            Effect::Drive(drive) => {
                driver::drive(
                    hands.origin.clone(),
                    hands.made.clone(),
                    drive,
                    self.sender.clone(),
                );
            }
            Effect::Copy(text) => {
                if self.screen.is_some() {
                    Screen::copy(&text)?;
                }
            }
            Effect::Redraw => {
                if let Some(screen) = &mut self.screen {
                    screen.redraw()?;
                }
            }
            Effect::Suspend => {
                if let Some(screen) = &mut self.screen {
                    screen.suspend()?;
                }
            }
        }
        Ok(())
    }

    fn order(&mut self, order: Order) {
        if self.hands.orders.send(order).is_err() {
            self.model
                .say("a core has no process and no partition", false);
            self.model.rewinding = None;
        }
    }

    /// Looks at another partition, if that was asked for.
    fn switch(&mut self, session: &mut Session) {
        let Some((part, pid)) = self.model.switch.take() else {
            return;
        };
        if let Err(error) = session.switch(&part, pid) {
            self.model.say(format!("{part}: {error:#}"), true);
            return;
        }
        self.save();
        let old = &self.model;
        let mut model = Model::new(session.target.clone());
        // Answers of the threads that are let go of have numbers of their own.
        model.asked = old.asked;
        model.keymap = old.keymap.clone();
        model.theme = old.theme;
        model.syntax = old.syntax;
        model.size = old.size;
        model.log.clone_from(&old.log);
        model.noted.clone_from(&old.noted);
        model.commands.clone_from(&old.commands);
        model.paint = old.paint.clone();
        self.model = model;
        self.hands = Hands::of(session, &self.sender);
        self.restore();
        self.model.say(format!("looking at {part}"), false);
    }

    /// Takes events in until nothing is under way, or something failed.
    ///
    /// # Errors
    /// It takes too long.
    fn settle(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !self.model.quit && self.is_busy() {
            self.show()?;
            let left = deadline.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(left) {
                Ok(event) => self.take(event)?,
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
        let first = model.look.is_none() && !empty && model.refused.is_none();
        let beside = model.hitting.is_some() || model.sparking.is_some() || model.naming.is_some();
        first || beside || model.is_busy()
    }

    fn type_in(&mut self, session: &mut Session, keys: &[KeyEvent]) -> anyhow::Result<()> {
        for key in keys {
            self.take(Event::Key(*key))?;
            self.settle()?;
            self.switch(session);
            self.settle()?;
        }
        Ok(())
    }
}
