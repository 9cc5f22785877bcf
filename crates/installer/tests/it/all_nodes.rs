//! Three nodes of the last release upgraded by one command to this tree, and taken back, while clients write and read.

use crate::bench::{
    Bench, FIRST, Ran, Release, bundle, copy_of, is_root, last_release, ran, replace_signed,
    this_tree, wait_until_within,
};
use crate::load::Load;
use client::rest::RestClient;
use installer::processes::Process;
use model::node_config::NodeConfig;
use model::rest::{Bdb, NodeInfo, ShardInfo};
use rustix::process::Signal;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const LONG: Duration = Duration::from_mins(4);

/// Three nodes in one cluster with a replicated database on port 12000.
pub(crate) struct Three {
    bench: Bench,
}

impl Three {
    pub(crate) fn start() -> Self {
        Self::start_from(&bundle(FIRST))
    }

    pub(crate) fn start_from(bundle: &Path) -> Self {
        let three = Self {
            bench: Bench::new(),
        };
        for node in 1..=3 {
            let folders = ["opt", "etc", "var"].map(|name| three.folder(node, name));
            let [opt, etc, var] = folders.each_ref().map(|path| path.to_str().unwrap());
            let places = ["--install-dir", opt, "--config-dir", etc, "--var-dir", var];
            let more = ["--memory", "1GB", "--dns-port", "5300"];
            let ran = three.install_sh(node, bundle, &[&places[..], &more].concat());
            assert_eq!(ran.code, Some(0), "{}", ran.text);
        }
        let words =
            "cluster create name test.local username admin@test.local password secret-of-the-test";
        three.good(1, words);
        let info = three.good(1, "info cluster --json");
        let info: serde_json::Value = serde_json::from_str(&info).unwrap();
        let fingerprint = info["ca_fingerprint"].as_str().unwrap();
        for node in 2..=3 {
            let words = format!(
                "cluster join nodes {} username admin@test.local password secret-of-the-test ca_fingerprint \
                 {fingerprint}",
                three.address(1)
            );
            three.good(node, &words);
        }
        three.good(
            1,
            "create db demo memory_size 64MB port 12000 proxy_policy all-nodes replication enabled",
        );
        three
    }

    pub(crate) fn address(&self, node: u8) -> Ipv4Addr {
        let [a, b, c, _] = self.bench.address.octets();
        Ipv4Addr::new(a, b, c, 10 + node)
    }

    pub(crate) fn folder(&self, node: u8, name: &str) -> PathBuf {
        self.bench.path(&format!("n{node}")).join(name)
    }

    fn command(&self, node: u8, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .arg("--address")
            .arg(self.address(node).to_string())
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn install_sh(&self, node: u8, bundle: &Path, more: &[&str]) -> Ran {
        let output = self
            .command(node, &bundle.join("install.sh"))
            .args(["-y", "--skip-dns-port-verification"])
            .args(more)
            .env("MAINSTAY_INSTALL_WATCH", "1")
            .env("MAINSTAY_INSTALL_PATIENCE", "30")
            .output();
        ran(&output.unwrap())
    }

    pub(crate) fn rladmin(&self, node: u8, words: &str) -> Ran {
        let program = self.folder(node, "opt/mainstay/bin/rladmin");
        let output = Command::new(program)
            .args(words.split(' '))
            .stdin(Stdio::null())
            .output();
        ran(&output.unwrap())
    }

    pub(crate) fn good(&self, node: u8, words: &str) -> String {
        let ran = self.rladmin(node, words);
        assert_eq!(ran.code, Some(0), "{words}: {}", ran.text);
        ran.text
    }

    /// What the cluster says of the run.
    pub(crate) fn report(&self, node: u8) -> serde_json::Value {
        let ran = self.rladmin(node, "cluster upgrade report --json");
        serde_json::from_str(&ran.text).unwrap_or_default()
    }

    /// As [`Self::report`], of a node that answers.
    pub(crate) fn report_of_any(&self) -> serde_json::Value {
        let mut report = serde_json::Value::Null;
        wait_until_within("a node tells of the run", LONG, || {
            let mut reports = (1..=3).map(|node| self.report(node));
            let answered = reports.find(|report| report["nodes"].is_array());
            report = answered.unwrap_or_default();
            report["nodes"].is_array()
        });
        report
    }

    /// A path beside the nodes' folders.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.bench.path(name)
    }

