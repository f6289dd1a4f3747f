//! libstdc++ types, by the names of their members.

use crate::decode::{Decoder, Object, Presentation, Read};
use crate::storage::Storage;
use crate::types::{Shape, Struct, Ty, Type};
use crate::value::Value;
use crate::view::Unavailable;

/// Elements of `vector<bool>` that are decoded.
const BIT_LIMIT: u64 = 1 << 20;
/// Height of a red-black tree that holds 2^64 nodes is below this.
const TREE_DEPTH: usize = 160;

/// What a C++ library type means. A layout that is not as expected reads as a plain struct.
pub fn present(
    decoder: &Decoder<'_>,
    object: &Object,
    ty: &Type,
    shape: &Struct,
) -> Read<Option<Presentation>> {
    let Some(name) = ty.name.strip_prefix("std::") else {
        return Ok(None);
    };
    let name = name.strip_prefix("__cxx11::").unwrap_or(name);
    let Some(stem) = name.split('<').next() else {
        return Ok(None);
    };
    let cpp = Cpp {
        decoder,
        object,
        shape,
    };
    let presented = match stem {
        "basic_string" => cpp.string(),
        "basic_string_view" => cpp.string_view(),
        "vector" if name.starts_with("vector<bool") => cpp.bits(),
        "vector" => cpp.vector(),
        "array" => cpp.array(),
        "deque" => cpp.deque(),
        "list" => cpp.list(),
        "forward_list" => cpp.forward_list(),
        "map" | "multimap" => cpp.tree(true),
        "set" | "multiset" => cpp.tree(false),
        "unordered_map" | "unordered_multimap" => cpp.hash(true),
        "unordered_set" | "unordered_multiset" => cpp.hash(false),
        "unique_ptr" => cpp.unique(),
        "shared_ptr" => cpp.shared(),
        "optional" => cpp.optional(),
        "variant" => cpp.variant(),
        "tuple" => cpp.tuple(),
        "atomic" | "__atomic_base" => cpp
            .content(&["_M_i"])
            .or_else(|| cpp.content(&["_M_b", "_M_p"]))
            .map(Ok),
        "stack" | "queue" | "priority_queue" => cpp.content(&["c"]).map(Ok),
        "reference_wrapper" => cpp.content(&["_M_data"]).map(|inner| cpp.followed(inner)),
        _ => None,
    };
    presented.transpose()
}

struct Cpp<'a, 'b> {
    decoder: &'a Decoder<'b>,
    object: &'a Object,
    shape: &'a Struct,
}

type Found = Option<Read<Presentation>>;

/// Runs fallible reads inside a `Found`.
macro_rules! ready {
    ($read:expr) => {
        match $read {
            Ok(value) => value,
            Err(why) => return Some(Err(why)),
        }
    };
}

impl Cpp<'_, '_> {
    fn path(&self, of: &Object, names: &[&str]) -> Option<Object> {
        names.iter().try_fold(of.clone(), |object, name| {
            self.decoder.find_member(&object, name)
        })
    }

    fn word(&self, names: &[&str]) -> Option<Read<u64>> {
        let member = self.path(self.object, names)?;
        Some(self.decoder.address_in(&member))
    }

    fn size_of(&self, ty: &Ty) -> Option<u64> {
        self.decoder.program.size_of(ty).filter(|size| *size > 0)
    }

    fn argument(&self, index: usize) -> Option<Ty> {
        self.shape.arguments.get(index).map(|(_, ty)| ty.clone())
    }

    fn content(&self, names: &[&str]) -> Option<Presentation> {
        self.path(self.object, names).map(Presentation::Content)
    }

    fn followed(&self, inner: Presentation) -> Read<Presentation> {
        match inner {
            Presentation::Content(pointer) => {
                self.decoder.pointee(&pointer).map(Presentation::Content)
            }
            other => Ok(other),
        }
    }

    fn read_word(&self, address: u64) -> Read<u64> {
        crate::view::ViewExt::read_u64(self.decoder.view, address)
    }

    /// Elements that will be shown; the bound also limits how far a damaged chain is followed.
    fn limit(&self, len: u64) -> usize {
        usize::try_from(len)
            .unwrap_or(usize::MAX)
            .min(self.decoder.limits.elements)
    }

    fn string(&self) -> Found {
        let pointer = self.path(self.object, &["_M_dataplus", "_M_p"])?;
        if !self.is_narrow(&pointer) {
            return None;
        }
        let len = ready!(self.word(&["_M_string_length"])?);
        // A short string points into itself, which in a register copy means nothing.
        let address = ready!(self.decoder.address_in(&pointer));
        Some(Ok(Presentation::Text {
            at: Storage::Memory(address),
            len,
        }))
    }

