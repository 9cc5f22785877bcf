//! Leases: a shard of a replicated database is used only while one holds ([`crate::leases`]).
//!
//! The clock is looked at before something is written to the shard, and again after something was read from
//! it. Without a lease nothing is written and nothing is read: what is on its way stays in the sockets and
//! buffers, and goes on when there is a lease again. What was read by then is given up: nobody knows whether
//! the shard was still the primary when it answered. After [`bounds::HOLD`] everything is given up; at once where there
//! is no quorum and a copy does not promise, since then nobody comes to give a lease.
//!
//! As with a gate, the shard's links are not ready meanwhile, so what comes anew waits with its client.

use super::Worker;
use super::backend::{Backend, Phase, Use};
use super::client::Wait;
use super::lanes::Flow;
use super::link::LinkId;
use super::timers::Timer;
use crate::leases::{Until, now};
use crate::{bounds, texts};
use model::lease::Moment;
use model::proxy::ProxyShard;
use std::sync::Arc;

const ENDED: &str = "the lease ran out before a reply was read: who is primary is not known";

/// That a shard has no lease.
#[derive(Debug)]
pub(crate) struct Lapse {
    /// Tells it from earlier ones.
    number: u64,
    /// Clients have waited long enough.
    over: bool,
}

/// What a worker knows of leases.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    /// Whether a database needs one.
    pub(super) any: bool,
    /// When this turn began.
    turn: Moment,
    /// Counts the times at which one was missing.
    count: u64,
    /// It will be looked whether one is there again.
    looking: bool,
}

impl Backend {
    /// Whether a client's commands may be written to it now.
    #[inline]
    pub(super) fn may_send(&self) -> bool {
        match &self.lease {
            Some(until) if self.phase == Phase::Ready => until.holds_now(),
            _ => true,
        }
    }

    /// Whether what was just read may be passed on.
    #[inline]
    pub(super) fn may_answer(&self) -> bool {
        self.may_send()
    }

    /// Whether it may be read, as of the beginning of this turn.
    #[inline]
    fn may_receive(&self, turn: Moment) -> bool {
        match &self.lease {
            Some(until) if self.phase == Phase::Ready => until.holds(turn),
            _ => true,
        }
    }

    /// Whether replies for somebody may come over it, or commands of somebody leave.
    fn is_in_use(&self) -> bool {
        !self.book.is_empty() || !self.out.is_empty() || self.half_sent
    }
}

impl Worker {
    /// A turn begins.
    #[inline]
    pub(super) fn tell_moment(&mut self) {
        if self.leases.any {
            self.leases.turn = now();
        }
    }

    fn lapse_of(&self, served: usize, shard: usize) -> Option<&Lapse> {
        self.served.get(served)?.shards.get(shard)?.lapse.as_ref()
    }

    /// Whether a shard has no lease, as far as it was noticed.
    #[inline]
    pub(super) fn has_lapsed(&self, id: LinkId) -> bool {
        self.lapse_of(id.served, id.shard).is_some()
    }

    /// Whether a connection may be read. If not, that is noted.
    #[inline]
    pub(super) fn lease_lets_read(&mut self, index: usize) -> bool {
        let backend = &self.backends[index];
        if backend.may_receive(self.leases.turn) {
            return true;
        }
        let LinkId { served, shard, .. } = backend.link;
        self.lapse(served, shard);
        false
    }

    /// A connection is not written to, since there is no lease.
    #[cold]
    pub(super) fn not_sent(&mut self, index: usize) {
        let LinkId { served, shard, .. } = self.backends[index].link;
        self.lapse(served, shard);
    }

    /// Something was read that may not be passed on.
    #[cold]
    pub(super) fn not_answered(&mut self, index: usize) {
        let LinkId { served, shard, .. } = self.backends[index].link;
        self.lapse(served, shard);
        self.lose(index, ENDED);
    }

    /// Until when the target of a shard may be used: of an epoch that no configuration names yet, as long
    /// as the proxy's lease holds.
    fn until_of(&self, served: usize, shard: usize) -> Option<Arc<Until>> {
        let known = &self.served[served];
        let lease = known.database.lease.as_ref()?;
        let target = known.shards[shard].target.as_ref()?;
        let named = |shard: &ProxyShard| (shard.uid, shard.epoch) == (target.uid, target.epoch);
        let place = known.database.shards.iter().position(named);
        let until = place.and_then(|place| lease.sets.get(place));
        Some(Arc::clone(until.unwrap_or(&lease.proxy)))
    }

