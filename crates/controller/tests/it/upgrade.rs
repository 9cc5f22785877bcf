//! When the feature level rises, and when it does not.

use crate::upgrade_plan::target;
use crate::world::World;
use controller::upgrade::data::{Batch, DataMigration};
use controller::upgrade::level::{self, Known};
use jiff::Timestamp;
use model::documents::{Node, keys};
use model::intent::Intent;
use model::upgrade::run::{BundleFacts, RunState, RunWish, StartRun};
use model::upgrade::{ClosedUpgrade, LevelRange, NodePhase, ReleaseFacts, Upgrade};
use model::{ErrorCode, NodeUid};
use serde_json::json;
use store::Txn;

pub(crate) const OLD: &str = "1.0.0";
pub(crate) const NEW: &str = "1.1.0";

pub(crate) fn facts(version: &str, max: u32) -> ReleaseFacts {
    ReleaseFacts {
        version: version.to_owned(),
        build_id: format!("build of {version}"),
        levels: LevelRange { min: 1, max },
    }
}

/// A node is heard with a release.
pub(crate) fn runs(world: &mut World, node: u64, version: &str, max: u32) {
    let seen = world.nodes.get_mut(&NodeUid(node)).unwrap();
    version.clone_into(&mut seen.software_version);
    seen.build_id = format!("build of {version}");
    seen.feature_max = max;
}

fn say(
    world: &mut World,
    node: u64,
    phase: NodePhase,
    release: &ReleaseFacts,
) -> Result<(), ErrorCode> {
    let intent = Intent::NodeRelease {
        node: NodeUid(node),
        phase,
        release: release.clone(),
    };
    world.request(&intent).map(|_| ()).map_err(|e| e.error_code)
}

/// install.sh on a node, from its beginning to its end.
fn install(world: &mut World, node: u64, release: &ReleaseFacts) {
    say(world, node, NodePhase::Begin, release).unwrap();
    steps(world, &[]);
    runs(world, node, &release.version, release.levels.max);
    steps(world, &[]);
    say(world, node, NodePhase::Done, release).unwrap();
    steps(world, &[]);
}

/// What the primary node does about levels, until it has nothing to do; every node reads the level.
fn steps(world: &mut World, migrations: &[DataMigration]) -> Vec<String> {
    let mut told = Vec::new();
    for _ in 0..100 {
        let level = world.cluster().cluster.feature_level;
        for seen in world.nodes.values_mut() {
            seen.upgrade.level = level;
        }
        let Some(reason) = one_step(world, migrations) else {
            return told;
        };
        told.push(reason);
    }
    panic!("it never ends: {told:?}");
}

fn one_step(world: &mut World, migrations: &[DataMigration]) -> Option<String> {
    let (observed, instant) = world.observed();
    let state = world.cluster();
    let known = Known {
        state: &state,
        observed: &observed,
        instant,
        now: world.now,
    };
    let (txn, reason) = level::step(&known, migrations)?;
    world.apply(&txn);
    Some(reason)
}

fn later(world: &mut World, seconds: i64) {
    world.now = Timestamp::from_second(world.now.as_second() + seconds).unwrap();
}

fn current_level(world: &World) -> u32 {
    world.cluster().cluster.feature_level
}

#[test]
fn the_level_rises_after_the_soak_and_not_before() {
    let mut world = World::with_nodes(3);
    assert_eq!(steps(&mut world, &[]), Vec::<String>::new());
    let new = facts(NEW, 2);
    install(&mut world, 1, &new);
    install(&mut world, 2, &new);
    later(&mut world, 10_000);
    assert!(steps(&mut world, &[]).is_empty(), "node 3 runs the old one");
    say(&mut world, 3, NodePhase::Begin, &new).unwrap();
    runs(&mut world, 3, NEW, 2);
    assert!(
        steps(&mut world, &[]).is_empty(),
        "install.sh may still go back"
    );
    say(&mut world, 3, NodePhase::Done, &new).unwrap();
    assert_eq!(steps(&mut world, &[]).len(), 1, "the soak begins");
    later(&mut world, 599);
    assert!(steps(&mut world, &[]).is_empty());
    later(&mut world, 1);
    world.silent.push(NodeUid(2));
    assert_eq!(steps(&mut world, &[]).len(), 1, "a silent node vetoes");
    assert_eq!(current_level(&world), 1);
    world.silent.clear();
    steps(&mut world, &[]);
    later(&mut world, 600);
    let told = steps(&mut world, &[]);
    assert_eq!(current_level(&world), 2);
    assert_eq!(told.last().unwrap(), "upgraded to 1.1.0");
    let upgrade = world.cluster().upgrade.doc.clone();
    assert_eq!(upgrade.current, None);
    let last = upgrade.last.unwrap();
    assert_eq!((last.level_from, last.level_to), (1, 2));
    assert!(steps(&mut world, &[]).is_empty(), "converged");
}

