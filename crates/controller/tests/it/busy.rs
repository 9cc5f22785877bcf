//! What is asked of something on which an operation works is refused by that operation's name, whatever else would
//! speak against it now; what cannot be at all is refused by that.

use crate::intents::{enslave, remove, switch_off, switch_on, with_demo};
use crate::world::World;
use model::documents::{Role, Shard, keys};
use model::intent::{
    ClusterChange, DatabaseChange, Intent, MaintenanceWish, MigrateWhat, Pace, Restore,
    SnapshotWhat,
};
use model::{DatabaseUid, ErrorCode, NodeUid, OperationUid, ShardUid};
use serde_json::json;
use store::Txn;

const DEMO: DatabaseUid = DatabaseUid(1);

fn shards(world: &World) -> Vec<Shard> {
    let cluster = world.cluster();
    cluster.shards.iter().map(|s| s.doc.clone()).collect()
}

fn migrate(shard: u64, node: NodeUid) -> Intent {
    Intent::MigrateShards {
        what: MigrateWhat::Shards {
            shards: vec![ShardUid(shard)],
        },
        node,
        override_policy: false,
    }
}

fn all_of(database: DatabaseUid, node: NodeUid) -> Intent {
    Intent::MigrateShards {
        what: MigrateWhat::Database {
            database,
            role: None,
        },
        node,
        override_policy: false,
    }
}

fn failover(shard: u64) -> Intent {
    Intent::FailoverShards {
        database: Some(DEMO),
        shards: vec![ShardUid(shard)],
        immediate: true,
    }
}

fn update(change: DatabaseChange) -> Intent {
    Intent::UpdateDatabase {
        database: DEMO,
        change: Box::new(change),
    }
}

fn refused(world: &mut World, intent: &Intent) -> (ErrorCode, String) {
    let before = world.state.clone();
    let error = match world.request(intent) {
        Ok(outcome) => panic!("{intent:?} was taken: {outcome:?}"),
        Err(error) => error,
    };
    assert_eq!(world.state, before, "what is refused changes nothing");
    (error.error_code, error.description)
}

/// It is refused as busy, with the operation and how that ends.
fn is_busy(world: &mut World, intent: &Intent, operation: &OperationUid) {
    let (code, why) = refused(world, intent);
    assert_eq!(code, ErrorCode::Busy, "{intent:?}: {why}");
    let gives_up = format!("`rladmin abort {operation}`");
    for part in ["`rladmin cluster running_actions`", &gives_up] {
        assert!(why.contains(part), "{intent:?}: {why}");
    }
}

fn store<T: serde::Serialize>(world: &mut World, key: String, doc: &T) {
    world.apply(&Txn {
        put: vec![(key, json!(doc))],
        ..Txn::default()
    });
}

/// A shard of the database is on its way: its copy is on the third node, which has room for nothing more.
fn on_its_way(replication: bool) -> (World, OperationUid, [NodeUid; 3]) {
    let mut world = with_demo(3, 1, replication);
    let here = shards(&world)[0].node;
    let there = shards(&world).last().unwrap().node;
    let mut free = (1..=3).map(NodeUid);
    let free = free.find(|node| *node != here && *node != there).unwrap();
    let operation = world.request(&migrate(1, free)).unwrap().operation.unwrap();
    world.settle_one();
    assert!(shards(&world).iter().any(|shard| shard.node == free));
    let mut doc = world.cluster().node(free).unwrap().doc.clone();
    doc.memory_bytes = 1;
    store(&mut world, keys::node(free), &doc);
    (world, operation, [here, there, free])
}

