//! What a worker counts of a database. It alone writes here, so adding is a load and a store; the
//! control thread reads whenever it likes.

use super::histogram::Histogram;
use super::window::Sum;
use resp::command::Kind;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A number that one thread counts up and others read.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    #[inline]
    pub(super) fn add(&self, more: u64) {
        self.0.store(self.get().wrapping_add(more), Relaxed);
    }

    #[inline]
    pub(super) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Commands by what they do: a number for each [`Kind`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally([u32; Kind::COUNT]);

impl Tally {
    /// One command.
    #[inline]
    #[must_use]
    pub(crate) fn one(kind: Kind) -> Self {
        let mut tally = Self::default();
        tally.add(kind);
        tally
    }

    /// Each kind's number, for [`Tally::of_parts`].
    #[must_use]
    pub(crate) fn parts(&self) -> &[u32] {
        &self.0
    }

    /// From such numbers; those that are missing are 0.
    #[must_use]
    pub(crate) fn of_parts(parts: &[u32]) -> Self {
        let mut tally = Self::default();
        for (mine, part) in tally.0.iter_mut().zip(parts) {
            *mine = *part;
        }
        tally
    }

    /// One more.
    #[inline]
    pub(crate) fn add(&mut self, kind: Kind) {
        self.0[kind as usize] += 1;
    }

    /// All of another one.
    #[inline]
    pub(crate) fn add_all(&mut self, other: Self) {
        for (mine, other) in self.0.iter_mut().zip(other.0) {
            *mine += other;
        }
    }

    /// How many commands there are.
    #[inline]
    #[must_use]
    pub(crate) fn total(&self) -> u32 {
        self.0.iter().sum()
    }

    /// Takes `count` commands out. Which ones of several kinds is not known: of each as many as its
    /// part is.
    #[inline]
    pub(crate) fn take(&mut self, count: u32) -> Self {
        if count >= self.total() {
            return std::mem::take(self);
        }
        self.take_part(count)
    }

    fn take_part(&mut self, count: u32) -> Self {
        let total = u64::from(self.total());
        let mut taken = Self::default();
        for (taken, mine) in taken.0.iter_mut().zip(self.0) {
            let part = u64::from(mine) * u64::from(count) / total;
            *taken = u32::try_from(part).unwrap_or(mine);
        }
        let mut missing = count - taken.total();
        for (taken, mine) in taken.0.iter_mut().zip(&mut self.0) {
            let more = missing.min(*mine - *taken);
            *taken += more;
            missing -= more;
            *mine -= *taken;
        }
        taken
    }
}

/// Errors by kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ErrorKind {
    /// An engine's reply.
    Engine,
    /// The proxy refused a command.
    Refused,
    /// No shard: the command did not run.
    Unavailable,
    /// The connection to the shard was lost while a command was in flight.
    OutcomeUnknown,
    /// A client sent what is no command, and was closed.
    Protocol,
    /// A client did not take its replies, and was closed.
    Unread,
}

impl ErrorKind {
    const COUNT: usize = 6;

    /// What kind of error an answer of the proxy is; `None`: it is none.
    #[must_use]
    pub(crate) fn of_answer(answer: &[u8]) -> Option<Self> {
        match answer {
            [b'-', text @ ..] if text.starts_with(b"TRYAGAIN") => Some(Self::Unavailable),
            [b'-', ..] => Some(Self::Refused),
            _ => None,
        }
    }
}

/// How replies came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answered {
    /// Over the connection that all clients share, after so many µs.
    Shared(u64),
    /// Over a connection of one client, after so many µs.
    Own(u64),
    /// Not measured: they may take as long as they like, or never came.
    Untimed,
}

/// What one worker counts, on cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct WorkerStats {
    requests: [Counter; Kind::COUNT],
    ingress_bytes: Counter,
    egress_bytes: Counter,
    /// Commands that went to shards.
    sent: Counter,
    answered: [Counter; Kind::COUNT],
    micros: [Counter; Kind::COUNT],
    untimed: Counter,
    slow: Counter,
    errors: [Counter; ErrorKind::COUNT],
    shared: Histogram,
    own: Histogram,
    /// From which time on a command is slow, µs. A setting, but this is where it is looked at.
    slow_from: AtomicU64,
}

impl WorkerStats {
    /// Commands that take so many µs are slow from now on.
    pub(crate) fn set_slow_from(&self, micros: u64) {
        self.slow_from.store(micros, Relaxed);
    }

    /// See [`Self::set_slow_from`].
    #[inline]
    pub(crate) fn slow_from(&self) -> u64 {
        self.slow_from.load(Relaxed)
    }

    /// Commands that came from clients, and bytes from and to them.
    pub(crate) fn passed(&self) -> (u64, u64) {
        let commands = self.requests.iter().map(Counter::get).sum();
        (commands, self.ingress_bytes.get() + self.egress_bytes.get())
    }

    /// Commands came from a client.
    #[inline]
    pub(crate) fn count_requests(&self, commands: Tally) {
        add_each(&self.requests, commands);
    }

    /// A client sent bytes.
    #[inline]
    pub(crate) fn count_ingress(&self, bytes: usize) {
        self.ingress_bytes.add(bytes as u64);
    }

    /// A client took bytes.
    #[inline]
    pub(crate) fn count_egress(&self, bytes: usize) {
        self.egress_bytes.add(bytes as u64);
    }

