//! Tables, sizes and ages for people.

use std::io::{self, Write};
use std::time::Duration;

use cob_protocol::time::{Clock, SystemClock, Timestamp};
use serde_json::Value;

/// What stands where nothing is known.
const NONE: &str = "-";

/// Rows of text under a head. Columns are as wide as what is in them; those of figures stand to the right.
#[derive(Debug)]
pub(crate) struct Table<const N: usize> {
    head: [&'static str; N],
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    /// A head that begins with `>` is that of a column of figures.
    pub(crate) fn new(head: [&'static str; N]) -> Self {
        Self { head, rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, row: [String; N]) {
        self.rows.push(row.map(|cell| if cell.is_empty() { NONE.to_owned() } else { inert(&cell) }));
    }

    /// The lines, head first.
    pub(crate) fn lines(&self) -> Vec<String> {
        let heads = self.head.map(|head| head.trim_start_matches('>').to_owned());
        let widths: [usize; N] = std::array::from_fn(|column| {
            let cells = self.rows.iter().chain([&heads]).filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        });
        [&heads].into_iter().chain(&self.rows).map(|row| self.line(row, &widths)).collect()
    }

    pub(crate) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        self.lines().iter().try_for_each(|line| writeln!(out, "{line}"))
    }

    fn line(&self, row: &[String; N], widths: &[usize; N]) -> String {
        let cells = row.iter().zip(widths).zip(self.head).map(|((cell, width), head)| {
            if head.starts_with('>') { format!("{cell:>width$}") } else { format!("{cell:width$}") }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    }
}

/// A client's text, without what would move the cursor or break the line.
pub(crate) fn inert(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Bytes, with three digits at most.
pub(crate) fn size(bytes: u64) -> String {
    let mut figure = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if figure < 1000.0 {
            let is_round = unit == "B" || figure >= 9.95;
            return if is_round { format!("{figure:.0} {unit}") } else { format!("{figure:.1} {unit}") };
        }
        figure /= 1024.0;
    }
    format!("{figure:.1} TiB")
}

/// `1 variable`, `2 variables`
pub(crate) fn counted(count: impl TryInto<u64>, what: &str) -> String {
    let count = count.try_into().unwrap_or(u64::MAX);
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// A time span in its two largest units.
pub(crate) fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 if time.as_millis() < 1 => "0s".to_owned(),
        0 => format!("{}ms", time.as_millis()),
        1..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// How long ago a time was that a server wrote; empty when there is none.
pub(crate) fn age(time: &Value) -> String {
    since(time).map(span).unwrap_or_default()
}

/// The time that has passed since.
pub(crate) fn since(time: &Value) -> Option<Duration> {
    let then: Timestamp = time.as_str()?.parse().ok()?;
    let micros = SystemClock.now().micros().saturating_sub(then.micros());
    Some(Duration::from_micros(u64::try_from(micros).unwrap_or(0)))
}

/// A text or a figure of a document; empty when there is none.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_as_wide_as_its_widest_cells_and_inert() {
        let mut table = Table::new(["ID", ">QUEUE", "NAME"]);
        table.row(["s1".into(), "1000000".into(), "a\x1b[2J".into()]);
        table.row(["s1000".into(), "2".into(), String::new()]);
        let expected = ["ID       QUEUE  NAME", "s1     1000000  a\u{fffd}[2J", "s1000        2  -"];
        assert_eq!(table.lines(), expected);
    }

    #[test]
    fn sizes_and_spans_are_short() {
        let sizes = [0, 999, 1000, 10 * 1024, 1536 * 1024, 1 << 40].map(size);
        assert_eq!(sizes, ["0 B", "999 B", "1.0 KiB", "10 KiB", "1.5 MiB", "1.0 TiB"]);
        let spans = [0, 250, 59_000, 61_000, 3_600_000, 90_000_000].map(|ms| span(Duration::from_millis(ms)));
        assert_eq!(spans, ["0s", "250ms", "59s", "1m01s", "1h00m", "1d01h"]);
    }

    #[test]
    fn an_age_is_that_of_a_time_and_nothing_else() {
        let then = SystemClock.now().after_ms(-90_500).to_string();
        assert_eq!(age(&Value::from(then)), "1m30s");
        assert_eq!(age(&Value::Null), "");
        assert_eq!(age(&Value::from("yesterday")), "");
        // Clocks differ: what is yet to come has only just been.
        assert_eq!(age(&Value::from(SystemClock.now().after_ms(90_000).to_string())), "0s");
    }
}
