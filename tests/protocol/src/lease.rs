//! Leases: given by the primary node, waited out by whoever becomes it, never answered on when over.
//!
//! The old primary is cut off from the primary node and from nobody else: it carries out whatever proxies
//! send. A failover is decided at any moment. Time is in ticks: a lease lasts two of them by a clock that
//! is right, three by one that is slow, and the grantor counts three. Requests and answers take as long as
//! they like and get lost. A node that was replaced as leader does not notice, and any node, the same one
//! too, may be elected at any moment, having forgotten what it granted.

use crate::explore::Healable;
use model::lease::{LeaseLength, Moment, Validity, lease_is_over, may_answer, may_grant, may_send};
use model::{Epoch, Revision};
use stateright::{Model, Property};

/// Ticks of a lease.
pub const LENGTH: LeaseLength = LeaseLength {
    holder: 2,
    grantor: 3,
};
/// The moment that all counts refer to: what is left is counted, not when it ends.
pub(crate) const NOW: Moment = Moment(0);

/// The rules; each can be left out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rules {
    /// A grant only after a quorum confirmed the leader's term after the request arrived.
    pub confirmed_after_arrival: bool,
    /// A new leader counts every proxy as holding a lease for a whole length.
    pub new_leader_waits: bool,
    /// The holder counts from its sending, not from the answer.
    pub from_sending: bool,
    /// The grantor counts more than the holder.
    pub margin: bool,
    /// A failover waits for leases, or for answers of gates.
    pub failover_waits: bool,
    /// No lease for a proxy behind a gate that was ordered.
    pub refuse_behind_gate: bool,
    /// A proxy never lifts a gate by itself.
    pub no_lifting: bool,
    /// In a failover a gate is answered with everything in flight given up.
    pub gate_abandons: bool,
    /// The lease is looked at before a command leaves.
    pub check_before: bool,
    /// The lease is looked at after a reply is read.
    pub check_after: bool,
    /// A reply counts only on a connection of the present epoch.
    pub check_epoch: bool,
}

impl Rules {
    /// All of them.
    pub const ALL: Self = Self {
        confirmed_after_arrival: true,
        new_leader_waits: true,
        from_sending: true,
        margin: true,
        failover_waits: true,
        refuse_behind_gate: true,
        no_lifting: true,
        gate_abandons: true,
        check_before: true,
        check_after: true,
        check_epoch: true,
    };
}

/// The model.
#[derive(Clone, Copy, Debug)]
pub struct Leases {
    /// What holds.
    pub rules: Rules,
    /// Whether it matters that nothing is sent to an engine whose time is over, too.
    pub sends_matter: bool,
}

/// How far a request for a lease has come.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Stage {
    /// On its way to the node.
    Sent,
    /// There.
    Arrived,
    /// A quorum confirmed the node's term since.
    Confirmed,
    /// Granted; the answer is on its way.
    Granted,
}

/// A request for a lease.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Request {
    /// How far it has come.
    pub stage: Stage,
    /// It went to the node that leads now, in the term in which it leads now.
    pub to_leader: bool,
    /// What would be left of a lease from it, ticks.
    pub left: u8,
}

/// A proxy.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Proxy {
    /// What is left of its lease, ticks.
    pub lease: u8,
    /// What is left of it in the leader's book, ticks.
    pub granted: u8,
    /// Its request under way.
    pub request: Option<Request>,
    /// The epoch that it serves.
    pub epoch: u8,
    /// It holds commands.
    pub gated: bool,
    /// The leader knows that.
    pub answered: bool,
    /// The epoch of a command whose reply is on its way.
    pub in_flight: Option<u8>,
}

/// Everything.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct State {
    /// What is left of the time in which the leader counts every proxy as holding a lease, ticks.
    pub inherited: u8,
    /// A failover is stored.
    pub intent: bool,
    /// The replica is primary of epoch 1.
    pub promoted: bool,
    /// Proxies, sorted.
    pub proxies: [Proxy; 2],
    /// A write of epoch 0 was acknowledged after the promotion.
    pub late: bool,
    /// A command left for epoch 0 after the promotion.
    pub wasted: bool,
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(missing_docs, reason = "named for what they do")]
pub enum Action {
    Tick,
    Elected,
    StoreIntent,
    Ask {
        proxy: usize,
        leader: bool,
        slow: bool,
    },
    Arrive {
        proxy: usize,
    },
    Confirm {
        proxy: usize,
    },
    Grant {
        proxy: usize,
    },
    Deliver {
        proxy: usize,
    },
    Gate {
        proxy: usize,
    },
    LiftGate {
        proxy: usize,
    },
    Promote,
    Learn {
        proxy: usize,
    },
    Send {
        proxy: usize,
    },
    Answer {
        proxy: usize,
    },
}

