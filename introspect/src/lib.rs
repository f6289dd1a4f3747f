//! ELF and DWARF, unwinding, expressions, values and history queries over a [`View`].
//!
//! Knows nothing of processes or stores: whoever has memory and registers implements [`View`].

mod call_sites;
mod cfi;
mod core_view;
mod debug_info;
mod decode;
mod diff;
mod expr;
mod finder;
mod frames;
mod globals;
mod index;
mod json;
mod lines;
mod location;
mod members;
mod object_file;
mod present_cpp;
mod present_rust;
mod program;
mod read_set;
pub mod registers;
pub mod regular;
mod scalars;
mod scopes;
mod storage;
mod symbols;
mod timeline;
mod tls;
mod type_reader;
pub mod types;
mod value;
mod view;

pub use core_view::{CoreError, CoreView};
pub use decode::{Decoder, Limits, Object};
pub use diff::{Change, diff};
pub use expr::{Answer, Context, ExprError, FrameSelector, Local};
pub use finder::Finder;
pub use frames::Frame;
pub use globals::Global;
pub use object_file::{ObjectError, ObjectFile};
pub use program::{FunctionAt, Module, Program};
pub use read_set::{ReadSet, Recording};
pub use registers::Registers;
pub use timeline::{History, Row, Timeline, timeline};
pub use value::Value;
pub use view::{Mapping, Perms, ThreadView, Unavailable, View, ViewExt};
