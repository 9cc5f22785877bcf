//! `migrate`: what it asks for.

use crate::fake_node::FakeNode;
use crate::fixtures::{demo, shard};
use model::documents::OperationStatus;
use model::rest::StateMachine;
use serde_json::{Value, json};

fn sent(node: &FakeNode) -> Value {
    let mut sent: serde_json::Map<String, Value> =
        serde_json::from_str(&node.changes()[0].body).unwrap();
    sent.retain(|_, value| !value.is_null());
    Value::Object(sent)
}

/// Which shards are meant, in each form that operators know.
#[test]
fn migrate_in_every_form() {
    let (database, role) = (
        json!({ "bdb_uid": 1 }),
        |role: &str| json!({ "role": role }),
    );
    let (shards, node) = (json!({ "shard_uids": [3, 4] }), json!({ "node_uid": 1 }));
    let merged = |parts: &[&Value]| {
        let all = parts.iter().filter_map(|part| part.as_object());
        Value::Object(all.flatten().map(|(k, v)| (k.clone(), v.clone())).collect())
    };
    let (master, slave) = (role("master"), role("slave"));
    for (words, wanted) in [
        ("shard 3 4", merged(&[&shards])),
        ("shard 3 4 preserve_roles", merged(&[&shards])),
        ("db db:1 shard 3 4", merged(&[&database, &shards])),
        ("shard redis:3 4 db demo", merged(&[&database, &shards])),
        ("db demo all_shards", merged(&[&database])),
        ("db db:1 all_master_shards", merged(&[&database, &master])),
        ("db demo all_slave_shards", merged(&[&database, &slave])),
        ("node 1 all_shards", merged(&[&node])),
        ("node 1 all_master_shards", merged(&[&node, &master])),
        ("node node:1 all_slave_shards", merged(&[&node, &slave])),
    ] {
        let fake = FakeNode::new();
        fake.answer("GET /v1/bdbs", &[demo()]);
        fake.answer("GET /v1/bdbs/1", &demo());
        fake.answer(
            "POST /v1/shards/actions/migrate",
            &json!({ "action_uid": null, "action_uids": [] }),
        );
        fake.answer("GET /v1/shards", &json!([]));
        fake.output(&format!("migrate {words} target_node 2 override_policy"));
        let target = json!({ "target_node_uid": 2, "override_policy": true });
        assert_eq!(sent(&fake), merged(&[&wanted, &target]), "{words}");
    }
    for words in [
        "db demo",
        "node 1",
        "db demo node 1 all_shards",
        "shard 3 node 1",
        "shard 3 all_shards",
    ] {
        let fake = FakeNode::new();
        let output = fake
            .rladmin(&format!("migrate {words} target_node 2"))
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{words}");
        assert_eq!(fake.changes(), [], "{words}");
    }
}

/// That it is done is said once.
#[test]
fn a_migration_is_done_once() {
    let fake = FakeNode::new();
    fake.answer(
        "POST /v1/shards/actions/migrate",
        &json!({ "action_uid": "a-1", "action_uids": ["a-1"] }),
    );
    let ended = StateMachine {
        action_uid: "a-1".to_owned(),
        name: "SMMigrateShards".to_owned(),
        status: Some(OperationStatus::Completed),
        ..StateMachine::default()
    };
    fake.answer("GET /v1/actions/a-1", &ended);
    assert_eq!(
        fake.output("migrate shard 3 target_node 2"),
        "Monitoring a-1\ncompleted - SMMigrateShards\nDone\n"
    );
}

/// Who puts copies together hears what that means, and what takes it back.
#[test]
fn copies_that_are_together_then_are_told_of() {
    let fake = FakeNode::new();
    fake.answer(
        "POST /v1/shards/actions/migrate",
        &json!({ "action_uid": null, "action_uids": [] }),
    );
    let mut shards = [(1, 2), (2, 2), (3, 1), (4, 1)].map(|(uid, node)| shard(uid, 1, node));
    for copy in &mut shards[1..] {
        "slave".clone_into(&mut copy.role);
    }
    fake.answer("GET /v1/shards", &shards);
    for (words, told) in [("override_policy", true), ("", false)] {
        let line = format!("migrate shard 2 target_node 2 {words}");
        let output = fake.rladmin(&line).output().unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        let warning = "warning: redis:1 and redis:2 of database 'demo' (db:1) have the same slots (0-16383), all on \
                       node:2: without that node there is no copy (`rladmin migrate shard 2 target_node <node>`)\n";
        assert_eq!(errors, if told { warning } else { "" });
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "Done\n");
    }
}
