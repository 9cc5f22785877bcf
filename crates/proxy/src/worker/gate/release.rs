//! Another primary takes over: connections to it are used from now on, and what waited goes on.

use super::prepare::same_place;
use super::{Gate, Outcome, refuse, tell};
use crate::worker::Worker;
use crate::worker::backend::{Next, Phase, Use};
use crate::worker::client::{Lane, Wait};
use crate::worker::fan::Part;
use crate::worker::lanes::Flow;
use crate::worker::link::LinkId;
use crate::worker::session::{Db, Transaction, Watch};
use model::proxy::ProxyShard;
use tokio::sync::mpsc::Sender;

/// An invalidation of all keys.
const FORGET_ALL: &[u8] = b">2\r\n$10\r\ninvalidate\r\n_\r\n";

impl Worker {
    pub(super) fn release_order(
        &mut self,
        served: usize,
        shard: usize,
        next: ProxyShard,
        answer: Sender<Outcome>,
    ) {
        let links = &self.served[served].shards[shard];
        if links
            .target
            .as_ref()
            .is_some_and(|known| same_place(known, &next))
        {
            // A configuration was faster.
            tell(Some(answer), Outcome::default());
            return;
        }
        let known = self.epoch_of(served, shard);
        if known.is_some_and(|known| next.epoch <= known) {
            let known = known.map_or_else(String::new, |epoch| epoch.to_string());
            let text = format!("epoch {} does not follow epoch {known}", next.epoch);
            refuse(Some(answer), text);
            return;
        }
        let outcome = self.take_over(served, shard, next);
        tell(Some(answer), outcome);
    }

    /// Goes on with another primary, of a higher epoch than the present one.
    pub(in crate::worker) fn take_over(
        &mut self,
        served: usize,
        shard: usize,
        next: ProxyShard,
    ) -> Outcome {
        let fits = |gate: &Gate| {
            let prepared = gate.prepared.as_ref();
            prepared.is_some_and(|prepared| same_place(&prepared.shard, &next))
        };
        let links = &self.served[served].shards[shard];
        if !links.gate.as_deref().is_some_and(fits) {
            self.forget_prepared(served, shard, "another primary takes over");
        }
        let gate = self.served[served].shards[shard].gate.take();
        let gate = gate.map(|gate| *gate).unwrap_or_default();
        self.gates
            .closing
            .retain(|closing| *closing != (served, shard));
        let mut outcome = Outcome::default();
        if let Some(closed) = gate.closed {
            for answer in closed.answers {
                refuse(Some(answer), "the gate was opened meanwhile");
            }
            let held = closed.since.elapsed().as_micros();
            outcome.held_us = u64::try_from(held).unwrap_or(u64::MAX);
            outcome.waited = closed.waited;
        }
        let target = match &gate.prepared {
            Some(prepared) => prepared.target,
            None => self.new_target(served, shard),
        };
        let links = &mut self.served[served].shards[shard];
        let old = std::mem::replace(&mut links.number, target);
        links.target = Some(next);
        links.unloaded = gate.prepared.is_none();
        self.set_lease(served, shard);
        for id in self.links_of(served, shard) {
            let idle = self.link_mut(id).map(|link| std::mem::take(&mut link.idle));
            for index in idle.unwrap_or_default() {
                self.drop_backend(index);
            }
        }
        self.report_link(
            served,
            shard,
            Some("the new primary is connected to".to_owned()),
        );
        let engine = gate
            .prepared
            .as_ref()
            .and_then(|prepared| prepared.engine.clone());
        if engine.is_some() {
            self.served[served].engine = engine;
        }
        let (shared, spare) = match gate.prepared {
            Some(mut prepared) => {
                refuse(prepared.answer.take(), "the gate was opened meanwhile");
                (prepared.shared, prepared.spare)
            }
            None => ([None; 2], Vec::new()),
        };
        for (id, shared) in self.links_of(served, shard).into_iter().zip(shared) {
            self.use_shared(id, shared);
        }
        self.use_spares(spare);
        self.move_late_again(served, shard);
        self.leave_old(served, shard, old);
        self.follow_lease(served, shard);
        for id in self.links_of(served, shard) {
            self.wake_waiters(id);
        }
        outcome
    }

