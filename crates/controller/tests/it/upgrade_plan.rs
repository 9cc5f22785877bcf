//! How an upgrade would go, and what stands against it.

use crate::upgrade::{NEW, OLD, facts, runs};
use crate::world::World;
use controller::upgrade::plan;
use jiff::Timestamp;
use model::documents::OperationStatus;
use model::intent::{DatabaseSpec, Intent};
use model::upgrade::{Gravity, UpgradeObservation, UpgradePlan, UpgradeTarget};
use model::view::{ClusterView, Observed};
use model::{ErrorCode, NodeUid};
use serde_json::json;
use std::fmt::Write as _;

pub(crate) fn view(world: &World) -> ClusterView {
    let state = world.cluster();
    let observed = world.nodes.values().map(|seen| Observed {
        observation: seen.clone(),
        age_ms: if world.silent.contains(&seen.node) {
            30_000
        } else {
            100
        },
        clock_ahead_ms: 0,
    });
    ClusterView {
        revision: state.revision,
        local_node: NodeUid(1),
        primary_node: Some(NodeUid(1)),
        has_quorum: true,
        voters: world.voters.iter().copied().collect(),
        cluster: state.cluster.doc.clone(),
        nodes: state.nodes.iter().map(|n| n.doc.clone()).collect(),
        databases: state.databases.iter().map(|d| d.doc.clone()).collect(),
        shards: state.shards.iter().map(|s| s.doc.clone()).collect(),
        users: Vec::new(),
        operations: state.operations.iter().map(|o| o.doc.clone()).collect(),
        upgrade: state.upgrade.doc.clone(),
        observed: observed.collect(),
        primary_for_ms: None,
        removed: false,
    }
}

pub(crate) fn target(node: Option<u64>) -> UpgradeTarget {
    UpgradeTarget {
        version: NEW.to_owned(),
        build_id: "new".to_owned(),
        feature_min: 1,
        feature_max: 2,
        engines: ["redis-7.0.15", "valkey-9.1.2"]
            .map(|engine| engine.parse().unwrap())
            .to_vec(),
        supported_paths: serde_json::from_value(
            json!({"path": [{"from": ">=1.0.0, <2.0.0", "to": ">=1.0.0, <2.0.0"}]}),
        )
        .unwrap(),
        supervisor_version: "4".to_owned(),
        unpacked_bytes: 100 << 20,
        node: node.map(NodeUid),
    }
}

pub(crate) fn healthy() -> World {
    let mut world = World::with_nodes(3);
    let spec = DatabaseSpec {
        name: "demo".into(),
        memory_size: 256 << 20,
        replication: Some(true),
        ..DatabaseSpec::default()
    };
    world.request(&Intent::CreateDatabase(spec)).unwrap();
    world.settle();
    for seen in world.nodes.values_mut() {
        let proxy = seen.proxy.get_or_insert_default();
        OLD.clone_into(&mut proxy.software_version);
    }
    world
}

fn planned(view: &ClusterView, node: Option<u64>) -> UpgradePlan {
    plan::plan(view, &target(node), Timestamp::UNIX_EPOCH)
}

fn codes(plan: &UpgradePlan) -> Vec<(Gravity, ErrorCode)> {
    plan.findings
        .iter()
        .map(|finding| (finding.severity, finding.code))
        .collect()
}

