//! Which lost replicas are made anew, when, and where. Pure.
//!
//! A replica is lost when it has no record and its node is not heard, or its engine does not come back.
//! That is stored with its moment, so that another primary node counts the grace time from the same one.
//! After it a copy is made on another node by an operation as any other ([`crate::migration`]), which only
//! does not wait for the lost one; when the copy is synced, the lost one is no copy any more, and is removed
//! when its node is heard again.
//!
//! | bound | why |
//! |---|---|
//! | grace time | a node that is started again is back by itself |
//! | cool-down of the cluster | node after node failing is a trouble of another kind: copies would fill what is left |
//! | cool-down of a database | one that is hit again and again would do nothing but sync |
//! | databases at once | a sync takes the network and memory of both nodes |

use crate::database::plan::Step;
use crate::failover::stall;
use crate::migration::back;
use crate::observed::{self, Observations};
use crate::placement::plan::Planner;
use crate::replica_set::{self, ReplicaSet};
use crate::state::{Change, ClusterState, Stored};
use jiff::{SignedDuration, Timestamp};
use model::documents::{
    Database, DatabaseStatus, Lost, Migration, NodeLoss, Operation, OperationKind, OperationStatus,
    Role, Severity, Shard, keys,
};
use model::limits::{HEARTBEAT_LOST, SLAVE_HA_AT_ONCE, SLAVE_HA_TOLD_EVERY};
use model::observation::EngineState;
use model::{NodeUid, OperationUid, ShardUid};
use serde_json::{Map, json};
use std::cmp::Reverse;
use std::time::Instant;

/// Most shards that one transaction says something of; each may be a document and an event.
const SHARDS_AT_ONCE: usize = 32;

/// Whether a database's lost replicas are made anew.
#[must_use]
pub fn is_on(state: &ClusterState, database: &Database) -> bool {
    let usual = state.cluster.settings.slave_ha;
    database.slave_ha.enabled.unwrap_or(usual)
}

/// Whether a replica is lost and an operation that is under way makes it anew: nothing waits for it. One that an
/// operation brings to another node is made from its primary too, so its own node is not needed for that: it is lost
/// when that is silent and the primary has no record of it. Operations that move something else wait for no such replica at
/// all: it is made anew whenever its node is back. One that is a copy on its way decides what becomes of that way.
#[must_use]
pub(crate) fn is_replaced(
    (state, observed): (&ClusterState, &Observations),
    database: &Database,
    replica: &Shard,
    instant: Instant,
) -> bool {
    let Some(operation) = crate::operation::plan::of_database(state, database) else {
        return false;
    };
    let is_copy = |migration: &Migration| migration.copy == Some(replica.uid);
    let on_its_way = operation.migrations.iter().any(is_copy);
    let waits = !operation.kind.moves() || on_its_way && !back::comes_back(operation);
    if !waits && is_silent((observed, instant), replica) {
        return true;
    }
    let mut migrations = operation.migrations.iter();
    let comes_anew = migrations.any(|migration| migration.shard == replica.uid);
    let lost = if operation.slave_ha {
        replica.lost.is_some()
    } else {
        is_silent((observed, instant), replica)
    };
    comes_anew && lost
}

/// Whether nobody hears of a replica, and its primary has no record of it.
#[must_use]
pub(crate) fn is_silent((observed, instant): (&Observations, Instant), replica: &Shard) -> bool {
    let unrecorded = replica.role == Role::Replica && replica.synced.is_none();
    unrecorded && observed.is_silent(replica.node, instant)
}

/// The next step.
#[must_use]
pub fn next(
    state: &ClusterState,
    observed: &Observations,
    instant: Instant,
    now: Timestamp,
) -> Option<Step> {
    let view = View {
        state,
        observed,
        instant,
        now,
    };
    view.noted()
        .or_else(|| view.elsewhere())
        .or_else(|| view.begun())
}

struct View<'a> {
    state: &'a ClusterState,
    observed: &'a Observations,
    instant: Instant,
    now: Timestamp,
}

/// A lost replica whose grace time is over.
struct Due<'a> {
    set: ReplicaSet<'a>,
    shard: &'a Stored<Shard>,
    lost: &'a Lost,
}