#[test]
fn an_operator_may_hold_and_hurry() {
    let mut world = World::with_nodes(1);
    let refused = world.request(&Intent::FinalizeUpgrade).unwrap_err();
    assert_eq!(refused.error_code, ErrorCode::NothingToFinalize);
    let settings = Intent::UpdateUpgrade {
        hold_finalize: Some(true),
        soak_seconds: Some(5),
    };
    world.request(&settings).unwrap();
    let new = facts(NEW, 2);
    say(&mut world, 1, NodePhase::Begin, &new).unwrap();
    let refused = world.request(&Intent::FinalizeUpgrade).unwrap_err();
    assert_eq!(refused.error_code, ErrorCode::UpgradeNotComplete);
    runs(&mut world, 1, NEW, 2);
    say(&mut world, 1, NodePhase::Done, &new).unwrap();
    steps(&mut world, &[]);
    later(&mut world, 10_000);
    assert!(steps(&mut world, &[]).is_empty(), "it is held");
    world.request(&Intent::FinalizeUpgrade).unwrap();
    steps(&mut world, &[]);
    assert_eq!(current_level(&world), 2);
}

/// A primary node that takes over has heard nobody for a moment.
#[test]
fn what_an_operator_asked_for_waits_for_a_silent_node_and_not_for_one_that_goes_back() {
    for goes_back in [false, true] {
        let mut world = World::with_nodes(3);
        let settings = Intent::UpdateUpgrade {
            hold_finalize: Some(true),
            soak_seconds: Some(0),
        };
        world.request(&settings).unwrap();
        let new = facts(NEW, 2);
        for uid in 1..=3 {
            install(&mut world, uid, &new);
        }
        world.request(&Intent::FinalizeUpgrade).unwrap();
        world.silent.push(NodeUid(2));
        steps(&mut world, &[]);
        if goes_back {
            runs(&mut world, 3, OLD, 1);
            steps(&mut world, &[]);
            runs(&mut world, 3, NEW, 2);
        }
        assert_eq!(current_level(&world), 1);
        world.silent.clear();
        steps(&mut world, &[]);
        assert_eq!(current_level(&world), if goes_back { 1 } else { 2 });
    }
}

#[test]
fn the_way_back_is_open_until_the_level_begins_to_rise() {
    let mut world = World::with_nodes(2);
    let (old, new) = (facts(OLD, 1), facts(NEW, 2));
    install(&mut world, 1, &new);
    install(&mut world, 1, &old);
    let back = world.cluster().upgrade.doc.clone();
    assert_eq!((back.current, back.last), (None, None), "taken back");

    install(&mut world, 1, &new);
    install(&mut world, 2, &new);
    // Between the look and the transaction an installer begins to go back: it comes first.
    later(&mut world, 600);
    let (observed, instant) = world.observed();
    let state = world.cluster();
    let known = Known {
        state: &state,
        observed: &observed,
        instant,
        now: world.now,
    };
    let (txn, _) = level::step(&known, &[]).unwrap();
    say(&mut world, 2, NodePhase::Begin, &old).unwrap();
    let late = world.state.clone().apply(&txn).unwrap();
    assert!(
        matches!(late, store::TxnResult::Conflict { .. }),
        "{late:?}"
    );
    say(&mut world, 2, NodePhase::Back, &old).unwrap();
    steps(&mut world, &[]);
    later(&mut world, 600);
    steps(&mut world, &[]);
    assert_eq!(current_level(&world), 2);
    assert_eq!(
        say(&mut world, 1, NodePhase::Begin, &old),
        Err(ErrorCode::UpgradeLevelUnsupported)
    );
}

#[test]
fn one_installer_and_one_upgrade_at_a_time() {
    let mut world = World::with_nodes(3);
    let new = facts(NEW, 2);
    say(&mut world, 1, NodePhase::Begin, &new).unwrap();
    say(&mut world, 1, NodePhase::Begin, &new).unwrap();
    assert_eq!(
        say(&mut world, 2, NodePhase::Begin, &new),
        Err(ErrorCode::UpgradeInstallerRunning)
    );
    runs(&mut world, 1, NEW, 2);
    say(&mut world, 1, NodePhase::Done, &new).unwrap();
    assert_eq!(
        say(&mut world, 2, NodePhase::Begin, &facts("1.2.0", 3)),
        Err(ErrorCode::UpgradeNotFinalized)
    );
    say(&mut world, 2, NodePhase::Begin, &new).unwrap();
}

