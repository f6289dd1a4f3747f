//! Source files, read once.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::sync::Arc;

/// Larger ones were not written by people.
const SIZE_LIMIT: u64 = 16 << 20;
/// Files kept.
const KEPT: usize = 64;

type Text = Result<Arc<Vec<String>>, String>;

#[derive(Default)]
pub struct Sources {
    known: HashMap<String, Text>,
}

impl Sources {
    /// The lines of a file, or why they cannot be shown.
    pub fn text(&mut self, path: &str) -> Text {
        if let Some(text) = self.known.get(path) {
            return text.clone();
        }
        if self.known.len() >= KEPT {
            self.known.clear();
        }
        let text = read(path);
        self.known.insert(path.to_owned(), text.clone());
        text
    }
}

fn read(path: &str) -> Text {
    let because = |why: String| format!("{path}: {why}");
    // Debug information may name a pipe or a device: those are not opened.
    let meta = std::fs::metadata(path).map_err(|e| because(e.to_string()))?;
    if !meta.is_file() {
        return Err(because("not a file".to_owned()));
    }
    let file = File::open(path).map_err(|e| because(e.to_string()))?;
    let mut bytes = Vec::new();
    file.take(SIZE_LIMIT + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| because(e.to_string()))?;
    if bytes.len() as u64 > SIZE_LIMIT {
        return Err(because("too large".to_owned()));
    }
    let text = String::from_utf8_lossy(&bytes);
    Ok(Arc::new(text.lines().map(str::to_owned).collect()))
}
