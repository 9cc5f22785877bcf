//! The `DATABASES:` section.

use super::Wanted;
use super::shards::is_well;
use super::snapshot::Snapshot;
use crate::rladmin::resources::{with_port, working_address};
use crate::terminal::Tone;
use crate::terminal::table::{Cell, Table};
use model::documents::{DatabaseStatus, ShardsPlacement};
use model::rest::Bdb;
use model::units::format_size;
use semver::Version;
use std::collections::BTreeSet;

/// The table. `ADDRESS` is ours: an address at which the endpoint serves now.
#[must_use]
pub fn table(snapshot: &Snapshot, wanted: Wanted<'_>) -> Table {
    let mut columns = vec![
        "DB:ID",
        "NAME",
        "TYPE",
        "STATUS",
        "SHARDS",
        "PLACEMENT",
        "REPLICATION",
        "PERSISTENCE",
        "ENDPOINT",
        "ADDRESS",
    ];
    if wanted.extra("state_machine") {
        columns.extend(["EXEC_STATE", "EXEC_STATE_MACHINE"]);
    }
    if wanted.extra("backups") {
        columns.extend(["BACKUP_PROGRESS", "MISSING_BACKUP_TIME"]);
    }
    if wanted.extra("traffic_manually_disabled") {
        columns.push("TRAFFIC_MANUALLY_DISABLED");
    }
    if wanted.extra("redis_version") {
        columns.push("REDIS_VERSION");
    }
    if wanted.extra("traffic") {
        columns.extend(["CONNS", "OPS/S", "IN/S", "OUT/S", "LATENCY"]);
    }
    let mut table = Table::new("DATABASES:", columns);
    for database in &snapshot.databases {
        let is_active = database.status == Some(DatabaseStatus::Active);
        if !(wanted.issues_only && is_active && serves(snapshot, database)) {
            table.push(row(snapshot, database, wanted));
        }
    }
    table
}

/// Whether all its primaries are well. Where it is active and they are not, the sections of endpoints and shards
/// say why.
fn serves(snapshot: &Snapshot, database: &Bdb) -> bool {
    let mut own = snapshot.shards.iter().filter(|s| s.bdb_uid == database.uid);
    own.all(|shard| shard.role != "master" || is_well(shard))
}

fn row(snapshot: &Snapshot, database: &Bdb, wanted: Wanted<'_>) -> Vec<Cell> {
    let endpoint = database.endpoints.first();
    let address = endpoint
        .and_then(|endpoint| {
            working_address(endpoint, &snapshot.all_nodes, snapshot.cluster.local_node)
        })
        .unwrap_or_else(|| "-".to_owned());
    let mut row = vec![
        Cell::new(format!("db:{}", database.uid)),
        Cell::new(&database.name),
        Cell::new(&database.kind),
        Cell::new(status_word(database)).tone(tone(database)),
        Cell::new(database.shards_count.to_string()),
        Cell::new(match database.shards_placement {
            Some(ShardsPlacement::Sparse) => "sparse",
            _ => "dense",
        }),
        Cell::new(if database.replication {
            "enabled"
        } else {
            "disabled"
        }),
        Cell::new(&database.data_persistence),
        Cell::new(endpoint.map_or("-".to_owned(), |e| with_port(&e.dns_name, e.port))),
        Cell::new(address),
    ];
    if wanted.extra("state_machine") {
        row.push(Cell::new(or_none(&database.exec_state)));
        row.push(Cell::new(or_none(&database.exec_state_machine)));
    }
    if wanted.extra("backups") {
        row.extend([Cell::new("N/A"), Cell::new("N/A")]);
    }
    if wanted.extra("traffic_manually_disabled") {
        row.push(Cell::new("No"));
    }
    if wanted.extra("redis_version") {
        let version = format!("{}-{}", database.engine, database.redis_version);
        row.push(if is_old(snapshot, database) {
            Cell::new(format!("{version} OLD REDIS VERSION")).tone(Tone::Warn)
        } else {
            Cell::new(version)
        });
    }
    if wanted.extra("traffic") {
        row.extend(traffic(snapshot, database));
    }
    row
}

/// What clients did in the last second, if a proxy of it is heard.
fn traffic(snapshot: &Snapshot, database: &Bdb) -> Vec<Cell> {
    let Some(seen) = snapshot.traffic.get(&database.uid) else {
        return ["-"; 5].map(Cell::new).to_vec();
    };
    let latency = seen.avg_latency.map_or("-".to_owned(), |micros| {
        format!("{:.3}ms", micros / 1_000.0)
    });
    vec![
        Cell::new(seen.conns.to_string()),
        Cell::new(seen.total_req.to_string()),
        Cell::new(format_size(seen.ingress_bytes)),
        Cell::new(format_size(seen.egress_bytes)),
        Cell::new(latency),
    ]
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "N/A" } else { text }
}

/// The database's status as it is printed.
#[must_use]
pub const fn status_word(database: &Bdb) -> &'static str {
    match database.status {
        Some(DatabaseStatus::Pending) => "pending",
        Some(DatabaseStatus::Active) => "active",
        Some(DatabaseStatus::ActiveChangePending) => "active-change-pending",
        Some(DatabaseStatus::DeletePending) => "delete-pending",
        Some(DatabaseStatus::CreationFailed) => "creation-failed",
        None => "unknown",
    }
}

const fn tone(database: &Bdb) -> Tone {
    match database.status {
        Some(DatabaseStatus::Active) => Tone::Plain,
        Some(DatabaseStatus::CreationFailed) => Tone::Bad,
        _ => Tone::Warn,
    }
}

/// Whether every node carries a newer engine than the database's.
fn is_old(snapshot: &Snapshot, database: &Bdb) -> bool {
    let Ok(mine) = database.redis_version.parse::<Version>() else {
        return false;
    };
    let mut carried = snapshot
        .all_nodes
        .iter()
        .filter(|node| !node.supported_database_versions.is_empty())
        .map(|node| {
            node.supported_database_versions
                .iter()
                .filter_map(|engine| engine.version.parse::<Version>().ok())
                .collect::<BTreeSet<_>>()
        });
    let Some(first) = carried.next() else {
        return false;
    };
    let by_all = carried.fold(first, |all, of_node| &all & &of_node);
    by_all.last().is_some_and(|newest| *newest > mine)
}
