//! Promises: what lets proxies go on while the primary node is away, and what a later failover waits for.
//!
//! Node 1 runs the primary, node 2 a copy; node 3 gets one while the model runs. A failover finds node 1
//! cut off from the leader and from nobody else, so that its engine promises and carries out whatever it is
//! asked. Time is as in [`crate::lease`]; leases of the primary node are given at once here.
//!
//! An engine promises as long as it has the user by which it is asked, one of a list of copies. Its agent
//! gives and takes that user, and knows when it took the last one only as long as it lives.
//!
//! One rule is left out since safety does not need it: that a proxy which was refused does not ask. It
//! keeps promises from being there when a failover waits.

use crate::explore::Healable;
use crate::lease::{LENGTH, NOW, ticks};
use model::Epoch;
use model::lease::{LeaseLength, Moment, Validity, lease_is_over, may_answer, may_send};
use stateright::{Model, Property};

/// The rules; each can be left out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rules {
    /// Every copy has to promise, not one.
    pub every_copy: bool,
    /// A promotion takes the user away first.
    pub withdrawn_first: bool,
    /// Then it waits for a whole length.
    pub promises_waited: bool,
    /// After its start an agent waits as if it had taken a user away then.
    pub start_counts: bool,
    /// Taking the user away and the promotion are one step of the agent: it gives none in between.
    pub one_step: bool,
    /// Promises are counted from the sending.
    pub from_sending: bool,
    /// The agent counts more than the holder.
    pub margin: bool,
    /// An engine promises to those who know its list of copies, and to nobody else.
    pub one_list: bool,
    /// A new copy is recorded only a whole length after the primary's engine promised to the old list.
    pub new_copy_waits: bool,
}

impl Rules {
    /// All of them.
    pub const ALL: Self = Self {
        every_copy: true,
        withdrawn_first: true,
        promises_waited: true,
        start_counts: true,
        one_step: true,
        from_sending: true,
        margin: true,
        one_list: true,
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
    /// Starts of agents in all.
    pub restarts: u8,
}

/// Nodes with the primary, the copy, the later copy.
pub const NODES: usize = 3;

/// A node: its engine and its agent.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Node {
    /// The list of copies to which its engine promises.
    pub gives: Option<u8>,
    /// What the agent still waits before it promotes or tells that no other list has promises, ticks.
    pub waits: u8,
}

