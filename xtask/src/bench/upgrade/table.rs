//! The result.

use super::clients::Seen;
use super::writes::Written;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// A node's turn.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Node {
    /// It was the primary node.
    pub(super) is_primary: bool,
    /// From the start of install.sh to its end.
    pub(super) seconds: f64,
    /// From the start to the gate passed, and how much of it went into checksums and unpacking; not said by a way
    /// back.
    pub(super) well_after: Option<f64>,
    pub(super) unpacking: Option<f64>,
    /// Seconds of each step that took some time.
    pub(super) steps: BTreeMap<String, f64>,
    /// As the new proxy says, ms; 1.0.0 says nothing of the second.
    pub(super) longest_pause_ms: Option<f64>,
    pub(super) p99_pause_ms: Option<f64>,
    /// Longest answer of each timed connection to any node meanwhile.
    #[serde(skip)]
    pub(super) answers_us: Vec<u64>,
    pub(super) writes: Written,
}

impl Node {
    /// From what install.sh said.
    pub(super) fn read(said: &str, seconds: f64) -> Self {
        let mut node = Self {
            seconds,
            ..Self::default()
        };
        let number = |text: &str| -> Option<f64> {
            text.split_whitespace()
                .next()?
                .trim_end_matches(',')
                .parse()
                .ok()
        };
        for line in said.lines() {
            if let Some((_, rest)) = line.split_once("longest pause of one: ") {
                node.longest_pause_ms = number(rest);
            }
            if let Some((_, rest)) = line.split_once("of 99 in 100 up to about ") {
                node.p99_pause_ms = number(rest);
            }
            let Some((_, rest)) = line.split_once("] well after ") else {
                continue;
            };
            node.well_after = number(rest);
            node.unpacking = rest
                .split_once("checksums and unpacking ")
                .and_then(|(_, rest)| number(rest));
            let steps = rest.split_once("by step: ").map_or("", |(_, steps)| steps);
            for step in steps.split(", ") {
                if let Some((name, took)) = step.rsplit_once(' ')
                    && let Some(took) = number(took)
                {
                    *node.steps.entry(name.to_owned()).or_default() += took;
                }
            }
        }
        node
    }

    /// Beside checksums and unpacking.
    fn gate(&self) -> Option<f64> {
        Some(self.well_after? - self.unpacking.unwrap_or_default())
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} s", self.seconds)?;
        if let Some(gate) = self.gate() {
            write!(
                f,
                ", gate passed after {gate:.2} s beside checksums and unpacking"
            )?;
        }
        let longest = self.answers_us.iter().max().copied().unwrap_or_default();
        write!(f, ", longest answer {:.1} ms", longest as f64 / 1000.0)?;
        let Written {
            refused,
            refused_for,
            longest,
            ..
        } = self.writes;
        write!(
            f,
            ", configuration writes: {refused} refused ({refused_for:.2} s), longest {longest:.2} s"
        )
    }
}

/// All that was measured.
#[derive(Debug, Serialize)]
pub(super) struct Figures {
    rounds: usize,
    load_average_at_start: String,
    pub(super) load_average_at_end: String,
    pub(super) seconds: f64,
    /// Carried out by the engine.
    pub(super) commands: u64,
    pub(super) clients: Vec<(&'static str, Seen)>,
    pub(super) engines_restarted: bool,
    pub(super) upgrades: Vec<Node>,
    pub(super) rollbacks: Vec<Node>,
    pub(super) ten_thousand: BTreeMap<String, String>,
}

impl Figures {
    pub(super) const fn new(rounds: usize, load_average: String) -> Self {
        Self {
            rounds,
            load_average_at_start: load_average,
            load_average_at_end: String::new(),
            seconds: 0.0,
            commands: 0,
            clients: Vec::new(),
            engines_restarted: false,
            upgrades: Vec::new(),
            rollbacks: Vec::new(),
            ten_thousand: BTreeMap::new(),
        }
    }

    pub(super) fn json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    fn sum(&self, of: impl Fn(&Seen) -> u64) -> u64 {
        self.clients.iter().map(|(_, seen)| of(seen)).sum()
    }

    /// Beside checksums and unpacking.
    fn gates(&self) -> Vec<f64> {
        self.upgrades.iter().filter_map(Node::gate).collect()
    }

    pub(super) fn markdown(&self) -> String {
        let mut text = format!(
            "{} upgrades and {} ways back of three nodes; 1,000 connections; load average {} at the start, {} at \
             the end.\n\n| what | measured | goal |\n|---|---|---|\n",
            self.rounds, self.rounds, self.load_average_at_start, self.load_average_at_end
        );
        let more = self
            .ten_thousand
            .iter()
            .map(|(what, found)| row(&format!("10,000 connections: {what}"), found, "–"));
        let rows = self.harm().into_iter().chain(self.times());
        text.extend(rows.chain(more));
        text.push_str(&self.steps());
        text.push_str(&self.faults());
        text
    }