/// Marks every node's document, one a transaction; exists in this test alone.
const MARK: DataMigration = DataMigration {
    name: "test only: marks nodes",
    level: 2,
    next: |state, cursor| {
        let after = cursor.map_or(0, |text| text.parse().unwrap());
        let node = state.nodes.iter().find(|node| node.uid.0 > after);
        let Some(node) = node else {
            return Batch::default();
        };
        let mut doc = node.doc.clone();
        doc.extra.insert("marked".to_owned(), json!(true));
        Batch {
            documents: vec![(keys::node(doc.uid), node.revision, json!(doc))],
            cursor: Some(node.uid.to_string()),
        }
    },
    holds: |state| {
        let marked = |node: &Node| node.extra.get("marked") == Some(&json!(true));
        state.nodes.iter().all(|node| marked(node))
    },
};

#[test]
fn test_only_migration_goes_on_from_every_checkpoint_and_is_read_back() {
    // The controller is another one after each number of steps: all that it knows is in the store.
    for spoiled_after in 0..6 {
        let mut world = World::with_nodes(3);
        let soak = Intent::UpdateUpgrade {
            hold_finalize: None,
            soak_seconds: Some(0),
        };
        world.request(&soak).unwrap();
        let new = facts(NEW, 2);
        for node in 1..=3 {
            say(&mut world, node, NodePhase::Begin, &new).unwrap();
            runs(&mut world, node, NEW, 2);
            say(&mut world, node, NodePhase::Done, &new).unwrap();
        }
        for _ in 0..spoiled_after {
            one_step(&mut world, &[MARK]);
        }
        // Somebody writes a document in its old form meanwhile.
        let mut doc = world.cluster().nodes[0].doc.clone();
        doc.extra.remove("marked");
        let put = vec![(keys::node(doc.uid), json!(doc))];
        world.apply(&store::Txn {
            put,
            ..store::Txn::default()
        });
        assert_eq!(current_level(&world), 1, "after {spoiled_after} steps");
        let told = steps(&mut world, &[MARK]);
        assert_eq!(current_level(&world), 2, "{told:?}");
        let state = world.cluster();
        assert!((MARK.holds)(&state), "{told:?}");
    }
}

/// Nodes that an upgrade of all nodes has brought to the new release, while it has not ended.
fn all_new_in_an_open_run() -> World {
    let mut world = World::with_nodes(3);
    for node in 1..=3 {
        runs(&mut world, node, OLD, 1);
    }
    let start = StartRun {
        from: OLD.to_owned(),
        target: target(None),
        bundle: BundleFacts {
            digest: "d".repeat(64),
            size: 1 << 20,
            source: NodeUid(1),
        },
        wish: RunWish::default(),
    };
    world
        .request(&Intent::StartUpgradeRun(Box::new(start)))
        .unwrap();
    for node in 1..=3 {
        install(&mut world, node, &facts(NEW, 2));
    }
    world
}

fn change(world: &mut World, change: impl FnOnce(&mut Upgrade)) {
    let mut doc = world.cluster().upgrade.doc.clone();
    change(&mut doc);
    world.apply(&Txn::new().put(keys::UPGRADE, &doc).unwrap());
}

/// Whoever looks at a run that has not ended may still take it back: the level would make that impossible.
#[test]
fn the_level_waits_for_the_end_of_an_upgrade_of_all_nodes() {
    let mut world = all_new_in_an_open_run();
    world.request(&Intent::PauseUpgradeRun).unwrap();
    later(&mut world, 10_000);
    assert_eq!(steps(&mut world, &[]), Vec::<String>::new());
    let refused = world.request(&Intent::FinalizeUpgrade).unwrap_err();
    assert_eq!(refused.error_code, ErrorCode::UpgradeNotComplete);
    let waits = "the upgrade of all nodes has not ended";
    assert!(refused.description.contains(waits), "{refused:?}");

    // Once an operator has said that it goes back, too.
    world.request(&Intent::RollBackUpgradeRun).unwrap();
    later(&mut world, 10_000);
    assert_eq!(steps(&mut world, &[]), Vec::<String>::new());

    change(&mut world, |doc| {
        doc.run.as_mut().unwrap().state = RunState::Done;
    });
    assert_eq!(steps(&mut world, &[]).len(), 1, "the soak begins");
    later(&mut world, 600);
    steps(&mut world, &[]);
    assert_eq!(current_level(&world), 2);
}

/// Where the level has risen all the same (release 1.1.0 did not wait), no node could go back, and the run would never end.
#[test]
fn what_is_finalised_is_not_taken_back() {
    let mut world = all_new_in_an_open_run();
    let now = world.now;
    change(&mut world, |doc| {
        doc.current = None;
        doc.last = Some(ClosedUpgrade {
            from: OLD.to_owned(),
            to: NEW.to_owned(),
            level_from: 1,
            level_to: 2,
            began: now,
            ended: now,
        });
    });
    let refused = world.request(&Intent::RollBackUpgradeRun).unwrap_err();
    assert_eq!(refused.error_code, ErrorCode::UpgradeNoRun);
}
