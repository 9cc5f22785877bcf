//! Nodes that leave while others of their databases' operations wait for them, and for nodes that are gone.

use crate::intents::{remove, switch_off, switch_on, with_demo};
use crate::world::World;
use controller::membership::plan::heirs;
use controller::placement::plan::Planner;
use model::documents::{Operation, OperationStatus, Role, Shard};
use model::intent::{DatabaseChange, Intent, MaintenanceWish, MigrateWhat, Pace};
use model::{DatabaseUid, ErrorCode, NodeUid, OperationUid, ShardUid};
use std::collections::BTreeSet;

fn shards(world: &World) -> Vec<Shard> {
    let cluster = world.cluster();
    cluster.shards.iter().map(|s| s.doc.clone()).collect()
}

fn of_role(world: &World, role: Role) -> Shard {
    let found = shards(world).into_iter().find(|s| s.role == role);
    found.unwrap()
}

/// Nodes of the copies that count, lowest first.
fn places(world: &World) -> Vec<u64> {
    let all = shards(world);
    let copies = all.iter().filter(|s| s.removed_by.is_none());
    let mut nodes: Vec<u64> = copies.map(|s| s.node.0).collect();
    nodes.sort_unstable();
    nodes
}

/// A node dies with a replica: the primary's engine has lost it, and its record with it.
fn dies(world: &mut World, node: NodeUid) {
    world.silent.push(node);
    for shard in shards(world) {
        let Some(seen) = world.nodes.get_mut(&shard.node) else {
            continue;
        };
        for seen in &mut seen.shards {
            if let Some(replication) = seen.replication.as_mut().filter(|r| r.is_primary) {
                let address = format!("127.0.0.{}", 10 + node.0);
                replication
                    .replicas
                    .retain(|r| r.address.ip().to_string() != address);
            }
        }
    }
}

fn stored(world: &World, uid: &OperationUid) -> Operation {
    world.cluster().operation(uid).unwrap().doc.clone()
}

fn migrate(shard: ShardUid, node: NodeUid) -> Intent {
    Intent::MigrateShards {
        what: MigrateWhat::Shards {
            shards: vec![shard],
        },
        node,
        override_policy: false,
    }
}

fn resize(bytes: u64) -> Intent {
    Intent::UpdateDatabase {
        database: DatabaseUid(1),
        change: Box::new(DatabaseChange {
            memory_size: Some(bytes),
            ..DatabaseChange::default()
        }),
    }
}

/// A database whose replica has gone to another node from one that is in maintenance mode, and that one.
fn emptied() -> (World, NodeUid) {
    let mut world = with_demo(3, 1, true);
    let replica = of_role(&world, Role::Replica);
    world.request(&switch_on(replica.node)).unwrap();
    world.settle();
    (world, replica.node)
}

/// What comes back to a node is made from its primary: that its replica's node died meanwhile is no reason to have one
/// copy only.
#[test]
fn what_comes_back_does_not_wait_for_the_dead() {
    let (mut world, back) = emptied();
    let (primary, replica) = (
        of_role(&world, Role::Primary),
        of_role(&world, Role::Replica),
    );
    dies(&mut world, replica.node);
    let outcome = world.request(&switch_off(back)).unwrap();
    let story = world.settle();
    let mut nodes = [primary.node.0, back.0];
    nodes.sort_unstable();
    assert_eq!(places(&world), nodes, "{story}");
    let operation = stored(&world, &outcome.operations[0]);
    assert_eq!(operation.status, OperationStatus::Completed, "{story}");
    assert!(world.cluster().databases[0].operation.is_none());
    // The replica that was there is removed when its node is back.
    assert_eq!(world.cluster().shards_on(replica.node), 1);
    world.silent.clear();
    world.settle();
    assert_eq!(world.cluster().shards_on(replica.node), 0);
    assert_eq!(places(&world), nodes);
}

