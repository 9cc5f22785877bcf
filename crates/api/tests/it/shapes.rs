//! Goldens of the objects that are made from a view.

use crate::fixture::{self, GIB};
use api::shape;
use insta::assert_json_snapshot;
use model::documents::{Operation, OperationStatus, ProxyPolicy, Role, Shard, SlotRange, Stalled};
use model::history::{HistoryAnswer, Interval};
use model::node_config::Ports;
use model::observation::{EngineStall, EngineState, ShardObservation, StallKind};
use model::rest::SHARD_KEY_RULES;
use model::rest::StatsSample;
use model::view::ClusterView;
use model::{DatabaseUid, Epoch, NodeUid, OperationUid, ShardUid};
use std::path::Path;

/// Every object of a view, as REST shows them to an admin.
fn everything(view: &ClusterView) -> serde_json::Value {
    let config = fixture::config(Path::new("/srv"), "127.0.1.1");
    let mut cluster = shape::cluster::info(view, &config.ports);
    // The CA is made anew in each run.
    assert_eq!(cluster.ca_fingerprint.len(), 95);
    cluster.ca_fingerprint = "CA".to_owned();
    cluster.ca_certificate = "CA".to_owned();
    let nodes: Vec<_> = view
        .nodes
        .iter()
        .map(|n| shape::node::info(view, n, &config))
        .collect();
    let databases: Vec<_> = view
        .databases
        .iter()
        .map(|d| shape::database::info(view, d, true))
        .collect();
    let statistics: Vec<_> = view
        .databases
        .iter()
        .map(|d| shape::stats::of_database(view, d.uid, &HistoryAnswer::new(), Interval::Second))
        .collect();
    let shards: Vec<_> = view
        .shards
        .iter()
        .map(|s| shape::shard::info(view, s))
        .collect();
    serde_json::json!({
        "cluster": cluster,
        "nodes": nodes,
        "nodes_status": shape::node::statuses(view),
        "bdbs": databases,
        "bdbs_stats": statistics,
        "proxies": view.nodes.iter().map(|n| shape::proxy::info(view, n)).collect::<Vec<_>>(),
        "slowlog": shape::stats::slowlog(view, DatabaseUid(1)),
        "shards": shards,
        "actions": shape::action::list(view.operations.iter()),
        "master_healthcheck": shape::cluster::healthcheck(view),
    })
}

#[test]
fn a_cluster_with_one_node_down() {
    assert_json_snapshot!(everything(&fixture::view()));
}

#[test]
fn a_cluster_without_quorum() {
    let mut shown = everything(&fixture::view_without_quorum());
    // What does not come from observations is as above.
    for stored in ["actions", "nodes"] {
        shown.as_object_mut().unwrap().remove(stored);
    }
    assert_json_snapshot!(shown);
}

#[test]
fn a_cluster_that_has_just_begun() {
    let mut view = fixture::view();
    view.nodes.truncate(1);
    view.observed.clear();
    view.databases.clear();
    view.shards.clear();
    view.operations.clear();
    assert_json_snapshot!(everything(&view));
}

#[test]
fn statistics_are_added_over_the_proxies_that_are_heard() {
    let mut view = fixture::view();
    let one = shape::stats::newest(&view, DatabaseUid(1)).unwrap();
    let entries = shape::stats::slowlog(&view, DatabaseUid(1));
    // The same proxy on a second node, slower.
    let mut other = view.observed(NodeUid(2)).unwrap().observation.proxy.clone();
    let seen = &mut other.as_mut().unwrap().databases[0];
    seen.latency.shared.last_second.p99_us = 9_000;
    seen.slow[0].when += jiff::SignedDuration::from_secs(1);
    let first = &mut view.observed[0];
    assert_eq!(first.observation.node, NodeUid(1));
    first.observation.proxy = other;
    let both = shape::stats::newest(&view, DatabaseUid(1)).unwrap();
    assert_eq!(
        (both.total_req, both.conns),
        (2 * one.total_req, 2 * one.conns)
    );
    let since_start = |sample: &StatsSample| sample.since_start.unwrap().read_req;
    assert_eq!(since_start(&both), 2 * since_start(&one));
    assert_eq!(both.avg_read_latency, one.avg_read_latency);
    assert_eq!(
        (one.avg_read_latency, one.avg_write_latency),
        (Some(200.0), Some(300.5))
    );
    assert_eq!(one.avg_other_latency, None);
    assert_eq!(both.latency.unwrap().shared.last_second.p99_us, 9_000);
    assert_eq!(both.latency.unwrap().shared.last_second.count, 120);
    let slow = shape::stats::slowlog(&view, DatabaseUid(1));
    let nodes: Vec<NodeUid> = slow.iter().map(|entry| entry.node_uid).collect();
    assert_eq!(nodes, [NodeUid(1), NodeUid(2)], "the newest first");
    assert_eq!(slow[1], entries[0]);
    // Who is not heard is not counted.
    view.observed[0].age_ms = 60_000;
    let again = shape::stats::newest(&view, DatabaseUid(1)).unwrap();
    assert_eq!(again.total_req, one.total_req);
    for observed in &mut view.observed {
        observed.age_ms = 60_000;
    }
    assert_eq!(shape::stats::newest(&view, DatabaseUid(1)), None);
    assert!(shape::stats::slowlog(&view, DatabaseUid(1)).is_empty());
}

