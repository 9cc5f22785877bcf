//! What a node says of itself. Observations travel in heartbeats and are never stored: they are
//! true for a moment, and whoever plans from them says how old they may be.

use crate::documents::Role;
use crate::ids::{DatabaseUid, Epoch, Generation, NodeUid, Revision, ShardUid};
use crate::release::EngineId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Everything that a node knows of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeObservation {
    /// Which node.
    pub node: NodeUid,
    /// When it looked, by its clock.
    pub taken: Timestamp,
    /// The release that its `cnm_exec` runs.
    pub software_version: String,
    /// Build id of that release (the manifest's).
    pub build_id: String,
    /// Lowest feature level that it can run.
    pub feature_min: u32,
    /// Highest feature level that it can run.
    pub feature_max: u32,
    /// When its `cnm_exec` started.
    pub started: Timestamp,
    /// The host.
    pub host: HostFacts,
    /// Engines that its release carries.
    pub engines: Vec<EngineId>,
    /// Its engine processes.
    pub shards: Vec<ShardObservation>,
    /// Its proxy; `None` while it is not heard.
    pub proxy: Option<ProxyObservation>,
    /// Its services, as supervisord sees them; empty when it does not answer.
    pub services: Vec<ServiceObservation>,
    /// Revision up to which its store is applied.
    pub applied: Revision,
    /// Hash of its store's state at `applied`, hex; all nodes agree at the same revision.
    pub state_hash: String,
}

/// The host under a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HostFacts {
    /// Its name.
    pub hostname: String,
    /// `x86_64`.
    pub architecture: String,
    /// `debian`.
    pub os_family: String,
    /// `Debian GNU/Linux 12 (bookworm)`.
    pub os_version: String,
    /// Cores.
    pub cores: u32,
    /// Memory that this node may use, bytes: the host's, or less where the install says so.
    pub total_memory: u64,
    /// Memory that is free, bytes.
    pub free_memory: u64,
    /// Size of the file system under `persist`, bytes.
    pub persistent_size: u64,
    /// Free there, bytes.
    pub persistent_free: u64,
    /// Size of the file system under `tmp`, bytes.
    pub ephemeral_size: u64,
    /// Free there, bytes.
    pub ephemeral_free: u64,
    /// Seconds since the host started.
    pub uptime: u64,
    /// Id of this start of the host (`/proc/sys/kernel/random/boot_id`).
    pub boot_id: String,
}

/// Where an engine process is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineState {
    /// Started, does not answer yet.
    Starting,
    /// Answers that it loads its data.
    Loading,
    /// Answers.
    Running,
    /// Its process is gone; its folder is there.
    Stopped,
    /// It does not start; `error` says why.
    Failed,
    /// Alive, but does not answer in time.
    Unresponsive,
}

/// An engine process, as its agent sees it. A shard without process and folder is not listed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShardObservation {
    /// Which shard.
    pub shard: ShardUid,
    /// Its database.
    pub database: DatabaseUid,
    /// Generation of the description that it was started from.
    pub generation: Generation,
    /// Where it is.
    pub state: EngineState,
    /// Role that was given to this process; `None`: it still has none and serves nobody.
    pub role: Option<Role>,
    /// Epoch of that role.
    pub epoch: Option<Epoch>,
    /// Its process.
    pub pid: Option<u32>,
    /// The engine's own id of this process.
    pub run_id: Option<String>,
    /// The engine that runs.
    pub engine: EngineId,
    /// Memory used by data, bytes.
    pub used_memory: u64,
    /// `mem_fragmentation_ratio`.
    pub fragmentation: f64,
    /// Keys.
    pub keys: u64,
    /// Client connections (proxies and agent).
    pub connections: u64,
    /// Progress of loading, percent.
    pub loading_percent: f64,
    /// Why it failed.
    pub error: Option<String>,
}

/// A proxy, as it says itself over its configuration socket.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProxyObservation {
    /// Process of the server (not of the launcher).
    pub pid: u32,
    /// Release that it runs.
    pub software_version: String,
    /// Its build id.
    pub build_id: String,
    /// Revision of the configuration that all its workers have applied.
    pub applied: Revision,
    /// Worker threads.
    pub threads: u32,
    /// Client connections.
    pub connections: u64,
    /// Commands served since start.
    pub commands: u64,
    /// Per database.
    pub databases: Vec<ProxyDatabaseObservation>,
}

/// One database in one proxy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProxyDatabaseObservation {
    /// Which database.
    pub database: DatabaseUid,
    /// Whether its listener is open.
    pub listening: bool,
    /// Whether its shards are reachable.
    pub shards_connected: bool,
    /// Why one of the two is not so.
    pub error: Option<String>,
    /// Client connections.
    pub connections: u64,
    /// Commands served since start.
    pub commands: u64,
}

/// A service, as supervisord sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceObservation {
    /// Its name: `cnm_exec`, `cnm_http`, `dmcproxy`.
    pub name: String,
    /// `RUNNING`, `STARTING`, `RESTARTING`, `STOPPED`.
    pub status: String,
    /// Its process.
    pub pid: Option<u32>,
    /// When it was started.
    pub start_time: Option<Timestamp>,
}
