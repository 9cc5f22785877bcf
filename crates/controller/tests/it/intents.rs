//! What operators ask for, and a database to ask it of.

use crate::world::World;
use model::NodeUid;
use model::intent::{DatabaseSpec, Intent, MaintenanceWish, Pace, Restore};

/// A cluster with one database of 256 MB a primary, `demo`, of which every copy is there.
pub(crate) fn with_demo(nodes: u64, shards: u32, replication: bool) -> World {
    let mut world = World::with_nodes(nodes);
    create(&mut world, "demo", replication, shards);
    world
}

pub(crate) fn create(world: &mut World, name: &str, replication: bool, shards: u32) {
    let spec = DatabaseSpec {
        name: name.into(),
        memory_size: 256 << 20,
        shards_count: Some(shards),
        replication: Some(replication),
        ..DatabaseSpec::default()
    };
    world.request(&Intent::CreateDatabase(spec)).unwrap();
    world.settle();
}

pub(crate) fn switch_on(node: NodeUid) -> Intent {
    Intent::MaintenanceOn {
        node,
        wish: MaintenanceWish::default(),
        pace: Pace::default(),
    }
}

pub(crate) fn switch_off(node: NodeUid) -> Intent {
    Intent::MaintenanceOff {
        node,
        restore: Restore::Newest,
        pace: Pace::default(),
    }
}

pub(crate) fn remove(node: NodeUid) -> Intent {
    Intent::RemoveNode {
        node,
        pace: Pace::default(),
    }
}

pub(crate) fn enslave(node: NodeUid, pass_over_busy: bool) -> Intent {
    Intent::EnslaveNode {
        node,
        demote_node: false,
        pass_over_busy,
        pace: Pace::default(),
    }
}
