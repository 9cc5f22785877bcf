//! One node of the demo, used with the tools that it has.

use anyhow::{Context, Result, bail};
use model::release::InstallRecord;
use semver::Version;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Port of the name services: the nodes' user may bind it on every host.
pub(crate) const DNS_PORT: u16 = 8053;

/// Lines of a tool's output that are shown when it fails.
const SHOWN_LINES: usize = 30;

/// A node.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) number: u8,
    pub(crate) address: Ipv4Addr,
    root: PathBuf,
}

impl Node {
    pub(crate) fn new(number: u8, base: Ipv4Addr, root: &Path) -> Self {
        let address = Ipv4Addr::from(u32::from(base) + u32::from(number) - 1);
        Self {
            number,
            address,
            root: root.join(format!("node{number}")),
        }
    }

    /// Path of one of its programs.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.root.join("opt/mainstay/bin").join(name)
    }

    fn installer(&self) -> PathBuf {
        self.root.join("opt/mainstay/sbin/mainstay-install")
    }

    fn record(&self) -> Result<InstallRecord> {
        let path = self.root.join("etc/mainstay/install.json");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        serde_json::from_str(&text).with_context(|| path.display().to_string())
    }

    /// Whether an install of it ended.
    pub(crate) fn is_installed(&self) -> bool {
        self.program("rladmin").exists()
            && self.record().is_ok_and(|record| record.pending.is_none())
    }

    /// The version in force.
    pub(crate) fn version(&self) -> Result<Version> {
        Ok(self.record()?.version)
    }

    /// Installs it from an unpacked bundle.
    pub(crate) fn install(&self, bundle: &Path) -> Result<()> {
        let mut command = Command::new(bundle.join("install.sh"));
        command
            .args(["-y", "--memory", "1GB"])
            .args(["--dns-port", &DNS_PORT.to_string()])
            .args(["--address", &self.address.to_string()]);
        for (option, folder) in [
            ("--install-dir", "opt"),
            ("--config-dir", "etc"),
            ("--var-dir", "var"),
        ] {
            command.arg(option).arg(self.root.join(folder));
        }
        run(&mut command).map(drop)
    }

    /// Upgrades it with the install.sh of an unpacked bundle; gives what that said.
    pub(crate) fn upgrade(&self, bundle: &Path) -> Result<String> {
        let mut command = Command::new(bundle.join("install.sh"));
        run(command.args(["-y", "--address", &self.address.to_string()]))
    }

    /// Takes it back to the version before.
    pub(crate) fn roll_back(&self, bundle: &Path) -> Result<String> {
        let mut command = Command::new(bundle.join("install.sh"));
        run(command.args(["-y", "--rollback", "--address", &self.address.to_string()]))
    }

    /// A program of its release.
    pub(crate) fn command(&self, name: &str) -> Command {
        Command::new(self.program(name))
    }

    /// Runs rladmin on it; gives what it printed.
    pub(crate) fn rladmin(&self, arguments: &[&str]) -> Result<String> {
        run(Command::new(self.program("rladmin")).args(arguments))
    }

    /// Runs rlcheck on it; gives what it printed.
    pub(crate) fn rlcheck(&self) -> Result<String> {
        run(&mut Command::new(self.program("rlcheck")))
    }

    /// Removes it, if it is there.
    pub(crate) fn remove(&self, bundle: Option<&Path>) -> Result<()> {
        let own = self.installer();
        let fallback = bundle.map(|bundle| bundle.join("release/bin/mainstay-install"));
        // The new one knows all that an older one made; its own is there when no bundle is.
        let Some(program) = fallback.into_iter().chain([own]).find(|path| path.exists()) else {
            return Ok(());
        };
        let registered = fs::read_dir("/etc/opt/mainstay-installs").is_ok_and(|entries| {
            let wanted = format!("\"{}\"", self.address);
            entries
                .filter_map(Result::ok)
                .filter_map(|entry| fs::read_to_string(entry.path()).ok())
                .any(|text| text.contains(&wanted))
        });
        if !registered {
            return Ok(());
        }
        let mut command = Command::new(program);
        run(command.args(["uninstall", "-y", "--address", &self.address.to_string()])).map(drop)
    }
}

/// Runs a tool to its end; when it fails, the end of what it said is the error.
fn run(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        text.push_str(&String::from_utf8_lossy(&output.stderr));
        let lines: Vec<&str> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(SHOWN_LINES)..];
        bail!(
            "{program} ended with {}:\n{}",
            output.status,
            last.join("\n")
        );
    }
    Ok(text)
}