    /// Asks the REST of a node that answers.
    pub(crate) fn rest<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T, String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let mut last = String::new();
        for node in 1..=3 {
            let text = fs::read_to_string(self.folder(node, "etc/mainstay/node.toml")).unwrap();
            let config = NodeConfig::parse(&text).unwrap();
            let client = RestClient::new(config.http_socket());
            match runtime.block_on(client.get(path)) {
                Ok(answer) => return Ok(answer),
                Err(error) => last = format!("node {node}: {error}"),
            }
        }
        Err(last)
    }

    /// Whether every node is heard, every proxy serves and every copy has all data.
    pub(crate) fn whole(&self) -> Result<(), String> {
        let nodes: Vec<NodeInfo> = self.rest("/v1/nodes")?;
        let well = |node: &&NodeInfo| node.status == "active" && node.proxy.is_some();
        if nodes.iter().filter(well).count() != 3 {
            return Err(format!("{nodes:?}"));
        }
        // What is told may be of before a process was killed.
        let gone = |pid: Option<u32>| pid.is_none_or(|pid| Process::of(pid).is_none());
        let services = nodes.iter().flat_map(|node| &node.services);
        if let Some((name, _)) = services.clone().find(|(_, service)| gone(service.pid)) {
            return Err(format!("{name} is not heard"));
        }
        let databases: Vec<Bdb> = self.rest("/v1/bdbs")?;
        let endpoints = databases.iter().flat_map(|database| &database.endpoints);
        let mut proxies = endpoints.flat_map(|endpoint| &endpoint.proxies);
        if let Some(bad) = proxies.find(|proxy| !proxy.ok) {
            return Err(format!("{bad:?}"));
        }
        let shards: Vec<ShardInfo> = self.rest("/v1/shards")?;
        let whole = |shard: &&ShardInfo| {
            let synced = shard.sync.as_ref().is_none_or(|sync| sync.status == "idle");
            shard.detailed_status == "ok" && synced && !gone(shard.pid)
        };
        if shards.len() == 2 && shards.iter().filter(whole).count() == 2 {
            return Ok(());
        }
        Err(format!("{shards:?}"))
    }

    /// Waits until it is whole.
    pub(crate) fn is_well(&self) {
        wait_until_within("the cluster is whole", LONG, || self.whole().is_ok());
    }

    pub(crate) fn is_ready(&self) {
        wait_until_within("nothing stands against an upgrade", LONG, || {
            self.rladmin(1, "cluster upgrade plan").code == Some(0)
        });
    }

    pub(crate) fn versions(&self) -> Vec<String> {
        (1..=3)
            .map(|node| {
                let current = fs::read_link(self.folder(node, "opt/mainstay/current")).unwrap();
                current.file_name().unwrap().to_string_lossy().into_owned()
            })
            .collect()
    }

    /// Pids of every engine, which must stay.
    pub(crate) fn engines(&self) -> Vec<String> {
        let mut pids = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let program = fs::read_link(entry.path().join("exe")).unwrap_or_default();
            let ours = program.starts_with(self.bench.root.path());
            if ours && program.ends_with("valkey-server") {
                pids.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        pids.sort();
        pids
    }

    /// Kills a daemon of a node.
    fn kill(&self, node: u8, name: &str) {
        self.signal(node, name, Signal::KILL);
    }

    pub(crate) fn signal(&self, node: u8, name: &str, signal: Signal) {
        let folder = self.folder(node, "opt/mainstay/releases");
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let program = fs::read_link(entry.path().join("exe")).unwrap_or_default();
            if program.starts_with(&folder) && program.ends_with(name) {
                let pid = entry.file_name().to_string_lossy().parse().unwrap();
                let pid = rustix::process::Pid::from_raw(pid).unwrap();
                let _ = rustix::process::kill_process(pid, signal);
            }
        }
    }
}

