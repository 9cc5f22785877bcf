//! Promises: what lets proxies go on while the primary node is away, and what a later failover waits for.
//!
//! Node 1 runs the primary, node 2 a copy; node 3 gets one while the model runs. A failover finds node 1
//! cut off from the leader and from nobody else, so that it promises and its engine carries out whatever
//! it is asked. Time is as in [`crate::lease`]; leases of the primary node are given at once here.
//!
//! Two rules are left out since safety does not need them: that a node refuses which hears a leader, and
//! that a proxy which was refused does not ask. They keep promises from being there when a planned move
//! begins or a failover waits.

use crate::explore::Healable;
use crate::lease::{LENGTH, NOW, ticks};
use model::lease::{
    LeaseLength, Moment, PromiseRecord, PromiseRequest, Validity, lease_is_over, may_answer,
    may_send,
};
use model::{Epoch, Revision};
use stateright::{Model, Property};

/// The rules; each can be left out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rules {
    /// Every node of the copy list has to promise, not one copy.
    pub every_copy: bool,
    /// A node refuses while its copy is to be promoted.
    pub lock: bool,
    /// It refuses from the moment at which the lock is asked for, not only when it is got.
    pub lock_while_waiting: bool,
    /// Promotion waits for the promises of the node whose copy it is.
    pub promises_waited: bool,
    /// Promises are counted from the sending.
    pub from_sending: bool,
    /// The one who promises counts more than the holder.
    pub margin: bool,
    /// Promises and the lock outlive the process that gives them.
    pub kept_on_disk: bool,
    /// After a start of the host, or with a lost record, nothing is promoted for a whole length.
    pub quiet_after_loss: bool,
    /// A node whose record is lost promises nothing before a leader told it of the set.
    pub lost_knows_nothing: bool,
    /// A node refuses what names an older epoch or copy list.
    pub refuse_older: bool,
    /// The lock ends by the new epoch, which is stored in the same step.
    pub lock_until_known: bool,
    /// A new copy is promotable only a whole length after the primary's node stored the new copy list.
    pub new_copy_waits: bool,
}

impl Rules {
    /// All of them.
    pub const ALL: Self = Self {
        every_copy: true,
        lock: true,
        lock_while_waiting: true,
        promises_waited: true,
        from_sending: true,
        margin: true,
        kept_on_disk: true,
        quiet_after_loss: true,
        lost_knows_nothing: true,
        refuse_older: true,
        lock_until_known: true,
        new_copy_waits: true,
    };
}

/// The model.
#[derive(Clone, Copy, Debug)]
pub struct Promises {
    /// What holds.
    pub rules: Rules,
    /// Proxies, one or two.
    pub proxies: usize,
    /// Whether node 3 gets a copy.
    pub third: bool,
    /// Starts of processes and hosts, losses of records, one kind or another, in all.
    pub restarts: u8,
}

/// Nodes with the primary, the copy, the later copy.
pub const NODES: usize = 3;

/// A node.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Node {
    /// What it keeps on disk.
    pub record: PromiseRecord,
    /// Ticks in which nothing is promoted here.
    pub quiet: u8,
}

/// A request for promises.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Ask {
    /// What would be left of a lease from it, ticks.
    pub left: u8,
    /// Revision of the copy list that it names.
    pub copies: u8,
    /// Nodes that promised, a bit each.
    pub promised: u8,
}

/// A proxy.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Proxy {
    /// What is left of its lease or promises, ticks.
    pub lease: u8,
    /// What is left of its lease in the leader's book.
    pub granted: u8,
    /// The copy list that it knows.
    pub copies: u8,
    /// Promises that it is asking for.
    pub ask: Option<Ask>,
    /// The epoch that it serves.
    pub epoch: u8,
    /// The epoch of a command whose reply is on its way.
    pub in_flight: Option<u8>,
}

