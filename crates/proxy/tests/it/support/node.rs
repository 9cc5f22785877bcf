//! A node: folders, `node.toml`, engine, `cnm_exec`'s socket, proxy.

use super::client::Client;
use super::engine::{Engine, PASSWORD, USER};
use super::exec::Exec;
use super::{process, until};
use model::documents::SlotRange;
use model::node_config::{NodeConfig, Ports};
use model::proxy::{ProxyConfig, ProxyDatabase, ProxySettings, ProxyShard, ShardAddress};
use model::tuning::DatabaseTuning;
use model::{DatabaseUid, Epoch, NodeUid, Revision, Secret, ShardUid};
use rustix::process::Signal;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use tempfile::TempDir;

pub const VALKEY: &str = "valkey-9.1.";

/// A node with one database.
pub struct Node {
    pub engine: Engine,
    /// Engines of the other shards.
    pub more: Vec<Engine>,
    pub exec: Exec,
    pub config: ProxyConfig,
    pub node: NodeConfig,
    /// The database's endpoint.
    pub endpoint: SocketAddr,
    launcher: Option<Child>,
    others: Vec<Child>,
    /// What the next launchers find in their environment.
    pub environment: Vec<(&'static str, String)>,
    folder: TempDir,
}

/// An address of this test alone.
fn address() -> Ipv4Addr {
    static COUNT: AtomicU8 = AtomicU8::new(1);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 64 | (high & 63), low, count)
}

impl Node {
    /// With the newest engine and no password.
    pub fn start() -> Self {
        Self::with(VALKEY, |_| {})
    }

    /// With another engine, or another configuration of the proxy.
    pub fn with(engine: &'static str, change: impl FnOnce(&mut ProxyConfig)) -> Self {
        let mut node = Self::prepare(engine, change);
        node.exec.publish(&node.config);
        node.launch();
        node.wait_served();
        node
    }

    /// With a database of so many shards. Every other one is reached over TCP, as if it were on another
    /// node.
    pub fn sharded(engine: &'static str, shards: u16) -> Self {
        let mut node = Self::prepare(engine, |_| {});
        let SocketAddr::V4(first) = node.engine.direct else {
            panic!("IPv4 is used here");
        };
        let database = &mut node.config.databases[0];
        let pattern = database.shards.remove(0);
        for number in 0..shards {
            let address = if number == 0 {
                ShardAddress::Unix(node.engine.socket.clone())
            } else {
                let folder = node.folder.path().join(format!("engine{number}"));
                std::fs::create_dir_all(&folder).unwrap();
                let direct = SocketAddr::new((*first.ip()).into(), first.port() + number);
                let engine = Engine::start(engine, &folder, direct);
                let socket = engine.socket.clone();
                node.more.push(engine);
                if number % 2 == 1 {
                    ShardAddress::Tcp(direct)
                } else {
                    ShardAddress::Unix(socket)
                }
            };
            let slot = |number: u16| (u32::from(number) * 16_384 / u32::from(shards)) as u16;
            database.shards.push(ProxyShard {
                uid: ShardUid(u64::from(number) + 1),
                slots: SlotRange {
                    first: slot(number),
                    last: if number + 1 == shards {
                        16_383
                    } else {
                        slot(number + 1) - 1
                    },
                },
                address,
                ..pattern.clone()
            });
        }
        node.exec.publish(&node.config);
        node.launch();
        node.wait_served();
        node
    }

    /// The engine of a shard.
    pub fn shard(&mut self, number: usize) -> &mut Engine {
        match number.checked_sub(1) {
            None => &mut self.engine,
            Some(number) => &mut self.more[number],
        }
    }

    /// Everything but the proxy.
    pub fn prepare(engine: &'static str, change: impl FnOnce(&mut ProxyConfig)) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("mainstay-proxy-")
            .tempdir()
            .unwrap();
        let (root, ip) = (folder.path(), address());
        for name in ["config", "var/run", "var/persist", "run", "engine"] {
            std::fs::create_dir_all(root.join(name)).unwrap();
        }
        let node = NodeConfig {
            install_id: "test".to_owned(),
            address: IpAddr::V4(ip),
            install_dir: root.join("install"),
            config_dir: root.join("config"),
            var_dir: root.join("var"),
            socket_dir: root.join("run"),
            os_user: "root".to_owned(),
            os_group: "root".to_owned(),
            memory_bytes: None,
            ports: Ports::default(),
        };
        std::fs::write(root.join("config/node.toml"), node.to_toml().unwrap()).unwrap();
        let engine = Engine::start(
            engine,
            &root.join("engine"),
            SocketAddr::new(ip.into(), 20_000),
        );
        let endpoint = SocketAddr::new(ip.into(), 12_000);
        let mut config = ProxyConfig {
            revision: Revision(1),
            cluster_id: "cluster".to_owned(),
            node: NodeUid(1),
            databases: vec![ProxyDatabase {
                drains: false,
                elsewhere: Vec::new(),
                lease: None,
                uid: DatabaseUid(1),
                name: "demo".to_owned(),
                listen: vec![endpoint],
                password: None,
                max_connections: 0,
                tuning: DatabaseTuning::default(),
                shards: vec![whole(&engine)],
            }],
            settings: ProxySettings::fixed(1),
            takes_wishes: true,
            takes_questions: true,
        };
        change(&mut config);
        let exec = Exec::start(&node.proxy_socket());
        Self {
            engine,
            more: Vec::new(),
            exec,
            config,
            node,
            endpoint,
            launcher: None,
            others: Vec::new(),
            environment: Vec::new(),
            folder,
        }
    }

