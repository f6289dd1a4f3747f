//! A checkpoint as `introspect` looks at it.
//!
//! Pages are fetched in batches and kept: a page version never changes. What the page map does not
//! have is zero or the mapped file's; a file that is not the one that was mapped is named, never
//! guessed from.

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use introspect::{
    History as Epochs, Mapping, Perms, ReadSet, Registers, ThreadView, Unavailable, View,
};
use sls_record::{Backing, Event, Process, Record};

use crate::bundle;
use crate::client::{Client, ClientError};
use crate::protocol::{Answer, History, Request};

const PAGE: u64 = 4096;
const PAGE_BYTES: usize = 4096;
/// Pages fetched around a miss: a container's nodes are rarely alone.
const AHEAD: u64 = 8;

/// Pages of one large request.
const BATCH: u64 = 1024;

/// A kept page, None where the page map has none.
type PageContent = Option<Box<[u8; PAGE_BYTES]>>;
/// Space, first page, count.
type Runs = Vec<(u32, u64, u64)>;

/// A connection that several views share.
pub type SharedClient = Rc<RefCell<Client>>;

/// One process at one epoch.
pub struct CheckpointView {
    client: SharedClient,
    part: String,
    epoch: u64,
    process: Rc<Process>,
    event: Option<Event>,
    pages: RefCell<HashMap<(u32, u64), PageContent>>,
    files: RefCell<BTreeMap<String, Result<Rc<File>, String>>>,
    /// Where the files lie that came with the history, once that was asked.
    brought: OnceCell<Option<PathBuf>>,
}

impl CheckpointView {
    /// Looks at process `pid` (None: the root) of checkpoint `epoch`.
    ///
    /// # Errors
    /// No such partition, epoch or process.
    pub fn open(
        client: &SharedClient,
        part: &str,
        epoch: u64,
        pid: Option<i32>,
    ) -> Result<Self, ClientError> {
        let mut record = client.borrow_mut().record(Some(part), epoch)?;
        let event = record.event.take();
        let met = event.as_ref().and_then(Event::tid);
        let its = |p: &&Process| p.threads.iter().any(|t| Some(t.tid) == met);
        let pid = pid.or_else(|| record.processes.iter().find(its).map(Process::outside));
        let process = process_of(record, part, epoch, pid)?;
        let view = Self::of(client, part, epoch, Rc::new(process));
        Ok(Self { event, ..view })
    }

    fn of(client: &SharedClient, part: &str, epoch: u64, process: Rc<Process>) -> Self {
        Self {
            client: Rc::clone(client),
            part: part.to_owned(),
            epoch,
            process,
            event: None,
            pages: RefCell::new(HashMap::new()),
            files: RefCell::new(BTreeMap::new()),
            brought: OnceCell::new(),
        }
    }

    /// Everything of the process but its pages.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// What was about to happen to it, where that is why the checkpoint was taken.
    #[must_use]
    pub fn event(&self) -> Option<&Event> {
        self.event.as_ref()
    }

    /// Its number.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whose it is.
    #[must_use]
    pub fn partition(&self) -> &str {
        &self.part
    }

    pub(crate) fn ask(&self, request: &Request) -> Result<Answer, ClientError> {
        self.client.borrow_mut().ask(request)
    }

    pub(crate) fn mapping_at(&self, address: u64) -> Result<&sls_record::Mapping, Unavailable> {
        mapping_at(&self.process, address).ok_or_else(|| Unavailable::not_mapped(address))
    }

    /// The connection it reads by.
    #[must_use]
    pub fn client(&self) -> &SharedClient {
        &self.client
    }

    /// Copies the part of one page from `address` on that fits `buf`.
    fn read_in_page(&self, address: u64, buf: &mut [u8]) -> Result<(), Unavailable> {
        let mapping = self.mapping_at(address)?;
        let (space, page) = place(&self.process, mapping, address)
            .ok_or_else(|| at(address, "kernel memory is not captured"))?;
        self.fetch(space, page)
            .map_err(|e| at(address, e.to_string()))?;
        let within = usize::try_from(address % PAGE).unwrap_or(0);
        let pages = self.pages.borrow();
        match pages.get(&(space, page)) {
            Some(Some(bytes)) => buf.copy_from_slice(&bytes[within..within + buf.len()]),
            _ if mapping.backing == Backing::File => self.read_file(mapping, address, buf)?,
            _ => buf.fill(0),
        }
        Ok(())
    }

