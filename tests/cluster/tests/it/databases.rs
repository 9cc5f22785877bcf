//! What does a database do from its creation to its end, and what survives what?

use crate::story::{databases, get, refused, seen, served, set, shard_ok, shards, shards_ok};
use model::rest::LogEvent;
use serde_json::json;
use std::time::Duration;
use testkit::cluster::{Cluster, processes_below};
use testkit::wait;

#[test]
fn created_changed_and_deleted() {
    let cluster = Cluster::start(3).unwrap();
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
    for node in 0..3 {
        // "Done" means done: the first connection through every node is served.
        let mut connection = cluster.connect(node, 12000).unwrap();
        set(&mut connection, &format!("key{node}"), "value");
    }
    let before = shard_ok(&cluster, 0);
    let status = cluster.nodes[2]
        .rladmin(&["status", "extra", "all"])
        .unwrap();
    assert!(seen(&status).contains("redis:1"), "{}", seen(&status));

    let changed = cluster.nodes[1]
        .rladmin(&[
            "tune",
            "db",
            "demo",
            "memory_size",
            "128MB",
            "eviction_policy",
            "allkeys-lru",
        ])
        .unwrap();
    assert!(changed.status.success(), "{}", seen(&changed));
    wait::until("the change is made", Duration::from_secs(20), || {
        let db = databases(&cluster, 0).remove(0);
        if db.memory_size == 128 << 20 && db.action_uid.is_empty() {
            return Ok(());
        }
        Err(format!("{db:?}"))
    })
    .unwrap();
    let mut connection = served(&cluster, 1, 12000);
    let memory: Vec<String> = redis::cmd("CONFIG")
        .arg("GET")
        .arg("maxmemory")
        .query(&mut connection)
        .unwrap();
    assert_eq!(memory[1], (128 << 20).to_string());
    assert_eq!(
        shard_ok(&cluster, 0).pid,
        before.pid,
        "a change starts nothing anew"
    );
    assert_eq!(get(&mut connection, "key2").as_deref(), Some("value"));

    refuse_what_cannot_be(&cluster);
    delete(&cluster);
}

fn refuse_what_cannot_be(cluster: &Cluster) {
    refused(
        cluster,
        0,
        &["create", "db", "demo", "memory_size", "64MB"],
        "name_already_exists",
    );
    refused(
        cluster,
        0,
        &[
            "create",
            "db",
            "other",
            "memory_size",
            "64MB",
            "port",
            "12000",
        ],
        "port_unavailable",
    );
    refused(
        cluster,
        0,
        &["create", "db", "other", "memory_size", "900GB"],
        "insufficient",
    );
    refused(
        cluster,
        0,
        &[
            "create",
            "db",
            "other",
            "memory_size",
            "64MB",
            "redis_version",
            "5.0",
        ],
        "invalid_version",
    );
}

fn delete(cluster: &Cluster) {
    let deleted = cluster.nodes[2]
        .rladmin(&["-y", "delete", "db", "demo"])
        .unwrap();
    assert!(deleted.status.success(), "{}", seen(&deleted));
    assert!(databases(cluster, 0).is_empty() && shards(cluster, 0).is_empty());
    for node in &cluster.nodes {
        let left: Vec<_> = std::fs::read_dir(node.config.shards_dir())
            .unwrap()
            .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
            .filter(|name| name != "removed.json")
            .collect();
        assert!(left.is_empty(), "its data is gone: {left:?}");
    }
    wait::until(
        "the endpoint is closed",
        Duration::from_secs(10),
        || match cluster.connect(1, 12000) {
            Err(_) => Ok(()),
            Ok(_) => Err("it still accepts".to_owned()),
        },
    )
    .unwrap();
}

