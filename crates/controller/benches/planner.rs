//! One planning pass of the largest cluster: 35 nodes, 1,000 databases, 4,000 shards.
//!
//! `cargo xtask bench planner` runs it as it is shipped; `--json FILE` writes the figures.

use controller::database::plan;
use controller::leases::ProxyId;
use controller::observed::Observations;
use controller::state::ClusterState;
use jiff::Timestamp;
use model::documents::{Database, Role, Shard, keeper_user, keys};
use model::limits::{DATABASES_MAX, NODES_MAX};
use model::observation::{
    EngineState, HostFacts, KeeperObservation, NodeObservation, ProxyDatabaseObservation,
    ProxyObservation, ShardObservation,
};
use model::replication::{ReplicaSeen, ReplicationObservation};
use model::{DatabaseUid, Epoch, NodeUid, Revision, ShardUid};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use store::{State, Txn};

/// Primaries of a database, each with a replica.
const PRIMARIES: u64 = 2;
/// Passes, and with `--quick`.
const ROUNDS: (usize, usize) = (21, 5);
/// Goals: a pass, ms, and the memory of the process, MiB (200 MB).
const PASS_MS: f64 = 50.0;
const MEMORY_MIB: f64 = 190.0;
const TIME: &str = "2026-01-01T00:00:00Z";
const PORT: u16 = 12_000;

fn main() {
    let words: Vec<String> = std::env::args().collect();
    let quick = words.iter().any(|word| word == "--quick");
    let rounds = if quick { ROUNDS.1 } else { ROUNDS.0 };
    let (state, now) = (large(), Timestamp::now());
    let begun = Instant::now();
    let read = read_after(None, &state);
    let whole = begun.elapsed();
    let changed = touched(&state);
    let one = median(rounds, || drop(read_after(Some(&read), &changed)));
    let instant = Instant::now() + Duration::from_secs(60);
    let heard = observations(&read, instant, None);
    let steps = plan::plan(&read, &heard, instant, now).steps.len();
    assert_eq!(steps, 0, "a cluster at rest needs nothing");
    let rest = median(rounds, || drop(plan::plan(&read, &heard, instant, now)));
    let without = observations(&read, instant, Some(NodeUid(7)));
    let lost = plan::plan(&read, &without, instant, now).steps.len();
    let loss = median(rounds, || drop(plan::plan(&read, &without, instant, now)));
    let memory = memory_mib();
    let row = |name: &str, value: f64, unit: &str, goal: f64| {
        let met = value <= goal;
        json!({ "name": name, "value": value, "unit": unit, "goal": goal, "met": met })
    };
    let figures = json!({
        "conditions": {
            "nodes": read.nodes.len(), "databases": read.databases.len(), "shards": read.shards.len(),
            "passes, of which the median counts": rounds,
        },
        "rows": [
            row("a planning pass, all at rest", millis(rest), "ms", PASS_MS),
            row("a planning pass, a node lost", millis(loss), "ms", PASS_MS),
            row("memory at most", memory, "MiB", MEMORY_MIB),
        ],
        "details": {
            "read_whole_ms": millis(whole), "read_after_one_change_ms": millis(one),
            "steps_with_a_lost_node": lost,
        },
    });
    println!("{figures:#}");
    if let Some(at) = words.iter().position(|word| word == "--json")
        && let Some(path) = words.get(at + 1)
        && let Err(error) = std::fs::write(path, format!("{figures:#}\n"))
    {
        eprintln!("{path}: {error}");
        std::process::exit(1);
    }
}

fn millis(took: Duration) -> f64 {
    (took.as_secs_f64() * 100_000.0).round() / 100.0
}

fn median(rounds: usize, mut work: impl FnMut()) -> Duration {
    let mut took: Vec<Duration> = (0..rounds)
        .map(|_| {
            let begun = Instant::now();
            work();
            begun.elapsed()
        })
        .collect();
    took.sort_unstable();
    took[rounds / 2]
}

/// The most that this process ever used.
fn memory_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = peak.and_then(|text| text.trim().trim_end_matches(" kB").parse::<f64>().ok());
    (kib.unwrap_or_default() / 1024.0).round()
}

