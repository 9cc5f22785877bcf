//! `verify balance`: how many of a database's primary shards lie on the nodes of its endpoint.

use super::copies::together;
use super::failure::Failure;
use super::parse::Invocation;
use super::resources;
use super::session::Context;
use crate::terminal::table::{Cell, Table};
use model::rest::{Bdb, ShardInfo};
use serde_json::json;

/// `verify balance`.
///
/// # Errors
/// As REST answers; `node_not_found`.
pub async fn verify(context: &Context, invocation: &Invocation) -> Result<(), Failure> {
    let (databases, shards, nodes) = tokio::try_join!(
        context.rest.get::<Vec<Bdb>>("/v1/bdbs"),
        context.rest.get::<Vec<ShardInfo>>("/v1/shards"),
        resources::nodes(context),
    )?;
    let only = invocation.node("node");
    if let Some(uid) = only {
        resources::node(&nodes, uid)?;
    }
    let mut table = Table::new(
        "",
        vec![
            "NODE:ID",
            "DB:ID",
            "NAME",
            "ENDPOINT:ID",
            "PROXY_POLICY",
            "LOCAL SHARDS",
            "TOTAL SHARDS",
        ],
    );
    let mut objects = Vec::new();
    for database in &databases {
        let primaries: Vec<&ShardInfo> = shards
            .iter()
            .filter(|shard| shard.bdb_uid == database.uid && shard.role == "master")
            .collect();
        for endpoint in &database.endpoints {
            let policy = endpoint.proxy_policy.or(database.proxy_policy);
            for proxy in endpoint
                .proxies
                .iter()
                .filter(|p| only.is_none_or(|n| n == p.node_uid))
            {
                let local = primaries
                    .iter()
                    .filter(|s| s.node_uid == proxy.node_uid)
                    .count();
                let policy = policy.map_or("", |policy| policy.as_str());
                table.push(vec![
                    Cell::new(format!("node:{}", proxy.node_uid)),
                    Cell::new(format!("db:{}", database.uid)),
                    Cell::new(&database.name),
                    Cell::new(format!("endpoint:{}", endpoint.uid)),
                    Cell::new(policy),
                    Cell::new(local.to_string()),
                    Cell::new(primaries.len().to_string()),
                ]);
                objects.push(json!({
                    "node_uid": proxy.node_uid,
                    "bdb_uid": database.uid,
                    "name": database.name,
                    "endpoint": endpoint.uid,
                    "proxy_policy": policy,
                    "local_shards": local,
                    "total_shards": primaries.len(),
                }));
            }
        }
    }
    for note in together(&shards) {
        context.screen.warn(&note);
    }
    if context.screen.json {
        return context.screen.object(&objects);
    }
    context.screen.text(&table.render(context.screen.colours));
    Ok(())
}
