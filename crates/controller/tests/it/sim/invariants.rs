//! What must hold after every step. One function each.

use crate::world::World;
use model::documents::{Role, Shard};
use model::{DatabaseUid, Epoch};
use std::collections::BTreeMap;

/// Whose slots: a database and the first of them.
type Set = (DatabaseUid, u16);

/// What was seen so far, that the future must answer for.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// How far data go that clients were told of and that a recorded replica has.
    kept: BTreeMap<Set, u64>,
    /// The highest epoch in which somebody served, and who.
    served: BTreeMap<Set, (Epoch, u64)>,
    broken: Option<String>,
}

fn set(shard: &Shard) -> Set {
    (shard.database, shard.slots.first)
}

impl Ledger {
    /// Takes in how the world is now.
    pub(crate) fn look(&mut self, world: &World) {
        let cluster = world.cluster();
        for primary in cluster.shards.iter().filter(|s| s.role == Role::Primary) {
            let of = set(primary);
            if primary.is_serving() && world.takes_writes(primary) {
                let offset = world.offset(primary.uid).unwrap_or(0);
                let kept = self.kept.get(&of).copied().unwrap_or(0);
                let newly = self
                    .served
                    .get(&of)
                    .is_none_or(|(epoch, _)| *epoch < primary.epoch);
                if newly && offset < kept {
                    self.broken = Some(format!(
                        "redis:{} serves in epoch {} with {offset} bytes, {kept} were safe",
                        primary.uid, primary.epoch
                    ));
                }
                self.served.insert(of, (primary.epoch, primary.uid.0));
            }
            self.keep(world, primary);
        }
    }

    /// What is safe: what every recorded replica has, since any of them may be the only one that is heard
    /// when the primary is gone; without one, what the primary finds on its disk.
    fn keep(&mut self, world: &World, primary: &Shard) {
        let cluster = world.cluster();
        let of = set(primary);
        let recorded = cluster.shards.iter().filter(|s| {
            let process = world.run_id(s.uid);
            set(s) == of
                && s.removed_by.is_none()
                && !world.forged.contains(&s.uid)
                && s.synced
                    .as_ref()
                    .is_some_and(|r| Some(&r.run_id) == process.as_ref())
        });
        let safe = recorded.filter_map(|s| world.offset(s.uid)).min();
        let persistent = world.persistent.contains(&primary.database);
        let own = persistent
            .then(|| {
                world
                    .offset(primary.uid)
                    .or_else(|| world.on_disk(primary.uid))
            })
            .flatten();
        let now = safe.or(own).unwrap_or(0);
        if primary.is_serving() {
            self.kept.insert(of, now);
            return;
        }
        // Between two epochs nothing is added; what is nowhere any more is lost for good, and so is what
        // only a replica has that was never recorded.
        let of_set = || cluster.shards.iter().filter(|s| set(s) == of);
        let last = of_set().filter_map(|s| s.serving).max();
        let served = |s: &Shard| s.serving.is_some() && s.serving == last;
        let counts = |s: &Shard| s.synced.is_some() || served(s) || s.uid == primary.uid;
        let members = cluster.shards.iter().filter(|s| set(s) == of && counts(s));
        let left = members
            .filter_map(|s| world.offset(s.uid).max(world.on_disk(s.uid)))
            .max()
            .unwrap_or(0);
        let kept = self.kept.entry(of).or_default();
        *kept = (*kept).min(left);
    }
}

/// All of them.
pub(crate) fn all(world: &World, ledger: &Ledger) -> Result<(), String> {
    if let Some(broken) = &ledger.broken {
        return Err(broken.clone());
    }
    one_primary(world)?;
    one_taker_of_writes(world)?;
    the_past_is_fenced(world)?;
    epochs_agree(world)?;
    copies_apart(world)
}

/// Every slot has exactly one primary in the store.
fn one_primary(world: &World) -> Result<(), String> {
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

/// No two engines of a set take writes of the epoch in which clients are served.
fn one_taker_of_writes(world: &World) -> Result<(), String> {
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

/// While somebody serves, no other engine of the set is left that lets clients of an older epoch write. One
/// that was out of sight is fenced by leases until it is ordered again: `tests/protocol`.
fn the_past_is_fenced(world: &World) -> Result<(), String> {
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

/// The members of a set have its primary's epoch; one that was just created may not have served.
fn epochs_agree(world: &World) -> Result<(), String> {
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

/// No two copies of a slot are on one node.
fn copies_apart(world: &World) -> Result<(), String> {
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