#[expect(clippy::expect_used, reason = "a benchmark ends where it fails")]
fn read_after(earlier: Option<&ClusterState>, state: &State) -> ClusterState {
    ClusterState::read_after(earlier, state)
        .expect("documents that are read")
        .expect("a cluster")
}

#[expect(clippy::expect_used, reason = "a benchmark ends where it fails")]
fn put(state: &mut State, put: Vec<(String, Value)>) {
    let txn = Txn {
        put,
        ..Txn::default()
    };
    state.apply(&txn).expect("a transaction");
}

/// The same with one shard written again.
fn touched(state: &State) -> State {
    let mut changed = state.clone();
    let key = keys::shard(ShardUid(17));
    let shard = state.entries.get(&key).map(|entry| entry.value.clone());
    put(&mut changed, vec![(key, shard.unwrap_or_default())]);
    changed
}

fn large() -> State {
    let mut state = State::default();
    let cluster = json!({
        "schema": 1, "name": "large.local", "cluster_id": "id", "created": TIME, "feature_level": 1,
        "ca_certificate": "c".repeat(1_000), "ca_key": "k".repeat(300), "next_node": 36,
        "next_database": 1_001, "next_shard": 4_001, "next_user": 2, "next_event": 1,
        "settings": { "slave_ha": true },
    });
    put(&mut state, vec![(keys::CLUSTER.to_owned(), cluster)]);
    for uid in 1..=NODES_MAX as u64 {
        let node = json!({
            "schema": 1, "uid": uid, "address": address(uid).ip(), "hostname": format!("host{uid}"),
            "internode_port": 3_342, "https_port": 9_443, "memory_bytes": 1_u64 << 40,
            "accept_servers": true, "joined": TIME, "rack_id": format!("rack-{}", uid % 5),
        });
        put(&mut state, vec![(keys::node(NodeUid(uid)), node)]);
    }
    for uid in 1..=DATABASES_MAX as u64 {
        put(&mut state, database(uid));
    }
    state
}

fn address(node: u64) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, u8::try_from(node).unwrap_or(u8::MAX)], PORT))
}

/// A database and its shards: each primary on a node, its replica on the next one.
fn database(uid: u64) -> Vec<(String, Value)> {
    let document = json!({
        "schema": 1, "uid": uid, "name": format!("database-{uid}"), "port": 10_000 + uid,
        "memory_size": 4_u64 << 30, "status": "active", "engine": "valkey-9.1.2",
        "shards_count": PRIMARIES, "replication": true, "rack_aware": true,
        "persistence": { "kind": "disabled" }, "eviction_policy": "noeviction",
        "proxy_policy": "all-nodes", "shards_placement": "dense", "leased": true,
        "created": TIME, "changed": TIME,
    });
    let mut documents = vec![(keys::database(DatabaseUid(uid)), document)];
    for index in 0..PRIMARIES {
        let first = (uid - 1) * PRIMARIES * 2 + index * 2 + 1;
        for copy in 0..2 {
            documents.push(shard(uid, (first, copy), index));
        }
    }
    documents
}

fn shard(database: u64, (first, copy): (u64, u64), index: u64) -> (String, Value) {
    let uid = first + copy;
    let slots = 16_384 / PRIMARIES;
    let node = (first / 2 + copy) % NODES_MAX as u64 + 1;
    let record = json!({
        "run_id": format!("run-{uid}"), "replication_id": format!("history-{first}"),
        "offset_floor": 100, "epoch": 1,
    });
    let role = if copy == 0 { "primary" } else { "replica" };
    let document = json!({
        "schema": 1, "uid": uid, "database": database, "node": node, "port": 20_000 + uid, "role": role,
        "slots": { "first": index * slots, "last": (index + 1) * slots - 1 },
        "epoch": 1, "generation": 1, "engine": "valkey-9.1.2", "memory_bytes": 1_u64 << 30,
        "run_id": if copy == 0 { json!(format!("run-{uid}")) } else { Value::Null },
        "serving": if copy == 0 { json!(1) } else { Value::Null },
        "synced": if copy == 0 { Value::Null } else { record },
        "users": { "cnm": "c".repeat(40), "repl": "r".repeat(40), "proxy": "p".repeat(40) },
    });
    (keys::shard(ShardUid(uid)), document)
}

