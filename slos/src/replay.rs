//! The second half of recovery: from gathered records to the index.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::Epoch;
use crate::catalogue::{Filed, Mark};
use crate::codec::Encoding;
use crate::index::Index;
use crate::manifest::{Entry, Manifest};
use crate::recover::{Gathered, RecoveryReport};
use crate::tree::{NewNode, NewSpace};
use crate::versions::{NewVersion, Value, Versions};

pub(crate) fn replay(
    index: &mut Index,
    mut gathered: Gathered,
    report: &mut RecoveryReport,
) -> Filed {
    gathered.bodies.sort();
    let live = gathered.live(index);
    let mut lost = HashMap::new();
    for (part, live) in live {
        replay_partition(index, &mut gathered, &mut lost, part, &live, report);
    }
    restore_names(index, &gathered);
    for (part, &epoch) in &gathered.last_epochs {
        if let Some(history) = index.histories.get_mut(part) {
            history.next_epoch = history.next_epoch.max(epoch.saturating_add(1));
        }
    }
    for history in index.histories.values() {
        report.checkpoints += history.live_count() as u64;
    }
    find_holed(index, report);
    file(index, gathered)
}

/// Checkpoints of which pages are lost.
fn find_holed(index: &Index, report: &mut RecoveryReport) {
    let lost = |value: Value| value.is_version() && is_lost(&index.versions, value);
    if !index.versions.iter().any(|(value, _)| lost(value)) {
        return;
    }
    for history in index.histories.values() {
        let holed = history.lines.readers(lost).into_iter();
        let name = &history.name;
        report.holed.extend(holed.map(|e| (name.clone(), Epoch(e))));
    }
}

fn is_lost(versions: &Versions, value: Value) -> bool {
    let version = versions.get(value);
    let base = version.base().map(|b| versions.get(b).encoding);
    version.encoding == Encoding::Lost || base == Some(Encoding::Lost)
}

fn file(index: &mut Index, gathered: Gathered) -> Filed {
    let Some((first_lsn, _, locs)) = gathered.catalogue else {
        return Filed::default();
    };
    for &loc in &locs {
        index.versions.charge(loc);
    }
    Filed {
        first_lsn,
        locs,
        since: 0,
    }
}

fn replay_partition(
    index: &mut Index,
    gathered: &mut Gathered,
    lost: &mut HashMap<u64, Value>,
    part: u32,
    live: &BTreeSet<u64>,
    report: &mut RecoveryReport,
) {
    let name = index.histories[&part].name.clone();
    let wanted = closure(gathered, part, live);
    for &epoch in &wanted {
        if !enter(index, gathered, lost, part, epoch, live.contains(&epoch))
            && live.contains(&epoch)
        {
            report.lost.push((name.clone(), Epoch(epoch)));
        }
    }
    let Some(history) = index.histories.get_mut(&part) else {
        return;
    };
    for epoch in wanted.difference(live) {
        if history.nodes.contains_key(&Epoch(*epoch)) {
            history.drop_epoch(&mut index.versions, Epoch(*epoch));
        }
    }
}

/// Live epochs, and all that their manifests build on.
fn closure(gathered: &Gathered, part: u32, live: &BTreeSet<u64>) -> BTreeSet<u64> {
    let mut wanted = live.clone();
    let mut open: Vec<u64> = live.iter().copied().collect();
    while let Some(epoch) = open.pop() {
        let stored = gathered.manifests.get(&(part, epoch));
        if let Some(base) = stored.and_then(|s| s.manifest.base)
            && wanted.insert(base.0)
        {
            open.push(base.0);
        }
    }
    wanted
}