/// Everything.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct State {
    /// There is a leader.
    pub leader: bool,
    /// Ticks in which it counts every proxy as holding a lease.
    pub inherited: u8,
    /// Revision of the stored copy list.
    pub copies: u8,
    /// Ticks until node 3's copy is promotable, from when node 1 stored the list that names it.
    pub new_copy: Option<u8>,
    /// The failover's target, a node's place.
    pub failover: Option<usize>,
    /// The target's agent found that no promise is in the way.
    pub cleared: bool,
    /// It was promoted.
    pub promoted: bool,
    /// Ticks since the lock was asked for, up to a length.
    pub locked_for: u8,
    /// The nodes.
    pub nodes: [Node; NODES],
    /// The proxies, sorted.
    pub proxies: Vec<Proxy>,
    /// Restarts so far.
    pub restarts: u8,
    /// A write of epoch 0 was acknowledged after the promotion.
    pub late: bool,
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(missing_docs, reason = "named for what they do")]
pub enum Action {
    Tick,
    LeaderLost,
    Elected,
    Renew { proxy: usize, slow: bool },
    AskPromises { proxy: usize, slow: bool },
    Promise { proxy: usize, node: usize },
    AllPromised { proxy: usize },
    AddCopy,
    TellNode { node: usize },
    TellProxy { proxy: usize },
    BeginFailover { target: usize },
    AskLock,
    Clear,
    Promote,
    RestartPromiser { node: usize },
    RestartHost { node: usize },
    LoseRecord { node: usize },
    Send { proxy: usize },
    Answer { proxy: usize },
}

const NEXT: Epoch = Epoch(1);

impl Promises {
    fn length(&self) -> LeaseLength {
        let grantor = if self.rules.margin {
            LENGTH.grantor
        } else {
            LENGTH.holder
        };
        LeaseLength { grantor, ..LENGTH }
    }

    const fn nodes(&self) -> usize {
        if self.third { NODES } else { NODES - 1 }
    }

    fn grantor(&self) -> u8 {
        ticks(self.length().grantor)
    }

    fn renew(&self, state: &mut State, proxy: usize, slow: bool) {
        if !state.leader {
            return;
        }
        let (promoted, failover) = (state.promoted, state.failover.is_some());
        let grantor = self.grantor();
        let proxy = &mut state.proxies[proxy];
        // Behind the gate of the failover, or behind the configuration that ended it.
        if failover && !(promoted && proxy.epoch == 1) {
            return;
        }
        proxy.ask = None;
        proxy.lease = proxy.lease.max(ticks(LENGTH.holder) + u8::from(slow));
        proxy.granted = grantor;
    }

    fn ask(&self, state: &mut State, proxy: usize, slow: bool) {
        let proxy = &mut state.proxies[proxy];
        if proxy.epoch == 0 {
            proxy.ask = Some(Ask {
                left: ticks(LENGTH.holder) + u8::from(slow),
                copies: proxy.copies,
                promised: 0,
            });
        }
    }

    fn promise(&self, state: &mut State, proxy: usize, node: usize) {
        let cleared = state.cleared;
        let Some(ask) = &mut state.proxies[proxy].ask else {
            return;
        };
        let named = node < 2 || ask.copies == 1;
        let node_state = &mut state.nodes[node];
        let request = PromiseRequest {
            epoch: Epoch(0),
            copies: Revision(ask.copies.into()),
        };
        let mut record = node_state.record;
        let waiting = record.lock.is_some() && !cleared;
        if !self.rules.lock || (waiting && !self.rules.lock_while_waiting) {
            record.lock = None;
        }
        if !self.rules.refuse_older {
            record.known = record.known.min(Some((Epoch(0), Revision(0))));
        }
        if record.known.is_none() && !self.rules.lost_knows_nothing {
            record.known = Some((Epoch(0), Revision(0)));
        }
        let allowed = record.may_promise(NOW, request, NOW);
        if named && allowed.is_ok() {
            node_state.record.promise(NOW, self.length());
            ask.promised |= 1 << node;
        }
    }

    fn all_promised(&self, state: &mut State, proxy: usize) {
        let proxy = &mut state.proxies[proxy];
        let Some(ask) = proxy.ask else {
            return;
        };
        let wanted = if self.rules.every_copy {
            if ask.copies == 1 { 0b111 } else { 0b011 }
        } else {
            0b001
        };
        if ask.promised & wanted == wanted {
            let left = if self.rules.from_sending {
                ask.left
            } else {
                ticks(LENGTH.holder)
            };
            proxy.lease = proxy.lease.max(left);
            proxy.ask = None;
        }
    }

    fn tell_node(&self, state: &mut State, node: usize) {
        if !state.leader {
            return;
        }
        let epoch = Epoch(u64::from(state.promoted));
        let record = &mut state.nodes[node].record;
        record.learn(epoch, Revision(state.copies.into()));
        if node == 0 && state.copies == 1 && state.new_copy.is_none() {
            state.new_copy = Some(self.grantor());
        }
    }

    fn begin(&self, state: &mut State, target: usize) {
        let waited = state.new_copy == Some(0) || !self.rules.new_copy_waits;
        let promotable = target == 1 || (state.copies == 1 && waited);
        if state.leader && state.failover.is_none() && promotable {
            state.failover = Some(target);
        }
    }

