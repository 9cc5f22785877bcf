//! `/v1/bdbs/stats` and `/v1/bdbs/{uid}/slowlog`: what proxies counted.

use super::databases::find;
use super::{missing, uid};
use crate::App;
use crate::answer::Answer;
use crate::failure::Failure;
use crate::query::{Fields, Parameters, StatsParameters};
use crate::shape::stats;
use axum::extract::{Path, State};
use model::history::{HistoryAnswer, HistoryQuery, Interval};
use model::rest::{DatabaseStats, SlowlogEntry, StatsSample};
use model::view::ClusterView;
use model::{ApiError, DatabaseUid, ErrorCode, Revision};
use std::collections::BTreeMap;

/// The interval that is asked for.
fn interval(parameters: &StatsParameters) -> Result<Interval, Failure> {
    let Some(word) = parameters.interval.as_deref() else {
        return Ok(Interval::Second);
    };
    let known = Interval::ALL
        .into_iter()
        .find(|known| known.as_str() == word);
    known.ok_or_else(|| {
        Failure::new(
            ErrorCode::InvalidParam,
            "interval: 1sec (the last 10), 10sec (the last 30) and 5min (the last 12) are kept, by the \
             primary node, as long as it is one",
        )
    })
}

/// The samples that are asked for, of these databases.
async fn samples(
    app: &App,
    parameters: &StatsParameters,
    only: Option<DatabaseUid>,
) -> Result<(Revision, Vec<DatabaseStats>), Failure> {
    let interval = interval(parameters)?;
    let query = HistoryQuery {
        database: only,
        interval,
    };
    let (view, kept) = tokio::join!(app.view(), app.exec.history(&query));
    let view = view?;
    // The newest second is known all the same.
    let kept = match kept {
        Ok(kept) => kept,
        Err(_) if interval == Interval::Second => HistoryAnswer::new(),
        Err(error) => return Err(error.into()),
    };
    let wanted = view.databases.iter().map(|database| database.uid);
    let wanted = wanted.filter(|uid| only.is_none_or(|only| only == *uid));
    let shown = wanted.map(|uid| {
        let mut shown = stats::of_database(&view, uid, &kept, interval);
        shown.intervals.retain(|sample| parameters.wants(sample));
        shown
    });
    Ok((view.revision, shown.collect()))
}

/// Statistics of every database, oldest first.
///
/// The primary node keeps the last 10 seconds, 30 times ten seconds and 12 times five minutes, as long as
/// it is the primary node.
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
    let (revision, all) = samples(&app, &parameters, None).await?;
    Ok(Answer::at(revision, all))
}

/// Statistics of a database, oldest first.
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
    let database = uid(path, ErrorCode::DbNotFound)?;
    let (revision, mut found) = samples(&app, &parameters, Some(database)).await?;
    let shown = found
        .pop()
        .ok_or_else(|| missing(ErrorCode::DbNotFound, database))?;
    Ok(Answer::at(revision, shown))
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
    let sample = |database| Some((database, stats::newest(view, database)?));
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
