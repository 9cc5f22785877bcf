//! `failover`.

use super::failure::Failure;
use super::grammar;
use super::operation::{follow, started};
use super::parse::Invocation;
use super::resources;
use super::session::Context;
use model::rest::{FailoverRequest, StateMachine};
use serde_json::Value;

/// `failover [db X] shard <id…> [immediate]`.
///
/// # Errors
/// As REST answers; why it failed.
pub async fn failover(context: &Context, invocation: &Invocation) -> Result<(), Failure> {
    let bdb_uid = match invocation.database("db") {
        Some(wanted) => Some(resources::database(context, &wanted).await?.uid),
        None => None,
    };
    let shard_uids = invocation
        .list("shard")
        .iter()
        .map(|text| grammar::shard(text))
        .collect::<Result<_, _>>()
        .map_err(Failure::Other)?;
    let request = FailoverRequest {
        bdb_uid,
        shard_uids: Some(shard_uids),
        immediate: invocation.has("immediate").then_some(true),
    };
    let answer: Value = context
        .rest
        .post("/v1/shards/actions/failover", &request)
        .await?;
    let operation = started(&answer);
    if let Some(operation) = &operation {
        follow(context, operation).await?;
    }
    let ended: Option<StateMachine> = match &operation {
        // One that is forgotten has ended, too.
        Some(uid) => context.rest.get(&format!("/v1/actions/{uid}")).await.ok(),
        None => None,
    };
    if context.screen.json {
        return context.screen.object(&ended);
    }
    for moved in ended.iter().flat_map(|operation| &operation.moved) {
        context.screen.line(format!(
            "redis:{} is master in place of redis:{}; commands were held for {:.1} ms",
            moved.to,
            moved.from,
            moved.held_us as f64 / 1000.0
        ));
    }
    context.screen.line(match operation {
        Some(_) => "Finished successfully",
        // Its master is lost, and something else works on the database.
        None => "A slave takes the place of the lost master now: see `rladmin status shards`",
    });
    Ok(())
}
