//! What was heard of each node, and when. Lives in memory of the primary node alone: a new primary
//! node starts with nothing, and nothing vetoes. One that was the primary node before is new too: another one may
//! have led in between, and what was heard before that proves nothing.

use crate::leases::Leases;
use crate::outages::Watched;
use model::NodeUid;
use model::documents::Role;
use model::limits::{HEARTBEAT_EVERY, HEARTBEAT_LOST, NODE_SILENT, NODE_SILENT_LOW};
use model::observation::{EngineState, NodeObservation, ProxyObservation, ShardObservation};
use model::{Epoch, ShardUid};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What was heard of one node.
#[derive(Clone, Debug)]
pub struct Heard {
    /// The last observation.
    pub observation: Arc<NodeObservation>,
    /// When it arrived, by the clock of the primary node.
    pub at: Instant,
}

/// What was heard of all nodes.
#[derive(Clone, Debug, Default)]
pub struct Observations {
    nodes: BTreeMap<NodeUid, Heard>,
    /// Replicas without a link to their primary, and since when.
    unlinked: BTreeMap<ShardUid, Instant>,
    /// Replicas that follow, with their process, and since when without a break.
    linked: BTreeMap<ShardUid, (Option<String>, Instant)>,
    /// The last offset that each primary told.
    offsets: BTreeMap<ShardUid, u64>,
    /// When each primary was last told to be there, in its role, and to answer. True whoever was the primary node.
    served: BTreeMap<ShardUid, Instant>,
    /// The node that was the primary node last, other than this one, and when it answered last.
    led: Option<(NodeUid, Instant)>,
    /// When nodes were admitted, of those that were while this node was the primary node.
    admitted: BTreeMap<NodeUid, Instant>,
    /// How far each node's clock is ahead of this one's, ms.
    clocks: BTreeMap<NodeUid, i64>,
    /// Leases that proxies hold.
    pub leases: Leases,
    /// Since when what is told of has been as it is.
    pub outages: Watched,
}

impl Observations {
    /// This node is the primary node, in this term. What was heard before it does not count any more, but for how
    /// long nodes have been silent.
    pub fn in_term(&mut self, term: u64, now: Instant) {
        if self.leases.in_term(term, now) {
            self.unlinked.clear();
            self.linked.clear();
            self.offsets.clear();
            self.outages.clear();
        }
    }

    /// A node was admitted to the cluster: its silence counts from now on.
    pub fn admitted(&mut self, node: NodeUid, now: Instant) {
        self.admitted.insert(node, now);
    }

    /// Takes in a heartbeat. One that comes after a later one counts for nothing: what it does not tell of may have
    /// been started since, and would be taken for gone.
    pub fn record(&mut self, observation: NodeObservation, now: Instant) {
        let known = self.nodes.get(&observation.node);
        if known.is_some_and(|known| is_older(&observation, &known.observation)) {
            return;
        }
        self.outages.node(&observation, now);
        for seen in &observation.shards {
            self.note(seen, now);
        }
        self.nodes.insert(
            observation.node,
            Heard {
                observation: Arc::new(observation),
                at: now,
            },
        );
    }

    /// Notes how far a node's clock is ahead of this one's, ms.
    pub fn record_clock(&mut self, node: NodeUid, ahead_ms: i64) {
        self.clocks.insert(node, ahead_ms);
    }

    /// How far a node's clock is ahead of this one's, ms; 0 where that is not known.
    #[must_use]
    pub fn clock_ahead_ms(&self, node: NodeUid) -> i64 {
        self.clocks.get(&node).copied().unwrap_or(0)
    }

    /// Takes in what an agent answered to an order: newer than the last heartbeat.
    pub fn record_shard(
        &mut self,
        node: NodeUid,
        shard: ShardUid,
        seen: Option<ShardObservation>,
        now: Instant,
    ) {
        if let Some(heard) = self.nodes.get_mut(&node) {
            let shards = &mut Arc::make_mut(&mut heard.observation).shards;
            shards.retain(|s| s.shard != shard);
            shards.extend(seen.clone());
        }
        match seen {
            Some(seen) => self.note(&seen, now),
            None => {
                self.unlinked.remove(&shard);
                self.linked.remove(&shard);
                self.offsets.remove(&shard);
                self.served.remove(&shard);
            }
        }
    }

