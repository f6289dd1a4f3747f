//! Queries as they are typed.

use libsls::EpochRef;

use super::{Query, Standpoint};

/// What can be typed.
#[derive(Debug)]
pub struct Form {
    pub name: &'static str,
    pub arguments: &'static str,
    pub help: &'static str,
}

pub const FORMS: &[Form] = &[
    Form {
        name: "timeline",
        arguments: "EXPR [@A..@B]",
        help: "the value at every checkpoint of the branch",
    },
    Form {
        name: "changes",
        arguments: "EXPR [@A..@B]",
        help: "the checkpoints at which the value changed",
    },
    Form {
        name: "bisect",
        arguments: "EXPR [@GOOD @BAD]",
        help: "the first checkpoint at which a condition has turned",
    },
    Form {
        name: "diff",
        arguments: "[@A [@B]]",
        help: "all that differs between two checkpoints",
    },
    Form {
        name: "scan",
        arguments: "VALUE [TYPE] [@N] [then @M VALUE|changed|unchanged|more|less]...",
        help: "search memory for a value",
    },
    Form {
        name: "blame",
        arguments: "EXPR",
        help: "since when each part of a value is what it is",
    },
    Form {
        name: "refs",
        arguments: "EXPR|0xADDRESS [along]",
        help: "who points at an object; along: at every checkpoint",
    },
    Form {
        name: "heap",
        arguments: "[@A]",
        help: "the heap by type, and what has grown since @A",
    },
];

impl Query {
    /// The query that a verb and what follows it mean; None where the verb is none of a query.
    ///
    /// # Errors
    /// What is wrong with the rest.
    pub fn parse(verb: &str, rest: &str, from: &Standpoint) -> Option<Result<Self, String>> {
        let form = FORMS.iter().find(|form| form.name == verb)?;
        let usage = || format!("write `:{} {}`", form.name, form.arguments);
        Some(parsed(verb, rest.trim(), from).ok_or_else(usage))
    }
}

fn parsed(verb: &str, rest: &str, from: &Standpoint) -> Option<Query> {
    let words: Vec<&str> = rest.split_whitespace().collect();
    let here = || EpochRef::Number(from.epoch);
    Some(match verb {
        "timeline" | "changes" => {
            let (expr, range) = match rest.rsplit_once(char::is_whitespace) {
                Some((expr, last)) if last.starts_with('@') => (expr, Some(range(last)?)),
                _ => (rest, None),
            };
            Query::Timeline {
                expr: some(expr)?,
                changes: verb == "changes",
                range,
            }
        }
        "bisect" => match words[..] {
            [.., good, bad] if good.starts_with('@') && bad.starts_with('@') => Query::Bisect {
                expr: some(rest.rsplitn(3, char::is_whitespace).nth(2)?)?,
                good: good.parse().ok()?,
                bad: bad.parse().ok()?,
            },
            // From the base to here: what one has just seen go wrong.
            _ => Query::Bisect {
                expr: some(rest)?,
                good: EpochRef::Number(from.base?),
                bad: here(),
            },
        },
        "diff" => match words[..] {
            [] => Query::Diff {
                old: EpochRef::Number(from.base?),
                new: here(),
            },
            [old] => Query::Diff {
                old: old.parse().ok()?,
                new: here(),
            },
            [old, new] => Query::Diff {
                old: old.parse().ok()?,
                new: new.parse().ok()?,
            },
            _ => return None,
        },
        "scan" => return scan(&words, from),
        "blame" => Query::Blame { expr: some(rest)? },
        "refs" => {
            let along = rest.strip_suffix(" along");
            Query::Refs {
                expr: some(along.unwrap_or(rest))?,
                along: along.is_some(),
            }
        }
        "heap" => Query::Heap {
            at: here(),
            base: match words[..] {
                [] => from.base.map(EpochRef::Number),
                [base] => Some(base.parse().ok()?),
                _ => return None,
            },
        },
        _ => return None,
    })
}

fn some(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

fn range(text: &str) -> Option<(EpochRef, EpochRef)> {
    let (first, last) = text.split_once("..")?;
    Some((first.parse().ok()?, last.parse().ok()?))
}

fn scan(words: &[&str], from: &Standpoint) -> Option<Query> {
    let mut parts = words.split(|word| *word == "then");
    let (value, rest) = parts.next()?.split_first()?;
    let (mut kind, mut at) = (Vec::new(), EpochRef::Number(from.epoch));
    for word in rest {
        if word.starts_with('@') {
            at = word.parse().ok()?;
        } else {
            kind.push(*word);
        }
    }
    let mut then = Vec::new();
    for part in parts {
        let [epoch, condition] = part else {
            return None;
        };
        then.push((epoch.parse().ok()?, (*condition).to_owned()));
    }
    Some(Query::Scan {
        value: (*value).to_owned(),
        kind: (!kind.is_empty()).then(|| kind.join(" ")),
        at,
        then,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(line: &str) -> Option<Query> {
        let from = Standpoint {
            epoch: 9,
            base: Some(4),
            ..Standpoint::default()
        };
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        Query::parse(verb, rest, &from)?.ok()
    }

    #[test]
    fn what_is_left_out_is_here_and_the_base() {
        let number = EpochRef::Number;
        let diff = |old, new| {
            Some(Query::Diff {
                old: number(old),
                new: number(new),
            })
        };
        assert_eq!(query("diff"), diff(4, 9));
        assert_eq!(query("diff @2"), diff(2, 9));
        assert_eq!(query("diff @2 @3"), diff(2, 3));
        assert_eq!(query("diff @2 @3 @4"), None);
        let bisect = |expr: &str, good, bad| {
            Some(Query::Bisect {
                expr: expr.into(),
                good: number(good),
                bad: number(bad),
            })
        };
        assert_eq!(query("bisect a > 3"), bisect("a > 3", 4, 9));
        assert_eq!(query("bisect a > 3 @1 @7"), bisect("a > 3", 1, 7));
    }

    #[test]
    fn expressions_may_have_spaces_and_ranges_end_them() {
        assert_eq!(
            query("changes a + b @2..@-1"),
            Some(Query::Timeline {
                expr: "a + b".into(),
                changes: true,
                range: Some((EpochRef::Number(2), EpochRef::FromEnd(1))),
            })
        );
        assert_eq!(query("timeline"), None);
        assert_eq!(
            query("scan 42 unsigned long then @3 more then @5 44"),
            Some(Query::Scan {
                value: "42".into(),
                kind: Some("unsigned long".into()),
                at: EpochRef::Number(9),
                then: vec![
                    (EpochRef::Number(3), "more".into()),
                    (EpochRef::Number(5), "44".into())
                ],
            })
        );
        assert_eq!(
            query("refs list along"),
            Some(Query::Refs {
                expr: "list".into(),
                along: true
            })
        );
        assert!(Query::parse("nothing", "", &Standpoint::default()).is_none());
    }
}
