//! The `ENDPOINTS:` section: a row for each proxy of an endpoint.

use super::Wanted;
use super::snapshot::Snapshot;
use crate::terminal::Tone;
use crate::terminal::table::{Cell, Table};
use model::rest::{Bdb, Endpoint, EndpointProxy};

/// The table.
#[must_use]
pub fn table(snapshot: &Snapshot, wanted: Wanted<'_>) -> Table {
    let mut columns = vec!["DB:ID", "NAME", "ID", "NODE", "ROLE", "SSL"];
    if wanted.extra("watchdog") {
        columns.push("WATCHDOG_STATUS");
    }
    if wanted.extra("traffic") {
        columns.push("CONNS");
    }
    let mut table = Table::new("ENDPOINTS:", columns);
    for database in &snapshot.databases {
        for endpoint in &database.endpoints {
            if endpoint.proxies.is_empty() {
                table.push(row(database, endpoint, None, wanted));
            }
            for proxy in &endpoint.proxies {
                if !(wanted.issues_only && proxy.ok) {
                    table.push(row(database, endpoint, Some(proxy), wanted));
                }
            }
        }
    }
    table
}

fn row(
    database: &Bdb,
    endpoint: &Endpoint,
    proxy: Option<&EndpointProxy>,
    wanted: Wanted<'_>,
) -> Vec<Cell> {
    let policy = endpoint.proxy_policy.or(database.proxy_policy);
    let mut row = vec![
        Cell::new(format!("db:{}", database.uid)),
        Cell::new(&database.name),
        Cell::new(format!("endpoint:{}", endpoint.uid)),
        Cell::new(proxy.map_or("-".to_owned(), |proxy| format!("node:{}", proxy.node_uid))),
        Cell::new(policy.map_or("-", |policy| policy.as_str())),
        Cell::new(if database.ssl { "Yes" } else { "No" }),
    ];
    if wanted.extra("watchdog") {
        row.push(match proxy {
            Some(proxy) if proxy.ok => Cell::new("OK").tone(Tone::Good),
            Some(proxy) => {
                Cell::new(proxy.error.as_deref().unwrap_or("not serving")).tone(Tone::Bad)
            }
            None => Cell::new("no proxy serves it").tone(Tone::Bad),
        });
    }
    if wanted.extra("traffic") {
        let connections = proxy.map(|proxy| proxy.connections.to_string());
        row.push(Cell::new(connections.unwrap_or_else(|| "-".to_owned())));
    }
    row
}
