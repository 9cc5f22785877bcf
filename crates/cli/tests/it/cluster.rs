//! `cluster …`, `tune cluster`.

use crate::fake_node::FakeNode;
use crate::fixtures::{Cluster, FINGERPRINT};
use insta::assert_snapshot;
use model::documents::OperationStatus;
use model::rest::{ActionStarted, Actions, Bootstrap, StateMachine};
use model::{ErrorCode, NodeUid, OperationUid};
use serde_json::{Value, json};

fn bootstrap(state: &str) -> Bootstrap {
    let mut bootstrap = Bootstrap::default();
    state.clone_into(&mut bootstrap.bootstrap_status.state);
    if state == "completed" {
        bootstrap.local_node_info.uid = Some(NodeUid(1));
        bootstrap.local_node_info.ca_fingerprint = Some(FINGERPRINT.to_owned());
    }
    bootstrap
}

fn as_answers(states: &[&str]) -> Vec<(u16, String)> {
    states
        .iter()
        .map(|s| (200, serde_json::to_string(&bootstrap(s)).unwrap()))
        .collect()
}

fn body(node: &FakeNode, index: usize) -> Value {
    serde_json::from_str(&node.changes()[index].body).unwrap()
}

#[test]
fn create() {
    let node = FakeNode::new();
    node.answer("POST /v1/bootstrap/create_cluster", &json!({}))
        .answers(
            "GET /v1/bootstrap",
            as_answers(&["creating_cluster", "completed"]),
        );
    let line = "cluster create name cluster.local username admin@example.com password s3cret \
                rack_id r1 addr 127.0.0.11 external_addr 192.0.2.1 192.0.2.2";
    assert_snapshot!(node.output(line));
    assert_eq!(body(&node, 0)["cluster"]["name"], json!("cluster.local"));
    assert_eq!(body(&node, 0)["credentials"]["password"], json!("s3cret"));
    assert_eq!(
        body(&node, 0)["node"]["identity"],
        json!({ "rack_id": "r1", "external_addr": ["192.0.2.1", "192.0.2.2"] })
    );
}

#[test]
fn create_reads_the_password_from_standard_input() {
    let node = FakeNode::new();
    node.answer("POST /v1/bootstrap/create_cluster", &json!({}))
        .answer("GET /v1/bootstrap", &bootstrap("completed"));
    let line = "cluster create name cluster.local username admin@example.com password -";
    node.rladmin(line)
        .write_stdin("from stdin\n")
        .assert()
        .success();
    assert_eq!(
        body(&node, 0)["credentials"]["password"],
        json!("from stdin")
    );
    // Nobody can be asked here.
    let (code, errors) = node.failure("cluster create name c.local username admin@example.com");
    assert!(code == 1 && errors.contains("add `password -`"), "{errors}");
    assert_eq!(node.changes().len(), 1, "nothing was sent");
}

#[test]
fn create_that_is_refused() {
    let node = FakeNode::new();
    node.refuse(
        "POST /v1/bootstrap/create_cluster",
        ErrorCode::AlreadyMember,
        "this node is node:1 of cluster 'c.local'",
    );
    let line = "cluster create name c.local username admin@example.com password x";
    let output = node.rladmin(line).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "Creating a new cluster... failed\n"
    );
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "ERROR: this node is node:1 of cluster 'c.local' (already_member)\nNothing to do; to move \
         it, uninstall and install it again.\n"
    );
    let (code, errors) = node.failure(&format!("{line} addr 127.0.0.12"));
    assert!(
        code == 1 && errors.contains("installed with the address 127.0.0.11"),
        "{errors}"
    );
}

#[test]
fn create_that_gives_up() {
    let node = FakeNode::new();
    let mut gave_up = bootstrap("error");
    gave_up.bootstrap_status.error_code = Some("config_error".to_owned());
    gave_up.bootstrap_status.error_details = Some("port 3342 is taken".to_owned());
    node.answer("POST /v1/bootstrap/create_cluster", &json!({}))
        .answer("GET /v1/bootstrap", &gave_up);
    let (code, errors) =
        node.failure("cluster create name c.local username admin@example.com password x");
    assert!(
        code == 1 && errors.contains("port 3342 is taken (config_error)"),
        "{errors}"
    );
}

const JOIN: &str =
    "cluster join nodes 10.0.0.1 10.0.0.2 username admin@example.com password s3cret";

