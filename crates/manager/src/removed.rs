//! Whether this node was removed from its cluster. Nobody tells it for sure: what is stored without it does not reach
//! it any more, so a voter that was removed looks for a majority for ever. So a node that hears no primary node asks the
//! others: who leads them knows which nodes there are.

use crate::member::Member;
use controller::state::ClusterState;
use model::NodeUid;
use model::view::ClusterView;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// How often the others are asked.
const ASK_EVERY: Duration = Duration::from_secs(2);
/// Silence of the primary node after which they are.
const SILENCE: Duration = Duration::from_secs(4);

/// Runs until the task is dropped, or the node is known to be removed.
pub async fn run(member: Arc<Member>) {
    while !member.is_removed() {
        if has_read_it(&member) || is_told(&member).await {
            member.note_removed();
            return;
        }
        sleep(ASK_EVERY).await;
    }
}

/// Whether a node that had this id is no part of a cluster any more: an id is given once, together with the node's
/// document, and never again.
fn was_removed(me: NodeUid, next: NodeUid, nodes: impl IntoIterator<Item = NodeUid>) -> bool {
    me < next && !nodes.into_iter().any(|node| node == me)
}

/// Whether a view says so that a quorum has confirmed.
#[must_use]
pub fn by_view(me: NodeUid, view: &ClusterView) -> bool {
    let nodes = view.nodes.iter().map(|node| node.uid);
    view.has_quorum && was_removed(me, view.cluster.next_node, nodes)
}

/// Its own store may have got as far.
fn has_read_it(member: &Member) -> bool {
    let Ok(Some(state)) = ClusterState::read(&member.store.state()) else {
        return false;
    };
    let nodes = state.nodes.iter().map(|node| node.uid);
    was_removed(member.identity.node, state.cluster.next_node, nodes)
}

/// Who leads the others has confirmed it.
async fn is_told(member: &Member) -> bool {
    let heard = member.last_known().at;
    if member.store.status().is_leader || heard.is_some_and(|at| at.elapsed() < SILENCE) {
        return false;
    }
    for address in others(member) {
        // One that was removed itself, or is cut off, does not know.
        let view = member.internode.view(&address).await;
        if view.is_ok_and(|view| by_view(member.identity.node, &view)) {
            return true;
        }
    }
    false
}

/// Where the others are, as far as this node knows.
fn others(member: &Member) -> BTreeSet<String> {
    let status = member.store.status();
    let members = status.voters.into_iter().chain(status.learners);
    members
        .map(|known| known.member)
        .filter(|other| other.uid != member.identity.node)
        .map(|other| other.address)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_was_given_and_is_no_more() {
        let nodes = || [1, 2].map(NodeUid);
        assert!(was_removed(NodeUid(3), NodeUid(4), nodes()));
        assert!(!was_removed(NodeUid(2), NodeUid(4), nodes()));
        // It has not got as far as its own admission yet.
        assert!(!was_removed(NodeUid(4), NodeUid(4), nodes()));
    }
}
