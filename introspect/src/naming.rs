//! Names for addresses: variables and what they lead to, else symbols, else mappings.

use serde_json::{Value as Json, json};

use crate::program::Program;
use crate::reach::Reach;
use crate::view::View;

/// What is at an address.
pub struct Named {
    pub address: u64,
    /// An expression, where a typed object is known there.
    pub path: Option<String>,
    pub type_name: Option<String>,
    /// global, stack or heap; else the mapping.
    pub home: String,
    /// Bytes into what `path` names, or else `symbol+8`, `[heap]+0x40`.
    offset: u64,
    else_at: Option<String>,
}

impl Named {
    pub fn of(program: &Program, view: &dyn View, reach: &Reach<'_>, address: u64) -> Self {
        if let Some(place) = reach.place(address) {
            return Self {
                address,
                path: Some(place.path),
                type_name: Some(place.type_name),
                home: place.home.word().to_owned(),
                offset: place.offset,
                else_at: None,
            };
        }
        let mappings = view.mappings();
        let mapping = mappings.iter().find(|mapping| mapping.contains(address));
        let home = match mapping.map(|mapping| mapping.path.as_str()) {
            None => "not mapped",
            Some("") => "anonymous",
            Some(path) => path,
        };
        let symbol = program
            .symbol_at(address)
            .map(|(name, offset)| format!("{name}+{offset}"));
        let start = mapping.map_or(0, |mapping| mapping.start);
        Self {
            address,
            path: None,
            type_name: None,
            home: home.to_owned(),
            offset: 0,
            else_at: Some(symbol.unwrap_or_else(|| format!("{home}+{:#x}", address - start))),
        }
    }

    /// `table[2].next`, `list->key+2`, `environ+0`, `[heap]+0x40`.
    pub fn text(&self) -> String {
        match (&self.path, &self.else_at) {
            (Some(path), _) if self.offset == 0 => path.clone(),
            (Some(path), _) => format!("{path}+{}", self.offset),
            (None, Some(other)) => other.clone(),
            (None, None) => format!("{:#x}", self.address),
        }
    }

    /// `{"address", "name", "path", "type", "home"}`.
    pub fn to_json(&self) -> Json {
        json!({
            "address": format!("{:#x}", self.address),
            "name": self.text(),
            "path": self.path,
            "type": self.type_name,
            "home": self.home,
        })
    }
}
