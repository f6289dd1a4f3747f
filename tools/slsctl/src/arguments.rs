//! Arguments that several verbs share, each with its written form.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use introspect::{Context, FrameSelector, Limits};
use libsls::protocol::{Keep, MEMORY_PARTITION};
use libsls::{EpochRef, partition_name};

/// Which partition.
#[derive(Debug, Clone, Default, Args)]
#[group(skip)]
pub struct PartArg {
    /// The partition, by name or number; may be left out while there is only one
    #[arg(short = 'o', value_name = "PART", conflicts_with = "memory")]
    part: Option<String>,
    /// The memory partition, `mem`
    #[arg(short = 'm')]
    memory: bool,
}

impl PartArg {
    /// As given by `-o`.
    pub fn of_name(name: &str) -> Self {
        Self {
            part: Some(name.to_owned()),
            memory: false,
        }
    }

    /// The name given, None when none was.
    pub fn name(&self) -> Option<String> {
        if self.memory {
            return Some(MEMORY_PARTITION.1.to_owned());
        }
        self.part.as_deref().map(partition_name)
    }

    /// The name given, else `mem`.
    pub fn name_or_memory(&self) -> String {
        self.name().unwrap_or_else(|| MEMORY_PARTITION.1.to_owned())
    }
}

/// Which process of which partition.
#[derive(Debug, Clone, Default, Args)]
#[group(skip)]
pub struct ProcessArg {
    #[command(flatten)]
    pub part: PartArg,
    /// Which process, where the partition has several [default: the root]
    #[arg(long, value_name = "PID", value_parser = pid)]
    pub pid: Option<i32>,
}

/// Which thread and frame.
#[derive(Debug, Clone, Default, Args)]
#[group(skip)]
pub struct FrameArg {
    /// The thread [default: the one that stopped, else the main one]
    #[arg(long, value_name = "TID")]
    tid: Option<u32>,
    /// The frame, by number or function name [default: the innermost that has source]
    #[arg(long, value_name = "F", value_parser = frame)]
    frame: Option<FrameSelector>,
    /// Show up to N elements of a container
    #[arg(long, value_name = "N", default_value_t = Limits::default().elements)]
    pub max: usize,
}

impl FrameArg {
    pub fn tid(&self) -> Option<u32> {
        self.tid
    }

    /// As it is written.
    pub fn frame(&self) -> Option<String> {
        self.frame.as_ref().map(|frame| match frame {
            FrameSelector::Index(index) => index.to_string(),
            FrameSelector::Function(name) => name.clone(),
            FrameSelector::Default => String::new(),
        })
    }

    /// As introspection takes it.
    pub fn context(&self) -> Context {
        Context {
            tid: self.tid,
            frame: self.frame.clone().unwrap_or_default(),
            limits: Limits { elements: self.max },
        }
    }
}

fn frame(text: &str) -> Result<FrameSelector, String> {
    Ok(match text.parse() {
        Ok(index) => FrameSelector::Index(index),
        Err(_) if text.is_empty() => return Err("a frame is a number or a function".into()),
        Err(_) => FrameSelector::Function(text.to_owned()),
    })
}

/// What is looked at: a checkpoint, a live process, a core.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Checkpoint(EpochRef),
    Live(i32),
    Core(PathBuf),
}

impl Place {
    /// The newest checkpoint of the current branch.
    pub const NEWEST: Self = Self::Checkpoint(EpochRef::FromEnd(1));

    /// Whether a word is meant as a place and not as an expression: `core::x` is a path of Rust.
    fn is_meant(word: &str) -> bool {
        let core = word
            .strip_prefix("core:")
            .is_some_and(|rest| !rest.starts_with(':'));
        core || word.starts_with('@') || word.starts_with("pid:")
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(number) = text.strip_prefix("pid:") {
            return pid(number).map(Self::Live);
        }
        match text.strip_prefix("core:") {
            Some("") => Err("core: wants a file, as core:FILE".to_owned()),
            Some(path) => Ok(Self::Core(path.into())),
            None if text.starts_with('@') => text
                .parse()
                .map(Self::Checkpoint)
                .map_err(|e: libsls::ReferenceError| e.to_string()),
            None => Err("write @7, @name, @-1 (the newest), pid:1234 or core:FILE".to_owned()),
        }
    }
}

/// Takes the place out of a verb's words: the first that is meant as one, else the newest
/// checkpoint.
pub fn split_place(words: &[String]) -> Result<(Place, Vec<&str>), WrongUsage> {
    let mut rest: Vec<&str> = words.iter().map(String::as_str).collect();
    let place = match rest.iter().position(|word| Place::is_meant(word)) {
        Some(at) => rest.remove(at).parse().map_err(WrongUsage)?,
        None => Place::NEWEST,
    };
    Ok((place, rest))
}

/// `@A..@B`; an end left out is that of the branch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Range {
    pub from: Option<EpochRef>,
    pub to: Option<EpochRef>,
}

