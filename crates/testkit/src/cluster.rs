//! Nodes from the build folder, their daemons started directly: fast, without installer and
//! supervisord. Binaries are hard links below an install folder, so that programs find their
//! configuration from their own path, as in a real install.

use crate::addresses::Network;
use crate::apart::Apart;
use crate::wait;
use anyhow::{Context as _, ensure};
use client::rest::RestClient;
use model::ApiError;
use model::node_config::{NodeConfig, Ports};
use std::fs::OpenOptions;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

/// Programs of a release.
pub const PROGRAMS: [&str; 5] = ["cnm_exec", "cnm_http", "dmcproxy", "rladmin", "rlcheck"];
/// Daemons in the order in which they are started.
pub const DAEMONS: [&str; 3] = ["cnm_exec", "cnm_http", "dmcproxy"];
/// First admin of test clusters.
pub const ADMIN: &str = "admin@example.com";
/// Its password.
pub const PASSWORD: &str = "test-password";

/// One node.
#[derive(Debug)]
pub struct Node {
    /// Its configuration.
    pub config: NodeConfig,
    /// The network namespace that it runs in.
    namespace: Option<String>,
    /// The library that has it see another time of day.
    clock: Option<PathBuf>,
    daemons: Vec<(String, Child)>,
}

/// Where `cargo build` puts programs.
#[must_use]
pub fn build_folder() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).join("target/debug")
}

/// Where `cargo xtask engines` puts engines.
#[must_use]
pub fn engines_folder() -> PathBuf {
    match std::env::var_os("MAINSTAY_ENGINES_DIR") {
        Some(path) => path.into(),
        None => build_folder().with_file_name("engines"),
    }
}

impl Node {
    /// Lays a node out below `root`; starts nothing.
    ///
    /// # Errors
    /// When files cannot be made, or the programs are not built.
    pub fn lay_out(root: &Path, address: IpAddr) -> anyhow::Result<Self> {
        let install_dir = root.join("opt");
        let config = NodeConfig {
            install_id: "test".to_owned(),
            address,
            config_dir: root.join("etc"),
            var_dir: root.join("var"),
            socket_dir: root.join("var/run"),
            install_dir: install_dir.clone(),
            os_user: "root".to_owned(),
            os_group: "root".to_owned(),
            memory_bytes: Some(4 << 30),
            // Tests do not depend on who may use port 53.
            ports: Ports {
                dns: 5300,
                ..Ports::default()
            },
        };
        let release = install_dir.join("releases/0.0.0");
        std::fs::create_dir_all(release.join("bin"))?;
        for folder in [
            &config.config_dir,
            &config.socket_dir,
            &config.log_dir(),
            &config.store_dir(),
            &config.shards_dir(),
            &config.tmp_dir(),
        ] {
            std::fs::create_dir_all(folder)?;
        }
        for program in PROGRAMS {
            let from = build_folder().join(program);
            let to = release.join("bin").join(program);
            if !to.exists() && std::fs::hard_link(&from, &to).is_err() {
                std::fs::copy(&from, &to)
                    .with_context(|| format!("{}: run `cargo build`", from.display()))?;
            }
        }
        let engines = engines_folder();
        ensure!(engines.exists(), "no engines: run `cargo xtask engines`");
        link(&engines, &release.join("engines"))?;
        link(&release, &config.current())?;
        link(&config.config_dir, &install_dir.join("config"))?;
        std::fs::write(config.config_dir.join("node.toml"), config.to_toml()?)?;
        Ok(Self {
            config,
            namespace: None,
            clock: None,
            daemons: Vec::new(),
        })
    }

    /// Starts all daemons.
    ///
    /// # Errors
    /// When one cannot be started.
    pub fn start(&mut self) -> anyhow::Result<()> {
        for daemon in DAEMONS {
            self.start_daemon(daemon)?;
        }
        Ok(())
    }

