//! The node that is worked on: what its attendant says of the installer, then the gate.

use super::next::again;
use super::{BEGINS_WITHIN, GATE_WITHIN, Next, TURN_WITHIN, Told, failed, health, next, since};
use jiff::Timestamp;
use model::documents::Severity;
use model::upgrade::run::{ATTEMPTS_MAX, Direction, JobReport, JobState, TurnState, UpgradeRun};
use model::view::ClusterView;
use model::{ErrorCode, NodeUid};
use serde_json::json;

pub(super) fn follow(
    view: &ClusterView,
    run: UpgradeRun,
    node: NodeUid,
    now: Timestamp,
) -> Option<Next> {
    let turn = run.turn(node)?;
    if turn.state == TurnState::Gate {
        return gate(view, run, node, now);
    }
    let gone = since(turn.began.unwrap_or(run.changed), now);
    let late = |run: UpgradeRun, evidence: String| {
        (gone > TURN_WITHIN)
            .then(|| failed(run, (node, now), ErrorCode::UpgradeTurnTimeout, evidence))
    };
    let Some(seen) = health::heard(view, node) else {
        return late(run, "nothing is heard of it".to_owned());
    };
    match health::report(seen, &run.job(turn)).cloned() {
        None if gone > BEGINS_WITHIN => {
            let (code, evidence) = if seen.upgrade.turn.attended {
                (ErrorCode::UpgradeTurnTimeout, "its turn does not begin")
            } else {
                (ErrorCode::UpgradeNotAttended, "it is not attended")
            };
            Some(failed(run, (node, now), code, evidence.to_owned()))
        }
        None => None,
        Some(report) if report.state == JobState::Running => {
            let turn = &seen.upgrade.turn;
            let step = turn.step.clone().unwrap_or_default();
            if !turn.attended && gone > BEGINS_WITHIN {
                let evidence =
                    format!("it is not attended any more; its installer was at step '{step}'");
                return Some(failed(
                    run,
                    (node, now),
                    ErrorCode::UpgradeNotAttended,
                    evidence,
                ));
            }
            late(run, format!("its installer is at step '{step}'"))
        }
        Some(report) => ended(view, run, (node, &report), now),
    }
}

/// The installer has ended. What it left counts, not what it said.
fn ended(
    view: &ClusterView,
    mut run: UpgradeRun,
    (node, report): (NodeUid, &JobReport),
    now: Timestamp,
) -> Option<Next> {
    let turn = run.nodes.iter_mut().find(|turn| turn.node == node)?;
    turn.clients = report.clients;
    let back = turn.state == TurnState::Back;
    let attempt = turn.attempt;
    // What an operator has to repeat as often as he likes does not count.
    let may_repeat = !attempt.is_multiple_of(ATTEMPTS_MAX);
    if report.state == JobState::Cut && may_repeat {
        return Some(again(view, run, node, now));
    }
    let there = if back {
        health::is_before(view, node, &run.target)
    } else {
        health::is_at(view, node, &run.target)
    };
    // What refused it may pass: a process that was just starting, a finding of a moment.
    if report.state == JobState::Failed && !there && may_repeat {
        return Some(again(view, run, node, now));
    }
    if there && report.state != JobState::Cut {
        let state = if back {
            TurnState::WentBack
        } else {
            TurnState::Gate
        };
        turn_is(&mut run, node, state, now);
        let text = if back { "is back" } else { "is looked at" };
        return Some(next(run, now, format!("node:{node} {text}")));
    }
    let code = match report.state {
        JobState::WentBack => ErrorCode::UpgradeWentBack,
        _ => ErrorCode::UpgradeTurnFailed,
    };
    // An installer that ended well has told the cluster; a heartbeat with it may be on its way.
    let settles =
        report.state == JobState::Done && since(run.turn(node)?.began?, now) < TURN_WITHIN;
    if settles {
        return None;
    }
    let said = if report.said.is_empty() {
        "it was cut short again and again".to_owned()
    } else {
        report.said.clone()
    };
    Some(failed(run, (node, now), code, said))
}

fn turn_is(run: &mut UpgradeRun, node: NodeUid, state: TurnState, now: Timestamp) {
    if let Some(turn) = run.nodes.iter_mut().find(|turn| turn.node == node) {
        turn.state = state;
        if !state.is_in_flight() {
            turn.ended = Some(now);
        }
    }
}

/// The write that brought the run here is the probe commit: what follows it is read from a quorum.
fn gate(view: &ClusterView, mut run: UpgradeRun, node: NodeUid, now: Timestamp) -> Option<Next> {
    if run.direction == Direction::Back {
        // Nothing is to be gained by waiting: it goes back.
        turn_is(&mut run, node, TurnState::Done, now);
        return Some(next(run, now, format!("node:{node} runs the new release")));
    }
    let mut waits = health::gate(view, &run, node, now);
    let lasting = health::lasting(view, run.turn(node)?);
    // What does not pass is not waited for, once everything else is well.
    let is_over = waits.is_empty() && !lasting.is_empty();
    waits.extend(lasting);
    if waits.is_empty() {
        turn_is(&mut run, node, TurnState::Done, now);
        let told = Told {
            severity: Severity::Info,
            kind: "node_upgrade_done",
            facts: vec![("node_uid", json!(node))],
        };
        return Some(Next {
            event: Some(told),
            ..next(run, now, format!("node:{node} is done"))
        });
    }
    (is_over || since(run.changed, now) > GATE_WITHIN).then(|| {
        let evidence = waits.join("; ");
        failed(run, (node, now), ErrorCode::UpgradeGateMissed, evidence)
    })
}
