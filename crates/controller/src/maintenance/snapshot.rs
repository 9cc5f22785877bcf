//! What was on a node: noted, forgotten, brought back. Pure.

use super::request::find;
use super::work::{Action, After, Works, finish, free};
use crate::placement::copies;
use crate::replica_set::{self, ReplicaSet};
use crate::request::Fresh;
use crate::state::{Change, ClusterState, Stored};
use model::documents::{
    Migration, Node, NodeSnapshot, OperationKind, Role, Severity, Shard, SnapshotShard, keys,
};
use model::intent::{IntentOutcome, Pace, SnapshotWhat};
use model::limits::NODE_SNAPSHOTS_MAX;
use model::{ApiError, ErrorCode, NodeUid, validate};
use serde_json::json;
use store::Txn;

/// An operator does something with a snapshot of a node.
pub(crate) fn handle(
    state: &ClusterState,
    (uid, name, what, pace): (NodeUid, &str, SnapshotWhat, Pace),
    fresh: &Fresh<'_>,
) -> Result<(Txn, IntentOutcome), ApiError> {
    let node = find(state, uid)?;
    let mut doc = node.doc.clone();
    let mut change = Change::of(state, fresh.now);
    let event = match what {
        SnapshotWhat::Create => {
            add(&mut doc, name, taken(state, uid), fresh)?;
            "node_snapshot_created"
        }
        SnapshotWhat::Delete => {
            named(node, name)?;
            if !doc.snapshots.iter().any(|known| known.name == name) {
                return Err(ApiError::new(
                    ErrorCode::NodeInState,
                    format!(
                        "'{name}' is what maintenance mode gives back to node:{uid}: it goes when that is \
                         turned off"
                    ),
                ));
            }
            doc.snapshots.retain(|known| known.name != name);
            "node_snapshot_deleted"
        }
        SnapshotWhat::Restore => {
            let works = restored(state, uid, named(node, name)?);
            let kind = OperationKind::RestoreSnapshot;
            let concerned = works.keys().filter_map(|uid| state.database(*uid));
            free(state, (uid, kind, After::Nothing), concerned)?;
            if node.maintenance.is_some() || node.leaving {
                return Err(ApiError::new(
                    ErrorCode::NodeInState,
                    format!(
                        "node:{uid} takes no shards now: turn its maintenance mode off, with \
                         `snapshot_name {name}` if that is what it shall have"
                    ),
                ));
            }
            let action = Action {
                node: uid,
                kind,
                pace,
                after: After::Nothing,
            };
            return finish(state, change, works, action, fresh);
        }
    };
    change.replace(keys::node(uid), node.revision, &doc);
    change.event(
        Severity::Info,
        event,
        &[("node_uid", json!(uid)), ("name", json!(name))],
    );
    Ok((change.into_txn(), IntentOutcome::default()))
}

fn add(
    node: &mut Node,
    name: &str,
    shards: Vec<SnapshotShard>,
    fresh: &Fresh<'_>,
) -> Result<(), ApiError> {
    validate::snapshot_name(name)?;
    let taken = node.snapshots.iter().any(|known| known.name == name)
        || node.maintenance.as_ref().is_some_and(|m| m.name == name);
    if taken {
        return Err(ApiError::new(
            ErrorCode::NameAlreadyExists,
            format!(
                "node:{} has a snapshot '{name}': choose another name, or delete that one first",
                node.uid
            ),
        ));
    }
    if node.snapshots.len() >= NODE_SNAPSHOTS_MAX {
        return Err(ApiError::new(
            ErrorCode::InvalidParam,
            format!(
                "node:{} has {NODE_SNAPSHOTS_MAX} snapshots, the most that are kept: delete one first",
                node.uid
            ),
        ));
    }
    node.snapshots.push(NodeSnapshot {
        name: name.to_owned(),
        created: fresh.now,
        shards,
    });
    Ok(())
}

/// What is in a node's snapshot of this name.
pub(super) fn named<'a>(node: &'a Node, name: &str) -> Result<&'a [SnapshotShard], ApiError> {
    let kept = node.snapshots.iter().find(|known| known.name == name);
    let of_maintenance = node.maintenance.as_ref().filter(|m| m.name == name);
    kept.map(|known| known.shards.as_slice())
        .or(of_maintenance.map(|m| m.snapshot.as_slice()))
        .ok_or_else(|| {
            ApiError::new(
                ErrorCode::SnapshotNotFound,
                format!(
                    "node:{} has no snapshot '{}'. {}",
                    node.uid,
                    validate::shown(name),
                    ErrorCode::SnapshotNotFound.remedy()
                ),
            )
        })
}

/// What is on a node now.
pub(super) fn taken(state: &ClusterState, node: NodeUid) -> Vec<SnapshotShard> {
    let stays = |shard: &&Stored<Shard>| shard.removed_by.is_none();
    state
        .shards
        .iter()
        .filter(|shard| shard.node == node)
        .filter(stays)
        .map(|shard| SnapshotShard {
            database: shard.database,
            slots: shard.slots,
            role: shard.role,
            others: state
                .shards_of(shard.database)
                .filter(|other| other.slots == shard.slots && other.uid != shard.uid)
                .filter(stays)
                .map(|other| other.node)
                .collect(),
        })
        .collect()
}

/// What brings a node's shards back, as far as there still is something of them.
pub(super) fn restored(state: &ClusterState, node: NodeUid, snapshot: &[SnapshotShard]) -> Works {
    let mut works = Works::new();
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
            (role, None) => {
                let Some(copy) = stand_in(state, set, (node, wanted), &work.migrations) else {
                    continue;
                };
                // The role changes hands, too: see `migration::plan`.
                if copy.role != role {
                    work.hand_over.push(set.primary.uid);
                }
                let comes_with_it = copy.role == Role::Primary && role == Role::Primary;
                work.migrations.push(Migration {
                    role: comes_with_it.then_some(role),
                    ..brought(copy, node)
                });
            }
        }
    }
    works.retain(|_, work| !work.is_empty());
    works
}

/// Which of a set's copies goes to a node that had one: none that was where it is beside the node's, if another one
/// was not – that is the one that was made when the node was emptied –, and rather one that has the role already.
/// Copies that an operator had put together are not put together again.
fn stand_in<'a>(
    state: &ClusterState,
    set: &ReplicaSet<'a>,
    (node, wanted): (NodeUid, &SnapshotShard),
    coming: &[Migration],
) -> Option<&'a Stored<Shard>> {
    let belongs = |copy: &Shard| wanted.others.contains(&copy.node);
    let fits = |copy: &Stored<Shard>| {
        let moves: Vec<Migration> = coming
            .iter()
            .cloned()
            .chain([brought(copy, node)])
            .collect();
        copies::apart(state, copy, &moves).is_ok()
    };
    // A primary comes as a replica if the replica belongs where it is, and can take its role.
    let may = |copy: &Stored<Shard>| {
        let replaces = || !belongs(copy) && set.replicas.iter().any(|r| belongs(r));
        wanted.role == Role::Primary || copy.role == Role::Replica || replaces()
    };
    let candidates = std::iter::once(set.primary).chain(set.replicas.iter().copied());
    candidates
        .filter(|copy| may(copy) && fits(copy))
        .min_by_key(|copy| (belongs(copy), copy.role != wanted.role))
}

fn brought(shard: &Shard, node: NodeUid) -> Migration {
    Migration {
        shard: shard.uid,
        node,
        copy: None,
        role: None,
    }
}
