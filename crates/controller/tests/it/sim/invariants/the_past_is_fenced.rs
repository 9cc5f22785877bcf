//! Forbids that, while somebody serves, another engine of the set is left that lets clients of an older epoch
//! write.
//!
//! It cannot see engines that were out of sight when their epoch ended: until they are ordered again leases fence
//! them, which `tests/protocol` holds.

use super::set;
use crate::world::World;

pub(super) fn the_past_is_fenced(world: &World) -> Result<(), String> {
    let cluster = world.cluster();
    for primary in cluster.shards.iter().filter(|s| s.is_serving()) {
        let others = cluster
            .shards
            .iter()
            .filter(|s| set(s) == set(primary) && s.uid != primary.uid)
            .filter(|s| !world.out_of_sight.contains(&s.uid));
        for other in others {
            if let Some(epoch) = world.primary_in(other.uid) {
                return Err(format!(
                    "redis:{} serves, and redis:{} still is primary of epoch {epoch}",
                    primary.uid, other.uid
                ));
            }
        }
    }
    Ok(())
}
