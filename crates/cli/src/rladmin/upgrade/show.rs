//! Upgrades as operators read them.

use crate::terminal::table::{Cell, Table};
use crate::terminal::{Tone, age};
use model::rest::{UpgradePaths, UpgradeStatus};
use model::upgrade::{Gravity, UpgradePlan};
use std::fmt::Write as _;

/// The upgrade that is under way, on one line.
#[must_use]
pub fn status_line(status: &UpgradeStatus) -> String {
    let versions = format!(
        "upgrade from {} to {}",
        status.from.as_deref().unwrap_or("?"),
        status.to.as_deref().unwrap_or("?")
    );
    let waits = status.waiting_on.join("; ");
    let stage = match status.state.as_str() {
        "nodes" => {
            let new = status
                .nodes
                .iter()
                .filter(|node| node.state == "new")
                .count();
            format!("{new} of {} nodes are done", status.nodes.len())
        }
        "soak" => {
            let left = age(f64::from(status.soak_left_seconds.unwrap_or(0)));
            let then = if status.hold_finalize {
                format!(
                    "the soak is over in {left}, then it waits for `rladmin cluster upgrade finalize`"
                )
            } else {
                format!("it is finalised in {left}")
            };
            format!("all nodes are done, {then}")
        }
        "held" => "all nodes are done, it waits for `rladmin cluster upgrade finalize`".to_owned(),
        "raising" => "the feature level rises".to_owned(),
        "confirming" => "the feature level has risen, nodes confirm it".to_owned(),
        other => other.to_owned(),
    };
    let level = status.feature_level;
    if waits.is_empty() || status.state == "held" {
        format!("{versions}: {stage} (feature level {level})")
    } else {
        format!("{versions}: {stage} (feature level {level}); {waits}")
    }
}

pub(super) fn status(status: &UpgradeStatus, colours: bool) -> String {
    let mut text = format!("Feature level: {}\n", status.feature_level);
    let held = if status.hold_finalize {
        ", then it waits for an operator (hold_finalize)"
    } else {
        ""
    };
    let _ = writeln!(text, "Soak: {} s{held}", status.soak_seconds);
    if let Some(last) = &status.last {
        let _ = writeln!(
            text,
            "Last upgrade: from {} to {}, feature level {} to {}, finalised {}",
            last.from, last.to, last.level_from, last.level_to, last.ended
        );
    }
    let run = status.run.as_ref().filter(|run| run.state != "done");
    if status.state == "none" {
        // One that no node runs yet, or none any more, is told of below.
        if run.is_none() {
            text.push_str("No upgrade is under way.\n");
        }
    } else {
        let mut line = status_line(status);
        if let Some(first) = line.get_mut(..1) {
            first.make_ascii_uppercase();
        }
        let _ = writeln!(text, "{line}");
    }
    if let Some(run) = run {
        text.push_str(&super::show_run::short(run, colours));
    }
    let mut table = Table::new(
        "",
        vec!["NODE:ID", "ADDRESS", "VERSION", "SHA", "LEVELS", "STATE"],
    );
    for node in &status.nodes {
        let tone = match node.state.as_str() {
            "down" => Tone::Bad,
            "old" | "under way" => Tone::Warn,
            _ => Tone::Plain,
        };
        table.push(vec![
            Cell::new(format!("node:{}", node.uid)),
            Cell::new(&node.addr),
            Cell::new(&node.software_version),
            Cell::new(&node.software_version_sha),
            Cell::new(format!("{}-{}", node.feature_min, node.feature_max)),
            Cell::new(&node.state).tone(tone),
        ]);
    }
    text + &table.render(colours)
}

fn planned_nodes(plan: &UpgradePlan) -> Table {
    let mut nodes = Table::new(
        "",
        vec![
            "NODE:ID",
            "ADDRESS",
            "ROLE",
            "STATE",
            "COMPONENT",
            "FROM",
            "TO",
        ],
    );
    for node in &plan.nodes {
        for (at, part) in node.components.iter().enumerate() {
            let once = |text: String| Cell::new(if at == 0 { text } else { String::new() });
            nodes.push(vec![
                once(format!("node:{}", node.uid)),
                once(node.address.clone()),
                once(if node.primary { "master" } else { "slave" }.to_owned()),
                once(node.state.clone()),
                Cell::new(&part.name),
                Cell::new(part.from.as_deref().unwrap_or("?")),
                Cell::new(&part.to),
            ]);
        }
    }
    nodes
}