/// A dead node is removed while an operation is under way that has its copy come to the only other place.
#[test]
fn a_copy_that_is_on_its_way_is_no_reason_against_a_removal() {
    let (mut world, back) = emptied();
    let replica = of_role(&world, Role::Replica);
    dies(&mut world, replica.node);
    world.request(&switch_off(back)).unwrap();
    world.request(&remove(replica.node)).unwrap();
    let story = world.settle();
    assert!(world.cluster().node(replica.node).is_none(), "{story}");
    assert_eq!(places(&world).len(), 2, "{story}");
    let cluster = world.cluster();
    assert!(cluster.operations.iter().all(|o| o.ended.is_some()));
    assert!(cluster.shards.iter().all(|s| s.removed_by.is_none()));
}

/// A primary is on its way to the only other node: then its own is free for the copy that the dead node had.
#[test]
fn what_is_under_way_makes_room_for_what_a_dead_node_had() {
    let mut world = with_demo(3, 1, true);
    let (primary, replica) = (
        of_role(&world, Role::Primary),
        of_role(&world, Role::Replica),
    );
    let third = NodeUid(6 - primary.node.0 - replica.node.0);
    world.request(&migrate(primary.uid, third)).unwrap();
    dies(&mut world, replica.node);
    world.request(&remove(replica.node)).unwrap();
    let story = world.settle();
    assert!(world.cluster().node(replica.node).is_none(), "{story}");
    let mut nodes = [primary.node.0, third.0];
    nodes.sort_unstable();
    assert_eq!(places(&world), nodes, "{story}");
}

/// Who is refused hears of a copy that is on its way that it is.
#[test]
fn a_copy_that_is_on_its_way_is_named_so() {
    let mut world = with_demo(3, 1, true);
    let (primary, replica) = (
        of_role(&world, Role::Primary),
        of_role(&world, Role::Replica),
    );
    let third = NodeUid(6 - primary.node.0 - replica.node.0);
    world.request(&migrate(primary.uid, third)).unwrap();
    let cluster = world.cluster();
    let (observed, now) = world.observed();
    let mut places = Planner::new(&cluster, &observed, now);
    let refused = places.place(&replica, &[primary.node, third], replica.node);
    insta::assert_snapshot!(refused.unwrap_err().description, @"no node can take redis:2 (128MB): node:1 has a copy already; node:2 is the one that it leaves; node:3 is to get a copy by SMMigrateShards of db:1 (op-2)");
}

/// The node dies to which a replica of a node that is being emptied goes: the replica stays until it has another copy.
#[test]
fn another_node_is_chosen_when_the_chosen_one_leaves() {
    let mut world = with_demo(5, 1, true);
    let replica = of_role(&world, Role::Replica);
    let outcome = world.request(&remove(replica.node)).unwrap();
    world.settle_one();
    let copy = shards(&world).pop().unwrap();
    assert!(copy.uid != replica.uid && copy.role == Role::Replica);
    world.silent.push(copy.node);
    let story = world.settle();
    let waits = format!("waits: node:{} is not heard", copy.node);
    assert!(story.contains(&waits), "{story}");
    world.request(&remove(copy.node)).unwrap();
    let story = world.settle();
    let chosen = format!("node:{} leaves: redis:{} goes to", copy.node, replica.uid);
    let replaced = format!("redis:{} has a copy in its place", replica.uid);
    let order = [story.find(&chosen), story.find(&replaced)];
    assert!(order[0].is_some() && order[0] < order[1], "{story}");
    for node in [replica.node, copy.node] {
        assert!(world.cluster().node(node).is_none(), "{story}");
    }
    assert_eq!(places(&world).len(), 2);
    let operation = stored(&world, &outcome.operations[0]);
    assert_eq!(operation.status, OperationStatus::Completed);
}

