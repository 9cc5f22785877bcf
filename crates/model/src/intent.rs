//! What an operator may ask of the cluster. `cnm_http` turns requests into intents, `cnm_exec` on
//! the primary node carries them out.

use crate::documents::{
    EvictionPolicy, Persistence, ProxyPolicy, Role, Sensitivity, ShardsPlacement, Tag,
};
use crate::ids::{DatabaseUid, NodeUid, OperationUid, ShardUid};
use crate::secret::Secret;
use crate::tuning::{ProxyChange, TuningChange};
use crate::upgrade::run::StartRun;
use crate::upgrade::{NodePhase, ReleaseFacts};
use serde::{Deserialize, Serialize};

/// A change that is asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "intent", rename_all = "snake_case")]
pub enum Intent {
    /// Create a database.
    CreateDatabase(DatabaseSpec),
    /// Change a database.
    UpdateDatabase {
        /// Which.
        database: DatabaseUid,
        /// What.
        change: Box<DatabaseChange>,
    },
    /// Delete a database and its data.
    DeleteDatabase {
        /// Which.
        database: DatabaseUid,
    },
    /// Change settings of the cluster.
    UpdateCluster(ClusterChange),
    /// Turn a node's maintenance mode on.
    MaintenanceOn {
        /// Which node.
        node: NodeUid,
        /// How.
        #[serde(default)]
        wish: MaintenanceWish,
        /// How fast.
        #[serde(default)]
        pace: Pace,
    },
    /// Turn it off.
    MaintenanceOff {
        /// Which node.
        node: NodeUid,
        /// What comes back.
        #[serde(default)]
        restore: Restore,
        /// How fast.
        #[serde(default)]
        pace: Pace,
    },
    /// Take a node out of the cluster.
    RemoveNode {
        /// Which node.
        node: NodeUid,
        /// How fast.
        #[serde(default)]
        pace: Pace,
    },
    /// The primaries of a node hand their role to replicas elsewhere.
    EnslaveNode {
        /// Which node.
        node: NodeUid,
        /// Whether it gives the part of the primary node away, too.
        #[serde(default)]
        demote_node: bool,
        /// Whether databases that are busy are passed over instead of refused: the node goes down in
        /// any case.
        #[serde(default)]
        pass_over_busy: bool,
        /// How fast.
        #[serde(default)]
        pace: Pace,
    },
    /// What is on a node is noted, forgotten, or brought back.
    NodeSnapshot {
        /// Which node.
        node: NodeUid,
        /// The snapshot's name.
        name: String,
        /// What is done.
        what: SnapshotWhat,
        /// How fast.
        #[serde(default)]
        pace: Pace,
    },
    /// An operation that pauses goes on.
    RetryOperation {
        /// It, or the action that it is part of.
        operation: OperationUid,
    },
    /// An operation that moves roles or shards is given up: what it has not begun is not begun.
    AbortOperation {
        /// It, or the action that it is part of.
        operation: OperationUid,
    },
    /// Shards are brought to another node.
    MigrateShards {
        /// Which.
        what: MigrateWhat,
        /// The node.
        node: NodeUid,
        /// Whether the node may have another copy of their slots, or take no shards otherwise.
        #[serde(default)]
        override_policy: bool,
    },
    /// Primaries hand their role to a replica.
    FailoverShards {
        /// The database, if it was named.
        #[serde(default)]
        database: Option<DatabaseUid>,
        /// The primaries.
        shards: Vec<ShardUid>,
        /// Whether replicas need not have followed for a while first.
        #[serde(default)]
        immediate: bool,
    },
    /// Change settings of proxies.
    UpdateProxy {
        /// The node of the proxy; `None`: every node.
        node: Option<NodeUid>,
        /// What.
        change: ProxyChange,
    },
    /// Change what is known of a node.
    UpdateNode {
        /// Which.
        node: NodeUid,
        /// Its rack from now on.
        #[serde(default)]
        rack_id: Option<String>,
    },
    /// An installer says what a node runs, or is about to run.
    NodeRelease {
        /// Which node.
        node: NodeUid,
        /// What is said.
        phase: NodePhase,
        /// The release that is meant.
        release: ReleaseFacts,
    },
    /// Change how upgrades end.
    UpdateUpgrade {
        /// Whether the level waits for an operator.
        #[serde(default)]
        hold_finalize: Option<bool>,
        /// How long the soak takes, seconds.
        #[serde(default)]
        soak_seconds: Option<u32>,
    },
    /// Finalise the upgrade now.
    FinalizeUpgrade,
    /// Upgrade all nodes, one after the other.
    StartUpgradeRun(Box<StartRun>),
    /// No further node's turn begins.
    PauseUpgradeRun,
    /// It goes on.
    ResumeUpgradeRun,
    /// Every node that was upgraded goes back, one after the other.
    RollBackUpgradeRun,
    /// Make another node the primary node.
    ChangePrimaryNode {
        /// Which; `None`: any other.
        node: Option<NodeUid>,
    },
}

