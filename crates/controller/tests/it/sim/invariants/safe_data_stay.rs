//! Forbids that somebody serves without what was safe: what clients wrote and every recorded replica has, or the
//! primary's disk where there is none.
//!
//! It cannot see what only some replicas have, since any of them may be the only one that is heard when the primary
//! is gone; nor what stands in the data: `xtask chaos` looks at values.

use super::{Set, set};
use crate::world::World;
use model::Epoch;
use model::documents::{Role, Shard};
use std::collections::BTreeMap;

/// What was seen so far, that the future must answer for.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// How far data go that clients were told of and that a recorded replica has.
    kept: BTreeMap<Set, u64>,
    /// The highest epoch in which somebody served, and who.
    served: BTreeMap<Set, (Epoch, u64)>,
    broken: Option<String>,
}

impl Ledger {
    /// Takes in how the world is now.
    pub(super) fn look(&mut self, world: &World) {
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

    /// Whether nothing of it was lost so far.
    pub(super) fn nothing_is_lost(&self) -> Result<(), String> {
        match &self.broken {
            Some(broken) => Err(broken.clone()),
            None => Ok(()),
        }
    }
}
