//! Many calls of one thread between two stops: a table of calls, and the few instructions that go
//! through it.
//!
//! The thread begins at [`code`] with the table's ends in rbx and rbp. It stops at the trap behind the
//! code when all calls were made, or after the first that fails and is not to be gone on from. SIGTRAP
//! must be neither blocked nor ignored then: the kernel would take away what the program wants of it.

use libc::user_regs_struct;

/// For each call: arguments of which some may be read through the address that the entry has in their
/// place; the call; its result into the entry.
const CODE: [u8; 115] = [
    0x48, 0x39, 0xeb, // next: cmp rbx, rbp
    0x73, 0x6d, // jae done
    0x4c, 0x8b, 0x7b, 0x38, // mov r15, [rbx+56]
    0x48, 0x8b, 0x7b, 0x08, // mov rdi, [rbx+8]
    0x41, 0xf6, 0xc7, 0x01, // test r15b, 1
    0x74, 0x03, // je .+3
    0x48, 0x8b, 0x3f, // mov rdi, [rdi]
    0x48, 0x8b, 0x73, 0x10, // and so on: rsi
    0x41, 0xf6, 0xc7, 0x02, 0x74, 0x03, 0x48, 0x8b, 0x36, //
    0x48, 0x8b, 0x53, 0x18, // rdx
    0x41, 0xf6, 0xc7, 0x04, 0x74, 0x03, 0x48, 0x8b, 0x12, //
    0x4c, 0x8b, 0x53, 0x20, // r10
    0x41, 0xf6, 0xc7, 0x08, 0x74, 0x03, 0x4d, 0x8b, 0x12, //
    0x4c, 0x8b, 0x43, 0x28, // r8
    0x41, 0xf6, 0xc7, 0x10, 0x74, 0x03, 0x4d, 0x8b, 0x00, //
    0x4c, 0x8b, 0x4b, 0x30, // r9
    0x41, 0xf6, 0xc7, 0x20, 0x74, 0x03, 0x4d, 0x8b, 0x09, //
    0x48, 0x8b, 0x03, // mov rax, [rbx]
    0x0f, 0x05, // syscall
    0x48, 0x89, 0x43, 0x40, // mov [rbx+64], rax
    0x48, 0x83, 0xc3, 0x48, // add rbx, 72
    0x48, 0x3d, 0x01, 0xf0, 0xff, 0xff, // cmp rax, -4095
    0x72, 0x94, // jb next
    0x41, 0xf6, 0xc7, 0x40, // test r15b, 64
    0x75, 0x8e, // jne next
    0xcc, // done: int3
];
/// Words of an entry: number, six arguments, flags, result.
const WORDS: usize = 9;
const ENTRY: u64 = 8 * WORDS as u64;
const RESULT: usize = 8;
const FLAGS: usize = 7;
/// Whether it fails or not, the next one is made.
const GO_ON: u64 = 64;
/// No call gives this: the entry's has not come back.
const NONE_YET: u64 = 1 << 63;
/// Room for entries; the bytes that arguments point at come behind them.
const TABLE: u64 = 16 << 10;
/// Room that a batch takes.
pub const ROOM: u64 = 64 << 10;
/// The instructions.
#[must_use]
pub fn code() -> &'static [u8] {
    &CODE
}

/// Where a thread is that has come to the end of the code.
#[must_use]
pub fn end(code: u64) -> u64 {
    code + CODE.len() as u64
}

/// An argument of a call.
#[derive(Debug, Clone, Copy)]
pub enum Word {
    /// A number.
    Value(u64),
    /// What the earlier call at this place of the same batch gives.
    Result(usize),
}

/// Calls to be made one after the other.
#[derive(Debug)]
pub struct Batch {
    at: u64,
    entries: Vec<[u64; WORDS]>,
    bytes: Vec<u8>,
}

impl Batch {
    /// None yet, in the [`ROOM`] bytes at `at`.
    #[must_use]
    pub fn new(at: u64) -> Self {
        Self {
            at,
            entries: Vec::new(),
            bytes: Vec::new(),
        }
    }

