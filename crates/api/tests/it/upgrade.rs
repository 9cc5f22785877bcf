//! `/v1/upgrade`.

use crate::fixture;
use crate::served::Served;
use hyper::Method;
use jiff::Timestamp;
use model::intent::Intent;
use model::upgrade::Upgrade;
use model::view::ClusterView;
use serde_json::json;

fn at(upgrade: &serde_json::Value) -> ClusterView {
    ClusterView {
        upgrade: serde_json::from_value::<Upgrade>(upgrade.clone()).unwrap(),
        ..fixture::view()
    }
}

fn status(view: &ClusterView, now: &str) -> serde_json::Value {
    let now: Timestamp = now.parse().unwrap();
    serde_json::to_value(api::shape::upgrade::status(view, now)).unwrap()
}

#[test]
fn every_stage_says_what_it_waits_for() {
    let now = "2030-01-01T12:05:00Z";
    let open = json!({"from": "1.0.0", "to": "1.1.0", "began": "2030-01-01T11:00:00Z"});
    let told = status(&at(&json!({})), now);
    assert_eq!(told["state"], "none");
    assert_eq!(told["nodes"][0]["state"], "ok");
    assert_eq!(told["soak_seconds"], 600);

    let told = status(&at(&json!({"current": open})), now);
    assert_eq!(told["state"], "nodes");
    let waits = told["waiting_on"].as_array().unwrap();
    assert_eq!(waits.len(), 3, "{waits:?}");
    assert!(
        waits[0]
            .as_str()
            .unwrap()
            .contains("run install.sh of 1.1.0 there")
    );
    assert!(waits[2].as_str().unwrap().contains("is not heard"));

    let soaking = |more: serde_json::Value| {
        let mut open = open.clone();
        open["all_new_since"] = json!("2030-01-01T12:00:00Z");
        let mut upgrade = json!({"current": open});
        upgrade
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        upgrade
    };
    let told = status(&at(&soaking(json!({}))), now);
    assert_eq!(
        (&told["state"], &told["soak_left_seconds"]),
        (&json!("soak"), &json!(300))
    );
    let held = soaking(json!({"hold_finalize": true, "soak_seconds": 60}));
    let told = status(&at(&held), now);
    assert_eq!(
        (&told["state"], &told["soak_left_seconds"]),
        (&json!("held"), &json!(0))
    );

    let mut raising = open.clone();
    raising["raising"] = json!({"from": 1, "to": 2, "began": now});
    let mut view = at(&json!({"current": raising}));
    assert_eq!(status(&view, now)["state"], "raising");
    view.cluster.feature_level = 2;
    let told = status(&view, now);
    assert_eq!(told["state"], "confirming");
    assert_eq!(told["waiting_on"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn settings_and_the_end_of_an_upgrade_become_intents() {
    let served = Served::start(Some(fixture::view())).await;
    let body = r#"{"hold_finalize":true}"#;
    let (code, answer) = served.send(Method::PUT, "/v1/upgrade", body).await;
    assert_eq!(code, 200, "{answer}");
    let (code, answer) = served.post("/v1/upgrade/finalize", "{}").await;
    assert_eq!(code, 200, "{answer}");
    assert_eq!(
        served.exec.said().intents,
        [
            Intent::UpdateUpgrade {
                hold_finalize: Some(true),
                soak_seconds: None,
            },
            Intent::FinalizeUpgrade,
        ]
    );
    let (code, answer) = served.get("/v1/upgrade").await;
    assert_eq!((code, &answer["state"]), (200, &json!("none")));
    // The program of a test lies in no release.
    let (code, answer) = served.get("/v1/upgrade/plan").await;
    assert_eq!((code, &answer["error_code"]), (406, &json!("config_error")));
    let target = json!({
        "version": "2.0.0", "build_id": "b", "feature_min": 1, "feature_max": 2, "engines": [],
        "supported_paths": {"path": [
            {"from": ">=1.0.0, <1.6.0", "to": ">=1.0.0, <1.6.0"},
            {"from": ">=1.5.0", "to": ">=1.5.0"},
        ]},
    });
    let (code, paths) = served.post("/v1/upgrade/paths", &target.to_string()).await;
    assert_eq!(code, 200, "{paths}");
    assert_eq!(paths["nodes"][0]["hops"], json!(["1.5.0"]));
    served.stop().await;
}
