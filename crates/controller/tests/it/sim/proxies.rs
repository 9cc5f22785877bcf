//! Proxies: which configuration each has applied, until when it has a lease, which gates it holds; and the clients that
//! write through them. Promises, which prolong leases, are left to `tests/protocol`.

use super::invariants::{Set, set};
use super::{Sim, all_nodes};
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
