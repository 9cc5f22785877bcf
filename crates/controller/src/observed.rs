//! What was heard of each node, and when. Lives in memory of the primary node alone: a new primary
//! node starts with nothing, and nothing vetoes.

use crate::leases::Leases;
use model::NodeUid;
use model::limits::{HEARTBEAT_LOST, NODE_SILENT};
use model::observation::{NodeObservation, ProxyObservation, ShardObservation};
use model::{Epoch, ShardUid};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What was heard of one node.
#[derive(Clone, Debug)]
pub struct Heard {
    /// The last observation.
    pub observation: NodeObservation,
    /// When it arrived, by the clock of the primary node.
    pub at: Instant,
}

/// What was heard of all nodes.
#[derive(Clone, Debug, Default)]
pub struct Observations {
    nodes: BTreeMap<NodeUid, Heard>,
    /// Replicas without a link to their primary, and since when.
    unlinked: BTreeMap<ShardUid, Instant>,
    /// The last offset that each primary told.
    offsets: BTreeMap<ShardUid, u64>,
    /// Leases that proxies hold.
    pub leases: Leases,
}

impl Observations {
    /// Takes in a heartbeat.
    pub fn record(&mut self, observation: NodeObservation, now: Instant) {
        for seen in &observation.shards {
            self.note(seen, now);
        }
        self.nodes.insert(
            observation.node,
            Heard {
                observation,
                at: now,
            },
        );
    }

    /// Takes in what an agent answered to an order: newer than the last heartbeat.
    pub fn record_shard(&mut self, node: NodeUid, shard: ShardUid, seen: Option<ShardObservation>) {
        if let Some(heard) = self.nodes.get_mut(&node) {
            heard.observation.shards.retain(|s| s.shard != shard);
            heard.observation.shards.extend(seen.clone());
        }
        match seen {
            Some(seen) => self.note(&seen, Instant::now()),
            None => {
                self.unlinked.remove(&shard);
                self.offsets.remove(&shard);
            }
        }
    }

    fn note(&mut self, seen: &ShardObservation, now: Instant) {
        let Some(replication) = &seen.replication else {
            return;
        };
        if replication.is_primary {
            self.offsets.insert(seen.shard, replication.offset);
        }
        if replication.is_primary || replication.link_up {
            self.unlinked.remove(&seen.shard);
        } else {
            self.unlinked.entry(seen.shard).or_insert(now);
        }
    }

    /// Since when a replica has had no link to its primary.
    #[must_use]
    pub fn unlinked_since(&self, shard: ShardUid) -> Option<Instant> {
        self.unlinked.get(&shard).copied()
    }

    /// The last offset that a primary told.
    #[must_use]
    pub fn last_offset(&self, shard: ShardUid) -> Option<u64> {
        self.offsets.get(&shard).copied()
    }

    /// All of it.
    pub fn iter(&self) -> impl Iterator<Item = &Heard> {
        self.nodes.values()
    }

    /// The last observation of a node that is not too old to plan from.
    #[must_use]
    pub fn fresh(&self, node: NodeUid, now: Instant) -> Option<&NodeObservation> {
        let heard = self.nodes.get(&node)?;
        (now.saturating_duration_since(heard.at) <= HEARTBEAT_LOST).then_some(&heard.observation)
    }

    /// How long a node has been silent; one that was never heard, since this node is the primary node.
    /// `None`: not known.
    #[must_use]
    pub fn silence(&self, node: NodeUid, now: Instant) -> Option<Duration> {
        let since = self.leases.since();
        let silent = since.map(|since| now.saturating_duration_since(since));
        self.age(node, now).or(silent)
    }

    /// How soon the next node will have been silent for [`NODE_SILENT`] if nothing more is heard of it.
    #[must_use]
    pub fn next_silent(&self, now: Instant) -> Option<Duration> {
        let ages = self
            .nodes
            .values()
            .map(|heard| now.saturating_duration_since(heard.at));
        ages.filter_map(|age| NODE_SILENT.checked_sub(age)).min()
    }

    /// How long ago a node was heard last.
    #[must_use]
    pub fn age(&self, node: NodeUid, now: Instant) -> Option<Duration> {
        self.nodes
            .get(&node)
            .map(|heard| now.saturating_duration_since(heard.at))
    }
}

/// A shard in an observation.
#[must_use]
pub fn shard(node: &NodeObservation, uid: ShardUid) -> Option<&ShardObservation> {
    node.shards.iter().find(|s| s.shard == uid)
}

/// Whether a shard is primary of an epoch, by the observation.
#[must_use]
pub fn is_primary_of(seen: &ShardObservation, epoch: Epoch) -> bool {
    seen.role == Some(model::documents::Role::Primary) && seen.epoch == Some(epoch)
}

/// Why a proxy does not serve a database, if it does not.
#[must_use]
pub fn proxy_trouble(proxy: Option<&ProxyObservation>, uid: model::DatabaseUid) -> Option<String> {
    let Some(proxy) = proxy else {
        return Some("is not heard".to_owned());
    };
    let Some(database) = proxy.databases.iter().find(|d| d.database == uid) else {
        return Some("has not taken over the configuration yet".to_owned());
    };
    if let Some(error) = &database.error {
        return Some(error.clone());
    }
    if !database.listening {
        return Some("does not listen yet".to_owned());
    }
    (!database.shards_connected).then(|| "is not connected to the shards yet".to_owned())
}