#[test]
fn join_with_a_fingerprint() {
    let node = FakeNode::new();
    node.answer("POST /v1/bootstrap/join_cluster", &json!({}))
        .answers(
            "GET /v1/bootstrap",
            as_answers(&["joining_cluster", "completed"]),
        );
    let bare = FINGERPRINT.replace(':', "").to_lowercase();
    let text = node.output(&format!("{JOIN} ca_fingerprint {bare}"));
    assert_eq!(text, "Joining cluster... ok\nThis node is node:1\n");
    let body = body(&node, 0);
    assert_eq!(body["credentials"]["ca_fingerprint"], json!(FINGERPRINT));
    assert_eq!(body["cluster"]["nodes"], json!(["10.0.0.1", "10.0.0.2"]));
}

#[test]
fn join_without_a_fingerprint_says_how_to_go_on() {
    let node = FakeNode::new();
    node.refuse(
        "POST /v1/bootstrap/join_cluster",
        ErrorCode::FingerprintMismatch,
        &format!("the CA of 10.0.0.1:9443 has the fingerprint {FINGERPRINT}. Nothing was sent."),
    );
    // -y is no answer to this question.
    let (code, errors) = node.failure(&format!("-y {JOIN}"));
    assert_eq!(code, 1);
    assert!(errors.contains("the password was not sent"), "{errors}");
    assert!(
        errors.contains(&format!("ca_fingerprint {FINGERPRINT}")),
        "{errors}"
    );
    assert!(!errors.contains("s3cret"));
    assert_eq!(node.changes().len(), 1, "tried once");
}

#[test]
fn join_with_the_wrong_fingerprint_is_not_tried_again() {
    let node = FakeNode::new();
    node.refuse(
        "POST /v1/bootstrap/join_cluster",
        ErrorCode::FingerprintMismatch,
        &format!("the CA of 10.0.0.1:9443 has the fingerprint {FINGERPRINT}, not another"),
    );
    let other = "ab".repeat(32);
    let (code, errors) = node.failure(&format!("{JOIN} ca_fingerprint {other}"));
    assert!(
        code == 1 && errors.contains("(fingerprint_mismatch)"),
        "{errors}"
    );
    assert_eq!(node.changes().len(), 1);
}

#[test]
fn join_with_a_certificate() {
    let node = FakeNode::new();
    node.answer("POST /v1/bootstrap/join_cluster", &json!({}))
        .answer("GET /v1/bootstrap", &bootstrap("completed"));
    let file = node.folder.path().join("ca.pem");
    let (code, errors) = node.failure(&format!("{JOIN} trusted_ca {}", file.display()));
    assert!(
        code == 1 && errors.contains("trusted_ca: cannot read"),
        "{errors}"
    );
    std::fs::write(&file, "nothing").unwrap();
    let (code, errors) = node.failure(&format!("{JOIN} trusted_ca {}", file.display()));
    assert!(
        code == 1 && errors.contains("holds no certificate"),
        "{errors}"
    );
    let pem = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";
    std::fs::write(&file, pem).unwrap();
    node.output(&format!("{JOIN} trusted_ca {}", file.display()));
    assert_eq!(body(&node, 0)["credentials"]["trusted_ca"], json!(pem));
}

#[test]
fn settings() {
    let node = FakeNode::new();
    node.answer("PUT /v1/cluster", &json!({}))
        .answer("PUT /v1/cluster/policy", &json!({}));
    assert_eq!(
        node.output("cluster config cm_session_timeout_minutes 30"),
        "Cluster configured successfully\n"
    );
    let line = "tune cluster default_redis_version 9.1 default_shards_placement sparse \
                default_non_sharded_proxy_policy all-nodes failure_detection_sensitivity low";
    assert_eq!(node.output(line), "Finished successfully\n");
    node.output("tune cluster default_redis_version newest");
    let sent = |index| {
        let mut sent = body(&node, index).as_object().unwrap().clone();
        sent.retain(|_, value| !value.is_null());
        Value::Object(sent)
    };
    assert_eq!(sent(0), json!({ "cm_session_timeout_minutes": 30 }));
    assert_eq!(
        sent(1),
        json!({
            "default_non_sharded_proxy_policy": "all-nodes",
            "default_shards_placement": "sparse",
            "default_provisioned_redis_version": "9.1",
            "failure_detection_sensitivity": "low",
        })
    );
    assert_eq!(sent(2), json!({ "default_provisioned_redis_version": "" }));
    node.output(
        "tune cluster slave_ha disabled slave_ha_grace_period 60 slave_ha_cooldown_period 0 \
         slave_ha_bdb_cooldown_period 120",
    );
    assert_eq!(
        sent(3),
        json!({
            "slave_ha": false,
            "slave_ha_grace_period": 60,
            "slave_ha_cooldown_period": 0,
            "slave_ha_bdb_cooldown_period": 120,
        })
    );
    let (code, errors) = node.failure("tune cluster slave_ha_grace_period 2592001");
    assert!(code != 0 && errors.contains("2592000"), "{errors}");
}

