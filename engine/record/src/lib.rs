//! The record of a checkpoint as plain data: everything of a checkpoint but its pages.
//!
//! It knows nothing of how the data was read or how it is put back; the engine fills it, clients
//! read it. The encoding is postcard behind a magic, a version and a length check, because a record
//! may come from a file that somebody else wrote.

mod attributes;
mod codec;
mod memory;
mod process;
mod registers;
mod signal;
mod socket;

pub use attributes::{Attributes, Capabilities, Conduct, Filter, Filters, Layout, Scheduling};
pub use codec::{DecodeError, FORMAT_VERSION, decode, encode};
pub use memory::{Advice, Backing, Mapping, Perms, Segment};
pub use process::{
    Blocked, Content, Controlling, Ended, Epoll, Event, File, FileKind, Lock, LockKind,
    MessageQueue, Name, Process, Queued, Record, Renamed, Rseq, Terminal, Thread, Unnamed,
    Unvouched, Watch,
};
pub use registers::Registers;
pub use signal::{AltStack, IntervalTimer, PosixTimer, SigAction, SigInfo, Signals};
pub use socket::{Connected, Socket, SocketFile, SocketOption, Tcp};
