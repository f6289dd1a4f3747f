//! x86-64 registers in DWARF numbering (System V psABI, figure 3.36).

/// Number of the return address column: `rip`.
pub const RIP: u16 = 16;
pub const RSP: u16 = 7;
pub const RBP: u16 = 6;
pub const RFLAGS: u16 = 49;
pub const FS_BASE: u16 = 58;
pub const GS_BASE: u16 = 59;
const XMM0: u16 = 17;

/// Names of registers 0 to 16, by DWARF number.
pub const NAMES: [&str; 17] = [
    "rax", "rdx", "rcx", "rbx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15", "rip",
];

/// Where each of registers 0 to 16 stands in the kernel's `struct user_regs_struct`.
const USER_ORDER: [usize; 17] = [10, 12, 11, 5, 13, 14, 4, 19, 9, 8, 7, 6, 3, 2, 1, 0, 16];

/// A register file. In a frame that is not the innermost a register may be unknown.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Registers {
    general: [Option<u64>; 17],
    pub rflags: Option<u64>,
    pub fs_base: Option<u64>,
    pub gs_base: Option<u64>,
    /// xmm0 to xmm15, where captured.
    pub xmm: Option<Box<[u128; 16]>>,
    /// In an outer frame: what the callee holds in registers it is free to change. The caller's own value only
    /// where its debug information says that it is still there.
    carried: Option<Box<Registers>>,
}

impl Registers {
    /// From the 27 words of `struct user_regs_struct` (ptrace, `NT_PRSTATUS`).
    pub fn from_user(words: &[u64; 27]) -> Self {
        Self {
            general: USER_ORDER.map(|slot| Some(words[slot])),
            rflags: Some(words[18]),
            fs_base: Some(words[21]),
            gs_base: Some(words[22]),
            xmm: None,
            carried: None,
        }
    }

    /// Adds xmm0 to xmm15 from an FXSAVE image (also the start of an XSAVE area).
    pub fn with_fxsave(mut self, image: &[u8]) -> Self {
        if let Some(area) = image.get(160..416) {
            let mut xmm = Box::new([0; 16]);
            for (slot, bytes) in xmm.iter_mut().zip(area.chunks_exact(16)) {
                *slot = bytes
                    .iter()
                    .rev()
                    .fold(0, |value, byte| value << 8 | u128::from(*byte));
            }
            self.xmm = Some(xmm);
        }
        self
    }

    /// The caller's registers before any is recovered: the segment bases are known, the rest is only carried.
    pub(crate) fn of_caller(&self) -> Self {
        let mut carried = self.clone();
        if let Some(deeper) = carried.carried.take() {
            for (slot, old) in carried.general.iter_mut().zip(deeper.general) {
                *slot = slot.or(old);
            }
            carried.xmm = carried.xmm.or(deeper.xmm);
        }
        Self {
            fs_base: self.fs_base,
            gs_base: self.gs_base,
            carried: Some(Box::new(carried)),
            ..Self::default()
        }
    }

    /// Like `bytes`, but also of a register that a callee was free to change.
    pub(crate) fn bytes_even_if_carried(&self, number: u16) -> Option<Vec<u8>> {
        self.bytes(number)
            .or_else(|| self.carried.as_ref()?.bytes(number))
    }

    pub fn get(&self, number: u16) -> Option<u64> {
        match number {
            RFLAGS => self.rflags,
            FS_BASE => self.fs_base,
            GS_BASE => self.gs_base,
            _ => self.general.get(usize::from(number)).copied().flatten(),
        }
    }

    pub fn set(&mut self, number: u16, value: Option<u64>) {
        match number {
            RFLAGS => self.rflags = value,
            FS_BASE => self.fs_base = value,
            GS_BASE => self.gs_base = value,
            _ => {
                if let Some(slot) = self.general.get_mut(usize::from(number)) {
                    *slot = value;
                }
            }
        }
    }

    /// The register's bytes as the target would store them: 16 for xmm, 8 for the rest.
    pub fn bytes(&self, number: u16) -> Option<Vec<u8>> {
        match number.checked_sub(XMM0) {
            Some(index @ 0..=15) => self
                .xmm
                .as_ref()
                .map(|xmm| xmm[usize::from(index)].to_le_bytes().to_vec()),
            _ => self.get(number).map(|value| value.to_le_bytes().to_vec()),
        }
    }

    pub fn pc(&self) -> u64 {
        self.get(RIP).unwrap_or(0)
    }

    pub fn sp(&self) -> u64 {
        self.get(RSP).unwrap_or(0)
    }
}

/// The DWARF number of a register named without `$`; `pc`, `sp` and `fp` are understood.
pub fn number_of(name: &str) -> Option<u16> {
    match name {
        "pc" => Some(RIP),
        "sp" => Some(RSP),
        "fp" => Some(RBP),
        "rflags" | "eflags" => Some(RFLAGS),
        "fs_base" => Some(FS_BASE),
        "gs_base" => Some(GS_BASE),
        _ => match name
            .strip_prefix("xmm")
            .and_then(|digits| digits.parse::<u16>().ok())
        {
            Some(index @ 0..=15) => Some(XMM0 + index),
            _ => NAMES
                .iter()
                .position(|known| *known == name)
                .and_then(|index| u16::try_from(index).ok()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_order_lands_on_dwarf_numbers() {
        let mut words = [0; 27];
        for (slot, word) in words.iter_mut().enumerate() {
            *word = slot as u64;
        }
        let registers = Registers::from_user(&words);
        let want = [
            ("r15", 0),
            ("rbp", 4),
            ("rbx", 5),
            ("rax", 10),
            ("rcx", 11),
            ("rdx", 12),
            ("rsi", 13),
            ("rdi", 14),
            ("rip", 16),
            ("rsp", 19),
        ];
        for (name, slot) in want {
            assert_eq!(
                registers.get(number_of(name).unwrap()),
                Some(slot),
                "{name}"
            );
        }
        assert_eq!(registers.fs_base, Some(21));
        assert_eq!(number_of("xmm15"), Some(32));
        assert_eq!(number_of("xmm16"), None);
    }
}
