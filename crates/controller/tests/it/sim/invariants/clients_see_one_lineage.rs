//! Forbids that a client can write to an engine whose epoch is over: that another engine, or the same one in a later
//! epoch, serves meanwhile; and that clients of two proxies can write to two engines of a set.
//!
//! A proxy can write as its configuration, its lease and its gates let it. It cannot see commands that are in flight
//! (`tests/protocol`), nor proxies that go on by promises.

use super::super::proxies::Way;
use crate::world::World;
use std::collections::BTreeMap;

pub(super) fn clients_see_one_lineage(world: &World, ways: &[Way]) -> Result<(), String> {
    let cluster = world.cluster();
    let mut serving = BTreeMap::new();
    for primary in cluster.shards.iter().filter(|s| s.is_serving()) {
        serving.insert(super::set(primary), (primary.uid, primary.epoch));
    }
    for way in ways {
        if let Some((uid, epoch)) = serving.get(&way.of)
            && way.epoch < *epoch
        {
            return Err(format!(
                "redis:{uid} serves in epoch {epoch}, and clients of node:{} write to redis:{} in epoch {}",
                way.node, way.shard, way.epoch
            ));
        }
        let mut others = ways.iter();
        if let Some(other) = others.find(|other| other.of == way.of && other.shard != way.shard) {
            return Err(format!(
                "clients of node:{} write to redis:{}, those of node:{} to redis:{}",
                way.node, way.shard, other.node, other.shard
            ));
        }
    }
    Ok(())
}
