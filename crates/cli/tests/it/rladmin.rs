//! Databases, `info`, and how commands fail.

use crate::fake_node::FakeNode;
use crate::fixtures::{Cluster, demo};
use assert_cmd::Command;
use insta::assert_snapshot;
use model::ErrorCode;
use model::documents::{DatabaseStatus, OperationStatus};
use model::rest::{ActionStarted, Bdb, NodeInfo, ShardInfo, StateMachine};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpListener;

const ACTION: &str = "0198c0de-0000-7000-8000-000000000001";

fn action(name: &str, status: OperationStatus, state: &str) -> (u16, String) {
    let machine = StateMachine {
        action_uid: ACTION.to_owned(),
        object_name: "bdb:1".to_owned(),
        status: Some(status),
        name: name.to_owned(),
        state: state.to_owned(),
        error: (status == OperationStatus::Failed).then(|| "no node has room".to_owned()),
        ..StateMachine::default()
    };
    (200, serde_json::to_string(&machine).unwrap())
}

/// Something that answers PING as a proxy does that wants a password.
fn proxy() -> (std::net::IpAddr, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut ping = [0; 14];
            if stream.read_exact(&mut ping).is_ok() {
                let _ = stream.write_all(b"-NOAUTH Authentication required.\r\n");
            }
        }
    });
    (address.ip(), address.port())
}

fn sent(node: &FakeNode, index: usize) -> Value {
    let mut sent: serde_json::Map<String, Value> =
        serde_json::from_str(&node.changes()[index].body).unwrap();
    sent.retain(|_, value| !value.is_null());
    Value::Object(sent)
}

#[test]
fn create_a_database() {
    let node = FakeNode::new();
    let (ip, port) = proxy();
    let mut ready = demo();
    ready.endpoints[0].port = port;
    ready.endpoints[0].addr = vec!["127.0.0.2".to_owned(), ip.to_string()];
    let pending = Bdb {
        status: Some(DatabaseStatus::Pending),
        action_uid: ACTION.to_owned(),
        ..ready.clone()
    };
    let text = |bdb: &Bdb| (200, serde_json::to_string(bdb).unwrap());
    let passing = r#"{"error_code":"not_ready","description":"cnm_exec is being replaced"}"#;
    node.answer("POST /v1/bdbs", &pending)
        .answers(
            &format!("GET /v1/actions/{ACTION}"),
            vec![
                action("SMCreateBDB", OperationStatus::Pending, "pending"),
                action("SMCreateBDB", OperationStatus::Active, "place shards"),
                (503, passing.to_owned()),
                action("SMCreateBDB", OperationStatus::Active, "start engines"),
                action("SMCreateBDB", OperationStatus::Completed, "completed"),
            ],
        )
        .answers("GET /v1/bdbs/1", vec![text(&pending), text(&ready)]);
    let output = node.output(
        "create db demo memory_size 1GB persistence aof-every-write proxy_policy all-nodes \
         eviction_policy allkeys-lru password s3cret max_connections 100 replication disabled \
         shards_count 1 redis_version valkey-9.1",
    );
    assert_snapshot!(output.replace(&port.to_string(), "[PORT]"));
    assert_eq!(
        sent(&node, 0),
        json!({
            "name": "demo",
            "type": "redis",
            "memory_size": 1 << 30,
            "shards_count": 1,
            "sharding": false,
            "replication": false,
            "data_persistence": "aof",
            "aof_policy": "appendfsync-always",
            "eviction_policy": "allkeys-lru",
            "proxy_policy": "all-nodes",
            "redis_version": "valkey-9.1",
            "authentication_redis_pass": "s3cret",
            "max_connections": 100,
        })
    );
}

