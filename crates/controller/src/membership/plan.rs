//! The wanted voters. Pure.

use crate::observed::Observations;
use model::NodeUid;
use model::limits::VOTERS_MAX;
use std::collections::BTreeSet;
use std::time::Instant;

/// The voters that a cluster should have, if they differ from those that it has: 1, 3, 5 or 7 of its
/// nodes. Those that vote now stay, this node first; a node is added only while it is heard and caught
/// up. When a voter has left the cluster and nobody takes its place, another one goes too, so that the
/// number stays odd.
#[must_use]
pub fn wanted_voters(
    me: NodeUid,
    nodes: &BTreeSet<NodeUid>,
    voters: &BTreeSet<NodeUid>,
    ready: &BTreeSet<NodeUid>,
) -> Option<BTreeSet<NodeUid>> {
    let most = nodes.len().min(VOTERS_MAX);
    let count = if most.is_multiple_of(2) {
        most.saturating_sub(1)
    } else {
        most
    };
    let mut wanted: BTreeSet<NodeUid> = voters.intersection(nodes).copied().collect();
    for node in ready.intersection(nodes) {
        if wanted.len() >= count {
            break;
        }
        wanted.insert(*node);
    }
    let left = !voters.is_subset(nodes);
    if left && wanted.len().is_multiple_of(2) {
        let last = wanted.iter().rev().copied().find(|node| *node != me)?;
        wanted.remove(&last);
    }
    // An even number of voters survives no more losses than one less: wait for the next node.
    if wanted.len().is_multiple_of(2) || wanted == *voters {
        return None;
    }
    Some(wanted)
}

/// Who may take the leadership over from a node that has left the cluster: the voters that stay, those last that are not
/// heard, that are stopping, or whose store waits for room on its disk.
#[must_use]
pub fn heirs(
    observed: &Observations,
    (voters, nodes): (&BTreeSet<NodeUid>, &BTreeSet<NodeUid>),
    now: Instant,
) -> Vec<NodeUid> {
    let hardly_can = |uid: &NodeUid| {
        let seen = observed.fresh(*uid, now);
        seen.is_none_or(|seen| seen.disk_full || seen.stopping)
    };
    let mut heirs: Vec<NodeUid> = voters.intersection(nodes).copied().collect();
    heirs.sort_by_key(hardly_can);
    heirs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(uids: &[u64]) -> BTreeSet<NodeUid> {
        uids.iter().copied().map(NodeUid).collect()
    }

    #[test]
    fn voters_that_have_left_go() {
        let wanted = |me, nodes: &[u64], voters: &[u64]| {
            wanted_voters(NodeUid(me), &set(nodes), &set(voters), &set(nodes))
        };
        assert_eq!(wanted(1, &[1, 2], &[1, 2, 3]), Some(set(&[1])));
        assert_eq!(wanted(2, &[1, 2], &[1, 2, 3]), Some(set(&[2])));
        assert_eq!(wanted(2, &[1, 2, 4], &[1, 2, 3]), Some(set(&[1, 2, 4])));
        assert_eq!(
            wanted(5, &[1, 2, 4, 5], &[1, 2, 3, 4, 5]),
            Some(set(&[1, 2, 5]))
        );
        assert_eq!(wanted(1, &[1], &[1]), None);
    }

    #[test]
    fn odd_numbers_only() {
        assert_eq!(
            wanted_voters(NodeUid(1), &set(&[1]), &set(&[1]), &set(&[1])),
            None
        );
        assert_eq!(
            wanted_voters(NodeUid(1), &set(&[1, 2]), &set(&[1]), &set(&[1, 2])),
            None
        );
        assert_eq!(
            wanted_voters(NodeUid(1), &set(&[1, 2, 3]), &set(&[1]), &set(&[1, 2, 3])),
            Some(set(&[1, 2, 3]))
        );
        assert_eq!(
            wanted_voters(NodeUid(1), &set(&[1, 2, 3]), &set(&[1]), &set(&[1, 3])),
            None
        );
        let ten: Vec<u64> = (1..=10).collect();
        assert_eq!(
            wanted_voters(NodeUid(1), &set(&ten), &set(&[1, 2, 3]), &set(&ten)),
            Some(set(&[1, 2, 3, 4, 5, 6, 7]))
        );
    }
}
