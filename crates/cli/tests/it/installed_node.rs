//! A node as an install leaves it: release, folders, supervisord, sockets, engines.

use crate::fake_node::FakeNode;
use crate::fixtures::Cluster;
use agent::ledger::{Ledger, ProcessRecord};
use agent::shard_folder::ShardFolder;
use jiff::Timestamp;
use model::command::{EngineSettings, EngineSpec};
use model::documents::{EngineUsers, EvictionPolicy, Persistence};
use model::node_config::NodeIdentity;
use model::release::{FileEntry, Manifest, SupportedPaths};
use model::rest::Bootstrap;
use model::{DatabaseUid, Generation, NodeUid, Secret, ShardUid};
use rustix::fs::{FlockOperation, flock};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A host's settings are not the node's, so most tests leave them out.
pub(crate) const NODE_ALONE: &str = "--suppress-tests=verify_host_settings,verify_port_range";

/// A node that is installed, its services run, its proxy listens.
pub(crate) struct Installed {
    pub(crate) node: FakeNode,
    /// Sockets that are listened on as long as they are here.
    pub(crate) sockets: Vec<UnixListener>,
}

fn me(option: &str) -> String {
    let output = Command::new("id").arg(option).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

pub(crate) fn file(path: &Path, text: &str, mode: u32) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn release(folder: &Path) {
    let programs = [
        "bin/rladmin",
        "bin/cnm_exec",
        "engines/valkey-9.1.2/bin/valkey-server",
    ];
    let mut files = BTreeMap::new();
    for name in programs {
        let text = format!("program {name}");
        file(&folder.join(name), &text, 0o755);
        let entry = FileEntry {
            sha256: Sha256::digest(&text)
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect(),
            mode: "0755".to_owned(),
            size: text.len() as u64,
        };
        files.insert(format!("release/{name}"), entry);
    }
    let manifest = Manifest {
        schema: 1,
        product: "mainstay".to_owned(),
        version: "1.0.0".parse().unwrap(),
        build_id: "0123456789abcdef".to_owned(),
        os: "linux".to_owned(),
        arch: "amd64".to_owned(),
        feature_min: 1,
        feature_max: 1,
        engines: Vec::new(),
        supervisor_version: "4.3.0".to_owned(),
        supported_paths: SupportedPaths::default(),
        glibc_min: "2.36".to_owned(),
        profile: "fast".to_owned(),
        files,
    };
    file(
        &folder.join("manifest.json"),
        &serde_json::to_string(&manifest).unwrap(),
        0o640,
    );
}

/// supervisord that runs these programs, in these states.
pub(crate) fn supervisord(path: &Path, programs: &'static [(&'static str, &'static str)]) {
    let _ = fs::remove_file(path);
    let listener = UnixListener::bind(path).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            answer_supervisord(stream, programs);
        }
    });
}

fn answer_supervisord(mut stream: UnixStream, programs: &[(&str, &str)]) {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    while !request.ends_with(b"</methodCall>") {
        match stream.read(&mut buffer) {
            Ok(read) if read > 0 => request.extend_from_slice(&buffer[..read]),
            _ => return,
        }
    }
    let member = |name: &str, value: &str| {
        format!("<member><name>{name}</name><value>{value}</value></member>")
    };
    let items: String = programs
        .iter()
        .map(|(name, state)| {
            format!(
                "<value><struct>{}{}{}{}</struct></value>",
                member("name", &format!("<string>{name}</string>")),
                member("statename", &format!("<string>{state}</string>")),
                member("pid", &format!("<int>{}</int>", std::process::id())),
                member("start", "<int>1785585600</int>"),
            )
        })
        .collect();
    let body = format!(
        "<?xml version='1.0'?><methodResponse><params><param><value><array><data>{items}</data>\
         </array></value></param></params></methodResponse>"
    );
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let _ = stream.write_all((head + &body).as_bytes());
}

const RUNNING: &[(&str, &str)] = &[
    ("cnm_exec", "RUNNING"),
    ("cnm_http", "RUNNING"),
    ("dmcproxy", "RUNNING"),
];

