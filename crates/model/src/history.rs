//! What databases did a while ago: the last seconds, and means of longer spans. It is kept in memory, and
//! bounded: so many samples of each interval, for each database that there is.

use crate::ids::DatabaseUid;
use crate::observation::{NodeObservation, ProxyCounts};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

/// How long a sample is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Interval {
    /// A second.
    #[serde(rename = "1sec")]
    Second,
    /// Ten seconds.
    #[serde(rename = "10sec")]
    TenSeconds,
    /// Five minutes.
    #[serde(rename = "5min")]
    FiveMinutes,
}

impl Interval {
    /// All, the shortest first.
    pub const ALL: [Self; 3] = [Self::Second, Self::TenSeconds, Self::FiveMinutes];

    /// As REST names it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Second => "1sec",
            Self::TenSeconds => "10sec",
            Self::FiveMinutes => "5min",
        }
    }

    /// Its length, seconds.
    #[must_use]
    pub const fn seconds(self) -> i64 {
        match self {
            Self::Second => 1,
            Self::TenSeconds => 10,
            Self::FiveMinutes => 300,
        }
    }

    /// How many samples are kept.
    #[must_use]
    pub const fn kept(self) -> usize {
        match self {
            Self::Second => 10,
            Self::TenSeconds => 30,
            Self::FiveMinutes => 12,
        }
    }
}

/// A database in one span of time, over all proxies that serve it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// When it begins.
    pub from: Timestamp,
    /// When it ends.
    pub to: Timestamp,
    /// Client connections, on average.
    pub connections: u64,
    /// Commands without a reply, on average.
    pub in_flight: u64,
    /// Keys of its primary shards at the end.
    pub keys: u64,
    /// Memory that its shards used at the end, bytes.
    pub used_memory: u64,
    /// Events and bytes per second, times in µs.
    pub per_second: ProxyCounts,
}

impl Sample {
    /// The newest second, from what nodes say; `None`: no proxy that serves it is heard.
    pub fn newest<'a>(
        nodes: impl Iterator<Item = &'a NodeObservation> + Clone,
        database: DatabaseUid,
    ) -> Option<Self> {
        let mut sample: Option<Self> = None;
        for node in nodes.clone() {
            let proxy = node.proxy.as_ref();
            let here = proxy.and_then(|p| p.databases.iter().find(|d| d.database == database));
            let Some(here) = here else { continue };
            let sum = sample.get_or_insert_with(|| Self::empty(node.taken));
            sum.to = sum.to.max(node.taken);
            sum.connections += here.connections;
            sum.in_flight += here.in_flight;
            sum.per_second.add(&here.per_second);
        }
        let mut sample = sample?;
        sample.from = sample.to - SignedDuration::from_secs(1);
        for shard in nodes.flat_map(|node| &node.shards) {
            if shard.database == database {
                sample.keys += shard.keys;
                sample.used_memory += shard.used_memory;
            }
        }
        Some(sample)
    }

    fn empty(at: Timestamp) -> Self {
        Self {
            from: at,
            to: at,
            connections: 0,
            in_flight: 0,
            keys: 0,
            used_memory: 0,
            per_second: ProxyCounts::default(),
        }
    }

    /// One sample of several that follow each other.
    fn mean(samples: &[Self]) -> Option<Self> {
        let (first, last) = (samples.first()?, samples.last()?);
        let mut mean = Self {
            from: first.from,
            connections: 0,
            in_flight: 0,
            per_second: ProxyCounts::default(),
            ..*last
        };
        for sample in samples {
            mean.connections += sample.connections;
            mean.in_flight += sample.in_flight;
            mean.per_second.add(&sample.per_second);
        }
        let count = samples.len() as u64;
        let numbers = [&mut mean.connections, &mut mean.in_flight];
        for number in numbers.into_iter().chain(mean.per_second.each_mut()) {
            *number = (*number + count / 2) / count;
        }
        Some(mean)
    }
}

/// The samples of every database.
#[derive(Debug, Default)]
pub struct History {
    databases: BTreeMap<DatabaseUid, Samples>,
}

#[derive(Debug, Default)]
struct Samples {
    kept: [VecDeque<Sample>; Interval::ALL.len()],
    /// Samples of the next shorter interval that are not part of one yet.
    begun: [Vec<Sample>; Interval::ALL.len()],
}

