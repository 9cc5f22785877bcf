//! The next step of an operation that moves roles or shards, once everything else of its database is
//! settled. Pure.

use super::{back, elsewhere};
use crate::database::deletion::is_lost;
use crate::database::plan::Step;
use crate::maintenance::plan as maintenance;
use crate::observed::Observations;
use crate::operation::plan::{begin, is_known, of_database};
use crate::placement::copies;
use crate::placement::plan::{self as placement, Coming};
use crate::replica_set::{self, ReplicaSet};
use crate::request::new_shard;
use crate::slave_ha::plan::is_silent;
use crate::state::{Change, ClusterState, Stored};
use crate::switchover::plan as switchover;
use jiff::Timestamp;
use model::documents::{
    Database, Lost, Migration, Operation, OperationKind, OperationStatus, Role, Shard, keys,
};
use model::limits::FOLLOWS_FOR;
use model::{ApiError, NodeUid, ShardUid};
use std::time::Instant;
use store::Txn;

/// What an operation does next.
#[derive(Clone, Debug)]
pub enum Doing {
    /// A step.
    Step(Box<Step>),
    /// Nothing now; what it waits for, in words.
    Wait(String),
    /// Nothing any more.
    Done,
}

/// The next step of the operation that works on a database.
#[must_use]
pub fn next(
    (state, observed): (&ClusterState, &Observations),
    database: &Stored<Database>,
    instant: Instant,
    now: Timestamp,
) -> Doing {
    let Some(operation) = of_database(state, database) else {
        return Doing::Done;
    };
    if let Err(reason) = is_known(operation) {
        return Doing::Wait(reason);
    }
    match operation.status {
        OperationStatus::Paused => {
            return Doing::Wait(operation.error.clone().unwrap_or_default());
        }
        OperationStatus::Pending => {
            return match begin(state, operation, now) {
                Ok(step) => Doing::Step(Box::new(step)),
                Err(reason) => Doing::Wait(reason),
            };
        }
        _ => {}
    }
    let work = Work {
        state,
        observed,
        database,
        operation,
        instant,
        now,
    };
    match work.next() {
        Some(Ok(step)) => Doing::Step(Box::new(step)),
        Some(Err(reason)) => Doing::Wait(reason),
        None => match maintenance::waits(state, observed, operation, instant) {
            Some(reason) => Doing::Wait(reason),
            None => Doing::Done,
        },
    }
}

/// A step, or what is waited for before it can be taken.
type Try = Result<Step, String>;

struct Work<'a> {
    state: &'a ClusterState,
    observed: &'a Observations,
    database: &'a Stored<Database>,
    operation: &'a Stored<Operation>,
    instant: Instant,
    now: Timestamp,
}

impl<'a> Work<'a> {
    /// Roles first: then what is brought away has none. What comes back to a node gets its role there, in one move,
    /// unless it has the role of another copy until then. The other way round the end would be the same.
    fn next(&self) -> Option<Try> {
        let Operation {
            shards, migrations, ..
        } = &self.operation.doc;
        let gives_a_role = migrations
            .first()
            .is_some_and(|m| shards.contains(&m.shard));
        if back::comes_back(self.operation) && !gives_a_role {
            return self.next_migration().or_else(|| self.next_role());
        }
        self.next_role().or_else(|| self.next_migration())
    }

    /// The next primary that is to hand its role over.
    fn next_role(&self) -> Option<Try> {
        let shard = *self.operation.shards.first()?;
        let sets = replica_set::of_database(self.state, self.database);
        if self.stays(&sets, shard) {
            return None;
        }
        match sets.iter().find(|set| set.primary.uid == shard) {
            Some(set) if self.has_nobody_left(set) => Some(Ok(self.note(
                format!("redis:{shard} has no replica any more that could take its role"),
                |operation| {
                    operation.shards.remove(0);
                },
            ))),
            Some(set) => Some(self.hand_over(set, None)),
            // It has lost the role meanwhile, to a failover: what was wanted has happened.
            None => Some(Ok(self.note(
                format!("redis:{shard} is no master any more"),
                |operation| {
                    operation.shards.remove(0);
                },
            ))),
        }
    }

    /// Whether a primary's replicas are all on nodes that leave and are not heard, or on dead ones while something comes back
    /// or the primary itself is to be moved: nobody will take its role, and what moves the primary is not kept waiting for
    /// them. Who asks for a failover is told.
    fn has_nobody_left(&self, set: &ReplicaSet<'_>) -> bool {
        let kind = self.operation.kind;
        let mut migrations = self.operation.migrations.iter();
        let goes = migrations.any(|migration| migration.shard == set.primary.uid);
        let goes_on = goes || back::comes_back(self.operation);
        let silent = |replica: &Shard| is_silent((self.observed, self.instant), replica);
        let lost = |replica: &&Stored<Shard>| self.is_lost(replica) || goes_on && silent(replica);
        kind != OperationKind::FailoverShards
            && !set.replicas.is_empty()
            && set.replicas.iter().all(lost)
    }