impl Intent {
    /// The node that gives the part of the primary node away with this, if it has it.
    #[must_use]
    pub const fn demotes(&self) -> Option<NodeUid> {
        match self {
            Self::MaintenanceOn { node, wish, .. } if wish.demote_node => Some(*node),
            Self::EnslaveNode {
                node, demote_node, ..
            } if *demote_node => Some(*node),
            _ => None,
        }
    }
}

/// How a node's maintenance mode is turned on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MaintenanceWish {
    /// Whether replicas stay on the node.
    pub keep_slave_shards: bool,
    /// Databases whose replicas go all the same.
    pub evict_dbs: Vec<DatabaseUid>,
    /// Whether what is there now replaces the snapshot of an earlier time.
    pub overwrite_snapshot: bool,
    /// Whether the node gives the part of the primary node away.
    pub demote_node: bool,
}

/// What comes back to a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Restore {
    /// What was there when maintenance mode was turned on.
    #[default]
    Newest,
    /// What is in this snapshot.
    Named(String),
    /// Nothing.
    Nothing,
}

/// What is done with a node's snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotWhat {
    /// It is made.
    Create,
    /// It is forgotten.
    Delete,
    /// What is in it comes back to the node.
    Restore,
}

/// What became of the primaries of a node that is being stopped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drained {
    /// Those that gave their role to another node.
    pub moved: Vec<ShardUid>,
    /// Those that have it still.
    pub stayed: Vec<Stayed>,
}

/// A primary that stayed on a node that is being stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stayed {
    /// It.
    pub shard: ShardUid,
    /// Its database.
    pub database: DatabaseUid,
    /// Why, in words.
    pub reason: String,
}

/// How fast an action on a node works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pace {
    /// How many databases at once; `None`: all.
    pub at_once: Option<u32>,
    /// How long a step may take until it pauses, seconds; `None`: [`crate::limits::STEP_WITHIN`].
    pub step_within_seconds: Option<u32>,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct IntentOutcome {
    /// The database that was created or changed.
    pub database: Option<DatabaseUid>,
    /// The operation that goes on.
    pub operation: Option<OperationUid>,
    /// All of them, where several databases are concerned.
    #[serde(default)]
    pub operations: Vec<OperationUid>,
}

