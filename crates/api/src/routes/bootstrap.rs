//! `/v1/bootstrap`: making this node part of a cluster.

use crate::App;
use crate::answer::Answer;
use crate::auth::Caller;
use crate::auth::roles::Permission;
use crate::body::JsonBody;
use crate::failure::Failure;
use crate::query::{NoParameters, Parameters};
use crate::request::bootstrap::{Wanted, wanted};
use crate::shape;
use axum::Extension;
use axum::extract::{Path, State};
use model::rest::{Bootstrap, BootstrapCheck, BootstrapRequest};
use model::{ApiError, ErrorCode};

/// How far this node's bootstrap is.
///
/// Open to everyone until the node belongs to a cluster.
#[utoipa::path(get, path = "/v1/bootstrap", tag = "bootstrap", responses(
    (status = 200, body = Bootstrap),
    (status = "default", description = "Why not.", body = ApiError),
))]
pub async fn get(State(app): State<App>) -> Result<Answer<Bootstrap>, Failure> {
    let status = app.bootstraps.seen_from_here(app.exec.bootstrap().await?);
    Ok(Answer::plain(shape::bootstrap::status(&status)))
}

/// Makes this node the first of a new cluster.
///
/// Waits for the end unless `cluster.wait_command` is false. Open to everyone until the node
/// belongs to a cluster.
#[utoipa::path(post, path = "/v1/bootstrap/create_cluster", tag = "bootstrap",
    request_body = BootstrapRequest,
    responses(
        (status = 200, body = Bootstrap),
        (status = "default", description = "Why not.", body = ApiError),
    )
)]
pub async fn create_cluster(
    State(app): State<App>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    JsonBody(request): JsonBody<BootstrapRequest>,
) -> Result<Answer<Bootstrap>, Failure> {
    run(&app, "create_cluster", &request).await
}

/// Makes this node a member of a cluster.
///
/// The password is sent only to a node whose certificate comes from the CA that
/// `credentials.ca_fingerprint` or `credentials.trusted_ca` names. Waits for the end unless
/// `cluster.wait_command` is false. Open to everyone until the node belongs to a cluster.
#[utoipa::path(post, path = "/v1/bootstrap/join_cluster", tag = "bootstrap",
    request_body = BootstrapRequest,
    responses(
        (status = 200, body = Bootstrap),
        (status = "default", description = "Why not.", body = ApiError),
    )
)]
pub async fn join_cluster(
    State(app): State<App>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    JsonBody(request): JsonBody<BootstrapRequest>,
) -> Result<Answer<Bootstrap>, Failure> {
    run(&app, "join_cluster", &request).await
}

/// Checks a bootstrap request and changes nothing.
#[utoipa::path(post, path = "/v1/bootstrap/validate/{action}", tag = "bootstrap",
    params(("action" = String, Path, description = "`create_cluster` or `join_cluster`")),
    request_body = BootstrapRequest,
    responses(
        (status = 200, body = BootstrapCheck),
        (status = "default", description = "What is wrong.", body = ApiError),
    )
)]
pub async fn validate(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Path(action): Path<String>,
    JsonBody(request): JsonBody<BootstrapRequest>,
) -> Result<Answer<BootstrapCheck>, Failure> {
    if !caller.may(Permission::Bootstrap) {
        return Err(ErrorCode::UnauthorizedAction.into());
    }
    let wanted = checked(&app, &action, &request).await?;
    Ok(Answer::plain(BootstrapCheck {
        action: wanted.action().to_owned(),
        valid: true,
    }))
}

async fn checked(app: &App, action: &str, request: &BootstrapRequest) -> Result<Wanted, Failure> {
    let wanted = wanted(action, request, &app.config)?;
    let status = app.exec.bootstrap().await?;
    if status.removed {
        return Err(ErrorCode::NodeRemoved.into());
    }
    if status.state == "completed" {
        return Err(ErrorCode::AlreadyMember.into());
    }
    Ok(wanted)
}

async fn run(
    app: &App,
    action: &str,
    request: &BootstrapRequest,
) -> Result<Answer<Bootstrap>, Failure> {
    let wanted = checked(app, action, request).await?;
    let run = app.bootstraps.start(&app.exec, wanted)?;
    let status = if request.cluster.wait_command.unwrap_or(true) {
        let ended = run.await.map_err(|_| {
            Failure::new(
                ErrorCode::InternalError,
                "the bootstrap ended without a result: look at GET /v1/bootstrap",
            )
        })?;
        ended?
    } else {
        app.exec.bootstrap().await?
    };
    let status = app.bootstraps.seen_from_here(status);
    Ok(Answer::plain(shape::bootstrap::status(&status)))
}
