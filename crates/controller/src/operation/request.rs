//! An operator has an operation go on, or gives it up. Pure: what is refused changes nothing.

use super::ending;
use super::plan::{is_known, new_operation, resume};
use crate::observed::Observations;
use crate::replica_set::{self, ReplicaSet};
use crate::request::Fresh;
use crate::state::{Change, ClusterState, Stored};
use model::documents::{Operation, OperationKind, OperationStatus, Severity, keys};
use model::intent::IntentOutcome;
use model::{ApiError, DatabaseUid, ErrorCode, OperationUid, validate};
use serde_json::json;
use store::Txn;

/// The operation of a request; what it does is the caller's.
pub(crate) fn operation(
    kind: OperationKind,
    database: DatabaseUid,
    fresh: &Fresh<'_>,
) -> Operation {
    new_operation(kind, database, fresh.operation.clone(), fresh.now)
}

/// Has what pauses go on: the operation, or all of its action.
pub(crate) fn retry(
    state: &ClusterState,
    uid: &OperationUid,
    fresh: &Fresh<'_>,
) -> Result<(Txn, IntentOutcome), ApiError> {
    let running = running(state, uid)?;
    let mut change = Change::of(state, fresh.now);
    let mut operations = Vec::new();
    for operation in &running {
        if operation.status != OperationStatus::Paused {
            continue;
        }
        resume(&mut change, operation, fresh.now);
        operations.push(operation.uid.clone());
    }
    if operations.is_empty() {
        let first = running.first().map(|operation| describe(operation));
        return Err(ApiError::new(
            ErrorCode::Busy,
            format!(
                "{} does not pause: it goes on by itself",
                first.unwrap_or_default()
            ),
        ));
    }
    note(&mut change, "action_retried", uid);
    Ok((change.into_txn(), outcome(uid, operations)))
}

/// Most operations that one transaction gives up: each may be five documents.
pub(crate) const ABORTED_AT_ONCE: usize = 24;

/// Gives an operation up, or all of its action: of many the first, and when it is asked again the next.
/// What has moved stays where it is; a copy that has not
/// taken a shard's place goes, and a shard whose copy has taken it goes.
pub(crate) fn abort(
    (state, observed): (&ClusterState, &Observations),
    uid: &OperationUid,
    fresh: &Fresh<'_>,
) -> Result<(Txn, IntentOutcome), ApiError> {
    let mut running = running(state, uid)?;
    let last = running.len() <= ABORTED_AT_ONCE;
    running.truncate(ABORTED_AT_ONCE);
    let mut change = Change::of(state, fresh.now);
    let mut operations = Vec::new();
    for operation in &running {
        give_up((state, observed), &mut change, operation, fresh)?;
        operations.push(operation.uid.clone());
    }
    stay(state, &mut change, &running);
    if last {
        note(&mut change, "action_aborted", uid);
    }
    Ok((change.into_txn(), outcome(uid, operations)))
}

fn give_up(
    (state, observed): (&ClusterState, &Observations),
    change: &mut Change,
    operation: &Stored<Operation>,
    fresh: &Fresh<'_>,
) -> Result<(), ApiError> {
    if !operation.kind.can_be_given_up() {
        let instead = match operation.kind {
            OperationKind::CreateDatabase => "delete the database instead",
            _ => {
                "a deletion cannot be undone; it ends when the nodes that it waits for are back, or are taken \
                 out of the cluster (`rladmin node <node> remove`)"
            }
        };
        return Err(cannot(operation, instead));
    }
    let moving = state
        .shards_of(operation.database)
        .find(|shard| shard.moving.is_some());
    if let Some(shard) = moving {
        let why = format!(
            "redis:{} is handing its role over, and how that ends is found out first. Try again in a \
             moment",
            shard.uid
        );
        return Err(cannot(operation, &why));
    }
    let goes = ending::goes(state, operation);
    let sets = state
        .database(operation.database)
        .map(|database| replica_set::of_database(state, database))
        .unwrap_or_default();
    let is_in = |set: &&ReplicaSet<'_>| set.replicas.iter().any(|r| Some(r.uid) == goes);
    if let Some(set) = sets.iter().find(is_in) {
        replica_set::may_be_deleted((state, observed), set, fresh.instant)?;
    }
    let why = match operation.kind {
        // What it changes is in force, and reaches what is not heard now when that is back.
        OperationKind::UpdateDatabase => "an operator did not wait for it any longer",
        _ => "an operator gave it up",
    };
    let error = (ErrorCode::OperationAborted, why);
    ending::given_up(state, change, operation, error, fresh.now);
    Ok(())
}

/// A node whose removal is given up stays in the cluster.
fn stay(state: &ClusterState, change: &mut Change, operations: &[&Stored<Operation>]) {
    let removed = operations
        .iter()
        .filter(|operation| operation.kind == OperationKind::RemoveNode)
        .find_map(|operation| operation.node);
    if let Some(node) = removed.and_then(|uid| state.node(uid))
        && node.leaving
    {
        let mut doc = node.doc.clone();
        doc.leaving = false;
        change.replace(keys::node(doc.uid), node.revision, &doc);
    }
}

/// The operations of this name, or of the action of this name, that have not ended.
fn running<'a>(
    state: &'a ClusterState,
    uid: &OperationUid,
) -> Result<Vec<&'a Stored<Operation>>, ApiError> {
    let known = state.operations.iter().find(|o| o.uid == *uid);
    // An action is one thing: all of its operations go on, or none.
    let group = known.map_or(Some(uid), |operation| operation.group.as_ref());
    let named: Vec<&Stored<Operation>> = state
        .operations
        .iter()
        .filter(|o| o.uid == *uid || (group.is_some() && o.group.as_ref() == group))
        .collect();
    let first = named.first().ok_or_else(|| {
        ApiError::new(
            ErrorCode::ActionNotFound,
            format!(
                "there is no action '{}'. {}",
                validate::shown(&uid.0),
                ErrorCode::ActionNotFound.remedy()
            ),
        )
    })?;
    let what = describe(first);
    let running: Vec<_> = named.into_iter().filter(|o| o.ended.is_none()).collect();
    if running.is_empty() {
        return Err(ApiError::new(
            ErrorCode::ActionEnded,
            format!("{what} has ended: there is nothing to go on with or to give up"),
        ));
    }
    // What giving it up means is known to who began it.
    if let Some(reason) = running.iter().find_map(|o| is_known(o).err()) {
        return Err(ApiError::new(
            ErrorCode::UpgradeNotComplete,
            format!("{what} waits for {reason}"),
        ));
    }
    Ok(running)
}

/// An operation by its kind and what it works on.
pub(crate) fn describe(operation: &Operation) -> String {
    let object = match operation.node {
        Some(node) => format!("node:{node}"),
        None => format!("db:{}", operation.database),
    };
    let uid = operation.group.as_ref().unwrap_or(&operation.uid);
    format!("{} of {object} ({uid})", operation.kind.operator_word())
}

fn cannot(operation: &Operation, why: &str) -> ApiError {
    ApiError::new(
        ErrorCode::CannotAbort,
        format!("{} cannot be given up: {why}", describe(operation)),
    )
}

fn note(change: &mut Change, kind: &str, uid: &OperationUid) {
    change.event(Severity::Info, kind, &[("action_uid", json!(uid))]);
}

fn outcome(uid: &OperationUid, operations: Vec<OperationUid>) -> IntentOutcome {
    IntentOutcome {
        database: None,
        operation: Some(uid.clone()),
        operations,
    }
}
