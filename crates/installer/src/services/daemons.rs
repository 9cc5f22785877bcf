//! The daemons, looked at and replaced by way of supervisord.
//!
//! supervisord looks after its children once a second, or when somebody asks it something: asking it again and
//! again is what makes it quick. Its own wait for a start is left out, so that the daemons come up beside each
//! other; [`wait_until_up`] sees all of them stay.

use super::{hurried, supervisorctl, tail};
use crate::console::Console;
use crate::layout;
use crate::processes::Process;
use crate::steps::cut_short;
use agent::supervisord::{Supervisord, SupervisordError};
use anyhow::{Context, Result, bail};
use model::node_config::NodeConfig;
use model::observation::ServiceObservation;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long the daemons may take to come up. A proxy's server whose launcher was stopped waits 60 s for its successor:
/// an upgrade must have gone back by then.
const DAEMONS_UP: Duration = Duration::from_secs(40);
/// How long each daemon of a new release must have run before the release is believed to stay up.
const WATCHED: Duration = Duration::from_secs(10);
/// How long supervisord may take for an answer; stopping a daemon is one, of up to 20 s.
const PATIENCE: Duration = Duration::from_secs(40);
/// How long a daemon that was started may take to be the program that is wanted.
const BECOMES: Duration = Duration::from_secs(10);
/// Pause between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

fn ask<T>(
    config: &NodeConfig,
    question: impl AsyncFnOnce(Supervisord) -> Result<T, SupervisordError>,
) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let supervisord = Supervisord::of(config, PATIENCE);
    runtime
        .block_on(question(supervisord))
        .with_context(|| format!("see {}", config.log_dir().display()))
}

/// The daemons as supervisord sees them.
fn daemons(config: &NodeConfig) -> Result<Vec<ServiceObservation>> {
    ask(config, async |supervisord| supervisord.processes().await)
}

/// Whether supervisord answers.
#[must_use]
pub fn answers(config: &NodeConfig) -> bool {
    daemons(config).is_ok()
}

/// The daemons' processes of `release`.
///
/// # Errors
/// When supervisord does not answer.
pub fn processes(config: &NodeConfig, release: &Path) -> Result<Vec<Started>> {
    let daemons = daemons(config)?;
    let process = |daemon: ServiceObservation| {
        let process = process_from(&daemon, release, &daemon.name)?;
        Some((daemon.name, process))
    };
    Ok(daemons.into_iter().filter_map(process).collect())
}

/// supervisord takes up its configuration where it was changed; programs whose part was not go on.
///
/// # Errors
/// What supervisord said.
pub fn read_configuration(console: &Console, config: &NodeConfig, version: &str) -> Result<()> {
    if !ask(config, async |supervisord| supervisord.has_changed().await)? {
        return Ok(());
    }
    let (code, text) = supervisorctl(config, version, &["update"])?;
    if !text.trim().is_empty() {
        console.command(format!("supervisorctl update\n{}", text.trim()));
    }
    if code != 0 {
        bail!("supervisorctl update: {}", text.trim());
    }
    Ok(())
}

/// A daemon and its process.
pub type Started = (String, Process);

