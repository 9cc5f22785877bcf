//! Latencies in a window, when writes came back, and what is judged after each part.

use std::collections::BTreeMap;
use std::time::Duration;
use testkit::cluster::Cluster;
use testkit::history::{Allowed, Append, History, Micros, Outcome, Span, Verdict};
use testkit::load::Clock;
use testkit::report::{Report, median};

/// What a failover may lose: replication is asynchronous, and a proxy with a lease goes on for a while.
const ALLOWED: Allowed = Allowed {
    before: 10_000_000,
    after: 500_000,
};

/// Sorted latencies, ms, of the appends that were under way in a window.
pub(crate) fn latencies(appends: &[Append], from: Micros, to: Micros) -> Vec<f64> {
    let mut all: Vec<f64> = appends
        .iter()
        .filter(|a| a.sent <= to && a.answered >= from)
        .map(|a| a.answered.saturating_sub(a.sent) as f64 / 1e3)
        .collect();
    all.sort_by(f64::total_cmp);
    all
}

/// The 100 ms around the slowest append of a window: an action lasts longer than its hold, and would hide it.
pub(crate) fn around_slowest(appends: &[Append], (from, to): (Micros, Micros)) -> (Micros, Micros) {
    let slowest = appends
        .iter()
        .filter(|a| a.sent <= to && a.answered >= from)
        .max_by_key(|a| a.answered.saturating_sub(a.sent));
    slowest.map_or((from, to), |append| {
        let middle = append.sent.midpoint(append.answered);
        (middle.saturating_sub(50_000), middle + 50_000)
    })
}

/// A quantile of sorted values: the smallest one that so many are not above.
pub(crate) fn quantile(sorted: &[f64], share: f64) -> f64 {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted
        .get(rank.saturating_sub(1))
        .copied()
        .unwrap_or(f64::NAN)
}

/// Median and worst of several runs.
pub(crate) fn two_rows(
    report: &mut Report,
    name: &str,
    values: &[f64],
    unit: &'static str,
    goal: f64,
) {
    let runs = values.len();
    if runs > 1 {
        report.at_most(
            &format!("{name}, median of {runs}"),
            median(values),
            unit,
            goal,
        );
    }
    let worst = values.iter().copied().fold(0.0, f64::max);
    report.at_most(&format!("{name}, worst of {runs}"), worst, unit, goal);
}

/// How long after `moment` the last client had its first answer to a write that was sent after it, ms; `None`
/// if one of them had none before `until`.
pub(crate) fn back(appends: &[Append], moment: Micros, until: Micros) -> Option<f64> {
    let mut first: BTreeMap<u16, Option<Micros>> = BTreeMap::new();
    for append in appends.iter().filter(|a| a.sent < until) {
        let entry = first.entry(append.value.client).or_default();
        let served = matches!(append.outcome, Outcome::Acknowledged(_));
        if served && append.sent >= moment {
            let at = append.answered;
            *entry = Some(entry.map_or(at, |before| before.min(at)));
        }
    }
    let last = first.into_values().collect::<Option<Vec<_>>>()?;
    let last = last.into_iter().max()?;
    (last <= until).then(|| (last - moment) as f64 / 1e3)
}

/// Most errors that one client got.
pub(crate) fn most_errors(appends: &[Append], from: Micros, to: Micros) -> usize {
    let mut counts: BTreeMap<u16, usize> = BTreeMap::new();
    for append in appends
        .iter()
        .filter(|a| a.sent <= to && a.answered >= from)
    {
        if !matches!(append.outcome, Outcome::Acknowledged(_)) {
            *counts.entry(append.value.client).or_default() += 1;
        }
    }
    counts.into_values().max().unwrap_or(0)
}

/// Looks for every value, and judges.
pub(crate) fn judge(
    cluster: &Cluster,
    clock: &Clock,
    appends: Vec<Append>,
    faults: Vec<Span>,
) -> anyhow::Result<(Verdict, Vec<Append>)> {
    let (verdict, history) = judged(cluster, clock, appends, faults)?;
    Ok((verdict, history.appends))
}

/// The same, with all that was judged.
pub(crate) fn judged(
    cluster: &Cluster,
    clock: &Clock,
    appends: Vec<Append>,
    faults: Vec<Span>,
) -> anyhow::Result<(Verdict, History)> {
    let history = History {
        lists: cluster.lists(super::CLIENTS)?,
        failovers: cluster.failovers(clock)?,
        appends,
        faults,
        allowed: ALLOWED,
        not_healed: cluster.not_whole(),
    };
    let verdict = history.check();
    for finding in &verdict.findings {
        println!("    {:?}: {}", finding.rule, finding.text);
    }
    Ok((verdict, history))
}

/// Waits for a while in which nothing is done: a window to compare with.
pub(crate) fn quiet(clock: &Clock, length: Duration) -> (Micros, Micros) {
    let from = clock.now();
    std::thread::sleep(length);
    (from, clock.now())
}

#[cfg(test)]
mod tests {
    use super::{back, quantile};
    use testkit::history::{Append, Outcome, Value};

    #[test]
    fn quantiles_are_values_of_the_list() {
        let list: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!((quantile(&list, 0.99), quantile(&list, 1.0)), (99.0, 100.0));
        assert_eq!(quantile(&[7.0], 0.5), 7.0);
        assert!(quantile(&[], 0.5).is_nan());
    }

    #[test]
    fn writes_are_back_when_the_last_client_writes() {
        let append = |client, sent, answered, outcome| Append {
            list: 0,
            value: Value {
                client,
                number: sent,
            },
            node: 0,
            sent,
            answered,
            outcome,
        };
        let lost = || Outcome::Unknown(String::new());
        let mut all = vec![
            append(0, 90, 110, lost()),
            append(0, 120, 4_100, Outcome::Acknowledged(1)),
            append(1, 95, 5_000, Outcome::Acknowledged(2)),
        ];
        assert_eq!(back(&all, 100, 9_000), None);
        all.push(append(1, 6_000, 7_100, Outcome::Acknowledged(3)));
        assert_eq!(back(&all, 100, 9_000), Some(7.0));
        assert_eq!(back(&all, 100, 7_000), None);
    }
}