/// A request for promises.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Ask {
    /// What would be left of a lease from it, ticks.
    pub left: u8,
    /// The copy list that it names.
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
    /// The stored copy list: 0, or 1 with node 3.
    pub copies: u8,
    /// Node 3's copy is recorded.
    pub recorded: bool,
    /// The failover's target, a node's place: nobody gets a lease for the old epoch.
    pub failover: Option<usize>,
    /// The target's agent carries the promotion out.
    pub promoting: bool,
    /// It was promoted.
    pub promoted: bool,
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
    Keep { node: usize },
    Doubt { node: usize },
    RecordCopy,
    TellProxy { proxy: usize },
    BeginFailover { target: usize },
    OrderPromotion,
    Promote,
    RestartAgent { node: usize },
    Send { proxy: usize },
    Answer { proxy: usize },
}

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
        // Behind what stopped the old primary's use, or behind the configuration that ended it.
        if failover && !(promoted && proxy.epoch == 1) {
            return;
        }
        proxy.ask = None;
        proxy.lease = proxy.lease.max(ticks(LENGTH.holder) + u8::from(slow));
        proxy.granted = grantor;
    }

    fn ask(state: &mut State, proxy: usize, slow: bool) {
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
        let Some(ask) = &mut state.proxies[proxy].ask else {
            return;
        };
        let named = node < 2 || ask.copies == 1;
        let gives = state.nodes[node].gives;
        let known = gives.is_some_and(|list| list == ask.copies || !self.rules.one_list);
        if named && known {
            ask.promised |= 1 << node;
        }
    }

    fn all_promised(&self, state: &mut State, proxy: usize) {
        let proxy = &mut state.proxies[proxy];
        let Some(ask) = proxy.ask else {
            return;
        };
        let wanted = match (self.rules.every_copy, ask.copies) {
            (false, _) => 0b001,
            (true, 1) => 0b111,
            (true, _) => 0b011,
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

    fn withdraw(&self, node: &mut Node) {
        if node.gives.take().is_some() {
            node.waits = self.grantor();
        }
    }

    /// An order of the leader that may have been long on its way.
    fn keep(&self, state: &mut State, node: usize) {
        let target = state.failover == Some(node);
        let busy = target && (state.promoted || (state.promoting && self.rules.one_step));
        let (copies, is_copy) = (state.copies, node < 2 || state.copies == 1);
        let place = &mut state.nodes[node];
        if !busy && is_copy && place.gives != Some(copies) {
            self.withdraw(place);
            place.gives = Some(copies);
        }
    }

    fn record_copy(&self, state: &mut State) {
        let primary = state.nodes[0];
        let alone = primary.gives == Some(1) && primary.waits == 0;
        if state.leader && state.copies == 1 && (alone || !self.rules.new_copy_waits) {
            state.recorded = true;
        }
    }

    fn begin(state: &mut State, target: usize) {
        let promotable = target == 1 || state.recorded;
        if state.leader && state.failover.is_none() && promotable {
            state.failover = Some(target);
        }
    }

    fn order_promotion(&self, state: &mut State) {
        let Some(target) = state.failover.filter(|_| state.leader && !state.promoting) else {
            return;
        };
        let inherited = Moment(state.inherited.into());
        let over = |p: &Proxy| lease_is_over(NOW, inherited, Moment(p.granted.into()));
        if state.promoted || !state.proxies.iter().all(over) {
            return;
        }
        state.promoting = true;
        if self.rules.withdrawn_first {
            self.withdraw(&mut state.nodes[target]);
        }
    }

    fn promote(&self, state: &mut State) {
        let Some(target) = state.failover.filter(|_| state.promoting) else {
            return;
        };
        if state.nodes[target].waits == 0 || !self.rules.promises_waited {
            state.promoted = true;
            state.promoting = false;
        }
    }

    fn restart_agent(&self, state: &mut State, node: usize) {
        state.restarts += 1;
        state.nodes[node].waits = if self.rules.start_counts {
            self.grantor()
        } else {
            0
        };
        if state.failover == Some(node) {
            state.promoting = false;
        }
    }

    /// Brings what makes no difference any more into one form, so that fewer states differ.
    fn settle(&self, state: &mut State) {
        if state.failover.is_some() {
            state.recorded = false;
        }
        for (place, node) in state.nodes.iter_mut().enumerate() {
            // Only the target waits from now on.
            let other = state.failover.is_some_and(|target| target != place);
            if other || state.promoted {
                node.waits = 0;
            }
        }
        if state.promoted {
            state.inherited = 0;
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

fn tick(state: &mut State) {
    state.inherited = state.inherited.saturating_sub(1);
    for node in &mut state.nodes {
        node.waits = node.waits.saturating_sub(1);
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
            node.gives = Some(0);
        }
        vec![State {
            leader: true,
            inherited: 0,
            copies: 0,
            recorded: false,
            failover: None,
            promoting: false,
            promoted: false,
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
            Action::RecordCopy,
            Action::BeginFailover { target: 1 },
            Action::BeginFailover { target: 2 },
            Action::OrderPromotion,
            Action::Promote,
        ]);
        for node in 0..self.nodes() {
            actions.push(Action::Keep { node });
            if node > 0 {
                actions.push(Action::Doubt { node });
            }
            if state.restarts < self.restarts {
                actions.push(Action::RestartAgent { node });
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
            Action::Tick => tick(&mut state),
            Action::LeaderLost => state.leader = false,
            Action::Elected => {
                state.leader = true;
                state.inherited = self.grantor();
                state.proxies.iter_mut().for_each(|proxy| proxy.granted = 0);
            }
            Action::Renew { proxy, slow } => self.renew(&mut state, proxy, slow),
            Action::AskPromises { proxy, slow } => Self::ask(&mut state, proxy, slow),
            Action::Promise { proxy, node } => self.promise(&mut state, proxy, node),
            Action::AllPromised { proxy } => self.all_promised(&mut state, proxy),
            Action::AddCopy => {
                if state.leader && state.failover.is_none() && self.third {
                    state.copies = 1;
                }
            }
            Action::Keep { node } => self.keep(&mut state, node),
            Action::Doubt { node } => self.withdraw(&mut state.nodes[node]),
            Action::RecordCopy => self.record_copy(&mut state),
            Action::TellProxy { proxy } => {
                state.proxies[proxy].copies = state.copies;
                state.proxies[proxy].epoch = u8::from(state.promoted);
            }
            Action::BeginFailover { target } => Self::begin(&mut state, target),
            Action::OrderPromotion => self.order_promotion(&mut state),
            Action::Promote => self.promote(&mut state),
            Action::RestartAgent { node } => self.restart_agent(&mut state, node),
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
                | Action::RestartAgent { .. }
                | Action::Doubt { .. }
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
