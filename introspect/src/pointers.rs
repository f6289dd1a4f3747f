//! Who points at an object: words in memory and registers that hold an address within it.

use crate::expr::Extent;
use crate::reach::Reach;
use crate::registers;
use crate::search::{pointers_into, written};
use crate::view::{ThreadView, View};

impl Extent {
    /// The object around an address: the smallest that is known there, else that byte.
    pub fn around(reach: &Reach<'_>, address: u64) -> Self {
        match reach.around(address).map(|at| reach.get(at)) {
            Some(found) => Self {
                address: found.start,
                len: found.len,
                type_name: found.type_name.clone(),
            },
            None => Self {
                address,
                len: 1,
                type_name: "?".to_owned(),
            },
        }
    }
}

/// Address and value of each pointer into an object.
pub fn pointers_to(view: &dyn View, object: &Extent) -> Vec<(u64, u64)> {
    pointers_within(view, (0, u64::MAX), object)
}

/// Those of them between two addresses.
pub fn pointers_within(
    view: &dyn View,
    (start, end): (u64, u64),
    object: &Extent,
) -> Vec<(u64, u64)> {
    let target = (object.address, object.address.saturating_add(object.len));
    let mappings = view.mappings();
    let parts = mappings
        .iter()
        .filter(|mapping| written(mapping))
        .map(|mapping| (mapping.start.max(start), mapping.end.min(end)))
        .filter(|(from, to)| from < to);
    parts
        .flat_map(|part| pointers_into(view, part, target))
        .collect()
}

/// Thread, register, value.
pub type InRegister = (u32, &'static str, u64);

/// Registers that hold an address within an object.
pub fn in_registers(threads: &[ThreadView], object: &Extent) -> Vec<InRegister> {
    let within = |value: u64| value.wrapping_sub(object.address) < object.len;
    let of = |thread: &ThreadView| {
        let each = (0u16..).zip(registers::NAMES);
        let held: Vec<InRegister> = each
            .filter_map(|(number, name)| Some((thread.tid, name, thread.registers.get(number)?)))
            .filter(|(.., value)| within(*value))
            .collect();
        held
    };
    threads.iter().flat_map(of).collect()
}
