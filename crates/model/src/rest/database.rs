//! Databases and their endpoints.

use crate::documents::{DatabaseStatus, EvictionPolicy, ProxyPolicy, ShardsPlacement, Tag};
use crate::ids::{DatabaseUid, NodeUid, ShardUid};
use serde::{Deserialize, Serialize};

object! {
    /// Endpoint of a database (inside a bdb).
    pub struct Endpoint {
        /// `<bdb uid>:1`.
        pub uid: String,
        /// Addresses of its proxies.
        pub addr: Vec<String>,
        /// `internal`.
        pub addr_type: String,
        /// `redis-<port>.<cluster name>`.
        pub dns_name: String,
        /// Its port.
        pub port: u16,
        /// Its policy.
        pub proxy_policy: Option<ProxyPolicy>,
        /// Ours: nodes whose proxies serve it, and how.
        pub proxies: Vec<EndpointProxy>,
    }
}

object! {
    /// Ours: one proxy of an endpoint.
    pub struct EndpointProxy {
        /// Its node.
        pub node_uid: NodeUid,
        /// Whether it listens and reaches the shards.
        pub ok: bool,
        /// Whether it takes connections: while a shard's role is on its way to another one, it holds clients.
        #[serde(default)]
        pub listening: bool,
        /// Why not.
        pub error: Option<String>,
        /// Client connections.
        pub connections: u64,
    }
}

object! {
    /// One rule of a snapshot policy.
    #[serde(deny_unknown_fields)]
    pub struct SnapshotPolicy {
        /// Interval, seconds.
        pub secs: u32,
        /// Least number of changed keys.
        pub writes: u32,
    }
}

object! {
    /// A rule of how a key becomes a slot.
    #[serde(deny_unknown_fields)]
    pub struct ShardKeyRule {
        /// A regular expression; its group `tag` is what is hashed.
        pub regex: String,
    }
}

/// The rules of `shard_key_regex`, and the only ones: of a key with a `{hash tag}` the tag is hashed,
/// else all of it. This is how they are written in the field; engines and clients agree on it.
pub const SHARD_KEY_RULES: [&str; 2] = [r".*\{(?<tag>.*)\}.*", "(?<tag>.*)"];

object! {
    /// A database (`/v1/bdbs`).
    pub struct Bdb {
        /// Its id.
        pub uid: DatabaseUid,
        /// Its name.
        pub name: String,
        /// `redis`.
        #[serde(rename = "type")]
        pub kind: String,
        /// Where it is in its life.
        pub status: Option<DatabaseStatus>,
        /// Its port.
        pub port: u16,
        /// Memory limit, bytes.
        pub memory_size: u64,
        /// Primary shards.
        pub shards_count: u32,
        /// Whether it has several shards.
        pub sharding: bool,
        /// How a key becomes a slot; empty with one shard.
        #[serde(default)]
        pub shard_key_regex: Vec<ShardKeyRule>,
        /// Whether primaries have replicas.
        pub replication: bool,
        /// Whether no two copies of a slot are in one rack.
        #[serde(default)]
        pub rack_aware: bool,
        /// Whether its lost replicas are made anew on another node.
        #[serde(default)]
        pub slave_ha: bool,
        /// Databases with a higher one come first.
        #[serde(default)]
        pub slave_ha_priority: u32,
        /// `disabled`, `aof`, `snapshot`.
        pub data_persistence: String,
        /// `appendfsync-every-sec` or `appendfsync-always`.
        pub aof_policy: String,
        /// Rules of snapshots.
        pub snapshot_policy: Vec<SnapshotPolicy>,
        /// What happens when it is full.
        pub eviction_policy: Option<EvictionPolicy>,
        /// Which proxies serve it.
        pub proxy_policy: Option<ProxyPolicy>,
        /// How its shards are spread.
        pub shards_placement: Option<ShardsPlacement>,
        /// Version of its engine.
        pub redis_version: String,
        /// Ours: `redis` or `valkey`.
        pub engine: String,
        /// Whether a password is asked (the password itself is shown to those who may see it).
        pub default_user: bool,
        /// Password of the default user; empty: none.
        pub authentication_redis_pass: String,
        /// Most client connections per proxy, 0: no limit.
        pub max_connections: u32,
        /// Most commands of one client without a reply, 0: no limit.
        #[serde(default)]
        pub max_client_pipeline: u32,
        /// Ours: most commands a second, over all of its proxies; 0: no limit.
        #[serde(default)]
        pub max_commands_per_second: u64,
        /// Ours: most bytes a second, commands and replies, over all of its proxies; 0: no limit.
        #[serde(default)]
        pub max_bytes_per_second: u64,
        /// Ours: what a proxy keeps for a client that does not take its replies,
        /// `<hard>:<soft>:<seconds>`.
        #[serde(default)]
        pub client_buffer: String,
        /// Ours: from which time on a command stands in the slow log, µs.
        #[serde(default)]
        pub slowlog_log_slower_than: u64,
        /// Ours: slow commands that each proxy keeps.
        #[serde(default)]
        pub slowlog_max_len: u32,
        /// Ours: which keyspace events are published, as the engines spell it; empty: none.
        #[serde(default)]
        pub notify_keyspace_events: String,
        /// Its endpoints.
        pub endpoints: Vec<Endpoint>,
        /// Uids of its shards.
        pub shard_list: Vec<ShardUid>,
        /// Memory used by data, bytes.
        pub used_memory: u64,
        /// The running operation; empty: none.
        pub action_uid: String,
        /// Tags.
        pub tags: Vec<Tag>,
        /// When it was created, RFC 3339.
        pub created_time: String,
        /// When it was changed last, RFC 3339.
        pub last_changed_time: String,
        /// Always false: TLS for clients is not in this release.
        pub ssl: bool,
        /// Always false: the cluster protocol for clients is not in this release.
        #[serde(default)]
        pub oss_cluster: bool,
        /// Ours: running operation's kind, `N/A` without one.
        pub exec_state_machine: String,
        /// Ours: what it waits for, `N/A` without one.
        pub exec_state: String,
    }
}

