//! Every path, over the unix socket.

use crate::fixture;
use crate::served::{Served, until};
use hyper::Method;
use model::documents::{Event, Severity};
use model::intent::{Intent, IntentOutcome};
use model::{ApiError, DatabaseUid, ErrorCode, NodeUid, OperationUid};
use serde_json::{Map, json};
use std::sync::atomic::Ordering;

#[tokio::test]
async fn reads() {
    let served = Served::start(Some(fixture::view())).await;
    for (path, at, expected) in [
        ("/v1/cluster", "/name", json!("cluster.local")),
        (
            "/v1/cluster/policy",
            "/default_shards_placement",
            json!("dense"),
        ),
        ("/v1/nodes", "/2/status", json!("down")),
        ("/v1/nodes/2", "/addr", json!("127.0.1.2")),
        ("/v1/nodes/status", "/1/role", json!("master")),
        ("/v1/nodes/check/2", "/result", json!(true)),
        ("/v1/cluster/check", "/cluster_test_result", json!(false)),
        ("/v1/cluster/check", "/nodes/2/result", json!(false)),
        (
            "/v1/bdbs",
            "/0/authentication_redis_pass",
            json!("db secret"),
        ),
        ("/v1/bdbs/1", "/name", json!("demo")),
        ("/v1/bdbs/1/shards", "/0/uid", json!(1)),
        ("/v1/bdbs/stats", "/0/intervals/0/total_req", json!(70)),
        ("/v1/bdbs/stats/1", "/intervals/0/conns", json!(7)),
        (
            "/v1/bdbs/stats/1?interval=1sec",
            "/intervals/0/interval",
            json!("1sec"),
        ),
        ("/v1/bdbs/stats/last", "/1/ingress_bytes", json!(3_000)),
        (
            "/v1/bdbs/stats/last/1",
            "/1/since_start/errors/refused",
            json!(2),
        ),
        ("/v1/bdbs/1/slowlog", "/0/command", json!("ZUNIONSTORE")),
        ("/v1/shards", "/1/bdb_name", json!("young")),
        ("/v1/shards/1", "/detailed_status", json!("ok")),
        (
            "/v1/actions",
            "/state-machines/1/state",
            json!("shard 2 to start on node 2"),
        ),
        ("/v1/actions/op-1", "/progress", json!(100.0)),
        (
            "/v1/actions/bdb/2",
            "/state-machines/0/action_uid",
            json!("op-2"),
        ),
        ("/v1/local/services", "/cnm_exec/status", json!("RUNNING")),
        (
            "/v1/local/node/master_healthcheck",
            "/status",
            json!("active"),
        ),
        (
            "/v1/bootstrap",
            "/bootstrap_status/state",
            json!("completed"),
        ),
    ] {
        let (status, body) = served.get(path).await;
        assert_eq!(status, 200, "{path}: {body}");
        assert_eq!(body.pointer(at), Some(&expected), "{path} {at}: {body}");
    }
    served.stop().await;
}

#[tokio::test]
async fn what_is_not_there() {
    let served = Served::start(Some(fixture::view())).await;
    for (method, path, status, code) in [
        (Method::GET, "/", 404, "not_found"),
        (Method::GET, "/v1/nothing", 404, "not_found"),
        (Method::GET, "/v1/bdbs/", 404, "not_found"),
        (Method::GET, "/v2/bdbs", 404, "not_found"),
        (Method::GET, "/v1/bdbs/9", 404, "db_not_found"),
        (Method::GET, "/v1/bdbs/x", 404, "db_not_found"),
        (Method::GET, "/v1/bdbs/9/shards", 404, "db_not_found"),
        (Method::GET, "/v1/bdbs/9/slowlog", 404, "db_not_found"),
        (Method::GET, "/v1/bdbs/stats/9", 404, "db_not_found"),
        (Method::GET, "/v1/bdbs/stats/last/9", 404, "db_not_found"),
        (
            Method::GET,
            "/v1/bdbs/stats/1?interval=1hour",
            400,
            "invalid_param",
        ),
        (Method::PUT, "/v1/bdbs/9", 404, "db_not_found"),
        (Method::DELETE, "/v1/bdbs/9", 404, "db_not_found"),
        (Method::GET, "/v1/nodes/9", 404, "node_not_found"),
        (Method::GET, "/v1/shards/9", 404, "shard_not_exist"),
        (Method::GET, "/v1/actions/9", 404, "action_not_found"),
        (Method::GET, "/v1/actions/bdb/9", 404, "db_not_found"),
        (Method::DELETE, "/v1/bdbs", 405, "method_not_allowed"),
        (Method::POST, "/v1/bdbs/1", 405, "method_not_allowed"),
        (Method::PATCH, "/v1/cluster", 405, "method_not_allowed"),
        (Method::GET, "/v1/internal/admit", 405, "method_not_allowed"),
        (
            Method::POST,
            "/v1/bootstrap/recover_cluster",
            404,
            "not_found",
        ),
    ] {
        let (answered, body) = served.send(method.clone(), path, "{}").await;
        assert_eq!(
            (answered, &body["error_code"]),
            (status, &json!(code)),
            "{method} {path}"
        );
        assert!(!body["description"].as_str().unwrap().is_empty());
    }
    let refused = served.raw(Method::DELETE, "/v1/bdbs", "").await.unwrap();
    assert!(
        refused
            .headers
            .get("allow")
            .unwrap()
            .to_str()
            .unwrap()
            .contains("POST")
    );
    assert!(served.exec.said().intents.is_empty());
    served.stop().await;
}