/// The same with a primary that was to hand its role to a replica there.
#[test]
fn a_primary_is_brought_away_though_its_replica_is_lost() {
    let mut world = with_demo(5, 1, true);
    let (primary, replica) = (
        of_role(&world, Role::Primary),
        of_role(&world, Role::Replica),
    );
    world.request(&remove(primary.node)).unwrap();
    dies(&mut world, replica.node);
    world.settle();
    world.request(&remove(replica.node)).unwrap();
    let story = world.settle();
    for node in [primary.node, replica.node] {
        assert!(world.cluster().node(node).is_none(), "{story}");
    }
    assert_eq!(places(&world).len(), 2, "{story}");
    let ends = |o: &OperationStatus| *o == OperationStatus::Completed;
    assert!(world.cluster().operations.iter().all(|o| ends(&o.status)));
}

/// What paused since it waited for the dead node for too long goes on when that leaves.
#[test]
fn what_pauses_for_a_dead_node_does_not_keep_it() {
    let mut world = with_demo(5, 1, true);
    let (primary, replica) = (
        of_role(&world, Role::Primary),
        of_role(&world, Role::Replica),
    );
    // Its shard stays where it is: nobody but the replica can take the role.
    let wish = MaintenanceWish {
        keep_slave_shards: true,
        ..MaintenanceWish::default()
    };
    let intent = Intent::MaintenanceOn {
        node: primary.node,
        wish,
        pace: Pace::default(),
    };
    let outcome = world.request(&intent).unwrap();
    dies(&mut world, replica.node);
    world.now = world
        .now
        .checked_add(jiff::SignedDuration::from_hours(1))
        .unwrap();
    world.settle();
    let operation = &outcome.operations[0];
    assert_eq!(stored(&world, operation).status, OperationStatus::Paused);
    world.request(&remove(replica.node)).unwrap();
    let story = world.settle();
    assert!(world.cluster().node(replica.node).is_none(), "{story}");
    assert_eq!(stored(&world, operation).status, OperationStatus::Completed);
}

/// Where an operator named the node, the operation ends, and says why.
#[test]
fn what_was_to_come_to_a_node_that_leaves_stays() {
    for copied in [false, true] {
        let mut world = with_demo(4, 1, true);
        let (primary, replica) = (
            of_role(&world, Role::Primary),
            of_role(&world, Role::Replica),
        );
        let mut others = (1..=4).map(NodeUid);
        let to = others.find(|n| ![primary.node, replica.node].contains(n));
        let to = to.unwrap();
        let outcome = world.request(&migrate(replica.uid, to)).unwrap();
        if copied {
            world.settle_one();
        }
        dies(&mut world, to);
        world.request(&remove(to)).unwrap();
        let story = world.settle();
        assert!(world.cluster().node(to).is_none(), "{story}");
        let operation = stored(&world, &outcome.operations[0]);
        assert_eq!(operation.status, OperationStatus::Failed, "{story}");
        assert_eq!(operation.error_code, Some(ErrorCode::NodeNotFound));
        assert_eq!(shards(&world).len(), 2);
        assert!(world.cluster().databases[0].operation.is_none());
    }
}

/// Of three nodes one is removed when another falls silent: it stays until that is back, says so, and can be kept.
#[test]
fn a_removal_looks_again_whether_a_majority_stays() {
    for given_up in [false, true] {
        let mut world = with_demo(3, 1, false);
        let node = of_role(&world, Role::Primary).node;
        let outcome = world.request(&remove(node)).unwrap();
        until_empty(&mut world, node);
        let other = of_role(&world, Role::Primary).node;
        world.silent.push(NodeUid(6 - node.0 - other.0));
        let story = world.settle();
        assert!(world.cluster().node(node).is_some(), "{story}");
        let waits = "waits: without node:1 1 of 3 nodes would be left that are heard and not in maintenance mode \
                     (node:3 is not heard): no majority. Bring another node back first";
        assert!(story.contains(waits), "{story}");
        if given_up {
            let operation = outcome.operations[0].clone();
            let abort = Intent::AbortOperation { operation };
            world.request(&abort).unwrap();
            assert!(!world.cluster().node(node).unwrap().leaving);
            continue;
        }
        world.silent.clear();
        let story = world.settle();
        assert!(world.cluster().node(node).is_none(), "{story}");
        let cluster = world.cluster();
        assert!(cluster.operations.iter().all(|o| o.ended.is_some()));
    }
}

