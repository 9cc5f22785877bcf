//! What a proxy is told, from documents as they lie in the store.

use super::*;
use model::documents::keys;
use model::{Epoch, ShardUid};
use serde_json::{Value, json};
use store::{State, Txn};

fn cluster() -> Value {
    json!({
        "schema": 1, "name": "c.local", "cluster_id": "id", "created": "2026-01-01T00:00:00Z",
        "feature_level": 1, "ca_certificate": "", "ca_key": "", "next_node": 3, "next_database": 2,
        "next_shard": 4, "next_user": 1, "next_event": 1, "of_a_newer_release": true
    })
}

fn node(uid: u64) -> Value {
    json!({
        "schema": 1, "uid": uid, "address": format!("127.0.0.1{uid}"), "hostname": "h",
        "internode_port": 3342, "https_port": 9443, "memory_bytes": 1, "accept_servers": true,
        "joined": "2026-01-01T00:00:00Z"
    })
}

pub(crate) fn database(shards_count: u64, policy: &str) -> Value {
    json!({
        "schema": 1, "uid": 1, "name": "demo", "port": 12000, "memory_size": 1, "status": "active",
        "engine": "valkey-9.1.2", "shards_count": shards_count, "replication": false,
        "persistence": { "kind": "disabled" }, "eviction_policy": "noeviction",
        "proxy_policy": policy, "shards_placement": "sparse", "created": "2026-01-01T00:00:00Z",
        "changed": "2026-01-01T00:00:00Z"
    })
}

/// `serving`: the epoch in which its agent confirmed the role. Epochs are 2.
pub(crate) fn shard(uid: u64, node: u64, slots: (u16, u16), serving: u64) -> Value {
    json!({
        "schema": 1, "uid": uid, "database": 1, "node": node, "port": 20_000 + uid, "role": "primary",
        "slots": { "first": slots.0, "last": slots.1 }, "epoch": 2, "generation": 1,
        "engine": "valkey-9.1.2", "memory_bytes": 1, "run_id": "r", "serving": serving,
        "users": { "cnm": "c", "repl": "r", "proxy": format!("p{uid}") }
    })
}

/// The database as the proxy of a node is told of it; `None`: it does not serve it.
fn told(me: u64, database: Value, shards: &[Value]) -> Option<ProxyDatabase> {
    told_of(me, (database, false), shards)
}

/// The same; whether it is kept for clients that are there.
fn told_of(me: u64, (database, kept): (Value, bool), shards: &[Value]) -> Option<ProxyDatabase> {
    let state = state(database, shards);
    let text = format!(
        "install_id = 't'\naddress = '127.0.0.1{me}'\ninstall_dir = '/opt/m'\nconfig_dir = '/etc/m'\n\
         var_dir = '/var/m'\nsocket_dir = '/run/m'\nos_user = 'm'\nos_group = 'm'\n"
    );
    let config = NodeConfig::parse(&text).unwrap();
    let config = build(&state, NodeUid(me), &config, &|_| kept);
    config.databases.into_iter().next()
}

/// A cluster of two nodes with one database.
pub(crate) fn state(database: Value, shards: &[Value]) -> ClusterState {
    let mut put = vec![
        (keys::CLUSTER.to_owned(), cluster()),
        (keys::database(DatabaseUid(1)), database),
    ];
    put.extend((1..=2).map(|uid| (keys::node(NodeUid(uid)), node(uid))));
    for shard in shards {
        let uid = shard["uid"].as_u64().unwrap();
        put.push((keys::shard(ShardUid(uid)), shard.clone()));
    }
    let mut state = State::default();
    state
        .apply(&Txn {
            put,
            ..Txn::default()
        })
        .unwrap();
    ClusterState::read(&state).unwrap().unwrap()
}

#[test]
fn what_others_serve_now_is_kept_for_the_clients_that_are_there() {
    let of = |me, kept| {
        told_of(
            me,
            (database(1, "single"), kept),
            &[shard(1, 2, (0, 16_383), 2)],
        )
    };
    assert_eq!(of(1, false), None);
    let kept = of(1, true).unwrap();
    assert_eq!((kept.listen.len(), kept.shards[0].uid.0), (0, 1));
    assert_eq!(of(2, true), of(2, false));
    assert_eq!(of(2, true).unwrap().listen.len(), 1);
}

#[test]
fn who_else_serves_is_told() {
    let shards = [shard(1, 1, (0, 8_000), 2), shard(2, 2, (8_001, 16_383), 2)];
    let of = |me, policy| {
        told_of(me, (database(2, policy), true), &shards)
            .unwrap()
            .elsewhere
    };
    for policy in ["all-nodes", "all-master-shards"] {
        assert_eq!(
            (of(1, policy), of(2, policy)),
            (vec![NodeUid(2)], vec![NodeUid(1)])
        );
    }
    assert_eq!(
        (of(1, "single"), of(2, "single")),
        (vec![], vec![NodeUid(1)])
    );
}

