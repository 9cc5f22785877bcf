//! Which node and port a shard gets, and why not.

use crate::intents::switch_on;
use crate::world::World;
use model::documents::ShardsPlacement;
use model::intent::{DatabaseChange, DatabaseSpec, Intent};
use model::limits::{SHARD_MEMORY_MIN, SHARDS_COUNT_MAX, SHARDS_PER_NODE_MAX};
use model::{ErrorCode, NodeUid};
use proptest::prelude::*;

fn spec(name: &str, memory_size: u64) -> DatabaseSpec {
    DatabaseSpec {
        name: name.into(),
        memory_size,
        ..DatabaseSpec::default()
    }
}

#[test]
fn the_node_with_most_room_is_taken() {
    let mut world = World::with_nodes(3);
    for (name, node) in [("a", 1), ("b", 2), ("c", 3), ("d", 1)] {
        world.create(name).unwrap();
        world.settle();
        assert_eq!(
            world.cluster().shards.last().unwrap().node,
            NodeUid(node),
            "{name}"
        );
    }
}

#[test]
fn no_room_is_explained_node_by_node() {
    let mut world = World::with_nodes(3);
    world.silent.push(NodeUid(2));
    let error = world
        .request(&Intent::CreateDatabase(spec("big", 5 << 30)))
        .unwrap_err();
    assert_eq!(error.error_code, ErrorCode::InsufficientResources);
    assert_eq!(
        error.description,
        "no node has room for 5GB: node:1 has 4GB left; node:2 is not heard; node:3 has 4GB left"
    );
}

fn spread(name: &str, memory_size: u64, count: u32, placement: ShardsPlacement) -> Intent {
    Intent::CreateDatabase(DatabaseSpec {
        shards_count: Some(count),
        shards_placement: Some(placement),
        ..spec(name, memory_size)
    })
}

/// The shards of the newest database as `redis:<uid> node:<uid> <port> <slots> <MiB>`.
fn newest(world: &World) -> String {
    let state = world.cluster();
    let uid = state.databases.last().unwrap().uid;
    let shards = state.shards_of(uid).map(|s| {
        format!(
            "redis:{} node:{} {} {}-{} {}\n",
            s.uid,
            s.node,
            s.port,
            s.slots.first,
            s.slots.last,
            s.memory_bytes >> 20
        )
    });
    shards.collect()
}

