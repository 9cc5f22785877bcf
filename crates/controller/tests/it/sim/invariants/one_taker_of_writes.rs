//! Forbids that two engines of a set take writes of the same epoch.
//!
//! It cannot see whether a client reaches either, nor engines of different epochs.

use super::{Set, set};
use crate::world::World;
use model::Epoch;
use std::collections::BTreeMap;

pub(super) fn one_taker_of_writes(world: &World) -> Result<(), String> {
    let cluster = world.cluster();
    let mut takers: BTreeMap<(Set, Epoch), u64> = BTreeMap::new();
    for shard in &cluster.shards {
        let Some(epoch) = world.primary_in(shard.uid) else {
            continue;
        };
        if let Some(other) = takers.insert((set(shard), epoch), shard.uid.0) {
            return Err(format!(
                "redis:{other} and redis:{} are primaries of epoch {epoch}",
                shard.uid
            ));
        }
    }
    Ok(())
}
