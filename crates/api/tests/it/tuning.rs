//! Limits of databases, settings of proxies, statistics of a while ago.

use crate::fixture;
use crate::served::Served;
use hyper::Method;
use jiff::{SignedDuration, Timestamp};
use model::history::{HistoryQuery, Interval, Sample};
use model::intent::{Intent, SlaveHaChange};
use model::observation::ProxyCounts;
use model::tuning::{ProxyChange, ProxyMode, TuningChange};
use model::{DatabaseUid, NodeUid};
use serde_json::{Value, json};

#[tokio::test]
async fn limits_of_a_database() {
    let served = Served::start(Some(fixture::view())).await;
    let (status, shown) = served.get("/v1/bdbs/1").await;
    assert_eq!(status, 200);
    assert_eq!(shown["client_buffer"], "16MB:1MB:10");
    assert_eq!(shown["slowlog_log_slower_than"], 10_000);
    assert_eq!(shown["max_commands_per_second"], 0);
    assert_eq!(shown["notify_keyspace_events"], "");
    let body = r#"{"max_client_pipeline":100,"max_commands_per_second":5000,
        "max_bytes_per_second":1048576,"client_buffer":"32MB","slowlog_max_len":5,
        "notify_keyspace_events":"KEA"}"#;
    let (status, changed) = served.send(Method::PUT, "/v1/bdbs/1", body).await;
    assert_eq!(status, 200, "{changed}");
    let Some(Intent::UpdateDatabase { change, .. }) = served.exec.said().intents.pop() else {
        panic!("a change");
    };
    assert_eq!(
        change.tuning,
        TuningChange {
            max_client_pipeline: Some(100),
            max_commands_per_second: Some(5_000),
            max_bytes_per_second: Some(1 << 20),
            client_buffer: Some("32MB:2MB:10".parse().unwrap()),
            slowlog_log_slower_than: None,
            slowlog_max_len: Some(5),
        }
    );
    assert_eq!(change.notify_keyspace_events.as_deref(), Some("AKE"));
    assert_eq!(change.client, None, "a client cannot be named from here");
    assert_eq!(change.slave_ha, SlaveHaChange::default());
    // Null takes back what the database says of its own.
    for (said, enabled, as_cluster) in [("null", None, true), ("false", Some(false), false)] {
        let body = format!(r#"{{"slave_ha":{said}}}"#);
        let (status, changed) = served.send(Method::PUT, "/v1/bdbs/1", &body).await;
        assert_eq!(status, 200, "{changed}");
        let Some(Intent::UpdateDatabase { change, .. }) = served.exec.said().intents.pop() else {
            panic!("a change");
        };
        let seen = (change.slave_ha.enabled, change.slave_ha.as_cluster);
        assert_eq!(seen, (enabled, as_cluster), "{said}");
    }
    for (wrong, why) in [
        (
            r#"{"max_client_pipeline":2048}"#,
            "max_client_pipeline 2048",
        ),
        (r#"{"max_bytes_per_second":1}"#, "max_bytes_per_second 1"),
        (r#"{"client_buffer":"1GB:2GB:1"}"#, "client_buffer"),
        (r#"{"notify_keyspace_events":"!"}"#, "'!'"),
        (r#"{"slowlog_max_len":129}"#, "slowlog_max_len 129"),
        (r#"{"max_pipelined":5}"#, "max_pipelined"),
        (r#"{"client":["x",1]}"#, "client"),
    ] {
        let (status, error) = served.send(Method::PUT, "/v1/bdbs/1", wrong).await;
        let text = error["description"].as_str().unwrap_or_default();
        assert!(status == 400 && text.contains(why), "{wrong}: {error}");
    }
    // A dry run shows what would be.
    let body = r#"{"name":"new","memory_size":1073741824,"max_client_pipeline":7}"#;
    let (status, shown) = served.post("/v1/bdbs?dry_run=true", body).await;
    assert_eq!(
        (status, &shown["max_client_pipeline"]),
        (200, &json!(7)),
        "{shown}"
    );
    served.stop().await;
}

#[tokio::test]
async fn settings_of_proxies() {
    let mut view = fixture::view();
    view.nodes[1].proxy.threads = 3;
    view.nodes[1].proxy.mode = ProxyMode::Static;
    let served = Served::start(Some(view)).await;
    let (status, all) = served.get("/v1/proxies").await;
    assert_eq!((status, all.as_array().unwrap().len()), (200, 3));
    let (_, one) = served.get("/v1/proxies/2").await;
    assert_eq!(one, all[1]);
    let expected = json!({ "uid": 2, "threads": 3, "mode": "static", "running_threads": 2 });
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&one[name], value, "{one}");
    }
    assert_eq!(served.get("/v1/proxies/9").await.0, 404);
    let body = r#"{"threads":2,"max_threads":4,"dynamic_threads_scaling":true,
        "threads_usage_threshold":70,"duration_usage_threshold":20}"#;
    let change = ProxyChange {
        mode: Some(ProxyMode::Dynamic),
        threads: Some(2),
        max_threads: Some(4),
        scale_threshold: Some(70),
        scale_duration: Some(20),
    };
    for (path, node) in [("/v1/proxies/1", Some(NodeUid(1))), ("/v1/proxies", None)] {
        let (status, answer) = served.send(Method::PUT, path, body).await;
        assert_eq!(status, 200, "{answer}");
        let wanted = Intent::UpdateProxy {
            node,
            change: change.clone(),
        };
        assert_eq!(served.exec.said().intents.pop(), Some(wanted));
    }
    for (path, body, wanted) in [
        ("/v1/proxies/9", "{}", 404),
        ("/v1/proxies/1", r#"{"uid":2}"#, 400),
        ("/v1/proxies/1", r#"{"client_eviction":true}"#, 400),
        ("/v1/proxies", r#"{"uid":1}"#, 400),
    ] {
        let (status, error) = served.send(Method::PUT, path, body).await;
        assert_eq!(status, wanted, "{path} {body}: {error}");
    }
    assert!(served.exec.said().intents.is_empty());
    served.stop().await;
}

fn sample(at: Timestamp, read_req: u64) -> Sample {
    Sample {
        from: at - SignedDuration::from_secs(10),
        to: at,
        connections: 3,
        in_flight: 0,
        keys: 5,
        used_memory: 7,
        per_second: ProxyCounts {
            read_req,
            read_res: 2,
            read_us: 500,
            ..ProxyCounts::default()
        },
    }
}

#[tokio::test]
async fn statistics_of_a_while_ago() {
    let served = Served::start(Some(fixture::view())).await;
    let at = |second: i64| Timestamp::from_second(1_700_000_000 + second).unwrap();
    let kept = vec![(DatabaseUid(1), vec![sample(at(0), 1), sample(at(10), 2)])];
    let ten = HistoryQuery {
        database: None,
        interval: Interval::TenSeconds,
    };
    let second = HistoryQuery {
        interval: Interval::Second,
        ..ten
    };
    served.exec.said().history = vec![(ten, kept.clone()), (second, kept)];
    let requests = |shown: &Value| -> Vec<u64> {
        let all = shown["intervals"].as_array().unwrap();
        all.iter()
            .map(|one| one["total_req"].as_u64().unwrap())
            .collect()
    };
    let (status, shown) = served.get("/v1/bdbs/stats/1?interval=10sec").await;
    assert_eq!((status, requests(&shown)), (200, vec![1, 2]), "{shown}");
    assert_eq!(shown["intervals"][0]["interval"], "10sec");
    assert_eq!(shown["intervals"][0]["avg_read_latency"], 250.0);
    assert!(shown["intervals"][0].get("latency").is_none());
    let from = at(5).to_string();
    let (_, shown) = served
        .get(&format!("/v1/bdbs/stats/1?interval=10sec&stime={from}"))
        .await;
    assert_eq!(requests(&shown), [2]);
    // The newest second is there whether it is kept already or not.
    let (_, shown) = served.get("/v1/bdbs/stats/1").await;
    assert_eq!(requests(&shown), [1, 2, 70]);
    assert!(shown["intervals"][2].get("latency").is_some());
    let (_, all) = served.get("/v1/bdbs/stats?interval=10sec").await;
    assert_eq!(requests(&all[0]), [1, 2]);
    assert_eq!(requests(&all[1]), [0; 0]);
    // The primary node does not say: the newest second is known, longer ago nothing is.
    served.exec.said().history.clear();
    let (_, shown) = served.get("/v1/bdbs/stats/1").await;
    assert_eq!(requests(&shown), [70]);
    assert_eq!(served.get("/v1/bdbs/stats/1?interval=5min").await.0, 503);
    let (status, error) = served.get("/v1/bdbs/stats/1?interval=1hour").await;
    assert!(
        status == 400 && error["description"].as_str().unwrap().contains("5min"),
        "{error}"
    );
    assert_eq!(served.get("/v1/bdbs/stats/9").await.0, 404);
    served.stop().await;
}
