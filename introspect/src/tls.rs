//! Thread-local variables on x86-64 (TLS variant II).

use crate::program::Program;
use crate::view::{Unavailable, View, ViewExt};

/// Module numbers a dynamic thread vector is searched for.
const MODULE_LIMIT: u64 = 4096;

/// Address of the byte `offset` into a module's thread-local block, for the thread of `fs_base`.
pub fn address(
    program: &Program,
    view: &dyn View,
    module: usize,
    fs_base: u64,
    offset: u64,
) -> Result<u64, Unavailable> {
    let object = &program
        .modules()
        .get(module)
        .ok_or_else(Unavailable::optimized_out)?
        .object;
    let tls = object
        .tls
        .ok_or_else(|| Unavailable::because("no thread-local storage"))?;
    if is_main(program, view, module) {
        // The executable's block ends at the thread pointer, rounded to its alignment.
        let size = tls
            .memory_len
            .checked_next_multiple_of(tls.align)
            .ok_or_else(|| Unavailable::because("damaged file"))?;
        return Ok(fs_base.wrapping_sub(size).wrapping_add(offset));
    }
    let number = module_number(program, view, module)?;
    let vector = view.read_u64(fs_base.wrapping_add(8))?;
    let block = view.read_u64(vector.wrapping_add(number.wrapping_mul(16)))?;
    if block == u64::MAX {
        return Err(Unavailable::because(
            "thread-local storage not allocated yet",
        ));
    }
    Ok(block.wrapping_add(offset))
}

fn is_main(program: &Program, view: &dyn View, module: usize) -> bool {
    const AT_ENTRY: u64 = 9;
    match view.auxv().iter().find(|(key, _)| *key == AT_ENTRY) {
        Some((_, entry)) => program
            .module_at(*entry)
            .is_some_and(|(main, ..)| main == module),
        // The executable is mapped below its libraries.
        None => module == 0,
    }
}

/// The number the dynamic linker gave a module, from its `link_map`; glibc says where in `_thread_db_link_map_l_tls_modid`.
fn module_number(program: &Program, view: &dyn View, module: usize) -> Result<u64, Unavailable> {
    let unknown = || Unavailable::because("thread-local storage of this library cannot be located");
    // struct { bits, count, offset }, as nptl_db wants it.
    let (field, _) = program
        .symbol_named("_thread_db_link_map_l_tls_modid")
        .ok_or_else(unknown)?;
    let field_offset = view.read_u32(field.wrapping_add(8))?;
    let (debug, _) = program.symbol_named("_r_debug").ok_or_else(unknown)?;
    let bias = program.modules()[module].bias;
    let mut map = view.read_u64(debug.wrapping_add(8))?;
    for _ in 0..MODULE_LIMIT {
        if map == 0 {
            break;
        }
        if view.read_u64(map)? == bias {
            return view.read_u64(map.wrapping_add(field_offset.into()));
        }
        map = view.read_u64(map.wrapping_add(24))?;
    }
    Err(unknown())
}
