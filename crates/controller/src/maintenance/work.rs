//! What brings shards and roles away from a node, one operation a database. Pure.

use crate::busy;
use crate::migration::request::Beginner;
use crate::observed::Observations;
use crate::operation::plan::of_database;
use crate::operation::request::operation;
use crate::placement::plan as placement;
use crate::replica_set::{self, ReplicaSet};
use crate::request::Fresh;
use crate::state::{Change, ClusterState, Stored};
use model::documents::{
    Database, DatabaseStatus, Migration, Node, Operation, OperationKind, OperationStatus, Role,
    Shard,
};
use model::intent::{IntentOutcome, Pace};
use model::{ApiError, DatabaseUid, ErrorCode, NodeUid, OperationUid, ShardUid};
use std::collections::BTreeMap;
use std::time::Duration;
use store::Txn;

/// What an operation on one database is to do.
#[derive(Clone, Debug, Default)]
pub(super) struct Work {
    pub(super) hand_over: Vec<ShardUid>,
    pub(super) migrations: Vec<Migration>,
}

impl Work {
    pub(super) fn is_empty(&self) -> bool {
        self.hand_over.is_empty() && self.migrations.is_empty()
    }
}

pub(super) type Works = BTreeMap<DatabaseUid, Work>;

/// Who keeps what.
#[derive(Clone, Copy, Debug)]
pub(super) enum Replicas<'a> {
    /// They go too, where there is room.
    Go,
    /// They stay, but for those of these databases.
    StayBut(&'a [DatabaseUid]),
    /// They go, or the node is not emptied.
    MustGo,
}

impl Replicas<'_> {
    /// Whether a copy stays where it is.
    fn keep(self, member: &Shard) -> bool {
        let but = |but: &[DatabaseUid]| !but.contains(&member.database);
        member.role == Role::Replica && matches!(self, Self::StayBut(these) if but(these))
    }
}

/// What works on a database when an action on a node comes to it, and does not have that refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// Whatever works on it, that is told.
    Nothing,
    /// Changes of the database: they may wait for others for ever.
    Changes,
    /// All of it: what waits for a node that is not heard waits no more when that leaves.
    Everything,
}

impl After {
    fn waits_for(self, running: &Operation) -> bool {
        match self {
            Self::Nothing => false,
            Self::Changes => running.kind == OperationKind::UpdateDatabase,
            Self::Everything => true,
        }
    }
}

/// An action on a node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Action {
    pub(super) node: NodeUid,
    pub(super) kind: OperationKind,
    pub(super) pace: Pace,
    /// What it waits for that works on its databases.
    pub(super) after: After,
}

