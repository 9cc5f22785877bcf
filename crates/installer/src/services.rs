//! The node's daemons: started by way of mainstay-node, looked at and restarted by way of
//! supervisord.

use crate::console::Console;
use crate::processes::{self, Process};
use crate::{accounts, host, layout, node};
use anyhow::{Context, Result, bail};
use model::node_config::NodeConfig;
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long mainstay-node may take to stop: a little more than all that it waits for.
const NODE_STOP: Duration = Duration::from_secs(140);
/// How long the daemons may take to come up. A proxy's server whose launcher was stopped waits 60 s for its successor:
/// an upgrade must have gone back by then.
pub const DAEMONS_UP: Duration = Duration::from_secs(40);
/// How long the daemons of a new release are watched after the node was found well.
pub const WATCHED: Duration = Duration::from_secs(10);
/// Lines of a log that are shown when its daemon does not come up.
const TAIL_LINES: usize = 8;
/// Most bytes of a log that are looked at for them.
const TAIL_BYTES: u64 = 16 * 1024;

/// A daemon, as supervisord sees it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Daemon {
    /// `RUNNING`, `STARTING`, `BACKOFF`, …
    pub state: String,
    /// Its process.
    pub pid: Option<u32>,
}

/// The mainstay-node process of an install, if it runs.
#[must_use]
pub fn node_process(config: &NodeConfig) -> Option<Process> {
    let text = fs::read_to_string(config.run_file(node::LOCK)).ok()?;
    let process = Process::of(text.trim().parse().ok()?)?;
    let program = process.program()?;
    let ours = program.starts_with(layout::releases(config));
    (ours
        && program
            .file_name()
            .is_some_and(|name| name == "mainstay-node"))
    .then_some(process)
}