/// What a field says that is there, if only null.
#[expect(
    clippy::option_option,
    reason = "absent, null and a value are three things"
)]
fn said<'de, D: serde::Deserializer<'de>>(value: D) -> Result<Option<Option<bool>>, D::Error> {
    Option::deserialize(value).map(Some)
}

object! {
    /// Body of `POST /v1/bdbs` and `PUT /v1/bdbs/{uid}`.
    #[serde(deny_unknown_fields, default)]
    pub struct BdbRequest {
        /// Its id, if the caller insists (create only).
        pub uid: Option<DatabaseUid>,
        /// Its name.
        pub name: Option<String>,
        /// `redis` (create only).
        #[serde(rename = "type")]
        pub kind: Option<String>,
        /// Its port (create only).
        pub port: Option<u16>,
        /// Memory limit, bytes.
        pub memory_size: Option<u64>,
        /// Primary shards (create only).
        pub shards_count: Option<u32>,
        /// Whether it has several shards (create only).
        pub sharding: Option<bool>,
        /// How a key becomes a slot: only the default rules (create only).
        pub shard_key_regex: Option<Vec<ShardKeyRule>>,
        /// Whether primaries have replicas (create only).
        pub replication: Option<bool>,
        /// Whether no two copies of a slot are in one rack; absent at creation: as the cluster.
        pub rack_aware: Option<bool>,
        /// Whether its lost replicas are made anew on another node; null, or absent at creation: as the cluster.
        #[serde(deserialize_with = "said", skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "openapi", schema(value_type = Option<bool>))]
        pub slave_ha: Option<Option<bool>>,
        /// Databases with a higher one come first, 0 to 1000.
        pub slave_ha_priority: Option<u32>,
        /// `disabled`, `aof`, `snapshot`.
        pub data_persistence: Option<String>,
        /// `appendfsync-every-sec` or `appendfsync-always`.
        pub aof_policy: Option<String>,
        /// Rules of snapshots: exactly one.
        pub snapshot_policy: Option<Vec<SnapshotPolicy>>,
        /// What happens when it is full.
        pub eviction_policy: Option<EvictionPolicy>,
        /// Which proxies serve it.
        pub proxy_policy: Option<ProxyPolicy>,
        /// How its shards are spread (create only).
        pub shards_placement: Option<ShardsPlacement>,
        /// Engine version (create only): `9.1`, `valkey-9.1`, `redis-7.0`.
        pub redis_version: Option<String>,
        /// Password of the default user; empty: none.
        pub authentication_redis_pass: Option<String>,
        /// Most client connections per proxy.
        pub max_connections: Option<u32>,
        /// Most commands of one client without a reply, 0 to 2047; 0: no limit.
        pub max_client_pipeline: Option<u32>,
        /// Ours: most commands a second, over all of its proxies; 0: no limit.
        pub max_commands_per_second: Option<u64>,
        /// Ours: most bytes a second, commands and replies, over all of its proxies; 0: no limit.
        pub max_bytes_per_second: Option<u64>,
        /// Ours: what a proxy keeps for a client that does not take its replies,
        /// `<hard>:<soft>:<seconds>`, such as `16MB:1MB:10`.
        pub client_buffer: Option<String>,
        /// Ours: from which time on a command stands in the slow log, µs; 0: every command.
        pub slowlog_log_slower_than: Option<u64>,
        /// Ours: slow commands that each proxy keeps, 0 to 128.
        pub slowlog_max_len: Option<u32>,
        /// Ours: which keyspace events are published, as the engines spell it; empty: none.
        pub notify_keyspace_events: Option<String>,
        /// Tags.
        pub tags: Option<Vec<Tag>>,
        /// Only false: the cluster protocol for clients is not in this release.
        pub oss_cluster: Option<bool>,
    }
}