#[tokio::test]
async fn a_database_is_created_changed_and_deleted() {
    let served = Served::start(Some(fixture::view())).await;
    let outcome = IntentOutcome {
        database: Some(DatabaseUid(2)),
        operation: Some(OperationUid("op-2".to_owned())),
        ..Default::default()
    };
    served.exec.said().outcome = Ok(outcome);
    let wanted = r#"{"name":"young","memory_size":1073741824}"#;
    let (status, created) = served.post("/v1/bdbs", wanted).await;
    assert_eq!(status, 200, "{created}");
    assert_eq!(created["uid"], 2);
    assert_eq!(created["status"], "pending");
    assert_eq!(created["action_uid"], "op-2");

    let (status, changed) = served
        .send(Method::PUT, "/v1/bdbs/1", r#"{"memory_size":2147483648}"#)
        .await;
    assert_eq!((status, &changed["uid"]), (200, &json!(1)), "{changed}");
    let (status, deleted) = served.send(Method::DELETE, "/v1/bdbs/2", "").await;
    assert_eq!((status, &deleted["action_uid"]), (200, &json!("op-2")));

    let intents = served.exec.said().intents.clone();
    assert!(matches!(&intents[0], Intent::CreateDatabase(spec) if !spec.dry_run));
    let Intent::UpdateDatabase { database, change } = &intents[1] else {
        panic!("{intents:?}")
    };
    assert_eq!(
        (*database, change.memory_size),
        (DatabaseUid(1), Some(2 << 30))
    );
    assert_eq!(
        intents[2],
        Intent::DeleteDatabase {
            database: DatabaseUid(2)
        }
    );
    served.stop().await;
}

#[tokio::test]
async fn a_dry_run_is_never_a_real_one() {
    let served = Served::start(Some(fixture::view())).await;
    let wanted = r#"{"name":"later","memory_size":1073741824}"#;
    let (status, preview) = served.post("/v1/bdbs?dry_run=true", wanted).await;
    assert_eq!(
        (status, &preview["name"]),
        (200, &json!("later")),
        "{preview}"
    );
    assert_eq!(
        (&preview["uid"], &preview["proxy_policy"]),
        (&json!(0), &json!("single"))
    );
    let intents = std::mem::take(&mut served.exec.said().intents);
    assert!(matches!(&intents[..], [Intent::CreateDatabase(spec)] if spec.dry_run));

    // Misspelt, unreadable, or where there is none.
    for (method, path) in [
        (Method::POST, "/v1/bdbs?dryrun=true"),
        (Method::POST, "/v1/bdbs?dry_run=maybe"),
        (Method::PUT, "/v1/bdbs/1?dry_run=true"),
        (Method::DELETE, "/v1/bdbs/1?dry_run=true"),
        (Method::PUT, "/v1/cluster?dry_run=true"),
    ] {
        let (status, body) = served.send(method, path, wanted).await;
        assert_eq!(
            (status, &body["error_code"]),
            (400, &json!("invalid_param")),
            "{path}"
        );
    }
    assert!(served.exec.said().intents.is_empty());
    served.stop().await;
}

#[tokio::test]
async fn what_cnm_exec_refuses_is_answered_as_it_says() {
    let served = Served::start(Some(fixture::view())).await;
    let why = "2 of 3 voters cannot be reached";
    served.exec.said().outcome = Err(ApiError::new(ErrorCode::NoQuorum, why));
    let body = r#"{"name":"x","memory_size":1073741824}"#;
    let refused = served.raw(Method::POST, "/v1/bdbs", body).await.unwrap();
    assert_eq!(refused.status, 503);
    assert_eq!(refused.headers["retry-after"], "1");
    assert_eq!(
        crate::served::json(&refused.body),
        json!({"error_code":"no_quorum","description":why})
    );

    served.exec.said().view = Ok(fixture::view_without_quorum());
    let (status, cluster) = served.get("/v1/cluster").await;
    assert_eq!(
        (status, &cluster["has_quorum"]),
        (200, &json!(false)),
        "reads go on"
    );
    let (_, health) = served.get("/v1/local/node/master_healthcheck").await;
    assert_eq!(health["status"], "inactive");
    served.stop().await;
}

#[tokio::test]
async fn cnm_exec_that_is_away_is_said_so() {
    let served = Served::start(Some(fixture::view())).await;
    std::fs::remove_file(served.config.exec_socket()).unwrap();
    let (status, body) = served.get("/v1/cluster").await;
    assert_eq!(
        (status, &body["error_code"]),
        (503, &json!("not_ready")),
        "{body}"
    );
    served.stop().await;
}

#[tokio::test]
async fn fields_are_chosen() {
    let served = Served::start(Some(fixture::view())).await;
    let (_, list) = served.get("/v1/bdbs?fields=name,uid,crdt").await;
    assert_eq!(
        list,
        json!([{"uid":1,"name":"demo"},{"uid":2,"name":"young"}])
    );
    let (_, one) = served.get("/v1/nodes/1?fields=uid&x=1").await;
    assert_eq!(one, json!({"uid":1}));
    let (_, shards) = served.get("/v1/shards?fields=role").await;
    assert_eq!(shards, json!([{"role":"master"},{"role":"master"}]));
    served.stop().await;
}

#[tokio::test]
async fn an_old_revision_is_refused() {
    let served = Served::start(Some(fixture::view())).await;
    let answer = served.raw(Method::GET, "/v1/bdbs/1", "").await.unwrap();
    assert_eq!(answer.headers["cluster-state-id"], "42");
    let address = served.config.https_address();
    let admin = crate::http::basic("admin@example.com", fixture::PASSWORD);
    for (state, status, code) in [
        ("41", 409, Some("wrong_cluster_state_id")),
        ("abc", 400, Some("invalid_param")),
        ("42", 200, None),
    ] {
        let mut request = crate::http::request(
            "PUT",
            address,
            "/v1/bdbs/1",
            Some(&admin),
            r#"{"name":"new"}"#,
        );
        request
            .headers_mut()
            .insert("cluster-state-id", state.parse().unwrap());
        let reply = crate::http::send(address, request).await;
        assert_eq!(reply.status, status, "{}", reply.body);
        assert_eq!(reply.body.get("error_code").and_then(|c| c.as_str()), code);
    }
    assert_eq!(served.exec.said().intents.len(), 1);
    served.stop().await;
}

#[tokio::test]
async fn settings_and_primary_node() {
    let served = Served::start(Some(fixture::view())).await;
    let (status, _) = served.send(Method::PUT, "/v1/cluster", "{}").await;
    assert_eq!(status, 200);
    assert!(
        served.exec.said().intents.is_empty(),
        "nothing was asked for"
    );
    let body = r#"{"default_shards_placement":"sparse"}"#;
    let (status, policy) = served.send(Method::PUT, "/v1/cluster/policy", body).await;
    assert_eq!(status, 200, "{policy}");
    assert!(policy.get("default_sharded_proxy_policy").is_some());
    let path = "/v1/cluster/actions/change_master";
    let (status, moved) = served.post(path, r#"{"node_uid":2}"#).await;
    assert_eq!((status, moved), (200, json!({"action_uid":null})));
    let (status, _) = served.post(path, r#"{"node_uid":9}"#).await;
    assert_eq!(status, 404);
    let intents = served.exec.said().intents.clone();
    assert_eq!(
        intents[1],
        Intent::ChangePrimaryNode {
            node: Some(NodeUid(2))
        }
    );
    assert_eq!(intents.len(), 2);
    served.stop().await;
}

#[tokio::test]
async fn events_by_page() {
    let served = Served::start(Some(fixture::view())).await;
    let event = |number: u64| Event {
        schema: 1,
        number,
        time: fixture::time(&format!("2030-01-01T10:00:0{number}Z")),
        kind: "bdb_created".to_owned(),
        severity: Severity::Info,
        facts: Map::from_iter([("bdb_uid".to_owned(), json!(number))]),
    };
    served.exec.said().events = (1..=5).map(event).collect();
    let uids = async |query: &str| {
        let (status, list) = served.get(&format!("/v1/logs{query}")).await;
        assert_eq!(status, 200, "{query}: {list}");
        list.as_array()
            .unwrap()
            .iter()
            .map(|e| e["bdb_uid"].as_u64().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(uids("").await, [1, 2, 3, 4, 5]);
    assert_eq!(uids("?order=desc&limit=2").await, [5, 4]);
    assert_eq!(uids("?offset=1&limit=2").await, [2, 3]);
    assert_eq!(
        uids("?stime=2030-01-01T10:00:02Z&etime=2030-01-01T10:00:03").await,
        [2, 3]
    );
    for wrong in ["?order=up", "?limit=x", "?stime=yesterday", "?limit=-1"] {
        let (status, body) = served.get(&format!("/v1/logs{wrong}")).await;
        assert_eq!(
            (status, &body["error_code"]),
            (400, &json!("invalid_param")),
            "{wrong}"
        );
    }
    let (_, list) = served.get("/v1/logs?limit=1").await;
    let expected =
        json!([{"time":"2030-01-01T10:00:01Z","type":"bdb_created","severity":"INFO","bdb_uid":1}]);
    assert_eq!(list, expected);
    served.stop().await;
}

const CREATE: &str = r#"{"cluster":{"name":"cluster.local"},
    "credentials":{"username":"admin@example.com","password":"secret"}}"#;

#[tokio::test]
async fn a_cluster_is_created_and_waited_for() {
    let served = Served::start(None).await;
    let (status, body) = served.get("/v1/bdbs").await;
    assert_eq!((status, &body["error_code"]), (406, &json!("not_member")));
    let (status, checked) = served
        .post("/v1/bootstrap/validate/create_cluster", CREATE)
        .await;
    assert_eq!(
        (status, checked),
        (200, json!({"action":"create_cluster","valid":true}))
    );
    assert!(served.exec.said().created.is_empty());
    let (status, done) = served.post("/v1/bootstrap/create_cluster", CREATE).await;
    assert_eq!(
        (status, &done["bootstrap_status"]["state"]),
        (200, &json!("completed")),
        "{done}"
    );
    assert_eq!(served.exec.said().created[0].password.expose(), "secret");
    let (status, again) = served.post("/v1/bootstrap/create_cluster", CREATE).await;
    assert_eq!(
        (status, &again["error_code"]),
        (409, &json!("already_member"))
    );
    served.stop().await;
}

#[tokio::test]
async fn a_bootstrap_that_nobody_waits_for_goes_on() {
    let served = Served::start(None).await;
    served.exec.held.store(true, Ordering::SeqCst);
    let body = CREATE.replace(r#""name""#, r#""wait_command":false,"name""#);
    let (status, begun) = served.post("/v1/bootstrap/create_cluster", &body).await;
    assert_eq!(
        (status, &begun["bootstrap_status"]["state"]),
        (200, &json!("initiated"))
    );
    until("cnm_exec is asked", async || {
        !served.exec.said().created.is_empty()
    })
    .await;
    let (status, second) = served.post("/v1/bootstrap/create_cluster", &body).await;
    assert_eq!((status, &second["error_code"]), (409, &json!("busy")));
    served.exec.go_on.notify_one();
    let state = async || served.get("/v1/bootstrap").await.1["bootstrap_status"]["state"].clone();
    until("it is completed", async || state().await == "completed").await;
    served.stop().await;
}

#[tokio::test]
async fn a_bootstrap_that_fails_says_why_and_can_be_tried_again() {
    let served = Served::start(None).await;
    let why = ApiError::new(ErrorCode::ConfigError, "the store cannot be written");
    served.exec.said().bootstrap_fails = Some(why);
    let (status, failed) = served.post("/v1/bootstrap/create_cluster", CREATE).await;
    assert_eq!(
        (status, &failed["error_code"]),
        (406, &json!("config_error"))
    );
    let (_, seen) = served.get("/v1/bootstrap").await;
    assert_eq!(seen["bootstrap_status"]["state"], "error");
    assert_eq!(seen["bootstrap_status"]["error_code"], "config_error");
    served.exec.said().bootstrap_fails = None;
    let (status, _) = served.post("/v1/bootstrap/create_cluster", CREATE).await;
    assert_eq!(status, 200);
    served.stop().await;
}

#[tokio::test]
async fn a_node_joins() {
    let served = Served::start(None).await;
    let body = format!(
        r#"{{"cluster":{{"nodes":["127.0.1.9"]}},"credentials":{{"username":"a@b.c",
        "password":"p","ca_fingerprint":"{}"}}}}"#,
        "ab".repeat(32)
    );
    let (status, joined) = served.post("/v1/bootstrap/join_cluster", &body).await;
    assert_eq!(status, 200, "{joined}");
    assert_eq!(served.exec.said().joined[0].nodes, ["127.0.1.9"]);
    served.stop().await;
}
