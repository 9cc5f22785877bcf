//! `cargo xtask demo`, which `demo.sh` runs: three nodes on this machine, installed from a bundle
//! made here by its own install.sh.

pub(crate) mod load;
pub(crate) mod node;
pub(crate) mod place;

use crate::dist;
use anyhow::{Context, Result, bail, ensure};
use load::{CONNECTIONS, Load, PACE, Tally};
use node::{DNS_PORT, Node};
use place::Place;
use semver::Version;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Port of the demo's database.
pub(crate) const PORT: u16 = 12_000;
/// Its name.
const DATABASE: &str = "demo";
/// First admin.
const ADMIN: &str = "admin@demo.example.com";
const CLUSTER: &str = "demo.example.com";
/// How long traffic is sent before the figures are shown.
const TRAFFIC: Duration = Duration::from_secs(5);
/// Traffic before and after the nodes are upgraded.
const AROUND_UPGRADE: Duration = Duration::from_secs(2);
/// How long the end of an upgrade may take after its soak.
const FINALISED_WITHIN: Duration = Duration::from_secs(30);

/// Options of the demo.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "./demo.sh [upgrade [--orchestrated] [--released] | shell <1|2|3> | stop] [--exit] [--base IP]"
)]
pub(crate) struct Options {
    #[command(subcommand)]
    action: Option<Action>,
    /// Remove everything at the end; the exit code says whether all went well.
    #[arg(long, global = true)]
    exit: bool,
    /// First of three loopback addresses.
    #[arg(long, global = true, value_name = "IP", default_value = "127.0.0.11")]
    base: Ipv4Addr,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Upgrade the three nodes to the next version, under load; starts the demo if it is not there.
    Upgrade {
        /// By one command for all nodes, instead of install.sh on each.
        #[arg(long)]
        orchestrated: bool,
        /// Begin with the last release, built from its commit, instead of this tree; the demo must not be there.
        #[arg(long)]
        released: bool,
    },
    /// Remove the demo without a trace.
    Stop,
    /// A shell on a node.
    Shell {
        /// Which one.
        #[arg(value_parser = clap::value_parser!(u8).range(1..=3))]
        node: u8,
    },
}

/// Runs it.
pub(crate) fn run(repository: &Path, options: &Options) -> Result<()> {
    let place = Place::new(options.base)?;
    match options.action {
        None => {
            let done = start(repository, &place);
            finish(&place, options.exit, done)
        }
        Some(Action::Upgrade {
            orchestrated,
            released,
        }) => {
            let done = begin_upgrade(repository, &place, released)
                .and_then(|()| upgrade(repository, &place, orchestrated));
            finish(&place, options.exit, done)
        }
        Some(Action::Stop) => stop(&place),
        Some(Action::Shell { node }) => shell(&place, node),
    }
}

fn finish(place: &Place, exit: bool, done: Result<()>) -> Result<()> {
    if !exit {
        return done.with_context(|| {
            format!("what is there stays for a look: {}", place.root().display())
        });
    }
    let stopped = stop(place);
    done.and(stopped)
}

/// One line for what is done, with how long it took.
fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    println!("==> {what}");
    let began = Instant::now();
    let done = work().with_context(|| format!("{what}: failed"))?;
    println!("    {:.1} s", began.elapsed().as_secs_f64());
    Ok(done)
}

fn create_database(first: &Node) -> Result<()> {
    step("create the database", || {
        let port = PORT.to_string();
        first.rladmin(&[
            "create",
            "db",
            DATABASE,
            "memory_size",
            "512MB",
            "port",
            &port,
            "proxy_policy",
            "all-nodes",
        ])
    })?;
    Ok(())
}

/// A cluster of what this tree is.
pub(crate) fn start(repository: &Path, place: &Place) -> Result<()> {
    let began = Instant::now();
    let version = dist::release::next(repository)?;
    step(&format!("build, and make the bundle of {version}"), || {
        dist::fast(repository, &version)
    })?;
    start_version(repository, place, &version, began)
}

/// A cluster of the last release.
pub(crate) fn start_released(repository: &Path, place: &Place) -> Result<()> {
    let began = Instant::now();
    let version = dist::release::last(repository)?;
    step(
        &format!("build release {version} from its commit, and make its bundle"),
        || dist::released(repository, &version),
    )?;
    start_version(repository, place, &version, began)
}