/// Starts mainstay-node if it does not run: as a unit where systemd runs the machine, detached
/// otherwise. When this returns, it runs. One that was killed and is only not gone yet counts as
/// one that does not run.
///
/// # Errors
/// When it cannot be started.
pub fn start_node(console: &Console, config: &NodeConfig, systemd: bool) -> Result<()> {
    if node_process(config).is_some_and(|process| !process.is_ending()) {
        return Ok(());
    }
    if systemd {
        let unit = format!("{}.service", layout::service_name(config));
        console.command(format!("systemctl enable --now {unit}"));
        return accounts::run("systemctl", &["enable", "--now", &unit]);
    }
    let user = accounts::user(&config.os_user)
        .with_context(|| format!("user {} does not exist", config.os_user))?;
    let group = accounts::group(&config.os_group)
        .with_context(|| format!("group {} does not exist", config.os_group))?;
    let program = config.current().join("bin/mainstay-node");
    console.command(format!("{} --detached", program.display()));
    let mut child = Command::new(&program)
        .arg("--detached")
        .env_clear()
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .uid(user.uid)
        .gid(group)
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))?;
    // It runs when it holds the lock and has written its pid there; from then on it goes on without
    // this program, and is not waited for.
    let deadline = Instant::now() + node::LOCK_WAIT + Duration::from_secs(5);
    loop {
        if node_process(config).is_some_and(|process| process.pid == child.id()) {
            return Ok(());
        }
        if let Some(status) = child.try_wait()? {
            // Another one may have been started meanwhile: that is as good.
            if node_process(config).is_some_and(|process| !process.is_ending()) {
                return Ok(());
            }
            bail!(
                "mainstay-node did not start ({status}); its log is {}",
                node::log_file(config).display()
            );
        }
        if Instant::now() >= deadline {
            bail!(
                "mainstay-node does not start; its log is {}",
                node::log_file(config).display()
            );
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Stops mainstay-node, and with it engines and daemons.
///
/// # Errors
/// When it does not end in time.
pub fn stop_node(config: &NodeConfig) -> Result<()> {
    let Some(process) = node_process(config) else {
        return Ok(());
    };
    process.signal(Signal::TERM);
    if processes::wait_for_end(&[process], NODE_STOP).is_empty() {
        return Ok(());
    }
    bail!(
        "mainstay-node has not ended after {} s; its log is {}",
        NODE_STOP.as_secs(),
        node::log_file(config).display()
    )
}

/// supervisorctl, run from root's own copy of supervisord.
fn supervisorctl(config: &NodeConfig, version: &str, arguments: &[&str]) -> Result<(i32, String)> {
    let python = host::python().context("python3 is missing: install it")?;
    let output = Command::new(python)
        .args(["-s", "-m", "supervisor.supervisorctl", "-c"])
        .arg(config.supervisor_config())
        .args(arguments)
        .env_clear()
        .env("PYTHONPATH", layout::supervisor(config, version))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir("/")
        .stdin(Stdio::null())
        .output()
        .context("cannot run supervisorctl")?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    Ok((output.status.code().unwrap_or(-1), text))
}

/// The daemons by name; empty while supervisord does not answer.
#[must_use]
pub fn daemons(config: &NodeConfig, version: &str) -> BTreeMap<String, Daemon> {
    let Ok((_, text)) = supervisorctl(config, version, &["status"]) else {
        return BTreeMap::new();
    };
    text.lines().filter_map(parse_status).collect()
}

/// `cnm_exec    RUNNING   pid 123, uptime 0:00:03`
fn parse_status(line: &str) -> Option<(String, Daemon)> {
    let mut words = line.split_whitespace();
    let name = words.next()?;
    let state = words.next()?;
    if !layout::DAEMONS.contains(&name) {
        return None;
    }
    let pid = match (words.next(), words.next()) {
        (Some("pid"), Some(pid)) => pid.trim_end_matches(',').parse().ok(),
        _ => None,
    };
    Some((
        name.to_owned(),
        Daemon {
            state: state.to_owned(),
            pid,
        },
    ))
}

/// Restarts one daemon.
fn restart(console: &Console, config: &NodeConfig, version: &str, name: &str) -> Result<()> {
    console.command(format!("supervisorctl restart {name}"));
    let (_, text) = supervisorctl(config, version, &["restart", name])?;
    if text
        .lines()
        .any(|line| line.trim() == format!("{name}: started"))
    {
        return Ok(());
    }
    bail!(
        "supervisorctl restart {name}: {}\n{}",
        text.trim(),
        tail(config, name)
    )
}

/// supervisord takes up its configuration where it was changed; programs whose part was not go on.
///
/// # Errors
/// What supervisorctl said.
pub fn read_configuration(console: &Console, config: &NodeConfig, version: &str) -> Result<()> {
    let (code, text) = supervisorctl(config, version, &["update"])?;
    if !text.trim().is_empty() {
        console.command(format!("supervisorctl update\n{}", text.trim()));
    }
    if code != 0 {
        bail!("supervisorctl update: {}", text.trim());
    }
    Ok(())
}

/// The daemons are replaced by those of `release`, one after the other; see [`replace_daemon`].
///
/// # Errors
/// Which one does not come up.
pub fn replace_daemons(
    console: &Console,
    config: &NodeConfig,
    version: &str,
    release: &Path,
) -> Result<()> {
    for name in layout::DAEMONS {
        replace_daemon(console, config, version, release, name)?;
    }
    wait_until_up(config, version, release)
}

/// A daemon is replaced by that of `release`; if it runs from there already, it is left alone.
///
/// # Errors
/// Why it does not come up.
pub fn replace_daemon(
    console: &Console,
    config: &NodeConfig,
    version: &str,
    release: &Path,
    name: &str,
) -> Result<()> {
    let daemons = daemons(config, version);
    if daemons.is_empty() {
        bail!(
            "supervisord does not answer: see {}",
            config.log_dir().display()
        );
    }
    let there = daemons
        .get(name)
        .is_some_and(|daemon| runs_from(daemon, release, name));
    if there {
        return Ok(());
    }
    restart(console, config, version, name)
}

/// The processes of the daemons that run, with their names.
#[must_use]
pub fn running(config: &NodeConfig, version: &str) -> Vec<(String, Process)> {
    daemons(config, version)
        .into_iter()
        .filter_map(|(name, daemon)| Some((name, Process::of(daemon.pid?)?)))
        .collect()
}

/// Watches processes: one that comes up and then ends is started again by supervisord, and would only be
/// noticed by somebody who looks at the right moment.
///
/// # Errors
/// Which one ended, with the end of its log.
pub fn watch(config: &NodeConfig, running: &[(String, Process)]) -> Result<()> {
    let until = Instant::now() + hurried("MAINSTAY_INSTALL_WATCH").unwrap_or(WATCHED);
    while Instant::now() < until {
        if let Some((name, _)) = running.iter().find(|(_, process)| !process.runs()) {
            bail!("{name} came up and ended\n{}", tail(config, name));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// Waits until every daemon runs the program of `release`.
///
/// # Errors
/// Which one does not, with the end of its log.
pub fn wait_until_up(config: &NodeConfig, version: &str, release: &Path) -> Result<()> {
    wait_until_up_by(config, version, release, Instant::now() + DAEMONS_UP)
}

/// The same, until a moment.
///
/// # Errors
/// Which one does not, with the end of its log.
pub fn wait_until_up_by(
    config: &NodeConfig,
    version: &str,
    release: &Path,
    deadline: Instant,
) -> Result<()> {
    let began = Instant::now();
    loop {
        // supervisorctl is a whole Python: asked only when there is something to hear.
        let processes = processes_of(config);
        let there = |name: &str| {
            let program = release.join("bin").join(name);
            processes
                .iter()
                .any(|process| process.program().as_ref() == Some(&program))
        };
        let over = Instant::now() >= deadline;
        if layout::DAEMONS.iter().all(|name| there(name)) || over {
            let waiting = not_up(config, version, release);
            if waiting.is_empty() {
                return Ok(());
            }
            if over {
                let logs: Vec<String> = layout::DAEMONS
                    .iter()
                    .map(|name| tail(config, name))
                    .collect();
                bail!(
                    "after {} s: {}\n{}",
                    began.elapsed().as_secs(),
                    waiting.join(", "),
                    logs.join("\n").trim()
                );
            }
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Debug builds wait as many seconds as the environment says: so the tests need not wait for what never comes.
pub(crate) fn hurried(variable: &str) -> Option<Duration> {
    let text = std::env::var(variable).ok()?;
    let seconds = text.parse().ok().filter(|_| cfg!(debug_assertions))?;
    Some(Duration::from_secs(seconds))
}

/// Daemons that do not run the program of `release`, and what they do instead.
fn not_up(config: &NodeConfig, version: &str, release: &Path) -> Vec<String> {
    let daemons = daemons(config, version);
    layout::DAEMONS
        .iter()
        .filter_map(|name| {
            let daemon = daemons.get(*name);
            let up = daemon.is_some_and(|daemon| runs_from(daemon, release, name));
            let state = daemon.map_or("not started", |daemon| daemon.state.as_str());
            (!up).then(|| format!("{name} is {state}"))
        })
        .collect()
}

fn runs_from(daemon: &Daemon, release: &Path, name: &str) -> bool {
    daemon.state == "RUNNING"
        && daemon
            .pid
            .and_then(Process::of)
            .and_then(|process| process.program())
            .is_some_and(|program| program == release.join("bin").join(name))
}

/// mainstay-node becomes the program of the current release.
///
/// # Errors
/// When it does not within some seconds.
pub fn replace_node(config: &NodeConfig, release: &Path) -> Result<()> {
    let program = release.join("bin/mainstay-node");
    let deadline = Instant::now() + Duration::from_secs(10);
    let Some(process) = node_process(config) else {
        bail!("mainstay-node does not run")
    };
    if process.program().as_deref() == Some(&program) {
        return Ok(());
    }
    process.signal(Signal::HUP);
    while process.program().as_deref() != Some(&program) {
        if Instant::now() >= deadline {
            bail!("mainstay-node is still the old one");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Every process that runs a program of this install, and its supervisord.
#[must_use]
pub fn processes_of(config: &NodeConfig) -> Vec<Process> {
    let releases = layout::releases(config);
    let supervisor_config = config.supervisor_config();
    let conf = supervisor_config.to_string_lossy();
    processes::all()
        .into_iter()
        .filter(|process| {
            let program = process.program();
            let ours = program.is_some_and(|program| program.starts_with(&releases));
            ours || {
                let arguments = process.arguments();
                arguments
                    .iter()
                    .any(|word| word == "supervisor.supervisord")
                    && arguments.iter().any(|word| *word == conf)
            }
        })
        .collect()
}

/// The end of a daemon's output.
fn tail(config: &NodeConfig, name: &str) -> String {
    use std::io::{Read, Seek, SeekFrom};
    let path = config.log_dir().join(format!("{name}.log"));
    let read = || -> std::io::Result<String> {
        let mut file = fs::File::open(&path)?;
        let size = file.metadata()?.len();
        file.seek(SeekFrom::Start(size.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    if text.trim().is_empty() {
        return format!("{} is empty", path.display());
    }
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(TAIL_LINES)..];
    format!("{} ends with:\n{}", path.display(), last.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_lines() {
        assert_eq!(
            parse_status("cnm_exec                         RUNNING   pid 123, uptime 0:00:03"),
            Some((
                "cnm_exec".into(),
                Daemon {
                    state: "RUNNING".into(),
                    pid: Some(123)
                }
            ))
        );
        assert_eq!(
            parse_status("dmcproxy                         BACKOFF   Exited too quickly"),
            Some((
                "dmcproxy".into(),
                Daemon {
                    state: "BACKOFF".into(),
                    pid: None
                }
            ))
        );
        assert_eq!(parse_status("unix:///x refused connection"), None);
    }
}
