//! `/v1/nodes`.

use super::{missing, uid};
use crate::App;
use crate::answer::Answer;
use crate::body::JsonBody;
use crate::failure::Failure;
use crate::query::{Fields, NoParameters, Parameters};
use crate::shape;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use model::intent::Intent;
use model::rest::{NodeCheck, NodeInfo, NodeStatus, NodeUpdate};
use model::{ApiError, ErrorCode, NodeUid, validate};
use std::collections::BTreeMap;

/// Every node.
#[utoipa::path(get, path = "/v1/nodes", tag = "nodes", params(Fields), responses(
    (status = 200, body = Vec<NodeInfo>),
    (status = "default", description = "Why not.", body = ApiError),
))]
pub async fn list(
    State(app): State<App>,
    Parameters(parameters): Parameters<Fields>,
) -> Result<Answer<Vec<NodeInfo>>, Failure> {
    let view = app.view().await?;
    let nodes = view
        .nodes
        .iter()
        .map(|node| shape::node::info(&view, node, &app.config));
    Ok(Answer::at(view.revision, nodes.collect()).only(parameters.fields.as_deref()))
}

/// One node.
#[utoipa::path(get, path = "/v1/nodes/{uid}", tag = "nodes",
    params(("uid" = NodeUid, Path), Fields),
    responses(
        (status = 200, body = NodeInfo),
        (status = "default", description = "Why not.", body = ApiError),
    )
)]
pub async fn one(
    State(app): State<App>,
    path: Path<String>,
    Parameters(parameters): Parameters<Fields>,
) -> Result<Answer<NodeInfo>, Failure> {
    let node = uid::<NodeUid>(path, ErrorCode::NodeNotFound)?;
    let view = app.view().await?;
    let found = view.nodes.iter().find(|known| known.uid == node);
    let node = found.ok_or_else(|| missing(ErrorCode::NodeNotFound, node))?;
    let info = shape::node::info(&view, node, &app.config);
    Ok(Answer::at(view.revision, info).only(parameters.fields.as_deref()))
}

/// Changes what is known of a node; what is left out stays.
///
/// A rack says where nodes fail together. Nothing moves; databases that are rack-aware must have their copies
/// apart afterwards too.
#[utoipa::path(put, path = "/v1/nodes/{uid}", operation_id = "change_node", tag = "nodes",
    params(("uid" = NodeUid, Path)),
    request_body = NodeUpdate,
    responses(
        (status = 200, body = NodeInfo),
        (status = "default", description = "Why not.", body = ApiError),
    )
)]
pub async fn change(
    State(app): State<App>,
    headers: HeaderMap,
    path: Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    JsonBody(update): JsonBody<NodeUpdate>,
) -> Result<Answer<NodeInfo>, Failure> {
    let uid = uid::<NodeUid>(path, ErrorCode::NodeNotFound)?;
    let rack_id = update.rack_id;
    rack_id.as_deref().map_or(Ok(()), validate::rack_id)?;
    app.view_for_change(&headers).await?;
    let intent = Intent::UpdateNode { node: uid, rack_id };
    app.exec.intent(&intent).await?;
    let view = app.view().await?;
    let found = view.nodes.iter().find(|known| known.uid == uid);
    let node = found.ok_or_else(|| missing(ErrorCode::NodeNotFound, uid))?;
    let info = shape::node::info(&view, node, &app.config);
    Ok(Answer::at(view.revision, info))
}

/// Role, memory, shards and version of every node, by uid.
#[utoipa::path(get, path = "/v1/nodes/status", tag = "nodes", responses(
    (status = 200, body = BTreeMap<String, NodeStatus>),
    (status = "default", description = "Why not.", body = ApiError),
))]
pub async fn statuses(
    State(app): State<App>,
) -> Result<Answer<BTreeMap<NodeUid, NodeStatus>>, Failure> {
    let view = app.view().await?;
    Ok(Answer::at(view.revision, shape::node::statuses(&view)))
}

/// Checks a node's settings and services.
#[utoipa::path(get, path = "/v1/nodes/check/{uid}", tag = "nodes",
    params(("uid" = NodeUid, Path)),
    responses(
        (status = 200, body = NodeCheck),
        (status = "default", description = "Why not.", body = ApiError),
    )
)]
pub async fn check(
    State(app): State<App>,
    path: Path<String>,
) -> Result<Answer<NodeCheck>, Failure> {
    let node = uid::<NodeUid>(path, ErrorCode::NodeNotFound)?;
    Ok(Answer::plain(app.exec.check(node).await?))
}