    /// Whether what it has comes back to nobody now: then that is all that is left of its kind.
    fn stays(&self, sets: &[ReplicaSet<'_>], shard: ShardUid) -> bool {
        let mut sets = sets.iter();
        let set = sets.find(|set| set.members().any(|member| member.uid == shard));
        let both = (self.state, self.observed);
        set.is_some_and(|set| back::is_passed_over(both, self.database, set, self.instant))
    }

    fn lacks_data(&self, copy: ShardUid) -> bool {
        let lacks = |copy: &Stored<Shard>| copy.role == Role::Replica && copy.synced.is_none();
        self.state.shard(copy).is_some_and(lacks)
    }

    fn is_lost(&self, shard: &Shard) -> bool {
        is_lost(self.state, self.observed, shard, self.instant)
    }

    fn hand_over(&self, set: &ReplicaSet<'_>, target: Option<ShardUid>) -> Try {
        let both = (set, &self.database.doc);
        let wanted = switchover::check(
            (self.state, self.observed),
            both,
            target,
            &self.operation.uid,
            self.instant,
        );
        match wanted {
            Ok(wanted) if self.follows_too_short(wanted.new.shard) => Err(format!(
                "redis:{} has followed for less than {} s",
                wanted.new.shard,
                FOLLOWS_FOR.as_secs()
            )),
            Ok(wanted) => Ok(Step::Move(Box::new(wanted))),
            // Who asks for a failover wants to hear at once that it cannot be.
            Err(why) if self.operation.kind == OperationKind::FailoverShards => {
                let (primary, running) = (set.primary.uid, &self.operation.uid);
                let txn = switchover::refuse(self.state, primary, running, &why, self.now);
                let reason = why.reason;
                let txn = txn.ok_or_else(|| reason.clone())?;
                Ok(Step::Store { txn, reason })
            }
            Err(why) => Err(why.reason),
        }
    }

    /// Whether a replica that is to take a role has only just begun to acknowledge. Not looked at when an
    /// operator says `immediate`, nor for a node that goes down: its time is bounded.
    fn follows_too_short(&self, replica: ShardUid) -> bool {
        let hurries = self.operation.immediate || self.operation.kind == OperationKind::EnslaveNode;
        !hurries && self.observed.follows_for(replica, self.instant) < FOLLOWS_FOR
    }

    /// The next shard that is to be brought to another node. Its copy is synced by the time that this is
    /// asked: until then its database is not settled.
    fn next_migration(&self) -> Option<Try> {
        let migration = self.operation.migrations.first()?.clone();
        // A lost one that has been replaced goes when its node is back: that is not waited for.
        let left = |shard: &&Stored<Shard>| shard.removed_by.is_none() || shard.lost.is_none();
        let shard = self.state.shard(migration.shard).filter(left);
        let Some(shard) = shard else {
            return Some(Ok(self.note(
                format!("redis:{} has moved", migration.shard),
                |operation| {
                    operation.migrations.remove(0);
                },
            )));
        };
        let sets = replica_set::of_database(self.state, self.database);
        let set = sets
            .iter()
            .find(|set| set.members().any(|member| member.uid == shard.uid))?;
        if self.stays(&sets, shard.uid) {
            return None;
        }
        if elsewhere::is_out_of_reach((self.state, self.observed), &migration, self.instant) {
            return Some(self.elsewhere(set, shard, &migration));
        }
        match migration.copy {
            None => Some(self.copy(set, shard, migration.node)),
            // A failover may have taken the role from it: it goes to the copy all the same, before the shard goes.
            Some(copy) if shard.role == Role::Primary || lacks_its_role(set, &migration) => {
                Some(self.hand_over(set, Some(copy)))
            }
            // Its node fell silent before it had the data.
            Some(copy) if self.lacks_data(copy) => {
                Some(Err(format!("redis:{copy} has no copy of the data yet")))
            }
            Some(_) => {
                let mut doc = shard.doc.clone();
                doc.removed_by = Some(self.operation.uid.clone());
                doc.synced = None;
                if is_silent((self.observed, self.instant), shard) {
                    // Its node deletes it when it is back: that is not waited for.
                    doc.lost.get_or_insert_with(|| Lost {
                        since: self.now,
                        told: None,
                        extra: serde_json::Map::new(),
                    });
                }
                let mut change = Change::of(self.state, self.now);
                change.replace(keys::shard(shard.uid), shard.revision, &doc);
                Some(Ok(Step::Store {
                    txn: change.into_txn(),
                    reason: format!("redis:{} has a copy in its place", shard.uid),
                }))
            }
        }
    }

    /// The node that a shard was to come to has left the cluster, or is not waited for: another one, or the end.
    fn elsewhere(&self, set: &ReplicaSet<'_>, shard: &Shard, migration: &Migration) -> Try {
        let view = elsewhere::View {
            state: self.state,
            observed: self.observed,
            operation: self.operation,
            instant: self.instant,
            now: self.now,
        };
        view.next(set, shard, migration)
    }

    fn copy(&self, set: &ReplicaSet<'_>, shard: &'a Stored<Shard>, node: NodeUid) -> Try {
        let made = self.may_be_made(shard, node);
        let made = made.map(|port| {
            let uid = self.state.cluster.next_shard;
            let copy = Shard {
                node,
                port,
                role: Role::Replica,
                slots: shard.slots,
                epoch: set.primary.epoch,
                engine: shard.engine.clone(),
                memory_bytes: shard.memory_bytes,
                ..new_shard(uid, self.database, set.primary.users.clone())
            };
            let mut change = Change::of(self.state, self.now);
            change.cluster().next_shard = uid.next();
            change.create(keys::shard(uid), &copy);
            let mut doc = self.operation.doc.clone();
            if let Some(migration) = doc.migrations.first_mut() {
                migration.copy = Some(uid);
            }
            doc.step_since = Some(self.now);
            change.replace(keys::operation(&doc.uid), self.operation.revision, &doc);
            (change.into_txn(), uid)
        });
        match made {
            Ok((txn, uid)) => Ok(Step::Store {
                txn,
                reason: format!(
                    "redis:{uid} becomes a copy of redis:{} on node:{node}",
                    shard.uid
                ),
            }),
            Err(error) => Err(error.description),
        }
    }

    /// What was judged when it was asked for is judged again: much may have happened since.
    fn may_be_made(&self, shard: &Shard, node: NodeUid) -> Result<u16, ApiError> {
        // A release that did not keep what the operator said had judged it then.
        if self.operation.override_policy == Some(false) {
            copies::apart(self.state, shard, &self.operation.migrations)?;
        }
        let both = (self.state, self.observed);
        copy_of(both, shard, (node, Coming::default()), self.instant)
    }

    fn note(&self, reason: String, change_it: impl Fn(&mut Operation)) -> Step {
        let mut doc = self.operation.doc.clone();
        change_it(&mut doc);
        doc.step_since = Some(self.now);
        doc.waiting_on = None;
        let mut change = Change::of(self.state, self.now);
        change.replace(keys::operation(&doc.uid), self.operation.revision, &doc);
        let txn: Txn = change.into_txn();
        Step::Store { txn, reason }
    }
}

/// Whether a set is none of those that an operation moves something of, and nobody serves it: the node of its primary is
/// dead. Whatever becomes of it then, the operation does not wait for it.
pub(crate) fn is_beside(
    (state, observed): (&ClusterState, &Observations),
    database: &Database,
    set: &ReplicaSet<'_>,
    instant: Instant,
) -> bool {
    let moves =
        |operation: &&Stored<Operation>| operation.kind.moves() && is_known(operation).is_ok();
    let Some(operation) = of_database(state, database).filter(moves) else {
        return false;
    };
    let migrations = operation.migrations.iter();
    let moved: Vec<ShardUid> = migrations
        .flat_map(|migration| [Some(migration.shard), migration.copy])
        .flatten()
        .chain(operation.shards.iter().copied())
        .collect();
    observed.is_silent(set.primary.node, instant)
        && !set.members().any(|member| moved.contains(&member.uid))
}

/// Whether a copy is to be the primary, and another one is.
fn lacks_its_role(set: &ReplicaSet<'_>, migration: &Migration) -> bool {
    migration.role == Some(Role::Primary) && migration.copy != Some(set.primary.uid)
}

/// Whether a node has room for a copy of a shard, besides what comes to it before; the copy's port.
///
/// # Errors
/// `insufficient_resources` with the reason.
pub(crate) fn copy_of(
    (state, observed): (&ClusterState, &Observations),
    shard: &Shard,
    (node, coming): (NodeUid, Coming),
    instant: Instant,
) -> Result<u16, ApiError> {
    let wanted = (node, shard.memory_bytes, coming);
    placement::room_on(state, observed, &shard.engine, wanted, instant)?;
    let ports = placement::shard_ports(state, 1)?;
    ports
        .first()
        .copied()
        .ok_or_else(|| model::ErrorCode::InsufficientResources.into())
}