#[test]
fn create_that_fails() {
    let node = FakeNode::new();
    let pending = Bdb {
        action_uid: ACTION.to_owned(),
        ..demo()
    };
    node.answer("POST /v1/bdbs", &pending).answers(
        &format!("GET /v1/actions/{ACTION}"),
        vec![action("SMCreateBDB", OperationStatus::Failed, "")],
    );
    let output = node
        .rladmin("create db demo memory_size 1GB")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let (out, errors) = (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    );
    assert_eq!(out, format!("Monitoring {ACTION}\nfailed - SMCreateBDB\n"));
    assert_eq!(errors, "ERROR: SMCreateBDB failed: no node has room\n");
    node.refuse(
        "POST /v1/bdbs",
        ErrorCode::NameAlreadyExists,
        "'demo' is taken",
    );
    let (code, errors) = node.failure("create db demo memory_size 1GB");
    assert_eq!(code, 1);
    assert_eq!(
        errors,
        "ERROR: 'demo' is taken (name_already_exists)\nChoose another name.\n"
    );
    let (code, errors) = node.failure("--json create db demo memory_size 1GB");
    let error: Value = serde_json::from_str(&errors).unwrap();
    assert_eq!(
        (code, &error["error_code"]),
        (1, &json!("name_already_exists"))
    );
}

#[test]
fn tune_a_database() {
    let node = FakeNode::new();
    Cluster::well().show(&node);
    let changing = Bdb {
        action_uid: ACTION.to_owned(),
        ..demo()
    };
    node.answer("PUT /v1/bdbs/1", &changing).answers(
        &format!("GET /v1/actions/{ACTION}"),
        vec![action("SMUpdateBDB", OperationStatus::Completed, "")],
    );
    let output = node.output("tune db demo memory_size 2GB persistence snapshot no_password");
    assert_eq!(
        output,
        format!("Monitoring {ACTION}\ncompleted - SMUpdateBDB\nDone\nFinished successfully\n")
    );
    assert_eq!(
        sent(&node, 0),
        json!({
            "memory_size": 2_147_483_648_u64,
            "data_persistence": "snapshot",
            "snapshot_policy": [{ "secs": 3600, "writes": 1 }],
            "authentication_redis_pass": "",
        })
    );
    let (code, _) = node.failure("tune db demo password x no_password");
    assert_eq!(code, 2);
}

/// Each of the operator's words for persistence, and what it means to REST.
#[test]
fn words_for_persistence() {
    let each = |hours: u32| json!([{ "secs": hours * 3600, "writes": 1 }]);
    let sync = "appendfsync-every-sec";
    for (word, field, value) in [
        ("aof", "aof_policy", json!(sync)),
        ("aof-every-write", "aof_policy", json!("appendfsync-always")),
        ("snapshot", "snapshot_policy", each(1)),
        ("snapshot-6h", "snapshot_policy", each(6)),
        ("snapshot-12h", "snapshot_policy", each(12)),
    ] {
        let node = FakeNode::new();
        Cluster::well().show(&node);
        node.answer("PUT /v1/bdbs/1", &demo());
        node.output(&format!("tune db demo persistence {word}"));
        let persistence = word.split('-').next();
        let wanted = json!({ "data_persistence": persistence, field: value });
        assert_eq!(sent(&node, 0), wanted, "{word}");
    }
    let node = FakeNode::new();
    let (code, _) = node.failure("tune db demo persistence snapshot-2h");
    assert_eq!(code, 2);
}

#[test]
fn delete_a_database() {
    let node = FakeNode::new();
    Cluster::well().show(&node);
    let started = ActionStarted {
        action_uid: Some(model::OperationUid(ACTION.to_owned())),
    };
    node.answer("DELETE /v1/bdbs/1", &started).answers(
        &format!("GET /v1/actions/{ACTION}"),
        vec![action("SMDeleteBDB", OperationStatus::Completed, "")],
    );
    for answer in ["n\n", "", "maybe\n"] {
        let output = node
            .rladmin("delete db db:1")
            .write_stdin(answer)
            .output()
            .unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{answer:?}");
        assert!(
            errors.contains("db:1 [demo] and all of its data (2.08MB)"),
            "{errors}"
        );
        assert!(
            errors.ends_with("not confirmed: nothing was deleted\n"),
            "{errors}"
        );
        assert_eq!(node.changes(), [], "{answer:?}");
    }
    let gone = r#"{"error_code":"db_not_found","description":"gone"}"#;
    let there = serde_json::to_string(&demo()).unwrap();
    let then_gone = || {
        vec![
            (200, there.clone()),
            (200, there.clone()),
            (404, gone.to_owned()),
        ]
    };
    node.answers("GET /v1/bdbs/1", then_gone());
    node.rladmin("delete db db:1")
        .write_stdin("Y\n")
        .assert()
        .success();
    node.answers("GET /v1/bdbs/1", then_gone());
    assert_eq!(
        node.output("delete db demo -y"),
        format!("Monitoring {ACTION}\ncompleted - SMDeleteBDB\nDone\n")
    );
    assert_eq!(node.changes().len(), 2);
}

