//! `node <node> …`: maintenance mode, enslave, remove.

pub mod snapshot;

use super::actions::done;
use super::failure::Failure;
use super::operation::{LOOK_EVERY, follow_action, is_passing};
use super::parse::Invocation;
use super::resources;
use super::session::Context;
use model::rest::{
    ActionsStarted, ClusterInfo, NodeActionRequest, NodeInfo, NodeStatus, NodeUpdate, ShardInfo,
};
use model::{ApiError, ErrorCode, NodeUid, limits};
use std::collections::BTreeMap;
use tokio::time::{Instant, sleep};

/// `node <node> maintenance_mode on …`.
///
/// # Errors
/// As REST answers; why it pauses or failed.
pub async fn maintenance_on(context: &Context, invocation: &Invocation) -> Result<(), Failure> {
    let mut evict_dbs = Vec::new();
    for text in invocation.list("evict_dbs") {
        let wanted = super::grammar::database(text).map_err(Failure::Other)?;
        evict_dbs.push(resources::database(context, &wanted).await?.uid);
    }
    let request = NodeActionRequest {
        keep_slave_shards: flag(invocation, "keep_slave_shards"),
        evict_ha_replica: invocation
            .text("evict_ha_replica")
            .map(|word| word == "enabled"),
        evict_dbs: (!evict_dbs.is_empty()).then_some(evict_dbs),
        overwrite_snapshot: flag(invocation, "overwrite_snapshot"),
        demote_node: flag(invocation, "demote_node"),
        ..paced(invocation)
    };
    let node = node(invocation)?;
    let before = is_in_maintenance(context, node).await;
    act(context, invocation, "maintenance_on", &request).await?;
    if before {
        context.screen.warn(&format!(
            "node:{node} was in maintenance mode before: it takes one `maintenance_mode off` more to end it."
        ));
    }
    if !flag(invocation, "keep_slave_shards").unwrap_or(false) {
        for (role, meaning) in [
            ("master", "not served while that is away"),
            ("slave", "a copy less while that is away"),
        ] {
            let these = |shard: &ShardInfo| shard.node_uid == node && shard.role == role;
            let stays = what_stays(context, these).await;
            if !stays.is_empty() {
                context.screen.warn(&format!(
                    "no other node takes {stays}: still on node:{node}, and {meaning}."
                ));
            }
        }
    }
    Ok(())
}

/// `node <node> maintenance_mode off …`.
///
/// # Errors
/// As REST answers; why it pauses or failed.
pub async fn maintenance_off(context: &Context, invocation: &Invocation) -> Result<(), Failure> {
    let request = NodeActionRequest {
        skip_shards_restore: flag(invocation, "skip_shards_restore"),
        snapshot_name: invocation.owned("snapshot_name"),
        ..paced(invocation)
    };
    act(context, invocation, "maintenance_off", &request).await?;
    let node = node(invocation)?;
    if is_in_maintenance(context, node).await {
        context.screen.warn(&format!(
            "node:{node} stays in maintenance mode, which was turned on more than once: turn it off once more."
        ));
    }
    Ok(())
}

/// What stays on a node, which who is about to switch a machine off wants to know. Nothing depends on it if it cannot be
/// told.
async fn what_stays(context: &Context, stays: impl Fn(&ShardInfo) -> bool) -> String {
    let shards = context.rest.get::<Vec<ShardInfo>>("/v1/shards").await;
    let shards = shards.unwrap_or_default().into_iter();
    let stays: Vec<String> = shards
        .filter(|shard| stays(shard))
        .map(|shard| format!("redis:{} of db:{}", shard.uid, shard.bdb_uid))
        .collect();
    stays.join(", ")
}

/// Whether a node is in maintenance mode; `false` too if that cannot be told: nothing depends on it.
async fn is_in_maintenance(context: &Context, node: NodeUid) -> bool {
    let nodes = context
        .rest
        .get::<BTreeMap<NodeUid, NodeStatus>>("/v1/nodes/status");
    let on = |status: &NodeStatus| status.maintenance_snapshot.is_some();
    nodes.await.is_ok_and(|all| all.get(&node).is_some_and(on))
}

/// `node <node> enslave …`.
///
/// # Errors
/// As REST answers; why it pauses or failed.
pub async fn enslave(context: &Context, invocation: &Invocation) -> Result<(), Failure> {
    let request = NodeActionRequest {
        demote_node: flag(invocation, "demote_node"),
        ..paced(invocation)
    };
    act(context, invocation, "enslave_node", &request).await?;
    let node = node(invocation)?;
    let masters = |shard: &ShardInfo| shard.node_uid == node && shard.role == "master";
    let stays = what_stays(context, masters).await;
    if !stays.is_empty() {
        context.screen.warn(&format!(
            "still masters on node:{node}, since no synced slave elsewhere takes their role: {stays}. `rladmin migrate` \
             brings them away."
        ));
    }
    Ok(())
}

