//! A node that leaves goes when nothing is on it any more, and no client. Pure.

use crate::database::plan::Step;
use crate::observed::Observations;
use crate::state::{Change, ClusterState};
use jiff::Timestamp;
use model::NodeUid;
use model::documents::{Severity, keys};
use serde_json::json;
use std::time::Instant;

/// The next step of nodes that leave.
#[must_use]
pub fn next(
    state: &ClusterState,
    observed: &Observations,
    instant: Instant,
    now: Timestamp,
) -> Option<Step> {
    let empty = |uid| state.shards_on(uid) == 0 && !has_clients(observed, uid, instant);
    let node = state.nodes.iter().find(|n| n.leaving && empty(n.uid))?;
    let mut change = Change::of(state, now);
    change.delete(keys::node(node.uid), node.revision);
    change.event(
        Severity::Info,
        "node_remove_completed",
        &[
            ("node_uid", json!(node.uid)),
            ("address", json!(node.address)),
        ],
    );
    Some(Step::Store {
        txn: change.into_txn(),
        reason: format!("node:{} has nothing left on it and goes", node.uid),
    })
}

/// Whether the proxy of a node says that clients are there, or may come. It closes them when the node has no shards
/// left, so that no client is served by a node that nobody counts with. An older one does not, and is not waited for.
fn has_clients(observed: &Observations, node: NodeUid, instant: Instant) -> bool {
    let seen = observed.fresh(node, instant);
    let proxy = seen.and_then(|seen| seen.proxy.as_ref());
    proxy.is_some_and(|proxy| {
        let mut databases = proxy.databases.iter();
        databases.any(|d| d.drains.is_some_and(|drains| !drains || d.connections > 0))
    })
}
