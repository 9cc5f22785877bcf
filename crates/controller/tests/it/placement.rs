//! Which node and port a shard gets, and why not.

use crate::world::World;
use model::intent::{DatabaseSpec, Intent};
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

proptest! {
    #[test]
    fn nothing_is_promised_twice(sizes in prop::collection::vec(1_u64..6, 1..20)) {
        let mut world = World::with_nodes(3);
        for (number, size) in sizes.iter().enumerate() {
            let _ = world.request(&Intent::CreateDatabase(spec(&format!("d{number}"), size << 29)));
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
