//! Actions on nodes, and what is done with actions that run.

use crate::fixture;
use crate::served::Served;
use hyper::Method;
use model::documents::{Operation, OperationKind, OperationStatus};
use model::intent::{Intent, MaintenanceWish, MigrateWhat, Pace, Restore, SnapshotWhat};
use model::view::ClusterView;
use model::{DatabaseUid, ErrorCode, NodeUid, OperationUid, ShardUid};
use serde_json::json;

fn part(database: u64, status: OperationStatus, left: u64) -> Operation {
    Operation {
        kind: OperationKind::MaintenanceOn,
        node: Some(NodeUid(2)),
        group: Some(OperationUid("task".to_owned())),
        total: 2,
        shards: (1..=left).map(ShardUid).collect(),
        ..fixture::operation(&format!("task-{database}"), database, status)
    }
}

/// A node that is being emptied: one database is done, one pauses, one waits for its turn.
fn emptied() -> ClusterView {
    let mut view = fixture::view();
    view.operations.push(part(1, OperationStatus::Completed, 0));
    view.operations.push(Operation {
        error: Some("node:3 is not heard".to_owned()),
        error_code: Some(ErrorCode::OperationPaused),
        ..part(2, OperationStatus::Paused, 1)
    });
    view.operations.push(part(3, OperationStatus::Pending, 2));
    view
}

/// Each database has its own reason.
#[tokio::test]
async fn an_action_that_fails_names_all_reasons() {
    let mut view = emptied();
    for (uid, why) in [(1, "one"), (2, "two")] {
        view.operations
            .retain(|known| known.uid.0 != format!("task-{uid}"));
        view.operations.push(Operation {
            error: Some(why.to_owned()),
            error_code: Some(ErrorCode::NodeDown),
            ..part(uid, OperationStatus::Failed, 1)
        });
    }
    view.operations
        .retain(|known| known.status != OperationStatus::Pending);
    let served = Served::start(Some(view)).await;
    let (_, action) = served.get("/v1/actions/task").await;
    assert_eq!(action["status"], "failed", "{action}");
    assert_eq!(action["error"], "db:1: one; db:2: two");
    assert_eq!(action["error_code"], "node_down");
    served.stop().await;
}

#[tokio::test]
async fn actions_are_told_as_one() {
    let served = Served::start(Some(emptied())).await;
    for path in ["/v1/actions/task", "/v1/nodes/2/actions/maintenance_on"] {
        let (status, action) = served.get(path).await;
        assert_eq!(status, 200, "{action}");
        assert_eq!(action["object_name"], "node:2");
        assert_eq!(action["node_uid"], 2);
        assert_eq!(action["status"], "paused");
        assert_eq!(action["progress"], 50.0);
        assert_eq!(action["error"], "db:2: node:3 is not heard");
        assert_eq!(action["error_code"], "operation_paused");
        let remedy = action["remedy"].as_str().unwrap();
        assert!(remedy.contains("`rladmin retry task`"), "{remedy}");
    }
    let (_, part) = served.get("/v1/actions/task-2").await;
    assert_eq!(
        (&part["task_id"], &part["progress"]),
        (&json!("task"), &json!(50.0))
    );
    let (_, all) = served.get("/v1/actions").await;
    assert_eq!(all["actions"].as_array().unwrap().len(), 1);
    assert_eq!(all["state-machines"].as_array().unwrap().len(), 5);
    for path in ["/v1/nodes/actions", "/v1/nodes/2/actions"] {
        let (_, all) = served.get(path).await;
        assert_eq!(all["actions"][0]["action_uid"], "task", "{path}");
    }
    let (_, none) = served.get("/v1/nodes/1/actions").await;
    assert_eq!(none["actions"], json!([]));
    for path in [
        "/v1/nodes/9/actions",
        "/v1/nodes/2/actions/remove",
        "/v1/actions/nothing",
    ] {
        assert_eq!(served.get(path).await.0, 404, "{path}");
    }
    served.stop().await;
}

type Asked = (Method, &'static str, &'static str, Intent);

async fn asks(all: Vec<Asked>) {
    let served = Served::start(Some(fixture::view())).await;
    for (method, path, body, intent) in all {
        let (status, answer) = served.send(method, path, body).await;
        assert_eq!(status, 200, "{path}: {answer}");
        let last = served.exec.said().intents.last().cloned();
        assert_eq!(last, Some(intent), "{path}");
    }
    served.stop().await;
}

const PACE: Pace = Pace {
    at_once: Some(2),
    step_within_seconds: Some(60),
};