    /// Ends the connections to the old primary; those that have something under way after it.
    fn leave_old(&mut self, served: usize, shard: usize, number: u64) {
        for index in self.backends_of(served, Some(shard)) {
            let Some(backend) = self.backends.get(index) else {
                continue;
            };
            if backend.target != number || matches!(backend.usage, Use::Next(_)) {
                continue;
            }
            let clean = backend.clean();
            match backend.usage {
                Use::Own(owner) if clean => match self.find(owner) {
                    Some(client) => self.move_own(client, index),
                    None => self.drop_backend(index),
                },
                _ => self.retire(index),
            }
        }
    }

    /// A prepared connection becomes the one that all share; without one, it is opened now.
    fn use_shared(&mut self, id: LinkId, prepared: Option<usize>) {
        if let Some(link) = self.link_mut(id) {
            link.shared = None;
            link.scripts = None;
            link.ready = false;
            link.down_since = None;
            link.pause = std::time::Duration::ZERO;
            link.retry_set = false;
        }
        let Some(index) = prepared else {
            if id.resp == 2 || self.link(id).is_some_and(|link| !link.waiters.is_empty()) {
                self.need(id);
            }
            return;
        };
        let backend = &mut self.backends[index];
        backend.usage = Use::Shared;
        let ready = backend.phase == Phase::Ready;
        if let Some(link) = self.link_mut(id) {
            link.shared = Some(index);
        }
        if ready && self.is_leased(id.served, id.shard) {
            // Those that wait are woken when all is in its place.
            if let Some(link) = self.link_mut(id) {
                link.ready = true;
            }
            if id.resp == 2 {
                self.report_link(id.served, id.shard, None);
            }
        } else {
            self.need(id);
        }
    }

    /// Prepared connections are there for single clients.
    fn use_spares(&mut self, spares: Vec<usize>) {
        for index in spares {
            let backend = &mut self.backends[index];
            if backend.phase != Phase::Ready {
                self.drop_backend(index);
                continue;
            }
            self.lay_aside(index);
        }
    }

    /// A client's own connection to the old primary, on which nothing is under way, ends; what it held is
    /// set up anew.
    pub(super) fn move_own(&mut self, client: usize, index: usize) {
        let keep = self.clients[client].keep.as_mut();
        let subscribed = keep.as_ref().is_some_and(|keep| keep.is_subscribed());
        let next = keep.and_then(|keep| keep.next);
        let next = next.filter(|next| self.is_for(*next, client));
        if subscribed
            && self.may_move_later(index)
            && !(next.is_some() && self.backends[index].is_over())
        {
            let there = match next {
                Some(next) => Some(next),
                None => self.connect_for(client, true),
            };
            if let Some(next) = there {
                self.move_later(index, client, next);
                return;
            }
        }
        if let Some(keep) = &mut self.clients[client].keep {
            keep.next = None;
        }
        self.move_state(client);
        if self.clients[client].session.own.db == Db::Unknown {
            self.close_client(client);
            return;
        }
        self.drop_backend(index);
        self.own_not_there(client);
        let monitors = self.clients[client].session.own.monitor;
        let next = match next {
            Some(next) if monitors => {
                self.drop_backend(next);
                None
            }
            next => next,
        };
        match next {
            Some(next) => self.take_next(client, next),
            None if self.is_needed(client) => {
                let there = self.connect_for(client, false).is_some();
                if !there && (subscribed || monitors) {
                    // It would never hear that nothing comes.
                    self.close_deaf(client);
                }
            }
            None => {}
        }
        self.flush_tracked(client);
    }

