//! What is a database with several shards, to clients, operators and its own parts?

use crate::story::{databases, get, refused, seen, served, set, shards, shards_ok};
use model::proxy::{ProxyConfig, ProxyDatabase, ProxyShard, ShardAddress};
use model::rest::{ActionStarted, Bdb, ShardInfo};
use model::{ErrorCode, ShardUid};
use redis::{ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo, RedisError};
use serde_json::json;
use std::collections::BTreeSet;
use std::time::Duration;
use testkit::cluster::{Cluster, Node};
use testkit::wait;

const PORT: u16 = 12_000;
const KEYS: usize = 500;

fn create(cluster: &Cluster, more: &[&str]) {
    let words = ["demo", "memory_size", "64MB", "port", "12000"];
    cluster.create_db(&[&words[..], more].concat()).unwrap();
}

/// Where a shard is among the cluster's nodes.
fn node_of(shard: &ShardInfo) -> usize {
    usize::try_from(shard.node_uid.0).unwrap() - 1
}

fn place(shard: &ShardInfo) -> (u64, &str) {
    (shard.node_uid.0, &shard.assigned_slots)
}

/// The database as a node's proxy was told of it last: it keeps that on disk.
fn told(node: &Node) -> ProxyDatabase {
    let path = node.config.persist_dir().join("proxy-config.json");
    wait::until(
        "the proxy knows all shards",
        Duration::from_secs(10),
        || {
            let text = std::fs::read(&path).map_err(|e| e.to_string())?;
            let config: ProxyConfig = serde_json::from_slice(&text).map_err(|e| e.to_string())?;
            let database = config.databases.into_iter().next().ok_or("no database")?;
            if database.shards.iter().all(|shard| shard.serving) {
                return Ok(database);
            }
            Err(format!("{:?}", database.shards))
        },
    )
    .unwrap()
}

fn engine(
    address: ConnectionAddr,
    login: Option<&ProxyShard>,
) -> Result<redis::Connection, RedisError> {
    let mut settings = RedisConnectionInfo::default();
    if let Some(shard) = login {
        settings = settings
            .set_username(&shard.user)
            .set_password(shard.password.expose());
    }
    let info = address.into_connection_info()?.set_redis_settings(settings);
    redis::Client::open(info)?.get_connection_with_timeout(Duration::from_secs(5))
}

/// A connection to an engine as a proxy makes it.
fn as_proxy(shard: &ProxyShard) -> redis::Connection {
    let address = match &shard.address {
        ShardAddress::Unix(path) => ConnectionAddr::Unix(path.clone()),
        ShardAddress::Tcp(at) => ConnectionAddr::Tcp(at.ip().to_string(), at.port()),
    };
    engine(address, Some(shard)).unwrap()
}

fn keys(connection: &mut redis::Connection) -> BTreeSet<String> {
    redis::cmd("KEYS").arg("*").query(connection).unwrap()
}

fn fill(cluster: &Cluster, node: usize) -> BTreeSet<String> {
    let mut connection = cluster.connect(node, PORT).unwrap();
    let all: BTreeSet<String> = (0..KEYS).map(|number| format!("key:{number}")).collect();
    for key in &all {
        set(&mut connection, key, key);
    }
    all
}

#[test]
fn dense_on_the_endpoints_node_from_creation_to_deletion() {
    let cluster = Cluster::start(3).unwrap();
    create(
        &cluster,
        &["shards_count", "4", "shards_placement", "dense"],
    );
    let made = shards(&cluster, 0);
    let node = made[0].node_uid.0;
    assert_eq!(
        made.iter().map(place).collect::<Vec<_>>(),
        [
            (node, "0-4095"),
            (node, "4096-8191"),
            (node, "8192-12287"),
            (node, "12288-16383")
        ]
    );
    let db = databases(&cluster, 0).remove(0);
    assert_eq!((db.shards_count, db.sharding), (4, true));
    assert_eq!(db.shard_list, [1, 2, 3, 4].map(ShardUid));
    assert_eq!(db.endpoints[0].proxies.len(), 1);

    let here = node_of(&made[0]);
    let all = fill(&cluster, here);
    as_one_server(&cluster, here, &all);
    assert_eq!(
        maxmemory(&mut cluster.connect(here, PORT).unwrap()),
        64 << 20
    );
    let told = told(&cluster.nodes[here]);
    for shard in &told.shards {
        assert!(matches!(shard.address, ShardAddress::Unix(_)), "{shard:?}");
        assert_eq!(maxmemory(&mut as_proxy(shard)), 16 << 20);
    }
    spread(&told, &all);

    status(&cluster, here);
    change(&cluster);
    cannot_be(&cluster);
    let deleted = cluster.nodes[2]
        .rladmin(&["-y", "delete", "db", "demo"])
        .unwrap();
    assert!(deleted.status.success(), "{}", seen(&deleted));
    assert!(databases(&cluster, 0).is_empty());
    nothing_is_left(&cluster);
}

