//! What the configuration store holds. A document is JSON under a key; it carries its schema number,
//! and fields that this release does not know are kept when it is written back.
//!
//! `DataChange`: a change here that older releases cannot read needs a migration at finalise and a
//! test from the last release.

use crate::ids::{DatabaseUid, NodeUid, OperationUid, ShardUid, UserUid};
use crate::limits;
use crate::release::EngineId;
use crate::secret::Secret;
use crate::tuning::{DatabaseTuning, ProxySettings};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::time::Duration;

mod operation;
mod outages;
mod shard;
mod slave_ha;

pub use operation::{Migration, MoveReport, Operation, OperationKind, OperationStatus};
pub use outages::{NodeOutage, Outages, PrimaryNode, ProxyOutage, ProxyRestart, ShardOutage};
pub use shard::{
    EngineUsers, Fence, KEEPER, PROXY_RIGHTS, Role, RoleMove, Shard, SlotRange, Stalled,
    keeper_user, proxy_user,
};
pub use slave_ha::{Lost, NodeLoss, SlaveHa};

/// Keys of the documents. One place, so that two kinds can never collide.
pub mod keys {
    use super::{DatabaseUid, NodeUid, OperationUid, ShardUid, UserUid};

    /// The one [`super::Cluster`] document.
    pub const CLUSTER: &str = "cluster";
    /// The one [`crate::upgrade::Upgrade`] document; it is not there before the first upgrade.
    pub const UPGRADE: &str = "upgrade";
    /// The one [`super::Outages`] document; it is not there before the first is told.
    pub const OUTAGES: &str = "outages";
    /// Prefix of [`super::Node`] documents.
    pub const NODES: &str = "node/";
    /// Prefix of [`super::Database`] documents.
    pub const DATABASES: &str = "bdb/";
    /// Prefix of [`super::Shard`] documents.
    pub const SHARDS: &str = "shard/";
    /// Prefix of [`super::User`] documents.
    pub const USERS: &str = "user/";
    /// Prefix of [`super::Operation`] documents.
    pub const OPERATIONS: &str = "operation/";
    /// Prefix of [`super::Event`] documents.
    pub const EVENTS: &str = "event/";

    /// Key of a node.
    #[must_use]
    pub fn node(uid: NodeUid) -> String {
        format!("{NODES}{uid}")
    }
    /// Key of a database.
    #[must_use]
    pub fn database(uid: DatabaseUid) -> String {
        format!("{DATABASES}{uid}")
    }
    /// Key of a shard.
    #[must_use]
    pub fn shard(uid: ShardUid) -> String {
        format!("{SHARDS}{uid}")
    }
    /// Key of a user.
    #[must_use]
    pub fn user(uid: UserUid) -> String {
        format!("{USERS}{uid}")
    }
    /// Key of an operation.
    #[must_use]
    pub fn operation(uid: &OperationUid) -> String {
        format!("{OPERATIONS}{uid}")
    }
    /// Key of an event; `number` counts up from 1 (see [`super::Cluster::next_event`]).
    #[must_use]
    pub fn event(number: u64) -> String {
        format!("{EVENTS}{number:012}")
    }
}

