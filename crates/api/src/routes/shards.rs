//! `/v1/shards`.

use super::{missing, uid};
use crate::App;
use crate::answer::Answer;
use crate::failure::Failure;
use crate::query::{Fields, Parameters};
use crate::shape;
use axum::extract::{Path, State};
use model::rest::ShardInfo;
use model::{ApiError, ErrorCode, ShardUid};

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