impl Installed {
    pub(crate) fn new() -> Self {
        let mut node = FakeNode::new();
        let config = &mut node.config;
        config.address = "127.0.0.1".parse().unwrap();
        (config.os_user, config.os_group) = (me("-un"), me("-gn"));
        node.write_config();
        let config = &node.config;
        let folder = config.install_dir.join("releases/1.0.0");
        release(&folder);
        symlink(&folder, config.current()).unwrap();
        for folder in [config.shards_dir(), config.store_dir(), config.tmp_dir()] {
            fs::create_dir_all(&folder).unwrap();
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o750)).unwrap();
        }
        supervisord(&config.supervisor_socket(), RUNNING);
        let sockets = [
            config.exec_socket(),
            config.proxy_socket(),
            config.handover_socket(),
        ]
        .iter()
        .map(|path| UnixListener::bind(path).unwrap())
        .collect();
        let mut bootstrap = Bootstrap::default();
        "completed".clone_into(&mut bootstrap.bootstrap_status.state);
        node.answer("GET /v1/bootstrap", &bootstrap);
        Self { node, sockets }
    }

    /// It is node 1 of a cluster whose other nodes are down.
    pub(crate) fn in_a_cluster(&self) {
        let identity = NodeIdentity {
            schema: 1,
            node: NodeUid(1),
            cluster_id: "c".to_owned(),
            cluster_name: "cluster.local".to_owned(),
        };
        let text = serde_json::to_string(&identity).unwrap();
        file(&self.node.config.identity_path(), &text, 0o640);
        let mut cluster = Cluster::well();
        cluster.nodes[0].addr = self.node.config.address.to_string();
        cluster.silence(2, 60.0).silence(3, 60.0);
        cluster.shards.truncate(1);
        cluster.show(&self.node);
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = self
            .node
            .program("rlcheck")
            .args(arguments)
            .output()
            .unwrap();
        (
            output.status.code().unwrap(),
            self.node.clean(&String::from_utf8(output.stdout).unwrap()),
            self.node.clean(&String::from_utf8(output.stderr).unwrap()),
        )
    }

    /// The failures of one test.
    pub(crate) fn failures_of(&self, test: &str) -> Vec<String> {
        let (_, out, _) = self.run(&["--json", "--continue-on-error", NODE_ALONE]);
        let report: Value = serde_json::from_str(&out).unwrap();
        let found = report["tests"]
            .as_array()
            .unwrap()
            .iter()
            .find(|t| t["test"] == test)
            .unwrap();
        let texts = found["failures"].as_array().unwrap();
        texts
            .iter()
            .map(|text| text.as_str().unwrap().to_owned())
            .collect()
    }

    /// An engine of shard 1: a process that holds the lock of the shard's folder.
    pub(crate) fn engine(&self) -> Engine {
        let folder = ShardFolder::of(&self.node.config, ShardUid(1));
        fs::create_dir_all(folder.path()).unwrap();
        let lock = File::create(folder.lock_path()).unwrap();
        flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
        let process = Command::new("sleep")
            .arg("600")
            .stdin(Stdio::from(lock))
            .current_dir(folder.path())
            .spawn()
            .unwrap();
        let pid = process.id();
        let mut ledger = Ledger::new(spec());
        ledger.process = Some(ProcessRecord {
            pid,
            process_group: pid,
            start_time: 1,
            boot_id: String::new(),
            executable: "/bin/sleep".into(),
            engine: "valkey-9.1.2".parse().unwrap(),
            generation: Generation(1),
            port: 20_000,
            run_id: None,
            started: Timestamp::now(),
        });
        ledger.write(&folder.ledger_path()).unwrap();
        fs::write(folder.pid_path(), format!("{pid}\n")).unwrap();
        let socket = UnixListener::bind(self.node.config.shard_socket(ShardUid(1))).unwrap();
        Engine {
            process,
            folder,
            _socket: socket,
        }
    }
}

pub(crate) struct Engine {
    process: Child,
    pub(crate) folder: ShardFolder,
    _socket: UnixListener,
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn spec() -> EngineSpec {
    let secret = || Secret::new("x");
    EngineSpec {
        shard: ShardUid(1),
        database: DatabaseUid(1),
        generation: Generation(1),
        engine: "valkey-9.1.2".parse().unwrap(),
        port: 20_000,
        settings: EngineSettings {
            memory_bytes: 1 << 30,
            eviction_policy: EvictionPolicy::Noeviction,
            persistence: Persistence::Disabled,
            notify_keyspace_events: String::new(),
        },
        users: EngineUsers {
            cnm: secret(),
            repl: secret(),
            proxy: secret(),
        },
    }
}
