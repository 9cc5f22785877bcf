//! `/v1/actions`.

use model::documents::{Operation, OperationStatus};
use model::rest::{Actions, Moved, StateMachine};
use model::{NodeUid, OperationUid};

/// Operations as a list of actions: those on nodes, and the operations on databases.
pub fn list<'a>(operations: impl Iterator<Item = &'a Operation>) -> Actions {
    let operations: Vec<&Operation> = operations.collect();
    Actions {
        actions: of_nodes(&operations),
        state_machines: operations.iter().map(|one| state_machine(one)).collect(),
    }
}

/// The actions on nodes that operations are part of, oldest first.
#[must_use]
pub fn of_nodes(operations: &[&Operation]) -> Vec<StateMachine> {
    let mut groups: Vec<&OperationUid> = Vec::new();
    for group in operations.iter().filter_map(|one| one.group.as_ref()) {
        if !groups.contains(&group) {
            groups.push(group);
        }
    }
    groups
        .into_iter()
        .filter_map(|group| action(operations, group))
        .collect()
}

/// An action on a node, from its operations; `None`: there is none of this name.
#[must_use]
pub fn action(operations: &[&Operation], group: &OperationUid) -> Option<StateMachine> {
    let parts: Vec<&Operation> = operations
        .iter()
        .copied()
        .filter(|one| one.group.as_ref() == Some(group))
        .collect();
    let first = parts.first()?;
    let node = first.node.unwrap_or(NodeUid(0));
    let with = |status| parts.iter().copied().find(|one| one.status == status);
    let status = [
        OperationStatus::Paused,
        OperationStatus::Active,
        OperationStatus::Pending,
        OperationStatus::Failed,
    ]
    .into_iter()
    .find(|status| with(*status).is_some())
    .unwrap_or(OperationStatus::Completed);
    // Some wait for their turn while others are under way.
    let status = match status {
        OperationStatus::Pending => OperationStatus::Active,
        other => other,
    };
    let wrong = with(OperationStatus::Paused).or_else(|| with(OperationStatus::Failed));
    let all: u32 = parts.iter().map(|one| one.total.max(1)).sum();
    let done: f64 = parts
        .iter()
        .map(|one| one.progress() * f64::from(one.total.max(1)))
        .sum();
    let waits_of = |status: OperationStatus| -> Vec<String> {
        parts
            .iter()
            .filter(|one| one.status == status)
            .filter_map(|one| {
                let reason = one.waiting_on.as_ref()?;
                Some(format!("db:{}: {reason}", one.database))
            })
            .collect()
    };
    let mut waits = waits_of(OperationStatus::Active);
    if with(OperationStatus::Active).is_none() {
        waits = waits_of(OperationStatus::Pending);
    }
    Some(StateMachine {
        action_uid: group.0.clone(),
        object_name: format!("node:{node}"),
        status: Some(status),
        name: first.kind.operator_word().to_owned(),
        state: match waits.is_empty() {
            true => word(status).to_owned(),
            false => waits.join("; "),
        },
        error: wrong.and_then(|one| errors_of(&parts, one.status)),
        error_code: wrong.and_then(|one| one.error_code),
        remedy: wrong.and_then(|one| remedy(one, &group.0)),
        progress: done / f64::from(all),
        node_uid: Some(node),
        task_id: None,
        creation_time: first.created.to_string(),
        moved: parts.iter().flat_map(|one| moved(one)).collect(),
    })
}

/// Why parts of an action are as they are, all of them.
fn errors_of(parts: &[&Operation], status: OperationStatus) -> Option<String> {
    let such = parts.iter().filter(|one| one.status == status);
    let errors = such.filter_map(|one| {
        let why = one.error.as_ref()?;
        Some(format!("db:{}: {why}", one.database))
    });
    let errors: Vec<String> = errors.collect();
    (!errors.is_empty()).then(|| errors.join("; "))
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
        error_code: operation.error_code,
        remedy: remedy(operation, &operation.uid.0),
        progress: operation.progress(),
        node_uid: operation.node,
        task_id: operation.group.clone(),
        creation_time: operation.created.to_string(),
        moved: moved(operation),
    }
}

fn moved(operation: &Operation) -> Vec<Moved> {
    let reports = operation.moved.iter();
    reports
        .map(|report| Moved {
            from: report.from,
            to: report.to,
            epoch: report.epoch.0,
            held_us: report.held_us,
        })
        .collect()
}

fn remedy(operation: &Operation, uid: &str) -> Option<String> {
    let code = operation.error_code?;
    Some(code.remedy().replace("<action>", uid))
}

/// What it waits for, or where it is.
#[must_use]
pub fn state(operation: &Operation) -> String {
    match &operation.waiting_on {
        Some(waits) => waits.clone(),
        None => word(operation.status).to_owned(),
    }
}

const fn word(status: OperationStatus) -> &'static str {
    match status {
        OperationStatus::Pending => "pending",
        OperationStatus::Active => "active",
        OperationStatus::Paused => "paused",
        OperationStatus::Completed => "completed",
        OperationStatus::Failed => "failed",
    }
}
