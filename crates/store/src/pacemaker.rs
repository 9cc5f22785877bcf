//! Heartbeats and elections.
//!
//! The Raft library draws one election timeout a process and knows no pre-vote; so its own timer is
//! off, and this task beats for the leader and starts elections for the others. A voter of rank r
//! (by uid) stands for election when it has not heard the leader for `base + r × step`: the windows
//! do not overlap. First it asks the others whether they would vote for it; they would not as long
//! as they hear a leader, or if its log is behind theirs. So a node that was cut off does not raise
//! the term, and does not depose anybody when it is back.

use crate::error::StoreError;
use crate::raft::{Address, LogId, Metrics};
use crate::store::{Node, lock, stopped};
use crate::transport::{Member, RpcKind};
use crate::wire::{PreVote, PreVoteAnswer};
use futures::stream::{FuturesUnordered, StreamExt};
use model::NodeUid;
use openraft::ServerState;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// Those who would not vote are asked again after so long.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// When so many rounds in a row have brought no majority, that counts as known: one may be a moment's hiccup.
const ROUNDS: u32 = 2;

/// Beats until the store is closed, then closes Raft and disk.
pub(crate) async fn run(node: Arc<Node>) {
    let mut roles = node.raft.server_metrics();
    let mut closing = node.closing.subscribe();
    let mut next_beat = Instant::now();
    loop {
        let metrics = node.metrics();
        if metrics.running_state.is_err() {
            break;
        }
        let pause = match metrics.state {
            ServerState::Leader => lead(&node, &metrics, &mut next_beat).await,
            _ => follow(&node, &metrics).await,
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            changed = roles.changed() => if changed.is_err() { break },
            _ = closing.wait_for(|closing| *closing) => break,
        }
    }
    close(&node).await;
}

async fn close(node: &Node) {
    let asked_for = *node.closing.borrow();
    if !asked_for && let Err(error) = node.metrics().running_state {
        (node.config.fatal)(&format!("Raft ended: {error}"));
    }
    node.closing.send_replace(true);
    node.leadership.send_replace(None);
    // It only says that the task ended by a panic, which was reported.
    let _ = node.raft.shutdown().await;
    node.disk.stop().await;
    node.closed.send_replace(true);
}

/// Beats if it is time. Returns how long to wait.
async fn lead(node: &Node, metrics: &Metrics, next_beat: &mut Instant) -> Duration {
    node.publish_leader(node.has_quorum(metrics).then_some(node.config.node));
    let now = Instant::now();
    if now >= *next_beat {
        // Who cannot write is no leader: the others are to find another one.
        if !node.silent.load(Ordering::Acquire) && !node.disk.room.is_full() {
            // It fails only if Raft has ended, which the next round sees.
            let _ = node.raft.trigger().heartbeat().await;
        }
        *next_beat = now + node.config.heartbeat;
    }
    *next_beat - now
}

/// Stands for election if it is time. Returns how long to wait.
async fn follow(node: &Node, metrics: &Metrics) -> Duration {
    let config = &node.config;
    let Ok(idle) = node.silence().await else {
        return config.heartbeat;
    };
    if idle < config.election_base {
        node.unanswered.store(0, Ordering::Release);
        lock(&node.answering).clear();
    }
    let heard = idle < config.leader_silence();
    node.publish_leader(metrics.current_leader.filter(|_| heard).map(NodeUid));

    let voters: BTreeSet<u64> = metrics.membership_config.voter_ids().collect();
    let Some(rank) = voters.iter().position(|uid| *uid == config.node.0) else {
        return config.election_base;
    };
    // Alone, there is nobody to wait for; but let an election that is under way end.
    let alone = voters.len() == 1;
    let window = match metrics.state {
        ServerState::Candidate => config.window(rank),
        _ if alone => Duration::ZERO,
        _ => config.window(rank),
    };
    if idle < window {
        return window - idle;
    }
    if !alone {
        let answers = ask_all(node, metrics).await;
        lock(&node.answering).clone_from(&answers.from);
        if answers.answered {
            node.unanswered.store(0, Ordering::Release);
        } else {
            node.unanswered.fetch_add(1, Ordering::AcqRel);
        }
        if !answers.granted {
            return ASK_AGAIN;
        }
    }
    if node.disk.room.is_full() {
        // Its own vote could not be written.
        return ASK_AGAIN;
    }
    // The leader may have been heard meanwhile.
    if node.silence().await.is_ok_and(|idle| idle >= window) {
        tracing::info!(
            node = config.node.0,
            term = metrics.current_term + 1,
            silent_ms = u64::try_from(idle.as_millis()).unwrap_or(u64::MAX),
            "no leader is heard, standing for election"
        );
        // It fails only if Raft has ended, which the next round sees.
        let _ = node.raft.trigger().elect().await;
    }
    config.heartbeat
}

