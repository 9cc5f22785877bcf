//! Whose turn comes next, and what stands against it.

use super::{
    BEGINS_WITHIN, Next, SETTLES_WITHIN, STAGED_WITHIN, Told, done, failed, health, next, paused,
    since,
};
use jiff::Timestamp;
use model::documents::Severity;
use model::upgrade::run::{NodeTurn, TurnState, UpgradeRun};
use model::view::ClusterView;
use model::{ErrorCode, NodeUid};
use serde_json::json;

/// Forward: everything is staged, the node before is watched, nothing stands against it; then the next node.
pub(super) fn forward(view: &ClusterView, mut run: UpgradeRun, now: Timestamp) -> Option<Next> {
    // A node that an operator upgraded by hand has had its turn; one whose turn was cut short at its very end has not.
    let by_hand = run.nodes.iter().find(|turn| {
        turn.state == TurnState::Waiting
            && turn.attempt == 0
            && health::is_at(view, turn.node, &run.target)
    });
    if let Some(node) = by_hand.map(|turn| turn.node) {
        super::set(&mut run, node, TurnState::Done);
        return Some(next(run, now, format!("node:{node} runs the new release")));
    }
    // One that an operator took back by hand is not passed over; `resume` gives it its turn again.
    let taken_back = run.nodes.iter().find(|turn| {
        turn.state == TurnState::Done && health::is_before(view, turn.node, &run.target)
    });
    if let Some(node) = taken_back.map(|turn| turn.node) {
        let evidence = "it runs another release again: install.sh --rollback was run there";
        return Some(failed(
            run,
            (node, now),
            ErrorCode::UpgradeGateMissed,
            evidence.to_owned(),
        ));
    }
    let waiting: Vec<NodeUid> = run
        .nodes
        .iter()
        .filter(|turn| turn.state == TurnState::Waiting)
        .map(|turn| turn.node)
        .collect();
    if waiting.is_empty() {
        return Some(done(run, now));
    }
    if let Some(wait) = staging(view, &run, &waiting, now) {
        return wait.map_or_else(|blocked| block(run.clone(), now, blocked), Some);
    }
    if soaks(&run, now) {
        return None;
    }
    let unfinished = unfinished(view, &run).filter(|node| waiting.contains(node));
    let stands_against = health::blockers(view, &run, now)
        .into_iter()
        .find(|(code, _)| unfinished.is_none() || *code != ErrorCode::UpgradeInstallerRunning);
    if let Some(blocked) = stands_against {
        return block(run, now, blocked);
    }
    let node = unfinished.or_else(|| choose(view, &run, &waiting))?;
    Some(begin(view, run, (node, TurnState::Turn), now))
}

/// The node on which an installer of this run was cut short: nobody else's turn comes before it has ended.
fn unfinished(view: &ClusterView, run: &UpgradeRun) -> Option<NodeUid> {
    let (recorded, _) = view.upgrade.under_way()?;
    let ours = run.turn(recorded.node).is_some_and(|turn| turn.attempt > 0);
    ours.then_some(recorded.node)
}

/// Whether a node does not have the bundle yet: what is to be stored, or what is waited for.
fn staging(
    view: &ClusterView,
    run: &UpgradeRun,
    waiting: &[NodeUid],
    now: Timestamp,
) -> Option<Result<Next, (ErrorCode, String)>> {
    let mut waits = Vec::new();
    for node in waiting {
        let Some(seen) = health::heard(view, *node) else {
            waits.push((
                ErrorCode::UpgradeNodeDown,
                format!("node:{node} is not heard"),
            ));
            continue;
        };
        let turn = &seen.upgrade.turn;
        let staged = turn.staged.as_ref() == Some(&run.bundle.digest);
        if staged && turn.attended {
            continue;
        }
        if !turn.attended {
            waits.push((
                ErrorCode::UpgradeNotAttended,
                format!("node:{node} is not attended"),
            ));
        } else if let Some(error) = &turn.stage_error {
            let evidence = format!("node:{node}: {error}");
            waits.push((ErrorCode::UpgradeStageFailed, evidence));
        } else if since(run.changed, now) > STAGED_WITHIN {
            let evidence = format!("node:{node} does not have the bundle yet");
            let pause = paused(run.clone(), now, ErrorCode::UpgradeStageFailed, evidence);
            return Some(Ok(pause));
        } else {
            // Under way: no trouble, and nothing to be stored.
            waits.push((
                ErrorCode::NotReady,
                format!("node:{node} fetches the bundle"),
            ));
        }
    }
    // Trouble is told before what only takes its time.
    waits.sort_by_key(|(code, _)| *code == ErrorCode::NotReady);
    waits.into_iter().next().map(Err)
}

/// Something stands against the next turn: it may pass, or an operator is asked.
fn block(
    mut run: UpgradeRun,
    now: Timestamp,
    (code, evidence): (ErrorCode, String),
) -> Option<Next> {
    if code == ErrorCode::NotReady {
        // It only takes its time.
        run.blocked.take()?;
        run.waiting_on = None;
        return Some(next(run, now, evidence));
    }
    match run.blocked {
        Some(then) if since(then, now) > SETTLES_WITHIN => Some(paused(run, now, code, evidence)),
        Some(_) => None,
        None => {
            run.blocked = Some(now);
            run.waiting_on = Some(evidence.clone());
            Some(next(run, now, format!("waits: {code}: {evidence}")))
        }
    }
}

