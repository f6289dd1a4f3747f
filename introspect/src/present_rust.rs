//! Types of the Rust library, by the names of their members: those survive compiler versions better than layouts.

use crate::decode::{Decoder, Object, Presentation, Read};
use crate::storage::Storage;
use crate::types::{Shape, Struct, Ty, Type};
use crate::view::{Unavailable, ViewExt};

/// Wrappers around the one pointer or number that is looked for.
const WRAPPER_DEPTH: usize = 10;
/// Buckets of a hash map that are looked at.
const BUCKET_LIMIT: u64 = 1 << 24;
/// Height of a B-tree: 6 keys a node at least.
const TREE_HEIGHT: u64 = 32;
/// `B` of the library's B-tree is 6.
const NODE_CAPACITY: u64 = 11;

/// What a Rust library type means. A layout that is not as expected reads as a plain struct.
pub fn present(
    decoder: &Decoder<'_>,
    object: &Object,
    ty: &Type,
    shape: &Struct,
) -> Read<Option<Presentation>> {
    let rust = Rust {
        decoder,
        object,
        shape,
    };
    if let Some(fat) = rust.fat_pointer(&ty.name) {
        return fat.map(Some);
    }
    let stem = ty.name.split('<').next().unwrap_or("");
    let Some((krate, rest)) = stem
        .split_once("::")
        .filter(|(krate, _)| matches!(*krate, "alloc" | "core" | "std" | "hashbrown"))
    else {
        return Ok(None);
    };
    let last = rest.rsplit("::").next().unwrap_or(rest);
    let presented = match last {
        "String" | "PathBuf" | "OsString" | "Buf" | "Wtf8Buf" | "CString" => rust.string(),
        "Vec" => rust.vector(),
        "VecDeque" => rust.ring(),
        "BinaryHeap" => rust.content(&["data"]),
        "HashMap" if krate == "std" => rust.content(&["base"]),
        "HashSet" if krate == "std" => rust.content(&["base"]),
        "HashMap" => rust.hash(false),
        "HashSet" => rust.content(&["map"]).and_then(|_| rust.hash(true)),
        "BTreeMap" => rust.btree(false),
        "BTreeSet" => rust.btree(true),
        "LinkedList" => rust.linked(),
        "Rc" | "Arc" => rust.counted(),
        "RefCell" | "Cell" | "UnsafeCell" | "SyncUnsafeCell" | "ManuallyDrop" | "MaybeDangling" => {
            rust.content(&["value"])
        }
        "Mutex" | "RwLock" => rust.content(&["data"]),
        "NonZero" | "NonZeroInner" | "Wrapping" | "Saturating" | "Reverse" | "Pin" => {
            rust.only_member()
        }
        _ if last.starts_with("Atomic") => rust.content(&["v"]),
        "MaybeUninit" => rust.content(&["value"]),
        _ => None,
    };
    presented.transpose()
}

struct Rust<'a, 'b> {
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

impl Rust<'_, '_> {
    fn member(&self, of: &Object, name: &str) -> Option<Object> {
        let ty = self.decoder.program.strip(&of.ty);
        ty.as_struct()?
            .member(name)
            .map(|member| self.decoder.member_object(of, member))
    }

    fn path(&self, names: &[&str]) -> Option<Object> {
        names.iter().try_fold(self.object.clone(), |object, name| {
            self.member(&object, name)
        })
    }

    fn content(&self, names: &[&str]) -> Found {
        self.path(names)
            .map(|inner| Ok(Presentation::Content(inner)))
    }

    fn only_member(&self) -> Found {
        let sized = self.shape.members.iter().find(|member| {
            self.decoder
                .program
                .size_of(&member.ty)
                .is_some_and(|size| size > 0)
        })?;
        Some(Ok(Presentation::Content(
            self.decoder.member_object(self.object, sized),
        )))
    }

    /// The first member, at any depth, for which `wanted` holds.
    fn find(
        &self,
        object: &Object,
        wanted: &dyn Fn(&Type, &str) -> bool,
        name: &str,
        depth: usize,
    ) -> Option<Object> {
        let ty = self.decoder.program.strip(&object.ty);
        if wanted(&ty, name) {
            return Some(object.clone());
        }
        let shape = ty
            .as_struct()
            .filter(|_| depth < WRAPPER_DEPTH && self.decoder.charge())?;
        shape.members.iter().find_map(|member| {
            self.find(
                &self.decoder.member_object(object, member),
                wanted,
                member.name.as_deref().unwrap_or(""),
                depth + 1,
            )
        })
    }