/// What empties a node. Primaries with a synced replica elsewhere hand over; what then is left of them,
/// and everything else, is brought to another node.
pub(super) fn emptied(
    (state, observed): (&ClusterState, &Observations),
    node: NodeUid,
    replicas: Replicas<'_>,
    fresh: &Fresh<'_>,
) -> Result<Works, ApiError> {
    let mut works = Works::new();
    let mut places = placement::Planner::new(state, observed, fresh.instant);
    for database in that_stay(state) {
        let keep = matches!(replicas, Replicas::StayBut(but) if !but.contains(&database.uid));
        for set in replica_set::of_database(state, database) {
            let mut copies = nodes_of(state, &set);
            for member in set.members().filter(|member| member.node == node) {
                let work = works.entry(database.uid).or_default();
                let within = state.node_silent();
                let elsewhere = has_heir((state, observed), &set, (member, within), fresh);
                if elsewhere {
                    work.hand_over.push(member.uid);
                }
                // After that it is a replica.
                let replica = elsewhere || member.role == Role::Replica;
                if replica && keep {
                    continue;
                }
                match places.place(member, &copies, node) {
                    Ok(to) => {
                        copies.push(to);
                        work.migrations.push(Migration {
                            shard: member.uid,
                            node: to,
                            copy: None,
                            role: None,
                        });
                    }
                    Err(_) if replica && !matches!(replicas, Replicas::MustGo) => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }
    Ok(works)
}

/// What has a node's primaries hand over that have a synced replica on another node that stays.
pub(super) fn handed_over(
    (state, observed): (&ClusterState, &Observations),
    (node, within): (NodeUid, Duration),
    fresh: &Fresh<'_>,
) -> Works {
    let mut works = Works::new();
    for database in that_stay(state) {
        for set in replica_set::of_database(state, database) {
            let primary = set.primary;
            let has_heir = || has_heir((state, observed), &set, (primary, within), fresh);
            if primary.node == node && has_heir() {
                let work = works.entry(database.uid).or_default();
                work.hand_over.push(primary.uid);
            }
        }
    }
    works
}

/// Databases that are not being deleted: of one that is, nothing is brought anywhere, and nobody waits for that.
fn that_stay(state: &ClusterState) -> impl Iterator<Item = &Stored<Database>> {
    let stays = |database: &&Stored<Database>| database.status != DatabaseStatus::DeletePending;
    state.databases.iter().filter(stays)
}

/// Whether a set's primary has a synced replica on another node that was heard within this time and is not about to go away.
fn has_heir(
    (state, observed): (&ClusterState, &Observations),
    set: &ReplicaSet<'_>,
    (member, within): (&Shard, Duration),
    fresh: &Fresh<'_>,
) -> bool {
    let stays = |replica: &Shard| {
        let seen = observed.heard(replica.node, within, fresh.instant);
        let node = state.node(replica.node);
        seen.is_some_and(|seen| !seen.stopping)
            && node.is_some_and(|node| node.maintenance.is_none() && !node.leaving)
    };
    member.role == Role::Primary
        && set
            .replicas
            .iter()
            .any(|r| r.node != member.node && r.synced.is_some() && stays(r))
}

/// Where a set has copies, or will have by what is under way.
fn nodes_of(state: &ClusterState, set: &ReplicaSet<'_>) -> Vec<NodeUid> {
    let moves = running(state).flat_map(|operation| &operation.migrations);
    let coming = moves.filter(|migration| {
        let mut members = set.members();
        members.any(|member| member.uid == migration.shard)
    });
    let here = set.members().map(|member| member.node);
    here.chain(coming.map(|migration| migration.node)).collect()
}

/// Where a set will have copies when what is under way is done.
fn nodes_then(state: &ClusterState, set: &ReplicaSet<'_>) -> Vec<NodeUid> {
    let then = |member: &Stored<Shard>| comes_to(state, member).unwrap_or(member.node);
    set.members().map(then).collect()
}

/// Operations that are under way.
fn running(state: &ClusterState) -> impl Iterator<Item = &Stored<Operation>> {
    state.operations.iter().filter(|o| o.ended.is_none())
}

/// Whether a shard is a copy that has not taken another one's place yet.
fn is_being_made(state: &ClusterState, copy: &Shard) -> bool {
    let stays = |shard: ShardUid| state.shard(shard).is_some_and(|s| s.removed_by.is_none());
    let mut moves = running(state).flat_map(|operation| &operation.migrations);
    moves.any(|migration| migration.copy == Some(copy.uid) && stays(migration.shard))
}

/// The node to which a shard is being brought, if that takes shards.
fn comes_to(state: &ClusterState, shard: &Shard) -> Option<NodeUid> {
    let mut moves = running(state).flat_map(|operation| &operation.migrations);
    let node = moves.find(|m| m.shard == shard.uid)?.node;
    let takes = |node: &Stored<Node>| !node.leaving && node.maintenance.is_none();
    state.node(node).filter(|node| takes(node)).map(|n| n.uid)
}

/// A node that is not heard has the data of a shard of which no other copy could take over.
pub(crate) fn data_is_there_alone(state: &ClusterState, node: NodeUid) -> Option<ApiError> {
    let mut sets = that_stay(state).flat_map(|database| replica_set::of_database(state, database));
    let primary = sets.find(|set| set.primary.node == node)?.primary;
    Some(ApiError::new(
        ErrorCode::NodeDown,
        format!(
            "node:{node} is not heard, and redis:{} of db:{} has its data there alone: bring the node \
             back, or delete the database",
            primary.uid, primary.database
        ),
    ))
}

/// What brings a set's copies that are on a node which is not heard to others: only replicas can be made
/// anew.
pub(super) fn replaced(
    (state, observed): (&ClusterState, &Observations),
    node: NodeUid,
    fresh: &Fresh<'_>,
) -> Result<Works, ApiError> {
    if let Some(error) = data_is_there_alone(state, node) {
        return Err(error);
    }
    let sets = || that_stay(state).flat_map(|database| replica_set::of_database(state, database));
    let mut works = Works::new();
    let mut places = placement::Planner::new(state, observed, fresh.instant);
    for set in sets() {
        let there = |replica: &&&Stored<Shard>| replica.node == node;
        // What makes a copy there chooses another node, or ends, now that this one leaves.
        let whole = |replica: &&&Stored<Shard>| !is_being_made(state, replica);
        for replica in set.replicas.iter().filter(there).filter(whole) {
            // What is on its way already takes its place.
            let to = match comes_to(state, replica) {
                Some(to) => to,
                None => {
                    let now = places.place(replica, &nodes_of(state, &set), node);
                    // It is done after what is under way: then copies are where that brings them.
                    now.or_else(|why| {
                        let then = places.place(replica, &nodes_then(state, &set), node);
                        then.map_err(|_| why)
                    })?
                }
            };
            let work = works.entry(replica.database).or_default();
            work.migrations.push(Migration {
                shard: replica.uid,
                node: to,
                copy: None,
                role: None,
            });
        }
    }
    Ok(works)
}

/// Whether nothing is under way that an action on a node does not wait for: on the node, or on a database of which
/// it would bring something away.
///
/// # Errors
/// `busy`.
pub(super) fn free<'a>(
    state: &ClusterState,
    (node, kind, after): (NodeUid, OperationKind, After),
    databases: impl Iterator<Item = &'a Stored<Database>>,
) -> Result<(), ApiError> {
    let in_the_way = |other: &&Stored<Operation>| {
        // Asked for again, it is not done twice.
        let waited_for = other.kind != kind && after.waits_for(other);
        other.ended.is_none() && other.node == Some(node) && !waited_for
    };
    if let Some(operation) = state.operations.iter().find(in_the_way) {
        return Err(busy::with(&format!("node:{node}"), operation));
    }
    for database in databases {
        let running = of_database(state, database);
        if !running.is_some_and(|running| after.waits_for(running)) {
            busy::free(state, database)?;
        }
    }
    Ok(())
}

/// The databases with copies on a node that are to be brought away from there.
pub(super) fn with_copies<'a>(
    state: &'a ClusterState,
    node: NodeUid,
    replicas: Replicas<'_>,
) -> impl Iterator<Item = &'a Stored<Database>> {
    that_stay(state).filter(move |database| {
        let sets = replica_set::of_database(state, database);
        let mut members = sets.iter().flat_map(ReplicaSet::members);
        members.any(|member| member.node == node && !replicas.keep(member))
    })
}