/// Nobody but an engine can tell that there are several.
fn as_one_server(cluster: &Cluster, node: usize, all: &BTreeSet<String>) {
    let mut client = cluster.connect(node, PORT).unwrap();
    let count: usize = redis::cmd("DBSIZE").query(&mut client).unwrap();
    assert_eq!(count, all.len(), "through node {node}");
    let values: Vec<Option<String>> = redis::cmd("MGET").arg(all).query(&mut client).unwrap();
    assert!(values.iter().flatten().eq(all), "through node {node}");
    let mut found = BTreeSet::new();
    let mut cursor = 0_u64;
    loop {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("COUNT").arg(50);
        let (next, page): (u64, Vec<String>) = scan.query(&mut client).unwrap();
        found.extend(page);
        cursor = next;
        if cursor == 0 {
            break;
        }
    }
    assert_eq!(&found, all, "through node {node}");
}

/// Every engine has keys, and no key is on two.
fn spread(told: &ProxyDatabase, all: &BTreeSet<String>) {
    let mut found = BTreeSet::new();
    for shard in &told.shards {
        let mine = keys(&mut as_proxy(shard));
        assert!(!mine.is_empty(), "{shard:?}");
        assert!(found.is_disjoint(&mine), "{shard:?}");
        found.extend(mine);
    }
    assert_eq!(&found, all);
}

fn nothing_is_left(cluster: &Cluster) {
    assert!(shards(cluster, 0).is_empty());
    for node in &cluster.nodes {
        let left = std::fs::read_dir(node.config.shards_dir()).unwrap();
        let names = left.map(|entry| entry.unwrap().file_name());
        let left: Vec<_> = names.filter(|name| name != "removed.json").collect();
        assert!(left.is_empty(), "its data is gone: {left:?}");
    }
}

fn maxmemory(connection: &mut redis::Connection) -> u64 {
    let pair: (String, u64) = redis::cmd("CONFIG")
        .arg("GET")
        .arg("maxmemory")
        .query(connection)
        .unwrap();
    pair.1
}

fn status(cluster: &Cluster, here: usize) {
    let output = seen(
        &cluster.nodes[0]
            .rladmin(&["status", "extra", "all"])
            .unwrap(),
    );
    let row = |start: &str| {
        let line = output.lines().find(|line| line.starts_with(start));
        line.unwrap_or_else(|| panic!("no row {start}:\n{output}"))
            .split_whitespace()
            .collect::<Vec<_>>()
    };
    assert_eq!(row("db:1  demo redis active")[4..6], ["4", "dense"]);
    let star = if here == 0 { "*" } else { " " };
    let node = format!("{star}node:{}", here + 1);
    assert!(row(node.trim_start()).contains(&"4/100"), "{output}");
    for slots in ["0-4095", "4096-8191", "8192-12287", "12288-16383"] {
        assert!(output.contains(slots), "{output}");
    }
}

/// Every shard gets its share of the new limit, and none is started anew.
fn change(cluster: &Cluster) {
    let before: Vec<_> = shards(cluster, 0)
        .iter()
        .map(|s| (s.pid, s.epoch))
        .collect();
    let words = ["tune", "db", "demo", "memory_size", "80MB"];
    let changed = cluster.nodes[1].rladmin(&words).unwrap();
    assert!(changed.status.success(), "{}", seen(&changed));
    let node = node_of(&shards(cluster, 0)[0]);
    for shard in &told(&cluster.nodes[node]).shards {
        assert_eq!(maxmemory(&mut as_proxy(shard)), 20 << 20);
    }
    let after: Vec<_> = shards(cluster, 0)
        .iter()
        .map(|s| (s.pid, s.epoch))
        .collect();
    assert_eq!(after, before);
}

