//! The node's own configuration file, `node.toml`, written by the installer and read by every
//! program of the node, and the layout of the node's folders.
//!
//! A program finds the file from its own path: `<install>/releases/<version>/bin/<program>` has
//! `<install>/config` beside `releases`, a link to the configuration folder. `MAINSTAY_CONFIG`
//! names another file (for tests).

use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

/// Environment variable that names another `node.toml`.
pub const CONFIG_ENV: &str = "MAINSTAY_CONFIG";

/// Contents of `node.toml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// Id of this install: names its unit, log rotation and profile files.
    pub install_id: String,
    /// The address that all sockets bind.
    pub address: IpAddr,
    /// Folder of the programs: `/opt/mainstay`.
    pub install_dir: PathBuf,
    /// Folder of the configuration: `/etc/opt/mainstay`.
    pub config_dir: PathBuf,
    /// Folder of the data: `/var/opt/mainstay`.
    pub var_dir: PathBuf,
    /// Folder of the unix sockets: `/var/opt/mainstay/run`.
    pub socket_dir: PathBuf,
    /// User of every process.
    pub os_user: String,
    /// Its group.
    pub os_group: String,
    /// Memory that this node offers to databases, bytes; `None`: the host's.
    #[serde(default)]
    pub memory_bytes: Option<u64>,
    /// Ports.
    #[serde(default)]
    pub ports: Ports,
}

/// Ports of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ports {
    /// REST.
    pub https: u16,
    /// Console.
    pub console: u16,
    /// Internode traffic.
    pub internode: u16,
    /// Discovery: the Sentinel commands. The same on every node of a cluster. Written only if another
    /// than usual: older releases do not know it.
    #[serde(skip_serializing_if = "is_discovery")]
    pub discovery: u16,
    /// Name service. Written only if another than usual.
    #[serde(skip_serializing_if = "is_dns")]
    pub dns: u16,
}

/// Usual port of discovery.
const DISCOVERY: u16 = 8001;
/// Usual port of the name service; an unprivileged user may bind it only where the host allows that.
const DNS: u16 = 53;

fn is_discovery(port: &u16) -> bool {
    *port == DISCOVERY
}

fn is_dns(port: &u16) -> bool {
    *port == DNS
}

impl Default for Ports {
    fn default() -> Self {
        Self {
            https: 9443,
            console: 8443,
            internode: 3342,
            discovery: DISCOVERY,
            dns: DNS,
        }
    }
}

impl NodeConfig {
    /// Reads the text of a `node.toml`.
    ///
    /// # Errors
    /// What is wrong, with its line.
    pub fn parse(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }

