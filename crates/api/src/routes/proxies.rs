//! `/v1/proxies`: the proxy of each node, named by the node's uid.

use super::{missing, uid};
use crate::App;
use crate::answer::Answer;
use crate::body::JsonBody;
use crate::failure::Failure;
use crate::query::{Fields, NoParameters, Parameters};
use crate::{request, shape};
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use model::intent::Intent;
use model::rest::{Proxy, ProxyUpdate};
use model::view::ClusterView;
use model::{ApiError, ErrorCode, NodeUid};

/// Every proxy.
#[utoipa::path(get, path = "/v1/proxies", operation_id = "proxies", tag = "proxies",
    params(Fields),
    responses(
        (status = 200, body = Vec<Proxy>),
        (status = "default", description = "Why not.", body = ApiError),
    )
)]
pub async fn list(
    State(app): State<App>,
    Parameters(parameters): Parameters<Fields>,
) -> Result<Answer<Vec<Proxy>>, Failure> {
    let view = app.view().await?;
    Ok(Answer::at(view.revision, all(&view)).only(parameters.fields.as_deref()))
}

/// One proxy.
#[utoipa::path(get, path = "/v1/proxies/{uid}", operation_id = "proxy", tag = "proxies",
    params(("uid" = NodeUid, Path), Fields),
    responses(
        (status = 200, body = Proxy),
        (status = "default", description = "Why not.", body = ApiError),
    )
)]
pub async fn one(
    State(app): State<App>,
    path: Path<String>,
    Parameters(parameters): Parameters<Fields>,
) -> Result<Answer<Proxy>, Failure> {
    let node = uid::<NodeUid>(path, ErrorCode::NodeNotFound)?;
    let view = app.view().await?;
    let info = find(&view, node)?;
    Ok(Answer::at(view.revision, info).only(parameters.fields.as_deref()))
}

/// Changes every proxy; what is left out stays.
///
/// Threads are started and ended while clients are served; none loses its connection.
#[utoipa::path(put, path = "/v1/proxies", operation_id = "change_proxies", tag = "proxies",
    request_body = ProxyUpdate,
    responses(
        (status = 200, body = Vec<Proxy>),
        (status = "default", description = "Why not.", body = ApiError),
    )
)]
pub async fn change_all(
    State(app): State<App>,
    headers: HeaderMap,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    JsonBody(update): JsonBody<ProxyUpdate>,
) -> Result<Answer<Vec<Proxy>>, Failure> {
    let view = carry_out(&app, &headers, &update, None).await?;
    Ok(Answer::at(view.revision, all(&view)))
}

/// Changes a proxy; what is left out stays.
///
/// Threads are started and ended while clients are served; none loses its connection.
#[utoipa::path(put, path = "/v1/proxies/{uid}", operation_id = "change_proxy", tag = "proxies",
    params(("uid" = NodeUid, Path)),
    request_body = ProxyUpdate,
    responses(
        (status = 200, body = Proxy),
        (status = "default", description = "Why not.", body = ApiError),
    )
)]
pub async fn change(
    State(app): State<App>,
    headers: HeaderMap,
    path: Path<String>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    JsonBody(update): JsonBody<ProxyUpdate>,
) -> Result<Answer<Proxy>, Failure> {
    let node = uid::<NodeUid>(path, ErrorCode::NodeNotFound)?;
    let view = carry_out(&app, &headers, &update, Some(node)).await?;
    Ok(Answer::at(view.revision, find(&view, node)?))
}

async fn carry_out(
    app: &App,
    headers: &HeaderMap,
    update: &ProxyUpdate,
    node: Option<NodeUid>,
) -> Result<ClusterView, Failure> {
    let change = request::proxy::change(update, node)?;
    let before = app.view_for_change(headers).await?;
    if let Some(node) = node {
        find(&before, node)?;
    }
    app.exec
        .intent(&Intent::UpdateProxy { node, change })
        .await?;
    app.view().await
}

fn all(view: &ClusterView) -> Vec<Proxy> {
    let proxies = view.nodes.iter().map(|node| shape::proxy::info(view, node));
    proxies.collect()
}

fn find(view: &ClusterView, uid: NodeUid) -> Result<Proxy, Failure> {
    let found = view.nodes.iter().find(|node| node.uid == uid);
    found
        .map(|node| shape::proxy::info(view, node))
        .ok_or_else(|| missing(ErrorCode::NodeNotFound, uid))
}
