//! What an operator does with nodes and actions: commands as they are typed, on real nodes under load.

use crate::load::{Writer, stop, value, writer};
use crate::story::{primary, refused, seen, served, shards, shards_ok};
use client::local::ExecClient;
use model::intent::Drained;
use model::rest::{ClusterInfo, LogEvent, NodeInfo, ShardInfo};
use rustix::process::{Pid, Signal, kill_process};
use std::time::Duration;
use testkit::cluster::Cluster;
use testkit::wait;

const PORT: u16 = 12_000;

fn create(cluster: &Cluster, more: &[&str]) {
    let words = [
        "demo",
        "memory_size",
        "128MB",
        "port",
        "12000",
        "replication",
        "enabled",
        "proxy_policy",
        "all-nodes",
    ];
    cluster.create_db(&[&words[..], more].concat()).unwrap();
}

fn master(cluster: &Cluster, node: usize) -> ShardInfo {
    let all = shards(cluster, node);
    all.into_iter().find(|s| s.role == "master").unwrap()
}

fn slave(cluster: &Cluster, node: usize) -> ShardInfo {
    let all = shards(cluster, node);
    all.into_iter().find(|s| s.role == "slave").unwrap()
}

/// A command that succeeds; what it said.
fn done(cluster: &Cluster, node: usize, line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    let output = cluster.nodes[node].rladmin(&words).unwrap();
    let text = seen(&output);
    assert!(output.status.success(), "{line}:\n{text}");
    text
}

fn no(cluster: &Cluster, line: &str, with: &str) {
    let words: Vec<&str> = line.split(' ').collect();
    refused(cluster, 0, &words, with);
}

fn on(cluster: &Cluster, node: u64) -> usize {
    let all = shards(cluster, 0);
    all.iter().filter(|s| s.node_uid.0 == node).count()
}

/// Slots, role and node of each shard.
fn layout(cluster: &Cluster) -> Vec<(String, String, u64)> {
    let all = shards(cluster, 0).into_iter();
    let mut all: Vec<_> = all
        .map(|s| (s.assigned_slots, s.role, s.node_uid.0))
        .collect();
    all.sort_unstable();
    all
}

#[test]
fn nodes_are_emptied_and_filled_by_commands() {
    let cluster = Cluster::start(3).unwrap();
    create(&cluster, &["shards_count", "2"]);
    let writers: Vec<Writer> = (0..3)
        .map(|number| writer(&cluster, number % 3, PORT, format!("chain:{number}")))
        .collect();
    no(&cluster, "node 9 maintenance_mode on", "there is no node:9");
    no(
        &cluster,
        "node 2 maintenance_mode off",
        "is not in maintenance mode",
    );
    no(
        &cluster,
        "node 2 maintenance_mode on frobnicate",
        "unknown word 'frobnicate'",
    );
    done(&cluster, 0, "node 2 snapshot create before");
    let before = layout(&cluster);
    let text = done(
        &cluster,
        0,
        "node 2 maintenance_mode on max_concurrent_actions 1",
    );
    println!("{text}");
    assert!(
        text.contains("Performing maintenance_on action on node:2: 100%"),
        "{text}"
    );
    assert!(text.ends_with("OK\n"), "{text}");
    assert_eq!(on(&cluster, 2), 0);
    let status = done(&cluster, 0, "status nodes");
    assert!(
        status.contains(" 0/0 ") && status.contains("0KB/0KB"),
        "{status}"
    );
    no(&cluster, "node 3 maintenance_mode on", "no majority");
    let list = done(&cluster, 1, "node 2 snapshot list");
    assert!(
        list.contains("before") && list.contains("maintenance_mode_"),
        "{list}"
    );
    let off = "node 2 maintenance_mode off";
    let twice = done(&cluster, 1, "node 2 maintenance_mode on");
    assert!(twice.contains("one `maintenance_mode off` more"), "{twice}");
    let once = done(&cluster, 2, off);
    assert!(once.contains("turn it off once more"), "{once}");
    assert_eq!(on(&cluster, 2), 0);
    let text = done(&cluster, 2, off);
    assert!(text.ends_with("OK\n"), "{text}");
    assert_eq!(layout(&cluster), before);
    done(&cluster, 0, "node 2 snapshot delete before");
    no(
        &cluster,
        "node 2 snapshot delete before",
        "has no snapshot 'before'",
    );

    demote(&cluster);
    let mut connection = served(&cluster, 0, PORT);
    for written in stop(writers) {
        assert_eq!(written.errors, [""; 0], "{}", written.key);
        assert_eq!(value(&mut connection, &written.key), written.acknowledged);
    }
}

