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
                    Some(OperationStatus::Failed) => {
                        let why = operation
                            .error
                            .unwrap_or_else(|| "no reason given".to_owned());
                        return Err(Failure::Other(format!("{} failed: {why}", operation.name)));
                    }
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

fn describe(operation: &StateMachine) -> String {
    let status = match operation.status {
        Some(OperationStatus::Active) => "active",
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
