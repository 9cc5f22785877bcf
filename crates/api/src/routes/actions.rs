//! `/v1/actions`.

use super::{databases, missing, uid};
use crate::App;
use crate::answer::Answer;
use crate::failure::Failure;
use crate::shape;
use axum::extract::{Path, State};
use model::rest::{Actions, StateMachine};
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
        .find(|operation| operation.uid.0 == uid);
    let operation = found.ok_or_else(|| missing(ErrorCode::ActionNotFound, &uid))?;
    Ok(Answer::at(
        view.revision,
        shape::action::state_machine(operation),
    ))
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
