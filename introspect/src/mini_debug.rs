//! MiniDebugInfo: symbols that a distribution leaves in a stripped file, as an ELF file of their own, compressed.
//!
//! See "Debugging information in a special section" in gdb's manual.

use std::io::Read;

use lzma_rust2::XzReader;

/// Largest that one unpacks to.
const SIZE_LIMIT: u64 = 64 << 20;
/// What the decoder may take for its dictionary, in KiB.
const MEMORY_LIMIT: u32 = 64 << 10;

/// The ELF file in a `.gnu_debugdata` section; None where it is damaged or too large.
pub fn unpack(packed: &[u8]) -> Option<Vec<u8>> {
    let reader = XzReader::new_mem_limit(packed, false, MEMORY_LIMIT);
    let mut image = Vec::new();
    reader.take(SIZE_LIMIT + 1).read_to_end(&mut image).ok()?;
    (image.len() as u64 <= SIZE_LIMIT).then_some(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_nothing() {
        assert_eq!(unpack(b""), None);
        assert_eq!(unpack(b"\xfd7zXZ\0\0\x04 and then nonsense"), None);
    }
}
