//! An operator wants a node empty, or full again. Pure: what is refused changes nothing.

use super::snapshot::{restored, taken};
use super::work::{
    Action, After, Replicas, Works, data_is_there_alone, emptied, finish, free, handed_over,
    replaced, with_copies,
};
use crate::observed::Observations;
use crate::request::{self, Fresh};
use crate::state::{Change, ClusterState, Stored};
use model::documents::{Maintenance, Node, OperationKind, Severity, keys};
use model::intent::{IntentOutcome, MaintenanceWish, Pace, Restore};
use model::limits::HEARTBEAT_LOST;
use model::{ApiError, ErrorCode, NodeUid};
use serde_json::json;
use std::time::Duration;
use store::Txn;

/// Turns maintenance mode on: the node takes no shards, its primaries go to other nodes, its replicas
/// too where there is room.
pub(crate) fn switch_on(
    (state, observed): (&ClusterState, &Observations),
    (uid, wish, pace): (NodeUid, &MaintenanceWish, Pace),
    fresh: &Fresh<'_>,
) -> Result<(Txn, IntentOutcome), ApiError> {
    let node = find(state, uid)?;
    for database in &wish.evict_dbs {
        request::find(state, *database)?;
    }
    let replicas = if wish.keep_slave_shards {
        Replicas::StayBut(&wish.evict_dbs)
    } else {
        Replicas::Go
    };
    let kind = OperationKind::MaintenanceOn;
    let concerned = with_copies(state, uid, replicas);
    free(state, (uid, kind, After::Nothing), concerned)?;
    stays(node)?;
    can_be_emptied((state, observed), (uid, state.node_silent()), fresh)?;
    enough_without((state, observed), uid, fresh)?;
    a_voter_stays((state, observed), uid, fresh)?;
    let mut doc = node.doc.clone();
    let kept = doc.maintenance.take();
    let snapshot = match &kept {
        Some(kept) if !wish.overwrite_snapshot => kept.snapshot.clone(),
        _ => taken(state, uid),
    };
    doc.maintenance = Some(Maintenance {
        depth: kept.as_ref().map_or(0, |kept| kept.depth) + 1,
        name: match kept {
            Some(kept) if !wish.overwrite_snapshot => kept.name,
            _ => fresh
                .now
                .strftime("maintenance_mode_%Y-%m-%d_%H-%M-%S")
                .to_string(),
        },
        since: fresh.now,
        snapshot,
    });
    let mut change = Change::of(state, fresh.now);
    change.replace(keys::node(uid), node.revision, &doc);
    change.event(
        Severity::Info,
        "node_maintenance_on",
        &[("node_uid", json!(uid))],
    );
    let works = emptied((state, observed), uid, replicas, fresh)?;
    let action = Action {
        node: uid,
        kind,
        pace,
        after: After::Nothing,
    };
    finish(state, change, works, action, fresh)
}

/// Turns it off: what the node had when it was turned on comes back.
pub(crate) fn switch_off(
    state: &ClusterState,
    (uid, restore, pace): (NodeUid, &Restore, Pace),
    fresh: &Fresh<'_>,
) -> Result<(Txn, IntentOutcome), ApiError> {
    let node = find(state, uid)?;
    let kept = node.maintenance.as_ref();
    // Turned on twice, it is turned off twice: nothing comes back before that.
    let stays_on = kept.is_some_and(|kept| kept.depth > 1);
    let works = match restore {
        Restore::Named(name) => restored(state, uid, super::snapshot::named(node, name)?),
        Restore::Newest => kept.map_or_else(Works::new, |on| restored(state, uid, &on.snapshot)),
        Restore::Nothing => Works::new(),
    };
    let kind = OperationKind::MaintenanceOff;
    let concerned = works.keys().filter_map(|uid| state.database(*uid));
    let concerned = concerned.filter(|_| !stays_on);
    free(state, (uid, kind, After::Nothing), concerned)?;
    let Some(mut maintenance) = kept.cloned() else {
        return Err(ApiError::new(
            ErrorCode::NodeInState,
            format!("node:{uid} is not in maintenance mode: there is nothing to turn off"),
        ));
    };
    let mut change = Change::of(state, fresh.now);
    let mut doc = node.doc.clone();
    if stays_on {
        maintenance.depth -= 1;
        doc.maintenance = Some(maintenance);
        change.replace(keys::node(uid), node.revision, &doc);
        return Ok((change.into_txn(), IntentOutcome::default()));
    }
    doc.maintenance = None;
    change.replace(keys::node(uid), node.revision, &doc);
    change.event(
        Severity::Info,
        "node_maintenance_off",
        &[("node_uid", json!(uid))],
    );
    let action = Action {
        node: uid,
        kind,
        pace,
        after: After::Nothing,
    };
    finish(state, change, works, action, fresh)
}

