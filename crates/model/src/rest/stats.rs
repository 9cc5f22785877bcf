//! Statistics of proxies and databases, and the slow log.

use crate::ids::{DatabaseUid, NodeUid};
use crate::observation::{ProxyCounts, ProxyLatency};
use serde::{Deserialize, Serialize};

object! {
    /// Ours: a node's proxy.
    pub struct ProxyInfo {
        /// Its process.
        pub pid: u32,
        /// Its version.
        pub software_version: String,
        /// Build id of its release.
        pub software_version_sha: String,
        /// Revision of the configuration that it serves.
        pub applied_state_id: u64,
        /// Worker threads.
        pub threads: u32,
        /// Client connections.
        pub connections: u64,
        /// Commands at the shards whose replies have not come.
        pub in_flight: u64,
        /// What was counted in the last second.
        pub per_second: ProxyCounts,
        /// What was counted since it started.
        pub since_start: ProxyCounts,
        /// How long shards took.
        pub latency: ProxyLatency,
    }
}

object! {
    /// Statistics of a database: `GET /v1/bdbs/stats/{uid}`.
    pub struct DatabaseStats {
        /// The database.
        pub uid: DatabaseUid,
        /// Samples, oldest first; none while no proxy that serves it is heard.
        pub intervals: Vec<StatsSample>,
    }
}

object! {
    /// A database in one span of time, over all proxies that serve it. Numbers of events are per second,
    /// times µs. A latency is missing when nothing was measured in that time.
    pub struct StatsSample {
        /// `1sec`, `10sec` or `5min`.
        pub interval: String,
        /// Where it begins, RFC 3339.
        pub stime: String,
        /// Where it ends.
        pub etime: String,
        /// Client connections.
        pub conns: u64,
        /// Connections that were accepted.
        pub total_connections_received: u64,
        /// Commands.
        pub total_req: u64,
        /// Commands that read.
        pub read_req: u64,
        /// Commands that may write.
        pub write_req: u64,
        /// Other commands.
        pub other_req: u64,
        /// Same as `total_req`.
        pub instantaneous_ops_per_sec: u64,
        /// Bytes from clients.
        pub ingress_bytes: u64,
        /// Bytes to clients.
        pub egress_bytes: u64,
        /// Mean time until the shard's reply came.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub avg_latency: Option<f64>,
        /// The same of commands that read.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub avg_read_latency: Option<f64>,
        /// The same of commands that may write.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub avg_write_latency: Option<f64>,
        /// The same of other commands.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub avg_other_latency: Option<f64>,
        /// Keys of its shards.
        pub no_of_keys: u64,
        /// Memory used by its shards, bytes.
        pub used_memory: u64,
        /// Ours: commands at the shards whose replies have not come.
        pub in_flight: u64,
        /// Ours: percentiles; with several proxies, of the slowest one. Only of the newest second.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        pub latency: Option<ProxyLatency>,
        /// Ours: everything that was counted since each proxy started. Only of the newest second.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        pub since_start: Option<ProxyCounts>,
    }
}

object! {
    /// Ours: a slow command of a database, `GET /v1/bdbs/{uid}/slowlog`. Times are µs.
    pub struct SlowlogEntry {
        /// The node whose proxy passed it on.
        pub node_uid: NodeUid,
        /// Counts the slow commands of the database in that proxy, from 1.
        pub id: u64,
        /// When its reply came, RFC 3339.
        pub time: String,
        /// Address of its client.
        pub client: String,
        /// What the client calls itself.
        pub client_name: String,
        /// Its name; of a pipeline the first one's.
        pub command: String,
        /// Its first key, at most 64 bytes of it.
        pub key: Option<String>,
        /// Commands that went to the shard together with it, itself included: if they are several, it is
        /// one of them.
        pub pipelined: u32,
        /// From its arrival until its reply came.
        pub total_us: u64,
        /// Of that, after it was given to the connection to its shard.
        pub shard_us: u64,
        /// Of that, while the shard was busy with earlier commands of the same connection.
        pub behind_us: u64,
        /// Of the total, while it waited in the proxy.
        pub proxy_us: u64,
    }
}
