use super::*;
use model::observation::{HostFacts, NodeObservation};
use serde_json::json;

const SECOND: Duration = Duration::from_secs(1);

fn observation(node: u64) -> NodeObservation {
    let host = json!(HostFacts::default());
    serde_json::from_value(json!({
        "node": node, "taken": "2030-01-01T00:00:00Z", "software_version": "", "build_id": "",
        "feature_min": 1, "feature_max": 1, "started": "2030-01-01T00:00:00Z", "host": host,
        "engines": [], "shards": [], "proxy": null, "services": [], "applied": 1, "state_hash": "",
    }))
    .unwrap()
}

fn told(node: u64, age_ms: u64) -> Observed {
    Observed {
        observation: observation(node),
        age_ms,
        clock_ahead_ms: 0,
    }
}

/// Node and age of each that is shown, ms.
fn ages(heard: &Observations, before: &LastKnown, now: Instant) -> Vec<(u64, u64)> {
    let all = merged(heard, before, now).into_iter();
    all.map(|one| (one.observation.node.0, one.age_ms))
        .collect()
}

#[test]
fn a_new_primary_node_shows_what_the_one_before_had_heard() {
    let start = Instant::now();
    let mut heard = Observations::default();
    // When it led before.
    heard.record(observation(1), start);
    heard.record(observation(3), start);
    let elected = start + 60 * SECOND;
    heard.leases.in_term(7, elected);
    heard.record(observation(2), elected + SECOND);
    let now = elected + 2 * SECOND;
    let before = LastKnown {
        at: Some(elected - SECOND),
        observed: vec![told(1, 100), told(2, 200), told(3, 90_000)],
    };
    let shown = ages(&heard, &before, now);
    assert_eq!(shown, [(1, 3_100), (2, 1_000), (3, 93_000)]);
    // What it was told before it was cut off for a while says nothing.
    let long_ago = LastKnown {
        at: Some(elected - HEARTBEAT_LOST - SECOND),
        ..before
    };
    assert_eq!(ages(&heard, &long_ago, now), [(2, 1_000)]);
    assert_eq!(ages(&heard, &LastKnown::default(), now), [(2, 1_000)]);
    // Nothing is planned from it.
    assert!(heard.fresh(NodeUid(1), now).is_none());
}

/// This node reaches node 3, which follows node 2, but not node 2.
#[test]
fn who_answers_is_heard() {
    let mut known = vec![told(1, 9_000), told(2, 9_000), told(3, 9_400)];
    answer(&mut known, &[NodeUid(3)]);
    let ages: Vec<u64> = known.iter().map(|one| one.age_ms).collect();
    assert_eq!(ages, [9_000, 9_000, 0]);
}
