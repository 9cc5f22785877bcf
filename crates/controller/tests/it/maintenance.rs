//! A node is emptied, for a while or for good.

use crate::intents::{create, remove, switch_off, switch_on};
use crate::layout;
use crate::world::World;
use controller::database::plan::{self, Step};
use controller::observed::Observations;
use model::documents::{OperationStatus, Role, Shard, keys};
use model::intent::{DatabaseChange, DatabaseSpec, Intent, MaintenanceWish, Pace};
use model::limits::HEARTBEAT_LOST;
use model::{DatabaseUid, ErrorCode, NodeUid, ShardUid};
use serde_json::json;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use store::Txn;

fn shards(world: &World) -> Vec<Shard> {
    let cluster = world.cluster();
    cluster.shards.iter().map(|s| s.doc.clone()).collect()
}

fn on(world: &World, node: NodeUid) -> Vec<Shard> {
    let mut all = shards(world);
    all.retain(|shard| shard.node == node);
    all
}

fn roles(world: &World, node: NodeUid) -> Vec<(u64, u16, Role)> {
    let mut all: Vec<_> = on(world, node)
        .iter()
        .map(|s| (s.database.0, s.slots.first, s.role))
        .collect();
    all.sort_by_key(|(database, first, _)| (*database, *first));
    all
}

fn ask(world: &mut World, intent: &Intent) -> Result<(), ErrorCode> {
    world.request(intent).map(|_| ()).map_err(|e| e.error_code)
}

fn world() -> World {
    let mut world = World::with_nodes(3);
    create(&mut world, "replicated", true, 3);
    create(&mut world, "alone", false, 2);
    world
}

#[test]
fn maintenance_empties_a_node_and_gives_everything_back() {
    for node in (1..=3).map(NodeUid) {
        let mut world = world();
        let before = layout::of(&world);
        ask(&mut world, &switch_on(node)).unwrap();
        let story = world.settle();
        assert_eq!(roles(&world, node), [], "{story}");
        assert!(
            world
                .cluster()
                .databases
                .iter()
                .all(|d| d.operation.is_none())
        );
        for primary in shards(&world).iter().filter(|s| s.role == Role::Primary) {
            assert!(primary.is_serving());
        }
        // Nothing new comes here meanwhile.
        create(&mut world, "new", true, 1);
        assert_eq!(roles(&world, node), []);
        world.request(&delete(3)).unwrap();
        world.settle();
        ask(&mut world, &switch_off(node)).unwrap();
        let story = world.settle();
        assert_eq!(layout::of(&world), before, "{story}");
        assert_eq!(world.cluster().node(node).unwrap().maintenance, None);
        assert_eq!(world.settle(), "");
    }
}

/// Primaries with a replica elsewhere hand over; they are not copied first.
#[test]
fn replicas_may_stay() {
    let mut world = World::with_nodes(3);
    create(&mut world, "replicated", true, 1);
    let node = shards(&world)[0].node;
    let intent = Intent::MaintenanceOn {
        node,
        wish: MaintenanceWish {
            keep_slave_shards: true,
            ..MaintenanceWish::default()
        },
        pace: Pace::default(),
    };
    ask(&mut world, &intent).unwrap();
    let story = world.settle();
    assert!(!story.contains("becomes a copy"), "{story}");
    assert_eq!(roles(&world, node), [(1, 0, Role::Replica)]);
    ask(&mut world, &switch_off(node)).unwrap();
    world.settle();
    assert_eq!(roles(&world, node), [(1, 0, Role::Primary)]);
}

/// In two nodes there is no other place for a replica: it stays, its primary's role does not.
#[test]
fn without_room_replicas_stay() {
    let mut world = World::with_nodes(2);
    create(&mut world, "replicated", true, 1);
    let node = shards(&world)[0].node;
    // It votes alone: without it nothing could be changed.
    assert_eq!(world.voters.iter().collect::<Vec<_>>(), [&node]);
    let refused = ask(&mut world, &switch_on(node));
    assert_eq!(refused, Err(ErrorCode::NoMajorityLeft));
    world.voters = [NodeUid(3 - node.0)].into();
    ask(&mut world, &switch_on(node)).unwrap();
    world.settle();
    assert_eq!(roles(&world, node), [(1, 0, Role::Replica)]);
}

