//! How operations end that do not come to their own end. Pure.

use super::plan::is_known;
use crate::database::plan::Step;
use crate::state::{Change, ClusterState, Stored};
use jiff::Timestamp;
use model::documents::{
    DatabaseStatus, Migration, Operation, OperationKind, OperationStatus, Role, Shard, keys,
};
use model::{ErrorCode, NodeUid, ShardUid};
use std::collections::BTreeMap;

/// Most operations that one transaction ends: each may be five documents.
const ENDED_AT_ONCE: usize = 24;

/// Ends an operation before it has done all of its work. What has moved stays where it is; a copy that has not
/// taken a shard's place goes, and a shard whose copy has taken it goes.
pub(crate) fn given_up(
    state: &ClusterState,
    change: &mut Change,
    operation: &Stored<Operation>,
    (code, reason): (ErrorCode, &str),
    now: Timestamp,
) {
    for (shard, doc) in shards_left(state, operation).into_values() {
        // Also those that stay as they are: a move that begins meanwhile takes this transaction's place.
        change.replace(keys::shard(doc.uid), shard.revision, &doc);
    }
    let mut doc = operation.doc.clone();
    doc.status = OperationStatus::Failed;
    doc.error = Some(reason.to_owned());
    doc.error_code = Some(code);
    ends(state, change, (operation, doc), now);
}

/// Writes an operation that ends; its database is free for the next.
fn ends(
    state: &ClusterState,
    change: &mut Change,
    (operation, mut doc): (&Stored<Operation>, Operation),
    now: Timestamp,
) {
    doc.waiting_on = None;
    doc.ended = Some(now);
    change.replace(keys::operation(&doc.uid), operation.revision, &doc);
    if let Some(database) = state.database(operation.database)
        && database.operation.as_ref() == Some(&operation.uid)
    {
        let mut doc = database.doc.clone();
        doc.operation = None;
        doc.status = DatabaseStatus::Active;
        change.replace(keys::database(doc.uid), database.revision, &doc);
    }
}

/// Ends what empties nodes that have left the cluster: nothing was left on them, so it is done, whatever it
/// waits for.
#[must_use]
pub(crate) fn of_nodes_that_left(state: &ClusterState, now: Timestamp) -> Option<Step> {
    let has_left = |node: &NodeUid| state.node(*node).is_none();
    let empties = |operation: &Operation| {
        let empties = matches!(
            operation.kind,
            OperationKind::RemoveNode | OperationKind::MaintenanceOn | OperationKind::EnslaveNode
        );
        operation.ended.is_none() && empties && is_known(operation).is_ok()
    };
    let done: Vec<&Stored<Operation>> = state
        .operations
        .iter()
        .filter(|operation| empties(operation) && operation.node.as_ref().is_some_and(has_left))
        .take(ENDED_AT_ONCE)
        .collect();
    let first = done.first()?.node?;
    let mut change = Change::of(state, now);
    for operation in done {
        let mut doc = operation.doc.clone();
        doc.status = OperationStatus::Completed;
        doc.error = None;
        doc.error_code = None;
        doc.shards.clear();
        doc.migrations.clear();
        ends(state, &mut change, (operation, doc), now);
    }
    Some(Step::Store {
        txn: change.into_txn(),
        reason: format!("node:{first} has left: nothing is to be brought away from it"),
    })
}

type Left<'a> = BTreeMap<ShardUid, (&'a Stored<Shard>, Shard)>;

/// The shards that an operation works on now, as they are after it was given up.
fn shards_left<'a>(state: &'a ClusterState, operation: &Operation) -> Left<'a> {
    let find = |uid: &ShardUid| state.shards.iter().find(|shard| shard.uid == *uid);
    let mut left: Left<'a> = operation
        .shards
        .first()
        .and_then(find)
        .map(|shard| (shard.uid, (shard, shard.doc.clone())))
        .into_iter()
        .collect();
    let Some(Migration { shard, copy, .. }) = operation.migrations.first() else {
        return left;
    };
    for shard in [find(shard), copy.as_ref().and_then(find)]
        .into_iter()
        .flatten()
    {
        left.insert(shard.uid, (shard, shard.doc.clone()));
    }
    let goes = goes(state, operation);
    if let Some((_, doc)) = goes.and_then(|uid| left.get_mut(&uid)) {
        doc.removed_by = Some(operation.uid.clone());
        doc.synced = None;
    }
    left
}

/// Which of a shard and its copy goes when an operation is given up.
pub(super) fn goes(state: &ClusterState, operation: &Operation) -> Option<ShardUid> {
    let migration = operation.migrations.first()?;
    let (original, copy) = (state.shard(migration.shard)?, state.shard(migration.copy?)?);
    if original.removed_by.is_some() {
        return None;
    }
    Some(match copy.role {
        Role::Primary => original.uid,
        Role::Replica => copy.uid,
    })
}