#[test]
fn info() {
    let node = FakeNode::new();
    let mut cluster = Cluster::well();
    cluster.silence(3, 33.2);
    cluster.show(&node);
    let mut all = String::new();
    for line in [
        "info cluster",
        "info db",
        "info node 1",
        "info proxy all",
        "verify balance",
    ] {
        all.push_str(&format!("$ rladmin {line}\n{}\n", node.output(line)));
    }
    assert!(!all.contains("s3cret"), "passwords are not shown");
    assert_snapshot!(all);
    let text = node.output("--json info db demo");
    assert!(!text.contains("s3cret"));
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["uid"], 1);
    assert!(
        node.output("info node")
            .contains("status: DOWN, last seen 33s ago")
    );
    assert_eq!(node.failure("info node 9").0, 1);
    assert_eq!(node.failure("info db nope").0, 1);
}

#[test]
fn no_service_answers() {
    let node = FakeNode::without_rest();
    let (code, errors) = node.failure("status");
    assert_eq!(code, 1);
    assert!(
        errors.contains("cnm_http is not running on this node"),
        "{errors}"
    );
    assert!(
        errors.contains("start it with `[FOLDER]/opt/current/bin/supervisorctl start cnm_http`"),
        "{errors}"
    );
    // Where root can start it, and supervisord is away too, the whole node is stopped.
    let program = node.config.install_dir.join("sbin/mainstay-install");
    std::fs::create_dir_all(program.parent().unwrap()).unwrap();
    std::fs::write(program, "").unwrap();
    let (_, errors) = node.failure("status");
    assert!(
        errors
            .contains("The node is stopped. As root: `[FOLDER]/opt/sbin/mainstay-install start`."),
        "{errors}"
    );
}

#[test]
fn no_cluster_yet() {
    let node = FakeNode::new();
    let code = ErrorCode::NotMember;
    for path in ["cluster", "nodes", "nodes/status", "bdbs", "shards", "logs"] {
        node.refuse(&format!("GET /v1/{path}"), code, code.cause());
    }
    let (exit, errors) = node.failure("status");
    assert_eq!(exit, 1);
    assert_eq!(
        errors,
        format!("ERROR: {} (not_member)\n{}\n", code.cause(), code.remedy())
    );
}

#[test]
fn no_install() {
    let missing = Command::cargo_bin("rladmin")
        .unwrap()
        .arg("status")
        .env("MAINSTAY_CONFIG", "/nowhere/node.toml")
        .output()
        .unwrap();
    assert_eq!(missing.status.code(), Some(1));
    let errors = String::from_utf8(missing.stderr).unwrap();
    assert!(
        errors.contains("/nowhere/node.toml") && errors.contains("install.sh"),
        "{errors}"
    );
    let outside = Command::cargo_bin("rladmin")
        .unwrap()
        .arg("status")
        .env_remove("MAINSTAY_CONFIG")
        .output()
        .unwrap();
    let errors = String::from_utf8(outside.stderr).unwrap();
    assert!(errors.contains("does not lie in an install"), "{errors}");
    let node = FakeNode::new();
    std::fs::write(node.config.config_dir.join("node.toml"), "address = 3\n").unwrap();
    let (code, errors) = node.failure("status");
    assert!(
        code == 1 && errors.contains("is not a node.toml"),
        "{errors}"
    );
}

#[test]
fn what_is_not_understood_is_refused_before_anything_is_sent() {
    let node = FakeNode::without_rest();
    let mut all = String::new();
    for line in [
        "frobnicate",
        "cluster",
        "cluster craete",
        "status nodse",
        "status extra frags",
        "create db demo",
        "create db demo memory_size 1XB",
        "create db demo memroy_size 1GB",
        "tune db demo",
        "cluster join nodes 10.0.0.1 username admin@example.com ca_fingerprint ab",
        "delete db",
    ] {
        let (code, errors) = node.failure(line);
        assert_eq!(code, 2, "{line}: {errors}");
        all.push_str(&format!("$ rladmin {line}\n{errors}\n"));
    }
    assert_snapshot!(all);
}

