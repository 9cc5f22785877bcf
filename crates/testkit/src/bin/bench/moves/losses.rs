//! Something is lost while clients write. A row says how long that was noticed, or that
//! writes were not back in time; the next part goes on.

use super::measure::{back, judge, judged, latencies, most_errors, quantile, two_rows};
use super::planned::warm;
use super::{CLIENTS, Options, plan};
use anyhow::Context as _;
use model::rest::ShardInfo;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::time::Duration;
use testkit::cluster::Cluster;
use testkit::history::{Append, History, Micros, Rule, Span, Verdict};
use testkit::load::{Clock, Load};
use testkit::report::Report;

/// Writes are waited for so long.
const LIMIT: Duration = Duration::from_secs(30);
/// Until everything is whole again.
pub(crate) const WHOLE: Duration = Duration::from_secs(60);

/// What goes wrong, and how it is made good.
pub(crate) trait Loss {
    fn name(&self) -> &'static str;
    /// Goal for the time until writes are back, ms.
    fn goal(&self) -> f64;
    fn make(&self) -> anyhow::Result<Cluster> {
        let cluster = Cluster::start(3)?;
        cluster.create_replicated(&[])?;
        Ok(cluster)
    }
    /// Makes it happen.
    fn happen(&self, cluster: &mut Cluster) -> anyhow::Result<()>;
    /// Makes it good, if that is not the platform's work.
    fn undo(&self, cluster: &mut Cluster) -> anyhow::Result<()>;
    /// Nodes whose clients are counted.
    fn counted(&self, cluster: &Cluster) -> anyhow::Result<Vec<usize>>;
    /// Nodes that clients are on: others' are judged, and not counted.
    fn on(&self, cluster: &Cluster) -> anyhow::Result<Vec<usize>> {
        self.counted(cluster)
    }
    /// Lists; fewer than clients where those of several nodes are to meet in one.
    fn lists(&self) -> u16 {
        CLIENTS
    }
    /// What else must hold of it, once everything is whole again.
    fn also(&self, _: &Cluster, _: &Told<'_>) -> anyhow::Result<Vec<Also>> {
        Ok(Vec::new())
    }
}

/// What a round has told.
pub(crate) struct Told<'a> {
    pub(crate) clock: &'a Clock,
    pub(crate) history: &'a History,
    /// When it had happened.
    pub(crate) moment: Micros,
}

/// A figure that must be at most its goal in each round.
pub(crate) struct Also {
    pub(crate) name: &'static str,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    pub(crate) goal: f64,
}

/// Runs a loss several times.
pub(crate) fn measure(loss: &dyn Loss, runs: u32, report: &mut Report) -> anyhow::Result<()> {
    let name = loss.name();
    let (mut times, mut late, mut errors) = (Vec::new(), 0, 0);
    let (mut verdicts, mut also) = (Vec::new(), BTreeMap::<&str, Vec<Also>>::new());
    for _ in 0..runs {
        let run = once(loss)?;
        late += u32::from(run.back.is_none());
        times.push(run.back.unwrap_or(LIMIT.as_secs_f64() * 1e3));
        errors = errors.max(run.errors);
        verdicts.push(run.verdict);
        for row in run.also {
            also.entry(row.name).or_default().push(row);
        }
    }
    let shown = match late {
        0 => format!("{name}: writes back"),
        _ => format!(
            "{name}: writes back ({late} of {runs} not within {} s)",
            LIMIT.as_secs()
        ),
    };
    two_rows(report, &shown, &times, "ms", loss.goal());
    loss_rows(report, name, &verdicts, errors);
    for (what, rows) in also {
        let worst = rows.iter().map(|row| row.value).fold(0.0, f64::max);
        report.at_most(
            &format!("{name}: {what}"),
            worst,
            rows[0].unit,
            rows[0].goal,
        );
    }
    Ok(())
}

fn loss_rows(report: &mut Report, name: &str, verdicts: &[Verdict], errors: usize) {
    let sum = |count: fn(&Verdict) -> usize| verdicts.iter().map(count).sum::<usize>() as f64;
    report.at_most(
        &format!("{name}: most errors of a client"),
        errors as f64,
        "",
        1.0,
    );
    report.at_most(
        &format!("{name}: connections closed"),
        sum(|v| v.closed),
        "",
        0.0,
    );
    let lost = sum(|v| v.lost_to_failovers);
    println!("{name}: acknowledged writes that no replica had: {lost}");
    let mut broken: BTreeMap<Rule, usize> = BTreeMap::new();
    for (rule, count) in verdicts.iter().flat_map(|v| &v.counts) {
        *broken.entry(*rule).or_default() += count;
    }
    let total: usize = broken.values().sum();
    let which = match total {
        0 => String::new(),
        _ => format!(" {broken:?}"),
    };
    report.at_most(
        &format!("{name}: rules of the history broken{which}"),
        total as f64,
        "",
        0.0,
    );
}

