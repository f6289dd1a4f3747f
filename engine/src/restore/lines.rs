//! What is told of several processes: what is the same of more than one is told once.

use sls_record::Process;

/// Lines for people, each with those that it is about.
#[derive(Debug)]
pub struct Lines<'a> {
    all: &'a [Process],
    lines: Vec<(String, Vec<i32>)>,
}

impl<'a> Lines<'a> {
    pub fn new(all: &'a [Process]) -> Self {
        Self {
            all,
            lines: Vec::new(),
        }
    }

    pub fn add(&mut self, pid: i32, lines: Vec<String>) {
        for line in lines {
            match self.lines.iter_mut().find(|(known, _)| *known == line) {
                Some((_, pids)) if pids.contains(&pid) => {}
                Some((_, pids)) => pids.push(pid),
                None => self.lines.push((line, vec![pid])),
            }
        }
    }

    pub fn append(&mut self, other: Self) {
        for (line, pids) in other.lines {
            let add = |pid| self.add(pid, vec![line.clone()]);
            pids.into_iter().for_each(add);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// As text; of one process there is no need to say which.
    pub fn lines(self) -> Vec<String> {
        let text = |(line, pids): (String, Vec<i32>)| {
            let mut pids: Vec<String> = pids.iter().map(i32::to_string).collect();
            pids.dedup();
            match (self.all.len(), &pids[..]) {
                (1, _) => line,
                (_, [pid]) => format!("process {pid}: {line}"),
                _ => format!("processes {}: {line}", pids.join(", ")),
            }
        };
        self.lines.into_iter().map(text).collect()
    }
}
