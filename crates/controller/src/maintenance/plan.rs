//! A node that leaves goes when nothing is on it any more, and no client. Pure.

use crate::database::plan::Step;
use crate::observed::Observations;
use crate::state::{Change, ClusterState};
use jiff::Timestamp;
use model::NodeUid;
use model::documents::{Operation, OperationKind, Severity, keys};
use serde_json::json;
use std::time::Instant;

/// The next step of nodes that leave. What was judged when it was asked for is judged again: without the node, enough
/// others must be heard.
#[must_use]
pub fn next(
    state: &ClusterState,
    observed: &Observations,
    instant: Instant,
    now: Timestamp,
) -> Option<Step> {
    let empty = |uid| state.shards_on(uid) == 0 && !has_clients(observed, uid, instant);
    let may_go = |uid| enough_without((state, observed), uid, instant).is_ok();
    let mut leaving = state.nodes.iter().filter(|node| node.leaving);
    let node = leaving.find(|node| empty(node.uid) && may_go(node.uid))?;
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

/// Why the removal that an operation belongs to does not complete, when all that it moved has moved.
#[must_use]
pub(crate) fn waits(
    state: &ClusterState,
    observed: &Observations,
    operation: &Operation,
    instant: Instant,
) -> Option<String> {
    let node = operation.node.and_then(|node| state.node(node))?;
    let removal = operation.kind == OperationKind::RemoveNode && node.leaving;
    let may_go = enough_without((state, observed), node.uid, instant);
    may_go.err().filter(|_| removal)
}

/// Whether the others, without those that are in maintenance themselves, are a majority.
///
/// # Errors
/// In words, that they are not, and what helps.
pub(crate) fn enough_without(
    (state, observed): (&ClusterState, &Observations),
    uid: NodeUid,
    instant: Instant,
) -> Result<(), String> {
    let within = state.node_silent();
    let others = state.nodes.iter().filter(|node| node.uid != uid);
    let (heard, unheard): (Vec<_>, Vec<_>) = others
        .filter(|node| node.maintenance.is_none())
        .map(|node| node.uid)
        .partition(|node| observed.heard(*node, within, instant).is_some());
    let (left, all) = (heard.len(), state.nodes.len());
    if left > all / 2 {
        return Ok(());
    }
    // Two nodes have one voter: the other can go.
    if all == 2 && left == 1 {
        return Ok(());
    }
    let unheard: Vec<String> = unheard
        .iter()
        .map(|node| format!(" (node:{node} is not heard)"))
        .collect();
    Err(format!(
        "without node:{uid} {left} of {all} nodes would be left that are heard and not in maintenance \
         mode{}: no majority. Bring another node back first",
        unheard.concat()
    ))
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
