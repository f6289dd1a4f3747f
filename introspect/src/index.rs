//! What is named in a file's DWARF: tables that are searched, and kept on disk as they are (see [`crate::index_cache`]).

use std::borrow::Cow;
use std::hash::Hasher;

use crate::debug_info::{DieOffset, SUPPLEMENT};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Variable {
        external: bool,
    },
    Type,
    Function,
    /// A variable that was optimised away: it has neither place nor value.
    Gone,
    /// The DIE is the enumerator; the enumeration is its parent.
    Enumerator {
        of: DieOffset,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Named {
    pub die: DieOffset,
    pub kind: Kind,
    pub unit: usize,
    pub(crate) scope: u32,
}

/// Code of a function that is not inlined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FunctionRange {
    pub start: u64,
    pub end: u64,
    pub die: DieOffset,
    pub(crate) unit: usize,
}

/// The scope of everything that is in none.
pub(crate) const GLOBAL: u32 = 0;

/// A name that some function's local or parameter has.
pub(crate) const OF_LOCAL: u8 = 1;
/// One that a member of some type has.
pub(crate) const OF_MEMBER: u8 = 2;

/// Names are known by their numbers, which ascend with their hashes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct NameIndex {
    pub(crate) text: String,
    /// Where each name ends in the text.
    pub(crate) ends: Vec<u32>,
    pub(crate) hashes: Vec<u64>,
    pub(crate) flags: Vec<u8>,
    /// Where the entries of each name end in `named`.
    pub(crate) until: Vec<u32>,
    pub(crate) named: Vec<Named>,
    /// The scope around each, always one before it, and its name.
    pub(crate) scopes: Vec<(u32, u32)>,
    pub(crate) scope_of: Vec<(DieOffset, u32)>,
    pub(crate) functions: Vec<FunctionRange>,
    /// Functions that were inlined, and where that code is entered.
    pub(crate) inlined: Vec<(DieOffset, u64)>,
    pub(crate) vtables: Vec<(u64, DieOffset)>,
}

/// What was gathered of some units, in their order; names by numbers of its own.
#[derive(Default)]
pub(crate) struct Gathered<'a> {
    pub names: Vec<(Cow<'a, str>, u8)>,
    pub named: Vec<(u32, Named)>,
    pub scopes: Vec<(u32, u32)>,
    pub scope_of: Vec<(DieOffset, u32)>,
    pub functions: Vec<FunctionRange>,
    pub inlined: Vec<(DieOffset, u64)>,
    pub vtables: Vec<(u64, DieOffset)>,
}

