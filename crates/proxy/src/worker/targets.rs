//! Following the configuration: which engine each shard is, and what becomes of connections to the one
//! before.

use super::Worker;
use super::allowance::AtRate;
use super::backend::{Phase, Use};
use super::gate::same_place;
use super::link::{LinkId, Served, ShardLinks};
use super::pause::Held;
use super::timers::Timer;
use crate::bounds;
use crate::topology::Topology;
use model::proxy::ProxyShard;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

impl Worker {
    /// Serves another configuration.
    pub(super) fn apply(&mut self, topology: &Arc<Topology>) {
        self.name_markers(&topology.cluster_id);
        let gone: Vec<usize> = self
            .by_uid
            .iter()
            .filter(|(uid, _)| !topology.databases.contains_key(uid))
            .map(|(_, served)| *served)
            .collect();
        for served in gone {
            self.remove_database(served);
        }
        for database in topology.databases.values() {
            let served = *self.by_uid.entry(database.uid).or_insert_with(|| {
                self.served.insert(Served {
                    database: Arc::clone(database),
                    stats: database.stats.of_worker(self.number),
                    shards: vec![ShardLinks::default()],
                    ends: Vec::new(),
                    engine: None,
                    pause: Held::default(),
                    at_rate: AtRate::default(),
                })
            });
            let known = &mut self.served[served];
            known.stats.set_slow_from(database.limits.slow_us);
            let before = std::mem::replace(&mut known.database, Arc::clone(database));
            self.follow_rate(served, before.rate.as_ref());
            self.set_targets(served);
            if database.drains && !before.drains {
                for index in self.fronts(|client| client.served == served) {
                    self.close_if_done(index);
                }
            }
            for shard in 0..self.served[served].shards.len() {
                self.follow_lease(served, shard);
            }
        }
        let mut databases = topology.databases.values();
        self.leases.any = databases.any(|database| database.lease.is_some());
        self.look_at_pauses();
        self.others = Arc::clone(&topology.workers);
        let (applied, edition) = (&self.state.applied, &self.state.edition);
        applied.store(topology.revision.0, Ordering::Release);
        edition.store(topology.edition, Ordering::Release);
    }

    fn remove_database(&mut self, served: usize) {
        self.by_uid.retain(|_, known| *known != served);
        for index in self.fronts(|client| client.served == served) {
            self.remove_client(index);
        }
        let backends: Vec<usize> = self
            .backends
            .iter()
            .filter(|(_, b)| b.link.served == served)
            .map(|(i, _)| i)
            .collect();
        for index in backends {
            self.drop_backend(index);
        }
        self.served.remove(served);
    }

    /// Follows the shards that the configuration names now.
    fn set_targets(&mut self, served: usize) {
        let known = &self.served[served];
        let wanted: Vec<ProxyShard> = known.database.shards.clone();
        let ends: Vec<u16> = wanted.iter().map(|shard| shard.slots.last).collect();
        // No primary is known at the moment: the shards are as they were.
        if wanted.is_empty() {
            for shard in 0..known.shards.len() {
                self.set_target(served, shard, None);
            }
            return;
        }
        if known.ends != ends {
            self.change_shards(served, ends);
        }
        for (shard, target) in wanted.into_iter().enumerate() {
            self.set_target(served, shard, Some(target));
        }
    }

    /// Another number of shards, or other slots: what the clients have under way is lost.
    fn change_shards(&mut self, served: usize, ends: Vec<u16>) {
        let fresh = self.served[served].ends.is_empty() && ends.len() == 1;
        if !fresh {
            for index in self.fronts(|client| client.served == served) {
                self.close_client(index);
            }
            for index in self.backends_of(served, None) {
                self.lose(index, "the shards have changed");
            }
            let shards = ends.iter().map(|_| ShardLinks::default()).collect();
            self.served[served].shards = shards;
        }
        self.served[served].ends = ends;
    }

    pub(super) fn backends_of(&self, served: usize, shard: Option<usize>) -> Vec<usize> {
        self.backends
            .iter()
            .filter(|(_, backend)| {
                backend.link.served == served
                    && shard.is_none_or(|shard| backend.link.shard == shard)
            })
            .map(|(index, _)| index)
            .collect()
    }