impl<'a> View<'a> {
    /// Which replicas are lost, or are not any more.
    fn noted(&self) -> Option<Step> {
        let mut change = Change::of(self.state, self.now);
        let mut names = Vec::new();
        let unsynced = |s: &Shard| s.role == Role::Replica && s.synced.is_none();
        let doubtful = |s: &&Stored<Shard>| unsynced(s) || s.lost.is_some();
        let copies = self.state.shards.iter().filter(doubtful);
        for shard in copies.filter(|shard| shard.removed_by.is_none()) {
            let counts = shard.role == Role::Replica && self.counts(shard);
            let lost = counts && self.is_lost(shard);
            let mut doc = shard.doc.clone();
            match (&shard.lost, lost) {
                (None, true) => {
                    doc.lost = Some(Lost {
                        since: self.now,
                        told: None,
                        extra: Map::new(),
                    });
                }
                // One that runs again is found when it is synced: until then the time goes on.
                (Some(_), _) if !counts => {
                    doc.lost = None;
                    if doc.role == Role::Replica {
                        doc.trouble = None;
                    }
                }
                _ => continue,
            }
            change.replace(keys::shard(shard.uid), shard.revision, &doc);
            names.push(shard.uid);
            if names.len() >= SHARDS_AT_ONCE {
                break;
            }
        }
        let reason = || format!("lost or found: {}", replica_set::names(names.clone()));
        (!names.is_empty()).then(|| Step::Store {
            txn: change.into_txn(),
            reason: reason(),
        })
    }

    /// Whether a replica would be made anew if it were lost: an operator who takes a node out of service
    /// for a while does not want that.
    fn counts(&self, shard: &Shard) -> bool {
        let node = self.state.node(shard.node);
        let stays = node.is_none_or(|node| node.maintenance.is_none() && !node.leaving);
        let database = self.state.database(shard.database);
        stays
            && database.is_some_and(|database| {
                database.status != DatabaseStatus::DeletePending && is_on(self.state, database)
            })
    }

    /// Whether a replica is lost now.
    fn is_lost(&self, shard: &Shard) -> bool {
        if shard.synced.is_some() {
            return false;
        }
        let silence = self.observed.silence(shard.node, self.instant);
        if silence.is_some_and(|silence| silence >= HEARTBEAT_LOST) {
            return true;
        }
        let node = self.observed.fresh(shard.node, self.instant);
        let seen = node.and_then(|node| observed::shard(node, shard.uid));
        // One that hangs is ended and started again, if its node can do that.
        let hangs = || stall::hanging(self.state, self.observed, shard, self.instant).is_some();
        seen.is_some_and(|seen| matches!(seen.state, EngineState::Stopped | EngineState::Failed))
            || hangs()
    }

    /// A copy that is being made is lost itself: another node is chosen.
    fn elsewhere(&self) -> Option<Step> {
        for operation in self.running() {
            let migration = operation.migrations.first();
            let copy = migration
                .and_then(|migration| migration.copy)
                .and_then(|copy| self.state.shard(copy));
            let Some(copy) = copy.filter(|copy| copy.role == Role::Replica) else {
                continue;
            };
            if copy.removed_by.is_some() || !self.is_over(copy) {
                continue;
            }
            let database = self.state.database(operation.database);
            let lost = migration.and_then(|migration| self.state.shard(migration.shard));
            let (Some(database), Some(lost)) = (database, lost) else {
                continue;
            };
            let sets = replica_set::of_database(self.state, database);
            let Some(set) = sets.iter().find(|set| set.primary.slots == copy.slots) else {
                continue;
            };
            let mut places = Planner::new(self.state, self.observed, self.instant);
            let Ok(node) = places.place(lost, &nodes_of(set), lost.node) else {
                continue;
            };
            return Some(self.moved_on(operation, copy, node));
        }
        None
    }

    fn moved_on(&self, operation: &Stored<Operation>, copy: &Stored<Shard>, node: NodeUid) -> Step {
        let mut change = Change::of(self.state, self.now);
        let mut gone = copy.doc.clone();
        gone.removed_by = Some(operation.uid.clone());
        gone.trouble = None;
        change.replace(keys::shard(copy.uid), copy.revision, &gone);
        let mut doc = operation.doc.clone();
        if let Some(migration) = doc.migrations.first_mut() {
            migration.copy = None;
            migration.node = node;
        }
        doc.step_since = Some(self.now);
        change.replace(keys::operation(&doc.uid), operation.revision, &doc);
        Step::Store {
            txn: change.into_txn(),
            reason: format!("redis:{} is lost too: node:{node} is next", copy.uid),
        }
    }

