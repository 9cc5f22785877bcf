//! Leases are turned on: the first second copy of a database whose proxies needed no lease until then.
//!
//! A proxy that has not heard of it goes on under epoch 0, for which no lease is needed, as long as the
//! engine lets it. A failover comes at any moment after the copy is recorded; the old primary is cut off
//! from the leader only.

use crate::explore::Healable;
use crate::lease::NOW;
use model::Epoch;
use model::lease::{Moment, Validity, may_answer, may_send};
use stateright::{Model, Property};

/// The rules; each can be left out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rules {
    /// The users of epoch 0 are revoked at the primary before a copy is recorded.
    pub revoked_first: bool,
    /// They may not read any more either.
    pub reads_revoked: bool,
    /// A copy is recorded only with all that the primary had when they were revoked.
    pub record_covers: bool,
    /// A failover waits for the leases of epoch 1.
    pub failover_waits: bool,
}

impl Rules {
    /// All of them.
    pub const ALL: Self = Self {
        revoked_first: true,
        reads_revoked: true,
        record_covers: true,
        failover_waits: true,
    };
}

/// The model.
#[derive(Clone, Copy, Debug)]
pub struct LeaseOn {
    /// What holds.
    pub rules: Rules,
    /// Writes of clients.
    pub writes: u8,
}

/// A write that left for an engine.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct InFlight {
    /// Its bit in the sets of writes.
    pub write: u8,
    /// Epoch of the connection.
    pub epoch: u8,
    /// The engine has carried it out; the reply is on its way.
    pub done: bool,
}

/// A proxy.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Proxy {
    /// 0: one copy, no lease; 1: leases are on; 2: the copy is primary.
    pub epoch: u8,
    /// It holds a lease.
    pub lease: bool,
    /// Its only command under way.
    pub in_flight: Option<InFlight>,
}

/// Everything.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct State {
    /// Committed epoch.
    pub epoch: u8,
    /// What the primary had when the users of epoch 0 were revoked there.
    pub revoked: Option<u8>,
    /// A failover is stored: nobody behind it gets a lease.
    pub intent: bool,
    /// The copy is recorded.
    pub recorded: bool,
    /// Writes of the primary and of the copy.
    pub data: [u8; 2],
    /// Proxies, sorted.
    pub proxies: [Proxy; 2],
    /// Writes sent so far.
    pub writes: u8,
    /// Writes that clients know to be done.
    pub acknowledged: u8,
    /// Writes that only the old primary had.
    pub excused: u8,
    /// A write of an older epoch was acknowledged after the promotion, and is not there.
    pub late: bool,
    /// A client read data that lack a write that had been acknowledged before.
    pub stale: bool,
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(missing_docs, reason = "named for what they do")]
pub enum Action {
    TurnOn,
    Revoke,
    Replicate,
    Record,
    StoreFailover,
    Promote,
    Learn { proxy: usize },
    Renew { proxy: usize },
    LeaseEnds { proxy: usize },
    Send { proxy: usize },
    CarryOut { proxy: usize },
    Refused { proxy: usize },
    Answer { proxy: usize },
    Read { proxy: usize },
}

fn validity(proxy: &Proxy) -> Validity {
    if proxy.epoch == 0 {
        Validity::NotNeeded
    } else {
        Validity::Until(Moment(proxy.lease.into()))
    }
}

const fn engine(epoch: u8) -> usize {
    if epoch == 2 { 1 } else { 0 }
}

impl LeaseOn {
    fn record(&self, state: &mut State) {
        let covered = |had: u8| had & !state.data[1] == 0;
        let revoked = match state.revoked {
            Some(had) => covered(had) || !self.rules.record_covers,
            None => !self.rules.revoked_first,
        };
        if state.epoch == 1 && revoked {
            state.recorded = true;
        }
    }

    fn promote(&self, state: &mut State) {
        let over = state.proxies.iter().all(|proxy| !proxy.lease);
        if state.intent && state.epoch == 1 && (over || !self.rules.failover_waits) {
            state.epoch = 2;
            state.excused = state.acknowledged & !state.data[1];
        }
    }

    fn read(&self, state: &mut State, proxy: usize) {
        let reader = &state.proxies[proxy];
        let refused = reader.epoch == 0 && state.revoked.is_some() && self.rules.reads_revoked;
        if refused || !may_send(NOW, validity(reader), false) {
            return;
        }
        let there = state.data[engine(reader.epoch)];
        state.stale = state.acknowledged & !state.excused & !there != 0;
    }
}

