//! Connections for single clients that wait for one.
//!
//! Programs rely on it that a `SUBSCRIBE` which they have sent, and not waited for, is in force before what
//! they send next over another connection. So a connection that is greeted already must be there when a
//! client needs one of its own; what remains is the way of the command itself, as without a proxy.

use super::Worker;
use super::backend::{Phase, Use};
use super::link::LinkId;
use super::timers::Timer;
use crate::bounds;
use std::sync::atomic::Ordering;
use std::time::Instant;

impl Worker {
    /// A client is there, or speaks this version of the protocol from now on.
    pub(super) fn expect_own(&mut self, served: usize, resp: u8) {
        for shard in 0..self.served[served].shards.len() {
            let id = LinkId {
                served,
                shard,
                resp,
            };
            self.need(id);
            self.keep_spares(id);
        }
    }

    /// How many spare connections a link is to have: none without clients.
    fn spares_wanted(&self, id: LinkId) -> usize {
        let Some(known) = self.served.get(id.served) else {
            return 0;
        };
        match known.database.stats.connections.load(Ordering::Relaxed) {
            0 => 0,
            _ => bounds::SPARES,
        }
    }

    /// Opens spare connections of a link until enough are there or on their way. That one cannot be had is
    /// told by whoever needs it.
    pub(super) fn keep_spares(&mut self, id: LinkId) {
        if self.is_closed(id) || self.has_lapsed(id) {
            return;
        }
        self.open_up_to(id, self.spares_wanted(id));
    }

    /// A client needs a connection of its own to several shards: they are opened at the same time, not one
    /// after the other.
    pub(super) fn open_together(&mut self, served: usize, shards: &[usize], resp: u8) {
        for shard in shards.iter().copied() {
            let id = LinkId {
                served,
                shard,
                resp,
            };
            if let Some(link) = self.link(id)
                && link.idle.is_empty()
                && link.spares_opening < bounds::IDLE_KEPT
                && !self.is_closed(id)
                && !self.has_lapsed(id)
            {
                self.open_up_to(id, link.spares_opening + 1);
            }
        }
    }

    fn open_up_to(&mut self, id: LinkId, wanted: usize) {
        while let Some(link) = self.link_mut(id)
            && link.ready
            && link.idle.len() + link.spares_opening < wanted
        {
            link.spares_opening += 1;
            let Ok(place) = self.open(id, Use::Idle(Instant::now())) else {
                self.spare_opened(id);
                return;
            };
            let generation = self.backends[place].generation;
            self.connecting(place);
            if !self.is_backend(place, generation) {
                return;
            }
        }
    }

    /// A spare connection is on its way no more.
    fn spare_opened(&mut self, id: LinkId) {
        if let Some(link) = self.link_mut(id) {
            link.spares_opening = link.spares_opening.saturating_sub(1);
        }
    }

    /// A spare connection takes commands, if somebody has some.
    pub(super) fn spare_ready(&mut self, place: usize) {
        let id = self.backends[place].link;
        self.spare_opened(id);
        self.lay_aside(place);
        self.spare_decided(id);
    }

    /// A spare connection is closed.
    pub(super) fn spare_gone(&mut self, id: LinkId, place: usize, phase: Phase) {
        if phase != Phase::Ready {
            self.spare_opened(id);
            self.spare_decided(id);
        }
        if let Some(link) = self.link_mut(id) {
            link.idle.retain(|idle| *idle != place);
        }
    }

    /// Nobody uses a connection for now.
    pub(super) fn lay_aside(&mut self, place: usize) {
        let backend = &mut self.backends[place];
        backend.usage = Use::Idle(Instant::now());
        let id = backend.link;
        let Some(link) = self.link_mut(id) else {
            return;
        };
        link.idle.push(place);
        if !std::mem::replace(&mut link.reaping, true) {
            self.timers.set(bounds::IDLE_TIME, Timer::Reap(id));
        }
    }

    /// Closes connections that nobody has used for long; a few are kept while there are clients.
    pub(super) fn reap(&mut self, id: LinkId) {
        let wanted = self.spares_wanted(id);
        let Some(link) = self.link_mut(id) else {
            return;
        };
        let mut idle = std::mem::take(&mut link.idle);
        let now = Instant::now();
        let mut left = idle.len();
        let mut old = Vec::new();
        // Those that were used last are at the end.
        idle.retain(|place| {
            let unused = matches!(self.backends[*place].usage, Use::Idle(since) if now - since >= bounds::IDLE_TIME);
            let close = unused && left > wanted;
            if close {
                left -= 1;
                old.push(*place);
            }
            !close
        });
        let again = !idle.is_empty();
        if let Some(link) = self.link_mut(id) {
            link.idle = idle;
            link.reaping = again;
        }
        if again {
            self.timers.set(bounds::IDLE_TIME, Timer::Reap(id));
        }
        for place in old {
            self.drop_backend(place);
        }
    }
}
