//! What was counted in the last second: the difference of two looks.

use super::histogram::Times;
use model::observation::{LatencyWindows, ProxyCounts, ProxyLatency};
use std::time::{Duration, Instant};

/// Looks that come sooner after another do not begin a new window.
const SHORTEST: Duration = Duration::from_millis(500);

/// What workers counted up to a moment.
#[derive(Debug, Default)]
pub(crate) struct Sum {
    pub(crate) counts: ProxyCounts,
    pub(crate) in_flight: u64,
    /// Over shared connections.
    pub(super) shared: Times,
    /// Over connections of single clients.
    pub(super) own: Times,
}

impl Sum {
    /// Commands from clients.
    #[must_use]
    pub(crate) fn commands(&self) -> u64 {
        self.counts.read_req + self.counts.write_req + self.counts.other_req
    }

    /// Adds all of another one.
    pub(super) fn add(&mut self, other: &Self) {
        self.in_flight += other.in_flight;
        self.shared.add(&other.shared);
        self.own.add(&other.own);
        self.counts.add(&other.counts);
    }
}

/// The last look, and what had changed since the one before.
#[derive(Debug)]
pub(crate) struct Window {
    at: Instant,
    last: Sum,
    per_second: ProxyCounts,
    latency: ProxyLatency,
}

impl Window {
    /// Nothing has been counted.
    #[must_use]
    pub(crate) fn new(at: Instant) -> Self {
        Self {
            at,
            last: Sum::default(),
            per_second: ProxyCounts::default(),
            latency: ProxyLatency::default(),
        }
    }

    /// Looks again.
    pub(crate) fn see(&mut self, now: Instant, sum: Sum) {
        let span = now.saturating_duration_since(self.at);
        if span >= SHORTEST {
            self.per_second = rate(&self.last.counts, &sum.counts, span);
            let windows = |now: &Times, before: &Times| LatencyWindows {
                last_second: now.since(before).summary(),
                since_start: now.summary(),
            };
            self.latency = ProxyLatency {
                shared: windows(&sum.shared, &self.last.shared),
                own: windows(&sum.own, &self.last.own),
            };
            self.at = now;
            self.last = sum;
        }
    }

    #[must_use]
    pub(crate) fn per_second(&self) -> ProxyCounts {
        self.per_second
    }

    #[must_use]
    pub(crate) fn latency(&self) -> ProxyLatency {
        self.latency
    }
}

/// How fast everything was counted, per second, to the nearest.
fn rate(before: &ProxyCounts, now: &ProxyCounts, span: Duration) -> ProxyCounts {
    let millis = span.as_millis().max(1);
    let mut rate = *now;
    let mut before = *before;
    for (rate, before) in rate.each_mut().into_iter().zip(before.each_mut()) {
        let more = u128::from(rate.saturating_sub(*before));
        *rate = u64::try_from((more * 1000 + millis / 2) / millis).unwrap_or(u64::MAX);
    }
    rate
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::histogram::Histogram;

    #[test]
    fn a_window_is_what_came_between_two_looks() {
        let start = Instant::now();
        let mut window = Window::new(start);
        let histogram = Histogram::default();
        let counted = |read_req| {
            let mut sum = Sum::default();
            sum.counts.read_req = read_req;
            histogram.add_to(&mut sum.shared);
            sum
        };
        histogram.add(1000, 10);
        window.see(start + Duration::from_secs(2), counted(10));
        assert_eq!(window.per_second().read_req, 5);
        assert_eq!(window.latency().shared.last_second.count, 10);
        histogram.add(10, 1);
        // Too soon.
        let soon = start + Duration::from_millis(2_100);
        window.see(soon, counted(99));
        assert_eq!(window.per_second().read_req, 5);
        window.see(start + Duration::from_secs(3), counted(20));
        assert_eq!(window.per_second().read_req, 10);
        let latency = window.latency();
        assert_eq!(latency.shared.last_second.max_us, 10);
        assert_eq!(latency.shared.since_start.count, 11);
        assert_eq!(latency.own.since_start.count, 0);
    }
}
