//! mainstay-node: the unit's main process. Runs supervisord in the foreground and starts it again
//! when it dies; serves as a container's entry point too.
//!
//! SIGTERM or SIGINT: primaries go to other nodes, engines save and stop, then the daemons, then it ends with exit code 0, and
//! its unit stays down. SIGHUP: it replaces itself by the program of the release that `current` points at, and keeps its supervisord.

use crate::processes::Process;
use crate::{accounts, host, layout};
use anyhow::{Context, Result, bail};
use client::local::ExecClient;
use jiff::Timestamp;
use model::ErrorCode;
use model::intent::Drained;
use model::node_config::{CONFIG_ENV, NodeConfig};
use model::release::MANIFEST;
use rustix::fs::{FlockOperation, Mode, flock};
use rustix::process::{
    Pid, Resource, Rlimit, Signal, WaitOptions, getppid, getrlimit, getuid, kill_process,
    set_parent_process_death_signal, setrlimit, setsid, umask, waitpid,
};
use std::fs::{File, OpenOptions};
use std::io::{Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

/// Name of the lock file in the run folder; holds the pid.
pub const LOCK: &str = "mainstay-node.lock";
/// How long the lock of one that was killed and is not gone yet is waited for.
pub const LOCK_WAIT: Duration = Duration::from_secs(10);
/// How many descriptors supervisord and what it starts may have, if the machine allows.
const DESCRIPTORS: u64 = 65_536;
/// How long the primaries may take to go to other nodes.
const DRAIN: Duration = Duration::from_secs(35);
/// How long the engines may take to save and stop.
const ENGINES_STOP: Duration = Duration::from_secs(30);
/// How long supervisord may take to stop the daemons.
const SUPERVISORD_STOP: Duration = Duration::from_secs(60);
/// How long the proxy's server may take to give its clients their last replies.
const PROXY_STOP: Duration = Duration::from_secs(8);
/// How long systemd may take to say what it is about.
const SYSTEMD_SAYS: Duration = Duration::from_secs(2);
/// Shortest and longest wait before a dead supervisord is started again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// A supervisord that lived this long did not die of its start.
const HEALTHY_AFTER: Duration = Duration::from_secs(60);
/// How often children are looked after.
const TICK: Duration = Duration::from_millis(100);
/// Names the supervisord that a replaced mainstay-node hands to its successor.
const ADOPT_ENV: &str = "MAINSTAY_NODE_SUPERVISORD";

/// Where mainstay-node writes what it does.
#[must_use]
pub fn log_file(config: &NodeConfig) -> PathBuf {
    config.log_dir().join("mainstay-node.log")
}

/// The node's configuration, found from this program's own path.
///
/// # Errors
/// When there is none, or it cannot be read.
pub fn own_config() -> Result<NodeConfig> {
    let path = match std::env::var_os(CONFIG_ENV) {
        Some(path) => PathBuf::from(path),
        None => NodeConfig::path_for(&own_program()?).context("this program lies in no install")?,
    };
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    NodeConfig::parse(&text).with_context(|| path.display().to_string())
}

fn own_program() -> Result<PathBuf> {
    std::env::current_exe()?
        .canonicalize()
        .context("path of this program")
}

/// Runs until it is told to end.
///
/// # Errors
/// When it cannot start; what happens later is logged and got over.
pub fn run(detached: bool) -> Result<()> {
    let config = own_config()?;
    if getuid().is_root() {
        return Err(become_user(&config)?);
    }
    if detached {
        // Fails for one that leads its group already, which is as good.
        let _ = setsid();
    }
    umask(Mode::from_raw_mode(0o027));
    let mut node = Node::start(config)?;
    // One thread: supervisord ends with the thread that started it.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(node.serve())
}

/// Starts this program again as the OS user; returns only when that fails.
fn become_user(config: &NodeConfig) -> Result<anyhow::Error> {
    let name = &config.os_user;
    let user = accounts::user(name).with_context(|| format!("user {name} does not exist"))?;
    let group = accounts::group(&config.os_group)
        .with_context(|| format!("group {} does not exist", config.os_group))?;
    let error = Command::new(own_program()?)
        .args(std::env::args_os().skip(1))
        .uid(user.uid)
        .gid(group)
        .exec();
    Ok(anyhow::Error::new(error).context(format!("cannot run as user {name}")))
}

/// The part of supervisord's start that must happen in its own process: it is to end with
/// mainstay-node, even when that is killed, because a second one would be started.
///
/// # Errors
/// Whenever it returns.
pub fn exec_supervisord() -> Result<()> {
    let config = own_config()?;
    let parent = getppid();
    set_parent_process_death_signal(Some(Signal::KILL))?;
    if getppid() != parent {
        bail!("mainstay-node ended meanwhile");
    }
    let python = host::python().context("python3 is missing: install it")?;
    let folder = layout::supervisor(&config, &supervisor_version()?);
    let descriptors = getrlimit(Resource::Nofile)
        .maximum
        .unwrap_or(DESCRIPTORS)
        .min(DESCRIPTORS);
    let error = Command::new(python)
        .args(["-m", "supervisor.supervisord", "--nodaemon", "--silent"])
        .arg("--minfds")
        .arg(descriptors.to_string())
        .arg("--configuration")
        .arg(config.supervisor_config())
        .env("PYTHONPATH", folder)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .exec();
    Err(anyhow::Error::new(error).context("cannot run python3"))
}

/// The release's manifest says which supervisord goes with it.
fn supervisor_version() -> Result<String> {
    let release =
        NodeConfig::release_of(&own_program()?).context("this program lies in no release")?;
    let path = release.join(MANIFEST);
    let text = std::fs::read(&path).with_context(|| path.display().to_string())?;
    Ok(crate::bundle::parse(&text)?.supervisor_version)
}

/// Tells the node to stop, and waits until it has.
///
/// # Errors
/// When it does not end in time.
pub fn stop() -> Result<()> {
    crate::services::stop_node(&own_config()?)
}

struct Node {
    config: NodeConfig,
    program: PathBuf,
    log: File,
    /// Held as long as this process lives.
    _lock: File,
    supervisord: Option<Supervisord>,
    backoff: Duration,
    restart_at: Instant,
    stopping: bool,
}

#[derive(Clone, Copy)]
struct Supervisord {
    pid: Pid,
    started: Instant,
}

impl Node {
    fn start(config: NodeConfig) -> Result<Self> {
        let path = log_file(&config);
        let mut log = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o640)
            .open(&path)
            .with_context(|| path.display().to_string())?;
        let lock = take_lock(&config.run_file(LOCK)).inspect_err(|error| {
            let _ = writeln!(log, "{} mainstay-node: {error:#}", Timestamp::now());
        })?;
        raise_descriptors();
        let adopted = std::env::var(ADOPT_ENV)
            .ok()
            .and_then(|text| Pid::from_raw(text.parse().ok()?))
            .map(|pid| Supervisord {
                pid,
                started: Instant::now(),
            });
        Ok(Self {
            program: own_program()?,
            config,
            log,
            _lock: lock,
            supervisord: adopted,
            backoff: BACKOFF.0,
            restart_at: Instant::now(),
            stopping: false,
        })
    }

    /// A line in the log; a full disk is no reason to stop.
    fn say(&mut self, text: &str) {
        let now = Timestamp::now();
        let _ = writeln!(self.log, "{now} mainstay-node: {text}");
        let _ = writeln!(std::io::stderr(), "mainstay-node: {text}");
    }

    async fn serve(&mut self) -> Result<()> {
        let mut term = signal(SignalKind::terminate())?;
        let mut int = signal(SignalKind::interrupt())?;
        let mut hup = signal(SignalKind::hangup())?;
        let program = self.program.display().to_string();
        self.say(&format!("runs, {program}"));
        loop {
            self.reap();
            if self.supervisord.is_none() && Instant::now() >= self.restart_at {
                self.start_supervisord();
            }
            tokio::select! {
                () = tokio::time::sleep(TICK) => {}
                _ = hup.recv() => self.replace(),
                _ = term.recv() => break,
                _ = int.recv() => break,
            }
        }
        self.stop().await;
        Ok(())
    }

    fn start_supervisord(&mut self) {
        let mut command = Command::new(&self.program);
        command
            .arg("exec-supervisord")
            .env_clear()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .env("LANG", "C.UTF-8")
            .current_dir(&self.config.var_dir)
            .stdin(Stdio::null());
        if let Some(path) = std::env::var_os(CONFIG_ENV) {
            command.env(CONFIG_ENV, path);
        }
        let output = self.config.log_dir().join("supervisord.out");
        if let Ok(file) = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o640)
            .open(output)
            && let Ok(copy) = file.try_clone()
        {
            command.stdout(file).stderr(copy);
        }
        let pid = command.spawn().map(|child| {
            // Reaped with all others that end up as this process's children.
            i32::try_from(child.id()).ok().and_then(Pid::from_raw)
        });
        match pid {
            Ok(Some(pid)) => {
                self.say(&format!(
                    "started supervisord, pid {}",
                    pid.as_raw_nonzero()
                ));
                self.supervisord = Some(Supervisord {
                    pid,
                    started: Instant::now(),
                });
            }
            Ok(None) => {}
            Err(error) => {
                self.say(&format!("cannot start supervisord: {error}"));
                self.wait_longer();
            }
        }
    }

    /// Looks after every child that ended; as a container's first process it gets those of others.
    fn reap(&mut self) {
        while let Ok(Some((pid, status))) = waitpid(None, WaitOptions::NOHANG) {
            let Some(supervisord) = self
                .supervisord
                .filter(|supervisord| supervisord.pid == pid)
            else {
                continue;
            };
            self.supervisord = None;
            if supervisord.started.elapsed() >= HEALTHY_AFTER {
                self.backoff = BACKOFF.0;
            }
            let how = match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => format!("exit code {code}"),
                (_, Some(signal)) => format!("signal {signal}"),
                _ => "unknown".to_owned(),
            };
            if self.stopping {
                self.say(&format!("supervisord ended ({how})"));
                continue;
            }
            self.say(&format!("supervisord ended ({how}); it is started again"));
            self.wait_longer();
        }
    }

    fn wait_longer(&mut self) {
        self.restart_at = Instant::now() + self.backoff;
        self.backoff = (self.backoff * 2).min(BACKOFF.1);
    }

    /// Becomes the program of the current release. The process, and with it what supervisord is the
    /// child of, stays the same.
    fn replace(&mut self) {
        let path = self.config.current().join("bin/mainstay-node");
        let mut command = match path.canonicalize() {
            Ok(program) => Command::new(program),
            Err(error) => {
                self.say(&format!("stays as it is: {} ({error})", path.display()));
                return;
            }
        };
        if let Some(supervisord) = self.supervisord {
            command.env(ADOPT_ENV, supervisord.pid.as_raw_nonzero().to_string());
        } else {
            command.env_remove(ADOPT_ENV);
        }
        self.say("is replaced by the program of the current release");
        let error = command.exec();
        self.say(&format!("stays as it is: {error}"));
    }

    /// Gives the node's primaries away; the node goes down in any case.
    async fn drain(&mut self, exec: &ExecClient) {
        match tokio::time::timeout(DRAIN, exec.drain()).await {
            Ok(Ok(report)) => {
                for line in drained(&report) {
                    self.say(&line);
                }
            }
            Ok(Err(error)) if error.error_code == ErrorCode::NotMember => {}
            Ok(Err(error)) => self.say(&format!(
                "its primaries were not given away: {}",
                error.description
            )),
            Err(_) => self.say("its primaries were not given away in time"),
        }
    }

    async fn stop(&mut self) {
        self.stopping = true;
        // Asked at once: the answer is there only as long as systemd waits for this stop.
        let comes_back = is_restarted(&self.config).await;
        self.say("stops: its primaries go to other nodes first");
        let exec = ExecClient::new(self.config.exec_socket());
        self.drain(&exec).await;
        match tokio::time::timeout(ENGINES_STOP, exec.stop_engines()).await {
            Ok(Ok(())) => self.say("engines have saved and stopped"),
            Ok(Err(error)) => self.say(&format!("engines were not stopped: {}", error.description)),
            Err(_) => self.say("engines have not stopped in time; they go on alone"),
        }
        self.reap();
        self.stop_supervisord().await;
        if comes_back {
            self.say("the clients of its proxy wait for the proxy that is about to start");
        } else {
            self.stop_proxy().await;
        }
        self.say("stopped");
    }

    async fn stop_supervisord(&mut self) {
        let Some(supervisord) = self.supervisord else {
            return;
        };
        let _ = kill_process(supervisord.pid, Signal::TERM);
        let deadline = Instant::now() + SUPERVISORD_STOP;
        let asked = agent::supervisord::Supervisord::of(&self.config, TICK);
        while self.supervisord.is_some() && Instant::now() < deadline {
            // It notices once a second that a daemon has ended, or when it is asked something, whatever that is.
            let _ = asked.processes().await;
            tokio::time::sleep(TICK / 4).await;
            self.reap();
        }
        if self.supervisord.is_some() {
            self.say("supervisord does not end: killed");
            let _ = kill_process(supervisord.pid, Signal::KILL);
        }
    }

    /// The proxy's server outlives its launcher, for the server that comes next; here none comes. Its clients are to
    /// notice at once that they must go to another node.
    async fn stop_proxy(&mut self) {
        let deadline = Instant::now() + PROXY_STOP;
        loop {
            let servers: Vec<Process> = crate::services::processes_of(&self.config)
                .into_iter()
                .filter(|process| {
                    let program = process.program();
                    program.is_some_and(|path| {
                        path.file_name().is_some_and(|name| name == layout::PROXY)
                    })
                })
                .collect();
            if servers.is_empty() {
                return;
            }
            if Instant::now() >= deadline {
                self.say("its proxy does not end: killed");
                servers
                    .iter()
                    .for_each(|server| server.signal(Signal::KILL));
                return;
            }
            // Told once it lets clients go on for a minute, told again it does not.
            servers
                .iter()
                .for_each(|server| server.signal(Signal::TERM));
            tokio::time::sleep(TICK).await;
        }
    }
}

