//! Everything that `status` shows, read at once.

use crate::rladmin::failure::Failure;
use crate::rladmin::parse::Invocation;
use crate::rladmin::resources::{self, find_database};
use crate::rladmin::session::Context;
use jiff::{SignedDuration, Timestamp};
use model::documents::DatabaseStatus;
use model::rest::{Bdb, ClusterInfo, LogEvent, NodeInfo, NodeStatus, ShardInfo, StatsSample};
use model::{ApiError, DatabaseUid, NodeUid};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// What was read.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The cluster.
    pub cluster: ClusterInfo,
    /// Its nodes.
    pub nodes: Vec<NodeInfo>,
    /// What was heard of them.
    pub node_status: BTreeMap<NodeUid, NodeStatus>,
    /// Its databases.
    pub databases: Vec<Bdb>,
    /// What its databases do; empty: not asked.
    pub traffic: BTreeMap<DatabaseUid, StatsSample>,
    /// Its shards.
    pub shards: Vec<ShardInfo>,
    /// How often something failed; `Err`: why it is not known; `None`: not asked.
    pub failures: Option<Result<Failures, String>>,
    /// Data that databases have lost within the last hour, in words, the newest first; not asked where failures are not.
    pub losses: Vec<(DatabaseUid, String)>,
    /// All nodes, those too that a filter hides.
    pub all_nodes: Vec<NodeInfo>,
}

/// Events of severity ERROR or CRITICAL, a minute.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Failures {
    /// Within the last minute.
    pub last_1: f64,
    /// Within the last 15 minutes.
    pub last_15: f64,
    /// Within the last 60 minutes.
    pub last_60: f64,
}

impl Failures {
    fn among(events: &[LogEvent], now: Timestamp) -> Self {
        let ages: Vec<f64> = events
            .iter()
            .filter(|event| matches!(event.severity.as_str(), "ERROR" | "CRITICAL"))
            .filter_map(|event| event.time.parse::<Timestamp>().ok())
            .map(|time| now.duration_since(time).as_secs_f64() / 60.0)
            .collect();
        let rate =
            |minutes: f64| ages.iter().filter(|age| **age < minutes).count() as f64 / minutes;
        Self {
            last_1: rate(1.0),
            last_15: rate(15.0),
            last_60: rate(60.0),
        }
    }
}

impl Snapshot {
    /// Reads it, all at the same time.
    ///
    /// # Errors
    /// As REST answers.
    pub async fn read(
        context: &Context,
        with_failures: bool,
        with_traffic: bool,
    ) -> Result<Self, ApiError> {
        let rest = &context.rest;
        let traffic = async {
            if with_traffic {
                rest.get("/v1/bdbs/stats/last").await
            } else {
                Ok(BTreeMap::new())
            }
        };
        let now = Timestamp::now();
        let events = async {
            Ok(if with_failures {
                Some(read_events(context, now).await)
            } else {
                None
            })
        };
        let (cluster, nodes, node_status, databases, traffic, shards, events) = tokio::try_join!(
            rest.get("/v1/cluster"),
            resources::nodes(context),
            rest.get("/v1/nodes/status"),
            rest.get("/v1/bdbs"),
            traffic,
            rest.get("/v1/shards"),
            events,
        )?;
        let losses = match &events {
            Some(Ok(events)) => losses(events),
            _ => Vec::new(),
        };
        let mut snapshot = Self {
            cluster,
            all_nodes: nodes,
            nodes: Vec::new(),
            node_status,
            databases,
            traffic,
            shards,
            failures: events.map(|read| read.map(|events| Failures::among(&events, now))),
            losses,
        };
        snapshot.all_nodes.sort_by_key(|node| node.uid);
        snapshot.nodes = snapshot.all_nodes.clone();
        snapshot.databases.sort_by_key(|database| database.uid);
        snapshot
            .shards
            .sort_by_key(|shard| (shard.bdb_uid, shard.uid));
        Ok(snapshot)
    }

    /// Keeps what `node` and `db` leave.
    ///
    /// # Errors
    /// `node_not_found`, `db_not_found`.
    pub fn narrow(&mut self, invocation: &Invocation) -> Result<(), Failure> {
        if let Some(wanted) = invocation.database("db") {
            let uid = find_database(&self.databases, &wanted)?.uid;
            let places = self.places(|database| database == uid);
            self.nodes.retain(|node| places.contains(&node.uid));
            self.databases.retain(|database| database.uid == uid);
            self.shards.retain(|shard| shard.bdb_uid == uid);
        }
        if let Some(uid) = invocation.node("node") {
            resources::node(&self.all_nodes, uid)?;
            self.nodes.retain(|node| node.uid == uid);
            self.shards.retain(|shard| shard.node_uid == uid);
            let with_shard: BTreeSet<DatabaseUid> =
                self.shards.iter().map(|shard| shard.bdb_uid).collect();
            for database in &mut self.databases {
                for endpoint in &mut database.endpoints {
                    endpoint.proxies.retain(|proxy| proxy.node_uid == uid);
                }
            }
            self.databases.retain(|database| {
                with_shard.contains(&database.uid)
                    || database
                        .endpoints
                        .iter()
                        .any(|endpoint| !endpoint.proxies.is_empty())
            });
        }
        Ok(())
    }