/// A daemon is replaced by that of `release`; if it runs from there already, it is left alone. Whether it stays
/// up is not waited for: see [`wait_until_up`].
///
/// # Errors
/// Why it does not come up.
pub fn replace_daemon(
    console: &Console,
    config: &NodeConfig,
    release: &Path,
    name: &str,
) -> Result<Started> {
    let started = |process| (name.to_owned(), process);
    if let Some(process) = daemon(config, name)?
        .as_ref()
        .and_then(|daemon| process_from(daemon, release, name))
    {
        return Ok(started(process));
    }
    console.command(format!("supervisorctl restart {name}"));
    let restart = || format!("restart {name}");
    ask(config, async |supervisord| supervisord.stop(name).await).with_context(restart)?;
    cut_short("between", name);
    ask(config, async |supervisord| supervisord.launch(name).await).with_context(restart)?;
    let deadline = Instant::now() + BECOMES;
    loop {
        let seen = daemon(config, name)?;
        let process = seen
            .as_ref()
            .and_then(|daemon| process_from(daemon, release, name));
        if let Some(process) = process {
            return Ok(started(process));
        }
        let state = seen.map_or("unknown".to_owned(), |daemon| daemon.status);
        if state != STARTING && state != RUNNING || Instant::now() >= deadline {
            bail!("{name} is {state}\n{}", tail(config, name));
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Daemons that an installer has stopped, and was killed before it started them again: supervisord leaves them so.
///
/// # Errors
/// When supervisord does not answer, or does not start one.
pub fn start_stopped(config: &NodeConfig) -> Result<()> {
    let stopped = |daemon: &ServiceObservation| {
        layout::DAEMONS.contains(&daemon.name.as_str()) && daemon.status == STOPPED
    };
    for daemon in daemons(config)?.into_iter().filter(stopped) {
        let name = daemon.name.as_str();
        ask(config, async |supervisord| supervisord.launch(name).await)
            .with_context(|| format!("start {name}"))?;
    }
    Ok(())
}

const STOPPED: &str = "STOPPED";
const STARTING: &str = "STARTING";
const RUNNING: &str = "RUNNING";

fn daemon(config: &NodeConfig, name: &str) -> Result<Option<ServiceObservation>> {
    let found = daemons(config)?;
    Ok(found.into_iter().find(|daemon| daemon.name == name))
}

/// A daemon's process, which may still be young, if it is the program of `release`.
fn process_from(daemon: &ServiceObservation, release: &Path, name: &str) -> Option<Process> {
    let process = Process::of(daemon.pid?)?;
    (process.program()? == release.join("bin").join(name)).then_some(process)
}

/// How much longer daemons are to be watched until each has run for [`WATCHED`].
#[must_use]
pub fn left_to_watch(running: &[Started]) -> Duration {
    let watched = hurried("MAINSTAY_INSTALL_WATCH").unwrap_or(WATCHED);
    let ages = running.iter().filter_map(|(_, process)| process.age());
    watched.saturating_sub(ages.min().unwrap_or_default())
}

/// Watches processes: one that comes up and then ends is started again by supervisord, and would only be
/// noticed by somebody who looks at the right moment.
///
/// # Errors
/// Which one ended, with the end of its log.
pub fn watch(config: &NodeConfig, running: &[Started]) -> Result<()> {
    let until = Instant::now() + left_to_watch(running);
    loop {
        none_has_ended(config, running)?;
        if Instant::now() >= until {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn none_has_ended(config: &NodeConfig, running: &[Started]) -> Result<()> {
    match running.iter().find(|(_, process)| !process.runs()) {
        Some((name, _)) => bail!("{name} came up and ended\n{}", tail(config, name)),
        None => Ok(()),
    }
}

/// Waits until every daemon runs the program of `release`, and has done so for a second. None of those that
/// were `started` may end.
///
/// # Errors
/// Which one does not, with the end of its log.
pub fn wait_until_up(config: &NodeConfig, release: &Path, started: &[Started]) -> Result<()> {
    wait_until_up_by(config, release, started, Instant::now() + DAEMONS_UP)
}

/// The same, until a moment.
///
/// # Errors
/// Which one does not, with the end of its log.
pub fn wait_until_up_by(
    config: &NodeConfig,
    release: &Path,
    started: &[Started],
    deadline: Instant,
) -> Result<()> {
    let began = Instant::now();
    loop {
        none_has_ended(config, started)?;
        let waiting = not_up(config, release);
        if waiting.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
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
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Daemons that do not run the program of `release`, and what they do instead.
fn not_up(config: &NodeConfig, release: &Path) -> Vec<String> {
    let daemons = match daemons(config) {
        Ok(daemons) => daemons,
        Err(error) => return vec![format!("{error:#}")],
    };
    layout::DAEMONS
        .iter()
        .filter_map(|name| {
            let daemon = daemons.iter().find(|daemon| daemon.name == *name);
            let up = daemon.is_some_and(|daemon| {
                daemon.status == RUNNING && process_from(daemon, release, name).is_some()
            });
            let state = daemon.map_or("not started", |daemon| daemon.status.as_str());
            (!up).then(|| format!("{name} is {state}"))
        })
        .collect()
}
