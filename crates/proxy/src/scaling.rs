//! How many workers there should be. Pure.

use model::tuning::{ProxyMode, ProxySettings};
use std::time::{Duration, Instant};

/// Since when there were too few workers, or too many.
#[derive(Debug, Default)]
pub(crate) struct Scaling {
    busy: Option<Instant>,
    idle: Option<Instant>,
}

impl Scaling {
    /// The number that is wanted of so many that run. `usage`: the part of a core that each of them uses
    /// on average, in percent; `None`: not known.
    pub(crate) fn wanted(
        &mut self,
        now: Instant,
        settings: &ProxySettings,
        cores: usize,
        running: usize,
        usage: Option<u32>,
    ) -> usize {
        let range = settings.range(cores);
        let inside = running.clamp(*range.start(), *range.end());
        let usage = usage.filter(|_| settings.mode == ProxyMode::Dynamic);
        let (Some(usage), true) = (usage, inside == running) else {
            *self = Self::default();
            return inside;
        };
        let busy = usage > settings.scale_threshold && running < *range.end();
        // With one less, those that are left would be half as busy as it takes for one more.
        let after = usage * u32::try_from(running).unwrap_or(1)
            / u32::try_from(running.saturating_sub(1)).unwrap_or(1).max(1);
        let idle = running > *range.start() && after < settings.scale_threshold / 2;
        let long = Duration::from_secs(settings.scale_duration.into());
        let over = |since: &mut Option<Instant>, is: bool| {
            let began = is.then(|| *since.get_or_insert(now));
            *since = began;
            began.is_some_and(|began| now.saturating_duration_since(began) >= long)
        };
        let (grow, shrink) = (over(&mut self.busy, busy), over(&mut self.idle, idle));
        if grow || shrink {
            *self = Self::default();
        }
        match (grow, shrink) {
            (true, _) => running + 1,
            (_, true) => running - 1,
            _ => running,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers of workers, second by second.
    fn run(settings: &ProxySettings, usages: impl Iterator<Item = u32>) -> Vec<usize> {
        let (mut scaling, start, mut running) = (Scaling::default(), Instant::now(), 2);
        let mut numbers = Vec::new();
        for (second, usage) in usages.enumerate() {
            let now = start + Duration::from_secs(second as u64);
            running = scaling.wanted(now, settings, 4, running, Some(usage));
            numbers.push(running);
        }
        numbers
    }

    #[test]
    fn one_more_after_a_while_and_never_more_than_allowed() {
        let settings = ProxySettings {
            max_threads: 4,
            ..ProxySettings::default()
        };
        let numbers = run(&settings, std::iter::repeat_n(95, 100));
        assert_eq!((numbers[29], numbers[30]), (2, 3));
        assert_eq!((numbers[60], numbers[61], numbers[99]), (3, 4, 4));
    }

    #[test]
    fn a_pause_begins_anew() {
        let settings = ProxySettings::default();
        let usages = (0..200).map(|second| if second % 20 == 0 { 60 } else { 95 });
        assert_eq!(run(&settings, usages).last(), Some(&2));
    }

    #[test]
    fn one_less_when_the_others_have_room() {
        let settings = ProxySettings {
            threads: 1,
            ..ProxySettings::default()
        };
        let numbers = run(&settings, std::iter::repeat_n(15, 100));
        assert_eq!((numbers[29], numbers[30], numbers[99]), (2, 1, 1));
        assert_eq!(
            run(&settings, std::iter::repeat_n(25, 100)).last(),
            Some(&2)
        );
    }

    #[test]
    fn settings_are_followed_at_once() {
        let mut scaling = Scaling::default();
        let now = Instant::now();
        let fixed = ProxySettings::fixed(6);
        assert_eq!(scaling.wanted(now, &fixed, 2, 1, Some(99)), 6);
        assert_eq!(scaling.wanted(now, &fixed, 2, 9, None), 6);
        let auto = ProxySettings::default();
        assert_eq!(scaling.wanted(now, &auto, 4, 6, None), 3);
    }
}