fn start_version(
    repository: &Path,
    place: &Place,
    version: &Version,
    began: Instant,
) -> Result<()> {
    let bundle = place.unpack_for_tools(&place.tar(repository, version), version)?;
    step("remove what an earlier demo left", || {
        place.remove(Some(&bundle))
    })?;
    place.make()?;
    let bundle = place.unpack(&place.tar(repository, version), version)?;
    let nodes = place.nodes();
    for node in &nodes {
        step(
            &format!("install node {} ({})", node.number, node.address),
            || node.install(&bundle),
        )?;
    }
    let [first, others @ ..] = nodes.as_slice() else {
        bail!("there are no nodes")
    };
    let password = place.new_password()?;
    let fingerprint = step("create the cluster on node 1", || {
        let said = first.rladmin(&[
            "cluster", "create", "name", CLUSTER, "username", ADMIN, "password", &password,
        ])?;
        fingerprint(&said).context("rladmin printed no fingerprint of the cluster's CA")
    })?;
    let member = first.address.to_string();
    for node in others {
        step(&format!("join node {}", node.number), || {
            node.rladmin(&[
                "cluster",
                "join",
                "nodes",
                &member,
                "username",
                ADMIN,
                "password",
                &password,
                "ca_fingerprint",
                &fingerprint,
            ])
        })?;
    }
    step("upgrades are finalised without a soak", || {
        first.rladmin(&["cluster", "upgrade", "config", "soak_seconds", "0"])
    })?;
    create_database(first)?;
    step("wait until the endpoint is open on all three nodes", || {
        endpoints(&nodes)
            .into_iter()
            .try_for_each(load::wait_until_open)
    })?;
    let tally = step("send traffic to all three endpoints", || {
        let load = Load::start(endpoints(&nodes), CONNECTIONS, PACE)?;
        std::thread::sleep(TRAFFIC);
        load.end()
    })?;
    println!("{tally}");
    tally.check()?;
    show(&nodes)?;
    say_where(place, &nodes, &password);
    println!("==> the demo runs, after {} s", began.elapsed().as_secs());
    Ok(())
}

pub(crate) fn endpoints(nodes: &[Node]) -> Vec<SocketAddr> {
    nodes
        .iter()
        .map(|node| SocketAddr::new(node.address.into(), PORT))
        .collect()
}

/// `CA fingerprint (SHA-256): AB:CD:…`
fn fingerprint(said: &str) -> Option<String> {
    let line = said
        .lines()
        .find(|line| line.to_ascii_lowercase().contains("ca fingerprint"))?;
    line.split_whitespace().last().map(str::to_owned)
}

/// What an operator would look at.
fn show(nodes: &[Node]) -> Result<()> {
    let first = nodes.first().context("there are no nodes")?;
    println!(
        "\n$ rladmin status extra all\n{}",
        first.rladmin(&["status", "extra", "all"])?.trim()
    );
    for node in nodes {
        let said = node
            .rlcheck()
            .with_context(|| format!("rlcheck on node {}", node.number))?;
        let sum = said
            .lines()
            .rev()
            .find(|line| !line.trim().is_empty())
            .unwrap_or_default();
        println!("\n$ rlcheck    (node {})\n{sum}", node.number);
    }
    Ok(())
}

fn say_where(place: &Place, nodes: &[Node], password: &str) {
    let base = place.option();
    println!("\nConnect:    redis-cli -h {} -p {PORT}", place.base());
    println!(
        "            (the bundle has one: {})",
        nodes[0].program("redis-cli").display()
    );
    for node in nodes {
        println!(
            "REST, {}:    https://{}:9443    curl -k -u {ADMIN}:{password} https://{}:9443/v1/bdbs",
            node.number, node.address, node.address
        );
    }
    println!("Sentinel:   {}:8001    name {DATABASE}", place.base());
    println!(
        "DNS:        dig @{} -p {DNS_PORT} redis-{PORT}.{CLUSTER} +short",
        place.base()
    );
    println!("Admin:      {ADMIN}");
    println!("Password:   {password}");
    println!("Tools:      ./demo.sh shell 1{base}        rladmin, rlcheck, supervisorctl");
    println!("Upgrade:    ./demo.sh upgrade{base}");
    println!("Remove:     ./demo.sh stop{base}\n");
}

pub(crate) fn stop(place: &Place) -> Result<()> {
    step("remove the demo", || place.remove(None))
}

fn shell(place: &Place, number: u8) -> Result<()> {
    let node = place.node(number)?;
    ensure!(
        node.is_installed(),
        "the demo does not run: start it with ./demo.sh{}",
        place.option()
    );
    let bin = node.program("");
    let path = std::env::var("PATH").unwrap_or_default();
    println!(
        "node {number}, {}: rladmin, rlcheck, supervisorctl, redis-cli; exit ends it",
        node.address
    );
    let error = Command::new("bash")
        .arg("--norc")
        .env("PATH", format!("{}:{path}", bin.display()))
        .env("PS1", format!("node {number} # "))
        .current_dir("/")
        .exec();
    Err(error).context("cannot start bash")
}

fn begin_upgrade(repository: &Path, place: &Place, released: bool) -> Result<()> {
    let is_there = place.nodes().iter().all(Node::is_installed);
    match (is_there, released) {
        (true, true) => bail!(
            "the demo is there: ./demo.sh stop{} removes it",
            place.option()
        ),
        (true, false) => Ok(()),
        (false, true) => start_released(repository, place),
        (false, false) => start(repository, place),
    }
}