    fn string_view(&self) -> Found {
        let pointer = self.path(self.object, &["_M_str"])?;
        let len = ready!(self.word(&["_M_len"])?);
        let address = ready!(self.decoder.address_in(&pointer));
        self.is_narrow(&pointer).then_some(Ok(Presentation::Text {
            at: Storage::Memory(address),
            len,
        }))
    }

    fn is_narrow(&self, pointer: &Object) -> bool {
        match &self.decoder.program.strip(&pointer.ty).shape {
            Shape::Pointer { to, .. } => self.decoder.program.size_of(to) == Some(1),
            _ => false,
        }
    }

    fn vector(&self) -> Found {
        let first = self.path(self.object, &["_M_impl", "_M_start"])?;
        let Shape::Pointer { to, .. } = &self.decoder.program.strip(&first.ty).shape else {
            return None;
        };
        let stride = self.size_of(to)?;
        let start = ready!(self.decoder.address_in(&first));
        let finish = ready!(self.word(&["_M_impl", "_M_finish"])?);
        let bytes = finish
            .checked_sub(start)
            .filter(|bytes| bytes % stride == 0);
        let Some(bytes) = bytes else {
            return Some(Err(Unavailable::because("damaged vector")));
        };
        Some(Ok(Presentation::Run {
            of: to.clone(),
            at: Storage::Memory(start),
            stride,
            len: bytes / stride,
        }))
    }

    fn bits(&self) -> Found {
        let start = ready!(self.word(&["_M_impl", "_M_start", "_M_p"])?);
        let finish = ready!(self.word(&["_M_impl", "_M_finish", "_M_p"])?);
        let offset = self.path(self.object, &["_M_impl", "_M_finish", "_M_offset"])?;
        let offset = ready!(offset.storage.read_unsigned(self.decoder.view, 4));
        let Some(len) = finish.checked_sub(start).and_then(|bytes| {
            bytes
                .checked_mul(8)?
                .checked_add(u64::try_from(offset).ok()?)
        }) else {
            return Some(Err(Unavailable::because("damaged vector")));
        };
        let shown = self.limit(len.min(BIT_LIMIT)) as u64;
        let mut items = Vec::new();
        for index in 0..shown {
            let word = ready!(self.read_word(start.wrapping_add(index / 64 * 8)));
            items.push(Value::Bool(word >> (index % 64) & 1 == 1));
        }
        Some(Ok(Presentation::Ready(Value::Sequence { items, len })))
    }

    fn array(&self) -> Found {
        match self.path(self.object, &["_M_elems"]) {
            Some(elements)
                if matches!(
                    self.decoder.program.strip(&elements.ty).shape,
                    Shape::Array { .. }
                ) =>
            {
                Some(Ok(Presentation::Content(elements)))
            }
            // `array<T, 0>` holds nothing.
            _ => Some(Ok(Presentation::List {
                items: Vec::new(),
                len: 0,
            })),
        }
    }

    fn deque(&self) -> Found {
        let of = self.argument(0)?;
        let stride = self.size_of(&of)?;
        let chunk = if stride < 512 { 512 / stride } else { 1 };
        let cursor = ready!(self.word(&["_M_impl", "_M_start", "_M_cur"])?);
        let first = ready!(self.word(&["_M_impl", "_M_start", "_M_first"])?);
        let node = ready!(self.word(&["_M_impl", "_M_start", "_M_node"])?);
        let last_cursor = ready!(self.word(&["_M_impl", "_M_finish", "_M_cur"])?);
        let last_first = ready!(self.word(&["_M_impl", "_M_finish", "_M_first"])?);
        let last_node = ready!(self.word(&["_M_impl", "_M_finish", "_M_node"])?);
        let count = || {
            let skipped = cursor.checked_sub(first)? / stride;
            let whole = (last_node.checked_sub(node)? / 8).checked_mul(chunk)?;
            let len = whole
                .checked_add(last_cursor.checked_sub(last_first)? / stride)?
                .checked_sub(skipped)?;
            Some((skipped, len))
        };
        let Some((skipped, len)) = count() else {
            return Some(Err(Unavailable::because("damaged deque")));
        };
        let mut items = Vec::new();
        for index in 0..self.limit(len) as u64 {
            let position = skipped.saturating_add(index);
            let block = ready!(self.read_word(node.wrapping_add(position / chunk * 8)));
            items.push(Object::new(
                of.clone(),
                Storage::Memory(block.wrapping_add(position % chunk * stride)),
            ));
        }
        Some(Ok(Presentation::List { items, len }))
    }

