//! `/v1/bdbs/stats` and `/v1/bdbs/{uid}/slowlog`: what proxies counted.

use super::databases::find;
use super::uid;
use crate::App;
use crate::answer::Answer;
use crate::failure::Failure;
use crate::query::{Fields, Parameters, StatsParameters};
use crate::shape::stats;
use axum::extract::{Path, State};
use model::rest::{DatabaseStats, SlowlogEntry, StatsSample};
use model::view::ClusterView;
use model::{ApiError, DatabaseUid, ErrorCode};
use std::collections::BTreeMap;

/// Only the newest second is known; nothing is archived.
fn only_newest(parameters: &StatsParameters) -> Result<(), Failure> {
    match parameters.interval.as_deref() {
        None | Some(stats::INTERVAL) => Ok(()),
        Some(_) => Err(Failure::new(
            ErrorCode::InvalidParam,
            "interval: only 1sec is kept, as the newest sample",
        )),
    }
}

/// Statistics of every database: the newest second.
#[utoipa::path(get, path = "/v1/bdbs/stats", operation_id = "bdbs_stats", tag = "bdbs",
    params(StatsParameters),
    responses(
        (status = 200, body = Vec<DatabaseStats>),
        (status = "default", description = "Why not.", body = ApiError),
    )
)]
pub async fn list(
    State(app): State<App>,
    Parameters(parameters): Parameters<StatsParameters>,
) -> Result<Answer<Vec<DatabaseStats>>, Failure> {
    only_newest(&parameters)?;
    let view = app.view().await?;
    let databases = view.databases.iter();
    let all = databases.map(|database| stats::of_database(&view, database));
    Ok(Answer::at(view.revision, all.collect()))
}

/// Statistics of a database: the newest second.
#[utoipa::path(get, path = "/v1/bdbs/stats/{uid}", operation_id = "bdb_stats", tag = "bdbs",
    params(("uid" = DatabaseUid, Path), StatsParameters),
    responses(
        (status = 200, body = DatabaseStats),
        (status = "default", description = "Why not.", body = ApiError),
    )
)]
pub async fn one(
    State(app): State<App>,
    path: Path<String>,
    Parameters(parameters): Parameters<StatsParameters>,
) -> Result<Answer<DatabaseStats>, Failure> {
    only_newest(&parameters)?;
    let database = uid(path, ErrorCode::DbNotFound)?;
    let view = app.view().await?;
    let shown = stats::of_database(&view, find(&view, database)?);
    Ok(Answer::at(view.revision, shown))
}

/// The newest sample of every database, by uid.
#[utoipa::path(get, path = "/v1/bdbs/stats/last", operation_id = "bdbs_stats_last", tag = "bdbs",
    responses(
        (status = 200, body = BTreeMap<String, StatsSample>),
        (status = "default", description = "Why not.", body = ApiError),
    )
)]
pub async fn last(
    State(app): State<App>,
) -> Result<Answer<BTreeMap<DatabaseUid, StatsSample>>, Failure> {
    let view = app.view().await?;
    let databases = view.databases.iter().map(|database| database.uid);
    Ok(Answer::at(view.revision, newest(&view, databases)))
}

/// The newest sample of a database, by uid.
#[utoipa::path(get, path = "/v1/bdbs/stats/last/{uid}", operation_id = "bdb_stats_last",
    tag = "bdbs", params(("uid" = DatabaseUid, Path)),
    responses(
        (status = 200, body = BTreeMap<String, StatsSample>),
        (status = "default", description = "Why not.", body = ApiError),
    )
)]
pub async fn last_of_one(
    State(app): State<App>,
    path: Path<String>,
) -> Result<Answer<BTreeMap<DatabaseUid, StatsSample>>, Failure> {
    let database = uid(path, ErrorCode::DbNotFound)?;
    let view = app.view().await?;
    find(&view, database)?;
    Ok(Answer::at(view.revision, newest(&view, [database])))
}

fn newest(
    view: &ClusterView,
    databases: impl IntoIterator<Item = DatabaseUid>,
) -> BTreeMap<DatabaseUid, StatsSample> {
    let sample = |database| Some((database, stats::sample(view, database)?));
    databases.into_iter().filter_map(sample).collect()
}

/// Commands of a database that took long, newest first.
#[utoipa::path(get, path = "/v1/bdbs/{uid}/slowlog", operation_id = "bdb_slowlog", tag = "bdbs",
    params(("uid" = DatabaseUid, Path), Fields),
    responses(
        (status = 200, body = Vec<SlowlogEntry>),
        (status = "default", description = "Why not.", body = ApiError),
    )
)]
pub async fn slowlog(
    State(app): State<App>,
    path: Path<String>,
    Parameters(parameters): Parameters<Fields>,
) -> Result<Answer<Vec<SlowlogEntry>>, Failure> {
    let database = uid(path, ErrorCode::DbNotFound)?;
    let view = app.view().await?;
    find(&view, database)?;
    let entries = stats::slowlog(&view, database);
    Ok(Answer::at(view.revision, entries).only(parameters.fields.as_deref()))
}
