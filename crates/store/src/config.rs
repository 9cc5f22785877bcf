//! Tunables of the store; the defaults are meant for production.

use model::NodeUid;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Called once when the disk fails: a store that cannot write must not go on.
pub type FatalHook = Arc<dyn Fn(&str) + Send + Sync>;

/// How a store is opened.
#[derive(Clone)]
pub struct StoreConfig {
    /// This node. The folder remembers it; another one is refused.
    pub node: NodeUid,
    /// Folder of the store, made if absent; holds `store.db` and its journal.
    pub dir: PathBuf,
    /// How often the leader says that it is there.
    pub heartbeat: Duration,
    /// How long the leader may be silent before the first voter (by uid) stands for election.
    pub election_base: Duration,
    /// How much later each next voter does. Windows do not overlap, so voters do not tie.
    pub election_step: Duration,
    /// For how long after hearing the leader a voter votes for nobody else. Less than
    /// `election_base`; a hand-over takes about this long.
    pub lease: Duration,
    /// How long one request to another node may take (snapshots: 10 times as long).
    pub rpc_timeout: Duration,
    /// How long a transaction or a linearizable read may take.
    pub request_timeout: Duration,
    /// A snapshot is made after so many entries.
    pub snapshot_every: u64,
    /// So many entries that are in a snapshot stay in the log, for nodes that are a little behind.
    pub keep_entries: u64,
    /// So many changes are kept in memory for watchers.
    pub history: usize,
    /// Fault point: every commit to disk takes this much longer.
    pub sync_delay: Option<Duration>,
    /// Called when the disk fails. The default logs and aborts the process.
    pub fatal: FatalHook,
}

impl StoreConfig {
    /// The defaults.
    #[must_use]
    pub fn new(node: NodeUid, dir: impl Into<PathBuf>) -> Self {
        Self {
            node,
            dir: dir.into(),
            heartbeat: Duration::from_millis(100),
            election_base: Duration::from_millis(400),
            election_step: Duration::from_millis(100),
            lease: Duration::from_millis(300),
            rpc_timeout: Duration::from_millis(500),
            request_timeout: Duration::from_secs(2),
            snapshot_every: 1000,
            keep_entries: 500,
            history: 10_000,
            sync_delay: None,
            fatal: Arc::new(|reason| {
                tracing::error!("configuration store failed, process aborts: {reason}");
                std::process::abort();
            }),
        }
    }

    /// How long the leader may be silent before the voter of this rank (0 = lowest uid) stands
    /// for election.
    pub(crate) fn window(&self, rank: usize) -> Duration {
        let rank = u32::try_from(rank).unwrap_or(u32::MAX);
        self.election_base
            .saturating_add(self.election_step.saturating_mul(rank))
    }

    /// The same after so many terms in a row in which nobody came to lead: each time twice as long, up to eight times. Votes
    /// count when they are on disk; who stands again sooner than that takes gives up a term that it would win, and whose
    /// vote it takes loses one.
    pub(crate) fn window_after(&self, rank: usize, lost: u64) -> Duration {
        let doublings = u32::try_from(lost).unwrap_or(u32::MAX).min(3);
        self.window(rank).saturating_mul(1 << doublings)
    }

    /// How long an answer to a vote counts at the most: nobody waits longer before it stands again.
    pub(crate) fn vote_timeout(&self) -> Duration {
        self.window_after(7, u64::MAX)
    }

    /// After this silence nobody is called a leader any more, by others or by itself.
    pub(crate) fn leader_silence(&self) -> Duration {
        self.window(7)
    }

    /// Says what is wrong with it.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.node.0 == 0 {
            return Err("node uids count from 1".to_owned());
        }
        if self.heartbeat.is_zero() || self.heartbeat * 2 > self.lease {
            return Err("the lease must be at least two heartbeats".to_owned());
        }
        if self.lease >= self.election_base || self.lease < Duration::from_millis(2) {
            return Err("the lease must be shorter than the first election window".to_owned());
        }
        if self.snapshot_every == 0 || self.history == 0 {
            return Err("snapshot_every and history must not be 0".to_owned());
        }
        Ok(())
    }
}

impl fmt::Debug for StoreConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreConfig")
            .field("node", &self.node)
            .field("dir", &self.dir)
            .field("heartbeat", &self.heartbeat)
            .field("election_base", &self.election_base)
            .field("election_step", &self.election_step)
            .field("lease", &self.lease)
            .field("rpc_timeout", &self.rpc_timeout)
            .field("request_timeout", &self.request_timeout)
            .field("snapshot_every", &self.snapshot_every)
            .field("keep_entries", &self.keep_entries)
            .field("history", &self.history)
            .field("sync_delay", &self.sync_delay)
            .finish_non_exhaustive()
    }
}