struct Run {
    back: Option<f64>,
    errors: usize,
    verdict: Verdict,
    also: Vec<Also>,
}

fn once(loss: &dyn Loss) -> anyhow::Result<Run> {
    let mut cluster = loss.make()?;
    cluster.whole(WHOLE)?;
    let (counted, on) = (loss.counted(&cluster)?, loss.on(&cluster)?);
    let clock = Clock::start();
    let mut plan = plan(&cluster, &on);
    plan.lists = loss.lists();
    let load = Load::start(plan, clock)?;
    warm(&load)?;
    let from = clock.now();
    loss.happen(&mut cluster)?;
    let moment = clock.now();
    wait_for_writes(&load, &clock, moment);
    let until = clock.now();
    loss.undo(&mut cluster)?;
    if let Err(error) = cluster.whole(WHOLE) {
        println!("    {}: {error:#}", loss.name());
    }
    let to = clock.now();
    let appends = load.stop()?;
    let fault = Span {
        what: loss.name().to_owned(),
        closes: None,
        from,
        to,
    };
    let (verdict, history) = judged(&cluster, &clock, by_node(appends, &on), vec![fault])?;
    let told = Told {
        clock: &clock,
        history: &history,
        moment,
    };
    let also = loss.also(&cluster, &told)?;
    let mut appends = history.appends;
    appends.retain(|append| counted.contains(&append.node));
    Ok(Run {
        back: back(&appends, moment, until).map(|ms| ms + (moment - from) as f64 / 1e3),
        errors: most_errors(&appends, from, to),
        verdict,
        also,
    })
}

/// Clients count the endpoints that they were given; the history counts nodes.
fn by_node(mut appends: Vec<Append>, on: &[usize]) -> Vec<Append> {
    for append in &mut appends {
        append.node = on[append.node];
    }
    appends
}

/// Until the load has gone on for a while, at most for the limit.
fn wait_for_writes(load: &Load, clock: &Clock, moment: Micros) {
    let limit = moment + u64::try_from(LIMIT.as_micros()).unwrap_or(u64::MAX);
    // In-flight answers may still come in: what counts is that many follow.
    let enough = load.acknowledged() + 5_000;
    while clock.now() < limit && load.acknowledged() < enough {
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Sends an engine a signal.
pub(crate) fn signal(shard: &ShardInfo, signal: Signal) -> anyhow::Result<()> {
    let pid = shard.pid.and_then(|pid| Pid::from_raw(pid.cast_signed()));
    Ok(kill_process(pid.context("no process")?, signal)?)
}

struct Engine;

impl Loss for Engine {
    fn name(&self) -> &'static str {
        "kill -9 of a primary's engine"
    }
    fn goal(&self) -> f64 {
        500.0
    }
    fn happen(&self, cluster: &mut Cluster) -> anyhow::Result<()> {
        signal(&cluster.primary_shard()?, Signal::KILL)
    }
    fn undo(&self, _: &mut Cluster) -> anyhow::Result<()> {
        Ok(())
    }
    fn counted(&self, _: &Cluster) -> anyhow::Result<Vec<usize>> {
        Ok(vec![0, 1, 2])
    }
}

pub(crate) fn engine(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    measure(&Engine, options.rounds(2), report)
}

/// Everything on the node that holds the primary; it is the primary node too, or is not.
pub(crate) struct Whole {
    pub(crate) primary_node: bool,
}

impl Whole {
    /// The node that is lost.
    pub(crate) fn node(cluster: &Cluster) -> anyhow::Result<usize> {
        cluster.index(cluster.primary_shard()?.node_uid)
    }
}

impl Loss for Whole {
    fn name(&self) -> &'static str {
        match self.primary_node {
            true => "kill -9 of everything on the primary node, with a primary",
            false => "kill -9 of everything on a node with a primary",
        }
    }
    fn goal(&self) -> f64 {
        3_000.0
    }
    fn make(&self) -> anyhow::Result<Cluster> {
        let cluster = Cluster::start(3)?;
        cluster.create_replicated(&[])?;
        cluster.whole(WHOLE)?;
        let holder = Self::node(&cluster)?;
        let wanted = if self.primary_node {
            holder
        } else {
            (holder + 1) % 3
        };
        if cluster.primary_node()? != wanted {
            let number = (wanted + 1).to_string();
            cluster.nodes[wanted].rladmin_until(&["cluster", "master", "set", &number])?;
        }
        Ok(cluster)
    }
    fn happen(&self, cluster: &mut Cluster) -> anyhow::Result<()> {
        let node = Self::node(cluster)?;
        cluster.nodes[node].kill_everything()
    }
    fn undo(&self, cluster: &mut Cluster) -> anyhow::Result<()> {
        for node in &mut cluster.nodes {
            if node.pid("cnm_exec").is_none() {
                node.start()?;
            }
        }
        Ok(())
    }
    fn counted(&self, cluster: &Cluster) -> anyhow::Result<Vec<usize>> {
        let lost = Self::node(cluster)?;
        Ok((0..3).filter(|node| *node != lost).collect())
    }
}