    fn set_target(&mut self, served: usize, shard: usize, wanted: Option<ProxyShard>) {
        let leased = self.served[served].database.lease.is_some();
        let links = &mut self.served[served].shards[shard];
        let known = links.target.as_ref().map(|old| old.epoch);
        let withheld = leased && !wanted.as_ref().is_some_and(|new| new.serving);
        if let Some(new) = &wanted
            && new.epoch < known.unwrap_or_default().max(links.least)
        {
            if !withheld {
                // An order was faster than the configuration.
                return;
            }
            links.least = links.least.max(known.unwrap_or_default());
        }
        if withheld {
            self.withhold(served, shard);
        }
        if self.keeps_gate(served, shard, wanted.as_ref()) {
            return;
        }
        let wanted = wanted.filter(|shard| shard.serving);
        let links = &mut self.served[served].shards[shard];
        if links.target == wanted && (wanted.is_some() || links.number > 0) {
            return;
        }
        let same =
            matches!((&links.target, &wanted), (Some(old), Some(new)) if same_place(old, new));
        if let Some(next) = wanted.clone()
            && !same
            && links.gate.is_some()
        {
            self.take_over(served, shard, next);
            return;
        }
        links.target = wanted;
        if same {
            return;
        }
        let number = self.new_target(served, shard);
        let links = &mut self.served[served].shards[shard];
        links.number = number;
        links.unloaded = true;
        for link in &mut links.links {
            link.scripts = None;
        }
        self.forget_prepared(served, shard, "the shard has no primary");
        if self.close_if_noted(served, shard) {
            return;
        }
        self.report_link(served, shard, Some("no primary is known".to_owned()));
        for index in self.backends_of(served, Some(shard)) {
            // What was given up before it may have ended this one too.
            let backend = self.backends.get(index);
            if backend.is_some_and(|backend| backend.target != number) {
                self.retire(index);
            }
        }
        for resp in [2, 3] {
            let id = LinkId {
                served,
                shard,
                resp,
            };
            if let Some(link) = self.link_mut(id) {
                link.pause = Duration::ZERO;
                let wanted = resp == 2 || !link.waiters.is_empty();
                link.down_since = None;
                if wanted {
                    self.need(id);
                }
            }
        }
    }

    /// A number for another target of a shard.
    pub(super) fn new_target(&mut self, served: usize, shard: usize) -> u64 {
        let links = &mut self.served[served].shards[shard];
        links.numbers += 1;
        links.numbers
    }

    /// Takes a connection of an earlier target out of use, after what is in flight.
    pub(super) fn retire(&mut self, index: usize) {
        if self.is_given_up(index) {
            self.give_up(index, "the shard's epoch has changed");
            return;
        }
        let backend = &self.backends[index];
        let generation = backend.generation;
        match backend.usage {
            _ if backend.phase != Phase::Ready => self.lose(index, "the shard's epoch has changed"),
            Use::Idle(_) => self.drop_backend(index),
            Use::Shared => self.detach(index),
            Use::Leaving | Use::Next(_) => {}
            Use::Own(_) if backend.clean() => self.lose(index, "the shard's epoch has changed"),
            Use::Own(_) => {}
        }
        if self
            .backends
            .get(index)
            .is_some_and(|backend| backend.generation == generation)
        {
            self.timers
                .set(bounds::RETIRE, Timer::Retire(index, generation));
        }
    }

    /// Lets a shared connection finish what is in flight; the next command opens another one.
    pub(super) fn detach(&mut self, index: usize) {
        let backend = &mut self.backends[index];
        backend.usage = Use::Leaving;
        let (id, empty) = (
            backend.link,
            backend.book.is_empty() && backend.out.is_empty(),
        );
        if let Some(link) = self.link_mut(id)
            && link.shared == Some(index)
        {
            link.shared = None;
            link.ready = false;
            link.down_since = None;
        }
        self.no_script_lane(id, index);
        if empty {
            self.drop_backend(index);
        }
    }
}