impl Leases {
    fn grantor(&self) -> u8 {
        let length = if self.rules.margin {
            LENGTH.grantor
        } else {
            LENGTH.holder
        };
        ticks(length)
    }

    fn ask(&self, state: &mut State, proxy: usize, leader: bool, slow: bool) {
        state.proxies[proxy].request = Some(Request {
            stage: Stage::Sent,
            to_leader: leader,
            left: ticks(LENGTH.holder) + u8::from(slow),
        });
    }

    fn advance(&self, state: &mut State, proxy: usize, from: Stage) -> Option<()> {
        let intent = state.intent;
        let grantor = self.grantor();
        let proxy = &mut state.proxies[proxy];
        let request = proxy.request.as_mut().filter(|r| r.stage == from)?;
        // A leader knows of the failover that it began; one that was replaced knows nothing of it.
        let known = intent && request.to_leader;
        let ordered = known && !(proxy.answered || proxy.epoch == 1);
        let behind = u64::from(ordered && self.rules.refuse_behind_gate);
        let confirmed = request.to_leader || !self.rules.confirmed_after_arrival;
        request.stage = match from {
            Stage::Sent => Stage::Arrived,
            Stage::Arrived => {
                may_grant(confirmed, Revision(0), Revision(behind)).ok()?;
                Stage::Confirmed
            }
            Stage::Confirmed => {
                may_grant(true, Revision(0), Revision(behind)).ok()?;
                if request.to_leader {
                    proxy.granted = proxy.granted.max(grantor);
                }
                Stage::Granted
            }
            Stage::Granted => {
                let left = if self.rules.from_sending {
                    request.left
                } else {
                    ticks(LENGTH.holder)
                };
                proxy.lease = proxy.lease.max(left);
                proxy.request = None;
                return Some(());
            }
        };
        Some(())
    }

    fn promote(&self, state: &mut State) {
        let over = |proxy: &Proxy| {
            let inherited = Moment(state.inherited.into());
            proxy.answered || lease_is_over(NOW, inherited, Moment(proxy.granted.into()))
        };
        let free = state.proxies.iter().all(over) || !self.rules.failover_waits;
        state.promoted |= state.intent && free;
    }

    fn send(&self, state: &mut State, proxy: usize) {
        let promoted = state.promoted;
        let proxy = &mut state.proxies[proxy];
        let valid = if self.rules.check_before {
            Validity::Until(Moment(proxy.lease.into()))
        } else {
            Validity::NotNeeded
        };
        if proxy.in_flight.is_none() && may_send(NOW, valid, proxy.gated) {
            proxy.in_flight = Some(proxy.epoch);
            state.wasted |= promoted && proxy.epoch == 0 && self.sends_matter;
        }
    }

    fn answer(&self, state: &mut State, proxy: usize) {
        let proxy = &mut state.proxies[proxy];
        let Some(epoch) = proxy.in_flight.take() else {
            return;
        };
        let valid = if self.rules.check_after {
            Validity::Until(Moment(proxy.lease.into()))
        } else {
            Validity::NotNeeded
        };
        let current = if self.rules.check_epoch {
            proxy.epoch
        } else {
            epoch
        };
        let counts = may_answer(
            NOW,
            valid,
            Epoch(epoch.into()),
            Epoch(current.into()),
            false,
        );
        state.late |= counts && epoch == 0 && state.promoted;
    }

    fn gate(&self, state: &mut State, proxy: usize) {
        let proxy = &mut state.proxies[proxy];
        if state.intent && proxy.epoch == 0 {
            proxy.gated = true;
            proxy.answered = true;
            if self.rules.gate_abandons {
                proxy.in_flight = None;
            }
        }
    }
}

/// A length in ticks.
pub(crate) fn ticks(length: u64) -> u8 {
    u8::try_from(length).unwrap_or(u8::MAX)
}

