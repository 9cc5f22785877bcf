//! Shards brought to other nodes.

use crate::coming_back::dies;
use crate::world::World;
use model::documents::{Migration, OperationStatus, Role, Shard, keys};
use model::intent::{DatabaseSpec, Intent, MaintenanceWish, MigrateWhat, Pace, Restore};
use model::{DatabaseUid, Epoch, ErrorCode, NodeUid, ShardUid};
use serde_json::json;
use store::Txn;

fn created(replication: bool, shards: u32) -> World {
    let mut world = World::with_nodes(3);
    let spec = DatabaseSpec {
        name: "demo".into(),
        memory_size: 1 << 30,
        shards_count: Some(shards),
        replication: Some(replication),
        ..DatabaseSpec::default()
    };
    world.request(&Intent::CreateDatabase(spec)).unwrap();
    world.settle();
    world
}

fn migrate(world: &mut World, what: MigrateWhat, node: u64) -> Result<(), ErrorCode> {
    let intent = Intent::MigrateShards {
        what,
        node: NodeUid(node),
        override_policy: false,
    };
    world.request(&intent).map(|_| ()).map_err(|e| e.error_code)
}

fn these(shards: &[u64]) -> MigrateWhat {
    MigrateWhat::Shards {
        shards: shards.iter().copied().map(ShardUid).collect(),
    }
}

fn shards(world: &World) -> Vec<Shard> {
    let cluster = world.cluster();
    cluster.shards.iter().map(|s| s.doc.clone()).collect()
}

#[test]
fn nothing_is_brought_away_from_a_node_that_is_not_heard() {
    let mut world = created(true, 1);
    world.silent.push(NodeUid(1));
    let all = MigrateWhat::Node {
        node: NodeUid(1),
        role: None,
    };
    assert_eq!(migrate(&mut world, all, 3), Err(ErrorCode::NodeDown));
    assert_eq!(
        migrate(&mut world, these(&[1]), 3),
        Err(ErrorCode::NodeDown)
    );
    assert!(world.cluster().operations.iter().all(|o| o.ended.is_some()));
}

/// What is advised can be done: a node with the only copy of something cannot be removed.
#[test]
fn a_dead_node_with_the_only_copy_is_to_come_back() {
    let mut world = created(false, 1);
    let node = NodeUid(1);
    let wanted = [
        Intent::MigrateShards {
            what: these(&[1]),
            node: NodeUid(3),
            override_policy: false,
        },
        Intent::MaintenanceOn {
            node,
            wish: MaintenanceWish::default(),
            pace: Pace::default(),
        },
        Intent::RemoveNode {
            node,
            pace: Pace::default(),
        },
    ];
    world.silent.push(node);
    for intent in &wanted {
        let why = world.request(intent).unwrap_err();
        assert_eq!(why.error_code, ErrorCode::NodeDown);
        let advice = "bring the node back, or delete the database";
        assert!(why.description.contains(advice), "{why:?}");
    }
}

/// The copy of a primary whose node has died since has the data: they are not given up with the operation.
#[test]
fn a_copy_that_is_needed_is_not_given_up() {
    let mut world = created(false, 1);
    migrate(&mut world, these(&[1]), 3).unwrap();
    let operation = world.cluster().operations.last().unwrap().uid.clone();
    while shards(&world).last().unwrap().synced.is_none() {
        world.settle_one();
    }
    dies(&mut world, NodeUid(1));
    let abort = Intent::AbortOperation { operation };
    let refused = world.request(&abort).unwrap_err();
    assert_eq!(refused.error_code, ErrorCode::NotReady);
    let story = world.settle();
    let copy = shards(&world).pop().unwrap();
    assert!(copy.is_serving() && copy.node == NodeUid(3), "{story}");
}

