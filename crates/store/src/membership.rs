//! Changes of members: at the leader, one at a time, read back.

use crate::error::StoreError;
use crate::raft::{Address, Metrics};
use crate::store::{Node, Store, ended};
use crate::transport::Member;
use model::NodeUid;
use openraft::ChangeMembers;
use openraft::error::{ChangeMembershipError, ClientWriteError, RaftError};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// How long a change of members may take.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(10);
/// A change that came while another was not yet agreed on is tried again after so long.
const CHANGE_AGAIN: Duration = Duration::from_millis(50);
/// A learner that lacks more entries than this does not become a voter.
const MAX_LAG: u64 = 100;
/// How many voters a store may have.
const VOTERS: [usize; 4] = [1, 3, 5, 7];

type Change = ChangeMembers<u64, Address>;

impl Store {
    /// Adds a node that follows without a vote. Does nothing if it is a member already. The uid
    /// must never have been used before, not even by a node that was wiped since.
    ///
    /// # Errors
    /// [`NotLeader`](StoreError::NotLeader); [`Membership`](StoreError::Membership) if the node is
    /// a member under another address; [`Timeout`](StoreError::Timeout).
    pub async fn add_learner(&self, member: Member) -> Result<(), StoreError> {
        let node = &self.node;
        let _changing = node.changing.lock().await;
        let deadline = Instant::now() + CHANGE_TIMEOUT;
        let _request = node.request(deadline).await?;
        match node.member(member.uid) {
            Some(present) if present == member => return Ok(()),
            Some(present) => {
                return Err(StoreError::Membership(format!(
                    "node {} is a member at {}; remove it and join it anew under a new uid",
                    member.uid, present.address
                )));
            }
            None => {}
        }
        let nodes = BTreeMap::from([(member.uid.0, Address(member.address.clone()))]);
        node.change(Change::AddNodes(nodes), deadline).await?;
        node.read_back(deadline, |metrics| {
            metrics
                .membership_config
                .membership()
                .get_node(&member.uid.0)
                .is_some()
        })
        .await
    }

    /// Makes exactly these members voters; the other voters become learners. Completes a change
    /// that an earlier leader left half done. New voters must have caught up: waits for it.
    ///
    /// # Errors
    /// [`NotLeader`](StoreError::NotLeader); [`Membership`](StoreError::Membership) if the set
    /// makes no sense or a new voter lags behind; [`Timeout`](StoreError::Timeout).
    pub async fn set_voters(&self, voters: BTreeSet<NodeUid>) -> Result<(), StoreError> {
        let node = &self.node;
        let _changing = node.changing.lock().await;
        let deadline = Instant::now() + CHANGE_TIMEOUT;
        let _request = node.request(deadline).await?;
        if !VOTERS.contains(&voters.len()) {
            return Err(StoreError::Membership(format!(
                "{} voters are not possible: 1, 3, 5 or 7 are",
                voters.len()
            )));
        }
        if !voters.contains(&node.config.node) {
            return Err(StoreError::Membership(format!(
                "node {} leads and must stay a voter: hand the leadership over first",
                node.config.node
            )));
        }
        for voter in &voters {
            node.wait_for_lag(*voter, deadline).await?;
        }
        let wanted: BTreeSet<u64> = voters.iter().map(|uid| uid.0).collect();
        // One round, or two if a change that was left half done has to be completed first.
        while !is_uniform(&node.metrics(), &wanted) {
            node.change(Change::ReplaceAllVoters(wanted.clone()), deadline)
                .await?;
            node.read_back(deadline, |metrics| {
                metrics
                    .membership_config
                    .membership()
                    .get_joint_config()
                    .len()
                    == 1
            })
            .await?;
        }
        Ok(())
    }

    /// The voters that a change which was left half done was to bring; `None`: there is none.
    #[must_use]
    pub fn voters_to_be(&self) -> Option<BTreeSet<NodeUid>> {
        let metrics = self.node.metrics();
        match metrics
            .membership_config
            .membership()
            .get_joint_config()
            .as_slice()
        {
            [_, .., last] => Some(last.iter().copied().map(NodeUid).collect()),
            _ => None,
        }
    }