impl Drop for Three {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for node in 1..=3 {
                let log = self.folder(node, "var/mainstay/log");
                for name in ["install.log", "cnm_exec.log"] {
                    let text = fs::read_to_string(log.join(name)).unwrap_or_default();
                    let lines: Vec<&str> = text.lines().collect();
                    let last = &lines[lines.len().saturating_sub(25)..];
                    eprintln!("--- node {node} {name}\n{}", last.join("\n"));
                }
            }
        }
        for node in 1..=3 {
            let program = bundle(FIRST).join("release/bin/mainstay-install");
            let address = self.address(node).to_string();
            let removed = Command::new(program)
                .args(["uninstall", "-y", "--address", &address])
                .output();
            let removed = ran(&removed.unwrap());
            if removed.code != Some(0) {
                eprintln!("node {node} is not removed: {}", removed.text);
            }
        }
    }
}

/// The tar of an unpacked bundle.
pub(crate) fn tar_of(folder: &Path, into: &Path) -> PathBuf {
    let names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    let status = Command::new("tar")
        .args(["--format=ustar", "--owner=0", "--group=0", "-cf"])
        .arg(into)
        .arg("-C")
        .arg(folder)
        .args(names)
        .status()
        .unwrap();
    assert!(status.success());
    into.to_path_buf()
}

#[test]
fn forward_back_and_a_broken_release_under_load() {
    if !is_root() {
        return;
    }
    let (last, this) = (last_release(), this_tree());
    let three = Three::start_from(&last.bundle);
    let engines = three.engines();
    assert_eq!(engines.len(), 2);
    let tar = tar_of(&this.bundle, &three.bench.path("second.tar"));
    three.is_ready();
    refused(&three, &this, &tar);

    let load = Load::start((1..=3).map(|node| three.address(node)));
    let text = three.good(
        1,
        &format!(
            "cluster upgrade start bundle {} hold_finalize",
            tar.display()
        ),
    );
    assert!(
        text.contains(&format!(
            "The upgrade of all nodes to {} has begun",
            this.version
        )),
        "{text}"
    );
    // The primary node's cnm_exec is killed as soon as its turn has begun, and that of another one in between.
    wait_until_within("a turn begins", LONG, || {
        three.report(2)["nodes"][0]["state"] == "turn"
    });
    three.kill(1, "cnm_exec");
    three.kill(3, "cnm_exec");
    let watched = three.good(2, "cluster upgrade watch");
    assert!(watched.contains("done, 3 of 3 nodes"), "{watched}");
    assert!(watched.contains("connections kept, 0 errors"), "{watched}");
    assert_eq!(three.versions(), [&*this.version; 3]);
    load.goes_on();
    let report = three.report(3);
    assert_eq!(report["state"], "done");
    assert_eq!(report["nodes"][0]["uid"], 1, "{report}");
    assert!(
        report["nodes"][2]["clients_kept"].as_u64() > Some(0),
        "{report}"
    );
    let status = three.good(2, "cluster upgrade status");
    assert!(
        status.contains("3 of 3 nodes") || status.contains("all nodes are done"),
        "{status}"
    );

    three.good(3, "cluster upgrade rollback -y");
    let watched = three.good(1, "cluster upgrade watch");
    assert!(
        watched.contains(&format!(
            "back from {} to {}: done",
            this.version, last.version
        )),
        "{watched}"
    );
    assert_eq!(three.versions(), [&*last.version; 3]);
    load.goes_on();
    broken(&three, &this);
    assert_eq!(three.versions(), [&*last.version; 3]);
    load.goes_on();
    load.ends_well();
    assert_eq!(three.engines(), engines, "engines were restarted");
    three.bench_is_left();
}

