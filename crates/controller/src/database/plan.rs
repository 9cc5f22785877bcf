//! One small step at a time from what is stored and observed. Pure; missing information vetoes.

use crate::observed::{self, Observations};
use crate::placement::plan::proxies;
use crate::state::{Change, ClusterState, Stored};
use jiff::Timestamp;
use model::command::{AgentCommand, EngineSettings, EngineSpec};
use model::documents::{
    Database, DatabaseStatus, OperationKind, OperationStatus, Severity, Shard, keys,
};
use model::limits::OPERATIONS_KEPT;
use model::observation::{EngineState, ShardObservation};
use model::{NodeUid, OperationUid, ShardUid};
use serde_json::json;
use std::time::Instant;
use store::Txn;

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
    for database in &state.databases {
        let next = if database.status == DatabaseStatus::DeletePending {
            deletion(state, observed, database, instant, now)
        } else {
            serving(state, observed, database, instant, now)
        };
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
            Next::Nothing => {}
        }
    }
    plan
}

enum Next {
    Steps(Vec<Step>),
    /// What failed before is tried again: until it succeeds, that is what is waited for.
    Again(Vec<Step>, String),
    Wait(String),
    Nothing,
}

/// What a shard needs.
enum Need {
    Step(Step),
    /// A step that failed before, and why.
    Again(Step, String),
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
    let mut steps = Vec::new();
    let mut wait = None;
    let mut failed = None;
    for shard in state.shards_of(database.uid) {
        match shard_need(state, observed, database, shard, instant, now) {
            Need::Step(step) => steps.push(step),
            Need::Again(step, reason) => {
                steps.push(step);
                failed = Some(reason);
            }
            Need::Wait(reason) => wait = Some(reason),
            Need::Nothing => {}
        }
    }
    if !steps.is_empty() {
        return match failed {
            Some(reason) => Next::Again(steps, reason),
            None => Next::Steps(steps),
        };
    }
    let settled = database.status == DatabaseStatus::Active;
    if let Some(reason) = wait.or_else(|| proxy_wait(state, observed, database, instant)) {
        return if settled {
            Next::Nothing
        } else {
            Next::Wait(reason)
        };
    }
    if settled {
        Next::Nothing
    } else {
        Next::Steps(vec![completion(state, database, now)])
    }
}

fn shard_need(
    state: &ClusterState,
    observed: &Observations,
    database: &Database,
    shard: &Stored<Shard>,
    instant: Instant,
    now: Timestamp,
) -> Need {
    let Some(node) = observed.fresh(shard.node, instant) else {
        return Need::Wait(format!("node:{} is not heard", shard.node));
    };
    let order = |reason: String| Step::Command {
        node: shard.node,
        shard: shard.uid,
        command: AgentCommand::EnsureEngine(spec(database, shard)),
        reason,
    };
    let ensure = |reason: String| Need::Step(order(reason));
    let Some(seen) = observed::shard(node, shard.uid) else {
        return ensure(format!(
            "redis:{} does not run on node:{}",
            shard.uid, shard.node
        ));
    };
    if seen.generation < shard.generation {
        return ensure(format!("redis:{} runs an older description", shard.uid));
    }
    match seen.state {
        EngineState::Stopped => ensure(format!("redis:{} has stopped", shard.uid)),
        EngineState::Failed => {
            let why = seen.error.as_deref().unwrap_or("no reason known");
            let reason = format!("redis:{} does not start: {why}", shard.uid);
            Need::Again(order(reason.clone()), reason)
        }
        EngineState::Starting => Need::Wait(format!("redis:{} is starting", shard.uid)),
        EngineState::Loading => Need::Wait(format!("redis:{} is loading its data", shard.uid)),
        EngineState::Unresponsive => Need::Wait(format!("redis:{} does not answer", shard.uid)),
        EngineState::Running => role_need(state, shard, seen, now),
    }
}

