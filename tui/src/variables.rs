//! The variables tree as rows: values are taken apart only where they are open.

use std::collections::HashMap;

use introspect::Value;

use crate::data::{EXPANDED_ELEMENTS, Root};
use crate::model::{Group, Model};

/// Rows made of one node's children.
const CHILD_LIMIT: usize = 8192;
/// Rows of the whole pane.
const ROW_LIMIT: usize = 50_000;
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
    tree.rows
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
            self.root(root, &root.path, name.clone(), 1);
        }
        match count.saturating_sub(roots.len()) {
            0 if count == 0 => self.remark(1, "none here".to_owned()),
            0 => {}
            more => self.remark(1, format!("{more} more; `/` shows one by its name")),
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
        let shown = children.len();
        for child in &children {
            if self.rows.len() >= ROW_LIMIT {
                return;
            }
            self.item(child, depth);
        }
        if all > shown as u64 {
            let now = self.model.open.get(item.root).copied();
            self.push(Row {
                depth,
                kind: Kind::More {
                    root: item.root.to_owned(),
                    shown: now.unwrap_or(EXPANDED_ELEMENTS),
                },
                name: String::new(),
                text: format!("... {} more", all - shown as u64),
                type_name: String::new(),
                changed: None,
                address: None,
            });
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
        });
    }

    fn push(&mut self, row: Row) {
        if self.rows.len() < ROW_LIMIT {
            self.rows.push(row);
        }
    }
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
