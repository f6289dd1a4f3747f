//! Files without a name: what they hold put back, or the whole file made again; and their seals, once
//! nothing has to be written any more.

use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use slos::{PageIndex, ReadError, SpaceId};
use sls_keeper::{Arg, Step, Want};
use sls_record::{Backing, Content, File, FileKind, Process, Unnamed};

use super::common::Common;
use super::files::{ACCESS_MODE, name_once};
use super::pages::Data;
use super::{Ends, NoPlan, Steps, int, path};
use crate::shared::is_memory_only;

const PAGE: u64 = sls_sys::PAGE;
const MFD_CLOEXEC: u64 = 1;
const MFD_ALLOW_SEALING: u64 = 2;
/// Where files without a name can be made if not where they were.
const FOLDERS: [&str; 2] = ["/tmp", "/dev/shm"];
/// Nothing can be written any more, or only by way of mappings that were there.
const UNWRITABLE: u32 = (libc::F_SEAL_WRITE | libc::F_SEAL_FUTURE_WRITE).cast_unsigned();

fn object(file: &File) -> (u64, u64) {
    (file.dev, file.inode)
}

fn find(process: &Process, of: (u64, u64)) -> Option<&File> {
    let files = process.files.iter().filter(|f| f.unnamed.is_some());
    files.into_iter().find(|f| object(f) == of)
}

/// The first descriptor of each object, with what it is.
fn firsts(process: &Process) -> impl Iterator<Item = (&File, &Unnamed)> {
    let all = process.files.iter();
    let own = all.filter_map(|f| Some((f, f.unnamed.as_deref()?)));
    own.filter(|(f, _)| find(process, object(f)).is_some_and(|first| first.fd == f.fd))
}

/// Is it a memory file?
pub fn is_memory(file: &File) -> bool {
    matches!(file.kind, FileKind::Memory { .. }) && file.target.starts_with("/memfd:")
}

/// What of it can be written no more.
pub fn is_sealed(file: &File) -> bool {
    let seals = file.unnamed.as_deref().map_or(0, |u| u.seals);
    seals & UNWRITABLE != 0
}

/// Puts back what they hold. The bytes go behind `data`.
pub fn contents(
    steps: &mut Steps,
    ends: &Ends<'_>,
    (from, to): (&Process, &Process),
    common: &mut Common,
    data: &mut Data,
) -> Result<(), NoPlan> {
    for (file, is) in firsts(to) {
        let key = format!("{}:{}", file.dev, file.inode);
        let was = find(from, object(file)).and_then(|f| f.unnamed.as_deref());
        let Content::Space(space) = is.content else {
            // Of one that was closed since the placeholder is named.
            if let (Some(_), Content::Unread(why)) = (was, &is.content) {
                let line = format!("content of {}: {why}", file.target);
                name_once(steps, line);
            }
            continue;
        };
        let pages = pages(ends, to, (space, is.size), was)?;
        let same_size = was.is_some_and(|was| was.size == is.size);
        if pages.is_empty() && same_size || !common.sees_to(&key) {
            continue;
        }
        if was.is_some_and(|was| was.seals & UNWRITABLE != 0) {
            let line = format!("content of {}: it has been sealed since", file.target);
            name_once(steps, line);
            continue;
        }
        let mut offset = data.iter().map(|run| run.2 * PAGE).sum();
        for (first, count) in runs(&pages) {
            let len = count * PAGE;
            steps.list.push(Step::Fill {
                fd: file.fd,
                size: is.size,
                at: first * PAGE,
                offset,
                len,
            });
            data.push((space, first, count));
            offset += len;
        }
    }
    Ok(())
}

/// First page and count of those that are neighbours; where there are none, none of the first: the
/// size is to be set.
fn runs(pages: &[PageIndex]) -> Vec<(u64, u64)> {
    let neighbours = |a: &PageIndex, b: &PageIndex| a.0 + 1 == b.0;
    let runs = pages.chunk_by(neighbours);
    let runs: Vec<_> = runs.map(|run| (run[0].0, run.len() as u64)).collect();
    if runs.is_empty() { vec![(0, 0)] } else { runs }
}