#[test]
fn a_plan_says_what_happens_in_order() {
    let mut world = healthy();
    runs(&mut world, 2, NEW, 2);
    let plan = planned(&view(&world), None);
    let mut text = format!("level {} to {}\n", plan.level_from, plan.level_to);
    for node in &plan.nodes {
        let from = node.components[1].from.as_deref().unwrap_or("?");
        writeln!(text, "node:{} {} cnm_exec {from}", node.uid, node.state).unwrap();
    }
    for step in &plan.steps {
        let node = step.node.map_or("-".to_owned(), |uid| uid.to_string());
        writeln!(
            text,
            "{} {node}: {} | {}",
            step.number, step.what, step.clients
        )
        .unwrap();
    }
    insta::assert_snapshot!(text, @r"
    level 1 to 2
    node:2 done cnm_exec 1.1.0
    node:1 to do cnm_exec 1.0.0
    node:3 to do cnm_exec 1.0.0
    1 1: unpack 1.1.0 beside the release in use, check each file | nothing
    2 1: current points at 1.1.0 | nothing
    3 1: replace cnm_http: REST pauses for a moment | nothing
    4 1: the part of the primary node goes to another one, then cnm_exec is replaced; engines are adopted | nothing
    5 1: replace dmcproxy | connections are handed over to the new proxy
    6 1: see that the node is well, else go back by itself; then watch it for a moment | nothing
    7 3: unpack 1.1.0 beside the release in use, check each file | nothing
    8 3: current points at 1.1.0 | nothing
    9 3: replace cnm_http: REST pauses for a moment | nothing
    10 3: replace cnm_exec; engines are adopted, not restarted | nothing
    11 3: replace dmcproxy | connections are handed over to the new proxy
    12 3: see that the node is well, else go back by itself; then watch it for a moment | nothing
    13 -: a node with the new release is the primary node | nothing
    14 -: soak for 600 s, or until `rladmin cluster upgrade finalize` | nothing
    15 -: point of no return: the feature level rises from 1 to 2 | nothing
    ");
    assert_eq!(codes(&plan), []);
}

type Spoil = fn(&mut ClusterView);

fn node(view: &mut ClusterView, uid: u64) -> &mut model::observation::NodeObservation {
    let seen = view
        .observed
        .iter_mut()
        .find(|seen| seen.observation.node.0 == uid);
    &mut seen.unwrap().observation
}

/// Each bad condition, by its code.
const BAD: &[(ErrorCode, Gravity, Spoil)] = &[
    (ErrorCode::UpgradeNodeDown, Gravity::Blocker, |view| {
        view.observed[2].age_ms = 30_000;
    }),
    (
        ErrorCode::UpgradeNodeInMaintenance,
        Gravity::Blocker,
        |view| {
            view.nodes[2].leaving = true;
        },
    ),
    (ErrorCode::UpgradeQuorumAtRisk, Gravity::Blocker, |view| {
        view.observed[2].age_ms = 30_000;
    }),
    (ErrorCode::UpgradeQuorumAtRisk, Gravity::Warning, |view| {
        view.voters.truncate(1);
    }),
    (ErrorCode::NoQuorum, Gravity::Blocker, |view| {
        view.has_quorum = false
    }),
    (
        ErrorCode::UpgradeOperationRunning,
        Gravity::Blocker,
        |view| {
            view.operations[0].status = OperationStatus::Paused;
        },
    ),
    (ErrorCode::UpgradeReplicaMissing, Gravity::Blocker, |view| {
        view.shards
            .retain(|shard| shard.role == model::documents::Role::Primary);
    }),
    (ErrorCode::UpgradeReplicaSyncing, Gravity::Blocker, |view| {
        for shard in &mut view.shards {
            shard.synced = None;
        }
    }),
    (ErrorCode::UpgradeShardDown, Gravity::Blocker, |view| {
        for seen in &mut view.observed {
            seen.observation.shards.clear();
        }
    }),
    (
        ErrorCode::UpgradeProxyNotServing,
        Gravity::Blocker,
        |view| {
            node(view, 2).proxy = None;
        },
    ),
    (ErrorCode::UpgradeNotFinalized, Gravity::Blocker, |view| {
        view.upgrade.current = serde_json::from_value(
            json!({"from": "0.9.0", "to": OLD, "began": "2030-01-01T00:00:00Z"}),
        )
        .unwrap();
    }),
    (ErrorCode::UpgradeDiskShort, Gravity::Blocker, |view| {
        node(view, 3).upgrade = UpgradeObservation {
            install_free: 1 << 20,
            ..UpgradeObservation::default()
        };
    }),
    (ErrorCode::UpgradeMemoryShort, Gravity::Blocker, |view| {
        node(view, 3).host.free_memory = 1 << 20;
    }),
    (ErrorCode::UpgradeMemoryShort, Gravity::Warning, |view| {
        node(view, 3).host.free_memory = 400 << 20;
    }),
    (
        ErrorCode::UpgradeCertificateExpires,
        Gravity::Blocker,
        |view| {
            node(view, 3).upgrade.certificates_until = Some(Timestamp::from_second(3_600).unwrap());
        },
    ),
    (ErrorCode::UpgradeClockApart, Gravity::Blocker, |view| {
        view.observed[1].clock_ahead_ms = -60_000;
    }),
    (ErrorCode::UpgradePrimaryFirst, Gravity::Blocker, |view| {
        view.primary_node = Some(NodeUid(3));
    }),
    (ErrorCode::UpgradeEngineDropped, Gravity::Blocker, |view| {
        for shard in &mut view.shards {
            shard.engine = "redis-6.2.0".parse().unwrap();
        }
    }),
    (
        ErrorCode::UpgradeInstallerRunning,
        Gravity::Blocker,
        |view| {
            view.upgrade.nodes = serde_json::from_value(json!([{"node": 2, "under_way": {
                "to": facts(NEW, 2), "began": "2030-01-01T00:00:00Z"}}]))
            .unwrap();
        },
    ),
    (
        ErrorCode::UpgradePathUnsupported,
        Gravity::Blocker,
        |view| {
            node(view, 1).software_version = "0.9.0".to_owned();
        },
    ),
    (ErrorCode::UpgradeDowngrade, Gravity::Blocker, |view| {
        node(view, 1).software_version = "1.2.0".to_owned();
    }),
    (
        ErrorCode::UpgradeLevelUnsupported,
        Gravity::Blocker,
        |view| {
            view.cluster.feature_level = 3;
        },
    ),
];

#[test]
fn every_bad_condition_is_refused_by_name() {
    let world = healthy();
    let good = view(&world);
    assert_eq!(codes(&planned(&good, Some(1))), [], "a healthy cluster");
    for (code, gravity, spoil) in BAD {
        let mut view = good.clone();
        spoil(&mut view);
        let plan = planned(&view, Some(1));
        assert!(
            codes(&plan).contains(&(*gravity, *code)),
            "{code}: {:?}",
            plan.findings
        );
        for finding in &plan.findings {
            assert!(!finding.evidence.is_empty() && !finding.remedy.is_empty());
        }
    }
}