impl Range {
    /// Whether a word is meant as a range and not as an expression.
    pub fn is_meant(word: &str) -> bool {
        word.contains("..") && (word.starts_with('@') || word.starts_with("..@"))
    }
}

impl FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let end = |part: &str| match part {
            "" => Ok(None),
            other => other.parse().map(Some),
        };
        // One alone is the range from it to itself.
        let (from, to) = text.split_once("..").unwrap_or((text, text));
        let range = |e: libsls::ReferenceError| e.to_string();
        Ok(Self {
            from: end(from).map_err(range)?,
            to: end(to).map_err(range)?,
        })
    }
}

/// The user asked for something that makes no sense: exit status 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct WrongUsage(pub String);

/// A process id.
pub fn pid(text: &str) -> Result<i32, String> {
    match text.parse() {
        Ok(pid) if pid > 0 => Ok(pid),
        _ => Err(format!("{text:?} is no process id")),
    }
}

/// Bytes, with K, M, G (1024 each).
pub fn size(text: &str) -> Result<u64, String> {
    let bad = || format!("{text:?} is no size: write 4096, 64K, 16M or 2G");
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 10),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 20),
        Some(b'g' | b'G') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad());
    }
    let number: u64 = digits.parse().map_err(|_| bad())?;
    number.checked_mul(1 << shift).ok_or_else(bad)
}

/// An address or a count: decimal, or hexadecimal after 0x.
pub fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// `all`, `last:N`, `log`.
pub fn keep(text: &str) -> Result<Keep, String> {
    let last = |n: &str| n.parse().ok().filter(|n| *n > 0).map(Keep::Last);
    match text {
        "all" => Some(Keep::All),
        "log" => Some(Keep::Log),
        other => other.strip_prefix("last:").and_then(last),
    }
    .ok_or_else(|| format!("{text:?}: write all, last:N or log"))
}

/// The name of a checkpoint: one that a reference can say.
pub fn checkpoint_name(text: &str) -> Result<String, String> {
    let sayable = matches!(format!("@{text}").parse(), Ok(EpochRef::Name(_)));
    if sayable && !text.contains("..") && !text.chars().any(|c| c.is_whitespace() || c.is_control())
    {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "{text:?} cannot name a checkpoint: no number, no leading minus, no spaces, no `..`"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("2K"), Ok(2048));
        assert_eq!(size("3m"), Ok(3 << 20));
        assert_eq!(size("16G"), Ok(16 << 30));
        for bad in ["", "K", "-1", "+1", "1T", "1.5G", "99999999999G"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn places() {
        assert_eq!("@-1".parse(), Ok(Place::NEWEST));
        assert_eq!("pid:12".parse(), Ok(Place::Live(12)));
        assert_eq!("core:a/b".parse(), Ok(Place::Core("a/b".into())));
        for bad in ["7", "pid:", "pid:-1", "core:", "@", "@-0"] {
            assert!(bad.parse::<Place>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_place_is_told_from_an_expression() {
        let words = |line: &str| -> Vec<String> { line.split(' ').map(str::to_owned).collect() };
        let given = words("@3 x");
        let (place, rest) = split_place(&given).unwrap();
        assert_eq!(place, Place::Checkpoint(EpochRef::Number(3)));
        assert_eq!(rest, ["x"]);
        let given = words("x pid:3");
        let (place, rest) = split_place(&given).unwrap();
        assert_eq!((place, rest), (Place::Live(3), vec!["x"]));
        let given = words("core::x");
        let (place, rest) = split_place(&given).unwrap();
        assert_eq!((place, rest), (Place::NEWEST, vec!["core::x"]));
    }

    #[test]
    fn ranges() {
        let at = |n| Some(EpochRef::Number(n));
        let range = |from, to| Ok(Range { from, to });
        assert_eq!("@1..@5".parse(), range(at(1), at(5)));
        assert_eq!("@2..".parse(), range(at(2), None));
        assert_eq!("..@2".parse(), range(None, at(2)));
        assert_eq!(
            "@a..@-1".parse(),
            range(Some(EpochRef::Name("a".into())), Some(EpochRef::FromEnd(1)))
        );
        assert_eq!("@4".parse(), range(at(4), at(4)));
        for bad in ["1", "1..2", "@1...@2"] {
            assert!(bad.parse::<Range>().is_err(), "{bad}");
        }
    }

    #[test]
    fn names_can_be_said() {
        assert!(checkpoint_name("before-fix").is_ok());
        for bad in ["", "7", "-1", "-x", "a b", "a..b"] {
            assert!(checkpoint_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn keeping() {
        assert_eq!(keep("last:3"), Ok(Keep::Last(3)));
        assert_eq!(keep("log"), Ok(Keep::Log));
        assert!(keep("last:0").is_err() && keep("some").is_err());
    }
}