    /// Calls in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// There are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Is there room for another call, with so many bytes that its arguments point at?
    #[must_use]
    pub fn has_room(&self, bytes: usize) -> bool {
        let behind = self.bytes.len() + bytes;
        (self.entries.len() as u64 + 1) * ENTRY <= TABLE && TABLE + behind as u64 <= ROOM
    }

    /// The address that these bytes will have.
    pub fn lay(&mut self, bytes: &[u8]) -> u64 {
        let at = self.at + TABLE + self.bytes.len() as u64;
        self.bytes.extend_from_slice(bytes);
        let whole = self.bytes.len().next_multiple_of(16);
        self.bytes.resize(whole, 0);
        at
    }

    /// One more. With `go_on` the next one is made although it fails.
    pub fn add(&mut self, nr: u64, args: &[Word], go_on: bool) {
        let mut entry = [0; WORDS];
        entry[0] = nr;
        entry[FLAGS] = if go_on { GO_ON } else { 0 };
        entry[RESULT] = NONE_YET;
        for (i, arg) in args.iter().take(6).enumerate() {
            entry[1 + i] = match *arg {
                Word::Value(value) => value,
                Word::Result(place) => {
                    entry[FLAGS] |= 1 << i;
                    self.entry_at(place) + 8 * RESULT as u64
                }
            };
        }
        self.entries.push(entry);
    }

    /// What has to lie where, for the thread to begin.
    #[must_use]
    pub fn parts(&self) -> [(u64, Vec<u8>); 2] {
        let words = self.entries.iter().flatten();
        let table = words.flat_map(|word| word.to_le_bytes()).collect();
        [(self.at, table), (self.at + TABLE, self.bytes.clone())]
    }

    /// The registers with which it begins, or goes on, with the call at `place`.
    #[must_use]
    pub fn begin(&self, code: u64, place: usize, regs: user_regs_struct) -> user_regs_struct {
        user_regs_struct {
            orig_rax: !0,
            rip: code,
            rbx: self.entry_at(place),
            rbp: self.entry_at(self.entries.len()),
            ..regs
        }
    }

    /// The results in a table that was read back; None of what has not come back.
    pub fn results<'a>(&self, table: &'a [u8]) -> impl Iterator<Item = Option<u64>> + use<'a> {
        table.chunks_exact(8 * WORDS).map(|entry| {
            let word = entry[8 * RESULT..].try_into().map_or(0, u64::from_le_bytes);
            (word != NONE_YET).then_some(word)
        })
    }

    fn entry_at(&self, place: usize) -> u64 {
        self.at + ENTRY * place as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_may_be_an_earlier_result() {
        let mut batch = Batch::new(0x1000);
        let path = batch.lay(b"/tmp\0");
        batch.add(2, &[Word::Value(path), Word::Value(0)], false);
        batch.add(3, &[Word::Result(0)], true);
        assert_eq!(path, 0x1000 + TABLE);
        let [(at, table), (_, bytes)] = batch.parts();
        assert_eq!((at, table.len(), bytes.len()), (0x1000, 144, 16));
        let word = |i: usize| u64::from_le_bytes(table[8 * i..8 * i + 8].try_into().unwrap());
        assert_eq!(word(WORDS + 1), 0x1000 + 64);
        assert_eq!(word(WORDS + FLAGS), 1 | GO_ON);
        assert!(batch.results(&table).all(|result| result.is_none()));
    }

    #[test]
    fn it_is_full_before_it_overflows() {
        let mut batch = Batch::new(0);
        while batch.has_room(0) {
            batch.add(39, &[], false);
        }
        assert_eq!(batch.len() as u64, TABLE / ENTRY);
        let mut batch = Batch::new(0);
        let mut end = 0;
        while batch.has_room(100) {
            end = batch.lay(&[1; 100]) + 100;
        }
        assert!(end <= ROOM && end + 200 > ROOM);
    }
}
