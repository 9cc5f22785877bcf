//! How a database goes, and what is left of a shard. Pure.

use super::plan::{Next, Step, end_operation};
use crate::observed::Observations;
use crate::operation::plan::is_known;
use crate::state::{Change, ClusterState, Stored};
use jiff::Timestamp;
use model::ShardUid;
use model::command::AgentCommand;
use model::documents::{Database, DatabaseStatus, OperationKind, Severity, Shard, keys};
use serde_json::json;
use std::time::Instant;
use store::Txn;

/// What a database needs that is being deleted.
pub(super) fn next(
    state: &ClusterState,
    observed: &Observations,
    database: &Stored<Database>,
    instant: Instant,
    now: Timestamp,
) -> Next {
    let Some(operation) = database.operation.clone() else {
        return Next::Wait("the deletion has no operation record: nothing is deleted".to_owned());
    };
    let record = state
        .operation(&operation)
        .filter(|record| record.kind == OperationKind::DeleteDatabase);
    let Some(record) = record else {
        return Next::Wait("the deletion has no operation record: nothing is deleted".to_owned());
    };
    if let Err(reason) = is_known(record) {
        return Next::Wait(reason);
    }
    let mut steps = Vec::new();
    let mut unheard = None;
    for shard in state.shards_of(database.uid) {
        if is_lost(state, observed, shard, instant) {
            steps.extend(gone_with_its_node(state, shard, now));
            continue;
        }
        if observed.fresh(shard.node, instant).is_none() {
            unheard = Some(format!("node:{} is not heard", shard.node));
            continue;
        }
        steps.push(Step::Command {
            node: shard.node,
            shard: shard.uid,
            command: AgentCommand::RemoveEngine {
                shard: shard.uid,
                generation: shard.generation,
                operation: operation.clone(),
            },
            reason: format!("database db:{} is being deleted", database.uid),
        });
    }
    if let Some(reason) = unheard {
        // What can be reached goes meanwhile.
        return Next::Again(steps, reason);
    }
    if steps.is_empty() {
        let mut change = Change::of(state, now);
        change.delete(keys::database(database.uid), database.revision);
        end_operation(state, &mut change, database, now);
        change.event(
            Severity::Info,
            "bdb_deleted",
            &[
                ("bdb_uid", json!(database.uid)),
                ("bdb_name", json!(database.name)),
            ],
        );
        steps.push(Step::Store {
            txn: change.into_txn(),
            reason: format!("database db:{} has no shards left", database.uid),
        });
    }
    Next::Steps(steps)
}

/// Whether a shard is on a node that leaves the cluster and is not heard. A primary node that is new has heard
/// nobody: that alone proves nothing.
pub(crate) fn is_lost(
    state: &ClusterState,
    observed: &Observations,
    shard: &Shard,
    instant: Instant,
) -> bool {
    let leaves = state.node(shard.node).is_none_or(|node| node.leaving);
    leaves && observed.is_silent(shard.node, instant)
}

/// Nobody can delete the folder of such a shard; its node does not come back to this cluster.
pub(super) fn gone_with_its_node(
    state: &ClusterState,
    shard: &Shard,
    now: Timestamp,
) -> Option<Step> {
    let txn = shard_removed(state, shard.uid, now)?;
    let reason = format!("redis:{} goes with node:{}", shard.uid, shard.node);
    Some(Step::Store { txn, reason })
}

/// After an agent confirmed that a shard's process and folder are gone.
#[must_use]
pub fn shard_removed(state: &ClusterState, shard: ShardUid, now: Timestamp) -> Option<Txn> {
    let stored = state.shard(shard)?;
    let deleting = state
        .database(stored.database)
        .is_none_or(|d| d.status == DatabaseStatus::DeletePending);
    if !deleting && stored.removed_by.is_none() {
        return None;
    }
    let mut change = Change::of(state, now);
    change.delete(keys::shard(shard), stored.revision);
    Some(change.into_txn())
}
