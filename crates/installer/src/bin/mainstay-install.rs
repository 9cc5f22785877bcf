//! mainstay-install: what install.sh and rl_uninstall.sh run.

use clap::{Parser, Subcommand};
use installer::attendant;
use installer::console::Console;
use installer::install::{self, Outcome};
use installer::options::Options;
use installer::{keys, registry, services, uninstall};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

/// Cannot run at all: not root.
const CANNOT: u8 = 2;
/// The new release did not come up, the old one runs again.
const WENT_BACK: u8 = 3;

#[derive(Debug, Parser)]
#[command(
    name = "mainstay-install",
    about = "Installs, upgrades, repairs and removes Mainstay"
)]
#[command(subcommand_negates_reqs = true, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Go back to the version that was here before the last upgrade.
    #[arg(long, required = true)]
    rollback: bool,
    /// Address of the install that is meant, where a host has several.
    #[arg(long, value_name = "IP")]
    address: Option<IpAddr>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Install, upgrade, repair or go back (install.sh runs this).
    #[command(name = "install", override_usage = "./install.sh [OPTIONS]")]
    Install(Box<Options>),
    /// Remove an install with all its data.
    Uninstall(uninstall::Options),
    /// Start the node (where systemd runs the machine: its unit).
    Start(Which),
    /// Stop the node: engines save and stop, then the daemons.
    Stop(Which),
    /// Check a bundle, and nothing else.
    Verify {
        /// The tar of a release, or the folder that it was unpacked into.
        #[arg(long, value_name = "PATH")]
        bundle: PathBuf,
        /// Public key (minisign) [default: the one built in].
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
        /// Trust the keys that this install trusts.
        #[arg(long, conflicts_with = "key")]
        installed: bool,
    },
    #[command(hide = true)]
    SelfTest,
    /// Wait for this node's turn in an upgrade of all nodes (the unit runs this).
    #[command(hide = true)]
    Attend(Which),
    #[command(hide = true)]
    Work(Which),
}

#[derive(clap::Args, Clone, Debug)]
struct Which {
    /// Address of the install that is meant, where a host has several.
    #[arg(long, value_name = "IP")]
    address: Option<IpAddr>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let console = Console::default();
    // Folders above the install's own are for everybody to enter; its own have their own modes.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    match run(&console, arguments) {
        Ok(code) => code,
        Err(error) => {
            console.error(format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(console: &Console, arguments: Arguments) -> anyhow::Result<ExitCode> {
    let command = arguments.command.unwrap_or_else(|| {
        Command::Install(Box::new(Options {
            rollback: arguments.rollback,
            address: arguments.address,
            ..Options::default()
        }))
    });
    if !matches!(command, Command::SelfTest | Command::Verify { .. })
        && !rustix::process::geteuid().is_root()
    {
        console.error("root is needed: run it with sudo");
        return Ok(ExitCode::from(CANNOT));
    }
    match command {
        Command::Install(options) => Ok(match install::run(console, &options)? {
            Outcome::Done => ExitCode::SUCCESS,
            Outcome::Unhealthy => ExitCode::FAILURE,
            Outcome::WentBack => ExitCode::from(WENT_BACK),
        }),
        Command::Uninstall(options) => {
            uninstall::run(console, &options)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Start(which) => {
            let install = meant(&which)?;
            let record = install.record.as_ref();
            let systemd = record.is_some_and(|record| record.systemd);
            services::start_node(console, &install.entry.config, systemd)?;
            attendant::ensure(console, &install.entry.config, systemd)?;
            console.note(format!("node {} runs", install.entry.config.address));
            Ok(ExitCode::SUCCESS)
        }
        Command::Stop(which) => {
            let install = meant(&which)?;
            let systemd = install.record.as_ref().is_some_and(|record| record.systemd);
            services::stop_unit_or_node(console, &install.entry.config, systemd)?;
            console.note(format!("node {} is stopped", install.entry.config.address));
            Ok(ExitCode::SUCCESS)
        }
        Command::Verify {
            bundle,
            key,
            installed,
        } => {
            let trusted = match key {
                _ if installed => trusted_here()?,
                Some(path) => vec![keys::from_file(&path)?],
                None => vec![keys::built_in()?],
            };
            let manifest = if bundle.is_dir() {
                installer::bundle::Bundle::open(&bundle, &trusted)?.manifest
            } else {
                installer::bundle_tar::verify(&bundle, &trusted)?
            };
            console.note(format!(
                "Mainstay {} (build {}) is whole",
                manifest.version, manifest.build_id
            ));
            Ok(ExitCode::SUCCESS)
        }
        Command::SelfTest => Ok(ExitCode::SUCCESS),
        Command::Attend(which) => {
            attendant::run(meant(&which)?.entry.config.address)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Work(which) => {
            attendant::perform(meant(&which)?.entry.config.address)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The keys that this install trusts.
fn trusted_here() -> anyhow::Result<Vec<String>> {
    let install = meant(&Which { address: None })?;
    Ok(install
        .record
        .map(|record| record.trusted_keys)
        .unwrap_or_default())
}

fn meant(which: &Which) -> anyhow::Result<registry::Install> {
    let installs = registry::all()?;
    match uninstall::choose(&installs, which.address)? {
        install if install.record.is_some() => Ok(install),
        _ => anyhow::bail!("the install is unfinished: run its install.sh again"),
    }
}