    fn list(&self) -> Found {
        let of = self.argument(0)?;
        let header = self.path(self.object, &["_M_impl", "_M_node"])?;
        let end = header.storage.address()?;
        let size = self
            .path(&header, &["_M_size"])
            .or_else(|| self.path(&header, &["_M_storage"]))?;
        let len = ready!(self.decoder.address_in(&size));
        let skip = 16u64.next_multiple_of(self.align_of(&of));
        self.chain(&of, ready!(self.read_word(end)), end, skip, len)
    }

    fn forward_list(&self) -> Found {
        let of = self.argument(0)?;
        let first = ready!(self.word(&["_M_impl", "_M_head", "_M_next"])?);
        let skip = 8u64.next_multiple_of(self.align_of(&of));
        let mut len = 0;
        let mut node = first;
        while node != 0 && len < self.decoder.limits.elements.saturating_add(1) as u64 {
            len += 1;
            node = ready!(self.read_word(node));
        }
        self.chain(&of, first, 0, skip, len)
    }

    /// Nodes linked by their first word.
    fn chain(&self, of: &Ty, first: u64, end: u64, skip: u64, len: u64) -> Found {
        let mut items = Vec::new();
        let mut node = first;
        while node != end && node != 0 && items.len() < self.limit(len) {
            items.push(Object::new(
                of.clone(),
                Storage::Memory(node.wrapping_add(skip)),
            ));
            node = ready!(self.read_word(node));
        }
        Some(Ok(Presentation::List { items, len }))
    }

    fn tree(&self, pairs: bool) -> Found {
        let tree = self.path(self.object, &["_M_t"])?;
        let of = self.element_of(&tree, 1)?;
        let implementation = self.path(&tree, &["_M_impl"])?;
        let header = self
            .path(&implementation, &["_M_header"])?
            .storage
            .address()?;
        let len = ready!(
            self.decoder
                .address_in(&self.path(&implementation, &["_M_node_count"])?)
        );
        let skip = 32u64.next_multiple_of(self.align_of(&of));
        let mut items = Vec::new();
        // Nodes: colour, parent, left, right. The header's left is the first in order.
        let mut node = ready!(self.read_word(header.wrapping_add(16)));
        while node != header && node != 0 && items.len() < self.limit(len) {
            items.push(Object::new(
                of.clone(),
                Storage::Memory(node.wrapping_add(skip)),
            ));
            node = ready!(self.successor(node));
        }
        Some(Ok(self.entries(items, len, pairs)))
    }

    fn successor(&self, node: u64) -> Read<u64> {
        let damaged = || Unavailable::because("damaged tree");
        let mut next = self.read_word(node.wrapping_add(24))?;
        if next != 0 {
            for _ in 0..TREE_DEPTH {
                match self.read_word(next.wrapping_add(16))? {
                    0 => return Ok(next),
                    left => next = left,
                }
            }
            return Err(damaged());
        }
        let mut child = node;
        let mut parent = self.read_word(node.wrapping_add(8))?;
        for _ in 0..TREE_DEPTH {
            if self.read_word(parent.wrapping_add(24))? != child {
                // Climbing from the last node passes the root: the header's parent is the root, and the root's is the header.
                let wrapped = self.read_word(child.wrapping_add(24))? == parent;
                return Ok(if wrapped { child } else { parent });
            }
            child = parent;
            parent = self.read_word(parent.wrapping_add(8))?;
        }
        Err(damaged())
    }

    fn hash(&self, pairs: bool) -> Found {
        let table = self.path(self.object, &["_M_h"])?;
        let of = self.element_of(&table, 1)?;
        let len = ready!(
            self.decoder
                .address_in(&self.path(&table, &["_M_element_count"])?)
        );
        let first = ready!(
            self.decoder
                .address_in(&self.path(&table, &["_M_before_begin", "_M_nxt"])?)
        );
        let skip = 8u64.next_multiple_of(self.align_of(&of));
        match self.chain(&of, first, 0, skip, len)? {
            Ok(Presentation::List { items, len }) => Some(Ok(self.entries(items, len, pairs))),
            other => Some(other),
        }
    }

    fn entries(&self, items: Vec<Object>, len: u64, pairs: bool) -> Presentation {
        if !pairs {
            return Presentation::List { items, len };
        }
        let split = |pair: &Object| {
            Some((
                self.decoder.find_member(pair, "first")?,
                self.decoder.find_member(pair, "second")?,
            ))
        };
        Presentation::Pairs {
            entries: items.iter().filter_map(split).collect(),
            len,
        }
    }

    /// A template argument of a member's type.
    fn element_of(&self, object: &Object, index: usize) -> Option<Ty> {
        let ty = self.decoder.program.strip(&object.ty);
        ty.as_struct()?
            .arguments
            .get(index)
            .map(|(_, ty)| ty.clone())
    }