    /// Starts one daemon.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_daemon(&mut self, name: &str) -> anyhow::Result<()> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.config.log_dir().join(format!("{name}.log")))?;
        let mut program = self.program(name);
        if let Some(library) = &self.clock {
            // Its engines and its proxy have it from their parents.
            program
                .env("LD_PRELOAD", library)
                .env("FAKETIME_TIMESTAMP_FILE", self.clock_file())
                .env("FAKETIME_NO_CACHE", "1")
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
        let child = program
            .env("MAINSTAY_MOVE_CUT", self.cut_file())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {name}"))?;
        self.daemons.push((name.to_owned(), child));
        Ok(())
    }

    /// Which line of a move cuts it short on this node, and the processes that are killed there: words of a
    /// file that is gone once it has happened.
    #[must_use]
    pub fn cut_file(&self) -> PathBuf {
        self.config.var_dir.join("cut")
    }

    fn clock_file(&self) -> PathBuf {
        self.config.var_dir.join("clock")
    }

    /// Sets the time of day of this node's processes apart from the machine's, whenever they look at it next. Their
    /// clocks that only go forward stay.
    ///
    /// # Errors
    /// When the file cannot be written; where [`Surroundings::clocks`] was not asked for.
    pub fn set_clock(&self, seconds: i64) -> anyhow::Result<()> {
        ensure!(self.clock.is_some(), "its clock is the machine's");
        let new = self.clock_file().with_extension("new");
        std::fs::write(&new, format!("{seconds:+}"))?;
        Ok(std::fs::rename(new, self.clock_file())?)
    }

    /// Has each write of the configuration store wait so long; zero: as fast as the disk is.
    ///
    /// # Errors
    /// When the file cannot be written or removed.
    pub fn slow_disk(&self, wait: Duration) -> anyhow::Result<()> {
        let file = self.config.store_dir().join("slow-disk");
        match wait.is_zero() {
            true => Ok(std::fs::remove_file(file)?),
            false => Ok(std::fs::write(file, wait.as_millis().to_string())?),
        }
    }

