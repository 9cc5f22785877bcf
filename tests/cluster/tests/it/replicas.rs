//! What if a replicated database loses an engine, and what if its primaries are moved?

use crate::load::{Writer, go_on, go_on_by, stop, value, writer};
use crate::story::{databases, primary, refused, seen, served, set, shards, shards_ok};
use model::documents::OperationStatus;
use model::rest::{ActionStarted, Actions, ActionsStarted, NodeInfo, ShardInfo};
use model::{ApiError, ErrorCode, ShardUid};
use serde_json::json;
use std::collections::BTreeSet;
use std::time::Duration;
use testkit::cluster::Cluster;
use testkit::wait;

const PORT: u16 = 12_000;

pub(crate) fn create(cluster: &Cluster, more: &[&str]) {
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

pub(crate) fn masters(cluster: &Cluster) -> Vec<ShardInfo> {
    let mut all = shards(cluster, 0);
    all.retain(|shard| shard.role == "master");
    all
}

pub(crate) fn end(pid: Option<u32>) {
    let pid = i32::try_from(pid.expect("a process")).unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn a_replica_takes_the_place_of_a_primary_that_is_killed() {
    let cluster = Cluster::start(3).unwrap();
    create(&cluster, &["shards_count", "2"]);
    let made = shards(&cluster, 0);
    assert_eq!(made.len(), 4);
    for slots in ["0-8191", "8192-16383"] {
        let copies = made.iter().filter(|shard| shard.assigned_slots == slots);
        let nodes: BTreeSet<u64> = copies.map(|shard| shard.node_uid.0).collect();
        assert_eq!(nodes.len(), 2, "two copies on two nodes: {made:?}");
    }
    let status = cluster.nodes[1].rladmin(&["status", "shards"]).unwrap();
    let text = seen(&status);
    assert!(text.contains("slave") && text.contains("master"), "{text}");

    let writers: Vec<Writer> = (0..4)
        .map(|number| writer(&cluster, number % 3, PORT, format!("chain:{number}")))
        .collect();
    go_on(&writers, "they write");
    let lost = masters(&cluster).remove(0);
    end(lost.pid);
    wait::until("another primary", Duration::from_secs(30), || {
        let now = masters(&cluster);
        let same_slots = now.iter().find(|s| s.assigned_slots == lost.assigned_slots);
        match same_slots {
            Some(shard) if shard.uid != lost.uid && shard.detailed_status == "ok" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .unwrap();
    shards_ok(&cluster);
    go_on(&writers, "they write again");
    let mut connection = served(&cluster, 0, PORT);
    for written in stop(writers) {
        assert!(written.acknowledged > 0, "{written:?}");
        // What was in flight got one error; everything after it was served on the same connection.
        assert!(written.errors.len() <= 2, "{written:?}");
        let there = value(&mut connection, &written.key);
        assert!(
            (written.acknowledged..=written.sent).contains(&there),
            "{there} of {written:?}"
        );
        println!("{}: longest wait {:?}", written.key, written.worst);
    }
    assert!(databases(&cluster, 0)[0].replication);
}

#[test]
fn primaries_are_moved_without_an_error() {
    let mut cluster = Cluster::start(3).unwrap();
    create(&cluster, &[]);
    let writers: Vec<Writer> = (0..6)
        .map(|number| writer(&cluster, number % 3, PORT, format!("chain:{number}")))
        .collect();
    for round in 0..6 {
        let master = masters(&cluster).remove(0);
        let name = format!("redis:{}", master.uid);
        let output = cluster.nodes[round % 3]
            .rladmin(&["failover", "shard", &name])
            .unwrap();
        let text = seen(&output);
        assert!(output.status.success(), "round {round}: {text}");
        assert!(text.contains("commands were held for"), "{text}");
        println!("{text}");
        assert_ne!(masters(&cluster)[0].uid, master.uid);
        shards_ok(&cluster);
    }
    moved_while_a_proxy_comes_back(&mut cluster, &writers);
    let mut connection = served(&cluster, 0, PORT);
    for written in stop(writers) {
        assert_eq!(written.errors, [""; 0], "{}", written.key);
        assert_eq!(value(&mut connection, &written.key), written.acknowledged);
        println!("{}: longest wait {:?}", written.key, written.worst);
    }
    bad_input(&cluster);
}

/// A proxy has lost its `cnm_exec` for so long that it comes back late, when a move is ordered: it holds as well.
fn moved_while_a_proxy_comes_back(cluster: &mut Cluster, writers: &[Writer]) {
    let leads = primary(cluster);
    let left = (leads + 1) % 3;
    let name = format!("redis:{}", masters(cluster).remove(0).uid);
    cluster.nodes[left].kill("cnm_exec").unwrap();
    for _ in 0..10 {
        go_on_by(writers, 500, "they write without it");
    }
    cluster.nodes[left].start_daemon("cnm_exec").unwrap();
    let words = ["failover", "shard", &name, "immediate"];
    wait::until("it is moved", Duration::from_secs(20), || {
        let output = cluster.nodes[leads].rladmin(&words);
        match output {
            Ok(output) if output.status.success() => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .unwrap();
    cluster.nodes[left].ready().unwrap();
    go_on(writers, "they write still");
}

fn bad_input(cluster: &Cluster) {
    let all = shards(cluster, 0);
    let of = |role: &str| all.iter().find(|s| s.role == role).unwrap().uid.to_string();
    refused(
        cluster,
        0,
        &["failover", "shard", "99"],
        "there is no shard redis:99",
    );
    refused(
        cluster,
        0,
        &["failover", "shard", &of("slave")],
        "is no master",
    );
    refused(
        cluster,
        0,
        &["failover", "shard", "x"],
        "write 1 or redis:1",
    );
    refused(
        cluster,
        0,
        &["failover", "db", "nothing", "shard", &of("master")],
        "no database 'nothing'",
    );
    let error = cluster.nodes[0]
        .send::<ActionStarted>(
            "POST",
            "/v1/shards/actions/failover",
            &json!({"shard_uids": []}),
        )
        .unwrap_err();
    assert_eq!(error.error_code, ErrorCode::ShardUidsRequired);
}

#[test]
fn replication_is_switched_on_and_off_while_a_database_serves() {
    let cluster = Cluster::start(3).unwrap();
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
    set(&mut connection, "kept", "value");
    for (word, count) in [("enabled", 2), ("disabled", 1), ("enabled", 2)] {
        let output = cluster.nodes[1]
            .rladmin(&["tune", "db", "demo", "replication", word])
            .unwrap();
        assert!(output.status.success(), "{}", seen(&output));
        assert_eq!(shards(&cluster, 0).len(), count);
        assert_eq!(
            crate::story::get(&mut connection, "kept").as_deref(),
            Some("value")
        );
    }
    let master = masters(&cluster).remove(0);
    assert_eq!(master.uid, ShardUid(1));
    end(master.pid);
    wait::until("its replica serves", Duration::from_secs(30), || {
        let now = masters(&cluster).remove(0);
        match (now.uid == master.uid, now.detailed_status.as_str()) {
            (false, "ok") => Ok(()),
            _ => Err(format!("{now:?}")),
        }
    })
    .unwrap();
    let mut connection = served(&cluster, 0, PORT);
    assert_eq!(
        crate::story::get(&mut connection, "kept").as_deref(),
        Some("value")
    );
}

/// Ends when no operation runs any more.
fn at_rest(cluster: &Cluster) {
    wait::until("every operation has ended", Duration::from_secs(60), || {
        let actions: Actions = cluster.nodes[0]
            .get("/v1/actions")
            .map_err(|e| e.to_string())?;
        let running: Vec<_> = actions
            .state_machines
            .iter()
            .filter(|a| !matches!(a.status, Some(OperationStatus::Completed)))
            .collect();
        if running.is_empty() {
            return Ok(());
        }
        Err(format!("{running:?}"))
    })
    .unwrap();
}

fn act(cluster: &Cluster, node: u64, action: &str) -> Result<ActionsStarted, ApiError> {
    let path = format!("/v1/nodes/{node}/actions/{action}");
    cluster.nodes[0].send("POST", &path, &json!({}))
}

fn on(cluster: &Cluster, node: u64) -> Vec<String> {
    let mut there: Vec<String> = shards(cluster, 0)
        .iter()
        .filter(|shard| shard.node_uid.0 == node)
        .map(|shard| format!("{} {}", shard.assigned_slots, shard.role))
        .collect();
    there.sort();
    there
}

/// Maintenance of each node in turn, a shard brought elsewhere, a node taken out: clients notice nothing.
#[test]
fn nodes_are_emptied_under_load_without_an_error() {
    let cluster = Cluster::start(3).unwrap();
    create(&cluster, &["shards_count", "2"]);
    // Node 3 leaves in the end: nobody is connected to it.
    let writers: Vec<Writer> = (0..4)
        .map(|number| writer(&cluster, number % 2, PORT, format!("chain:{number}")))
        .collect();
    for node in 1..=3 {
        let before = on(&cluster, node);
        act(&cluster, node, "maintenance_on").unwrap();
        at_rest(&cluster);
        assert_eq!(on(&cluster, node), [""; 0], "node {node} is empty");
        let refused = act(&cluster, node % 3 + 1, "maintenance_on").unwrap_err();
        assert_eq!(refused.error_code, ErrorCode::NoMajorityLeft);
        act(&cluster, node, "maintenance_off").unwrap();
        at_rest(&cluster);
        assert_eq!(
            on(&cluster, node),
            before,
            "node {node} has its shards again"
        );
    }
    let moved = shards(&cluster, 0).remove(0);
    let free = (1..=3).find(|node| {
        let mut all = shards(&cluster, 0).into_iter();
        all.all(|s| s.assigned_slots != moved.assigned_slots || s.node_uid.0 != *node)
    });
    let (shard, node) = (
        format!("redis:{}", moved.uid),
        format!("node:{}", free.unwrap()),
    );
    let output = cluster.nodes[1]
        .rladmin(&["migrate", "shard", &shard, "target_node", &node])
        .unwrap();
    assert!(output.status.success(), "{}", seen(&output));
    act(&cluster, 3, "remove").unwrap();
    wait::until("node 3 has left", Duration::from_secs(60), || {
        let nodes: Vec<NodeInfo> = cluster.nodes[0]
            .get("/v1/nodes")
            .map_err(|e| e.to_string())?;
        if nodes.len() == 2 {
            return Ok(());
        }
        Err(format!("{} nodes", nodes.len()))
    })
    .unwrap();
    assert_eq!(shards(&cluster, 0).len(), 4);
    shards_ok(&cluster);
    // Two copies of everything are on two nodes: there is no place for a third.
    let refusal = act(&cluster, 2, "remove").unwrap_err();
    assert_eq!(
        refusal.error_code,
        ErrorCode::InsufficientResources,
        "{refusal}"
    );
    for written in stop(writers) {
        assert_eq!(written.errors, [""; 0], "{}", written.key);
        println!("{}: longest wait {:?}", written.key, written.worst);
        let mut connection = served(&cluster, 0, PORT);
        assert_eq!(value(&mut connection, &written.key), written.acknowledged);
    }
}