impl Samples {
    fn push(&mut self, place: usize, sample: Sample) {
        let interval = Interval::ALL[place];
        let kept = &mut self.kept[place];
        kept.truncate(interval.kept());
        if kept.len() == interval.kept() {
            kept.pop_front();
        }
        kept.push_back(sample);
        let Some(longer) = Interval::ALL.get(place + 1) else {
            return;
        };
        // A sample that begins a new span ends the one before.
        let span = |sample: &Sample| sample.to.as_second().div_euclid(longer.seconds());
        let begun = &mut self.begun[place + 1];
        let over = begun
            .first()
            .is_some_and(|first| span(first) != span(&sample));
        let ended = if over { Sample::mean(begun) } else { None };
        if over {
            begun.clear();
        }
        begun.push(sample);
        if let Some(ended) = ended {
            self.push(place + 1, ended);
        }
    }
}

impl History {
    /// Takes in the newest second of every database; one that is not among them is forgotten.
    pub fn record(&mut self, seconds: impl Iterator<Item = (DatabaseUid, Option<Sample>)>) {
        let mut before = std::mem::take(&mut self.databases);
        for (database, sample) in seconds {
            let mut samples = before.remove(&database).unwrap_or_default();
            let known = samples.kept[0].back().map(|sample| sample.to);
            // What was heard already is no other second.
            if let Some(sample) = sample.filter(|sample| known.is_none_or(|at| sample.to > at)) {
                samples.push(0, sample);
            }
            self.databases.insert(database, samples);
        }
    }

    /// What is known of a database, oldest first.
    #[must_use]
    pub fn of(&self, database: DatabaseUid, interval: Interval) -> Vec<Sample> {
        let place = Interval::ALL.iter().position(|known| *known == interval);
        let samples = self.databases.get(&database).zip(place);
        samples.map_or_else(Vec::new, |(samples, place)| {
            samples.kept[place].iter().copied().collect()
        })
    }

    /// The databases.
    pub fn databases(&self) -> impl Iterator<Item = DatabaseUid> + '_ {
        self.databases.keys().copied()
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.databases.clear();
    }
}

/// Asks for samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryQuery {
    /// Of this database; `None`: of all.
    pub database: Option<DatabaseUid>,
    /// Of this length.
    pub interval: Interval,
}

/// Samples by database, oldest first.
pub type HistoryAnswer = Vec<(DatabaseUid, Vec<Sample>)>;

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: DatabaseUid = DatabaseUid(1);

    fn second(number: i64) -> Sample {
        let at = Timestamp::from_second(1_000_000 + number).unwrap();
        Sample {
            from: at - SignedDuration::from_secs(1),
            to: at,
            keys: number as u64,
            connections: 4,
            per_second: ProxyCounts {
                read_req: number as u64,
                ..ProxyCounts::default()
            },
            ..Sample::empty(at)
        }
    }

    fn record(history: &mut History, numbers: impl Iterator<Item = i64>) {
        for number in numbers {
            history.record([(ONE, Some(second(number)))].into_iter());
        }
    }

    #[test]
    fn means_of_longer_spans_and_a_bound_for_each() {
        let mut history = History::default();
        record(&mut history, 0..25);
        let tens = history.of(ONE, Interval::TenSeconds);
        assert_eq!(history.of(ONE, Interval::Second).len(), 10);
        assert_eq!(tens.len(), 2);
        // Seconds 0 to 9: 4.5, to the nearest; the keys are the last ones.
        assert_eq!((tens[0].per_second.read_req, tens[0].keys), (5, 9));
        assert_eq!((tens[1].per_second.read_req, tens[1].connections), (15, 4));
        assert_eq!(tens[0].to - tens[0].from, SignedDuration::from_secs(10));
        record(&mut history, 25..7_000);
        let lengths = Interval::ALL.map(|interval| history.of(ONE, interval).len());
        assert_eq!(lengths, [10, 30, 12]);
        let newest = history.of(ONE, Interval::Second);
        assert_eq!(newest.last().unwrap().keys, 6_999);
        let fives = history.of(ONE, Interval::FiveMinutes);
        assert!(fives.windows(2).all(|two| two[0].to <= two[1].from));
    }

    #[test]
    fn a_second_is_taken_once_and_gaps_are_gaps() {
        let mut history = History::default();
        record(&mut history, [1, 1, 1, 2, 40].into_iter());
        history.record([(ONE, None)].into_iter());
        assert_eq!(history.of(ONE, Interval::Second).len(), 3);
        assert_eq!(history.of(ONE, Interval::TenSeconds).len(), 1);
        history.record([(DatabaseUid(2), Some(second(41)))].into_iter());
        assert!(history.of(ONE, Interval::Second).is_empty());
        assert_eq!(history.databases().collect::<Vec<_>>(), [DatabaseUid(2)]);
    }
}
