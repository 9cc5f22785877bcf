//! Heartbeats and elections.
//!
//! The Raft library draws one election timeout a process and knows no pre-vote; so its own timer is
//! off, and this task beats for the leader and starts elections for the others. A voter of rank r
//! (by uid) stands for election when it has not heard the leader for `base + r × step`: the windows
//! do not overlap. First it asks the others whether they would vote for it; they would not as long
//! as they hear a leader, or if its log is behind theirs. So a node that was cut off does not raise
//! the term, and does not depose anybody when it is back.
//!
//! Votes are written to disk before they count, and a disk may be slow. So all are the more patient the more terms have had
//! no leader, and Raft itself is asked where it stands: what it published before it began to write is old.

use crate::error::StoreError;
use crate::raft::{Address, LogId, Metrics, Vote};
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
    if node.has_quorum(metrics) {
        node.publish_leader(Some(node.config.node));
    } else {
        node.publish_heard(metrics);
    }
    // What makes Raft speak is asked of it: it may only have had nothing to say.
    if node.is_stuck() && node.heard_soon().await.is_none() {
        return stuck(node, metrics);
    }
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
    let Some(Heard { vote, idle, state }) = node.heard_soon().await else {
        return stuck(node, metrics);
    };
    if state == ServerState::Leader {
        // It became the leader meanwhile.
        return ASK_AGAIN;
    }
    if idle < config.election_base && vote.is_committed() {
        node.unanswered.store(0, Ordering::Release);
        lock(&node.answering).clear();
    }
    let heard = vote.is_committed() && idle < config.leader_silence();
    node.publish_leader(heard.then(|| NodeUid(vote.leader_id().node_id)));

    let voters: BTreeSet<u64> = metrics.membership_config.voter_ids().collect();
    let Some(rank) = voters.iter().position(|uid| *uid == config.node.0) else {
        return config.election_base;
    };
    // Alone, there is nobody to wait for; but let an election that is under way end.
    let alone = voters.len() == 1;
    let window = if alone && state != ServerState::Candidate {
        Duration::ZERO
    } else {
        config.window_after(rank, lost_terms(&vote, node.last_log()))
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
    // A leader, or somebody who stands for election, may have been heard meanwhile.
    let Some(now) = node.heard_soon().await else {
        return stuck(node, metrics);
    };
    if now.vote == vote && now.idle >= window {
        tracing::info!(
            node = config.node.0,
            term = vote.leader_id().term + 1,
            silent_ms = u64::try_from(idle.as_millis()).unwrap_or(u64::MAX),
            "no leader is heard, standing for election"
        );
        // It fails only if Raft has ended, which the next round sees.
        let _ = node.raft.trigger().elect().await;
    }
    config.heartbeat
}

/// Raft waits for the disk, or has ended. Who leads may be heard nevertheless, and that nobody answers is not known.
fn stuck(node: &Node, metrics: &Metrics) -> Duration {
    node.unanswered.store(0, Ordering::Release);
    node.publish_heard(metrics);
    node.config.heartbeat
}

