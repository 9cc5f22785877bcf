//! `/v1/shards`.

use super::{missing, uid};
use crate::App;
use crate::answer::Answer;
use crate::body::JsonBody;
use crate::failure::Failure;
use crate::query::{Fields, NoParameters, Parameters};
use crate::shape;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use model::documents::Role;
use model::intent::{Intent, MigrateWhat};
use model::rest::{ActionStarted, ActionsStarted, FailoverRequest, MigrateRequest, ShardInfo};
use model::view::ClusterView;
use model::{ApiError, DatabaseUid, ErrorCode, ShardUid};

/// Every shard.
#[utoipa::path(get, path = "/v1/shards", tag = "shards", params(Fields), responses(
    (status = 200, body = Vec<ShardInfo>),
    (status = "default", description = "Why not.", body = ApiError),
))]
pub async fn list(
    State(app): State<App>,
    Parameters(parameters): Parameters<Fields>,
) -> Result<Answer<Vec<ShardInfo>>, Failure> {
    let view = app.view().await?;
    let shards = view
        .shards
        .iter()
        .map(|shard| shape::shard::info(&view, shard))
        .collect();
    Ok(Answer::at(view.revision, shards).only(parameters.fields.as_deref()))
}

/// One shard.
#[utoipa::path(get, path = "/v1/shards/{uid}", tag = "shards",
    params(("uid" = ShardUid, Path), Fields),
    responses(
        (status = 200, body = ShardInfo),
        (status = "default", description = "Why not.", body = ApiError),
    )
)]
pub async fn one(
    State(app): State<App>,
    path: Path<String>,
    Parameters(parameters): Parameters<Fields>,
) -> Result<Answer<ShardInfo>, Failure> {
    let shard = uid::<ShardUid>(path, ErrorCode::ShardNotExist)?;
    let view = app.view().await?;
    let found = view.shards.iter().find(|known| known.uid == shard);
    let shard = found.ok_or_else(|| missing(ErrorCode::ShardNotExist, shard))?;
    let info = shape::shard::info(&view, shard);
    Ok(Answer::at(view.revision, info).only(parameters.fields.as_deref()))
}

/// Has masters hand their role to a replica, one after the other.
#[utoipa::path(post, path = "/v1/shards/actions/failover", tag = "shards",
    request_body = FailoverRequest,
    responses(
        (status = 200, body = ActionStarted),
        (status = "default", description = "Why not.", body = ApiError),
    )
)]
pub async fn failover_several(
    State(app): State<App>,
    headers: HeaderMap,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    JsonBody(request): JsonBody<FailoverRequest>,
) -> Result<Answer<ActionStarted>, Failure> {
    failover(app, &headers, request).await
}

/// Has one master hand its role to a replica.
#[utoipa::path(post, path = "/v1/shards/{uid}/actions/failover", tag = "shards",
    params(("uid" = ShardUid, Path)),
    responses(
        (status = 200, body = ActionStarted),
        (status = "default", description = "Why not.", body = ApiError),
    )
)]
pub async fn failover_one(
    State(app): State<App>,
    headers: HeaderMap,
    path: Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Answer<ActionStarted>, Failure> {
    let shard = uid::<ShardUid>(path, ErrorCode::ShardNotExist)?;
    let request = FailoverRequest {
        bdb_uid: None,
        shard_uids: Some(vec![shard]),
        immediate: None,
    };
    failover(app, &headers, request).await
}

async fn failover(
    app: App,
    headers: &HeaderMap,
    request: FailoverRequest,
) -> Result<Answer<ActionStarted>, Failure> {
    app.view_for_change(headers).await?;
    let intent = Intent::FailoverShards {
        database: request.bdb_uid,
        shards: request.shard_uids.unwrap_or_default(),
        immediate: request.immediate.unwrap_or(false),
    };
    let outcome = app.exec.intent(&intent).await?;
    Ok(Answer::plain(ActionStarted {
        action_uid: outcome.operation,
    }))
}

/// Brings shards to another node, one after the other.
#[utoipa::path(post, path = "/v1/shards/actions/migrate", tag = "shards",
    request_body = MigrateRequest,
    responses(
        (status = 200, body = ActionsStarted),
        (status = "default", description = "Why not.", body = ApiError),
    )
)]
pub async fn migrate_several(
    State(app): State<App>,
    headers: HeaderMap,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    JsonBody(request): JsonBody<MigrateRequest>,
) -> Result<Answer<ActionsStarted>, Failure> {
    migrate(app, &headers, request).await
}

/// Brings a shard to another node.
#[utoipa::path(post, path = "/v1/shards/{uid}/actions/migrate", tag = "shards",
    params(("uid" = ShardUid, Path)),
    request_body = MigrateRequest,
    responses(
        (status = 200, body = ActionsStarted),
        (status = "default", description = "Why not.", body = ApiError),
    )
)]
pub async fn migrate_one(
    State(app): State<App>,
    headers: HeaderMap,
    path: Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    JsonBody(request): JsonBody<MigrateRequest>,
) -> Result<Answer<ActionsStarted>, Failure> {
    let shard = uid::<ShardUid>(path, ErrorCode::ShardNotExist)?;
    let request = MigrateRequest {
        shard_uids: Some(vec![shard]),
        ..request
    };
    migrate(app, &headers, request).await
}

async fn migrate(
    app: App,
    headers: &HeaderMap,
    request: MigrateRequest,
) -> Result<Answer<ActionsStarted>, Failure> {
    let role = match request.role.as_deref() {
        None => None,
        Some("master") => Some(Role::Primary),
        Some("slave") => Some(Role::Replica),
        Some(_) => {
            return Err(Failure::new(
                ErrorCode::InvalidParam,
                "role is master or slave: leave it out for both",
            ));
        }
    };
    let view = app.view_for_change(headers).await?;
    let what = match (request.shard_uids, request.bdb_uid, request.node_uid) {
        (Some(shards), None, None) => MigrateWhat::Shards { shards },
        (Some(shards), Some(database), None) => {
            are_of(&view, &shards, database)?;
            MigrateWhat::Shards { shards }
        }
        (None, Some(database), None) => MigrateWhat::Database { database, role },
        (None, None, Some(node)) => MigrateWhat::Node { node, role },
        _ => {
            return Err(Failure::new(
                ErrorCode::InvalidParam,
                "name shard_uids, with or without their bdb_uid, or bdb_uid or node_uid alone",
            ));
        }
    };
    let intent = Intent::MigrateShards {
        what,
        node: request.target_node_uid,
        override_policy: request.override_policy.unwrap_or(false),
    };
    let outcome = app.exec.intent(&intent).await?;
    Ok(Answer::plain(ActionsStarted {
        action_uid: outcome.operation,
        action_uids: outcome.operations,
    }))
}

/// Whether shards are of a database: one never changes its database.
///
/// # Errors
/// `db_not_found`; `invalid_param`, with the first that is of another one.
fn are_of(view: &ClusterView, shards: &[ShardUid], database: DatabaseUid) -> Result<(), Failure> {
    if !view.databases.iter().any(|known| known.uid == database) {
        return Err(missing(ErrorCode::DbNotFound, database));
    }
    let mut known = view
        .shards
        .iter()
        .filter(|known| shards.contains(&known.uid));
    match known.find(|known| known.database != database) {
        None => Ok(()),
        Some(other) => Err(Failure::new(
            ErrorCode::InvalidParam,
            format!(
                "redis:{} is of database db:{}, not db:{database}: name shards of one database (`rladmin status \
                 shards`), or shards alone",
                other.uid, other.database
            ),
        )),
    }
}
