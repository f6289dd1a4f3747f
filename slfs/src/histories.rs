//! The tree of what slsd holds.
//!
//! ```text
//! PART/@N/core                                       of the root process
//! PART/@N/PID/{core,maps,regs,fds,mem,record.json}
//! PART/@NAME, PART/@-1                               symbolic links to @N
//! ```
//! Nothing of it is kept but what was read last: a partition may be removed and another made under its
//! name.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use libsls::protocol::{Answer, Failure, History, HistoryRow, Request};
use libsls::view::SharedClient;
use libsls::{Client, ClientError, EpochRef};

use crate::inodes::Inodes;
use crate::process::Seen;

/// Processes of checkpoints that are kept at hand.
const AT_HAND: usize = 16;
/// How long a list of checkpoints is taken for the newest.
const NEW_FOR: Duration = Duration::from_millis(50);

/// Files that a process has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Core,
    Maps,
    Regs,
    Fds,
    Mem,
    Record,
}

impl Kind {
    const ALL: [(&'static str, Self); 6] = [
        ("core", Self::Core),
        ("maps", Self::Maps),
        ("regs", Self::Regs),
        ("fds", Self::Fds),
        ("mem", Self::Mem),
        ("record.json", Self::Record),
    ];
}

/// One place in the tree.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Node {
    Root,
    Part(Rc<str>),
    Epoch(Rc<str>, u64),
    Process(Rc<str>, u64, i32),
    File(Rc<str>, u64, i32, Kind),
    /// A checkpoint's name, and the number it leads to.
    Link(Rc<str>, String, u64),
}

/// What a node looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    Folder,
    Link(u64),
    /// Bytes, and bytes that take room.
    File(u64, u64),
}

/// A name in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    pub node: Node,
}

/// Why something cannot be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    #[error("there is no such thing, or no longer")]
    Absent,
    #[error("that memory is not in the checkpoint")]
    Unreadable,
    #[error("slsd does not answer")]
    Silent,
}

impl From<ClientError> for Trouble {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Failed {
                kind: Failure::NotFound,
                ..
            } => Self::Absent,
            ClientError::Failed { .. } | ClientError::OutOfTurn(_) => Self::Unreadable,
            _ => Self::Silent,
        }
    }
}

/// A process of a checkpoint: partition, epoch, number.
type Key = (Rc<str>, u64, i32);

/// The tree.
pub struct Histories {
    socket: PathBuf,
    client: SharedClient,
    inodes: Inodes<Node>,
    /// What was asked for last: one walk along a path asks for the same several times.
    known: Option<(Instant, Rc<History>)>,
    /// Used last at the front.
    seen: VecDeque<(Key, Seen)>,
}

impl Histories {
    /// What the daemon at `socket` holds.
    ///
    /// # Errors
    /// It does not answer.
    pub fn connect(socket: PathBuf) -> Result<Self, ClientError> {
        let client = Client::connect(&socket)?;
        Ok(Self {
            socket,
            client: Rc::new(RefCell::new(client)),
            inodes: Inodes::new(Node::Root),
            known: None,
            seen: VecDeque::new(),
        })
    }

    /// The node of a number.
    ///
    /// # Errors
    /// There is none.
    pub fn node(&self, number: u64) -> Result<Node, Trouble> {
        self.inodes.node(number).cloned().ok_or(Trouble::Absent)
    }

    /// Counts a look-up of `node` and tells its number.
    pub fn number(&mut self, node: Node) -> u64 {
        self.inodes.look_up(node)
    }

    /// The kernel has let go of so many look-ups.
    pub fn forget(&mut self, number: u64, times: u64) {
        self.inodes.forget(number, times);
    }

    /// What `name` is in `folder`.
    ///
    /// # Errors
    /// Nothing is.
    pub fn find(&mut self, folder: &Node, name: &str) -> Result<Node, Trouble> {
        match folder {
            Node::Root => self.part(name),
            Node::Part(part) => self.epoch_of_name(part, name),
            Node::Epoch(part, epoch) => {
                let row = self.row(part, *epoch)?;
                let (part, epoch) = (Rc::clone(part), *epoch);
                match (name.parse(), row.pids.first()) {
                    (Ok(pid), _) if row.pids.contains(&pid) => Ok(Node::Process(part, epoch, pid)),
                    (_, Some(&root)) if name == "core" => {
                        Ok(Node::File(part, epoch, root, Kind::Core))
                    }
                    _ => Err(Trouble::Absent),
                }
            }
            Node::Process(part, epoch, pid) => {
                let kind = Kind::ALL.iter().find(|(file, _)| *file == name);
                let kind = kind.ok_or(Trouble::Absent)?.1;
                Ok(Node::File(Rc::clone(part), *epoch, *pid, kind))
            }
            Node::File(..) | Node::Link(..) => Err(Trouble::Absent),
        }
    }

    fn part(&mut self, name: &str) -> Result<Node, Trouble> {
        self.history(name)?;
        Ok(Node::Part(name.into()))
    }

    fn epoch_of_name(&mut self, part: &Rc<str>, name: &str) -> Result<Node, Trouble> {
        let reference: EpochRef = name.parse().map_err(|_| Trouble::Absent)?;
        let history = self.history(part)?;
        let epoch = reference.resolve(&history).map_err(|_| Trouble::Absent)?;
        if name == format!("@{epoch}") {
            return Ok(Node::Epoch(Rc::clone(part), epoch));
        }
        Ok(Node::Link(Rc::clone(part), name.to_owned(), epoch))
    }