#[test]
fn bootstrap() {
    assert_json_snapshot!(shape::bootstrap::status(&fixture::bootstrap("completed")));
}

#[test]
fn each_state_of_an_engine() {
    let shard = fixture::shard(1, 1, 2);
    let shown = |change: &dyn Fn(&mut ShardObservation)| {
        let mut view = fixture::view();
        change(&mut view.observed[1].observation.shards[0]);
        let info = shape::shard::info(&view, &shard);
        (info.status, info.detailed_status, info.loading.status)
    };
    let expected = |status: &str, detailed: &str, loading: &str| {
        (status.to_owned(), detailed.to_owned(), loading.to_owned())
    };
    assert_eq!(shown(&|_| {}), expected("active", "ok", "idle"));
    assert_eq!(
        shown(&|s| s.role = None),
        expected("inactive", "loading", "idle")
    );
    assert_eq!(
        shown(&|s| s.epoch = Some(Epoch(2))),
        expected("inactive", "loading", "idle")
    );
    for (state, detailed, loading) in [
        (EngineState::Starting, "loading", "idle"),
        (EngineState::Loading, "loading", "in_progress"),
        (EngineState::Stopped, "down", "idle"),
        (EngineState::Failed, "down", "idle"),
        (EngineState::Unresponsive, "timeout", "idle"),
    ] {
        assert_eq!(
            shown(&|s| s.state = state),
            expected("inactive", detailed, loading)
        );
    }
}

#[test]
fn an_engines_own_reason_is_shown() {
    let mut view = fixture::view();
    let seen = &mut view.observed[1].observation.shards[0];
    seen.state = EngineState::Failed;
    seen.error = Some("cannot bind 127.0.1.2:20001".to_owned());
    let info = shape::shard::info(&view, &view.shards[0].clone());
    assert_eq!(info.error.as_deref(), Some("cannot bind 127.0.1.2:20001"));
}

/// It answers that it is busy, and has been for long: an alert stands.
#[test]
fn an_engine_that_stalls_is_not_ok() {
    let mut view = fixture::view();
    view.shards[0].stalled = Some(Stalled {
        since: jiff::Timestamp::UNIX_EPOCH,
        hangs: false,
        reason: "it runs a script".to_owned(),
    });
    let info = shape::shard::info(&view, &view.shards[0].clone());
    assert_eq!(info.detailed_status, "timeout");
    assert_eq!(info.error.as_deref(), Some("it runs a script"));
}

/// Nobody has judged it yet, but its agent knows.
#[test]
fn an_engine_that_does_not_answer_is_not_ok() {
    let shown = |process_state, questions| {
        let mut view = fixture::view();
        let shard = view.shards[0].clone();
        let seen = view.observed.iter_mut();
        let mut seen = seen.flat_map(|heard| &mut heard.observation.shards);
        let seen = seen.find(|seen| seen.shard == shard.uid).unwrap();
        seen.stall = Some(EngineStall {
            kind: StallKind::Silent,
            milliseconds: 1_250,
            questions,
            process_state,
            cpu_ticks: Some(0),
        });
        let info = shape::shard::info(&view, &shard);
        (info.detailed_status, info.error)
    };
    let timeout = |error: &str| ("timeout".to_owned(), Some(error.to_owned()));
    assert_eq!(
        shown(Some('T'), 1),
        timeout("it has not answered for 1.2 s: its process is stopped")
    );
    assert_eq!(shown(None, 2), timeout("it has not answered for 1.2 s"));
    assert_eq!(shown(Some('R'), 1), ("ok".to_owned(), None));
}