pub(crate) fn node(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let loss = Whole {
        primary_node: false,
    };
    measure(&loss, options.rounds(1), report)
}

pub(crate) fn primary_node(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let loss = Whole { primary_node: true };
    measure(&loss, options.rounds(1), report)
}

/// All nodes at once, with data that survive a restart.
struct All;

impl Loss for All {
    fn name(&self) -> &'static str {
        "everything on all three nodes is killed and started again, aof-every-write"
    }
    fn goal(&self) -> f64 {
        10_000.0
    }
    fn make(&self) -> anyhow::Result<Cluster> {
        let cluster = Cluster::start(3)?;
        cluster.create_replicated(&["persistence", "aof-every-write"])?;
        Ok(cluster)
    }
    fn happen(&self, cluster: &mut Cluster) -> anyhow::Result<()> {
        for node in &mut cluster.nodes {
            node.kill_everything()?;
        }
        for node in &mut cluster.nodes {
            node.start()?;
        }
        Ok(())
    }
    fn undo(&self, _: &mut Cluster) -> anyhow::Result<()> {
        Ok(())
    }
    fn counted(&self, _: &Cluster) -> anyhow::Result<Vec<usize>> {
        Ok(vec![0, 1, 2])
    }
}

pub(crate) fn restart(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let name = All.name();
    let (mut times, mut late, mut lost) = (Vec::new(), 0, 0);
    let runs = options.rounds(1);
    for _ in 0..runs {
        let run = once(&All)?;
        late += u32::from(run.back.is_none());
        times.push(run.back.unwrap_or(LIMIT.as_secs_f64() * 1e3));
        lost += run.verdict.lost();
    }
    let shown = match late {
        0 => format!("{name}: writes back"),
        _ => format!(
            "{name}: writes back ({late} of {runs} not within {} s)",
            LIMIT.as_secs()
        ),
    };
    two_rows(report, &shown, &times, "ms", All.goal());
    report.at_most(
        &format!("{name}: acknowledged writes lost"),
        lost as f64,
        "",
        0.0,
    );
    Ok(())
}

/// All three cnm_exec are away for a minute.
pub(crate) fn control(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let seconds = if options.quick { 15 } else { 60 };
    let name = format!("all three cnm_exec killed for {seconds} s");
    let (mut longest, mut errors, mut lost) = (Vec::new(), 0, 0);
    for _ in 0..options.rounds(1) {
        let (answer, verdict) = without_control(Duration::from_secs(seconds))?;
        longest.push(answer);
        errors += verdict.unknown + verdict.not_run + verdict.closed;
        lost += verdict.lost();
    }
    two_rows(
        report,
        &format!("{name}: longest answer"),
        &longest,
        "ms",
        1_000.0,
    );
    report.at_most(&format!("{name}: errors"), errors as f64, "", 0.0);
    report.at_most(
        &format!("{name}: acknowledged writes lost"),
        lost as f64,
        "",
        0.0,
    );
    Ok(())
}

/// The longest answer meanwhile, ms.
fn without_control(length: Duration) -> anyhow::Result<(f64, Verdict)> {
    let mut cluster = Cluster::start(3)?;
    cluster.create_replicated(&[])?;
    cluster.whole(WHOLE)?;
    let clock = Clock::start();
    let load = Load::start(plan(&cluster, &[0, 1, 2]), clock)?;
    warm(&load)?;
    let from = clock.now();
    for node in &mut cluster.nodes {
        node.kill("cnm_exec")?;
    }
    std::thread::sleep(length);
    for node in &mut cluster.nodes {
        node.start_daemon("cnm_exec")?;
    }
    cluster.whole(WHOLE)?;
    let to = clock.now();
    let appends = load.stop()?;
    let (verdict, appends) = judge(&cluster, &clock, appends, Vec::new())?;
    Ok((quantile(&latencies(&appends, from, to), 1.0), verdict))
}
