//! `cargo xtask bench moves`: what clients notice when primaries move, and when something is lost. Three
//! nodes of real processes on this machine, 50 clients that append about 5,000 values a second; after
//! each part every value that was acknowledged is looked for.
//!
//! | file | what |
//! |---|---|
//! | `machine` | whether the machine itself was there |
//! | `measure` | latencies in a window, and when writes came back |
//! | `planned` | moves and maintenance |
//! | `kinds` | transactions, blocking commands, subscriptions and others while primaries move |
//! | `losses` | what is killed |
//! | `cut` | a node is cut off, with clients on it |
//! | `silent` | nobody confirms leases, and a copy promises no more |
//! | `unseen` | an engine is back, empty, before anybody missed it |

mod cut;
mod kinds;
mod losses;
mod machine;
mod measure;
mod planned;
mod silent;
mod unseen;

use crate::page;
use anyhow::{Context as _, bail};
use std::path::PathBuf;
use std::time::Duration;
use testkit::cluster::Cluster;
use testkit::load::Plan;
use testkit::report::Report;

const USAGE: &str = "usage: cargo xtask bench moves [--quick] [--json FILE] [--markdown FILE] [--page FILE] \
    [--rounds N] [--only PART,…]\nparts: planned, row, kinds, maintenance, engine, exec, silent, unseen, node, \
    primary-node, cut, restart\n\
    --rounds: how often something is lost in each part, 20 by default, once or twice with --quick\n\
    the tables of a whole run go to docs/benchmarks.md in place of the last ones; --page: those of this run into that page";
const CLIENTS: u16 = 50;
/// Between two appends of a client.
const EVERY: Duration = Duration::from_millis(10);
/// Longer than any wait that the platform promises.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often something is lost in each part.
const ROUNDS: u32 = 20;
/// Engines with their versions, oldest first.
const ENGINES: [&str; 4] = ["6.2", "7.0", "8.0", "9.1"];

type Part = (
    &'static str,
    fn(&Options, &mut Report) -> anyhow::Result<()>,
);
const PARTS: [Part; 12] = [
    ("planned", planned::each_engine),
    ("row", planned::in_a_row),
    ("kinds", kinds::run),
    ("maintenance", planned::maintenance),
    ("engine", losses::engine),
    ("exec", losses::control),
    ("silent", silent::run),
    ("unseen", unseen::run),
    ("node", losses::node),
    ("primary-node", losses::primary_node),
    ("cut", cut::run),
    ("restart", losses::restart),
];

#[derive(Default)]
struct Options {
    quick: bool,
    json: Option<PathBuf>,
    markdown: Option<PathBuf>,
    page: Option<PathBuf>,
    only: Vec<String>,
    rounds: Option<u32>,
}

impl Options {
    /// The page that the tables are for: a whole run's are for that of this tree.
    fn page(&self) -> Option<PathBuf> {
        let rounds = self.rounds.is_none_or(|rounds| rounds >= ROUNDS);
        let whole = !self.quick && self.only.is_empty() && rounds;
        self.page.clone().or_else(|| whole.then(page::page))
    }

    /// How often something is lost: so often if the run is a quick one and says no number.
    fn rounds(&self, quick: u32) -> u32 {
        self.rounds
            .unwrap_or(if self.quick { quick } else { ROUNDS })
    }
}

/// Measures.
pub(crate) fn main(words: &[String]) -> anyhow::Result<()> {
    if words.iter().any(|word| word == "--help" || word == "-h") {
        println!("{USAGE}");
        return Ok(());
    }
    let options = options(words)?;
    let mut report = Report::default();
    conditions(&options, &mut report)?;
    for (name, part) in PARTS {
        if !options.only.is_empty() && !options.only.iter().any(|only| only == name) {
            continue;
        }
        // One part that fails takes nothing from the others.
        if let Err(error) = part(&options, &mut report) {
            println!("{name}: {error:#}");
            report.at_most(
                &format!("{name}: not carried out ({error:#})"),
                1.0,
                "",
                0.0,
            );
        }
    }
    report.condition("load average at the end", load_average()?);
    if let Some(path) = &options.json {
        report.write(path)?;
    }
    if let Some(path) = &options.markdown {
        std::fs::write(path, markdown(&report))?;
    }
    if let Some(page) = options.page() {
        page::write(&page, "moves", &markdown(&report))?;
    }
    Ok(())
}

fn options(words: &[String]) -> anyhow::Result<Options> {
    let mut words = words.iter();
    let mut options = Options::default();
    while let Some(word) = words.next() {
        let mut value = || {
            words
                .next()
                .with_context(|| format!("{word} wants a value"))
        };
        match word.as_str() {
            "--quick" => options.quick = true,
            "--json" => options.json = Some(value()?.into()),
            "--markdown" => options.markdown = Some(value()?.into()),
            "--page" => options.page = Some(value()?.into()),
            "--rounds" => options.rounds = Some(rounds(value()?)?),
            "--only" => options.only = value()?.split(',').map(str::to_owned).collect(),
            other => bail!("unknown option {other}\n{USAGE}"),
        }
    }
    let known = |name: &&String| !PARTS.iter().any(|(part, _)| part == name);
    if let Some(name) = options.only.iter().find(known) {
        bail!("there is no part {name}\n{USAGE}");
    }
    Ok(options)
}

fn rounds(word: &str) -> anyhow::Result<u32> {
    let rounds = word.parse().context("--rounds wants a number")?;
    anyhow::ensure!((1..=1_000).contains(&rounds), "--rounds takes 1 to 1000");
    Ok(rounds)
}

fn conditions(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    report.condition("kernel", kernel.trim());
    report.condition("cores", std::thread::available_parallelism()?.get());
    report.condition(
        "profile",
        "dev (level 1; resp and proxy 3), as in the tests",
    );
    report.condition("nodes", 3);
    report.condition("clients", CLIENTS);
    report.condition(
        "appends asked for, a second",
        f64::from(CLIENTS) / EVERY.as_secs_f64(),
    );
    report.condition("quick", options.quick);
    report.condition("load average at the beginning", load_average()?);
    Ok(())
}

fn load_average() -> anyhow::Result<String> {
    let text = std::fs::read_to_string("/proc/loadavg")?;
    Ok(text.split(' ').next().unwrap_or_default().to_owned())
}

/// The load of every part, through the proxies of these nodes.
fn plan(cluster: &Cluster, nodes: &[usize]) -> Plan {
    let endpoints = cluster.endpoints();
    Plan {
        targets: nodes.iter().map(|node| endpoints[*node]).collect(),
        clients: CLIENTS,
        lists: CLIENTS,
        every: EVERY,
        patience: PATIENCE,
    }
}

fn markdown(report: &Report) -> String {
    let mut text = String::from("| what | measured | goal |\n|---|---|---|\n");
    for row in report.rows() {
        let met = if row.met() { "" } else { ": **missed**" };
        let (name, value, unit, goal) = (&row.name, row.value, row.unit, row.goal);
        let value = match value.fract() == 0.0 {
            true => format!("{value}"),
            false => format!("{value:.1}"),
        };
        text.push_str(&format!(
            "| {name} | {value} {unit} | {goal} {unit}{met} |\n"
        ));
    }
    for (name, value) in report.conditions() {
        text.push_str(&format!("\n{name}: {value}"));
    }
    text.push('\n');
    text
}
