//! What a node tells of endpoints, from documents and heartbeats.

use super::*;
use model::documents::keys;
use model::{DatabaseUid, ShardUid};
use serde_json::{Value, json};
use store::{State, Txn};

const TIME: &str = "2026-01-01T00:00:00Z";

/// Three nodes, a database of two shards on nodes 1 and 2.
fn state(policy: &str, status: &str) -> ClusterState {
    let cluster = json!({
        "schema": 1, "name": "c.local", "cluster_id": "id", "created": TIME, "feature_level": 1,
        "ca_certificate": "", "ca_key": "", "next_node": 4, "next_database": 2, "next_shard": 3,
        "next_user": 1, "next_event": 1
    });
    let database = json!({
        "schema": 1, "uid": 1, "name": "demo", "port": 12000, "memory_size": 1, "status": status,
        "engine": "valkey-9.1.2", "shards_count": 2, "replication": false,
        "persistence": { "kind": "disabled" }, "eviction_policy": "noeviction",
        "proxy_policy": policy, "shards_placement": "sparse", "created": TIME, "changed": TIME
    });
    let mut put = vec![
        (keys::CLUSTER.to_owned(), cluster),
        (keys::database(DatabaseUid(1)), database),
    ];
    for uid in 1..=3 {
        let external = if uid == 2 { vec!["192.0.2.2"] } else { vec![] };
        let node = json!({
            "schema": 1, "uid": uid, "address": format!("10.0.0.{uid}"), "hostname": "h",
            "external_address": external, "internode_port": 3342, "https_port": 9443,
            "memory_bytes": 1, "accept_servers": true, "joined": TIME
        });
        put.push((keys::node(NodeUid(uid)), node));
    }
    for (uid, first, last) in [(1, 0, 8_191), (2, 8_192, 16_383)] {
        let shard = json!({
            "schema": 1, "uid": uid, "database": 1, "node": uid, "port": 20_000 + uid,
            "role": "primary", "slots": { "first": first, "last": last }, "epoch": 1,
            "generation": 1, "engine": "valkey-9.1.2", "memory_bytes": 1, "run_id": "r",
            "serving": 1, "users": { "cnm": "c", "repl": "r", "proxy": "p" }
        });
        put.push((keys::shard(ShardUid(uid)), shard));
    }
    let mut state = State::default();
    let txn = Txn {
        put,
        ..Txn::default()
    };
    state.apply(&txn).unwrap();
    ClusterState::read(&state).unwrap().unwrap()
}

fn proxy(listening: bool) -> Value {
    json!({
        "pid": 1, "software_version": "1", "build_id": "b", "applied": 1, "threads": 1,
        "connections": 0, "commands": 0,
        "databases": [{
            "database": 1, "listening": listening, "shards_connected": true, "connections": 0,
            "commands": 0, "error": null
        }]
    })
}

fn seen(node: u64, age_ms: u64, proxy: Option<Value>) -> Observed {
    let observed = json!({
        "age_ms": age_ms,
        "observation": {
            "node": node, "taken": TIME, "software_version": "1", "build_id": "b",
            "feature_min": 1, "feature_max": 1, "started": TIME,
            "host": serde_json::to_value(model::observation::HostFacts::default()).unwrap(),
            "engines": [], "shards": [], "proxy": proxy, "services": [], "applied": 1,
            "state_hash": ""
        }
    });
    serde_json::from_value(observed).unwrap()
}

/// As node 1 sees it: uid of each proxy, and whether something speaks against it.
fn told(policy: &str, observed: &[Observed], recent: bool) -> Vec<(u64, bool)> {
    let own: ProxyObservation = serde_json::from_value(proxy(true)).unwrap();
    let known = Known {
        me: NodeUid(1),
        observed,
        recent,
        own: Some(&own),
        has_quorum: true,
    };
    let view = view_of(&state(policy, "active"), &known);
    let proxies = &view.endpoints[0].proxies;
    proxies.iter().map(|p| (p.node.0, p.doubtful)).collect()
}

#[test]
fn the_policy_says_whose_proxies_serve() {
    let all: Vec<Observed> = (1..=3).map(|n| seen(n, 0, Some(proxy(true)))).collect();
    let names = |policy| told(policy, &all, true);
    assert_eq!(names("single"), [(1, false)]);
    assert_eq!(names("all-master-shards"), [(1, false), (2, false)]);
    assert_eq!(names("all-nodes"), [(1, false), (2, false), (3, false)]);
}

#[test]
fn silence_and_a_closed_listener_speak_against_a_proxy() {
    let observed = [
        seen(2, 60_000, Some(proxy(true))),
        seen(3, 0, Some(proxy(false))),
    ];
    let told_so = told("all-nodes", &observed, true);
    assert_eq!(told_so, [(1, false), (2, true), (3, true)]);
    let no_proxy = [seen(2, 0, None)];
    assert!(told("all-nodes", &no_proxy, true).contains(&(2, true)));
    // Without a primary node nothing new is heard of anybody: that speaks against nobody.
    let all_old = told("all-nodes", &observed, false);
    assert_eq!(all_old, [(1, false), (2, false), (3, false)]);
}

/// When a node is lost with a primary, each proxy says that it does not reach that; none is a better place for it.
#[test]
fn a_shard_that_is_not_reached_does_not_speak_against_a_proxy() {
    let cut_off = || {
        let mut proxy = proxy(true);
        proxy["databases"][0]["shards_connected"] = json!(false);
        proxy["databases"][0]["error"] = json!("redis:1: connection refused");
        proxy
    };
    let observed = [seen(2, 0, Some(cut_off())), seen(3, 0, Some(proxy(true)))];
    let own: ProxyObservation = serde_json::from_value(cut_off()).unwrap();
    let known = Known {
        me: NodeUid(1),
        observed: &observed,
        recent: true,
        own: Some(&own),
        has_quorum: true,
    };
    let view = view_of(&state("all-nodes", "active"), &known);
    let proxies = &view.endpoints[0].proxies;
    assert!(proxies.iter().all(|proxy| !proxy.doubtful), "{proxies:?}");
}

#[test]
fn a_database_that_is_not_served_has_no_endpoint() {
    let known = Known {
        me: NodeUid(3),
        observed: &[],
        recent: true,
        own: None,
        has_quorum: false,
    };
    for status in ["delete-pending", "creation-failed"] {
        assert!(
            view_of(&state("all-nodes", status), &known)
                .endpoints
                .is_empty()
        );
    }
    let view = view_of(&state("all-nodes", "active"), &known);
    assert_eq!(view.nodes[1].external, Some([192, 0, 2, 2].into()));
    assert_eq!(view.nodes[0].external, None);
    // This node's own proxy has not come yet.
    let doubtful: Vec<bool> = view.endpoints[0]
        .proxies
        .iter()
        .map(|p| p.doubtful)
        .collect();
    assert_eq!(doubtful, [false, false, true]);
}