/// Puts one checkpoint into the tree; `false` when its map cannot be built.
fn enter(
    index: &mut Index,
    gathered: &mut Gathered,
    lost: &mut HashMap<u64, Value>,
    part: u32,
    epoch: u64,
    is_live: bool,
) -> bool {
    let Some(history) = index.histories.get_mut(&part) else {
        return false;
    };
    let Some(stored) = gathered.manifests.remove(&(part, epoch)) else {
        return false;
    };
    let Manifest {
        mut info,
        base,
        depth,
        record_len,
        spaces,
        ..
    } = stored.manifest;
    if let Some(base) = base {
        let Some(node) = history.nodes.get(&base) else {
            return false;
        };
        if spaces
            .iter()
            .any(|s| s.from.is_some_and(|f| node.space(f).is_none()))
        {
            return false;
        }
    } else if spaces.iter().any(|s| s.from.is_some()) {
        return false;
    }
    info.branch = history.branch_name(&info.branch);
    let versions = &mut index.versions;
    let spaces: Vec<NewSpace> = spaces
        .into_iter()
        .map(|space| NewSpace {
            space: space.space,
            from: space.from,
            changes: space
                .changes
                .into_iter()
                .map(|(page, entry)| (page, value(versions, gathered, lost, entry)))
                .collect(),
        })
        .collect();
    let record = gathered.records.remove(&(part, epoch));
    let node = NewNode {
        info,
        depth,
        up: base,
        spaces,
        record: record.filter(|_| is_live).unwrap_or_default(),
        record_len,
        manifest: stored.locs,
    };
    history.insert(&mut index.versions, node);
    true
}

fn value(
    versions: &mut Versions,
    gathered: &mut Gathered,
    lost: &mut HashMap<u64, Value>,
    entry: Entry,
) -> Value {
    match entry {
        Entry::Zero => Value::ZERO,
        Entry::Absent => Value::ABSENT,
        Entry::Version(uid) => version(versions, gathered, lost, uid, false),
    }
}

/// The slot of a version, made on first sight. One whose body is missing is a lost one: it may
/// be of a dropped checkpoint, and then goes with it.
fn version(
    versions: &mut Versions,
    gathered: &mut Gathered,
    lost: &mut HashMap<u64, Value>,
    uid: u64,
    is_base: bool,
) -> Value {
    let bodies = &mut gathered.bodies;
    let found = match is_base {
        true => bodies.search(uid),
        false => bodies.find(uid),
    };
    let known = match found {
        Some(at) => bodies.at(at).value,
        None => lost.get(&uid).copied(),
    };
    // Versions that came and went in the replay are not at their slots any more.
    if let Some(value) = known.filter(|&value| versions.is_uid(value, uid)) {
        return value;
    }
    let Some(at) = found else {
        let value = versions.insert(NewVersion::lost(uid));
        lost.insert(uid, value);
        return value;
    };
    let body = bodies.at(at);
    let base = body.row.base;
    let mut new = NewVersion {
        uid,
        segment: body.segment,
        offset: body.offset,
        base: None,
        crc: body.row.crc,
        length: body.row.length,
        encoding: body.row.encoding,
        owner: body.owner,
    };
    if is_base && base.is_some() {
        new = NewVersion::lost(uid);
    } else {
        new.base = base.map(|base| version(versions, gathered, lost, base, true));
    }
    let value = versions.insert(new);
    gathered.bodies.at(at).value = Some(value);
    value
}

/// Names and pins: the catalogue's for what it lists, then marks in their order.
fn restore_names(index: &mut Index, gathered: &Gathered) {
    let mut names: BTreeMap<(u32, u64), (Option<String>, bool)> = BTreeMap::new();
    let mut since = 0;
    if let Some((lsn, catalogue, _)) = &gathered.catalogue {
        since = *lsn;
        for part in &catalogue.partitions {
            let each = part.epochs.iter();
            names.extend(each.map(|e| ((part.id, e.epoch), (e.name.clone(), e.pinned))));
        }
    }
    for ((part, epoch), (name, pinned)) in names {
        edit(index, part, epoch, |info| {
            info.name = name;
            info.pinned = pinned;
        });
    }
    for (_, mark) in gathered.marks.iter().filter(|(lsn, _)| *lsn > since) {
        match mark {
            Mark::Name { id, epoch, name } => {
                edit(index, *id, *epoch, |info| info.name.clone_from(name));
            }
            Mark::Pin { id, epoch, pinned } => {
                edit(index, *id, *epoch, |info| info.pinned = *pinned);
            }
            _ => {}
        }
    }
}

fn edit(index: &mut Index, part: u32, epoch: u64, change: impl FnOnce(&mut crate::CheckpointInfo)) {
    if let Some(history) = index.histories.get_mut(&part) {
        history.edit(Epoch(epoch), |node| change(&mut node.info));
    }
}
