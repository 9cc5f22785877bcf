//! `/v1/actions`.

use model::documents::{Operation, OperationStatus};
use model::rest::{Actions, Moved, StateMachine};

/// Operations as a list of actions.
pub fn list<'a>(operations: impl Iterator<Item = &'a Operation>) -> Actions {
    Actions {
        actions: Vec::new(),
        state_machines: operations.map(state_machine).collect(),
    }
}

/// One operation.
#[must_use]
pub fn state_machine(operation: &Operation) -> StateMachine {
    StateMachine {
        action_uid: operation.uid.0.clone(),
        object_name: format!("bdb:{}", operation.database),
        status: Some(operation.status),
        name: operation.kind.operator_word().to_owned(),
        state: state(operation),
        error: operation.error.clone(),
        progress: if operation.status == OperationStatus::Completed {
            100.0
        } else {
            0.0
        },
        creation_time: operation.created.to_string(),
        moved: operation
            .moved
            .iter()
            .map(|report| Moved {
                from: report.from,
                to: report.to,
                epoch: report.epoch.0,
                held_us: report.held_us,
            })
            .collect(),
    }
}

/// What it waits for, or where it is.
#[must_use]
pub fn state(operation: &Operation) -> String {
    if let Some(waits) = &operation.waiting_on {
        return waits.clone();
    }
    match operation.status {
        OperationStatus::Pending => "pending",
        OperationStatus::Active => "active",
        OperationStatus::Completed => "completed",
        OperationStatus::Failed => "failed",
    }
    .to_owned()
}
