//! `cargo xtask bench proxy`: dmcproxy beside a direct engine, twemproxy and Envoy, all on this
//! machine, in interleaved rounds.
//!
//! | file | what |
//! |---|---|
//! | `options`, `loads` | what is measured, with the goals |
//! | `target` | what it is measured on: `engine`, `cluster`, `node` (dmcproxy), `peers` |
//! | `run`, `series` | one run of the load generator; rounds and ratios |
//! | `idle` | memory with 10,000 clients |
//! | `profile` | where the time goes |
//! | `table` | what is shown |
//! | `client`, `processes`, `interrupt` | what the others stand on |

mod client;
mod cluster;
mod engine;
mod idle;
mod interrupt;
mod loads;
mod node;
mod options;
mod peers;
mod processes;
mod profile;
mod run;
mod series;
mod table;
mod target;

use crate::page;
use idle::Idle;
use interrupt::Interrupt;
use loads::{Goal, Load};
use options::{Kind, Options};
use run::Runner;
use series::Series;
use std::path::PathBuf;
use target::{Place, Target};
use testkit::addresses::Network;
use testkit::report::Report;

/// Measures.
pub(crate) fn main(words: &[String]) -> anyhow::Result<()> {
    if words.iter().any(|word| word == "--help" || word == "-h") {
        println!("{}\nloads: {}", options::USAGE, loads::names());
        return Ok(());
    }
    let options = Options::parse(words)?;
    // Before anything is started, so that no signal is missed.
    let interrupt = Interrupt::watch()?;
    Bench {
        descriptors: processes::raise_descriptors(),
        cores: processes::cores()?,
        place: Place {
            network: Network::take()?,
            folder: tempfile::Builder::new().prefix("ms-bench-").tempdir()?,
            started: std::cell::Cell::new(0),
        },
        options,
        interrupt,
        notes: Vec::new(),
        all: Vec::new(),
        idle: Vec::new(),
        threads: Vec::new(),
        counts: Vec::new(),
    }
    .run()
}

struct Bench {
    options: Options,
    interrupt: Interrupt,
    place: Place,
    descriptors: u64,
    cores: rustix::thread::CpuSet,
    notes: Vec<String>,
    all: Vec<Series>,
    idle: Vec<Idle>,
    /// Worker threads of each proxy.
    threads: Vec<String>,
    counts: Vec<profile::Count>,
}

impl Bench {
    fn run(mut self) -> anyhow::Result<()> {
        let loads = std::mem::take(&mut self.options.loads);
        for shards in [1, 4] {
            let of_these: Vec<&Load> = loads.iter().filter(|load| load.shards == shards).collect();
            let idle = self.options.idle && shards == 1;
            if !of_these.is_empty() || idle {
                self.group(shards, &of_these, idle)?;
            }
        }
        if self.options.profile || self.options.callgrind {
            let (cores, folder) = (&self.cores, self.place.folder.path());
            let runner = Runner {
                interrupt: &self.interrupt,
                folder,
                cores,
            };
            self.counts =
                profile::all(&runner, &self.place, &self.options, &loads, &mut self.notes)?;
        }
        self.report()
    }

    /// Everything with so many shards.
    fn group(&mut self, shards: u16, loads: &[&Load], idle: bool) -> anyhow::Result<()> {
        let mut targets = self.start(shards)?;
        if idle {
            self.idle(&targets)?;
        }
        let pinnable = self.cores.is_set(0) && self.cores.is_set(1);
        for load in loads {
            if load.pinned && !pinnable {
                self.notes
                    .push(format!("{}: needs CPUs 0 and 1", load.name));
                continue;
            }
            let runner = Runner {
                interrupt: &self.interrupt,
                folder: self.place.folder.path(),
                cores: &self.cores,
            };
            let rounds = self.options.rounds;
            let series = series::run(&runner, load, &mut targets, rounds, &mut self.notes)?;
            table::print(&series);
            self.all.push(series);
        }
        Ok(())
    }

