//! Nodes installed by the real `install.sh` from the real bundle, with supervisord and everything.

use crate::addresses::Network;
use crate::cluster::{ADMIN, PASSWORD, build_folder};
use crate::wait;
use anyhow::{Context as _, ensure};
use client::rest::RestClient;
use model::ApiError;
use model::node_config::NodeConfig;
use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// The unpacked bundle of what was built last; made when there is none or an older one.
///
/// # Errors
/// When `cargo build` and `cargo xtask engines` have not been run, or `dist` fails.
pub fn bundle() -> anyhow::Result<PathBuf> {
    let target = build_folder()
        .parent()
        .context("the target folder")?
        .to_path_buf();
    let folder = target.join("test-bundle");
    std::fs::create_dir_all(&folder)?;
    let lock = File::create(folder.join("lock"))?;
    flock(&lock, FlockOperation::LockExclusive)?;
    let stamp = folder.join("made");
    let made = std::fs::metadata(&stamp).and_then(|m| m.modified()).ok();
    let mut newest = std::time::SystemTime::UNIX_EPOCH;
    for program in [
        "cnm_exec",
        "cnm_http",
        "dmcproxy",
        "rladmin",
        "rlcheck",
        "mainstay-install",
    ] {
        let path = build_folder().join(program);
        let built = std::fs::metadata(&path)
            .with_context(|| format!("{}: run `cargo build --workspace`", path.display()))?;
        newest = newest.max(built.modified()?);
    }
    let unpacked = folder.join("unpacked");
    if made.is_some_and(|made| made > newest) {
        return Ok(unpacked);
    }
    let dist = Command::new(build_folder().join("xtask"))
        .args([
            "dist",
            "--fast",
            "--no-build",
            "--version",
            "1.0.0",
            "--out",
        ])
        .arg(&folder)
        .output()?;
    ensure!(
        dist.status.success(),
        "dist: {}",
        String::from_utf8_lossy(&dist.stderr)
    );
    if unpacked.exists() {
        std::fs::remove_dir_all(&unpacked)?;
    }
    std::fs::create_dir_all(&unpacked)?;
    let tar = Command::new("tar")
        .arg("xf")
        .arg(folder.join("mainstay-1.0.0-linux-amd64.tar"))
        .current_dir(&unpacked)
        .status()?;
    ensure!(tar.success(), "the bundle cannot be unpacked");
    std::fs::write(stamp, "")?;
    Ok(unpacked)
}

/// One installed node; uninstalled when dropped.
#[derive(Debug)]
pub struct InstalledNode {
    /// Its configuration.
    pub config: NodeConfig,
}

impl InstalledNode {
    /// Installs a node below a folder.
    ///
    /// # Errors
    /// When `install.sh` fails, with what it printed.
    pub fn install(root: &Path, address: std::net::IpAddr) -> anyhow::Result<Self> {
        let output = Command::new(bundle()?.join("install.sh"))
            .args(["-y", "--dns-port", "5300", "--memory", "1GB", "--address"])
            .arg(address.to_string())
            .arg("--install-dir")
            .arg(root.join("opt"))
            .arg("--config-dir")
            .arg(root.join("etc"))
            .arg("--var-dir")
            .arg(root.join("var"))
            .stdin(Stdio::null())
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "install.sh: {text}{error}");
        let toml = std::fs::read_to_string(root.join("etc/mainstay/node.toml"))?;
        Ok(Self {
            config: NodeConfig::parse(&toml)?,
        })
    }

    /// A tool of this node.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn run(&self, program: &str, arguments: &[&str]) -> anyhow::Result<Output> {
        Ok(
            Command::new(self.config.install_dir.join("bin").join(program))
                .args(arguments)
                .stdin(Stdio::null())
                .output()?,
        )
    }

    /// A tool of this node, which must succeed within 30 s.
    ///
    /// # Errors
    /// What it printed last.
    pub fn until(&self, program: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let what = format!("{program} {}", arguments.join(" "));
        wait::until(&what, Duration::from_secs(30), || {
            let output = self.run(program, arguments).map_err(|e| e.to_string())?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            if output.status.success() {
                return Ok(text);
            }
            Err(format!("{text}{}", String::from_utf8_lossy(&output.stderr)))
        })
    }

    /// Asks this node's REST.
    ///
    /// # Errors
    /// As REST answers.
    pub fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        crate::cluster::runtime().block_on(RestClient::new(self.config.http_socket()).get(path))
    }

    /// Processes of a program of this node's releases.
    #[must_use]
    pub fn pids(&self, program: &str) -> Vec<u32> {
        let releases = self.config.install_dir.join("releases");
        pids_where(|pid| {
            let exe = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
            exe.starts_with(&releases)
                && exe
                    .file_name()
                    .is_some_and(|name| name.to_string_lossy() == program)
        })
    }

    /// Process of this node's supervisord.
    #[must_use]
    pub fn supervisord(&self) -> Vec<u32> {
        let config = self.config.supervisor_config().display().to_string();
        pids_where(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).into_owned();
            line.contains("supervisor.supervisord") && line.contains(&config)
        })
    }
}

