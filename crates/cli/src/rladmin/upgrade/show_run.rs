//! Upgrades of all nodes as operators read them.

use crate::terminal::table::{Cell, Table};
use crate::terminal::{Tone, age, paint};
use model::rest::{UpgradeRunInfo, UpgradeStatus, UpgradeTurn};
use std::fmt::Write as _;

/// Width of a progress bar.
const BAR: usize = 30;
/// Steps of an installer, in their order, and how far each is, percent.
const STEPS: [(&str, usize); 14] = [
    ("unpack", 5),
    ("supervisor", 15),
    ("configuration", 18),
    ("programs", 20),
    ("system", 22),
    ("announce", 25),
    ("switch", 30),
    ("cnm_http", 35),
    ("cnm_exec", 45),
    ("dmcproxy", 55),
    ("mainstay-node", 65),
    ("gate", 70),
    ("watch", 80),
    ("finish", 90),
];

/// How far a node is on the way of its run, percent.
fn percent(run: &UpgradeRunInfo, turn: &UpgradeTurn) -> usize {
    let back = run.direction == "back";
    match turn.state.as_str() {
        "done" => 100 * usize::from(!back),
        "back" => 100,
        // It was never upgraded.
        "waiting" if back => 100,
        "gate" => 95,
        "turn" | "going back" => {
            let step = turn.step.as_deref().unwrap_or_default();
            STEPS
                .iter()
                .find(|(name, _)| *name == step)
                .map_or(2, |(_, percent)| *percent)
        }
        _ => 0,
    }
}

fn headline(run: &UpgradeRunInfo) -> String {
    let way = if run.direction == "back" {
        format!("back from {} to {}", run.to, run.from)
    } else {
        format!("from {} to {}", run.from, run.to)
    };
    let ended = run
        .nodes
        .iter()
        .filter(|turn| percent(run, turn) == 100)
        .count();
    format!(
        "upgrade of all nodes {way}: {}, {ended} of {} nodes",
        run.state,
        run.nodes.len()
    )
}

fn tone(state: &str) -> Tone {
    match state {
        "done" => Tone::Good,
        "failed" => Tone::Bad,
        "turn" | "gate" | "going back" => Tone::Warn,
        _ => Tone::Plain,
    }
}

fn pause(text: &mut String, run: &UpgradeRunInfo, colours: bool) {
    if let Some(pause) = &run.paused {
        let code = pause.code.map_or("?", |code| code.as_str());
        let line = format!("paused by {} ({code}): {}", pause.by, pause.evidence);
        let _ = writeln!(text, "{}", paint(&line, Tone::Bad, colours));
        let _ = writeln!(text, "  {}", pause.remedy);
    }
    for wait in &run.waiting_on {
        let _ = writeln!(text, "waiting: {wait}");
    }
}

/// The picture that `watch` draws again and again.
#[must_use]
pub(super) fn live(run: &UpgradeRunInfo, colours: bool) -> String {
    let all: usize = run.nodes.iter().map(|turn| percent(run, turn)).sum();
    let share = all / run.nodes.len().max(1);
    let full = BAR * share / 100;
    let mut text = format!("{}\n", headline(run));
    let _ = writeln!(
        text,
        "[{}{}] {share} %   {} commands/s   {} connections",
        "#".repeat(full),
        "-".repeat(BAR - full),
        run.commands_per_second,
        run.connections
    );
    text += &table(run, colours);
    pause(&mut text, run, colours);
    text
}

/// A line for each thing that can change: what is new is printed where no terminal is.
#[must_use]
pub(super) fn lines(run: &UpgradeRunInfo) -> Vec<String> {
    let mut lines = vec![headline(run)];
    for turn in run.nodes.iter().filter(|turn| turn.state != "waiting") {
        let step = turn
            .step
            .as_ref()
            .map_or_else(String::new, |step| format!(" ({step})"));
        lines.push(format!(
            "node:{} {}: {}{step}{}",
            turn.uid,
            turn.addr,
            turn.state,
            clients(turn)
        ));
    }
    // The seconds that are left would be a line each.
    let waits = run
        .waiting_on
        .iter()
        .filter(|wait| !wait.ends_with("s more"));
    lines.extend(waits.map(|wait| format!("waiting: {wait}")));
    lines
}

fn clients(turn: &UpgradeTurn) -> String {
    let (Some(kept), Some(of), Some(errors)) =
        (turn.clients_kept, turn.clients_of, turn.client_errors)
    else {
        return String::new();
    };
    format!(
        ", clients kept {kept} of {of}, errors {errors}, longest pause {}",
        milliseconds(turn.longest_pause_us)
    )
}

fn milliseconds(us: Option<u64>) -> String {
    us.map_or_else(
        || "-".to_owned(),
        |us| format!("{}.{:01} ms", us / 1000, us % 1000 / 100),
    )
}

