//! The variables tree as rows: values are taken apart only where they are open.

use std::collections::HashMap;

use introspect::Value;

use crate::data::{EXPANDED_ELEMENTS, Root, Stretch};
use crate::model::{Group, Model};
use crate::place::Tab;
use crate::table::contains;

/// Rows made of one node's children.
const CHILD_LIMIT: usize = 8192;
/// Rows of the whole pane.
const ROW_LIMIT: usize = 50_000;
/// Elements of one stretch.
const STRETCH: u64 = EXPANDED_ELEMENTS as u64;
/// Open nodes inside open nodes.
const DEPTH_LIMIT: usize = 64;

/// One row.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    pub depth: usize,
    pub kind: Kind,
    pub name: String,
    pub text: String,
    pub type_name: String,
    /// Set where there is something to compare with and it differs: the text of then.
    pub changed: Option<String>,
    pub address: Option<u64>,
    /// An expression that the user watches.
    pub watched: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Group {
        group: Group,
        open: bool,
    },
    /// Has nothing inside.
    Leaf {
        path: String,
    },
    Node {
        path: String,
        open: bool,
    },
    Pointer {
        path: String,
        open: bool,
    },
    /// Elements `from..to` of a container that can be indexed.
    Stretch {
        stretch: Stretch,
        open: bool,
    },
    /// Further elements of the container at this path, of which so many are decoded.
    More {
        root: String,
        shown: usize,
    },
    Remark,
}

impl Kind {
    pub fn path(&self) -> Option<&str> {
        match self {
            Self::Leaf { path } | Self::Node { path, .. } | Self::Pointer { path, .. } => {
                Some(path)
            }
            _ => None,
        }
    }
}

/// All rows of a model's variables.
pub fn rows(model: &Model) -> Vec<Row> {
    let Some(look) = &model.look else {
        return Vec::new();
    };
    let mut tree = Tree {
        model,
        rows: Vec::new(),
    };
    if !look.watches.is_empty() {
        tree.group(Group::Watches, &look.watches, look.watches.len());
    }
    tree.group(Group::Locals, &look.locals, look.locals.len());
    tree.group(Group::Globals, &look.globals, look.global_count);
    filtered(tree.rows, model.filter(Tab::Variables))
}

/// Rows that have the text, what they are in, and what is in them.
fn filtered(rows: Vec<Row>, filter: &str) -> Vec<Row> {
    if filter.is_empty() {
        return rows;
    }
    let mut kept = vec![false; rows.len()];
    let mut inside: Option<usize> = None;
    for at in 0..rows.len() {
        let row = &rows[at];
        if inside.is_some_and(|depth| row.depth <= depth) {
            inside = None;
        }
        let fits = row.depth > 0 && (contains(&row.name, filter) || contains(&row.text, filter));
        kept[at] = fits || inside.is_some();
        if !fits {
            continue;
        }
        inside.get_or_insert(row.depth);
        let mut depth = row.depth;
        for above in (0..at).rev() {
            if rows[above].depth < depth {
                depth = rows[above].depth;
                kept[above] = true;
            }
        }
    }
    let kept = rows.into_iter().zip(kept);
    kept.filter_map(|(row, kept)| kept.then_some(row)).collect()
}

struct Tree<'a> {
    model: &'a Model,
    rows: Vec<Row>,
}

/// A value to be shown, and what it was.
struct Item<'a> {
    /// The root it was decoded with.
    root: &'a str,
    path: String,
    name: String,
    type_name: &'a str,
    value: &'a Value,
    old: Option<&'a Value>,
    address: Option<u64>,
}