    fn fetch(&self, space: u32, page: u64) -> Result<(), ClientError> {
        if self.pages.borrow().contains_key(&(space, page)) {
            return Ok(());
        }
        let first = page.saturating_sub(AHEAD / 2);
        let count = AHEAD;
        let request = Request::Pages {
            part: Some(self.part.clone()),
            epoch: self.epoch,
            space,
            runs: vec![(first, u32::try_from(count).unwrap_or(1))],
        };
        let Answer::Pages { present, bytes } = self.ask(&request)? else {
            return Err(ClientError::OutOfTurn("no pages".into()));
        };
        let mut bytes = bytes.chunks_exact(PAGE_BYTES);
        let mut pages = self.pages.borrow_mut();
        for (page, present) in (first..first.saturating_add(count)).zip(present) {
            let content = if present {
                bytes.next().and_then(boxed)
            } else {
                None
            };
            pages.insert((space, page), content);
        }
        Ok(())
    }

    /// So many pages of a mapping, at once. Those that are zero are left out.
    fn batch(
        &self,
        mapping: &sls_record::Mapping,
        address: u64,
        count: u64,
        each: &mut dyn FnMut(u64, &[u8]),
    ) -> Option<()> {
        let (space, first) = place(&self.process, mapping, address)?;
        let request = Request::Pages {
            part: Some(self.part.clone()),
            epoch: self.epoch,
            space,
            runs: vec![(first, u32::try_from(count).ok()?)],
        };
        let Ok(Answer::Pages { present, bytes }) = self.client.borrow_mut().ask(&request) else {
            return None;
        };
        let mut kept = bytes.chunks_exact(PAGE_BYTES);
        let mut of_file = [0; PAGE_BYTES];
        for (number, present) in (0..count).zip(present) {
            let at = address + number * PAGE;
            if present {
                each(at, kept.next()?);
            } else if mapping.backing == Backing::File
                && self.read_file(mapping, at, &mut of_file).is_ok()
            {
                each(at, &of_file);
            }
        }
        Some(())
    }

    /// Part of one page that the mapped file has.
    pub(crate) fn read_file(
        &self,
        mapping: &sls_record::Mapping,
        address: u64,
        buf: &mut [u8],
    ) -> Result<(), Unavailable> {
        let file = self.file(mapping).map_err(|why| at(address, why))?;
        let offset = mapping.offset.wrapping_add(address - mapping.start);
        let mut done = 0;
        while done < buf.len() {
            match file.read_at(&mut buf[done..], offset.wrapping_add(done as u64)) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(error) => return Err(at(address, error.to_string())),
            }
        }
        buf[done..].fill(0); // Beyond the file's end a mapped page is zero.
        Ok(())
    }

    fn file(&self, mapping: &sls_record::Mapping) -> Result<Rc<File>, String> {
        let mut files = self.files.borrow_mut();
        files
            .entry(mapping.path.clone())
            .or_insert_with(|| self.open_as_mapped(mapping).map(Rc::new))
            .clone()
    }

    /// The file that was mapped: where it was, or the copy that came with the history.
    fn open_as_mapped(&self, mapping: &sls_record::Mapping) -> Result<File, String> {
        bundle::open_as_mapped(mapping).or_else(|why| {
            let copy = self.brought().map(|folder| bundle::mapped(folder, mapping));
            copy.and_then(|copy| introspect::regular::open(&copy).ok())
                .ok_or(why)
        })
    }

    fn brought(&self) -> Option<&Path> {
        let ask = || {
            let part = Some(self.part.clone());
            match self.ask(&Request::Files { part }) {
                Ok(Answer::Files(folder)) => folder,
                // An answer that is missing here is missing elsewhere too, and told there.
                _ => None,
            }
        };
        self.brought.get_or_init(ask).as_deref()
    }
}

fn fetch_process(
    client: &SharedClient,
    part: &str,
    epoch: u64,
    pid: Option<i32>,
) -> Result<Process, ClientError> {
    let record = client.borrow_mut().record(Some(part), epoch)?;
    process_of(record, part, epoch, pid)
}

fn process_of(
    record: Record,
    part: &str,
    epoch: u64,
    pid: Option<i32>,
) -> Result<Process, ClientError> {
    record.process(pid).ok_or_else(|| ClientError::Failed {
        kind: crate::protocol::Failure::NotFound,
        message: format!("@{epoch} of {part} has no process {}", pid.unwrap_or(0)),
    })
}

