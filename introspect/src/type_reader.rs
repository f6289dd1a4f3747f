//! DIEs to types.

use std::sync::Arc;

use gimli::Reader as _;

use crate::debug_info::{Attribute, DebugInfo, DieOffset, Entry, Unit, flag, unsigned};
use crate::types::{
    Bits, Case, Encoding, Flavour, Language, Member, Shape, Struct, Ty, Type, Variants,
};

/// Members, enumerators and parameters read of one type: a bound on damaged files.
const CHILD_LIMIT: usize = 100_000;

/// Reads one type DIE of object number `object`.
pub fn read_type(object: usize, debug: &DebugInfo, die: DieOffset) -> Option<Type> {
    let (unit, offset) = debug.locate(die)?;
    let entry = unit.entry(offset).ok()?;
    // In a type unit; never one after the other.
    let elsewhere = debug.reference_attr(unit, &entry, gimli::DW_AT_signature);
    if let Some((unit, offset, die)) = elsewhere.and_then(|die| {
        let (unit, offset) = debug.locate(die)?;
        Some((unit, offset, die))
    }) {
        return reader(object, debug, unit).read(die, &unit.entry(offset).ok()?);
    }
    reader(object, debug, unit).read(die, &entry)
}

fn reader<'a>(object: usize, debug: &'a DebugInfo, unit: &'a Arc<Unit>) -> TypeReader<'a> {
    TypeReader {
        object,
        debug,
        unit,
        language: debug.language_of(unit),
    }
}

struct TypeReader<'a> {
    object: usize,
    debug: &'a DebugInfo,
    unit: &'a Arc<Unit>,
    language: Language,
}

