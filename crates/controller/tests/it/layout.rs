//! What comes back to a node leaves no trace on the others.

use crate::intents::{switch_off, switch_on, with_demo};
use crate::world::World;
use model::documents::{Node, Role, Shard};
use model::intent::{Intent, MigrateWhat, Pace, SnapshotWhat};
use model::{DatabaseUid, NodeUid, ShardUid};
use serde_json::json;
use store::Txn;

/// Database, first slot and role of each shard, with its node.
pub(crate) fn of(world: &World) -> Vec<(u64, u16, bool, NodeUid)> {
    let cluster = world.cluster();
    let shards = cluster.shards.iter();
    let mut all: Vec<_> = shards
        .map(|s| {
            let replica = s.role == Role::Replica;
            (s.database.0, s.slots.first, replica, s.node)
        })
        .collect();
    all.sort_unstable();
    all
}

fn done(world: &mut World, intent: &Intent) -> String {
    world.request(intent).unwrap();
    let story = world.settle();
    let cluster = world.cluster();
    assert!(
        cluster.operations.iter().all(|o| o.ended.is_some()),
        "{story}"
    );
    story
}

fn copy(world: &World, role: Role) -> Shard {
    let cluster = world.cluster();
    let shard = cluster.shards.iter().find(|s| s.role == role).unwrap();
    shard.doc.clone()
}

/// The copy that stood in for the one on the node is the one that comes back; then the role does, in one move.
#[test]
fn the_copy_that_stood_in_is_the_one_that_goes() {
    for role in [Role::Primary, Role::Replica] {
        let mut world = with_demo(3, 1, true);
        let before = of(&world);
        let node = copy(&world, role).node;
        done(&mut world, &switch_on(node));
        let epoch = copy(&world, Role::Primary).epoch;
        let story = done(&mut world, &switch_off(node));
        assert_eq!(of(&world), before, "{story}");
        let moves = u64::from(role == Role::Primary);
        assert_eq!(
            copy(&world, Role::Primary).epoch.0,
            epoch.0 + moves,
            "{story}"
        );
    }
}

/// Shards of one database in all roles, and again and again.
#[test]
fn many_shards_drift_nowhere() {
    let mut world = with_demo(4, 6, true);
    let before = of(&world);
    for node in (1..=4).chain(1..=4).map(NodeUid) {
        done(&mut world, &switch_on(node));
        assert!(of(&world).iter().all(|(_, _, _, there)| *there != node));
        let story = done(&mut world, &switch_off(node));
        assert_eq!(of(&world), before, "{story}");
    }
}

/// No copy goes before the one that takes its place has all data.
#[test]
fn there_are_two_copies_all_the_time() {
    let mut world = with_demo(3, 2, true);
    let node = copy(&world, Role::Primary).node;
    done(&mut world, &switch_on(node));
    world.request(&switch_off(node)).unwrap();
    let slots: Vec<_> = of(&world)
        .into_iter()
        .map(|(_, first, _, _)| first)
        .collect();
    while !world.plan().steps.is_empty() {
        world.settle_one();
        let cluster = world.cluster();
        for first in &slots {
            let good = |s: &&Shard| {
                let whole = s.role == Role::Primary || s.synced.is_some();
                s.slots.first == *first && s.removed_by.is_none() && whole
            };
            let shards = cluster.shards.iter().map(|s| &s.doc);
            assert!(shards.filter(good).count() >= 2);
        }
    }
}

/// Another node was emptied and filled meanwhile: its copies are newer, and stay all the same.
#[test]
fn what_belongs_to_another_node_stays_there() {
    let mut world = with_demo(5, 1, true);
    let before = of(&world);
    let (primary, replica) = (copy(&world, Role::Primary), copy(&world, Role::Replica));
    done(&mut world, &switch_on(primary.node));
    done(&mut world, &switch_on(replica.node));
    done(&mut world, &switch_off(replica.node));
    let story = done(&mut world, &switch_off(primary.node));
    assert_eq!(of(&world), before, "{story}");
}

/// The copy that stood in has become the primary, by a failover while the node was away or while it comes back.
#[test]
fn a_failover_meanwhile_changes_nothing() {
    for role in [Role::Primary, Role::Replica] {
        let mut world = with_demo(3, 1, true);
        let before = of(&world);
        let node = copy(&world, role).node;
        done(&mut world, &switch_on(node));
        let primary = copy(&world, Role::Primary).uid;
        world.crash(primary);
        world.settle();
        assert_ne!(copy(&world, Role::Primary).uid, primary);
        let story = done(&mut world, &switch_off(node));
        assert_eq!(of(&world), before, "{story}");
    }
    let mut world = with_demo(3, 1, true);
    let before = of(&world);
    let node = copy(&world, Role::Primary).node;
    done(&mut world, &switch_on(node));
    world.request(&switch_off(node)).unwrap();
    // As an earlier release had begun it: the role first.
    let primary = copy(&world, Role::Primary).uid;
    world.crash(primary);
    let story = world.settle();
    assert_eq!(of(&world), before, "{story}");
}

/// Where an operator has brought copies meanwhile, those with the role that is wanted come.
#[test]
fn a_snapshot_takes_the_copy_that_has_the_role() {
    let mut world = with_demo(5, 1, true);
    let (primary, replica) = (copy(&world, Role::Primary), copy(&world, Role::Replica));
    let snapshot = |what| Intent::NodeSnapshot {
        node: replica.node,
        name: "before".into(),
        what,
        pace: Pace::default(),
    };
    world.request(&snapshot(SnapshotWhat::Create)).unwrap();
    let mut free = (1..=5)
        .map(NodeUid)
        .filter(|node| ![primary.node, replica.node].contains(node));
    let (one, other) = (free.next().unwrap(), free.next().unwrap());
    for (role, node) in [(Role::Primary, one), (Role::Replica, other)] {
        let what = MigrateWhat::Shards {
            shards: vec![copy(&world, role).uid],
        };
        let migrate = Intent::MigrateShards {
            what,
            node,
            override_policy: false,
        };
        done(&mut world, &migrate);
    }
    done(&mut world, &snapshot(SnapshotWhat::Restore));
    let expected = [(1, 0, false, one), (1, 0, true, replica.node)];
    assert_eq!(of(&world), expected);
}

/// Release 1.1.0 noted nothing of other copies: what was on the node comes back.
#[test]
fn a_snapshot_of_the_last_release_is_given_back() {
    let mut world = with_demo(3, 1, true);
    let node = copy(&world, Role::Primary).node;
    done(&mut world, &switch_on(node));
    let mut doc = json!(world.cluster().node(node).unwrap().doc);
    let shards = doc.pointer_mut("/maintenance/snapshot").unwrap();
    let noted = shards[0].as_object_mut().unwrap().remove("others");
    assert_eq!(noted.unwrap().as_array().unwrap().len(), 1);
    let read: Node = serde_json::from_value(doc.clone()).unwrap();
    assert_eq!(json!(read), doc);
    world.apply(&Txn {
        put: vec![(model::documents::keys::node(node), doc)],
        ..Txn::default()
    });
    done(&mut world, &switch_off(node));
    let primary = copy(&world, Role::Primary);
    assert_eq!((primary.node, primary.database), (node, DatabaseUid(1)));
    assert_ne!(primary.uid, ShardUid(1));
}