    /// What is in a folder, in order.
    ///
    /// # Errors
    /// It is no folder, or no longer there.
    pub fn list(&mut self, folder: &Node) -> Result<Vec<Entry>, Trouble> {
        match folder {
            Node::Root => self.parts(),
            Node::Part(part) => self.epochs(part),
            Node::Epoch(part, epoch) => {
                let row = self.row(part, *epoch)?;
                let (part, epoch) = (Rc::clone(part), *epoch);
                let root = row.pids.first().map(|&root| Entry {
                    name: "core".into(),
                    node: Node::File(Rc::clone(&part), epoch, root, Kind::Core),
                });
                let processes = row.pids.iter().map(|&pid| Entry {
                    name: pid.to_string(),
                    node: Node::Process(Rc::clone(&part), epoch, pid),
                });
                Ok(processes.chain(root).collect())
            }
            Node::Process(part, epoch, pid) => Ok(Kind::ALL
                .iter()
                .map(|&(name, kind)| Entry {
                    name: name.into(),
                    node: Node::File(Rc::clone(part), *epoch, *pid, kind),
                })
                .collect()),
            Node::File(..) | Node::Link(..) => Err(Trouble::Absent),
        }
    }

    fn parts(&mut self) -> Result<Vec<Entry>, Trouble> {
        let histories = match self.ask(&Request::Snapshots { store: None })? {
            Answer::Snapshots(histories) => histories,
            _ => return Err(Trouble::Unreadable),
        };
        let entry = |history: History| Entry {
            node: Node::Part(history.partition.as_str().into()),
            name: history.partition,
        };
        Ok(histories.into_iter().map(entry).collect())
    }

    fn epochs(&mut self, part: &Rc<str>) -> Result<Vec<Entry>, Trouble> {
        let history = self.history(part)?;
        let rows = &history.checkpoints;
        let epochs = rows.iter().map(|row| Entry {
            name: format!("@{}", row.epoch),
            node: Node::Epoch(Rc::clone(part), row.epoch),
        });
        // One that was given again leads to the newest.
        let named = rows
            .iter()
            .filter_map(|row| row.name.as_ref().map(|n| (n, row.epoch)));
        let mut names: BTreeMap<String, u64> = named.map(|(n, e)| (format!("@{n}"), e)).collect();
        if history.head != 0 {
            names.insert("@-1".into(), history.head);
        }
        let links = names.into_iter().map(|(name, epoch)| Entry {
            node: Node::Link(Rc::clone(part), name.clone(), epoch),
            name,
        });
        Ok(epochs.chain(links).collect())
    }

    /// What a node looks like.
    ///
    /// # Errors
    /// It is no longer there.
    pub fn shape(&mut self, node: &Node) -> Result<Shape, Trouble> {
        match node {
            Node::File(part, epoch, pid, kind) => {
                let (bytes, room) = self.seen(part, *epoch, *pid)?.size(*kind)?;
                Ok(Shape::File(bytes, room))
            }
            Node::Link(_, _, epoch) => Ok(Shape::Link(*epoch)),
            _ => Ok(Shape::Folder),
        }
    }

    /// Part of a file.
    ///
    /// # Errors
    /// It is none, or that part cannot be read.
    pub fn read(&mut self, node: &Node, offset: u64, len: usize) -> Result<Vec<u8>, Trouble> {
        match node {
            Node::File(part, epoch, pid, kind) => {
                self.seen(part, *epoch, *pid)?.read(*kind, offset, len)
            }
            _ => Err(Trouble::Absent),
        }
    }

    /// Forgets what was read of a file's process: it is opened anew, and may be another by now.
    pub fn opened(&mut self, node: &Node) {
        if let Node::File(part, epoch, pid, _) = node {
            let gone = (Rc::clone(part), *epoch, *pid);
            self.seen.retain(|(key, _)| *key != gone);
        }
    }

    fn seen(&mut self, part: &Rc<str>, epoch: u64, pid: i32) -> Result<&mut Seen, Trouble> {
        let key = (Rc::clone(part), epoch, pid);
        let found = match self.seen.iter().position(|(k, _)| *k == key) {
            Some(at) => self.seen.remove(at),
            None => None,
        };
        let found = match found {
            Some(found) => found,
            None => {
                // A broken connection shows itself here, where it can be made again.
                self.row(part, epoch)?;
                (key, Seen::open(&self.client, part, epoch, pid)?)
            }
        };
        self.seen.push_front(found);
        self.seen.truncate(AT_HAND);
        self.seen
            .front_mut()
            .map(|(_, seen)| seen)
            .ok_or(Trouble::Unreadable)
    }

    fn row(&mut self, part: &str, epoch: u64) -> Result<HistoryRow, Trouble> {
        let history = self.history(part)?;
        let rows = &history.checkpoints;
        let at = rows.binary_search_by_key(&epoch, |row| row.epoch);
        at.map(|at| rows[at].clone()).map_err(|_| Trouble::Absent)
    }

    fn history(&mut self, part: &str) -> Result<Rc<History>, Trouble> {
        if let Some((at, history)) = &self.known
            && history.partition == part
            && at.elapsed() < NEW_FOR
        {
            return Ok(Rc::clone(history));
        }
        let request = Request::History {
            part: Some(part.to_owned()),
        };
        match self.ask(&request)? {
            Answer::History(history) => {
                let history = Rc::new(history);
                self.known = Some((Instant::now(), Rc::clone(&history)));
                Ok(history)
            }
            _ => Err(Trouble::Unreadable),
        }
    }

    /// Asks; a daemon that has been started again is found again.
    fn ask(&mut self, request: &Request) -> Result<Answer, Trouble> {
        let first = self.client.borrow_mut().ask(request);
        match first {
            Err(ClientError::Frame(_)) => {
                let client = Client::connect(&self.socket)?;
                *self.client.borrow_mut() = client;
                let again = self.client.borrow_mut().ask(request);
                Ok(again?)
            }
            other => Ok(other?),
        }
    }
}
