//! What happens later.

use super::Worker;
use super::backend::Phase;
use super::client::{ClientId, Wait};
use super::link::LinkId;
use crate::bounds;
use crate::stats::ErrorKind;
use model::DatabaseUid;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

/// Something that is to happen. When its time comes it looks whether there is still reason for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timer {
    /// Connect again.
    Retry(LinkId),
    /// Commands have waited long enough for the shard.
    Hold(LinkId),
    /// The connection must be ready by now.
    Connect(usize, u32),
    /// The connection of an earlier epoch must be gone by now.
    Retire(usize, u32),
    /// The client must have taken by now what is before others' replies on this connection.
    Stuck(ClientId, usize, u32),
    /// It is looked whether a script keeps the connection.
    Script(usize, u32),
    /// It is looked whether the client has taken bytes since it had taken so many.
    Unread(ClientId, u64),
    /// The shard's queue of connections was full: clients try again.
    Crowded(LinkId),
    /// The database may take commands again.
    Rate(DatabaseUid),
    /// Unused connections are closed.
    Reap(LinkId),
    /// The engine must have ended the client by now.
    Leaving(ClientId),
    /// Commands have waited long enough for a lease of this shard.
    Lease(usize, usize, u64),
    /// It is looked whether there are leases again.
    Leases,
    /// The gates that close are looked at.
    Look,
    /// It is looked whether all clients are in one process again.
    Divided,
    /// Clients have waited long enough at the gate of this shard, or what was prepared is not used.
    Gate(usize, usize, u64),
}

#[derive(Debug, PartialEq, Eq)]
struct Entry(Instant, u64, Timer);

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

/// Timers, the next one first.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<Entry>>,
    count: u64,
}

impl Timers {
    /// When the next one is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse(entry)| entry.0)
    }

    pub(crate) fn set(&mut self, after: Duration, timer: Timer) {
        self.count += 1;
        self.heap
            .push(Reverse(Entry(Instant::now() + after, self.count, timer)));
    }

    fn due(&mut self, now: Instant) -> Option<Timer> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse(Entry(_, _, timer))| timer)
    }
}

impl Worker {
    pub(super) fn fire_timers(&mut self) {
        self.end_pauses();
        if self.timers.next().is_none() {
            return;
        }
        let now = Instant::now();
        while let Some(timer) = self.timers.due(now) {
            match timer {
                Timer::Retry(link) => self.retry(link),
                Timer::Hold(link) => self.hold_over(link),
                Timer::Connect(backend, generation) => {
                    if self.is_backend(backend, generation)
                        && self.backends[backend].phase != Phase::Ready
                    {
                        self.lose(backend, "the shard did not answer in time");
                    }
                }
                Timer::Retire(backend, generation) => {
                    if self.is_backend(backend, generation) && !self.move_at_last(backend) {
                        self.lose(backend, "the shard's epoch has changed");
                    }
                }
                Timer::Stuck(client, backend, generation) => {
                    if self.is_backend(backend, generation) {
                        self.check_stuck(client, backend);
                    }
                }
                Timer::Script(backend, generation) => {
                    if self.is_backend(backend, generation) {
                        self.look_at_script(backend);
                    }
                }
                Timer::Unread(client, written) => self.check_unread(client, written),
                Timer::Crowded(link) => self.less_crowded(link),
                Timer::Rate(database) => self.rate_allows(database),
                Timer::Reap(link) => self.reap(link),
                Timer::Leaving(client) => self.left(client),
                Timer::Lease(served, shard, number) => self.lease_over(served, shard, number),
                Timer::Leases => self.look_again_at_leases(),
                Timer::Look => {}
                Timer::Divided => self.look_at_divided(),
                Timer::Gate(served, shard, number) => self.gate_timer(served, shard, number),
            }
        }
    }

    pub(super) fn is_backend(&self, index: usize, generation: u32) -> bool {
        self.backends
            .get(index)
            .is_some_and(|backend| backend.generation == generation)
    }

    /// Looks again after a while whether a client has taken bytes.
    pub(super) fn watch_unread(&mut self, index: usize, looks: u8) {
        let (id, after) = (self.client_id(index), self.limits(index).stuck);
        let client = &mut self.clients[index];
        client.unread = looks;
        self.timers.set(after, Timer::Unread(id, client.written));
    }

    /// Closes a client that takes nothing while too much waits for it.
    fn check_unread(&mut self, id: ClientId, written: u64) {
        let Some(index) = self.find(id) else { return };
        let client = &self.clients[index];
        let (looks, left) = (client.unread, client.out.len());
        if !self.too_much(index, left) {
            self.clients[index].unread = 0;
        } else if client.written != written {
            self.watch_unread(index, 1);
        } else if looks < bounds::UNREAD_LOOKS {
            self.watch_unread(index, looks + 1);
        } else {
            let peer = client.session.peer;
            tracing::warn!(%peer, left, "a client is closed: it takes no replies, or sends a pipeline whose replies it reads only at the end (client_buffer)");
            self.count_error(index, ErrorKind::Unread);
            self.close_client(index);
        }
    }

    /// Wakes clients whose shard did not come back in time: they get their error now.
    fn hold_over(&mut self, link: LinkId) {
        if self
            .link(link)
            .is_some_and(|link| !link.ready && link.hold_is_over())
        {
            self.wake_waiters(link);
        }
    }

    pub(super) fn wake_waiters(&mut self, link: LinkId) {
        let Some(known) = self.link_mut(link) else {
            return;
        };
        for id in std::mem::take(&mut known.waiters) {
            if let Some(index) = self.find(id)
                && self.clients[index].wait == Wait::Link
            {
                self.resume(index);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_order_of_time() {
        let mut timers = Timers::default();
        assert_eq!(timers.next(), None);
        timers.set(Duration::from_secs(2), Timer::Connect(2, 0));
        timers.set(Duration::from_secs(1), Timer::Connect(1, 0));
        let later = Instant::now() + Duration::from_secs(3);
        assert_eq!(timers.due(Instant::now()), None);
        assert_eq!(timers.due(later), Some(Timer::Connect(1, 0)));
        assert_eq!(timers.due(later), Some(Timer::Connect(2, 0)));
        assert_eq!(timers.due(later), None);
    }
}