#[test]
fn on_twice_is_off_twice() {
    let mut world = world();
    let node = NodeUid(2);
    let before = roles(&world, node);
    for _ in 0..2 {
        ask(&mut world, &switch_on(node)).unwrap();
        world.settle();
    }
    ask(&mut world, &switch_off(node)).unwrap();
    world.settle();
    assert_eq!(roles(&world, node), []);
    ask(&mut world, &switch_off(node)).unwrap();
    world.settle();
    assert_eq!(roles(&world, node), before);
    assert_eq!(
        ask(&mut world, &switch_off(node)),
        Err(ErrorCode::NodeInState)
    );
}

/// Nodes in maintenance mode and nodes that are not heard count as lost.
#[test]
fn a_majority_stays() {
    let mut world = world();
    ask(&mut world, &switch_on(NodeUid(1))).unwrap();
    world.settle();
    let before = world.state.clone();
    assert_eq!(
        ask(&mut world, &switch_on(NodeUid(2))),
        Err(ErrorCode::NoMajorityLeft)
    );
    assert_eq!(world.state, before);
    ask(&mut world, &switch_off(NodeUid(1))).unwrap();
    world.settle();
    world.silent.push(NodeUid(3));
    assert_eq!(
        ask(&mut world, &switch_on(NodeUid(2))),
        Err(ErrorCode::NoMajorityLeft)
    );
    let mut alone = World::with_nodes(1);
    assert_eq!(
        ask(&mut alone, &switch_on(NodeUid(1))),
        Err(ErrorCode::NoMajorityLeft)
    );
}

#[test]
fn a_node_leaves_when_it_is_empty() {
    let mut world = world();
    let node = shards(&world)[0].node;
    ask(&mut world, &remove(node)).unwrap();
    let story = world.settle();
    assert!(
        story.contains(&format!("node:{node} has nothing left on it and goes")),
        "{story}"
    );
    let cluster = world.cluster();
    assert!(cluster.node(node).is_none());
    assert_eq!(cluster.shards.len(), 8);
    assert!(
        cluster
            .operations
            .iter()
            .all(|o| o.status == OperationStatus::Completed)
    );
    assert_eq!(ask(&mut world, &remove(node)), Err(ErrorCode::NodeNotFound));
}

#[test]
fn a_node_whose_shards_have_no_other_place_does_not_leave() {
    let mut world = World::with_nodes(2);
    create(&mut world, "replicated", true, 1);
    let before = world.state.clone();
    for (node, code) in [
        // It votes alone.
        (NodeUid(1), ErrorCode::NoMajorityLeft),
        (NodeUid(2), ErrorCode::InsufficientResources),
    ] {
        assert_eq!(ask(&mut world, &remove(node)), Err(code));
        assert_eq!(world.state, before);
    }
}

#[test]
fn a_dead_node_leaves_and_its_replicas_are_made_anew() {
    let mut world = World::with_nodes(3);
    create(&mut world, "replicated", true, 1);
    let (primary, replica) = (shards(&world)[0].clone(), shards(&world)[1].clone());
    world.silent.push(replica.node);
    world
        .seen(primary.uid)
        .replication
        .as_mut()
        .unwrap()
        .replicas
        .clear();
    ask(&mut world, &remove(replica.node)).unwrap();
    world.settle();
    let cluster = world.cluster();
    assert!(cluster.node(replica.node).is_none());
    let copies = shards(&world);
    assert_eq!(copies.len(), 2);
    assert_eq!(copies[1].uid, ShardUid(3));
    assert!(copies[1].synced.is_some());
    // Its data are there alone.
    world.silent.push(primary.node);
    let intent = remove(primary.node);
    assert!(ask(&mut world, &intent).is_err());
}

fn delete(database: u64) -> Intent {
    Intent::DeleteDatabase {
        database: DatabaseUid(database),
    }
}

/// A node dies with data that nobody else has: the database is given up, then the node. Nothing is left of
/// either.
#[test]
fn a_dead_node_goes_after_its_databases_were_deleted() {
    for replication in [false, true] {
        let mut world = World::with_nodes(3);
        create(&mut world, "demo", replication, 1);
        let port = world.cluster().databases[0].port;
        let dead = shards(&world)[0].node;
        world.silent.push(dead);
        if replication {
            // Its replica had not all of it.
            let mut doc = shards(&world)[1].clone();
            doc.synced = None;
            world.apply(&Txn {
                put: vec![(keys::shard(doc.uid), json!(doc))],
                ..Txn::default()
            });
        }
        let refused = world.request(&remove(dead)).unwrap_err();
        assert!(
            refused.description.contains("or delete the database"),
            "{refused}"
        );
        ask(&mut world, &delete(1)).unwrap();
        let story = world.settle();
        assert!(
            story.contains(&format!("waits: node:{dead} is not heard")),
            "{story}"
        );
        // What can be reached is gone.
        assert_eq!(shards(&world).len(), 1);
        let outcome = world.request(&remove(dead)).unwrap();
        assert_eq!(outcome.operations, []);
        let story = world.settle();
        assert!(
            story.contains(&format!("redis:1 goes with node:{dead}")),
            "{story}"
        );
        let cluster = world.cluster();
        assert!(cluster.node(dead).is_none(), "{story}");
        assert_eq!((cluster.shards.len(), cluster.databases.len()), (0, 0));
        assert!(cluster.operations.iter().all(|o| o.ended.is_some()));
        // Its name and its port are free.
        let spec = DatabaseSpec {
            name: "demo".into(),
            memory_size: 256 << 20,
            port: Some(port),
            ..DatabaseSpec::default()
        };
        world.request(&Intent::CreateDatabase(spec)).unwrap();
    }
}

