//! A node was heard a moment ago, and has been silent for as long as a failover waits: nothing is begun that needs
//! it, though it is not shown as down yet.

use crate::intents::{enslave, remove, switch_on, with_demo};
use crate::world::World;
use model::documents::{Role, Sensitivity, Shard};
use model::intent::{ClusterChange, DatabaseChange, DatabaseSpec, Intent, MigrateWhat};
use model::limits::{HEARTBEAT_LOST, NODE_SILENT};
use model::{ErrorCode, NodeUid, OperationUid};
use std::time::Duration;

const FIRST: NodeUid = NodeUid(1);
const SECOND: NodeUid = NodeUid(2);
const THIRD: NodeUid = NodeUid(3);

/// The primary is on the first node, its replica on the second.
fn world(nodes: u64) -> World {
    let world = with_demo(nodes, 1, true);
    assert_eq!(copy(&world, Role::Primary).node, FIRST);
    assert_eq!(copy(&world, Role::Replica).node, SECOND);
    world
}

fn copy(world: &World, role: Role) -> Shard {
    let cluster = world.cluster();
    let shard = cluster.shards.iter().find(|s| s.role == role).unwrap();
    shard.doc.clone()
}

fn dies(world: &mut World, node: NodeUid) {
    world.silent = vec![node];
    world.silent_for = NODE_SILENT;
}

fn migrate(shard: &Shard, node: NodeUid) -> Intent {
    Intent::MigrateShards {
        what: MigrateWhat::Shards {
            shards: vec![shard.uid],
        },
        node,
        override_policy: false,
    }
}

/// It is refused, and nothing is changed; why.
fn refused(world: &mut World, intent: &Intent, code: ErrorCode) -> String {
    let before = world.state.clone();
    let error = world.request(intent).unwrap_err();
    assert_eq!(error.error_code, code, "{error}");
    assert_eq!(world.state, before);
    error.description
}

#[test]
fn it_is_not_counted_on() {
    for intent in [switch_on(FIRST), remove(FIRST)] {
        let mut world = world(3);
        dies(&mut world, THIRD);
        let why = refused(&mut world, &intent, ErrorCode::NoMajorityLeft);
        assert!(why.contains("node:3 is not heard"), "{why}");
        // Up to then it may only be late.
        world.silent_for = NODE_SILENT - Duration::from_millis(1);
        world.request(&intent).unwrap();
    }
}

#[test]
fn its_vote_is_not_counted_on() {
    let mut world = world(5);
    world.voters = [FIRST, SECOND, THIRD].into();
    dies(&mut world, THIRD);
    let why = refused(&mut world, &switch_on(FIRST), ErrorCode::NoMajorityLeft);
    assert!(why.contains("vote"), "{why}");
    // A network that stutters is waited for, as a failover waits for it.
    let change = ClusterChange {
        failure_detection_sensitivity: Some(Sensitivity::Low),
        ..ClusterChange::default()
    };
    world.request(&Intent::UpdateCluster(change)).unwrap();
    world.request(&switch_on(FIRST)).unwrap();
}

#[test]
fn nothing_is_brought_away_from_it() {
    let mut world = world(5);
    let primary = copy(&world, Role::Primary);
    dies(&mut world, FIRST);
    for intent in [
        switch_on(FIRST),
        enslave(FIRST, false),
        migrate(&primary, THIRD),
    ] {
        let why = refused(&mut world, &intent, ErrorCode::NodeDown);
        assert!(why.contains("is not heard"), "{why}");
    }
}

/// Whether it is emptied or given up depends on whether it is there, which is not known yet.
#[test]
fn it_is_not_removed_before_it_counts_as_down() {
    let mut world = world(5);
    dies(&mut world, SECOND);
    let why = refused(&mut world, &remove(SECOND), ErrorCode::NodeDown);
    assert!(why.contains("try again"), "{why}");
    // Nothing is on it.
    dies(&mut world, NodeUid(5));
    world.request(&remove(NodeUid(5))).unwrap();
    dies(&mut world, SECOND);
    world.silent_for = HEARTBEAT_LOST + Duration::from_millis(1);
    world.request(&remove(SECOND)).unwrap();
}

/// Neither a new database nor new replicas.
#[test]
fn nothing_is_placed_on_it() {
    let database = DatabaseSpec {
        name: "new".into(),
        memory_size: 6 << 30,
        shards_count: Some(6),
        ..DatabaseSpec::default()
    };
    let create = Intent::CreateDatabase(database);
    let mut world = with_demo(2, 1, false);
    dies(&mut world, SECOND);
    let why = refused(&mut world, &create, ErrorCode::InsufficientResources);
    assert!(why.contains("node:2 is not heard"), "{why}");
    let change = Box::new(DatabaseChange {
        replication: Some(true),
        memory_size: Some(512 << 20),
        ..DatabaseChange::default()
    });
    let database = world.cluster().databases[0].uid;
    let replicate = Intent::UpdateDatabase { database, change };
    let why = refused(&mut world, &replicate, ErrorCode::NodeDown);
    assert!(why.contains("node:2 is not heard"), "{why}");
    // Up to then it may only be late.
    world.silent_for = NODE_SILENT - Duration::from_millis(1);
    world.request(&replicate).unwrap();
    world.request(&create).unwrap();
}

#[test]
fn nothing_is_brought_to_it() {
    let mut world = world(5);
    dies(&mut world, THIRD);
    let replica = copy(&world, Role::Replica);
    let intent = migrate(&replica, THIRD);
    let why = refused(&mut world, &intent, ErrorCode::NodeDown);
    assert!(why.contains("is not heard"), "{why}");
    let outcome = world.request(&switch_on(SECOND)).unwrap();
    assert_eq!(goes_to(&world, &outcome.operations), [NodeUid(4)]);
}

#[test]
fn its_replica_gets_no_role() {
    let mut world = world(5);
    dies(&mut world, SECOND);
    let outcome = world.request(&enslave(FIRST, false)).unwrap();
    assert_eq!(outcome.operations, []);
    // The primary is copied.
    let outcome = world.request(&switch_on(FIRST)).unwrap();
    assert_eq!(goes_to(&world, &outcome.operations), [THIRD]);
    let operation = world.cluster().operation(&outcome.operations[0]).cloned();
    assert_eq!(operation.unwrap().shards, []);
}

/// A node that is being stopped takes every chance that may still come: it waits no longer than it would anyway.
#[test]
fn a_node_that_stops_hopes_for_it() {
    let mut world = world(5);
    dies(&mut world, SECOND);
    let outcome = world.request(&enslave(FIRST, true)).unwrap();
    assert_eq!(outcome.operations.len(), 1);
}

fn goes_to(world: &World, operations: &[OperationUid]) -> Vec<NodeUid> {
    let cluster = world.cluster();
    let operations = operations.iter().map(|uid| cluster.operation(uid).unwrap());
    let migrations = operations.flat_map(|operation| &operation.migrations);
    migrations.map(|migration| migration.node).collect()
}