fn send(state: &mut State, proxy: usize) {
    let write = 1 << state.writes;
    let sender = &mut state.proxies[proxy];
    if sender.in_flight.is_none() && may_send(NOW, validity(sender), false) {
        sender.in_flight = Some(InFlight {
            write,
            epoch: sender.epoch,
            done: false,
        });
        state.writes += 1;
    }
}

/// At the engine, which knows the users of an epoch or does not.
fn carry_out(state: &mut State, proxy: usize, refusing: bool) {
    let Some(flight) = state.proxies[proxy].in_flight.filter(|flight| !flight.done) else {
        return;
    };
    let refused = flight.epoch == 0 && state.revoked.is_some();
    if refused != refusing {
        return;
    }
    if refused {
        state.proxies[proxy].in_flight = None;
        return;
    }
    state.data[engine(flight.epoch)] |= flight.write;
    state.proxies[proxy].in_flight = Some(InFlight {
        done: true,
        ..flight
    });
}

fn answer(state: &mut State, proxy: usize) {
    let reader = &mut state.proxies[proxy];
    let Some(flight) = reader.in_flight.filter(|flight| flight.done) else {
        return;
    };
    reader.in_flight = None;
    let (connection, current) = (Epoch(flight.epoch.into()), Epoch(reader.epoch.into()));
    if may_answer(NOW, validity(reader), connection, current, false) {
        state.acknowledged |= flight.write;
        let lacks = state.data[1] & flight.write == 0;
        state.late |= state.epoch == 2 && flight.epoch < 2 && lacks;
    }
}

impl Model for LeaseOn {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::default()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.late || state.stale {
            return;
        }
        actions.extend([
            Action::TurnOn,
            Action::Revoke,
            Action::Replicate,
            Action::Record,
            Action::StoreFailover,
            Action::Promote,
        ]);
        for proxy in 0..state.proxies.len() {
            actions.extend([
                Action::Learn { proxy },
                Action::Renew { proxy },
                Action::LeaseEnds { proxy },
                Action::CarryOut { proxy },
                Action::Refused { proxy },
                Action::Answer { proxy },
                Action::Read { proxy },
            ]);
            if state.writes < self.writes {
                actions.push(Action::Send { proxy });
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = *last;
        match action {
            Action::TurnOn => state.epoch = state.epoch.max(1),
            Action::Revoke => {
                if state.epoch == 1 && state.revoked.is_none() {
                    state.revoked = Some(state.data[0]);
                }
            }
            Action::Replicate => {
                let missing = state.data[0] & !state.data[1];
                if state.epoch < 2 {
                    state.data[1] |= missing & missing.wrapping_neg();
                }
            }
            Action::Record => self.record(&mut state),
            Action::StoreFailover => state.intent |= state.recorded,
            Action::Promote => self.promote(&mut state),
            Action::Learn { proxy } => state.proxies[proxy].epoch = state.epoch,
            Action::Renew { proxy } => {
                let proxy = &mut state.proxies[proxy];
                let behind = proxy.epoch < state.epoch || (state.intent && state.epoch < 2);
                proxy.lease |= proxy.epoch > 0 && !behind;
            }
            Action::LeaseEnds { proxy } => state.proxies[proxy].lease = false,
            Action::Send { proxy } => send(&mut state, proxy),
            Action::CarryOut { proxy } => carry_out(&mut state, proxy, false),
            Action::Refused { proxy } => carry_out(&mut state, proxy, true),
            Action::Answer { proxy } => answer(&mut state, proxy),
            Action::Read { proxy } => self.read(&mut state, proxy),
        }
        state.proxies.sort_unstable();
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(
                "nothing of the old primary is acknowledged after a promotion",
                |_, s: &State| !s.late,
            ),
            Property::always("nobody reads what is out of date", |_, s: &State| !s.stale),
            Property::sometimes("both proxies serve the copy", |_, s: &State| {
                s.proxies.iter().all(|p| p.epoch == 2 && p.lease) && s.acknowledged != 0
            }),
        ]
    }
}

impl Healable for LeaseOn {
    fn is_fault(&self, _: &State, action: &Action) -> bool {
        matches!(
            action,
            Action::StoreFailover | Action::Send { .. } | Action::Read { .. }
        )
    }

    fn is_well(&self, state: &State) -> bool {
        let served = |p: &Proxy| p.epoch == state.epoch && p.lease;
        let recorded = state.recorded && (!state.intent || state.epoch == 2);
        recorded && state.proxies.iter().all(served)
    }
}
