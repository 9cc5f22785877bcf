//! A node that leaves goes when nothing is on it any more. Pure.

use crate::database::plan::Step;
use crate::state::{Change, ClusterState};
use jiff::Timestamp;
use model::documents::{Severity, keys};
use serde_json::json;

/// The next step of nodes that leave.
#[must_use]
pub fn next(state: &ClusterState, now: Timestamp) -> Option<Step> {
    let empty = |uid| state.shards_on(uid) == 0;
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