    /// Removes a learner. Does nothing if the node is no member. It takes part no more, whatever it
    /// believes; its uid must not be used again.
    ///
    /// # Errors
    /// [`NotLeader`](StoreError::NotLeader); [`Membership`](StoreError::Membership) if it is a
    /// voter; [`Timeout`](StoreError::Timeout).
    pub async fn remove_member(&self, uid: NodeUid) -> Result<(), StoreError> {
        let node = &self.node;
        let _changing = node.changing.lock().await;
        let deadline = Instant::now() + CHANGE_TIMEOUT;
        let _request = node.request(deadline).await?;
        if node
            .metrics()
            .membership_config
            .voter_ids()
            .any(|voter| voter == uid.0)
        {
            return Err(StoreError::Membership(format!(
                "node {uid} is a voter: choose other voters first"
            )));
        }
        if node.member(uid).is_none() {
            return Ok(());
        }
        node.change(Change::RemoveNodes(BTreeSet::from([uid.0])), deadline)
            .await?;
        node.read_back(deadline, |metrics| {
            metrics
                .membership_config
                .membership()
                .get_node(&uid.0)
                .is_none()
        })
        .await
    }
}

fn is_uniform(metrics: &Metrics, wanted: &BTreeSet<u64>) -> bool {
    matches!(metrics.membership_config.membership().get_joint_config().as_slice(), [one] if one == wanted)
}

impl Node {
    async fn change(&self, change: Change, deadline: Instant) -> Result<(), StoreError> {
        loop {
            self.wait_for_quorum(deadline).await?;
            let done = self.raft.change_membership(change.clone(), true);
            match timeout_at(deadline, done).await {
                Err(_) => return Err(StoreError::Timeout),
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(RaftError::Fatal(error))) => return Err(ended(&error)),
                Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to)))) => {
                    return Err(StoreError::NotLeader {
                        leader: to.leader_id.map(NodeUid),
                    });
                }
                Ok(Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(error)))) => {
                    let waits = matches!(error, ChangeMembershipError::InProgress(_));
                    if !waits || Instant::now() + CHANGE_AGAIN >= deadline {
                        return Err(StoreError::Membership(error.to_string()));
                    }
                    tokio::time::sleep(CHANGE_AGAIN).await;
                }
            }
        }
    }

    /// Waits until this node's own view of the members has the change.
    async fn read_back(
        &self,
        deadline: Instant,
        seen: impl Fn(&Metrics) -> bool,
    ) -> Result<(), StoreError> {
        let mut metrics = self.raft.metrics();
        match timeout_at(deadline, metrics.wait_for(|metrics| seen(metrics))).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(StoreError::ShuttingDown),
            Err(_) => Err(StoreError::Timeout),
        }
    }

    /// Waits until a member that is to be a voter has (nearly) the whole log.
    async fn wait_for_lag(&self, uid: NodeUid, deadline: Instant) -> Result<(), StoreError> {
        let metrics = self.metrics();
        if self.member(uid).is_none() {
            return Err(StoreError::Membership(format!(
                "node {uid} is no member: add it as a learner first"
            )));
        }
        if metrics
            .membership_config
            .voter_ids()
            .any(|voter| voter == uid.0)
        {
            return Ok(());
        }
        let near = self.read_back(deadline, |metrics| {
            let matched = metrics.replication.as_ref().and_then(|all| all.get(&uid.0));
            matched.copied().flatten().is_some_and(|matched| {
                metrics
                    .last_log_index
                    .unwrap_or(0)
                    .saturating_sub(matched.index)
                    <= MAX_LAG
            })
        });
        near.await.map_err(|error| match error {
            StoreError::Timeout => {
                StoreError::Membership(format!("node {uid} did not catch up with the log in time"))
            }
            error => error,
        })
    }
}
