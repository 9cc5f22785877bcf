//! supervisord's own replacement: only when its version changes, and last. Its daemons end with it and are started
//! again from the same release; engines are nobody's children, and the proxy's server keeps its clients until the
//! next one takes them over.

use crate::console::Console;
use crate::processes::{self, Process};
use crate::{layout, services};
use anyhow::{Result, bail};
use model::node_config::NodeConfig;
use rustix::process::Signal;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long it may take to stop its daemons and end; afterwards it is killed, and they end with it.
const STOP: Duration = Duration::from_secs(10);
/// How long the next one and its daemons may take to come up. The proxy's server waits 60 s for the launcher that
/// starts its successor: by then the one before must be back.
const START: Duration = Duration::from_secs(25);

/// Whether a supervisord of this version runs and answers: mainstay-node may have started it a moment ago, or start
/// a dead one again and again.
#[must_use]
pub fn serves(config: &NodeConfig, version: &str) -> bool {
    runs(config, version) && services::answers(config)
}

fn runs(config: &NodeConfig, version: &str) -> bool {
    let wanted = layout::supervisor(config, version);
    running(config).is_some_and(|(_, folder)| folder == wanted)
}

/// supervisord becomes that of `version`, and runs the daemons of `release`. mainstay-node must be of a release that
/// starts this version. One of this version that is only starting is waited for.
///
/// # Errors
/// When it does not end, or does not come up.
pub fn replace(
    console: &Console,
    config: &NodeConfig,
    version: &str,
    release: &Path,
) -> Result<()> {
    console.note(format!(
        "supervisord is replaced by version {version}: the daemons start anew, engines and clients go on"
    ));
    // mainstay-node may have started the wanted one by now: that stays.
    let wanted = layout::supervisor(config, version);
    if let Some((process, _)) = running(config).filter(|(_, folder)| *folder != wanted) {
        process.signal(Signal::TERM);
        if !processes::wait_for_end(std::slice::from_ref(&process), STOP).is_empty() {
            process.signal(Signal::KILL);
        }
    }
    let limit = services::hurried("MAINSTAY_INSTALL_PATIENCE").unwrap_or(START);
    let deadline = Instant::now() + limit;
    while !serves(config, version) {
        if Instant::now() >= deadline {
            bail!(
                "supervisord {version} does not start: see {}",
                config.log_dir().join("supervisord.out").display()
            );
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    services::wait_until_up_by(config, release, &[], deadline)
}

/// The supervisord that runs, and the folder that it runs from.
fn running(config: &NodeConfig) -> Option<(Process, PathBuf)> {
    services::processes_of(config)
        .into_iter()
        .find_map(|process| {
            let is_it = process
                .arguments()
                .iter()
                .any(|word| word == "supervisor.supervisord");
            let folder = is_it.then(|| folder_of(&process)).flatten()?;
            Some((process, folder))
        })
}

/// What it was started with says where its program lies.
fn folder_of(process: &Process) -> Option<PathBuf> {
    let environment = fs::read(format!("/proc/{}/environ", process.pid)).ok()?;
    environment.split(|byte| *byte == 0).find_map(|word| {
        let path = word.strip_prefix(b"PYTHONPATH=")?;
        Some(PathBuf::from(std::str::from_utf8(path).ok()?))
    })
}
