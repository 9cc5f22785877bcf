//! `/v1/actions`.

use super::{databases, missing, uid};
use crate::App;
use crate::answer::Answer;
use crate::failure::Failure;
use crate::query::{NoParameters, Parameters};
use crate::shape;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use model::intent::Intent;
use model::rest::{Actions, ActionsStarted, StateMachine};
use model::{ApiError, DatabaseUid, ErrorCode, OperationUid};

/// Operations that run or ran, oldest first.
#[utoipa::path(get, path = "/v1/actions", tag = "actions", responses(
    (status = 200, body = Actions),
    (status = "default", description = "Why not.", body = ApiError),
))]
pub async fn list(State(app): State<App>) -> Result<Answer<Actions>, Failure> {
    let view = app.view().await?;
    Ok(Answer::at(
        view.revision,
        shape::action::list(view.operations.iter()),
    ))
}

/// One operation.
#[utoipa::path(get, path = "/v1/actions/{uid}", tag = "actions",
    params(("uid" = OperationUid, Path)),
    responses(
        (status = 200, body = StateMachine),
        (status = "default", description = "Why not.", body = ApiError),
    )
)]
pub async fn one(
    State(app): State<App>,
    Path(uid): Path<String>,
) -> Result<Answer<StateMachine>, Failure> {
    let view = app.view().await?;
    let found = view
        .operations
        .iter()
        .find(|operation| operation.uid.0 == uid)
        .map(shape::action::state_machine);
    let action = found.or_else(|| {
        let all: Vec<_> = view.operations.iter().collect();
        shape::action::action(&all, &OperationUid(uid.clone()))
    });
    match action {
        Some(action) => Ok(Answer::at(view.revision, action)),
        None if view.has_quorum => Err(missing(ErrorCode::ActionNotFound, &uid)),
        // It may have begun since: only the primary node knows that there is none.
        None => Err(ApiError::from(ErrorCode::NoQuorum).into()),
    }
}

/// Has an operation that pauses go on, or all operations of an action on a node.
#[utoipa::path(post, path = "/v1/actions/{uid}/retry", tag = "actions",
    params(("uid" = OperationUid, Path)),
    responses(
        (status = 200, body = ActionsStarted),
        (status = "default", description = "Why not.", body = ApiError),
    )
)]
pub async fn retry(
    State(app): State<App>,
    Path(uid): Path<String>,
    headers: HeaderMap,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Answer<ActionsStarted>, Failure> {
    let operation = OperationUid(uid);
    ask(&app, &headers, &Intent::RetryOperation { operation }).await
}

/// Gives an operation up that brings roles or shards elsewhere, or all operations of an action on a node:
/// what has moved stays there, what has not is not moved any more.
#[utoipa::path(post, path = "/v1/actions/{uid}/abort", tag = "actions",
    params(("uid" = OperationUid, Path)),
    responses(
        (status = 200, body = ActionsStarted),
        (status = "default", description = "Why not.", body = ApiError),
    )
)]
pub async fn abort(
    State(app): State<App>,
    Path(uid): Path<String>,
    headers: HeaderMap,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Answer<ActionsStarted>, Failure> {
    let operation = OperationUid(uid);
    ask(&app, &headers, &Intent::AbortOperation { operation }).await
}

/// Asks for a change that begins, or goes on with, operations.
pub(super) async fn ask(
    app: &App,
    headers: &HeaderMap,
    intent: &Intent,
) -> Result<Answer<ActionsStarted>, Failure> {
    app.view_for_change(headers).await?;
    let outcome = app.exec.intent(intent).await?;
    Ok(Answer::plain(ActionsStarted {
        action_uid: outcome.operation,
        action_uids: outcome.operations,
    }))
}

/// Operations on a database, oldest first; also on one that was deleted lately.
#[utoipa::path(get, path = "/v1/actions/bdb/{bdb_uid}", tag = "actions",
    params(("bdb_uid" = DatabaseUid, Path)),
    responses(
        (status = 200, body = Actions),
        (status = "default", description = "Why not.", body = ApiError),
    )
)]
pub async fn of_database(
    State(app): State<App>,
    path: Path<String>,
) -> Result<Answer<Actions>, Failure> {
    let database = uid::<DatabaseUid>(path, ErrorCode::DbNotFound)?;
    let view = app.view().await?;
    let operations = view
        .operations
        .iter()
        .filter(|operation| operation.database == database);
    let actions = shape::action::list(operations);
    if actions.state_machines.is_empty() {
        databases::find(&view, database)?;
    }
    Ok(Answer::at(view.revision, actions))
}
