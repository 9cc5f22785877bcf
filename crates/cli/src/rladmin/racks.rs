//! `verify rack_aware`: in which racks the copies of each slot are.

use super::failure::Failure;
use super::resources;
use super::session::Context;
use crate::terminal::Tone;
use crate::terminal::table::{Cell, Table};
use model::rest::{Bdb, ClusterPolicy, NodeInfo, ShardInfo};
use model::{ApiError, ErrorCode};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The copies of the same slots of a database.
struct Copies<'a> {
    database: &'a Bdb,
    slots: &'a str,
    shards: Vec<String>,
    racks: Vec<&'a str>,
}

impl Copies<'_> {
    fn apart(&self) -> bool {
        let mut racks = self.racks.clone();
        racks.sort_unstable();
        racks.dedup();
        racks.len() == self.racks.len()
    }

    fn word(&self) -> &'static str {
        match (self.database.rack_aware, self.apart()) {
            (false, _) => "not rack-aware",
            (true, true) => "OK",
            (true, false) => "NOT OK",
        }
    }
}

/// `verify rack_aware`.
///
/// # Errors
/// As REST answers; `rack_awareness_violation` if copies of a rack-aware database share a rack.
pub async fn verify(context: &Context) -> Result<(), Failure> {
    let policy: ClusterPolicy = context.rest.get("/v1/cluster/policy").await?;
    let aware = policy.rack_aware.unwrap_or(false);
    if !aware {
        if context.screen.json {
            return context.screen.object(&json!({ "rack_aware": false }));
        }
        context
            .screen
            .line("Cluster policy is not configured for rack awareness.");
        return Ok(());
    }
    let (databases, shards, nodes) = tokio::try_join!(
        context.rest.get::<Vec<Bdb>>("/v1/bdbs"),
        context.rest.get::<Vec<ShardInfo>>("/v1/shards"),
        resources::nodes(context),
    )?;
    let all = copies(&databases, &shards, &nodes);
    if context.screen.json {
        let objects: Vec<Value> = all.iter().map(object).collect();
        context
            .screen
            .object(&json!({ "rack_aware": true, "copies": objects }))?;
    } else {
        context
            .screen
            .text(&table(&all).render(context.screen.colours));
    }
    let wrong = all
        .iter()
        .filter(|copies| copies.word() == "NOT OK")
        .count();
    if wrong > 0 {
        let remedy = ErrorCode::RackAwarenessViolation.remedy();
        return Err(ApiError::new(
            ErrorCode::RackAwarenessViolation,
            format!("{wrong} ranges of slots have two copies in one rack. {remedy}"),
        )
        .into());
    }
    Ok(())
}

fn copies<'a>(
    databases: &'a [Bdb],
    shards: &'a [ShardInfo],
    nodes: &'a [NodeInfo],
) -> Vec<Copies<'a>> {
    let mut all = Vec::new();
    for database in databases {
        let mut ranges: BTreeMap<u32, Copies<'a>> = BTreeMap::new();
        for shard in shards.iter().filter(|s| s.bdb_uid == database.uid) {
            let slots = shard.assigned_slots.as_str();
            let first = slots.split('-').next().and_then(|slot| slot.parse().ok());
            let copies = ranges.entry(first.unwrap_or(0)).or_insert_with(|| Copies {
                database,
                slots,
                shards: Vec::new(),
                racks: Vec::new(),
            });
            let node = nodes.iter().find(|node| node.uid == shard.node_uid);
            copies.shards.push(format!("redis:{}", shard.uid));
            copies
                .racks
                .push(node.map_or("-", |node| node.rack_id.as_str()));
        }
        all.extend(ranges.into_values());
    }
    all
}

fn object(copies: &Copies<'_>) -> Value {
    json!({
        "bdb_uid": copies.database.uid,
        "name": copies.database.name,
        "rack_aware": copies.database.rack_aware,
        "assigned_slots": copies.slots,
        "shards": copies.shards,
        "rack_ids": copies.racks,
        "apart": copies.apart(),
    })
}

fn table(all: &[Copies<'_>]) -> Table {
    let columns = vec!["DB:ID", "NAME", "SLOTS", "SHARDS", "RACK-IDS", "STATUS"];
    let mut table = Table::new("", columns);
    for copies in all {
        let status = Cell::new(copies.word());
        table.push(vec![
            Cell::new(format!("db:{}", copies.database.uid)),
            Cell::new(&copies.database.name),
            Cell::new(copies.slots),
            Cell::new(copies.shards.join(",")),
            Cell::new(copies.racks.join(",")),
            match copies.word() {
                "OK" => status.tone(Tone::Good),
                "NOT OK" => status.tone(Tone::Bad),
                _ => status,
            },
        ]);
    }
    table
}