#[test]
fn what_a_later_release_has_is_answered_by_name() {
    let node = FakeNode::without_rest();
    assert_eq!(
        node.failure("placement db demo dense"),
        (
            2,
            "ERROR: 'placement' is not in this release.\n\
             The placement is fixed by `rladmin create db … shards_placement`.\n"
                .to_owned()
        )
    );
    assert_eq!(
        node.failure("node 3 recovery_path set /data"),
        (
            2,
            "ERROR: 'node <node> recovery_path' is not in this release.\n".to_owned()
        )
    );
    let (code, errors) = node.failure("--json tune db demo shards_count 8");
    assert_eq!(code, 2);
    assert_eq!(
        serde_json::from_str::<Value>(&errors).unwrap(),
        json!({
            "error_code": "not_in_this_release",
            "description": "'shards_count' of 'tune db' is not in this release. It is fixed when the \
                database is created: see `rladmin help create db`.",
        })
    );
    for words in ["help restart", "restart --help"] {
        let (code, errors) = node.failure(words);
        assert!(code == 2 && errors.contains("'restart' is not in this release"));
    }
    let output = node
        .program("rladmin")
        .write_stdin("upgrade db demo\n")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "ERROR: line 1: 'upgrade' is not in this release.\nDatabases keep their engine; `cluster upgrade` is about the \
         release of the nodes.\n"
    );
}

#[test]
fn an_answer_takes_its_line_alone() {
    let node = FakeNode::new();
    Cluster::well().show(&node);
    let program = node.program("rladmin");
    let rladmin = program.get_program().to_str().unwrap();
    let script = format!("{rladmin} delete db db:1 2>/dev/null; cat");
    let config = node.config.config_dir.join("node.toml");
    let output = Command::new("sh")
        .args(["-c", &script])
        .env(model::node_config::CONFIG_ENV, config)
        .write_stdin("n\nthe next line\n")
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "the next line\n");
    assert_eq!(node.changes(), []);
}

