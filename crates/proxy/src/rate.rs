//! The rate of a database: commands and bytes a second. Its workers share it, without a lock: all of
//! them together keep to it, whoever has the clients.
//!
//! Kept is only when the bucket will be full again. What is taken puts that off; if it is further off
//! than a bucket takes to fill, the bucket is empty. Bytes are known when they have passed, so they may
//! put it off by more: that is made up for before anything else is taken.

use model::tuning::DatabaseTuning;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

const SECOND: u64 = 1_000_000_000;
/// What a full bucket holds, in time.
const BURST: Duration = Duration::from_millis(100);

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Rate {
    began: Instant,
    commands: Option<Bucket>,
    bytes: Option<Bucket>,
    wanted: (u64, u64),
}

#[derive(Debug)]
struct Bucket {
    per_second: u64,
    /// How long it takes to fill, ns.
    burst: u64,
    /// When it is full, ns since the beginning.
    full_at: AtomicU64,
}

impl Bucket {
    fn new(per_second: u64) -> Option<Self> {
        (per_second > 0).then(|| Self {
            per_second,
            // One command at least.
            burst: (BURST.as_nanos() as u64).max(SECOND.div_ceil(per_second)),
            full_at: AtomicU64::new(0),
        })
    }

    fn take(&self, now: u64, count: u64) {
        let cost = (u128::from(count) * u128::from(SECOND)).div_ceil(self.per_second.into());
        let cost = u64::try_from(cost).unwrap_or(u64::MAX);
        // It cannot fail: the closure always has an answer.
        let _ = self.full_at.fetch_update(Relaxed, Relaxed, |full_at| {
            Some(full_at.max(now).saturating_add(cost))
        });
    }

    /// How much is in it.
    fn left(&self, now: u64) -> u64 {
        let behind = self.full_at.load(Relaxed).saturating_sub(now);
        let time = self.burst.saturating_sub(behind);
        let left = u128::from(time) * u128::from(self.per_second) / u128::from(SECOND);
        u64::try_from(left).unwrap_or(u64::MAX)
    }

    /// When there is something in it again, ns from now.
    fn wait(&self, now: u64) -> u64 {
        let behind = self.full_at.load(Relaxed).saturating_sub(now);
        let one = SECOND.div_ceil(self.per_second);
        behind.saturating_add(one).saturating_sub(self.burst)
    }
}

impl Rate {
    /// The rate that is set; `None`: none is.
    pub(crate) fn new(tuning: &DatabaseTuning) -> Option<Self> {
        let wanted = Self::wanted(tuning);
        (wanted != (0, 0)).then(|| Self {
            began: Instant::now(),
            commands: Bucket::new(wanted.0),
            bytes: Bucket::new(wanted.1),
            wanted,
        })
    }

    /// Whether it is the one that is set.
    pub(crate) fn is(&self, tuning: &DatabaseTuning) -> bool {
        self.wanted == Self::wanted(tuning)
    }

    fn wanted(tuning: &DatabaseTuning) -> (u64, u64) {
        (tuning.max_commands_per_second, tuning.max_bytes_per_second)
    }

    fn at(&self, now: Instant) -> u64 {
        let passed = now.saturating_duration_since(self.began);
        u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX)
    }

    fn buckets(&self) -> impl Iterator<Item = &Bucket> {
        [&self.commands, &self.bytes].into_iter().flatten()
    }

    /// Commands and bytes have passed.
    pub(crate) fn take(&self, now: Instant, commands: u64, bytes: u64) {
        let now = self.at(now);
        for (bucket, count) in [(&self.commands, commands), (&self.bytes, bytes)] {
            if let Some(bucket) = bucket
                && count > 0
            {
                bucket.take(now, count);
            }
        }
    }

    /// How many commands may pass now; never `u32::MAX`, which means that nobody counts.
    pub(crate) fn commands_left(&self, now: Instant) -> u32 {
        let now = self.at(now);
        if self
            .bytes
            .as_ref()
            .is_some_and(|bytes| bytes.left(now) == 0)
        {
            return 0;
        }
        let left = self.commands.as_ref().map(|commands| commands.left(now));
        let left = left.unwrap_or(u64::MAX).min(u64::from(u32::MAX - 1));
        u32::try_from(left).unwrap_or(u32::MAX - 1)
    }

    /// When the next one may.
    pub(crate) fn wait(&self, now: Instant) -> Duration {
        let now = self.at(now);
        let wait = self.buckets().map(|bucket| bucket.wait(now)).max();
        Duration::from_nanos(wait.unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rate(commands: u64, bytes: u64) -> Rate {
        let tuning = DatabaseTuning {
            max_commands_per_second: commands,
            max_bytes_per_second: bytes,
            ..DatabaseTuning::default()
        };
        Rate::new(&tuning).unwrap()
    }

    #[test]
    fn none_is_none() {
        assert!(Rate::new(&DatabaseTuning::default()).is_none());
    }

    #[test]
    fn what_is_taken_in_advance_is_made_up_for() {
        let rate = rate(0, 1_000_000);
        let start = rate.began;
        assert_eq!(rate.commands_left(start), u32::MAX - 1);
        rate.take(start, 5, 2_000_000);
        let wait = rate.wait(start);
        assert!(wait > Duration::from_millis(1_899) && wait < Duration::from_millis(1_901));
        assert_eq!(rate.commands_left(start + wait / 2), 0);
        assert_eq!(rate.commands_left(start + wait), u32::MAX - 1);
    }

    proptest! {
        /// Whoever takes what is left whenever there is something gets the rate, to a bucketful.
        #[test]
        fn the_rate_is_kept(per_second in 1_u64..5_000_000, pauses in prop::collection::vec(1_u64..200_000, 1..200)) {
            let rate = rate(per_second, 0);
            let mut now = rate.began;
            let mut taken = 0_u64;
            for pause in pauses {
                let left = rate.commands_left(now);
                rate.take(now, u64::from(left), 0);
                taken += u64::from(left);
                let next = rate.wait(now);
                prop_assert_eq!(rate.commands_left(now), 0);
                prop_assert!(rate.commands_left(now + next) >= 1);
                now += next.max(Duration::from_micros(pause));
            }
            let passed = now.duration_since(rate.began).as_secs_f64();
            let burst = (per_second as f64 / 10.0).max(1.0);
            prop_assert!(taken as f64 <= passed * per_second as f64 + burst + 1.0);
        }
    }
}