    /// Nodes with a shard or a proxy of some databases.
    fn places(&self, of: impl Fn(DatabaseUid) -> bool) -> BTreeSet<NodeUid> {
        let shards = self
            .shards
            .iter()
            .filter(|s| of(s.bdb_uid))
            .map(|s| s.node_uid);
        let proxies = self
            .databases
            .iter()
            .filter(|database| of(database.uid))
            .flat_map(|database| &database.endpoints)
            .flat_map(|endpoint| &endpoint.proxies)
            .map(|proxy| proxy.node_uid);
        shards.chain(proxies).collect()
    }

    /// Whether a node is heard. Without a quorum nobody tells of nodes any more, and the asked one has just answered.
    #[must_use]
    pub fn is_heard(&self, node: &NodeInfo) -> bool {
        if !self.cluster.has_quorum && node.uid == self.cluster.local_node {
            return true;
        }
        match self.node_status.get(&node.uid) {
            Some(status) => status.node_status == "OK",
            None => node.status == "active",
        }
    }

    /// Whether a node is heard, and tells of nothing that is wrong.
    #[must_use]
    pub fn is_well(&self, node: &NodeInfo) -> bool {
        let status = self.node_status.get(&node.uid);
        self.is_heard(node) && !status.is_some_and(|status| status.disk_full)
    }

    /// Whether a node has not been heard yet by a primary node that is new: nothing speaks against it.
    #[must_use]
    pub fn is_awaited(&self, node: NodeUid) -> bool {
        let status = self.node_status.get(&node);
        status.is_some_and(|status| status.node_status == "UNKNOWN")
    }

    /// Nodes that are not heard yet, in words.
    #[must_use]
    pub fn awaited(&self) -> Vec<String> {
        let awaited = self.nodes.iter().filter(|node| self.is_awaited(node.uid));
        awaited.map(|node| format!("node:{}", node.uid)).collect()
    }

    /// Nodes that take no shards for now, in words.
    #[must_use]
    pub fn away(&self) -> Vec<String> {
        let nodes = self.all_nodes.iter();
        nodes
            .filter_map(|node| {
                let (uid, status) = (node.uid, self.node_status.get(&node.uid)?);
                if status.leaving {
                    return Some(format!(
                        "node:{uid} leaves the cluster as soon as nothing is on it (`rladmin cluster running_actions`)"
                    ));
                }
                let since = &status.maintenance_snapshot.as_ref()?.created_time;
                let whole_seconds = since.parse::<Timestamp>().map(|time| format!("{time:.0}"));
                let since = whole_seconds.as_ref().unwrap_or(since);
                Some(format!(
                    "node:{uid} is in maintenance mode since {since} and takes no shards \
                     (`rladmin node {uid} maintenance_mode off`)"
                ))
            })
            .collect()
    }

    /// Seconds since a node was heard; `None`: never, as far as the asked node knows.
    #[must_use]
    pub fn last_heard(&self, node: &NodeInfo) -> Option<f64> {
        self.node_status
            .get(&node.uid)
            .and_then(|status| status.last_heard_seconds)
            .or(node.last_heard_seconds)
    }

    /// What is not well, in words; empty: all is.
    #[must_use]
    pub fn issues(&self) -> Vec<String> {
        let mut issues: Vec<String> = self
            .nodes
            .iter()
            .filter(|node| !self.is_heard(node) && !self.is_awaited(node.uid))
            .map(|node| format!("node:{} DOWN", node.uid))
            .collect();
        let full = self.nodes.iter();
        let full = full.filter(|node| self.is_heard(node) && !self.is_well(node));
        issues.extend(full.map(|node| format!("node:{} DISK FULL", node.uid)));
        let mut count = |number: usize, one: &str, many: &str| match number {
            0 => {}
            1 => issues.push(format!("1 {one}")),
            _ => issues.push(format!("{number} {many}")),
        };
        let inactive = |database: &&Bdb| {
            !matches!(
                database.status,
                Some(DatabaseStatus::Active | DatabaseStatus::ActiveChangePending)
            )
        };
        let proxies = self
            .databases
            .iter()
            .flat_map(|d| &d.endpoints)
            .flat_map(|e| &e.proxies);
        count(
            self.databases.iter().filter(inactive).count(),
            "database not active",
            "databases not active",
        );
        count(
            proxies
                .filter(|proxy| !proxy.ok && !self.is_awaited(proxy.node_uid))
                .count(),
            "endpoint not OK",
            "endpoints not OK",
        );
        count(
            self.shards
                .iter()
                .filter(|shard| !super::shards::is_well(shard) && !self.is_awaited(shard.node_uid))
                .count(),
            "shard not OK",
            "shards not OK",
        );
        let shown = |uid: &DatabaseUid| self.databases.iter().any(|d| d.uid == *uid);
        let losses = self.losses.iter().filter(|(database, _)| shown(database));
        issues.extend(losses.map(|(_, loss)| loss.clone()));
        issues
    }