    fn note(&mut self, seen: &ShardObservation, now: Instant) {
        self.outages.shard(seen, now);
        let Some(replication) = &seen.replication else {
            return;
        };
        if replication.is_primary {
            self.offsets.insert(seen.shard, replication.offset);
        }
        if replication.is_primary
            && seen.role == Some(Role::Primary)
            && seen.state == EngineState::Running
        {
            self.served.insert(seen.shard, now);
        }
        if replication.is_primary || replication.link_up {
            self.unlinked.remove(&seen.shard);
        } else {
            self.unlinked.entry(seen.shard).or_insert(now);
        }
        let follows = !replication.is_primary && replication.link_up;
        let known = self.linked.get(&seen.shard);
        if !follows || replication.sync_in_progress {
            self.linked.remove(&seen.shard);
        } else if known.is_none_or(|(process, _)| *process != seen.run_id) {
            let since = (seen.run_id.clone(), now);
            self.linked.insert(seen.shard, since);
        }
    }

    /// Another node has answered as the primary node: when it is so no longer, its silence counts from here.
    pub const fn led(&mut self, node: NodeUid, now: Instant) {
        self.led = Some((node, now));
    }

    /// For how long a replica has followed its primary without a break, as far as this node has heard.
    #[must_use]
    pub fn follows_for(&self, shard: ShardUid, now: Instant) -> Duration {
        let since = self.linked.get(&shard);
        since.map_or(Duration::ZERO, |(_, since)| {
            now.saturating_duration_since(*since)
        })
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

    /// How long ago a primary was last told to be there, in its role, and to answer.
    #[must_use]
    pub fn served_ago(&self, shard: ShardUid, now: Instant) -> Option<Duration> {
        let at = self.served.get(&shard)?;
        Some(now.saturating_duration_since(*at))
    }

    /// All of it.
    pub fn iter(&self) -> impl Iterator<Item = &Heard> {
        self.nodes.values()
    }

    /// The last observation of a node that is not too old to plan from, nor older than this node's time as
    /// primary node.
    #[must_use]
    pub fn fresh(&self, node: NodeUid, now: Instant) -> Option<&NodeObservation> {
        let heard = self.nodes.get(&node)?;
        let young = now.saturating_duration_since(heard.at) <= HEARTBEAT_LOST;
        (self.is_of_this_time(node) && young).then_some(&*heard.observation)
    }

    /// The same, of a node that has been silent for less than this: with
    /// [`ClusterState::node_silent`](crate::state::ClusterState::node_silent) one whose primaries would not be
    /// replaced yet. Only with such nodes anything is begun: one that is shown as down a moment later would
    /// have it wait for ever.
    #[must_use]
    pub fn heard(&self, node: NodeUid, within: Duration, now: Instant) -> Option<&NodeObservation> {
        let seen = self.fresh(node, now)?;
        let age = self.age(node, now)?;
        (age < within).then_some(seen)
    }

    /// Whether a node was heard since this node is the primary node.
    #[must_use]
    pub fn is_of_this_time(&self, node: NodeUid) -> bool {
        let since = self.leases.since();
        let heard = self.nodes.get(&node);
        heard.is_some_and(|heard| since.is_none_or(|since| heard.at >= since))
    }

    /// How long a node has been silent; one that was never heard, since this node is the primary node. The
    /// primary node before this one has told others of itself, not this one: it has been silent since it
    /// answered last. What was heard long before this node's time as primary node counts no more than a
    /// heartbeat of silence: others were told meanwhile. `None`: not known.
    #[must_use]
    pub fn silence(&self, node: NodeUid, now: Instant) -> Option<Duration> {
        let passed = |since: Instant| now.saturating_duration_since(since);
        let leads = self.leases.since().map(passed);
        let admitted = self.admitted.get(&node).copied().map(passed);
        let leads = leads.map(|leads| admitted.map_or(leads, |admitted| leads.min(admitted)));
        let led = self.led.filter(|(led, _)| *led == node);
        let answered = led.map(|(_, at)| passed(at));
        let heard = [self.age(node, now), answered].into_iter().flatten().min();
        match (heard, leads) {
            (Some(heard), Some(leads)) => Some(heard.min(leads + HEARTBEAT_EVERY)),
            (heard, leads) => heard.or(leads),
        }
    }

    /// Whether a node has been silent for so long that it counts as down. One that this primary node has not
    /// heard yet does not: it is new itself.
    #[must_use]
    pub fn is_silent(&self, node: NodeUid, now: Instant) -> bool {
        let silence = self.silence(node, now);
        self.fresh(node, now).is_none() && silence.is_some_and(|silence| silence >= HEARTBEAT_LOST)
    }

    /// How soon time alone may change what is planned: a node will have been silent for [`NODE_SILENT`], or
    /// the longer time of low sensitivity, if nothing more is heard of it, or leases end.
    #[must_use]
    pub fn next_news(&self, now: Instant) -> Option<Duration> {
        let nodes = self.nodes.keys().copied();
        let nodes = nodes.chain(self.led.map(|(node, _)| node));
        let silences = nodes.filter_map(|node| self.silence(node, now));
        let left = |silence| {
            let limits = [NODE_SILENT, NODE_SILENT_LOW].into_iter();
            limits.filter_map(move |limit| limit.checked_sub(silence))
        };
        let silent = silences.flat_map(left);
        silent.chain(self.leases.next_end(now)).min()
    }

    /// What was heard last of a node, however long ago.
    #[must_use]
    pub fn last(&self, node: NodeUid) -> Option<&NodeObservation> {
        self.nodes.get(&node).map(|heard| &*heard.observation)
    }

    /// Whether it is known when a node spoke last: it was heard, or has led.
    #[must_use]
    pub fn has_spoken(&self, node: NodeUid) -> bool {
        self.nodes.contains_key(&node) || self.led.is_some_and(|(led, _)| led == node)
    }

    /// How long ago a node was heard last.
    #[must_use]
    pub fn age(&self, node: NodeUid, now: Instant) -> Option<Duration> {
        self.nodes
            .get(&node)
            .map(|heard| now.saturating_duration_since(heard.at))
    }
}

/// Whether a node told something before it told what is known of it. Seconds are enough: a copy that has just come
/// takes no role before two ([`model::limits::FOLLOWS_FOR`]), nor is it recorded before the promises of others are over.
///
/// Its time of day may go back; the seconds since its host started do so only when that does, and with it the process
/// is another one. So what is of another process is older only if both say so.
fn is_older(late: &NodeObservation, known: &NodeObservation) -> bool {
    late.host.uptime < known.host.uptime && late.started <= known.started
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

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: NodeUid = NodeUid(1);
    const OTHER: NodeUid = NodeUid(2);
    const SECOND: Duration = Duration::from_secs(1);

    /// The primary node before has been silent since it answered last, but by no more than a heartbeat
    /// longer than this one has been the primary node.
    #[test]
    fn silence_of_an_earlier_primary_node() {
        let start = Instant::now();
        let mut observed = Observations::default();
        assert_eq!(observed.silence(OLD, start), None);
        observed.led(OLD, start + SECOND / 2);
        let elected = start + SECOND;
        observed.leases.in_term(2, elected);
        let later = elected + SECOND;
        assert_eq!(observed.silence(OLD, later), Some(SECOND * 3 / 2));
        assert_eq!(observed.silence(OTHER, later), Some(SECOND));
        assert_eq!(observed.next_news(elected), Some(SECOND));
        observed.leases.in_term(3, start + 3_600 * SECOND);
        let later = start + 3_600 * SECOND;
        assert_eq!(observed.silence(OLD, later), Some(HEARTBEAT_EVERY));
        assert_eq!(observed.silence(OTHER, later), Some(Duration::ZERO));
        observed.admitted(OTHER, later + 5 * SECOND);
        let later = later + 6 * SECOND;
        assert_eq!(observed.silence(OTHER, later), Some(SECOND));
    }
}
