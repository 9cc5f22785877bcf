//! `/v1/cluster`.

use crate::App;
use crate::answer::Answer;
use crate::body::JsonBody;
use crate::failure::Failure;
use crate::query::{NoParameters, Parameters};
use crate::{request, shape};
use axum::extract::State;
use axum::http::HeaderMap;
use futures::StreamExt;
use futures::stream;
use model::intent::Intent;
use model::rest::{
    ActionStarted, ChangePrimaryNode, ClusterCheck, ClusterInfo, ClusterPolicy, ClusterUpdate,
    NodeCheck,
};
use model::view::ClusterView;
use model::{ApiError, ErrorCode, NodeUid};

/// Nodes that are checked at the same time.
const CHECKS_AT_ONCE: usize = 8;

/// The cluster.
#[utoipa::path(get, path = "/v1/cluster", tag = "cluster", responses(
    (status = 200, body = ClusterInfo),
    (status = "default", description = "Why not.", body = ApiError),
))]
pub async fn get(State(app): State<App>) -> Result<Answer<ClusterInfo>, Failure> {
    let view = app.view().await?;
    Ok(Answer::at(
        view.revision,
        shape::cluster::info(&view, &app.config.ports),
    ))
}

/// Changes settings of the cluster; what is left out stays.
#[utoipa::path(put, path = "/v1/cluster", tag = "cluster", request_body = ClusterUpdate, responses(
    (status = 200, body = ClusterInfo),
    (status = "default", description = "Why not.", body = ApiError),
))]
pub async fn put(
    State(app): State<App>,
    headers: HeaderMap,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    JsonBody(request): JsonBody<ClusterUpdate>,
) -> Result<Answer<ClusterInfo>, Failure> {
    let view = update(&app, &headers, &request).await?;
    Ok(Answer::at(
        view.revision,
        shape::cluster::info(&view, &app.config.ports),
    ))
}

/// The settings of the cluster.
#[utoipa::path(get, path = "/v1/cluster/policy", tag = "cluster", responses(
    (status = 200, body = ClusterPolicy),
    (status = "default", description = "Why not.", body = ApiError),
))]
pub async fn get_policy(State(app): State<App>) -> Result<Answer<ClusterPolicy>, Failure> {
    let view = app.view().await?;
    Ok(Answer::at(
        view.revision,
        shape::cluster::policy(&view.cluster.settings),
    ))
}

/// Changes settings of the cluster; what is left out stays.
#[utoipa::path(put, path = "/v1/cluster/policy", tag = "cluster", request_body = ClusterUpdate,
    responses(
        (status = 200, body = ClusterPolicy),
        (status = "default", description = "Why not.", body = ApiError),
    )
)]
pub async fn put_policy(
    State(app): State<App>,
    headers: HeaderMap,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    JsonBody(request): JsonBody<ClusterUpdate>,
) -> Result<Answer<ClusterPolicy>, Failure> {
    let view = update(&app, &headers, &request).await?;
    Ok(Answer::at(
        view.revision,
        shape::cluster::policy(&view.cluster.settings),
    ))
}

async fn update(
    app: &App,
    headers: &HeaderMap,
    request: &ClusterUpdate,
) -> Result<ClusterView, Failure> {
    let change = request::cluster::change(request)?;
    let before = app.view_for_change(headers).await?;
    let Some(change) = change else {
        return Ok(before);
    };
    app.exec.intent(&Intent::UpdateCluster(change)).await?;
    app.view().await
}

/// Makes another node the primary node.
#[utoipa::path(post, path = "/v1/cluster/actions/change_master", tag = "cluster",
    request_body = ChangePrimaryNode,
    responses(
        (status = 200, body = ActionStarted),
        (status = "default", description = "Why not.", body = ApiError),
    )
)]
pub async fn change_primary_node(
    State(app): State<App>,
    headers: HeaderMap,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    JsonBody(request): JsonBody<ChangePrimaryNode>,
) -> Result<Answer<ActionStarted>, Failure> {
    let view = app.view_for_change(&headers).await?;
    if let Some(node) = request.node_uid
        && !view.nodes.iter().any(|known| known.uid == node)
    {
        return Err(super::missing(ErrorCode::NodeNotFound, node));
    }
    let outcome = app
        .exec
        .intent(&Intent::ChangePrimaryNode {
            node: request.node_uid,
        })
        .await?;
    Ok(Answer::plain(ActionStarted {
        action_uid: outcome.operation,
    }))
}

/// Checks every node.
#[utoipa::path(get, path = "/v1/cluster/check", tag = "cluster", responses(
    (status = 200, body = ClusterCheck),
    (status = "default", description = "Why not.", body = ApiError),
))]
pub async fn check(State(app): State<App>) -> Result<Answer<ClusterCheck>, Failure> {
    let view = app.view().await?;
    let uids: Vec<NodeUid> = view.nodes.iter().map(|node| node.uid).collect();
    let nodes: Vec<NodeCheck> = stream::iter(uids)
        .map(|node| check_node(app.clone(), node))
        .buffered(CHECKS_AT_ONCE)
        .collect()
        .await;
    let cluster_test_result = nodes.iter().all(|node| node.result);
    Ok(Answer::at(
        view.revision,
        ClusterCheck {
            cluster_test_result,
            nodes,
        },
    ))
}

/// A node that cannot be checked has not passed.
async fn check_node(app: App, node: NodeUid) -> NodeCheck {
    app.exec
        .check(node)
        .await
        .unwrap_or_else(|error| NodeCheck {
            node_uid: node,
            result: false,
            error: Some(error.to_string()),
        })
}