impl TypeReader<'_> {
    fn read(&self, die: DieOffset, entry: &Entry<'_>) -> Option<Type> {
        let own_name = self.debug.string_attr(self.unit, entry, gimli::DW_AT_name);
        let mut size = unsigned(entry, gimli::DW_AT_byte_size);
        let shape = match entry.tag() {
            gimli::DW_TAG_base_type => Shape::Base(self.encoding(entry, own_name.as_deref()?)?),
            gimli::DW_TAG_unspecified_type => Shape::Opaque { word: "" },
            gimli::DW_TAG_pointer_type => {
                size = size.or(Some(8));
                Shape::Pointer {
                    to: self.target(entry),
                    flavour: self.flavour(own_name.as_deref()),
                }
            }
            gimli::DW_TAG_reference_type | gimli::DW_TAG_rvalue_reference_type => {
                size = size.or(Some(8));
                Shape::Pointer {
                    to: self.target(entry),
                    flavour: Flavour::Reference,
                }
            }
            gimli::DW_TAG_ptr_to_member_type => {
                size = size.or(Some(8));
                Shape::Pointer {
                    to: self.target(entry),
                    flavour: Flavour::Member,
                }
            }
            gimli::DW_TAG_array_type => self.array(entry)?,
            gimli::DW_TAG_structure_type | gimli::DW_TAG_union_type | gimli::DW_TAG_class_type => {
                self.structure(entry)?
            }
            gimli::DW_TAG_enumeration_type => self.enumeration(entry, size.unwrap_or(4))?,
            gimli::DW_TAG_typedef => Shape::Alias(self.target(entry)),
            gimli::DW_TAG_const_type => Shape::Qualified {
                word: "const",
                of: self.target(entry),
            },
            gimli::DW_TAG_volatile_type => Shape::Qualified {
                word: "volatile",
                of: self.target(entry),
            },
            gimli::DW_TAG_restrict_type => Shape::Qualified {
                word: "restrict",
                of: self.target(entry),
            },
            gimli::DW_TAG_atomic_type => Shape::Qualified {
                word: "_Atomic",
                of: self.target(entry),
            },
            gimli::DW_TAG_subroutine_type => self.function(entry),
            _ => Shape::Opaque { word: "" },
        };
        let name = own_name
            .map(|name| usual_name(&name).unwrap_or(name))
            .map(|name| format!("{}{name}", self.debug.prefix_of(die)))
            .unwrap_or_default();
        Some(Type {
            name,
            size,
            language: self.language,
            shape,
        })
    }

    fn target(&self, entry: &Entry<'_>) -> Ty {
        match self
            .debug
            .reference_attr(self.unit, entry, gimli::DW_AT_type)
        {
            Some(die) => Ty::Die {
                object: self.object,
                die,
            },
            None => Ty::Void,
        }
    }

    fn encoding(&self, entry: &Entry<'_>, name: &str) -> Option<Encoding> {
        let Ok(Some(Attribute::Encoding(encoding))) = entry.attr_value(gimli::DW_AT_encoding)
        else {
            return None;
        };
        Some(match encoding {
            gimli::DW_ATE_boolean => Encoding::Bool,
            gimli::DW_ATE_float => Encoding::Float,
            gimli::DW_ATE_UTF => Encoding::Char,
            // `signed char` and `unsigned char` are what int8_t and uint8_t are made of: numbers.
            gimli::DW_ATE_signed_char | gimli::DW_ATE_unsigned_char if name == "char" => {
                Encoding::Char
            }
            gimli::DW_ATE_signed | gimli::DW_ATE_signed_char if name == "wchar_t" => Encoding::Char,
            gimli::DW_ATE_signed | gimli::DW_ATE_signed_char => Encoding::Signed,
            gimli::DW_ATE_unsigned | gimli::DW_ATE_unsigned_char | gimli::DW_ATE_address => {
                Encoding::Unsigned
            }
            _ => return None,
        })
    }

    fn flavour(&self, name: Option<&str>) -> Flavour {
        match (self.language, name) {
            (Language::Rust, Some(name)) if name.starts_with('&') => Flavour::Reference,
            (Language::Rust, Some(name)) if name.starts_with("alloc::boxed::Box<") => {
                Flavour::Owned
            }
            _ => Flavour::Raw,
        }
    }

    /// A dimension each, the first outermost.
    fn array(&self, entry: &Entry<'_>) -> Option<Shape> {
        let mut counts = Vec::new();
        self.children(entry, |child| {
            if child.tag() == gimli::DW_TAG_subrange_type {
                let upper = match child.attr_value(gimli::DW_AT_upper_bound) {
                    // GCC writes -1 for `T x[0]`, in whatever form.
                    Ok(Some(value)) => value
                        .sdata_value()
                        .filter(|_| !matches!(value, Attribute::Exprloc(_)))
                        .map(|last| last.wrapping_add(1)),
                    _ => None,
                };
                let lower = child
                    .attr_value(gimli::DW_AT_lower_bound)
                    .ok()
                    .flatten()
                    .and_then(|value| value.sdata_value())
                    .unwrap_or(0);
                let count = unsigned(child, gimli::DW_AT_count)
                    .or_else(|| u64::try_from(upper?.checked_sub(lower)?).ok());
                counts.push(count.filter(|count| *count < 1 << 32));
            }
        })?;
        let mut of = self.target(entry);
        let first = if counts.is_empty() {
            None
        } else {
            counts.remove(0)
        };
        for count in counts.into_iter().rev().take(16) {
            of = Ty::Made(Arc::new(Type {
                name: String::new(),
                size: None,
                language: self.language,
                shape: Shape::Array { of, count },
            }));
        }
        Some(Shape::Array { of, count: first })
    }

    fn structure(&self, entry: &Entry<'_>) -> Option<Shape> {
        let word = match entry.tag() {
            gimli::DW_TAG_union_type => "union",
            gimli::DW_TAG_class_type => "class",
            _ => "struct",
        };
        if flag(entry, gimli::DW_AT_declaration) {
            return Some(Shape::Opaque { word });
        }
        let mut shape = Struct {
            word,
            ..Struct::default()
        };
        self.children(entry, |child| match child.tag() {
            gimli::DW_TAG_member => shape.members.extend(self.member(child)),
            gimli::DW_TAG_inheritance => shape.bases.extend(self.member(child)),
            gimli::DW_TAG_variant_part => shape.variants = self.variants(child).map(Box::new),
            gimli::DW_TAG_template_type_parameter => {
                let name = self
                    .debug
                    .string_attr(self.unit, child, gimli::DW_AT_name)
                    .unwrap_or_default();
                shape.arguments.push((name, self.target(child)));
            }
            // g++ lists a variadic pack's types below it.
            gimli::DW_TAG_GNU_template_parameter_pack => {
                let added = self.children(child, |inner| {
                    if inner.tag() == gimli::DW_TAG_template_type_parameter {
                        shape.arguments.push((String::new(), self.target(inner)));
                    }
                });
                debug_assert!(added.is_some() || child.has_children());
            }
            _ => {}
        })?;
        Some(Shape::Struct(shape))
    }

    /// None for static members, which have no place in the object.
    fn member(&self, entry: &Entry<'_>) -> Option<Member> {
        if flag(entry, gimli::DW_AT_external) || flag(entry, gimli::DW_AT_declaration) {
            return None;
        }
        let ty = self.target(entry);
        let is_virtual = unsigned_virtuality(entry);
        let mut offset = member_offset(entry, self.unit).unwrap_or(0);
        let bits = unsigned(entry, gimli::DW_AT_bit_size).map(|len| {
            if let Some(total) = unsigned(entry, gimli::DW_AT_data_bit_offset) {
                offset = total / 8;
                return Bits {
                    start: total % 8,
                    len,
                };
            }
            // DWARF 2 counts from the most significant bit of a storage unit.
            let storage = unsigned(entry, gimli::DW_AT_byte_size)
                .or_else(|| self.size_of(&ty))
                .unwrap_or(4);
            let from_top = unsigned(entry, gimli::DW_AT_bit_offset).unwrap_or(0);
            let start = storage
                .saturating_mul(8)
                .saturating_sub(from_top)
                .saturating_sub(len);
            offset = offset.saturating_add(start / 8);
            Bits {
                start: start % 8,
                len,
            }
        });
        Some(Member {
            name: self.debug.string_attr(self.unit, entry, gimli::DW_AT_name),
            ty,
            offset,
            bits,
            is_virtual,
        })
    }

    fn size_of(&self, ty: &Ty) -> Option<u64> {
        let mut ty = ty.clone();
        for _ in 0..16 {
            let Ty::Die { die, .. } = ty else { return None };
            let (unit, offset) = self.debug.locate(die)?;
            let entry = unit.entry(offset).ok()?;
            if let Some(size) = unsigned(&entry, gimli::DW_AT_byte_size) {
                return Some(size);
            }
            ty = Ty::Die {
                object: self.object,
                die: self.debug.reference_attr(unit, &entry, gimli::DW_AT_type)?,
            };
        }
        None
    }

    fn variants(&self, part: &Entry<'_>) -> Option<Variants> {
        let discriminant = match part.attr_value(gimli::DW_AT_discr).ok().flatten() {
            Some(Attribute::UnitRef(offset)) => self.member(&self.unit.entry(offset).ok()?),
            _ => None,
        };
        let mut cases = Vec::new();
        self.children(part, |variant| {
            if variant.tag() != gimli::DW_TAG_variant {
                return;
            }
            let values = discriminants(variant);
            let found = self.children(variant, |child| {
                if child.tag() == gimli::DW_TAG_member {
                    cases.extend(self.member(child).map(|member| Case {
                        values: values.clone(),
                        member,
                    }));
                }
            });
            debug_assert!(found.is_some() || variant.has_children());
        })?;
        Some(Variants {
            discriminant,
            cases,
        })
    }

    fn enumeration(&self, entry: &Entry<'_>, size: u64) -> Option<Shape> {
        if flag(entry, gimli::DW_AT_declaration) {
            return Some(Shape::Opaque { word: "enum" });
        }
        let mut values = Vec::new();
        let mut negative = false;
        self.children(entry, |child| {
            if child.tag() == gimli::DW_TAG_enumerator
                && let Some(name) = self.debug.string_attr(self.unit, child, gimli::DW_AT_name)
                && let Ok(Some(value)) = child.attr_value(gimli::DW_AT_const_value)
            {
                let number = enumerator_value(&value, size);
                negative |= number < 0;
                values.push((name, number));
            }
        })?;
        Some(Shape::Enum {
            signed: negative,
            values,
        })
    }

    fn function(&self, entry: &Entry<'_>) -> Shape {
        let mut takes = Vec::new();
        let walked = self.children(entry, |child| {
            if child.tag() == gimli::DW_TAG_formal_parameter {
                takes.push(self.target(child));
            }
        });
        debug_assert!(walked.is_some() || takes.is_empty());
        Shape::Function {
            returns: self.target(entry),
            takes,
        }
    }

    /// Calls `each` for the direct children; None when the tree below the entry is damaged.
    fn children(&self, entry: &Entry<'_>, mut each: impl FnMut(&Entry<'_>)) -> Option<()> {
        let mut cursor = self.unit.entries_at_offset(entry.offset()).ok()?;
        cursor.next_dfs().ok()??;
        if !entry.has_children() {
            return Some(());
        }
        cursor.next_entry().ok()??;
        for _ in 0..CHILD_LIMIT {
            let Some(child) = cursor.current() else {
                return Some(());
            };
            each(child);
            if cursor.next_sibling().ok()?.is_none() {
                return Some(());
            }
        }
        None
    }
}

