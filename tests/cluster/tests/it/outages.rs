//! What goes down and comes back is in the event log, once, whoever is the primary node.

use crate::operators::drain;
use crate::replicas::end;
use crate::story::{primary, set, shard_ok, shards_ok};
use model::rest::LogEvent;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use testkit::cluster::Cluster;
use testkit::wait;

const PORT: u16 = 12_000;

fn events(cluster: &Cluster, node: usize, kind: &str) -> Result<Vec<LogEvent>, String> {
    let all: Vec<LogEvent> = cluster.nodes[node]
        .get("/v1/logs")
        .map_err(|e| e.to_string())?;
    Ok(all.into_iter().filter(|event| event.kind == kind).collect())
}

/// Waits until there are so many events of a kind; the last one.
fn told(cluster: &Cluster, node: usize, kind: &str, count: usize) -> LogEvent {
    wait::until(kind, Duration::from_secs(60), || {
        let mut all = events(cluster, node, kind)?;
        match all.pop() {
            Some(last) if all.len() + 1 >= count => Ok(last),
            _ => Err(format!("told {} times", all.len())),
        }
    })
    .unwrap()
}

/// Another node becomes the primary node, and it is told which.
fn leads(cluster: &Cluster, asked: usize, wanted: usize) {
    let uid = (wanted + 1).to_string();
    cluster.nodes[asked]
        .rladmin_until(&["cluster", "master", "set", &uid])
        .unwrap();
    wait::until("it is told", Duration::from_secs(60), || {
        let last = events(cluster, asked, "primary_node_changed")?.pop();
        match last {
            Some(event) if event.facts["node_uid"] == wanted + 1 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .unwrap();
}

pub(crate) fn append_only(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if path.is_dir() {
            append_only(&path, found);
        } else if name.contains("aof") && !name.ends_with(".manifest") {
            found.push(path);
        }
    }
}

#[test]
fn a_lost_node_and_a_damaged_file_are_told_of_once() {
    let mut cluster = Cluster::start(3).unwrap();
    let words = [
        "demo",
        "memory_size",
        "128MB",
        "port",
        "12000",
        "persistence",
        "aof",
        "proxy_policy",
        "all-nodes",
    ];
    cluster.create_db(&words).unwrap();
    let shard = shard_ok(&cluster, 0);
    let place = usize::try_from(shard.node_uid.0).unwrap() - 1;
    let (one, other) = ((place + 1) % 3, (place + 2) % 3);
    if primary(&cluster) != one {
        let uid = (one + 1).to_string();
        cluster.nodes[one]
            .rladmin_until(&["cluster", "master", "set", &uid])
            .unwrap();
    }

    cluster.nodes[place].kill_everything().unwrap();
    let node = told(&cluster, one, "node_down", 1);
    assert_eq!(node.severity, "ERROR");
    assert_eq!(node.facts["node_uid"], shard.node_uid.0);
    let down = told(&cluster, one, "shard_down", 1);
    assert_eq!(down.severity, "CRITICAL");
    assert_eq!(down.facts["bdb_name"], "demo");
    leads(&cluster, one, other);
    cluster.nodes[place].start().unwrap();
    cluster.nodes[place].ready().unwrap();
    told(&cluster, one, "node_up", 1);
    told(&cluster, one, "shard_serves_again", 1);
    shards_ok(&cluster);

    let mut connection = cluster.connect(one, PORT).unwrap();
    for number in 0..100 {
        set(&mut connection, &format!("key{number}"), "value");
    }
    let mut files = Vec::new();
    append_only(&cluster.nodes[place].config.var_dir, &mut files);
    let whole: Vec<_> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    for file in &files {
        fs::write(file, "*3\r\n$3\r\nSET\r\nthis is no command\r\n".repeat(9)).unwrap();
    }
    end(shard_ok(&cluster, one).pid);
    let down = told(&cluster, one, "shard_down", 2);
    assert_eq!(
        (down.severity.as_str(), &down.facts["role"]),
        ("CRITICAL", &"master".into())
    );
    let cause = down.facts["cause"].as_str().unwrap();
    assert!(cause.contains("does not start"), "{cause}");
    leads(&cluster, other, one);
    for (file, bytes) in files.iter().zip(whole) {
        fs::write(file, bytes).unwrap();
    }
    told(&cluster, other, "shard_serves_again", 2);
    shards_ok(&cluster);
    for (kind, count) in [
        ("node_down", 1),
        ("node_up", 1),
        ("shard_down", 2),
        ("shard_serves_again", 2),
    ] {
        let mut all = events(&cluster, other, kind).unwrap();
        // On a busy machine another node may have been late.
        all.retain(|event| event.facts["node_uid"] == shard.node_uid.0);
        assert_eq!(all.len(), count, "{all:?}");
    }
}

/// Nobody takes the stop of a node for its loss, the primary node's own included: it tells that it stops before it ends.
#[test]
fn a_node_that_is_stopped_in_order_is_no_failure() {
    let mut cluster = Cluster::start(3).unwrap();
    let leads = primary(&cluster);
    for (count, stops) in [leads, (leads + 1) % 3].into_iter().enumerate() {
        let asked = (stops + 1) % 3;
        drain(&cluster, stops);
        cluster.nodes[stops].kill_everything().unwrap();
        let event = told(&cluster, asked, "node_stopped", count + 1);
        assert_eq!(event.facts["node_uid"], stops + 1);
        assert_eq!(event.severity, "INFO");
        cluster.nodes[stops].start().unwrap();
        cluster.nodes[stops].ready().unwrap();
        told(&cluster, asked, "node_up", count + 1);
    }
    // On a busy machine the third one may have been late.
    let lost = events(&cluster, leads, "node_down").unwrap();
    let third = (leads + 2) % 3 + 1;
    let late = |event: &LogEvent| event.facts["node_uid"] == third;
    assert!(lost.iter().all(late), "{lost:?}");
}
