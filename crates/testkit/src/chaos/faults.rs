//! What can go wrong, and how it is done to real processes.

use super::schedule::Step;
use crate::cluster::{Cluster, processes_below};
use anyhow::{Context as _, bail};
use model::rest::ShardInfo;
use rustix::process::{Pid, Signal, kill_process};
use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// A kind of fault.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// No fault: a primary hands its role over.
    Move,
    /// kill -9 of an engine.
    Engine,
    /// An engine does not run for a while (SIGSTOP).
    EngineStop,
    /// kill -9 of a proxy server.
    Proxy,
    /// A proxy server does not run for a while (SIGSTOP).
    ProxyStop,
    /// kill -9 of cnm_exec; it is started again.
    Exec,
    /// cnm_exec does not run for a while.
    ExecStop,
    /// kill -9 of everything on a node; it is started again after a while.
    Node,
    /// Nothing on a node runs for a while, as on a machine that is paused.
    NodeStop,
    /// A node hears no other node, is not heard, or both, for a while.
    Partition,
    /// The disk of a node is full for a while.
    Disk,
    /// The disk below the configuration store of a node is slow for a while.
    SlowDisk,
    /// The time of day of a node's processes, engines included, is another one for a while.
    Clock,
}

/// The shortest and the longest of what lasts.
const LONG_SECONDS: (f64, f64) = (2.0, 12.0);
/// A slow disk: for every second of the fault each write waits so long; most writes of an idle cluster are seconds
/// apart, an election waits for two.
const SLOWER: f64 = 0.05;
/// Clocks are set apart by so many seconds at least and at most: certificates are valid from an hour before they
/// were made.
const CLOCK_SECONDS: (f64, f64) = (2.0, 2_400.0);

impl Kind {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Move,
        Self::Engine,
        Self::EngineStop,
        Self::Proxy,
        Self::ProxyStop,
        Self::Exec,
        Self::ExecStop,
        Self::Node,
        Self::NodeStop,
        Self::Partition,
        Self::Disk,
        Self::SlowDisk,
        Self::Clock,
    ];
    /// Those after which nothing but the failover to a replica on the agent's word is needed.
    pub const LOCAL: [Self; 7] = [
        Self::Move,
        Self::Engine,
        Self::EngineStop,
        Self::Proxy,
        Self::ProxyStop,
        Self::Exec,
        Self::ExecStop,
    ];

    const fn word(self) -> &'static str {
        match self {
            Self::Move => "move",
            Self::Engine => "engine",
            Self::EngineStop => "engine-stop",
            Self::Proxy => "proxy",
            Self::ProxyStop => "proxy-stop",
            Self::Exec => "exec",
            Self::ExecStop => "exec-stop",
            Self::Node => "node",
            Self::NodeStop => "node-stop",
            Self::Partition => "partition",
            Self::Disk => "disk",
            Self::SlowDisk => "slow-disk",
            Self::Clock => "clock",
        }
    }

    /// Whether a primary that it is done to is replaced.
    pub(crate) const fn replaces(self) -> bool {
        matches!(
            self,
            Self::Engine | Self::Node | Self::NodeStop | Self::Partition
        )
    }

    /// Whether connections through the victim's proxy may end.
    pub(crate) const fn closes(self) -> bool {
        matches!(self, Self::Proxy | Self::Node)
    }

    /// Whether clients may get an error while it lasts.
    pub(crate) const fn may_be_noticed(self) -> bool {
        !matches!(self, Self::SlowDisk | Self::Clock)
    }

    /// Whether it goes on until it is ended.
    pub(crate) const fn lasts(self) -> bool {
        matches!(
            self,
            Self::EngineStop
                | Self::ProxyStop
                | Self::Exec
                | Self::ExecStop
                | Self::Node
                | Self::NodeStop
                | Self::Partition
                | Self::Disk
                | Self::SlowDisk
                | Self::Clock
        )
    }

    /// How long it lasts, from the shortest (0) to the longest (1).
    pub(crate) fn length(self, share: f64) -> Duration {
        let (shortest, longest) = match self {
            // Shorter than what counts as a hang.
            Self::EngineStop => (0.1, 1.5),
            Self::ProxyStop | Self::Exec | Self::ExecStop => (0.1, 3.0),
            Self::Node
            | Self::NodeStop
            | Self::Partition
            | Self::Disk
            | Self::SlowDisk
            | Self::Clock => LONG_SECONDS,
            Self::Move | Self::Engine | Self::Proxy => (0.0, 0.0),
        };
        Duration::from_secs_f64(shortest + share * (longest - shortest))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Kind {
    type Err = anyhow::Error;

    fn from_str(word: &str) -> anyhow::Result<Self> {
        let found = Self::ALL.into_iter().find(|kind| kind.word() == word);
        let known: Vec<&str> = Self::ALL.iter().map(|kind| kind.word()).collect();
        found.with_context(|| format!("no fault {word}: there are {}", known.join(", ")))
    }
}

/// On whom.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum On {
    /// The primary, or its node.
    Primary,
    /// The replica, or its node.
    Replica,
    /// The cluster's primary node.
    PrimaryNode,
    /// A node by its index.
    Node(usize),
}

