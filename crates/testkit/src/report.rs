//! Rows of a benchmark, printed and written as JSON: `{"conditions": {…}, "rows": [{name, value,
//! unit, goal, met}]}`, and whatever else a benchmark measured under `details`.

use serde_json::{Value, json};
use std::path::Path;

/// Which side of its goal a figure should be on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Side {
    /// At most the goal.
    AtMost,
    /// At least the goal.
    AtLeast,
}

/// One figure.
#[derive(Clone, Debug)]
pub struct Row {
    /// What it is.
    pub name: String,
    /// The figure.
    pub value: f64,
    /// Its unit; empty for a ratio.
    pub unit: &'static str,
    /// The goal.
    pub goal: f64,
    /// Which side of it is good.
    pub side: Side,
}

impl Row {
    /// Whether the goal is met.
    #[must_use]
    pub fn met(&self) -> bool {
        match self.side {
            Side::AtMost => self.value <= self.goal,
            Side::AtLeast => self.value >= self.goal,
        }
    }
}

/// A report: conditions and rows.
#[derive(Clone, Debug, Default)]
pub struct Report {
    conditions: serde_json::Map<String, Value>,
    rows: Vec<Row>,
    details: Option<Value>,
}

impl Report {
    /// Notes under which condition the figures hold.
    pub fn condition(&mut self, name: &str, value: impl Into<Value>) {
        self.conditions.insert(name.to_owned(), value.into());
    }

    /// Adds a figure whose goal is to be at most `goal`.
    pub fn at_most(&mut self, name: &str, value: f64, unit: &'static str, goal: f64) {
        self.row(name, value, unit, goal, Side::AtMost);
    }

    /// Adds a figure whose goal is to be at least `goal`.
    pub fn at_least(&mut self, name: &str, value: f64, unit: &'static str, goal: f64) {
        self.row(name, value, unit, goal, Side::AtLeast);
    }

    fn row(&mut self, name: &str, value: f64, unit: &'static str, goal: f64, side: Side) {
        let row = Row {
            name: name.to_owned(),
            value,
            unit,
            goal,
            side,
        };
        let met = if row.met() { "met" } else { "MISSED" };
        println!("{name:<58} {value:>10.2} {unit:<4} goal {goal:>7} {met}");
        self.rows.push(row);
    }

    /// Adds what has no goal.
    pub fn details(&mut self, value: Value) {
        self.details = Some(value);
    }

    /// The conditions.
    #[must_use]
    pub const fn conditions(&self) -> &serde_json::Map<String, Value> {
        &self.conditions
    }

    /// The rows.
    #[must_use]
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// As JSON.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| {
                json!({
                    "name": row.name, "value": row.value, "unit": row.unit, "goal": row.goal,
                    "met": row.met(),
                })
            })
            .collect();
        let mut whole = json!({ "conditions": self.conditions, "rows": rows });
        if let Some(details) = &self.details {
            whole["details"] = details.clone();
        }
        whole
    }

    /// Writes the JSON.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        Ok(std::fs::write(
            path,
            serde_json::to_vec_pretty(&self.to_json())?,
        )?)
    }
}

/// The middle one of several values, or the mean of the two middle ones.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.len() % 2, sorted.get(middle)) {
        (_, None) => f64::NAN,
        (0, Some(upper)) => f64::midpoint(sorted[middle - 1], *upper),
        (_, Some(value)) => *value,
    }
}

#[cfg(test)]
mod tests {
    use super::{Report, median};

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn a_goal_has_a_side() {
        let mut report = Report::default();
        report.at_most("memory", 2.0, "MB", 1.0);
        report.at_least("rate", 2.0, "", 1.0);
        let met: Vec<bool> = report.rows().iter().map(super::Row::met).collect();
        assert_eq!(met, [false, true]);
        assert_eq!(report.to_json()["rows"][1]["met"], true);
    }
}