    /// A program of this node, in its network.
    fn program(&self, name: &str) -> Command {
        let path = self.config.current().join("bin").join(name);
        let Some(namespace) = &self.namespace else {
            return Command::new(path);
        };
        // `ip` becomes the program: the process is the same.
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace]).arg(path);
        command
    }

    /// Process of a daemon.
    #[must_use]
    pub fn pid(&self, name: &str) -> Option<u32> {
        self.daemons
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, child)| child.id())
    }

    /// Process of the proxy's server: the child of its launcher.
    #[must_use]
    pub fn proxy_server(&self) -> Option<u32> {
        let launcher = self.pid("dmcproxy")?;
        let path = format!("/proc/{launcher}/task/{launcher}/children");
        let children = std::fs::read_to_string(path).ok()?;
        children.split_whitespace().next()?.parse().ok()
    }

    /// Kills a daemon at once (SIGKILL) and waits for its end.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self, name: &str) -> anyhow::Result<()> {
        let at = self
            .daemons
            .iter()
            .position(|(n, _)| n == name)
            .context("it does not run")?;
        let (_, mut child) = self.daemons.remove(at);
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Starts the daemons again that have ended by themselves, as supervisord does.
    ///
    /// # Errors
    /// When one cannot be started.
    pub fn start_ended(&mut self) -> anyhow::Result<()> {
        let mut ended = Vec::new();
        for (name, child) in &mut self.daemons {
            if child.try_wait()?.is_some() {
                ended.push(name.clone());
            }
        }
        self.daemons.retain(|(name, _)| !ended.contains(name));
        ended.iter().try_for_each(|name| self.start_daemon(name))
    }

    /// Runs `rladmin` on this node.
    ///
    /// # Errors
    /// When it cannot be run; a failed command is in the output.
    pub fn rladmin(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        Ok(self.rladmin_started(arguments)?.wait_with_output()?)
    }

    /// Starts `rladmin` on this node and does not wait for its end.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn rladmin_started(&self, arguments: &[&str]) -> anyhow::Result<Child> {
        Ok(self
            .program("rladmin")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?)
    }

    /// Runs `rladmin` until it succeeds.
    ///
    /// # Errors
    /// When it does not within 20 s.
    pub fn rladmin_until(&self, arguments: &[&str]) -> anyhow::Result<String> {
        wait::until(
            &format!("rladmin {}", arguments.join(" ")),
            Duration::from_secs(20),
            || {
                let output = self.rladmin(arguments).map_err(|e| e.to_string())?;
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                if output.status.success() {
                    return Ok(text);
                }
                Err(format!("{text}{}", String::from_utf8_lossy(&output.stderr)))
            },
        )
    }

    /// Asks this node's REST over its unix socket.
    ///
    /// # Errors
    /// As REST answers.
    pub fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        let client = RestClient::new(self.config.http_socket());
        runtime().block_on(client.get(path))
    }

    /// Sends a body to this node's REST.
    ///
    /// # Errors
    /// As REST answers.
    pub fn send<T: serde::de::DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        body: &serde_json::Value,
    ) -> Result<T, ApiError> {
        let client = RestClient::new(self.config.http_socket());
        runtime().block_on(async {
            match method {
                "PUT" => client.put(path, body).await,
                "DELETE" => client.delete(path).await,
                _ => client.post(path, body).await,
            }
        })
    }

    /// Waits until the node's REST answers.
    ///
    /// # Errors
    /// When it does not within 20 s.
    pub fn ready(&self) -> anyhow::Result<()> {
        wait::until("REST answers", Duration::from_secs(20), || {
            self.get::<serde_json::Value>("/v1/bootstrap")
                .map(drop)
                .map_err(|e| e.to_string())
        })
    }

    /// Kills everything on this node at once (SIGKILL), as the end of its machine does; its files stay.
    ///
    /// # Errors
    /// When a process is still there after 10 s.
    pub fn kill_everything(&mut self) -> anyhow::Result<()> {
        // cnm_exec first: it would start engines again.
        for (_, child) in &mut self.daemons {
            child.kill()?;
        }
        let left = || processes_below(&self.config.var_dir);
        wait::until("every process has ended", Duration::from_secs(10), || {
            let left = left();
            for pid in &left {
                let _ = rustix::process::kill_process(*pid, rustix::process::Signal::KILL);
            }
            for (_, child) in &mut self.daemons {
                let _ = child.try_wait();
            }
            match left.is_empty() {
                true => Ok(()),
                false => Err(format!("{left:?}")),
            }
        })?;
        for (_, mut child) in self.daemons.drain(..) {
            child.wait()?;
        }
        Ok(())
    }

    /// Prints what `cnm_exec` said last: a test has failed, and the folder goes with it.
    fn tell(&self) {
        const LINES: usize = 60;
        let path = self.config.log_dir().join("cnm_exec.log");
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(LINES)..];
        eprintln!("--- {}:\n{}", path.display(), last.join("\n"));
    }

    /// Stops daemons and engines.
    pub fn stop(&mut self) {
        for (_, child) in self.daemons.iter_mut().rev() {
            if let Some(pid) = rustix::process::Pid::from_raw(child.id().cast_signed()) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            }
        }
        for (_, child) in &mut self.daemons {
            let _ = child.wait();
        }
        self.daemons.clear();
        let gone = wait::until("every process has ended", Duration::from_secs(10), || {
            let left = processes_below(&self.config.var_dir);
            for pid in &left {
                let _ = rustix::process::kill_process(*pid, rustix::process::Signal::KILL);
            }
            if left.is_empty() {
                Ok(())
            } else {
                Err(format!("{left:?}"))
            }
        });
        if let Err(error) = gone {
            eprintln!("{error:#}");
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.tell();
        }
        self.stop();
    }
}

/// A runtime for one call.
#[expect(clippy::expect_used, reason = "tests cannot go on without one")]
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

/// What nodes run in.
#[derive(Clone, Copy, Debug, Default)]
pub struct Surroundings {
    /// Each node in a network namespace of its own, so that the way between two can be cut.
    pub apart: bool,
    /// Each node's data on a small disk of its own (a tmpfs), so that it can be filled.
    pub small_disks: bool,
    /// Each node's time of day can be set (Debian: faketime).
    pub clocks: bool,
}