impl Tree<'_> {
    fn group(&mut self, group: Group, roots: &[Root], count: usize) {
        let open = !self.model.closed_groups.contains(&group);
        self.push(Row {
            depth: 0,
            kind: Kind::Group { group, open },
            name: group.title().to_owned(),
            text: String::new(),
            type_name: String::new(),
            changed: None,
            address: None,
            watched: false,
        });
        if !open {
            return;
        }
        let watches = self
            .model
            .look
            .iter()
            .flat_map(|look| &look.question.watches);
        let names: Vec<&String> = match group {
            Group::Watches => watches.collect(),
            _ => roots.iter().map(|root| &root.path).collect(),
        };
        for (root, name) in roots.iter().zip(names) {
            let at = self.rows.len();
            self.root(root, &root.path, name.clone(), 1);
            if let Some(row) = self.rows.get_mut(at) {
                row.watched = group == Group::Watches;
            }
        }
        match count.saturating_sub(roots.len()) {
            0 if count == 0 => self.remark(1, "none here".to_owned()),
            0 => {}
            more => self.remark(1, format!("{more} more; `e` shows one by its name")),
        }
    }

    fn root(&mut self, root: &Root, path: &str, name: String, depth: usize) {
        self.item(
            &Item {
                root: &root.path,
                path: path.to_owned(),
                name,
                type_name: &root.type_name,
                value: &root.value,
                old: root.old.as_ref(),
                address: root.address,
            },
            depth,
        );
    }

    fn item(&mut self, item: &Item<'_>, depth: usize) {
        let open = self.model.open.contains_key(&item.path) && depth < DEPTH_LIMIT;
        let kind = match item.value {
            Value::Pointer { address, .. } if *address != 0 => Kind::Pointer {
                path: item.path.clone(),
                open: self.model.follow.contains(&item.path) && depth < DEPTH_LIMIT,
            },
            value if has_children(value) => Kind::Node {
                path: item.path.clone(),
                open,
            },
            _ => Kind::Leaf {
                path: item.path.clone(),
            },
        };
        self.push(Row {
            depth,
            name: item.name.clone(),
            text: summary(item.value),
            type_name: item.type_name.to_owned(),
            changed: item.old.and_then(|old| difference(item.value, old)),
            address: item.address,
            watched: false,
            kind: kind.clone(),
        });
        match kind {
            Kind::Node { open: true, .. } => self.children(item, depth + 1),
            Kind::Pointer { path, open: true } => self.pointee(&path, depth + 1),
            _ => {}
        }
    }

    fn pointee(&mut self, path: &str, depth: usize) {
        let look = self.model.look.as_ref();
        match look.and_then(|look| look.followed.get(path)) {
            Some(root) if has_children(&root.value) => {
                let item = Item {
                    root: &root.path,
                    path: root.path.clone(),
                    name: String::new(),
                    type_name: &root.type_name,
                    value: &root.value,
                    old: root.old.as_ref(),
                    address: root.address,
                };
                self.children(&item, depth);
            }
            Some(root) => self.root(root, &root.path, "*".to_owned(), depth),
            None => self.remark(depth, "loading".to_owned()),
        }
    }

    fn children(&mut self, item: &Item<'_>, depth: usize) {
        let (children, all) = children_of(item);
        let look = self.model.look.as_ref();
        let sliced = look.is_some_and(|look| look.sliced.contains(&item.path));
        let most = if sliced { STRETCH } else { u64::MAX };
        let shown = children
            .len()
            .min(usize::try_from(most).unwrap_or(usize::MAX));
        for child in &children[..shown] {
            if self.rows.len() >= ROW_LIMIT {
                return;
            }
            self.item(child, depth);
        }
        let shown = shown as u64;
        if all > shown && sliced && shown == STRETCH {
            return self.stretches(&item.path, (shown, all), u64::MAX, depth);
        }
        if all > shown {
            let now = self.model.open.get(item.root).copied();
            self.push(Row {
                depth,
                kind: Kind::More {
                    root: item.root.to_owned(),
                    shown: now.unwrap_or(EXPANDED_ELEMENTS),
                },
                name: String::new(),
                text: format!("... {} more", all - shown),
                type_name: String::new(),
                changed: None,
                address: None,
                watched: false,
            });
        }
    }

    /// Elements `from..to` as nodes of 100, then of 10,000, and so on up to `most`, so that no list is long.
    fn stretches(&mut self, of: &str, (from, to): (u64, u64), most: u64, depth: usize) {
        let mut from = from;
        while from < to && self.rows.len() < ROW_LIMIT {
            let mut size = STRETCH;
            while size < most
                && size
                    .checked_mul(STRETCH)
                    .is_some_and(|larger| larger <= most && from % larger == 0)
            {
                size *= STRETCH;
            }
            let end = from.saturating_add(size).min(to);
            self.stretch(
                &Stretch {
                    of: of.to_owned(),
                    from,
                    to: end,
                },
                depth,
            );
            from = end;
        }
    }

    fn stretch(&mut self, stretch: &Stretch, depth: usize) {
        let open = self.model.stretches.contains(stretch) && depth < DEPTH_LIMIT;
        let root = self
            .model
            .look
            .as_ref()
            .and_then(|look| look.stretches.get(&stretch.path()));
        let large = stretch.to - stretch.from > STRETCH;
        let differs = root.filter(|_| !large).is_some_and(|root| {
            root.old
                .as_ref()
                .is_some_and(|old| difference(&root.value, old).is_some())
        });
        self.push(Row {
            depth,
            kind: Kind::Stretch {
                stretch: stretch.clone(),
                open,
            },
            name: format!("[{}..{}]", stretch.from, stretch.to - 1),
            text: String::new(),
            type_name: String::new(),
            changed: differs.then(String::new),
            address: None,
            watched: false,
        });
        match root {
            _ if !open => {}
            _ if large => {
                let most = below(stretch.to - stretch.from);
                self.stretches(&stretch.of, (stretch.from, stretch.to), most, depth + 1);
            }
            Some(root) => self.elements(stretch, root, depth + 1),
            None => self.remark(depth + 1, "loading".to_owned()),
        }
    }

    /// The elements of one stretch, under the names that they have in the whole.
    fn elements(&mut self, stretch: &Stretch, root: &Root, depth: usize) {
        let Value::Sequence { items, .. } = &root.value else {
            return self.remark(depth, summary(&root.value));
        };
        for (at, value) in items.iter().enumerate() {
            let old = match &root.old {
                Some(Value::Sequence { items, .. }) => items.get(at),
                _ => None,
            };
            let number = stretch.from + at as u64;
            let item = Item {
                root: &root.path,
                path: format!("{}[{number}]", stretch.of),
                name: format!("[{number}]"),
                type_name: "",
                value,
                old,
                address: None,
            };
            self.item(&item, depth);
        }
    }

    fn remark(&mut self, depth: usize, text: String) {
        self.push(Row {
            depth,
            kind: Kind::Remark,
            name: String::new(),
            text,
            type_name: String::new(),
            changed: None,
            address: None,
            watched: false,
        });
    }

    fn push(&mut self, row: Row) {
        if self.rows.len() < ROW_LIMIT {
            self.rows.push(row);
        }
    }
}