    fn find_pointer(&self, object: &Object) -> Option<Object> {
        self.find(
            object,
            &|ty, _| matches!(ty.shape, Shape::Pointer { .. }),
            "",
            0,
        )
    }

    fn find_number(&self, object: &Object) -> Option<Object> {
        self.find(object, &|ty, _| ty.is_integer(), "", 0)
    }

    /// A number of up to 8 bytes, inside any wrappers.
    fn number(&self, object: &Object) -> Option<Read<u64>> {
        let inner = self.find_number(object)?;
        let size = self.decoder.program.size_of(&inner.ty)?;
        let raw = inner.storage.read_unsigned(self.decoder.view, size);
        Some(
            raw.and_then(|raw| {
                u64::try_from(raw).map_err(|_| Unavailable::because("not a length"))
            }),
        )
    }

    fn pointer_in(&self, object: &Object) -> Option<Read<u64>> {
        Some(self.decoder.address_in(&self.find_pointer(object)?))
    }

    fn argument(&self, name: &str) -> Option<Ty> {
        self.shape.argument(name).cloned()
    }

    fn size_of(&self, ty: &Ty) -> Option<u64> {
        self.decoder.program.size_of(ty)
    }

    fn shown(&self, len: u64) -> u64 {
        len.min(self.decoder.limits.elements as u64)
    }

    /// `&str`, `&[T]`, `Box<[T]>`, and `&dyn Trait`, `Box<dyn Trait>`: two words.
    fn fat_pointer(&self, name: &str) -> Option<Read<Presentation>> {
        if let (Some(data), Some(length)) =
            (self.shape.member("data_ptr"), self.shape.member("length"))
        {
            if name.starts_with('*') {
                return None;
            }
            let data = self.decoder.member_object(self.object, data);
            let len = ready!(
                self.decoder
                    .address_in(&self.decoder.member_object(self.object, length))
            );
            let target = ready!(self.decoder.pointee(&data));
            let text = name.ends_with("str")
                || name.contains("<str")
                || name.ends_with("OsStr")
                || name.ends_with("Path");
            return Some(Ok(self.unsized_content(target, len, text)?));
        }
        let (pointer, table) = (self.shape.member("pointer")?, self.shape.member("vtable")?);
        let pointer = self.decoder.member_object(self.object, pointer);
        let table = ready!(
            self.decoder
                .address_in(&self.decoder.member_object(self.object, table))
        );
        let address = ready!(self.decoder.address_in(&pointer));
        let concrete = self.concrete(table)?;
        Some(Ok(Presentation::Content(Object::new(
            concrete,
            Storage::Memory(address),
        ))))
    }

    /// `len` elements, or bytes of text, at the target of a fat pointer.
    fn unsized_content(&self, target: Object, len: u64, text: bool) -> Option<Presentation> {
        if text {
            return Some(Presentation::Text {
                at: target.storage,
                len,
            });
        }
        let stride = self.size_of(&target.ty)?;
        Some(Presentation::Run {
            of: target.ty,
            at: target.storage,
            stride,
            len,
        })
    }

    /// The type a vtable serves.
    fn concrete(&self, table: u64) -> Option<Ty> {
        let (object, module, address) = self.decoder.program.module_at(table)?;
        let die = module.object.debug()?.index().vtable_type(address)?;
        Some(Ty::Die { object, die })
    }

    /// A byte vector inside any wrappers.
    fn string(&self) -> Found {
        let bytes = self.find(
            self.object,
            &|ty, _| ty.name.starts_with("alloc::vec::Vec<"),
            "",
            0,
        );
        let Some(bytes) = bytes else {
            // `CString` is a boxed slice with its NUL.
            let slice = self.find(
                self.object,
                &|ty, _| {
                    ty.as_struct()
                        .is_some_and(|shape| shape.member("data_ptr").is_some())
                },
                "",
                0,
            )?;
            let len = ready!(self.number(&self.member(&slice, "length")?)?);
            let at = ready!(self.pointer_in(&self.member(&slice, "data_ptr")?)?);
            return Some(Ok(Presentation::Text {
                at: Storage::Memory(at),
                len: len.saturating_sub(1),
            }));
        };
        let len = ready!(self.number(&self.member(&bytes, "len")?)?);
        let at = ready!(self.pointer_in(&self.member(&bytes, "buf")?)?);
        Some(Ok(Presentation::Text {
            at: Storage::Memory(at),
            len,
        }))
    }

    fn vector(&self) -> Found {
        let of = self.argument("T")?;
        let len = ready!(self.number(&self.path(&["len"])?)?);
        let at = ready!(self.pointer_in(&self.path(&["buf"])?)?);
        let stride = self.size_of(&of)?;
        Some(Ok(Presentation::Run {
            of,
            at: Storage::Memory(at),
            stride,
            len,
        }))
    }