    /// The text of a `node.toml`.
    ///
    /// # Errors
    /// When a path is not UTF-8.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string_pretty(self)
    }

    /// Where `node.toml` is for a program at `executable` (already resolved to
    /// `<install>/releases/<version>/bin/<program>`).
    #[must_use]
    pub fn path_for(executable: &Path) -> Option<PathBuf> {
        Some(
            executable
                .ancestors()
                .nth(4)?
                .join("config")
                .join("node.toml"),
        )
    }

    /// The running release of a program at `executable`: `<install>/releases/<version>`.
    #[must_use]
    pub fn release_of(executable: &Path) -> Option<PathBuf> {
        executable.ancestors().nth(2).map(Path::to_path_buf)
    }

    /// REST.
    #[must_use]
    pub fn https_address(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.ports.https)
    }

    /// Internode traffic.
    #[must_use]
    pub fn internode_address(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.ports.internode)
    }

    /// Discovery.
    #[must_use]
    pub fn discovery_address(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.ports.discovery)
    }

    /// Name service.
    #[must_use]
    pub fn dns_address(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.ports.dns)
    }

    /// The release that is in force: a link into `releases/`.
    #[must_use]
    pub fn current(&self) -> PathBuf {
        self.install_dir.join("current")
    }

    /// Logs.
    #[must_use]
    pub fn log_dir(&self) -> PathBuf {
        self.var_dir.join("log")
    }

    /// What must survive: the store and the engines' data.
    #[must_use]
    pub fn persist_dir(&self) -> PathBuf {
        self.var_dir.join("persist")
    }

    /// The configuration store's files.
    #[must_use]
    pub fn store_dir(&self) -> PathBuf {
        self.persist_dir().join("ccs")
    }

    /// One folder per shard: data, configuration, ledger, lock.
    #[must_use]
    pub fn shards_dir(&self) -> PathBuf {
        self.persist_dir().join("redis")
    }

    /// Bundles that have arrived for an upgrade of all nodes.
    #[must_use]
    pub fn bundles_dir(&self) -> PathBuf {
        self.tmp_dir().join("bundles")
    }

    /// Scratch.
    #[must_use]
    pub fn tmp_dir(&self) -> PathBuf {
        self.var_dir.join("tmp")
    }

    /// Who this node is in its cluster: written at create or join.
    #[must_use]
    pub fn identity_path(&self) -> PathBuf {
        self.config_dir.join("node.id")
    }

    /// Certificates and keys.
    #[must_use]
    pub fn certificates_dir(&self) -> PathBuf {
        self.config_dir.join("certificates")
    }

    /// `cnm_exec`'s local interface.
    #[must_use]
    pub fn exec_socket(&self) -> PathBuf {
        self.socket_dir.join("cnm_exec.sock")
    }

    /// REST for members of the group, without a password.
    #[must_use]
    pub fn http_socket(&self) -> PathBuf {
        self.socket_dir.join("cnm_http.sock")
    }

    /// Where a proxy fetches its configuration.
    #[must_use]
    pub fn proxy_socket(&self) -> PathBuf {
        self.socket_dir.join("proxy-config.sock")
    }

    /// Where a new proxy process asks the old one for its listeners.
    #[must_use]
    pub fn handover_socket(&self) -> PathBuf {
        self.socket_dir.join("dmcproxy.sock")
    }

    /// supervisord.
    #[must_use]
    pub fn supervisor_socket(&self) -> PathBuf {
        self.socket_dir.join("supervisor.sock")
    }

    /// supervisord's configuration.
    #[must_use]
    pub fn supervisor_config(&self) -> PathBuf {
        self.config_dir.join("supervisord.conf")
    }

    /// An engine's unix socket.
    #[must_use]
    pub fn shard_socket(&self, shard: crate::ShardUid) -> PathBuf {
        self.socket_dir.join(format!("redis-{shard}.sock"))
    }

    /// A pid or lock file of a daemon.
    #[must_use]
    pub fn run_file(&self, name: &str) -> PathBuf {
        self.var_dir.join("run").join(name)
    }

    /// Every path that becomes a unix socket and is too long for one.
    #[must_use]
    pub fn socket_paths_too_long(&self) -> Vec<PathBuf> {
        [
            self.exec_socket(),
            self.http_socket(),
            self.proxy_socket(),
            self.handover_socket(),
            self.supervisor_socket(),
            self.shard_socket(crate::ShardUid(9_999_999_999)),
        ]
        .into_iter()
        .filter(|path| path.as_os_str().len() > crate::limits::SOCKET_PATH_MAX)
        .collect()
    }
}

/// Contents of `node.id`: who this node is, written once at create or join, mode 0640.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeIdentity {
    /// Schema of this file: 1.
    pub schema: u32,
    /// The node's id.
    pub node: crate::NodeUid,
    /// The cluster's id.
    pub cluster_id: String,
    /// The cluster's name.
    pub cluster_name: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn found_from_the_programs_own_path() {
        let exe = Path::new("/opt/mainstay/releases/1.0.0/bin/rladmin");
        assert_eq!(
            NodeConfig::path_for(exe),
            Some(PathBuf::from("/opt/mainstay/config/node.toml"))
        );
        assert_eq!(
            NodeConfig::release_of(exe),
            Some(PathBuf::from("/opt/mainstay/releases/1.0.0"))
        );
    }

    #[test]
    fn usual_ports_are_not_written_so_that_an_older_release_reads_the_file() {
        let usual = toml::to_string(&Ports::default()).unwrap();
        assert!(
            !usual.contains("dns") && !usual.contains("discovery"),
            "{usual}"
        );
        let other = Ports {
            dns: 5353,
            ..Ports::default()
        };
        let text = toml::to_string(&other).unwrap();
        assert_eq!(toml::from_str::<Ports>(&text).unwrap(), other);
        assert_eq!(toml::from_str::<Ports>(&usual).unwrap(), Ports::default());
    }
}
