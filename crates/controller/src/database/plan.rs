//! One small step at a time from what is stored and observed. Pure; missing information vetoes.

use super::deletion::{self, gone_with_its_node, is_lost};
use super::restart;
use crate::failover::plan::{self as failover, Verdict};
use crate::failover::{stall, times};
use crate::leases::plan as leases;
use crate::maintenance::plan as maintenance;
use crate::migration::back;
use crate::migration::plan::{self as migration, Doing};
use crate::observed::{self, Observations};
use crate::operation::{ending, plan as operation};
use crate::placement::plan::proxies;
use crate::replica_set::{self, ReplicaSet};
use crate::replication::{damaged, hanging, plan as replication};
use crate::slave_ha::plan as slave_ha;
use crate::state::{Change, ClusterState, Stored};
use crate::switchover::execute;
use crate::switchover::plan::{Move, Party};
use jiff::Timestamp;
use model::command::{AgentCommand, EngineSettings, EngineSpec};
use model::documents::{
    Database, DatabaseStatus, Fence, OperationKind, OperationStatus, RoleMove, Severity, Shard,
    keys,
};
use model::limits::OPERATIONS_KEPT;
use model::observation::{EngineState, ShardObservation};
use model::{NodeUid, OperationUid, ShardUid};
use serde_json::json;
use std::time::Instant;
use store::Txn;

/// Most operations of which one transaction says what they wait for.
const WAITS_AT_ONCE: usize = 100;

/// What to do next.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Order an agent.
    Command {
        /// On this node.
        node: NodeUid,
        /// About this shard.
        shard: ShardUid,
        /// The order.
        command: AgentCommand,
        /// Why.
        reason: String,
    },
    /// Carry a planned move out; see [`crate::switchover`].
    Move(Box<Move>),
    /// Find out how a move ended that was begun.
    Settle {
        /// The primary that had the role.
        old: Box<Party>,
        /// The replica that was to have it.
        new: Box<Party>,
        /// The move.
        moving: RoleMove,
    },
    /// Write to the store.
    Store {
        /// The transaction.
        txn: Txn,
        /// Why.
        reason: String,
    },
}

/// What to do next, and what is waited for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Steps that may be taken now, at most one a shard and one a database.
    pub steps: Vec<Step>,
    /// What operations wait for, in words.
    pub waits: Vec<(OperationUid, String)>,
}

/// Plans the next steps of every database.
#[must_use]
pub fn plan(
    state: &ClusterState,
    observed: &Observations,
    instant: Instant,
    now: Timestamp,
) -> Plan {
    let mut plan = Plan::default();
    plan.steps
        .extend(maintenance::next(state, observed, instant, now));
    plan.steps.extend(ending::of_nodes_that_left(state, now));
    plan.steps.extend(operation::taken(state, now));
    for database in &state.databases {
        if let Some(step) = operation::goes_on((state, observed), database, instant, now) {
            plan.steps.push(step);
            continue;
        }
        let next = if database.status == DatabaseStatus::DeletePending {
            deletion::next(state, observed, database, instant, now)
        } else {
            serving(state, observed, database, instant, now)
        };
        // A deadline pauses; nothing is skipped.
        if let Next::Again(_, reason) | Next::Wait(reason) = &next
            && let Some(pause) = operation::overdue(state, database, reason, now)
        {
            plan.steps.push(pause);
            continue;
        }
        match next {
            Next::Steps(steps) => plan.steps.extend(steps),
            Next::Again(steps, reason) => {
                plan.steps.extend(steps);
                plan.waits
                    .extend(database.operation.clone().map(|uid| (uid, reason)));
            }
            Next::Wait(reason) => {
                plan.waits
                    .extend(database.operation.clone().map(|uid| (uid, reason)));
            }
        }
    }
    plan.waits.extend(operation::queued(state));
    // What has failed comes first: of several transactions of a plan the first is written.
    plan.steps
        .extend(slave_ha::next(state, observed, instant, now));
    plan
}

