//! Since when something has been as it is, as far as this node has heard as the primary node.

use jiff::Timestamp;
use model::NodeUid;
use model::ShardUid;
use model::limits::HEARTBEAT_LOST;
use model::observation::{EngineState, NodeObservation, ShardObservation};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// See the module's text.
#[derive(Clone, Debug, Default)]
pub struct Watched {
    nodes: BTreeMap<NodeUid, Heard>,
    /// Shards whose engines are not there, or refuse writes, and since when none has run that takes them.
    failing: BTreeMap<ShardUid, Instant>,
    proxies: BTreeMap<NodeUid, Proxy>,
}

/// A node that is heard, without a break that would count.
#[derive(Clone, Copy, Debug)]
struct Heard {
    since: Instant,
    last: Instant,
}

/// The proxy of a node whose `cnm_exec` has not been started again meanwhile.
#[derive(Clone, Copy, Debug)]
struct Proxy {
    started: Timestamp,
    pid: Option<u32>,
    absent: Option<Instant>,
    /// A process that took nothing over from the one before it, and since when that has not been heard.
    restarted: Option<(u32, Instant)>,
    /// Whether this is the first that is heard of it.
    new: bool,
}

impl Watched {
    /// Another term begins: others may have heard something else meanwhile.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Takes in a heartbeat.
    pub fn node(&mut self, seen: &NodeObservation, now: Instant) {
        let heard = self.nodes.entry(seen.node).or_insert(Heard {
            since: now,
            last: now,
        });
        let was_away = now.saturating_duration_since(heard.last) > HEARTBEAT_LOST;
        if was_away {
            heard.since = now;
        }
        heard.last = now;
        self.proxy(seen, now);
        let known = self.proxies.get(&seen.node);
        let begins = was_away || known.is_some_and(|known| known.new);
        for shard in &seen.shards {
            // What ended with its node, or before, may be about to be started.
            if begins {
                self.failing.remove(&shard.shard);
            }
            self.shard(shard, now);
        }
    }

    fn proxy(&mut self, seen: &NodeObservation, now: Instant) {
        let new = Proxy {
            started: seen.started,
            pid: None,
            absent: None,
            restarted: None,
            new: true,
        };
        let proxy = self.proxies.entry(seen.node).or_insert(new);
        proxy.new = false;
        if proxy.started != seen.started || seen.stopping {
            *proxy = new;
        }
        let Some(there) = &seen.proxy else {
            proxy.absent.get_or_insert(now);
            return;
        };
        if proxy.pid.is_some_and(|pid| pid != there.pid) {
            let since = proxy.absent.unwrap_or(now);
            proxy.restarted = there.handover.is_none().then_some((there.pid, since));
        }
        proxy.pid = Some(there.pid);
        proxy.absent = None;
    }

    /// Takes in what is told of a shard.
    pub fn shard(&mut self, seen: &ShardObservation, now: Instant) {
        match seen.state {
            EngineState::Stopped | EngineState::Failed => {
                self.failing.entry(seen.shard).or_insert(now);
            }
            EngineState::Running if seen.refuses_writes.is_some() => {
                self.failing.entry(seen.shard).or_insert(now);
            }
            EngineState::Running => {
                self.failing.remove(&seen.shard);
            }
            // One that ends while it loads has not been there in between.
            EngineState::Starting | EngineState::Loading | EngineState::Unresponsive => {}
        }
    }

    /// For how long a node was heard without a break that would count, and how long ago that began.
    #[must_use]
    pub fn heard_for(&self, node: NodeUid, now: Instant) -> Option<(Duration, Duration)> {
        let heard = self.nodes.get(&node)?;
        let span = heard.last.saturating_duration_since(heard.since);
        Some((span, now.saturating_duration_since(heard.since)))
    }

    /// For how long no engine of a shard has run that takes writes, if it ended or refuses them.
    #[must_use]
    pub fn failing_for(&self, shard: ShardUid, now: Instant) -> Option<Duration> {
        let since = self.failing.get(&shard)?;
        Some(now.saturating_duration_since(*since))
    }

    /// For how long a node that is heard has had no proxy.
    #[must_use]
    pub fn proxy_absent_for(&self, node: NodeUid, now: Instant) -> Option<Duration> {
        let since = self.proxies.get(&node)?.absent?;
        Some(now.saturating_duration_since(since))
    }

    /// The process of a node's proxy that came without what the one before it had, and how long ago that went.
    #[must_use]
    pub fn proxy_restarted(&self, node: NodeUid, now: Instant) -> Option<(u32, Duration)> {
        let (pid, since) = self.proxies.get(&node)?.restarted?;
        Some((pid, now.saturating_duration_since(since)))
    }
}
