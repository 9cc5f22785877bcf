//! What an operator may write behind `install.sh`.

use clap::Args;
use std::net::IpAddr;
use std::path::PathBuf;

/// Folder that `--install-dir` stands for by default; the programs go into `mainstay` below it.
pub const INSTALL_ROOT: &str = "/opt";
/// The same for `--config-dir`.
pub const CONFIG_ROOT: &str = "/etc/opt";
/// The same for `--var-dir`.
pub const VAR_ROOT: &str = "/var/opt";
/// Default user and group.
pub const OS_USER: &str = "mainstay";

/// Options of install.sh.
#[derive(Args, Clone, Debug, Default)]
pub struct Options {
    /// Folder of the unpacked bundle (install.sh gives it).
    #[arg(long, hide = true, value_name = "DIR")]
    pub bundle: Option<PathBuf>,
    /// Answer every question with its default; settings of the host stay as they are.
    #[arg(short = 'y')]
    pub yes: bool,
    /// Take answers from this file: `key=yes` or `key=no` lines.
    #[arg(short = 'c', value_name = "FILE")]
    pub answers: Option<PathBuf>,
    /// Folder of the unix sockets [new installs only; default: run in the data folder].
    #[arg(short = 's', value_name = "DIR")]
    pub socket_dir: Option<PathBuf>,
    /// Programs go into DIR/mainstay [new installs only; default: /opt].
    #[arg(long, value_name = "DIR")]
    pub install_dir: Option<PathBuf>,
    /// Configuration goes into DIR/mainstay [new installs only; default: /etc/opt].
    #[arg(long, value_name = "DIR")]
    pub config_dir: Option<PathBuf>,
    /// Data and logs go into DIR/mainstay [new installs only; default: /var/opt].
    #[arg(long, value_name = "DIR")]
    pub var_dir: Option<PathBuf>,
    /// User of every process; must exist [new installs only; default: mainstay, made if missing].
    #[arg(long, value_name = "USER")]
    pub os_user: Option<String>,
    /// Its group [new installs only; default: mainstay].
    #[arg(long, value_name = "GROUP")]
    pub os_group: Option<String>,
    /// Address of this node: every socket binds it. With several installs on a host it says which
    /// one is meant [default: the address of the default route].
    #[arg(long, value_name = "IP")]
    pub address: Option<IpAddr>,
    /// Memory that this node offers to databases, as 8GB or 512MB [new installs only; default: the
    /// host's].
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<String>,
    /// Public key (minisign) that bundles must be signed with [new installs only; default: the one
    /// built in].
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Port 53 may be taken.
    #[arg(long)]
    pub skip_dns_port_verification: bool,
    /// Port of this node's name service [new installs only; default: 53].
    #[arg(long, value_name = "PORT")]
    pub dns_port: Option<u16>,
    /// Put the programs into everybody's PATH.
    #[arg(long)]
    pub update_env_path: bool,
    /// Go back to the version that was here before the last upgrade.
    #[arg(long)]
    pub rollback: bool,
}

impl Options {
    /// Options that only a new install takes, which were given.
    #[must_use]
    pub fn new_install_only(&self) -> Vec<&'static str> {
        [
            ("-s", self.socket_dir.is_some()),
            ("--install-dir", self.install_dir.is_some()),
            ("--config-dir", self.config_dir.is_some()),
            ("--var-dir", self.var_dir.is_some()),
            ("--os-user", self.os_user.is_some()),
            ("--os-group", self.os_group.is_some()),
            ("--memory", self.memory.is_some()),
            ("--key", self.key.is_some()),
            ("--dns-port", self.dns_port.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, given)| given.then_some(name))
        .collect()
    }
}