fn tick(state: &mut State) {
    state.inherited = state.inherited.saturating_sub(1);
    for proxy in &mut state.proxies {
        proxy.lease = proxy.lease.saturating_sub(1);
        proxy.granted = proxy.granted.saturating_sub(1);
        if let Some(request) = &mut proxy.request {
            request.left = request.left.saturating_sub(1);
        }
    }
}

impl Model for Leases {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let proxy = Proxy {
            lease: 0,
            granted: 0,
            request: None,
            epoch: 0,
            gated: false,
            answered: false,
            in_flight: None,
        };
        vec![State {
            inherited: 0,
            intent: false,
            promoted: false,
            proxies: [proxy; 2],
            late: false,
            wasted: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.late || state.wasted {
            return;
        }
        actions.extend([
            Action::Tick,
            Action::Elected,
            Action::StoreIntent,
            Action::Promote,
        ]);
        for proxy in 0..state.proxies.len() {
            for (leader, slow) in [(true, true), (true, false), (false, true), (false, false)] {
                actions.push(Action::Ask {
                    proxy,
                    leader,
                    slow,
                });
            }
            actions.extend([
                Action::Arrive { proxy },
                Action::Confirm { proxy },
                Action::Grant { proxy },
                Action::Deliver { proxy },
                Action::Gate { proxy },
                Action::Learn { proxy },
                Action::Send { proxy },
                Action::Answer { proxy },
            ]);
            if !self.rules.no_lifting {
                actions.push(Action::LiftGate { proxy });
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Tick => tick(&mut state),
            Action::Elected => {
                if self.rules.new_leader_waits {
                    state.inherited = self.grantor();
                }
                let known = state.intent && self.rules.refuse_behind_gate;
                for proxy in &mut state.proxies {
                    proxy.granted = 0;
                    // Whoever led until now knows of the failover and refuses whatever it has not granted.
                    let refused = known && proxy.epoch == 0 && !proxy.answered;
                    proxy.request = proxy.request.take().filter(|request| {
                        !(request.to_leader && refused && request.stage != Stage::Granted)
                    });
                    if let Some(request) = &mut proxy.request {
                        request.to_leader = false;
                    }
                }
            }
            Action::StoreIntent => state.intent = true,
            Action::Ask {
                proxy,
                leader,
                slow,
            } => self.ask(&mut state, proxy, leader, slow),
            Action::Arrive { proxy } => self.advance(&mut state, proxy, Stage::Sent)?,
            Action::Confirm { proxy } => self.advance(&mut state, proxy, Stage::Arrived)?,
            Action::Grant { proxy } => self.advance(&mut state, proxy, Stage::Confirmed)?,
            Action::Deliver { proxy } => self.advance(&mut state, proxy, Stage::Granted)?,
            Action::Gate { proxy } => self.gate(&mut state, proxy),
            Action::LiftGate { proxy } => state.proxies[proxy].gated = false,
            Action::Promote => self.promote(&mut state),
            Action::Learn { proxy } => {
                if state.promoted {
                    state.proxies[proxy].epoch = 1;
                    state.proxies[proxy].gated = false;
                }
            }
            Action::Send { proxy } => self.send(&mut state, proxy),
            Action::Answer { proxy } => self.answer(&mut state, proxy),
        }
        for proxy in &mut state.proxies {
            // A request from which no lease can come makes no difference.
            let vain = |r: &Request| self.rules.from_sending && r.left == 0;
            proxy.request = proxy.request.filter(|r| !vain(r));
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
            Property::always(
                "nothing is sent to an old primary after a promotion",
                |_, s: &State| !s.wasted,
            ),
            Property::sometimes("both proxies serve the new primary", |_, s: &State| {
                s.proxies
                    .iter()
                    .all(|p| p.epoch == 1 && p.lease > 0 && p.in_flight == Some(1))
            }),
        ]
    }
}

impl Healable for Leases {
    fn is_fault(&self, _: &State, action: &Action) -> bool {
        matches!(
            action,
            Action::Elected
                | Action::StoreIntent
                | Action::Send { .. }
                | Action::LiftGate { .. }
                | Action::Ask { leader: false, .. }
        )
    }

    fn is_well(&self, state: &State) -> bool {
        let served = |p: &Proxy| p.lease > 0 && !p.gated && p.epoch == u8::from(state.promoted);
        state.intent == state.promoted && state.proxies.iter().all(served)
    }
}
