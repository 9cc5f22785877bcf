//! Leases: until when this proxy may answer the clients of replicated databases ([`model::lease`]). Off the
//! hot path: workers only look at a number ([`until`]).
//!
//! The lease is the whole process's. It is asked for over the connection to `cnm_exec`, often enough that
//! three renewals may be lost. While the primary node is not reached, the promises of all copies of a
//! replica set stand in for it, for that set alone. Nothing of this is kept on disk or handed over: a
//! process that starts has no lease, and asks for one at once.
//!
//! | file | what |
//! |---|---|
//! | [`until`] | until when clients may be answered, for workers |
//! | [`sets`] | the replica sets, and what each rests on |
//! | [`tend`] | when to ask, and for what |
//! | [`promises`], [`keeper`] | asking all copies; asking one |

mod keeper;
mod promises;
mod sets;
mod tend;
mod until;

pub(crate) use until::{Until, now};

use crate::bounds;
use crate::worker::WorkerHandle;
use model::Revision;
use model::lease::{LeaseLength, Moment, Refusal};
use model::proxy::{Lease, LeaseOutcome, ProxyConfig, ProxyDatabase, Renewal};
use sets::{Key, Sets};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

const LENGTH: LeaseLength = LeaseLength::PRODUCT;
/// What is said before the first answer.
const NONE_YET: &str = "no lease: it has not been granted yet";

/// Until when a database's replica sets may be answered for.
#[derive(Clone, Debug)]
pub(crate) struct Leased {
    /// The lease of the proxy: for a replica set of an epoch that no configuration names yet.
    pub(crate) proxy: Arc<Until>,
    /// Each shard's, in their order.
    pub(crate) sets: Vec<Arc<Until>>,
}

/// The lease of this process, and the promises that it has.
#[derive(Clone, Debug)]
pub(crate) struct Leases(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// A renewal is to be sent.
    due: Notify,
    /// Promises are to be asked for.
    ask: Notify,
    /// There is something to be seen to.
    changed: Notify,
    /// Address that connections to other nodes come from.
    source: IpAddr,
}

#[derive(Debug, Default)]
struct State {
    sets: Sets,
    workers: Option<Arc<[WorkerHandle]>>,
    /// Revision that all workers have applied.
    applied: Revision,
    connection: Connection,
    /// A renewal is to be sent at once.
    hurry: bool,
    why: Why,
}

/// The connection to `cnm_exec`.
#[derive(Debug, Default)]
struct Connection {
    is_there: bool,
    /// Number of the last renewal.
    number: u64,
    /// Renewals without an answer and when each was sent, the oldest first.
    sent: VecDeque<(u64, Moment)>,
    /// Number of the newest renewal that was granted or refused.
    settled: u64,
    /// When the newest one was sent that was answered at all.
    heard: Moment,
}

/// Why there is no lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Why {
    #[default]
    NotYet,
    /// There is no connection to `cnm_exec`.
    Away,
    /// It says nothing.
    Silent,
    /// It does not reach the primary node.
    Unreached,
    /// It knows that there will be none before more voters answer.
    NoQuorum,
    Refused(Refusal),
}

impl Why {
    fn text(self) -> &'static str {
        match self {
            Self::NotYet => NONE_YET,
            Self::Away => "no lease: this node's cnm_exec is not reached",
            Self::Silent => "no lease: this node's cnm_exec does not answer",
            Self::Unreached => "no lease: the primary node is not reached",
            Self::NoQuorum => {
                "no lease: there is no quorum, most voters of the configuration do not answer"
            }
            Self::Refused(Refusal::NotConfirmed) => {
                "no lease: the primary node refused it, no quorum confirms that it is the primary node"
            }
            Self::Refused(Refusal::BehindGate) => {
                "no lease: the primary node refused it until this proxy has applied a newer configuration"
            }
        }
    }
}