/// Whether the node before is still watched.
fn soaks(run: &UpgradeRun, now: Timestamp) -> bool {
    let ended = run.nodes.iter().filter_map(|turn| {
        (turn.state == TurnState::Done)
            .then_some(turn.ended)
            .flatten()
    });
    let count = run
        .nodes
        .iter()
        .filter(|turn| turn.state == TurnState::Done)
        .count();
    let soak = if count == 1 {
        run.canary_soak_seconds
    } else {
        run.soak_seconds
    };
    ended
        .max()
        .is_some_and(|last| since(last, now) < i64::from(soak))
}

/// The canary first, else the primary node; then whoever is left, the primary node before the others.
fn choose(view: &ClusterView, run: &UpgradeRun, waiting: &[NodeUid]) -> Option<NodeUid> {
    let primary = view.primary_node?;
    waiting
        .iter()
        .copied()
        .min_by_key(|node| (run.canary != Some(*node), *node != primary, *node))
}

/// A node's turn, or its way back, begins: from here on the node may act.
fn begin(
    view: &ClusterView,
    mut run: UpgradeRun,
    (node, state): (NodeUid, TurnState),
    now: Timestamp,
) -> Next {
    let full_syncs = health::full_syncs(view);
    let seen = health::heard(view, node);
    let median = seen.and_then(health::median_us);
    // One that runs the new build already, since an earlier attempt got so far, is not to be replaced.
    let started = seen
        .filter(|seen| seen.build_id != run.target.build_id)
        .map(|seen| seen.started);
    if let Some(turn) = run.nodes.iter_mut().find(|turn| turn.node == node) {
        *turn = NodeTurn {
            state,
            attempt: turn.attempt + 1,
            began: Some(now),
            ended: None,
            started_before: started,
            full_syncs,
            median_before_us: median,
            clients: None,
            ..turn.clone()
        };
    }
    run.blocked = None;
    run.waiting_on = None;
    let way = if state == TurnState::Back {
        "goes back"
    } else {
        "is upgraded"
    };
    let told = Told {
        severity: Severity::Info,
        kind: "node_upgrade_turn",
        facts: vec![("node_uid", json!(node)), ("state", json!(state))],
    };
    Next {
        event: Some(told),
        ..next(run, now, format!("node:{node} {way}"))
    }
}

/// The same turn once more: it was cut short.
pub(super) fn again(view: &ClusterView, run: UpgradeRun, node: NodeUid, now: Timestamp) -> Next {
    let state = run.turn(node).map_or(TurnState::Turn, |turn| turn.state);
    let kept = run.turn(node).cloned();
    let mut next = begin(view, run, (node, state), now);
    let turn = next.run.nodes.iter_mut().find(|turn| turn.node == node);
    if let (Some(turn), Some(kept)) = (turn, kept) {
        // What was before its turn was before its first attempt.
        turn.started_before = kept.started_before;
        turn.full_syncs = kept.full_syncs;
        turn.median_before_us = kept.median_before_us;
    }
    next.reason = format!("node:{node}: its turn was cut short, it goes on");
    next
}

/// Back: each node that runs the new release, the primary node last, so that its part need not move each time.
pub(super) fn back(view: &ClusterView, mut run: UpgradeRun, now: Timestamp) -> Option<Next> {
    // A node that was never ordered anything has nothing to come back from.
    let ordered = |turn: &NodeTurn| turn.attempt > 0 || turn.state != TurnState::Waiting;
    let there = run.nodes.iter().find(|turn| {
        ordered(turn)
            && turn.state != TurnState::WentBack
            && health::is_before(view, turn.node, &run.target)
            && !health::is_unfinished(view, turn.node)
    });
    if let Some(node) = there.map(|turn| turn.node) {
        super::set(&mut run, node, TurnState::WentBack);
        return Some(next(run, now, format!("node:{node} is back")));
    }
    let new: Vec<NodeUid> = run
        .nodes
        .iter()
        .filter(|turn| turn.state != TurnState::WentBack)
        .filter(|turn| ordered(turn) || runs_new(view, turn.node, &run))
        .map(|turn| turn.node)
        .collect();
    if new.is_empty() {
        return Some(done(run, now));
    }
    let unfinished = unfinished(view, &run).filter(|node| new.contains(node));
    let last = |node: &NodeUid| (view.primary_node == Some(*node), *node);
    let node = unfinished.or_else(|| new.iter().copied().min_by_key(last))?;
    let stands_against = health::blockers(view, &run, now)
        .into_iter()
        .find(|(code, _)| *code == ErrorCode::UpgradeInstallerRunning && unfinished.is_none());
    let silent = || match health::heard(view, node) {
        None => Some((
            ErrorCode::UpgradeNodeDown,
            format!("node:{node} is not heard"),
        )),
        Some(seen) if !seen.upgrade.turn.attended => Some((
            ErrorCode::UpgradeNotAttended,
            format!("node:{node} is not attended"),
        )),
        Some(_) => None,
    };
    if let Some(blocked) = stands_against.or_else(silent) {
        // An installer of ours may be ending just now.
        let passing = blocked.0 == ErrorCode::UpgradeInstallerRunning
            && run
                .blocked
                .is_some_and(|then| since(then, now) < BEGINS_WITHIN);
        return if passing {
            None
        } else {
            block(run, now, blocked)
        };
    }
    Some(begin(view, run, (node, TurnState::Back), now))
}

fn runs_new(view: &ClusterView, node: NodeUid, run: &UpgradeRun) -> bool {
    view.observed(node)
        .is_some_and(|seen| seen.observation.software_version == run.target.version)
}
