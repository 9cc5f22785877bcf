//! What a node says of itself. Observations travel in heartbeats and are never stored: they are
//! true for a moment, and whoever plans from them says how old they may be.

use crate::documents::Role;
use crate::ids::{DatabaseUid, Epoch, Generation, NodeUid, Revision, ShardUid};
use crate::release::EngineId;
use crate::replication::ReplicationObservation;
use crate::upgrade::UpgradeObservation;
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
    /// Whether it is being stopped: it is no place for a primary.
    #[serde(default)]
    pub stopping: bool,
    /// Whether what its configuration store is to write waits for room on its disk: it does not vote until then. Up to
    /// 1.1.0 no node tells: its `cnm_exec` ends instead.
    #[serde(default)]
    pub disk_full: bool,
    /// For upgrades.
    #[serde(default)]
    pub upgrade: UpgradeObservation,
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
    /// Alive, but does not answer in time; without a process: its agent does not know whether it runs.
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
    /// How it replicates, when it answers.
    #[serde(default)]
    pub replication: Option<ReplicationObservation>,
    /// For whom it gives promises; `None`: for nobody.
    #[serde(default)]
    pub keeper: Option<KeeperObservation>,
    /// Until when its data were kept up to date on disk, if this process has loaded them from there and was given no
    /// role since.
    #[serde(default)]
    pub data_written: Option<Timestamp>,
    /// That it has not served lately, though its process is there; `None`: it has, or its agent does not
    /// tell, as up to 1.1.0.
    #[serde(default)]
    pub stall: Option<EngineStall>,
    /// Whether its engine still writes the first files of the persistence that it was told: until they are complete,
    /// a start loads what it had before. Up to 1.1.0 no agent tells.
    #[serde(default)]
    pub files_pending: bool,
    /// Why its engine refuses writes though it runs: it cannot write to its disk. Up to 1.1.0 no agent tells.
    #[serde(default)]
    pub refuses_writes: Option<String>,
    /// How many starts in a row have failed since its files are damaged, as its engine says. Up to 1.1.0 no agent tells.
    #[serde(default)]
    pub load_failures: u32,
    /// Which decision to set its files aside was carried out last, by the time that the order names.
    #[serde(default)]
    pub set_aside: Option<Timestamp>,
}

impl ShardObservation {
    /// Whether its agent does not know what has become of its engine: it may be there and take writes.
    #[must_use]
    pub const fn is_in_doubt(&self) -> bool {
        match self.state {
            EngineState::Unresponsive => self.pid.is_none(),
            // Up to 1.1.0 an agent that could not read its ledger said so, of no database, whether an
            // engine ran or not.
            EngineState::Failed => self.pid.is_some() || self.database.0 == 0,
            EngineState::Stopped => self.pid.is_some(),
            EngineState::Starting | EngineState::Loading | EngineState::Running => false,
        }
    }
}

/// An engine that has not served for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineStall {
    /// How it stalls.
    pub kind: StallKind,
    /// For how long, by its agent's clock, ms.
    pub milliseconds: u64,
    /// Questions in a row that it left without an answer within the time that it has for one.
    pub questions: u32,
    /// State letter of its process, as in `/proc/<pid>/stat`; `None`: not known.
    pub process_state: Option<char>,
    /// Processor time that it has used meanwhile, clock ticks; `None`: not known.
    pub cpu_ticks: Option<u64>,
}

/// How an engine stalls.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StallKind {
    /// It does not answer.
    Silent,
    /// It answers `BUSY`: a script or function takes long.
    Busy,
    /// It answers that it loads its data.
    Loading,
    /// What a newer release tells of.
    #[serde(other)]
    Other,
}

/// The user by which proxies get an engine's promise; see [`crate::lease`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeeperObservation {
    /// Its name; [`crate::documents::keeper_user`].
    pub user: String,
    /// Whether no promise is left that another user got before.
    pub alone: bool,
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
    /// Revision of the configuration that all its workers have applied; in a heartbeat, the revision of
    /// which they have applied everything that concerns them.
    pub applied: Revision,
    /// Worker threads.
    pub threads: u32,
    /// Whether it takes the orders of [`crate::gate`].
    #[serde(default)]
    pub gates: bool,
    /// Whether it answers for a database with [`crate::proxy::ProxyDatabase::lease`] only with one.
    #[serde(default)]
    pub leases: bool,
    /// Whether it takes a [`crate::clients::Question`].
    #[serde(default)]
    pub questions: bool,
    /// Client connections.
    pub connections: u64,
    /// Commands served since start.
    pub commands: u64,
    /// Commands at the shards whose replies have not come.
    #[serde(default)]
    pub in_flight: u64,
    /// Counted since the server started, over the databases that it serves now.
    #[serde(default)]
    pub since_start: ProxyCounts,
    /// The same per second, over the last second.
    #[serde(default)]
    pub per_second: ProxyCounts,
    /// How long shards took, over all of its databases.
    #[serde(default)]
    pub latency: ProxyLatency,
    /// What it took over from the proxy before it; `None`: there was none, or it does not tell.
    #[serde(default)]
    pub handover: Option<HandoverCounts>,
    /// Per database.
    pub databases: Vec<ProxyDatabaseObservation>,
}