/// Whether it is done to whom the schedule drew.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Whom {
    Drawn,
    /// No primary is taken away: a replica, or a node that has only replicas.
    NoPrimary,
}

/// Whom it is done to.
#[derive(Debug)]
pub(crate) struct Victim {
    /// Index of the node.
    pub(crate) node: usize,
    /// Whether a primary is there.
    pub(crate) primary: bool,
    process: Option<Pid>,
}

impl Victim {
    /// The engine's process that is gone after this fault.
    pub(crate) fn killed(&self, kind: Kind) -> Option<u32> {
        let process = self.process.filter(|_| kind == Kind::Engine)?;
        Some(process.as_raw_nonzero().get().cast_unsigned())
    }
}

/// The shard of a role in the replica set whose turn it is.
pub(crate) fn of_step(step: &Step, role: &str, cluster: &Cluster) -> anyhow::Result<ShardInfo> {
    let mut all = cluster.shards()?;
    all.retain(|shard| shard.role == role);
    all.sort_by(|a, b| a.assigned_slots.cmp(&b.assigned_slots));
    let place = step.number.checked_rem(all.len());
    Ok(all.swap_remove(place.with_context(|| format!("no {role}"))?))
}

/// Finds the victim of a step, as the cluster is now.
pub(crate) fn victim(step: &Step, whom: Whom, cluster: &Cluster) -> anyhow::Result<Victim> {
    if matches!(step.kind, Kind::Engine | Kind::EngineStop) {
        // Of the role that was drawn, else the primary.
        let role = match (whom, step.on) {
            (Whom::NoPrimary, _) | (_, On::Replica) => "slave",
            _ => "master",
        };
        let shard = of_step(step, role, cluster)?;
        return Ok(Victim {
            node: cluster.index(shard.node_uid)?,
            primary: shard.role == "master",
            process: shard.pid.and_then(pid),
        });
    }
    let node = match (whom, step.on) {
        (Whom::NoPrimary, _) => without_primary(cluster)?,
        (_, On::Primary) => cluster.index(of_step(step, "master", cluster)?.node_uid)?,
        (_, On::Replica) => cluster.index(of_step(step, "slave", cluster)?.node_uid)?,
        (_, On::PrimaryNode) => cluster.primary_node()?,
        (_, On::Node(index)) => index,
    };
    let process = match step.kind {
        Kind::Proxy | Kind::ProxyStop => Some(proxy_server(cluster, node)?),
        Kind::ExecStop => cluster.nodes[node].pid("cnm_exec").and_then(pid),
        _ => None,
    };
    Ok(Victim {
        node,
        primary: with(cluster, "master")?.contains(&node),
        process,
    })
}

/// The nodes with a shard of a role.
fn with(cluster: &Cluster, role: &str) -> anyhow::Result<Vec<usize>> {
    let all = cluster.shards()?.into_iter();
    let of_it = all.filter(|shard| shard.role == role);
    of_it.map(|shard| cluster.index(shard.node_uid)).collect()
}

/// A node that has replicas only, else one that has nothing.
fn without_primary(cluster: &Cluster) -> anyhow::Result<usize> {
    let primaries = with(cluster, "master")?;
    let spared = |node: &usize| !primaries.contains(node);
    let replicas = with(cluster, "slave")?;
    let mut all = replicas.into_iter().chain(0..cluster.nodes.len());
    all.find(spared).context("a primary on every node")
}

fn pid(number: u32) -> Option<Pid> {
    Pid::from_raw(number.cast_signed())
}

