//! What the workers serve: a configuration, made ready for them. It is replaced as a whole, between
//! two turns of a worker.

use crate::bounds;
use crate::gates::{Closed, Gates};
use crate::leases::{Leased, Leases};
use crate::rate::Rate;
use crate::stats::DatabaseStats;
use crate::worker::{Pause, Troubles, WorkerHandle};
use model::proxy::{ProxyConfig, ProxyShard};
use model::tuning::DatabaseTuning;
use model::{DatabaseUid, NodeUid, Revision, Secret};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Everything that is served, as of one revision.
#[derive(Debug)]
pub(crate) struct Topology {
    /// Revision of the configuration.
    pub(crate) revision: Revision,
    /// Counts the topologies of this process.
    pub(crate) edition: u64,
    /// Every worker that has or may have clients.
    pub(crate) workers: Arc<[WorkerHandle]>,
    /// The node.
    pub(crate) node: NodeUid,
    /// The cluster's id.
    pub(crate) cluster_id: String,
    /// The databases.
    pub(crate) databases: HashMap<DatabaseUid, Arc<Database>>,
}

/// One database.
#[derive(Debug)]
pub(crate) struct Database {
    /// Which.
    pub(crate) uid: DatabaseUid,
    /// Its name.
    pub(crate) name: String,
    /// Password of the default user.
    pub(crate) password: Option<Secret>,
    /// Most client connections; 0: no limit but the proxy's own.
    pub(crate) max_connections: u32,
    /// What a client may do at a time.
    pub(crate) limits: Limits,
    /// How much all clients may do, if that is bounded.
    pub(crate) rate: Option<Arc<Rate>>,
    /// Its primaries.
    pub(crate) shards: Vec<ProxyShard>,
    /// Until when its shards may be answered for; `None`: it is served without a lease.
    pub(crate) lease: Option<Leased>,
    /// Gates that are closed under the epochs that they name.
    pub(crate) closed: Vec<Closed>,
    /// Its clients are closed, each as soon as it has nothing under way.
    pub(crate) drains: bool,
    /// Other nodes that serve it by its policy.
    pub(crate) elsewhere: Arc<[NodeUid]>,
    /// Its counters; they live as long as the database does.
    pub(crate) stats: Arc<DatabaseStats>,
    /// `CLIENT PAUSE`; it lasts as long as the counters.
    pub(crate) pause: Arc<Pause>,
    /// What the log has been told of its shards.
    pub(crate) troubles: Arc<Troubles>,
}

/// Limits of each client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Whether commands are counted before they are taken.
    pub(crate) counted: bool,
    /// Most commands without a reply.
    pub(crate) pipeline: u32,
    /// Unsent replies above which its commands, and what comes for it alone, are not read; bytes.
    pub(crate) out_soft: usize,
    /// Unsent replies above which a connection that others share with it is read for their sake only; bytes.
    pub(crate) out_hard: usize,
    /// Closed if it takes nothing for six times as long.
    pub(crate) stuck: Duration,
    /// From which time on a command is slow, µs.
    pub(crate) slow_us: u64,
}

impl Limits {
    fn new(tuning: &DatabaseTuning, rate: bool) -> Self {
        let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        let buffer = tuning.client_buffer;
        let pipeline = match tuning.max_client_pipeline {
            0 => u32::MAX,
            most => most,
        };
        Self {
            counted: rate || pipeline != u32::MAX,
            pipeline,
            out_soft: bytes(buffer.soft).max(bounds::CLIENT_OUT_SMALL),
            out_hard: bytes(buffer.hard),
            stuck: Duration::from_secs(buffer.seconds.into()),
            slow_us: tuning.slowlog_log_slower_than,
        }
    }
}

impl Topology {
    /// Makes one from a configuration. Counters and rates are taken over from `before` by database.
    #[must_use]
    pub(crate) fn new(
        config: &ProxyConfig,
        before: Option<&Self>,
        workers: Arc<[WorkerHandle]>,
        (gates, leases): (&Gates, &Leases),
    ) -> Self {
        let databases = config.databases.iter().map(|database| {
            let old = before.and_then(|topology| topology.databases.get(&database.uid));
            let stats = old.map_or_else(Arc::default, |old| Arc::clone(&old.stats));
            let tuning = &database.tuning;
            stats.keep_slow_commands(tuning.slowlog_max_len as usize);
            let rate = old
                .and_then(|old| old.rate.clone())
                .filter(|rate| rate.is(tuning))
                .or_else(|| Rate::new(tuning).map(Arc::new));
            let made = Database {
                uid: database.uid,
                name: database.name.clone(),
                password: database.password.clone(),
                max_connections: database.max_connections,
                limits: Limits::new(tuning, rate.is_some()),
                rate,
                shards: database.shards.clone(),
                lease: leases.of(database),
                closed: gates.of(database.uid),
                drains: database.drains,
                elsewhere: database.elsewhere.as_slice().into(),
                stats,
                pause: old.map_or_else(Arc::default, |old| Arc::clone(&old.pause)),
                troubles: old.map_or_else(Arc::default, |old| Arc::clone(&old.troubles)),
            };
            (database.uid, Arc::new(made))
        });
        Self {
            revision: config.revision,
            edition: before.map_or(1, |topology| topology.edition + 1),
            workers,
            node: config.node,
            cluster_id: config.cluster_id.clone(),
            databases: databases.collect(),
        }
    }
}
