//! What a node had comes back to it as far as it can, though another node is dead.

use crate::hangs::events;
use crate::intents::{switch_off, switch_on, with_demo};
use crate::world::World;
use jiff::Timestamp;
use model::documents::{Operation, OperationStatus, Persistence, Role, Shard};
use model::intent::{ClusterChange, DatabaseChange, Intent, IntentOutcome};
use model::replication::ReplicationObservation;
use model::{DatabaseUid, ErrorCode, NodeUid, ShardUid};
use serde_json::json;

fn shards(world: &World) -> Vec<Shard> {
    let cluster = world.cluster();
    cluster.shards.iter().map(|s| s.doc.clone()).collect()
}

fn primaries_on(world: &World, node: NodeUid) -> Vec<ShardUid> {
    let all = shards(world).into_iter();
    let there = all.filter(|s| s.role == Role::Primary && s.node == node);
    there.map(|s| s.uid).collect()
}

pub(crate) fn stored(world: &World, outcome: &IntentOutcome) -> Operation {
    let uid = outcome.operations.first().or(outcome.operation.as_ref());
    world.cluster().operation(uid.unwrap()).unwrap().doc.clone()
}

/// A node dies: what followed its engines, or was followed by them, has no link any more.
pub(crate) fn dies(world: &mut World, node: NodeUid) {
    let others: Vec<NodeUid> = world.nodes.keys().copied().collect();
    for other in others.into_iter().filter(|other| *other != node) {
        world.apart.extend([(other, node), (node, other)]);
    }
    world.lose_links();
    world.silent.push(node);
}

pub(crate) fn is_back(world: &mut World) {
    world.apart.clear();
    world.mend();
}

/// A node in maintenance mode that had primaries, and one that has some of those now.
fn emptied(shards: u32, replication: bool) -> (World, NodeUid, NodeUid) {
    let mut world = with_demo(3, shards, replication);
    let back = NodeUid(1);
    assert!(!primaries_on(&world, back).is_empty());
    world.request(&switch_on(back)).unwrap();
    world.settle();
    let others = [NodeUid(2), NodeUid(3)];
    let mut has = others
        .into_iter()
        .filter(|n| !primaries_on(&world, *n).is_empty());
    let dead = has.next().unwrap();
    (world, back, dead)
}

/// The node that has the primaries dies, before or in the middle: its replicas take their place, and come.
#[test]
fn a_primary_comes_back_from_another_node_than_the_dead_one() {
    for (count, steps) in [1, 3]
        .into_iter()
        .flat_map(|count| (0..12).map(move |n| (count, n)))
    {
        let (mut world, back, dead) = emptied(count, true);
        let outcome = world.request(&switch_off(back)).unwrap();
        for _ in 0..steps {
            world.settle_one();
        }
        dies(&mut world, dead);
        let story = world.settle();
        let operation = stored(&world, &outcome);
        assert_eq!(
            operation.status,
            OperationStatus::Completed,
            "{steps}: {story}"
        );
        assert_eq!(primaries_on(&world, back).len(), count as usize, "{story}");
        assert!(world.cluster().databases[0].operation.is_none());
        is_back(&mut world);
        let story = world.settle();
        assert_eq!(primaries_on(&world, back).len(), count as usize, "{story}");
        assert!(
            shards(&world).iter().all(|s| s.removed_by.is_none()),
            "{story}"
        );
        assert_eq!(shards(&world).len(), 2 * count as usize, "{story}");
    }
}

/// A node had a replica, which has the role since the node of the primary died, before it is to come back or in the
/// middle: it comes with the role, since nobody is there to take that.
#[test]
fn a_replica_comes_back_with_the_role_of_a_dead_one() {
    for steps in 0..12 {
        let mut world = with_demo(3, 1, true);
        let of = |world: &World, role| shards(world).into_iter().find(|s| s.role == role).unwrap();
        let (back, dead) = (
            of(&world, Role::Replica).node,
            of(&world, Role::Primary).node,
        );
        world.request(&switch_on(back)).unwrap();
        world.settle();
        if steps == 0 {
            dies(&mut world, dead);
            world.settle();
        }
        let outcome = world.request(&switch_off(back)).unwrap();
        for _ in 0..steps {
            world.settle_one();
        }
        if steps > 0 {
            dies(&mut world, dead);
        }
        let story = world.settle();
        let operation = stored(&world, &outcome);
        assert_eq!(
            operation.status,
            OperationStatus::Completed,
            "{steps}: {story}"
        );
        assert_eq!(primaries_on(&world, back).len(), 1, "{steps}: {story}");
        assert!(world.cluster().databases[0].operation.is_none());
        is_back(&mut world);
        let story = world.settle();
        assert_eq!(shards(&world).len(), 2, "{steps}: {story}");
    }
}

