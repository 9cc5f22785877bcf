//! What is known to be down now: told once when it goes, once when it is back, whoever is the primary node.

use crate::ids::{NodeUid, ShardUid};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// What of the cluster is down, as its events have told; key [`super::keys::OUTAGES`]. A release that does not know
/// it leaves it as it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Outages {
    /// Schema of this document: 1.
    pub schema: u32,
    /// The primary node of which it was told last.
    pub primary_node: Option<PrimaryNode>,
    /// Nodes that are down.
    pub nodes: BTreeMap<NodeUid, NodeOutage>,
    /// Shards that do not serve.
    pub shards: BTreeMap<ShardUid, ShardOutage>,
    /// Nodes without a proxy.
    pub proxies: BTreeMap<NodeUid, ProxyOutage>,
    /// Nodes whose configuration store has no room on its disk, and since when.
    pub full: BTreeMap<NodeUid, Timestamp>,
    /// Proxies that came without what the one before them had, of which it was told last.
    pub restarted: BTreeMap<NodeUid, ProxyRestart>,
    /// Fields of a newer release.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Default for Outages {
    fn default() -> Self {
        Self {
            schema: 1,
            primary_node: None,
            nodes: BTreeMap::new(),
            shards: BTreeMap::new(),
            proxies: BTreeMap::new(),
            full: BTreeMap::new(),
            restarted: BTreeMap::new(),
            extra: Map::new(),
        }
    }
}

/// A node that was the primary node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PrimaryNode {
    /// Which.
    pub node: NodeUid,
    /// Since when, at the latest.
    pub since: Timestamp,
}

/// A node that is down.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeOutage {
    /// Since when, at the latest.
    pub since: Timestamp,
    /// Whether it was stopped in order.
    #[serde(default)]
    pub stopped: bool,
    /// Fields of a newer release.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// A shard that does not serve.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShardOutage {
    /// Since when, at the latest.
    pub since: Timestamp,
    /// Whether it was a primary.
    #[serde(default)]
    pub primary: bool,
    /// Fields of a newer release.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// A node without a proxy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProxyOutage {
    /// Since when, at the latest.
    pub since: Timestamp,
    /// Fields of a newer release.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// A proxy that took nothing over from the one before it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProxyRestart {
    /// Its process.
    pub pid: u32,
    /// When it was told.
    pub told: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// What another release wrote is read, and what this one does not know stays.
    #[test]
    fn documents_of_other_releases() {
        let none: Outages = serde_json::from_value(json!({})).unwrap();
        assert_eq!(none, Outages::default());
        let newer = json!({
            "schema": 1,
            "primary_node": {"node": 3, "since": "2026-11-27T20:00:00Z"},
            "nodes": {"2": {"since": "2026-11-27T20:00:01Z", "stopped": true, "by": "root"}},
            "shards": {"12": {"since": "2026-11-27T20:00:02Z", "primary": true}},
            "proxies": {"1": {"since": "2026-11-27T20:00:03Z"}},
            "full": {"2": "2026-11-27T20:00:03Z"},
            "restarted": {"1": {"pid": 4711, "told": "2026-11-27T20:00:04Z"}},
            "disks": {"1": "full"},
        });
        let read: Outages = serde_json::from_value(newer.clone()).unwrap();
        assert!(read.nodes[&NodeUid(2)].stopped && read.shards[&ShardUid(12)].primary);
        assert_eq!(serde_json::to_value(&read).unwrap(), newer);
    }
}