    fn ask_lock(&self, state: &mut State) {
        let Some(target) = state.failover.filter(|_| state.leader && !state.promoted) else {
            return;
        };
        let node = &mut state.nodes[target];
        if node.record.lock.is_none() {
            node.record.ask_lock(NEXT);
            state.locked_for = 0;
        }
    }

    fn clear(&self, state: &mut State) {
        let Some(target) = state.failover.filter(|_| !state.promoted) else {
            return;
        };
        let node = &state.nodes[target];
        let mut record = node.record;
        if !self.rules.promises_waited {
            record.promised_until = NOW;
        }
        let quiet = Moment(u64::from(node.quiet));
        state.cleared |= record.may_promote(NOW, NEXT, quiet);
    }

    fn promote(&self, state: &mut State) {
        let Some(target) = state.failover.filter(|_| state.leader && state.cleared) else {
            return;
        };
        let inherited = Moment(state.inherited.into());
        let over = |p: &Proxy| lease_is_over(NOW, inherited, Moment(p.granted.into()));
        if state.promoted || !state.proxies.iter().all(over) {
            return;
        }
        state.promoted = true;
        let record = &mut state.nodes[target].record;
        if self.rules.lock_until_known {
            record.learn(NEXT, Revision(state.copies.into()));
        } else {
            record.lock = None;
        }
    }

    fn forget(&self, state: &mut State, node: usize, record_lost: bool) {
        let grantor = self.grantor();
        let lost = &mut state.nodes[node];
        if record_lost {
            lost.record = PromiseRecord::default();
        }
        lost.record.promised_until = NOW;
        if self.rules.quiet_after_loss {
            lost.quiet = grantor;
        }
        state.restarts += 1;
        state.locked_for = 0;
        if state.failover == Some(node) {
            state.cleared = false;
        }
    }

    fn restart_promiser(&self, state: &mut State, node: usize) {
        state.restarts += 1;
        if !self.rules.kept_on_disk {
            state.nodes[node].record.promised_until = NOW;
            state.nodes[node].record.lock = None;
        }
    }

    /// Brings what makes no difference any more into one form, so that fewer states differ.
    fn settle(&self, state: &mut State) {
        for (place, node) in state.nodes.iter_mut().enumerate() {
            // Only what the target's node promised is ever waited for.
            let other = state.failover.is_some_and(|target| target != place);
            if place == 0 || other || state.promoted {
                node.record.promised_until = NOW;
                node.quiet = 0;
            }
        }
        if state.failover.is_some() {
            state.new_copy = None;
        }
        if state.promoted {
            state.inherited = 0;
            state.locked_for = 0;
        }
        for proxy in &mut state.proxies {
            let vain = |ask: &Ask| self.rules.from_sending && ask.left == 0;
            proxy.ask = proxy.ask.filter(|ask| !vain(ask) && proxy.epoch == 0);
            if state.promoted {
                proxy.granted = 0;
            }
        }
        state.proxies.sort_unstable();
    }

    fn answer(state: &mut State, proxy: usize) {
        let proxy = &mut state.proxies[proxy];
        let Some(epoch) = proxy.in_flight.take() else {
            return;
        };
        let valid = Validity::Until(Moment(proxy.lease.into()));
        let (connection, current) = (Epoch(epoch.into()), Epoch(proxy.epoch.into()));
        let counts = may_answer(NOW, valid, connection, current, false);
        state.late |= counts && epoch == 0 && state.promoted;
    }
}

fn tick(model: &Promises, state: &mut State) {
    state.inherited = state.inherited.saturating_sub(1);
    state.new_copy = state.new_copy.map(|left| left.saturating_sub(1));
    if state
        .failover
        .is_some_and(|node| state.nodes[node].record.lock.is_some())
    {
        state.locked_for = (state.locked_for + 1).min(model.grantor());
    }
    for node in &mut state.nodes {
        node.quiet = node.quiet.saturating_sub(1);
        node.record.promised_until.0 = node.record.promised_until.0.saturating_sub(1);
    }
    for proxy in &mut state.proxies {
        proxy.lease = proxy.lease.saturating_sub(1);
        proxy.granted = proxy.granted.saturating_sub(1);
        if let Some(ask) = &mut proxy.ask {
            ask.left = ask.left.saturating_sub(1);
        }
    }
}

