//! `cluster running_actions`, `retry`, `abort`.

use super::failure::Failure;
use super::operation::{follow, follow_action};
use super::parse::Invocation;
use super::session::Context;
use model::documents::OperationStatus;
use model::rest::{Actions, ActionsStarted, StateMachine};

/// `cluster running_actions`.
///
/// # Errors
/// As REST answers.
pub async fn running(context: &Context) -> Result<(), Failure> {
    let all: Actions = context.rest.get("/v1/actions").await?;
    let runs = |action: &StateMachine| {
        !matches!(
            action.status,
            None | Some(OperationStatus::Completed | OperationStatus::Failed)
        )
    };
    let (parts, alone): (Vec<_>, Vec<_>) = all
        .state_machines
        .into_iter()
        .filter(runs)
        .partition(|one| one.task_id.is_some());
    let mut running: Vec<StateMachine> = all.actions.into_iter().filter(runs).collect();
    running.extend(alone);
    if context.screen.json {
        running.extend(parts);
        return context.screen.object(&running);
    }
    if running.is_empty() {
        context.screen.line("No active tasks");
        return Ok(());
    }
    context.screen.line(format!("Got {} tasks:", running.len()));
    for (index, action) in running.iter().enumerate() {
        context
            .screen
            .line(format!("{}) {}", index + 1, task(action)));
        let mine = |part: &&StateMachine| {
            let task = part.task_id.as_ref();
            task.is_some_and(|task| task.0 == action.action_uid)
        };
        for part in parts.iter().filter(mine) {
            let (object, doing) = (object(part), doing(part));
            context.screen.line(format!("   {object}: {doing}"));
        }
        if action.status == Some(OperationStatus::Paused) {
            if let Some(error) = action.error.as_ref().filter(|_| action.node_uid.is_none()) {
                context.screen.line(format!("   paused: {error}"));
            }
            if let Some(remedy) = &action.remedy {
                context.screen.line(format!("   {remedy}"));
            }
        }
    }
    Ok(())
}

fn object(action: &StateMachine) -> String {
    action.object_name.replace("bdb:", "db:")
}

fn task(action: &StateMachine) -> String {
    let status = match action.status {
        Some(OperationStatus::Active) => "running",
        Some(OperationStatus::Paused) => "paused",
        _ => "queued",
    };
    let object = match action.node_uid {
        Some(node) => format!("Node: {node}"),
        None => format!("Object: {}", object(action)),
    };
    // What the parts of an action on a node wait for stands below it.
    let waits = match action.status {
        Some(OperationStatus::Paused) => "",
        _ if action.node_uid.is_some() => "",
        _ => action.state.as_str(),
    };
    let waits = match waits {
        "" => String::new(),
        waits => format!(" ({waits})"),
    };
    format!(
        "Task: {} ({}) {object} Status: {status}{waits}",
        action.name, action.action_uid
    )
}

/// What a part of an action on a node does.
fn doing(part: &StateMachine) -> String {
    let percent = format!("{:.0}%", part.progress);
    match (part.status, &part.error) {
        (Some(OperationStatus::Paused), Some(error)) => format!("{percent}, paused: {error}"),
        (Some(OperationStatus::Pending), _) if matches!(&*part.state, "" | "pending") => {
            "queued".to_owned()
        }
        (Some(OperationStatus::Pending), _) => format!("queued, waits: {}", part.state),
        _ if part.state.is_empty() || part.state == "active" => percent,
        _ => format!("{percent}, waits: {}", part.state),
    }
}

/// `retry <action>`.
///
/// # Errors
/// As REST answers; why it pauses or failed again.
pub async fn retry(context: &Context, invocation: &Invocation) -> Result<(), Failure> {
    let uid = uid(invocation)?;
    let _: ActionsStarted = context
        .rest
        .post(&format!("/v1/actions/{uid}/retry"), &())
        .await?;
    let action: StateMachine = context.rest.get(&format!("/v1/actions/{uid}")).await?;
    match (&action.task_id, action.node_uid) {
        (None, Some(node)) => {
            let title = format!("Performing {} action on node:{node}", action.name);
            follow_action(context, uid, &title).await?;
        }
        _ => follow(context, uid).await?,
    }
    done(context, uid, "OK").await
}

/// `abort <action>`.
///
/// # Errors
/// As REST answers.
pub async fn abort(context: &Context, invocation: &Invocation) -> Result<(), Failure> {
    let uid = uid(invocation)?;
    let _: ActionsStarted = context
        .rest
        .post(&format!("/v1/actions/{uid}/abort"), &())
        .await?;
    done(context, uid, "OK").await
}

/// An id goes into a path: only what ids are made of.
fn uid(invocation: &Invocation) -> Result<&str, Failure> {
    let uid = invocation.operand.as_deref().unwrap_or_default();
    let known = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if uid.is_empty() || !uid.chars().all(known) {
        return Err(Failure::usage(
            "an action is named by its id, as `rladmin cluster running_actions` shows it",
            invocation.command.usage(),
        ));
    }
    Ok(uid)
}

/// Says that it is done; for programs, how the action is now.
pub(super) async fn done(context: &Context, uid: &str, text: &str) -> Result<(), Failure> {
    if !context.screen.json {
        context.screen.line(text);
        return Ok(());
    }
    let path = format!("/v1/actions/{uid}");
    // One that is forgotten has ended.
    let action = context.rest.get::<StateMachine>(&path).await.ok();
    context.screen.object(&action)
}
