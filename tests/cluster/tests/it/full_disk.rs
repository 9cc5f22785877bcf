//! What if a node has no room on its disk, or its disk hangs? It stays, says so, and goes on by itself.

use crate::finding::tells;
use crate::story::{primary, seen};
use model::NodeUid;
use model::rest::{ClusterInfo, LogEvent, NodeStatus};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use testkit::cluster::Cluster;
use testkit::wait;

const WAIT: Duration = Duration::from_secs(60);

fn run(command: &mut Command) {
    assert!(command.status().unwrap().success(), "{command:?}");
}

/// A small file system with what was in a folder; unmounted when dropped. Needs root.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: &Path) -> Self {
        let kept = tempfile::tempdir().unwrap();
        let both = (at.join("."), kept.path().join("."));
        run(Command::new("cp").arg("-a").arg(&both.0).arg(kept.path()));
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=64m", "tmpfs"])
            .arg(at));
        let disk = Self(at.to_owned());
        run(Command::new("cp").arg("-a").arg(&both.1).arg(at));
        disk
    }

    /// Takes what is left.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("full");
        let mut file = File::create(&path).unwrap();
        while file.write(&[0; 4096]).is_ok_and(|count| count > 0) {}
        path
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

fn is_full(cluster: &Cluster, asked: usize, node: usize) -> Result<bool, String> {
    let nodes: BTreeMap<NodeUid, NodeStatus> = cluster.nodes[asked]
        .get("/v1/nodes/status")
        .map_err(|error| error.description)?;
    let status = &nodes[&NodeUid(node as u64 + 1)];
    if status.node_status == "OK" {
        return Ok(status.disk_full);
    }
    Err(status.node_status.clone())
}

fn told(cluster: &Cluster, asked: usize, kind: &str) {
    wait::until(kind, WAIT, || {
        let all: Vec<LogEvent> = cluster.nodes[asked]
            .get("/v1/logs")
            .map_err(|error| error.description)?;
        let told = all.iter().any(|event| event.kind == kind);
        told.then_some(()).ok_or_else(|| format!("{all:?}"))
    })
    .unwrap();
}

#[test]
fn a_node_without_room_says_so_and_goes_on_by_itself() {
    goes_on(false);
}

#[test]
fn a_primary_node_without_room_makes_way() {
    goes_on(true);
}

fn goes_on(leads: bool) {
    let mut cluster = Cluster::start(3).unwrap();
    let node = (primary(&cluster) + 1) % 3;
    let other = (node + 1) % 3;
    cluster.nodes[node].kill_everything().unwrap();
    let disk = Disk::mount(&cluster.nodes[node].config.var_dir);
    cluster.nodes[node].start().unwrap();
    cluster.nodes[node].ready().unwrap();
    cluster.settled().unwrap();
    if leads {
        let uid = (node + 1).to_string();
        cluster.nodes[other]
            .rladmin_until(&["cluster", "master", "set", &uid])
            .unwrap();
    }
    let words = ["demo", "memory_size", "64MB", "port", "12000"];
    let words = [&words[..], &["proxy_policy", "all-nodes"]].concat();
    cluster.create_db(&words).unwrap();
    // Its own first.
    let mut all = vec![node];
    all.extend((0..3).filter(|one| *one != node));
    tells(&cluster, node, "demo", 12_000, &all);
    let pid = cluster.nodes[node].pid("cnm_exec");

    let file = disk.fill();
    let mut number = 0;
    wait::until("it says so", WAIT, || {
        number += 1;
        let size = format!("{}MB", 64 + number % 2);
        // Until it has found out.
        let _ = cluster.nodes[other].rladmin(&["tune", "db", "demo", "memory_size", &size]);
        let full = is_full(&cluster, other, node)?;
        full.then_some(()).ok_or_else(|| "it is well".to_owned())
    })
    .unwrap();
    let text = seen(&cluster.nodes[other].rladmin(&["status"]).unwrap());
    assert!(text.contains("DISK FULL, it does not vote"), "{text}");
    let issue = format!("node:{} DISK FULL", node + 1);
    assert!(text.contains(&issue), "{text}");
    let info: ClusterInfo = cluster.nodes[other].get("/v1/cluster").unwrap();
    assert_ne!(info.primary_node, Some(NodeUid(node as u64 + 1)));
    told(&cluster, other, "node_disk_full");
    // What it knew it tells.
    tells(&cluster, node, "demo", 12_000, &all);
    let output = cluster.nodes[node].rladmin(&["status"]).unwrap();
    assert!(output.status.success(), "{}", seen(&output));

    fs::remove_file(file).unwrap();
    wait::until("it is well again", WAIT, || {
        let full = is_full(&cluster, other, node)?;
        (!full).then_some(()).ok_or_else(|| "it is full".to_owned())
    })
    .unwrap();
    told(&cluster, other, "node_disk_has_room");
    cluster.settled().unwrap();
    cluster.nodes[node].start_ended().unwrap();
    assert_eq!(
        cluster.nodes[node].pid("cnm_exec"),
        pid,
        "it has never ended"
    );
}

/// Its disk takes nothing any more, and does not say so. What is served goes on, and whoever works there works with the next
/// primary node.
#[test]
fn a_primary_node_whose_disk_hangs_makes_way() {
    let cluster = Cluster::start(3).unwrap();
    let words = ["demo", "memory_size", "64MB", "port", "12000"];
    let words = [&words[..], &["proxy_policy", "all-nodes"]].concat();
    cluster.create_db(&words).unwrap();
    let node = primary(&cluster);
    cluster.nodes[node]
        .slow_disk(Duration::from_secs(3600))
        .unwrap();
    let mut number = 0;
    let at_it = |cluster: &Cluster, words: &[&str]| {
        let output = cluster.nodes[node].rladmin(words).unwrap();
        let text = seen(&output);
        output.status.success().then_some(()).ok_or(text)
    };
    wait::until("another one leads", WAIT, || {
        number += 1;
        let size = format!("{}MB", 64 + number % 2);
        let _ = at_it(&cluster, &["tune", "db", "demo", "memory_size", &size]);
        let info: ClusterInfo = cluster.nodes[node]
            .get("/v1/cluster")
            .map_err(|error| error.description)?;
        let other = info.primary_node != Some(NodeUid(node as u64 + 1));
        other.then_some(()).ok_or_else(|| format!("{info:?}"))
    })
    .unwrap();
    at_it(&cluster, &["status"]).unwrap();
    at_it(&cluster, &["tune", "db", "demo", "memory_size", "77MB"]).unwrap();
    cluster.nodes[node].slow_disk(Duration::ZERO).unwrap();
    cluster.settled().unwrap();
}