#[test]
fn a_second_migrate() {
    for replication in [false, true] {
        let (mut world, operation, [here, _, free]) = on_its_way(replication);
        for intent in [
            // Its copy is there, and fills the node.
            migrate(1, free),
            migrate(1, here),
            all_of(DEMO, free),
            all_of(DEMO, here),
            Intent::MigrateShards {
                what: MigrateWhat::Node {
                    node: here,
                    role: None,
                },
                node: free,
                override_policy: false,
            },
        ] {
            is_busy(&mut world, &intent, &operation);
        }
        // A node that is not heard is no reason to look elsewhere either.
        world.silent.push(here);
        is_busy(&mut world, &migrate(1, free), &operation);
        let (_, why) = refused(&mut world, &migrate(1, free));
        insta::allow_duplicates! {
            insta::assert_snapshot!(why, @"database 'demo' (db:1) is busy with SMMigrateShards of db:1 (op-2): wait until it ends (`rladmin cluster running_actions`), or give it up with `rladmin abort op-2`");
        }
    }
}

#[test]
fn a_failover_while_something_moves() {
    let (mut world, operation, _) = on_its_way(true);
    for shard in [1, 2, 3] {
        is_busy(&mut world, &failover(shard), &operation);
    }
    // The role has moved already, the operation has not ended.
    let mut world = self::with_demo(3, 1, true);
    let operation = world.request(&failover(1)).unwrap().operation.unwrap();
    world.settle_one();
    let replica = shards(&world)[0].clone();
    assert_eq!(replica.role, Role::Replica);
    is_busy(&mut world, &failover(1), &operation);
}

#[test]
fn a_node_while_something_moves_from_there() {
    for replication in [false, true] {
        let (mut world, operation, [here, there, _]) = on_its_way(replication);
        let mut intents = vec![switch_on(here), remove(here)];
        if replication {
            intents.extend([switch_on(there), remove(there), enslave(here, false)]);
        }
        // No room anywhere, and no majority.
        for node in (1..=3).map(NodeUid) {
            let mut doc = world.cluster().node(node).unwrap().doc.clone();
            doc.memory_bytes = 1;
            store(&mut world, keys::node(node), &doc);
        }
        for intent in &intents {
            is_busy(&mut world, intent, &operation);
        }
        world.voters = [here].into();
        for intent in intents {
            is_busy(&mut world, &intent, &operation);
        }
    }
}

#[test]
fn a_second_action_on_a_node() {
    for first in [switch_on, remove] {
        let mut world = with_demo(3, 1, true);
        let node = shards(&world)[0].node;
        let operation = world.request(&first(node)).unwrap().operation.unwrap();
        world.settle_one();
        for intent in [
            switch_on(node),
            switch_off(node),
            remove(node),
            enslave(node, false),
        ] {
            is_busy(&mut world, &intent, &operation);
        }
        let (_, why) = refused(&mut world, &remove(node));
        let about = format!("node:{node} is busy with ");
        assert!(why.starts_with(&about), "{why}");
    }
}

/// A removal waits behind everything when the node is not heard, but not behind itself.
#[test]
fn a_removal_of_a_node_that_is_not_heard() {
    let mut world = with_demo(5, 1, true);
    let replica = shards(&world)[1].clone();
    world.request(&switch_on(replica.node)).unwrap();
    world.silent.push(replica.node);
    let primary = shards(&world)[0].uid;
    let seen = world.seen(primary).replication.as_mut().unwrap();
    seen.replicas.clear();
    let outcome = world.request(&remove(replica.node)).unwrap();
    let operation = outcome.operation.unwrap();
    is_busy(&mut world, &remove(replica.node), &operation);
}

/// It says how what pauses goes on, and why it does.
#[test]
fn what_pauses_is_told_with_its_reason() {
    let (mut world, _, [_, _, free]) = on_its_way(true);
    let mut doc = world.cluster().operations.last().unwrap().doc.clone();
    doc.status = model::documents::OperationStatus::Paused;
    doc.error = Some("node:3 is not heard".to_owned());
    store(&mut world, keys::operation(&doc.uid), &doc);
    let (code, why) = refused(&mut world, &migrate(2, free));
    assert_eq!(code, ErrorCode::Busy);
    insta::assert_snapshot!(why, @"database 'demo' (db:1) is busy with SMMigrateShards of db:1 (op-2), which pauses (node:3 is not heard): have it go on with `rladmin retry op-2`, or give it up with `rladmin abort op-2`");
}

