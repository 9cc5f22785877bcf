//! A node is dead, and everything else can be moved all the same: what is moved waits for what it needs, not for others.

use crate::coming_back::{dies, is_back, stored};
use crate::intents::{create, switch_on};
use crate::world::World;
use model::NodeUid;
use model::documents::{OperationStatus, Role, Shard};
use model::intent::{Intent, MigrateWhat};
use std::collections::BTreeSet;

fn shards(world: &World) -> Vec<Shard> {
    let cluster = world.cluster();
    cluster.shards.iter().map(|s| s.doc.clone()).collect()
}

/// Five nodes, some of which have been dead for long.
fn without(dead: &[NodeUid]) -> World {
    let mut world = World::with_nodes(5);
    create(&mut world, "demo", true, 5);
    for node in dead {
        dies(&mut world, *node);
    }
    world.settle();
    world
}

/// Whoever has a primary of which the replica is on the dead node is copied; the others hand their role over.
#[test]
fn a_node_is_emptied() {
    for dead in (1..=5).map(NodeUid) {
        for node in (1..=5).map(NodeUid).filter(|node| *node != dead) {
            let mut world = without(&[dead]);
            let before = shards(&world);
            let outcome = world.request(&switch_on(node)).unwrap();
            let story = world.settle();
            world.note_waits();
            let operation = stored(&world, &outcome);
            assert_eq!(
                operation.status,
                OperationStatus::Completed,
                "{dead} {node} {:?}: {story}",
                operation.waiting_on
            );
            assert!(shards(&world).iter().all(|s| s.node != node), "{story}");
            is_back(&mut world);
            let story = world.settle();
            let after = shards(&world);
            assert_eq!(after.len(), before.len(), "{story}");
            let places: BTreeSet<_> = after
                .iter()
                .map(|s| (s.database, s.slots.first, s.node))
                .collect();
            assert_eq!(places.len(), after.len(), "no two copies on one node");
            let mut primaries = after.iter().filter(|s| s.role == Role::Primary);
            assert!(primaries.all(Shard::is_serving), "{story}");
        }
    }
}

/// What is left of a database is moved and fails over, though both copies of a part of it are on dead nodes. Of a shard
/// whose replica is on one it is said at once that nobody can take its role.
#[test]
fn a_shard_is_moved_and_fails_over() {
    let mut first = shards(&without(&[]));
    first.retain(|shard| shard.slots.first == 0);
    let dead = [first[0].node, first[1].node];
    let all = shards(&without(&dead));
    let nodes_of = |shard: &Shard| -> BTreeSet<NodeUid> {
        let set = all.iter().filter(|s| s.slots == shard.slots);
        set.map(|s| s.node).collect()
    };
    assert!(all.iter().any(|s| nodes_of(s) == BTreeSet::from(dead)));
    for shard in all.iter().filter(|s| !dead.contains(&s.node)) {
        let nodes = nodes_of(shard);
        let mut free = (1..=5).map(NodeUid);
        let free = free.find(|node| !dead.contains(node) && !nodes.contains(node));
        let intent = Intent::MigrateShards {
            what: MigrateWhat::Shards {
                shards: vec![shard.uid],
            },
            node: free.unwrap(),
            override_policy: true,
        };
        let mut world = without(&dead);
        let outcome = world.request(&intent).unwrap();
        let story = world.settle();
        let operation = stored(&world, &outcome);
        assert_eq!(operation.status, OperationStatus::Completed, "{story}");
        if shard.role == Role::Replica {
            continue;
        }
        let intent = Intent::FailoverShards {
            database: Some(shard.database),
            shards: vec![shard.uid],
            immediate: false,
        };
        let mut world = without(&dead);
        let alone = dead.iter().any(|node| nodes.contains(node));
        let Ok(outcome) = world.request(&intent) else {
            assert!(alone);
            continue;
        };
        let story = world.settle();
        let operation = stored(&world, &outcome);
        let ends = match alone {
            true => OperationStatus::Failed,
            false => OperationStatus::Completed,
        };
        assert_eq!(operation.status, ends, "{story}");
    }
}