/// What the voters said, this node among them.
#[derive(Clone, Debug)]
struct Answers {
    /// A majority of each set of voters would vote for this node.
    granted: bool,
    /// A majority of each has answered, whatever it was.
    answered: bool,
    /// Who has answered, but for this node.
    from: Vec<NodeUid>,
}

/// Asks the other voters, until a majority of each set of voters would vote for this node.
async fn ask_all(node: &Node, metrics: &Metrics) -> Answers {
    let membership = metrics.membership_config.membership();
    let asked = PreVote {
        last_log: node.last_log(),
    };
    let mut answers: FuturesUnordered<_> = membership
        .voter_ids()
        .filter(|uid| *uid != node.config.node.0)
        .filter_map(|uid| membership.get_node(&uid).map(|address| (uid, address)))
        .map(|(uid, Address(address))| {
            let member = Member {
                uid: NodeUid(uid),
                address: address.clone(),
            };
            let asked = &asked;
            async move {
                let answer = node
                    .network
                    .call::<PreVoteAnswer>(&member, RpcKind::PreVote, asked, node.config.lease)
                    .await;
                (uid, answer.ok().map(|answer| answer.granted))
            }
        })
        .collect();
    let mut granted = BTreeSet::from([node.config.node.0]);
    let mut answered = granted.clone();
    let is_majority = |these: &BTreeSet<u64>| {
        let mut sets = membership.get_joint_config().iter();
        sets.all(|voters| voters.intersection(these).count() * 2 > voters.len())
    };
    while let Some((uid, would)) = answers.next().await {
        if would.is_some() {
            answered.insert(uid);
        }
        if would == Some(true) {
            granted.insert(uid);
        }
        if is_majority(&granted) {
            break;
        }
    }
    Answers {
        granted: is_majority(&granted),
        answered: is_majority(&answered),
        from: answered
            .iter()
            .map(|uid| NodeUid(*uid))
            .filter(|uid| *uid != node.config.node)
            .collect(),
    }
}

impl Node {
    /// For how long no leader and no candidate was heard.
    pub(crate) async fn silence(&self) -> Result<Duration, StoreError> {
        let heard = self
            .raft
            .with_raft_state(|state| state.vote_last_modified())
            .await
            .map_err(|error| stopped(openraft::error::RaftError::<u64>::Fatal(error)))?;
        Ok(heard.map_or(Duration::MAX, |heard| heard.elapsed()))
    }

    /// Whether it is known that no majority of voters answers this one.
    pub(crate) fn lacks_quorum(&self, metrics: &Metrics) -> bool {
        match metrics.state {
            // One that was elected just now has not asked yet.
            ServerState::Leader => {
                metrics.millis_since_quorum_ack.is_some() && !self.is_answered(metrics)
            }
            _ => self.unanswered.load(Ordering::Acquire) >= ROUNDS,
        }
    }

    /// Whether this node would vote for one whose log ends at `last_log`.
    pub(crate) async fn would_vote(&self, last_log: Option<LogId>) -> Result<bool, StoreError> {
        let metrics = self.metrics();
        let leads = metrics.state == ServerState::Leader && self.has_quorum(&metrics);
        if leads || self.disk.room.is_full() {
            return Ok(false);
        }
        let hears_leader = metrics.vote.is_committed() && self.silence().await? < self.config.lease;
        Ok(!hears_leader && last_log >= self.last_log())
    }

    /// Tells those who want to know who leads, if it is another one than before.
    fn publish_leader(&self, leader: Option<NodeUid>) {
        self.leadership.send_if_modified(|known| {
            let changed = *known != leader;
            if changed {
                let uid = |uid: Option<NodeUid>| uid.map(|uid| uid.0);
                tracing::info!(
                    node = self.config.node.0,
                    leader = uid(leader),
                    before = uid(*known),
                    "leader of the configuration store changed"
                );
            }
            *known = leader;
            changed
        });
    }
}