/// Everything runs, but what is on a node that is not heard.
fn observations(state: &ClusterState, now: Instant, silent: Option<NodeUid>) -> Observations {
    let mut observed = Observations::default();
    observed.leases.in_term(1, now - Duration::from_secs(50));
    for node in state.nodes.iter().map(|node| node.uid) {
        let heard = Some(node) != silent;
        let proxy = ProxyId { node, process: 1 };
        if heard
            && observed
                .leases
                .give(proxy, state.revision, state.revision, now)
                .is_err()
        {
            eprintln!("no lease for node:{node}");
        }
        let at = now - Duration::from_secs(if heard { 0 } else { 30 });
        observed.record(of_node(state, node, silent), at);
    }
    observed
}

fn of_node(state: &ClusterState, node: NodeUid, silent: Option<NodeUid>) -> NodeObservation {
    let proxy = |database: &Database| ProxyDatabaseObservation {
        database: database.uid,
        listening: true,
        shards_connected: true,
        ..ProxyDatabaseObservation::default()
    };
    let here = state.shards.iter().filter(|shard| shard.node == node);
    NodeObservation {
        node,
        taken: Timestamp::UNIX_EPOCH,
        software_version: "1.0.0".to_owned(),
        build_id: "b".repeat(64),
        feature_min: 1,
        feature_max: 1,
        started: Timestamp::UNIX_EPOCH,
        host: HostFacts::default(),
        engines: state
            .databases
            .first()
            .map(|d| d.engine.clone())
            .into_iter()
            .collect(),
        shards: here.map(|shard| of_shard(state, shard, silent)).collect(),
        proxy: Some(ProxyObservation {
            databases: state.databases.iter().map(|d| proxy(d)).collect(),
            leases: true,
            applied: Revision(state.revision.0),
            ..ProxyObservation::default()
        }),
        services: Vec::new(),
        stopping: false,
        disk_full: false,
        upgrade: model::upgrade::UpgradeObservation::default(),
        applied: state.revision,
        state_hash: String::new(),
    }
}

fn of_shard(state: &ClusterState, shard: &Shard, silent: Option<NodeUid>) -> ShardObservation {
    let primary = shard.role == Role::Primary;
    let other = ShardUid(if primary {
        shard.uid.0 + 1
    } else {
        shard.uid.0 - 1
    });
    let other = state.shard(other).map_or(shard, |stored| &stored.doc);
    let lost = Some(other.node) == silent;
    let at = |shard: &Shard| SocketAddr::new(address(shard.node.0).ip(), shard.port);
    let history = if primary { shard.uid } else { other.uid };
    let replicas = (primary && !lost).then(|| ReplicaSeen {
        address: at(other),
        online: true,
        offset: 1_000,
        lag_seconds: 0,
    });
    ShardObservation {
        shard: shard.uid,
        database: shard.database,
        generation: shard.generation,
        state: EngineState::Running,
        role: Some(shard.role),
        epoch: Some(Epoch(1)),
        pid: Some(1),
        run_id: Some(format!("run-{}", shard.uid)),
        engine: shard.engine.clone(),
        used_memory: 1 << 20,
        fragmentation: 1.0,
        keys: 0,
        connections: 0,
        loading_percent: 0.0,
        error: None,
        replication: Some(ReplicationObservation {
            is_primary: primary,
            replication_id: format!("history-{history}"),
            offset: 1_000,
            link_up: !primary && !lost,
            primary: (!primary).then(|| at(other)),
            replicas: replicas.into_iter().collect(),
            ..ReplicationObservation::default()
        }),
        keeper: Some(KeeperObservation {
            user: keeper_user(Epoch(1), [shard.uid, other.uid]),
            alone: true,
        }),
        data_written: None,
        stall: None,
        files_pending: false,
        refuses_writes: None,
        load_failures: 0,
        set_aside: None,
    }
}
