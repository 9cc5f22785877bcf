//! Numbers of clients, as `CLIENT ID` tells them: no two clients of a cluster have the same, whichever proxies they
//! came to, so that `CLIENT KILL ID` and `CLIENT UNBLOCK` sent to another proxy find nobody instead of a stranger.
//!
//! A number is that of the node with twelve digits behind it: `3000000000017` is the seventeenth client of node 3's
//! proxy. The largest fits into a JavaScript number, 2^53. Nodes are never numbered anew, so none has another's.

use model::NodeUid;
use model::clients::{IDS_OF_NODE as OF_NODE, home};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How many clients may still come to a server that is replaced while its successor gives numbers already.
const AHEAD: u64 = 1_000_000;

/// Gives numbers.
#[derive(Debug)]
pub(crate) struct ClientIds {
    /// The first number of the node; 0: it is not known which node this is.
    base: AtomicU64,
    /// How many were given, those of earlier servers too.
    given: AtomicU64,
}

impl ClientIds {
    /// Those after the ones that the server before has given, as it says by [`ClientIds::after`]; 0: there was none.
    pub(crate) fn from(next: u64) -> Self {
        Self {
            base: AtomicU64::new(next / OF_NODE * OF_NODE),
            given: AtomicU64::new((next % OF_NODE).saturating_sub(1)),
        }
    }

    /// From now on those of this node.
    pub(crate) fn of(&self, node: NodeUid) {
        self.base.store(home(node) * OF_NODE, Relaxed);
    }

    /// What stands before the twelve digits; 0: it is not known which node this is.
    pub(crate) fn home(&self) -> u64 {
        self.base.load(Relaxed) / OF_NODE
    }

    /// The next client's.
    pub(crate) fn next(&self) -> u64 {
        self.number(self.given.fetch_add(1, Relaxed))
    }

    /// What a successor begins with, in the words of a release that counts upwards from there.
    pub(crate) fn after(&self) -> u64 {
        self.number(self.given.load(Relaxed) + AHEAD)
    }

    /// Never the first of all, which is 0 where the node is not known: that is nobody.
    fn number(&self, given: u64) -> u64 {
        self.base.load(Relaxed) + 1 + given % (OF_NODE - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::clients::NODES_WITH_IDS as NODES;

    #[test]
    fn nodes_have_numbers_of_their_own() {
        let (one, three) = (ClientIds::from(0), ClientIds::from(0));
        one.of(NodeUid(1));
        three.of(NodeUid(3));
        assert_eq!(
            (one.next(), one.next()),
            (1_000_000_000_001, 1_000_000_000_002)
        );
        assert_eq!(three.next(), 3_000_000_000_001);
        // Even the last one is a number everywhere.
        let last = ClientIds::from(OF_NODE - 1);
        last.of(NodeUid(NODES));
        assert!(last.next() < 1 << 53);
        assert_eq!(last.next(), NODES * OF_NODE + 1);
        last.of(NodeUid(NODES + 1));
        assert_eq!(last.next(), OF_NODE + 2);
    }

    #[test]
    fn a_successor_goes_on() {
        let old = ClientIds::from(0);
        old.of(NodeUid(2));
        let given = old.next();
        let new = ClientIds::from(old.after());
        // Before it knows its node, and after.
        let first = new.next();
        assert!(first > given + AHEAD - 2 && first < 3 * OF_NODE);
        new.of(NodeUid(2));
        assert_eq!(new.next(), first + 1);
        // The release before numbers from 1 on, whichever the node.
        let after_1_1 = ClientIds::from(1_000_042);
        assert_eq!(after_1_1.next(), 1_000_042);
        after_1_1.of(NodeUid(2));
        assert_eq!(after_1_1.next(), 2_000_001_000_043);
        let unknown = ClientIds::from(0);
        assert_eq!((unknown.next(), unknown.next()), (1, 2));
    }
}
