//! What operators ask of an upgrade of all nodes. Pure.

use super::super::level::write;
use crate::request::Fresh;
use crate::state::{Change, ClusterState};
use jiff::Timestamp;
use model::documents::Severity;
use model::intent::IntentOutcome;
use model::upgrade::run::{
    ATTEMPTS_MAX, BUNDLE_MAX, Direction, NodeTurn, RULES, RunState, StartRun, TurnState, UpgradeRun,
};
use model::upgrade::{SOAK_SECONDS_MAX, Upgrade};
use model::{ApiError, ErrorCode};
use serde_json::json;
use store::Txn;

type Planned = Result<(Txn, IntentOutcome), ApiError>;

fn refused(code: ErrorCode, text: impl std::fmt::Display) -> ApiError {
    ApiError::new(code, format!("{text}. {}", code.remedy()))
}

/// An upgrade of all nodes begins.
///
/// # Errors
/// `upgrade_run_open`, `upgrade_not_finalized`, `node_not_found`, `invalid_param`.
pub(crate) fn start(state: &ClusterState, start: &StartRun, fresh: &Fresh<'_>) -> Planned {
    let wish = &start.wish;
    let soaks = [
        wish.soak_seconds,
        wish.canary_soak_seconds.unwrap_or_default(),
    ];
    if soaks.into_iter().any(|soak| soak > SOAK_SECONDS_MAX) || start.bundle.size > BUNDLE_MAX {
        return Err(ApiError::new(
            ErrorCode::InvalidParam,
            format!(
                "soak times are at most {SOAK_SECONDS_MAX} s, a bundle at most {} GB",
                BUNDLE_MAX >> 30
            ),
        ));
    }
    if let Some(node) = wish.canary.filter(|node| state.node(*node).is_none()) {
        let text = format!("there is no node:{node}");
        return Err(refused(ErrorCode::NodeNotFound, text));
    }
    let mut doc = state.upgrade.doc.clone();
    if let Some(run) = doc.run.as_ref().filter(|run| run.is_open()) {
        let text = format!(
            "the upgrade to {} began {} and has not ended",
            run.target.version, run.began
        );
        return Err(refused(ErrorCode::UpgradeRunOpen, text));
    }
    if let Some(open) = &doc.current
        && open.to != start.target.version
    {
        let text = format!("the upgrade from {} to {} is under way", open.from, open.to);
        return Err(refused(ErrorCode::UpgradeNotFinalized, text));
    }
    let mut id = fresh.operation.to_string();
    id.retain(|c| c.is_ascii_alphanumeric());
    id.truncate(16);
    let run = UpgradeRun {
        rules: RULES,
        id,
        from: doc
            .current
            .as_ref()
            .map_or_else(|| start.from.clone(), |open| open.from.clone()),
        target: start.target.clone(),
        bundle: start.bundle.clone(),
        canary: wish.canary,
        canary_soak_seconds: wish.canary_soak_seconds.unwrap_or(wish.soak_seconds),
        soak_seconds: wish.soak_seconds,
        direction: Direction::Forward,
        state: RunState::Running,
        began: fresh.now,
        ended: None,
        changed: fresh.now,
        blocked: None,
        waiting_on: None,
        nodes: state
            .nodes
            .iter()
            .map(|node| NodeTurn::waiting(node.uid))
            .collect(),
        extra: serde_json::Map::new(),
    };
    doc.hold_finalize |= wish.hold_finalize;
    let mut change = Change::of(state, fresh.now);
    let facts = [("version", json!(run.target.version))];
    change.event(Severity::Info, "cluster_upgrade_run_began", &facts);
    doc.run = Some(run);
    write(&mut change, state, doc);
    Ok((change.into_txn(), IntentOutcome::default()))
}

/// No further turn begins; the one that is under way is ended, since half of one would be worse.
///
/// # Errors
/// `upgrade_no_run`.
pub(crate) fn pause(state: &ClusterState, fresh: &Fresh<'_>) -> Planned {
    changed(state, fresh, "cluster_upgrade_paused", |run, now| {
        if run.state != RunState::Running {
            return Ok(false);
        }
        run.state = RunState::Paused {
            by: "operator".to_owned(),
            code: ErrorCode::UpgradeRunPaused,
            evidence: "an operator asked for it".to_owned(),
            since: now,
        };
        Ok(true)
    })
}