/// The largest power of the stretch that is smaller.
fn below(span: u64) -> u64 {
    let mut size = STRETCH;
    while size
        .checked_mul(STRETCH)
        .is_some_and(|larger| larger < span)
    {
        size *= STRETCH;
    }
    size
}

fn has_children(value: &Value) -> bool {
    match value {
        Value::Struct(members) => !members.is_empty(),
        Value::Sequence { len, .. } | Value::Map { len, .. } => *len > 0,
        Value::Variant { fields, .. } => fields.is_some(),
        _ => false,
    }
}

/// The parts of a value, and how many there are.
fn children_of<'a>(item: &Item<'a>) -> (Vec<Item<'a>>, u64) {
    let child = |path: String, name: String, value: &'a Value, old: Option<&'a Value>| Item {
        root: item.root,
        path,
        name,
        type_name: "",
        value,
        old,
        address: None,
    };
    let path = &item.path;
    match item.value {
        Value::Struct(members) => {
            let each = members
                .iter()
                .take(CHILD_LIMIT)
                .enumerate()
                .map(|(at, (name, value))| {
                    let old = match item.old {
                        Some(Value::Struct(old)) => old
                            .get(at)
                            .filter(|(was, _)| was == name)
                            .map(|(_, value)| value),
                        _ => None,
                    };
                    child(format!("{path}.{name}"), name.clone(), value, old)
                });
            (each.collect(), members.len() as u64)
        }
        Value::Sequence { items, len } => {
            let each = items
                .iter()
                .take(CHILD_LIMIT)
                .enumerate()
                .map(|(at, value)| {
                    let old = match item.old {
                        Some(Value::Sequence { items, .. }) => items.get(at),
                        _ => None,
                    };
                    child(format!("{path}[{at}]"), format!("[{at}]"), value, old)
                });
            (each.collect(), *len)
        }
        Value::Map { entries, len } => {
            let old: HashMap<String, &Value> = match item.old {
                Some(Value::Map { entries, .. }) => entries
                    .iter()
                    .map(|(key, value)| (key.to_text(), value))
                    .collect(),
                _ => HashMap::new(),
            };
            let each = entries.iter().take(CHILD_LIMIT).map(|(key, value)| {
                let key = key.to_text();
                let old = old.get(&key).copied();
                child(format!("{path}[{key}]"), format!("[{key}]"), value, old)
            });
            (each.collect(), *len)
        }
        Value::Variant {
            name,
            fields: Some(fields),
        } => {
            let old = match item.old {
                Some(Value::Variant {
                    name: was,
                    fields: Some(old),
                }) if was == name => Some(&**old),
                _ => None,
            };
            (
                vec![child(format!("{path}.{name}"), name.clone(), fields, old)],
                1,
            )
        }
        _ => (Vec::new(), 0),
    }
}

/// What it was, if it differs. Compared as text too: a NaN equals no other.
fn difference(value: &Value, old: &Value) -> Option<String> {
    if value == old {
        return None;
    }
    let was = old.to_text();
    (was != value.to_text()).then(|| summary(old))
}

/// One line, no longer than any screen is wide.
fn summary(value: &Value) -> String {
    const LINE: usize = 512;
    let mut text = value.to_text();
    if let Some((end, _)) = text.char_indices().nth(LINE) {
        text.truncate(end);
        text.push_str("...");
    }
    text
}
