//! The rules. Each is a pure question to a history.

use super::{Append, History, Micros, Outcome, Value};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Findings of one rule that are told in full; the rest is counted.
const SHOWN: usize = 5;

/// What must hold.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Rule {
    /// What was acknowledged is there, but for the last writes before a failover.
    Lost,
    /// Nothing is there twice.
    Doubled,
    /// Nothing is there that nobody wrote.
    NeverSent,
    /// What did not run by its error is not there.
    RanAfterAll,
    /// What is there stands where it was acknowledged.
    Position,
    /// A client's values are in its order, and what was acknowledged stands before what was sent later.
    Order,
    /// No write is acknowledged by a lineage after another one took over.
    Lineages,
    /// Without a fault there is no error; planned moves are none.
    Error,
    /// A command that is not proven gets one of the errors that say so.
    OddError,
    /// A connection ends only with its proxy.
    Closed,
    /// Each command is answered.
    Silent,
    /// Each command is answered once.
    Stray,
    /// After the faults everything is whole again without help.
    NotHealed,
}

/// Something that does not hold.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Which rule.
    pub rule: Rule,
    /// What was seen.
    pub text: String,
}

/// What became of a history.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// What does not hold, at most five of each rule.
    pub findings: Vec<Finding>,
    /// How many of each rule there are.
    pub counts: BTreeMap<Rule, usize>,
    /// Appends that were acknowledged.
    pub acknowledged: usize,
    /// Of them, lost within what a failover may lose.
    pub lost_to_failovers: usize,
    /// Appends whose outcome nobody knows.
    pub unknown: usize,
    /// Appends that were refused.
    pub not_run: usize,
    /// Connections that ended.
    pub closed: usize,
}

impl Verdict {
    /// Whether everything holds.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.counts.is_empty()
    }

    /// What was acknowledged and is gone, explained or not.
    #[must_use]
    pub fn lost(&self) -> usize {
        let unexplained = self.counts.get(&Rule::Lost).copied().unwrap_or(0);
        self.lost_to_failovers + unexplained
    }

    /// The rules that are broken.
    #[must_use]
    pub fn broken(&self) -> Vec<Rule> {
        self.counts.keys().copied().collect()
    }

    fn find(&mut self, rule: Rule, text: impl FnOnce() -> String) {
        let count = self.counts.entry(rule).or_default();
        *count += 1;
        if *count <= SHOWN {
            let text = text();
            self.findings.push(Finding { rule, text });
        }
    }
}

impl History {
    /// Judges it.
    #[must_use]
    pub fn check(&self) -> Verdict {
        let mut verdict = Verdict::default();
        self.outcomes(&mut verdict);
        let mut by_list: BTreeMap<u16, Vec<&Append>> = BTreeMap::new();
        for append in &self.appends {
            by_list.entry(append.list).or_default().push(append);
        }
        for list in self.lists.keys() {
            by_list.entry(*list).or_default();
        }
        for (list, appends) in &by_list {
            let there = self.lists.get(list).map_or(&[][..], Vec::as_slice);
            self.list(*list, appends, there, &mut verdict);
        }
        if let Some(why) = &self.not_healed {
            verdict.find(Rule::NotHealed, || why.clone());
        }
        verdict
    }

    /// What clients were told.
    fn outcomes(&self, verdict: &mut Verdict) {
        for append in &self.appends {
            let faulty = || self.faults.iter().any(|fault| append.within(fault));
            let (rule, allowed) = match &append.outcome {
                Outcome::Acknowledged(_) => {
                    verdict.acknowledged += 1;
                    continue;
                }
                Outcome::NotRun(_) => {
                    verdict.not_run += 1;
                    (Rule::Error, faulty())
                }
                Outcome::Unknown(_) => {
                    verdict.unknown += 1;
                    (Rule::Error, faulty())
                }
                Outcome::Closed(_) => {
                    verdict.closed += 1;
                    let of_it = self
                        .faults
                        .iter()
                        .any(|f| f.closes == Some(append.node) && append.within(f));
                    (Rule::Closed, of_it)
                }
                Outcome::Odd(_) => (Rule::OddError, false),
                Outcome::Silent => (Rule::Silent, false),
                Outcome::Stray(_) => (Rule::Stray, false),
            };
            if !allowed {
                verdict.find(rule, || told(append));
            }
        }
    }