    fn ring(&self) -> Found {
        let of = self.argument("T")?;
        let stride = self.size_of(&of)?;
        let head = ready!(self.number(&self.path(&["head"])?)?);
        let len = ready!(self.number(&self.path(&["len"])?)?);
        let buffer = self.path(&["buf"])?;
        let at = ready!(self.pointer_in(&buffer)?);
        let capacity = self.find(
            &buffer,
            &|ty, name| name == "cap" && ty.size == Some(8),
            "",
            0,
        )?;
        let capacity = ready!(self.number(&capacity)?);
        let place = |index: u64| {
            let position = if stride == 0 {
                0
            } else {
                head.wrapping_add(index) % capacity.max(1)
            };
            Object::new(
                of.clone(),
                Storage::Memory(at.wrapping_add(position.wrapping_mul(stride))),
            )
        };
        Some(Ok(Presentation::List {
            items: (0..self.shown(len)).map(place).collect(),
            len,
        }))
    }

    /// hashbrown: control bytes, with the buckets below them in reverse; a clear top bit marks a full one.
    fn hash(&self, keys_only: bool) -> Found {
        let table = self.find(
            self.object,
            &|ty, _| {
                ty.as_struct()
                    .is_some_and(|shape| shape.member("ctrl").is_some())
            },
            "",
            0,
        )?;
        let raw = self.find(
            self.object,
            &|ty, _| {
                ty.name.starts_with("hashbrown::raw::RawTable<")
                    || ty.name.starts_with("hashbrown::raw::inner::RawTable<")
            },
            "",
            0,
        )?;
        let of = self
            .decoder
            .program
            .strip(&raw.ty)
            .as_struct()?
            .argument("T")?
            .clone();
        let stride = self.size_of(&of)?;
        let len = ready!(self.number(&self.member(&table, "items")?)?);
        let mask = ready!(self.number(&self.member(&table, "bucket_mask")?)?);
        let control = ready!(self.pointer_in(&self.member(&table, "ctrl")?)?);
        let mut items = Vec::new();
        let mut bucket = 0;
        while bucket <= mask.min(BUCKET_LIMIT) && (items.len() as u64) < self.shown(len) {
            let mut group = [0; 1];
            ready!(
                self.decoder
                    .view
                    .read(control.wrapping_add(bucket), &mut group)
            );
            if group[0] & 0x80 == 0 {
                items.push(Object::new(
                    of.clone(),
                    Storage::Memory(control.wrapping_sub((bucket + 1).wrapping_mul(stride))),
                ));
            }
            bucket += 1;
        }
        let key = |pair: &Object| self.member(pair, "__0");
        if keys_only {
            return Some(Ok(Presentation::List {
                items: items.iter().filter_map(key).collect(),
                len,
            }));
        }
        let entries = items
            .iter()
            .filter_map(|pair| Some((key(pair)?, self.member(pair, "__1")?)))
            .collect();
        Some(Ok(Presentation::Pairs { entries, len }))
    }

    fn btree(&self, keys_only: bool) -> Found {
        let map = if keys_only {
            self.path(&["map"])?
        } else {
            self.object.clone()
        };
        let len = ready!(self.number(&self.member(&map, "length")?)?);
        let root = self.member(&map, "root")?;
        let mut entries = Vec::new();
        if len > 0 {
            let root_ty = self.decoder.program.strip(&root.ty);
            let (case, fields) = ready!(self.decoder.active_case(&root, root_ty.as_struct()?));
            if case != "Some" {
                return Some(Err(Unavailable::because("damaged tree")));
            }
            let node = self.member(&fields, "__0")?;
            let height = ready!(self.number(&self.member(&node, "height")?)?);
            let leaf = ready!(
                self.decoder
                    .pointee(&self.find_pointer(&self.member(&node, "node")?)?)
            );
            let walk = BTree {
                rust: self,
                leaf: leaf.ty.clone(),
                limit: self.shown(len),
            };
            ready!(walk.visit(leaf.storage.address()?, height, &mut entries)?);
        }
        if keys_only {
            return Some(Ok(Presentation::List {
                items: entries.into_iter().map(|(key, _)| key).collect(),
                len,
            }));
        }
        Some(Ok(Presentation::Pairs { entries, len }))
    }