/// The other way round: its node was being removed when the database is given up.
#[test]
fn a_database_is_deleted_whose_node_leaves_and_is_not_heard() {
    let mut world = World::with_nodes(3);
    create(&mut world, "demo", true, 1);
    let replica = shards(&world)[1].clone();
    world.silent.push(replica.node);
    ask(&mut world, &remove(replica.node)).unwrap();
    ask(&mut world, &delete(1)).unwrap();
    world.settle();
    let cluster = world.cluster();
    assert!(cluster.node(replica.node).is_none());
    assert_eq!((cluster.shards.len(), cluster.databases.len()), (0, 0));
}

/// A change waits for a node that does not come back: the removal waits for the change, which waits for that node no
/// more.
#[test]
fn a_dead_node_leaves_though_a_change_waits_for_it() {
    let mut world = World::with_nodes(3);
    create(&mut world, "demo", true, 1);
    let (primary, replica) = (shards(&world)[0].clone(), shards(&world)[1].clone());
    world.silent.push(replica.node);
    let seen = world.seen(primary.uid).replication.as_mut().unwrap();
    seen.replicas.clear();
    let change = Intent::UpdateDatabase {
        database: DatabaseUid(1),
        change: Box::new(DatabaseChange {
            memory_size: Some(512 << 20),
            ..DatabaseChange::default()
        }),
    };
    ask(&mut world, &change).unwrap();
    let story = world.settle();
    let waits = format!("waits: node:{} is not heard", replica.node);
    assert!(story.contains(&waits), "{story}");
    ask(&mut world, &remove(replica.node)).unwrap();
    world.settle();
    let cluster = world.cluster();
    assert!(cluster.node(replica.node).is_none());
    let ended = |o: &OperationStatus| *o == OperationStatus::Completed;
    assert!(cluster.operations.iter().all(|o| ended(&o.status)));
    let copies = shards(&world);
    assert_eq!(copies.len(), 2);
    assert!(copies.iter().all(|s| s.memory_bytes == 256 << 20));
    assert!(copies[1].synced.is_some());
}

/// A database whose replica's node does not come back; its primary's engine hears nothing of it.
fn without_a_replica() -> (World, NodeUid, NodeUid) {
    let mut world = World::with_nodes(5);
    create(&mut world, "demo", true, 1);
    let (primary, replica) = (shards(&world)[0].clone(), shards(&world)[1].clone());
    world.silent.push(replica.node);
    let seen = world.seen(primary.uid).replication.as_mut().unwrap();
    seen.replicas.clear();
    (world, primary.node, replica.node)
}

/// Both nodes have left, and their database is whole.
fn both_have_left(world: &World, left: [NodeUid; 2]) {
    let cluster = world.cluster();
    assert!(left.iter().all(|node| cluster.node(*node).is_none()));
    let ended = |o: &OperationStatus| *o == OperationStatus::Completed;
    assert!(cluster.operations.iter().all(|o| ended(&o.status)));
    let copies = shards(world);
    let nodes: BTreeSet<NodeUid> = copies.iter().map(|shard| shard.node).collect();
    assert_eq!((copies.len(), nodes.len()), (2, 2));
    assert!(copies.iter().all(|s| s.is_usable() || s.synced.is_some()));
}

