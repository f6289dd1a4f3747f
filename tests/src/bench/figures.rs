//! Medians, and how figures are written.

/// Measured values of one kind.
#[derive(Debug, Clone, Default)]
pub struct Figures(Vec<u64>);

impl Figures {
    /// One more.
    pub fn add(&mut self, value: u64) {
        self.0.push(value);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// None when nothing was measured.
    pub fn median(&self) -> Option<u64> {
        self.at(50)
    }

    /// See [`Figures::median`].
    pub fn p99(&self) -> Option<u64> {
        self.at(99)
    }

    fn at(&self, percent: usize) -> Option<u64> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let last = sorted.len().checked_sub(1)?;
        sorted.get(last * percent / 100).copied()
    }
}

impl FromIterator<u64> for Figures {
    fn from_iter<T: IntoIterator<Item = u64>>(values: T) -> Self {
        Self(values.into_iter().collect())
    }
}

/// Nanoseconds as milliseconds with three digits.
pub fn ms(ns: Option<u64>) -> String {
    ns.map_or_else(
        || "-".to_owned(),
        |ns| format!("{}.{:03}", ns / 1_000_000, ns / 1000 % 1000),
    )
}

/// `a` to `b` with one digit.
pub fn ratio(a: Option<u64>, b: Option<u64>) -> String {
    match (a, b.filter(|&b| b > 0)) {
        (Some(a), Some(b)) => {
            let tenths = a.saturating_mul(10) / b;
            format!("{}.{}", tenths / 10, tenths % 10)
        }
        _ => "-".to_owned(),
    }
}

/// Bytes with a unit that loses nothing much.
pub fn size(bytes: u64) -> String {
    match bytes {
        0..10_240 => format!("{bytes} B"),
        10_240..10_485_760 => format!("{} KiB", bytes >> 10),
        _ => format!("{} MiB", bytes >> 20),
    }
}

/// One row of a table.
pub fn row<S: AsRef<str>>(cells: &[S]) {
    let cells: Vec<&str> = cells.iter().map(AsRef::as_ref).collect();
    println!("| {} |", cells.join(" | "));
}

/// The head of a table.
pub fn head(cells: &[&str]) {
    println!();
    row(cells);
    println!("|{}", "---|".repeat(cells.len()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(Figures::default().median(), None);
        let figures: Figures = (1..=101).collect();
        assert_eq!((figures.median(), figures.p99()), (Some(51), Some(100)));
    }

    #[test]
    fn texts() {
        assert_eq!(ms(Some(1_234_567)), "1.234");
        assert_eq!(ratio(Some(15), Some(10)), "1.5");
        assert_eq!(ratio(Some(1), Some(0)), "-");
        assert_eq!(
            (size(4096), size(65536), size(100 << 20)),
            ("4096 B".into(), "64 KiB".into(), "100 MiB".into())
        );
    }
}