pub(crate) fn mapping_at(process: &Process, address: u64) -> Option<&sls_record::Mapping> {
    let at = process.mappings.partition_point(|m| m.end <= address);
    process.mappings.get(at).filter(|m| m.start <= address)
}

/// Space and page under which an address's content is kept; None for the kernel's own.
pub(crate) fn place(
    process: &Process,
    mapping: &sls_record::Mapping,
    address: u64,
) -> Option<(u32, u64)> {
    match mapping.backing {
        Backing::Kernel => None,
        Backing::Shared { space } => {
            // A record may say anything; what it says of no page is of page none.
            let at = (address - mapping.start).wrapping_add(mapping.offset);
            Some((space, at / PAGE))
        }
        Backing::Anonymous | Backing::File => Some((process.space, address / PAGE)),
    }
}

/// Whether what is mapped at an address is the same at both, so that its pages alone decide.
pub(crate) fn same_backing(
    (old, a): (&Process, &sls_record::Mapping),
    (new, b): (&Process, &sls_record::Mapping),
    address: u64,
) -> bool {
    let file = |m: &sls_record::Mapping| (m.dev, m.inode, m.file_mtime_ns);
    let offset = |m: &sls_record::Mapping| (address - m.start).wrapping_add(m.offset);
    place(old, a, address) == place(new, b, address)
        && file(a) == file(b)
        && (a.inode == 0 || offset(a) == offset(b))
}

fn at(address: u64, reason: impl Into<std::borrow::Cow<'static, str>>) -> Unavailable {
    Unavailable {
        address: Some(address),
        reason: reason.into(),
    }
}

fn boxed(bytes: &[u8]) -> Option<Box<[u8; PAGE_BYTES]>> {
    bytes.first_chunk().map(|page| Box::new(*page))
}

/// Opens a mapped file if it still is the file that was mapped.
impl View for CheckpointView {
    fn read(&self, address: u64, buf: &mut [u8]) -> Result<(), Unavailable> {
        let mut done = 0;
        while done < buf.len() {
            let here = address
                .checked_add(done as u64)
                .ok_or_else(|| Unavailable::not_mapped(address))?;
            let left = usize::try_from(PAGE - here % PAGE).unwrap_or(PAGE_BYTES);
            let end = buf.len().min(done + left);
            self.read_in_page(here, &mut buf[done..end])?;
            done = end;
        }
        Ok(())
    }

    /// By large requests; nothing of it is kept.
    fn each_page(&self, start: u64, end: u64, each: &mut dyn FnMut(u64, &[u8])) {
        for mapping in &self.process.mappings {
            let (from, to) = (mapping.start.max(start), mapping.end.min(end));
            let mut at = from;
            while at < to {
                let count = ((to - at) / PAGE).min(BATCH);
                if count == 0 || self.batch(mapping, at, count, each).is_none() {
                    break;
                }
                at += count * PAGE;
            }
        }
    }

    fn threads(&self) -> Vec<ThreadView> {
        let view = |t: &sls_record::Thread| ThreadView {
            tid: t.tid.cast_unsigned(),
            name: t.name.clone(),
            registers: Registers::from_user(&t.regs.words()).with_fxsave(&t.xstate),
        };
        self.process.threads.iter().map(view).collect()
    }

    fn selected(&self) -> Option<u32> {
        let tid = self.event.as_ref()?.tid()?;
        let here = self.process.threads.iter().any(|t| t.tid == tid);
        here.then_some(tid.cast_unsigned())
    }

    fn mappings(&self) -> Vec<Mapping> {
        let map = |m: &sls_record::Mapping| Mapping {
            start: m.start,
            end: m.end,
            offset: m.offset,
            perms: Perms {
                read: m.perms.read,
                write: m.perms.write,
                execute: m.perms.exec,
                shared: m.perms.shared,
            },
            path: m.path.clone(),
        };
        self.process.mappings.iter().map(map).collect()
    }

    fn auxv(&self) -> Vec<(u64, u64)> {
        self.process.auxv.clone()
    }

    fn debug_roots(&self) -> Vec<PathBuf> {
        self.brought().map(bundle::debug_root).into_iter().collect()
    }