/// Client connections that a proxy took over from the one before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HandoverCounts {
    /// Connections that it has.
    pub adopted: u64,
    /// Connections that stayed with the one before.
    pub left: u64,
    /// The longest time for which one of them was served by neither, µs.
    pub longest_pause_us: u64,
    /// What it was at most for 99 in 100 of them, to 1/16 of itself; `None`: not known, or the proxy does not tell, as
    /// before 1.1.0.
    pub p99_pause_us: Option<u64>,
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
    /// Whether its clients are being closed, and no others come; see [`crate::proxy::ProxyDatabase::drains`].
    /// `None`: a release that closes none.
    #[serde(default)]
    pub drains: Option<bool>,
    /// Why one of the two is not so.
    pub error: Option<String>,
    /// Client connections.
    pub connections: u64,
    /// Commands served since start.
    pub commands: u64,
    /// Commands at the shards whose replies have not come.
    #[serde(default)]
    pub in_flight: u64,
    /// Counted since the proxy's server started.
    #[serde(default)]
    pub since_start: ProxyCounts,
    /// The same per second, over the last second.
    #[serde(default)]
    pub per_second: ProxyCounts,
    /// How long shards took.
    #[serde(default)]
    pub latency: ProxyLatency,
    /// The newest commands of the slow log, newest first. All databases of a proxy together tell of at
    /// most [`SLOW_TOLD`].
    #[serde(default)]
    pub slow: Vec<SlowCommand>,
}

/// Most slow commands in an observation of a proxy.
pub const SLOW_TOLD: usize = 128;
/// Longest name or key of a slow command, and longest name of its client; bytes.
pub const SLOW_TEXT_MAX: usize = 64;

/// What a proxy counts of a database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct ProxyCounts {
    /// Commands that came from clients and may change nothing.
    pub read_req: u64,
    /// Commands that may change data.
    pub write_req: u64,
    /// Other commands: about connections, channels, scripts, the server.
    pub other_req: u64,
    /// Replies of shards whose time was measured, to commands of the three kinds. A command that was
    /// split over shards counts once for each of them.
    pub read_res: u64,
    /// See `read_res`.
    pub write_res: u64,
    /// See `read_res`.
    pub other_res: u64,
    /// Time until those replies came, summed over them, µs.
    pub read_us: u64,
    /// See `read_us`.
    pub write_us: u64,
    /// See `read_us`.
    pub other_us: u64,
    /// Bytes from clients.
    pub ingress_bytes: u64,
    /// Bytes to clients.
    pub egress_bytes: u64,
    /// Connections that were accepted.
    pub accepted: u64,
    /// Connections that were refused, being too many.
    pub refused: u64,
    /// Commands slower than the threshold of the slow log.
    pub slow: u64,
    /// Errors.
    pub errors: ProxyErrors,
}

impl ProxyCounts {
    /// Every number of the counts; a new one is not forgotten.
    pub fn each_mut(&mut self) -> [&mut u64; 20] {
        let Self {
            read_req,
            write_req,
            other_req,
            read_res,
            write_res,
            other_res,
            read_us,
            write_us,
            other_us,
            ingress_bytes,
            egress_bytes,
            accepted,
            refused,
            slow,
            errors:
                ProxyErrors {
                    engine,
                    refused: refused_commands,
                    unavailable,
                    outcome_unknown,
                    protocol,
                    unread,
                },
        } = self;
        [
            read_req,
            write_req,
            other_req,
            read_res,
            write_res,
            other_res,
            read_us,
            write_us,
            other_us,
            ingress_bytes,
            egress_bytes,
            accepted,
            refused,
            slow,
            engine,
            refused_commands,
            unavailable,
            outcome_unknown,
            protocol,
            unread,
        ]
    }

    /// Adds all of another one.
    pub fn add(&mut self, other: &Self) {
        let mut other = *other;
        for (mine, other) in self.each_mut().into_iter().zip(other.each_mut()) {
            *mine = mine.saturating_add(*other);
        }
    }
}