    /// The objects of a section, or of all.
    #[must_use]
    pub fn to_json(&self, section: Option<&str>) -> Value {
        let nodes: Vec<Value> = self
            .nodes
            .iter()
            .map(|node| json!({ "info": node, "status": self.node_status.get(&node.uid) }))
            .collect();
        let databases: Vec<Bdb> = self
            .databases
            .iter()
            .cloned()
            .map(crate::rladmin::database::without_password)
            .collect();
        let endpoints: Vec<Value> = self
            .databases
            .iter()
            .flat_map(|database| database.endpoints.iter().map(|e| (database.uid, e)))
            .map(|(uid, endpoint)| json!({ "bdb_uid": uid, "endpoint": endpoint }))
            .collect();
        let failures = match &self.failures {
            Some(Ok(rate)) => json!([rate.last_1, rate.last_15, rate.last_60]),
            _ => Value::Null,
        };
        match section {
            Some("nodes") => json!({ "has_quorum": self.cluster.has_quorum, "nodes": nodes }),
            Some("databases") => json!({ "databases": databases }),
            Some("endpoints") => json!({ "endpoints": endpoints }),
            Some("shards") => json!({ "shards": self.shards }),
            Some(_) => json!({ "cluster_modules": [], "database_modules": [] }),
            None => json!({
                "cluster": self.cluster,
                "issues": self.issues(),
                "failures_per_minute": failures,
                "nodes": nodes,
                "databases": databases,
                "endpoints": endpoints,
                "shards": self.shards,
            }),
        }
    }
}

/// Reads the events of the last hour, newest first.
async fn read_events(context: &Context, now: Timestamp) -> Result<Vec<LogEvent>, String> {
    let since = now - SignedDuration::from_hours(1);
    let path = format!("/v1/logs?order=desc&limit=1000&stime={since:.0}");
    let events = context.rest.get(&path).await;
    events.map_err(|error| error.description)
}

/// What databases have lost for good. Everything runs again after that, so nothing else shows it.
fn losses(events: &[LogEvent]) -> Vec<(DatabaseUid, String)> {
    let loss = |event: &LogEvent| {
        let fact = |name: &str| event.facts.get(name).and_then(Value::as_str);
        let uid = |name: &str| event.facts.get(name).and_then(Value::as_u64);
        let what = match event.kind.as_str() {
            "shard_restarted" => fact("data")?.to_owned(),
            "shard_restored" => format!("lost from {} on", fact("data_written")?),
            _ => return None,
        };
        let (database, shard) = (uid("bdb_uid")?, uid("shard_uid")?);
        let time = event.time.parse::<Timestamp>().ok()?;
        let text = format!("data of db:{database} {what} (redis:{shard}, {time:.0})");
        Some((DatabaseUid(database), text))
    };
    let critical = events.iter().filter(|event| event.severity == "CRITICAL");
    critical.filter_map(loss).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_a_minute() {
        let now: Timestamp = "2026-08-01T12:00:00Z".parse().unwrap();
        let event = |time: &str, severity: &str| LogEvent {
            time: time.to_owned(),
            severity: severity.to_owned(),
            ..LogEvent::default()
        };
        let events = [
            event("2026-08-01T11:59:30Z", "ERROR"),
            event("2026-08-01T11:59:31Z", "INFO"),
            event("2026-08-01T11:50:00Z", "CRITICAL"),
            event("2026-08-01T11:10:00Z", "ERROR"),
            event("2026-08-01T10:59:00Z", "ERROR"),
            event("not a time", "ERROR"),
        ];
        let rate = Failures::among(&events, now);
        assert_eq!(
            rate,
            Failures {
                last_1: 1.0,
                last_15: 2.0 / 15.0,
                last_60: 3.0 / 60.0
            }
        );
    }
}
