//! Rounds: every target once in each, in rotated order, so that what the machine does meanwhile
//! meets all of them alike. Ratios are made within a round.

use super::loads::{Load, Op};
use super::options::Kind;
use super::processes;
use super::run::{Runner, Sample};
use super::target::Target;
use serde::Serialize;
use testkit::report::median;

/// Rounds without a disturbance that are enough to leave the others out.
const ENOUGH: usize = 3;

/// All runs of one load.
pub(crate) struct Series {
    pub(crate) load: Load,
    pub(crate) results: Vec<Samples>,
}

/// Runs of one command on one target, one a round.
pub(crate) struct Samples {
    pub(crate) kind: Kind,
    pub(crate) op: Op,
    pub(crate) samples: Vec<Sample>,
}

/// A median with the least and the most.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        (!values.is_empty()).then(|| Self {
            median: median(values),
            least: values.iter().copied().fold(f64::INFINITY, f64::min),
            most: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        })
    }
}

/// Runs a load. A target on which it fails is left out, with a note.
pub(crate) fn run(
    runner: &Runner<'_>,
    load: &Load,
    targets: &mut [Target],
    rounds: usize,
    notes: &mut Vec<String>,
) -> anyhow::Result<Series> {
    for target in targets.iter_mut() {
        runner.interrupt.check()?;
        target.fill(load.keys, load.bytes)?;
    }
    if load.pinned {
        for target in targets.iter() {
            target.pin(&processes::one_core(1))?;
        }
    }
    let done = rounds_of(runner, load, targets, rounds, notes);
    if load.pinned {
        for target in targets.iter() {
            target.pin(runner.cores)?;
        }
    }
    done
}

fn rounds_of(
    runner: &Runner<'_>,
    load: &Load,
    targets: &[Target],
    rounds: usize,
    notes: &mut Vec<String>,
) -> anyhow::Result<Series> {
    let mut results: Vec<Samples> = Vec::new();
    let takes = |kind: Kind| kind.takes_any_keys() || !load.ops.contains(&Op::Mget);
    let targets: Vec<&Target> = targets.iter().filter(|t| takes(t.kind)).collect();
    let mut left_out: Vec<Kind> = Vec::new();
    // Once before, so that nobody's caches and buffers are colder than another's.
    for target in &targets {
        for op in load.ops {
            let short = (load.requests / 10).max(u64::from(load.clients));
            if let Err(error) = runner.requests(load, *op, target, short) {
                runner.interrupt.check()?;
                if !left_out.contains(&target.kind) {
                    notes.push(format!(
                        "{}: {} left out: {error:#}",
                        load.name,
                        target.kind.name()
                    ));
                    left_out.push(target.kind);
                }
            }
        }
    }
    let left_out = |target: &&Target| left_out.contains(&target.kind);
    let targets: Vec<&Target> = targets.into_iter().filter(|t| !left_out(t)).collect();
    for target in &targets {
        for op in load.ops {
            results.push(Samples {
                kind: target.kind,
                op: *op,
                samples: Vec::with_capacity(rounds),
            });
        }
    }
    for round in 0..rounds {
        for step in 0..targets.len() {
            let target = targets[(round + step) % targets.len()];
            for op in load.ops {
                let sample = runner.run(load, *op, target)?;
                let place = results
                    .iter_mut()
                    .find(|found| found.kind == target.kind && found.op == *op);
                if let Some(place) = place {
                    place.samples.push(sample);
                }
            }
        }
    }
    Ok(Series {
        load: load.clone(),
        results,
    })
}

impl Series {
    pub(crate) fn find(&self, kind: Kind, op: Op) -> Option<&Samples> {
        self.results
            .iter()
            .find(|found| found.kind == kind && found.op == op)
    }

    /// One target's rate divided by another's, one value a round. Disturbed rounds are left out if
    /// enough others remain.
    pub(crate) fn ratios(&self, kind: Kind, to: Kind, op: Op) -> Vec<f64> {
        let (Some(ours), Some(theirs)) = (self.find(kind, op), self.find(to, op)) else {
            return Vec::new();
        };
        let pairs = || ours.samples.iter().zip(&theirs.samples);
        let ratio = |(a, b): (&Sample, &Sample)| a.rate / b.rate;
        let quiet: Vec<f64> = pairs()
            .filter(|(a, b)| !a.disturbed() && !b.disturbed())
            .map(ratio)
            .collect();
        if quiet.len() >= ENOUGH {
            quiet
        } else {
            pairs().map(ratio).collect()
        }
    }

    /// The same, of all commands together.
    pub(crate) fn pooled(&self, kind: Kind, to: Kind) -> Option<Spread> {
        let all: Vec<f64> = self
            .load
            .ops
            .iter()
            .flat_map(|op| self.ratios(kind, to, *op))
            .collect();
        Spread::of(&all)
    }

    /// A figure of all runs of a target together.
    pub(crate) fn figure(&self, kind: Kind, of: impl Fn(&Sample) -> f64) -> Option<Spread> {
        let all: Vec<f64> = self
            .results
            .iter()
            .filter(|found| found.kind == kind)
            .flat_map(|found| found.samples.iter().map(&of))
            .collect();
        Spread::of(&all)
    }
}

impl Samples {
    /// A figure of these runs.
    pub(crate) fn figure(&self, of: impl Fn(&Sample) -> f64) -> Option<Spread> {
        Spread::of(&self.samples.iter().map(of).collect::<Vec<_>>())
    }

    pub(crate) fn disturbed(&self) -> usize {
        self.samples
            .iter()
            .filter(|sample| sample.disturbed())
            .count()
    }
}
