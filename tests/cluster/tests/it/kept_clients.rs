//! An endpoint that follows its primaries (`single`, `all-master-shards`) keeps the clients that it has.

use crate::hangs::signal;
use crate::load::{Writer, go_on, stop, value, writer};
use crate::replicas::{create, masters};
use crate::story::{seen, served, shards_ok};
use model::rest::{NodeInfo, ProxyInfo};
use rustix::process::Signal;
use std::net::TcpStream;
use std::time::Duration;
use testkit::cluster::Cluster;
use testkit::wait;

const PORT: u16 = 12_000;
const SOON: Duration = Duration::from_secs(30);
const NOT_HEARD: &str = "no proxy is heard";

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
    // Where the disk is slow another primary node may be elected just then: as rladmin says, look, then try again.
    let moved = || at_primary(cluster) != before;
    wait::until("the primary has moved", Duration::from_secs(60), || {
        let output = cluster.nodes[before].rladmin(words);
        let output = output.map_err(|error| error.to_string())?;
        if output.status.success() || moved() {
            return Ok(());
        }
        let text = seen(&output);
        let is_unknown = text.contains("outcome is unknown") || text.contains("may still happen");
        assert!(is_unknown, "{text}");
        Err(text)
    })
    .unwrap();
    shards_ok(cluster);
    assert!(moved(), "it stayed");
    let now = at_primary(cluster);
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

/// What `cnm_exec` has heard of a node's proxy.
fn proxy(cluster: &Cluster, node: usize) -> Result<ProxyInfo, String> {
    let path = format!("/v1/nodes/{}", node + 1);
    let info = cluster.nodes[node].get::<NodeInfo>(&path);
    let info = info.map_err(|error| error.to_string())?;
    info.proxy.ok_or_else(|| NOT_HEARD.to_owned())
}

/// Its server gives listeners and clients to the one that the next launcher starts.
fn a_proxy_is_replaced(cluster: &mut Cluster, node: usize) {
    let old = cluster.nodes[node].proxy_server();
    let told = wait::until("it tells of its clients", SOON, || proxy(cluster, node));
    let clients = told.unwrap().connections;
    cluster.nodes[node].kill("dmcproxy").unwrap();
    cluster.nodes[node].start_daemon("dmcproxy").unwrap();
    wait::until("another proxy has the clients", SOON, || {
        match proxy(cluster, node)? {
            new if Some(new.pid) != old && new.connections >= clients => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .unwrap();
}

/// `cnm_exec` is started again and the configuration changes before it runs again: only it knows of its clients then.
fn a_proxy_says_nothing_for_a_while(cluster: &mut Cluster, node: usize) {
    let server = cluster.nodes[node].proxy_server();
    signal(server, Signal::STOP);
    cluster.nodes[node].kill("cnm_exec").unwrap();
    cluster.nodes[node].start_daemon("cnm_exec").unwrap();
    cluster.nodes[node].ready().unwrap();
    let words = ["tune", "db", "demo", "max_connections", "1000"];
    cluster.nodes[node].rladmin_until(&words).unwrap();
    wait::until("its node is heard without it", SOON, || {
        match proxy(cluster, node) {
            Err(why) if why == NOT_HEARD => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .unwrap();
    signal(server, Signal::CONT);
    // By then it has been told what it serves.
    wait::until("it is heard again", SOON, || proxy(cluster, node)).unwrap();
}

/// Whoever asks for all clients, where the endpoint is now, is told of those at another node.
fn those_that_stayed_are_listed(cluster: &Cluster, node: usize, count: usize) {
    let of_node = format!("id={}00000", node + 1);
    let mut connection = served(cluster, at_primary(cluster), PORT);
    wait::until("those that stayed are in the list", SOON, || {
        let list = redis::cmd("CLIENT").arg("LIST").query(&mut connection);
        let list: String = list.map_err(|error| error.to_string())?;
        if list.matches(&of_node).count() < count {
            return Err(list);
        }
        Ok(())
    })
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
    those_that_stayed_are_listed(&cluster, first, 6);
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

/// No role has changed: proxies that come have nothing to hold, and are told all at once.
#[test]
fn clients_stay_where_they_are_when_the_policy_changes() {
    let mut cluster = Cluster::start(3).unwrap();
    create(&cluster, &[]);
    let left = (at_primary(&cluster) + 1) % 3;
    let writers: Vec<Writer> = (0..3)
        .map(|number| writer(&cluster, left, PORT, format!("chain:{number}")))
        .collect();
    let words = ["tune", "db", "demo", "proxy_policy", "single"];
    let output = cluster.nodes[left].rladmin(&words).unwrap();
    assert!(output.status.success(), "{}", seen(&output));
    wait::until("no new clients are taken there", SOON, || {
        (!is_open(&cluster, left))
            .then_some(())
            .ok_or_else(String::new)
    })
    .unwrap();
    go_on(&writers, "they write");
    a_proxy_is_replaced(&mut cluster, left);
    go_on(&writers, "they write over another proxy");
    a_proxy_says_nothing_for_a_while(&mut cluster, left);
    go_on(&writers, "they write when their proxy runs again");
    let at_primary = at_primary(&cluster);
    let mut connection = served(&cluster, at_primary, PORT);
    for written in stop(writers) {
        assert_eq!(written.errors, [""; 0], "{}", written.key);
        assert_eq!(value(&mut connection, &written.key), written.acknowledged);
    }
}