/// The number of an enumerator, whose form says nothing about its sign.
pub fn enumerator_value(value: &Attribute, size: u64) -> i128 {
    match value {
        Attribute::Data1(byte) => i128::from(*byte),
        Attribute::Data2(half) => i128::from(*half),
        Attribute::Data4(word) => i128::from(*word),
        Attribute::Data8(long) if size >= 8 => i128::from(*long),
        Attribute::Udata(number) => i128::from(*number),
        other => other.sdata_value().map_or(0, i128::from),
    }
}

fn unsigned_virtuality(entry: &Entry<'_>) -> bool {
    matches!(
        entry.attr_value(gimli::DW_AT_virtuality),
        Ok(Some(Attribute::Virtuality(gimli::DW_VIRTUALITY_virtual)))
    ) && entry.tag() == gimli::DW_TAG_inheritance
}

/// A constant, or DWARF 2's expression that adds one.
fn member_offset(entry: &Entry<'_>, unit: &Unit) -> Option<u64> {
    match entry.attr_value(gimli::DW_AT_data_member_location).ok()?? {
        Attribute::Exprloc(expression) => {
            match expression.operations(unit.encoding()).next().ok()?? {
                gimli::Operation::PlusConstant { value } => Some(value),
                gimli::Operation::UnsignedConstant { value } => Some(value),
                _ => None,
            }
        }
        value => value.udata_value(),
    }
}