/// A running engine gets its role. The store says first who is meant, in which epoch; then the
/// agent is ordered; then the store learns that it is done. A process that is not the one of the
/// current epoch begins a new one.
fn role_need(
    state: &ClusterState,
    shard: &Stored<Shard>,
    seen: &ShardObservation,
    now: Timestamp,
) -> Need {
    let Some(run_id) = &seen.run_id else {
        return Need::Wait(format!("redis:{} has not told its run id", shard.uid));
    };
    let mut doc = shard.doc.clone();
    let mut change = Change::of(state, now);
    if doc.run_id.as_ref() != Some(run_id) {
        if doc.run_id.is_some() {
            doc.epoch = doc.epoch.next();
            change.event(
                Severity::Error,
                "shard_restarted",
                &[
                    ("bdb_uid", json!(shard.database)),
                    ("shard_uid", json!(shard.uid)),
                    ("node_uid", json!(shard.node)),
                    ("epoch", json!(doc.epoch)),
                ],
            );
        }
        doc.run_id = Some(run_id.clone());
        change.replace(keys::shard(shard.uid), shard.revision, &doc);
        return Need::Step(Step::Store {
            txn: change.into_txn(),
            reason: format!("redis:{} is a new process: epoch {}", shard.uid, doc.epoch),
        });
    }
    if !observed::is_primary_of(seen, shard.epoch) {
        return Need::Step(Step::Command {
            node: shard.node,
            shard: shard.uid,
            command: AgentCommand::MakePrimary {
                shard: shard.uid,
                generation: shard.generation,
                run_id: run_id.clone(),
                epoch: shard.epoch,
                users: shard.users.clone(),
            },
            reason: format!("redis:{} has no role in epoch {}", shard.uid, shard.epoch),
        });
    }
    if shard.serving != Some(shard.epoch) {
        doc.serving = Some(shard.epoch);
        change.replace(keys::shard(shard.uid), shard.revision, &doc);
        return Need::Step(Step::Store {
            txn: change.into_txn(),
            reason: format!("redis:{} is primary of epoch {}", shard.uid, shard.epoch),
        });
    }
    Need::Nothing
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

fn completion(state: &ClusterState, database: &Stored<Database>, now: Timestamp) -> Step {
    let created = database.status == DatabaseStatus::Pending;
    let mut doc = database.doc.clone();
    doc.status = DatabaseStatus::Active;
    doc.operation = None;
    let mut change = Change::of(state, now);
    change.replace(keys::database(database.uid), database.revision, &doc);
    end_operation(state, &mut change, database, now);
    let kind = if created {
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

fn end_operation(state: &ClusterState, change: &mut Change, database: &Database, now: Timestamp) {
    let running = database.operation.as_ref();
    if let Some(operation) = state.operations.iter().find(|o| Some(&o.uid) == running) {
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

fn deletion(
    state: &ClusterState,
    observed: &Observations,
    database: &Stored<Database>,
    instant: Instant,
    now: Timestamp,
) -> Next {
    let Some(operation) = database.operation.clone() else {
        return Next::Wait("the deletion has no operation record: nothing is deleted".to_owned());
    };
    let known = state
        .operations
        .iter()
        .any(|o| o.uid == operation && o.kind == OperationKind::DeleteDatabase);
    if !known {
        return Next::Wait("the deletion has no operation record: nothing is deleted".to_owned());
    }
    let mut steps = Vec::new();
    for shard in state.shards_of(database.uid) {
        if observed.fresh(shard.node, instant).is_none() {
            return Next::Wait(format!("node:{} is not heard", shard.node));
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

/// After an agent confirmed that a shard's process and folder are gone.
#[must_use]
pub fn shard_removed(state: &ClusterState, shard: ShardUid, now: Timestamp) -> Option<Txn> {
    let stored = state.shards.iter().find(|s| s.uid == shard)?;
    let deleting = state
        .database(stored.database)
        .is_none_or(|d| d.status == DatabaseStatus::DeletePending);
    if !deleting {
        return None;
    }
    let mut change = Change::of(state, now);
    change.delete(keys::shard(shard), stored.revision);
    Some(change.into_txn())
}

/// What operations wait for, where that differs from what is stored.
#[must_use]
pub fn waits(state: &ClusterState, plan: &Plan, now: Timestamp) -> Option<Txn> {
    let mut change = Change::of(state, now);
    let mut any = false;
    for (uid, reason) in &plan.waits {
        let Some(operation) = state.operations.iter().find(|o| &o.uid == uid) else {
            continue;
        };
        if operation.waiting_on.as_ref() == Some(reason) || operation.ended.is_some() {
            continue;
        }
        let mut doc = operation.doc.clone();
        doc.waiting_on = Some(reason.clone());
        change.replace(keys::operation(uid), operation.revision, &doc);
        any = true;
    }
    any.then(|| change.into_txn())
}
