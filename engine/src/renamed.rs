//! Things that a restore has made again have other names than before: what a checkpoint from before
//! it says of them is read with the names that they have now.

use std::os::unix::fs::MetadataExt;

use sls_record::{File, FileKind, Mapping, Name, Process, Renamed};
use sls_sys::procfs::{self, MapLine};

use crate::plan::kin::{Kin, Segments};
use crate::plan::sockets;
use crate::shared::is_memory_only;

/// More are not remembered, the oldest go first.
const MOST: usize = 8192;

/// What those that were just made have under other names than `then`. With a layer over all files each
/// has another.
pub fn since(then: &[Process], has_layer: bool) -> Vec<Renamed> {
    let mut renamed: Vec<Renamed> = Vec::new();
    let mut note = |old: Name, new: Name| {
        let is_new = old != new && kind_of(&old) == kind_of(&new);
        if is_new && renamed.iter().all(|known| known.old != old) {
            renamed.push(Renamed { old, new });
        }
    };
    let segments = Segments::new();
    let kin = Kin::new(then, &segments, &[]);
    let is_made = |file: &&File| has_layer || is_made_again(file) || kin.pair(file).is_some();
    for process in then {
        for file in process.files.iter().filter(is_made) {
            if let Some(new) = name_of(process.outside(), file.fd) {
                note(of_file(file), new);
            }
        }
        let maps = procfs::maps(process.outside()).unwrap_or_default();
        let is_made =
            |m: &&Mapping| has_layer && m.inode != 0 || m.perms.shared && is_memory_only(&m.path);
        for old in process.mappings.iter().filter(is_made) {
            let same = |m: &&MapLine| m.start == old.start && m.shared == old.perms.shared;
            let Some(new) = maps.iter().find(same) else {
                continue;
            };
            let new = Name {
                target: new.path.clone(),
                dev: new.dev,
                inode: new.inode,
            };
            note(of_mapping(old), new);
        }
    }
    renamed
}

/// Adds what was renamed last to what was before.
pub fn add(all: &mut Vec<Renamed>, last: Vec<Renamed>) {
    for known in all.iter_mut() {
        if let Some(next) = last.iter().find(|next| next.old == known.new) {
            known.new = next.new.clone();
        }
    }
    all.extend(last);
    let surplus = all.len().saturating_sub(MOST);
    all.drain(..surplus);
}

/// Gives the things of a process the names they have now.
pub fn apply(all: &[Renamed], process: &mut Process) {
    let now = |name: Name| all.iter().find(|r| r.old == name).map(|r| r.new.clone());
    for file in &mut process.files {
        if let Some(name) = now(of_file(file)) {
            (file.target, file.dev, file.inode) = (name.target, name.dev, name.inode);
        }
    }
    for map in process.mappings.iter_mut().filter(|m| m.inode != 0) {
        if let Some(name) = now(of_mapping(map)) {
            (map.path, map.dev, map.inode) = (name.target, name.dev, name.inode);
        }
    }
}

/// Others are opened where they were, or something is in their place.
fn is_made_again(file: &File) -> bool {
    match &file.kind {
        FileKind::Pipe { .. } | FileKind::Memory { .. } => true,
        FileKind::Socket { state, .. } => state.as_deref().is_some_and(sockets::can_be_made),
        _ => file.content().is_some(),
    }
}

fn of_file(file: &File) -> Name {
    Name {
        target: file.target.clone(),
        dev: file.dev,
        inode: file.inode,
    }
}

fn of_mapping(map: &Mapping) -> Name {
    Name {
        target: map.path.clone(),
        dev: map.dev,
        inode: map.inode,
    }
}

/// As a record has it (files.rs).
fn name_of(pid: i32, fd: i32) -> Option<Name> {
    let path = format!("/proc/{pid}/fd/{fd}");
    let meta = std::fs::metadata(&path).ok()?;
    let target = procfs::link(pid, &format!("fd/{fd}"));
    Some(Name {
        dev: if target.starts_with('/') {
            meta.dev()
        } else {
            0
        },
        inode: meta.ino(),
        target,
    })
}

/// "pipe:", "socket:", or memory, which may have got a name of another kind.
fn kind_of(name: &Name) -> &str {
    let (kind, _) = name.target.split_once('[').unwrap_or(("", ""));
    kind
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(inode: u64) -> Name {
        Name {
            target: format!("pipe:[{inode}]"),
            dev: 0,
            inode,
        }
    }

    fn renamed(old: u64, new: u64) -> Renamed {
        Renamed {
            old: name(old),
            new: name(new),
        }
    }

    #[test]
    fn what_was_renamed_twice_has_its_last_name() {
        let mut all = vec![renamed(1, 2)];
        add(&mut all, vec![renamed(2, 3), renamed(7, 8)]);
        assert_eq!(all, [renamed(1, 3), renamed(2, 3), renamed(7, 8)]);
        let mut process = Process {
            files: [1, 2, 5]
                .map(|inode| File {
                    fd: 0,
                    target: name(inode).target,
                    flags: 0,
                    offset: 0,
                    dev: 0,
                    inode,
                    kind: FileKind::Other,
                    shares: None,
                    shared_with: None,
                    locks: Vec::new(),
                    unnamed: None,
                })
                .to_vec(),
            ..Process::default()
        };
        apply(&all, &mut process);
        let inodes: Vec<u64> = process.files.iter().map(|f| f.inode).collect();
        assert_eq!(inodes, [3, 3, 5]);
    }
}
