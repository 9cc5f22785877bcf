//! What is an operator told when a node has gone, or another one leads?

use crate::story::{refused, seen, served};
use model::NodeUid;
use model::rest::NodeStatus;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use testkit::cluster::Cluster;
use testkit::wait;

const WAIT: Duration = Duration::from_secs(60);

fn status(cluster: &Cluster, node: usize) -> Result<String, String> {
    let output = cluster.nodes[node].rladmin(&["status"]);
    let text = output.map(|output| seen(&output));
    text.map_err(|error| error.to_string())
}

/// The removed node says what became of it and what to do, and nothing of what it knew.
fn says_that_it_was_removed(cluster: &Cluster) {
    let text = wait::until("it says that it was removed", WAIT, || {
        let text = status(cluster, 2)?;
        if text.contains("REMOVED. node:3 (this one) was removed from cluster") {
            Ok(text)
        } else {
            Err(text)
        }
    })
    .unwrap();
    assert!(text.contains("`rl_uninstall.sh`"), "{text}");
    for part in ["NO QUORUM", "CLUSTER NODES", "DOWN", "no quorum"] {
        assert!(!text.contains(part), "{text}");
    }
    let create = ["create", "db", "demo", "memory_size", "64MB"];
    refused(cluster, 2, &create, "node_removed");
    let join = cluster.join_words().unwrap();
    refused(cluster, 2, &join, "node_removed");
}

#[test]
fn a_node_that_was_removed_says_so() {
    let mut cluster = Cluster::start(3).unwrap();
    let output = cluster.nodes[0].rladmin(&["node", "3", "remove"]).unwrap();
    let text = seen(&output);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("node:3 has left the cluster."), "{text}");
    assert!(text.ends_with("OK\n"), "{text}");
    says_that_it_was_removed(&cluster);
    cluster.nodes[2].kill("cnm_exec").unwrap();
    cluster.nodes[2].start_daemon("cnm_exec").unwrap();
    says_that_it_was_removed(&cluster);
    let text = status(&cluster, 0).unwrap();
    assert!(!text.contains("node:3"), "{text}");
}

/// Of one that waits for something, too, and of one that never ends what it does.
#[test]
fn clients_of_a_node_that_leaves_are_closed() {
    let cluster = Cluster::start(3).unwrap();
    let words = ["demo", "memory_size", "64MB", "port", "12000"];
    let words = [
        &words[..],
        &["proxy_policy", "all-nodes", "replication", "enabled"],
    ]
    .concat();
    cluster.create_db(&words).unwrap();
    let mut clients: Vec<_> = (0..3).map(|_| served(&cluster, 2, 12_000)).collect();
    for (client, words) in clients.iter_mut().zip([
        vec!["BLPOP", "list", "0"],
        vec!["SUBSCRIBE", "channel"],
        vec!["PING"],
    ]) {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        client
            .send_packed_command(&command.get_packed_command())
            .unwrap();
    }
    let output = cluster.nodes[0].rladmin(&["node", "3", "remove"]).unwrap();
    let text = seen(&output);
    assert!(output.status.success(), "{text}");
    for client in &mut clients {
        // What had come before the end.
        let end = (0..3).find_map(|_| client.recv_response().err());
        assert!(end.unwrap().is_connection_dropped());
    }
    let address = (cluster.nodes[2].config.address, 12_000);
    assert!(std::net::TcpStream::connect(address).is_err());
    served(&cluster, 0, 12_000);
}

/// It votes in the cluster that it knows, and asks for a majority of that.
#[test]
fn a_node_that_was_removed_while_it_was_away_says_so() {
    let mut cluster = Cluster::start(3).unwrap();
    let words = ["cluster", "master", "set", "1"];
    cluster.nodes[0].rladmin_until(&words).unwrap();
    cluster.nodes[2].kill("cnm_exec").unwrap();
    let words = ["node", "3", "remove"];
    cluster.nodes[0].rladmin_until(&words).unwrap();
    cluster.nodes[2].start_daemon("cnm_exec").unwrap();
    // It finds out by itself, before anybody asks it.
    let log = cluster.nodes[2].config.log_dir().join("cnm_exec.log");
    wait::until("it has found out", WAIT, || {
        let text = std::fs::read_to_string(&log).map_err(|error| error.to_string())?;
        let found = text.contains("this node was removed from its cluster");
        found.then_some(()).ok_or(text)
    })
    .unwrap();
    says_that_it_was_removed(&cluster);
}

fn heard(cluster: &Cluster, node: u64) -> Result<NodeStatus, String> {
    let nodes: BTreeMap<NodeUid, NodeStatus> = cluster.nodes[0]
        .get("/v1/nodes/status")
        .map_err(|error| error.description)?;
    let found = nodes.get(&NodeUid(node)).cloned();
    found.ok_or_else(|| format!("there is no node:{node}"))
}

/// Node 2 has told the primary node of itself, and was told what that knows.
fn node_2_is_told(cluster: &Cluster) {
    // The answer to the first of two heartbeats has come before the second.
    for _ in 0..2 {
        let since = Instant::now();
        wait::until("node 2 tells of itself", WAIT, || {
            let ago = heard(cluster, 2)?.last_heard_seconds;
            let told = ago.is_some_and(|ago| ago < since.elapsed().as_secs_f64());
            told.then_some(()).ok_or_else(|| format!("{ago:?}"))
        })
        .unwrap();
    }
}

/// A primary node that has never heard a node knows from the one before since when that is silent.
#[test]
fn a_new_primary_node_knows_what_the_one_before_had_heard() {
    let cluster = Cluster::start(3).unwrap();
    let words = ["cluster", "master", "set", "1"];
    cluster.nodes[0].rladmin_until(&words).unwrap();
    wait::until("node 3 is heard", WAIT, || {
        let status = heard(&cluster, 3)?.node_status;
        (status == "OK").then_some(()).ok_or(status)
    })
    .unwrap();
    node_2_is_told(&cluster);
    let pid = cluster.nodes[2].pid("cnm_exec").expect("a process");
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    let words = ["cluster", "master", "set", "2"];
    let moved = cluster.nodes[1].rladmin_until(&words);
    let mut seen = Vec::new();
    let down = wait::until("node 3 is shown as down", WAIT, || {
        let text = status(&cluster, 1)?;
        seen.push(text.clone());
        if text.contains("DOWN, ") {
            Ok(())
        } else {
            Err(text)
        }
    });
    // Before anything ends the test: what is stopped does not end.
    kill_process(pid, Signal::CONT).unwrap();
    moved.unwrap();
    down.unwrap();
    let last = seen.last().unwrap();
    assert!(last.contains("DOWN, last seen "), "{last}");
    assert!(last.contains("OK. Cluster master: 2"), "{last}");
}