impl Model for Promises {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut nodes = [Node::default(); NODES];
        for node in &mut nodes[..2] {
            node.record.learn(Epoch(0), Revision(0));
        }
        vec![State {
            leader: true,
            inherited: 0,
            copies: 0,
            new_copy: None,
            failover: None,
            cleared: false,
            promoted: false,
            locked_for: 0,
            nodes,
            proxies: vec![Proxy::default(); self.proxies],
            restarts: 0,
            late: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.late {
            return;
        }
        actions.extend([
            Action::Tick,
            Action::LeaderLost,
            Action::Elected,
            Action::AddCopy,
            Action::BeginFailover { target: 1 },
            Action::BeginFailover { target: 2 },
            Action::AskLock,
            Action::Clear,
            Action::Promote,
        ]);
        for node in 0..self.nodes() {
            actions.push(Action::TellNode { node });
            if state.restarts < self.restarts {
                actions.extend([
                    Action::RestartPromiser { node },
                    Action::RestartHost { node },
                    Action::LoseRecord { node },
                ]);
            }
        }
        for proxy in 0..state.proxies.len() {
            actions.extend([
                Action::Renew { proxy, slow: false },
                Action::Renew { proxy, slow: true },
                Action::AskPromises { proxy, slow: false },
                Action::AskPromises { proxy, slow: true },
                Action::AllPromised { proxy },
                Action::TellProxy { proxy },
                Action::Send { proxy },
                Action::Answer { proxy },
            ]);
            actions.extend((0..self.nodes()).map(|node| Action::Promise { proxy, node }));
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Tick => tick(self, &mut state),
            Action::LeaderLost => state.leader = false,
            Action::Elected => {
                state.leader = true;
                state.inherited = self.grantor();
                state.proxies.iter_mut().for_each(|proxy| proxy.granted = 0);
            }
            Action::Renew { proxy, slow } => self.renew(&mut state, proxy, slow),
            Action::AskPromises { proxy, slow } => self.ask(&mut state, proxy, slow),
            Action::Promise { proxy, node } => self.promise(&mut state, proxy, node),
            Action::AllPromised { proxy } => self.all_promised(&mut state, proxy),
            Action::AddCopy => {
                if state.leader && state.failover.is_none() && self.third {
                    state.copies = 1;
                }
            }
            Action::TellNode { node } => self.tell_node(&mut state, node),
            Action::TellProxy { proxy } => {
                state.proxies[proxy].copies = state.copies;
                state.proxies[proxy].epoch = u8::from(state.promoted);
            }
            Action::BeginFailover { target } => self.begin(&mut state, target),
            Action::AskLock => self.ask_lock(&mut state),
            Action::Clear => self.clear(&mut state),
            Action::Promote => self.promote(&mut state),
            Action::RestartPromiser { node } => self.restart_promiser(&mut state, node),
            Action::RestartHost { node } => self.forget(&mut state, node, false),
            Action::LoseRecord { node } => self.forget(&mut state, node, true),
            Action::Send { proxy } => {
                let proxy = &mut state.proxies[proxy];
                let valid = Validity::Until(Moment(proxy.lease.into()));
                if proxy.in_flight.is_none() && may_send(NOW, valid, false) {
                    proxy.in_flight = Some(proxy.epoch);
                }
            }
            Action::Answer { proxy } => Self::answer(&mut state, proxy),
        }
        self.settle(&mut state);
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(
                "nothing of the old primary is acknowledged after a promotion",
                |_, s: &State| !s.late,
            ),
            Property::always(
                "a lock is got within the length of a lease",
                |model: &Self, s: &State| {
                    let waits = s.failover.filter(|_| !s.promoted && !s.cleared);
                    waits.is_none_or(|node| {
                        let record = s.nodes[node].record;
                        s.locked_for < model.grantor() || record.promised_until == NOW
                    })
                },
            ),
            Property::sometimes("proxies are served by promises alone", |_, s: &State| {
                !s.leader && s.proxies.iter().all(|p| p.lease > 0 && p.granted == 0)
            }),
            Property::sometimes("the last copy is promoted", |model: &Self, s: &State| {
                s.promoted && s.failover == Some(model.nodes() - 1)
            }),
        ]
    }
}

impl Healable for Promises {
    fn is_fault(&self, _: &State, action: &Action) -> bool {
        matches!(
            action,
            Action::LeaderLost
                | Action::AddCopy
                | Action::BeginFailover { .. }
                | Action::RestartPromiser { .. }
                | Action::RestartHost { .. }
                | Action::LoseRecord { .. }
                | Action::Send { .. }
                | Action::AskPromises { .. }
        )
    }

    fn is_well(&self, state: &State) -> bool {
        let served = |p: &Proxy| p.lease > 0 && p.epoch == u8::from(state.promoted);
        let done = state.failover.is_none() || state.promoted;
        state.leader && done && state.proxies.iter().all(served)
    }
}
