//! Types told apart by what they are, not by where they are described.

use std::collections::HashMap;
use std::sync::Arc;

use crate::types::Type;

/// One number for all descriptions of a type: each unit has its own of a struct.
#[derive(Default)]
pub struct TypeKeys {
    /// The type is kept, so that its address stays its own.
    by_place: HashMap<*const Type, (Arc<Type>, u32)>,
    by_name: HashMap<(String, Option<u64>), u32>,
    next: u32,
}

impl TypeKeys {
    pub fn of(&mut self, ty: &Arc<Type>) -> u32 {
        if let Some((_, key)) = self.by_place.get(&Arc::as_ptr(ty)) {
            return *key;
        }
        let fresh = self.next;
        let key = if ty.name.is_empty() {
            fresh
        } else {
            *self
                .by_name
                .entry((ty.name.clone(), ty.size))
                .or_insert(fresh)
        };
        self.next += u32::from(key == fresh);
        self.by_place.insert(Arc::as_ptr(ty), (Arc::clone(ty), key));
        key
    }
}