/// Refused with a code before anything is begun.
fn refused(three: &Three, this: &Release, tar: &Path) {
    for (words, why) in [
        ("cluster upgrade pause", "upgrade_no_run"),
        ("cluster upgrade resume", "upgrade_no_run"),
        ("cluster upgrade rollback -y", "upgrade_no_run"),
        ("cluster upgrade report", "upgrade_no_run"),
        ("cluster upgrade watch", "upgrade_no_run"),
        (
            "cluster upgrade start bundle /etc/passwd",
            "no tar of a release",
        ),
        ("cluster upgrade start", "bundle"),
    ] {
        let ran = three.rladmin(1, words);
        assert_ne!(ran.code, Some(0), "{words}: {}", ran.text);
        assert!(ran.text.contains(why), "{words}: {}", ran.text);
    }
    // A file that nobody signed.
    let folder = copy_of(&this.bundle, &three.bench.path("more"));
    fs::write(folder.join("more"), "x").unwrap();
    let more = tar_of(&folder, &three.bench.path("more.tar"));
    let ran = three.rladmin(
        1,
        &format!("cluster upgrade start bundle {}", more.display()),
    );
    assert!(ran.text.contains("upgrade_bundle_refused"), "{}", ran.text);
    assert!(ran.text.contains("was not signed: more"), "{}", ran.text);
    // One that was altered.
    fs::remove_file(folder.join("more")).unwrap();
    fs::write(folder.join("install.sh"), "#!/bin/sh\ntouch /owned\n").unwrap();
    let altered = tar_of(&folder, &three.bench.path("altered.tar"));
    let ran = three.rladmin(
        1,
        &format!("cluster upgrade start bundle {}", altered.display()),
    );
    assert!(ran.text.contains("upgrade_bundle_refused"), "{}", ran.text);
    fs::remove_dir_all(folder).unwrap();
    for path in [&altered, &more] {
        fs::remove_file(path).unwrap();
    }
    let unknown = format!("cluster upgrade start bundle {} canary 9", tar.display());
    let ran = three.rladmin(1, &unknown);
    assert!(ran.text.contains("node_not_found"), "{}", ran.text);
}

/// The first node goes back by itself, the others are not touched.
fn broken(three: &Three, this: &Release) {
    let bad = copy_of(&this.bundle, &three.bench.path("bad"));
    let program = b"#!/bin/sh\necho out of order >&2\nexit 1\n";
    replace_signed(&bad, "release/bin/cnm_http", program);
    let tar = tar_of(&bad, &three.bench.path("bad.tar"));
    fs::remove_dir_all(bad).unwrap();
    three.is_ready();
    three.good(
        1,
        &format!("cluster upgrade start bundle {} canary 2", tar.display()),
    );
    let watched = three.rladmin(1, "cluster upgrade watch");
    assert_eq!(watched.code, Some(1), "{}", watched.text);
    assert!(
        watched.text.contains("paused (upgrade_went_back): node:2"),
        "{}",
        watched.text
    );
    let explained = three.good(1, "explain upgrade_went_back");
    assert!(explained.contains("install.log"), "{explained}");
    let logs = [1, 3].map(|node| {
        let log = three.folder(node, "var/mainstay/log/install.log");
        fs::read_to_string(log).unwrap()
    });
    assert!(!logs.concat().contains("0000000000000bad"));
    three.good(1, "cluster upgrade rollback -y");
    three.good(1, "cluster upgrade watch");
    fs::remove_file(tar).unwrap();
}

impl Three {
    /// What was staged and fetched is gone.
    fn bench_is_left(&self) {
        wait_until_within("bundles are removed", LONG, || {
            (1..=3).all(|node| {
                let entries =
                    |name: &str| fs::read_dir(self.folder(node, name)).map_or(0, Iterator::count);
                entries("var/mainstay/tmp/bundles") == 0
                    && entries("opt/mainstay/sbin/upgrade/staged") == 0
            })
        });
    }
}
