//! Racks: no two copies of a slot in one, where a database wants that. Pure.

use crate::busy;
use crate::maintenance::request::find;
use crate::replica_set;
use crate::request::Fresh;
use crate::state::{Change, ClusterState};
use model::documents::{Database, Migration, Severity, Shard, keys};
use model::intent::IntentOutcome;
use model::{ApiError, ErrorCode, NodeUid, validate};
use serde_json::json;
use store::Txn;

/// The rack of a node.
#[must_use]
pub(crate) fn of(state: &ClusterState, node: NodeUid) -> Option<&str> {
    state.node(node)?.rack_id.as_deref()
}

/// Turns the cluster's rack awareness on.
///
/// # Errors
/// `rack_id_required`: nodes have no rack; `invalid_param`: it is never turned off again.
pub(crate) fn switch(state: &ClusterState, on: bool) -> Result<(), ApiError> {
    if !on && state.cluster.settings.rack_aware {
        return Err(ApiError::new(
            ErrorCode::InvalidParam,
            "rack awareness is never turned off: databases rely on it. `rladmin tune db <db> rack_aware \
             disabled` frees one of them"
                .to_owned(),
        ));
    }
    let without: Vec<String> = state
        .nodes
        .iter()
        .filter(|node| on && node.rack_id.is_none())
        .map(|node| format!("node:{}", node.uid))
        .collect();
    if without.is_empty() {
        return Ok(());
    }
    Err(ApiError::new(
        ErrorCode::RackIdRequired,
        format!(
            "without a rack: {}. `rladmin node <node> rack_id set <rack>` says where each is",
            without.join(", ")
        ),
    ))
}

/// Puts a node into another rack, on paper: nothing moves. Databases that are rack-aware must have their
/// copies apart afterwards too.
///
/// # Errors
/// `node_not_found`, `invalid_param`; `rack_awareness_violation` with the first two copies that would be
/// together; `busy` while shards are on their way to the node.
pub(crate) fn set(
    state: &ClusterState,
    (uid, rack): (NodeUid, &Option<String>),
    fresh: &Fresh<'_>,
) -> Result<(Txn, IntentOutcome), ApiError> {
    let node = find(state, uid)?;
    let Some(rack) = rack
        .as_ref()
        .filter(|rack| node.rack_id.as_ref() != Some(rack))
    else {
        return Ok((Txn::default(), IntentOutcome::default()));
    };
    validate::rack_id(rack)?;
    let mut running = state.operations.iter().filter(|o| o.ended.is_none());
    let comes = |migration: &Migration| migration.node == uid;
    if let Some(operation) = running.find(|o| o.migrations.iter().any(comes)) {
        return Err(busy::with(&format!("node:{uid}"), operation));
    }
    let aware = state
        .databases
        .iter()
        .filter(|database| database.rack_aware);
    for set in aware.flat_map(|database| replica_set::of_database(state, database)) {
        let Some(here) = set.members().find(|member| member.node == uid) else {
            continue;
        };
        let mut others = set.members().filter(|member| member.uid != here.uid);
        if let Some(other) = others.find(|other| of(state, other.node) == Some(rack)) {
            return Err(violation((here, other), rack));
        }
    }
    let mut doc = node.doc.clone();
    let before = doc.rack_id.replace(rack.clone());
    let mut change = Change::of(state, fresh.now);
    change.replace(keys::node(uid), node.revision, &doc);
    change.event(
        Severity::Info,
        "node_rack_changed",
        &[
            ("node_uid", json!(uid)),
            ("old_val", json!(before)),
            ("new_val", json!(rack)),
        ],
    );
    Ok((change.into_txn(), IntentOutcome::default()))
}

/// Whether a new database is rack-aware; as the cluster, if nothing is said.
///
/// # Errors
/// `not_rack_aware`.
pub(crate) fn wanted(state: &ClusterState, wish: Option<bool>) -> Result<bool, ApiError> {
    let wanted = wish.unwrap_or(state.cluster.settings.rack_aware);
    may_be_aware(state, wanted)?;
    Ok(wanted)
}

/// Whether a database may ask for racks.
///
/// # Errors
/// `not_rack_aware`.
pub(crate) fn may_be_aware(state: &ClusterState, wanted: bool) -> Result<(), ApiError> {
    if wanted && !state.cluster.settings.rack_aware {
        return Err(ErrorCode::NotRackAware.into());
    }
    Ok(())
}

/// Whether a database's copies are in different racks.
///
/// # Errors
/// `rack_awareness_violation` with the first two that are not.
pub(crate) fn apart(state: &ClusterState, database: &Database) -> Result<(), ApiError> {
    for set in replica_set::of_database(state, database) {
        let members: Vec<&Shard> = set.members().map(|member| &member.doc).collect();
        for (index, one) in members.iter().enumerate() {
            let rack = of(state, one.node);
            let other = members[..index].iter().find(|o| of(state, o.node) == rack);
            if let Some(other) = other {
                return Err(violation((one, other), rack.unwrap_or("-")));
            }
        }
    }
    Ok(())
}

/// Whether a shard may be on a node while another copy of its slots is on that one, as far as racks go.
///
/// # Errors
/// `rack_awareness_violation`.
pub(crate) fn may_be_beside(
    state: &ClusterState,
    (shard, node): (&Shard, NodeUid),
    (other, there): (&Shard, NodeUid),
) -> Result<(), ApiError> {
    let aware = state
        .database(shard.database)
        .is_some_and(|database| database.rack_aware);
    match of(state, node).filter(|_| aware) {
        Some(rack) if of(state, there) == Some(rack) => Err(violation((shard, other), rack)),
        _ => Ok(()),
    }
}

fn violation((one, other): (&Shard, &Shard), rack: &str) -> ApiError {
    ApiError::new(
        ErrorCode::RackAwarenessViolation,
        format!(
            "redis:{} and redis:{} of db:{} hold the same slots, and both would be in rack '{rack}'. {}",
            one.uid,
            other.uid,
            one.database,
            ErrorCode::RackAwarenessViolation.remedy()
        ),
    )
}
