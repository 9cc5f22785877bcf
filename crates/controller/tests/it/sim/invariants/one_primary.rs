//! Forbids that a slot has no primary in the store, or two.
//!
//! It cannot see engines: what the store says and what runs are held together by the others.

use crate::world::World;
use model::documents::Role;

pub(super) fn one_primary(world: &World) -> Result<(), String> {
    let cluster = world.cluster();
    for database in &cluster.databases {
        let mut slots: Vec<_> = cluster
            .shards_of(database.uid)
            .filter(|s| s.role == Role::Primary)
            .map(|s| (s.slots.first, s.slots.last))
            .collect();
        slots.sort_unstable();
        let mut next = 0_u32;
        for (first, last) in &slots {
            if u32::from(*first) != next {
                return Err(format!("db:{}: slots {slots:?}", database.uid));
            }
            next = u32::from(*last) + 1;
        }
        if next != 16_384 {
            return Err(format!("db:{}: slots {slots:?}", database.uid));
        }
    }
    Ok(())
}
