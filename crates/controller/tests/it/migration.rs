//! Shards brought to other nodes.

use crate::world::World;
use model::documents::{OperationStatus, Role, Shard};
use model::intent::{DatabaseSpec, Intent, MigrateWhat};
use model::{DatabaseUid, Epoch, ErrorCode, NodeUid, ShardUid};

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
    assert_eq!(
        migrate(&mut world, these(&[1]), 3),
        Err(ErrorCode::InsufficientResources)
    );
    world.silent.clear();
    assert_eq!(world.state, before);
    migrate(&mut world, these(&[1]), 3).unwrap();
    assert_eq!(migrate(&mut world, these(&[2]), 3), Err(ErrorCode::Busy));
}