/// Every node of a test has 4 GiB.
#[test]
fn dense_fills_a_node_then_the_next() {
    let mut world = World::with_nodes(3);
    let dense = ShardsPlacement::Dense;
    world.request(&spread("a", 3 << 30, 3, dense)).unwrap();
    insta::assert_snapshot!(newest(&world), @"
    redis:1 node:1 20000 0-5461 1024
    redis:2 node:1 20001 5462-10922 1024
    redis:3 node:1 20002 10923-16383 1024
    ");
    world.request(&spread("b", 5 << 30, 5, dense)).unwrap();
    insta::assert_snapshot!(newest(&world), @"
    redis:4 node:2 20003 0-3276 1024
    redis:5 node:2 20004 3277-6553 1024
    redis:6 node:2 20005 6554-9830 1024
    redis:7 node:2 20006 9831-13107 1024
    redis:8 node:3 20007 13108-16383 1024
    ");
}

#[test]
fn sparse_takes_the_nodes_in_turn() {
    let mut world = World::with_nodes(3);
    let sparse = ShardsPlacement::Sparse;
    world.request(&spread("a", 2 << 30, 4, sparse)).unwrap();
    insta::assert_snapshot!(newest(&world), @"
    redis:1 node:1 20000 0-4095 512
    redis:2 node:2 20001 4096-8191 512
    redis:3 node:3 20002 8192-12287 512
    redis:4 node:1 20003 12288-16383 512
    ");
    // Each round begins where most room is; a node without room is passed over.
    world.request(&spread("b", 5 << 29, 1, sparse)).unwrap();
    assert!(newest(&world).starts_with("redis:5 node:2"));
    world.request(&spread("c", 5 << 30, 4, sparse)).unwrap();
    insta::assert_snapshot!(newest(&world), @"
    redis:6 node:3 20005 0-4095 1280
    redis:7 node:1 20006 4096-8191 1280
    redis:8 node:3 20007 8192-12287 1280
    redis:9 node:1 20008 12288-16383 1280
    ");
}

/// How many copies of the newest database each node has.
fn copies(world: &World) -> Vec<usize> {
    let state = world.cluster();
    let uid = state.databases.last().unwrap().uid;
    let on = |node| state.shards_of(uid).filter(|s| s.node == node).count();
    state.nodes.iter().map(|node| on(node.uid)).collect()
}

fn uneven(copies: &[usize]) -> usize {
    copies.iter().max().unwrap() - copies.iter().min().unwrap()
}

/// However full the nodes are, as long as each has room: replicas too, whether the database begins with them or gets
/// them later.
#[test]
fn sparse_is_even() {
    for nodes in 2..=5 {
        for (count, first, later) in (1..=12).flat_map(|count| {
            let both = [(true, false), (false, false), (false, true)];
            both.map(|(first, later)| (count, first, later))
        }) {
            let mut world = World::with_nodes(nodes);
            // One node is fuller than the others.
            world.create("other").unwrap();
            world.settle();
            let memory = u64::from(count) * (64 << 20);
            let spec = DatabaseSpec {
                shards_count: Some(count),
                shards_placement: Some(ShardsPlacement::Sparse),
                replication: Some(first),
                ..spec("even", memory)
            };
            world.request(&Intent::CreateDatabase(spec)).unwrap();
            let story = format!("{count} shards on {nodes} nodes: {:?}", copies(&world));
            assert!(uneven(&copies(&world)) <= 1, "{story}");
            if later {
                world.settle();
                let change = DatabaseChange {
                    replication: Some(true),
                    memory_size: Some(2 * memory),
                    ..DatabaseChange::default()
                };
                let database = world.cluster().databases[1].uid;
                let change = Box::new(change);
                let update = Intent::UpdateDatabase { database, change };
                world.request(&update).unwrap();
                let story = format!("{count} shards on {nodes} nodes: {:?}", copies(&world));
                assert!(uneven(&copies(&world)) <= 1, "{story}");
            }
        }
    }
}

/// What leaves a node goes to the others in equal parts, though one of them has less room.
#[test]
fn sparse_stays_even_when_a_node_is_emptied() {
    let mut world = World::with_nodes(3);
    world
        .request(&spread("other", 2 << 30, 1, ShardsPlacement::Dense))
        .unwrap();
    world
        .request(&spread("even", 768 << 20, 6, ShardsPlacement::Sparse))
        .unwrap();
    world.settle();
    assert_eq!(copies(&world), [2, 2, 2]);
    world.request(&switch_on(NodeUid(3))).unwrap();
    world.settle();
    assert_eq!(copies(&world), [3, 3, 0]);
}

#[test]
fn a_node_that_takes_no_shards_is_passed_over() {
    for placement in [ShardsPlacement::Dense, ShardsPlacement::Sparse] {
        let mut world = World::with_nodes(3);
        world.silent.push(NodeUid(2));
        world.request(&spread("a", 6 << 30, 6, placement)).unwrap();
        assert!(!newest(&world).contains("node:2"), "{}", newest(&world));
        let error = world
            .request(&spread("b", 4 << 30, 4, placement))
            .unwrap_err();
        assert_eq!(error.error_code, ErrorCode::InsufficientResources);
        let (head, _) = error.description.split_once(": ").unwrap();
        assert_eq!(
            head,
            "2 of 4 shards of 1GB have a place, no node has room for one more"
        );
        assert!(error.description.contains("node:2 is not heard"), "{error}");
    }
}

#[test]
fn the_largest_database_is_one_transaction_and_nodes_have_a_limit_of_shards() {
    let mut world = World::with_nodes(1);
    let memory = u64::from(SHARDS_COUNT_MAX) * SHARD_MEMORY_MIN;
    let most = |name| spread(name, memory, SHARDS_COUNT_MAX, ShardsPlacement::Dense);
    world.request(&most("a")).unwrap();
    let error = world.request(&most("b")).unwrap_err();
    let limit = format!("node:1 has {SHARDS_PER_NODE_MAX} shards already");
    assert!(error.description.ends_with(&limit), "{error}");
}

proptest! {
    #[test]
    fn nothing_is_promised_twice(
        sizes in prop::collection::vec((1_u64..6, 1_u32..9, any::<bool>()), 1..20)
    ) {
        let mut world = World::with_nodes(3);
        for (number, (size, count, dense)) in sizes.into_iter().enumerate() {
            let placement = if dense { ShardsPlacement::Dense } else { ShardsPlacement::Sparse };
            let _ = world.request(&spread(&format!("d{number}"), size << 29, count, placement));
        }
        let state = world.cluster();
        for node in &state.nodes {
            prop_assert!(state.promised_memory(node.uid) <= node.memory_bytes);
        }
        let mut ports: Vec<u16> = state.shards.iter().map(|s| s.port).collect();
        ports.extend(state.databases.iter().map(|d| d.port));
        let count = ports.len();
        ports.sort_unstable();
        ports.dedup();
        prop_assert_eq!(ports.len(), count);
    }
}

/// A primary node that has just begun knows of no engine: that passes, and is no wrong version.
#[test]
fn a_primary_node_that_has_heard_nobody_asks_to_try_again() {
    let mut world = World::with_nodes(3);
    world.silent = (1..=3).map(NodeUid).collect();
    let error = world.create("demo").unwrap_err();
    assert_eq!(error.error_code, ErrorCode::NotReady, "{error}");
}