/// Takes a node out of the cluster: everything on it moves away first; the node goes when it is empty.
pub(crate) fn remove(
    (state, observed): (&ClusterState, &Observations),
    (uid, pace): (NodeUid, Pace),
    fresh: &Fresh<'_>,
) -> Result<(Txn, IntentOutcome), ApiError> {
    let node = find(state, uid)?;
    let within = state.node_silent();
    let heard = observed.heard(uid, within, fresh.instant).is_some();
    let after = if heard {
        After::Changes
    } else {
        After::Everything
    };
    let kind = OperationKind::RemoveNode;
    let concerned = with_copies(state, uid, Replicas::MustGo);
    free(state, (uid, kind, after), concerned)?;
    if state.nodes.len() == 1 {
        return Err(ApiError::new(
            ErrorCode::LastNode,
            format!("node:{uid} is the only one: uninstall it instead"),
        ));
    }
    another_votes(state, uid, fresh)?;
    enough_without((state, observed), uid, fresh)?;
    if !heard {
        is_gone((state, observed), uid, fresh)?;
    }
    let works = if heard {
        emptied((state, observed), uid, Replicas::MustGo, fresh)?
    } else {
        replaced((state, observed), uid, fresh)?
    };
    let mut doc = node.doc.clone();
    doc.leaving = true;
    let mut change = Change::of(state, fresh.now);
    change.replace(keys::node(uid), node.revision, &doc);
    if !node.leaving {
        change.event(
            Severity::Info,
            "node_remove_request",
            &[("node_uid", json!(uid))],
        );
    }
    let action = Action {
        node: uid,
        kind,
        pace,
        after,
    };
    finish(state, change, works, action, fresh)
}

/// The node's primaries hand their role to replicas on other nodes that stay. Those without one keep it.
pub(crate) fn enslave(
    (state, observed): (&ClusterState, &Observations),
    (uid, pass_over_busy, pace): (NodeUid, bool, Pace),
    fresh: &Fresh<'_>,
) -> Result<(Txn, IntentOutcome), ApiError> {
    find(state, uid)?;
    // A node that is being stopped waits for a short time only, and goes in any case: it hopes for all who may come back.
    let within = if pass_over_busy {
        HEARTBEAT_LOST
    } else {
        state.node_silent()
    };
    let mut works = handed_over((state, observed), (uid, within), fresh);
    let kind = OperationKind::EnslaveNode;
    if pass_over_busy {
        works.retain(|database, _| {
            let found = state.database(*database);
            found.is_some_and(|d| d.operation.is_none())
        });
    } else {
        let concerned = works.keys().filter_map(|uid| state.database(*uid));
        free(state, (uid, kind, After::Nothing), concerned)?;
    }
    can_be_emptied((state, observed), (uid, within), fresh)?;
    let change = Change::of(state, fresh.now);
    let action = Action {
        node: uid,
        kind,
        pace,
        after: After::Nothing,
    };
    finish(state, change, works, action, fresh)
}

pub(crate) fn find(state: &ClusterState, uid: NodeUid) -> Result<&Stored<Node>, ApiError> {
    state.node(uid).ok_or_else(|| {
        ApiError::new(
            ErrorCode::NodeNotFound,
            format!(
                "there is no node:{uid}: {}",
                ErrorCode::NodeNotFound.remedy()
            ),
        )
    })
}

