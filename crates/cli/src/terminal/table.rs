//! Tables padded with spaces, as operators and their scripts read them by column.

use super::{Tone, paint};
use std::cmp::Ordering;

/// One cell.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cell {
    text: String,
    tone: Tone,
    /// What it sorts by, where the text would mislead (sizes).
    number: Option<f64>,
}

impl Cell {
    /// A cell with this text.
    pub fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            ..Self::default()
        }
    }

    /// The same, coloured.
    #[must_use]
    pub fn tone(mut self, tone: Tone) -> Self {
        self.tone = tone;
        self
    }

    /// The same, sorted by this number.
    #[must_use]
    pub fn sorted_by(mut self, number: f64) -> Self {
        self.number = Some(number);
        self
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// A table with a title.
#[derive(Clone, Debug)]
pub struct Table {
    /// What stands above it, such as `CLUSTER NODES:`; empty: nothing.
    pub title: &'static str,
    columns: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table without rows.
    #[must_use]
    pub fn new(title: &'static str, columns: Vec<&'static str>) -> Self {
        Self {
            title,
            columns,
            rows: Vec::new(),
        }
    }

    /// Adds a row; one that is too short or too long is a programming error and is cut or padded.
    pub fn push(&mut self, mut row: Vec<Cell>) {
        debug_assert_eq!(
            row.len(),
            self.columns.len(),
            "row and columns of {}",
            self.title
        );
        row.resize(self.columns.len(), Cell::default());
        self.rows.push(row);
    }

    /// Names of the columns.
    #[must_use]
    pub fn columns(&self) -> &[&'static str] {
        &self.columns
    }

    /// Sorts by a column, if the table has it: numbers by value, also inside of words, so that
    /// `node:10` follows `node:2`. Rows that are equal there keep their order.
    pub fn sort_by(&mut self, column: &str) {
        let Some(index) = self
            .columns
            .iter()
            .position(|c| c.eq_ignore_ascii_case(column))
        else {
            return;
        };
        self.rows.sort_by(|a, b| compare(&a[index], &b[index]));
    }

    /// The table as text: title, column names, rows; each line ends with a line feed.
    #[must_use]
    pub fn render(&self, colours: bool) -> String {
        let width = |index: usize| {
            let cells = self.rows.iter().map(|row| row[index].text.chars().count());
            cells.chain([self.columns[index].len()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let mut out = String::new();
        if !self.title.is_empty() {
            out.push_str(self.title);
            out.push('\n');
        }
        let names: Vec<Cell> = self.columns.iter().map(|name| Cell::new(*name)).collect();
        for row in std::iter::once(&names).chain(&self.rows) {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                let padding = width - cell.text.chars().count() + 1;
                line.push_str(&paint(
                    &cell.text,
                    cell.tone,
                    colours && !cell.text.is_empty(),
                ));
                line.extend(std::iter::repeat_n(' ', padding));
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

fn compare(a: &Cell, b: &Cell) -> Ordering {
    match (a.number, b.number) {
        (Some(a), Some(b)) => a.total_cmp(&b),
        _ => natural(&a.text, &b.text),
    }
}

/// Orders text with the numbers in it by value. A leading `*` (the local node) does not count.
fn natural(a: &str, b: &str) -> Ordering {
    let mut a = a.trim_start_matches('*').as_bytes();
    let mut b = b.trim_start_matches('*').as_bytes();
    loop {
        let (Some(&x), Some(&y)) = (a.first(), b.first()) else {
            return a.len().cmp(&b.len());
        };
        if x.is_ascii_digit() && y.is_ascii_digit() {
            let (m, rest_a) = number(a);
            let (n, rest_b) = number(b);
            if m != n {
                return m.cmp(&n);
            }
            (a, b) = (rest_a, rest_b);
        } else if x != y {
            return x.cmp(&y);
        } else {
            (a, b) = (&a[1..], &b[1..]);
        }
    }
}

fn number(bytes: &[u8]) -> (u128, &[u8]) {
    let end = bytes
        .iter()
        .position(|b| !b.is_ascii_digit())
        .unwrap_or(bytes.len());
    let value = bytes[..end].iter().fold(0u128, |sum, b| {
        sum.saturating_mul(10).saturating_add(u128::from(b - b'0'))
    });
    (value, &bytes[end..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new("NODES:", vec!["NODE:ID", "FREE", "STATUS"]);
        for (id, free, status) in [
            ("node:10", 2.0, "OK"),
            ("*node:2", 10.0, "DOWN, last seen 3s ago"),
            ("node:1", 1.0, ""),
        ] {
            table.push(vec![
                Cell::new(id),
                Cell::new(format!("{free}GB")).sorted_by(free),
                Cell::new(status).tone(Tone::Bad),
            ]);
        }
        table
    }

    #[test]
    fn pads_without_trailing_spaces() {
        assert_eq!(
            table().render(false),
            "NODES:\n\
             NODE:ID FREE STATUS\n\
             node:10 2GB  OK\n\
             *node:2 10GB DOWN, last seen 3s ago\n\
             node:1  1GB\n"
        );
    }

    #[test]
    fn colours_do_not_move_columns() {
        let plain = table().render(false);
        let coloured = table().render(true);
        assert!(coloured.contains("\x1b[31mOK\x1b[0m"));
        let stripped = coloured.replace("\x1b[31m", "").replace("\x1b[0m", "");
        assert_eq!(
            stripped.lines().map(str::trim_end).collect::<Vec<_>>(),
            plain.lines().collect::<Vec<_>>()
        );
    }

    #[test]
    fn sorts_numbers_by_value() {
        let mut table = table();
        table.sort_by("node:id");
        let order = |t: &Table| t.rows.iter().map(|r| r[0].text.clone()).collect::<Vec<_>>();
        assert_eq!(order(&table), ["node:1", "*node:2", "node:10"]);
        table.sort_by("FREE");
        assert_eq!(order(&table), ["node:1", "node:10", "*node:2"]);
        table.sort_by("no such column");
        assert_eq!(order(&table), ["node:1", "node:10", "*node:2"]);
    }
}
