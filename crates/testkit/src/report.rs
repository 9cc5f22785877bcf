//! Rows of a benchmark, printed and written as JSON: `{"conditions": {…}, "rows": [{name, value,
//! unit, goal, met}]}`.

use serde_json::{Value, json};
use std::path::Path;

/// One figure.
#[derive(Clone, Debug)]
pub struct Row {
    name: String,
    value: f64,
    unit: &'static str,
    goal: f64,
}

/// A report: conditions and rows.
#[derive(Clone, Debug, Default)]
pub struct Report {
    conditions: serde_json::Map<String, Value>,
    rows: Vec<Row>,
}

impl Report {
    /// Notes under which condition the figures hold.
    pub fn condition(&mut self, name: &str, value: impl Into<Value>) {
        self.conditions.insert(name.to_owned(), value.into());
    }

    /// Adds a figure whose goal is to be at most `goal`.
    pub fn at_most(&mut self, name: &str, value: f64, unit: &'static str, goal: f64) {
        let met = if value <= goal { "met" } else { "MISSED" };
        println!("{name:<58} {value:>10.2} {unit:<4} goal {goal:>7} {met}");
        self.rows.push(Row {
            name: name.to_owned(),
            value,
            unit,
            goal,
        });
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
                    "met": row.value <= row.goal,
                })
            })
            .collect();
        json!({ "conditions": self.conditions, "rows": rows })
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

/// The middle one of several values.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
