//! How many commands a client may send now: its database may bound the commands of a client without a
//! reply, and the rate of all clients. Who may send none waits, and is not read meanwhile: its commands stay
//! in its socket.

use super::Worker;
use super::client::{ClientId, Wait};
use super::timers::Timer;
use crate::bounds;
use crate::rate::Rate;
use crate::topology::Limits;
use model::DatabaseUid;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

/// What a worker keeps of a database that has a rate.
#[derive(Debug, Default)]
pub(super) struct AtRate {
    /// Commands and bytes that the rate knows of.
    known: (u64, u64),
    /// Clients that wait for their turn. None is in it twice; one that has left may be.
    waiting: VecDeque<ClientId>,
    /// Whether it is set when the next one has its turn.
    timer: bool,
}

impl Worker {
    /// Limits of a client.
    #[inline]
    pub(super) fn limits(&self, client: usize) -> &Limits {
        let served = self.clients[client].served;
        &self.served[served].database.limits
    }

    /// Whether so many bytes are more than may wait for a client before its commands are not read.
    #[inline]
    pub(super) fn too_much(&self, client: usize, bytes: usize) -> bool {
        bytes > bounds::CLIENT_OUT_SMALL && bytes > self.limits(client).out_soft
    }

    /// How many commands a client may send now; 0: it waits. That is looked at before its commands are.
    #[inline]
    pub(super) fn allowance(&mut self, index: usize) -> u32 {
        let Some(client) = self.clients.get_mut(index) else {
            return u32::MAX;
        };
        let database = &self.served[client.served].database;
        // The password may have been taken away since the client came.
        client.session.authenticated |= database.password.is_none();
        if !database.limits.counted {
            return u32::MAX;
        }
        self.counted_allowance(index)
    }

    #[cold]
    fn counted_allowance(&mut self, index: usize) -> u32 {
        let room = self.pipeline_room(index);
        if room == 0 {
            self.clients[index].wait = Wait::Barrier;
            return 0;
        }
        let served = self.clients[index].served;
        match self.served[served].database.rate.clone() {
            Some(rate) => room.min(self.rate_allowance(index, &rate)),
            None => room,
        }
    }

    /// How many commands of a client may go to shards before it has replies.
    fn pipeline_room(&self, index: usize) -> u32 {
        let most = self.limits(index).pipeline;
        // What has begun must come to its end: its reply would not come.
        if most == u32::MAX || self.clients[index].streaming.is_some() || self.fan_is_midway(index)
        {
            return u32::MAX;
        }
        most.saturating_sub(self.fan_due(index).unwrap_or(self.clients[index].in_flight))
    }

    fn rate_allowance(&mut self, index: usize, rate: &Rate) -> u32 {
        let served = self.clients[index].served;
        let now = self.tell_rate(served, rate);
        let left = rate.commands_left(now);
        let waiting = self.served[served].at_rate.waiting.len();
        let allowed = match (self.granted, waiting) {
            // Those that came before have their turn first.
            (0, 0) => left,
            (0, _) => 0,
            (granted, _) => granted.min(left),
        };
        if allowed == 0 {
            self.clients[index].wait = Wait::Rate;
            let id = self.client_id(index);
            self.served[served].at_rate.waiting.push_back(id);
            self.set_rate_timer(served, rate, now);
        }
        allowed
    }

    /// Tells a rate what has passed since it was told last. Returns the time.
    fn tell_rate(&mut self, served: usize, rate: &Rate) -> Instant {
        let known = &mut self.served[served];
        let passed = known.stats.passed();
        let before = std::mem::replace(&mut known.at_rate.known, passed);
        let now = Instant::now();
        rate.take(
            now,
            passed.0.saturating_sub(before.0),
            passed.1.saturating_sub(before.1),
        );
        now
    }

    fn set_rate_timer(&mut self, served: usize, rate: &Rate, now: Instant) {
        let known = &mut self.served[served];
        if !std::mem::replace(&mut known.at_rate.timer, true) {
            let after = rate.wait(now).max(bounds::RATE_PAUSE);
            self.timers.set(after, Timer::Rate(known.database.uid));
        }
    }

    /// A client has sent as many commands as it may. If it has more, it goes on in another turn, or waits.
    #[cold]
    pub(super) fn allowance_used(&mut self, index: usize) {
        // Its turn is over.
        self.granted = 0;
        if self.takes_commands(index) && self.counted_allowance(index) > 0 {
            self.queue_client(index);
        }
    }

    /// The rate of a database is told at once what a client has sent: other workers share it.
    #[cold]
    pub(super) fn tell_rate_of(&mut self, index: usize) {
        let served = self.clients[index].served;
        if let Some(rate) = self.served[served].database.rate.clone() {
            self.tell_rate(served, &rate);
        }
    }

    /// A database may take commands again: those that wait longest have their turn, each an equal part.
    pub(super) fn rate_allows(&mut self, database: DatabaseUid) {
        let Some(&served) = self.by_uid.get(&database) else {
            return;
        };
        self.served[served].at_rate.timer = false;
        let Some(rate) = self.served[served].database.rate.clone() else {
            return;
        };
        let now = self.tell_rate(served, &rate);
        let left = rate.commands_left(now);
        let waiting = &mut self.served[served].at_rate.waiting;
        let turns = waiting.len().min(left as usize).min(bounds::RATE_WAKES);
        let part = left / u32::try_from(turns).unwrap_or(u32::MAX).max(1);
        let turn: Vec<ClientId> = waiting.drain(..turns).collect();
        for id in turn {
            if let Some(index) = self.find(id)
                && self.clients[index].wait == Wait::Rate
            {
                self.clients[index].wait = Wait::Nothing;
                self.granted = part.max(1);
                self.read_client(index);
                self.granted = 0;
            }
        }
        let more = |served: &super::Served| !served.at_rate.waiting.is_empty();
        if self.served.get(served).is_some_and(more) {
            self.set_rate_timer(served, &rate, Instant::now());
        }
    }

    /// A database has another rate, or none: everybody looks again.
    pub(super) fn follow_rate(&mut self, served: usize, before: Option<&Arc<Rate>>) {
        let known = &mut self.served[served];
        let now = known.database.rate.as_ref();
        if now.map(Arc::as_ptr) == before.map(Arc::as_ptr) {
            return;
        }
        known.at_rate.known = known.stats.passed();
        for id in std::mem::take(&mut known.at_rate.waiting) {
            if let Some(index) = self.find(id)
                && self.clients[index].wait == Wait::Rate
            {
                self.resume(index);
            }
        }
    }
}
