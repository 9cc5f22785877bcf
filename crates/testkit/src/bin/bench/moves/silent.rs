//! Quorum is lost, and databases go on by the promises of their copies; then one copy promises no more. Writes must
//! stop, everywhere, with that reason, and nothing may be written that its copies do not agree on.

use super::losses::{WHOLE, signal};
use super::measure::{judge, two_rows};
use super::planned::warm;
use super::{CLIENTS, Options, plan};
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::time::Duration;
use testkit::cluster::Cluster;
use testkit::history::{Append, Micros, Outcome, Span};
use testkit::load::{Clock, Load};
use testkit::report::Report;

const NAME: &str = "quorum lost, and a copy holder silent";
/// How long it is silent: longer than commands wait for an answer.
const SILENT: Duration = Duration::from_secs(8);
/// Appends without a quorum, by promises alone: many times as long as a lease.
const BY_PROMISES: u64 = 15_000;
/// How an error begins that names the reason.
const REASON: &str = "-TRYAGAIN no lease: ";

/// What a round has shown.
#[derive(Debug, Default, PartialEq)]
struct Round {
    /// When the last write was acknowledged, ms after the copy fell silent.
    stopped: f64,
    /// Clients that were not told why.
    untold: usize,
    /// Errors that neither name the reason nor say that the outcome is unknown.
    unnamed: usize,
    /// Rules of the history that are broken, failovers, acknowledged writes that are lost.
    diverged: usize,
}

pub(crate) fn run(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let mut rounds = Vec::new();
    for _ in 0..options.rounds(1) {
        rounds.push(once()?);
    }
    let stopped: Vec<f64> = rounds.iter().map(|round| round.stopped).collect();
    two_rows(
        report,
        &format!("{NAME}: writes stop"),
        &stopped,
        "ms",
        1_300.0,
    );
    let sum = |of: fn(&Round) -> usize| rounds.iter().map(of).sum::<usize>() as f64;
    for (what, count) in [
        ("clients that were not told the reason", sum(|r| r.untold)),
        ("errors without a reason", sum(|r| r.unnamed)),
        (
            "lost, diverged, or failed over, or rules broken",
            sum(|r| r.diverged),
        ),
    ] {
        report.at_most(&format!("{NAME}: {what}"), count, "", 0.0);
    }
    Ok(())
}

fn once() -> anyhow::Result<Round> {
    let mut cluster = Cluster::start(3)?;
    cluster.create_replicated(&[])?;
    cluster.whole(WHOLE)?;
    let clock = Clock::start();
    let load = Load::start(plan(&cluster, &[0, 1, 2]), clock)?;
    warm(&load)?;
    let replica = cluster.role("slave")?;
    let leads = cluster.primary_node()?;
    let down = [leads, (leads + 1) % 3];
    for node in down {
        cluster.nodes[node].kill("cnm_exec")?;
    }
    let enough = load.acknowledged() + BY_PROMISES;
    testkit::wait::until("writes go on by promises", WHOLE, || {
        match load.acknowledged() {
            now if now >= enough => Ok(()),
            now => Err(format!("{now} of {enough}")),
        }
    })?;
    let silent = clock.now();
    signal(&replica, Signal::STOP)?;
    std::thread::sleep(SILENT);
    let spoke = clock.now();
    signal(&replica, Signal::CONT)?;
    for node in down {
        cluster.nodes[node].start_daemon("cnm_exec")?;
    }
    cluster.whole(WHOLE)?;
    let fault = Span {
        what: NAME.to_owned(),
        closes: None,
        from: silent,
        to: clock.now(),
    };
    let enough = load.acknowledged() + 10 * u64::from(CLIENTS);
    testkit::wait::until("clients write again", WHOLE, || match load.acknowledged() {
        now if now >= enough => Ok(()),
        now => Err(format!("{now} of {enough}")),
    })?;
    let appends = load.stop()?;
    let (verdict, appends) = judge(&cluster, &clock, appends, vec![fault])?;
    let failovers = cluster.failovers(&clock)?.len();
    Ok(Round {
        diverged: verdict.counts.values().sum::<usize>() + verdict.lost_to_failovers + failovers,
        ..seen(&appends, silent, spoke)
    })
}

/// What clients saw between the silence and its end.
fn seen(appends: &[Append], silent: Micros, spoke: Micros) -> Round {
    let mut round = Round::default();
    let mut untold: BTreeSet<u16> = appends.iter().map(|append| append.value.client).collect();
    for append in appends {
        let meanwhile = (silent..spoke).contains(&append.answered);
        match &append.outcome {
            Outcome::Acknowledged(_) if meanwhile => {
                let after = (append.answered - silent) as f64 / 1e3;
                round.stopped = round.stopped.max(after);
            }
            Outcome::NotRun(text) if text.starts_with(REASON) => {
                untold.remove(&append.value.client);
            }
            Outcome::Acknowledged(_) | Outcome::Unknown(_) => {}
            _ => round.unnamed += 1,
        }
    }
    round.untold = untold.len();
    round
}

#[cfg(test)]
mod tests {
    use super::{Round, seen};
    use testkit::history::{Append, Outcome, Value};

    #[test]
    fn who_was_told_what_and_when_writes_stopped() {
        let append = |client, answered, outcome| Append {
            list: 0,
            value: Value { client, number: 1 },
            node: 0,
            sent: 0,
            answered,
            outcome,
        };
        let refused = |text: &str| Outcome::NotRun(text.to_owned());
        let appends = [
            append(0, 2_500, Outcome::Acknowledged(1)),
            append(0, 6_000, refused("-TRYAGAIN no lease: nobody; try again")),
            append(1, 3_000, Outcome::Unknown(String::new())),
            append(1, 6_000, refused("-TRYAGAIN the shard is not available")),
            append(1, 12_000, Outcome::Acknowledged(2)),
        ];
        let expected = Round {
            stopped: 1.5,
            untold: 1,
            unnamed: 1,
            diverged: 0,
        };
        assert_eq!(seen(&appends, 1_000, 10_000), expected);
    }
}