pub(super) enum Next {
    Steps(Vec<Step>),
    /// What failed before is tried again: until it succeeds, that is what is waited for.
    Again(Vec<Step>, String),
    Wait(String),
}

/// What a shard needs.
enum Need {
    Step(Step),
    /// A step that failed before, and why.
    Again(Step, String),
    /// A step that nothing waits for.
    Beside(Step),
    Wait(String),
    Nothing,
}

fn serving(
    state: &ClusterState,
    observed: &Observations,
    database: &Stored<Database>,
    instant: Instant,
    now: Timestamp,
) -> Next {
    let (mut steps, mut beside) = (Vec::new(), Vec::new());
    let mut wait = None;
    let mut failed = None;
    let view = View {
        state,
        observed,
        database,
        instant,
        now,
    };
    for need in view.needs() {
        match need {
            Need::Step(step) => steps.push(step),
            Need::Again(step, reason) => {
                steps.push(step);
                failed = Some(reason);
            }
            Need::Beside(step) => beside.push(step),
            Need::Wait(reason) => wait = Some(reason),
            Need::Nothing => {}
        }
    }
    let settled = database.status == DatabaseStatus::Active;
    if !steps.is_empty() || settled {
        steps.extend(beside);
        return match failed {
            Some(reason) => Next::Again(steps, reason),
            None => Next::Steps(steps),
        };
    }
    if let Some(step) = back::next((state, observed), database, instant, now) {
        return Next::Steps([vec![step], beside].concat());
    }
    if let Some(reason) = wait.or_else(|| proxy_wait(state, observed, database, instant)) {
        return Next::Again(beside, reason);
    }
    let step = match migration::next((state, observed), database, instant, now) {
        Doing::Step(step) => *step,
        Doing::Wait(reason) => return Next::Again(beside, reason),
        Doing::Done => match files_wait(state, observed, database, instant) {
            Some(reason) => return Next::Again(beside, reason),
            None => completion(state, database, now),
        },
    };
    steps.push(step);
    steps.extend(beside);
    Next::Steps(steps)
}

/// What the needs of a database's shards are planned from.
struct View<'a> {
    state: &'a ClusterState,
    observed: &'a Observations,
    database: &'a Stored<Database>,
    instant: Instant,
    now: Timestamp,
}

