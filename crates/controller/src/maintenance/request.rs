//! An operator wants a node empty, or full again. Pure: what is refused changes nothing.

use crate::migration::request::begin;
use crate::observed::Observations;
use crate::placement::plan as placement;
use crate::replica_set::{self, ReplicaSet};
use crate::request::{Fresh, operation};
use crate::state::{Change, ClusterState, Stored};
use model::documents::{
    Maintenance, Migration, Node, Operation, OperationKind, Role, Severity, Shard, SnapshotShard,
    keys,
};
use model::intent::IntentOutcome;
use model::{ApiError, DatabaseUid, ErrorCode, NodeUid, OperationUid, ShardUid};
use serde_json::json;
use std::collections::BTreeMap;
use store::Txn;

/// What an operation on one database is to do.
#[derive(Clone, Debug, Default)]
struct Work {
    hand_over: Vec<ShardUid>,
    migrations: Vec<Migration>,
}

/// Who keeps what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Replicas {
    /// They go too, where there is room.
    Go,
    /// They stay.
    Stay,
    /// They go, or the node is not emptied.
    MustGo,
}

/// Turns maintenance mode on: the node takes no shards, its primaries go to other nodes, its replicas
/// too where there is room.
pub(crate) fn switch_on(
    (state, observed): (&ClusterState, &Observations),
    (uid, keep_replicas, overwrite_snapshot): (NodeUid, bool, bool),
    fresh: &Fresh<'_>,
) -> Result<(Txn, IntentOutcome), ApiError> {
    let node = find(state, uid)?;
    enough_without((state, observed), uid, fresh)?;
    let mut doc = node.doc.clone();
    let kept = doc.maintenance.take();
    let snapshot = match &kept {
        Some(kept) if !overwrite_snapshot => kept.snapshot.clone(),
        _ => snapshot(state, uid),
    };
    doc.maintenance = Some(Maintenance {
        depth: kept.as_ref().map_or(0, |kept| kept.depth) + 1,
        name: match kept {
            Some(kept) if !overwrite_snapshot => kept.name,
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
    let replicas = if keep_replicas {
        Replicas::Stay
    } else {
        Replicas::Go
    };
    let work = emptied((state, observed), uid, replicas, fresh)?;
    finish(state, change, work, OperationKind::MaintenanceOn, fresh)
}

/// Turns it off: what the node had when it was turned on comes back.
pub(crate) fn switch_off(
    (state, observed): (&ClusterState, &Observations),
    (uid, restore): (NodeUid, bool),
    fresh: &Fresh<'_>,
) -> Result<(Txn, IntentOutcome), ApiError> {
    let node = find(state, uid)?;
    let Some(mut maintenance) = node.maintenance.clone() else {
        return Err(ApiError::new(
            ErrorCode::InvalidParam,
            format!("node:{uid} is not in maintenance mode"),
        ));
    };
    let mut change = Change::of(state, fresh.now);
    let mut doc = node.doc.clone();
    if maintenance.depth > 1 {
        // Turned on twice, it is turned off twice.
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
    let work = if restore {
        restored((state, observed), uid, &maintenance.snapshot)?
    } else {
        BTreeMap::new()
    };
    finish(state, change, work, OperationKind::MaintenanceOff, fresh)
}

/// Takes a node out of the cluster: everything on it moves away first; the node goes when it is empty.
pub(crate) fn remove(
    (state, observed): (&ClusterState, &Observations),
    uid: NodeUid,
    fresh: &Fresh<'_>,
) -> Result<(Txn, IntentOutcome), ApiError> {
    let node = find(state, uid)?;
    if state.nodes.len() == 1 {
        return Err(ApiError::new(
            ErrorCode::LastNode,
            format!("node:{uid} is the only one: uninstall it instead"),
        ));
    }
    enough_without((state, observed), uid, fresh)?;
    let work = if observed.fresh(uid, fresh.instant).is_some() {
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
    finish(state, change, work, OperationKind::RemoveNode, fresh)
}

fn find(state: &ClusterState, uid: NodeUid) -> Result<&Stored<Node>, ApiError> {
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

/// Whether the others, without those that are in maintenance themselves, are a majority.
fn enough_without(
    (state, observed): (&ClusterState, &Observations),
    uid: NodeUid,
    fresh: &Fresh<'_>,
) -> Result<(), ApiError> {
    let others = state.nodes.iter().filter(|node| {
        node.uid != uid
            && node.maintenance.is_none()
            && observed.fresh(node.uid, fresh.instant).is_some()
    });
    let (left, all) = (others.count(), state.nodes.len());
    if left > all / 2 {
        return Ok(());
    }
    // Two nodes have one voter: the other can go.
    if all == 2 && left == 1 {
        return Ok(());
    }
    Err(ApiError::new(
        ErrorCode::NoMajorityLeft,
        format!(
            "without node:{uid} {left} of {all} nodes would be left that are heard and not in maintenance \
             mode: no majority. Bring another node back first"
        ),
    ))
}

fn snapshot(state: &ClusterState, node: NodeUid) -> Vec<SnapshotShard> {
    state
        .shards
        .iter()
        .filter(|shard| shard.node == node)
        .map(|shard| SnapshotShard {
            database: shard.database,
            slots: shard.slots,
            role: shard.role,
        })
        .collect()
}

type Works = BTreeMap<DatabaseUid, Work>;

/// What empties a node. Primaries with a synced replica elsewhere hand over; what then is left of them,
/// and everything else, is brought to another node.
fn emptied(
    (state, observed): (&ClusterState, &Observations),
    node: NodeUid,
    replicas: Replicas,
    fresh: &Fresh<'_>,
) -> Result<Works, ApiError> {
    let mut works = Works::new();
    let mut places = placement::Planner::new(state, observed, fresh.instant);
    for database in &state.databases {
        for set in replica_set::of_database(state, database) {
            for member in set.members().filter(|member| member.node == node) {
                let work = works.entry(database.uid).or_default();
                let elsewhere = member.role == Role::Primary
                    && set
                        .replicas
                        .iter()
                        .any(|r| r.node != node && r.synced.is_some());
                if elsewhere {
                    work.hand_over.push(member.uid);
                }
                // After that it is a replica.
                let replica = elsewhere || member.role == Role::Replica;
                if replica && replicas == Replicas::Stay {
                    continue;
                }
                match places.place(member, &nodes_of(&set), node) {
                    Ok(to) => work.migrations.push(Migration {
                        shard: member.uid,
                        node: to,
                        copy: None,
                    }),
                    Err(_) if replica && replicas == Replicas::Go => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }
    Ok(works)
}

fn nodes_of(set: &ReplicaSet<'_>) -> Vec<NodeUid> {
    set.members().map(|member| member.node).collect()
}

/// What brings a set's copies that are on a node which is not heard to others: only replicas can be made
/// anew.
fn replaced(
    (state, observed): (&ClusterState, &Observations),
    node: NodeUid,
    fresh: &Fresh<'_>,
) -> Result<Works, ApiError> {
    let there: Vec<&Stored<Shard>> = state.shards.iter().filter(|s| s.node == node).collect();
    if let Some(primary) = there.iter().find(|shard| shard.role == Role::Primary) {
        return Err(ApiError::new(
            ErrorCode::ConnectError,
            format!(
                "node:{node} is not heard, and redis:{} of db:{} has its data there alone: bring the node \
                 back, or delete the database",
                primary.uid, primary.database
            ),
        ));
    }
    let mut works = Works::new();
    let mut places = placement::Planner::new(state, observed, fresh.instant);
    for database in &state.databases {
        for set in replica_set::of_database(state, database) {
            for replica in set.replicas.iter().filter(|replica| replica.node == node) {
                let to = places.place(replica, &nodes_of(&set), node)?;
                works
                    .entry(database.uid)
                    .or_default()
                    .migrations
                    .push(Migration {
                        shard: replica.uid,
                        node: to,
                        copy: None,
                    });
            }
        }
    }
    Ok(works)
}

/// What brings a node's shards back, as far as there still is something of them.
fn restored(
    (state, observed): (&ClusterState, &Observations),
    node: NodeUid,
    snapshot: &[SnapshotShard],
) -> Result<Works, ApiError> {
    let mut works = Works::new();
    // Room was kept for nothing: what does not fit any more stays where it is.
    let _ = observed;
    for wanted in snapshot {
        let Some(database) = state.database(wanted.database) else {
            continue;
        };
        let sets = replica_set::of_database(state, database);
        let Some(set) = sets.iter().find(|set| set.primary.slots == wanted.slots) else {
            continue;
        };
        let here = set.members().find(|member| member.node == node);
        let work = works.entry(database.uid).or_default();
        match (wanted.role, here) {
            (Role::Primary, Some(here)) if here.uid != set.primary.uid => {
                work.hand_over.push(set.primary.uid);
            }
            (_, Some(_)) => {}
            (Role::Primary, None) => work.migrations.push(Migration {
                shard: set.primary.uid,
                node,
                copy: None,
            }),
            (Role::Replica, None) => {
                if let Some(replica) = set.replicas.first() {
                    work.migrations.push(Migration {
                        shard: replica.uid,
                        node,
                        copy: None,
                    });
                }
            }
        }
    }
    works.retain(|_, work| !work.hand_over.is_empty() || !work.migrations.is_empty());
    Ok(works)
}

fn finish(
    state: &ClusterState,
    mut change: Change,
    works: Works,
    kind: OperationKind,
    fresh: &Fresh<'_>,
) -> Result<(Txn, IntentOutcome), ApiError> {
    let mut operations = Vec::new();
    for (uid, work) in works {
        if work.hand_over.is_empty() && work.migrations.is_empty() {
            continue;
        }
        let database = state.database(uid).ok_or(ErrorCode::DbNotFound)?;
        let name = if operations.is_empty() {
            fresh.operation.clone()
        } else {
            OperationUid(format!("{}-{uid}", fresh.operation))
        };
        let operation = Operation {
            uid: name.clone(),
            shards: work.hand_over,
            migrations: work.migrations,
            ..operation(kind, uid, fresh)
        };
        begin(&mut change, database, &operation)?;
        operations.push(name);
    }
    let outcome = IntentOutcome {
        database: None,
        operation: operations.first().cloned(),
        operations,
    };
    Ok((change.into_txn(), outcome))
}
