//! Members of structs: by description, by name, of the active variant.

use std::sync::Arc;

use crate::decode::{Decoder, Object, Read};
use crate::storage::Storage;
use crate::types::{Member, Struct, Ty, Type};
use crate::view::Unavailable;

impl Decoder<'_> {
    /// Name and fields of the variant that a Rust enum holds.
    pub fn active_case(&self, object: &Object, shape: &Struct) -> Read<(String, Object)> {
        let damaged = || Unavailable::because("damaged debug information");
        let variants = shape.variants.as_ref().ok_or_else(damaged)?;
        let raw = match &variants.discriminant {
            Some(discriminant) => {
                let size = self.program.size_of(&discriminant.ty).ok_or_else(damaged)?;
                let raw = object
                    .storage
                    .at(discriminant.offset)
                    .read_unsigned(self.view, size)?;
                Some((
                    raw,
                    if size >= 16 {
                        u128::MAX
                    } else {
                        (1u128 << (size * 8)) - 1
                    },
                ))
            }
            None => None,
        };
        let holds = |values: &[(u128, u128)]| {
            raw.is_some_and(|(raw, mask)| {
                values
                    .iter()
                    .any(|(low, high)| (low & mask..=high & mask).contains(&raw))
            })
        };
        let case = variants
            .cases
            .iter()
            .find(|case| holds(&case.values))
            .or_else(|| variants.cases.iter().find(|case| case.values.is_empty()))
            .ok_or_else(|| Unavailable::because("no such variant"))?;
        let name = case.member.name.clone().unwrap_or_else(|| {
            crate::program::last_segment(&self.program.strip(&case.member.ty).name).to_owned()
        });
        Ok((name, self.member_object(object, &case.member)))
    }

    pub fn member_object(&self, object: &Object, member: &Member) -> Object {
        let storage = if member.is_virtual {
            self.virtual_base(object, member)
        } else {
            object.storage.at(member.offset)
        };
        Object {
            ty: member.ty.clone(),
            storage,
            bits: member.bits,
        }
    }

    /// A virtual base is as far into the object as its vtable says. GCC's DWARF gives the slot by an expression:
    /// we do not run it, and say so.
    fn virtual_base(&self, _object: &Object, _member: &Member) -> Storage {
        Storage::missing("virtual base")
    }

    /// A member by name, through bases, anonymous members and the active variant.
    pub fn find_member(&self, object: &Object, name: &str) -> Option<Object> {
        self.search_member(object, name, 0)
    }

    fn search_member(&self, object: &Object, name: &str, depth: usize) -> Option<Object> {
        let ty = self.program.strip(&object.ty);
        let shape = ty.as_struct().filter(|_| depth < 32 && self.charge())?;
        let positional = name.parse::<u32>().is_ok();
        let matches = |member: &&Member| {
            member.name.as_deref() == Some(name)
                || positional
                    && member
                        .name
                        .as_deref()
                        .and_then(|known| known.strip_prefix("__"))
                        == Some(name)
        };
        if let Some(member) = shape.members.iter().find(matches) {
            return Some(self.member_object(object, member));
        }
        if shape.variants.is_some()
            && let Ok((case, fields)) = self.active_case(object, shape)
        {
            return if case == name {
                Some(fields)
            } else {
                self.search_member(&fields, name, depth + 1)
            };
        }
        let hidden = shape
            .members
            .iter()
            .filter(|member| member.name.is_none())
            .chain(&shape.bases);
        hidden
            .map(|member| self.member_object(object, member))
            .find_map(|inner| self.search_member(&inner, name, depth + 1))
    }

    /// The field of a Rust tuple struct or variant that has only one.
    pub fn only_field(&self, object: &Object) -> Option<Object> {
        let ty = self.program.strip(&object.ty);
        match ty.as_struct()?.members.as_slice() {
            [only] if is_positional(only.name.as_deref()) => Some(self.member_object(object, only)),
            _ => None,
        }
    }

    /// Names that `find_member` would find directly, for "did you mean".
    pub fn member_names(&self, ty: &Ty) -> Vec<String> {
        let named = |shape: &Struct| {
            shape
                .members
                .iter()
                .filter_map(|member| member.name.clone())
                .collect::<Vec<_>>()
        };
        let ty: Arc<Type> = self.program.strip(ty);
        let Some(shape) = ty.as_struct() else {
            return Vec::new();
        };
        let mut names = named(shape);
        // One level of bases is enough for a hint.
        for base in shape.bases.iter().take(8) {
            names.extend(
                self.program
                    .strip(&base.ty)
                    .as_struct()
                    .map(named)
                    .unwrap_or_default(),
            );
        }
        names
    }
}

pub fn is_positional(name: Option<&str>) -> bool {
    name.and_then(|name| name.strip_prefix("__"))
        .is_some_and(|digits| {
            !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
        })
}
