//! How many workers there should be. Pure.

use model::tuning::{ProxyMode, ProxySettings};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

/// Clients that send so many commands at a time, on average, pipeline deeply; and from so few on they do not.
const DEEP: (u32, u32) = (8, 4);
/// Below so much of a core, in percent, nothing is made of it.
const MATTERS: u32 = 10;

/// What workers have done in the last second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// The part of a core that each of them used on average, in percent.
    pub(crate) usage: u32,
    /// How many commands a client had sent at a time.
    pub(crate) depth: u32,
}

/// Since when there were too few workers, or too many.
#[derive(Debug, Default)]
pub(crate) struct Scaling {
    busy: Option<Instant>,
    idle: Option<Instant>,
    /// Clients pipeline deeply.
    deep: bool,
}

impl Scaling {
    /// The number that is wanted of so many that run. `load`: of each that runs; `None`: not known.
    pub(crate) fn wanted(
        &mut self,
        now: Instant,
        settings: &ProxySettings,
        cores: usize,
        running: usize,
        load: Option<Load>,
    ) -> usize {
        let load = load.filter(|_| settings.mode == ProxyMode::Dynamic);
        let range = self.range(settings, cores, load);
        let inside = running.clamp(*range.start(), *range.end());
        let (Some(Load { usage, .. }), true) = (load, inside == running) else {
            (self.busy, self.idle) = (None, None);
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
            (self.busy, self.idle) = (None, None);
        }
        match (grow, shrink) {
            (true, _) => running + 1,
            (_, true) => running - 1,
            _ => running,
        }
    }

    /// Fewest and most. While clients pipeline deeply it is one more than otherwise, unless an operator set the most:
    /// much comes with each wake-up whoever takes it, and what one worker parses the engine does not wait for
    /// (docs/benchmarks.md: 1.1 of direct in place of 1.0; with one command at a time it is the other way).
    fn range(
        &mut self,
        settings: &ProxySettings,
        cores: usize,
        load: Option<Load>,
    ) -> RangeInclusive<usize> {
        match load {
            Some(load) if load.usage >= MATTERS => {
                let enough = if self.deep { DEEP.1 } else { DEEP.0 };
                self.deep = load.depth >= enough;
            }
            _ => {}
        }
        let (least, most) = settings.range(cores).into_inner();
        let may = self.deep && settings.mode == ProxyMode::Dynamic;
        let limit = if settings.max_threads == 0 {
            cores
        } else {
            most
        };
        let least = if may {
            (least + 1).min(limit).max(least)
        } else {
            least
        };
        least..=most.max(least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(usage: u32, depth: u32) -> Option<Load> {
        Some(Load { usage, depth })
    }

    /// The numbers of workers, second by second.
    fn run(settings: &ProxySettings, usages: impl Iterator<Item = u32>) -> Vec<usize> {
        let (mut scaling, start, mut running) = (Scaling::default(), Instant::now(), 2);
        let mut numbers = Vec::new();
        for (second, usage) in usages.enumerate() {
            let now = start + Duration::from_secs(second as u64);
            running = scaling.wanted(now, settings, 4, running, of(usage, 1));
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
        assert_eq!(scaling.wanted(now, &fixed, 2, 1, of(99, 1)), 6);
        assert_eq!(scaling.wanted(now, &fixed, 2, 9, None), 6);
        let auto = ProxySettings::default();
        assert_eq!(scaling.wanted(now, &auto, 4, 6, None), 3);
    }

    #[test]
    fn deep_pipelines_have_one_more_at_once_unless_an_operator_set_the_most() {
        let mut scaling = Scaling::default();
        let now = Instant::now();
        let auto = ProxySettings::default();
        let mut wanted =
            |settings: &_, running, load| scaling.wanted(now, settings, 2, running, load);
        assert_eq!(wanted(&auto, 1, of(50, 1)), 1);
        assert_eq!(wanted(&auto, 1, of(50, 8)), 2);
        assert_eq!(
            wanted(&auto, 2, of(50, 5)),
            2,
            "it does not change with every breath"
        );
        assert_eq!(wanted(&auto, 2, of(1, 1)), 2, "hardly anybody is there");
        assert_eq!(wanted(&auto, 2, of(50, 3)), 1);
        assert_eq!(wanted(&auto, 1, of(9, 100)), 1, "it does not matter");
        let set = ProxySettings {
            max_threads: 1,
            ..ProxySettings::default()
        };
        assert_eq!(wanted(&set, 1, of(50, 100)), 1);
        assert_eq!(wanted(&ProxySettings::fixed(1), 1, of(50, 100)), 1);
    }
}