#[test]
fn a_change_of_a_database_and_of_a_rack() {
    let mut world = self::with_demo(3, 1, true);
    let all = shards(&world);
    for node in (1..=3).map(NodeUid) {
        let mut doc = world.cluster().node(node).unwrap().doc.clone();
        doc.rack_id = Some("a".to_owned());
        store(&mut world, keys::node(node), &doc);
    }
    let aware = ClusterChange {
        rack_aware: Some(true),
        ..ClusterChange::default()
    };
    world.request(&Intent::UpdateCluster(aware)).unwrap();
    let mut free = (1..=3).map(NodeUid);
    let free = free.find(|n| all.iter().all(|s| s.node != *n)).unwrap();
    let operation = world.request(&migrate(1, free)).unwrap().operation.unwrap();
    let change = |memory_size, rack_aware| DatabaseChange {
        memory_size,
        rack_aware,
        ..DatabaseChange::default()
    };
    for change in [change(Some(1 << 50), None), change(None, Some(true))] {
        is_busy(&mut world, &update(change), &operation);
    }
    let rack = Intent::UpdateNode {
        node: free,
        rack_id: Some("b".to_owned()),
    };
    is_busy(&mut world, &rack, &operation);
}

#[test]
fn a_snapshot_is_not_brought_back_meanwhile() {
    let mut world = self::with_demo(3, 1, true);
    let node = shards(&world)[0].node;
    let snapshot = |what| Intent::NodeSnapshot {
        node,
        name: "before".to_owned(),
        what,
        pace: Pace::default(),
    };
    world.request(&snapshot(SnapshotWhat::Create)).unwrap();
    let operation = world.request(&switch_on(node)).unwrap().operation.unwrap();
    is_busy(&mut world, &snapshot(SnapshotWhat::Restore), &operation);
}

/// What does not exist, or cannot be at any time, is told as that.
#[test]
fn what_cannot_be_at_all_is_told_first() {
    let (mut world, _, [here, ..]) = on_its_way(true);
    let nobody = NodeUid(9);
    let evict = Intent::MaintenanceOn {
        node: here,
        wish: MaintenanceWish {
            keep_slave_shards: true,
            evict_dbs: vec![DatabaseUid(9)],
            ..MaintenanceWish::default()
        },
        pace: Pace::default(),
    };
    let named = Intent::MaintenanceOff {
        node: here,
        restore: Restore::Named("nothing".to_owned()),
        pace: Pace::default(),
    };
    let to_itself = Intent::MigrateShards {
        what: MigrateWhat::Node {
            node: here,
            role: None,
        },
        node: here,
        override_policy: false,
    };
    let of_another = Intent::FailoverShards {
        database: Some(DatabaseUid(9)),
        shards: vec![ShardUid(1)],
        immediate: false,
    };
    let change = DatabaseChange {
        memory_size: Some(1),
        ..DatabaseChange::default()
    };
    for (intent, code) in [
        (migrate(99, here), ErrorCode::ShardNotExist),
        (migrate(1, nobody), ErrorCode::NodeNotFound),
        (all_of(DatabaseUid(9), here), ErrorCode::DbNotFound),
        (to_itself, ErrorCode::InvalidParam),
        (failover(99), ErrorCode::ShardNotExist),
        (of_another, ErrorCode::DbNotFound),
        (switch_on(nobody), ErrorCode::NodeNotFound),
        (remove(nobody), ErrorCode::NodeNotFound),
        (evict, ErrorCode::DbNotFound),
        (named, ErrorCode::SnapshotNotFound),
        (update(change), ErrorCode::InvalidParam),
    ] {
        assert_eq!(refused(&mut world, &intent).0, code, "{intent:?}");
    }
}