#[test]
fn proxies_by_policy() {
    let mut view = fixture::view();
    view.shards = vec![
        fixture::shard(4, 1, 3),
        fixture::shard(5, 1, 2),
        fixture::shard(6, 1, 1),
    ];
    view.shards[0].slots.first = 8_000;
    view.shards[2].role = Role::Replica;
    let shards: Vec<_> = view.shards.iter().collect();
    let nodes = |policy| shape::database::proxy_nodes(&view, policy, &shards);
    assert_eq!(
        nodes(ProxyPolicy::Single),
        [NodeUid(2)],
        "the primary of the lowest slot"
    );
    assert_eq!(
        nodes(ProxyPolicy::AllMasterShards),
        [NodeUid(2), NodeUid(3)]
    );
    assert_eq!(
        nodes(ProxyPolicy::AllNodes),
        [NodeUid(1), NodeUid(2), NodeUid(3)]
    );
    assert!(shape::database::proxy_nodes(&view, ProxyPolicy::Single, &[]).is_empty());
}

#[test]
fn addresses_that_work_come_first() {
    let mut view = fixture::view();
    view.databases[0].proxy_policy = ProxyPolicy::AllNodes;
    let info = shape::database::info(&view, &view.databases[0], true);
    let endpoint = &info.endpoints[0];
    assert_eq!(endpoint.addr, ["127.0.1.2", "127.0.1.1", "127.0.1.3"]);
    assert_eq!(endpoint.proxies.iter().filter(|proxy| proxy.ok).count(), 1);
}

#[test]
fn passwords_only_for_those_who_may_see_them() {
    let view = fixture::view();
    let shown = |with| shape::database::info(&view, &view.databases[0], with);
    assert_eq!(shown(true).authentication_redis_pass, "db secret");
    assert_eq!(shown(false).authentication_redis_pass, "");
    assert!(shown(false).default_user);
}

#[test]
fn memory_that_is_promised_too_often_is_negative() {
    let mut view = fixture::view();
    for shard in &mut view.shards {
        shard.memory_bytes = 3 * GIB;
    }
    let status = &shape::node::statuses(&view)[&NodeUid(2)];
    assert_eq!(status.free_provisional_ram, 0);
    // 3 GiB are free; both shards may still grow, one by a little less than 3 GiB.
    let growth = 6 * GIB - fixture::shard_observation().used_memory;
    assert_eq!(
        status.node_overbooking_depth,
        3 * GIB as i64 - growth as i64
    );

    view.nodes[1].accept_servers = false;
    let status = &shape::node::statuses(&view)[&NodeUid(2)];
    assert_eq!(
        (status.free_provisional_ram, status.total_provisional_ram),
        (0, 0)
    );
}

#[test]
fn two_builds_at_once_are_an_upgrade() {
    let mut view = fixture::view();
    let ports = model::node_config::Ports::default();
    assert!(!shape::cluster::info(&view, &ports).upgrade_mode);
    view.observed[0].observation.build_id = "fedcba9876543210".to_owned();
    assert!(shape::cluster::info(&view, &ports).upgrade_mode);
}

#[test]
fn used_memory_counts_every_shard_of_a_database() {
    let mut view = fixture::view();
    let second = ShardObservation {
        shard: model::ShardUid(9),
        used_memory: 1_000,
        ..fixture::shard_observation()
    };
    view.shards.push(fixture::shard(9, 1, 1));
    view.observed[0].observation.shards.push(second);
    let demo = view
        .databases
        .iter()
        .find(|d| d.uid == DatabaseUid(1))
        .unwrap();
    assert_eq!(
        shape::database::info(&view, demo, true).used_memory,
        2_182_038
    );
}

