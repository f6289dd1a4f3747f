//! One process of one checkpoint, as it is read.

use libsls::ClientError;
use libsls::elf_core::Core;
use libsls::view::{CheckpointView, SharedClient};

use crate::histories::{Kind, Trouble};
use crate::texts;

const PAGE: u64 = 4096;
/// Where user memory ends with five levels of page tables.
const END_OF_MEMORY: u64 = 1 << 56;

/// What has been read of it, to be read on.
pub struct Seen {
    view: CheckpointView,
    /// Made when it is first asked for.
    core: Option<(Core, u64)>,
    texts: Vec<(Kind, String)>,
}

impl Seen {
    pub fn open(
        client: &SharedClient,
        part: &str,
        epoch: u64,
        pid: i32,
    ) -> Result<Self, ClientError> {
        Ok(Self {
            view: CheckpointView::open(client, part, epoch, Some(pid))?,
            core: None,
            texts: Vec::new(),
        })
    }

    /// Bytes of a file, and of those how many take room.
    pub fn size(&mut self, kind: Kind) -> Result<(u64, u64), Trouble> {
        match kind {
            Kind::Core => self.core().map(|(core, kept)| (core.len(), *kept)),
            Kind::Mem => Ok((END_OF_MEMORY, 0)),
            _ => self.text(kind).map(|t| (t.len() as u64, t.len() as u64)),
        }
    }

    pub fn read(&mut self, kind: Kind, offset: u64, len: usize) -> Result<Vec<u8>, Trouble> {
        match kind {
            Kind::Mem => self.memory(offset, len),
            Kind::Core => self.read_core(offset, len),
            _ => {
                let text = self.text(kind)?.as_bytes();
                let from = usize::try_from(offset).unwrap_or(usize::MAX);
                let rest = text.get(from..).unwrap_or_default();
                Ok(rest[..rest.len().min(len)].to_vec())
            }
        }
    }

    fn text(&mut self, kind: Kind) -> Result<&str, Trouble> {
        let at = match self.texts.iter().position(|(k, _)| *k == kind) {
            Some(at) => at,
            None => {
                let process = self.view.process();
                let text = match kind {
                    Kind::Maps => texts::maps(process),
                    Kind::Regs => texts::regs(process),
                    Kind::Fds => texts::fds(process),
                    Kind::Record => {
                        serde_json::to_string_pretty(process).map_err(|_| Trouble::Unreadable)?
                            + "\n"
                    }
                    Kind::Core | Kind::Mem => String::new(),
                };
                self.texts.push((kind, text));
                self.texts.len() - 1
            }
        };
        Ok(&self.texts[at].1)
    }

    fn core(&mut self) -> Result<&(Core, u64), Trouble> {
        if self.core.is_none() {
            let (core, kept) = Core::of_view(&self.view)?;
            let process = self.view.process();
            let runs = process
                .mappings
                .iter()
                .flat_map(|m| kept.within(process, m));
            let bytes = runs.map(|run| run.end - run.start).sum();
            self.core = Some((core, bytes));
        }
        self.core.as_ref().ok_or(Trouble::Unreadable)
    }

    fn read_core(&mut self, offset: u64, len: usize) -> Result<Vec<u8>, Trouble> {
        self.core()?;
        let (core, _) = self.core.as_ref().ok_or(Trouble::Unreadable)?;
        let mut buf = vec![0; len];
        let read = core.read_at(offset, &mut buf, |address, part| {
            let bytes = self.memory(address, part.len())?;
            if bytes.len() < part.len() {
                return Err(Trouble::Unreadable);
            }
            part.copy_from_slice(&bytes);
            Ok(())
        })?;
        buf.truncate(read);
        Ok(buf)
    }

    /// What is mapped from `address` on, up to the first that is not.
    fn memory(&self, address: u64, len: usize) -> Result<Vec<u8>, Trouble> {
        let end = address.saturating_add(len as u64).min(END_OF_MEMORY);
        let maps = &self.view.process().mappings;
        let mut bytes = Vec::with_capacity(len);
        let mut at = address;
        while at < end {
            let map = maps.get(maps.partition_point(|m| m.end <= at));
            let Some(map) = map.filter(|m| m.start <= at) else {
                break;
            };
            let until = end.min(map.end);
            let first = at - at % PAGE;
            let whole = until.next_multiple_of(PAGE) - first;
            let mut pages = vec![0; usize::try_from(whole).unwrap_or(0)];
            if self.view.read_run(first, &mut pages).is_err() {
                break;
            }
            let part = |address: u64| usize::try_from(address - first).unwrap_or(0);
            bytes.extend_from_slice(&pages[part(at)..part(until)]);
            at = until;
        }
        if bytes.is_empty() && at < end {
            return Err(Trouble::Unreadable);
        }
        Ok(bytes)
    }
}