#[test]
fn every_primary_is_named_by_slots_with_its_address_and_whether_it_serves() {
    let shards = [
        shard(1, 2, (10_923, 16_383), 2),
        shard(2, 1, (0, 5_461), 2),
        shard(3, 2, (5_462, 10_922), 1),
    ];
    let told = told(1, database(3, "all-nodes"), &shards).unwrap();
    let seen: Vec<_> = told
        .shards
        .iter()
        .map(|s| (s.uid.0, s.slots.first, s.slots.last, s.serving))
        .collect();
    assert_eq!(
        seen,
        [
            (2, 0, 5_461, true),
            (3, 5_462, 10_922, false),
            (1, 10_923, 16_383, true)
        ]
    );
    let addresses: Vec<_> = told.shards.iter().map(|s| s.address.clone()).collect();
    assert!(matches!(&addresses[0], ShardAddress::Unix(path) if path.starts_with("/run/m")));
    let tcp = |port| ShardAddress::Tcp(SocketAddr::new("127.0.0.12".parse().unwrap(), port));
    assert_eq!(addresses[1..], [tcp(20_003), tcp(20_001)]);
    let last = &told.shards[2];
    assert_eq!((last.epoch, last.user.as_str()), (Epoch(2), "proxy@e2"));
    assert_eq!(last.password.expose(), "p1");
}

#[test]
fn the_only_shard_is_named_when_it_serves() {
    let whole = (0, 16_383);
    let one = |serving| told(1, database(1, "single"), &[shard(1, 1, whole, serving)]).unwrap();
    assert_eq!(one(2).shards.len(), 1);
    assert_eq!(one(1).shards, []);
}

#[test]
fn why_a_primary_is_gone_and_not_replaced_is_told() {
    let mut lost = shard(1, 1, (0, 16_383), 2);
    let of = |shard: &Value| told(1, database(1, "single"), std::slice::from_ref(shard)).unwrap();
    assert_eq!(of(&lost).shards[0].trouble, None);
    lost["trouble"] = json!("redis:1 has stopped");
    let told = of(&lost).shards[0].trouble.clone();
    assert_eq!(told.as_deref(), Some("redis:1 has stopped"));
}

#[test]
fn single_is_the_node_of_the_first_slots() {
    let shards = [shard(1, 2, (8_192, 16_383), 2), shard(2, 1, (0, 8_191), 2)];
    for (policy, nodes) in [
        ("single", [true, false]),
        ("all-master-shards", [true, true]),
    ] {
        let serves = [1, 2].map(|me| told(me, database(2, policy), &shards).is_some());
        assert_eq!(serves, nodes, "{policy}");
    }
}

/// A rate is shared among the proxies that serve a database: together they keep to it.
#[test]
fn rates_are_shared_among_proxies() {
    let shards = [shard(1, 1, (0, 8_191), 2), shard(2, 2, (8_192, 16_383), 2)];
    let tuned = |policy: &str, rate: u64| {
        let mut database = database(2, policy);
        database["tuning"] = json!({
            "max_commands_per_second": rate, "max_bytes_per_second": 2 * rate,
            "max_client_pipeline": 9, "of_a_newer_release": 1
        });
        [1, 2].map(|me| told(me, database.clone(), &shards).map(|told| told.tuning))
    };
    let rates = |told: &DatabaseTuning| (told.max_commands_per_second, told.max_bytes_per_second);
    let [one, two] = tuned("all-nodes", 1_001).map(Option::unwrap);
    assert_eq!((rates(&one), rates(&two)), ((501, 1_001), (500, 1_001)));
    assert_eq!((one.max_client_pipeline, two.max_client_pipeline), (9, 9));
    let [one, two] = tuned("single", 1_001);
    assert_eq!(rates(&one.unwrap()), (1_001, 2_002));
    assert_eq!(two, None);
    // None is none, and the least is one.
    assert_eq!(
        tuned("all-nodes", 0).map(|told| rates(&told.unwrap())),
        [(0, 0); 2]
    );
    assert_eq!(
        tuned("all-nodes", 1).map(|told| rates(&told.unwrap())),
        [(1, 1); 2]
    );
    let before = told(1, database(2, "single"), &shards).unwrap();
    assert_eq!(before.tuning, DatabaseTuning::default());
}

/// A node that was stopped for longer than a proxy may be silent looks once more before it takes that for gone.
#[tokio::test]
async fn silence_is_looked_at_twice() {
    let begun = || Silence {
        until: tokio::time::Instant::now(),
        is_long: false,
    };
    let mut silence = begun();
    let at_once = tokio::time::timeout(Duration::ZERO, silence.over()).await;
    assert!(at_once.is_err());
    // It has said nothing all the same.
    silence.over().await;
    assert!(silence.is_long && !Silence::begin().is_long);
}
