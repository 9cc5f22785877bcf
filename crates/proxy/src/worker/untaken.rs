//! Replies that clients have not taken.
//!
//! What is in flight over a shared connection comes in its order, so behind the replies of a client that does not
//! take them others wait. No more of its commands go there by then, so it is bounded what is still to come: it is
//! read and kept, beyond `client_buffer`, up to [`bounds::RELIEF`] of all clients of a worker together. Only when
//! that is used up do others wait, and not for long: then the client is closed.

use super::Worker;
use super::backend::Use;
use super::client::{ClientId, Wait};
use super::timers::Timer;
use crate::bounds;
use crate::stats::ErrorKind;
use std::time::Duration;

/// How long a client may keep others waiting at a connection that has been held up for so long already, by it or by
/// those before it: what others wait is bounded for all of them together, but each has a moment.
fn patience(held: Duration) -> Duration {
    let left = bounds::IN_THE_WAY.saturating_sub(held);
    left.max(bounds::IN_THE_WAY / 20)
}

impl Worker {
    /// A client took bytes: those that waited for that go on.
    pub(super) fn after_flush(&mut self, index: usize) {
        let client = &mut self.clients[index];
        let left = client.out.len();
        if left == 0 && client.wait == Wait::Farewell {
            self.close_client(index);
            return;
        }
        if left <= bounds::CLIENT_OUT_SMALL / 2 || left <= self.limits(index).out_soft / 2 {
            let client = &mut self.clients[index];
            for backend in std::mem::take(&mut client.paused) {
                if self.backends.contains(backend) {
                    self.queue_backend(backend);
                }
            }
            let client = &self.clients[index];
            if client.readable || !client.tail.is_empty() || client.ended || self.drains(index) {
                self.queue_if_open(index);
            }
            return;
        }
        if self.clients[index].unread == 0 && self.too_much(index, left) {
            self.watch_unread(index, 1);
        }
        if !self.clients[index].paused.is_empty() {
            self.read_on_for_others(index);
        }
    }

    /// Whether what comes next over a client's own connection is nothing that it asked for: messages, invalidations,
    /// lines of `MONITOR`. If it were not read, it would fill the shard, and take the memory of everybody's keys.
    #[cold]
    pub(super) fn brings_unasked(&self, front: usize, backend: usize) -> bool {
        let session = &self.clients[front].session;
        let own = &session.own;
        let replies = !self.backends[backend].book.is_empty();
        own.monitor
            || session.subscribed_in_resp2()
            || ((own.subscriptions.any() || own.tracking) && !replies)
    }

    /// Whether a client to which so much comes unasked is within its limit; it is closed if not, as an engine closes
    /// a subscriber.
    #[cold]
    pub(super) fn is_kept_up_with(&mut self, client: usize, waiting: usize) -> bool {
        if waiting <= self.limits(client).out_hard {
            return true;
        }
        let peer = self.clients[client].session.peer;
        tracing::warn!(%peer, waiting, "a client is closed: it takes its messages too slowly");
        self.count_error(client, ErrorKind::Unread);
        self.close_client(client);
        false
    }

    /// Looks whether connections that others share may be read again.
    #[cold]
    fn read_on_for_others(&mut self, index: usize) {
        let paused = std::mem::take(&mut self.clients[index].paused);
        let (shared, own): (Vec<usize>, Vec<usize>) = paused.into_iter().partition(|place| {
            let backend = self.backends.get(*place);
            backend.is_some_and(|backend| backend.usage == Use::Leaving)
        });
        self.clients[index].paused = own;
        for place in shared {
            self.queue_backend(place);
        }
    }

    /// Whether a connection is read on, though its next receiver has more than enough that it has not taken.
    #[cold]
    pub(super) fn is_relieved(&mut self, client: usize, backend: usize) -> bool {
        if !self.others_wait(client, backend) || self.relief_used() >= bounds::RELIEF {
            return false;
        }
        let id = self.client_id(client);
        if !self.relieved.contains(&id) {
            self.relieved.push(id);
            let peer = self.clients[client].session.peer;
            tracing::info!(%peer, "a client takes its replies slowly: more than its buffer is kept, so that others go on");
        }
        true
    }

    /// Bytes that are kept beyond what clients may leave untaken.
    fn relief_used(&mut self) -> usize {
        let mut relieved = std::mem::take(&mut self.relieved);
        let mut used = 0;
        relieved.retain(|id| {
            let beyond = self.find(*id).map_or(0, |client| {
                let most = self.limits(client).out_hard;
                self.clients[client].untaken().saturating_sub(most)
            });
            used += beyond;
            beyond > 0
        });
        self.relieved = relieved;
        used
    }

    /// A client takes what comes over a connection too slowly. From the first time on it has so long to take
    /// all that is before what others wait for, however often the connection is read again meanwhile.
    pub(super) fn is_in_the_way(&mut self, client: usize, backend: usize) {
        let id = self.client_id(client);
        let before = self.backends[backend].held_up;
        if before.is_some_and(|(last, _)| last == id) || !self.others_wait(client, backend) {
            return;
        }
        let since = before.map_or(self.clock, |(_, since)| since);
        self.backends[backend].held_up = Some((id, since));
        let patience = patience(Duration::from_micros(self.clock.saturating_sub(since)));
        let generation = self.backends[backend].generation;
        self.timers
            .set(patience, Timer::Stuck(id, backend, generation));
    }

    /// Whether replies of others come behind those of a client over a connection.
    fn others_wait(&self, client: usize, backend: usize) -> bool {
        let mut runs = self.backends[backend]
            .book
            .iter()
            .filter_map(|run| self.find(run.client))
            .map(|part| self.front_of(part) == client)
            .skip_while(|ours| !ours);
        runs.any(|ours| !ours)
    }

    /// Closes a client behind whose replies those of others still wait.
    pub(super) fn check_stuck(&mut self, id: ClientId, backend: usize) {
        let Some(index) = self.find(id) else { return };
        if !self.others_wait(index, backend) {
            return;
        }
        let peer = self.clients[index].session.peer;
        let left = self.clients[index].out.len();
        tracing::warn!(%peer, left, "a client is closed: it takes its replies too slowly, and others have waited behind them for too long");
        self.count_error(index, ErrorKind::Unread);
        self.close_client(index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_together_may_hold_others_up_for_hardly_longer_than_one() {
        assert_eq!(patience(Duration::ZERO), bounds::IN_THE_WAY);
        let mut held = Duration::ZERO;
        for _ in 0..12 {
            held += patience(held);
        }
        assert!(held < 2 * bounds::IN_THE_WAY, "{held:?}");
    }
}