    fn open_file(&self, mapping: &Mapping) -> std::io::Result<std::sync::Arc<[u8]>> {
        let recorded = mapping_at(&self.process, mapping.start);
        if let Some(file) = recorded.and_then(|mapping| self.open_as_mapped(mapping).ok()) {
            return introspect::regular::shared(file);
        }
        // Changed since, but perhaps not in what matters: its build id decides.
        match mapping.file_path() {
            Some(path) => introspect::regular::share(path.as_ref()),
            None => Err(std::io::ErrorKind::NotFound.into()),
        }
    }
}

/// Checkpoints of a partition for history queries: a line, or the way between two.
pub struct PartitionHistory {
    client: SharedClient,
    part: String,
    pid: Option<i32>,
    epochs: Vec<(u64, u64)>,
    /// Whether each of `epochs` is the parent of the next.
    descends: bool,
    /// Records of the epochs looked at last.
    processes: RefCell<BTreeMap<u64, Rc<Process>>>,
    /// What was asked last about pages that stay as they are.
    steady: RefCell<Steady>,
}

/// A stretch of a line along which pages and mappings stay as they are.
#[derive(Default)]
struct Steady {
    pages: Vec<u64>,
    from: u64,
    until: u64,
    /// Epochs asked for next: more while the answer is yes, since asking costs more than looking.
    ahead: usize,
}

/// Most epochs one question covers.
const MOST_AHEAD: usize = 4096;

/// Records a history query keeps at hand.
const RECORDS: usize = 8;

impl PartitionHistory {
    /// The checkpoints `from..=to` on the line that leads to `to`.
    #[must_use]
    pub fn new(
        client: &SharedClient,
        history: &History,
        pid: Option<i32>,
        (from, to): (u64, u64),
    ) -> Self {
        let mut line = History {
            head: to,
            ..history.clone()
        };
        line.checkpoints.retain(|c| c.epoch <= to);
        let mut epochs: Vec<(u64, u64)> = line
            .line_to_head()
            .into_iter()
            .take_while(|c| c.epoch >= from)
            .map(|c| (c.epoch, c.time))
            .collect();
        epochs.reverse();
        Self {
            client: Rc::clone(client),
            part: history.partition.clone(),
            pid,
            epochs,
            descends: true,
            processes: RefCell::new(BTreeMap::new()),
            steady: RefCell::default(),
        }
    }

    /// The way from one checkpoint to another, which may be on different branches or in either order. None when nothing
    /// leads from one to the other.
    #[must_use]
    pub fn between(
        client: &SharedClient,
        history: &History,
        pid: Option<i32>,
        (from, to): (u64, u64),
    ) -> Option<Self> {
        let path = history.path(from, to)?;
        Some(Self {
            epochs: path.iter().map(|row| (row.epoch, row.time)).collect(),
            descends: false,
            ..Self::new(client, history, pid, (from, from))
        })
    }

    /// Checkpoints that are named one by one: those of a history that still grows.
    #[must_use]
    pub fn unlisted(client: &SharedClient, part: &str, pid: Option<i32>) -> Self {
        Self {
            client: Rc::clone(client),
            part: part.to_owned(),
            pid,
            epochs: Vec::new(),
            descends: false,
            processes: RefCell::new(BTreeMap::new()),
            steady: RefCell::default(),
        }
    }

    fn process(&self, epoch: u64) -> Result<Rc<Process>, Unavailable> {
        if let Some(process) = self.processes.borrow().get(&epoch) {
            return Ok(Rc::clone(process));
        }
        let process = fetch_process(&self.client, &self.part, epoch, self.pid)
            .map(Rc::new)
            .map_err(|e| Unavailable::because(e.to_string()))?;
        let mut processes = self.processes.borrow_mut();
        while processes.len() >= RECORDS {
            processes.pop_first();
        }
        processes.insert(epoch, Rc::clone(&process));
        Ok(process)
    }

    /// The pages of a read set as they are kept, None when a mapping under one of them differs.
    fn pages_of(
        &self,
        (from, to): (u64, u64),
        read: &ReadSet,
    ) -> Result<Option<Runs>, Unavailable> {
        let (old, new) = (self.process(from)?, self.process(to)?);
        let mut runs = Runs::new();
        for address in read.pages() {
            let (a, b) = match (mapping_at(&old, address), mapping_at(&new, address)) {
                (None, None) => continue,
                (Some(a), Some(b)) => (a, b),
                _ => return Ok(None),
            };
            let (Some(place), true) = (
                place(&old, a, address),
                same_backing((&old, a), (&new, b), address),
            ) else {
                return Ok(None);
            };
            push_page(&mut runs, place);
        }
        Ok(Some(runs))
    }
}

