//! `/v1/nodes/{uid}/actions` and `/v1/nodes/{uid}/snapshots`.

use super::actions::ask;
use super::{missing, uid};
use crate::App;
use crate::answer::Answer;
use crate::body::JsonBody;
use crate::failure::Failure;
use crate::query::{NoParameters, Parameters};
use crate::{request, shape};
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use model::documents::Node;
use model::intent::{Intent, SnapshotWhat};
use model::rest::{
    Actions, ActionsStarted, NodeActionRequest, NodeSnapshotInfo, PaceRequest, StateMachine,
};
use model::view::ClusterView;
use model::{ApiError, ErrorCode, NodeUid};

/// Actions on nodes that run or ran, oldest first.
#[utoipa::path(get, path = "/v1/nodes/actions", tag = "nodes", responses(
    (status = 200, body = Actions),
    (status = "default", description = "Why not.", body = ApiError),
))]
pub async fn of_all(State(app): State<App>) -> Result<Answer<Actions>, Failure> {
    let view = app.view().await?;
    Ok(Answer::at(view.revision, actions(&view, None)))
}

/// Actions on a node that run or ran, oldest first.
#[utoipa::path(get, path = "/v1/nodes/{uid}/actions", tag = "nodes",
    params(("uid" = NodeUid, Path)),
    responses(
        (status = 200, body = Actions),
        (status = "default", description = "Why not.", body = ApiError),
    )
)]
pub async fn of_node(
    State(app): State<App>,
    path: Path<String>,
) -> Result<Answer<Actions>, Failure> {
    let node = uid::<NodeUid>(path, ErrorCode::NodeNotFound)?;
    let view = app.view().await?;
    find(&view, node)?;
    Ok(Answer::at(view.revision, actions(&view, Some(node))))
}

/// The newest action of this kind on a node.
#[utoipa::path(get, path = "/v1/nodes/{uid}/actions/{action}", tag = "nodes",
    params(("uid" = NodeUid, Path), ("action" = String, Path)),
    responses(
        (status = 200, body = StateMachine),
        (status = "default", description = "Why not.", body = ApiError),
    )
)]
pub async fn status(
    State(app): State<App>,
    Path((node, action)): Path<(String, String)>,
) -> Result<Answer<StateMachine>, Failure> {
    let node = uid::<NodeUid>(Path(node), ErrorCode::NodeNotFound)?;
    let view = app.view().await?;
    find(&view, node)?;
    let found = actions(&view, Some(node)).actions;
    let newest = found.into_iter().rfind(|one| one.name == action);
    let newest = newest.ok_or_else(|| missing(ErrorCode::ActionNotFound, &action))?;
    Ok(Answer::at(view.revision, newest))
}

/// Empties a node for a while, fills it again, makes its primaries replicas, or takes it out of the
/// cluster: `maintenance_on`, `maintenance_off`, `enslave_node`, `remove`.
#[utoipa::path(post, path = "/v1/nodes/{uid}/actions/{action}", tag = "nodes",
    params(("uid" = NodeUid, Path), ("action" = String, Path)),
    request_body = NodeActionRequest,
    responses(
        (status = 200, body = ActionsStarted),
        (status = "default", description = "Why not.", body = ApiError),
    )
)]
pub async fn start(
    State(app): State<App>,
    Path((node, action)): Path<(String, String)>,
    headers: HeaderMap,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    JsonBody(wanted): JsonBody<NodeActionRequest>,
) -> Result<Answer<ActionsStarted>, Failure> {
    let node = uid::<NodeUid>(Path(node), ErrorCode::NodeNotFound)?;
    let intent = request::node::intent(node, &action, wanted)?;
    ask(&app, &headers, &intent).await
}

/// Snapshots of what was on a node, oldest first; the one of its maintenance mode last.
#[utoipa::path(get, path = "/v1/nodes/{uid}/snapshots", tag = "nodes",
    params(("uid" = NodeUid, Path)),
    responses(
        (status = 200, body = Vec<NodeSnapshotInfo>),
        (status = "default", description = "Why not.", body = ApiError),
    )
)]
pub async fn snapshots(
    State(app): State<App>,
    path: Path<String>,
) -> Result<Answer<Vec<NodeSnapshotInfo>>, Failure> {
    let node = uid::<NodeUid>(path, ErrorCode::NodeNotFound)?;
    let view = app.view().await?;
    let node = find(&view, node)?;
    Ok(Answer::at(view.revision, shape::node::snapshots(node)))
}

/// Notes what is on a node.
#[utoipa::path(post, path = "/v1/nodes/{uid}/snapshots/{name}", tag = "nodes",
    params(("uid" = NodeUid, Path), ("name" = String, Path)),
    responses(
        (status = 200, body = ActionsStarted),
        (status = "default", description = "Why not.", body = ApiError),
    )
)]
pub async fn create_snapshot(
    State(app): State<App>,
    Path((node, name)): Path<(String, String)>,
    headers: HeaderMap,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Answer<ActionsStarted>, Failure> {
    snapshot(&app, &headers, (node, name, SnapshotWhat::Create), None).await
}

/// Forgets a snapshot.
#[utoipa::path(delete, path = "/v1/nodes/{uid}/snapshots/{name}", tag = "nodes",
    params(("uid" = NodeUid, Path), ("name" = String, Path)),
    responses(
        (status = 200, body = ActionsStarted),
        (status = "default", description = "Why not.", body = ApiError),
    )
)]
pub async fn delete_snapshot(
    State(app): State<App>,
    Path((node, name)): Path<(String, String)>,
    headers: HeaderMap,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Answer<ActionsStarted>, Failure> {
    snapshot(&app, &headers, (node, name, SnapshotWhat::Delete), None).await
}

/// Brings back to a node what was on it, as far as there still is something of it.
#[utoipa::path(post, path = "/v1/nodes/{uid}/snapshots/{name}/restore", tag = "nodes",
    params(("uid" = NodeUid, Path), ("name" = String, Path)),
    request_body = PaceRequest,
    responses(
        (status = 200, body = ActionsStarted),
        (status = "default", description = "Why not.", body = ApiError),
    )
)]
pub async fn restore_snapshot(
    State(app): State<App>,
    Path((node, name)): Path<(String, String)>,
    headers: HeaderMap,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    JsonBody(pace): JsonBody<PaceRequest>,
) -> Result<Answer<ActionsStarted>, Failure> {
    let what = (node, name, SnapshotWhat::Restore);
    snapshot(&app, &headers, what, Some(pace)).await
}

async fn snapshot(
    app: &App,
    headers: &HeaderMap,
    (node, name, what): (String, String, SnapshotWhat),
    pace: Option<PaceRequest>,
) -> Result<Answer<ActionsStarted>, Failure> {
    let node = uid::<NodeUid>(Path(node), ErrorCode::NodeNotFound)?;
    let pace = request::node::pace(pace.unwrap_or_default())?;
    let intent = Intent::NodeSnapshot {
        node,
        name,
        what,
        pace,
    };
    ask(app, headers, &intent).await
}

fn actions(view: &ClusterView, node: Option<NodeUid>) -> Actions {
    let operations: Vec<_> = view.operations.iter().collect();
    let mut actions = shape::action::of_nodes(&operations);
    actions.retain(|one| node.is_none() || one.node_uid == node);
    Actions {
        actions,
        state_machines: Vec::new(),
    }
}

fn find(view: &ClusterView, node: NodeUid) -> Result<&Node, Failure> {
    let found = view.nodes.iter().find(|known| known.uid == node);
    found.ok_or_else(|| missing(ErrorCode::NodeNotFound, node))
}
