//! Stored and observed state together: what `cnm_http` shapes into REST and the tools print.

use crate::documents::{Cluster, Database, Node, Operation, Shard, User};
use crate::ids::{NodeUid, Revision};
use crate::observation::NodeObservation;
use crate::upgrade::Upgrade;
use serde::{Deserialize, Serialize};

/// How fresh a view must be.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Consistency {
    /// From the primary node, after everything that was acknowledged before; without a quorum the
    /// local state instead, marked by `has_quorum: false`.
    Linearizable,
    /// What this node knows, at once.
    Local,
}

/// The whole cluster as seen from one node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClusterView {
    /// Revision of the stored part.
    pub revision: Revision,
    /// The node that was asked.
    pub local_node: NodeUid,
    /// The primary node, if one is known.
    pub primary_node: Option<NodeUid>,
    /// Whether a quorum confirmed this view. `false`: it is what the asked node knew last.
    pub has_quorum: bool,
    /// Nodes that vote on the configuration.
    pub voters: Vec<NodeUid>,
    /// The cluster.
    pub cluster: Cluster,
    /// Its nodes, by uid.
    pub nodes: Vec<Node>,
    /// Its databases, by uid.
    pub databases: Vec<Database>,
    /// Its shards, by uid.
    pub shards: Vec<Shard>,
    /// Users of the platform.
    pub users: Vec<User>,
    /// Operations, oldest first.
    pub operations: Vec<Operation>,
    /// Upgrades.
    #[serde(default)]
    pub upgrade: Upgrade,
    /// What was heard of each node.
    pub observed: Vec<Observed>,
    /// For how long the primary node that answers has been it, ms. `None`: not it, or of a release that does not tell.
    #[serde(default)]
    pub primary_for_ms: Option<u64>,
    /// Whether the node that was asked was removed from the cluster.
    #[serde(default)]
    pub removed: bool,
}

/// What is known of whether a node is there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Presence {
    /// It was heard of within [`crate::limits::HEARTBEAT_LOST`].
    Heard,
    /// The primary node has only just become it, and has not heard of the node yet: nothing speaks against it.
    NotYet,
    /// It was not heard of for longer.
    Silent,
}

/// What was heard of one node, and when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Observed {
    /// The last observation.
    pub observation: NodeObservation,
    /// Milliseconds since it arrived at the primary node.
    pub age_ms: u64,
    /// How far its clock is ahead of the primary node's, ms.
    #[serde(default)]
    pub clock_ahead_ms: i64,
}

impl ClusterView {
    /// The last observation of a node and its age.
    #[must_use]
    pub fn observed(&self, node: NodeUid) -> Option<&Observed> {
        self.observed.iter().find(|o| o.observation.node == node)
    }

    /// What is known of whether a node is there. A primary node that is new has waited for nobody long enough to know
    /// that he is silent, unless the one before had waited for him in vain, too.
    #[must_use]
    pub fn presence(&self, node: NodeUid) -> Presence {
        if self.is_heard(node) {
            return Presence::Heard;
        }
        let lost = u64::try_from(crate::limits::HEARTBEAT_LOST.as_millis()).unwrap_or(u64::MAX);
        let Some(since) = self.primary_for_ms.filter(|since| *since <= lost) else {
            return Presence::Silent;
        };
        match self.observed(node) {
            Some(seen) if seen.age_ms > since.saturating_add(lost) => Presence::Silent,
            _ => Presence::NotYet,
        }
    }

    /// Whether a node was heard of within [`crate::limits::HEARTBEAT_LOST`].
    #[must_use]
    pub fn is_heard(&self, node: NodeUid) -> bool {
        self.observed(node)
            .is_some_and(|o| u128::from(o.age_ms) <= crate::limits::HEARTBEAT_LOST.as_millis())
    }
}