    /// Operations that make replicas anew now.
    fn running(&self) -> impl Iterator<Item = &'a Stored<Operation>> {
        let active = |operation: &&Stored<Operation>| {
            let known = crate::operation::plan::is_known(operation).is_ok();
            operation.slave_ha && operation.status == OperationStatus::Active && known
        };
        self.state.operations.iter().filter(active)
    }

    /// Whether a replica is lost, and its grace time over.
    fn is_over(&self, shard: &Shard) -> bool {
        let Some(lost) = shard.lost.as_ref().filter(|_| self.is_lost(shard)) else {
            return false;
        };
        let grace = self.state.cluster.settings.slave_ha_grace_period;
        self.now >= after(lost.since, grace)
    }

    /// The next database whose lost replicas are made anew; or why none of them is.
    fn begun(&self) -> Option<Step> {
        let due: Vec<&Stored<Shard>> = self
            .state
            .shards
            .iter()
            .filter(|shard| shard.lost.is_some() && shard.role == Role::Replica)
            .filter(|shard| shard.removed_by.is_none() && self.is_over(shard))
            .collect();
        if due.is_empty() {
            return None;
        }
        let mut databases: Vec<&Stored<Database>> = due
            .iter()
            .filter_map(|shard| self.state.database(shard.database))
            .filter(|database| database.status == DatabaseStatus::Active)
            .filter(|database| database.operation.is_none())
            .collect();
        databases.sort_by_key(|database| {
            (
                Reverse(database.slave_ha.priority),
                database.memory_size,
                Reverse(database.uid),
            )
        });
        databases.dedup_by_key(|database| database.uid);
        let mut places = Planner::new(self.state, self.observed, self.instant);
        let free = self.running().count() < SLAVE_HA_AT_ONCE;
        let mut told: Vec<(&Stored<Shard>, String)> = Vec::new();
        for database in databases {
            let due = self.due(database, &due);
            match self.migrations(database, &due, &mut places) {
                Ok(migrations) if free && !migrations.is_empty() => {
                    return Some(self.operation(database, migrations));
                }
                Ok(_) => {}
                Err(reasons) => told.extend(reasons),
            }
        }
        self.told(told)
    }

    /// Those of them whose primary serves, so that a copy can be made.
    fn due(&self, database: &Stored<Database>, due: &[&'a Stored<Shard>]) -> Vec<Due<'a>> {
        let mut found = Vec::new();
        for set in replica_set::of_database(self.state, database) {
            let heard = self.observed.fresh(set.primary.node, self.instant);
            if !set.primary.is_usable() || heard.is_none() || set.primary.moving.is_some() {
                continue;
            }
            let lost = due
                .iter()
                .find(|shard| shard.database == database.uid && shard.slots == set.primary.slots);
            if let Some(shard) = lost.copied()
                && let Some(lost) = &shard.lost
            {
                found.push(Due { set, shard, lost });
            }
        }
        found
    }

    /// Where they are made anew, or why none of them is.
    fn migrations(
        &self,
        database: &Stored<Database>,
        due: &[Due<'a>],
        places: &mut Planner<'_>,
    ) -> Result<Vec<Migration>, Vec<(&'a Stored<Shard>, String)>> {
        let mut migrations = Vec::new();
        let mut reasons = Vec::new();
        for due in due {
            let shard = due.shard;
            let placed = match self.cools_down(database, shard.node) {
                Some(reason) => Err(reason),
                None => places
                    .place(shard, &nodes_of(&due.set), shard.node)
                    .map_err(|error| error.description),
            };
            match placed {
                Ok(node) => migrations.push(Migration {
                    shard: shard.uid,
                    node,
                    copy: None,
                    role: None,
                }),
                Err(reason) if self.may_tell(due.lost) => reasons.push((shard, reason)),
                Err(_) => {}
            }
        }
        if migrations.is_empty() {
            return Err(reasons);
        }
        Ok(migrations)
    }

    fn may_tell(&self, lost: &Lost) -> bool {
        let every = SignedDuration::try_from(SLAVE_HA_TOLD_EVERY).unwrap_or(SignedDuration::MAX);
        lost.told
            .is_none_or(|told| self.now.duration_since(told) >= every)
    }

    /// Why nothing of a node or of a database is made anew now.
    fn cools_down(&self, database: &Database, node: NodeUid) -> Option<String> {
        let settings = &self.state.cluster.settings;
        if let Some(last) = database.slave_ha.last {
            let until = after(last, settings.slave_ha_bdb_cooldown_period);
            if self.now < until {
                return Some(format!(
                    "it was done for db:{} lately: not before {until:.0}",
                    database.uid
                ));
            }
        }
        let loss = self.state.cluster.node_loss.as_ref()?;
        let until = after(loss.since, settings.slave_ha_cooldown_period);
        (loss.node != node && self.now < until).then(|| {
            format!(
                "it was done for node:{} lately: not before {until:.0}",
                loss.node
            )
        })
    }

    fn operation(&self, database: &Stored<Database>, migrations: Vec<Migration>) -> Step {
        let mut change = Change::of(self.state, self.now);
        let uid = OperationUid::of(self.now, self.state.revision.0);
        let mut doc = database.doc.clone();
        doc.status = DatabaseStatus::ActiveChangePending;
        doc.operation = Some(uid.clone());
        doc.slave_ha.last = Some(self.now);
        change.replace(keys::database(doc.uid), database.revision, &doc);
        let shards = migrations.iter().map(|migration| migration.shard);
        let shards: Vec<ShardUid> = shards.collect();
        let lost = shards.iter().filter_map(|uid| self.state.shard(*uid));
        for shard in lost.clone().filter(|shard| shard.trouble.is_some()) {
            let mut doc = shard.doc.clone();
            doc.trouble = None;
            change.replace(keys::shard(doc.uid), shard.revision, &doc);
        }
        let first = lost.clone().next();
        change.cluster().node_loss = first.map(|shard| NodeLoss {
            node: shard.node,
            since: self.now,
            extra: Map::new(),
        });
        let since = lost.filter_map(|shard| self.gone_since(shard));
        change.event(
            Severity::Warning,
            "slave_ha_started",
            &[
                ("bdb_uid", json!(database.uid)),
                ("bdb_name", json!(database.name)),
                ("node_uid", json!(first.map(|shard| shard.node))),
                ("shards", json!(shards)),
                ("lost_since", json!(since.min())),
            ],
        );
        let total = u32::try_from(migrations.len()).unwrap_or(u32::MAX);
        let operation = Operation {
            uid: uid.clone(),
            migrations,
            total,
            slave_ha: true,
            ..crate::operation::plan::new_operation(
                OperationKind::MigrateShards,
                database.uid,
                uid,
                self.now,
            )
        };
        change.create(keys::operation(&operation.uid), &operation);
        Step::Store {
            txn: change.into_txn(),
            reason: format!(
                "lost, and made anew elsewhere: {} of db:{}",
                replica_set::names(shards),
                database.uid
            ),
        }
    }

    /// Since when a lost replica has been gone, as far as is known: that it is lost counts, and is stored, only while
    /// lost replicas are made anew at all, and that may have been turned on later.
    fn gone_since(&self, shard: &Shard) -> Option<Timestamp> {
        let lost = shard.lost.as_ref()?.since;
        let outages = &self.state.outages;
        let node = outages.nodes.get(&shard.node).map(|outage| outage.since);
        let own = outages.shards.get(&shard.uid).map(|outage| outage.since);
        [Some(lost), node, own].into_iter().flatten().min()
    }

    /// Tells why replicas are not made anew, an hour after it was told last.
    fn told(&self, reasons: Vec<(&Stored<Shard>, String)>) -> Option<Step> {
        if reasons.is_empty() {
            return None;
        }
        let mut change = Change::of(self.state, self.now);
        let mut names = Vec::new();
        for (shard, reason) in reasons.into_iter().take(SHARDS_AT_ONCE) {
            let mut doc = shard.doc.clone();
            if let Some(lost) = &mut doc.lost {
                lost.told = Some(self.now);
            }
            doc.trouble = Some(format!("lost, and not made anew yet: {reason}"));
            change.replace(keys::shard(shard.uid), shard.revision, &doc);
            change.event(
                Severity::Warning,
                "slave_ha_waits",
                &[
                    ("bdb_uid", json!(shard.database)),
                    ("shard_uid", json!(shard.uid)),
                    ("node_uid", json!(shard.node)),
                    ("reason", json!(reason)),
                ],
            );
            names.push(shard.uid);
        }
        Some(Step::Store {
            txn: change.into_txn(),
            reason: format!(
                "lost, and cannot be made anew: {}",
                replica_set::names(names)
            ),
        })
    }
}

fn nodes_of(set: &ReplicaSet<'_>) -> Vec<NodeUid> {
    set.members().map(|member| member.node).collect()
}

fn after(since: Timestamp, seconds: u32) -> Timestamp {
    since
        .checked_add(SignedDuration::from_secs(i64::from(seconds)))
        .unwrap_or(Timestamp::MAX)
}
