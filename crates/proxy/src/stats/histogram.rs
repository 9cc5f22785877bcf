//! Times in buckets whose width grows with the time, as HdrHistogram has them
//! (<https://hdrhistogram.org>): each doubling has eight buckets of the same width, so a time is known
//! to 1/8 of itself, and the middle of its bucket is at most 1/16 off.

use super::counters::Counter;
use model::observation::LatencySummary;

/// Buckets of a doubling, as a power of two.
const PRECISION: u32 = 3;
const STEPS: usize = 1 << PRECISION;
/// Times from 2^26 µs (67 s) on are in the last bucket.
const TOP: u32 = 26;
const BUCKETS: usize = (TOP - PRECISION + 1) as usize * STEPS;

/// The bucket of a time. Up to 16 µs each time has its own.
#[inline]
fn bucket(micros: u64) -> usize {
    let power = (micros | STEPS as u64).ilog2();
    let doubling = power - PRECISION;
    let step = (micros >> doubling) as usize;
    (doubling as usize * STEPS + step).min(BUCKETS - 1)
}

/// The times of a bucket: the first one, and how many there are.
fn times_of(bucket: usize) -> (u64, u64) {
    let doubling = (bucket / STEPS).saturating_sub(1);
    let step = bucket - doubling * STEPS;
    ((step as u64) << doubling, 1 << doubling)
}

/// Counts how often times fell into each bucket. One thread counts, others read.
#[derive(Debug)]
pub(super) struct Histogram {
    buckets: [Counter; BUCKETS],
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: std::array::from_fn(|_| Counter::default()),
        }
    }
}

impl Histogram {
    /// `count` times of so many µs.
    #[inline]
    pub(super) fn add(&self, micros: u64, count: u64) {
        self.buckets[bucket(micros)].add(count);
    }

    pub(super) fn add_to(&self, times: &mut Times) {
        for (sum, counter) in times.counts.iter_mut().zip(&self.buckets) {
            *sum += counter.get();
        }
    }
}

/// What histograms counted up to a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Times {
    counts: Box<[u64; BUCKETS]>,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            counts: Box::new([0; BUCKETS]),
        }
    }
}

impl Times {
    /// Adds what others counted.
    pub(super) fn add(&mut self, other: &Self) {
        for (mine, other) in self.counts.iter_mut().zip(other.counts.iter()) {
            *mine += other;
        }
    }

    /// What has come since an earlier moment.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        let mut since = self.clone();
        for (count, before) in since.counts.iter_mut().zip(earlier.counts.iter()) {
            *count = count.saturating_sub(*before);
        }
        since
    }

    fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The time that `part` of a hundred took at most: the middle of its bucket, µs.
    fn percentile(&self, part: u64) -> u64 {
        let mut left = (self.count() * part).div_ceil(100).max(1);
        for (bucket, count) in self.counts.iter().enumerate() {
            if *count >= left {
                let (first, width) = times_of(bucket);
                return first + width / 2;
            }
            left -= count;
        }
        0
    }

    /// The longest: the end of its bucket, µs.
    fn longest(&self) -> u64 {
        let last = self.counts.iter().rposition(|count| *count > 0);
        last.map_or(0, |bucket| {
            let (first, width) = times_of(bucket);
            first + width - 1
        })
    }

    pub(super) fn summary(&self) -> LatencySummary {
        LatencySummary {
            count: self.count(),
            p50_us: self.percentile(50),
            p99_us: self.percentile(99),
            max_us: self.longest(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn close(shown: u64, real: u64) -> bool {
        shown.abs_diff(real) * 16 <= real
    }

    proptest! {
        #[test]
        fn a_time_is_in_its_bucket(micros in 0_u64..1 << TOP) {
            let (first, width) = times_of(bucket(micros));
            prop_assert!(first <= micros && micros < first + width);
            prop_assert!(close(first + width / 2, micros));
            prop_assert!(width == 1 || (width - 1) * 8 <= first);
        }

        #[test]
        fn percentiles_are_nearly_right(
            mut times in prop::collection::vec((0_u32..26, any::<u64>()), 1..400),
            part in 1_u64..=100,
        ) {
            let histogram = Histogram::default();
            let mut real: Vec<u64> = times.drain(..).map(|(power, any)| any % (1 << power)).collect();
            for micros in &real {
                histogram.add(*micros, 1);
            }
            real.sort_unstable();
            let mut seen = Times::default();
            histogram.add_to(&mut seen);
            let rank = (real.len() * part as usize).div_ceil(100).max(1);
            prop_assert!(close(seen.percentile(part), real[rank - 1]));
            let longest = seen.longest();
            let max = *real.last().unwrap();
            prop_assert!(longest >= max && (longest - max) * 8 <= max);
            prop_assert_eq!(seen.summary().count, real.len() as u64);
        }
    }

    #[test]
    fn the_ends() {
        assert_eq!(bucket(0), 0);
        assert_eq!(bucket(15), 15);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        assert_eq!(bucket((1 << TOP) - 1), BUCKETS - 1);
        assert_eq!(Times::default().summary(), LatencySummary::default());
        // Every bucket follows the one before without a gap.
        for bucket in 1..BUCKETS {
            let (first, _) = times_of(bucket);
            let (before, width) = times_of(bucket - 1);
            assert_eq!(first, before + width);
        }
    }
}