    fn unique(&self) -> Found {
        let pointer = self.first_pointer(&self.path(self.object, &["_M_t"])?, 0)?;
        let address = ready!(self.decoder.address_in(&pointer));
        Some(if address == 0 {
            Ok(Presentation::Nothing)
        } else {
            self.decoder.pointee(&pointer).map(Presentation::Content)
        })
    }

    /// The pointer kept in nested, otherwise empty tuples: `_M_head_impl` of the first element.
    fn first_pointer(&self, object: &Object, depth: usize) -> Option<Object> {
        let ty = self.decoder.program.strip(&object.ty);
        if matches!(ty.shape, Shape::Pointer { .. }) {
            return Some(object.clone());
        }
        let shape = ty
            .as_struct()
            .filter(|_| depth < 12 && self.decoder.charge())?;
        // Bases of a tuple come with the last element first; the pointer is at offset 0 and not a deleter.
        shape
            .members
            .iter()
            .chain(&shape.bases)
            .map(|member| self.decoder.member_object(object, member))
            .find_map(|inner| self.first_pointer(&inner, depth + 1))
    }

    fn shared(&self) -> Found {
        let pointer = self.path(self.object, &["_M_ptr"])?;
        let address = ready!(self.decoder.address_in(&pointer));
        Some(if address == 0 {
            Ok(Presentation::Nothing)
        } else {
            self.decoder.pointee(&pointer).map(Presentation::Content)
        })
    }

    fn optional(&self) -> Found {
        let payload = self.path(self.object, &["_M_payload"])?;
        let engaged = ready!(
            self.path(&payload, &["_M_engaged"])?
                .storage
                .read_unsigned(self.decoder.view, 1)
        );
        if engaged == 0 {
            return Some(Ok(Presentation::Nothing));
        }
        let value = self.path(&payload, &["_M_payload", "_M_value"])?;
        Some(Ok(Presentation::Content(value)))
    }

    fn variant(&self) -> Found {
        let index = self.path(self.object, &["_M_index"])?;
        let size = self.size_of(&index.ty)?;
        let chosen = ready!(index.storage.read_unsigned(self.decoder.view, size));
        let of = match usize::try_from(chosen)
            .ok()
            .and_then(|chosen| self.argument(chosen))
        {
            Some(of) => of,
            None => return Some(Ok(Presentation::Nothing)),
        };
        // All alternatives start where the union does.
        let union = self.path(self.object, &["_M_u"])?;
        Some(Ok(Presentation::Content(Object::new(of, union.storage))))
    }

    fn tuple(&self) -> Found {
        let mut items = Vec::new();
        self.heads(self.object, 0, &mut items);
        let len = items.len() as u64;
        // g++ leaves the class's own pack empty, so the count of arguments cannot be checked against.
        (!items.is_empty()).then_some(Ok(Presentation::List { items, len }))
    }

    /// `_Tuple_impl<0, ...>` derives from `_Tuple_impl<1, ...>` and from `_Head_base<0, T>`.
    fn heads(&self, object: &Object, depth: usize, into: &mut Vec<Object>) {
        let ty = self.decoder.program.strip(&object.ty);
        let Some(shape) = ty
            .as_struct()
            .filter(|_| depth < 128 && self.decoder.charge())
        else {
            return;
        };
        let head = |base: &&crate::types::Member| {
            self.decoder
                .program
                .strip(&base.ty)
                .name
                .starts_with("std::_Head_base")
        };
        for base in shape.bases.iter().filter(head) {
            let inner = self.decoder.member_object(object, base);
            let value = self.path(&inner, &["_M_head_impl"]);
            // An empty head is its own base: nothing but its type is there.
            into.push(value.unwrap_or(inner));
        }
        for base in shape.bases.iter().filter(|base| !head(base)) {
            self.heads(&self.decoder.member_object(object, base), depth + 1, into);
        }
    }

    fn align_of(&self, ty: &Ty) -> u64 {
        align_of(self.decoder, ty, 0)
    }
}

/// Alignment as the ABI gives it; `alignas` is not looked at.
pub fn align_of(decoder: &Decoder<'_>, ty: &Ty, depth: usize) -> u64 {
    let ty = decoder.program.strip(ty);
    if depth > 16 || !decoder.charge() {
        return 8;
    }
    match &ty.shape {
        Shape::Array { of, .. } => align_of(decoder, of, depth + 1),
        Shape::Struct(shape) => {
            let all = shape
                .members
                .iter()
                .chain(&shape.bases)
                .map(|member| align_of(decoder, &member.ty, depth + 1));
            all.max().unwrap_or(1)
        }
        _ => ty
            .size
            .unwrap_or(1)
            .clamp(1, 16)
            .next_power_of_two()
            .min(16),
    }
}