/// Whether systemd stops this node only to start it again at once (`systemctl restart`).
async fn is_restarted(config: &NodeConfig) -> bool {
    if !host::has_systemd() {
        return false;
    }
    let jobs = tokio::process::Command::new("systemctl")
        .args(["list-jobs", "--no-legend", "--no-pager"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output();
    match tokio::time::timeout(SYSTEMD_SAYS, jobs).await {
        Ok(Ok(output)) => {
            let unit = format!("{}.service", layout::service_name(config));
            restarts(&String::from_utf8_lossy(&output.stdout), &unit)
        }
        _ => false,
    }
}

/// Whether a list of systemd's jobs, a line each (`12 mainstay.service restart running`), has the restart of a unit.
fn restarts(jobs: &str, unit: &str) -> bool {
    jobs.lines().any(|line| {
        let mut words = line.split_whitespace().skip(1);
        words.next() == Some(unit) && words.next() == Some("restart")
    })
}

/// What became of the primaries, a line each.
fn drained(report: &Drained) -> Vec<String> {
    let mut lines = Vec::new();
    if !report.moved.is_empty() {
        let names: Vec<String> = report
            .moved
            .iter()
            .map(|uid| format!("redis:{uid}"))
            .collect();
        let names = names.join(", ");
        lines.push(format!("given to other nodes: {names}"));
    }
    for stayed in &report.stayed {
        lines.push(format!(
            "redis:{} of db:{} goes down with this node: {}",
            stayed.shard, stayed.database, stayed.reason
        ));
    }
    lines
}

/// A replaced mainstay-node gives the lock up for a moment: its successor has the same pid.
fn take_lock(path: &Path) -> Result<File> {
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o640)
        .open(path)
        .with_context(|| path.display().to_string())?;
    let deadline = Instant::now() + LOCK_WAIT;
    while let Err(error) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
        if Instant::now() >= deadline {
            return Err(anyhow::Error::new(error).context(format!(
                "another mainstay-node of this install runs ({})",
                path.display()
            )));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())?;
    Ok(file)
}

/// As many descriptors as the machine allows, for all that is started from here.
fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    );
}

#[cfg(test)]
mod tests {
    use super::restarts;

    #[test]
    fn a_restart_is_told_from_a_stop() {
        let jobs = "151 mainstay.service restart running\n 152 shutdown.target start waiting\n";
        assert!(restarts(jobs, "mainstay.service"));
        assert!(!restarts(jobs, "mainstay-1a2b3c4d.service"));
        assert!(!restarts(
            "9 mainstay.service stop running\n",
            "mainstay.service"
        ));
        assert!(!restarts("", "mainstay.service"));
    }
}
