//! When an operation pauses, and when one that waits for its turn begins. Pure.

use super::request::describe;
use crate::database::deletion::is_lost;
use crate::database::plan::Step;
use crate::observed::Observations;
use crate::state::{Change, ClusterState, Stored};
use jiff::Timestamp;
use model::documents::{
    Database, DatabaseStatus, Operation, OperationKind, OperationStatus, Severity, keys,
};
use model::{DatabaseUid, ErrorCode, OperationUid};
use serde_json::json;
use std::time::Instant;

/// Most databases that are taken by one transaction.
const TAKEN_AT_ONCE: usize = 40;

/// Version of this planner. It rises when operations are carried out otherwise, so that an older planner must
/// not go on with what this one has begun.
pub(crate) const PLANNER_VERSION: u32 = 1;

/// Whether this planner may go on with an operation; if not, why.
///
/// # Errors
/// A newer one is needed.
pub(crate) fn is_known(operation: &Operation) -> Result<(), String> {
    let needed = operation.needs_planner();
    if needed <= PLANNER_VERSION {
        return Ok(());
    }
    Err(format!(
        "a primary node of a newer release: it needs planner version {needed}, this one's is \
         {PLANNER_VERSION} (`rladmin cluster master set <node>`, or upgrade this one)"
    ))
}

/// The operation that works on a database.
#[must_use]
pub(crate) fn of_database<'a>(
    state: &'a ClusterState,
    database: &Database,
) -> Option<&'a Stored<Operation>> {
    let running = database.operation.as_ref()?;
    state.operation(running)
}

/// An operation that is under way from now on; what it does is the caller's.
pub(crate) fn new_operation(
    kind: OperationKind,
    database: DatabaseUid,
    uid: OperationUid,
    now: Timestamp,
) -> Operation {
    Operation {
        schema: 1,
        uid,
        kind,
        database,
        planner_version: Some(PLANNER_VERSION),
        status: OperationStatus::Active,
        shards: Vec::new(),
        migrations: Vec::new(),
        moved: Vec::new(),
        immediate: false,
        override_policy: Some(false),
        slave_ha: false,
        node: None,
        group: None,
        at_once: None,
        total: 0,
        step_since: None,
        step_within_seconds: None,
        waiting_on: None,
        error: None,
        error_code: None,
        created: now,
        ended: None,
        extra: serde_json::Map::new(),
    }
}

/// Has operations that wait for their database work on it as soon as nothing else does; see
/// [`crate::migration::request`].
#[must_use]
pub(crate) fn taken(state: &ClusterState, now: Timestamp) -> Option<Step> {
    let mut change = Change::of(state, now);
    let mut databases = Vec::new();
    let waiting = state
        .operations
        .iter()
        .filter(|operation| operation.status == OperationStatus::Pending)
        .filter(|operation| is_known(operation).is_ok());
    for operation in waiting {
        let database = state.database(operation.database);
        match database.filter(|d| d.status != DatabaseStatus::DeletePending) {
            None => {
                without_database(&mut change, operation, now);
            }
            Some(database) if database.operation.is_none() => {
                if databases.contains(&database.uid) {
                    continue;
                }
                let mut doc = database.doc.clone();
                doc.status = DatabaseStatus::ActiveChangePending;
                doc.operation = Some(operation.uid.clone());
                change.replace(keys::database(doc.uid), database.revision, &doc);
            }
            Some(_) => continue,
        }
        databases.push(operation.database);
        if databases.len() >= TAKEN_AT_ONCE {
            break;
        }
    }
    (!databases.is_empty()).then(|| Step::Store {
        txn: change.into_txn(),
        reason: format!("{} more databases are taken", databases.len()),
    })
}

/// What operations wait for whose database has another one first.
#[must_use]
pub(crate) fn queued(state: &ClusterState) -> Vec<(OperationUid, String)> {
    let pending = state
        .operations
        .iter()
        .filter(|operation| operation.status == OperationStatus::Pending);
    pending
        .filter_map(|operation| {
            let first = of_database(state, state.database(operation.database)?)?;
            if first.uid == operation.uid {
                return None;
            }
            let waits = first.waiting_on.as_ref();
            let waits = waits.map_or_else(String::new, |on| format!(" and waits: {on}"));
            let does = match first.status {
                OperationStatus::Paused => "pauses",
                _ => "runs",
            };
            let reason = format!("its turn: {} {does}{waits}", describe(first));
            Some((operation.uid.clone(), reason))
        })
        .collect()
}