/// A change waits for a node that does not come back: the removal of another one is taken, and says that it waits for that change, and for whom that waits.
#[test]
fn a_node_leaves_though_a_change_waits_for_another() {
    let (mut world, node, dead) = without_a_replica();
    let change = Intent::UpdateDatabase {
        database: DatabaseUid(1),
        change: Box::new(DatabaseChange {
            memory_size: Some(512 << 20),
            ..DatabaseChange::default()
        }),
    };
    ask(&mut world, &change).unwrap();
    world.settle();
    world.note_waits();
    // Who is refused hears it too.
    let refused = world.request(&switch_on(node)).unwrap_err();
    insta::assert_snapshot!(refused.description, @"database 'demo' (db:1) is busy with SMUpdateBDB of db:1 (op-2), which waits (node:2 is not heard): wait until it ends (`rladmin cluster running_actions`), or end the wait with `rladmin abort op-2`: what it changes stays, and reaches the rest later");
    ask(&mut world, &remove(node)).unwrap();
    world.note_waits();
    let waits = world
        .cluster()
        .operations
        .last()
        .unwrap()
        .waiting_on
        .clone();
    insta::assert_snapshot!(waits.unwrap(), @"its turn: SMUpdateBDB of db:1 (op-2) runs and waits: node:2 is not heard");
    assert_eq!(world.settle().matches("store: ").count(), 0);
    ask(&mut world, &remove(dead)).unwrap();
    world.settle();
    both_have_left(&world, [node, dead]);
}

#[test]
fn a_node_does_not_leave_before_its_clients() {
    let mut world = World::with_nodes(5);
    create(&mut world, "demo", true, 1);
    let node = shards(&world)[0].node;
    world.busy.push(node);
    ask(&mut world, &remove(node)).unwrap();
    world.settle();
    assert_eq!(world.cluster().shards_on(node), 0);
    assert!(world.cluster().node(node).unwrap().leaving);
    world.busy.clear();
    world.proxies();
    world.settle();
    assert!(world.cluster().node(node).is_none());
    // One that is not heard says nothing of clients.
    let node = shards(&world)[1].node;
    world.busy.push(node);
    world.silent.push(node);
    ask(&mut world, &remove(node)).unwrap();
    world.settle();
    assert!(world.cluster().node(node).is_none());
}

#[test]
fn a_removal_that_waits_for_a_change_is_given_up() {
    let mut world = World::with_nodes(5);
    create(&mut world, "demo", true, 1);
    let (node, other) = (shards(&world)[0].node, shards(&world)[1].node);
    world.silent.push(other);
    let change = Intent::UpdateDatabase {
        database: DatabaseUid(1),
        change: Box::new(DatabaseChange {
            memory_size: Some(512 << 20),
            ..DatabaseChange::default()
        }),
    };
    ask(&mut world, &change).unwrap();
    let outcome = world.request(&remove(node)).unwrap();
    // Asked for again, it is not done twice.
    assert_eq!(ask(&mut world, &remove(node)), Err(ErrorCode::Busy));
    let operation = outcome.operations[0].clone();
    ask(&mut world, &Intent::AbortOperation { operation }).unwrap();
    assert!(!world.cluster().node(node).unwrap().leaving);
    world.silent.clear();
    world.settle();
    let cluster = world.cluster();
    assert!(cluster.operations.iter().all(|o| o.ended.is_some()));
    assert_eq!(cluster.databases[0].operation, None);
}

/// A deletion that waits for one node does not keep others from being emptied.
#[test]
fn what_is_being_deleted_is_in_nobodys_way() {
    for intent in [remove, switch_on] {
        let mut world = World::with_nodes(5);
        create(&mut world, "demo", true, 1);
        let (dead, other) = (shards(&world)[0].node, shards(&world)[1].node);
        world.silent.push(dead);
        ask(&mut world, &delete(1)).unwrap();
        ask(&mut world, &intent(other)).unwrap();
        world.settle();
        assert_eq!(roles(&world, other), []);
        assert_eq!(world.cluster().databases.len(), 1, "its copy is waited for");
    }
}

/// Who has just become the primary node has heard nobody: that is no reason to forget shards that run.
#[test]
fn a_node_that_leaves_is_not_given_up_by_a_primary_node_that_is_new() {
    let mut world = world();
    let node = shards(&world)[0].node;
    ask(&mut world, &remove(node)).unwrap();
    ask(&mut world, &delete(1)).unwrap();
    let cluster = world.cluster();
    let elected = Instant::now();
    let mut observed = Observations::default();
    observed.leases.in_term(7, elected);
    let forgets = |after: Duration| {
        let plan = plan::plan(&cluster, &observed, elected + after, world.now);
        let goes = |step: &Step| matches!(step, Step::Store { reason, .. } if reason.contains(" goes with "));
        plan.steps.iter().any(goes)
    };
    assert!(!forgets(Duration::ZERO));
    assert!(!forgets(HEARTBEAT_LOST / 2));
    assert!(forgets(HEARTBEAT_LOST));
}