/// Pages to be written: what differs, but for what is written by way of mappings; of one that is made
/// again all.
fn pages(
    ends: &Ends<'_>,
    to: &Process,
    (space, size): (u32, u64),
    was: Option<&Unnamed>,
) -> Result<Vec<PageIndex>, ReadError> {
    let all = || ends.partition.page_map(ends.to, SpaceId(space));
    let mut pages = match was {
        None => all()?,
        Some(_) => match ends
            .partition
            .diff_pages(ends.from, ends.to, SpaceId(space))
        {
            Err(ReadError::NoSpace { .. }) => all()?,
            differ => differ?,
        },
    };
    let mapped = |page: &PageIndex| {
        let (start, end) = (page.0 * PAGE, (page.0 + 1) * PAGE);
        to.mappings.iter().any(|m| {
            m.backing == Backing::Shared { space }
                && m.perms.write
                && is_memory_only(&m.path)
                && m.offset <= start
                && end <= m.offset + m.len()
        })
    };
    pages.retain(|page| page.0 * PAGE < size && !mapped(page));
    Ok(pages)
}

/// Seals that were added are added again; none can be taken away.
pub fn seals(
    steps: &mut Steps,
    from: &Process,
    to: &Process,
    mut is_ours: impl FnMut(&File) -> bool,
) {
    for (first, is) in firsts(to).filter(|(f, _)| is_memory(f)) {
        let was = find(from, object(first)).and_then(|f| f.unnamed.as_deref());
        let was = was.map_or(0, |was| was.seals);
        if was & !is.seals != 0 {
            let line = format!("{}: seals that were added since stay", first.target);
            name_once(steps, line);
        }
        let its = |f: &&File| object(f) == object(first) && f.flags & ACCESS_MODE != 0;
        let writable = to.files.iter().find(its).unwrap_or(first);
        if is.seals & !was != 0 && is_ours(first) {
            let args = vec![
                int(writable.fd),
                int(libc::F_ADD_SEALS),
                Arg::Value(u64::from(is.seals & !was)),
            ];
            let name = Want::Report(format!("the seals of {}", first.target));
            steps.call("seal a memory file", libc::SYS_fcntl, args, name);
        }
    }
}

/// Makes one again, empty, saved as 0; its descriptor has the rights to write it.
pub fn make(steps: &mut Steps, file: &File, is: &Unnamed, folder: &str) {
    let what = format!("make {} as {}", file.target, file.fd);
    if is_memory(file) {
        let name = file.target.trim_start_matches("/memfd:");
        let name = name.strip_suffix(" (deleted)").unwrap_or(name);
        let args = vec![path(name), (MFD_CLOEXEC | MFD_ALLOW_SEALING).into()];
        steps.call(what, libc::SYS_memfd_create, args, Want::Save(0));
    } else {
        let flags = libc::O_TMPFILE | libc::O_RDWR | libc::O_CLOEXEC;
        let args = vec![
            int(libc::AT_FDCWD),
            path(folder),
            int(flags),
            Arg::Value(0o600),
        ];
        steps.call(what, libc::SYS_openat, args, Want::Save(0));
    }
    let args = vec![Arg::Saved(0), is.size.into()];
    let what = "size a file without a name";
    steps.call(what, libc::SYS_ftruncate, args, Want::Success);
    let report = |of: &str| Want::Report(format!("{of} of {}", file.target));
    let owner = [is.uid, is.gid].map(|id| Arg::Value(u64::from(id)));
    let args = [vec![Arg::Saved(0)], owner.to_vec()].concat();
    steps.call(
        "give it to its owner",
        libc::SYS_fchown,
        args,
        report("the owner"),
    );
    let args = vec![Arg::Saved(0), Arg::Value(u64::from(is.mode))];
    steps.call(
        "set its rights",
        libc::SYS_fchmod,
        args,
        report("the rights"),
    );
}

/// Where it can be made: where it was if that can be, else where memory or anybody's files are.
pub fn folder(file: &File, anybodys: bool) -> Option<String> {
    let was = Path::new(&file.target).parent()?.to_str()?;
    let own = std::iter::once(was).chain(FOLDERS);
    own.into_iter()
        .find(|folder| takes_unnamed(Path::new(folder), anybodys))
        .map(ToOwned::to_owned)
}

/// Can a file without a name be made there, by anybody if so?
fn takes_unnamed(folder: &Path, anybodys: bool) -> bool {
    const ANYBODY: u32 = 0o002;
    let open = || std::fs::metadata(folder).is_ok_and(|m| m.mode() & ANYBODY != 0);
    let mut options = std::fs::OpenOptions::new();
    options.write(true).custom_flags(libc::O_TMPFILE);
    (!anybodys || open()) && options.open(folder).is_ok()
}
