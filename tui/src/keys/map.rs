//! Keys to actions: the table's, changed by the user's file.

use super::notation::{parse, shown};
use super::{Action, Key, TABLE};

/// What has been typed so far means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    Action(Action),
    /// The beginning of something.
    Prefix,
    Nothing,
}

/// All bindings, in the order of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keymap {
    bindings: Vec<(Vec<Key>, Action)>,
}

impl Default for Keymap {
    fn default() -> Self {
        let of = |keys: &'static str, action| (parse(keys).unwrap_or_default(), action);
        let bindings = TABLE
            .iter()
            .flat_map(|entry| entry.keys.iter().map(move |keys| of(keys, entry.action)));
        Self {
            bindings: bindings.collect(),
        }
    }
}

impl Keymap {
    pub fn meaning(&self, typed: &[Key]) -> Meaning {
        let exact = self.bindings.iter().find(|(keys, _)| keys == typed);
        if let Some((_, action)) = exact {
            return Meaning::Action(*action);
        }
        let longer = self
            .bindings
            .iter()
            .any(|(keys, _)| keys.starts_with(typed));
        if longer {
            Meaning::Prefix
        } else {
            Meaning::Nothing
        }
    }

    /// The keys of an action, as they are written.
    pub fn keys_of(&self, action: Action) -> Vec<String> {
        let of = self.bindings.iter().filter(|(_, bound)| *bound == action);
        of.map(|(keys, _)| shown(keys)).collect()
    }

    /// What may follow a prefix, as text and action.
    pub fn after(&self, typed: &[Key]) -> Vec<(String, Action)> {
        let longer = self.bindings.iter().filter_map(|(keys, action)| {
            let rest = keys.strip_prefix(typed).filter(|rest| !rest.is_empty())?;
            Some((shown(rest), *action))
        });
        longer.collect()
    }

    /// Makes keys mean an action, or nothing. Whatever they or their beginnings meant is gone.
    ///
    /// # Errors
    /// The keys are none, or quitting would be left without a key.
    pub fn bind(&mut self, keys: &str, action: Option<Action>) -> Result<(), String> {
        let keys = parse(keys)?;
        if keys.is_empty() {
            return Err("no keys are named".to_owned());
        }
        let mut changed = self.bindings.clone();
        changed.retain(|(known, _)| !known.starts_with(&keys) && !keys.starts_with(known));
        changed.extend(action.map(|action| (keys, action)));
        if !changed.iter().any(|(_, action)| *action == Action::Quit) {
            return Err("then no key would quit any more".to_owned());
        }
        self.bindings = changed;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_whole_and_no_key_means_two_things() {
        let map = Keymap::default();
        for entry in TABLE {
            assert!(!entry.help.is_empty() && !entry.name.is_empty());
            for keys in entry.keys {
                let keys = parse(keys).unwrap();
                assert_eq!(
                    map.meaning(&keys),
                    Meaning::Action(entry.action),
                    "{keys:?}"
                );
                for end in 1..keys.len() {
                    assert_eq!(map.meaning(&keys[..end]), Meaning::Prefix, "{keys:?}");
                }
            }
            assert_eq!(Action::named(entry.name), Some(entry.action));
        }
    }

    #[test]
    fn keys_are_bound_anew() {
        let mut map = Keymap::default();
        map.bind("gx", Some(Action::Quit)).unwrap();
        assert_eq!(
            map.meaning(&parse("gx").unwrap()),
            Meaning::Action(Action::Quit)
        );
        // A key of its own takes the place of all that began with it.
        map.bind("g", Some(Action::Help)).unwrap();
        assert_eq!(
            map.meaning(&parse("g").unwrap()),
            Meaning::Action(Action::Help)
        );
        assert_eq!(map.meaning(&parse("gd").unwrap()), Meaning::Nothing);
        map.bind("q", None).unwrap();
        assert!(map.bind("<C-c>", None).is_err(), "one way out stays");
    }
}
