//! Where a DIE stands among scopes, for what completes it from elsewhere: another unit, or an earlier place.

use crate::debug_info::{DebugInfo, DieOffset, Entry, Unit};
use crate::gather::Elsewhere;

/// Declarations followed, one completing the other, before they count as damaged.
const CHAIN: usize = 8;

/// The DIEs of a unit that hold others, ascending.
#[derive(Default)]
pub struct Containers(Vec<Container>);

struct Container {
    start: usize,
    /// Where the first DIE behind those that it holds is.
    end: usize,
    parent: Option<usize>,
    is_scope: bool,
}

impl Containers {
    /// Damage ends them where it is met.
    pub fn collect(unit: &Unit) -> Self {
        let mut found = Self::default();
        let mut open: Vec<usize> = Vec::new();
        found.walk(unit, &mut open).unwrap_or_default();
        found
    }

    fn walk(&mut self, unit: &Unit, open: &mut Vec<usize>) -> gimli::Result<()> {
        let mut raw = unit.entries_raw(None)?;
        while !raw.is_empty() {
            let start = raw.next_offset().0;
            let depth = usize::try_from(raw.next_depth()).unwrap_or(0);
            for closed in open.drain(depth.min(open.len())..) {
                self.0[closed].end = start;
            }
            let Some(abbreviation) = raw.read_abbreviation()? else {
                continue;
            };
            if abbreviation.has_children() {
                self.0.push(Container {
                    start,
                    end: usize::MAX,
                    parent: open.last().copied(),
                    is_scope: is_scope(abbreviation.tag()),
                });
                open.push(self.0.len() - 1);
            }
            raw.skip_attributes(abbreviation.attributes())?;
        }
        Ok(())
    }

    /// Offsets of the scopes around one, innermost first.
    fn around(&self, offset: usize) -> impl Iterator<Item = usize> {
        let before = self.0.partition_point(|one| one.start < offset);
        let up = |at: &usize| self.0[*at].parent;
        std::iter::successors(before.checked_sub(1), up)
            .map(|at| &self.0[at])
            .filter(move |one| offset < one.end && one.is_scope)
            .map(|one| one.start)
    }
}

fn is_scope(tag: gimli::DwTag) -> bool {
    matches!(
        tag,
        gimli::DW_TAG_namespace
            | gimli::DW_TAG_structure_type
            | gimli::DW_TAG_class_type
            | gimli::DW_TAG_union_type
            | gimli::DW_TAG_enumeration_type
    )
}

impl DebugInfo {
    fn declared_in(&self, die: DieOffset, left: usize) -> Option<(Vec<String>, String)> {
        let (unit, offset) = self.locate(die)?;
        let entry = unit.entry(offset).ok()?;
        let left = left.checked_sub(1)?;
        if let Some(origin) = self.origin(unit, &entry)
            && let Some(found) = self.declared_in(origin, left)
        {
            return Some(found);
        }
        let name = self.own_name(unit, &entry)?;
        let mut inner = Vec::new();
        for scope in self.containers_of(die)?.around(offset.0) {
            let scope = unit.die(gimli::UnitOffset(scope))?;
            let entry = unit.entry(self.locate(scope)?.1).ok()?;
            // What was declared in another scope takes all of that one's path.
            if self.origin(unit, &entry).is_some()
                && let Some((mut path, of_scope)) = self.declared_in(scope, left)
            {
                path.push(of_scope);
                path.extend(inner.into_iter().rev());
                return Some((path, name));
            }
            inner.extend(self.own_name(unit, &entry));
        }
        inner.reverse();
        Some((inner, name))
    }

    fn own_name(&self, unit: &Unit, entry: &Entry<'_>) -> Option<String> {
        let name = self.string_attr(unit, entry, gimli::DW_AT_name);
        let is_namespace = entry.tag() == gimli::DW_TAG_namespace;
        name.or_else(|| is_namespace.then(|| "(anonymous namespace)".to_owned()))
    }
}

impl Elsewhere for DebugInfo {
    fn of_signature(&self, part: usize, signature: u64) -> Option<String> {
        self.type_unit_name(part, signature)
    }

    fn declared(&self, die: DieOffset) -> Option<(Vec<String>, String)> {
        self.declared_in(die, CHAIN)
    }
}