#[test]
fn commands_from_standard_input() {
    let node = FakeNode::new();
    Cluster::well().show(&node);
    let run = |script: &str| {
        let output = node
            .program("rladmin")
            .write_stdin(script)
            .output()
            .unwrap();
        (
            output.status.code().unwrap(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (code, out, _) = run("# comment\n\ncluster master\nstatus shards node 1\nexit\nnonsense\n");
    assert_eq!(code, 0);
    assert!(
        out.starts_with("Node 1 is the cluster master node\nSHARDS:\n"),
        "{out}"
    );
    let (code, out, errors) = run("cluster master\nnonsense\ncluster master\n");
    assert_eq!(
        (code, out.lines().count()),
        (2, 1),
        "stops at the first failure"
    );
    assert!(
        errors.contains("line 2: unknown command 'nonsense'"),
        "{errors}"
    );
    let (code, _, errors) = run("delete db demo\nY\n");
    assert_eq!(code, 1);
    assert!(
        errors.contains("line 1:") && errors.contains("add -y"),
        "{errors}"
    );
    let (code, _, errors) = run("tune db demo password 'open\n");
    assert!(code == 2 && errors.contains("is not closed"), "{errors}");
    let (code, out, _) = run("help status\n");
    assert!(
        code == 0 && out.starts_with("Usage: rladmin status"),
        "{out}"
    );
}

/// An action on a node as REST shows it.
fn on_node(name: &str, status: OperationStatus, progress: f64) -> StateMachine {
    let paused = status == OperationStatus::Paused;
    StateMachine {
        action_uid: ACTION.to_owned(),
        object_name: "node:2".to_owned(),
        status: Some(status),
        name: name.to_owned(),
        state: "active".to_owned(),
        error: paused.then(|| "db:1: node:3 is not heard".to_owned()),
        error_code: paused.then_some(ErrorCode::OperationPaused),
        remedy: paused.then(|| format!("Bring it back, then `rladmin retry {ACTION}`.")),
        progress,
        node_uid: Some(model::NodeUid(2)),
        ..StateMachine::default()
    }
}

fn told(machine: &StateMachine) -> (u16, String) {
    (200, serde_json::to_string(machine).unwrap())
}

#[test]
fn an_action_on_a_node_is_followed() {
    let node = FakeNode::new();
    let started = json!({ "action_uid": ACTION, "action_uids": [format!("{ACTION}-1")] });
    node.answer("POST /v1/nodes/2/actions/maintenance_on", &started)
        .answers(
            &format!("GET /v1/actions/{ACTION}"),
            vec![
                told(&on_node("maintenance_on", OperationStatus::Active, 0.0)),
                told(&on_node("maintenance_on", OperationStatus::Active, 33.4)),
                told(&on_node(
                    "maintenance_on",
                    OperationStatus::Completed,
                    100.0,
                )),
            ],
        );
    let output = node.output(
        "node 2 maintenance_mode on keep_slave_shards evict_ha_replica disabled demote_node \
         overwrite_snapshot max_concurrent_actions 2 retry_timeout_seconds 60",
    );
    assert_snapshot!(output, @"
    Performing maintenance_on action on node:2: 0%
    Performing maintenance_on action on node:2: 33%
    Performing maintenance_on action on node:2: 100%
    OK
    ");
    assert_eq!(
        sent(&node, 0),
        json!({
            "keep_slave_shards": true,
            "evict_ha_replica": false,
            "overwrite_snapshot": true,
            "demote_node": true,
            "max_concurrent_actions": 2,
            "retry_timeout_seconds": 60,
        })
    );
    // Nothing is on the node: it is done at once.
    let nothing = json!({ "action_uid": null, "action_uids": [] });
    node.answer("POST /v1/nodes/2/actions/enslave_node", &nothing);
    assert_snapshot!(node.output("node node:2 enslave shards_only"), @"
    Performing enslave_node action on node:2: 100%
    OK
    ");
}

#[test]
fn an_action_that_pauses_says_how_it_goes_on() {
    let node = FakeNode::new();
    let started = json!({ "action_uid": ACTION, "action_uids": [] });
    node.answer("POST /v1/nodes/2/actions/maintenance_off", &started)
        .answer(
            &format!("GET /v1/actions/{ACTION}"),
            &on_node("maintenance_off", OperationStatus::Paused, 50.0),
        );
    let (code, errors) = node.failure("node 2 maintenance_mode off skip_shards_restore");
    assert_eq!(code, 1);
    assert_eq!(
        errors,
        format!(
            "ERROR: maintenance_off pauses: db:1: node:3 is not heard. Bring it back, then `rladmin retry \
             {ACTION}`. (operation_paused)\n"
        )
    );
    let part = StateMachine {
        action_uid: format!("{ACTION}-1"),
        object_name: "bdb:1".to_owned(),
        error: Some("node:3 is not heard".to_owned()),
        task_id: Some(model::OperationUid(ACTION.to_owned())),
        ..on_node("maintenance_off", OperationStatus::Paused, 50.0)
    };
    let actions = json!({
        "actions": [on_node("maintenance_off", OperationStatus::Paused, 50.0)],
        "state-machines": [part],
    });
    node.answer("GET /v1/actions", &actions);
    assert_snapshot!(node.output("cluster running_actions"), @"
    Got 1 tasks:
    1) Task: maintenance_off (0198c0de-0000-7000-8000-000000000001) Node: 2 Status: paused
       db:1: 50%, paused: node:3 is not heard
       Bring it back, then `rladmin retry 0198c0de-0000-7000-8000-000000000001`.
    ");
    node.answer(&format!("POST /v1/actions/{ACTION}/retry"), &started)
        .answers(
            &format!("GET /v1/actions/{ACTION}"),
            vec![
                told(&on_node("maintenance_off", OperationStatus::Active, 50.0)),
                told(&on_node(
                    "maintenance_off",
                    OperationStatus::Completed,
                    100.0,
                )),
            ],
        );
    assert_snapshot!(node.output(&format!("retry {ACTION}")), @"
    Performing maintenance_off action on node:2: 100%
    OK
    ");
    node.answer(&format!("POST /v1/actions/{ACTION}/abort"), &started);
    assert_eq!(node.output(&format!("abort {ACTION}")), "OK\n");
    let (code, errors) = node.failure("retry ../bdbs");
    assert!(
        code == 2 && errors.contains("is named by its id"),
        "{errors}"
    );
}

#[test]
fn snapshots_of_a_node() {
    let node = FakeNode::new();
    let shards = [("0-8191", "master"), ("8192-16383", "slave")]
        .map(|(slots, role)| json!({ "bdb_uid": 1, "assigned_slots": slots, "role": role }));
    node.answer(
        "GET /v1/nodes/2/snapshots",
        &json!([{
            "name": "before", "node_uid": 2, "created_time": "2030-01-01T10:00:00Z", "shards": shards,
        }]),
    );
    assert_snapshot!(node.output("node 2 snapshot list"), @"
    Name   Node Time
    before 2    2030-01-01T10:00:00Z
    ");
    node.answer("GET /v1/shards", &json!([]));
    let done = json!({ "action_uid": null, "action_uids": [] });
    node.answer("POST /v1/nodes/2/snapshots/before/restore", &done)
        .answer("POST /v1/nodes/2/snapshots/after", &done)
        .answer("DELETE /v1/nodes/2/snapshots/after", &done);
    assert_snapshot!(node.output("-y node 2 snapshot restore before"), @"
    db:1 slots 0-8191: not there any more, left out
    db:1 slots 8192-16383: not there any more, left out
    Snapshot restore completed successfully.
    ");
    assert_eq!(node.output("node 2 snapshot create after"), "Done.\n");
    assert_eq!(node.output("node 2 snapshot delete after"), "Done.\n");
    let (code, errors) = node.failure("node 2 snapshot restore nothing");
    assert!(
        code == 1 && errors.contains("has no snapshot 'nothing'"),
        "{errors}"
    );
    let (code, errors) = node.failure("node 2 snapshot create a/b");
    assert!(
        code == 1 && errors.contains("is not the name of a snapshot"),
        "{errors}"
    );
}

#[test]
fn racks_of_copies() {
    let node = FakeNode::new();
    node.answer("GET /v1/cluster/policy", &json!({ "rack_aware": false }));
    assert_eq!(
        node.output("verify rack_aware"),
        "Cluster policy is not configured for rack awareness.\n"
    );
    node.answer("GET /v1/cluster/policy", &json!({ "rack_aware": true }));
    let database = Bdb {
        rack_aware: true,
        ..demo()
    };
    node.answer("GET /v1/bdbs", &[database]);
    let on = |uid: u64, rack: &str| NodeInfo {
        uid: model::NodeUid(uid),
        rack_id: rack.to_owned(),
        ..NodeInfo::default()
    };
    let copy = |uid: u64, node: u64, slots: &str| ShardInfo {
        uid: model::ShardUid(uid),
        bdb_uid: model::DatabaseUid(1),
        node_uid: model::NodeUid(node),
        assigned_slots: slots.to_owned(),
        ..ShardInfo::default()
    };
    node.answer("GET /v1/nodes", &[on(1, "a"), on(2, "b"), on(3, "a")]);
    let well = [
        copy(1, 1, "0-8191"),
        copy(2, 2, "0-8191"),
        copy(3, 2, "8192-16383"),
        copy(4, 3, "8192-16383"),
    ];
    node.answer("GET /v1/shards", &well);
    assert_snapshot!(node.output("verify rack_aware"), @"
    DB:ID NAME SLOTS      SHARDS          RACK-IDS STATUS
    db:1  demo 0-8191     redis:1,redis:2 a,b      OK
    db:1  demo 8192-16383 redis:3,redis:4 b,a      OK
    ");
    node.answer(
        "GET /v1/shards",
        &[copy(1, 1, "0-16383"), copy(2, 3, "0-16383")],
    );
    let (code, errors) = node.failure("verify rack_aware");
    assert_eq!(code, 1);
    assert!(errors.contains("(rack_awareness_violation)"), "{errors}");
}