/// `node <node> rack_id set <rack>`.
///
/// # Errors
/// As REST answers: `node_not_found`, `rack_awareness_violation`.
pub async fn rack(context: &Context, invocation: &Invocation) -> Result<(), Failure> {
    let update = NodeUpdate {
        rack_id: invocation.owned("set"),
    };
    let path = format!("/v1/nodes/{}", node(invocation)?);
    let changed: NodeInfo = context.rest.put(&path, &update).await?;
    if context.screen.json {
        return context.screen.object(&changed);
    }
    context.screen.line("Updated successfully.");
    Ok(())
}

/// `node <node> remove …`. A person is asked first; scripts of the field do not expect that.
///
/// # Errors
/// That it was not confirmed; as REST answers; why it pauses or failed.
pub async fn remove(context: &Context, invocation: &Invocation) -> Result<(), Failure> {
    let node = node(invocation)?;
    if context.screen.interactive() && !context.screen.confirm(&goes(context, node).await?)? {
        return Err(Failure::Other(format!(
            "not confirmed: node:{node} stays in the cluster"
        )));
    }
    // Where this is the node that leaves, nobody answers here when it has.
    let cluster: ClusterInfo = context.rest.get("/v1/cluster").await?;
    let started = start(context, node, "remove", &paced(invocation)).await?;
    gone(context, node, cluster.local_node == node).await?;
    context.screen.progress(format!(
        "node:{node} has left the cluster. {}",
        ErrorCode::NodeRemoved.remedy()
    ));
    end(context, started).await
}

/// What is about to happen.
async fn goes(context: &Context, node: NodeUid) -> Result<String, Failure> {
    let info: NodeInfo = context.rest.get(&format!("/v1/nodes/{node}")).await?;
    let first = match info.shard_count {
        0 => "It has no shards".to_owned(),
        1 => "Its shard is brought to another node first".to_owned(),
        count => format!("Its {count} shards are brought to other nodes first"),
    };
    Ok(format!(
        "node:{node} ({}) will leave the cluster for good. {first}; clients notice nothing of that.",
        info.addr
    ))
}

pub(super) fn node(invocation: &Invocation) -> Result<NodeUid, Failure> {
    invocation
        .named_node()
        .ok_or_else(|| Failure::usage("which node is missing", invocation.command.usage()))
}

fn flag(invocation: &Invocation, word: &str) -> Option<bool> {
    invocation.has(word).then_some(true)
}

fn paced(invocation: &Invocation) -> NodeActionRequest {
    NodeActionRequest {
        max_concurrent_actions: invocation.number("max_concurrent_actions"),
        retry_timeout_seconds: invocation.number("retry_timeout_seconds"),
        ..NodeActionRequest::default()
    }
}

async fn act(
    context: &Context,
    invocation: &Invocation,
    action: &str,
    request: &NodeActionRequest,
) -> Result<(), Failure> {
    let started = start(context, node(invocation)?, action, request).await?;
    end(context, started).await
}

/// Begins an action and follows it to its end; its id, if there was something to do.
async fn start(
    context: &Context,
    node: NodeUid,
    action: &str,
    request: &NodeActionRequest,
) -> Result<Option<String>, Failure> {
    let path = format!("/v1/nodes/{node}/actions/{action}");
    let answer: ActionsStarted = context.rest.post(&path, request).await?;
    let title = format!("Performing {action} action on node:{node}");
    match answer.action_uid {
        Some(uid) => {
            follow_action(context, &uid.0, &title).await?;
            Ok(Some(uid.0))
        }
        // Nothing had to be moved.
        None => {
            context.screen.progress(format!("{title}: 100%"));
            Ok(None)
        }
    }
}

async fn end(context: &Context, started: Option<String>) -> Result<(), Failure> {
    match started {
        Some(uid) => done(context, &uid, "OK").await,
        None if context.screen.json => context.screen.object(&serde_json::Value::Null),
        None => {
            context.screen.line("OK");
            Ok(())
        }
    }
}

/// Waits until a node that leaves is no part of the cluster any more.
async fn gone(context: &Context, node: NodeUid, here: bool) -> Result<(), Failure> {
    let until = Instant::now() + limits::READY_WAIT;
    let path = format!("/v1/nodes/{node}");
    loop {
        let why = match context.rest.get::<NodeInfo>(&path).await {
            Ok(_) => format!("node:{node} is still a member"),
            Err(error) if error.error_code == ErrorCode::NodeNotFound => return Ok(()),
            Err(error) if here && !is_passing(&error) => return Ok(()),
            Err(error) if is_passing(&error) => error.description,
            Err(error) => return Err(error.into()),
        };
        if Instant::now() > until {
            let seconds = limits::READY_WAIT.as_secs();
            return Err(ApiError::new(
                ErrorCode::Timeout,
                format!(
                    "node:{node} has not left after {seconds} s ({why}). It may still: see `rladmin status \
                     nodes` on another node"
                ),
            )
            .into());
        }
        sleep(LOOK_EVERY).await;
    }
}