/// Carries out what empties a node, no more.
fn until_empty(world: &mut World, node: NodeUid) {
    for _ in 0..100 {
        if world.cluster().shards_on(node) == 0 {
            return;
        }
        world.settle_one();
    }
    panic!("node:{node} is not emptied");
}

/// What waits for another node does not keep an operation about a node that has left.
#[test]
fn an_operation_ends_with_its_node() {
    let mut world = with_demo(5, 1, true);
    let replica = of_role(&world, Role::Replica);
    let outcome = world.request(&remove(replica.node)).unwrap();
    until_empty(&mut world, replica.node);
    let copy = of_role(&world, Role::Replica);
    assert_ne!(copy.uid, replica.uid);
    dies(&mut world, copy.node);
    let story = world.settle();
    assert!(world.cluster().node(replica.node).is_none(), "{story}");
    let operation = stored(&world, &outcome.operations[0]);
    assert_eq!(operation.status, OperationStatus::Completed, "{story}");
    assert!(world.cluster().databases[0].operation.is_none());
}

/// A change that waits for a node that is not heard is in force; the wait for it can be ended, and what is not heard
/// gets it when it is back.
#[test]
fn a_change_is_not_waited_for_any_longer() {
    let mut world = with_demo(3, 1, true);
    let replica = of_role(&world, Role::Replica);
    dies(&mut world, replica.node);
    let operation = world
        .request(&resize(512 << 20))
        .unwrap()
        .operation
        .unwrap();
    world.settle();
    world.note_waits();
    let refused = world.request(&resize(1 << 30)).unwrap_err();
    insta::assert_snapshot!(refused.description, @"database 'demo' (db:1) is busy with SMUpdateBDB of db:1 (op-2), which waits (node:2 is not heard): wait until it ends (`rladmin cluster running_actions`), or end the wait with `rladmin abort op-2`: what it changes stays, and reaches the rest later");
    let abort = Intent::AbortOperation {
        operation: operation.clone(),
    };
    world.request(&abort).unwrap();
    let operation = stored(&world, &operation);
    assert_eq!(operation.error_code, Some(ErrorCode::OperationAborted));
    let cluster = world.cluster();
    assert!(cluster.databases[0].operation.is_none());
    assert_eq!(cluster.databases[0].memory_size, 512 << 20);
    assert!(shards(&world).iter().all(|s| s.memory_bytes == 256 << 20));
    world.settle();
    world.silent.clear();
    let story = world.settle();
    let follows = format!("redis:{} runs an older description", replica.uid);
    assert!(story.contains(&follows), "{story}");
    // Nothing is locked.
    world.request(&resize(1 << 30)).unwrap();
}

/// A primary node that was removed hands over to one that can lead, and tries the others after it.
#[test]
fn the_leadership_goes_first_to_who_can_lead() {
    let mut world = World::with_nodes(6);
    world.silent.push(NodeUid(1));
    world.nodes.get_mut(&NodeUid(2)).unwrap().disk_full = true;
    let (observed, now) = world.observed();
    let set = |uids: &[u64]| uids.iter().copied().map(NodeUid).collect::<BTreeSet<_>>();
    let (voters, nodes) = (set(&[1, 2, 3, 4, 5]), set(&[1, 2, 3, 5, 6]));
    let order = heirs(&observed, (&voters, &nodes), now);
    assert_eq!(order, [3, 5, 1, 2].map(NodeUid));
}
