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
use model::rest::{ActionsStarted, NodeActionRequest, NodeCheck, NodeInfo, NodeStatus};
use model::{ApiError, ErrorCode, NodeUid};
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

/// Empties a node for a while, fills it again, or takes it out of the cluster: `maintenance_on`,
/// `maintenance_off`, `remove`.
#[utoipa::path(post, path = "/v1/nodes/{uid}/actions/{action}", tag = "nodes",
    params(("uid" = NodeUid, Path), ("action" = String, Path)),
    request_body = NodeActionRequest,
    responses(
        (status = 200, body = ActionsStarted),
        (status = "default", description = "Why not.", body = ApiError),
    )
)]
pub async fn action(
    State(app): State<App>,
    Path((node, action)): Path<(String, String)>,
    headers: HeaderMap,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    JsonBody(request): JsonBody<NodeActionRequest>,
) -> Result<Answer<ActionsStarted>, Failure> {
    let node = uid::<NodeUid>(Path(node), ErrorCode::NodeNotFound)?;
    let intent = match action.as_str() {
        "maintenance_on" => Intent::MaintenanceOn {
            node,
            keep_slave_shards: request.keep_slave_shards.unwrap_or(false),
            overwrite_snapshot: request.overwrite_snapshot.unwrap_or(false),
        },
        "maintenance_off" => Intent::MaintenanceOff {
            node,
            skip_shards_restore: request.skip_shards_restore.unwrap_or(false),
        },
        "remove" => Intent::RemoveNode { node },
        other => {
            return Err(Failure::new(
                ErrorCode::NotFound,
                format!(
                    "there is no action {}: use maintenance_on, maintenance_off or remove",
                    model::validate::shown(other)
                ),
            ));
        }
    };
    app.view_for_change(&headers).await?;
    let outcome = app.exec.intent(&intent).await?;
    Ok(Answer::plain(ActionsStarted {
        action_uid: outcome.operation,
        action_uids: outcome.operations,
    }))
}
