//! A node for a test: folders, an address, engines of the workspace, and clients.

use agent::ledger::Ledger;
use agent::shard_folder::ShardFolder;
use agent::{Agent, AgentConfig};
use model::command::{AgentCommand, AgentRefusal, EngineSettings, EngineSpec};
use model::documents::{EngineUsers, EvictionPolicy, Persistence, Role, proxy_user};
use model::node_config::{NodeConfig, Ports};
use model::observation::{EngineState, ShardObservation};
use model::release::EngineId;
use model::{DatabaseUid, Epoch, Generation, OperationUid, Secret, ShardUid};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Longest wait for anything.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);
/// The shard of most tests.
pub(crate) const SHARD: ShardUid = ShardUid(1);
/// Its port.
pub(crate) const PORT: u16 = 20_001;

/// Folder with the engines that `cargo xtask engines` makes.
pub(crate) fn engines_dir() -> PathBuf {
    let dir = std::env::var_os("MAINSTAY_ENGINES_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/engines"),
        PathBuf::from,
    );
    assert!(
        !found_in(&dir).is_empty(),
        "no engine in {}: run `cargo xtask engines`, or set MAINSTAY_ENGINES_DIR",
        dir.display()
    );
    fs::canonicalize(dir).unwrap()
}

fn found_in(dir: &Path) -> Vec<EngineId> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut engines: Vec<EngineId> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<EngineId>().ok())
        .filter(|id| {
            dir.join(id.to_string())
                .join("bin")
                .join(id.name.server())
                .is_file()
        })
        .collect();
    engines.sort_by_key(EngineId::age_key);
    engines
}

/// All engines at hand, oldest first.
pub(crate) fn engines() -> Vec<EngineId> {
    found_in(&engines_dir())
}

/// The newest.
pub(crate) fn newest() -> EngineId {
    engines().pop().unwrap()
}

/// A node in a folder of its own. When it is dropped its engines are ended.
pub(crate) struct Node {
    pub(crate) config: AgentConfig,
    // Deleted when dropped; after the engines.
    folder: tempfile::TempDir,
}

impl Node {
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("agent-")
            .tempdir_in("/tmp")
            .unwrap();
        let root = folder.path();
        let release = root.join("releases/1.0.0");
        fs::create_dir_all(&release).unwrap();
        std::os::unix::fs::symlink(engines_dir(), release.join("engines")).unwrap();
        let node = NodeConfig {
            install_id: "test".to_owned(),
            address: free_address(),
            install_dir: root.to_path_buf(),
            config_dir: root.join("etc"),
            var_dir: root.join("var"),
            socket_dir: root.join("run"),
            os_user: "mainstay".to_owned(),
            os_group: "mainstay".to_owned(),
            memory_bytes: None,
            ports: Ports::default(),
        };
        fs::create_dir_all(&node.socket_dir).unwrap();
        let mut config = AgentConfig::new(node, release);
        config.probe_every = Duration::from_millis(100);
        Self { config, folder }
    }

    pub(crate) fn root(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) async fn agent(&self) -> Agent {
        Agent::start(self.config.clone()).await.unwrap()
    }

    pub(crate) fn shard_folder(&self) -> ShardFolder {
        ShardFolder::of(&self.config.node, SHARD)
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.shard_folder().path().join(name)
    }

    /// A connection as the agent's user.
    pub(crate) fn as_cnm(&self) -> redis::Connection {
        self.connect("cnm", "cnm-password").unwrap()
    }

    /// A connection as a proxy of an epoch.
    pub(crate) fn as_proxy(&self, epoch: u64) -> redis::RedisResult<redis::Connection> {
        self.connect(
            &proxy_user(Epoch(epoch)),
            &format!("proxy-password-{epoch}"),
        )
    }

    pub(crate) fn connect(
        &self,
        user: &str,
        password: &str,
    ) -> redis::RedisResult<redis::Connection> {
        let socket = self.config.node.shard_socket(SHARD);
        let user = user.replace('@', "%40");
        let url = format!("unix://{}?user={user}&pass={password}", socket.display());
        redis::Client::open(url)?.get_connection()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for folder in ShardFolder::list(&self.config.node).unwrap_or_default() {
            // The lock proves that the recorded process, or a child of it, is ours and lives.
            if !folder.is_locked().unwrap_or(false) {
                continue;
            }
            for pid in folder
                .read_pid_file()
                .into_iter()
                .chain(recorded_pid(&folder))
            {
                if stdin_is(pid, &folder.lock_path()) {
                    kill(pid, rustix::process::Signal::KILL);
                }
            }
            // Fork children; a group with one of ours in it is ours.
            if let Some(pid) = recorded_pid(&folder).and_then(raw) {
                let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
            }
        }
    }
}

fn recorded_pid(folder: &ShardFolder) -> Option<u32> {
    Some(folder.read_ledger().ok()??.process?.pid)
}

fn stdin_is(pid: u32, path: &Path) -> bool {
    fs::canonicalize(format!("/proc/{pid}/fd/0")).ok() == fs::canonicalize(path).ok()
}

/// An address of the loopback network on which the tests' ports are free.
fn free_address() -> IpAddr {
    let random = || {
        tempfile::Builder::new()
            .rand_bytes(3)
            .prefix("")
            .tempfile()
            .unwrap()
    };
    loop {
        let bytes = random()
            .path()
            .file_name()
            .unwrap()
            .as_encoded_bytes()
            .to_vec();
        let part = |i: usize| 1 + bytes[i] % 250;
        let address = IpAddr::V4(Ipv4Addr::new(127, 64 + part(0) % 64, part(1), part(2)));
        if TcpListener::bind((address, PORT)).is_ok() {
            return address;
        }
    }
}