fn stays(node: &Node) -> Result<(), ApiError> {
    if node.leaving {
        return Err(ApiError::new(
            ErrorCode::NodeInState,
            format!(
                "node:{} is leaving the cluster, its shards go to other nodes already: see \
                 `rladmin cluster running_actions`",
                node.uid
            ),
        ));
    }
    Ok(())
}

/// Nothing can be brought away from a node that is not heard.
fn can_be_emptied(
    (state, observed): (&ClusterState, &Observations),
    (uid, within): (NodeUid, Duration),
    fresh: &Fresh<'_>,
) -> Result<(), ApiError> {
    let heard = observed.heard(uid, within, fresh.instant).is_some();
    if heard || state.shards_on(uid) == 0 {
        return Ok(());
    }
    // Until then a replica may yet take over.
    if observed.is_silent(uid, fresh.instant)
        && let Some(error) = data_is_there_alone(state, uid)
    {
        return Err(error);
    }
    Err(ApiError::new(
        ErrorCode::NodeDown,
        format!(
            "node:{uid} is not heard, so nothing can be brought away from it: bring it back, or take it \
             out of the cluster with `rladmin node {uid} remove`"
        ),
    ))
}

/// What becomes of a node's shards depends on whether it is there: one that has only just fallen silent, or that a new
/// primary node has not heard yet, is neither emptied nor given up.
fn is_gone(
    (state, observed): (&ClusterState, &Observations),
    uid: NodeUid,
    fresh: &Fresh<'_>,
) -> Result<(), ApiError> {
    if observed.is_silent(uid, fresh.instant) || state.shards_on(uid) == 0 {
        return Ok(());
    }
    Err(ApiError::new(
        ErrorCode::NodeDown,
        format!(
            "node:{uid} is not heard, and the primary node has not waited for it for long enough to take it for \
             gone: try again in a few seconds"
        ),
    ))
}

fn enough_without(
    both: (&ClusterState, &Observations),
    uid: NodeUid,
    fresh: &Fresh<'_>,
) -> Result<(), ApiError> {
    super::plan::enough_without(both, uid, fresh.instant)
        .map_err(|reason| ApiError::new(ErrorCode::NoMajorityLeft, reason))
}

/// The last voter takes the configuration with it.
fn another_votes(state: &ClusterState, uid: NodeUid, fresh: &Fresh<'_>) -> Result<(), ApiError> {
    let stays =
        |voter: &NodeUid| *voter != uid && state.node(*voter).is_some_and(|node| !node.leaving);
    if !fresh.voters.contains(&uid) || fresh.voters.iter().any(stays) {
        return Ok(());
    }
    Err(ApiError::new(
        ErrorCode::NoMajorityLeft,
        format!(
            "node:{uid} alone votes on the configuration: add a third node, so that three vote, and then \
             remove it"
        ),
    ))
}

/// Whether the configuration can still be changed while the node is away: more than half of the voters
/// must be left.
fn a_voter_stays(
    (state, observed): (&ClusterState, &Observations),
    uid: NodeUid,
    fresh: &Fresh<'_>,
) -> Result<(), ApiError> {
    let within = state.node_silent();
    let in_service = |voter: &NodeUid| {
        *voter != uid
            && state
                .node(*voter)
                .is_some_and(|node| node.maintenance.is_none())
            && observed.heard(*voter, within, fresh.instant).is_some()
    };
    let all = fresh.voters.len();
    let left = fresh
        .voters
        .iter()
        .filter(|voter| in_service(voter))
        .count();
    // A node that does not vote is not missed.
    if left > all / 2 || !fresh.voters.contains(&uid) {
        return Ok(());
    }
    Err(ApiError::new(
        ErrorCode::NoMajorityLeft,
        format!(
            "without node:{uid} {left} of the {all} nodes that vote on the configuration would be left: \
             while it is away nothing could be changed and no primary replaced. Add a node, or bring \
             another one back, first"
        ),
    ))
}