/// The primary node gives that part away, and its primaries their role.
fn demote(cluster: &Cluster) {
    let leader = primary(cluster) as u64 + 1;
    let text = done(cluster, 1, &format!("node {leader} enslave demote_node"));
    assert!(text.ends_with("OK\n"), "{text}");
    let there = shards(cluster, 0)
        .into_iter()
        .filter(|s| s.node_uid.0 == leader);
    assert!(there.into_iter().all(|s| s.role == "slave"));
    wait::until("another primary node", Duration::from_secs(20), || {
        let info: ClusterInfo = cluster.nodes[0]
            .get("/v1/cluster")
            .map_err(|e| e.to_string())?;
        match info.primary_node {
            Some(node) if node.0 != leader && info.has_quorum => Ok(()),
            other => Err(format!("{other:?}, quorum {}", info.has_quorum)),
        }
    })
    .unwrap();
    assert_eq!(
        done(cluster, 0, "cluster running_actions"),
        "No active tasks\n"
    );
    no(cluster, "retry nothing", "there is no action 'nothing'");
    no(cluster, "abort 'x", "an action is named by its id");
    let text = done(cluster, 0, "node 3 enslave --json");
    assert!(text.starts_with('{') || text.starts_with("null"), "{text}");
}

fn signal(pid: Option<u32>, signal: Signal) {
    let pid = i32::try_from(pid.expect("a process")).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// A replica that hangs: the action that needs it pauses, says why, and goes on when an operator says so.
#[test]
fn an_action_pauses_and_goes_on() {
    let cluster = Cluster::start(3).unwrap();
    create(&cluster, &[]);
    let (node, hung) = (master(&cluster, 0).node_uid, slave(&cluster, 0));
    signal(hung.pid, Signal::STOP);
    let line = format!("node {node} enslave retry_timeout_seconds 1");
    let words: Vec<&str> = line.split(' ').collect();
    let output = cluster.nodes[0].rladmin(&words).unwrap();
    let text = seen(&output);
    println!("{text}");
    assert!(
        !output.status.success() && text.contains("enslave_node pauses"),
        "{text}"
    );
    let running = done(&cluster, 0, "cluster running_actions");
    println!("{running}");
    assert!(
        running.starts_with("Got 1 tasks:\n1) Task: enslave_node ("),
        "{running}"
    );
    assert!(
        running.contains(&format!("Node: {node} Status: paused")),
        "{running}"
    );
    no(
        &cluster,
        "tune db demo memory_size 256MB",
        "enslave_node of node:",
    );
    let uid = running.split(['(', ')']).nth(2).unwrap().to_owned();
    signal(hung.pid, Signal::CONT);
    wait::until("the replica is synced", Duration::from_secs(60), || {
        let now = slave(&cluster, 0);
        match (now.detailed_status.as_str(), &now.sync) {
            ("ok", Some(sync)) if sync.status == "idle" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .unwrap();
    // Its primary may yet note how long it was away: then the action pauses once more, for that reason.
    wait::until(
        "the action goes on to its end",
        Duration::from_secs(60),
        || {
            let output = cluster.nodes[1].rladmin(&["retry", &uid]).unwrap();
            let text = seen(&output);
            match output.status.success() {
                true if text.ends_with("OK\n") => Ok(()),
                _ => Err(text),
            }
        },
    )
    .unwrap();
    assert_ne!(master(&cluster, 0).node_uid, node);
    shards_ok(&cluster);

    // Once more, and it is given up: everything is as it was.
    let (node, hung) = (master(&cluster, 0).node_uid, slave(&cluster, 0));
    signal(hung.pid, Signal::STOP);
    let line = format!("node {node} enslave retry_timeout_seconds 1");
    let words: Vec<&str> = line.split(' ').collect();
    assert!(!cluster.nodes[0].rladmin(&words).unwrap().status.success());
    let running = done(&cluster, 0, "cluster running_actions");
    let uid = running.split(['(', ')']).nth(2).unwrap().to_owned();
    done(&cluster, 0, &format!("abort {uid}"));
    signal(hung.pid, Signal::CONT);
    assert_eq!(
        done(&cluster, 0, "cluster running_actions"),
        "No active tasks\n"
    );
    assert_eq!(master(&cluster, 0).node_uid, node);
    no(&cluster, &format!("retry {uid}"), "has ended");
    done(&cluster, 0, "tune db demo memory_size 256MB");
}

pub(crate) fn drain(cluster: &Cluster, node: usize) -> Drained {
    let exec = ExecClient::new(cluster.nodes[node].config.exec_socket());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.unwrap();
    runtime.block_on(async {
        let drained = exec.drain().await.unwrap();
        exec.stop_engines().await.unwrap();
        drained
    })
}

fn moves(cluster: &Cluster, node: usize) -> usize {
    let events: Vec<LogEvent> = cluster.nodes[node].get("/v1/logs").unwrap();
    events.iter().filter(|e| e.kind == "shard_moved").count()
}

/// A node is stopped as systemd does: clients of the other nodes' proxies notice nothing.
#[test]
fn a_node_that_is_stopped_gives_its_primaries_away() {
    let mut cluster = Cluster::start(3).unwrap();
    create(&cluster, &["shards_count", "2"]);
    let holder = usize::try_from(master(&cluster, 0).node_uid.0).unwrap() - 1;
    let others: Vec<usize> = (0..3).filter(|node| *node != holder).collect();
    let writers: Vec<Writer> = (0..4)
        .map(|number| {
            writer(
                &cluster,
                others[number % 2],
                PORT,
                format!("chain:{number}"),
            )
        })
        .collect();
    let drained = drain(&cluster, holder);
    println!("{drained:?}");
    assert!(
        !drained.moved.is_empty() && drained.stayed.is_empty(),
        "{drained:?}"
    );
    cluster.nodes[holder].stop();
    let left = others[0];
    wait::until("the node is missed", Duration::from_secs(20), || {
        let nodes: Vec<NodeInfo> = cluster.nodes[left]
            .get("/v1/nodes")
            .map_err(|e| e.to_string())?;
        match nodes.iter().filter(|n| n.status == "active").count() {
            2 => Ok(()),
            other => Err(format!("{other} are heard")),
        }
    })
    .unwrap();
    let mut connection = served(&cluster, left, PORT);
    for written in stop(writers) {
        assert_eq!(written.errors, [""; 0], "{}", written.key);
        assert_eq!(value(&mut connection, &written.key), written.acknowledged);
        println!("{}: longest wait {:?}", written.key, written.worst);
    }
    // The others go down together: nobody hands anything around.
    let before = moves(&cluster, left);
    std::thread::scope(|scope| {
        for node in &others {
            let cluster = &cluster;
            scope.spawn(move || println!("{:?}", drain(cluster, *node)));
        }
    });
    assert!(
        moves(&cluster, left) <= before + 2,
        "each primary moves once at most"
    );
}

/// Of two nodes one votes: it cannot leave, nor go down for a while; the other can.
#[test]
fn the_node_that_votes_alone_stays() {
    let cluster = Cluster::start(2).unwrap();
    let words = [
        "demo",
        "memory_size",
        "64MB",
        "port",
        "12000",
        "proxy_policy",
        "all-nodes",
    ];
    cluster.create_db(&words).unwrap();
    let mut connection = served(&cluster, 0, PORT);
    crate::story::set(&mut connection, "kept", "value");
    no(
        &cluster,
        "node 1 maintenance_mode on",
        "vote on the configuration",
    );
    no(
        &cluster,
        "node 1 remove",
        "alone votes on the configuration",
    );
    // Asked of the node that leaves.
    let text = done(&cluster, 1, "node 2 remove");
    assert!(text.ends_with("OK\n"), "{text}");
    let nodes: Vec<NodeInfo> = cluster.nodes[0].get("/v1/nodes").unwrap();
    assert_eq!(nodes.len(), 1);
    no(&cluster, "node 1 remove", "the only one");
    assert_eq!(
        crate::story::get(&mut connection, "kept").as_deref(),
        Some("value")
    );
}

/// Which proxies serve a database changes while it serves: clients of those that stay notice nothing.
#[test]
fn the_proxy_policy_changes_under_load() {
    let cluster = Cluster::start(3).unwrap();
    create(&cluster, &[]);
    let holder = usize::try_from(master(&cluster, 0).node_uid.0).unwrap() - 1;
    let other = (holder + 1) % 3;
    let writers = vec![writer(&cluster, holder, PORT, "chain".to_owned())];
    for policy in ["single", "all-nodes", "all-master-shards", "all-nodes"] {
        done(&cluster, 0, &format!("tune db demo proxy_policy {policy}"));
        let served_there = cluster
            .connect(other, PORT)
            .and_then(|mut connection| Ok(redis::cmd("PING").query::<String>(&mut connection)?));
        assert_eq!(served_there.is_ok(), policy == "all-nodes", "{policy}");
    }
    let mut connection = served(&cluster, holder, PORT);
    for written in stop(writers) {
        assert_eq!(written.errors, [""; 0], "{}", written.key);
        assert_eq!(value(&mut connection, &written.key), written.acknowledged);
    }
    assert_eq!(
        done(&cluster, 0, "verify rack_aware"),
        "Cluster policy is not configured for rack awareness.\n"
    );
    no(
        &cluster,
        "tune cluster rack_aware enabled",
        "without a rack: node:1, node:2, node:3",
    );
    no(
        &cluster,
        "tune db demo rack_aware enabled",
        "not rack-aware",
    );
}
