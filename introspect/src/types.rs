//! Types as DWARF describes them, one level at a time.

use std::sync::Arc;

use crate::debug_info::{Attribute, DieOffset, Unit};

/// A type by name only: resolve it with `Program::resolve`.
#[derive(Debug, Clone)]
pub enum Ty {
    Void,
    Die {
        object: usize,
        die: DieOffset,
    },
    /// Made by an expression: the address of something, a slice, a literal's type.
    Made(Arc<Type>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    C,
    Cpp,
    Rust,
    Other,
}

impl Language {
    /// As the unit says; partial units say nothing.
    pub(crate) fn of_unit(unit: &Unit) -> Option<Self> {
        let root = unit.root()?;
        let Ok(Some(Attribute::Language(language))) = root.attr_value(gimli::DW_AT_language) else {
            return None;
        };
        Some(match language {
            gimli::DW_LANG_C
            | gimli::DW_LANG_C89
            | gimli::DW_LANG_C99
            | gimli::DW_LANG_C11
            | gimli::DW_LANG_C17 => Self::C,
            gimli::DW_LANG_C_plus_plus
            | gimli::DW_LANG_C_plus_plus_03
            | gimli::DW_LANG_C_plus_plus_11
            | gimli::DW_LANG_C_plus_plus_14
            | gimli::DW_LANG_C_plus_plus_17
            | gimli::DW_LANG_C_plus_plus_20 => Self::Cpp,
            gimli::DW_LANG_Rust => Self::Rust,
            _ => Self::Other,
        })
    }
}

/// One type; what it refers to stays unresolved.
#[derive(Debug, Clone)]
pub struct Type {
    /// Qualified; empty for what has none (pointers in C, anonymous structs).
    pub name: String,
    /// Bytes; None for incomplete types and functions.
    pub size: Option<u64>,
    pub language: Language,
    pub shape: Shape,
}

#[derive(Debug, Clone)]
pub enum Shape {
    Base(Encoding),
    Pointer {
        to: Ty,
        flavour: Flavour,
    },
    /// The count is None where the declaration leaves it open.
    Array {
        of: Ty,
        count: Option<u64>,
    },
    Struct(Struct),
    Enum {
        signed: bool,
        values: Vec<(String, i128)>,
    },
    Alias(Ty),
    Qualified {
        word: &'static str,
        of: Ty,
    },
    Function {
        returns: Ty,
        takes: Vec<Ty>,
    },
    /// A declaration without a definition in sight, or a kind of type we do not know.
    Opaque {
        word: &'static str,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Bool,
    Signed,
    Unsigned,
    Float,
    /// A byte of text in C and C++, or a Unicode scalar.
    Char,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    Raw,
    Reference,
    /// Rust's `Box` is a pointer in its DWARF.
    Owned,
    /// Pointer to a C++ member: an offset, not an address.
    Member,
}

#[derive(Debug, Clone, Default)]
pub struct Struct {
    /// "struct", "union" or "class".
    pub word: &'static str,
    pub members: Vec<Member>,
    pub bases: Vec<Member>,
    pub variants: Option<Box<Variants>>,
    /// Template or generic arguments that are types.
    pub arguments: Vec<(String, Ty)>,
}

#[derive(Debug, Clone)]
pub struct Member {
    /// None for anonymous structs and unions.
    pub name: Option<String>,
    pub ty: Ty,
    pub offset: u64,
    pub bits: Option<Bits>,
    /// A virtual base: its offset is in the vtable.
    pub is_virtual: bool,
}

/// A bit field: `start` counts from bit 0 of the byte at the member's offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bits {
    pub start: u64,
    pub len: u64,
}

/// A Rust enum: the discriminant, and the struct for each of its values.
#[derive(Debug, Clone)]
pub struct Variants {
    pub discriminant: Option<Member>,
    pub cases: Vec<Case>,
}

#[derive(Debug, Clone)]
pub struct Case {
    /// Inclusive ranges of raw discriminants; empty for the variant that all others mean.
    pub values: Vec<(u128, u128)>,
    pub member: Member,
}

impl Struct {
    pub fn member(&self, name: &str) -> Option<&Member> {
        self.members
            .iter()
            .find(|member| member.name.as_deref() == Some(name))
    }

    pub fn argument(&self, name: &str) -> Option<&Ty> {
        self.arguments
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, ty)| ty)
    }
}

impl Type {
    pub fn made(name: &str, size: u64, shape: Shape) -> Ty {
        Ty::Made(Arc::new(Type {
            name: name.into(),
            size: Some(size),
            language: Language::C,
            shape,
        }))
    }

    pub fn pointer_to(to: Ty) -> Ty {
        Self::made(
            "",
            8,
            Shape::Pointer {
                to,
                flavour: Flavour::Raw,
            },
        )
    }

    pub fn long() -> Ty {
        Self::made("long", 8, Shape::Base(Encoding::Signed))
    }

    pub fn int() -> Ty {
        Self::made("int", 4, Shape::Base(Encoding::Signed))
    }

    pub fn unsigned_long() -> Ty {
        Self::made("unsigned long", 8, Shape::Base(Encoding::Unsigned))
    }

    pub fn double() -> Ty {
        Self::made("double", 8, Shape::Base(Encoding::Float))
    }

    pub fn bool() -> Ty {
        Self::made("bool", 1, Shape::Base(Encoding::Bool))
    }

    pub fn char() -> Ty {
        Self::made("char", 1, Shape::Base(Encoding::Char))
    }

    pub fn as_struct(&self) -> Option<&Struct> {
        match &self.shape {
            Shape::Struct(shape) => Some(shape),
            _ => None,
        }
    }

    pub fn is_integer(&self) -> bool {
        matches!(
            self.shape,
            Shape::Base(Encoding::Signed | Encoding::Unsigned | Encoding::Char | Encoding::Bool)
                | Shape::Enum { .. }
        )
    }
}
