//! dmcproxy alone: a node's folder, and what `cnm_exec` would tell it.

use super::engine::{Engine, PASSWORD, USER};
use super::options::Link;
use super::processes::{Guarded, program};
use anyhow::Context as _;
use model::documents::SlotRange;
use model::node_config::{CONFIG_ENV, NodeConfig, Ports};
use model::observation::ProxyObservation;
use model::proxy::{ProxyConfig, ProxyDatabase, ProxySettings, ProxyShard, ShardAddress};
use model::{DatabaseUid, Epoch, NodeUid, Revision, Secret, ShardUid};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const BEGIN: Duration = Duration::from_secs(20);
const SLOTS: usize = 16_384;

pub(crate) struct Setting<'a> {
    pub(crate) folder: &'a Path,
    pub(crate) endpoint: SocketAddr,
    pub(crate) engines: &'a [Engine],
    pub(crate) link: Link,
    pub(crate) threads: u32,
}

/// Starts `dmcproxy server`, below another program if `under` says so, and waits until it serves.
/// Gives its worker threads too.
pub(crate) fn start(
    setting: &Setting<'_>,
    dmcproxy: &Path,
    under: Option<&Command>,
) -> anyhow::Result<(Guarded, u32)> {
    let root = setting.folder;
    for name in ["config", "var/run", "var/persist", "run"] {
        std::fs::create_dir_all(root.join(name))?;
    }
    let node = NodeConfig {
        install_id: "bench".to_owned(),
        address: setting.endpoint.ip(),
        install_dir: root.join("install"),
        config_dir: root.join("config"),
        var_dir: root.join("var"),
        socket_dir: root.join("run"),
        os_user: "root".to_owned(),
        os_group: "root".to_owned(),
        memory_bytes: None,
        ports: Ports::default(),
    };
    let path = root.join("config/node.toml");
    std::fs::write(&path, node.to_toml()?)?;
    let listener = UnixListener::bind(node.proxy_socket())?;
    let mut command = match under {
        None => program(dmcproxy),
        Some(wrapper) => {
            let mut command = program(Path::new(wrapper.get_program()));
            command.args(wrapper.get_args()).arg(dmcproxy);
            command
        }
    };
    command.arg("server").env(CONFIG_ENV, &path);
    let log = root.join("dmcproxy.log");
    let mut process = Guarded::start(&mut command, &log)?;
    let last = feed(listener, config(setting))?;
    let threads = testkit::wait::until("dmcproxy serves its database", BEGIN, || {
        let said = || {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            text.lines().rev().take(5).collect::<Vec<_>>().join("\n")
        };
        let last = last.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            _ if process.ended() => Err(format!("it has ended: {}", said())),
            Some(seen) if serves(seen) => Ok(seen.threads),
            Some(seen) => Err(format!("{seen:?}")),
            None => Err(said()),
        }
    })?;
    Ok((process, threads))
}

fn serves(seen: &ProxyObservation) -> bool {
    let ready = |database: &model::observation::ProxyDatabaseObservation| {
        database.listening && database.shards_connected
    };
    !seen.databases.is_empty() && seen.databases.iter().all(ready)
}

fn config(setting: &Setting<'_>) -> ProxyConfig {
    let count = setting.engines.len();
    let slot = |number: usize| u16::try_from(number * SLOTS / count).unwrap_or(0);
    let shards = setting
        .engines
        .iter()
        .enumerate()
        .map(|(number, engine)| ProxyShard {
            uid: ShardUid(number as u64 + 1),
            slots: SlotRange {
                first: slot(number),
                last: slot(number + 1) - 1,
            },
            epoch: Epoch(1),
            address: match setting.link {
                Link::Unix => ShardAddress::Unix(engine.socket.clone()),
                Link::Tcp => ShardAddress::Tcp(engine.tcp),
            },
            user: USER.to_owned(),
            password: Secret::new(PASSWORD),
            serving: true,
            trouble: None,
        })
        .collect();
    ProxyConfig {
        revision: Revision(1),
        cluster_id: "bench".to_owned(),
        node: NodeUid(1),
        databases: vec![ProxyDatabase {
            lease: None,
            drains: false,
            elsewhere: Vec::new(),
            uid: DatabaseUid(1),
            name: "bench".to_owned(),
            listen: vec![setting.endpoint],
            password: None,
            max_connections: 0,
            tuning: model::tuning::DatabaseTuning::default(),
            shards,
        }],
        settings: match setting.threads {
            // As it comes.
            0 => ProxySettings::default(),
            threads => ProxySettings::fixed(threads),
        },
        takes_wishes: false,
        takes_questions: false,
    }
}

type Last = Arc<Mutex<Option<ProxyObservation>>>;

/// Hands the configuration out, and keeps the last thing that the proxy says.
fn feed(listener: UnixListener, config: ProxyConfig) -> anyhow::Result<Last> {
    let mut line = serde_json::to_vec(&config)?;
    line.push(b'\n');
    let last = Last::default();
    let kept = Arc::clone(&last);
    std::thread::Builder::new()
        .name("feed".to_owned())
        .spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                // It connects again if anything goes wrong; whoever waits sees that it does not serve.
                let _ = follow(stream, &line, &kept);
            }
        })
        .context("starting a thread")?;
    Ok(last)
}

fn follow(mut stream: UnixStream, config: &[u8], last: &Last) -> anyhow::Result<()> {
    stream.write_all(config)?;
    for line in BufReader::new(stream).lines() {
        let seen = serde_json::from_str(&line?)?;
        *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(seen);
    }
    Ok(())
}
