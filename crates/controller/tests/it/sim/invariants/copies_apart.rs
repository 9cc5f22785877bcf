//! Forbids that two copies of a slot are on one node.
//!
//! It cannot see racks (`racks.rs`), nor copies that are being removed.

use super::set;
use crate::world::World;

pub(super) fn copies_apart(world: &World) -> Result<(), String> {
    let cluster = world.cluster();
    for (index, shard) in cluster.shards.iter().enumerate() {
        let twin = cluster.shards[index + 1..].iter().find(|other| {
            set(other) == set(shard)
                && other.node == shard.node
                && other.removed_by.is_none()
                && shard.removed_by.is_none()
        });
        if let Some(twin) = twin {
            return Err(format!(
                "redis:{} and redis:{} are on one node",
                shard.uid, twin.uid
            ));
        }
    }
    Ok(())
}
