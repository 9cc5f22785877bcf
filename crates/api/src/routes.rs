//! The paths: one file an area. [`described`] holds those that operators use, [`router`] all.

pub mod actions;
pub mod bootstrap;
pub mod cluster;
pub mod databases;
pub mod internal;
pub mod local;
pub mod logs;
pub mod node_actions;
pub mod nodes;
pub mod proxies;
pub mod shards;
pub mod stats;
pub mod upgrade;
pub mod upgrade_run;

use crate::App;
use crate::access_log;
use crate::auth::gate;
use crate::body;
use crate::failure::Failure;
use crate::openapi;
use axum::extract::{Request, State};
use axum::http::{Method, Uri};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Router, extract};
use model::ErrorCode;
use model::validate::shown;
use std::str::FromStr;
use std::time::Duration;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// How long a request waits for its turn.
const TURN_WITHIN: Duration = Duration::from_secs(10);

/// Through which socket requests come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Door {
    /// With a password.
    Https,
    /// Without one.
    Local,
}

/// Everything that is served through a door.
pub fn router(app: App, door: Door) -> Router {
    let (documented, _) = described().split_for_parts();
    let routes = documented
        .route("/v1/internal/admit", post(internal::admit))
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(app.clone(), take_turn));
    let behind_the_door = match door {
        Door::Https => routes.layer(from_fn_with_state(app.clone(), gate::https)),
        Door::Local => routes.layer(from_fn(gate::local)),
    };
    behind_the_door
        .layer(from_fn(body::read_to_its_end))
        .layer(from_fn(access_log::log))
        .with_state(app)
}

/// The paths that the API's description names.
pub fn described() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(openapi::base())
        .routes(routes!(bootstrap::get))
        .routes(routes!(bootstrap::create_cluster))
        .routes(routes!(bootstrap::join_cluster))
        .routes(routes!(bootstrap::validate))
        .routes(routes!(cluster::get, cluster::put))
        .routes(routes!(cluster::get_policy, cluster::put_policy))
        .routes(routes!(cluster::change_primary_node))
        .routes(routes!(cluster::check))
        .routes(routes!(nodes::list))
        .routes(routes!(nodes::statuses))
        .routes(routes!(nodes::check))
        .routes(routes!(nodes::one, nodes::change))
        .routes(routes!(node_actions::of_all))
        .routes(routes!(node_actions::of_node))
        .routes(routes!(node_actions::status, node_actions::start))
        .routes(routes!(node_actions::snapshots))
        .routes(routes!(
            node_actions::create_snapshot,
            node_actions::delete_snapshot
        ))
        .routes(routes!(node_actions::restore_snapshot))
        .routes(routes!(proxies::list, proxies::change_all))
        .routes(routes!(proxies::one, proxies::change))
        .routes(routes!(databases::list, databases::create))
        .routes(routes!(
            databases::one,
            databases::change,
            databases::delete
        ))
        .routes(routes!(databases::shards))
        .routes(routes!(stats::list))
        .routes(routes!(stats::one))
        .routes(routes!(stats::last))
        .routes(routes!(stats::last_of_one))
        .routes(routes!(stats::slowlog))
        .routes(routes!(shards::list))
        .routes(routes!(shards::failover_several))
        .routes(routes!(shards::migrate_several))
        .routes(routes!(shards::migrate_one))
        .routes(routes!(shards::failover_one))
        .routes(routes!(shards::one))
        .routes(routes!(actions::list))
        .routes(routes!(actions::of_database))
        .routes(routes!(actions::retry))
        .routes(routes!(actions::abort))
        .routes(routes!(actions::one))
        .routes(routes!(upgrade::get, upgrade::put))
        .routes(routes!(upgrade::own_plan, upgrade::plan))
        .routes(routes!(upgrade::own_paths, upgrade::paths))
        .routes(routes!(upgrade::finalize))
        .routes(routes!(upgrade_run::bundle))
        .routes(routes!(upgrade_run::start))
        .routes(routes!(upgrade_run::pause))
        .routes(routes!(upgrade_run::resume))
        .routes(routes!(upgrade_run::rollback))
        .routes(routes!(upgrade_run::report))
        .routes(routes!(logs::list))
        .routes(routes!(local::services))
        .routes(routes!(local::healthcheck))
}

async fn take_turn(State(app): State<App>, request: Request, next: Next) -> Response {
    match tokio::time::timeout(TURN_WITHIN, app.turns.acquire()).await {
        Ok(Ok(_turn)) => next.run(request).await,
        _ => Failure::new(
            ErrorCode::NotReady,
            "too many requests: try again in a moment",
        )
        .into_response(),
    }
}

async fn not_found(uri: Uri) -> Failure {
    Failure::new(
        ErrorCode::NotFound,
        format!(
            "there is no path {}: {}",
            shown(uri.path()),
            ErrorCode::NotFound.remedy()
        ),
    )
}

async fn wrong_method(method: Method, uri: Uri) -> Failure {
    Failure::new(
        ErrorCode::MethodNotAllowed,
        format!(
            "{} has no {}: {}",
            shown(uri.path()),
            shown(method.as_str()),
            ErrorCode::MethodNotAllowed.remedy()
        ),
    )
}

/// A uid in a path. What is not a number names nothing.
fn uid<T: FromStr>(
    extract::Path(text): extract::Path<String>,
    code: ErrorCode,
) -> Result<T, Failure> {
    text.parse().map_err(|_| missing(code, &text))
}

/// Nothing has this uid.
fn missing(code: ErrorCode, uid: impl std::fmt::Display) -> Failure {
    let uid = uid.to_string();
    Failure::new(
        code,
        format!("{} ({}) {}", code.cause(), shown(&uid), code.remedy()),
    )
}
