//! `/v1/local`: this node alone.

use crate::App;
use crate::answer::Answer;
use crate::failure::Failure;
use crate::shape;
use axum::extract::State;
use model::rest::{PrimaryHealthcheck, ServiceInfo};
use model::view::Consistency;
use model::{ApiError, ErrorCode};
use std::collections::BTreeMap;

/// Services of this node.
#[utoipa::path(get, path = "/v1/local/services", tag = "local", responses(
    (status = 200, body = BTreeMap<String, ServiceInfo>),
    (status = "default", description = "Why not.", body = ApiError),
))]
pub async fn services(
    State(app): State<App>,
) -> Result<Answer<BTreeMap<String, ServiceInfo>>, Failure> {
    let view = app.exec.view(Consistency::Local).await?;
    let observed = view.observed(view.local_node).ok_or_else(|| {
        Failure::new(
            ErrorCode::NotReady,
            "this node has not looked at itself yet: try again",
        )
    })?;
    Ok(Answer::plain(shape::node::services(
        &observed.observation.services,
    )))
}

/// Whether this node has a valid link to the primary node and to a quorum.
#[utoipa::path(get, path = "/v1/local/node/master_healthcheck", tag = "local", responses(
    (status = 200, body = PrimaryHealthcheck),
    (status = "default", description = "Why not.", body = ApiError),
))]
pub async fn healthcheck(State(app): State<App>) -> Result<Answer<PrimaryHealthcheck>, Failure> {
    let view = app.view().await?;
    Ok(Answer::plain(shape::cluster::healthcheck(&view)))
}