/// A database to be created. What is `None` comes from the cluster's settings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DatabaseSpec {
    /// Its id, if the operator insists.
    pub uid: Option<DatabaseUid>,
    /// Its name.
    pub name: String,
    /// Its port; `None`: the next free one.
    pub port: Option<u16>,
    /// Its memory limit, bytes.
    pub memory_size: u64,
    /// Engine version as the operator writes it: `9.1`, `9.1.2`, `valkey-9.1`, `redis-7.0`.
    pub redis_version: Option<String>,
    /// Number of primary shards.
    pub shards_count: Option<u32>,
    /// Whether each primary has a replica.
    pub replication: Option<bool>,
    /// Whether no two copies of a slot are in one rack.
    #[serde(default)]
    pub rack_aware: Option<bool>,
    /// What becomes of lost replicas.
    #[serde(default)]
    pub slave_ha: SlaveHaChange,
    /// What survives a restart.
    pub persistence: Option<Persistence>,
    /// What happens when it is full.
    pub eviction_policy: Option<EvictionPolicy>,
    /// Which proxies serve it.
    pub proxy_policy: Option<ProxyPolicy>,
    /// How its shards are spread.
    pub shards_placement: Option<ShardsPlacement>,
    /// Password of the default user.
    pub password: Option<Secret>,
    /// Most client connections per proxy.
    pub max_connections: Option<u32>,
    /// Other limits.
    #[serde(default)]
    pub tuning: Box<TuningChange>,
    /// Which keyspace events are published.
    #[serde(default)]
    pub notify_keyspace_events: Option<String>,
    /// Tags.
    pub tags: Vec<Tag>,
    /// Only check, create nothing.
    pub dry_run: bool,
}

/// Which shards are brought to another node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum MigrateWhat {
    /// These.
    Shards {
        /// Their ids.
        shards: Vec<ShardUid>,
    },
    /// Those of a database.
    Database {
        /// Which.
        database: DatabaseUid,
        /// With which role.
        role: Option<Role>,
    },
    /// Those on a node.
    Node {
        /// Which.
        node: NodeUid,
        /// With which role.
        role: Option<Role>,
    },
}

/// A change of a database: what is `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DatabaseChange {
    /// New name.
    pub name: Option<String>,
    /// New memory limit, bytes.
    pub memory_size: Option<u64>,
    /// Whether each primary has a replica.
    #[serde(default)]
    pub replication: Option<bool>,
    /// Whether no two copies of a slot are in one rack.
    #[serde(default)]
    pub rack_aware: Option<bool>,
    /// What becomes of lost replicas.
    #[serde(default)]
    pub slave_ha: SlaveHaChange,
    /// New persistence.
    pub persistence: Option<Persistence>,
    /// New eviction policy.
    pub eviction_policy: Option<EvictionPolicy>,
    /// New proxy policy.
    pub proxy_policy: Option<ProxyPolicy>,
    /// New password; `Some("")` takes it away.
    pub password: Option<Secret>,
    /// New limit of connections.
    pub max_connections: Option<u32>,
    /// Other new limits.
    #[serde(default)]
    pub tuning: TuningChange,
    /// Which keyspace events are published from now on; `Some("")`: none.
    #[serde(default)]
    pub notify_keyspace_events: Option<String>,
    /// Who asks, if it is a client of the database and not an operator: its address and the node of
    /// its proxy.
    #[serde(default)]
    pub client: Option<(String, NodeUid)>,
    /// New tags.
    pub tags: Option<Vec<Tag>>,
}

/// A change of the cluster's settings: what is `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClusterChange {
    /// Policy of new databases with one shard.
    pub default_non_sharded_proxy_policy: Option<ProxyPolicy>,
    /// Policy of new databases with several shards.
    pub default_sharded_proxy_policy: Option<ProxyPolicy>,
    /// Placement of new databases.
    pub default_shards_placement: Option<ShardsPlacement>,
    /// Engine of new databases; `Some("")`: the newest again.
    pub default_redis_version: Option<String>,
    /// Idle time of the console, minutes.
    pub cm_session_timeout_minutes: Option<u32>,
    /// Whether databases may be rack-aware.
    #[serde(default)]
    pub rack_aware: Option<bool>,
    /// How fast failures are judged.
    pub failure_detection_sensitivity: Option<Sensitivity>,
    /// Whether lost replicas are made anew.
    #[serde(default)]
    pub slave_ha: Option<bool>,
    /// After how long, seconds.
    #[serde(default)]
    pub slave_ha_grace_period: Option<u32>,
    /// How long the replicas of another node wait then, seconds.
    #[serde(default)]
    pub slave_ha_cooldown_period: Option<u32>,
    /// How long the same database waits then, seconds.
    #[serde(default)]
    pub slave_ha_bdb_cooldown_period: Option<u32>,
}

