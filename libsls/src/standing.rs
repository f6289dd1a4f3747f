//! Since and until when pointers to an object stand, along a line of checkpoints.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use introspect::Extent;
use introspect::pointers::{pointers_to, pointers_within};

use crate::client::ClientError;
use crate::compare::{differing_pages, touched};
use crate::view::{CheckpointView, SharedClient};

/// A pointer that stood from one checkpoint to another, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stood {
    /// Where it is.
    pub address: u64,
    /// What it holds.
    pub value: u64,
    /// First checkpoint.
    pub from: u64,
    /// Last checkpoint.
    pub until: u64,
}

/// Every pointer into the object, in the order in which they came. After the first of `epochs` (each the parent of
/// the next) only what was touched is searched. `step` is called before each; when it breaks, what is known by then
/// is the answer.
///
/// # Errors
/// slsd does not answer, or a checkpoint is gone.
pub fn standing(
    client: &SharedClient,
    part: &str,
    pid: Option<i32>,
    epochs: &[u64],
    object: &Extent,
    step: &mut dyn FnMut() -> ControlFlow<()>,
) -> Result<Vec<Stood>, ClientError> {
    let mut stands: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    let mut ended: Vec<Stood> = Vec::new();
    let mut before: Option<CheckpointView> = None;
    for &epoch in epochs {
        if step().is_break() {
            break;
        }
        let view = CheckpointView::open(client, part, epoch, pid)?;
        let now = match &before {
            None => pointers_to(&view, object).into_iter().collect(),
            Some(old) => onward(old, &view, object, &stands)?,
        };
        let until = before.as_ref().map_or(epoch, CheckpointView::epoch);
        stands.retain(|&address, &mut (value, from)| {
            let stays = now.get(&address) == Some(&value);
            if !stays {
                ended.push(Stood {
                    address,
                    value,
                    from,
                    until,
                });
            }
            stays
        });
        for (address, value) in now {
            stands.entry(address).or_insert((value, epoch));
        }
        before = Some(view);
    }
    let last = before.map_or(0, |view| view.epoch());
    let end = |(address, (value, from))| Stood {
        address,
        value,
        from,
        until: last,
    };
    ended.extend(stands.into_iter().map(end));
    ended.sort_by_key(|stood| (stood.from, stood.address));
    Ok(ended)
}

/// The pointers of the next checkpoint, from those of the one before.
fn onward(
    old: &CheckpointView,
    new: &CheckpointView,
    object: &Extent,
    stands: &BTreeMap<u64, (u64, u64)>,
) -> Result<BTreeMap<u64, u64>, ClientError> {
    let pages = differing_pages(old, new)?;
    let touched = touched(old, new, &pages);
    let kept = stands
        .iter()
        .filter(|(at, _)| !touched.overlaps(**at, 8))
        .map(|(at, known)| (*at, known.0));
    let mut now: BTreeMap<u64, u64> = kept.collect();
    for run in touched.ranges() {
        now.extend(pointers_within(new, *run, object));
    }
    Ok(now)
}