#[test]
fn an_engine_that_dies_comes_back_with_what_its_persistence_keeps() {
    let cluster = Cluster::start(3).unwrap();
    for (name, port, persistence) in [
        ("aof", "12001", "aof-every-write"),
        ("none", "12002", "disabled"),
    ] {
        cluster
            .create_db(&[
                name,
                "memory_size",
                "64MB",
                "port",
                port,
                "persistence",
                persistence,
            ])
            .unwrap();
    }
    let place = |bdb: &str| {
        let shard = shards(&cluster, 0)
            .into_iter()
            .find(|s| s.bdb_name == bdb)
            .unwrap();
        (usize::try_from(shard.node_uid.0).unwrap() - 1, shard)
    };
    for (name, port, kept) in [("aof", 12001, Some("1")), ("none", 12002, None)] {
        let (node, shard) = place(name);
        set(&mut served(&cluster, node, port), "key", "1");
        let pid = rustix::process::Pid::from_raw(shard.pid.unwrap().cast_signed()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        let back = wait::until("a new process serves", Duration::from_secs(30), || {
            let (_, now) = place(name);
            if now.epoch > shard.epoch && now.detailed_status == "ok" && now.pid != shard.pid {
                return Ok(now);
            }
            Err(format!("{now:?}"))
        })
        .unwrap();
        assert_eq!(back.epoch, shard.epoch + 1);
        assert_eq!(
            get(&mut served(&cluster, node, port), "key").as_deref(),
            kept,
            "{name}"
        );
    }
    let events: Vec<LogEvent> = cluster.nodes[0].get("/v1/logs").unwrap();
    let restarts = events
        .iter()
        .filter(|e| e.kind == "shard_restarted")
        .count();
    assert_eq!(restarts, 2, "{events:?}");
}

/// What was there before is kept from the moment at which the change is done.
#[test]
fn a_change_of_persistence_is_done_when_its_files_are_there() {
    let cluster = Cluster::start(1).unwrap();
    for (port, persistence) in [("12001", "snapshot"), ("12002", "aof")] {
        let words = [persistence, "memory_size", "256MB", "port", port];
        cluster.create_db(&words).unwrap();
        let mut connection = served(&cluster, 0, port.parse().unwrap());
        set(&mut connection, "key", "kept");
        // Enough that the files take longer than what else a change waits for.
        let mut fill = redis::pipe();
        for number in 0..1_000 {
            let value = vec![b'v'; 100_000];
            fill.set(format!("more:{number}"), value).ignore();
        }
        fill.query::<()>(&mut connection).unwrap();
        let shard = shards(&cluster, 0)
            .into_iter()
            .find(|shard| shard.bdb_name == persistence)
            .unwrap();
        let words = ["tune", "db", persistence, "persistence", persistence];
        let output = cluster.nodes[0].rladmin(&words).unwrap();
        let pid = rustix::process::Pid::from_raw(shard.pid.unwrap().cast_signed()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        assert!(output.status.success(), "{}", seen(&output));
        wait::until("a new process serves", Duration::from_secs(30), || {
            let all = shards(&cluster, 0);
            let now = all.iter().find(|now| now.uid == shard.uid).unwrap();
            match now.epoch > shard.epoch && now.detailed_status == "ok" {
                true => Ok(()),
                false => Err(format!("{now:?}")),
            }
        })
        .unwrap();
        let mut connection = served(&cluster, 0, port.parse().unwrap());
        let kept = get(&mut connection, "key");
        assert_eq!(kept.as_deref(), Some("kept"), "{persistence}");
    }
}

#[test]
fn everything_stopped_and_started_again() {
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
            "persistence",
            "aof",
        ])
        .unwrap();
    let wide = "wide memory_size 64MB port 12001 shards_count 3 shards_placement sparse \
                proxy_policy all-nodes persistence aof";
    cluster
        .create_db(&wide.split_whitespace().collect::<Vec<_>>())
        .unwrap();
    set(&mut served(&cluster, 0, 12000), "key", "kept");
    let keys: Vec<_> = (0..100).map(|number| format!("key:{number}")).collect();
    let mut connection = served(&cluster, 1, 12001);
    for key in &keys {
        set(&mut connection, key, key);
    }
    // As mainstay-node does it: the engines save and stop, then the daemons end.
    for node in &mut cluster.nodes {
        let exec = client::local::ExecClient::new(node.config.exec_socket());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(exec.stop_engines()).unwrap();
        node.stop();
        assert!(processes_below(&node.config.var_dir).is_empty());
    }
    for node in &mut cluster.nodes {
        node.start().unwrap();
    }
    cluster.settled().unwrap();
    shards_ok(&cluster);
    for node in 0..3 {
        let mut connection = served(&cluster, node, 12000);
        assert_eq!(
            get(&mut connection, "key").as_deref(),
            Some("kept"),
            "through node {node}"
        );
        let mut connection = served(&cluster, node, 12001);
        for key in &keys {
            assert_eq!(get(&mut connection, key).as_ref(), Some(key));
        }
    }
}

#[test]
fn every_engine_and_a_password() {
    let cluster = Cluster::start(1).unwrap();
    for (number, version) in ["6.2", "7.0", "8.0", "9.1"].into_iter().enumerate() {
        let port = format!("1210{number}");
        cluster
            .create_db(&[
                &format!("db{number}"),
                "memory_size",
                "64MB",
                "port",
                &port,
                "redis_version",
                version,
                "password",
                "pass word",
            ])
            .unwrap();
        let address = cluster.nodes[0].config.address;
        let mut plain = cluster.connect(0, port.parse().unwrap()).unwrap();
        let error = redis::cmd("GET")
            .arg("x")
            .query::<Option<String>>(&mut plain)
            .unwrap_err();
        assert!(error.to_string().contains("NOAUTH"), "{error}");
        let client =
            redis::Client::open(format!("redis://:pass%20word@{address}:{port}/")).unwrap();
        let mut connection = client.get_connection().unwrap();
        let info: String = redis::cmd("INFO")
            .arg("server")
            .query(&mut connection)
            .unwrap();
        assert!(
            info.contains(&format!("_version:{version}.")),
            "{version}: {info}"
        );
        set(&mut connection, "key", version);
        assert_eq!(get(&mut connection, "key").as_deref(), Some(version));
    }
    let bad: Result<serde_json::Value, _> =
        cluster.nodes[0].send("POST", "/v1/bdbs", &json!({"name": "x", "memory": 5}));
    assert!(bad.unwrap_err().description.contains("memory"));
}