impl View<'_> {
    fn needs(&self) -> Vec<Need> {
        let mut needs: Vec<Need> = self
            .state
            .shards_of(self.database.uid)
            .filter_map(|shard| self.removal(shard))
            .collect();
        let sets = replica_set::of_database(self.state, self.database);
        needs.extend(self.lease_need(&sets));
        for set in sets {
            if let Some(need) = self.unsettled(&set) {
                needs.push(need);
                continue;
            }
            let before = needs.len();
            self.set_needs(&set, &mut needs);
            if self.is_passed_over(&set) {
                let of_it = needs.split_off(before);
                needs.extend(
                    of_it
                        .into_iter()
                        .filter(|need| !matches!(need, Need::Wait(_))),
                );
            }
        }
        needs
    }

    /// Whether what works on the database does not wait for a set that nobody has the data of now.
    fn is_passed_over(&self, set: &ReplicaSet<'_>) -> bool {
        let both = (self.state, self.observed);
        back::is_passed_over(both, self.database, set, self.instant)
            || migration::is_beside(both, self.database, set, self.instant)
    }

    fn set_needs(&self, set: &ReplicaSet<'_>, needs: &mut Vec<Need>) {
        match failover::plan(self.state, self.observed, set, self.instant, self.now) {
            Verdict::Stays => needs.push(self.primary_need(set)),
            // It may not come back now: it would begin without what its replicas have.
            Verdict::Waits(reason) => needs.push(Need::Wait(reason)),
            Verdict::Order(command, reason) => {
                needs.push(Need::Step(order(set.primary, *command, reason)));
            }
            Verdict::Store(txn, reason) => {
                needs.push(Need::Step(Step::Store { txn, reason }));
                return;
            }
        }
        let replicas = set.replicas.iter();
        needs.extend(replicas.map(|replica| self.replica_need(set, replica)));
    }

    /// A move that was begun comes before everything else of its set.
    fn unsettled(&self, set: &ReplicaSet<'_>) -> Option<Need> {
        let moving = set.primary.moving.clone()?;
        let target = set.replicas.iter().find(|s| s.uid == moving.target)?;
        let run_id = set.primary.run_id.as_deref()?;
        let old = execute::party(self.state, set.primary, run_id)?;
        let new = execute::party(self.state, target, &moving.target_run_id)?;
        Some(Need::Step(Step::Settle {
            old: Box::new(old),
            new: Box::new(new),
            moving,
        }))
    }

    /// A shard that an operation removes.
    fn removal(&self, shard: &Stored<Shard>) -> Option<Need> {
        let operation = shard.removed_by.clone()?;
        if let Some(Err(reason)) = self
            .state
            .operation(&operation)
            .map(|o| operation::is_known(o))
        {
            return Some(Need::Wait(reason));
        }
        if self.is_lost(shard) {
            return gone_with_its_node(self.state, shard, self.now).map(Need::Step);
        }
        if self.observed.fresh(shard.node, self.instant).is_none() {
            // One that has been replaced goes when its node is back.
            let replaced = shard.lost.is_some();
            return (!replaced).then(|| Need::Wait(format!("node:{} is not heard", shard.node)));
        }
        let command = AgentCommand::RemoveEngine {
            shard: shard.uid,
            generation: shard.generation,
            operation,
        };
        let reason = format!("redis:{} is not wanted any more", shard.uid);
        let step = order(shard, command, reason);
        // What hangs may not end.
        Some(match shard.lost {
            Some(_) => Need::Beside(step),
            None => Need::Step(step),
        })
    }

    fn is_lost(&self, shard: &Shard) -> bool {
        is_lost(self.state, self.observed, shard, self.instant)
    }

    fn is_replaced(&self, replica: &Shard) -> bool {
        let both = (self.state, self.observed);
        slave_ha::is_replaced(both, self.database, replica, self.instant)
    }

    fn primary_need(&self, set: &ReplicaSet<'_>) -> Need {
        match self.engine_need(set.primary) {
            Ok(seen) => match self.role_need(set, seen) {
                Need::Nothing => self.keeper_need(set, set.primary, seen),
                need => need,
            },
            Err(need) => *need,
        }
    }

    /// A running engine gets the role of a primary. A process that is not the one of the current epoch begins a
    /// new one.
    fn role_need(&self, set: &ReplicaSet<'_>, seen: &ShardObservation) -> Need {
        let shard = set.primary;
        let Some(run_id) = &seen.run_id else {
            return Need::Wait(format!("redis:{} has not told its run id", shard.uid));
        };
        if shard.run_id.as_ref() != Some(run_id) {
            let both = (self.state, self.observed);
            let times = (self.instant, self.now);
            let (txn, reason) = restart::new_process(both, set, (seen, run_id), times);
            return Need::Step(Step::Store { txn, reason });
        }
        role_of(self.state, set, (seen, run_id), self.now)
    }

    fn keeper_need(
        &self,
        set: &ReplicaSet<'_>,
        shard: &Stored<Shard>,
        seen: &ShardObservation,
    ) -> Need {
        match leases::keeper(self.database, set, shard, seen) {
            Some((command, reason)) => Need::Step(order(shard, command, reason)),
            None => Need::Nothing,
        }
    }

    fn lease_need(&self, sets: &[ReplicaSet<'_>]) -> Option<Need> {
        let times = (self.instant, self.now);
        let need = leases::turned_on(self.state, self.observed, self.database, sets, times)?;
        Some(match need {
            Ok((txn, reason)) => Need::Step(Step::Store { txn, reason }),
            Err(reason) => Need::Wait(reason),
        })
    }

    fn replica_need(&self, set: &ReplicaSet<'_>, replica: &Stored<Shard>) -> Need {
        let both = (set, replica);
        let told = stall::news(self.state, self.observed, both, self.instant, self.now);
        if let Some((txn, reason)) = told {
            return Need::Step(Step::Store { txn, reason });
        }
        let mut keeper = None;
        let need = match self.engine_need(replica) {
            Ok(seen) => {
                keeper = match self.keeper_need(set, replica, seen) {
                    Need::Nothing => None,
                    need => Some(need),
                };
                replication::need(
                    self.state,
                    self.observed,
                    both,
                    seen,
                    self.instant,
                    self.now,
                )
            }
            Err(engine) => {
                match replication::unheard(self.state, self.observed, both, self.instant, self.now)
                {
                    Some(need) => need,
                    // It is not waited for.
                    None if self.is_lost(replica) => return Need::Nothing,
                    None if self.is_replaced(replica) => return Need::Nothing,
                    None => return self.out_of_order(both).unwrap_or(*engine),
                }
            }
        };
        match need {
            replication::Need::Order(command, reason) => {
                Need::Step(order(replica, command, reason))
            }
            replication::Need::Store(txn, reason) => Need::Step(Step::Store { txn, reason }),
            replication::Need::Wait(reason) => keeper.unwrap_or(Need::Wait(reason)),
            replication::Need::Nothing => keeper.unwrap_or(Need::Nothing),
        }
    }

    /// What a replica needs besides a start: its engine hangs, or cannot load its files.
    fn out_of_order(&self, both: (&ReplicaSet<'_>, &Stored<Shard>)) -> Option<Need> {
        let known = (self.state, self.observed);
        let hangs = hanging::need(known.0, known.1, both, self.instant, self.now);
        let need = hangs.or_else(|| damaged::need(known, both, (self.instant, self.now)))?;
        Some(match need {
            // Until it is done, that is what is waited for: it may never be.
            replication::Need::Order(command, reason) => {
                Need::Again(order(both.1, command, reason.clone()), reason)
            }
            replication::Need::Store(txn, reason) => Need::Step(Step::Store { txn, reason }),
            replication::Need::Wait(reason) => Need::Wait(reason),
            replication::Need::Nothing => Need::Nothing,
        })
    }

    /// The running engine of a shard, or what it needs to run.
    fn engine_need(&self, shard: &Stored<Shard>) -> Result<&ShardObservation, Box<Need>> {
        let Some(node) = self.observed.fresh(shard.node, self.instant) else {
            return Err(Box::new(Need::Wait(format!(
                "node:{} is not heard",
                shard.node
            ))));
        };
        let start = |reason: String| {
            let command = AgentCommand::EnsureEngine(spec(self.database, shard));
            order(shard, command, reason)
        };
        let ensure = |reason: String| Err(Box::new(Need::Step(start(reason))));
        let again = |reason: String| Err(Box::new(Need::Again(start(reason.clone()), reason)));
        let Some(seen) = observed::shard(node, shard.uid) else {
            return ensure(format!(
                "redis:{} does not run on node:{}",
                shard.uid, shard.node
            ));
        };
        let why = seen.error.as_deref().unwrap_or("no reason known");
        if seen.is_in_doubt() && seen.state == EngineState::Unresponsive {
            // Its agent does not touch it before it knows.
            return again(format!(
                "node:{} does not know whether redis:{} runs: {why}",
                shard.node, shard.uid
            ));
        }
        if seen.generation < shard.generation {
            return ensure(format!("redis:{} runs an older description", shard.uid));
        }
        let wait = |what: &str| Err(Box::new(Need::Wait(format!("redis:{} {what}", shard.uid))));
        match seen.state {
            EngineState::Stopped => ensure(format!("redis:{} has stopped", shard.uid)),
            EngineState::Failed => again(format!("redis:{} does not start: {why}", shard.uid)),
            EngineState::Starting => wait("is starting"),
            EngineState::Loading => wait("is loading its data"),
            EngineState::Unresponsive => wait("does not answer"),
            EngineState::Running => Ok(seen),
        }
    }
}

/// An order to a shard's agent.
fn order(shard: &Shard, command: AgentCommand, reason: String) -> Step {
    Step::Command {
        node: shard.node,
        shard: shard.uid,
        command,
        reason,
    }
}

/// The store says first who is meant, in which epoch; then the agent is ordered; then the store learns that it is
/// done.
fn role_of(
    state: &ClusterState,
    set: &ReplicaSet<'_>,
    (seen, run_id): (&ShardObservation, &str),
    now: Timestamp,
) -> Need {
    let shard = set.primary;
    if !observed::is_primary_of(seen, shard.epoch) {
        let reason = format!("redis:{} has no role in epoch {}", shard.uid, shard.epoch);
        return Need::Step(order(shard, primary_order(shard, run_id), reason));
    }
    if shard.serving != Some(shard.epoch) {
        let mut doc = shard.doc.clone();
        let mut change = Change::of(state, now);
        let served = set.last_served();
        let promoted = doc.synced.take().is_some() || doc.lost_since.is_some();
        times::note(&mut doc, None);
        for replica in set.replicas.iter().filter(|r| r.synced.is_some()) {
            let mut doc = replica.doc.clone();
            replica_set::carry_record(&mut doc, served, shard.epoch);
            change.replace(keys::shard(doc.uid), replica.revision, &doc);
        }
        doc.serving = Some(shard.epoch);
        doc.trouble = None;
        doc.fence = None;
        change.replace(keys::shard(shard.uid), shard.revision, &doc);
        if promoted {
            let took =
                times::nobody_since(shard).map(|since| now.duration_since(since).as_millis());
            change.event(
                Severity::Info,
                "shard_promoted",
                &[
                    ("bdb_uid", json!(shard.database)),
                    ("shard_uid", json!(shard.uid)),
                    ("node_uid", json!(shard.node)),
                    ("epoch", json!(shard.epoch)),
                    (
                        "milliseconds",
                        json!(took.and_then(|ms| u64::try_from(ms).ok())),
                    ),
                ],
            );
        }
        return Need::Step(Step::Store {
            txn: change.into_txn(),
            reason: format!("redis:{} is primary of epoch {}", shard.uid, shard.epoch),
        });
    }
    Need::Nothing
}

/// A replica is promoted by what was recorded of it; any other process simply begins.
fn primary_order(shard: &Shard, run_id: &str) -> AgentCommand {
    match shard.synced.clone() {
        Some(record) => AgentCommand::Promote {
            shard: shard.uid,
            generation: shard.generation,
            run_id: run_id.to_owned(),
            epoch: shard.epoch,
            record,
            users: shard.users.clone(),
            wait_promises: shard.fence == Some(Fence::Promises),
        },
        None => AgentCommand::MakePrimary {
            shard: shard.uid,
            generation: shard.generation,
            run_id: run_id.to_owned(),
            epoch: shard.epoch,
            users: shard.users.clone(),
        },
    }
}

/// The engine that a shard should run.
#[must_use]
pub fn spec(database: &Database, shard: &Shard) -> EngineSpec {
    EngineSpec {
        shard: shard.uid,
        database: shard.database,
        generation: shard.generation,
        engine: shard.engine.clone(),
        port: shard.port,
        settings: EngineSettings {
            memory_bytes: shard.memory_bytes,
            eviction_policy: database.eviction_policy,
            persistence: database.persistence,
            notify_keyspace_events: database.notify_keyspace_events.clone(),
        },
        users: shard.users.clone(),
    }
}

/// Every proxy that is heard must serve the database before it counts as done: whoever is told
/// "done" connects at once.
fn proxy_wait(
    state: &ClusterState,
    observed: &Observations,
    database: &Database,
    instant: Instant,
) -> Option<String> {
    let mut heard = 0;
    for node in proxies(state, database) {
        let Some(seen) = observed.fresh(node, instant) else {
            continue;
        };
        heard += 1;
        if let Some(trouble) = observed::proxy_trouble(seen.proxy.as_ref(), database.uid) {
            return Some(format!("the proxy of node:{node} {trouble}"));
        }
    }
    (heard == 0).then(|| "no node whose proxy serves it is heard".to_owned())
}

/// Whoever was told that a change is done counts on what it promises: also after a crash.
fn files_wait(
    state: &ClusterState,
    observed: &Observations,
    database: &Database,
    instant: Instant,
) -> Option<String> {
    let operation = operation::of_database(state, database)?;
    if operation.kind != OperationKind::UpdateDatabase {
        return None;
    }
    let seen = state.shards_of(database.uid).filter_map(|shard| {
        let node = observed.fresh(shard.node, instant)?;
        observed::shard(node, shard.uid)
    });
    let pending = seen.into_iter().find(|seen| seen.files_pending)?;
    let why = pending.error.as_deref();
    Some(format!(
        "redis:{}: {}",
        pending.shard,
        why.unwrap_or("the first files of its persistence are being written")
    ))
}

fn completion(state: &ClusterState, database: &Stored<Database>, now: Timestamp) -> Step {
    let created = database.status == DatabaseStatus::Pending;
    let mut doc = database.doc.clone();
    doc.status = DatabaseStatus::Active;
    doc.operation = None;
    let mut change = Change::of(state, now);
    change.replace(keys::database(database.uid), database.revision, &doc);
    end_operation(state, &mut change, database, now);
    let renewed = operation::of_database(state, database).is_some_and(|o| o.slave_ha);
    let kind = if renewed {
        "slave_ha_completed"
    } else if created {
        "bdb_created"
    } else {
        "bdb_updated"
    };
    change.event(
        Severity::Info,
        kind,
        &[
            ("bdb_uid", json!(database.uid)),
            ("bdb_name", json!(database.name)),
        ],
    );
    Step::Store {
        txn: change.into_txn(),
        reason: format!("database db:{} is served by every proxy", database.uid),
    }
}

pub(super) fn end_operation(
    state: &ClusterState,
    change: &mut Change,
    database: &Database,
    now: Timestamp,
) {
    let running = database.operation.as_ref();
    if let Some(operation) = running.and_then(|uid| state.operation(uid)) {
        let mut doc = operation.doc.clone();
        doc.status = OperationStatus::Completed;
        doc.waiting_on = None;
        doc.ended = Some(now);
        change.replace(keys::operation(&operation.uid), operation.revision, &doc);
    }
    let ended: Vec<_> = state
        .operations
        .iter()
        .filter(|o| o.ended.is_some())
        .collect();
    for old in ended
        .iter()
        .take(ended.len().saturating_sub(OPERATIONS_KEPT))
    {
        change.delete(keys::operation(&old.uid), old.revision);
    }
}

/// What operations wait for, where that differs from what is stored.
#[must_use]
pub fn waits(state: &ClusterState, plan: &Plan, now: Timestamp) -> Option<Txn> {
    let mut change = Change::of(state, now);
    let mut written = 0;
    for (uid, reason) in &plan.waits {
        let Some(operation) = state.operation(uid) else {
            continue;
        };
        let rests = operation.ended.is_some() || operation.status == OperationStatus::Paused;
        if rests || operation.waiting_on.as_ref() == Some(reason) {
            continue;
        }
        let mut doc = operation.doc.clone();
        doc.waiting_on = Some(reason.clone());
        change.replace(keys::operation(uid), operation.revision, &doc);
        written += 1;
        if written >= WAITS_AT_ONCE {
            break;
        }
    }
    (written > 0).then(|| change.into_txn())
}
