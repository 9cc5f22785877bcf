//! `node <node> snapshot …`.

use super::node;
use crate::rladmin::failure::Failure;
use crate::rladmin::operation::follow_action;
use crate::rladmin::parse::Invocation;
use crate::rladmin::session::Context;
use crate::terminal::table::{Cell, Table};
use model::rest::{ActionsStarted, NodeSnapshotInfo, PaceRequest, ShardInfo};
use model::{ApiError, ErrorCode, NodeUid, validate};

/// `node <node> snapshot create <name>`.
///
/// # Errors
/// As REST answers.
pub async fn create(context: &Context, invocation: &Invocation) -> Result<(), Failure> {
    let path = path(invocation)?;
    let answer: ActionsStarted = context.rest.post(&path, &()).await?;
    finished(context, &answer, "Done.")
}

/// `node <node> snapshot delete <name>`.
///
/// # Errors
/// As REST answers.
pub async fn delete(context: &Context, invocation: &Invocation) -> Result<(), Failure> {
    let path = path(invocation)?;
    let answer: ActionsStarted = context.rest.delete(&path).await?;
    finished(context, &answer, "Done.")
}

/// `node <node> snapshot list`.
///
/// # Errors
/// As REST answers.
pub async fn list(context: &Context, invocation: &Invocation) -> Result<(), Failure> {
    let node = node(invocation)?;
    let snapshots = of_node(context, node).await?;
    if context.screen.json {
        return context.screen.object(&snapshots);
    }
    let mut table = Table::new("", vec!["Name", "Node", "Time"]);
    for snapshot in &snapshots {
        table.push(vec![
            Cell::new(&snapshot.name),
            Cell::new(snapshot.node_uid.to_string()),
            Cell::new(&snapshot.created_time),
        ]);
    }
    context.screen.text(&table.render(context.screen.colours));
    Ok(())
}

/// `node <node> snapshot restore <name>`.
///
/// # Errors
/// That nobody says yes; as REST answers; why it pauses or failed.
pub async fn restore(context: &Context, invocation: &Invocation) -> Result<(), Failure> {
    let (node, name) = (node(invocation)?, name(invocation)?);
    let snapshots = of_node(context, node).await?;
    let wanted = snapshots.iter().find(|known| known.name == name);
    let wanted = wanted.ok_or_else(|| {
        ApiError::new(
            ErrorCode::SnapshotNotFound,
            format!(
                "node:{node} has no snapshot '{name}': list them with `rladmin node {node} snapshot list`"
            ),
        )
    })?;
    let shards: Vec<ShardInfo> = context.rest.get("/v1/shards").await?;
    let actions = planned(wanted, &shards);
    for action in &actions {
        context.screen.progress(action);
    }
    if actions.is_empty() {
        context.screen.progress("Everything is there already.");
    } else if !context.screen.confirm("Proceed?")? {
        return Err(Failure::Other("nothing was changed".to_owned()));
    }
    let request = PaceRequest {
        max_concurrent_actions: invocation.number("max_concurrent_actions"),
        retry_timeout_seconds: invocation.number("retry_timeout_seconds"),
    };
    let path = format!("{}/restore", path(invocation)?);
    let answer: ActionsStarted = context.rest.post(&path, &request).await?;
    if let Some(uid) = &answer.action_uid {
        let title = format!("Performing snapshot_restore action on node:{node}");
        follow_action(context, &uid.0, &title).await?;
    }
    finished(context, &answer, "Snapshot restore completed successfully.")
}

/// What a restore is going to do, a line each.
fn planned(snapshot: &NodeSnapshotInfo, shards: &[ShardInfo]) -> Vec<String> {
    let mut lines = Vec::new();
    for wanted in &snapshot.shards {
        let copies: Vec<&ShardInfo> = shards
            .iter()
            .filter(|s| s.bdb_uid == wanted.bdb_uid && s.assigned_slots == wanted.assigned_slots)
            .collect();
        let here = copies.iter().find(|s| s.node_uid == snapshot.node_uid);
        let (database, slots, role) = (wanted.bdb_uid, &wanted.assigned_slots, &wanted.role);
        lines.extend(match here {
            _ if copies.is_empty() => Some(format!(
                "db:{database} slots {slots}: not there any more, left out"
            )),
            Some(here) if here.role == *role || role == "slave" => None,
            Some(here) => Some(format!(
                "db:{database} slots {slots}: redis:{} becomes {role}",
                here.uid
            )),
            None => Some(format!(
                "db:{database} slots {slots}: the {role} is brought to node:{}",
                snapshot.node_uid
            )),
        });
    }
    lines
}

async fn of_node(context: &Context, node: NodeUid) -> Result<Vec<NodeSnapshotInfo>, Failure> {
    let path = format!("/v1/nodes/{node}/snapshots");
    Ok(context.rest.get(&path).await?)
}

/// A name goes into a path: only what names are made of.
fn name(invocation: &Invocation) -> Result<&str, Failure> {
    let name = invocation.places.get(1).map_or("", String::as_str);
    validate::snapshot_name(name)?;
    Ok(name)
}

fn path(invocation: &Invocation) -> Result<String, Failure> {
    let (node, name) = (node(invocation)?, name(invocation)?);
    Ok(format!("/v1/nodes/{node}/snapshots/{name}"))
}

fn finished(context: &Context, answer: &ActionsStarted, text: &str) -> Result<(), Failure> {
    if context.screen.json {
        return context.screen.object(answer);
    }
    context.screen.line(text);
    Ok(())
}