/// The cluster itself, and the counters from which new ids come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cluster {
    /// Schema of this document: 1.
    pub schema: u32,
    /// The cluster's name (FQDN), fixed for life.
    pub name: String,
    /// A UUID, fixed for life.
    pub cluster_id: String,
    /// When it was created.
    pub created: Timestamp,
    /// What the whole cluster may use; see [`crate::release::FEATURE_LEVEL`].
    pub feature_level: u32,
    /// Certificate of the cluster's CA, PEM.
    pub ca_certificate: String,
    /// Key of the cluster's CA, PEM.
    pub ca_key: Secret,
    /// Next node id.
    pub next_node: NodeUid,
    /// Next database id.
    pub next_database: DatabaseUid,
    /// Next shard id.
    pub next_shard: ShardUid,
    /// Next user id.
    pub next_user: UserUid,
    /// Number of the next event.
    pub next_event: u64,
    /// Settings that `rladmin cluster config` and `tune cluster` change.
    #[serde(default)]
    pub settings: ClusterSettings,
    /// The node whose lost replicas were made anew last.
    #[serde(default)]
    pub node_loss: Option<NodeLoss>,
    /// Fields of a newer release.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Settings of the cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClusterSettings {
    /// Policy of new databases.
    pub default_non_sharded_proxy_policy: ProxyPolicy,
    /// Policy of new databases with several shards.
    pub default_sharded_proxy_policy: ProxyPolicy,
    /// Placement of new databases.
    pub default_shards_placement: ShardsPlacement,
    /// Engine of new databases: `None` is the newest that every node carries.
    pub default_redis_version: Option<String>,
    /// Idle time after which the console signs out, minutes, 0 is never.
    pub cm_session_timeout_minutes: u32,
    /// Whether databases may have each copy of their slots in another rack; every node has a rack then.
    pub rack_aware: bool,
    /// Whether failures are judged fast (`high`) or with patience (`low`).
    pub failure_detection_sensitivity: Sensitivity,
    /// Whether replicas that are lost are made anew on another node, unless their database says otherwise.
    pub slave_ha: bool,
    /// How long a replica is lost before that, seconds, [`limits::SLAVE_HA_SECONDS`](crate::limits).
    pub slave_ha_grace_period: u32,
    /// How long the replicas of another node wait after that, seconds.
    pub slave_ha_cooldown_period: u32,
    /// How long a database waits after that until it is done again, seconds.
    pub slave_ha_bdb_cooldown_period: u32,
    /// Fields of a newer release.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Default for ClusterSettings {
    fn default() -> Self {
        Self {
            default_non_sharded_proxy_policy: ProxyPolicy::Single,
            default_sharded_proxy_policy: ProxyPolicy::AllMasterShards,
            default_shards_placement: ShardsPlacement::Dense,
            default_redis_version: None,
            cm_session_timeout_minutes: 15,
            rack_aware: false,
            failure_detection_sensitivity: Sensitivity::High,
            slave_ha: false,
            slave_ha_grace_period: 600,
            slave_ha_cooldown_period: 3_600,
            slave_ha_bdb_cooldown_period: 7_200,
            extra: Map::new(),
        }
    }
}

/// How fast failures are judged.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Sensitivity {
    /// Local network.
    High,
    /// Networks with jitter.
    Low,
}

impl Sensitivity {
    /// After how long without a heartbeat a node's primaries may be replaced.
    #[must_use]
    pub const fn node_silent(self) -> Duration {
        match self {
            Self::High => limits::NODE_SILENT,
            Self::Low => limits::NODE_SILENT_LOW,
        }
    }

    /// After how long without an answer an engine counts as hanging or busy.
    #[must_use]
    pub const fn engine_stalled(self) -> Duration {
        match self {
            Self::High => limits::ENGINE_STALLED,
            Self::Low => limits::ENGINE_STALLED_LOW,
        }
    }
}

