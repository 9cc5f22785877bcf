//! The objects of the REST API, as they travel. Names and values as operators know them; fields that
//! are ours alone say so.

use crate::documents::{ProxyPolicy, Sensitivity, ShardsPlacement};
use crate::ids::{DatabaseUid, NodeUid, OperationUid, ShardUid};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

macro_rules! object {
    ($(#[$meta:meta])* pub struct $name:ident { $($body:tt)* }) => {
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        $(#[$meta])*
        pub struct $name { $($body)* }
    };
}

mod action;
mod database;
mod proxy;
mod stats;
mod upgrade;
mod upgrade_run;
pub use action::{
    Actions, ActionsStarted, NodeActionRequest, NodeSnapshotInfo, PaceRequest, SnapshotShardInfo,
    StateMachine,
};
pub use database::{
    Bdb, BdbRequest, Endpoint, EndpointProxy, SHARD_KEY_RULES, ShardKeyRule, SnapshotPolicy,
};
pub use proxy::{Proxy, ProxyUpdate};
pub use stats::{DatabaseStats, ProxyInfo, SlowlogEntry, StatsSample};
pub use upgrade::{
    NodePath, PathRow, UpgradeDone, UpgradeNodeStatus, UpgradePaths, UpgradeSettings, UpgradeStatus,
};
pub use upgrade_run::{
    UpgradeBundleReceived, UpgradePause, UpgradeRunInfo, UpgradeStart, UpgradeTurn,
};

object! {
    /// `GET /v1/cluster`.
    pub struct ClusterInfo {
        /// The cluster's name.
        pub name: String,
        /// When it was created, RFC 3339.
        pub created_time: String,
        /// REST port.
        pub cnm_https_port: u16,
        /// Console port.
        pub cm_port: u16,
        /// Idle time of the console, minutes.
        pub cm_session_timeout_minutes: u32,
        /// Whether nodes run different releases.
        pub upgrade_mode: bool,
        /// Ours: id of the cluster.
        pub cluster_id: String,
        /// Ours: what the whole cluster may use.
        pub feature_level: u32,
        /// Ours: SHA-256 of the CA's certificate, hex with colons.
        pub ca_fingerprint: String,
        /// Ours: the CA's certificate, PEM.
        pub ca_certificate: String,
        /// Ours: the primary node, if one is known.
        pub primary_node: Option<NodeUid>,
        /// Ours: whether a quorum confirmed this answer; `false`: it is what the asked node knew
        /// last, and nothing can be changed.
        pub has_quorum: bool,
        /// Ours: the node that answered.
        pub local_node: NodeUid,
        /// Ours: whether that was removed from the cluster; what it answers is what it knew last.
        #[serde(default)]
        pub removed: bool,
        /// Ours: nodes that vote on the configuration.
        pub voters: Vec<NodeUid>,
        /// Ours: revision of the configuration (also header `cluster-state-id`).
        pub state_id: u64,
        /// Ours: the upgrade that is under way; absent: none.
        #[serde(default)]
        pub upgrade: Option<UpgradeStatus>,
        /// Ours: settings that `GET /v1/cluster/policy` shows too.
        pub policy: ClusterPolicy,
    }
}

object! {
    /// Settings (`/v1/cluster/policy`, and part of `/v1/cluster`).
    pub struct ClusterPolicy {
        /// Policy of new databases with one shard.
        pub default_non_sharded_proxy_policy: Option<ProxyPolicy>,
        /// Policy of new databases with several shards.
        pub default_sharded_proxy_policy: Option<ProxyPolicy>,
        /// Placement of new databases.
        pub default_shards_placement: Option<ShardsPlacement>,
        /// Engine of new databases, `x.y`; empty: the newest.
        pub default_provisioned_redis_version: Option<String>,
        /// Whether databases may have each copy of their slots in another rack; never off again.
        #[serde(default)]
        pub rack_aware: Option<bool>,
        /// How fast failures are judged.
        pub failure_detection_sensitivity: Option<Sensitivity>,
        /// Whether lost replicas are made anew on another node.
        #[serde(default)]
        pub slave_ha: Option<bool>,
        /// How long a replica is lost before that, seconds.
        #[serde(default)]
        pub slave_ha_grace_period: Option<u32>,
        /// How long the replicas of another node wait after that, seconds.
        #[serde(default)]
        pub slave_ha_cooldown_period: Option<u32>,
        /// How long a database waits after that until it is done again, seconds.
        #[serde(default)]
        pub slave_ha_bdb_cooldown_period: Option<u32>,
    }
}

object! {
    /// Body of `PUT /v1/cluster` and `PUT /v1/cluster/policy`: what is absent stays.
    #[serde(deny_unknown_fields, default)]
    pub struct ClusterUpdate {
        /// Idle time of the console, minutes.
        pub cm_session_timeout_minutes: Option<u32>,
        /// Policy of new databases with one shard.
        pub default_non_sharded_proxy_policy: Option<ProxyPolicy>,
        /// Policy of new databases with several shards.
        pub default_sharded_proxy_policy: Option<ProxyPolicy>,
        /// Placement of new databases.
        pub default_shards_placement: Option<ShardsPlacement>,
        /// Engine of new databases, `x.y`; empty: the newest.
        pub default_provisioned_redis_version: Option<String>,
        /// Whether databases may have each copy of their slots in another rack; never off again.
        #[serde(default)]
        pub rack_aware: Option<bool>,
        /// How fast failures are judged.
        pub failure_detection_sensitivity: Option<Sensitivity>,
        /// Whether lost replicas are made anew on another node.
        #[serde(default)]
        pub slave_ha: Option<bool>,
        /// How long a replica is lost before that, seconds.
        #[serde(default)]
        pub slave_ha_grace_period: Option<u32>,
        /// How long the replicas of another node wait after that, seconds.
        #[serde(default)]
        pub slave_ha_cooldown_period: Option<u32>,
        /// How long a database waits after that until it is done again, seconds.
        #[serde(default)]
        pub slave_ha_bdb_cooldown_period: Option<u32>,
    }
}

object! {
    /// An engine version that a node carries.
    pub struct DatabaseVersion {
        /// `redis` or `valkey`.
        pub db_type: String,
        /// Its version.
        pub version: String,
    }
}

object! {
    /// Body of `PUT /v1/nodes/{uid}`: what is absent stays.
    #[serde(deny_unknown_fields, default)]
    pub struct NodeUpdate {
        /// Its rack: where nodes fail together.
        pub rack_id: Option<String>,
    }
}

object! {
    /// A node (`/v1/nodes`).
    pub struct NodeInfo {
        /// Its id.
        pub uid: NodeUid,
        /// Its address.
        pub addr: String,
        /// Addresses as seen from outside.
        pub external_addr: Vec<String>,
        /// `active`, `down`, or `unknown`: the primary node is new and has not heard of it yet.
        pub status: String,
        /// Its rack.
        pub rack_id: String,
        /// Whether it may hold shards.
        pub accept_servers: bool,
        /// `x86_64`.
        pub architecture: String,
        /// Cores.
        pub cores: u32,
        /// Memory that it offers, bytes.
        pub total_memory: u64,
        /// Its host's name.
        pub hostname: String,
        /// `debian`.
        pub os_family: String,
        /// As the host prints it.
        pub os_version: String,
        /// Folder of what must survive.
        pub persistent_storage_path: String,
        /// Size of its file system, bytes.
        pub persistent_storage_size: u64,
        /// Ours: free there, bytes.
        pub persistent_storage_free: u64,
        /// Folder for scratch.
        pub ephemeral_storage_path: String,
        /// Size of its file system, bytes.
        pub ephemeral_storage_size: u64,
        /// Shards on it.
        pub shard_count: u32,
        /// Uids of its shards.
        pub shard_list: Vec<ShardUid>,
        /// Version of its release.
        pub software_version: String,
        /// Ours: build id of its release.
        pub software_version_sha: String,
        /// Engines that it carries.
        pub supported_database_versions: Vec<DatabaseVersion>,
        /// Seconds since its host started.
        pub uptime: u64,
        /// Most shards.
        pub max_redis_servers: u32,
        /// Ours: lowest feature level that it can run.
        pub feature_min: u32,
        /// Ours: highest feature level that it can run.
        pub feature_max: u32,
        /// Ours: seconds since it was heard last; absent: never.
        pub last_heard_seconds: Option<f64>,
        /// Ours: its services.
        pub services: BTreeMap<String, ServiceInfo>,
        /// Ours: its proxy.
        pub proxy: Option<ProxyInfo>,
    }
}

object! {
    /// A service of a node (`/v1/local/services`, and part of a node).
    pub struct ServiceInfo {
        /// When it was started, RFC 3339.
        pub start_time: Option<String>,
        /// `RUNNING`, `STARTING`, `RESTARTING`, `STOPPED`.
        pub status: String,
        /// Ours: its process.
        pub pid: Option<u32>,
    }
}

object! {
    /// A node's entry in `/v1/nodes/status`, keyed by its uid.
    pub struct NodeStatus {
        /// Cores.
        pub cores: u32,
        /// Memory left for new shards, bytes, less overhead.
        pub free_provisional_ram: u64,
        /// Free memory, bytes.
        pub free_ram: u64,
        /// Its host's name.
        pub hostname: String,
        /// Uids of its primaries.
        pub master_shards: Vec<ShardUid>,
        /// Uids of its replicas.
        pub slave_shards: Vec<ShardUid>,
        /// Memory left for new shards after those that exist have grown to their limits, bytes;
        /// negative: promised too often.
        pub node_overbooking_depth: i64,
        /// `OK`, `DOWN`, or `UNKNOWN`: the primary node is new and has not heard of it yet.
        pub node_status: String,
        /// `master` (the primary node) or `slave`.
        pub role: String,
        /// Version of its release.
        pub software_version: String,
        /// Build id of its release.
        pub software_version_sha: String,
        /// Memory that it offers, bytes.
        pub total_memory: u64,
        /// Memory that it offers to shards, bytes.
        pub total_provisional_ram: u64,
        /// Ours: its address.
        pub addr: String,
        /// Ours: seconds since it was heard last; absent: never.
        pub last_heard_seconds: Option<f64>,
        /// The snapshot of its maintenance mode, while that is on.
        #[serde(default)]
        pub maintenance_snapshot: Option<NodeSnapshotInfo>,
        /// Ours: whether it leaves the cluster when nothing is on it any more.
        #[serde(default)]
        pub leaving: bool,
        /// Ours: whether its disk is full, so that it does not vote on the configuration.
        #[serde(default)]
        pub disk_full: bool,
    }
}

object! {
    /// A shard (`/v1/shards`).
    pub struct ShardInfo {
        /// Its id.
        pub uid: ShardUid,
        /// Its database.
        pub bdb_uid: DatabaseUid,
        /// Ours: its database's name.
        pub bdb_name: String,
        /// Its node.
        pub node_uid: NodeUid,
        /// `master` or `slave`.
        pub role: String,
        /// `0-16383`.
        pub assigned_slots: String,
        /// `active` or `inactive`.
        pub status: String,
        /// `ok`, `loading`, `no_writes` (it refuses them, and serves all else), `down`, `timeout`, `unknown`.
        pub detailed_status: String,
        /// Ours: why it is not `ok`.
        pub error: Option<String>,
        /// Ours: its port.
        pub port: u16,
        /// Ours: its process.
        pub pid: Option<u32>,
        /// Ours: its engine and version.
        pub engine: String,
        /// Ours: epoch of its replica set.
        pub epoch: u64,
        /// Figures of the engine: `used_memory`, `mem_frag_ratio`, `no_of_keys`, `connected_clients`.
        pub redis_info: Map<String, Value>,
        /// Loading.
        pub loading: ShardLoading,
        /// A replica's sync with its master: `idle` once it has all data.
        #[serde(default)]
        pub sync: Option<ShardLoading>,
        /// When its node reported, RFC 3339.
        pub report_timestamp: String,
    }
}

object! {
    /// Loading of a shard.
    pub struct ShardLoading {
        /// Percent.
        pub progress: f64,
        /// `in_progress` or `idle`.
        pub status: String,
    }
}

object! {
    /// Primaries that are to hand their role to a replica.
    #[serde(deny_unknown_fields)]
    pub struct FailoverRequest {
        /// Ours: the database of the shards.
        #[serde(default)]
        pub bdb_uid: Option<DatabaseUid>,
        /// The masters; left out where the path names one.
        #[serde(default)]
        pub shard_uids: Option<Vec<ShardUid>>,
        /// Ours: whether replicas need not have followed for a while first.
        #[serde(default)]
        pub immediate: Option<bool>,
    }
}

object! {
    /// Shards that are to be brought to another node.
    #[serde(deny_unknown_fields)]
    pub struct MigrateRequest {
        /// The shards; left out where the path, a database or a node names them.
        #[serde(default)]
        pub shard_uids: Option<Vec<ShardUid>>,
        /// Ours: those of this database; with `shard_uids`, the database that they must be of.
        #[serde(default)]
        pub bdb_uid: Option<DatabaseUid>,
        /// Ours: those on this node.
        #[serde(default)]
        pub node_uid: Option<NodeUid>,
        /// Ours: with a database or a node, only its `master` or only its `slave` shards.
        #[serde(default)]
        pub role: Option<String>,
        /// Where to.
        pub target_node_uid: NodeUid,
        /// Whether the node may have another copy of their slots.
        #[serde(default)]
        pub override_policy: Option<bool>,
    }
}

object! {
    /// A role that was handed over.
    pub struct Moved {
        /// The old master.
        pub from: ShardUid,
        /// The new one.
        pub to: ShardUid,
        /// Epoch of the replica set since then.
        pub epoch: u64,
        /// How long proxies held commands, µs.
        pub held_us: u64,
    }
}

object! {
    /// Answer to a change that goes on: `action_uid` is followed at `/v1/actions/{uid}`.
    pub struct ActionStarted {
        /// Its id.
        pub action_uid: Option<OperationUid>,
    }
}

object! {
    /// `GET /v1/bootstrap`.
    pub struct Bootstrap {
        /// How far it is.
        pub bootstrap_status: BootstrapState,
        /// This node.
        pub local_node_info: LocalNodeInfo,
    }
}

object! {
    /// How far the bootstrap is.
    pub struct BootstrapState {
        /// `idle`, `initiated`, `creating_cluster`, `joining_cluster`, `error`, `completed`.
        pub state: String,
        /// When it began, RFC 3339.
        pub start_time: Option<String>,
        /// When it ended, RFC 3339.
        pub end_time: Option<String>,
        /// Code of the error.
        pub error_code: Option<String>,
        /// Details of the error.
        pub error_details: Option<String>,
    }
}

object! {
    /// This node, before and after it belongs to a cluster.
    pub struct LocalNodeInfo {
        /// Its id, once it has one.
        pub uid: Option<NodeUid>,
        /// Its version.
        pub software_version: String,
        /// Cores.
        pub cores: u32,
        /// Size of scratch, bytes.
        pub ephemeral_storage_size: u64,
        /// Size of what must survive, bytes.
        pub persistent_storage_size: u64,
        /// As the host prints it.
        pub os_version: String,
        /// Memory that it offers, bytes.
        pub total_memory: u64,
        /// Seconds since its host started.
        pub uptime: u64,
        /// Its addresses.
        pub available_addrs: Vec<AvailableAddress>,
        /// Ours: SHA-256 of the CA's certificate, once there is one.
        pub ca_fingerprint: Option<String>,
    }
}

object! {
    /// An address of a node.
    pub struct AvailableAddress {
        /// The address.
        pub address: String,
        /// `ipv4` or `ipv6`.
        pub format: String,
        /// Interface; empty when unknown.
        pub if_name: String,
        /// Whether it is a private one.
        pub private: bool,
    }
}

object! {
    /// Body of `POST /v1/bootstrap/create_cluster` and `…/join_cluster`.
    #[serde(deny_unknown_fields, default)]
    pub struct BootstrapRequest {
        /// `create_cluster` or `join_cluster`; may be left out, the path says it.
        pub action: Option<String>,
        /// The cluster.
        pub cluster: ClusterIdentity,
        /// The admin's.
        pub credentials: Credentials,
        /// This node.
        pub node: NodeIdentityRequest,
    }
}

object! {
    /// The cluster, in a bootstrap request.
    #[serde(deny_unknown_fields, default)]
    pub struct ClusterIdentity {
        /// Its name (create).
        pub name: Option<String>,
        /// Addresses of members (join).
        pub nodes: Vec<String>,
        /// Whether the call waits for the end; default true.
        pub wait_command: Option<bool>,
    }
}

object! {
    /// Who asks, in a bootstrap request.
    #[serde(deny_unknown_fields, default)]
    pub struct Credentials {
        /// E-mail.
        pub username: Option<String>,
        /// Password.
        pub password: Option<String>,
        /// The CA's certificate, PEM (join).
        pub trusted_ca: Option<String>,
        /// Ours: its SHA-256, hex, colons allowed (join).
        pub ca_fingerprint: Option<String>,
    }
}

object! {
    /// The node, in a bootstrap request.
    #[serde(deny_unknown_fields, default)]
    pub struct NodeIdentityRequest {
        /// Its identity.
        pub identity: Option<NodeIdentityFields>,
    }
}

object! {
    /// Identity of a node, in a bootstrap request.
    #[serde(deny_unknown_fields, default)]
    pub struct NodeIdentityFields {
        /// Its rack.
        pub rack_id: Option<String>,
        /// Addresses as seen from outside.
        pub external_addr: Option<Vec<String>>,
    }
}

object! {
    /// An event (`/v1/logs`).
    pub struct LogEvent {
        /// When, RFC 3339.
        pub time: String,
        /// Its type.
        #[serde(rename = "type")]
        pub kind: String,
        /// `INFO`, `WARNING`, `ERROR`, `CRITICAL`.
        pub severity: String,
        /// Facts of its type.
        #[serde(flatten)]
        pub facts: Map<String, Value>,
    }
}

object! {
    /// `GET /v1/nodes/check/{uid}`, and part of `/v1/cluster/check`.
    pub struct NodeCheck {
        /// Which node.
        pub node_uid: NodeUid,
        /// Whether all passed.
        pub result: bool,
        /// What did not.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        pub error: Option<String>,
    }
}

object! {
    /// `GET /v1/cluster/check`.
    pub struct ClusterCheck {
        /// Whether all nodes passed.
        pub cluster_test_result: bool,
        /// Each node.
        pub nodes: Vec<NodeCheck>,
    }
}

object! {
    /// `GET /v1/local/node/master_healthcheck`.
    pub struct PrimaryHealthcheck {
        /// `active`: this node has a valid link to the primary node and to a quorum of the
        /// configuration store; `inactive`: it has not.
        pub status: String,
    }
}

object! {
    /// Body of `POST /v1/cluster/actions/change_master`.
    #[serde(deny_unknown_fields, default)]
    pub struct ChangePrimaryNode {
        /// The node that becomes the primary node; left out: any other.
        pub node_uid: Option<NodeUid>,
    }
}

object! {
    /// `POST /v1/bootstrap/validate/{action}`: what is wrong comes as an error.
    pub struct BootstrapCheck {
        /// `create_cluster` or `join_cluster`.
        pub action: String,
        /// Always true.
        pub valid: bool,
    }
}
