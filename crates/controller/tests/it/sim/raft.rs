//! The configuration store as Raft gives it: one history of transactions that were agreed on, which each node has
//! applied up to a point of its own; terms, each with one primary node, who may not notice for a while that another
//! one leads. A transaction is in the history only if the primary node of the newest term has it agreed on by a
//! majority.

use super::bugs::Bug;
use super::{Sim, all_nodes};
use jiff::SignedDuration;
use model::NodeUid;
use model::limits::FAILOVERS_MAX;
use rand::Rng;
use std::time::{Duration, Instant};
use store::{Txn, TxnResult};

/// After this silence nobody is called a leader any more, by others or by itself (`store::config`).
const LEADER_SILENCE: Duration = Duration::from_millis(1_100);

#[derive(Debug, Default)]
pub(super) struct Raft {
    pub(super) term: u64,
    /// Who leads in it; `None`: he is gone.
    pub(super) leader: Option<NodeUid>,
    /// Who led before him.
    before: Option<NodeUid>,
    /// Since when nobody has led.
    leaderless: Option<Instant>,
}

impl Sim {
    /// Whether bytes of one node reach another.
    pub(super) fn reaches(&self, from: NodeUid, to: NodeUid) -> bool {
        !self.world.apart.contains(&(from, to))
    }

    /// Whether the programs of two nodes can talk.
    pub(super) fn talks(&self, one: NodeUid, other: NodeUid) -> bool {
        let up = !self.nodes[&one].is_away() && !self.nodes[&other].is_away();
        up && self.reaches(one, other) && self.reaches(other, one)
    }

    fn has_majority(&self, uid: NodeUid) -> bool {
        let with = all_nodes()
            .into_iter()
            .filter(|other| self.talks(uid, *other));
        with.count() >= 2
    }

    /// Whether a quorum confirms that a node leads.
    pub(super) fn is_confirmed(&self, uid: NodeUid) -> bool {
        let raft = &self.raft;
        let leads = raft.leader == Some(uid) && self.nodes[&uid].leads == Some(raft.term);
        leads && self.has_majority(uid)
    }

    /// The primary node, if a quorum confirms it.
    pub(super) fn leader(&self) -> Option<NodeUid> {
        self.raft.leader.filter(|uid| self.is_confirmed(*uid))
    }

    /// A transaction of whoever takes himself for the primary node. What came of it, in words.
    pub(super) fn commit(&mut self, (uid, term): (NodeUid, u64), txn: &Txn) -> &'static str {
        if !self.is_confirmed(uid) || self.raft.term != term {
            return "refused, it does not lead";
        }
        let mut txn = txn.clone();
        if self.bug == Some(Bug::NothingIsCompared) {
            txn.compare.clear();
        }
        if matches!(self.world.commit(&txn), TxnResult::Conflict { .. }) {
            return "refused, somebody wrote before";
        }
        let tip = self.world.tip();
        self.node(uid).applied = tip;
        self.stored();
        "done"
    }

    /// Sensitivity to failures in a row is tested elsewhere: they are a minute apart here.
    pub(super) fn stored(&mut self) {
        let cluster = self.world.cluster();
        let recent =
            |then: &&jiff::Timestamp| self.world.now.duration_since(**then).as_secs() <= 60;
        let many = |shard: &controller::state::Stored<model::documents::Shard>| {
            shard.failovers.iter().filter(recent).count() >= FAILOVERS_MAX
        };
        if cluster.shards.iter().any(many) {
            self.world.now += SignedDuration::from_secs(61);
        }
    }

    /// Nodes apply what was agreed on, and notice who leads.
    pub(super) fn raft_turn(&mut self) {
        let tip = self.world.tip();
        for uid in all_nodes() {
            if self.nodes[&uid]
                .down
                .is_some_and(|until| self.clock >= until)
            {
                self.node(uid).down = None;
                self.note(format!("node:{uid} is up again"));
            }
            if self.nodes[&uid]
                .stopped
                .is_some_and(|until| self.clock >= until)
            {
                self.node(uid).stopped = None;
                self.note(format!("node:{uid}: cnm_exec goes on"));
            }
            let Some(leader) = self.raft.leader else {
                continue;
            };
            if self.nodes[&uid].is_away() || !self.talks(uid, leader) {
                continue;
            }
            let (slow, hears) = (self.rng.random_ratio(1, 3), self.rng.random_ratio(3, 4));
            let applied = self.nodes[&uid].applied.min(tip);
            let lag = if slow && !self.calm {
                self.rng.random_range(0..=tip - applied)
            } else {
                0
            };
            let hears = hears || self.calm;
            let node = self.node(uid);
            // A new primary node does so too, before it is confirmed.
            node.applied = applied.max(tip - lag);
            if hears {
                node.knows = Some(leader);
            }
        }
        self.notice();
        self.elections();
    }

    /// Who leads no more notices it, sooner or later.
    fn notice(&mut self) {
        for uid in all_nodes() {
            if self.nodes[&uid].stopped.is_some() {
                continue;
            }
            let term = self.raft.term;
            let leads = self.raft.leader == Some(uid) && self.has_majority(uid);
            let quick = self.rng.random_ratio(1, 4);
            let clock = self.clock;
            let newer = self
                .raft
                .leader
                .is_some_and(|leader| self.talks(uid, leader));
            let node = self.node(uid);
            if leads {
                node.leads = Some(term);
                node.unconfirmed = None;
            } else if node.leads.is_some() {
                let since = *node.unconfirmed.get_or_insert(clock);
                let long = clock.saturating_duration_since(since) >= LEADER_SILENCE;
                if long || newer && quick {
                    node.leads = None;
                    node.unconfirmed = None;
                    self.note(format!("node:{uid} notices that it does not lead"));
                }
            }
        }
    }

    fn elections(&mut self) {
        if self.raft.leader.is_some_and(|uid| self.has_majority(uid)) {
            self.raft.leaderless = None;
            return;
        }
        let since = *self.raft.leaderless.get_or_insert(self.clock);
        if self.clock.saturating_duration_since(since) < Duration::from_millis(400) {
            return;
        }
        let mut candidates = all_nodes();
        candidates.retain(|uid| self.has_majority(*uid));
        if let Some(next) = self.pick(&candidates) {
            self.elect(next);
        }
    }

    /// A majority has voted for a node: it leads in the next term. Its log has all that was agreed on; it may not have
    /// applied it.
    pub(super) fn elect(&mut self, uid: NodeUid) {
        self.lose();
        self.raft.term += 1;
        self.raft.before = self.raft.leader.filter(|before| *before != uid);
        self.raft.leader = Some(uid);
        self.raft.leaderless = None;
        let term = self.raft.term;
        let node = self.node(uid);
        node.leads = Some(term);
        node.unconfirmed = None;
        node.knows = Some(uid);
        self.note(format!("node:{uid} leads in term {term}"));
    }

    /// Another node leads from here on; this one may not notice it.
    pub(super) fn leadership_moves(&mut self) {
        let before = self.raft.leader;
        let mut others = all_nodes();
        others.retain(|uid| Some(*uid) != before && self.has_majority(*uid));
        // Often the one who led before: he knows much, and none of it may count.
        let back = self.raft.before.filter(|uid| others.contains(uid));
        let back = back.filter(|_| self.rng.random_ratio(2, 3));
        match back.or_else(|| self.pick(&others)) {
            Some(next) => self.elect(next),
            None => self.raft.leader = None,
        }
    }
}