    fn linked(&self) -> Found {
        let len = ready!(self.number(&self.path(&["len"])?)?);
        let mut items = Vec::new();
        let mut link = self.path(&["head"])?;
        while (items.len() as u64) < self.shown(len) {
            // `Option<NonNull<Node<T>>>`: the pointer lies at its start, 0 for None.
            let ty = self.decoder.program.strip(&link.ty);
            let (case, fields) = ready!(self.decoder.active_case(&link, ty.as_struct()?));
            if case != "Some" {
                break;
            }
            let node = ready!(self.decoder.pointee(&self.find_pointer(&fields)?));
            items.push(self.member(&node, "element")?);
            link = self.member(&node, "next")?;
        }
        Some(Ok(Presentation::List { items, len }))
    }

    /// `Rc<T>` and `Arc<T>`: the value behind two counts; slices, text and trait objects by their second word.
    fn counted(&self) -> Found {
        let pointer = self.path(&["ptr"])?;
        if let Some(fat) = self.find(
            &pointer,
            &|ty, _| ty.as_struct().is_some_and(|shape| shape.members.len() == 2),
            "",
            0,
        ) {
            return self.counted_unsized(&fat);
        }
        let inner = ready!(self.decoder.pointee(&self.find_pointer(&pointer)?));
        let value = self
            .member(&inner, "value")
            .or_else(|| self.member(&inner, "data"))?;
        Some(Ok(Presentation::Content(value)))
    }

    fn counted_unsized(&self, fat: &Object) -> Found {
        let name = &self.decoder.program.strip(&self.object.ty).name;
        let is_text = name.contains("<str,") || name.contains("<str>");
        const COUNTS: u64 = 16;
        if let Some(table) = self.member(fat, "vtable") {
            let base = ready!(self.decoder.address_in(&self.member(fat, "pointer")?));
            let table = ready!(self.decoder.address_in(&table));
            // A vtable is: drop, size, align, methods.
            let align = ready!(self.decoder.view.read_u64(table.wrapping_add(16)));
            let skip = COUNTS.checked_next_multiple_of(align.max(1))?;
            return Some(Ok(Presentation::Content(Object::new(
                self.concrete(table)?,
                Storage::Memory(base.wrapping_add(skip)),
            ))));
        }
        let base = ready!(self.decoder.address_in(&self.member(fat, "data_ptr")?));
        let len = ready!(self.number(&self.member(fat, "length")?)?);
        if is_text {
            return Some(Ok(Presentation::Text {
                at: Storage::Memory(base.wrapping_add(COUNTS)),
                len,
            }));
        }
        // rustc describes the slice behind the counts as its first element.
        let inner = ready!(self.decoder.pointee(&self.member(fat, "data_ptr")?));
        let first = self
            .member(&inner, "value")
            .or_else(|| self.member(&inner, "data"))?;
        let stride = self.size_of(&first.ty)?;
        Some(Ok(Presentation::Run {
            of: first.ty,
            at: first.storage,
            stride,
            len,
        }))
    }
}

/// A walk over `LeafNode { parent, keys, vals, len }`; inner nodes append their edges to the same layout.
struct BTree<'a, 'b, 'c> {
    rust: &'a Rust<'b, 'c>,
    leaf: Ty,
    limit: u64,
}

impl BTree<'_, '_, '_> {
    fn visit(
        &self,
        address: u64,
        height: u64,
        into: &mut Vec<(Object, Object)>,
    ) -> Option<Read<()>> {
        if height > TREE_HEIGHT {
            return Some(Err(Unavailable::because("damaged tree")));
        }
        let node = Object::new(self.leaf.clone(), Storage::Memory(address));
        let len = ready!(self.rust.number(&self.rust.member(&node, "len")?)?).min(NODE_CAPACITY);
        let edges = self.rust.size_of(&self.leaf)?.next_multiple_of(8);
        for index in 0..=len {
            if into.len() as u64 >= self.limit {
                break;
            }
            if height > 0 {
                let child = ready!(
                    self.rust
                        .decoder
                        .view
                        .read_u64(address.wrapping_add(edges).wrapping_add(index * 8))
                );
                ready!(self.visit(child, height - 1, into)?);
            }
            if index < len && (into.len() as u64) < self.limit {
                into.push((
                    self.slot(&node, "keys", index)?,
                    self.slot(&node, "vals", index)?,
                ));
            }
        }
        Some(Ok(()))
    }

    /// `[MaybeUninit<T>; 11]`
    fn slot(&self, node: &Object, name: &str, index: u64) -> Option<Object> {
        let array = self.rust.member(node, name)?;
        let Shape::Array { of, .. } = &self.rust.decoder.program.strip(&array.ty).shape else {
            return None;
        };
        let stride = self.rust.size_of(of)?;
        Some(Object::new(
            of.clone(),
            array.storage.at(index.wrapping_mul(stride)),
        ))
    }
}