    /// Starts the targets. Only our own and the direct engine with one shard must work: another one
    /// that does not is left out, with a note.
    fn start(&mut self, shards: u16) -> anyhow::Result<Vec<Target>> {
        let mut kinds = self.options.targets.clone();
        if shards > 1
            && let Some(at) = kinds.iter().position(|kind| *kind == Kind::Ours)
        {
            kinds.insert(at, Kind::OursOneShard);
            kinds.push(Kind::Cluster);
        }
        let mut targets = Vec::new();
        for kind in kinds {
            self.interrupt.check()?;
            match Target::start(kind, shards, &self.place, &self.options, None) {
                Ok(target) => {
                    if let (Some(threads), 1) = (target.threads, shards) {
                        self.threads.push(format!("{} {threads}", kind.name()));
                    }
                    targets.push(target);
                }
                Err(error)
                    if kind.is_peer()
                        || (matches!(kind, Kind::Ours | Kind::Cluster) && shards > 1) =>
                {
                    println!("left out: {error:#}");
                    self.notes.push(format!("left out: {error:#}"));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(targets)
    }

    fn idle(&mut self, targets: &[Target]) -> anyhow::Result<()> {
        if self.descriptors < idle::DESCRIPTORS {
            let note = format!(
                "idle: needs {} descriptors, and the limit is {}; raise it with ulimit -n",
                idle::DESCRIPTORS,
                self.descriptors
            );
            println!("{note}");
            self.notes.push(note);
            return Ok(());
        }
        println!("\nresident memory with {} idle clients", idle::CONNECTIONS);
        for target in targets {
            if let Some(row) = idle::measure(target, &self.interrupt)? {
                println!(
                    "  {:<10} {:.1} MB before, {:.1} MB after: {:.0} bytes a connection",
                    row.target, row.before_mb, row.after_mb, row.bytes_a_connection
                );
                self.idle.push(row);
            }
        }
        Ok(())
    }

    fn report(self) -> anyhow::Result<()> {
        let mut report = Report::default();
        self.conditions(&mut report)?;
        println!();
        for series in &self.all {
            goals(&mut report, series);
        }
        if let Some(row) = self.idle.iter().find(|row| row.kind == Kind::Ours) {
            report.at_most("resident, 10,000 idle clients", row.after_mb, "MB", 30.0);
        }
        for note in &self.notes {
            println!("note: {note}");
        }
        let mut details = table::details(&self.all, &self.idle, &self.notes);
        details["instructions"] = serde_json::to_value(&self.counts)?;
        report.details(details);
        if let Some(path) = &self.options.json {
            report.write(path)?;
        }
        if let Some(path) = &self.options.markdown {
            std::fs::write(path, self.tables(&report))?;
        }
        if let Some(page) = self.page() {
            page::write(&page, "proxy", &self.tables(&report))?;
        }
        Ok(())
    }

    fn tables(&self, report: &Report) -> String {
        table::markdown(report, &self.all, &self.idle, &self.notes)
    }

    /// The page that the tables are for. A peer that was left out is missed there.
    fn page(&self) -> Option<PathBuf> {
        let there = |kind: &Kind| {
            let of = |series: &Series| series.results.iter().any(|samples| samples.kind == *kind);
            self.all.iter().all(of)
        };
        let whole = self.options.whole && self.options.targets.iter().all(there);
        let page = self.options.page.clone();
        page.or_else(|| whole.then(crate::page::page))
    }

    fn conditions(&self, report: &mut Report) -> anyhow::Result<()> {
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
        report.condition("rounds", self.options.rounds);
        report.condition("runs", if self.options.quick { "short" } else { "full" });
        report.condition("dmcproxy", self.options.build.as_str());
        report.condition("engine", engine::ENGINE);
        report.condition("engine settings", "no persistence, io-threads 1");
        report.condition(
            "load generator",
            "valkey-benchmark of the same version, one thread",
        );
        report.condition(
            "link to engines",
            format!("{:?}", self.options.link).to_lowercase(),
        );
        report.condition("proxy threads", self.threads.join(", "));
        report.condition("cores", std::thread::available_parallelism()?.get());
        report.condition("kernel", kernel.trim());
        Ok(())
    }
}

/// Rows of one load: what has a goal.
fn goals(report: &mut Report, series: &Series) {
    let load = &series.load;
    let (to, goal, words) = match load.goal {
        Goal::None => (Kind::Direct, None, ""),
        Goal::Direct(goal) => (Kind::Direct, Some(goal), "÷ direct"),
        Goal::OneShard(goal) => (Kind::OursOneShard, Some(goal), "÷ one shard"),
    };
    if let (Some(goal), Some(ratio)) = (goal, series.pooled(Kind::Ours, to)) {
        report.at_least(
            &format!("{}: ours {words}", load.shown),
            ratio.median,
            "",
            goal,
        );
    }
    if let (Some(goal), Some(cpu)) = (load.cpu_goal, series.figure(Kind::Ours, |s| s.cpu_proxy)) {
        let name = format!("{}: proxy CPU per million requests", load.shown);
        report.at_most(&name, cpu.median, "s", goal);
    }
    if matches!(load.goal, Goal::Direct(_)) {
        let p99 = |kind| Some(series.figure(kind, |sample| sample.p99)?.median);
        let peers = [Kind::Twemproxy, Kind::Envoy].into_iter().filter_map(p99);
        let best = peers.fold(f64::INFINITY, f64::min);
        if let (Some(ours), true) = (p99(Kind::Ours), best.is_finite()) {
            let name = format!("{}: p99, the best peer's as goal", load.shown);
            // As many digits as the load generator gives.
            report.at_most(&name, ours, "ms", (best * 1e3).round() / 1e3);
        }
    }
}