    /// What clients must not notice.
    fn harm(&self) -> Vec<String> {
        let rate = self.commands as f64 / self.seconds.max(0.001);
        let two = |one: u64, other: u64| format!("{one}; {other}");
        let errors = two(self.sum(|seen| seen.errors), self.sum(|seen| seen.dropped));
        let writes = two(self.sum(|seen| seen.lost), self.sum(|seen| seen.doubled));
        let messages = format!(
            "{}; {}; {}",
            self.sum(|seen| seen.messages),
            self.sum(|seen| seen.messages_lost),
            self.sum(|seen| seen.messages_doubled)
        );
        let engines = if self.engines_restarted {
            "SOME"
        } else {
            "none"
        };
        vec![
            row(
                "commands",
                &format!("{}, {rate:.0} a second", self.commands),
                "20,000",
            ),
            row("errors; connections dropped", &errors, "0; 0"),
            row("acknowledged writes lost; doubled", &writes, "0; 0"),
            row("messages; lost; doubled", &messages, "0; 0"),
            row("engines restarted", engines, "none"),
        ]
    }

    fn times(&self) -> Vec<String> {
        let all = || self.upgrades.iter().chain(&self.rollbacks);
        let pauses: Vec<f64> = all().filter_map(|node| node.longest_pause_ms).collect();
        let most: Vec<f64> = all().filter_map(|node| node.p99_pause_ms).collect();
        let answers = all().flat_map(|node| &node.answers_us);
        let answers: Vec<f64> = answers.map(|us| *us as f64 / 1000.0).collect();
        let primary = self.upgrades.iter().filter(|node| node.is_primary);
        let refused: Vec<f64> = primary.map(|node| node.writes.refused_for).collect();
        let seconds = |nodes: &[Node]| nodes.iter().map(|node| node.seconds).collect::<Vec<_>>();
        let in_seconds = |values| format!("{} s", middle_and_worst(values));
        vec![
            row(
                "gate passed, beside checksums and unpacking, median; worst",
                &in_seconds(self.gates()),
                "5 s",
            ),
            row(
                "install.sh in all, with the watch, median; worst",
                &in_seconds(seconds(&self.upgrades)),
                "–",
            ),
            row(
                "install.sh --rollback, median; worst",
                &in_seconds(seconds(&self.rollbacks)),
                "–",
            ),
            row(
                "time of a connection between two proxies, p99 of each node: median; worst",
                &format!("{} ms", middle_and_worst(most)),
                "10 ms",
            ),
            row(
                "the longest one of each node: median; worst",
                &format!("{} ms", middle_and_worst(pauses)),
                "50 ms",
            ),
            row(
                "longest answer of each connection while a node is replaced, p50; p99; worst",
                &format!("{} ms", shares(answers)),
                "–",
            ),
            row(
                "configuration writes refused while the primary node is upgraded, median; worst",
                &in_seconds(refused),
                "1 s",
            ),
        ]
    }

    /// Median seconds of each step.
    fn steps(&self) -> String {
        let mut steps: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        for (name, took) in self.upgrades.iter().flat_map(|node| &node.steps) {
            steps.entry(name).or_default().push(*took);
        }
        let mut shown: Vec<String> = steps
            .into_iter()
            .map(|(name, took)| format!("{name} {}", middle_and_worst(took)))
            .collect();
        shown.insert(0, "\nSeconds by step, median; worst".to_owned());
        shown.join(" · ") + "\n"
    }

    /// What went wrong, in the clients' words.
    fn faults(&self) -> String {
        let faults = self.clients.iter().filter_map(|(name, seen)| {
            let error = seen.first_error.as_ref()?;
            Some(format!("\n{name}: {error}\n"))
        });
        faults.collect()
    }
}

fn row(what: &str, found: &str, goal: &str) -> String {
    format!("| {what} | {found} | {goal} |\n")
}

fn middle_and_worst(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    match values.last() {
        Some(worst) => format!("{:.2}; {worst:.2}", values[values.len() / 2]),
        None => "not measured".to_owned(),
    }
}

fn shares(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    let Some(worst) = values.last() else {
        return "not measured".to_owned();
    };
    let at = |share: usize| values[(values.len() * share / 100).min(values.len() - 1)];
    format!("{:.1}; {:.1}; {worst:.1}", at(50), at(99))
}