fn table(run: &UpgradeRunInfo, colours: bool) -> String {
    let mut table = Table::new(
        "",
        vec![
            "NODE:ID",
            "ADDRESS",
            "VERSION",
            "STATE",
            "STEP",
            "TIME",
            "BUNDLE",
            "KEPT",
            "ERRORS",
            "PAUSE_MAX",
            "CONNS",
            "OPS/SEC",
        ],
    );
    let number = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |n| n.to_string());
    for turn in &run.nodes {
        let kept = match (turn.clients_kept, turn.clients_of) {
            (Some(kept), Some(of)) => format!("{kept}/{of}"),
            _ => "-".to_owned(),
        };
        let errors = number(turn.client_errors);
        let bad = turn.client_errors.is_some_and(|errors| errors > 0);
        table.push(vec![
            Cell::new(format!("node:{}", turn.uid)),
            Cell::new(&turn.addr),
            Cell::new(&turn.software_version),
            Cell::new(&turn.state).tone(tone(&turn.state)),
            Cell::new(turn.step.as_deref().unwrap_or("-")),
            Cell::new(
                turn.seconds
                    .map_or_else(|| "-".to_owned(), |s| age(s as f64)),
            ),
            Cell::new(if run.state == "done" || run.direction == "back" {
                "-".to_owned()
            } else {
                format!("{}%", turn.bundle_percent)
            }),
            Cell::new(kept),
            Cell::new(errors).tone(if bad { Tone::Bad } else { Tone::Plain }),
            Cell::new(milliseconds(turn.longest_pause_us)),
            Cell::new(turn.connections.to_string()),
            Cell::new(turn.commands_per_second.to_string()),
        ]);
    }
    table.render(colours)
}

/// An upgrade of all nodes that has not ended, on one line.
#[must_use]
pub fn line(status: &UpgradeStatus) -> Option<(String, Tone)> {
    let run = status.run.as_ref().filter(|run| run.state != "done")?;
    let line = headline(run);
    Some(match &run.paused {
        Some(pause) => {
            let code = pause.code.map_or("?", |code| code.as_str());
            let text = format!("{line} ({code}): {}", pause.evidence);
            (text, Tone::Bad)
        }
        None => (line, Tone::Warn),
    })
}

/// A short form for `status`.
#[must_use]
pub(super) fn short(run: &UpgradeRunInfo, colours: bool) -> String {
    let mut line = headline(run);
    if let Some(first) = line.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    let mut text = format!("{line}\n");
    pause(&mut text, run, colours);
    text
}

/// The report.
#[must_use]
pub(super) fn report(run: &UpgradeRunInfo, colours: bool) -> String {
    let mut text = short(run, colours);
    let _ = writeln!(
        text,
        "Began {}{}",
        run.began,
        run.ended
            .as_ref()
            .map_or_else(String::new, |at| format!(", ended {at}"))
    );
    text += &table(run, colours);
    let known = run
        .nodes
        .iter()
        .filter(|turn| turn.clients_of.is_some())
        .count();
    if known == 0 {
        return text;
    }
    let sum =
        |of: fn(&UpgradeTurn) -> Option<u64>| -> u64 { run.nodes.iter().filter_map(of).sum() };
    let _ = writeln!(
        text,
        "Clients: {} of {} connections kept, {} errors",
        sum(|turn| turn.clients_kept),
        sum(|turn| turn.clients_of),
        sum(|turn| turn.client_errors)
    );
    text.push_str("Longest pause of a connection, by node:\n");
    for (below, bound) in [
        ("<= 10 ms", 10_000),
        ("<= 50 ms", 50_000),
        (">  50 ms", u64::MAX),
    ] {
        let lower = match bound {
            10_000 => 0,
            50_000 => 10_001,
            _ => 50_001,
        };
        let count = run
            .nodes
            .iter()
            .filter_map(|turn| turn.longest_pause_us)
            .filter(|us| (lower..=bound).contains(us))
            .count();
        let _ = writeln!(text, "  {below}  {} {count}", "#".repeat(count.min(40)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::rest::UpgradePause;
    use model::{ErrorCode, NodeUid};

    fn run() -> UpgradeRunInfo {
        let turn = |uid, state: &str| UpgradeTurn {
            uid: NodeUid(uid),
            addr: format!("10.0.0.{uid}"),
            state: state.to_owned(),
            software_version: "1.1.0".to_owned(),
            ..UpgradeTurn::default()
        };
        UpgradeRunInfo {
            state: "running".to_owned(),
            direction: "forward".to_owned(),
            from: "1.0.0".to_owned(),
            to: "1.1.0".to_owned(),
            nodes: vec![
                UpgradeTurn {
                    clients_kept: Some(99),
                    clients_of: Some(100),
                    client_errors: Some(0),
                    longest_pause_us: Some(12_340),
                    seconds: Some(21),
                    ..turn(1, "done")
                },
                UpgradeTurn {
                    step: Some("dmcproxy".to_owned()),
                    ..turn(2, "turn")
                },
                turn(3, "waiting"),
            ],
            ..UpgradeRunInfo::default()
        }
    }

    #[test]
    fn lines_name_what_has_begun() {
        assert_eq!(
            lines(&run()),
            [
                "upgrade of all nodes from 1.0.0 to 1.1.0: running, 1 of 3 nodes",
                "node:1 10.0.0.1: done, clients kept 99 of 100, errors 0, longest pause 12.3 ms",
                "node:2 10.0.0.2: turn (dmcproxy)",
            ]
        );
    }

    #[test]
    fn the_picture_has_a_bar_and_the_pause_its_remedy() {
        let mut run = run();
        let text = live(&run, false);
        assert!(
            text.contains("[###############---------------] 51 %"),
            "{text}"
        );
        run.paused = Some(UpgradePause {
            by: "gate".to_owned(),
            code: Some(ErrorCode::UpgradeWentBack),
            evidence: "node:2: it crashed".to_owned(),
            remedy: "See install.log.".to_owned(),
            since: String::new(),
        });
        let text = report(&run, false);
        assert!(
            text.contains(
                "paused by gate (upgrade_went_back): node:2: it crashed\n  See install.log."
            ),
            "{text}"
        );
        assert!(
            text.contains("99 of 100 connections kept, 0 errors"),
            "{text}"
        );
        assert!(text.contains("  <= 50 ms  # 1"), "{text}");
    }
}
