//! `/v1/bdbs`.

use super::{missing, uid};
use crate::App;
use crate::answer::Answer;
use crate::auth::Caller;
use crate::auth::roles::Permission;
use crate::body::JsonBody;
use crate::failure::Failure;
use crate::query::{CreateParameters, Fields, NoParameters, Parameters};
use crate::{request, shape};
use axum::Extension;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use model::documents::Database;
use model::intent::Intent;
use model::rest::{ActionStarted, Bdb, BdbRequest, ShardInfo};
use model::view::ClusterView;
use model::{ApiError, DatabaseUid, ErrorCode};

/// Every database.
#[utoipa::path(get, path = "/v1/bdbs", tag = "bdbs", params(Fields), responses(
    (status = 200, body = Vec<Bdb>),
    (status = "default", description = "Why not.", body = ApiError),
))]
pub async fn list(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Parameters(parameters): Parameters<Fields>,
) -> Result<Answer<Vec<Bdb>>, Failure> {
    let view = app.view().await?;
    let shows = caller.may(Permission::ViewPasswords);
    let databases = view
        .databases
        .iter()
        .map(|db| shape::database::info(&view, db, shows));
    Ok(Answer::at(view.revision, databases.collect()).only(parameters.fields.as_deref()))
}

/// Creates a database.
///
/// The answer is the database as it begins, with `action_uid` to follow. A dry run checks and
/// answers what would be created; what the cluster chooses (uid, port) is 0 in it.
#[utoipa::path(post, path = "/v1/bdbs", tag = "bdbs", params(CreateParameters),
    request_body = BdbRequest,
    responses(
        (status = 200, body = Bdb),
        (status = "default", description = "Why not.", body = ApiError),
    )
)]
pub async fn create(
    State(app): State<App>,
    headers: HeaderMap,
    Parameters(parameters): Parameters<CreateParameters>,
    JsonBody(request): JsonBody<BdbRequest>,
) -> Result<Answer<Bdb>, Failure> {
    let spec = request::database::creation(&request, parameters.dry_run)?;
    let before = app.view_for_change(&headers).await?;
    let outcome = app
        .exec
        .intent(&Intent::CreateDatabase(spec.clone()))
        .await?;
    if parameters.dry_run {
        return Ok(Answer::at(
            before.revision,
            shape::database::preview(&before, &spec),
        ));
    }
    let uid = outcome.database.ok_or_else(|| {
        Failure::new(
            ErrorCode::InternalError,
            "cnm_exec did not say which database it created",
        )
    })?;
    after_change(&app, uid).await
}

/// One database.
#[utoipa::path(get, path = "/v1/bdbs/{uid}", tag = "bdbs",
    params(("uid" = DatabaseUid, Path), Fields),
    responses(
        (status = 200, body = Bdb),
        (status = "default", description = "Why not.", body = ApiError),
    )
)]
pub async fn one(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    path: Path<String>,
    Parameters(parameters): Parameters<Fields>,
) -> Result<Answer<Bdb>, Failure> {
    let database = uid(path, ErrorCode::DbNotFound)?;
    let view = app.view().await?;
    let shows = caller.may(Permission::ViewPasswords);
    let info = shape::database::info(&view, find(&view, database)?, shows);
    Ok(Answer::at(view.revision, info).only(parameters.fields.as_deref()))
}

/// Changes a database; what is left out stays.
///
/// Fields that only creation sets may be repeated with the value that they have.
#[utoipa::path(put, path = "/v1/bdbs/{uid}", tag = "bdbs",
    params(("uid" = DatabaseUid, Path)),
    request_body = BdbRequest,
    responses(
        (status = 200, body = Bdb),
        (status = "default", description = "Why not.", body = ApiError),
    )
)]
pub async fn change(
    State(app): State<App>,
    headers: HeaderMap,
    path: Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    JsonBody(request): JsonBody<BdbRequest>,
) -> Result<Answer<Bdb>, Failure> {
    let database = uid(path, ErrorCode::DbNotFound)?;
    let before = app.view_for_change(&headers).await?;
    let change = request::database::change(&request, find(&before, database)?)?;
    app.exec
        .intent(&Intent::UpdateDatabase {
            database,
            change: Box::new(change),
        })
        .await?;
    after_change(&app, database).await
}

/// Deletes a database and its data.
#[utoipa::path(delete, path = "/v1/bdbs/{uid}", tag = "bdbs",
    params(("uid" = DatabaseUid, Path)),
    responses(
        (status = 200, body = ActionStarted),
        (status = "default", description = "Why not.", body = ApiError),
    )
)]
pub async fn delete(
    State(app): State<App>,
    headers: HeaderMap,
    path: Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Answer<ActionStarted>, Failure> {
    let database = uid(path, ErrorCode::DbNotFound)?;
    let before = app.view_for_change(&headers).await?;
    find(&before, database)?;
    let outcome = app
        .exec
        .intent(&Intent::DeleteDatabase { database })
        .await?;
    Ok(Answer::plain(ActionStarted {
        action_uid: outcome.operation,
    }))
}

/// Shards of a database.
#[utoipa::path(get, path = "/v1/bdbs/{uid}/shards", tag = "bdbs",
    params(("uid" = DatabaseUid, Path), Fields),
    responses(
        (status = 200, body = Vec<ShardInfo>),
        (status = "default", description = "Why not.", body = ApiError),
    )
)]
pub async fn shards(
    State(app): State<App>,
    path: Path<String>,
    Parameters(parameters): Parameters<Fields>,
) -> Result<Answer<Vec<ShardInfo>>, Failure> {
    let database = uid(path, ErrorCode::DbNotFound)?;
    let view = app.view().await?;
    find(&view, database)?;
    let shards = view
        .shards
        .iter()
        .filter(|shard| shard.database == database);
    let shards = shards
        .map(|shard| shape::shard::info(&view, shard))
        .collect();
    Ok(Answer::at(view.revision, shards).only(parameters.fields.as_deref()))
}

/// The database as it is after a change. Who changes databases may see their passwords.
async fn after_change(app: &App, uid: DatabaseUid) -> Result<Answer<Bdb>, Failure> {
    let view = app.view().await?;
    let info = shape::database::info(&view, find(&view, uid)?, true);
    Ok(Answer::at(view.revision, info))
}

pub(super) fn find(view: &ClusterView, uid: DatabaseUid) -> Result<&Database, Failure> {
    let found = view.databases.iter().find(|database| database.uid == uid);
    found.ok_or_else(|| missing(ErrorCode::DbNotFound, uid))
}
