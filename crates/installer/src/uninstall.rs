//! Removes an install: its processes, its folders with all data, what it made elsewhere. Ends as a
//! machine that never had it; can be run again when it was cut short.

use crate::attendant;
use crate::console::Console;
use crate::processes::{self, Process};
use crate::registry::{self, Install, Target};
use crate::{accounts, files, layout, services};
use anyhow::{Context, Result, bail};
use model::release::{INSTALL_RECORD, InstallRecord};
use rustix::process::Signal;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What an operator may write behind `rl_uninstall.sh`.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Options {
    /// Do not ask.
    #[arg(short = 'y')]
    pub yes: bool,
    /// Address of the install that is meant, where a host has several.
    #[arg(long, value_name = "IP")]
    pub address: Option<IpAddr>,
}

/// How long processes may take to end by themselves.
const END: Duration = Duration::from_secs(10);

/// Removes the install that is meant.
///
/// # Errors
/// Why not; what is left is removed by the next run.
pub fn run(console: &Console, options: &Options) -> Result<()> {
    let _lock = registry::lock(console)?;
    let installs = registry::all()?;
    let install = choose(&installs, options.address)?;
    let config = &install.entry.config;
    console.note(format!(
        "this removes the node {} with all its data and configuration: {}, {}, {}. It does not \
         remove it from its cluster",
        install.describe(),
        config.install_dir.display(),
        config.config_dir.display(),
        config.var_dir.display()
    ));
    if !options.yes && !console.ask("Remove it?")? {
        bail!("nothing was removed");
    }
    stop(console, &install)?;
    remove(console, &install, &installs)?;
    console.note(format!("the install at {} is removed", config.address));
    Ok(())
}

/// The install that is meant: by address, by where this program lies, or the only one.
///
/// # Errors
/// When that is not clear.
pub fn choose(installs: &[Install], address: Option<IpAddr>) -> Result<Install> {
    if address.is_none()
        && let Some(own) = own_install(installs)
    {
        return Ok(own.clone());
    }
    match registry::choose(installs, address)? {
        Target::Existing(install) => Ok(*install),
        Target::New => bail!(
            "nothing is installed here{}",
            address
                .map(|address| format!(" at {address}"))
                .unwrap_or_default()
        ),
    }
}

/// The install that this program lies in.
fn own_install(installs: &[Install]) -> Option<&Install> {
    let program = std::env::current_exe().ok()?.canonicalize().ok()?;
    installs
        .iter()
        .find(|install| program.starts_with(&install.entry.config.install_dir))
}

fn stop(console: &Console, install: &Install) -> Result<()> {
    let config = &install.entry.config;
    console.note("stopping its processes");
    let systemd = install.record.as_ref().is_some_and(|record| record.systemd);
    attendant::stop(console, config, systemd);
    if install.record.as_ref().is_some_and(|record| record.systemd) {
        let unit = format!("{}.service", layout::service_name(config));
        console.command(format!("systemctl disable --now {unit}"));
        if let Err(error) = accounts::run("systemctl", &["disable", "--now", &unit]) {
            console.note(format!("{error:#}"));
        }
    }
    if let Err(error) = services::stop_node(config) {
        console.note(format!("{error:#}"));
    }
    // mainstay-node first, then supervisord: each would start again what is ended below it.
    let mut left = services::processes_of(config);
    for process in left.iter().filter(|process| is_parent(process)) {
        process.signal(Signal::KILL);
    }
    left = services::processes_of(config);
    left.iter().for_each(|process| process.signal(Signal::TERM));
    for process in processes::wait_for_end(&left, END) {
        process.signal(Signal::KILL);
    }
    let left = processes::wait_for_end(&services::processes_of(config), END);
    if !left.is_empty() {
        let pids: Vec<String> = left.iter().map(|process| process.pid.to_string()).collect();
        bail!(
            "processes {} do not end, not even killed: nothing was removed",
            pids.join(", ")
        );
    }
    Ok(())
}

fn is_parent(process: &Process) -> bool {
    process
        .arguments()
        .iter()
        .any(|word| word == "supervisor.supervisord")
        || process.program().is_some_and(|program| {
            program
                .file_name()
                .is_some_and(|name| name == "mainstay-node")
        })
}

/// The record goes after all that it names, the entry of the registry after the record.
fn remove(console: &Console, install: &Install, installs: &[Install]) -> Result<()> {
    let config = &install.entry.config;
    let record = install.record.as_ref();
    let made: Vec<PathBuf> = record.map_or_else(|| install.entry.made.clone(), |r| r.made.clone());
    console.close_log();
    let (folders, outside): (Vec<&PathBuf>, Vec<&PathBuf>) = made
        .iter()
        .partition(|path| path.is_dir() && !path.is_symlink());
    for path in &outside {
        files::remove(path)?;
    }
    if record.is_some_and(|record| record.systemd) {
        accounts::run("systemctl", &["daemon-reload"])?;
    }
    for folder in [&config.socket_dir, &config.var_dir, &config.install_dir] {
        files::remove_tree(folder)?;
    }
    empty_but_record(&config.config_dir)?;
    let mut users = Vec::new();
    if let Some(record) = record {
        users = accounts_left(record, install, installs)?;
    }
    remove_accounts(console, &users)?;
    files::remove_tree(&config.config_dir)?;
    for folder in folders.iter().rev() {
        // One that somebody else put something into stays.
        let _ = std::fs::remove_dir(folder);
    }
    registry::remove(config)
}

fn empty_but_record(config_dir: &Path) -> Result<()> {
    let Ok(entries) = std::fs::read_dir(config_dir) else {
        return Ok(());
    };
    for entry in entries {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name == INSTALL_RECORD) {
            continue;
        }
        if path.is_dir() && !path.is_symlink() {
            files::remove_tree(&path)?;
        } else {
            files::remove(&path)?;
        }
    }
    Ok(())
}

/// Programs that remove user and group, with the name to remove: none while another install has the
/// same user, which then inherits the duty.
fn accounts_left(
    record: &InstallRecord,
    install: &Install,
    installs: &[Install],
) -> Result<Vec<(&'static str, String)>> {
    let config = &install.entry.config;
    let heir = installs.iter().find(|other| {
        let theirs = &other.entry.config;
        theirs.install_id != config.install_id && theirs.os_user == config.os_user
    });
    if let Some(heir) = heir {
        if let Some(mut inherits) = heir.record.clone() {
            inherits.created_user |= record.created_user;
            inherits.created_group |= record.created_group;
            let gid = accounts::group(&config.os_group);
            registry::write_record(&heir.entry.config, gid, &inherits)
                .context("the record of the install that inherits the user")?;
        }
        return Ok(Vec::new());
    }
    let mut left = Vec::new();
    if record.created_user && accounts::user(&config.os_user).is_some() {
        left.push(("userdel", config.os_user.clone()));
    }
    if record.created_group {
        left.push(("groupdel", config.os_group.clone()));
    }
    Ok(left)
}

fn remove_accounts(console: &Console, left: &[(&'static str, String)]) -> Result<()> {
    for (program, name) in left {
        // userdel takes a group of the same name along, if nobody else is in it.
        if *program == "groupdel" && accounts::group(name).is_none() {
            continue;
        }
        console.command(format!("{program} {name}"));
        accounts::run(program, &[name])?;
    }
    Ok(())
}
