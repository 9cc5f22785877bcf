//! Tables for the terminal and for `docs/benchmarks.md`.

use super::idle::Idle;
use super::options::Kind;
use super::run::Sample;
use super::series::{Samples, Series, Spread};
use serde_json::{Value, json};
use std::fmt::Write as _;
use testkit::report::{Report, Row, Side};

const HEADS: [&str; 11] = [
    "command",
    "target",
    "k req/s",
    "(min–max)",
    "÷ direct",
    "p50 ms",
    "p99 ms",
    "proxy",
    "engine",
    "load",
    "foreign",
];

/// The cells of a line of a load's table.
fn cells(series: &Series, samples: &Samples) -> Vec<String> {
    let number = |of: fn(&Sample) -> f64| samples.figure(of).map_or(f64::NAN, |s| s.median);
    let rate = samples.figure(|sample| sample.rate / 1_000.0);
    let (middle, range) = rate.map_or_else(Default::default, |rate| {
        (
            format!("{:.1}", rate.median),
            format!("({:.1}–{:.1})", rate.least, rate.most),
        )
    });
    let ratio = Spread::of(&series.ratios(samples.kind, Kind::Direct, samples.op))
        .filter(|_| samples.kind != Kind::Direct);
    let mut foreign = format!("{:.2}", number(|sample| sample.foreign + sample.steal));
    if samples.disturbed() > 0 {
        let _ = write!(foreign, " !{}", samples.disturbed());
    }
    vec![
        samples.op.name().to_owned(),
        samples.kind.name().to_owned(),
        middle,
        range,
        ratio.map_or_else(String::new, shown),
        format!("{:.3}", number(|sample| sample.p50)),
        format!("{:.3}", number(|sample| sample.p99)),
        format!("{:.2}", number(|sample| sample.cpu_proxy)),
        format!("{:.2}", number(|sample| sample.cpu_engine)),
        format!("{:.2}", number(|sample| sample.cpu_load)),
        foreign,
    ]
}

fn shown(ratio: Spread) -> String {
    format!("{:.2} [{:.2}–{:.2}]", ratio.median, ratio.least, ratio.most)
}

/// Prints a load's table. The CPU columns are seconds per million requests; `!3`: three runs had
/// foreign load.
pub(crate) fn print(series: &Series) {
    let load = &series.load;
    println!(
        "\n{} ({}; {} bytes, {} requests a run)",
        load.shown, load.name, load.bytes, load.requests
    );
    let mut lines = vec![HEADS.map(str::to_owned).to_vec()];
    lines.extend(series.results.iter().map(|samples| cells(series, samples)));
    let width = |column: usize| {
        lines
            .iter()
            .map(|line| line[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..HEADS.len()).map(width).collect();
    for line in &lines {
        let padded: Vec<String> = line
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(at, (cell, width))| {
                if at < 2 {
                    format!("{cell:<width$}")
                } else {
                    format!("{cell:>width$}")
                }
            })
            .collect();
        println!("  {}", padded.join("  ").trim_end());
    }
}

/// Everything in Markdown, ready to paste.
pub(crate) fn markdown(report: &Report, all: &[Series], idle: &[Idle], notes: &[String]) -> String {
    let mut text = String::new();
    let conditions: Vec<String> = report
        .conditions()
        .iter()
        .map(|(name, value)| match value {
            Value::String(value) => format!("{name}: {value}"),
            other => format!("{name}: {other}"),
        })
        .collect();
    let _ = writeln!(text, "{}\n", conditions.join("; "));
    let _ = writeln!(text, "| what | measured | goal | met |\n|---|---|---|---|");
    for row in report.rows() {
        let _ = writeln!(text, "{}", goal_line(row));
    }
    text.push_str(&ratios(all));
    let _ = writeln!(
        text,
        "\nThe CPU columns are seconds per million requests; foreign: processors' worth of other processes and of the host, \
         `!n`: in n runs more than 0.35.\n\n| load | {} |\n|---|{}",
        HEADS.join(" | "),
        "---|".repeat(HEADS.len())
    );
    for series in all {
        for samples in &series.results {
            let line = cells(series, samples).join(" | ");
            let _ = writeln!(text, "| {} | {line} |", series.load.shown);
        }
    }
    if !idle.is_empty() {
        let _ = writeln!(
            text,
            "\n| 10,000 idle clients | resident before, MB | after, MB | bytes a connection |\n|---|---|---|---|"
        );
        for row in idle {
            let _ = writeln!(
                text,
                "| {} | {:.1} | {:.1} | {:.0} |",
                row.target, row.before_mb, row.after_mb, row.bytes_a_connection
            );
        }
    }
    for note in notes {
        let _ = writeln!(text, "\n* {}", note.replace('\n', " "));
    }
    text
}

fn goal_line(row: &Row) -> String {
    let side = match row.side {
        Side::AtMost => "≤",
        Side::AtLeast => "≥",
    };
    let met = if row.met() { "yes" } else { "no" };
    format!(
        "| {} | {:.2} {} | {side} {} | {met} |",
        row.name, row.value, row.unit, row.goal
    )
}

/// Ratios to direct, commands pooled: a line a load, a column a target.
fn ratios(all: &[Series]) -> String {
    let mut kinds: Vec<Kind> = Vec::new();
    for samples in all.iter().flat_map(|series| &series.results) {
        if samples.kind != Kind::Direct && !kinds.contains(&samples.kind) {
            kinds.push(samples.kind);
        }
    }
    let names: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
    let mut text = format!(
        "\n| ÷ direct, all commands, median [min–max] | {} |\n|---|{}\n",
        names.join(" | "),
        "---|".repeat(names.len())
    );
    for series in all {
        let line: Vec<String> = kinds
            .iter()
            .map(|kind| {
                series
                    .pooled(*kind, Kind::Direct)
                    .map_or_else(|| "–".to_owned(), shown)
            })
            .collect();
        let _ = writeln!(text, "| {} | {} |", series.load.shown, line.join(" | "));
    }
    text
}

/// Every run, for the JSON file.
pub(crate) fn details(all: &[Series], idle: &[Idle], notes: &[String]) -> Value {
    let loads: Vec<Value> = all
        .iter()
        .flat_map(|series| {
            series.results.iter().map(|samples| {
                let ratio = Spread::of(&series.ratios(samples.kind, Kind::Direct, samples.op));
                json!({
                    "load": series.load.name,
                    "command": samples.op.name(),
                    "target": samples.kind.name(),
                    "ratio_to_direct": ratio,
                    "rate": samples.figure(|sample| sample.rate),
                    "disturbed": samples.disturbed(),
                    "runs": samples.samples,
                })
            })
        })
        .collect();
    json!({ "loads": loads, "idle": idle, "notes": notes })
}
