//! What is counted and measured on the way of a command.
//!
//! The worker's clock is read once a turn: times are as exact as a turn is short.

use super::Worker;
use super::backend::{Effect, Run, Seen, Use};
use super::client::ClientId;
use crate::bounds;
use crate::stats::slow::{Head, Slow};
use crate::stats::{Answered, ErrorKind, Tally, WorkerStats};
use jiff::Timestamp;

impl Run {
    /// `count` replies have come at this moment of the worker's clock. Returns what is known of them if
    /// they were slow.
    #[inline(always)]
    pub(super) fn answered(
        &mut self,
        count: u32,
        clock: u64,
        usage: Use,
        stats: &WorkerStats,
    ) -> Option<Seen> {
        let commands = if count == self.count {
            std::mem::take(&mut self.seen.left)
        } else {
            self.seen.left.take(count)
        };
        self.count -= count;
        let micros = clock - self.seen.since;
        let how = match (self.effect, usage) {
            (Effect::Blocking | Effect::Freed | Effect::Unblocked, _) => {
                stats.count_answered(commands, count, Answered::Untimed);
                return None;
            }
            (_, Use::Own(_)) => Answered::Own(micros),
            _ => Answered::Shared(micros),
        };
        stats.count_answered(commands, count, how);
        if micros + self.seen.waited < stats.slow_from() {
            return None;
        }
        Some(self.were_slow(count, stats))
    }

    #[cold]
    fn were_slow(&self, count: u32, stats: &WorkerStats) -> Seen {
        stats.count_slow(count);
        self.seen.clone()
    }
}

impl Worker {
    /// What is measured of a run of commands that is given to a connection now.
    #[inline]
    pub(super) fn seen(&self, frames: &[u8], commands: Tally) -> Seen {
        Seen {
            since: self.clock,
            waited: match self.held {
                0 => 0,
                since => self.clock - since,
            },
            left: commands,
            count: commands.total(),
            head: Head::of(frames),
        }
    }

    /// The same of a command of the proxy's own, which is not told of.
    pub(super) fn unseen(&self) -> Seen {
        Seen {
            since: self.clock,
            waited: 0,
            left: Tally::one(resp::command::Kind::Other),
            count: 1,
            head: Head::EMPTY,
        }
    }

    /// Tells of commands that were slow, with what was measured of their run. `before`: when the
    /// connection had brought a reply before.
    #[cold]
    pub(super) fn slow(&mut self, index: usize, id: ClientId, seen: &Seen, before: u64) {
        if self.clock.saturating_sub(self.slow_told.0) >= bounds::SLOW_WITHIN_US {
            self.slow_told = (self.clock, 0);
        }
        self.slow_told.1 += 1;
        let Some(client) = self.find(id) else {
            return;
        };
        // From 0 on every command is wanted: nothing is a victim of another then.
        let victims = self.backends[index].stats.slow_from() > 0;
        if victims && self.slow_told.1 > bounds::SLOW_TOLD_AT_ONCE || seen.head == Head::EMPTY {
            return;
        }
        let session = &self.clients[self.front_of(client)].session;
        let served = self.backends[index].link.served;
        self.stats.slow.tell(Slow {
            database: self.served[served].database.uid,
            when: Timestamp::now(),
            peer: session.peer,
            client_name: session.name.clone(),
            head: seen.head.clone(),
            pipelined: seen.count,
            shard_us: self.clock - seen.since,
            behind_us: before.saturating_sub(seen.since),
            proxy_us: seen.waited,
        });
    }

    /// A reply has come that a client may get; whether it is an error.
    #[inline]
    pub(super) fn count_reply(&self, index: usize) {
        let backend = &self.backends[index];
        if let Some(run) = backend.book.front()
            && !run.discard
            && backend.framer.head().is_error()
        {
            let kind = backend.error_kind(&run.rewrite);
            backend.stats.count_errors(kind, 1);
        }
    }

    /// A client got an error, or is closed with one.
    pub(super) fn count_error(&self, client: usize, kind: ErrorKind) {
        self.clients[client].stats.count_errors(kind, 1);
    }

    /// The proxy answers a client.
    #[inline]
    pub(super) fn count_answer(&self, client: usize, answer: &[u8]) {
        if let Some(kind) = ErrorKind::of_answer(answer) {
            self.count_error(client, kind);
        }
    }
}
