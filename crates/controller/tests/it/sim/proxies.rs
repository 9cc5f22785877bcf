//! Proxies: which configuration each has applied, until when it has a lease, which gates it holds; and the clients that
//! write through them. Promises, which prolong leases, are left to `tests/protocol`.

use super::invariants::{Set, set};
use super::{Sim, all_nodes};
use crate::world::World;
use controller::leases::ProxyId;
use controller::state::ClusterState;
use model::documents::Role;
use model::lease::LeaseLength;
use model::{Epoch, NodeUid, ShardUid};
use rand::Rng;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How long a lease counts by its holder's clock.
const LENGTH: Duration = Duration::from_nanos(LeaseLength::PRODUCT.holder);
/// How long an agent waits for the end of promises.
const WITHDRAWN: Duration = Duration::from_nanos(LeaseLength::PRODUCT.grantor);

#[derive(Debug, Default)]
pub(super) struct Proxy {
    process: u32,
    /// Its configuration.
    pub(super) config: Option<Rc<ClusterState>>,
    until: Option<Instant>,
    /// Sets whose commands it holds, up to an epoch: only a configuration of a later one lets them go.
    gates: BTreeMap<Set, Epoch>,
}

impl Proxy {
    pub(super) const fn id(&self, node: NodeUid) -> ProxyId {
        ProxyId {
            node,
            process: self.process,
        }
    }

    pub(super) fn granted(&mut self, now: Instant) {
        self.until = Some(now + LENGTH);
    }

    pub(super) fn has_lease(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    pub(super) fn hold(&mut self, of: Set, epoch: Epoch) {
        let held = self.gates.entry(of).or_default();
        *held = (*held).max(epoch);
    }

    /// Another process has taken over its clients. It has no lease yet; what is held it holds by what it applied.
    pub(super) const fn is_replaced(&mut self) {
        self.process += 1;
        self.until = None;
    }
}

/// For whom engines give promises, as their agents know, and since when for nobody else.
#[derive(Debug, Default)]
pub(super) struct Promises {
    given: BTreeMap<(NodeUid, ShardUid), (Option<String>, Instant)>,
}

impl Promises {
    /// Promises that were given by another user than the present one end.
    pub(super) fn pass(&mut self, world: &mut World, now: Instant) {
        for (node, seen) in &mut world.nodes {
            for shard in &mut seen.shards {
                let user = shard.keeper.as_ref().map(|keeper| keeper.user.clone());
                let known = self.given.entry((*node, shard.shard));
                let known = known.or_insert_with(|| (user.clone(), now));
                if known.0 != user {
                    if known.0.is_some() {
                        known.1 = now;
                    }
                    known.0 = user;
                }
                if let Some(keeper) = &mut shard.keeper {
                    keeper.alone = now.saturating_duration_since(known.1) >= WITHDRAWN;
                }
            }
        }
    }

    /// An agent that starts knows nothing of what was before.
    pub(super) fn forget(&mut self, node: NodeUid, now: Instant) {
        for ((of, _), known) in &mut self.given {
            if *of == node {
                known.1 = now;
            }
        }
    }
}

/// Where a proxy sends its clients' writes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    pub(super) node: NodeUid,
    pub(super) of: Set,
    pub(super) shard: ShardUid,
    pub(super) epoch: Epoch,
}

impl Sim {
    /// Where proxies can write now: by their configuration and their leases, and as far as engines let them.
    pub(super) fn ways(&self) -> Vec<Way> {
        let mut ways = Vec::new();
        for node in all_nodes() {
            let proxy = &self.proxies[&node];
            let Some(state) = &proxy.config else {
                continue;
            };
            let leased = proxy.has_lease(self.clock);
            for primary in state.shards.iter().filter(|s| s.role == Role::Primary) {
                let of = set(primary);
                let needs = || {
                    let database = state.database(primary.database);
                    let mut copies = state.shards_of(primary.database);
                    database.is_some_and(|db| db.leased)
                        || copies.any(|s| s.role == Role::Replica && s.removed_by.is_none())
                };
                let held = proxy
                    .gates
                    .get(&of)
                    .is_some_and(|epoch| primary.epoch <= *epoch);
                let open = primary.is_usable() && primary.moving.is_none() && !held;
                let takes = self.world.primary_in(primary.uid) == Some(primary.epoch);
                let linked = self.world.are_linked(node, primary.node);
                if open && takes && linked && (leased || !needs()) {
                    ways.push(Way {
                        node,
                        of,
                        shard: primary.uid,
                        epoch: primary.epoch,
                    });
                }
            }
        }
        ways
    }

    /// Clients write, each through a proxy.
    pub(super) fn write(&mut self) {
        for way in self.ways() {
            let bytes = self.rng.random_range(1..100);
            self.world.write(way.shard, bytes);
        }
    }
}
