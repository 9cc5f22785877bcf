//! Databases, `info`, and how commands fail.

use crate::fake_node::FakeNode;
use crate::fixtures::{Cluster, demo};
use assert_cmd::Command;
use insta::assert_snapshot;
use model::ErrorCode;
use model::documents::{DatabaseStatus, OperationStatus};
use model::rest::{ActionStarted, Bdb, StateMachine};
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
        node.failure("node 3 remove"),
        (
            2,
            "ERROR: 'node <node> remove' is not in this release.\n\
             By REST: POST /v1/nodes/<id>/actions/remove.\n"
                .to_owned()
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
        "ERROR: line 1: 'upgrade' is not in this release.\n"
    );
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
