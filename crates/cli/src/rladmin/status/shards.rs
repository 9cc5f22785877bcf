//! The `SHARDS:` section.

use super::Wanted;
use super::snapshot::Snapshot;
use crate::terminal::Tone;
use crate::terminal::table::{Cell, Table};
use model::rest::ShardInfo;
use model::units::format_size;
use serde_json::Value;

/// The table.
#[must_use]
pub fn table(snapshot: &Snapshot, wanted: Wanted<'_>) -> Table {
    let mut columns = vec![
        "DB:ID",
        "NAME",
        "ID",
        "NODE",
        "ROLE",
        "SLOTS",
        "USED_MEMORY",
    ];
    if wanted.extra("shardstats") {
        columns.extend(["KEYS", "CONNECTIONS", "ENGINE", "PID"]);
    }
    if wanted.extra("backups") {
        columns.push("BACKUP_PROGRESS");
    }
    if wanted.extra("frag") {
        columns.push("RAM_FRAG");
    }
    if wanted.extra("watchdog") {
        columns.push("WATCHDOG_STATUS");
    }
    columns.push("STATUS");
    let mut table = Table::new("SHARDS:", columns);
    for shard in &snapshot.shards {
        if !(wanted.issues_only && is_well(shard)) {
            table.push(row(shard, wanted));
        }
    }
    table
}

/// Whether a shard serves.
#[must_use]
pub fn is_well(shard: &ShardInfo) -> bool {
    shard.status == "active" && shard.detailed_status == "ok"
}

fn row(shard: &ShardInfo, wanted: Wanted<'_>) -> Vec<Cell> {
    let used = shard.redis_info.get("used_memory").and_then(Value::as_u64);
    let mut row = vec![
        Cell::new(format!("db:{}", shard.bdb_uid)),
        Cell::new(&shard.bdb_name),
        Cell::new(format!("redis:{}", shard.uid)),
        Cell::new(format!("node:{}", shard.node_uid)),
        Cell::new(&shard.role),
        Cell::new(&shard.assigned_slots),
        used.map_or_else(
            || Cell::new("-").sorted_by(-1.0),
            |used| Cell::new(format_size(used)).sorted_by(used as f64),
        ),
    ];
    if wanted.extra("shardstats") {
        row.push(Cell::new(figure(shard, "no_of_keys")));
        row.push(Cell::new(figure(shard, "connected_clients")));
        row.push(Cell::new(&shard.engine));
        row.push(Cell::new(
            shard.pid.map_or("-".to_owned(), |pid| pid.to_string()),
        ));
    }
    if wanted.extra("backups") {
        row.push(Cell::new("N/A"));
    }
    if wanted.extra("frag") {
        let ratio = shard
            .redis_info
            .get("mem_frag_ratio")
            .and_then(Value::as_f64);
        row.push(Cell::new(
            ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}")),
        ));
    }
    if wanted.extra("watchdog") {
        let (word, tone) = word(&shard.detailed_status);
        row.push(Cell::new(word).tone(tone));
    }
    row.push(status(shard));
    row
}

fn figure(shard: &ShardInfo, key: &str) -> String {
    shard
        .redis_info
        .get(key)
        .filter(|v| !v.is_null())
        .map_or("-".to_owned(), Value::to_string)
}

fn word(detailed_status: &str) -> (String, Tone) {
    match detailed_status {
        "ok" => ("OK".to_owned(), Tone::Good),
        "loading" => ("LOADING".to_owned(), Tone::Warn),
        "" | "unknown" => ("UNKNOWN".to_owned(), Tone::Warn),
        other => (other.to_uppercase(), Tone::Bad),
    }
}

fn status(shard: &ShardInfo) -> Cell {
    if is_well(shard) {
        return Cell::new("OK").tone(Tone::Good);
    }
    let (mut text, mut tone) = word(&shard.detailed_status);
    if shard.detailed_status == "ok" {
        // The engine is well, but is not in service.
        (text, tone) = (shard.status.to_uppercase(), Tone::Warn);
    }
    if shard.detailed_status == "loading" {
        text.push_str(&format!(" {:.0}%", shard.loading.progress));
    }
    if let Some(error) = &shard.error {
        text.push_str(&format!(", {error}"));
    }
    Cell::new(text).tone(tone)
}
