//! `/v1/upgrade`. Nodes are upgraded by install.sh; here it is seen how far that is, planned, and ended.

use crate::App;
use crate::answer::Answer;
use crate::body::JsonBody;
use crate::failure::Failure;
use crate::process::own_manifest;
use crate::query::{NoParameters, Parameters};
use crate::shape;
use axum::extract::State;
use axum::http::HeaderMap;
use jiff::Timestamp;
use model::intent::Intent;
use model::release::{Manifest, SupportedPaths};
use model::rest::{UpgradePaths, UpgradeSettings, UpgradeStatus};
use model::upgrade::{UpgradePlan, UpgradeTarget};
use model::validate::shown;
use model::{ApiError, ErrorCode};
use semver::Version;
use serde::Deserialize;
use utoipa::IntoParams;

/// The feature level, and the upgrade that is under way.
#[utoipa::path(get, path = "/v1/upgrade", tag = "upgrade", responses(
    (status = 200, body = UpgradeStatus),
    (status = "default", description = "Why not.", body = ApiError),
))]
pub async fn get(State(app): State<App>) -> Result<Answer<UpgradeStatus>, Failure> {
    let view = app.view().await?;
    Ok(Answer::at(
        view.revision,
        shape::upgrade::status(&view, Timestamp::now()),
    ))
}

/// Changes how upgrades end; what is left out stays.
#[utoipa::path(put, path = "/v1/upgrade", tag = "upgrade", request_body = UpgradeSettings, responses(
    (status = 200, body = UpgradeStatus),
    (status = "default", description = "Why not.", body = ApiError),
))]
pub async fn put(
    State(app): State<App>,
    headers: HeaderMap,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    JsonBody(request): JsonBody<UpgradeSettings>,
) -> Result<Answer<UpgradeStatus>, Failure> {
    app.view_for_change(&headers).await?;
    app.exec
        .intent(&Intent::UpdateUpgrade {
            hold_finalize: request.hold_finalize,
            soak_seconds: request.soak_seconds,
        })
        .await?;
    get(State(app)).await
}

/// Finalises the upgrade without waiting for the end of the soak; the answer comes before it is done.
#[utoipa::path(post, path = "/v1/upgrade/finalize", tag = "upgrade", responses(
    (status = 200, body = UpgradeStatus),
    (status = "default", description = "Why not.", body = ApiError),
))]
pub async fn finalize(
    State(app): State<App>,
    headers: HeaderMap,
    Parameters(NoParameters {}): Parameters<NoParameters>,
) -> Result<Answer<UpgradeStatus>, Failure> {
    app.view_for_change(&headers).await?;
    app.exec.intent(&Intent::FinalizeUpgrade).await?;
    get(State(app)).await
}

/// How the upgrade of all nodes to the answering node's release would go; changes nothing.
#[utoipa::path(get, path = "/v1/upgrade/plan", tag = "upgrade", responses(
    (status = 200, body = UpgradePlan),
    (status = "default", description = "Why not.", body = ApiError),
))]
pub async fn own_plan(State(app): State<App>) -> Result<Answer<UpgradePlan>, Failure> {
    plan_to(&app, &UpgradeTarget::from(&own_release()?)).await
}

/// How an upgrade to a release would go; changes nothing.
#[utoipa::path(post, path = "/v1/upgrade/plan", tag = "upgrade", request_body = UpgradeTarget, responses(
    (status = 200, body = UpgradePlan),
    (status = "default", description = "Why not.", body = ApiError),
))]
pub async fn plan(
    State(app): State<App>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    JsonBody(target): JsonBody<UpgradeTarget>,
) -> Result<Answer<UpgradePlan>, Failure> {
    version(&target.version)?;
    plan_to(&app, &target).await
}

async fn plan_to(app: &App, target: &UpgradeTarget) -> Result<Answer<UpgradePlan>, Failure> {
    Ok(Answer::plain(app.exec.upgrade_plan(target).await?))
}

/// What `GET /v1/upgrade/paths` may be asked.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct Wanted {
    /// The version to go to; left out: the answering node's release.
    pub to: Option<String>,
}

/// Which upgrades the answering node's release knows, and every node's way to a version.
#[utoipa::path(get, path = "/v1/upgrade/paths", tag = "upgrade", params(Wanted), responses(
    (status = 200, body = UpgradePaths),
    (status = "default", description = "Why not.", body = ApiError),
))]
pub async fn own_paths(
    State(app): State<App>,
    Parameters(wanted): Parameters<Wanted>,
) -> Result<Answer<UpgradePaths>, Failure> {
    let manifest = own_release()?;
    let to = match &wanted.to {
        Some(text) => version(text)?,
        None => manifest.version.clone(),
    };
    paths_to(&app, &manifest.version, &manifest.supported_paths, &to).await
}

/// Which upgrades a release knows, and every node's way to it.
#[utoipa::path(post, path = "/v1/upgrade/paths", tag = "upgrade", request_body = UpgradeTarget, responses(
    (status = 200, body = UpgradePaths),
    (status = "default", description = "Why not.", body = ApiError),
))]
pub async fn paths(
    State(app): State<App>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    JsonBody(target): JsonBody<UpgradeTarget>,
) -> Result<Answer<UpgradePaths>, Failure> {
    let to = version(&target.version)?;
    paths_to(&app, &to, &target.supported_paths, &to).await
}

async fn paths_to(
    app: &App,
    release: &Version,
    table: &SupportedPaths,
    to: &Version,
) -> Result<Answer<UpgradePaths>, Failure> {
    let view = app.view().await?;
    Ok(Answer::at(
        view.revision,
        shape::upgrade::paths(&view, release, table, to),
    ))
}

fn version(text: &str) -> Result<Version, Failure> {
    Version::parse(text).map_err(|_| {
        Failure::new(
            ErrorCode::InvalidParam,
            format!("'{}' is no version: write 1.2.3", shown(text)),
        )
    })
}

fn own_release() -> Result<Manifest, Failure> {
    own_manifest().ok_or_else(|| {
        Failure::new(
            ErrorCode::ConfigError,
            "this node does not run from an installed release: name a bundle",
        )
    })
}
