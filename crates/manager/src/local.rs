//! The interface for this node's programs, over a unix socket: see [`client::local`] for the calls.

use crate::exec::Exec;
use crate::{bootstrap, internode, primary, proxy_feed, turns};
use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use model::documents::Event;
use model::history::{HistoryAnswer, HistoryQuery};
use model::intent::{
    BootstrapStatus, CreateCluster, Drained, Intent, IntentOutcome, JoinCluster, JoinGrant,
    JoinRequest,
};
use model::limits::BODY_MAX;
use model::rest::NodeCheck;
use model::upgrade::run::GivenBundle;
use model::upgrade::{UpgradePlan, UpgradeTarget};
use model::view::{ClusterView, Consistency};
use model::{ApiError, ErrorCode, NodeUid};
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;

/// How long the engines may take to save and stop.
const STOP_MAX: Duration = Duration::from_secs(50);

/// An error as an HTTP answer.
#[derive(Debug)]
pub struct Failure(pub ApiError);

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.error_code.status());
        (
            status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            Json(self.0),
        )
            .into_response()
    }
}

/// An answer, or why there is none.
pub type Answer<T> = Result<Json<T>, Failure>;

#[derive(Debug, Deserialize)]
struct ViewQuery {
    consistency: Consistency,
}

/// Serves the local interface until the task is dropped.
///
/// # Errors
/// When the socket cannot be bound.
pub async fn serve(exec: Arc<Exec>) -> anyhow::Result<()> {
    let listener = proxy_feed::bind_unix(&exec.program.config.exec_socket(), 0o660)?;
    let router = Router::new()
        .route("/local/bootstrap", get(bootstrap_status))
        .route("/local/create-cluster", post(create_cluster))
        .route("/local/join-cluster", post(join_cluster))
        .route("/local/admit", post(admit))
        .route("/local/view", get(view))
        .route("/local/intent", post(intent))
        .route("/local/upgrade-plan", post(upgrade_plan))
        .route("/local/upgrade-start", post(upgrade_start))
        .route("/local/events", get(events))
        .route("/local/history", post(history))
        .route("/local/check/{uid}", post(check))
        .route("/local/drain", post(drain))
        .route("/local/stop-engines", post(stop_engines))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(exec);
    axum::serve(listener, router).await?;
    Ok(())
}

async fn bootstrap_status(State(exec): State<Arc<Exec>>) -> Json<BootstrapStatus> {
    Json(bootstrap::status(&exec))
}

/// Create and join go on when the caller goes away: half of one would be worse than either end.
async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
) -> Answer<T> {
    match tokio::spawn(work).await {
        Ok(result) => Ok(Json(result?)),
        Err(error) => Err(Failure(ApiError::new(
            ErrorCode::InternalError,
            format!("it ended early: {error}; see cnm_exec.log"),
        ))),
    }
}

async fn create_cluster(
    State(exec): State<Arc<Exec>>,
    Json(request): Json<CreateCluster>,
) -> Answer<BootstrapStatus> {
    to_the_end(async move { Box::pin(bootstrap::create(&exec, request)).await }).await
}

async fn join_cluster(
    State(exec): State<Arc<Exec>>,
    Json(request): Json<JoinCluster>,
) -> Answer<BootstrapStatus> {
    to_the_end(async move { Box::pin(bootstrap::join(&exec, request)).await }).await
}

async fn admit(
    State(exec): State<Arc<Exec>>,
    Json(request): Json<JoinRequest>,
) -> Answer<JoinGrant> {
    Ok(Json(bootstrap::admit(exec.member()?, request).await?))
}

async fn view(
    State(exec): State<Arc<Exec>>,
    Query(query): Query<ViewQuery>,
) -> Answer<ClusterView> {
    Ok(Json(
        primary::view(exec.member()?, query.consistency).await?,
    ))
}

async fn intent(State(exec): State<Arc<Exec>>, body: Bytes) -> Answer<IntentOutcome> {
    let intent = known_intent(&body)?;
    Ok(Json(primary::intent(exec.member()?, &intent).await?))
}

/// What is asked for, if this release knows it: nodes of a newer one may ask for more.
///
/// # Errors
/// `available_after_upgrade`, `bad_request`.
pub fn known_intent(body: &[u8]) -> Result<Intent, ApiError> {
    serde_json::from_slice(body).map_err(|error| {
        let code = if error.is_data() {
            ErrorCode::AvailableAfterUpgrade
        } else {
            ErrorCode::BadRequest
        };
        ApiError::new(
            code,
            format!(
                "the primary node's release does not know what was asked for ({error}). {}",
                code.remedy()
            ),
        )
    })
}

async fn upgrade_plan(
    State(exec): State<Arc<Exec>>,
    Json(target): Json<UpgradeTarget>,
) -> Answer<UpgradePlan> {
    let view = primary::view(exec.member()?, Consistency::Linearizable).await?;
    let now = jiff::Timestamp::now();
    Ok(Json(controller::upgrade::plan::plan(&view, &target, now)))
}

async fn upgrade_start(
    State(exec): State<Arc<Exec>>,
    Json(given): Json<GivenBundle>,
) -> Answer<IntentOutcome> {
    Ok(Json(turns::start(exec.member()?, given).await?))
}

async fn events(State(exec): State<Arc<Exec>>) -> Answer<Vec<Event>> {
    Ok(Json(primary::events(exec.member()?).await?))
}

async fn history(
    State(exec): State<Arc<Exec>>,
    Json(query): Json<HistoryQuery>,
) -> Answer<HistoryAnswer> {
    Ok(Json(crate::history::ask(exec.member()?, query).await?))
}

async fn check(State(exec): State<Arc<Exec>>, Path(uid): Path<NodeUid>) -> Answer<NodeCheck> {
    Ok(Json(internode::check(exec.member()?, uid).await?))
}

async fn drain(State(exec): State<Arc<Exec>>) -> Answer<Drained> {
    Ok(Json(crate::drain::drain(exec.member()?).await))
}

async fn stop_engines(State(exec): State<Arc<Exec>>) -> Answer<()> {
    exec.agent.stop_all_engines(STOP_MAX).await;
    Ok(Json(()))
}