/// `DW_AT_discr_value`, or the ranges of `DW_AT_discr_list`.
fn discriminants(variant: &Entry<'_>) -> Vec<(u128, u128)> {
    if let Ok(Some(value)) = variant.attr_value(gimli::DW_AT_discr_value) {
        let number = match &value {
            Attribute::Block(bytes) => bytes.to_slice().ok().map(|bytes| {
                bytes
                    .iter()
                    .rev()
                    .take(16)
                    .fold(0, |sum, byte| sum << 8 | u128::from(*byte))
            }),
            Attribute::Sdata(number) => Some(i128::from(*number).cast_unsigned()),
            other => other.udata_value().map(u128::from),
        };
        return number
            .map(|number| vec![(number, number)])
            .unwrap_or_default();
    }
    let Ok(Some(Attribute::Block(mut list))) = variant.attr_value(gimli::DW_AT_discr_list) else {
        return Vec::new();
    };
    let mut ranges = Vec::new();
    while let Ok(kind) = list.read_u8() {
        let Ok(low) = list.read_uleb128() else { break };
        let high = if kind == gimli::DW_DSC_range.0 {
            list.read_uleb128().unwrap_or(low)
        } else {
            low
        };
        ranges.push((low.into(), high.into()));
    }
    ranges
}

/// GCC writes out the names of C's integer types; people, and gdb, use the short ones.
fn usual_name(name: &str) -> Option<String> {
    let short = match name {
        "long int" => "long",
        "long unsigned int" => "unsigned long",
        "short int" => "short",
        "short unsigned int" => "unsigned short",
        "long long int" => "long long",
        "long long unsigned int" => "unsigned long long",
        _ => return None,
    };
    Some(short.to_owned())
}