impl Leases {
    /// None is held. `source`: the address that connections to other nodes come from.
    pub(crate) fn new(source: IpAddr) -> Self {
        Self(Arc::new(Shared {
            state: Mutex::default(),
            due: Notify::new(),
            ask: Notify::new(),
            changed: Notify::new(),
            source,
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        let state = &self.0.state;
        state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows the replica sets of a configuration that these workers are about to serve. What was held of
    /// a set counts as long as its primary and its epoch are the same.
    pub(crate) fn follow(&self, config: &ProxyConfig, workers: &Arc<[WorkerHandle]>) {
        let mut state = self.state();
        let before = state.sets.needed();
        state.sets.follow(config);
        state.workers = Some(Arc::clone(workers));
        state.hurry |= !before && state.sets.needed();
        drop(state);
        self.0.changed.notify_one();
    }

    /// Until when a database of the configuration that is followed may be answered for.
    pub(crate) fn of(&self, database: &ProxyDatabase) -> Option<Leased> {
        database.lease.as_ref()?;
        let state = self.state();
        Some(Leased {
            proxy: Arc::clone(state.sets.proxy()),
            sets: database
                .shards
                .iter()
                .map(|shard| state.sets.until((database.uid, shard.uid)))
                .collect(),
        })
    }

    /// All workers serve this revision, and none has anything under way of an earlier one.
    pub(crate) fn applied(&self, revision: Revision) {
        let mut state = self.state();
        if state.applied != revision {
            state.applied = revision;
            state.hurry = true;
            drop(state);
            self.0.changed.notify_one();
        }
    }

    /// There is a new connection to `cnm_exec`, or none any more.
    pub(crate) fn connected(&self, is_there: bool) {
        let mut state = self.state();
        state.connection = Connection {
            is_there,
            ..Connection::default()
        };
        state.hurry = true;
        if !is_there && !matches!(state.why, Why::Refused(_)) {
            state.why = Why::Away;
        }
        drop(state);
        self.0.changed.notify_one();
    }

    /// Waits until a renewal is to be sent.
    pub(crate) async fn due(&self) {
        self.0.due.notified().await;
    }

    /// The renewal that is sent now; the lease is counted from this moment.
    pub(crate) fn renewal(&self) -> Renewal {
        let mut state = self.state();
        let applied = state.applied;
        let connection = &mut state.connection;
        connection.number += 1;
        let number = connection.number;
        connection.sent.push_back((number, now()));
        if connection.sent.len() > bounds::RENEWALS {
            connection.sent.pop_front();
        }
        Renewal { number, applied }
    }

    /// What became of a renewal. One that was overtaken by the answer to a later one changes nothing.
    pub(crate) fn answered(&self, lease: Lease) {
        let mut state = self.state();
        let sent = &mut state.connection.sent;
        let place = sent.iter().position(|(number, _)| *number == lease.number);
        let Some((number, at)) = place.and_then(|place| sent.remove(place)) else {
            return;
        };
        if number < state.connection.settled {
            return;
        }
        state.connection.heard = state.connection.heard.max(at);
        match lease.outcome {
            LeaseOutcome::Granted => {
                state.connection.settled = number;
                state.why = Why::NotYet;
                let woken = state.sets.granted(at);
                state.look(woken);
            }
            LeaseOutcome::Refused(refusal) => {
                state.connection.settled = number;
                state.why = Why::Refused(refusal);
                state.sets.refused();
            }
            LeaseOutcome::Unknown => {
                if lease.no_quorum {
                    state.why = Why::NoQuorum;
                } else if !matches!(state.why, Why::Refused(_)) {
                    state.why = Why::Unreached;
                }
                self.0.ask.notify_one();
            }
        }
        drop(state);
        self.0.changed.notify_one();
    }

    /// Every copy of a set promised what was asked for at `sent`, or one did not.
    fn promised(&self, key: Key, epoch: model::Epoch, sent: Moment, outcome: Result<(), String>) {
        let mut state = self.state();
        let woken = state.sets.promised(key, epoch, sent, outcome);
        state.look(woken);
        drop(state);
        self.0.changed.notify_one();
    }
}

impl State {
    /// Sees what the sets rest on now. Workers are told if that has changed for some, or in any case.
    /// Returns the next moment at which it may change by itself.
    fn look(&mut self, tell: bool) -> Option<Moment> {
        let no_quorum = self.why == Why::NoQuorum;
        let (changed, next) = self.sets.look(now(), (self.why.text(), no_quorum));
        if changed || tell {
            for worker in self.workers.iter().flat_map(|workers| workers.iter()) {
                // One whose inbox is full looks by itself, a little later.
                let _ = worker.tell(crate::worker::Message::Leases);
            }
        }
        next
    }
}
