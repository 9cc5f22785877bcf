//! Operations that are followed to their end.

use super::failure::Failure;
use super::session::Context;
use model::documents::OperationStatus;
use model::rest::StateMachine;
use model::{ApiError, ErrorCode, limits};
use serde_json::Value;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How often is looked.
pub const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What is waited for is told when it lasts as long.
const TELL_AFTER: Duration = Duration::from_secs(2);

/// Whether asking again later may be answered: the node's `cnm_http` or the primary node is being
/// replaced.
#[must_use]
pub const fn is_passing(error: &ApiError) -> bool {
    matches!(
        error.error_code,
        ErrorCode::NotReady | ErrorCode::NoPrimary | ErrorCode::NoQuorum | ErrorCode::Timeout
    )
}

/// The operation that an answer names, if it names one.
#[must_use]
pub fn started(answer: &Value) -> Option<String> {
    let uid = answer.get("action_uid")?.as_str()?;
    (!uid.is_empty()).then(|| uid.to_owned())
}

/// Follows an operation; each change is a line. An operation that is forgotten has ended.
///
/// # Errors
/// Why it was given up; that nothing happened for a minute.
pub async fn follow(context: &Context, uid: &str) -> Result<(), Failure> {
    context.screen.progress(format!("Monitoring {uid}"));
    let path = format!("/v1/actions/{uid}");
    let mut shown = String::new();
    let mut last = Instant::now();
    loop {
        let line = match context.rest.get::<StateMachine>(&path).await {
            Ok(operation) => {
                let line = describe(&operation);
                if line != shown {
                    context.screen.progress(&line);
                }
                match operation.status {
                    Some(OperationStatus::Completed) => break,
                    Some(OperationStatus::Paused) => return Err(paused(&operation)),
                    Some(OperationStatus::Failed) => return Err(failed(&operation)),
                    _ => line,
                }
            }
            Err(error) if error.error_code == ErrorCode::ActionNotFound => break,
            Err(error) if is_passing(&error) => {
                let line = format!("waiting - {}", error.description);
                if line != shown {
                    context.screen.progress(&line);
                }
                line
            }
            Err(error) => return Err(error.into()),
        };
        if line != shown {
            shown = line;
            last = Instant::now();
        } else if last.elapsed() > limits::READY_WAIT {
            return Err(Failure::Other(format!(
                "nothing changed for {} s ({shown}). It goes on: see \
                 `rladmin status databases extra state_machine`",
                limits::READY_WAIT.as_secs()
            )));
        }
        sleep(LOOK_EVERY).await;
    }
    context.screen.progress("Done");
    Ok(())
}

/// Follows an action on a node: its percents are lines, and what it waits for when that lasts.
///
/// # Errors
/// Why it was given up, or pauses; that the cluster does not answer for a minute.
pub async fn follow_action(context: &Context, uid: &str, title: &str) -> Result<(), Failure> {
    let path = format!("/v1/actions/{uid}");
    let mut percent = None;
    let (mut state, mut since, mut told) = (String::new(), Instant::now(), true);
    let mut heard = Instant::now();
    loop {
        match context.rest.get::<StateMachine>(&path).await {
            Ok(action) => {
                heard = Instant::now();
                let now = action.progress.floor();
                if percent != Some(now) {
                    context.screen.progress(format!("{title}: {now:.0}%"));
                    percent = Some(now);
                }
                match action.status {
                    Some(OperationStatus::Completed) => return Ok(()),
                    Some(OperationStatus::Paused) => return Err(paused(&action)),
                    Some(OperationStatus::Failed) => return Err(failed(&action)),
                    _ => {}
                }
                if action.state != state {
                    (state, since, told) = (action.state, Instant::now(), false);
                }
            }
            // It is forgotten: it has ended.
            Err(error) if error.error_code == ErrorCode::ActionNotFound => return Ok(()),
            Err(error) if is_passing(&error) && heard.elapsed() < limits::READY_WAIT => {
                if error.description != state {
                    (state, since, told) = (error.description, Instant::now(), false);
                }
            }
            Err(error) => return Err(error.into()),
        }
        if !told && state != "active" && since.elapsed() > TELL_AFTER {
            context.screen.progress(format!("  waits: {state}"));
            told = true;
        }
        sleep(LOOK_EVERY).await;
    }
}

/// What was given up, and why; with a code, whose remedy is printed, if it has one.
fn failed(action: &StateMachine) -> Failure {
    let why = action.error.as_deref().unwrap_or("no reason given");
    let text = format!("{} failed: {why}", action.name);
    match action.error_code {
        Some(code) => ApiError::new(code, text).into(),
        None => Failure::Other(text),
    }
}

/// What pauses, why, and how it goes on.
fn paused(action: &StateMachine) -> Failure {
    let why = action.error.as_deref().unwrap_or("no reason given");
    let remedy = action.remedy.as_deref().unwrap_or_default();
    let code = action.error_code.unwrap_or(ErrorCode::OperationPaused);
    ApiError::new(code, format!("{} pauses: {why}. {remedy}", action.name)).into()
}

fn describe(operation: &StateMachine) -> String {
    let status = match operation.status {
        Some(OperationStatus::Active) => "active",
        Some(OperationStatus::Paused) => "paused",
        Some(OperationStatus::Completed) => "completed",
        Some(OperationStatus::Failed) => "failed",
        Some(OperationStatus::Pending) | None => "pending",
    };
    let state = match operation.status {
        Some(OperationStatus::Completed | OperationStatus::Failed) => "",
        // Without anything to wait for, REST repeats the status.
        _ if operation.state == status => "",
        _ => operation.state.as_str(),
    };
    format!("{status} - {} {state}", operation.name)
        .trim_end()
        .to_owned()
}
