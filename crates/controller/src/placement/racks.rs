//! Racks: no two copies of a slot in one, where a database wants that. Pure.

use crate::replica_set;
use crate::state::ClusterState;
use model::documents::{Database, Shard};
use model::{ApiError, ErrorCode, NodeUid};

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
            "without a rack: {}. A node gets it when it joins: take them out (`rladmin node <node> \
             remove`), install them again, and join them with rack_id",
            without.join(", ")
        ),
    ))
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

/// Whether a copy of a shard may be on a node, as far as racks go.
///
/// # Errors
/// `rack_awareness_violation` with the copy that is in that rack.
pub(crate) fn may_be_on(
    state: &ClusterState,
    shard: &Shard,
    node: NodeUid,
) -> Result<(), ApiError> {
    let aware = state
        .database(shard.database)
        .is_some_and(|database| database.rack_aware);
    let Some(rack) = of(state, node).filter(|_| aware) else {
        return Ok(());
    };
    let other = state
        .shards_of(shard.database)
        .filter(|other| other.slots == shard.slots && other.uid != shard.uid)
        .find(|other| other.removed_by.is_none() && of(state, other.node) == Some(rack));
    match other {
        Some(other) => Err(violation((shard, other), rack)),
        None => Ok(()),
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