/// It goes on; what failed gets another turn.
///
/// # Errors
/// `upgrade_no_run`.
pub(crate) fn resume(state: &ClusterState, fresh: &Fresh<'_>) -> Planned {
    changed(state, fresh, "cluster_upgrade_resumed", |run, _| {
        if run.state == RunState::Running {
            return Ok(false);
        }
        run.state = RunState::Running;
        for turn in &mut run.nodes {
            if turn.state == TurnState::Failed {
                turn.state = TurnState::Waiting;
                counted_anew(turn);
            }
        }
        Ok(true)
    })
}

/// What was upgraded goes back; a run that has ended comes back to life for that, until it is finalised.
///
/// # Errors
/// `upgrade_no_run`, `upgrade_level_unsupported`.
pub(crate) fn roll_back(state: &ClusterState, fresh: &Fresh<'_>) -> Planned {
    let upgrade = &state.upgrade.doc;
    let level = upgrade.binding_level(state.cluster.feature_level);
    let Some(run) = upgrade.run.clone() else {
        return Err(refused(
            ErrorCode::UpgradeNoRun,
            "no upgrade of all nodes was begun",
        ));
    };
    let of_run = upgrade
        .current
        .as_ref()
        .is_some_and(|open| open.to == run.target.version);
    if !of_run && (!run.is_open() || is_finalised(upgrade, &run)) {
        let text = format!(
            "the upgrade to {} has ended and is finalised, or was taken back; where the feature level did not rise, \
             install.sh --rollback still takes a node back",
            run.target.version
        );
        return Err(refused(ErrorCode::UpgradeNoRun, text));
    }
    if upgrade
        .current
        .as_ref()
        .is_some_and(|open| open.raising.is_some())
    {
        let text = format!("the feature level rises to {level}: there is no way back");
        return Err(refused(ErrorCode::UpgradeLevelUnsupported, text));
    }
    changed(state, fresh, "cluster_upgrade_rollback_began", |run, _| {
        if run.direction == Direction::Back && run.state == RunState::Running {
            return Ok(false);
        }
        run.direction = Direction::Back;
        run.state = RunState::Running;
        run.ended = None;
        // What is under way keeps its name.
        let others = run.nodes.iter_mut();
        for turn in others.filter(|turn| !turn.state.is_in_flight()) {
            counted_anew(turn);
        }
        Ok(true)
    })
}

/// Whether the upgrade to where a run goes was finalised, and the level has risen: no node can go back.
fn is_finalised(upgrade: &Upgrade, run: &UpgradeRun) -> bool {
    let last = upgrade.last.as_ref();
    last.is_some_and(|last| last.to == run.target.version && last.level_to > last.level_from)
}

/// An operator has asked for it: it is tried as often as at first before he is asked again. Numbers that were used
/// are not used again, they name pieces of work.
fn counted_anew(turn: &mut NodeTurn) {
    turn.attempt = turn.attempt.next_multiple_of(ATTEMPTS_MAX);
}

fn changed(
    state: &ClusterState,
    fresh: &Fresh<'_>,
    event: &str,
    what: impl FnOnce(&mut UpgradeRun, Timestamp) -> Result<bool, ApiError>,
) -> Planned {
    let mut doc = state.upgrade.doc.clone();
    let rollback = event == "cluster_upgrade_rollback_began";
    let Some(run) = doc.run.as_mut().filter(|run| rollback || run.is_open()) else {
        return Err(refused(
            ErrorCode::UpgradeNoRun,
            "no upgrade of all nodes is under way",
        ));
    };
    if !what(run, fresh.now)? {
        return Ok((Txn::default(), IntentOutcome::default()));
    }
    run.changed = fresh.now;
    run.blocked = None;
    run.waiting_on = None;
    let mut change = Change::of(state, fresh.now);
    let facts = [("version", json!(run.target.version))];
    change.event(Severity::Info, event, &facts);
    write(&mut change, state, doc);
    Ok((change.into_txn(), IntentOutcome::default()))
}
