//! The `CLUSTER NODES:` section.

use super::Wanted;
use super::snapshot::Snapshot;
use crate::terminal::table::{Cell, Table};
use crate::terminal::{Tone, age};
use model::rest::{NodeInfo, NodeStatus};
use model::units::format_size;

/// Of a node that a new primary node waits for.
const NOT_YET: &str = "UNKNOWN, not heard yet";
/// Of a node whose configuration store cannot write.
const DISK_FULL: &str = "DISK FULL, it does not vote";

/// The table.
#[must_use]
pub fn table(snapshot: &Snapshot, wanted: Wanted<'_>) -> Table {
    let mut columns = vec!["NODE:ID", "ROLE", "ADDRESS", "EXTERNAL_ADDRESS", "HOSTNAME"];
    if wanted.extra("nodestats") {
        columns.extend(["MASTERS", "SLAVES", "OVERBOOKING_DEPTH"]);
    }
    columns.extend(["SHARDS", "CORES", "FREE_RAM", "PROVISIONAL_RAM", "VERSION"]);
    if wanted.extra("sha") {
        columns.push("SHA");
    }
    if wanted.extra("rack_id") {
        columns.push("RACK-ID");
    }
    columns.push("STATUS");
    let mut table = Table::new("CLUSTER NODES:", columns);
    for node in &snapshot.nodes {
        if !(wanted.issues_only && snapshot.is_well(node)) {
            table.push(row(snapshot, node, wanted));
        }
    }
    table
}

fn row(snapshot: &Snapshot, node: &NodeInfo, wanted: Wanted<'_>) -> Vec<Cell> {
    let unknown = NodeStatus::default();
    let status = snapshot.node_status.get(&node.uid).unwrap_or(&unknown);
    let heard = snapshot.is_heard(node);
    let local = if node.uid == snapshot.cluster.local_node {
        "*"
    } else {
        ""
    };
    let role = if status.role.is_empty() {
        "slave"
    } else {
        &status.role
    };
    let mut row = vec![
        Cell::new(format!("{local}node:{}", node.uid)),
        Cell::new(role),
        Cell::new(&node.addr),
        Cell::new(node.external_addr.join(",")),
        Cell::new(&node.hostname),
    ];
    if wanted.extra("nodestats") {
        row.push(Cell::new(status.master_shards.len().to_string()));
        row.push(Cell::new(status.slave_shards.len().to_string()));
        row.push(overbooking(status.node_overbooking_depth, heard));
    }
    let shards = Cell::new(format!("{}/{}", node.shard_count, node.max_redis_servers));
    row.push(if node.accept_servers {
        shards
    } else {
        shards.tone(Tone::Warn)
    });
    row.push(Cell::new(if node.cores == 0 {
        "-".to_owned()
    } else {
        node.cores.to_string()
    }));
    let total = if node.total_memory == 0 {
        status.total_memory
    } else {
        node.total_memory
    };
    row.push(of_total(heard.then_some(status.free_ram), total));
    row.push(of_total(
        heard.then_some(status.free_provisional_ram),
        status.total_provisional_ram,
    ));
    row.push(Cell::new(known(&node.software_version)));
    if wanted.extra("sha") {
        row.push(Cell::new(known(&node.software_version_sha)));
    }
    if wanted.extra("rack_id") {
        row.push(Cell::new(known(&node.rack_id)));
    }
    row.push(if heard && status.disk_full {
        Cell::new(DISK_FULL).tone(Tone::Bad)
    } else if heard {
        Cell::new("OK").tone(Tone::Good)
    } else if snapshot.is_awaited(node.uid) {
        Cell::new(NOT_YET).tone(Tone::Warn)
    } else {
        Cell::new(down(snapshot.last_heard(node))).tone(Tone::Bad)
    });
    row
}

fn known(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

/// `14.91GB/19.54GB`; `-/19.54GB` while the node is not heard.
fn of_total(free: Option<u64>, total: u64) -> Cell {
    match free {
        Some(free) => Cell::new(format!("{}/{}", format_size(free), format_size(total)))
            .sorted_by(free as f64),
        None => Cell::new(format!("-/{}", format_size(total))).sorted_by(-1.0),
    }
}

fn overbooking(depth: i64, heard: bool) -> Cell {
    if !heard {
        return Cell::new("-").sorted_by(f64::MIN);
    }
    let sign = if depth < 0 { "-" } else { "" };
    let cell =
        Cell::new(format!("{sign}{}", format_size(depth.unsigned_abs()))).sorted_by(depth as f64);
    if depth < 0 {
        cell.tone(Tone::Warn)
    } else {
        cell
    }
}

fn down(last_heard: Option<f64>) -> String {
    match last_heard {
        Some(seconds) => format!("DOWN, last seen {} ago", age(seconds)),
        None => "DOWN, not seen yet".to_owned(),
    }
}

/// A node's status in words, from its object alone.
#[must_use]
pub fn status_word(status: &str, last_heard: Option<f64>) -> String {
    match status {
        "active" => "OK".to_owned(),
        "unknown" => NOT_YET.to_owned(),
        _ => down(last_heard),
    }
}
