//! A device in memory that forgets, mixes up and tears what was not flushed, and fails at its n-th
//! change.

use std::io;
use std::sync::{Arc, Mutex};

use slos::Device;

/// What a power cut leaves whole or not at all.
const SECTOR: usize = 512;

#[derive(Clone)]
pub struct SimDevice(Arc<Mutex<State>>);

#[derive(Clone)]
pub enum Step {
    Write(u64, Vec<u8>),
    Flush,
}

struct State {
    bytes: Vec<u8>,
    /// All that was done since the device was as `start`.
    steps: Vec<Step>,
    start: Vec<u8>,
    left: Option<u64>,
    failed: bool,
}

impl SimDevice {
    pub fn new(bytes: usize) -> SimDevice {
        let device = SimDevice::of(vec![0; bytes]);
        slos::format_device(&device).unwrap();
        device.settle();
        device
    }

    pub fn of(bytes: Vec<u8>) -> SimDevice {
        SimDevice(Arc::new(Mutex::new(State {
            start: bytes.clone(),
            bytes,
            steps: Vec::new(),
            left: None,
            failed: false,
        })))
    }

    pub fn device(&self) -> Arc<dyn Device> {
        Arc::new(self.clone())
    }

    /// Steps are counted from here on.
    pub fn settle(&self) {
        let mut state = self.0.lock().unwrap();
        state.start = state.bytes.clone();
        state.steps.clear();
    }

    pub fn steps(&self) -> usize {
        self.0.lock().unwrap().steps.len()
    }

    /// Every change after `count` more fails.
    pub fn fail_after(&self, count: u64) {
        self.0.lock().unwrap().left = Some(count);
    }

    pub fn heal(&self) {
        let mut state = self.0.lock().unwrap();
        state.left = None;
        state.failed = false;
    }

    pub fn has_failed(&self) -> bool {
        self.0.lock().unwrap().failed
    }

    pub fn image(&self) -> Vec<u8> {
        self.0.lock().unwrap().bytes.clone()
    }

    pub fn set_image(&self, bytes: &[u8]) {
        self.0.lock().unwrap().bytes = bytes.to_vec();
    }

    /// What may be there after the power went at a step: all that was flushed before, and of the
    /// rest the sectors that `keeps` picks, in the order of their writes.
    pub fn cut(&self, at: usize, mut keeps: impl FnMut() -> bool) -> Vec<u8> {
        let state = self.0.lock().unwrap();
        let steps = &state.steps[..at];
        let flushed = steps.iter().rposition(|s| matches!(s, Step::Flush));
        let flushed = flushed.map_or(0, |f| f + 1);
        let mut bytes = state.start.clone();
        for (n, step) in steps.iter().enumerate() {
            let Step::Write(offset, data) = step else {
                continue;
            };
            let (mut from, offset) = (0, *offset as usize);
            while from < data.len() {
                // Sectors of the device, not of the write.
                let to = data.len().min(from + SECTOR - (offset + from) % SECTOR);
                if n < flushed || keeps() {
                    bytes[offset + from..offset + to].copy_from_slice(&data[from..to]);
                }
                from = to;
            }
        }
        bytes
    }

    fn change(&self) -> io::Result<std::sync::MutexGuard<'_, State>> {
        let mut state = self.0.lock().unwrap();
        match &mut state.left {
            Some(0) => {
                state.failed = true;
                return Err(io::Error::other("the device fails"));
            }
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(state)
    }
}

impl Device for SimDevice {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().bytes.len() as u64)
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let state = self.0.lock().unwrap();
        let offset = offset as usize;
        let found = state.bytes.get(offset..offset + bytes.len());
        bytes.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.change()?;
        let at = offset as usize;
        state.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        state.steps.push(Step::Write(offset, bytes.to_vec()));
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        self.change()?.steps.push(Step::Flush);
        Ok(())
    }
}