/// What is written down of the shard.
pub(crate) fn ledger(node: &Node) -> Ledger {
    node.shard_folder().read_ledger().unwrap().unwrap()
}

/// Changes it, as if the agent had died there.
pub(crate) fn change_ledger(node: &Node, change: impl FnOnce(&mut Ledger)) {
    let mut ledger = ledger(node);
    change(&mut ledger);
    ledger.write(&node.shard_folder().ledger_path()).unwrap();
}

pub(crate) fn users(epoch: u64) -> EngineUsers {
    EngineUsers {
        cnm: Secret::new("cnm-password"),
        repl: Secret::new("repl password \"#\\"),
        proxy: Secret::new(format!("proxy-password-{epoch}")),
    }
}

pub(crate) fn spec(engine: EngineId) -> EngineSpec {
    EngineSpec {
        shard: SHARD,
        database: DatabaseUid(7),
        generation: Generation(1),
        engine,
        port: PORT,
        settings: EngineSettings {
            memory_bytes: 256 * 1024 * 1024,
            eviction_policy: EvictionPolicy::Noeviction,
            persistence: Persistence::Disabled,
            notify_keyspace_events: String::new(),
        },
        users: users(0),
    }
}

pub(crate) fn make_primary(run_id: &str, epoch: u64) -> AgentCommand {
    AgentCommand::MakePrimary {
        shard: SHARD,
        generation: Generation(1),
        run_id: run_id.to_owned(),
        epoch: Epoch(epoch),
        users: users(epoch),
    }
}

pub(crate) fn remove() -> AgentCommand {
    AgentCommand::RemoveEngine {
        shard: SHARD,
        generation: Generation(1),
        operation: OperationUid::fresh(),
    }
}

/// Orders the engine and waits until it has loaded its data.
pub(crate) async fn run(agent: &Agent, spec: &EngineSpec) -> ShardObservation {
    agent
        .execute(AgentCommand::EnsureEngine(spec.clone()))
        .await
        .unwrap();
    seen(agent, |shard| shard.state == EngineState::Running).await
}

/// The same, and makes it the primary.
pub(crate) async fn serve(agent: &Agent, spec: &EngineSpec, epoch: u64) -> ShardObservation {
    let shard = run(agent, spec).await;
    let command = match make_primary(shard.run_id.as_deref().unwrap(), epoch) {
        AgentCommand::MakePrimary {
            shard,
            run_id,
            epoch,
            users,
            ..
        } => AgentCommand::MakePrimary {
            shard,
            generation: spec.generation,
            run_id,
            epoch,
            users,
        },
        other => other,
    };
    let shard = agent.execute(command).await.unwrap().unwrap();
    assert_eq!(
        (shard.role, shard.epoch),
        (Some(Role::Primary), Some(Epoch(epoch)))
    );
    shard
}

/// Waits until the shard looks so.
pub(crate) async fn seen(
    agent: &Agent,
    looks: impl Fn(&ShardObservation) -> bool,
) -> ShardObservation {
    let until = Instant::now() + DEADLINE;
    loop {
        let shards = agent.shards();
        if let Some(shard) = shards
            .iter()
            .find(|shard| shard.shard == SHARD && looks(shard))
        {
            return shard.clone();
        }
        assert!(Instant::now() < until, "never seen, but {shards:?}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until something holds.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < until, "never: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) fn kill(pid: u32, signal: rustix::process::Signal) {
    if let Some(pid) = raw(pid) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

fn raw(pid: u32) -> Option<rustix::process::Pid> {
    rustix::process::Pid::from_raw(i32::try_from(pid).ok()?)
}

pub(crate) fn kill_hard(pid: u32) {
    kill(pid, rustix::process::Signal::KILL);
}

/// State letter of a process; `None` when it is gone.
pub(crate) fn process_state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

pub(crate) fn set(connection: &mut redis::Connection, key: &str, value: &str) {
    redis::cmd("SET")
        .arg(key)
        .arg(value)
        .exec(connection)
        .unwrap();
}

pub(crate) fn get(connection: &mut redis::Connection, key: &str) -> Option<String> {
    redis::cmd("GET").arg(key).query(connection).unwrap()
}

/// One command given as words.
pub(crate) fn say<T: redis::FromRedisValue>(
    connection: &mut redis::Connection,
    words: &str,
) -> redis::RedisResult<T> {
    let mut words = words.split(' ');
    let mut command = redis::cmd(words.next().unwrap());
    for word in words {
        command.arg(word);
    }
    command.query(connection)
}

/// A field of `INFO`.
pub(crate) fn info(connection: &mut redis::Connection, field: &str) -> String {
    let text: String = say(connection, "INFO").unwrap();
    let wanted = format!("{field}:");
    let line = text.lines().find_map(|line| line.strip_prefix(&wanted));
    line.unwrap_or_else(|| panic!("{field} in {text}"))
        .to_owned()
}

pub(crate) fn failed(result: Result<Option<ShardObservation>, AgentRefusal>) -> String {
    match result {
        Err(AgentRefusal::Failed { reason }) => reason,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn stale(result: Result<Option<ShardObservation>, AgentRefusal>) -> String {
    match result {
        Err(AgentRefusal::Stale { reason }) => reason,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn not_yet(result: Result<Option<ShardObservation>, AgentRefusal>) -> String {
    match result {
        Err(AgentRefusal::NotYet { reason }) => reason,
        other => panic!("{other:?}"),
    }
}