/// A node, as the cluster knows it. What changes by itself is an observation, not stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Schema of this document: 1.
    pub schema: u32,
    /// Its id.
    pub uid: NodeUid,
    /// The address that all its sockets bind.
    pub address: String,
    /// Addresses as seen from outside, if others.
    #[serde(default)]
    pub external_address: Vec<String>,
    /// Its rack, if told.
    #[serde(default)]
    pub rack_id: Option<String>,
    /// Name of the host when it joined.
    pub hostname: String,
    /// Port of internode traffic.
    pub internode_port: u16,
    /// Port of REST.
    pub https_port: u16,
    /// Memory that it offers to databases, bytes.
    pub memory_bytes: u64,
    /// Whether it may hold shards.
    pub accept_servers: bool,
    /// Settings of its proxy.
    #[serde(default)]
    pub proxy: ProxySettings,
    /// Its maintenance mode, while that is on.
    #[serde(default)]
    pub maintenance: Option<Maintenance>,
    /// Snapshots of what was on it, oldest first.
    #[serde(default)]
    pub snapshots: Vec<NodeSnapshot>,
    /// Whether it leaves the cluster as soon as nothing is on it.
    #[serde(default)]
    pub leaving: bool,
    /// When it joined.
    pub joined: Timestamp,
    /// Fields of a newer release.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Node {
    /// `address:port` of its internode interface.
    #[must_use]
    pub fn internode_address(&self) -> String {
        match self.address.parse::<std::net::IpAddr>() {
            Ok(ip) => std::net::SocketAddr::new(ip, self.internode_port).to_string(),
            Err(_) => format!("{}:{}", self.address, self.internode_port),
        }
    }
}

/// Maintenance mode of a node: it takes no shards.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Maintenance {
    /// How often it was turned on, less how often off.
    pub depth: u32,
    /// Name of the snapshot.
    pub name: String,
    /// Since when.
    pub since: Timestamp,
    /// What was on the node when it was turned on.
    pub snapshot: Vec<SnapshotShard>,
}

/// What was on a node when an operator wanted it noted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeSnapshot {
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created: Timestamp,
    /// What was on the node.
    pub shards: Vec<SnapshotShard>,
}

/// A shard that was on a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SnapshotShard {
    /// Its database.
    pub database: DatabaseUid,
    /// Its slots.
    pub slots: SlotRange,
    /// Its role.
    pub role: Role,
    /// Where the other copies of its slots were. Release 1.1.0 does not note it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<NodeUid>,
}

/// Where a database is in its life (the REST field `status`).
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum DatabaseStatus {
    /// Being created.
    Pending,
    /// Serving.
    Active,
    /// Serving, a change is under way.
    ActiveChangePending,
    /// Being deleted.
    DeletePending,
    /// Creation was given up.
    CreationFailed,
}

/// Which proxies serve a database.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ProxyPolicy {
    /// The proxy of the node of the first primary shard.
    Single,
    /// The proxies of all nodes with a primary shard.
    AllMasterShards,
    /// Every node's proxy.
    AllNodes,
}

impl ProxyPolicy {
    /// As it is written in REST and rladmin.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::AllMasterShards => "all-master-shards",
            Self::AllNodes => "all-nodes",
        }
    }
}

/// How shards are spread.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ShardsPlacement {
    /// On as few nodes as hold them.
    Dense,
    /// On as many nodes as there are.
    Sparse,
}

/// What survives a restart of the engine.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Persistence {
    /// Nothing.
    Disabled,
    /// Append-only file, synced every second.
    AofEverySecond,
    /// Append-only file, synced at every write.
    AofEveryWrite,
    /// A snapshot after `seconds` if at least `writes` keys changed.
    Snapshot {
        /// Interval, seconds.
        seconds: u32,
        /// Least number of changes.
        writes: u32,
    },
}

/// What the engine does when it is full.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum EvictionPolicy {
    /// Refuse writes.
    Noeviction,
    /// Least recently used of all keys.
    AllkeysLru,
    /// Least frequently used of all keys.
    AllkeysLfu,
    /// Any key.
    AllkeysRandom,
    /// Least recently used of keys that expire.
    VolatileLru,
    /// Least frequently used of keys that expire.
    VolatileLfu,
    /// Any key that expires.
    VolatileRandom,
    /// The key that expires first.
    VolatileTtl,
}

impl EvictionPolicy {
    /// As the engine's `maxmemory-policy` spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Noeviction => "noeviction",
            Self::AllkeysLru => "allkeys-lru",
            Self::AllkeysLfu => "allkeys-lfu",
            Self::AllkeysRandom => "allkeys-random",
            Self::VolatileLru => "volatile-lru",
            Self::VolatileLfu => "volatile-lfu",
            Self::VolatileRandom => "volatile-random",
            Self::VolatileTtl => "volatile-ttl",
        }
    }
}

