//! Forbids that a process is given a role of an earlier epoch than it had: an order of a primary node that was replaced,
//! or one that came late, was carried out.
//!
//! It cannot see whether anybody uses the role.

use crate::world::World;
use model::{Epoch, ShardUid};
use std::collections::BTreeMap;

/// The highest epoch in which each process had a role.
#[derive(Debug, Default)]
pub(super) struct Roles {
    had: BTreeMap<(ShardUid, String), Epoch>,
}

impl Roles {
    pub(super) fn epochs_only_rise(&mut self, world: &World) -> Result<(), String> {
        for seen in world.nodes.values().flat_map(|node| &node.shards) {
            let (Some(run_id), Some(epoch)) = (&seen.run_id, seen.epoch) else {
                continue;
            };
            let had = self.had.entry((seen.shard, run_id.clone()));
            let had = had.or_insert(epoch);
            if epoch < *had {
                return Err(format!(
                    "redis:{} has a role of epoch {epoch}, it had one of epoch {had}",
                    seen.shard
                ));
            }
            *had = epoch;
        }
        Ok(())
    }
}