/// A change of what a database says of lost replicas: what is `None` stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SlaveHaChange {
    /// Whether they are made anew.
    pub enabled: Option<bool>,
    /// That counts no more: it is as the cluster says.
    pub as_cluster: bool,
    /// Databases with a higher one come first.
    pub priority: Option<u32>,
}

/// What `cluster create` needs (local interface of `cnm_exec`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CreateCluster {
    /// The cluster's name (FQDN).
    pub name: String,
    /// E-mail of the first admin.
    pub username: String,
    /// Its password.
    pub password: Secret,
    /// Rack of this node.
    pub rack_id: Option<String>,
    /// Addresses of this node as seen from outside.
    #[serde(default)]
    pub external_address: Vec<String>,
}

/// What `cluster join` needs (local interface of `cnm_exec`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JoinCluster {
    /// Addresses of nodes of the cluster, `ip` or `ip:port`; tried in order.
    pub nodes: Vec<String>,
    /// E-mail of an admin.
    pub username: String,
    /// Its password: sent only to a node whose CA matches.
    pub password: Secret,
    /// SHA-256 of the CA's certificate (DER), hex, colons allowed.
    pub ca_fingerprint: Option<String>,
    /// The CA's certificate itself, PEM, instead of the fingerprint.
    pub trusted_ca: Option<String>,
    /// Rack of this node.
    pub rack_id: Option<String>,
    /// Addresses of this node as seen from outside.
    #[serde(default)]
    pub external_address: Vec<String>,
}

/// What a joining node sends to a member (through its REST port).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// Its address.
    pub address: String,
    /// Its host's name.
    pub hostname: String,
    /// Its internode port.
    pub internode_port: u16,
    /// Its REST port.
    pub https_port: u16,
    /// Memory that it offers, bytes.
    pub memory_bytes: u64,
    /// Its version.
    pub software_version: String,
    /// Highest feature level that it can run.
    pub feature_max: u32,
    /// Lowest feature level that it can run.
    pub feature_min: u32,
    /// Public key and names for its certificate: a certificate signing request, PEM.
    pub csr: String,
    /// Its rack.
    pub rack_id: Option<String>,
    /// Addresses as seen from outside.
    #[serde(default)]
    pub external_address: Vec<String>,
}

/// What it gets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JoinGrant {
    /// Its id.
    pub node: NodeUid,
    /// The cluster's id.
    pub cluster_id: String,
    /// The cluster's name.
    pub cluster_name: String,
    /// The CA's certificate, PEM.
    pub ca_certificate: String,
    /// Its own certificate, PEM.
    pub certificate: String,
    /// Members: uid and internode address (`ip:port`).
    pub members: Vec<(NodeUid, String)>,
}

/// What `GET /local/bootstrap` answers, and REST shows of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BootstrapStatus {
    /// `idle`, `creating_cluster`, `joining_cluster`, `completed`, `error`.
    pub state: String,
    /// When it began, RFC 3339.
    pub start_time: Option<String>,
    /// When it ended.
    pub end_time: Option<String>,
    /// Code of the error.
    pub error_code: Option<String>,
    /// Details of the error.
    pub error_details: Option<String>,
    /// This node's id, once it has one.
    pub node: Option<NodeUid>,
    /// This node's version.
    pub software_version: String,
    /// The host.
    pub host: crate::observation::HostFacts,
    /// This node's address.
    pub address: String,
    /// SHA-256 of the CA's certificate, hex with colons, once there is one.
    pub ca_fingerprint: Option<String>,
    /// It was removed from the cluster that it was a member of.
    #[serde(default)]
    pub removed: bool,
}
