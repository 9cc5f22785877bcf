//! `cargo xtask bench upgrade [--quick] [--rounds N] [--json FILE]`: three nodes of the last release, upgraded to this
//! tree and taken back by install.sh again and again, under load.
//!
//! | file | what |
//! |---|---|
//! | [`clients`] | who sends what, and what became of it |
//! | [`writes`] | configuration writes all the time |
//! | [`table`] | the result, as JSON and as a table |

mod clients;
mod table;
mod writes;

use crate::demo::place::Place;
use crate::demo::{self, node::Node};
use crate::dist;
use crate::engines::output_of;
use anyhow::{Context, Result, bail, ensure};
use clients::Clients;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use table::{Figures, Node as Turn};
use writes::Writes;

/// First of the three addresses: not the demo's.
const BASE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 41);
/// Upgrades, and as many ways back, of the whole cluster.
const ROUNDS: usize = 20;
/// Traffic before the first round and after the last one.
const AROUND: Duration = Duration::from_secs(3);
/// How long the cluster may take to be whole between two nodes.
const WHOLE_WITHIN: Duration = Duration::from_secs(30);

struct Options {
    rounds: usize,
    json: Option<PathBuf>,
    base: Ipv4Addr,
    /// Without the measurement of 10,000 connections, which builds the proxy's tests.
    no_ten_thousand: bool,
}

fn options(words: &[String]) -> Result<Options> {
    let mut options = Options {
        rounds: ROUNDS,
        json: None,
        base: BASE,
        no_ten_thousand: false,
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || {
            words
                .next()
                .with_context(|| format!("{word} needs a value"))
        };
        match word.as_str() {
            "--quick" => options.rounds = 1,
            "--rounds" => options.rounds = value()?.parse().context("--rounds: a number")?,
            "--json" => options.json = Some(value()?.into()),
            "--base" => options.base = value()?.parse().context("--base: an address")?,
            "--no-ten-thousand" => options.no_ten_thousand = true,
            _ => bail!(
                "usage: cargo xtask bench upgrade [--quick] [--rounds N] [--json FILE] [--base IP] \
                 [--no-ten-thousand]"
            ),
        }
    }
    ensure!(options.rounds > 0, "--rounds: at least one");
    Ok(options)
}