/// Begins the operations of an action.
pub(super) fn finish(
    state: &ClusterState,
    mut change: Change,
    works: Works,
    action: Action,
    fresh: &Fresh<'_>,
) -> Result<(Txn, IntentOutcome), ApiError> {
    let mut operations = Vec::new();
    let works: Vec<_> = works.into_iter().filter(|(_, w)| !w.is_empty()).collect();
    let mut beginner = Beginner::of(works.len())?;
    for (uid, work) in works {
        let database = state.database(uid).ok_or(ErrorCode::DbNotFound)?;
        let begun = u32::try_from(operations.len()).unwrap_or(u32::MAX);
        let at_once = action.pace.at_once;
        let total = work.hand_over.len() + work.migrations.len();
        let operation = Operation {
            uid: OperationUid(format!("{}-{uid}", fresh.operation)),
            status: if at_once.is_none_or(|most| begun < most) {
                OperationStatus::Active
            } else {
                OperationStatus::Pending
            },
            shards: work.hand_over,
            migrations: work.migrations,
            node: Some(action.node),
            group: Some(fresh.operation.clone()),
            at_once,
            total: u32::try_from(total).unwrap_or(u32::MAX),
            step_within_seconds: action.pace.step_within_seconds,
            ..operation(action.kind, uid, fresh)
        };
        let running = of_database(state, database);
        let waits = running.is_some_and(|running| action.after.waits_for(running));
        operations.push(if waits {
            Beginner::queue(&mut change, operation)
        } else {
            beginner.begin(state, &mut change, database, operation)?
        });
    }
    let outcome = IntentOutcome {
        database: None,
        operation: (!operations.is_empty()).then(|| fresh.operation.clone()),
        operations,
    };
    Ok((change.into_txn(), outcome))
}
