//! Stores in files that are filled once and then travel: made of small slots, they end behind the last one used.

use std::io;

use crate::device::Device;
use crate::slots::{End, ends};
use crate::superblock::{self, Superblock};

/// Free slots that stay: whoever opens the store for writing needs some.
const LEFT: u32 = 4;

/// Lets the store on a device, which nobody has open, end behind its last slot in use; its bytes then.
/// What lies behind them is no part of it any more. When the power goes meanwhile it is the store as
/// it was, or the smaller one.
pub fn shrink(device: &dyn Device) -> io::Result<u64> {
    let places = superblock::places(device)?;
    let Some(now) = superblock::newest(&places) else {
        let message = "it holds no store";
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    };
    let in_use = |slot: &u32| ends(device, &now, *slot) != [End::Blank; 2];
    let used = (0..now.slots).rev().find(in_use).map_or(0, |last| last + 1);
    let slots = used.saturating_add(LEFT).max(superblock::FEWEST_SLOTS);
    let smaller = Superblock {
        slots,
        bytes: now.offset_of(slots) + superblock::RING,
        sequence: now.sequence + 1,
        ..now
    };
    if slots >= now.slots || !smaller.is_sound() {
        return Ok(now.bytes);
    }
    // What lies where the second ring comes to be is no place of one.
    let blank = vec![0; usize::try_from(superblock::RING).map_err(io::Error::other)?];
    device.write_at(&blank, smaller.bytes - superblock::RING)?;
    device.flush()?;
    smaller.write(device)?;
    Ok(smaller.bytes)
}
