//! Stacks as memory.

use crate::view::{Mapping, View};

/// Below the stack pointer a leaf function may still keep something.
const RED_ZONE: u64 = 128;

/// What lies between the end of each stack and the pointer to it: nobody's any more.
pub(crate) fn dead_stack(view: &dyn View) -> Vec<(u64, u64)> {
    let mappings = view.mappings();
    let below = |sp: u64| {
        let at = mappings.partition_point(|mapping: &Mapping| mapping.end <= sp);
        let mapping = mappings.get(at).filter(|mapping| mapping.contains(sp))?;
        Some((mapping.start, sp.saturating_sub(RED_ZONE)))
    };
    let threads = view.threads().into_iter();
    threads
        .filter_map(|thread| below(thread.registers.sp()))
        .collect()
}