    fn list(&self, list: u16, appends: &[&Append], there: &[Value], verdict: &mut Verdict) {
        let sent: HashMap<Value, &Append> = appends.iter().map(|a| (a.value, *a)).collect();
        let mut places: HashMap<Value, u64> = HashMap::new();
        for (position, value) in (1_u64..).zip(there) {
            if let Some(first) = places.insert(*value, position) {
                verdict.find(Rule::Doubled, || {
                    format!("list {list}: {value} is there at {first} and at {position}")
                });
            }
            match sent.get(value).map(|append| &append.outcome) {
                None => verdict.find(Rule::NeverSent, || {
                    format!("list {list}: {value} at {position} was never sent")
                }),
                Some(Outcome::NotRun(error)) => verdict.find(Rule::RanAfterAll, || {
                    format!("list {list}: {value} is there, and its client was told: {error}")
                }),
                Some(Outcome::Acknowledged(told)) if *told != position => {
                    verdict.find(Rule::Position, || {
                        format!(
                            "list {list}: {value} was acknowledged at {told} and is at {position}"
                        )
                    });
                }
                Some(_) => {}
            }
        }
        order(list, there, verdict);
        let acknowledged: Vec<&Append> = appends
            .iter()
            .copied()
            .filter(|append| append.position().is_some())
            .collect();
        let (kept, lost): (Vec<&Append>, Vec<&Append>) = acknowledged
            .iter()
            .partition(|append| places.contains_key(&append.value));
        self.lost(list, &lost, verdict);
        self.lineages(list, &kept, &lost, verdict);
    }

    fn lost(&self, list: u16, lost: &[&Append], verdict: &mut Verdict) {
        for append in lost {
            if self.failover_of(append).is_some() {
                verdict.lost_to_failovers += 1;
                continue;
            }
            verdict.find(Rule::Lost, || {
                format!(
                    "list {list}: {} is gone, and no failover explains it",
                    told(append)
                )
            });
        }
    }

    /// The failover that may have lost an append.
    fn failover_of(&self, append: &Append) -> Option<Micros> {
        let of_it = |at: &&Micros| {
            append.answered + self.allowed.before >= **at
                && append.answered <= **at + self.allowed.after
        };
        self.failovers.iter().filter(of_it).min().copied()
    }

    /// Positions go up in time: in one lineage, what is sent after an acknowledgement stands behind it. What
    /// was lost to a failover is of the lineage before it: it was sent before the next one answered.
    fn lineages(&self, list: u16, kept: &[&Append], lost: &[&Append], verdict: &mut Verdict) {
        let mut answered: Vec<(Micros, u64)> = kept
            .iter()
            .filter_map(|append| Some((append.answered, append.position()?)))
            .collect();
        answered.sort_unstable();
        let highest: Vec<u64> = answered
            .iter()
            .scan(0, |highest, (_, position)| {
                *highest = (*highest).max(*position);
                Some(*highest)
            })
            .collect();
        // The highest position that had been acknowledged, of what is still there, before a moment.
        let before = |moment: Micros| {
            let count = answered.partition_point(|(at, _)| *at < moment);
            count.checked_sub(1).map_or(0, |at| highest[at])
        };
        for append in kept {
            let position = append.position().unwrap_or_default();
            if before(append.sent) >= position {
                verdict.find(Rule::Order, || {
                    format!(
                        "list {list}: {} was sent after a later one was acknowledged",
                        told(append)
                    )
                });
            }
        }
        // Where each lineage that ended was left: at its lowest lost position.
        let mut forks: BTreeMap<Option<Micros>, u64> = BTreeMap::new();
        for append in lost {
            let fork = forks.entry(self.failover_of(append)).or_insert(u64::MAX);
            *fork = (*fork).min(append.position().unwrap_or(u64::MAX));
        }
        for append in lost {
            let fork = forks[&self.failover_of(append)];
            if before(append.sent) >= fork {
                verdict.find(Rule::Lineages, || {
                    format!(
                        "list {list}: {} was acknowledged and lost, and sent when the lineage that is there \
                         had acknowledged position {fork} already",
                        told(append)
                    )
                });
            }
        }
    }
}

/// Each client's values in their order.
fn order(list: u16, there: &[Value], verdict: &mut Verdict) {
    let mut last: HashMap<u16, u64> = HashMap::new();
    let mut seen: BTreeSet<Value> = BTreeSet::new();
    for value in there {
        // What is there twice is another rule's.
        if !seen.insert(*value) {
            continue;
        }
        let before = last.insert(value.client, value.number).unwrap_or(0);
        if before > value.number {
            verdict.find(Rule::Order, || {
                format!("list {list}: {value} stands behind number {before} of its client")
            });
        }
    }
}

fn told(append: &Append) -> String {
    format!(
        "{} to list {} through node {}, sent at {:.3} s, after {:.1} ms: {:?}",
        append.value,
        append.list,
        append.node + 1,
        append.sent as f64 / 1e6,
        append.answered.saturating_sub(append.sent) as f64 / 1e3,
        append.outcome
    )
}
