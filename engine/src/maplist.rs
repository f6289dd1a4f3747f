//! The map list of a process, as text and understood.

use std::io;
use std::sync::Arc;

use sls_sys::procfs::{self, MapLine, Reread};

/// Stops for which a list that has just changed is not guessed again.
const DOUBTFUL_FOR: u32 = 16;

/// The map list, parsed again only when its text has changed.
#[derive(Debug)]
pub struct MapList {
    file: Reread,
    text: Vec<u8>,
    maps: Arc<[MapLine]>,
    doubtful: u32,
}

impl MapList {
    pub fn open(pid: i32) -> io::Result<Self> {
        let file = Reread::open(pid, "maps")?;
        Ok(Self {
            file,
            text: Vec::new(),
            maps: Arc::from([]),
            doubtful: 0,
        })
    }

    /// The list now; empty when the process has no memory any more.
    pub fn read(&mut self) -> io::Result<Arc<[MapLine]>> {
        let text = self.file.read()?;
        if text != self.text {
            self.maps = procfs::parse_maps(text).into();
            text.clone_into(&mut self.text);
        }
        Ok(Arc::clone(&self.maps))
    }

    /// What the list will most likely be, when it was the same for a while.
    pub fn guess(&mut self) -> Option<Arc<[MapLine]>> {
        self.doubtful = self.doubtful.saturating_sub(1);
        (self.doubtful == 0 && !self.maps.is_empty()).then(|| Arc::clone(&self.maps))
    }

    /// Was the guess right?
    pub fn is(&mut self, text: &[u8]) -> bool {
        let right = self.text == text;
        if !right {
            self.doubtful = DOUBTFUL_FOR;
        }
        right
    }
}