/// The process that serves: the launcher's child.
fn proxy_server(cluster: &Cluster, index: usize) -> anyhow::Result<Pid> {
    let node = &cluster.nodes[index];
    let launcher = node.pid("dmcproxy").and_then(pid);
    let server = processes_below(&node.config.var_dir)
        .into_iter()
        .find(|process| {
            let path = format!("/proc/{}/exe", process.as_raw_nonzero());
            let is_proxy = std::fs::read_link(path).is_ok_and(|exe| exe.ends_with("dmcproxy"));
            is_proxy && Some(*process) != launcher
        });
    server.context("no proxy server")
}

fn signal(victim: &Victim, signal: Signal) -> anyhow::Result<()> {
    let process = victim.process.context("it does not run")?;
    match kill_process(process, signal) {
        // Gone already: somebody was faster.
        Err(rustix::io::Errno::SRCH) => Ok(()),
        other => Ok(other?),
    }
}

fn signal_everything(victim: &Victim, cluster: &Cluster, signal: Signal) -> anyhow::Result<()> {
    for process in processes_below(&cluster.nodes[victim.node].config.var_dir) {
        match kill_process(process, signal) {
            // It has just ended.
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Makes it happen.
pub(crate) fn begin(step: &Step, victim: &Victim, cluster: &mut Cluster) -> anyhow::Result<()> {
    match step.kind {
        Kind::Move => Ok(()),
        Kind::Engine | Kind::Proxy => signal(victim, Signal::KILL),
        Kind::EngineStop | Kind::ProxyStop | Kind::ExecStop => signal(victim, Signal::STOP),
        Kind::Exec => cluster.nodes[victim.node].kill("cnm_exec"),
        Kind::Node => cluster.nodes[victim.node].kill_everything(),
        Kind::NodeStop => signal_everything(victim, cluster, Signal::STOP),
        Kind::Partition => cut(victim.node, step.one_way, cluster),
        Kind::Disk => fill(&filler(cluster, victim.node)),
        Kind::SlowDisk => cluster.nodes[victim.node].slow_disk(step.length.mul_f64(SLOWER)),
        Kind::Clock => cluster.nodes[victim.node].set_clock(clock(step)),
    }
}

/// Takes it away.
pub(crate) fn end(step: &Step, victim: &Victim, cluster: &mut Cluster) -> anyhow::Result<()> {
    match step.kind {
        Kind::Move | Kind::Engine => Ok(()),
        // Its launcher ends with it, and nothing but this run supervises the nodes.
        Kind::Proxy => {
            cluster.nodes[victim.node].kill("dmcproxy")?;
            cluster.nodes[victim.node].start_daemon("dmcproxy")
        }
        Kind::EngineStop | Kind::ProxyStop | Kind::ExecStop => signal(victim, Signal::CONT),
        Kind::Exec => cluster.nodes[victim.node].start_daemon("cnm_exec"),
        Kind::Node => cluster.nodes[victim.node].start(),
        Kind::NodeStop => signal_everything(victim, cluster, Signal::CONT),
        Kind::Partition => cluster.apart().context("no namespaces")?.heal(),
        // A configuration store that cannot be written ends its process.
        Kind::Disk => {
            std::fs::remove_file(filler(cluster, victim.node))?;
            cluster.nodes[victim.node].start_ended()
        }
        Kind::SlowDisk => cluster.nodes[victim.node].slow_disk(Duration::ZERO),
        Kind::Clock => cluster.nodes[victim.node].set_clock(0),
    }
}

/// By how many seconds: a small step as likely as a large one.
fn clock(step: &Step) -> i64 {
    let share = (step.length.as_secs_f64() - LONG_SECONDS.0) / (LONG_SECONDS.1 - LONG_SECONDS.0);
    let (least, most) = CLOCK_SECONDS;
    let seconds = (least * (most / least).powf(share)) as i64;
    if step.one_way { -seconds } else { seconds }
}

fn cut(node: usize, one_way: bool, cluster: &mut Cluster) -> anyhow::Result<()> {
    let node = u8::try_from(node + 1)?;
    let apart = cluster.apart().context("no namespaces")?;
    for other in (1..=3).filter(|other| *other != node) {
        apart.cut(node, other)?;
        if !one_way {
            apart.cut(other, node)?;
        }
    }
    Ok(())
}

/// Takes what is left of a node's small disk.
fn fill(file: &Path) -> anyhow::Result<()> {
    let mut file = File::create(file)?;
    loop {
        match file.write(&[0; 4096]) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(()),
            Err(error) => bail!(error),
        }
    }
}

/// The file that fills it.
fn filler(cluster: &Cluster, node: usize) -> PathBuf {
    cluster.nodes[node].config.var_dir.join("full")
}