/// The terms since the last one whose leader this node has followed.
fn lost_terms(vote: &Vote, last_log: Option<LogId>) -> u64 {
    if vote.is_committed() {
        return 0;
    }
    let led = last_log.map_or(0, |last| last.leader_id.term);
    vote.leader_id().term.saturating_sub(led)
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

/// Which leader is heard, and when it was last. What it sent is heard until it is answered: if that is to be written to a slow
/// disk, the leader can send nothing else meanwhile.
#[derive(Debug, Default)]
pub(crate) struct Hearing(std::sync::Mutex<Voices>);

#[derive(Debug, Default)]
struct Voices {
    /// Messages that are not answered yet.
    now: usize,
    /// When one was last.
    last: Option<Instant>,
    /// Of the newest leader among them.
    newest: Option<Vote>,
}

impl Hearing {
    /// A message with this vote has come; `known` is this node's own. If it is of the leader as far as is known, it is being
    /// heard until what this returns is dropped.
    pub(crate) fn begin(&self, vote: Vote, known: Vote) -> Option<impl Drop> {
        let mut voices = lock(&self.0);
        let is_newest = voices.newest.is_none_or(|newest| newest <= vote);
        (is_newest && vote >= known).then(|| {
            voices.now += 1;
            voices.newest = Some(vote);
            Heeded(self)
        })
    }

    /// The term of the newest leader that was heard; 0 for none.
    pub(crate) fn term(&self) -> u64 {
        let newest = lock(&self.0).newest;
        newest.map_or(0, |vote| vote.leader_id().term)
    }

    /// For how long none was heard, if one ever was.
    fn idle(&self) -> Duration {
        match *lock(&self.0) {
            Voices { now: 0, last, .. } => last.map_or(Duration::MAX, |last| last.elapsed()),
            _ => Duration::ZERO,
        }
    }
}

/// A message of the leader that is not answered yet.
struct Heeded<'a>(&'a Hearing);

impl Drop for Heeded<'_> {
    fn drop(&mut self) {
        let mut voices = lock(&self.0.0);
        voices.now -= 1;
        voices.last = Some(Instant::now());
    }
}

/// What Raft itself says, which the metrics lag behind by as long as it writes to the disk.
struct Heard {
    /// The vote of this node.
    vote: Vote,
    /// For how long no leader was heard, and nobody who stood for election.
    idle: Duration,
    /// The part of this node.
    state: ServerState,
}

impl Node {
    /// Asks Raft, which answers nothing while it writes a vote.
    async fn heard(&self) -> Result<Heard, StoreError> {
        let asked = self.raft.with_raft_state(|state| {
            let heard = state.vote_last_modified();
            (*state.vote_ref(), heard, state.server_state)
        });
        let (vote, heard, state) = asked
            .await
            .map_err(|error| stopped(openraft::error::RaftError::<u64>::Fatal(error)))?;
        let idle = heard.map_or(Duration::MAX, |heard| heard.elapsed());
        let idle = idle.min(self.hearing.idle());
        Ok(Heard { vote, idle, state })
    }

    /// The same, unless Raft waits for the disk for longer than a leader may be silent, or has ended.
    async fn heard_soon(&self) -> Option<Heard> {
        let heard = tokio::time::timeout(self.config.leader_silence(), self.heard()).await;
        heard.ok()?.ok()
    }

    /// Whether it is known that no majority of voters answers this one. What waits for its disk alone does not know.
    pub(crate) fn lacks_quorum(&self, metrics: &Metrics) -> bool {
        let silence = self.config.leader_silence();
        match metrics.state {
            // One that was elected just now has not asked yet.
            ServerState::Leader => {
                let age = metrics.millis_since_quorum_ack;
                let alone = age.is_some_and(|age| Duration::from_millis(age) >= silence);
                alone && !self.is_stuck()
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
        // Who writes a vote, another's or its own, gives no other one.
        let Ok(heard) = tokio::time::timeout(self.config.lease / 2, self.heard()).await else {
            return Ok(false);
        };
        let Heard { vote, idle, .. } = heard?;
        let hears_leader = vote.is_committed() && idle < self.config.lease;
        Ok(!hears_leader && last_log >= self.last_log())
    }

    /// The same if Raft itself may not have learned who leads: the other node whose messages come, if it is not of an
    /// earlier term than what Raft said last.
    fn publish_heard(&self, metrics: &Metrics) {
        let heard = self.hearing.idle() < self.config.leader_silence();
        let newest = lock(&self.hearing.0).newest;
        let newest = newest.filter(|newest| heard && *newest >= metrics.vote);
        let leader = newest.map(|vote| NodeUid(vote.leader_id().node_id));
        self.publish_leader(leader.filter(|leader| *leader != self.config.node));
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