fn upgrade(repository: &Path, place: &Place, orchestrated: bool) -> Result<()> {
    let nodes = place.nodes();
    let from = nodes
        .iter()
        .map(Node::version)
        .collect::<Result<Vec<_>>>()?;
    let newest = from.iter().max().context("there are no nodes")?;
    let to = dist::release::after(repository, newest)?;
    step(&format!("build, and make the bundle of {to}"), || {
        dist::fast(repository, &to)
    })?;
    let tar = place.tar(repository, &to);
    let plan = step("rladmin cluster upgrade plan", || {
        nodes[0].rladmin(&[
            "cluster",
            "upgrade",
            "plan",
            "bundle",
            &tar.display().to_string(),
        ])
    })?;
    println!("{}", plan.trim());
    let engines = place.engine_processes();
    let order = primary_first(&nodes)?;

    let load = Load::start(endpoints(&nodes), CONNECTIONS, PACE)?;
    std::thread::sleep(AROUND_UPGRADE);
    let upgraded = if orchestrated {
        upgrade_all(&nodes, &tar)
    } else {
        upgrade_nodes(place, &order, &tar, &to)
    };
    if upgraded.is_ok() {
        // Only then every connection has seen all that this upgrade does to it.
        step(
            "the old proxies have given their connections away, and are gone",
            || place.wait_for_old_proxies(&to),
        )?;
    }
    std::thread::sleep(AROUND_UPGRADE);
    let tally = load.end()?;
    upgraded?;
    println!("{tally}");
    report_upgrade(&nodes, place, &engines, &to, &tally)
}

/// The runbook of `docs/upgrade.md`, word for word, on each node.
fn upgrade_nodes(place: &Place, order: &[&Node], tar: &Path, to: &Version) -> Result<()> {
    for node in order {
        let number = node.number;
        step(
            &format!("node {number}: rlcheck; rladmin status extra all"),
            || look(node),
        )?;
        let bundle = step(&format!("node {number}: tar vxf {}", tar.display()), || {
            place.unpack(tar, to)
        })?;
        step(&format!("node {number}: ./install.sh, under load"), || {
            node.upgrade(&bundle).map(|said| say_of_clients(&said))
        })?;
        step(
            &format!("node {number}: rlcheck; rladmin status extra all"),
            || look(node),
        )?;
    }
    Ok(())
}

fn say_of_clients(said: &str) {
    let wanted = |line: &&str| {
        ["clients of this node", "connections kept", "well after"]
            .iter()
            .any(|word| line.contains(word))
    };
    for line in said.lines().filter(wanted) {
        println!("    {}", line.trim());
    }
}

/// One command for all nodes; what it shows meanwhile is seen here, too.
fn upgrade_all(nodes: &[Node], tar: &Path) -> Result<()> {
    let tar = tar.display().to_string();
    let first = nodes.first().context("there are no nodes")?;
    step(
        "rladmin cluster upgrade start bundle …, under load",
        || first.rladmin(&["cluster", "upgrade", "start", "bundle", &tar]),
    )?;
    let status = first
        .command("rladmin")
        .args(["cluster", "upgrade", "watch"])
        .status()
        .context("rladmin cannot be run")?;
    ensure!(status.success(), "the upgrade pauses: see above");
    Ok(())
}

/// What the runbook asks before and after: stop if anything is not OK.
pub(crate) fn look(node: &Node) -> Result<()> {
    node.rlcheck()?;
    let status = node.rladmin(&["status", "extra", "all"])?;
    ensure!(
        status.contains("Cluster health: OK"),
        "not everything is OK:\n{status}"
    );
    Ok(())
}

fn report_upgrade(
    nodes: &[Node],
    place: &Place,
    engines: &[u32],
    to: &Version,
    tally: &Tally,
) -> Result<()> {
    show(nodes)?;
    for node in nodes {
        ensure!(
            node.version()? == *to,
            "node {} does not run {to}",
            node.number
        );
    }
    let same = place.engine_processes() == engines;
    println!("engines restarted: {}", if same { "none" } else { "SOME" });
    ensure!(same, "engine processes were restarted by the upgrade");
    tally.check()?;
    let said = step("wait until the upgrade is finalised", || {
        finalised(&nodes[0])
    })?;
    println!("\n$ rladmin cluster upgrade status\n{}", said.trim());
    println!("==> all nodes run {to}");
    Ok(())
}

/// The soak is over at once: what is left is that every node reads the level.
fn finalised(node: &Node) -> Result<String> {
    let deadline = Instant::now() + FINALISED_WITHIN;
    loop {
        let said = node.rladmin(&["cluster", "upgrade", "status"])?;
        if said.contains("No upgrade is under way.") {
            return Ok(said);
        }
        ensure!(Instant::now() < deadline, "not finalised:\n{said}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// The primary node, then the others.
pub(crate) fn primary_first(nodes: &[Node]) -> Result<Vec<&Node>> {
    let first = nodes.first().context("there are no nodes")?;
    let said = first.rladmin(&["status", "nodes"])?;
    let primary = said
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find(|words| words.get(1) == Some(&"master"))
        .and_then(|words| {
            words
                .get(2)
                .and_then(|address| address.parse::<Ipv4Addr>().ok())
        })
        .with_context(|| format!("rladmin status names no primary node:\n{said}"))?;
    let mut order: Vec<&Node> = nodes.iter().collect();
    order.sort_by_key(|node| node.address != primary);
    Ok(order)
}
