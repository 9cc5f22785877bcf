//! The upgrade of all nodes by one command, node by node. Pure: what is stored and what was heard give the next
//! thing to be stored, or nothing. Nodes act on what is stored; a primary node that takes over goes on from there.
//!
//! | file | what |
//! |---|---|
//! | [`request`] | what operators ask for |
//! | `next` | whose turn comes, and what stands against it |
//! | `follow` | the node that is worked on: its installer, then the gate |
//! | `health` | what was heard of a node and of the cluster |

mod follow;
mod health;
mod next;
pub mod request;

use super::level::write;
use crate::state::{Change, ClusterState};
use jiff::Timestamp;
use model::documents::Severity;
use model::upgrade::run::{Direction, RULES, RunState, TurnState, UpgradeRun};
use model::view::ClusterView;
use model::{ErrorCode, NodeUid};
use serde_json::json;
use store::Txn;

/// How long what passes by itself may stand against the next turn, seconds.
pub const SETTLES_WITHIN: i64 = 60;
/// How long a node may take to fetch, unpack and verify the bundle, seconds.
pub const STAGED_WITHIN: i64 = 1800;
/// How long a node may say nothing of the turn that is ordered, seconds.
pub const BEGINS_WITHIN: i64 = 120;
/// How long a turn may take, seconds.
pub const TURN_WITHIN: i64 = 1200;
/// How long the cluster may take to be well after a turn, seconds.
pub const GATE_WITHIN: i64 = 120;

/// The next thing to be stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Next {
    /// The run from then on.
    pub run: UpgradeRun,
    /// Why, in words.
    pub reason: String,
    /// What is told as an event.
    pub event: Option<Told>,
}

/// An event.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// How grave it is.
    pub severity: Severity,
    /// Its kind.
    pub kind: &'static str,
    /// Its facts.
    pub facts: Vec<(&'static str, serde_json::Value)>,
}

/// The next thing to be stored, if there is one. What a newer release began by other rules is left alone.
#[must_use]
pub fn step(view: &ClusterView, now: Timestamp) -> Option<Next> {
    let run = view.upgrade.run.as_ref()?;
    if run.rules > RULES || !run.is_open() || !view.has_quorum {
        return None;
    }
    let mut run = run.clone();
    if let Some(changed) = keep_nodes(view, &mut run) {
        return Some(next(run, now, changed));
    }
    // What is ordered is followed to its end even while no other turn is to begin.
    if let Some(turn) = run.in_flight() {
        let node = turn.node;
        return follow::follow(view, run, node, now);
    }
    match (&run.state, run.direction) {
        (RunState::Running, Direction::Forward) => next::forward(view, run, now),
        (RunState::Running, Direction::Back) => next::back(view, run, now),
        _ => None,
    }
}

/// The transaction that stores it.
#[must_use]
pub fn stored(state: &ClusterState, next: Next, now: Timestamp) -> Txn {
    let mut doc = state.upgrade.doc.clone();
    doc.run = Some(next.run);
    let mut change = Change::of(state, now);
    if let Some(told) = next.event {
        change.event(told.severity, told.kind, &told.facts);
    }
    write(&mut change, state, doc);
    change.into_txn()
}

/// Nodes that have joined or left meanwhile.
fn keep_nodes(view: &ClusterView, run: &mut UpgradeRun) -> Option<String> {
    let before = run.nodes.len();
    run.nodes
        .retain(|turn| view.nodes.iter().any(|node| node.uid == turn.node));
    let left = before - run.nodes.len();
    let mut joined = 0;
    for node in &view.nodes {
        if run.turn(node.uid).is_none() {
            run.nodes
                .push(model::upgrade::run::NodeTurn::waiting(node.uid));
            joined += 1;
        }
    }
    (left + joined > 0).then(|| format!("{joined} nodes joined, {left} left"))
}

fn next(mut run: UpgradeRun, now: Timestamp, reason: String) -> Next {
    run.changed = now;
    Next {
        run,
        reason,
        event: None,
    }
}

fn since(then: Timestamp, now: Timestamp) -> i64 {
    now.as_second() - then.as_second()
}

fn set(run: &mut UpgradeRun, node: NodeUid, state: TurnState) {
    if let Some(turn) = run.nodes.iter_mut().find(|turn| turn.node == node) {
        turn.state = state;
    }
}

/// It waits for an operator from here on.
fn paused(mut run: UpgradeRun, now: Timestamp, code: ErrorCode, evidence: String) -> Next {
    let told = Told {
        severity: Severity::Warning,
        kind: "cluster_upgrade_paused",
        facts: vec![("code", json!(code)), ("evidence", json!(evidence))],
    };
    let reason = format!("paused: {code}: {evidence}");
    run.state = RunState::Paused {
        by: "gate".to_owned(),
        code,
        evidence,
        since: now,
    };
    run.blocked = None;
    run.waiting_on = None;
    Next {
        event: Some(told),
        ..next(run, now, reason)
    }
}

/// A node's turn has gone wrong. On the way back that ends nothing: a node that runs the release before is where
/// it is to be.
fn failed(
    mut run: UpgradeRun,
    (node, now): (NodeUid, Timestamp),
    code: ErrorCode,
    evidence: String,
) -> Next {
    let going_back = run.direction == Direction::Back;
    let was_back = run
        .turn(node)
        .is_some_and(|turn| turn.state == TurnState::Back);
    if let Some(turn) = run.nodes.iter_mut().find(|turn| turn.node == node) {
        turn.state = TurnState::Failed;
        turn.ended = Some(now);
    }
    if going_back && !was_back {
        return next(run, now, format!("node:{node}: {evidence}"));
    }
    paused(run, now, code, format!("node:{node}: {evidence}"))
}

/// It has ended.
fn done(mut run: UpgradeRun, now: Timestamp) -> Next {
    run.state = RunState::Done;
    run.ended = Some(now);
    run.blocked = None;
    run.waiting_on = None;
    let (kind, version) = match run.direction {
        Direction::Forward => ("cluster_upgrade_run_done", run.target.version.clone()),
        Direction::Back => ("cluster_upgrade_run_back", run.from.clone()),
    };
    let told = Told {
        severity: Severity::Info,
        kind,
        facts: vec![("version", json!(version))],
    };
    Next {
        event: Some(told),
        ..next(run, now, format!("every node runs {version}"))
    }
}
