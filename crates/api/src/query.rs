//! Query parameters. Reads pass over names that they do not know (other tools add their own);
//! changes refuse them, so that `dry_run` misspelt never becomes a real change.

use crate::failure::Failure;
use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use model::ErrorCode;
use model::validate::shown;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use utoipa::IntoParams;

/// Query parameters as `T` reads them.
#[derive(Clone, Copy, Debug)]
pub struct Parameters<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Parameters<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Failure> {
        let Query(value) = Query::<T>::try_from_uri(&parts.uri).map_err(|rejection| {
            let text = rejection.body_text();
            let text = text
                .rsplit_once("string: ")
                .map_or(text.as_str(), |(_, reason)| reason);
            Failure::new(
                ErrorCode::InvalidParam,
                format!("query parameters: {}", shown(text)),
            )
        })?;
        Ok(Self(value))
    }
}

/// Which fields of an object or list are wanted.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct Fields {
    /// Names of fields, joined by commas; left out: all.
    pub fields: Option<String>,
}

/// For statistics.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct StatsParameters {
    /// How long the samples are: `1sec` (the default), `10sec`, `5min`.
    pub interval: Option<String>,
    /// Only samples that end at or after this time (ISO 8601; without a zone: UTC).
    #[serde(deserialize_with = "time")]
    #[param(value_type = Option<String>)]
    pub stime: Option<Timestamp>,
    /// Only samples that begin at or before this time.
    #[serde(deserialize_with = "time")]
    #[param(value_type = Option<String>)]
    pub etime: Option<Timestamp>,
}

impl StatsParameters {
    /// Whether a sample is in the time that is asked for.
    #[must_use]
    pub fn wants(&self, sample: &model::rest::StatsSample) -> bool {
        let at = |text: &str| text.parse::<Timestamp>().ok();
        let begun = self
            .stime
            .is_none_or(|from| at(&sample.etime).is_some_and(|end| end >= from));
        let ended = self
            .etime
            .is_none_or(|to| at(&sample.stime).is_some_and(|start| start <= to));
        begun && ended
    }
}

/// For changes that have no parameters.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoParameters {}

/// For `POST /v1/bdbs`.
#[derive(Clone, Copy, Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct CreateParameters {
    /// Only check, create nothing.
    #[serde(deserialize_with = "yes_or_no")]
    pub dry_run: bool,
}

fn yes_or_no<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    match String::deserialize(deserializer)?
        .to_ascii_lowercase()
        .as_str()
    {
        "true" | "1" | "yes" | "" => Ok(true),
        "false" | "0" | "no" => Ok(false),
        _ => Err(serde::de::Error::custom("dry_run is true or false")),
    }
}

/// For `GET /v1/logs`.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct LogParameters {
    /// Most events in the answer; left out: all that are kept.
    pub limit: Option<usize>,
    /// How many to pass over first.
    pub offset: Option<usize>,
    /// `asc` (oldest first, the default) or `desc`.
    pub order: Option<Order>,
    /// Only events at or after this time (ISO 8601; without a zone: UTC).
    #[serde(deserialize_with = "time")]
    #[param(value_type = Option<String>)]
    pub stime: Option<Timestamp>,
    /// Only events at or before this time.
    #[serde(deserialize_with = "time")]
    #[param(value_type = Option<String>)]
    pub etime: Option<Timestamp>,
}

/// Order of events.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// Oldest first.
    #[default]
    Asc,
    /// Newest first.
    Desc,
}

fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let parsed = text.parse::<Timestamp>().ok().or_else(|| {
        let local: DateTime = text.parse().ok()?;
        TimeZone::UTC.to_timestamp(local).ok()
    });
    parsed.map(Some).ok_or_else(|| {
        serde::de::Error::custom("stime and etime are times like 2030-01-31T13:00:00Z")
    })
}
