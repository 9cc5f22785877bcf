//! Planned moves of each engine version, many in a row, and maintenance.

use super::machine::{LATE, Machine};
use super::measure::{around_slowest, judge, latencies, quantile, quiet, two_rows};
use super::{ENGINES, Options, plan};
use std::time::Duration;
use testkit::cluster::Cluster;
use testkit::history::{Append, Micros};
use testkit::load::{Clock, Load};
use testkit::report::Report;

/// Until every shard is whole again.
const WHOLE: Duration = Duration::from_secs(60);
/// Appends before anything is measured.
const WARM: u64 = 2_000;

/// One move: the window before it, its own, and how long commands were held.
struct Window {
    quiet: (Micros, Micros),
    own: (Micros, Micros),
    held_ms: f64,
}

/// Waits until a load runs at its pace.
pub(crate) fn warm(load: &Load) -> anyhow::Result<()> {
    testkit::wait::until("the load runs", Duration::from_secs(30), || {
        match load.acknowledged() {
            WARM.. => Ok(()),
            few => Err(format!("{few} appends")),
        }
    })
}

pub(crate) fn each_engine(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let runs = if options.quick { 5 } else { 20 };
    for engine in ENGINES {
        series(
            engine,
            runs,
            Duration::from_secs(1),
            &format!("move, {engine}"),
            report,
        )?;
    }
    Ok(())
}

pub(crate) fn in_a_row(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let runs = if options.quick { 20 } else { 200 };
    let quiet = Duration::from_millis(200);
    series(
        ENGINES[3],
        runs,
        quiet,
        &format!("{runs} moves in a row"),
        report,
    )
}

fn series(
    engine: &str,
    runs: u32,
    before: Duration,
    name: &str,
    report: &mut Report,
) -> anyhow::Result<()> {
    let cluster = Cluster::start(3)?;
    cluster.create_replicated(&["redis_version", engine])?;
    cluster.whole(WHOLE)?;
    let clock = Clock::start();
    let load = Load::start(plan(&cluster, &[0, 1, 2]), clock)?;
    warm(&load)?;
    let machine = Machine::watch(clock);
    let syncs = cluster.full_syncs()?;
    let mut windows = Vec::new();
    for _ in 0..runs {
        let quiet = quiet(&clock, before);
        let shard = cluster.primary_shard()?.uid;
        let from = clock.now();
        let moved = cluster.move_shard(shard)?;
        windows.push(Window {
            quiet,
            own: (from, clock.now()),
            held_ms: moved.held_us as f64 / 1e3,
        });
        cluster.whole(WHOLE)?;
    }
    let lasted = clock.now();
    let appends = load.stop()?;
    let syncs_moved = cluster.full_syncs()? - syncs;
    let (verdict, appends) = judge(&cluster, &clock, appends, Vec::new())?;
    let rate = verdict.acknowledged as f64 / (lasted as f64 / 1e6);
    println!("{name}: {rate:.0} appends a second");
    figures(report, name, (&windows, &appends), machine.as_ref());
    zero_rows(report, name, &verdict);
    report.at_most(&format!("{name}: full syncs"), syncs_moved as f64, "", 0.0);
    Ok(())
}

/// What clients noticed of moves, and what of it is the machine's.
fn figures(
    report: &mut Report,
    name: &str,
    (windows, appends): (&[Window], &[Append]),
    machine: Option<&Machine>,
) {
    let (mut p99, mut max, mut held) = (Vec::new(), Vec::new(), Vec::new());
    let mut on_time = Vec::new();
    for window in windows {
        let quiet = latencies(appends, window.quiet.0, window.quiet.1);
        let own = latencies(appends, window.own.0, window.own.1);
        let (from, to) = around_slowest(appends, window.own);
        let near = latencies(appends, from, to);
        p99.push((quantile(&near, 0.99) - quantile(&quiet, 0.99)).max(0.0));
        max.push((quantile(&own, 1.0) - quantile(&quiet, 0.5)).max(0.0));
        held.push(window.held_ms);
        on_time.push(machine.is_none_or(|machine| machine.late_ms(window.own) == 0.0));
    }
    if let Some(machine) = machine {
        let most = machine.late_ms((0, Micros::MAX));
        println!("{name}: a thread of real-time priority was late by {most:.1} ms at most");
    }
    two_rows(report, &format!("{name}: added to p99"), &p99, "ms", 10.0);
    two_rows(report, &format!("{name}: added at most"), &max, "ms", 30.0);
    two_rows(
        report,
        &format!("{name}: held, says the platform"),
        &held,
        "ms",
        10.0,
    );
    // What is left when the moments are taken out in which nobody had a core.
    let late = LATE.as_millis();
    let well = |all: &[f64]| -> Vec<f64> {
        let all = all.iter().zip(&on_time);
        all.filter(|(_, on_time)| **on_time)
            .map(|(v, _)| *v)
            .collect()
    };
    let name_of = |what: &str| format!("{name}: {what}, machine not late by {late} ms");
    if on_time.contains(&false) {
        two_rows(report, &name_of("added to p99"), &well(&p99), "ms", 10.0);
        two_rows(report, &name_of("added at most"), &well(&max), "ms", 30.0);
    }
}

/// What must be zero where nothing was lost.
fn zero_rows(report: &mut Report, name: &str, verdict: &testkit::history::Verdict) {
    let errors = verdict.unknown + verdict.not_run + verdict.closed;
    let other: usize = verdict.counts.values().sum();
    report.at_most(&format!("{name}: errors"), errors as f64, "", 0.0);
    let lost = verdict.lost();
    report.at_most(
        &format!("{name}: acknowledged writes lost"),
        lost as f64,
        "",
        0.0,
    );
    report.at_most(
        &format!("{name}: rules of the history broken"),
        other as f64,
        "",
        0.0,
    );
}

pub(crate) fn maintenance(_: &Options, report: &mut Report) -> anyhow::Result<()> {
    let name = "maintenance of each node in turn, two shards";
    let cluster = Cluster::start(3)?;
    cluster.create_replicated(&["shards_count", "2"])?;
    cluster.whole(WHOLE)?;
    let clock = Clock::start();
    let load = Load::start(plan(&cluster, &[0, 1, 2]), clock)?;
    warm(&load)?;
    let rest = quiet(&clock, Duration::from_secs(1));
    let from = clock.now();
    for node in 0..3 {
        cluster.maintenance(node, "maintenance_on")?;
        cluster.maintenance(node, "maintenance_off")?;
    }
    let to = clock.now();
    cluster.whole(WHOLE)?;
    let appends = load.stop()?;
    let (verdict, appends) = judge(&cluster, &clock, appends, Vec::new())?;
    let quiet = latencies(&appends, rest.0, rest.1);
    let own = latencies(&appends, from, to);
    let most = quantile(&own, 1.0) - quantile(&quiet, 0.5);
    report.at_most(&format!("{name}: added at most"), most, "ms", 30.0);
    zero_rows(report, name, &verdict);
    Ok(())
}
