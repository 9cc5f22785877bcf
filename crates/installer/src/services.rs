//! mainstay-node, and what runs below it: the daemons are started by way of it, and looked at and restarted by
//! way of supervisord ([`daemons`]).

mod daemons;

pub use daemons::{
    Started, answers, left_to_watch, processes, read_configuration, replace_daemon, start_stopped,
    wait_until_up, wait_until_up_by, watch,
};

use crate::console::Console;
use crate::processes::{self, Process};
use crate::{accounts, files, host, layout, node};
use anyhow::{Context, Result, bail};
use model::node_config::NodeConfig;
use rustix::process::Signal;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long mainstay-node may take to stop: a little more than all that it waits for.
const NODE_STOP: Duration = Duration::from_secs(140);
/// Lines of a log that are shown when its daemon does not come up.
const TAIL_LINES: usize = 8;
/// Most bytes of a log that are looked at for them.
const TAIL_BYTES: u64 = 16 * 1024;

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
    // Below /run it is gone after each start of the machine; the unit makes it too.
    if !config.socket_dir.exists() {
        for above in files::missing_above(&config.socket_dir) {
            files::folder(&above, 0o755, (0, 0))?;
        }
        files::folder(&config.socket_dir, layout::PRIVATE, (user.uid, group))?;
    }
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

/// Stops the node as who started it does: where it is a unit, systemd is to know that it was stopped.
///
/// # Errors
/// When it does not end in time.
pub fn stop_unit_or_node(console: &Console, config: &NodeConfig, systemd: bool) -> Result<()> {
    if !systemd {
        return stop_node(config);
    }
    let unit = format!("{}.service", layout::service_name(config));
    console.command(format!("systemctl stop {unit}"));
    accounts::run("systemctl", &["stop", &unit])
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

/// Debug builds wait as many seconds as the environment says: so the tests need not wait for what never comes.
pub(crate) fn hurried(variable: &str) -> Option<Duration> {
    let text = std::env::var(variable).ok()?;
    let seconds = text.parse().ok().filter(|_| cfg!(debug_assertions))?;
    Some(Duration::from_secs(seconds))
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
        std::thread::sleep(Duration::from_millis(10));
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
