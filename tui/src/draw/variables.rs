//! The variables tree.

use ratatui::layout::Rect;

use super::{Canvas, first_row, lines};
use crate::clerk::Spark;
use crate::model::Model;
use crate::place::{Pane, Tab};
use crate::variables::{Kind, Row};

/// Types are shown where there is room.
const TYPE_COLUMNS: u16 = 60;

pub fn draw(model: &Model, canvas: &mut Canvas<'_>, area: Rect) {
    let cursor = model.cursors.row(Tab::Variables);
    let first = first_row(model, Tab::Variables, model.rows.len(), area.height);
    if model.rows.is_empty() && !model.filter(Tab::Variables).is_empty() {
        canvas.line(area, &[(" no row has the text", canvas.theme.dim())]);
    }
    for ((number, row), area) in model.rows.iter().enumerate().skip(first).zip(lines(area)) {
        draw_row(row, model.sparks.get(&row.name), canvas, area);
        if number == cursor && model.focus == Pane::Variables {
            canvas.mark(area);
        }
    }
}

fn draw_row(row: &Row, spark: Option<&Spark>, canvas: &mut Canvas<'_>, area: Rect) {
    let theme = canvas.theme;
    let indent = " ".repeat(row.depth * 2);
    let open = |open: bool| if open { "▾ " } else { "▸ " };
    let (marker, group) = match &row.kind {
        Kind::Group { open: is_open, .. } => (open(*is_open), true),
        Kind::Node { open: is_open, .. }
        | Kind::Pointer { open: is_open, .. }
        | Kind::Stretch { open: is_open, .. } => (open(*is_open), false),
        _ => ("  ", false),
    };
    if group {
        canvas.line(
            area,
            &[
                (" ", theme.plain()),
                (marker, theme.group()),
                (&row.name, theme.group()),
            ],
        );
        return;
    }
    let (sign, value) = match row.changed {
        Some(_) => ("*", theme.changed()),
        None => (" ", theme.plain()),
    };
    let of_type = if row.type_name.is_empty() || area.width < TYPE_COLUMNS {
        String::new()
    } else {
        format!(": {}", cut(&row.type_name, usize::from(area.width / 4)))
    };
    let equals = if row.name.is_empty() || row.text.is_empty() {
        ""
    } else {
        " = "
    };
    // Only what is watched has a history at hand; a variable of the same name inside something has none.
    let spark = match spark.filter(|_| row.depth == 1) {
        Some(spark) if row.watched => format!("{} ", line(spark, usize::from(area.width / 4))),
        _ => String::new(),
    };
    let was = match (&row.changed, &row.kind) {
        (Some(was), Kind::Leaf { .. } | Kind::Pointer { .. }) => format!("  was {was}"),
        _ => String::new(),
    };
    canvas.line(
        area,
        &[
            (sign, value),
            (&indent[1..], theme.plain()),
            (marker, theme.plain()),
            (&row.name, theme.name()),
            (&of_type, theme.dim()),
            (equals, theme.plain()),
            (&spark, theme.bar()),
            (&row.text, value),
            (&was, theme.dim()),
        ],
    );
}

/// The latest points of a history: numbers as heights between the lowest and the highest, of other things a mark where
/// they changed.
fn line(spark: &Spark, columns: usize) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let first = spark.points.len().saturating_sub(columns);
    let points = &spark.points[first..];
    let numbers = || points.iter().filter_map(|point| point.number);
    let (low, high) = numbers().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), number| {
        (low.min(number), high.max(number))
    });
    let bar = |number: f64| {
        let share = if high > low {
            (number / 2.0 - low / 2.0) / (high / 2.0 - low / 2.0)
        } else {
            0.0
        };
        let at = BARS
            .iter()
            .enumerate()
            .rfind(|(at, _)| share * 7.0 + 0.5 >= f64::from(u8::try_from(*at).unwrap_or(0)));
        at.map_or(BARS[0], |(_, bar)| *bar)
    };
    let each = points.iter().map(|point| match point.number {
        Some(number) => bar(number),
        None if point.changed => '•',
        None => '─',
    });
    each.collect()
}

/// The beginning of a name: those of generic types are longer than any screen.
fn cut(name: &str, most: usize) -> String {
    match name.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::line;
    use crate::clerk::{Point, Spark};

    #[test]
    fn heights_lie_between_lowest_and_highest() {
        let point = |(epoch, number)| Point {
            epoch,
            number,
            changed: epoch == 2,
        };
        let spark = |numbers: &[Option<f64>]| Spark {
            points: (1u64..).zip(numbers.iter().copied()).map(point).collect(),
        };
        assert_eq!(line(&spark(&[Some(0.0), Some(35.0), Some(70.0)]), 9), "▁▅█");
        assert_eq!(line(&spark(&[Some(5.0), Some(5.0)]), 9), "▁▁");
        assert_eq!(line(&spark(&[None, None, None]), 9), "─•─");
        assert_eq!(line(&spark(&[Some(f64::MIN), Some(f64::MAX)]), 9), "▁█");
        assert_eq!(line(&spark(&[Some(1.0), Some(2.0), Some(3.0)]), 2), "▁█");
    }
}
