//! Moving the leadership to another voter, without a failed election and without losing a
//! transaction.
//!
//! The leader takes no more requests and waits until those under way are done and the target has
//! all of the log. Then it stops its heartbeats for one lease, so that the voters are free to vote,
//! and asks the target to stand for election at once. If that fails it goes on leading.

use crate::error::StoreError;
use crate::raft::LogId;
use crate::store::{Node, REQUESTS, Store};
use crate::transport::RpcKind;
use crate::wire::{TakeOver, TakeOverAnswer};
use model::NodeUid;
use openraft::ServerState;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// So much longer than a lease the leader is silent.
const MARGIN: Duration = Duration::from_millis(10);

/// A flag that is set for as long as this lives, however the hand-over ends.
struct Raised<'a>(&'a AtomicBool);

impl<'a> Raised<'a> {
    fn new(flag: &'a AtomicBool) -> Self {
        flag.store(true, Ordering::Release);
        Self(flag)
    }
}

impl Drop for Raised<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Store {
    /// Moves the leadership to `target`, a voter; returns when it leads. Takes about one lease,
    /// during which requests are refused with [`StoreError::NotLeader`]. Does nothing if `target`
    /// is this node.
    ///
    /// # Errors
    /// [`NotLeader`](StoreError::NotLeader) if this node does not lead;
    /// [`HandOver`](StoreError::HandOver) if the target does not take over in time.
    pub async fn hand_over(&self, target: NodeUid) -> Result<(), StoreError> {
        let node = &self.node;
        let _changing = node.changing.lock().await;
        let deadline = Instant::now() + node.config.request_timeout;
        drop(node.request(deadline).await?);
        if target == node.config.node {
            return Ok(());
        }
        let metrics = node.metrics();
        let member = node
            .member(target)
            .filter(|_| {
                metrics
                    .membership_config
                    .voter_ids()
                    .any(|uid| uid == target.0)
            })
            .ok_or_else(|| StoreError::HandOver(format!("node {target} is no voter")))?;
        let _paused = Raised::new(&node.paused);
        let last_log = node.drain(target, deadline).await?;
        let _silent = Raised::new(&node.silent);
        // What was sent last, a commit, may have just renewed the leases.
        tokio::time::sleep(node.config.lease + MARGIN).await;
        let asked = TakeOver { last_log };
        let answer = node
            .network
            .call::<TakeOverAnswer>(&member, RpcKind::TakeOver, &asked, node.config.rpc_timeout)
            .await
            .map_err(|error| StoreError::HandOver(format!("node {target}: {error}")))?;
        if !answer.accepted {
            return Err(StoreError::HandOver(format!(
                "node {target} refuses: it lags behind"
            )));
        }
        node.wait_for_leader(target).await
    }
}

impl Node {
    /// Waits until no request is under way and `target` has the whole log.
    async fn drain(&self, target: NodeUid, deadline: Instant) -> Result<Option<LogId>, StoreError> {
        let late = |what: &str| StoreError::HandOver(format!("{what} in time"));
        let all = self.requests.acquire_many(REQUESTS);
        drop(
            timeout_at(deadline, all)
                .await
                .map_err(|_| late("requests under way did not end"))?
                .map_err(|_| StoreError::ShuttingDown)?,
        );
        let mut metrics = self.raft.metrics();
        let caught_up = metrics.wait_for(|metrics| {
            let matched = metrics
                .replication
                .as_ref()
                .and_then(|all| all.get(&target.0));
            let matched = matched.copied().flatten().map(|id| id.index);
            metrics.state != ServerState::Leader || matched == metrics.last_log_index
        });
        let metrics = timeout_at(deadline, caught_up)
            .await
            .map_err(|_| late(&format!("node {target} did not catch up")))?
            .map_err(|_| StoreError::ShuttingDown)?;
        if metrics.state != ServerState::Leader {
            return Err(StoreError::NotLeader {
                leader: metrics.current_leader.map(NodeUid),
            });
        }
        Ok(metrics
            .replication
            .as_ref()
            .and_then(|all| all.get(&target.0).copied().flatten()))
    }

    async fn wait_for_leader(&self, target: NodeUid) -> Result<(), StoreError> {
        let deadline = Instant::now() + self.config.request_timeout;
        let mut metrics = self.raft.metrics();
        let taken = metrics.wait_for(|metrics| metrics.current_leader == Some(target.0));
        match timeout_at(deadline, taken).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(StoreError::ShuttingDown),
            Err(_) => Err(StoreError::HandOver(format!(
                "node {target} was not elected in time"
            ))),
        }
    }

    /// The leader asks this node to take over. Returns whether it stands for election.
    pub(crate) async fn take_over(&self, last_log: Option<LogId>) -> Result<bool, StoreError> {
        let voter = self
            .metrics()
            .membership_config
            .voter_ids()
            .any(|uid| uid == self.config.node.0);
        if !voter || self.last_log() < last_log {
            return Ok(false);
        }
        tracing::info!(
            node = self.config.node.0,
            "asked to take over the leadership"
        );
        self.raft
            .trigger()
            .elect()
            .await
            .map_err(|error| crate::store::ended(&error))?;
        Ok(true)
    }
}