    /// Commands were given to a connection to a shard.
    #[inline]
    pub(crate) fn count_sent(&self, commands: u32) {
        self.sent.add(u64::from(commands));
    }

    /// Commands that were sent are over; `total`: how many.
    #[inline]
    pub(crate) fn count_answered(&self, commands: Tally, total: u32, how: Answered) {
        let (histogram, micros) = match how {
            Answered::Shared(micros) => (&self.shared, micros),
            Answered::Own(micros) => (&self.own, micros),
            Answered::Untimed => {
                self.untimed.add(u64::from(total));
                return;
            }
        };
        histogram.add(micros, u64::from(total));
        for (kind, count) in commands.0.into_iter().enumerate() {
            if count > 0 {
                self.answered[kind].add(u64::from(count));
                self.micros[kind].add(u64::from(count) * micros);
            }
        }
    }

    /// Errors happened.
    #[inline]
    pub(crate) fn count_errors(&self, kind: ErrorKind, count: u32) {
        self.errors[kind as usize].add(u64::from(count));
    }

    /// Commands were slow.
    pub(crate) fn count_slow(&self, commands: u32) {
        self.slow.add(u64::from(commands));
    }

    /// Commands whose replies have not come. A reader that meets the worker in the middle of counting
    /// may be off by what it does at that moment.
    #[must_use]
    fn in_flight(&self) -> u64 {
        let over: u64 = self.answered.iter().map(Counter::get).sum();
        let over = over + self.untimed.get();
        self.sent.get().saturating_sub(over)
    }

    /// Adds everything to a sum.
    pub(super) fn add_to(&self, sum: &mut Sum) {
        self.shared.add_to(&mut sum.shared);
        self.own.add_to(&mut sum.own);
        sum.in_flight += self.in_flight();
        let counts = &mut sum.counts;
        let [other, read, write] = &self.requests;
        counts.other_req += other.get();
        counts.read_req += read.get();
        counts.write_req += write.get();
        let [other, read, write] = &self.answered;
        counts.other_res += other.get();
        counts.read_res += read.get();
        counts.write_res += write.get();
        let [other, read, write] = &self.micros;
        counts.other_us += other.get();
        counts.read_us += read.get();
        counts.write_us += write.get();
        counts.ingress_bytes += self.ingress_bytes.get();
        counts.egress_bytes += self.egress_bytes.get();
        counts.slow += self.slow.get();
        let [
            engine,
            refused,
            unavailable,
            outcome_unknown,
            protocol,
            unread,
        ] = &self.errors;
        counts.errors.engine += engine.get();
        counts.errors.refused += refused.get();
        counts.errors.unavailable += unavailable.get();
        counts.errors.outcome_unknown += outcome_unknown.get();
        counts.errors.protocol += protocol.get();
        counts.errors.unread += unread.get();
    }
}

#[inline]
fn add_each(counters: &[Counter; Kind::COUNT], tally: Tally) {
    for (counter, count) in counters.iter().zip(tally.0) {
        if count > 0 {
            counter.add(u64::from(count));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_taken_in_parts_is_all(
            kinds in prop::array::uniform3(0_u32..1_000_000),
            parts in prop::collection::vec(1_u32..1_000_000, 0..20),
        ) {
            let whole = Tally(kinds);
            let (mut left, mut taken) = (whole, Tally::default());
            for part in parts {
                let before = left.total();
                let now = left.take(part);
                prop_assert_eq!(now.total(), part.min(before));
                prop_assert_eq!(now.total() + left.total(), before);
                taken.add_all(now);
            }
            taken.add_all(left.take(u32::MAX));
            prop_assert_eq!(taken, whole);
            prop_assert_eq!(left.total(), 0);
        }
    }

    #[test]
    fn each_kind_is_counted_where_it_belongs() {
        let stats = WorkerStats::default();
        let mut commands = Tally::one(Kind::Read);
        commands.add(Kind::Write);
        commands.add(Kind::Write);
        commands.add(Kind::Other);
        stats.count_requests(commands);
        stats.count_sent(5);
        stats.count_answered(commands, 4, Answered::Shared(10));
        stats.count_errors(ErrorKind::Unread, 1);
        stats.count_errors(ErrorKind::Engine, 2);
        let mut sum = Sum::default();
        stats.add_to(&mut sum);
        let counts = sum.counts;
        assert_eq!(
            (counts.read_req, counts.write_req, counts.other_req),
            (1, 2, 1)
        );
        assert_eq!(
            (counts.read_us, counts.write_us, counts.other_us),
            (10, 20, 10)
        );
        assert_eq!((counts.errors.engine, counts.errors.unread), (2, 1));
        assert_eq!(stats.in_flight(), 1);
        stats.count_answered(Tally::one(Kind::Other), 1, Answered::Untimed);
        assert_eq!(stats.in_flight(), 0);
    }

    #[test]
    fn answers_of_the_proxy_are_told_apart() {
        use crate::texts;
        let kind = ErrorKind::of_answer;
        assert_eq!(kind(texts::OK), None);
        assert_eq!(kind(b""), None);
        assert_eq!(kind(texts::NOAUTH), Some(ErrorKind::Refused));
        assert_eq!(kind(texts::UNAVAILABLE), Some(ErrorKind::Unavailable));
        assert_eq!(kind(texts::NO_CONNECTION), Some(ErrorKind::Unavailable));
        assert_eq!(kind(texts::NOT_RUN), Some(ErrorKind::Unavailable));
    }
}