/// Measures.
pub(crate) fn run(repository: &Path, words: &[String]) -> Result<()> {
    let options = options(words)?;
    ensure!(
        rustix::process::geteuid().is_root(),
        "root is needed, because nodes are installed"
    );
    let place = Place::new(options.base)?;
    demo::start_released(repository, &place)?;
    let measured = measure(repository, &place, &options);
    keep_logs(repository, &place)?;
    let stopped = demo::stop(&place);
    let mut figures = measured?;
    stopped?;
    if !options.no_ten_thousand {
        figures.ten_thousand = ten_thousand(repository)?;
    }
    println!("\n{}", figures.markdown());
    if let Some(path) = &options.json {
        std::fs::write(path, figures.json()).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// What the nodes said is there afterwards: a connection that was dropped is to be explained.
fn keep_logs(repository: &Path, place: &Place) -> Result<()> {
    let kept = repository.join("target/bench/upgrade-logs");
    if kept.exists() {
        std::fs::remove_dir_all(&kept)?;
    }
    for node in place.nodes() {
        let into = kept.join(format!("node{}", node.number));
        std::fs::create_dir_all(&into)?;
        let from = place.root().join(format!("node{}/var", node.number));
        for log in walkdir::WalkDir::new(&from).into_iter().flatten() {
            let is_log = log
                .path()
                .extension()
                .is_some_and(|end| end == "log" || end == "out");
            if is_log && log.file_type().is_file() {
                std::fs::copy(log.path(), into.join(log.file_name()))?;
            }
        }
    }
    println!("logs of the nodes: {}", kept.display());
    Ok(())
}

fn measure(repository: &Path, place: &Place, options: &Options) -> Result<Figures> {
    let to = dist::release::next(repository)?;
    dist::fast(repository, &to)?;
    let bundle = place.unpack(&place.tar(repository, &to), &to)?;
    let nodes = place.nodes();
    nodes[0].rladmin(&["cluster", "upgrade", "config", "hold_finalize", "enabled"])?;
    let engines = place.engine_processes();
    let mut figures = Figures::new(options.rounds, load_average()?);
    let commands = clients::commands_of_engine(&nodes[0])?;
    let clients = Clients::start(repository, demo::endpoints(&nodes))?;
    let began = Instant::now();
    std::thread::sleep(AROUND);
    let done = rounds(&nodes, &bundle, &clients, options.rounds, &mut figures);
    std::thread::sleep(AROUND);
    figures.seconds = began.elapsed().as_secs_f64();
    figures.commands = clients::commands_of_engine(&nodes[0])?.saturating_sub(commands);
    figures.clients = clients.end()?;
    figures.engines_restarted = place.engine_processes() != engines;
    figures.load_average_at_end = load_average()?;
    done?;
    Ok(figures)
}

fn rounds(
    nodes: &[Node],
    bundle: &Path,
    clients: &Clients,
    rounds: usize,
    figures: &mut Figures,
) -> Result<()> {
    for round in 1..=rounds {
        let mut order = demo::primary_first(nodes)?;
        for (place, node) in order.iter().enumerate() {
            let turn = one(node, nodes, clients, place == 0, || node.upgrade(bundle))?;
            println!("round {round}: node {} upgraded: {turn}", node.number);
            figures.upgrades.push(turn);
        }
        order.reverse();
        for node in order {
            let turn = one(node, nodes, clients, false, || node.roll_back(bundle))?;
            println!("round {round}: node {} taken back: {turn}", node.number);
            figures.rollbacks.push(turn);
        }
    }
    Ok(())
}

/// Has a node upgraded or taken back.
fn one(
    node: &Node,
    nodes: &[Node],
    clients: &Clients,
    is_primary: bool,
    work: impl FnOnce() -> Result<String>,
) -> Result<Turn> {
    wait_until_whole(node)?;
    clients.take_longest();
    // By a node that stays as it is.
    let other = nodes
        .iter()
        .find(|other| other.number != node.number)
        .context("there is one node only")?;
    let writes = Writes::start(other);
    let began = Instant::now();
    let said = work();
    let seconds = began.elapsed().as_secs_f64();
    let writes = writes.end()?;
    let said = said?;
    let mut turn = Turn::read(&said, seconds);
    turn.is_primary = is_primary;
    turn.answers_us = clients.take_longest();
    turn.writes = writes;
    Ok(turn)
}

fn wait_until_whole(node: &Node) -> Result<()> {
    let deadline = Instant::now() + WHOLE_WITHIN;
    while let Err(error) = demo::look(node) {
        if Instant::now() >= deadline {
            return Err(error);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

fn load_average() -> Result<String> {
    let text = std::fs::read_to_string("/proc/loadavg")?;
    Ok(text
        .split_whitespace()
        .take(3)
        .collect::<Vec<_>>()
        .join(" "))
}

/// Milliseconds in which 10,000 connections were handed over, each time; latencies beside that.
fn ten_thousand(repository: &Path) -> Result<BTreeMap<String, String>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let said = output_of(Command::new(cargo).current_dir(repository).args([
        "nextest",
        "run",
        "--package",
        "proxy",
        "--run-ignored",
        "only",
        "--no-capture",
        "ten_thousand_connections",
    ]))?;
    let took: Vec<&str> = said
        .lines()
        .filter_map(|line| line.split("took_ms=").nth(1)?.split_whitespace().next())
        .collect();
    ensure!(!took.is_empty(), "the test says no times:\n{said}");
    let mut found = BTreeMap::from([("handed over, ms".to_owned(), took.join(", "))]);
    for (key, begins) in [
        ("latency meanwhile", "while servers are replaced: "),
        ("latency at other times", "at other times: "),
    ] {
        if let Some(rest) = said
            .lines()
            .find_map(|line| line.trim().strip_prefix(begins))
        {
            found.insert(key.to_owned(), rest.to_owned());
        }
    }
    Ok(found)
}
