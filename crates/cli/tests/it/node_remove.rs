//! `node <node> remove`: it asks a person, and says what it did.

use crate::fake_node::FakeNode;
use crate::fixtures::Cluster;
use model::ErrorCode;
use model::rest::{ActionsStarted, NodeInfo};
use serde_json::json;
use std::io::Write;
use std::process::{Command, Stdio};

/// A node that leaves as soon as it is asked to.
fn leaving() -> FakeNode {
    let node = FakeNode::new();
    Cluster::well().show(&node);
    let info = NodeInfo {
        addr: "127.0.0.13".to_owned(),
        shard_count: 2,
        ..NodeInfo::default()
    };
    let gone = model::ApiError::new(ErrorCode::NodeNotFound, "there is no node:3");
    let answers = [
        (200, serde_json::to_string(&info).unwrap()),
        (404, serde_json::to_string(&gone).unwrap()),
    ];
    node.answers("GET /v1/nodes/3", answers.to_vec());
    let nothing_to_move = ActionsStarted::default();
    node.answer("POST /v1/nodes/3/actions/remove", &nothing_to_move);
    node
}

/// A command at a terminal, where this is typed.
fn at_a_terminal(node: &FakeNode, line: &str, typed: &str) -> (i32, String) {
    let mut terminal = Command::new("script");
    let program = node.program("rladmin");
    let rladmin = program.get_program().to_str().unwrap().to_owned();
    for (name, value) in program.get_envs() {
        terminal.env(name, value.unwrap());
    }
    terminal.args(["-qec", &format!("{rladmin} {line}"), "/dev/null"]);
    terminal.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = terminal.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(typed.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    drop(stdin);
    let text = String::from_utf8(output.stdout).unwrap();
    (output.status.code().unwrap(), text.replace('\r', ""))
}

#[test]
fn a_person_is_asked() {
    let node = leaving();
    let (code, text) = at_a_terminal(&node, "node 3 remove", "n\n");
    assert_eq!(code, 1, "{text}");
    for part in [
        "node:3 (127.0.0.13) will leave the cluster for good",
        "Its 2 shards are brought to other nodes first",
        "Please confirm [Y/N]",
        "not confirmed: node:3 stays in the cluster",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(node.changes(), []);

    let node = leaving();
    let (code, text) = at_a_terminal(&node, "node 3 remove", "y\n");
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("Please confirm"), "{text}");
    assert_eq!(node.changes().len(), 1);
}

#[test]
fn nobody_else_is() {
    let node = leaving();
    let (code, text) = at_a_terminal(&node, "-y node 3 remove", "");
    assert_eq!(code, 0, "{text}");
    assert!(!text.contains("Please confirm"), "{text}");
    // A script.
    let node = leaving();
    let once = json!({ "error_code": "node_not_found", "description": "there is no node:3" });
    node.answers("GET /v1/nodes/3", vec![(404, once.to_string())]);
    let output = node.rladmin("node 3 remove").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    insta::assert_snapshot!(text, @"
    Performing remove action on node:3: 100%
    node:3 has left the cluster. To use its machine again: run `rl_uninstall.sh` there, then `install.sh` and `rladmin cluster join nodes …`; until then it serves nothing.
    OK
    ");
}

/// What has no other place stays on a node that is emptied: who asked for that is told.
#[test]
fn maintenance_names_what_stays() {
    let node = FakeNode::new();
    Cluster::well().show(&node);
    let nothing_to_move = ActionsStarted::default();
    for uid in [2, 3] {
        let call = format!("POST /v1/nodes/{uid}/actions/maintenance_on");
        node.answer(&call, &nothing_to_move);
    }
    let told = |line: &str| {
        let output = node.rladmin(line).output().unwrap();
        String::from_utf8(output.stderr).unwrap()
    };
    assert_eq!(
        told("node 2 maintenance_mode on"),
        "warning: no other node takes redis:2 of db:2: still on node:2, and not served while that is away.\n"
    );
    assert_eq!(told("node 2 maintenance_mode on keep_slave_shards"), "");
    assert_eq!(told("node 3 maintenance_mode on"), "");
}