/// A database.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Database {
    /// Schema of this document: 1.
    pub schema: u32,
    /// Its id.
    pub uid: DatabaseUid,
    /// Its name, unique.
    pub name: String,
    /// Port of its endpoint.
    pub port: u16,
    /// Memory limit, bytes: primaries and replicas together.
    pub memory_size: u64,
    /// Where it is in its life.
    pub status: DatabaseStatus,
    /// Engine that its shards run.
    pub engine: EngineId,
    /// Number of primary shards.
    pub shards_count: u32,
    /// Whether each primary has a replica.
    pub replication: bool,
    /// Whether no two copies of a slot are in one rack.
    #[serde(default)]
    pub rack_aware: bool,
    /// What becomes of its replicas that are lost.
    #[serde(default)]
    pub slave_ha: SlaveHa,
    /// What survives a restart.
    pub persistence: Persistence,
    /// What happens when it is full.
    pub eviction_policy: EvictionPolicy,
    /// Which proxies serve it.
    pub proxy_policy: ProxyPolicy,
    /// How its shards are spread.
    pub shards_placement: ShardsPlacement,
    /// Password of the default user; `None`: no password asked.
    #[serde(default)]
    pub password: Option<Secret>,
    /// Most client connections per proxy, 0: no limit but the proxy's own.
    #[serde(default)]
    pub max_connections: u32,
    /// Its other limits in the proxies.
    #[serde(default)]
    pub tuning: DatabaseTuning,
    /// Which keyspace events its engines publish, as [`crate::tuning::keyspace_events`] spells it;
    /// empty: none.
    #[serde(default)]
    pub notify_keyspace_events: String,
    /// Tags as the operator set them.
    #[serde(default)]
    pub tags: Vec<Tag>,
    /// Whether all of its proxies are known to answer clients only with a lease. Before that no copy is
    /// recorded; afterwards it stays so. See [`crate::lease`].
    #[serde(default)]
    pub leased: bool,
    /// The operation that changes it now.
    #[serde(default)]
    pub operation: Option<OperationUid>,
    /// When it was created.
    pub created: Timestamp,
    /// When it was changed last.
    pub changed: Timestamp,
    /// Fields of a newer release.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// A free note on a database.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Tag {
    /// Its name.
    pub key: String,
    /// Its value.
    pub value: String,
}

/// A user of the platform.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct User {
    /// Schema of this document: 1.
    pub schema: u32,
    /// Its id.
    pub uid: UserUid,
    /// What it signs in with.
    pub email: String,
    /// Its name.
    pub name: String,
    /// argon2id hash of the password, PHC string.
    pub password_hash: Secret,
    /// What it may do.
    pub management: ManagementRole,
    /// Fields of a newer release.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Management part of a role.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ManagementRole {
    /// Everything.
    Admin,
    /// Databases and nodes.
    ClusterMember,
    /// Look at everything.
    ClusterViewer,
    /// Change databases.
    DbMember,
    /// Look at databases.
    DbViewer,
    /// Users.
    UserManager,
    /// Nothing.
    None,
}

/// How grave an event is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Severity {
    /// For information.
    Info,
    /// Look at it.
    Warning,
    /// Something failed.
    Error,
    /// Data or service is in danger.
    Critical,
}

/// Something that happened, for `/v1/logs`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Schema of this document: 1.
    pub schema: u32,
    /// Its number.
    pub number: u64,
    /// When.
    pub time: Timestamp,
    /// Its type, such as `bdb_created`.
    #[serde(rename = "type")]
    pub kind: String,
    /// How grave.
    pub severity: Severity,
    /// Facts of this type, such as `bdb_uid`.
    #[serde(flatten)]
    pub facts: Map<String, Value>,
}