fn cannot_be(cluster: &Cluster) {
    let send = |method: &str, path: &str, body: serde_json::Value| {
        let answer: Result<Bdb, _> = cluster.nodes[0].send(method, path, &body);
        answer.unwrap_err()
    };
    let fixed = send("PUT", "/v1/bdbs/1", json!({ "shards_count": 8 }));
    assert!(
        fixed
            .description
            .contains("fixed when the database is created"),
        "{fixed}"
    );
    let fixed = ["tune", "db", "demo", "shards_count", "8"];
    refused(cluster, 0, &fixed, "fixed when the database is created");
    let create = |more: &[&str], with: &str| {
        refused(
            cluster,
            0,
            &[&["create", "db", "x", "memory_size", "15MB"], more].concat(),
            with,
        );
    };
    create(&["shards_count", "61"], "1 to 60");
    create(&["shards_count", "many"], "shards_count");
    create(&["shards_placement", "wide"], "dense, sparse");
    create(&["shards_count", "4"], "4 shards of 4MB");
    let spec = |count: u32, bytes: u64| json!({ "name": "x", "memory_size": bytes, "shards_count": count });
    let many = send("POST", "/v1/bdbs", spec(61, 1 << 30));
    assert_eq!(many.error_code, ErrorCode::InvalidSharding, "{many}");
    let small = send("POST", "/v1/bdbs", spec(4, 15 << 20));
    assert_eq!(small.error_code, ErrorCode::InvalidParam, "{small}");
    assert!(small.description.contains("4 shards of 4MB"), "{small}");
    let large = send("POST", "/v1/bdbs", spec(4, 40 << 30));
    assert_eq!(
        large.error_code,
        ErrorCode::InsufficientResources,
        "{large}"
    );
    assert!(
        large.description.contains("0 of 4 shards of 10GB"),
        "{large}"
    );
}

#[test]
fn sparse_over_all_nodes_by_tcp_and_a_loss_concerns_one_shard() {
    let mut cluster = Cluster::start(3).unwrap();
    create(
        &cluster,
        &[
            "shards_count",
            "4",
            "shards_placement",
            "sparse",
            "proxy_policy",
            "all-nodes",
            "persistence",
            "aof-every-write",
        ],
    );
    let made = shards(&cluster, 0);
    let mut nodes: Vec<u64> = made.iter().map(|shard| shard.node_uid.0).collect();
    assert_eq!(nodes[3], nodes[0], "in turn");
    nodes.truncate(3);
    nodes.sort_unstable();
    assert_eq!(nodes, [1, 2, 3]);
    let all = fill(&cluster, 0);
    for number in 0..3 {
        as_one_server(&cluster, number, &all);
        let told = told(&cluster.nodes[number]);
        spread(&told, &all);
        let slots: Vec<_> = told
            .shards
            .iter()
            .map(|s| (s.slots.first, s.serving))
            .collect();
        assert_eq!(
            slots,
            [(0, true), (4096, true), (8192, true), (12_288, true)]
        );
        for (shard, info) in told.shards.iter().zip(&made) {
            let local = info.node_uid.0 == number as u64 + 1;
            assert_eq!(matches!(shard.address, ShardAddress::Unix(_)), local);
            nothing_more_than_clients_need(shard);
        }
    }
    nobody_else(&cluster, &made);
    crash(&cluster, &made[1], &all);
    lost_node(&mut cluster, &made, &all);
    let deletion: ActionStarted = cluster.nodes[1]
        .send("DELETE", "/v1/bdbs/1", &json!({}))
        .unwrap();
    assert!(deletion.action_uid.is_some());
    wait::until(
        "it is deleted",
        Duration::from_secs(30),
        || match databases(&cluster, 0).first() {
            None => Ok(()),
            Some(left) => Err(left.exec_state.clone()),
        },
    )
    .unwrap();
    nothing_is_left(&cluster);
}

