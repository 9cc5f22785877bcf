//! The attendant is started by installs and `mainstay-install start`, as a unit where systemd runs the machine, and
//! stopped by uninstalls.

use super::background;
use super::work::is_attendant;
use crate::console::Console;
use crate::processes::{self, Process};
use crate::{accounts, layout};
use anyhow::{Result, bail};
use model::node_config::NodeConfig;
use rustix::process::Signal;
use std::time::{Duration, Instant};

/// How long it may take to be there.
const STARTS_WITHIN: Duration = Duration::from_secs(15);
/// How long it may take to end.
const ENDS_WITHIN: Duration = Duration::from_secs(5);

/// The attendant of an install, if it runs.
#[must_use]
pub fn process(config: &NodeConfig) -> Option<Process> {
    processes::all()
        .into_iter()
        .find(|process| is_attendant(process, config))
}

/// Name of its unit.
fn unit(config: &NodeConfig) -> String {
    format!("{}-upgrade.service", layout::service_name(config))
}

/// Starts it if it does not run; says whether it did.
///
/// # Errors
/// When it does not start.
pub fn ensure(console: &Console, config: &NodeConfig, systemd: bool) -> Result<bool> {
    if process(config).is_some() {
        return Ok(false);
    }
    if systemd {
        let unit = unit(config);
        console.command(format!("systemctl enable --now {unit}"));
        accounts::run("systemctl", &["enable", "--now", &unit])?;
        return Ok(true);
    }
    let mut child = background(config, "attend")?;
    let deadline = Instant::now() + STARTS_WITHIN;
    while process(config).is_none() {
        if let Some(status) = child.try_wait()? {
            bail!("mainstay-install attend did not start ({status})");
        }
        if Instant::now() >= deadline {
            bail!("mainstay-install attend does not start");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(true)
}

/// Ends it.
pub fn stop(console: &Console, config: &NodeConfig, systemd: bool) {
    if systemd {
        let unit = unit(config);
        console.command(format!("systemctl disable --now {unit}"));
        if let Err(error) = accounts::run("systemctl", &["disable", "--now", &unit]) {
            console.note(format!("{error:#}"));
        }
    }
    let Some(process) = process(config) else {
        return;
    };
    process.signal(Signal::TERM);
    for process in processes::wait_for_end(&[process], ENDS_WITHIN) {
        process.signal(Signal::KILL);
    }
}