    /// Gives a shard's connections the lease of its target. Those to the next primary need none before it
    /// is that.
    pub(super) fn set_lease(&mut self, served: usize, shard: usize) {
        let until = self.until_of(served, shard);
        let links = &mut self.served[served].shards[shard];
        if until.is_none() && links.lease.is_none() {
            return;
        }
        links.lease.clone_from(&until);
        let number = links.number;
        for index in self.backends_of(served, Some(shard)) {
            let backend = &mut self.backends[index];
            let next = matches!(backend.usage, Use::Next(_)) && backend.target != number;
            backend.lease = until.clone().filter(|_| !next);
        }
    }

    /// Whether a shard may be used now.
    pub(super) fn is_leased(&self, served: usize, shard: usize) -> bool {
        let lease = &self.served[served].shards[shard].lease;
        lease.as_ref().is_none_or(|until| until.holds_now())
    }

    /// Follows the lease of a shard's target, which may be another one now.
    pub(super) fn follow_lease(&mut self, served: usize, shard: usize) {
        self.set_lease(served, shard);
        if self.served[served].shards[shard].target.is_none() {
            self.served[served].shards[shard].lapse = None;
        } else if !self.is_leased(served, shard) {
            self.lapse(served, shard);
        } else if self.lapse_of(served, shard).is_some() {
            self.regain(served, shard);
        }
    }

    /// Sees which shards have a lease now.
    pub(super) fn look_at_leases(&mut self) {
        self.leases.turn = now();
        let mut places = Vec::new();
        for (served, known) in &self.served {
            let leased = known.shards.iter().enumerate();
            let leased = leased.filter(|(_, links)| links.lease.is_some());
            places.extend(leased.map(|(shard, _)| (served, shard)));
        }
        for (served, shard) in places {
            match (
                self.is_leased(served, shard),
                self.lapse_of(served, shard).is_some(),
            ) {
                (true, true) => self.regain(served, shard),
                (false, false) => self.lapse(served, shard),
                (true, false) => {}
                (false, true) => self.no_longer_waits(served, shard),
            }
        }
    }

    /// What waits for a lease that will not come hears so.
    fn no_longer_waits(&mut self, served: usize, shard: usize) {
        let links = &self.served[served].shards[shard];
        let hopeless = links
            .lease
            .as_ref()
            .is_some_and(|until| until.is_hopeless());
        let lapse = links.lapse.as_ref().filter(|lapse| hopeless && !lapse.over);
        if let Some(number) = lapse.map(|lapse| lapse.number) {
            self.lease_over(served, shard, number);
        }
    }

    /// The time to look again has come.
    pub(super) fn look_again_at_leases(&mut self) {
        self.leases.looking = false;
        self.look_at_leases();
        let mut shards = self.served.iter().flat_map(|(_, known)| &known.shards);
        if shards.any(|links| links.lapse.is_some()) {
            self.look_soon();
        }
    }

    fn look_soon(&mut self) {
        if !std::mem::replace(&mut self.leases.looking, true) {
            self.timers.set(bounds::LEASE_LOOK, Timer::Leases);
        }
    }

    /// A shard has no lease: from now on its commands wait.
    fn lapse(&mut self, served: usize, shard: usize) {
        let count = self.leases.count + 1;
        let links = &mut self.served[served].shards[shard];
        for link in &mut links.links {
            link.ready = false;
        }
        if links.lapse.is_none() {
            links.lapse = Some(Lapse {
                number: count,
                over: false,
            });
            self.leases.count = count;
            let timer = Timer::Lease(served, shard, count);
            self.timers.set(bounds::HOLD, timer);
            self.look_soon();
        }
        for resp in [2, 3] {
            let id = LinkId {
                served,
                shard,
                resp,
            };
            let used = |link: &super::link::Link| link.shared.is_some() || !link.waiters.is_empty();
            if !self.is_closed(id) && (resp == 2 || self.link(id).is_some_and(used)) {
                self.need(id);
            }
        }
    }