/// What the proxies' user may not do, over whichever socket.
fn nothing_more_than_clients_need(shard: &ProxyShard) {
    let mut connection = as_proxy(shard);
    for words in [
        &["CONFIG", "SET", "maxmemory", "1"][..],
        &["REPLICAOF", "NO", "ONE"],
        &["ACL", "LIST"],
        &["SHUTDOWN"],
        &["BGREWRITEAOF"],
        &["CLIENT", "PAUSE", "1"],
    ] {
        let error = redis::cmd(words[0])
            .arg(&words[1..])
            .query::<redis::Value>(&mut connection)
            .expect_err(words[0]);
        assert_eq!(error.code(), Some("NOPERM"), "{words:?}: {error}");
    }
}

/// An engine's TCP port is open at its node's address alone, and nobody gets in without a user.
fn nobody_else(cluster: &Cluster, made: &[ShardInfo]) {
    for shard in made {
        let node = node_of(shard);
        let address = cluster.nodes[node].config.address.to_string();
        let mut stranger = engine(ConnectionAddr::Tcp(address, shard.port), None);
        let refused = match &mut stranger {
            Ok(connection) => redis::cmd("GET")
                .arg("x")
                .query::<redis::Value>(connection)
                .map(drop),
            Err(_) => panic!("{:?}", stranger.err()),
        };
        let error = refused.unwrap_err();
        assert_eq!(error.code(), Some("NOAUTH"), "{error}");
        let elsewhere = ConnectionAddr::Tcp("127.0.0.1".to_owned(), shard.port);
        assert!(engine(elsewhere, None).is_err(), "{}", shard.port);
    }
}

fn crash(cluster: &Cluster, shard: &ShardInfo, all: &BTreeSet<String>) {
    let node = &cluster.nodes[0];
    let victim = told(node).shards.remove(1);
    let lost = keys(&mut as_proxy(&victim));
    let others: BTreeSet<_> = all.difference(&lost).collect();
    let before = shards(cluster, 0);
    let pid = rustix::process::Pid::from_raw(shard.pid.unwrap().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    // The other shards serve, with whatever becomes of this one; nothing of it is taken for theirs.
    let mut client = cluster.connect(0, PORT).unwrap();
    for key in &others {
        assert_eq!(get(&mut client, key).as_ref(), Some(*key));
    }
    let key = lost.first().unwrap();
    wait::until("its keys are back", Duration::from_secs(30), || {
        let answer: Result<Option<String>, _> = redis::cmd("GET").arg(key).query(&mut client);
        match answer {
            Ok(value) if value.as_ref() == Some(key) => Ok(()),
            Ok(other) => panic!("another shard was asked: {other:?}"),
            Err(error) => Err(error.to_string()),
        }
    })
    .unwrap();
    for key in all {
        assert_eq!(get(&mut client, key).as_ref(), Some(key));
    }
    shards_ok(cluster);
    for (old, new) in before.iter().zip(shards(cluster, 0)) {
        if old.uid == shard.uid {
            assert_eq!(new.epoch, old.epoch + 1);
        } else {
            assert_eq!((new.epoch, new.pid), (old.epoch, old.pid));
        }
    }
}

/// A node with one of the shards goes: the others serve, and what needs it is told so.
fn lost_node(cluster: &mut Cluster, made: &[ShardInfo], all: &BTreeSet<String>) {
    let (reader, victim) = (node_of(&made[0]), node_of(&made[1]));
    let lost = keys(&mut as_proxy(&told(&cluster.nodes[reader]).shards[1]));
    cluster.nodes[victim].stop();
    let mut client = cluster.connect(reader, PORT).unwrap();
    for key in all.difference(&lost) {
        assert_eq!(get(&mut client, key).as_ref(), Some(key));
    }
    let key = lost.first().unwrap();
    let missing: Result<Option<String>, _> = redis::cmd("GET").arg(key).query(&mut client);
    assert!(missing.is_err(), "another shard was asked: {missing:?}");
    let count: Result<usize, _> = redis::cmd("DBSIZE").query(&mut client);
    assert!(count.is_err(), "a shard was left out: {count:?}");
    assert_eq!(told(&cluster.nodes[reader]).shards.len(), made.len());

    cluster.nodes[victim].start().unwrap();
    cluster.settled().unwrap();
    shards_ok(cluster);
    for number in 0..3 {
        served(cluster, number, PORT);
        as_one_server(cluster, number, all);
    }
}
