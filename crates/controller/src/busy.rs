//! Whether something is under way on what a request is about. Asked once it is clear what is meant, and before any
//! state is judged: where shards are, which roles they have and what room is left changes while an operation runs, so
//! what would be said of it is not what an operator has to know. Pure.

use crate::operation::plan::of_database;
use crate::operation::request::describe;
use crate::state::ClusterState;
use model::documents::{Database, DatabaseStatus, Operation, OperationKind, OperationStatus};
use model::{ApiError, ErrorCode};

/// Whether nothing works on a database.
///
/// # Errors
/// `busy`, with the operation that does, what that waits for, and how it ends.
pub(crate) fn free(state: &ClusterState, database: &Database) -> Result<(), ApiError> {
    if database.operation.is_none() && database.status == DatabaseStatus::Active {
        return Ok(());
    }
    let name = format!("database '{}' (db:{})", database.name, database.uid);
    Err(match of_database(state, database) {
        Some(operation) => with(&name, operation),
        None => ApiError::new(
            ErrorCode::Busy,
            format!(
                "{name} is not ready: wait until `rladmin status databases` shows it as active"
            ),
        ),
    })
}

/// That an operation works on something.
pub(crate) fn with(what: &str, operation: &Operation) -> ApiError {
    let uid = operation.group.as_ref().unwrap_or(&operation.uid);
    let why = match operation.status {
        OperationStatus::Paused => operation.error.as_deref(),
        _ => operation.waiting_on.as_deref(),
    };
    let does = match operation.status {
        OperationStatus::Paused => ", which pauses",
        _ if why.is_some() => ", which waits",
        _ => "",
    };
    let why = why.map_or_else(String::new, |why| format!(" ({why})"));
    let go_on = match operation.status {
        OperationStatus::Paused => format!("have it go on with `rladmin retry {uid}`"),
        _ => "wait until it ends (`rladmin cluster running_actions`)".to_owned(),
    };
    let or_end = match operation.kind {
        OperationKind::UpdateDatabase => format!(
            ", or end the wait with `rladmin abort {uid}`: what it changes stays, and reaches the rest later"
        ),
        kind if kind.can_be_given_up() => format!(", or give it up with `rladmin abort {uid}`"),
        _ => String::new(),
    };
    ApiError::new(
        ErrorCode::Busy,
        format!(
            "{what} is busy with {}{does}{why}: {go_on}{or_end}",
            describe(operation)
        ),
    )
}