#[test]
fn a_primary_without_a_replica_moves_by_one() {
    let mut world = created(false, 1);
    world.write(ShardUid(1), 100);
    migrate(&mut world, these(&[1]), 3).unwrap();
    insta::assert_snapshot!(world.settle(), @r"
    store: redis:2 becomes a copy of redis:1 on node:3
    store: db:1 is served only with a lease
    node:1 promises: redis:1 gives no promises to proxies yet
    node:3 starts: redis:2 does not run on node:3
    node:3 follows: redis:2 does not follow redis:1 in epoch 1
    store: redis:2 is synced in epoch 1
    node:3 promises: redis:2 gives no promises to proxies yet
    redis:1 moves to redis:2
    node:3 promises: redis:2 gives no promises to proxies yet
    node:1 promises: redis:1 gives no promises to proxies yet
    store: redis:1 has a copy in its place
    node:1 removes: redis:1 is not wanted any more
    node:3 promises: redis:2 gives no promises to proxies yet
    store: redis:1 has moved
    store: database db:1 is served by every proxy
    ");
    let all = shards(&world);
    assert_eq!(all.len(), 1);
    assert_eq!(
        (all[0].uid, all[0].node, all[0].role),
        (ShardUid(2), NodeUid(3), Role::Primary)
    );
    assert_eq!(all[0].serving, Some(Epoch(2)));
    let cluster = world.cluster();
    assert_eq!(
        cluster.operations.last().unwrap().status,
        OperationStatus::Completed
    );
    assert_eq!(world.settle(), "");
}

#[test]
fn a_replica_moves_without_a_change_of_roles() {
    let mut world = created(true, 1);
    let before = shards(&world);
    let free = (1..=3)
        .find(|n| before.iter().all(|s| s.node.0 != *n))
        .unwrap();
    migrate(&mut world, these(&[2]), free).unwrap();
    let story = world.settle();
    assert!(!story.contains(" moves to "), "{story}");
    let after = shards(&world);
    assert_eq!(after.len(), 2);
    assert_eq!(after[0].serving, Some(Epoch(1)));
    assert_eq!((after[1].node.0, after[1].role), (free, Role::Replica));
    assert!(after[1].synced.is_some());
}

#[test]
fn a_node_is_emptied() {
    let mut world = created(false, 4);
    let node = shards(&world)[0].node;
    let to = if node == NodeUid(1) { 2 } else { 1 };
    let what = MigrateWhat::Node { node, role: None };
    migrate(&mut world, what.clone(), to).unwrap();
    world.settle();
    assert!(shards(&world).iter().all(|s| s.node == NodeUid(to)));
    assert_eq!(shards(&world).len(), 4);
    assert_eq!(
        migrate(&mut world, what, to),
        Err(ErrorCode::InvalidParam),
        "nothing is left"
    );
}

/// The copy's node falls silent before it is synced: it is waited for, and nothing is lost.
#[test]
fn a_copy_that_does_not_sync_is_waited_for() {
    let mut world = created(false, 1);
    migrate(&mut world, these(&[1]), 3).unwrap();
    world.settle_one();
    world.silent.push(NodeUid(3));
    let story = world.settle();
    assert!(story.contains("waits: node:3 is not heard"), "{story}");
    assert_eq!(shards(&world)[0].serving, Some(Epoch(1)));
    world.silent.clear();
    world.settle();
    assert_eq!(shards(&world).len(), 1);
    assert_eq!(shards(&world)[0].node, NodeUid(3));
}

#[test]
fn what_cannot_be_is_refused_and_nothing_changes() {
    let mut world = created(true, 1);
    let all = shards(&world);
    let before = world.state.clone();
    let here = all[0].node.0;
    for (what, node, code) in [
        (these(&[]), 3, ErrorCode::ShardUidsRequired),
        (these(&[9]), 3, ErrorCode::ShardNotExist),
        (these(&[1]), 9, ErrorCode::NodeNotFound),
        // It is there already; its replica is there.
        (these(&[1]), here, ErrorCode::InvalidParam),
        (these(&[1]), all[1].node.0, ErrorCode::InvalidParam),
        (
            MigrateWhat::Database {
                database: DatabaseUid(9),
                role: None,
            },
            3,
            ErrorCode::DbNotFound,
        ),
    ] {
        assert_eq!(migrate(&mut world, what, node), Err(code));
    }
    world.silent.push(NodeUid(3));
    let (code, why) = refusal(&mut world, these(&[1]), 3);
    assert_eq!(code, ErrorCode::NodeDown);
    assert!(
        why.ends_with("it is not heard. Bring it back, or choose another node"),
        "{why}"
    );
    world.silent.clear();
    assert_eq!(world.state, before);
    migrate(&mut world, these(&[1]), 3).unwrap();
    assert_eq!(migrate(&mut world, these(&[2]), 3), Err(ErrorCode::Busy));
}

fn refusal(world: &mut World, what: MigrateWhat, node: u64) -> (ErrorCode, String) {
    let before = world.state.clone();
    let intent = Intent::MigrateShards {
        what,
        node: NodeUid(node),
        override_policy: false,
    };
    let error = world.request(&intent).unwrap_err();
    assert_eq!(world.state, before, "what is refused changes nothing");
    (error.error_code, error.description)
}

fn free_node(world: &World) -> u64 {
    let all = shards(world);
    let free = |node: &u64| all.iter().all(|shard| shard.node.0 != *node);
    (1..=3).find(free).unwrap()
}

/// Neither of two copies is where they are brought to: what counts is where both are then.
#[test]
fn two_copies_are_not_brought_to_one_node_by_one_request() {
    let demo = MigrateWhat::Database {
        database: DatabaseUid(1),
        role: None,
    };
    for what in [these(&[1, 2]), these(&[2, 1]), demo] {
        let mut world = created(true, 1);
        let free = free_node(&world);
        let (code, why) = refusal(&mut world, what.clone(), free);
        assert_eq!(code, ErrorCode::InvalidParam);
        let together = format!("both would be on node:{free}");
        assert!(why.contains(&together), "{why}");
        // An operator may insist.
        let intent = Intent::MigrateShards {
            what,
            node: NodeUid(free),
            override_policy: true,
        };
        world.request(&intent).unwrap();
        world.settle();
        let all = shards(&world);
        assert!(all.iter().all(|s| s.node.0 == free), "{all:?}");
        assert_eq!(all.len(), 2);
        // Maintenance does not bring them to one node again, however much room that has.
        with_memory(&mut world, free % 3 + 1, 64 << 30);
        let on = Intent::MaintenanceOn {
            node: NodeUid(free),
            wish: MaintenanceWish::default(),
            pace: Pace::default(),
        };
        world.request(&on).unwrap();
        world.settle();
        let apart = shards(&world);
        assert_ne!(apart[0].node, apart[1].node);
        assert!(apart.iter().all(|s| s.node.0 != free), "{apart:?}");
        // What comes back is one of them: together is what nobody asks for now.
        let off = Intent::MaintenanceOff {
            node: NodeUid(free),
            restore: Restore::Newest,
            pace: Pace::default(),
        };
        world.request(&off).unwrap();
        world.settle();
        let back = shards(&world);
        assert_eq!(back.iter().filter(|s| s.node.0 == free).count(), 1);
    }
}

fn with_memory(world: &mut World, node: u64, bytes: u64) {
    let mut doc = world.cluster().node(NodeUid(node)).unwrap().doc.clone();
    doc.memory_bytes = bytes;
    world.apply(&Txn {
        put: vec![(keys::node(doc.uid), json!(doc))],
        ..Txn::default()
    });
}

/// Each of them has room, all of them have not: that is said at once, not found out on the way.
#[test]
fn shards_that_fit_one_by_one_and_not_together() {
    let mut world = created(false, 4);
    let here = shards(&world)[0].node.0;
    let to = if here == 3 { 2 } else { 3 };
    let all = these(&[1, 2, 3, 4]);
    let share = shards(&world)[0].memory_bytes;
    with_memory(&mut world, to, 3 * share);
    let (code, why) = refusal(&mut world, all.clone(), to);
    assert_eq!(code, ErrorCode::InsufficientResources);
    assert_eq!(
        why,
        format!(
            "node:{to} has no room for a shard of 256MB besides the 3 that come before it: it has 0KB left"
        )
    );
    // Nor after another request has promised it that room.
    let two = Intent::CreateDatabase(DatabaseSpec {
        name: "other".into(),
        memory_size: 2 * share,
        ..DatabaseSpec::default()
    });
    with_memory(&mut world, to, 0);
    world.request(&two).unwrap();
    world.settle();
    let other = shards(&world)[4].uid.0;
    with_memory(&mut world, to, 4 * share);
    migrate(&mut world, these(&[other]), to).unwrap();
    let (code, why) = refusal(&mut world, these(&[1, 2, 3]), to);
    assert_eq!(code, ErrorCode::InsufficientResources, "{why}");
    migrate(&mut world, these(&[1, 2]), to).unwrap();
    world.settle();
    assert_eq!(shards(&world).iter().filter(|s| s.node.0 == to).count(), 3);
}

/// Each step looks again: an operation that would bring two copies together waits, with the reason. One of
/// release 1.1.0, which did not keep whether an operator had insisted, goes on as it did there.
#[test]
fn a_step_does_not_bring_two_copies_together() {
    for kept in [Some(false), None] {
        let mut world = created(true, 1);
        let free = free_node(&world);
        migrate(&mut world, these(&[1]), free).unwrap();
        let mut doc = world.cluster().operations.last().unwrap().doc.clone();
        doc.override_policy = kept;
        doc.migrations.push(Migration {
            shard: ShardUid(2),
            node: NodeUid(free),
            copy: None,
            role: None,
        });
        world.apply(&Txn {
            put: vec![(keys::operation(&doc.uid), json!(doc))],
            ..Txn::default()
        });
        let story = world.settle();
        let there = shards(&world).iter().filter(|s| s.node.0 == free).count();
        match kept {
            Some(_) => {
                assert!(story.contains("both would be on"), "{story}");
                assert_eq!(there, 0);
            }
            None => assert_eq!(there, 2, "{story}"),
        }
    }
}

/// The engine of a primary dies on its way, at any step: the role comes to the target all the same, and nothing ends before.
#[test]
fn a_primary_comes_to_its_target_though_another_took_its_place() {
    for steps in 0..10 {
        let mut world = created(true, 1);
        let target = free_node(&world);
        let replica = shards(&world).remove(1);
        migrate(&mut world, these(&[1]), target).unwrap();
        for _ in 0..steps {
            world.settle_one();
        }
        let has = |world: &World, role: Role| {
            let mut there = shards(world).into_iter().filter(|s| s.node.0 == target);
            there.any(|s| s.role == role)
        };
        if has(&world, Role::Primary) {
            assert!(steps > 2);
            break;
        }
        world.crash(ShardUid(1));
        world.link(ShardUid(2), false, false);
        let story = world.settle();
        let all = shards(&world);
        let on = |node: u64| -> Vec<Role> {
            all.iter()
                .filter(|s| s.node.0 == node)
                .map(|s| s.role)
                .collect()
        };
        assert_eq!(on(target), [Role::Primary], "{steps}: {story}");
        assert_eq!(on(replica.node.0), [Role::Replica], "{story}");
        assert_eq!(all.len(), 2, "{story}");
        let operation = world.cluster().operations.last().unwrap().doc.clone();
        assert_eq!(operation.status, OperationStatus::Completed, "{story}");
    }
}