    /// What does not survive a move of the primary.
    fn move_state(&mut self, client: usize) {
        let known = &mut self.clients[client];
        let own = &mut known.session.own;
        if own.watch == Watch::Set {
            // Whether the keys changed is known only to the old primary.
            own.watch = Watch::Lost;
        }
        let overflown = known.keep.as_ref().is_some_and(|keep| keep.has_overflown());
        if own.transaction == Transaction::Open && overflown {
            own.transaction = Transaction::Lost;
            own.select_queued = None;
            if let Some(keep) = &mut known.keep {
                keep.forget_transaction();
            }
        }
    }

    /// Whether a client is to have a connection of its own at once.
    fn is_needed(&self, client: usize) -> bool {
        let known = &self.clients[client];
        let own = &known.session.own;
        own.monitor
            || own.transaction == Transaction::Open
            || known.keep.as_ref().is_some_and(|keep| keep.is_early())
    }

    /// A connection for a client to the present primary, set up as its last one was. `beside`: the last one
    /// is still used. `None`: it cannot be had now.
    pub(super) fn connect_for(&mut self, client: usize, beside: bool) -> Option<usize> {
        let (id, name) = (self.link_of(client), self.client_id(client));
        let usage = if beside {
            Use::Next(Next::Client(name))
        } else {
            Use::Own(name)
        };
        let idle = self.link_mut(id).and_then(|link| link.idle.pop());
        let place = match idle {
            Some(place) => {
                self.backends[place].usage = usage;
                place
            }
            None => self
                .open(id, usage)
                .inspect_err(|reason| tracing::warn!(%reason, "a client's connection cannot be set up after a move"))
                .ok()?,
        };
        if !beside {
            self.clients[client].lane = Lane::Own(place);
        }
        if idle.is_some() {
            self.set_up_own(place);
        }
        Some(place)
    }

    /// The connection that was set up for a client takes over.
    fn take_next(&mut self, client: usize, next: usize) {
        let name = self.client_id(client);
        self.backends[next].usage = Use::Own(name);
        self.clients[client].lane = Lane::Own(next);
        self.take_subscriptions(next);
        if self.backends.contains(next) {
            self.open_transaction(next, client);
        }
    }

    /// A client that caches is told to forget all: what changed before it was tracked again is not told.
    fn flush_tracked(&mut self, client: usize) {
        if !self.clients.contains(client) {
            return;
        }
        let session = &self.clients[client].session;
        if !session.own.tracking || session.resp != 3 {
            return;
        }
        match &self.clients[client].part {
            Part::Leg(_) => self.hand_on(client, FORGET_ALL.to_vec(), &[]),
            Part::Whole | Part::Front(_) => self.give(client, FORGET_ALL, &[]),
        }
    }

    /// A command is for a connection of an earlier epoch: it is exchanged first.
    ///
    /// # Errors
    /// That is not possible yet.
    pub(in crate::worker) fn follow_primary(
        &mut self,
        client: usize,
        place: usize,
    ) -> Result<(), Flow> {
        let moving = self.clients[client].keep.as_ref();
        let moving = moving.is_some_and(|keep| keep.next.is_some());
        if !moving && self.backends[place].clean() {
            self.move_own(client, place);
        }
        if self.clients.contains(client) && self.clients[client].lane != Lane::Own(place) {
            return Ok(());
        }
        if self.clients.contains(client) {
            let waits = self.backends[place].book.is_empty();
            self.clients[client].wait = if waits { Wait::Link } else { Wait::Barrier };
        }
        Err(Flow::Hold)
    }

    /// A connection to the next primary is ready.
    pub(in crate::worker) fn next_ready(&mut self, index: usize, what: Next) {
        let id = self.backends[index].link;
        match what {
            Next::Client(_) => self.gates.look = true,
            Next::Shared if id.resp == 2 && self.load_scripts(index) => {
                if let Some(prepared) = self.prepared_mut(id.served, id.shard) {
                    prepared.loading = true;
                }
            }
            Next::Shared | Next::Spare => self.one_prepared(id.served, id.shard),
        }
    }
}