/// Pauses an operation whose step takes longer than it may; `None`: it has time, or does not pause.
#[must_use]
pub(crate) fn overdue(
    state: &ClusterState,
    database: &Database,
    reason: &str,
    now: Timestamp,
) -> Option<Step> {
    let operation = of_database(state, database)?;
    let runs = operation.status == OperationStatus::Active && is_known(operation).is_ok();
    if !runs || !operation.kind.moves() || !operation.overdue(now) {
        return None;
    }
    let mut change = Change::of(state, now);
    pause(
        &mut change,
        operation,
        (ErrorCode::OperationPaused, reason),
        now,
    );
    Some(Step::Store {
        txn: change.into_txn(),
        reason: format!("{} pauses: {reason}", operation.kind.operator_word()),
    })
}

/// Has an operation go on that pauses since a step took too long, when a node of its database leaves and is not heard: what
/// waited for that node waits no more, and the node is not kept by it.
#[must_use]
pub(crate) fn goes_on(
    (state, observed): (&ClusterState, &Observations),
    database: &Database,
    instant: Instant,
    now: Timestamp,
) -> Option<Step> {
    let operation = of_database(state, database)?;
    let waited = operation.error_code == Some(ErrorCode::OperationPaused);
    if operation.status != OperationStatus::Paused || !waited || is_known(operation).is_err() {
        return None;
    }
    let mut shards = state.shards_of(database.uid);
    let lost = shards.find(|shard| is_lost(state, observed, shard, instant))?;
    let mut change = Change::of(state, now);
    resume(&mut change, operation, now);
    Some(Step::Store {
        txn: change.into_txn(),
        reason: format!(
            "{} goes on: node:{} leaves",
            operation.kind.operator_word(),
            lost.node
        ),
    })
}

/// Has an operation go on that pauses.
pub(crate) fn resume(change: &mut Change, operation: &Stored<Operation>, now: Timestamp) {
    let mut doc = operation.doc.clone();
    doc.status = OperationStatus::Active;
    doc.step_since = Some(now);
    doc.error = None;
    doc.error_code = None;
    change.replace(keys::operation(&doc.uid), operation.revision, &doc);
}

/// Ends an operation whose database is deleted.
pub(crate) fn without_database(change: &mut Change, operation: &Stored<Operation>, now: Timestamp) {
    let mut doc = operation.doc.clone();
    doc.status = OperationStatus::Failed;
    doc.error = Some("the database was deleted".to_owned());
    doc.error_code = Some(ErrorCode::DbNotFound);
    doc.waiting_on = None;
    doc.ended = Some(now);
    change.replace(keys::operation(&doc.uid), operation.revision, &doc);
}

/// Has an operation pause: nothing of it is skipped, and its database stays as it is until an operator
/// says how it goes on.
pub(crate) fn pause(
    change: &mut Change,
    operation: &Stored<Operation>,
    (code, reason): (ErrorCode, &str),
    now: Timestamp,
) {
    let mut doc = operation.doc.clone();
    doc.status = OperationStatus::Paused;
    doc.error = Some(reason.to_owned());
    doc.error_code = Some(code);
    doc.waiting_on = None;
    doc.step_since = Some(now);
    change.replace(keys::operation(&doc.uid), operation.revision, &doc);
    change.event(
        Severity::Warning,
        "action_paused",
        &[
            ("action_uid", json!(doc.uid)),
            ("action", json!(doc.kind.operator_word())),
            ("bdb_uid", json!(doc.database)),
            ("node_uid", json!(doc.node)),
            ("reason", json!(reason)),
        ],
    );
}

/// Begins an operation that waits until others of its action have ended.
///
/// # Errors
/// What it waits for, in words.
pub(crate) fn begin(
    state: &ClusterState,
    operation: &Stored<Operation>,
    now: Timestamp,
) -> Result<Step, String> {
    let most = operation.at_once.unwrap_or(u32::MAX);
    let running = state
        .operations
        .iter()
        .filter(|other| other.group == operation.group && other.status == OperationStatus::Active)
        .count();
    if u32::try_from(running).unwrap_or(u32::MAX) >= most {
        return Err(format!("its turn: {most} at once"));
    }
    let mut doc = operation.doc.clone();
    doc.status = OperationStatus::Active;
    doc.step_since = Some(now);
    doc.waiting_on = None;
    let mut change = Change::of(state, now);
    change.replace(keys::operation(&doc.uid), operation.revision, &doc);
    Ok(Step::Store {
        txn: change.into_txn(),
        reason: format!("db:{} is next", operation.database),
    })
}
