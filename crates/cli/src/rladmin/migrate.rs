//! `migrate`.

use super::copies::together;
use super::failure::Failure;
use super::grammar;
use super::operation::follow;
use super::parse::Invocation;
use super::resources;
use super::session::Context;
use model::rest::{ActionsStarted, MigrateRequest, ShardInfo};

/// `migrate {[db <db>] shard <id…> | {db <db> | node <node>} …} target_node <node>`.
///
/// # Errors
/// That it is not clear which shards are meant; as REST answers; why it failed.
pub async fn migrate(context: &Context, invocation: &Invocation) -> Result<(), Failure> {
    let request = request(context, invocation).await?;
    let answer: ActionsStarted = context
        .rest
        .post("/v1/shards/actions/migrate", &request)
        .await?;
    for operation in &answer.action_uids {
        follow(context, &operation.0).await?;
    }
    if request.override_policy.is_some() {
        warn_of_what_is_together(context, &request).await?;
    }
    if context.screen.json {
        return context.screen.object(&answer);
    }
    // Each operation has said by itself that it is done.
    if answer.action_uids.is_empty() {
        context.screen.line("Done");
    }
    Ok(())
}

/// What an operator has asked for against the rules of placement, with what takes it back.
async fn warn_of_what_is_together(
    context: &Context,
    request: &MigrateRequest,
) -> Result<(), Failure> {
    let mut shards: Vec<ShardInfo> = context.rest.get("/v1/shards").await?;
    shards.retain(|shard| shard.node_uid == request.target_node_uid);
    for note in together(&shards) {
        context.screen.warn(&note);
    }
    Ok(())
}

async fn request(context: &Context, invocation: &Invocation) -> Result<MigrateRequest, Failure> {
    let usage = |why: &str| Failure::usage(why, invocation.command.usage());
    let named = ["shard", "db", "node"].map(|word| invocation.has(word));
    // The database of shards may be named with them.
    if !matches!(
        named,
        [true, _, false] | [false, true, false] | [false, false, true]
    ) {
        return Err(usage("name shards (and their db), or a db, or a node"));
    }
    let which = ["all_shards", "all_master_shards", "all_slave_shards"].map(|w| invocation.has(w));
    match (named[0], which.iter().filter(|is| **is).count()) {
        (true, 0) | (false, 1) => {}
        (true, _) => return Err(usage("with shards there is nothing more to choose")),
        (false, _) => {
            return Err(usage(
                "say which: all_shards, all_master_shards or all_slave_shards",
            ));
        }
    }
    let role = match which {
        [_, true, _] => Some("master"),
        [_, _, true] => Some("slave"),
        _ => None,
    };
    let shard_uids = invocation
        .list("shard")
        .iter()
        .map(|text| grammar::shard(text))
        .collect::<Result<Vec<_>, _>>()
        .map_err(Failure::Other)?;
    let bdb_uid = match invocation.database("db") {
        Some(wanted) => Some(resources::database(context, &wanted).await?.uid),
        None => None,
    };
    Ok(MigrateRequest {
        shard_uids: named[0].then_some(shard_uids),
        bdb_uid,
        node_uid: invocation.node("node"),
        role: role.map(str::to_owned),
        target_node_uid: invocation
            .node("target_node")
            .ok_or_else(|| usage("target_node is missing"))?,
        override_policy: invocation.has("override_policy").then_some(true),
    })
}
