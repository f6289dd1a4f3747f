//! What may name a partition or a checkpoint: it becomes a folder, a line of a table, a reference.

use libsls::protocol::Failure;

use crate::registry::Refusal;

const LONGEST_PARTITION: usize = 64;
const LONGEST_CHECKPOINT: usize = 128;
/// Of a name that is refused so much is shown.
const SHOWN: usize = 80;

/// May it name a partition?
pub fn partition(name: &str) -> Result<(), Refusal> {
    let fine = !name.starts_with('.') && !name.contains('/');
    if fine && is_plain(name, LONGEST_PARTITION) {
        return Ok(());
    }
    Err(Refusal::new(
        Failure::Usage,
        format!(
            "\"{}\" cannot name a partition: up to {LONGEST_PARTITION} bytes, no slash, no leading dot, nothing that does not print",
            shown(name)
        ),
    ))
}

/// May it name a checkpoint?
pub fn checkpoint(name: Option<&str>) -> Result<(), Refusal> {
    match name {
        Some(name) if !is_plain(name, LONGEST_CHECKPOINT) => Err(Refusal::new(
            Failure::Usage,
            format!(
                "\"{}\" cannot name a checkpoint: up to {LONGEST_CHECKPOINT} bytes, nothing that does not print",
                shown(name)
            ),
        )),
        _ => Ok(()),
    }
}

fn is_plain(name: &str, longest: usize) -> bool {
    !name.is_empty() && name.len() <= longest && !name.contains(char::is_control)
}

/// As much of a name as an error needs.
pub fn shown(name: &str) -> String {
    let plain = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let mut shown: String = name.chars().take(SHOWN).map(plain).collect();
    if name.chars().nth(SHOWN).is_some() {
        shown.push_str("...");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_name() {
        let long = "x".repeat(LONGEST_PARTITION + 1);
        for bad in [
            "",
            "..",
            ".journals",
            "a/b",
            "../../x",
            "a\0",
            "a\n",
            "\x1b[2J",
            &long,
        ] {
            let refusal = partition(bad).unwrap_err();
            assert_eq!(refusal.kind, Failure::Usage, "{bad:?}");
        }
        for good in ["mem", "5", "caf\u{e9} 2", "live-3-4"] {
            assert!(partition(good).is_ok(), "{good}");
        }
        assert!(checkpoint(None).is_ok() && checkpoint(Some("before")).is_ok());
        let megabyte = "\x07".repeat(1 << 20);
        let refusal = checkpoint(Some(&megabyte)).unwrap_err();
        assert!(refusal.message.len() < 1000, "{}", refusal.message.len());
    }
}
