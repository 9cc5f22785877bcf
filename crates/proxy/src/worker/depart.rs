//! Clients that go to another process, when this one is replaced.
//!
//! At the end of a turn some of those that can go are packed, and given to the thread that speaks with the
//! new process. Of a client whose replies are on their way over a shared connection no more commands are
//! taken for a moment, so that it can go with the next ones; if that is in vain it is let be and tried again.

use super::Worker;
use super::carry::{Carried, Going};
use super::client::ClientId;
use super::timers::Timer;
use crate::bounds;
use crate::handover::record::ScriptsRecord;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::{Duration, Instant};

/// Where clients go.
#[derive(Clone, Debug)]
pub(crate) struct Away {
    /// Takes a few clients at a time.
    pub(crate) to: SyncSender<Parcel>,
    /// Parcels that wait there. While one does, none is packed: its clients would only wait longer.
    pub(crate) waiting: Arc<AtomicUsize>,
}

/// What goes there at a time.
#[derive(Debug)]
pub(crate) enum Parcel {
    /// What the worker knows of scripts; first of all.
    Scripts(Vec<ScriptsRecord>),
    Clients(Vec<Carried>),
}

/// What a worker that gives its clients away has under way.
#[derive(Debug)]
pub(super) struct Departing {
    away: Away,
    /// What is known of scripts, if it is not taken yet.
    scripts: Vec<ScriptsRecord>,
    /// Those that are packed and not taken yet.
    packed: Vec<Carried>,
    /// Which client is looked at next.
    next: usize,
    /// Those of which no commands are taken.
    asked: Vec<ClientId>,
    /// When it is looked again, if a timer is set.
    look_at: Option<Instant>,
}

impl Departing {
    /// Gives what is packed away; `true`: it was. `Err`: nobody takes it any more.
    fn hand_on(&mut self) -> Result<bool, ()> {
        let parcel = if !self.scripts.is_empty() {
            Parcel::Scripts(std::mem::take(&mut self.scripts))
        } else if !self.packed.is_empty() {
            Parcel::Clients(std::mem::take(&mut self.packed))
        } else {
            return Ok(false);
        };
        let waiting = &self.away.waiting;
        waiting.fetch_add(1, Ordering::Relaxed);
        let Err(error) = self.away.to.try_send(parcel) else {
            return Ok(true);
        };
        waiting.fetch_sub(1, Ordering::Relaxed);
        let ended = matches!(error, TrySendError::Disconnected(_));
        let (TrySendError::Full(parcel) | TrySendError::Disconnected(parcel)) = error;
        match parcel {
            Parcel::Scripts(scripts) => self.scripts = scripts,
            Parcel::Clients(clients) => self.packed = clients,
        }
        if ended { Err(()) } else { Ok(false) }
    }
}

/// How often the patience is doubled when it was in vain: up to about a second.
const PATIENCE_DOUBLED: u8 = 6;
/// Clients that are looked at in one turn.
const LOOKED_AT: usize = 2048;

impl Worker {
    /// All clients are to leave, each as soon as it has nothing under way.
    pub(super) fn drain(&mut self) {
        self.draining = true;
        for index in self.fronts(|_| true) {
            self.close_if_done(index);
        }
    }

    pub(super) fn begin_departing(&mut self, away: Away) {
        self.stay();
        self.departing = Some(Departing {
            away,
            scripts: self.known_scripts(),
            packed: Vec::new(),
            next: 0,
            asked: Vec::new(),
            look_at: None,
        });
    }

    /// No more clients go.
    pub(super) fn stay(&mut self) {
        let Some(departing) = self.departing.take() else {
            return;
        };
        for id in departing.asked {
            self.let_be(id);
        }
        self.bring_back(departing.packed);
    }

    fn bring_back(&mut self, clients: Vec<Carried>) {
        let count = clients.len() as u64;
        let state = &self.state.clients;
        state.fetch_add(count, Ordering::Relaxed);
        for client in clients {
            self.take_carried(client);
        }
    }

    /// Gives some clients away, if they are to go.
    #[inline]
    pub(super) fn depart(&mut self) {
        if self.departing.is_some() {
            self.depart_some();
        }
    }

    #[cold]
    fn depart_some(&mut self) {
        let Some(mut departing) = self.departing.take() else {
            return;
        };
        let taken = departing.away.waiting.load(Ordering::Relaxed) == 0;
        if departing.packed.is_empty() && taken {
            self.pack_some(&mut departing);
        }
        self.let_be_in_vain(&mut departing);
        let mut again = bounds::DEPART_LOOK;
        match departing.hand_on() {
            Ok(true) => again = Duration::ZERO,
            Ok(false) => {}
            Err(()) => {
                self.departing = Some(departing);
                self.stay();
                return;
            }
        }
        if !self.clients.is_empty() || !departing.packed.is_empty() {
            self.look_again(&mut departing, again);
        }
        self.departing = Some(departing);
    }

    fn look_again(&mut self, departing: &mut Departing, after: Duration) {
        let at = self.now + after;
        let due = |look_at: Instant| look_at > self.now && look_at <= at;
        if !departing.look_at.is_some_and(due) {
            departing.look_at = Some(at);
            self.timers.set(after, Timer::Look);
        }
    }

    fn pack_some(&mut self, departing: &mut Departing) {
        let places = self.clients.capacity();
        let clock = self.clock;
        // Those first that wait for it.
        departing.asked.retain(|id| {
            let Some(index) = self.find(*id) else {
                return false;
            };
            if departing.packed.len() < bounds::DEPART_AT_ONCE && self.may_go(index) == Going::Now {
                departing.packed.extend(self.pack(index));
                return false;
            }
            true
        });
        for _ in 0..places.min(LOOKED_AT) {
            if departing.packed.len() >= bounds::DEPART_AT_ONCE
                || departing.asked.len() >= bounds::DEPART_AT_ONCE
            {
                return;
            }
            let index = departing.next;
            departing.next = (index + 1) % places;
            let Some(client) = self.clients.get(index) else {
                continue;
            };
            let departs = client.departs;
            if client.stream.is_none() || departs.since > 0 || departs.not_before > clock {
                continue;
            }
            match self.may_go(index) {
                Going::Now => departing.packed.extend(self.pack(index)),
                Going::Soon => {
                    self.clients[index].departs.since = clock;
                    departing.asked.push(self.client_id(index));
                }
                Going::Later => {}
            }
        }
    }

    /// Lets clients be that have waited long enough.
    fn let_be_in_vain(&mut self, departing: &mut Departing) {
        let patience = |tries: u8| {
            let doubled = bounds::DEPART_PATIENCE * (1 << tries.min(PATIENCE_DOUBLED));
            doubled.as_micros() as u64
        };
        let clock = self.clock;
        let over: Vec<ClientId> = departing
            .asked
            .extract_if(.., |id| {
                self.find(*id).is_none_or(|index| {
                    let departs = self.clients[index].departs;
                    clock.saturating_sub(departs.since) > patience(departs.tries)
                })
            })
            .collect();
        for id in over {
            self.let_be(id);
        }
    }

    /// Takes commands of a client again, for a while at least.
    fn let_be(&mut self, id: ClientId) {
        let Some(index) = self.find(id) else {
            return;
        };
        let rest = bounds::DEPART_REST.as_micros() as u64;
        let client = &mut self.clients[index];
        client.departs.since = 0;
        client.departs.tries = client.departs.tries.saturating_add(1);
        client.departs.not_before = self.clock + rest;
        self.queue_if_open(index);
    }
}
