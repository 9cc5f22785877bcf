//! `/v1/logs`.

use crate::App;
use crate::answer::Answer;
use crate::failure::Failure;
use crate::query::{LogParameters, Order, Parameters};
use axum::extract::State;
use model::ApiError;
use model::documents::{Event, Severity};
use model::rest::LogEvent;

/// What happened.
#[utoipa::path(get, path = "/v1/logs", tag = "logs", params(LogParameters), responses(
    (status = 200, body = Vec<LogEvent>),
    (status = "default", description = "Why not.", body = ApiError),
))]
pub async fn list(
    State(app): State<App>,
    Parameters(parameters): Parameters<LogParameters>,
) -> Result<Answer<Vec<LogEvent>>, Failure> {
    Ok(Answer::plain(page(app.exec.events().await?, &parameters)))
}

/// The part of the events that was asked for; `events` come oldest first.
#[must_use]
pub fn page(events: Vec<Event>, parameters: &LogParameters) -> Vec<LogEvent> {
    let mut events: Vec<Event> = events
        .into_iter()
        .filter(|event| parameters.stime.is_none_or(|start| event.time >= start))
        .filter(|event| parameters.etime.is_none_or(|end| event.time <= end))
        .collect();
    if parameters.order.unwrap_or_default() == Order::Desc {
        events.reverse();
    }
    events
        .into_iter()
        .skip(parameters.offset.unwrap_or(0))
        .take(parameters.limit.unwrap_or(usize::MAX))
        .map(shape)
        .collect()
}

fn shape(event: Event) -> LogEvent {
    let severity = match event.severity {
        Severity::Info => "INFO",
        Severity::Warning => "WARNING",
        Severity::Error => "ERROR",
        Severity::Critical => "CRITICAL",
    };
    LogEvent {
        time: event.time.to_string(),
        kind: event.kind,
        severity: severity.to_owned(),
        facts: event.facts,
    }
}