#[test]
fn primary_node() {
    let node = FakeNode::new();
    let before = Cluster::well();
    before.show(&node);
    assert_eq!(
        node.output("cluster master"),
        "Node 1 is the cluster master node\n"
    );
    let mut after = before.clone();
    after.info.primary_node = Some(NodeUid(3));
    let text = |cluster: &Cluster| serde_json::to_string(&cluster.info).unwrap();
    let passing = r#"{"error_code":"no_primary","description":"the cluster is choosing"}"#;
    node.answer(
        "POST /v1/cluster/actions/change_master",
        &ActionStarted::default(),
    )
    .answers(
        "GET /v1/cluster",
        vec![
            (200, text(&before)),
            (503, passing.to_owned()),
            (200, text(&after)),
        ],
    );
    assert_eq!(
        node.output("cluster master set node:3"),
        "Node 3 set to be the cluster master node\n"
    );
    assert_eq!(body(&node, 0), json!({ "node_uid": 3 }));
    after.info.primary_node = None;
    after.info.has_quorum = false;
    after.show(&node);
    let (code, errors) = node.failure("cluster master");
    assert!(code == 1 && errors.contains("(no_quorum)"), "{errors}");
}

#[test]
fn running_actions() {
    let node = FakeNode::new();
    let action = |status, state: &str| StateMachine {
        action_uid: "0198c0de-0000-7000-8000-000000000001".to_owned(),
        object_name: "bdb:1".to_owned(),
        status: Some(status),
        name: "SMCreateBDB".to_owned(),
        state: state.to_owned(),
        ..StateMachine::default()
    };
    let mut actions = Actions {
        state_machines: vec![
            action(OperationStatus::Completed, ""),
            action(OperationStatus::Active, "start engines"),
            action(OperationStatus::Pending, ""),
        ],
        ..Actions::default()
    };
    node.answer("GET /v1/actions", &actions);
    assert_snapshot!(node.output("cluster running_actions"));
    actions.state_machines.truncate(1);
    node.answer("GET /v1/actions", &actions);
    assert_eq!(node.output("cluster running_actions"), "No active tasks\n");
}

#[test]
fn a_part_that_waits_for_its_turn_says_for_what() {
    let action = "0198c0de-0000-7000-8000-000000000001";
    let whole = StateMachine {
        action_uid: action.to_owned(),
        object_name: "node:2".to_owned(),
        status: Some(OperationStatus::Active),
        name: "remove".to_owned(),
        state: "active".to_owned(),
        node_uid: Some(NodeUid(2)),
        ..StateMachine::default()
    };
    let part = |number: u64, state: &str| StateMachine {
        action_uid: format!("{action}-{number}"),
        object_name: format!("bdb:{number}"),
        status: Some(OperationStatus::Pending),
        state: state.to_owned(),
        task_id: Some(OperationUid(action.to_owned())),
        ..whole.clone()
    };
    let waits = "its turn: SMUpdateBDB of db:2 (op-2) runs";
    let actions = Actions {
        state_machines: vec![part(1, "pending"), part(2, waits)],
        actions: vec![whole.clone()],
    };
    let node = FakeNode::new();
    node.answer("GET /v1/actions", &actions);
    assert_snapshot!(node.output("cluster running_actions"), @"
    Got 1 tasks:
    1) Task: remove (0198c0de-0000-7000-8000-000000000001) Node: 2 Status: running
       db:1: queued
       db:2: queued, waits: its turn: SMUpdateBDB of db:2 (op-2) runs
    ");
}