impl Drop for InstalledNode {
    fn drop(&mut self) {
        let removed = self.run("rl_uninstall.sh", &["-y"]);
        if !removed.as_ref().is_ok_and(|output| output.status.success()) {
            eprintln!(
                "the node at {} was not removed: {removed:?}",
                self.config.address
            );
        }
    }
}

/// Processes that a test asks for.
fn pids_where(wanted: impl Fn(u32) -> bool) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| wanted(*pid))
        .collect()
}

/// Three installed nodes in one cluster with a database on port 12000, all-nodes.
#[derive(Debug)]
pub struct InstalledCluster {
    /// Its nodes.
    pub nodes: Vec<InstalledNode>,
    _root: tempfile::TempDir,
    _network: Network,
}

impl InstalledCluster {
    /// Installs and starts it.
    ///
    /// # Errors
    /// When one step fails.
    pub fn start() -> anyhow::Result<Self> {
        let root = tempfile::Builder::new()
            .prefix("msi-")
            .tempdir_in("/var/tmp")?;
        // The OS user must be able to enter it.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(root.path(), open)?;
        let network = Network::take()?;
        let mut nodes = Vec::new();
        for number in 1..=3 {
            let folder = root.path().join(format!("n{number}"));
            nodes.push(InstalledNode::install(
                &folder,
                network.address(10 + number),
            )?);
        }
        let create = [
            "cluster",
            "create",
            "name",
            "test.local",
            "username",
            ADMIN,
            "password",
            PASSWORD,
        ];
        nodes[0].until("rladmin", &create)?;
        let ca = nodes[0].config.certificates_dir().join("ca_cert.pem");
        let fingerprint = client::join::pem_fingerprint(&std::fs::read_to_string(ca)?)?;
        let first = nodes[0].config.address.to_string();
        for node in &nodes[1..] {
            let join = [
                "cluster",
                "join",
                "nodes",
                &first,
                "username",
                ADMIN,
                "password",
                PASSWORD,
                "ca_fingerprint",
                &fingerprint,
            ];
            node.until("rladmin", &join)?;
        }
        let database = [
            "create",
            "db",
            "demo",
            "memory_size",
            "64MB",
            "port",
            "12000",
            "proxy_policy",
            "all-nodes",
            "persistence",
            "aof",
        ];
        nodes[0].until("rladmin", &database)?;
        Ok(Self {
            nodes,
            _root: root,
            _network: network,
        })
    }

    /// A connection to the database through a node (counted from 0).
    ///
    /// # Errors
    /// When it is refused.
    pub fn connect(&self, node: usize) -> anyhow::Result<redis::Connection> {
        let address = self.nodes[node].config.address;
        let client = redis::Client::open(format!("redis://{address}:12000/"))?;
        let connection = client.get_connection_with_timeout(Duration::from_secs(5))?;
        connection.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(connection)
    }

    /// Waits until every node is heard, every proxy serves and the shard is ok.
    ///
    /// # Errors
    /// When that takes longer than 60 s.
    pub fn whole(&self) -> anyhow::Result<model::rest::ShardInfo> {
        wait::until("the cluster is whole", Duration::from_secs(60), || {
            for node in &self.nodes {
                let nodes: Vec<model::rest::NodeInfo> =
                    node.get("/v1/nodes").map_err(|e| e.to_string())?;
                let well = nodes
                    .iter()
                    .filter(|n| n.status == "active" && n.proxy.is_some());
                if well.count() != self.nodes.len() {
                    return Err(format!("{nodes:?}"));
                }
            }
            let databases: Vec<model::rest::Bdb> =
                self.nodes[0].get("/v1/bdbs").map_err(|e| e.to_string())?;
            let proxies = databases
                .iter()
                .flat_map(|d| &d.endpoints)
                .flat_map(|e| &e.proxies);
            if let Some(bad) = proxies.clone().find(|p| !p.ok) {
                return Err(format!("{bad:?}"));
            }
            let shards: Vec<model::rest::ShardInfo> =
                self.nodes[0].get("/v1/shards").map_err(|e| e.to_string())?;
            match shards.into_iter().next() {
                Some(shard) if shard.detailed_status == "ok" => Ok(shard),
                other => Err(format!("{other:?}")),
            }
        })
    }
}