pub(super) fn plan(plan: &UpgradePlan, colours: bool) -> String {
    let mut text = format!(
        "Upgrade to {} (build {}); feature level {}\n\n",
        plan.version,
        plan.build_id,
        if plan.level_from == plan.level_to {
            format!("stays {}", plan.level_from)
        } else {
            format!("{} to {}", plan.level_from, plan.level_to)
        }
    );
    text += &planned_nodes(plan).render(colours);
    if !plan.nodes.is_empty() && plan.nodes.iter().all(|node| node.state == "done") {
        let _ = writeln!(
            text,
            "\nEvery node runs {} already: nothing to do.",
            plan.version
        );
        return text;
    }
    let mut steps = Table::new("", vec!["STEP", "NODE:ID", "WHAT", "CLIENTS"]);
    for step in &plan.steps {
        steps.push(vec![
            Cell::new(step.number.to_string()),
            Cell::new(
                step.node
                    .map_or_else(|| "-".to_owned(), |uid| format!("node:{uid}")),
            ),
            Cell::new(&step.what),
            Cell::new(&step.clients),
        ]);
    }
    text.push('\n');
    text += &steps.render(colours);
    let _ = writeln!(text, "\nPoint of no return: {}", plan.point_of_no_return);
    if plan.findings.is_empty() {
        text.push_str("Nothing stands against it.\n");
    }
    for finding in &plan.findings {
        let word = match finding.severity {
            Gravity::Blocker => "BLOCKER",
            Gravity::Warning => "WARNING",
        };
        let _ = writeln!(
            text,
            "{word} {}: {}\n  {}",
            finding.code, finding.evidence, finding.remedy
        );
    }
    text
}

pub(super) fn paths(paths: &UpgradePaths, colours: bool) -> String {
    let mut text = format!("Direct upgrades that Mainstay {} knows:\n", paths.release);
    let mut rows = Table::new("", vec!["FROM", "TO"]);
    for row in &paths.rows {
        rows.push(vec![Cell::new(&row.from), Cell::new(&row.to)]);
    }
    text += &rows.render(colours);
    let _ = writeln!(text, "\nWay of each node to {}:", paths.to);
    let mut nodes = Table::new("", vec!["NODE:ID", "VERSION", "WAY"]);
    for node in &paths.nodes {
        let way = if node.from == paths.to {
            Cell::new("is there")
        } else if !node.possible {
            Cell::new("none").tone(Tone::Bad)
        } else if node.hops.is_empty() {
            Cell::new("direct").tone(Tone::Good)
        } else {
            Cell::new(format!("{}, then {}", node.hops.join(", then "), paths.to)).tone(Tone::Warn)
        };
        nodes.push(vec![
            Cell::new(format!("node:{}", node.uid)),
            Cell::new(if node.from.is_empty() {
                "?"
            } else {
                &node.from
            }),
            way,
        ]);
    }
    text + &nodes.render(colours)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::rest::UpgradeNodeStatus;

    #[test]
    fn one_line_says_where_it_is() {
        let node = |state: &str| UpgradeNodeStatus {
            state: state.to_owned(),
            ..UpgradeNodeStatus::default()
        };
        let mut status = UpgradeStatus {
            feature_level: 1,
            state: "nodes".to_owned(),
            from: Some("1.0.0".to_owned()),
            to: Some("1.1.0".to_owned()),
            nodes: vec![node("new"), node("old"), node("down")],
            waiting_on: vec!["node:3 (10.0.0.3) is not heard".to_owned()],
            ..UpgradeStatus::default()
        };
        assert_eq!(
            status_line(&status),
            "upgrade from 1.0.0 to 1.1.0: 1 of 3 nodes are done (feature level 1); node:3 (10.0.0.3) is not heard"
        );
        "soak".clone_into(&mut status.state);
        status.soak_left_seconds = Some(90);
        status.waiting_on.clear();
        assert_eq!(
            status_line(&status),
            "upgrade from 1.0.0 to 1.1.0: all nodes are done, it is finalised in 90s (feature level 1)"
        );
        status.hold_finalize = true;
        assert!(status_line(&status).contains("the soak is over in 90s, then it waits"));
    }
}