impl NameIndex {
    /// All of them as one, each name's entries in the order given.
    pub(crate) fn assemble(parts: &[Gathered<'_>]) -> Self {
        let mut index = Self::default();
        let numbers = index.take_names(parts);
        // The global scope is every part's first.
        index.scopes.push((GLOBAL, GLOBAL));
        let mut counts = vec![0u32; index.ends.len()];
        let entries = parts.iter().zip(&numbers);
        for (part, number) in entries.clone() {
            for (name, _) in &part.named {
                counts[number[*name as usize] as usize] += 1;
            }
        }
        let mut sum = 0u32;
        for count in &mut counts {
            sum = sum.saturating_add(std::mem::replace(count, sum));
        }
        let nothing = Named {
            die: DieOffset(0),
            kind: Kind::Type,
            unit: 0,
            scope: GLOBAL,
        };
        index.named = vec![nothing; sum as usize];
        for (part, number) in entries {
            let behind = u32::try_from(index.scopes.len() - 1).unwrap_or(u32::MAX);
            let moved = |scope: u32| match scope {
                GLOBAL => GLOBAL,
                scope => scope.saturating_add(behind),
            };
            let scopes = part.scopes.iter().skip(1);
            let scopes = scopes.map(|(parent, name)| (moved(*parent), number[*name as usize]));
            index.scopes.extend(scopes);
            for (name, named) in &part.named {
                let next = &mut counts[number[*name as usize] as usize];
                let scope = moved(named.scope);
                index.named[*next as usize] = Named { scope, ..*named };
                *next += 1;
            }
            let scope_of = part.scope_of.iter();
            index
                .scope_of
                .extend(scope_of.map(|(die, scope)| (*die, moved(*scope))));
            index.functions.extend(&part.functions);
            index.inlined.extend(&part.inlined);
            index.vtables.extend(&part.vtables);
        }
        index.until = counts;
        index.sort();
        index
    }

    /// Numbers the names of all parts, and says for each part which number each of its names has now.
    fn take_names(&mut self, parts: &[Gathered<'_>]) -> Vec<Vec<u32>> {
        let mut numbers: Vec<Vec<u32>> =
            parts.iter().map(|part| vec![0; part.names.len()]).collect();
        let mut all: Vec<(u64, usize, usize)> = Vec::new();
        for (at, part) in parts.iter().enumerate() {
            let names = part.names.iter().enumerate();
            all.extend(names.map(|(name, (text, _))| (hash(text), at, name)));
        }
        all.sort_unstable();
        // Of one hash are a few at most.
        let mut from = 0usize;
        for (hash, part, name) in all {
            let (text, flags) = &parts[part].names[name];
            if self.hashes.last() != Some(&hash) {
                from = self.ends.len();
            }
            let known = (from..self.ends.len()).find(|at| self.text_of(*at) == text);
            let number = known.or_else(|| self.add_name(hash, text));
            let Some(number) = number else { continue };
            self.flags[number] |= flags;
            numbers[part][name] = u32::try_from(number).unwrap_or(0);
        }
        numbers
    }

    fn add_name(&mut self, hash: u64, text: &str) -> Option<usize> {
        let end = u32::try_from(self.text.len() + text.len()).ok()?;
        self.text.push_str(text);
        self.ends.push(end);
        self.hashes.push(hash);
        self.flags.push(0);
        Some(self.ends.len() - 1)
    }

    fn sort(&mut self) {
        self.functions
            .sort_by_key(|function| (function.start, function.end));
        self.scope_of.sort_by_key(|pair| pair.0);
        self.vtables.sort_by_key(|pair| pair.0);
    }

    /// As a part of a larger one.
    pub(crate) fn gathered(&self) -> Gathered<'_> {
        let names = (0..self.ends.len()).map(|at| (self.text_of(at).into(), self.flags[at]));
        let named = (0u32..).zip(0..self.ends.len());
        let named = named.flat_map(|(name, at)| self.entries(at).iter().map(move |n| (name, *n)));
        Gathered {
            names: names.collect(),
            named: named.collect(),
            scopes: self.scopes.clone(),
            scope_of: self.scope_of.clone(),
            functions: self.functions.clone(),
            inlined: self.inlined.clone(),
            vtables: self.vtables.clone(),
        }
    }

    fn text_of(&self, name: usize) -> &str {
        let start = name.checked_sub(1).map_or(0, |before| self.ends[before]);
        self.text
            .get(start as usize..self.ends[name] as usize)
            .unwrap_or_default()
    }

    fn entries(&self, name: usize) -> &[Named] {
        let start = name.checked_sub(1).map_or(0, |before| self.until[before]);
        self.named
            .get(start as usize..self.until[name] as usize)
            .unwrap_or_default()
    }

    fn number_of(&self, name: &str) -> Option<usize> {
        let hash = hash(name);
        let first = self.hashes.partition_point(|known| *known < hash);
        let same = self.hashes[first..].iter().take_while(|at| **at == hash);
        (first..first + same.count()).find(|at| self.text_of(*at) == name)
    }

    /// Everything whose last path segment is `name`.
    pub fn lookup(&self, name: &str) -> &[Named] {
        self.number_of(name).map_or(&[], |name| self.entries(name))
    }

    pub fn names(&self) -> impl Iterator<Item = (&str, &[Named])> {
        (0..self.ends.len())
            .map(|name| (self.text_of(name), self.entries(name)))
            .filter(|(_, entries)| !entries.is_empty())
    }

    /// Namespaces and types around an entry, outermost first.
    pub fn path_of(&self, named: &Named) -> Vec<&str> {
        self.scope_path(named.scope)
    }

    /// The qualified prefix of a DIE: `std::`, or nothing.
    pub fn prefix_of(&self, die: DieOffset) -> String {
        let Ok(at) = self.scope_of.binary_search_by_key(&die, |pair| pair.0) else {
            return String::new();
        };
        self.scope_path(self.scope_of[at].1)
            .iter()
            .map(|segment| format!("{segment}::"))
            .collect()
    }

    pub fn function_at(&self, address: u64) -> Option<&FunctionRange> {
        let after = self
            .functions
            .partition_point(|function| function.start <= address);
        self.functions[..after]
            .iter()
            .rev()
            .take(16)
            .find(|function| address < function.end)
    }

    /// Where the code of inlined calls is entered, with the function that each is of.
    pub fn inlined(&self) -> &[(DieOffset, u64)] {
        &self.inlined
    }

    pub(crate) fn functions(&self) -> impl Iterator<Item = (u64, u64)> {
        self.functions.iter().map(|one| (one.start, one.end))
    }

    /// Address ranges of a function, lowest first: several when the compiler split it.
    pub fn ranges_of(&self, die: DieOffset) -> Vec<(u64, u64)> {
        self.functions
            .iter()
            .filter(|function| function.die == die)
            .map(|function| (function.start, function.end))
            .collect()
    }

    /// Whether some function has a local or parameter of this name. If not, no frame needs to be looked at to resolve it.
    pub fn is_local_name(&self, name: &str) -> bool {
        self.has_flag(name, OF_LOCAL)
    }

    /// Whether a bare name may be a member of C++'s `this`.
    pub fn is_member_of_this(&self, name: &str) -> bool {
        self.has_flag("this", OF_LOCAL) && self.has_flag(name, OF_MEMBER)
    }

    fn has_flag(&self, name: &str, flag: u8) -> bool {
        self.number_of(name)
            .is_some_and(|name| self.flags[name] & flag != 0)
    }

    /// The concrete type whose Rust vtable stands at a file address.
    pub fn vtable_type(&self, address: u64) -> Option<DieOffset> {
        let at = self
            .vtables
            .binary_search_by_key(&address, |pair| pair.0)
            .ok()?;
        Some(self.vtables[at].1)
    }

    fn scope_path(&self, mut scope: u32) -> Vec<&str> {
        let mut path = Vec::new();
        while scope != GLOBAL {
            let Some((parent, name)) = self.scopes.get(scope as usize) else {
                break;
            };
            path.push(self.text_of(*name as usize));
            scope = *parent;
        }
        path.reverse();
        path
    }

    /// Whether every number in it is of something that is there, among so many units: of one that was read from a file
    /// nothing else says so.
    pub(crate) fn is_sound(&self, units: usize) -> bool {
        let names = self.ends.len();
        let ascending = |all: &[u32], most: usize| {
            all.is_sorted() && all.last().map_or(0, |last| *last as usize) == most
        };
        let scopes = (0u32..).zip(&self.scopes).skip(1);
        let mut scopes =
            scopes.map(|(at, (parent, name))| *parent < at && (*name as usize) < names);
        let is_scope = |scope: u32| (scope as usize) < self.scopes.len().max(1);
        let is_part = |die: DieOffset| die.part() <= SUPPLEMENT;
        ascending(&self.ends, self.text.len())
            && ascending(&self.until, self.named.len())
            && [self.hashes.len(), self.flags.len(), self.until.len()] == [names; 3]
            && self.hashes.is_sorted()
            && self
                .ends
                .iter()
                .all(|end| self.text.is_char_boundary(*end as usize))
            && scopes.all(|sound| sound)
            && self
                .named
                .iter()
                .all(|named| named.unit < units && is_scope(named.scope) && is_part(named.die))
            && self
                .functions
                .iter()
                .all(|one| one.unit < units && is_part(one.die))
            && self.scope_of.iter().all(|(_, scope)| is_scope(*scope))
            && self.scope_of.is_sorted_by_key(|pair| pair.0)
            && self.functions.is_sorted_by_key(|one| one.start)
            && self.vtables.is_sorted_by_key(|pair| pair.0)
            && self.vtables.iter().all(|(_, die)| is_part(*die))
            && self.inlined.iter().all(|(die, _)| is_part(*die))
    }
}

/// The same in every build: it is kept on disk.
pub(crate) fn hash(name: &str) -> u64 {
    let mut hasher = fnv::FnvHasher::default();
    hasher.write(name.as_bytes());
    hasher.finish()
}
