//! Text of unknown origin, made safe for a terminal.

use unicode_width::UnicodeWidthChar;

/// One line without anything that a terminal acts on: control characters become their pictures, what turns
/// writing around or has no width becomes a mark.
pub fn clean(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' => safe.push_str("    "),
            '\u{7f}' => safe.push('\u{2421}'),
            '\0'..='\u{1f}' => safe.push(char::from_u32(0x2400 + u32::from(c)).unwrap_or('?')),
            c if c.width().is_none_or(|width| width == 0) || turns(c) => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}

/// Marks that change the direction of writing.
fn turns(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The last path segment of a file.
pub fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// A number of bytes with a unit.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "K", "M", "G", "T"];
    let mut whole = bytes;
    let mut rest = 0;
    let mut unit = 0;
    while whole >= 1024 && unit + 1 < UNITS.len() {
        rest = whole % 1024;
        whole /= 1024;
        unit += 1;
    }
    if unit == 0 || whole >= 10 {
        format!("{whole}{}", UNITS[unit])
    } else {
        format!("{whole}.{}{}", rest * 10 / 1024, UNITS[unit])
    }
}

/// ns as seconds.
pub fn seconds(ns: u64) -> String {
    format!("{}.{:03} s", ns / 1_000_000_000, ns / 1_000_000 % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_reaches_the_terminal_that_it_acts_on() {
        assert_eq!(clean("a\x1b[31m\n\tz"), "a␛[31m␊    z");
        assert_eq!(
            clean("\u{202e}abc\u{200b}\u{9b}"),
            "\u{fffd}abc\u{fffd}\u{fffd}"
        );
        assert_eq!(clean("世界é"), "世界é");
    }

    #[test]
    fn sizes() {
        assert_eq!(size(1023), "1023B");
        assert_eq!(size(1536), "1.5K");
        assert_eq!(size(20 << 20), "20M");
    }
}
