//! Forbids that a member of a set has a later epoch than its primary, or has served in one.
//!
//! It cannot see what agents know of epochs.

use super::set;
use crate::world::World;
use model::documents::Role;

pub(super) fn epochs_agree(world: &World) -> Result<(), String> {
    let cluster = world.cluster();
    for primary in cluster.shards.iter().filter(|s| s.role == Role::Primary) {
        let members = cluster.shards.iter().filter(|s| set(s) == set(primary));
        for member in members {
            if member.epoch > primary.epoch {
                return Err(format!(
                    "redis:{} has epoch {}, its primary {}",
                    member.uid, member.epoch, primary.epoch
                ));
            }
            if member.serving > Some(primary.epoch) {
                return Err(format!("redis:{} served in an epoch to come", member.uid));
            }
        }
    }
    Ok(())
}