#[tokio::test]
async fn what_is_asked_of_a_node() {
    let (node, pace, none) = (NodeUid(2), PACE, Pace::default());
    let wish = MaintenanceWish {
        keep_slave_shards: true,
        evict_dbs: vec![DatabaseUid(1)],
        demote_node: true,
        ..MaintenanceWish::default()
    };
    asks(vec![
        (
            Method::POST,
            "/v1/nodes/2/actions/maintenance_on",
            r#"{"evict_ha_replica":false,"evict_dbs":[1],"demote_node":true,
                "max_concurrent_actions":2,"retry_timeout_seconds":60}"#,
            Intent::MaintenanceOn { node, wish, pace },
        ),
        (
            Method::POST,
            "/v1/nodes/2/actions/maintenance_off",
            r#"{"snapshot_name":"before"}"#,
            Intent::MaintenanceOff {
                node,
                restore: Restore::Named("before".to_owned()),
                pace: none,
            },
        ),
        (
            Method::POST,
            "/v1/nodes/2/actions/enslave_node",
            "{}",
            Intent::EnslaveNode {
                node,
                demote_node: false,
                pass_over_busy: false,
                pace: none,
            },
        ),
        (
            Method::POST,
            "/v1/nodes/2/actions/remove",
            "{}",
            Intent::RemoveNode { node, pace: none },
        ),
    ])
    .await;
}

#[tokio::test]
async fn what_is_asked_of_snapshots_and_actions() {
    let (node, pace, none) = (NodeUid(2), PACE, Pace::default());
    let snapshot = |what, pace| Intent::NodeSnapshot {
        node,
        name: "before".to_owned(),
        what,
        pace,
    };
    let operation = || OperationUid("task".to_owned());
    asks(vec![
        (
            Method::POST,
            "/v1/nodes/2/snapshots/before",
            "",
            snapshot(SnapshotWhat::Create, none),
        ),
        (
            Method::POST,
            "/v1/nodes/2/snapshots/before/restore",
            r#"{"max_concurrent_actions":2,"retry_timeout_seconds":60}"#,
            snapshot(SnapshotWhat::Restore, pace),
        ),
        (
            Method::DELETE,
            "/v1/nodes/2/snapshots/before",
            "",
            snapshot(SnapshotWhat::Delete, none),
        ),
        (
            Method::POST,
            "/v1/actions/task/retry",
            "",
            Intent::RetryOperation {
                operation: operation(),
            },
        ),
        (
            Method::POST,
            "/v1/actions/task/abort",
            "",
            Intent::AbortOperation {
                operation: operation(),
            },
        ),
    ])
    .await;
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let served = Served::start(Some(fixture::view())).await;
    for (action, body, code, with) in [
        ("frobnicate", "{}", "not_found", "use maintenance_on"),
        (
            "remove",
            r#"{"demote_node":true}"#,
            "invalid_param",
            "demote_node has no meaning",
        ),
        (
            "maintenance_on",
            r#"{"snapshot_name":"x"}"#,
            "invalid_param",
            "snapshot_name",
        ),
        (
            "maintenance_on",
            r#"{"max_concurrent_actions":0}"#,
            "invalid_param",
            "from 1 to 100",
        ),
        (
            "remove",
            r#"{"retry_timeout_seconds":0}"#,
            "invalid_param",
            "from 1 to 86400",
        ),
        (
            "maintenance_off",
            r#"{"snapshot_name":"x","skip_shards_restore":true}"#,
            "invalid_param",
            "exclude each other",
        ),
        (
            "maintenance_on",
            r#"{"keep_slaves":true}"#,
            "invalid_schema",
            "keep_slaves",
        ),
    ] {
        let path = format!("/v1/nodes/2/actions/{action}");
        let (_, error) = served.send(Method::POST, &path, body).await;
        assert_eq!(error["error_code"], code, "{action} {body}: {error}");
        let text = error["description"].as_str().unwrap();
        assert!(text.contains(with), "{text}");
    }
    assert_eq!(served.exec.said().intents, []);
    served.stop().await;
}

/// The database of shards may be named with them; it must be theirs.
#[tokio::test]
async fn shards_are_brought_elsewhere() {
    let path = "/v1/shards/actions/migrate";
    let intent = Intent::MigrateShards {
        what: MigrateWhat::Shards {
            shards: vec![ShardUid(1)],
        },
        node: NodeUid(2),
        override_policy: false,
    };
    for body in [
        r#"{"shard_uids":[1],"target_node_uid":2}"#,
        r#"{"shard_uids":[1],"bdb_uid":1,"target_node_uid":2}"#,
    ] {
        asks(vec![(Method::POST, path, body, intent.clone())]).await;
    }
    let mut view = fixture::view();
    view.databases.push(fixture::database(7, "other"));
    let served = Served::start(Some(view)).await;
    for (body, code, part) in [
        (
            r#"{"shard_uids":[1],"bdb_uid":7,"target_node_uid":2}"#,
            "invalid_param",
            "redis:1 is of database db:1, not db:7",
        ),
        (
            r#"{"shard_uids":[1],"bdb_uid":9,"target_node_uid":2}"#,
            "db_not_found",
            "9",
        ),
        (
            r#"{"shard_uids":[1],"node_uid":1,"target_node_uid":2}"#,
            "invalid_param",
            "bdb_uid or node_uid alone",
        ),
    ] {
        let (status, answer) = served.send(Method::POST, path, body).await;
        assert!(status >= 400, "{answer}");
        assert_eq!(answer["error_code"], code, "{answer}");
        let text = answer["description"].as_str().unwrap();
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(served.exec.said().intents, []);
    served.stop().await;
}