/// Errors that clients got, and connections that ended in one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct ProxyErrors {
    /// Replies of an engine.
    pub engine: u64,
    /// Commands that the proxy refused.
    pub refused: u64,
    /// Commands that did not run since no shard was reachable (`TRYAGAIN`).
    pub unavailable: u64,
    /// Commands in flight when the connection to the shard was lost.
    pub outcome_unknown: u64,
    /// Clients that were closed since they sent what is no command.
    pub protocol: u64,
    /// Clients that were closed since they did not take their replies.
    pub unread: u64,
}

/// How long replies of shards took, from the moment when a command was put into the buffer of a
/// connection to its shard. Blocking commands are left out. µs, at most 1/16 off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct ProxyLatency {
    /// Over the connections that all clients share.
    pub shared: LatencyWindows,
    /// Over connections of single clients.
    pub own: LatencyWindows,
}

/// Latency in two windows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct LatencyWindows {
    /// The last second.
    pub last_second: LatencySummary,
    /// Since the proxy's server started.
    pub since_start: LatencySummary,
}

/// Many times in short, µs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct LatencySummary {
    /// How many.
    pub count: u64,
    /// Half of them took at most this.
    pub p50_us: u64,
    /// 99 of 100 took at most this.
    pub p99_us: u64,
    /// The longest; 60 s and more are shown as 67 s.
    pub max_us: u64,
}

/// A command that took long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlowCommand {
    /// Counts the slow commands of a database since the proxy's server started, from 1.
    pub id: u64,
    /// When its reply came.
    pub when: Timestamp,
    /// Address of its client.
    pub client: String,
    /// What the client calls itself.
    pub client_name: String,
    /// Its name, in capitals; of a pipeline the first one's.
    pub command: String,
    /// Its first key, cut; `None`: it has none, or it stands too far behind.
    pub key: Option<String>,
    /// Commands that went to the shard together with it, itself included: if they are several, it is
    /// one of them.
    pub pipelined: u32,
    /// From its arrival until its reply came, µs.
    pub total_us: u64,
    /// Of that, after it was given to the connection to its shard, µs.
    pub shard_us: u64,
    /// Of that, while the shard was busy with earlier commands of the same connection, µs.
    pub behind_us: u64,
    /// Of the total, while it waited in the proxy: for a connection, for room, for earlier replies of
    /// its client to come or to be taken; µs.
    pub proxy_us: u64,
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// What an agent of 1.1.0 tells of an engine.
    fn told(more: &serde_json::Value) -> ShardObservation {
        let mut told = json!({
            "shard": 1, "database": 7, "generation": 1, "state": "running", "role": null,
            "epoch": null, "pid": 77, "run_id": "r", "engine": "valkey-9.1.2", "used_memory": 0,
            "fragmentation": 0.0, "keys": 0, "connections": 0, "loading_percent": 0.0,
            "error": null, "replication": null, "keeper": null
        });
        for (name, value) in more.as_object().unwrap() {
            told[name] = value.clone();
        }
        serde_json::from_value(told).unwrap()
    }

    #[test]
    fn the_last_release_tells_nothing_of_stalls_and_files() {
        assert_eq!(told(&json!({ "state": "unresponsive" })).stall, None);
        // What does not tell is not waited for.
        assert!(!told(&json!({})).files_pending);
        assert_eq!(told(&json!({})).refuses_writes, None);
        let newer = json!({ "stall": {
            "kind": "lame", "milliseconds": 1, "questions": 0, "process_state": "S",
            "cpu_ticks": null, "more": 1
        } });
        let stall = told(&newer).stall.unwrap();
        assert_eq!(
            (stall.kind, stall.process_state),
            (StallKind::Other, Some('S'))
        );
    }

    /// Only what has no process, and is of a database, is gone: an agent of 1.1.0 that could not read its
    /// ledger said `failed`, of database 0, of an engine that lived.
    #[test]
    fn what_an_agent_does_not_know_is_in_doubt() {
        for (state, pid, database, in_doubt) in [
            ("running", Some(1), 7, false),
            ("unresponsive", Some(1), 7, false),
            ("unresponsive", None, 7, true),
            ("unresponsive", None, 0, true),
            ("stopped", None, 7, false),
            ("stopped", None, 0, false),
            ("failed", None, 7, false),
            ("failed", None, 0, true),
            ("failed", Some(1), 7, true),
        ] {
            let seen = told(&json!({ "state": state, "pid": pid, "database": database }));
            assert_eq!(seen.is_in_doubt(), in_doubt, "{state} {pid:?} {database}");
        }
    }
}
