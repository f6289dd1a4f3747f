//! Who else a device may belong to, told by the bytes that each format begins with.

use std::io;

use slos::Device;

/// Format, offset, bytes there.
const KNOWN: &[(&str, u64, &[u8])] = &[
    ("an ext file system", 0x438, &[0x53, 0xef]),
    ("an XFS file system", 0, b"XFSB"),
    ("a btrfs file system", 0x1_0040, b"_BHRfS_M"),
    ("an f2fs file system", 0x400, &[0x10, 0x20, 0xf5, 0xf2]),
    ("an erofs file system", 0x400, &[0xe2, 0xe1, 0xf5, 0xe0]),
    (
        "a bcachefs file system",
        0x1018,
        &[0xc6, 0x85, 0x73, 0xf6, 0x66, 0xce, 0x90, 0xa9],
    ),
    ("an NTFS file system", 3, b"NTFS    "),
    ("a squashfs image", 0, b"hsqs"),
    ("an ISO 9660 image", 0x8001, b"CD001"),
    ("a JFS file system", 0x8000, b"JFS1"),
    ("a ReiserFS file system", 0x1_0034, b"ReIsEr"),
    ("a NILFS2 file system", 0x406, &[0x34, 0x34]),
    ("swap space", 0xff6, b"SWAPSPACE2"),
    ("a LUKS volume", 0, b"LUKS\xba\xbe"),
    ("an LVM volume", 0x18, b"LVM2 001"),
    ("an LVM volume", 0x218, b"LVM2 001"),
    ("a ZFS pool", 0x2_0000, &[0x0c, 0xb1, 0xba, 0, 0, 0, 0, 0]),
    ("a RAID member", 0, &[0xfc, 0x4e, 0x2b, 0xa9]),
    ("a RAID member", 0x1000, &[0xfc, 0x4e, 0x2b, 0xa9]),
    ("a GPT partition table", 0x200, b"EFI PART"),
    ("a GPT partition table", 0x1000, b"EFI PART"),
    (
        "a partition table or a FAT file system",
        0x1fe,
        &[0x55, 0xaa],
    ),
];

/// What of somebody else's is there, as far as it is known.
pub fn foreign(device: &dyn Device) -> io::Result<Option<&'static str>> {
    let size = device.size()?;
    for &(name, offset, magic) in KNOWN {
        let mut bytes = vec![0; magic.len()];
        if offset + magic.len() as u64 > size {
            continue;
        }
        device.read_at(&mut bytes, offset)?;
        if bytes == magic {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// Is anything but zeros in the first so many bytes?
pub fn has_content(device: &dyn Device, length: u64) -> io::Result<bool> {
    let length = usize::try_from(length.min(device.size()?)).map_err(io::Error::other)?;
    let mut bytes = vec![0; length];
    device.read_at(&mut bytes, 0)?;
    Ok(bytes.iter().any(|&b| b != 0))
}
