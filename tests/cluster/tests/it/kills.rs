//! What if a daemon is killed?

use crate::story::{get, primary, served, set, shard_ok};
use model::rest::ClusterInfo;
use std::time::Duration;
use testkit::cluster::{Cluster, DAEMONS};
use testkit::wait;

#[test]
fn daemons_may_be_killed_one_by_one_and_all_at_once() {
    let mut cluster = Cluster::start(3).unwrap();
    cluster
        .create_db(&[
            "demo",
            "memory_size",
            "64MB",
            "port",
            "12000",
            "proxy_policy",
            "all-nodes",
        ])
        .unwrap();
    let before = shard_ok(&cluster, 0);
    set(&mut served(&cluster, 0, 12000), "key", "value");
    for daemon in ["cnm_exec", "cnm_http"] {
        for node in 0..3 {
            let mut connection = cluster.connect(node, 12000).unwrap();
            cluster.nodes[node].kill(daemon).unwrap();
            assert_eq!(get(&mut connection, "key").as_deref(), Some("value"));
            cluster.nodes[node].start_daemon(daemon).unwrap();
            cluster.nodes[node].ready().unwrap();
            cluster.settled().unwrap();
            assert_eq!(get(&mut connection, "key").as_deref(), Some("value"));
        }
    }
    for node in &mut cluster.nodes {
        for daemon in DAEMONS {
            node.kill(daemon).unwrap();
        }
    }
    for node in &mut cluster.nodes {
        node.start().unwrap();
    }
    cluster.settled().unwrap();
    let after = shard_ok(&cluster, 0);
    assert_eq!(
        (after.pid, after.epoch),
        (before.pid, before.epoch),
        "the engine was not touched"
    );
    for node in 0..3 {
        let mut connection = served(&cluster, node, 12000);
        assert_eq!(get(&mut connection, "key").as_deref(), Some("value"));
    }
}

#[test]
fn the_primary_node_moves_on_request_and_by_force() {
    let mut cluster = Cluster::start(3).unwrap();
    let words = ["cluster", "master", "set", "2"];
    cluster.nodes[2].rladmin_until(&words).unwrap();
    assert_eq!(primary(&cluster), 1);
    cluster.nodes[1].kill("cnm_exec").unwrap();
    wait::until("another primary node", Duration::from_secs(20), || {
        let info: ClusterInfo = cluster.nodes[0]
            .get("/v1/cluster")
            .map_err(|e| e.to_string())?;
        match info.primary_node {
            Some(uid) if info.has_quorum && uid.0 != 2 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .unwrap();
    cluster.create_db(&["demo", "memory_size", "64MB"]).unwrap();
    cluster.nodes[1].start_daemon("cnm_exec").unwrap();
    cluster.settled().unwrap();
}
