//! Types of the Rust library, by the names of their members.

use crate::decode::{Decoder, Object, Presentation, Read};
use crate::types::{Struct, Type};

pub fn present(
    _decoder: &Decoder<'_>,
    _object: &Object,
    _ty: &Type,
    _shape: &Struct,
) -> Read<Option<Presentation>> {
    Ok(None)
}
