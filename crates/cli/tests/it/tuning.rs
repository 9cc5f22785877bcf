//! `tune db` and `tune proxy`: what is sent, and what is refused.

use crate::fake_node::FakeNode;
use crate::fixtures::{Cluster, demo, proxy_settings};
use model::ErrorCode;
use serde_json::{Value, json};

/// The body of the last change, without what is left out.
fn sent(node: &FakeNode) -> Value {
    let body = node.changes().pop().unwrap().body;
    let mut sent: serde_json::Map<String, Value> = serde_json::from_str(&body).unwrap();
    sent.retain(|_, value| !value.is_null());
    Value::Object(sent)
}

#[test]
fn limits_of_a_database() {
    let node = FakeNode::new();
    Cluster::well().show(&node);
    node.answer("PUT /v1/bdbs/1", &demo());
    for (typed, wanted) in [
        (
            "slave_ha enabled slave_ha_priority 7",
            json!({ "slave_ha": true, "slave_ha_priority": 7 }),
        ),
        (
            "max_client_pipeline 200",
            json!({ "max_client_pipeline": 200 }),
        ),
        (
            "max_commands_per_second 5000 max_bytes_per_second 10MB",
            json!({ "max_commands_per_second": 5_000, "max_bytes_per_second": 10 << 20 }),
        ),
        (
            "max_bytes_per_second 0",
            json!({ "max_bytes_per_second": 0 }),
        ),
        (
            "client_buffer 32MB:2MB:20",
            json!({ "client_buffer": "32MB:2MB:20" }),
        ),
        (
            "slowlog_log_slower_than 0 slowlog_max_len 64",
            json!({ "slowlog_log_slower_than": 0, "slowlog_max_len": 64 }),
        ),
        (
            "notify_keyspace_events KEA",
            json!({ "notify_keyspace_events": "KEA" }),
        ),
        (
            "notify_keyspace_events none",
            json!({ "notify_keyspace_events": "" }),
        ),
    ] {
        let output = node.output(&format!("tune db demo {typed}"));
        assert_eq!(output, "Finished successfully\n", "{typed}");
        assert_eq!(sent(&node), wanted, "{typed}");
    }
    let before = node.changes().len();
    for (wrong, why) in [
        ("max_client_pipeline 2048", "from 0 to 2047"),
        ("slave_ha_priority 1001", "from 0 to 1000"),
        ("client_buffer 1MB:2MB:3", "soft <= hard"),
        ("client_buffer much", "is not a size"),
        ("slowlog_max_len 129", "from 0 to 128"),
        ("notify_keyspace_events K!", "is no flag"),
        ("max_shard_pipeline 5", "not in this release"),
        ("conns 5", "one connection to each shard"),
        ("maxclients 5", "max_connections"),
        ("schedpolicy cmp", "not in this release"),
    ] {
        let (code, errors) = node.failure(&format!("tune db demo {wrong}"));
        assert!(code != 0 && errors.contains(why), "{wrong}: {errors}");
    }
    assert_eq!(node.changes().len(), before, "nothing was sent");
}

#[test]
fn proxies() {
    let node = FakeNode::new();
    node.answer("PUT /v1/proxies/2", &proxy_settings(2))
        .answer("PUT /v1/proxies", &[1, 2, 3].map(proxy_settings));
    let output = node.output("tune proxy 2 mode static threads 3");
    assert_eq!(output, "- proxy:2: ok\n");
    assert_eq!(
        sent(&node),
        json!({ "threads": 3, "dynamic_threads_scaling": false })
    );
    let output = node
        .output("tune proxy all mode dynamic max_threads 8 scale_threshold 70 scale_duration 60");
    assert_eq!(output, "- proxy:1: ok\n- proxy:2: ok\n- proxy:3: ok\n");
    assert_eq!(
        sent(&node),
        json!({
            "max_threads": 8,
            "dynamic_threads_scaling": true,
            "threads_usage_threshold": 70,
            "duration_usage_threshold": 60,
        })
    );
    for (wrong, why) in [
        ("all", "needs something to change"),
        ("all threads 256", "from 0 to 255"),
        ("all scale_threshold 49", "from 50 to 99"),
        ("all scale_duration 9", "from 10 to 300"),
        ("all mode fast", "is not one of"),
        ("all client_eviction enabled", "client_buffer"),
        ("all incoming_connections_rate_limit 5", "max_connections"),
    ] {
        let (code, errors) = node.failure(&format!("tune proxy {wrong}"));
        assert!(code != 0 && errors.contains(why), "{wrong}: {errors}");
    }
    node.refuse(
        "PUT /v1/proxies/9",
        ErrorCode::NodeNotFound,
        "there is no node:9",
    );
    let (code, errors) = node.failure("tune proxy 9 threads 2");
    assert!(code == 1 && errors.contains("node:9"), "{errors}");
}

#[test]
fn traffic() {
    let node = FakeNode::new();
    Cluster::well().show(&node);
    let sample = model::rest::StatsSample {
        conns: 12,
        total_req: 3_400,
        ingress_bytes: 2 << 20,
        egress_bytes: 5 << 10,
        avg_latency: Some(312.5),
        ..Default::default()
    };
    node.answer("GET /v1/bdbs/stats/last", &json!({ "1": sample }));
    let shown = node.output("status databases extra traffic");
    let line = |start: &str| -> Vec<&str> {
        let line = shown.lines().find(|line| line.starts_with(start)).unwrap();
        line.split_whitespace().rev().take(5).collect()
    };
    assert_eq!(
        line("DB:ID"),
        ["LATENCY", "OUT/S", "IN/S", "OPS/S", "CONNS"]
    );
    assert_eq!(line("db:1"), ["0.312ms", "5KB", "2MB", "3400", "12"]);
    assert_eq!(line("db:2"), ["-"; 5]);
    let shown = node.output("status endpoints extra traffic");
    assert!(shown.lines().nth(1).unwrap().ends_with("CONNS"), "{shown}");
    assert!(!node.output("status databases extra all").contains("OPS/S"));
}
