//! Answers questions off the drawing thread, with a connection of its own. The newest question cancels the others.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::thread::JoinHandle;

use introspect::{Finder, Frame, Global, Program, View};
use libsls::view::{CheckpointView, SharedClient};
use libsls::{Client, ClientError};

use crate::data::{FrameKey, FrameRow, Look, Question, Source, Thread};
use crate::roots::{Moment, read_memory, roots};
use crate::source::Sources;
use crate::update::Event;

/// Frames of the selected thread.
const FRAMES: usize = 200;
/// Frames of the others, to see where they are.
const NEAR_FRAMES: usize = 12;
/// Threads whose place is looked up.
const PLACES: usize = 64;
/// Checkpoints whose pages are kept at hand.
const VIEWS: usize = 4;

/// Where the daemon is, and what is asked about.
#[derive(Debug, Clone)]
pub struct Origin {
    pub socket: PathBuf,
    pub daemon: PathBuf,
    pub part: String,
    pub pid: Option<i32>,
}

impl Origin {
    /// A connection; the daemon is started if nobody listens.
    ///
    /// # Errors
    /// As [`Client::connect_or_start`].
    pub fn connect(&self) -> Result<Client, ClientError> {
        Client::connect_or_start(&self.socket, &self.daemon)
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    #[error("another question came")]
    Cancelled,
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// The thread that answers.
pub struct Worker {
    questions: Sender<(u64, Question)>,
    newest: Arc<AtomicU64>,
    /// Not joined at the end: it may be waiting for the daemon, and holds nothing that outlives the program.
    _thread: JoinHandle<()>,
}

impl Worker {
    /// Starts it; answers go to `events`.
    pub fn start(origin: Origin, events: Sender<Event>) -> Self {
        let (questions, incoming) = std::sync::mpsc::channel();
        let newest = Arc::new(AtomicU64::new(0));
        let watched = Arc::clone(&newest);
        let thread = guarded(events.clone(), move || {
            serve(origin, &incoming, &events, &watched);
        });
        Self {
            questions,
            newest,
            _thread: thread,
        }
    }

    /// Asks; whatever is under way is given up.
    pub fn ask(&self, number: u64, question: Question) {
        self.newest.store(number, Ordering::SeqCst);
        // A worker that is gone has said so by a lost connection.
        let _ = self.questions.send((number, question));
    }
}

/// A thread whose panic ends the program in good order.
pub fn guarded(events: Sender<Event>, body: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
        if let Err(panic) = result {
            let text = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no message");
            // Nobody listens when the program is ending already.
            let _ = events.send(Event::Failed(format!("a fault in this program: {text}")));
        }
    })
}

fn serve(
    origin: Origin,
    incoming: &Receiver<(u64, Question)>,
    events: &Sender<Event>,
    newest: &Arc<AtomicU64>,
) {
    let mut looker = Looker::new(origin);
    while let Ok((number, question)) = incoming.recv() {
        let turn = Turn { newest, number };
        let look = match looker.answer(&turn, &question) {
            Err(LookError::Cancelled) => continue,
            Err(LookError::Client(error)) => Err(error.to_string()),
            Ok(look) => Ok(Box::new(look)),
        };
        if events.send(Event::Looked { number, look }).is_err() {
            return;
        }
    }
}

/// Whether a question still is the newest.
pub struct Turn<'a> {
    newest: &'a AtomicU64,
    number: u64,
}

impl Turn<'_> {
    pub fn is_over(&self) -> bool {
        self.newest.load(Ordering::Relaxed) != self.number
    }

    fn check(&self) -> Result<(), LookError> {
        if self.is_over() {
            return Err(LookError::Cancelled);
        }
        Ok(())
    }
}

struct Looker {
    origin: Origin,
    client: Option<SharedClient>,
    views: VecDeque<(u64, Rc<CheckpointView>)>,
    programs: Vec<(Rc<Program>, Rc<Vec<Global>>)>,
    sources: Sources,
}

impl Looker {
    fn new(origin: Origin) -> Self {
        Self {
            origin,
            client: None,
            views: VecDeque::new(),
            programs: Vec::new(),
            sources: Sources::default(),
        }
    }

    fn answer(&mut self, turn: &Turn<'_>, question: &Question) -> Result<Look, LookError> {
        turn.check()?;
        match self.look(turn, question) {
            // The daemon was restarted perhaps: its history outlives it.
            Err(LookError::Client(ClientError::Frame(_))) => {
                self.client = None;
                self.views.clear();
                self.look(turn, question)
            }
            other => other,
        }
    }

    fn look(&mut self, turn: &Turn<'_>, question: &Question) -> Result<Look, LookError> {
        let view = self.view(question.epoch)?;
        let base = question.base.map(|epoch| self.view(epoch)).transpose();
        // A base that is not kept any more is no reason to show nothing.
        let base = match base {
            Err(error @ ClientError::Frame(_)) => return Err(error.into()),
            other => other.ok().flatten(),
        };
        turn.check()?;
        let (program, globals) = self.program(&*view);
        turn.check()?;
        let now = Guarded { view: &view, turn };
        let then = base.as_deref().map(|view| Guarded { view, turn });
        let mut look = Look::empty(question.clone());
        let frames = stack(&program, &now, question, &mut look);
        let frame = look.frame.and_then(|index| frames.get(index));
        threads(&program, &now, &frames, &mut look);
        turn.check()?;
        look.source = frame.and_then(|frame| self.source(frame));
        let then = then
            .as_ref()
            .map(|view| Moment::base(&program, view, look.tid, frame));
        let now = Moment {
            view: &now,
            tid: look.tid,
            frame: frame.cloned(),
        };
        roots(&program, &globals, &now, then.as_ref(), turn, &mut look);
        turn.check()?;
        look.memory = read_memory(&program, &now, then.as_ref(), &question.memory);
        turn.check()?;
        Ok(look)
    }