/// Shards come by slots, whatever their uids, and the endpoint's node is that of the first.
#[test]
fn a_database_with_several_shards() {
    let mut view = fixture::view();
    view.databases[0].shards_count = 2;
    let range = |first, last| SlotRange { first, last };
    view.shards = vec![
        Shard {
            slots: range(8_192, 16_383),
            ..fixture::shard(1, 1, 2)
        },
        Shard {
            slots: range(0, 8_191),
            ..fixture::shard(2, 1, 1)
        },
    ];
    let info = shape::database::info(&view, &view.databases[0], false);
    assert_eq!((info.shards_count, info.sharding), (2, true));
    assert_eq!(info.shard_list, [ShardUid(2), ShardUid(1)]);
    let rules: Vec<_> = info
        .shard_key_regex
        .iter()
        .map(|r| r.regex.as_str())
        .collect();
    assert_eq!(rules, SHARD_KEY_RULES);
    let proxies: Vec<_> = info.endpoints[0]
        .proxies
        .iter()
        .map(|p| p.node_uid)
        .collect();
    assert_eq!(proxies, [NodeUid(1)], "single: the node of the first slots");
    let slots = shape::shard::info(&view, &view.shards[0]).assigned_slots;
    assert_eq!(slots, "8192-16383");
    let config = fixture::config(Path::new("/srv"), "127.0.1.1");
    let nodes: Vec<u32> = view
        .nodes
        .iter()
        .map(|node| shape::node::info(&view, node, &config).shard_count)
        .collect();
    assert_eq!(nodes, [1, 1, 0]);
}

/// An action on a node whose parts wait for what else works on their databases says what that is; once one of them is
/// under way, what that one waits for.
#[test]
fn an_action_that_waits_for_its_turn_says_for_what() {
    let part = |database, status, waits: &str| Operation {
        node: Some(NodeUid(1)),
        group: Some(OperationUid("op".into())),
        waiting_on: Some(waits.into()),
        ..fixture::operation(&format!("op-{database}"), database, status)
    };
    let queued = part(1, OperationStatus::Pending, "its turn");
    let running = part(2, OperationStatus::Active, "a copy");
    let state = |parts: &[&Operation]| {
        let action = shape::action::action(parts, &OperationUid("op".into()));
        action.unwrap().state
    };
    assert_eq!(state(&[&queued]), "db:1: its turn");
    assert_eq!(state(&[&queued, &running]), "db:2: a copy");
}

/// What a primary node says of node 3 that leads for so long, and knows of it since the age given.
fn of_node_3(leads_ms: Option<u64>, age_ms: Option<u64>) -> (String, String) {
    let mut view = fixture::view();
    view.primary_for_ms = leads_ms;
    view.observed.retain(|seen| seen.observation.node.0 != 3);
    view.observed
        .extend(age_ms.map(|age| fixture::observed(3, age)));
    let config = fixture::config(Path::new("/tmp"), "127.0.0.11");
    let info = shape::node::info(&view, &view.nodes[2], &config);
    let status = shape::node::status(&view, &view.nodes[2]);
    (info.status, status.node_status)
}

/// Who has just become the primary node does not know of anybody that he is down, unless the one before knew it.
#[test]
fn a_primary_node_that_is_new_waits_before_it_calls_a_node_down() {
    let is = |(info, status): (String, String), wanted: (&str, &str)| {
        assert_eq!((info.as_str(), status.as_str()), wanted);
    };
    let (ok, unknown, down) = (("active", "OK"), ("unknown", "UNKNOWN"), ("down", "DOWN"));
    for leads in [Some(500), Some(60_000), None] {
        is(of_node_3(leads, Some(3_000)), ok);
    }
    is(of_node_3(Some(500), None), unknown);
    is(of_node_3(Some(4_000), None), unknown);
    is(of_node_3(Some(4_001), None), down);
    // Heard of before, not since.
    is(of_node_3(Some(3_000), Some(6_000)), unknown);
    is(of_node_3(Some(5_000), Some(6_000)), down);
    // It was silent before.
    is(of_node_3(Some(500), Some(60_000)), down);
    // Of a release that does not tell.
    is(of_node_3(None, None), down);
    is(of_node_3(None, Some(60_000)), down);
}

/// As release 1.1.0 tells it.
#[test]
fn a_view_of_the_last_release_is_read() {
    let mut told = serde_json::to_value(fixture::view()).unwrap();
    let fields = told.as_object_mut().unwrap();
    assert!(fields.remove("primary_for_ms").is_some());
    assert!(fields.remove("removed").is_some());
    let read: model::view::ClusterView = serde_json::from_value(told).unwrap();
    assert_eq!(read, fixture::view());
}

#[test]
fn a_node_that_was_removed_says_so() {
    let mut view = fixture::view();
    let info = |view: &_| shape::cluster::info(view, &Ports::default());
    assert!(!info(&view).removed);
    view.removed = true;
    assert!(info(&view).removed);
}