/// Debian's package has it in a folder of the processor's architecture.
fn faketime() -> anyhow::Result<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib")?.flatten();
    let mut libraries = folders.map(|entry| entry.path().join("faketime/libfaketime.so.1"));
    libraries
        .find(|library| library.exists())
        .context("no libfaketime (Debian: faketime)")
}

/// A small file system; unmounted when dropped.
#[derive(Debug)]
struct Disk(PathBuf);

impl Disk {
    fn mount(at: PathBuf) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&at)?;
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=128m", "tmpfs"])
            .arg(&at)
            .status()?;
        ensure!(
            status.success(),
            "no tmpfs on {}: it needs root",
            at.display()
        );
        Ok(Self(at))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let done = Command::new("umount").arg("--lazy").arg(&self.0).status();
        if !done.is_ok_and(|status| status.success()) {
            eprintln!("{} is still mounted", self.0.display());
        }
    }
}

/// Several nodes in one cluster, in a folder and a network of their own.
#[derive(Debug)]
pub struct Cluster {
    /// Its nodes.
    pub nodes: Vec<Node>,
    disks: Vec<Disk>,
    surroundings: Surroundings,
    root: tempfile::TempDir,
    apart: Option<Apart>,
    // Last: what is named after its numbers is gone by then.
    network: Network,
}

impl Cluster {
    /// Starts nodes that belong to no cluster yet.
    ///
    /// # Errors
    /// When they do not start.
    pub fn nodes(count: u8) -> anyhow::Result<Self> {
        Self::lay_out(count, Surroundings::default())
    }

    fn lay_out(count: u8, surroundings: Surroundings) -> anyhow::Result<Self> {
        let network = Network::take()?;
        let apart = match surroundings.apart {
            true => Some(Apart::make(network.numbers(), count)?),
            false => None,
        };
        let root = tempfile::Builder::new()
            .prefix("mst-")
            .tempdir_in("/var/tmp")?;
        let mut cluster = Self {
            nodes: Vec::new(),
            disks: Vec::new(),
            surroundings,
            root,
            apart,
            network,
        };
        for _ in 0..count {
            cluster.add()?;
        }
        for node in &cluster.nodes {
            node.ready()?;
        }
        Ok(cluster)
    }

    /// Starts nodes and makes them a cluster.
    ///
    /// # Errors
    /// When one of them does not become a member.
    pub fn start(count: u8) -> anyhow::Result<Self> {
        Self::nodes(count)?.made_one()
    }

    /// As [`start`](Self::start), in surroundings that faults can be made in. Needs root.
    ///
    /// # Errors
    /// As there, and when the surroundings cannot be made.
    pub fn start_with(count: u8, surroundings: Surroundings) -> anyhow::Result<Self> {
        Self::lay_out(count, surroundings)?.made_one()
    }

    /// The nodes' network namespaces, if they have them.
    pub const fn apart(&mut self) -> Option<&mut Apart> {
        self.apart.as_mut()
    }

    fn made_one(self) -> anyhow::Result<Self> {
        let cluster = self;
        cluster.nodes[0].rladmin_until(&[
            "cluster",
            "create",
            "name",
            "test.local",
            "username",
            ADMIN,
            "password",
            PASSWORD,
        ])?;
        for node in cluster.nodes.iter().skip(1) {
            node.rladmin_until(&cluster.join_words()?)?;
        }
        cluster.settled()?;
        Ok(cluster)
    }

