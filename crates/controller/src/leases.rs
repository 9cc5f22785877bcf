//! Leases that this node has given as primary node. They live in its memory: whoever becomes primary node
//! counts every proxy as holding one, for a whole length. See [`model::lease`].

pub mod plan;

use model::lease::{LeaseLength, Refusal, may_grant};
use model::{NodeUid, Revision};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Longest time for which a lease counts here.
const LENGTH: Duration = Duration::from_nanos(LeaseLength::PRODUCT.grantor);
/// Most leases that are remembered: a few proxies on each of many nodes.
const LEASES_MAX: usize = 1024;

/// A proxy's process.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct ProxyId {
    /// Its node.
    pub node: NodeUid,
    /// Its process there.
    pub process: u32,
}

#[derive(Clone, Copy, Debug)]
struct Given {
    until: Instant,
    applied: Revision,
}

/// See the module's text.
#[derive(Clone, Debug, Default)]
pub struct Leases {
    /// The term for which they count; another one begins with nothing.
    term: Option<u64>,
    since: Option<Instant>,
    given: BTreeMap<ProxyId, Given>,
}

impl Leases {
    /// This node is the primary node, in this term. Returns whether that is news.
    pub fn in_term(&mut self, term: u64, now: Instant) -> bool {
        let news = self.term != Some(term);
        if news {
            self.term = Some(term);
            self.since = Some(now);
            self.given.clear();
        }
        news
    }

    /// Since when this node has been the primary node, at the latest.
    #[must_use]
    pub const fn since(&self) -> Option<Instant> {
        self.since
    }

    /// Gives a lease, or says why not. The caller has had its term confirmed since the proxy asked; `ordered`
    /// is the revision that a proxy must have applied. Returns whether the proxy has applied more than when it
    /// got its last one.
    ///
    /// # Errors
    /// A [`Refusal`].
    pub fn give(
        &mut self,
        proxy: ProxyId,
        applied: Revision,
        ordered: Revision,
        now: Instant,
    ) -> Result<bool, Refusal> {
        may_grant(true, applied, ordered)?;
        self.given.retain(|_, given| now < given.until);
        if self.given.len() >= LEASES_MAX && !self.given.contains_key(&proxy) {
            return Err(Refusal::NotConfirmed);
        }
        let until = now + LENGTH;
        let before = self.given.insert(proxy, Given { until, applied });
        Ok(before.is_none_or(|before| before.applied < applied))
    }

    /// Whether no proxy can hold a lease any more that it got before it had applied a revision; if not,
    /// what that waits for.
    ///
    /// # Errors
    /// The wait, in words.
    pub fn all_know(&self, revision: Revision, now: Instant) -> Result<(), String> {
        if self.are_inherited(now) {
            return Err("leases that an earlier primary node gave may not be over yet".to_owned());
        }
        let behind = |given: &Given| now < given.until && given.applied < revision;
        match self.given.iter().find(|(_, given)| behind(given)) {
            Some((proxy, _)) => Err(format!("the proxy of node:{} has a lease", proxy.node)),
            None => Ok(()),
        }
    }

    /// How soon a lease ends, given or inherited.
    #[must_use]
    pub fn next_end(&self, now: Instant) -> Option<Duration> {
        let inherited = self.since.map(|since| since + LENGTH);
        let ends = self.given.values().map(|given| given.until);
        let left = |end: Instant| end.checked_duration_since(now);
        ends.chain(inherited).filter_map(left).min()
    }

    /// Whether a proxy of this node may hold a lease.
    #[must_use]
    pub fn may_hold(&self, node: NodeUid, now: Instant) -> bool {
        self.are_inherited(now) || !self.processes(node, now).is_empty()
    }

    /// Processes of a node's proxies that may hold a lease that was given here.
    #[must_use]
    pub fn processes(&self, node: NodeUid, now: Instant) -> Vec<u32> {
        let holds = |(proxy, given): &(&ProxyId, &Given)| proxy.node == node && now < given.until;
        let holders = self.given.iter().filter(holds);
        holders.map(|(proxy, _)| proxy.process).collect()
    }

    /// Whether leases that an earlier primary node gave may not be over yet: whose they are is not known.
    #[must_use]
    pub fn are_inherited(&self, now: Instant) -> bool {
        self.since.is_none_or(|since| now < since + LENGTH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROXY: ProxyId = ProxyId {
        node: NodeUid(2),
        process: 1,
    };

    #[test]
    fn leases_are_waited_for() {
        let start = Instant::now();
        let mut leases = Leases::default();
        assert!(leases.all_know(Revision(1), start).is_err(), "no term yet");
        leases.in_term(1, start);
        let later = start + LENGTH;
        assert!(leases.all_know(Revision(1), start).is_err());
        assert_eq!(leases.all_know(Revision(1), later), Ok(()));
        leases.give(PROXY, Revision(4), Revision(3), later).unwrap();
        assert!(leases.may_hold(PROXY.node, later) && !leases.may_hold(NodeUid(1), later));
        assert!(!leases.may_hold(PROXY.node, later + LENGTH));
        assert_eq!(leases.processes(PROXY.node, later), [1]);
        assert_eq!(leases.processes(PROXY.node, later + LENGTH), [0; 0]);
        assert_eq!(leases.processes(NodeUid(1), later), [0; 0]);
        assert_eq!(leases.all_know(Revision(4), later), Ok(()), "it knows");
        let why = leases.all_know(Revision(5), later).unwrap_err();
        assert!(why.contains("node:2"), "{why}");
        assert_eq!(
            leases.give(PROXY, Revision(4), Revision(5), later),
            Err(Refusal::BehindGate)
        );
        // What was given before still counts.
        assert!(leases.all_know(Revision(5), later).is_err());
        assert_eq!(leases.all_know(Revision(5), later + LENGTH), Ok(()));
    }

    #[test]
    fn another_term_inherits() {
        let start = Instant::now();
        let mut leases = Leases::default();
        leases.in_term(1, start);
        let later = start + LENGTH;
        leases.in_term(1, later);
        assert_eq!(leases.since(), Some(start));
        leases.in_term(3, later);
        assert!(leases.all_know(Revision(1), later).is_err());
    }
}
