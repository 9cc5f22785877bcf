//! An endpoint that follows its primaries (`single`, `all-master-shards`) keeps the clients that it has.

use crate::load::{Writer, go_on, stop, value, writer};
use crate::replicas::masters;
use crate::story::{seen, served, shards_ok};
use std::net::TcpStream;
use std::time::Duration;
use testkit::cluster::Cluster;
use testkit::wait;

const PORT: u16 = 12_000;

fn at_primary(cluster: &Cluster) -> usize {
    let node = masters(cluster)[0].node_uid.0;
    usize::try_from(node - 1).unwrap()
}

fn is_open(cluster: &Cluster, node: usize) -> bool {
    let address = cluster.nodes[node].config.address;
    TcpStream::connect((address, PORT)).is_ok()
}

/// The primary goes to another node, and its endpoint with it.
fn move_primary(cluster: &Cluster, words: &[&str]) {
    let before = at_primary(cluster);
    let output = cluster.nodes[before].rladmin(words).unwrap();
    let text = seen(&output);
    assert!(output.status.success(), "{text}");
    shards_ok(cluster);
    let now = at_primary(cluster);
    assert_ne!(now, before, "{text}");
    wait::until(
        "the endpoint has moved",
        Duration::from_secs(20),
        || match (is_open(cluster, before), is_open(cluster, now)) {
            (false, true) => Ok(()),
            open => Err(format!("{open:?}")),
        },
    )
    .unwrap();
}

#[test]
fn clients_stay_where_they_are_when_their_endpoint_moves() {
    let mut cluster = Cluster::start(3).unwrap();
    let words = [
        "demo",
        "memory_size",
        "128MB",
        "port",
        "12000",
        "replication",
        "enabled",
    ];
    cluster.create_db(&words).unwrap();
    let first = at_primary(&cluster);
    let mut writers: Vec<Writer> = (0..4)
        .map(|number| writer(&cluster, first, PORT, format!("chain:{number}")))
        .collect();
    // One that waits, and one that says nothing at all.
    let mut waits = served(&cluster, first, PORT);
    let mut idle = served(&cluster, first, PORT);
    waits
        .send_packed_command(&redis::cmd("BLPOP").arg("list").arg(0).get_packed_command())
        .unwrap();
    go_on(&writers, "they write");

    for round in 0..3 {
        let shard = masters(&cluster)[0].uid.to_string();
        move_primary(&cluster, &["failover", "shard", &shard]);
        let now = at_primary(&cluster);
        writers.push(writer(&cluster, now, PORT, format!("late:{round}")));
        go_on(&writers, "they write after a move");
    }
    // Nobody but the proxy knows of its clients when cnm_exec is started again.
    for node in 0..3 {
        cluster.nodes[node].kill("cnm_exec").unwrap();
        cluster.nodes[node].start_daemon("cnm_exec").unwrap();
        go_on(&writers, "they write after a start of cnm_exec");
    }
    shards_ok(&cluster);
    let from = (at_primary(&cluster) + 1).to_string();
    let replica = crate::story::shards(&cluster, 0);
    let to = (1..=3).find(|node| replica.iter().all(|shard| shard.node_uid.0 != *node));
    let to = to.unwrap().to_string();
    move_primary(
        &cluster,
        &[
            "migrate",
            "node",
            &from,
            "all_master_shards",
            "target_node",
            &to,
        ],
    );
    go_on(&writers, "they write after a migration");

    let now = at_primary(&cluster);
    let mut connection = served(&cluster, now, PORT);
    redis::cmd("LPUSH")
        .arg("list")
        .arg("x")
        .exec(&mut connection)
        .unwrap();
    let popped: (String, String) = redis::from_redis_value(waits.recv_response().unwrap()).unwrap();
    assert_eq!(popped.1, "x");
    let pong: String = redis::cmd("PING").query(&mut idle).unwrap();
    assert_eq!(pong, "PONG");
    for written in stop(writers) {
        assert_eq!(written.errors, [""; 0], "{}", written.key);
        assert_eq!(value(&mut connection, &written.key), written.acknowledged);
    }
}