    fn view(&mut self, epoch: u64) -> Result<Rc<CheckpointView>, ClientError> {
        if let Some(at) = self.views.iter().position(|(known, _)| *known == epoch)
            && let Some(found) = self.views.remove(at)
        {
            let view = Rc::clone(&found.1);
            self.views.push_back(found);
            return Ok(view);
        }
        let client = match &self.client {
            Some(client) => Rc::clone(client),
            None => Rc::new(std::cell::RefCell::new(self.origin.connect()?)),
        };
        self.client = Some(Rc::clone(&client));
        let view = CheckpointView::open(&client, &self.origin.part, epoch, self.origin.pid)?;
        let view = Rc::new(view);
        self.views.push_back((epoch, Rc::clone(&view)));
        if self.views.len() > VIEWS {
            self.views.pop_front();
        }
        Ok(view)
    }

    /// The program that a view shows: as before, unless other files are mapped.
    fn program(&mut self, view: &dyn View) -> (Rc<Program>, Rc<Vec<Global>>) {
        if let Some(known) = self.programs.iter().find(|(known, _)| known.matches(view)) {
            return known.clone();
        }
        let program = Program::load(view, &Finder::default());
        let mut globals = program.globals();
        globals.retain(|global| !global.is_toolchain());
        let both = (Rc::new(program), Rc::new(globals));
        // One before and one after an exec or a dlopen are enough to go back and forth.
        self.programs.truncate(1);
        self.programs.insert(0, both.clone());
        both
    }

    fn source(&mut self, frame: &Frame) -> Option<Source> {
        let path = frame.file.clone()?;
        Some(Source {
            line: frame.line?,
            text: self.sources.text(&path),
            path,
        })
    }
}

/// The selected thread's frames, noted in the look.
fn stack(program: &Program, view: &dyn View, question: &Question, look: &mut Look) -> Vec<Frame> {
    let threads = view.threads();
    let chosen = threads
        .iter()
        .find(|thread| Some(thread.tid) == question.tid)
        .or(threads.first());
    look.tid = chosen.map_or(0, |thread| thread.tid);
    let frames = program.backtrace(view, look.tid, FRAMES);
    let same = |key: &FrameKey| {
        frames
            .iter()
            .position(|frame| frame.function == key.function && frame.cfa == key.cfa)
    };
    look.frame = question.frame.as_ref().and_then(same).or_else(|| {
        let default = program.default_frame(&frames)?;
        frames.iter().position(|frame| frame.index == default.index)
    });
    look.frames = frames.iter().map(row).collect();
    look.threads = threads
        .into_iter()
        .map(|thread| Thread {
            tid: thread.tid,
            name: thread.name,
            place: None,
        })
        .collect();
    frames
}

fn row(frame: &Frame) -> FrameRow {
    FrameRow {
        key: FrameKey {
            function: frame.function.clone(),
            cfa: frame.cfa,
            index: frame.index,
        },
        pc: frame.pc,
        file: frame.file.clone(),
        line: frame.line,
        inlined: frame.inlined,
        guessed: frame.guessed,
    }
}

/// Where each thread is.
fn threads(program: &Program, view: &dyn View, selected: &[Frame], look: &mut Look) {
    let mut places: HashMap<u32, String> = HashMap::new();
    for thread in look.threads.iter().take(PLACES) {
        let near;
        let frames = if thread.tid == look.tid {
            selected
        } else {
            near = program.backtrace(view, thread.tid, NEAR_FRAMES);
            &near
        };
        if let Some(frame) = program.default_frame(frames) {
            let place = frame
                .function
                .clone()
                .unwrap_or_else(|| format!("{:#x}", frame.pc));
            places.insert(thread.tid, place);
        }
    }
    for thread in &mut look.threads {
        thread.place = places.remove(&thread.tid);
    }
}

/// A view that has nothing to say once another question came, so that whatever reads it soon ends.
pub struct Guarded<'a> {
    view: &'a CheckpointView,
    turn: &'a Turn<'a>,
}

impl View for Guarded<'_> {
    fn read(&self, address: u64, buf: &mut [u8]) -> Result<(), introspect::Unavailable> {
        if self.turn.is_over() {
            return Err(introspect::Unavailable::because("not looked at any more"));
        }
        self.view.read(address, buf)
    }

    fn threads(&self) -> Vec<introspect::ThreadView> {
        self.view.threads()
    }

    fn mappings(&self) -> Vec<introspect::Mapping> {
        self.view.mappings()
    }

    fn auxv(&self) -> Vec<(u64, u64)> {
        self.view.auxv()
    }

    fn debug_roots(&self) -> Vec<std::path::PathBuf> {
        self.view.debug_roots()
    }

    fn open_file(&self, mapping: &introspect::Mapping) -> std::io::Result<Vec<u8>> {
        self.view.open_file(mapping)
    }
}
