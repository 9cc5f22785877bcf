//! What the `cnm_exec` of each node knows and does: the state that its store has applied, what it has heard, which
//! orders of its are under way. Each that takes itself for the primary node plans, as `controller::reconcile` and
//! `database::execute` do: from what it has applied, confirmed by a quorum before anything is done.

use super::bugs::Bug;
use super::network::Ordered;
use super::{Sim, all_nodes};
use controller::database::deletion;
use controller::database::plan::{self, Step};
use controller::observed::Observations;
use controller::state::ClusterState;
use model::command::AgentCommand;
use model::documents::Role;
use model::observation::{NodeObservation, ProxyDatabaseObservation, ProxyObservation};
use model::{NodeUid, Revision, ShardUid};
use rand::Rng;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How long an order that failed rests (`database::execute`).
const PAUSE: Duration = Duration::from_millis(250);

/// A node's `cnm_exec`.
#[derive(Debug, Default)]
pub(super) struct Node {
    /// What it has heard.
    pub(super) observed: Observations,
    /// The term in which it takes itself for the primary node.
    pub(super) leads: Option<u64>,
    /// Since when it has no quorum though it takes itself for it.
    pub(super) unconfirmed: Option<Instant>,
    /// The primary node that it knows.
    pub(super) knows: Option<NodeUid>,
    /// How many transactions of the log it has applied.
    pub(super) applied: usize,
    read: Option<(usize, Rc<ClusterState>)>,
    under_way: BTreeMap<ShardUid, u64>,
    rests: BTreeMap<ShardUid, Instant>,
    /// It does not run until then.
    pub(super) down: Option<Instant>,
    /// It was stopped after a quorum had confirmed it, before it did this.
    held: Vec<Step>,
    /// Until when.
    pub(super) stopped: Option<Instant>,
    pub(super) beat: Option<Instant>,
    pub(super) beat_under_way: Option<(u64, Instant)>,
}

impl Node {
    /// Whether it does nothing now: it does not run, or is stopped.
    pub(super) const fn is_away(&self) -> bool {
        self.down.is_some() || self.stopped.is_some()
    }

    /// The process is another one: what was in memory is gone, what is on disk is there.
    pub(super) fn starts_again(&mut self, down: Option<Instant>) {
        *self = Self {
            applied: self.applied,
            down,
            ..Self::default()
        };
    }

    /// What was read may be of a history that is no more.
    pub(super) fn forget_after(&mut self, tip: usize) {
        self.applied = self.applied.min(tip);
        self.read = None;
    }
}

impl Sim {
    pub(super) fn node(&mut self, uid: NodeUid) -> &mut Node {
        self.nodes.get_mut(&uid).unwrap()
    }

    /// The configuration as a node has applied it.
    pub(super) fn read(&mut self, uid: NodeUid) -> Rc<ClusterState> {
        let applied = self.nodes[&uid].applied;
        if applied == self.world.tip() {
            return self.world.cluster();
        }
        let known = self.nodes[&uid].read.clone();
        if let Some((at, read)) = &known
            && *at == applied
        {
            return Rc::clone(read);
        }
        let earlier = known.filter(|(at, _)| *at < applied).map(|(_, read)| read);
        let state = self.world.state_after(applied);
        let read = ClusterState::read_after(earlier.as_deref(), state);
        let read = Rc::new(read.unwrap().unwrap());
        self.node(uid).read = Some((applied, Rc::clone(&read)));
        read
    }

    /// What a node knows of itself.
    pub(super) fn observe(&mut self, uid: NodeUid) -> NodeObservation {
        let read = self.read(uid);
        let mut seen = self.world.nodes[&uid].clone();
        self.world.without_the_hung(&mut seen);
        let databases = read.databases.iter().map(|database| {
            let mut shards = read.shards_of(database.uid);
            ProxyDatabaseObservation {
                database: database.uid,
                listening: true,
                shards_connected: shards.all(|s| s.role != Role::Primary || s.is_usable()),
                ..ProxyDatabaseObservation::default()
            }
        });
        seen.applied = read.revision;
        seen.upgrade.level = read.cluster.feature_level;
        seen.upgrade.turn = self.upgrades.turn(uid);
        seen.proxy = Some(ProxyObservation {
            databases: databases.collect(),
            leases: true,
            applied: read.revision,
            ..seen.proxy.take().unwrap_or_default()
        });
        seen
    }

    const fn term_of_what_is_heard(&self, term: u64) -> u64 {
        match self.bug {
            Some(Bug::TermsAreOne) => 1,
            _ => term,
        }
    }

    /// A heartbeat comes in at a node: only a primary node takes it in.
    pub(super) fn hear(&mut self, at: NodeUid, seen: NodeObservation) {
        let clock = self.clock;
        if let Some(term) = self.nodes[&at].leads {
            let term = self.term_of_what_is_heard(term);
            let node = self.node(at);
            node.observed.in_term(term, clock);
            node.observed.record(seen, clock);
        }
    }

    /// Whether a quorum confirms that a node is the primary node; it has applied everything then.
    pub(super) fn barrier(&mut self, uid: NodeUid) -> bool {
        let confirmed = self.is_confirmed(uid);
        if confirmed {
            let tip = self.world.tip();
            self.node(uid).applied = tip;
        }
        confirmed
    }

    /// Each node that takes itself for the primary node looks what is to be done.
    pub(super) fn rounds(&mut self) -> bool {
        let mut done = false;
        for uid in all_nodes() {
            if self.nodes[&uid].leads.is_some() && !self.nodes[&uid].is_away() {
                done |= self.round(uid);
            }
        }
        done
    }