    /// A shard has its lease again: what waits goes on.
    fn regain(&mut self, served: usize, shard: usize) {
        let links = &mut self.served[served].shards[shard];
        let number = links.number;
        links.lapse = None;
        let ids = [2, 3].map(|resp| LinkId {
            served,
            shard,
            resp,
        });
        for id in ids {
            let shared = self.link(id).and_then(|link| link.shared);
            let there = shared.is_some_and(|place| {
                let backend = &self.backends[place];
                backend.phase == Phase::Ready && backend.target == number
            });
            if self.is_closed(id) {
                continue;
            }
            if there {
                self.link_ready(id);
            } else if let Some(link) = self.link_mut(id) {
                // Commands wait for it from now on.
                link.down_since = None;
            }
        }
        for index in self.backends_of(served, Some(shard)) {
            if !self.backends[index].out.is_empty() {
                self.mark_backend(index);
            }
            self.queue_backend(index);
        }
        if !self.is_closed(ids[0]) && !self.link(ids[0]).is_some_and(|link| link.ready) {
            self.need(ids[0]);
        }
        for id in ids {
            self.wake_waiters(id);
        }
    }

    /// A command for a connection of the client's own waits, as those for the shared one do. It gets an
    /// error only after that connection is lost: one that is missing from an open transaction must not be.
    #[cold]
    pub(super) fn wait_for_lease(&mut self, index: usize, id: LinkId) -> Flow {
        if self.lease_is_over(id) {
            return self.answer_no_lease(index, id);
        }
        let name = self.client_id(index);
        if let Some(link) = self.link_mut(id) {
            link.waiters.push(name);
        }
        self.clients[index].wait = Wait::Link;
        Flow::Hold
    }

    /// A command has waited for a lease long enough, or comes after one that has.
    pub(super) fn answer_no_lease(&mut self, index: usize, id: LinkId) -> Flow {
        let text = texts::did_not_run(&self.lease_trouble(id.served, id.shard));
        self.answer_in_order(index, &text)
    }

    /// A shard has had no lease for as long as its commands wait: they get an error now, and what is in flight
    /// is given up.
    pub(super) fn lease_over(&mut self, served: usize, shard: usize, number: u64) {
        let known = self.served.get_mut(served);
        let Some(links) = known.and_then(|known| known.shards.get_mut(shard)) else {
            return;
        };
        match &mut links.lapse {
            Some(lapse) if lapse.number == number && !lapse.over => lapse.over = true,
            _ => return,
        }
        let target = links.number;
        let reason = self.lease_trouble(served, shard);
        self.report_link(served, shard, Some(reason.clone()));
        for index in self.backends_of(served, Some(shard)) {
            let Some(backend) = self.backends.get(index) else {
                continue;
            };
            // One that is greeted has nothing of a client; one to the next primary is not concerned.
            let next = matches!(backend.usage, Use::Next(_)) && backend.target != target;
            if backend.phase == Phase::Ready && !next {
                self.lose(index, &reason);
            }
        }
        for resp in [2, 3] {
            self.wake_waiters(LinkId {
                served,
                shard,
                resp,
            });
        }
    }

    /// Why a shard has no lease.
    pub(super) fn lease_trouble(&self, served: usize, shard: usize) -> String {
        let lease = self.served[served].shards[shard].lease.as_ref();
        lease.map_or_else(|| "no lease".to_owned(), |until| until.trouble())
    }

    /// Whether clients of a shard have waited for a lease long enough.
    pub(super) fn lease_is_over(&self, id: LinkId) -> bool {
        let lapse = self.lapse_of(id.served, id.shard);
        lapse.is_some_and(|lapse| lapse.over)
    }

    /// Whether what is in flight on a connection of an earlier target must not be waited for.
    pub(super) fn is_given_up(&self, index: usize) -> bool {
        let backend = &self.backends[index];
        let leased = self.served[backend.link.served].database.lease.is_some();
        leased && backend.is_in_use() && !matches!(backend.usage, Use::Next(_))
    }

    /// Loses a connection on which something is in flight that is given up; what its link does next is its
    /// caller's.
    pub(super) fn give_up(&mut self, index: usize, reason: &str) {
        let generation = self.backends[index].generation;
        if self.backends[index].usage == Use::Shared {
            self.detach(index);
        }
        let backend = self.backends.get(index);
        if backend.is_some_and(|backend| backend.generation == generation) {
            self.lose(index, reason);
        }
    }

    /// A leased shard may not be used any more: what is in flight is given up before it is told that this is
    /// obeyed. Others' commands come to their end.
    pub(super) fn withhold(&mut self, served: usize, shard: usize) {
        for index in self.backends_of(served, Some(shard)) {
            if self.backends.contains(index) && self.is_given_up(index) {
                self.give_up(index, "the shard may not be used any more");
            }
        }
    }
}
