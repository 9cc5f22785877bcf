//! From the cluster's view to the objects of REST. Pure functions: a view in, an object out.
//!
//! What was observed is shown as it was last known, whatever its age; whether it can be relied on
//! is said by the statuses, which come from how long ago the node was heard.

pub mod action;
pub mod bootstrap;
pub mod cluster;
pub mod database;
pub mod node;
pub mod proxy;
pub mod shard;
pub mod stats;
pub mod upgrade;
pub mod upgrade_run;

use model::NodeUid;
use model::observation::NodeObservation;
use model::view::ClusterView;

/// Seconds since a node was heard; `None`: never.
#[must_use]
pub fn last_heard_seconds(view: &ClusterView, node: NodeUid) -> Option<f64> {
    // An age fits into f64 without loss for some 285,000 years.
    view.observed(node)
        .map(|observed| observed.age_ms as f64 / 1_000.0)
}

/// The last observation of a node, of whatever age.
fn observation(view: &ClusterView, node: NodeUid) -> Option<&NodeObservation> {
    view.observed(node).map(|observed| &observed.observation)
}

/// Why nothing is known of a node's state now, for messages.
fn not_heard(view: &ClusterView, node: NodeUid) -> String {
    match last_heard_seconds(view, node) {
        Some(seconds) => format!("node {node} was last heard {seconds:.1} s ago"),
        None => format!("node {node} has not been heard yet"),
    }
}