    /// Starts one more node that belongs to no cluster.
    ///
    /// # Errors
    /// When it does not start.
    pub fn add(&mut self) -> anyhow::Result<()> {
        let number = u8::try_from(self.nodes.len() + 1)?;
        let folder = self.root.path().join(format!("n{number}"));
        let address = match &self.apart {
            Some(apart) => apart.address(number),
            None => self.network.address(10 + number),
        };
        if self.surroundings.small_disks {
            self.disks.push(Disk::mount(folder.join("var"))?);
        }
        let mut node = Node::lay_out(&folder, address)?;
        node.namespace = self.apart.as_ref().map(|apart| apart.namespace(number));
        if self.surroundings.clocks {
            node.clock = Some(faketime()?);
            node.set_clock(0)?;
        }
        node.start()?;
        self.nodes.push(node);
        Ok(())
    }

    /// Words of `rladmin` with which a node joins through the first one.
    ///
    /// # Errors
    /// Before the cluster exists.
    pub fn join_words(&self) -> anyhow::Result<[&'static str; 10]> {
        let first = &self.nodes[0].config;
        let ca = std::fs::read_to_string(first.certificates_dir().join("ca_cert.pem"))?;
        let fingerprint = client::join::pem_fingerprint(&ca)?;
        // Leaked: a few bytes a test, so that the words can stand in an array.
        let leak = |text: String| -> &'static str { Box::leak(text.into_boxed_str()) };
        Ok([
            "cluster",
            "join",
            "nodes",
            leak(first.address.to_string()),
            "username",
            ADMIN,
            "password",
            PASSWORD,
            "ca_fingerprint",
            leak(fingerprint),
        ])
    }

    /// Waits until every node is heard and votes or follows.
    ///
    /// # Errors
    /// When that takes longer than 30 s.
    pub fn settled(&self) -> anyhow::Result<()> {
        let count = self.nodes.len();
        let voters = if count.is_multiple_of(2) {
            count - 1
        } else {
            count
        };
        wait::until("every node is heard", Duration::from_secs(30), || {
            let nodes: Vec<model::rest::NodeInfo> =
                self.nodes[0].get("/v1/nodes").map_err(|e| e.to_string())?;
            let cluster: model::rest::ClusterInfo = self.nodes[0]
                .get("/v1/cluster")
                .map_err(|e| e.to_string())?;
            let up = nodes.iter().filter(|n| n.status == "active").count();
            if up == count && cluster.voters.len() == voters && cluster.has_quorum {
                return Ok(());
            }
            Err(format!(
                "{up} of {count} heard, voters {:?}",
                cluster.voters
            ))
        })
    }

    /// Creates a database and waits until it is served.
    ///
    /// # Errors
    /// When it is not within 20 s.
    pub fn create_db(&self, words: &[&str]) -> anyhow::Result<()> {
        let mut all = vec!["create", "db"];
        all.extend(words);
        let output = self.nodes[0].rladmin(&all)?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "{}{error}",
            String::from_utf8_lossy(&output.stdout)
        );
        Ok(())
    }

    /// A connection to an endpoint through the proxy of a node (counted from 0).
    ///
    /// # Errors
    /// When it is refused.
    pub fn connect(&self, node: usize, port: u16) -> anyhow::Result<redis::Connection> {
        let address = self.nodes[node].config.address;
        let client = redis::Client::open(format!("redis://{address}:{port}/"))?;
        let connection = client.get_connection_with_timeout(Duration::from_secs(5))?;
        connection.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(connection)
    }
}

fn link(target: &Path, at: &Path) -> anyhow::Result<()> {
    if at.symlink_metadata().is_err() {
        std::os::unix::fs::symlink(target, at)?;
    }
    Ok(())
}

/// Processes whose working directory lies below a folder: the engines and the proxy server of a
/// node, which are nobody's children.
#[must_use]
pub fn processes_below(folder: &Path) -> Vec<rustix::process::Pid> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|n| n.parse::<i32>().ok())
        else {
            continue;
        };
        let below = |name: &str| {
            std::fs::read_link(entry.path().join(name)).is_ok_and(|path| path.starts_with(folder))
        };
        let install = folder.parent().unwrap_or(folder);
        let program = std::fs::read_link(entry.path().join("exe"))
            .is_ok_and(|path| path.starts_with(install));
        if below("cwd") || program {
            found.extend(rustix::process::Pid::from_raw(pid));
        }
    }
    found
}