    fn round(&mut self, uid: NodeUid) -> bool {
        let Some(term) = self.nodes[&uid].leads else {
            return false;
        };
        let held = std::mem::take(&mut self.node(uid).held);
        if !held.is_empty() {
            self.note(format!("node:{uid} goes on with what it was at"));
            return self.take(uid, term, held);
        }
        self.forge();
        let state = self.read(uid);
        let (clock, now) = (self.clock, self.world.now);
        let heard_in = self.term_of_what_is_heard(term);
        let node = self.node(uid);
        node.observed.in_term(heard_in, clock);
        let plan = plan::plan(&state, &node.observed, clock, now);
        if plan.steps.is_empty() {
            return false;
        }
        if !self.barrier(uid) {
            self.note(format!("node:{uid} is not confirmed: it does nothing"));
            return false;
        }
        if !self.calm && self.rng.random_ratio(1, 30) {
            self.stops(uid);
            self.note(format!("node:{uid} was about to do what it planned"));
            self.node(uid).held = plan.steps;
            return true;
        }
        self.take(uid, term, plan.steps)
    }

    /// Takes the steps that can be taken now: of several transactions the first. Sometimes one alone, so that
    /// orders overtake each other as they do.
    fn take(&mut self, uid: NodeUid, term: u64, mut steps: Vec<Step>) -> bool {
        if !self.calm && self.rng.random() {
            let one = self.rng.random_range(0..steps.len());
            steps = vec![steps.swap_remove(one)];
        }
        let mut written = false;
        let mut done = false;
        for step in steps {
            match step {
                Step::Store { txn, reason } if !written => {
                    written = true;
                    done = true;
                    let stored = self.commit((uid, term), &txn);
                    self.note(format!("node:{uid} stores: {reason}: {stored}"));
                }
                Step::Store { .. } => {}
                Step::Command {
                    node,
                    shard,
                    command,
                    ..
                } => done |= self.order((uid, term), (node, shard), command),
                Step::Move(wanted) => {
                    if self.is_free(uid, &[wanted.old.shard, wanted.new.shard]) {
                        done = true;
                        let told = self.move_role((uid, term), &wanted);
                        self.note(told);
                    }
                }
                Step::Settle { old, new, moving } => {
                    if self.is_free(uid, &[old.shard, new.shard]) {
                        done = true;
                        let told = self.settle((uid, term), (&old, &new), &moving);
                        self.note(told);
                    }
                }
            }
        }
        done
    }

    fn is_free(&self, uid: NodeUid, shards: &[ShardUid]) -> bool {
        let node = &self.nodes[&uid];
        let rests = |shard| {
            node.rests
                .get(shard)
                .is_some_and(|until| self.clock < *until)
        };
        !shards
            .iter()
            .any(|shard| node.under_way.contains_key(shard) || rests(shard))
    }

    /// Sends an order, if none for its shard is under way.
    fn order(
        &mut self,
        (by, term): (NodeUid, u64),
        (node, shard): (NodeUid, ShardUid),
        command: AgentCommand,
    ) -> bool {
        if !self.is_free(by, &[shard]) {
            return false;
        }
        let ordered = Ordered {
            by,
            term,
            number: self.network.number(),
            node,
            shard,
            removal: matches!(command, AgentCommand::RemoveEngine { .. }),
        };
        self.node(by).under_way.insert(shard, ordered.number);
        self.send_order(ordered, command);
        true
    }

    /// An answer to an order, or that there is none.
    pub(super) fn take_in(&mut self, ordered: Ordered, answer: Option<super::agents::Answer>) {
        let Ordered { by, shard, .. } = ordered;
        let clock = self.clock;
        let node = self.node(by);
        if node.under_way.get(&shard) != Some(&ordered.number) {
            // Nobody waits for it any more.
            return;
        }
        node.under_way.remove(&shard);
        let Some(Ok(seen)) = answer else {
            node.rests.insert(shard, clock + PAUSE);
            return;
        };
        let gone = ordered.removal && seen.is_none();
        // What was true before another primary node led may be true no more.
        if node.leads == Some(ordered.term) {
            node.observed.record_shard(ordered.node, shard, seen, clock);
        }
        if gone {
            let state = self.read(by);
            if let Some(txn) = deletion::shard_removed(&state, shard, self.world.now) {
                let stored = self.commit((by, ordered.term), &txn);
                self.note(format!("redis:{shard} is removed: {stored}"));
            }
        }
    }

    /// Proxies ask for their leases.
    pub(super) fn renew(&mut self) {
        for uid in all_nodes() {
            let node = &self.nodes[&uid];
            if node.is_away() {
                continue;
            }
            let Some(to) = node.knows else {
                continue;
            };
            let read = self.read(uid);
            let proxy = self.proxies.get_mut(&uid).unwrap();
            let applied = read.revision;
            proxy.config = Some(read);
            let id = proxy.id(uid);
            if !self.talks(uid, to) || !self.barrier(to) {
                continue;
            }
            let state = self.world.cluster();
            let primaries = state.shards.iter().filter(|s| s.role == Role::Primary);
            let ordered = Revision(primaries.map(|s| s.revision).max().unwrap_or(0));
            let clock = self.clock;
            let term = self.term_of_what_is_heard(self.raft.term);
            let leader = self.node(to);
            leader.observed.in_term(term, clock);
            if leader
                .observed
                .leases
                .give(id, applied, ordered, clock)
                .is_ok()
            {
                self.proxies.get_mut(&uid).unwrap().granted(clock);
            }
        }
    }
}