    /// Starts a launcher, as the supervisor would.
    pub fn launch(&mut self) {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join("dmcproxy.log"))
            .unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_dmcproxy"))
            .env(
                "MAINSTAY_CONFIG",
                self.folder.path().join("config/node.toml"),
            )
            .env("RUST_LOG", "debug")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.launcher = Some(child);
    }

    /// Starts a launcher as the child of a shell that stays.
    pub fn launch_under_shell(&self) -> Child {
        let log = self.folder.path().join("dmcproxy.log");
        Command::new("/bin/sh")
            .arg("-c")
            .arg(format!(
                "'{}' 2>>'{}'; exit 1",
                env!("CARGO_BIN_EXE_dmcproxy"),
                log.display()
            ))
            .env(
                "MAINSTAY_CONFIG",
                self.folder.path().join("config/node.toml"),
            )
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    }

    pub fn launcher_pid(&self) -> u32 {
        self.launcher.as_ref().map_or(0, Child::id)
    }

    /// Lets a launcher be; returns its process.
    pub fn take_launcher(&mut self) -> u32 {
        let child = self.launcher.take().unwrap();
        let pid = child.id();
        self.others.push(child);
        pid
    }

    /// Ends the launcher as the supervisor does.
    pub fn stop_launcher(&mut self) {
        if let Some(mut child) = self.launcher.take() {
            process::signal(child.id(), Signal::TERM);
            child.wait().unwrap();
        }
    }

    /// Waits for the launcher to end by itself, and says whether it called that a failure.
    pub fn launcher_fails(&mut self) -> bool {
        self.launcher
            .take()
            .is_some_and(|mut child| !child.wait().unwrap().success())
    }

    /// `supervisorctl restart dmcproxy`.
    pub fn restart_proxy(&mut self) {
        let old = self.server();
        self.stop_launcher();
        self.launch();
        until("a new server speaks", || self.server() != old);
    }

    /// The same, and all clients have gone over: the old server has ended.
    pub fn replace_proxy(&mut self) {
        let old = self.server();
        self.restart_proxy();
        until("the old server has ended", || !process::runs(old));
    }

    /// Process of the server that spoke last.
    pub fn server(&self) -> u32 {
        self.exec.last().map_or(0, |observed| observed.pid)
    }

    /// See [`Engine::look_often`].
    pub fn look_often(&self) {
        for engine in std::iter::once(&self.engine).chain(&self.more) {
            engine.look_often();
        }
    }

    pub fn wait_served(&self) {
        until("the database is served", || {
            self.exec.last().is_some_and(|observed| {
                observed.applied == self.config.revision
                    && observed
                        .databases
                        .iter()
                        .all(|db| db.listening && db.shards_connected)
            })
        });
    }

    /// Changes the configuration and waits until it is applied.
    pub fn reconfigure(&mut self, change: impl FnOnce(&mut ProxyConfig)) {
        change(&mut self.config);
        self.config.revision = self.config.revision.next();
        self.exec.publish(&self.config);
        until("the configuration is applied", || {
            self.exec
                .last()
                .is_some_and(|observed| observed.applied == self.config.revision)
        });
    }

    /// Changes the number of workers.
    pub fn threads(&mut self, count: u32) {
        self.reconfigure(|config| config.settings = ProxySettings::fixed(count));
        until("so many workers serve", || {
            self.exec
                .last()
                .is_some_and(|observed| observed.threads == count)
        });
        self.wait_served();
    }

    pub fn client(&self) -> Client {
        Client::connect(self.endpoint)
    }

    /// A client of the engine itself.
    pub fn direct(&self) -> Client {
        Client::connect(self.engine.direct)
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("dmcproxy.log")).unwrap_or_default()
    }

    pub fn persisted(&self) -> std::path::PathBuf {
        self.node.persist_dir().join("proxy-config.json")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            eprintln!("the proxy's log, newest first:\n{}", tail.join("\n"));
        }
        let mut servers = self.exec.servers();
        for mut child in self.others.drain(..).chain(self.launcher.take()) {
            servers.extend(process::children(child.id()));
            let _ = child.kill();
            let _ = child.wait();
        }
        for pid in servers {
            let program = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
            if program.ends_with("dmcproxy") {
                process::signal(pid, Signal::KILL);
            }
        }
    }
}

/// The shard that has all slots.
fn whole(engine: &Engine) -> ProxyShard {
    ProxyShard {
        uid: ShardUid(1),
        slots: SlotRange {
            first: 0,
            last: 16_383,
        },
        epoch: Epoch(1),
        address: ShardAddress::Unix(engine.socket.clone()),
        user: USER.to_owned(),
        password: Secret::new(PASSWORD),
        serving: true,
        trouble: None,
    }
}