/// Without a replica its data are on the dead node alone: the rest comes, and what does not is named.
#[test]
fn what_is_on_a_dead_node_alone_stays_and_is_named() {
    let (mut world, back, dead) = emptied(4, false);
    let stays = primaries_on(&world, dead);
    assert_eq!(stays, [ShardUid(5), ShardUid(7)]);
    dies(&mut world, dead);
    let outcome = world.request(&switch_off(back)).unwrap();
    let story = world.settle();
    assert_eq!(primaries_on(&world, back).len(), 2, "{story}");
    assert_eq!(primaries_on(&world, dead), stays);
    let operation = stored(&world, &outcome);
    assert_eq!(operation.status, OperationStatus::Failed, "{story}");
    assert_eq!(operation.error_code, Some(ErrorCode::NodeDown));
    insta::assert_snapshot!(operation.error.unwrap(), @"all came back that could. What redis:5, redis:7 had did not, since nobody else has it: node:2 is not heard. Once it is back, `rladmin migrate shard 5 7 target_node 1` brings that over");
    let told = events(&world, "shards_not_restored");
    assert_eq!(told.len(), 1);
    assert_eq!(
        (&told[0]["shards"], &told[0]["node_uid"]),
        (&json!(stays), &json!(back))
    );
    let cluster = world.cluster();
    assert!(cluster.databases[0].operation.is_none());
    assert!(cluster.node(back).unwrap().maintenance.is_none());
    // Nothing is taken away from the dead node.
    is_back(&mut world);
    world.settle();
    assert_eq!(primaries_on(&world, dead), stays);
}

/// A copy was begun when the node died: it goes. If the node is back before all else has come, its own come too.
#[test]
fn what_was_begun_is_given_up_or_begun_anew() {
    for returns in [false, true] {
        let (mut world, back, dead) = emptied(4, false);
        let outcome = world.request(&switch_off(back)).unwrap();
        world.settle_one();
        let copy = shards(&world).pop().unwrap();
        assert_eq!((copy.node, copy.role), (back, Role::Replica));
        dies(&mut world, dead);
        if returns {
            for _ in 0..4 {
                world.settle_one();
            }
            is_back(&mut world);
        }
        let story = world.settle();
        let (status, came) = match returns {
            true => (OperationStatus::Completed, 4),
            false => (OperationStatus::Failed, 2),
        };
        assert_eq!(stored(&world, &outcome).status, status, "{story}");
        assert_eq!(primaries_on(&world, back).len(), came, "{story}");
        assert_eq!(shards(&world).len(), 4, "{story}");
    }
}

/// It falls silent again before its copy is synced, or after: the copy that stood in for it stays until then.
#[test]
fn a_node_that_is_lost_again_costs_no_replica() {
    for (had, steps) in [Role::Primary, Role::Replica]
        .into_iter()
        .flat_map(|role| (0..12).map(move |n| (role, n)))
    {
        let mut world = with_demo(3, 1, true);
        let back = shards(&world)
            .into_iter()
            .find(|s| s.role == had)
            .unwrap()
            .node;
        world.request(&switch_on(back)).unwrap();
        world.settle();
        let outcome = world.request(&switch_off(back)).unwrap();
        for _ in 0..steps {
            world.settle_one();
        }
        let lives = |world: &World| {
            let all = shards(world).into_iter();
            all.filter(|s| s.node != back && s.removed_by.is_none())
                .count()
        };
        let before = lives(&world);
        dies(&mut world, back);
        let story = world.settle();
        assert_eq!(lives(&world), before, "{had:?} {steps}: {story}");
        is_back(&mut world);
        let story = world.settle();
        assert_eq!(shards(&world).len(), 2, "{had:?} {steps}: {story}");
        let operation = stored(&world, &outcome);
        assert_eq!(operation.status, OperationStatus::Completed, "{story}");
    }
}

/// Power was cut while it came: its copy, which had the data, is another process, and the node of the primary does not
/// come back. The copy is kept, and serves with what it has on disk when that node has been waited for.
#[test]
fn a_copy_that_was_started_again_is_kept() {
    let (mut world, back, dead) = emptied(1, false);
    let keeps = Intent::UpdateDatabase {
        database: DatabaseUid(1),
        change: Box::new(DatabaseChange {
            persistence: Some(Persistence::AofEverySecond),
            ..DatabaseChange::default()
        }),
    };
    world.request(&keeps).unwrap();
    world.settle();
    let outcome = world.request(&switch_off(back)).unwrap();
    while shards(&world).last().unwrap().synced.is_none() {
        world.settle_one();
    }
    let copy = shards(&world).pop().unwrap().uid;
    world.crash(copy);
    dies(&mut world, dead);
    let story = world.settle();
    let kept = shards(&world).into_iter().find(|s| s.uid == copy).unwrap();
    assert!(
        kept.removed_by.is_none() && kept.synced.is_some(),
        "{story}"
    );
    assert_eq!(stored(&world, &outcome).status, OperationStatus::Active);
    let seen = world.seen(copy);
    seen.data_written = Some(Timestamp::UNIX_EPOCH);
    seen.replication = Some(ReplicationObservation {
        last_io_seconds: -1,
        second_offset: -1,
        ..ReplicationObservation::default()
    });
    let grace = ClusterChange {
        slave_ha_grace_period: Some(60),
        ..ClusterChange::default()
    };
    world.request(&Intent::UpdateCluster(grace)).unwrap();
    let story = world.settle();
    assert_eq!(primaries_on(&world, back), [copy], "{story}");
    let operation = stored(&world, &outcome);
    assert_eq!(operation.status, OperationStatus::Completed, "{story}");
}

/// The node itself is not passed over: nothing comes back to one that is not there.
#[test]
fn the_node_itself_is_waited_for() {
    let (mut world, back, _) = emptied(1, false);
    let outcome = world.request(&switch_off(back)).unwrap();
    dies(&mut world, back);
    let story = world.settle();
    assert_eq!(
        stored(&world, &outcome).status,
        OperationStatus::Active,
        "{story}"
    );
    is_back(&mut world);
    let story = world.settle();
    assert_eq!(
        stored(&world, &outcome).status,
        OperationStatus::Completed,
        "{story}"
    );
}