impl PartitionHistory {
    /// Is it known already?
    fn is_steady(&self, from: u64, to: u64, read: &ReadSet) -> bool {
        let steady = self.steady.borrow();
        let within = steady.from <= from && to <= steady.until;
        within && read.pages().eq(steady.pages.iter().copied())
    }

    /// Asks about the epochs from number `next` on.
    fn look_ahead(
        &self,
        next: usize,
        pair: (u64, u64),
        read: &ReadSet,
    ) -> Result<bool, Unavailable> {
        let process = self.process(pair.0)?;
        let ahead = self.steady.borrow().ahead.clamp(1, MOST_AHEAD);
        let ahead = &self.epochs[next..self.epochs.len().min(next + ahead)];
        let request = Request::Steady {
            part: Some(self.part.clone()),
            pid: self.pid,
            from: pair.0,
            epochs: ahead.iter().map(|e| e.0).collect(),
            pages: runs_at(&process, read),
        };
        let (same, remapped) = match self.client.borrow_mut().ask(&request) {
            Ok(Answer::Steady { same, remapped }) => (same as usize, remapped),
            Ok(other) => return Err(Unavailable::because(format!("{other:?}"))),
            Err(error) => return Err(Unavailable::because(error.to_string())),
        };
        let mut steady = self.steady.borrow_mut();
        steady.ahead = if same == ahead.len() { same * 2 } else { 1 };
        let Some(last) = same.checked_sub(1).and_then(|last| ahead.get(last)) else {
            drop(steady);
            // Other mappings may still be the same ones under the pages that were read.
            return Ok(remapped && !self.changed_between(pair, read)?);
        };
        steady.pages = read.pages().collect();
        (steady.from, steady.until) = (pair.0, last.0);
        Ok(true)
    }

    fn changed_between(&self, (from, to): (u64, u64), read: &ReadSet) -> Result<bool, Unavailable> {
        let Some(pages) = self.pages_of((from, to), read)? else {
            return Ok(true);
        };
        let request = Request::Changed {
            part: Some(self.part.clone()),
            from,
            to,
            pages,
        };
        match self.client.borrow_mut().ask(&request) {
            Ok(Answer::Changed(changed)) => Ok(changed),
            Ok(other) => Err(Unavailable::because(format!("{other:?}"))),
            Err(error) => Err(Unavailable::because(error.to_string())),
        }
    }
}

/// The pages of a read set as they are kept for one process; what is not mapped is left out.
fn runs_at(process: &Process, read: &ReadSet) -> Runs {
    let mut runs = Runs::new();
    for address in read.pages() {
        let mapping = mapping_at(process, address);
        if let Some(place) = mapping.and_then(|m| place(process, m, address)) {
            push_page(&mut runs, place);
        }
    }
    runs
}

fn push_page(runs: &mut Runs, place: (u32, u64)) {
    match runs.last_mut() {
        Some(run) if run.0 == place.0 && run.1 + run.2 == place.1 => run.2 += 1,
        _ => runs.push((place.0, place.1, 1)),
    }
}

impl Epochs for PartitionHistory {
    fn epochs(&self) -> Vec<(u64, u64)> {
        self.epochs.clone()
    }

    fn view(&self, epoch: u64) -> Result<Box<dyn View>, Unavailable> {
        let process = self.process(epoch)?;
        Ok(Box::new(CheckpointView::of(
            &self.client,
            &self.part,
            epoch,
            process,
        )))
    }

    fn unchanged(&self, from: u64, to: u64, read: &ReadSet) -> Result<bool, Unavailable> {
        if self.is_steady(from, to, read) {
            return Ok(true);
        }
        let at = |epoch| self.epochs.binary_search_by_key(&epoch, |e| e.0).ok();
        match (at(from), at(to)) {
            (Some(a), Some(b)) if self.descends && b == a + 1 => {
                self.look_ahead(b, (from, to), read)
            }
            _ => self
                .changed_between((from, to), read)
                .map(|changed| !changed),
        }
    }
}
