//! What becomes of a shard that is on its way to a node which leaves the cluster, or has left. Where the planner chose
//! that node, it chooses another; where an operator did, the operation ends. Pure.

use crate::database::deletion::is_lost;
use crate::database::plan::Step;
use crate::observed::Observations;
use crate::operation::ending;
use crate::placement::plan::Planner;
use crate::replica_set::ReplicaSet;
use crate::state::{Change, ClusterState, Stored};
use jiff::Timestamp;
use model::documents::{Migration, Operation, OperationKind, Role, Shard, keys};
use model::{ErrorCode, NodeUid};
use std::time::Instant;

/// Whether a shard will not come to the node that it was to come to: nothing is there yet, and the node leaves; or its
/// copy is there, and the node leaves without being heard.
pub(super) fn is_out_of_reach(
    (state, observed): (&ClusterState, &Observations),
    migration: &Migration,
    instant: Instant,
) -> bool {
    let leaves = || state.node(migration.node).is_none_or(|node| node.leaving);
    match migration.copy.map(|copy| state.shard(copy)) {
        None => leaves(),
        // It has gone with its node.
        Some(None) => true,
        Some(Some(copy)) => copy.role == Role::Replica && is_lost(state, observed, copy, instant),
    }
}

pub(super) struct View<'a> {
    pub(super) state: &'a ClusterState,
    pub(super) observed: &'a Observations,
    pub(super) operation: &'a Stored<Operation>,
    pub(super) instant: Instant,
    pub(super) now: Timestamp,
}

impl View<'_> {
    /// The next step, or what is waited for.
    pub(super) fn next(
        &self,
        set: &ReplicaSet<'_>,
        shard: &Shard,
        migration: &Migration,
    ) -> Result<Step, String> {
        let kind = self.operation.kind;
        let empties = matches!(
            kind,
            OperationKind::RemoveNode | OperationKind::MaintenanceOn
        );
        if !empties && !self.operation.slave_ha {
            return Ok(self.ended(migration.node));
        }
        let copies: Vec<NodeUid> = set
            .members()
            .filter(|member| Some(member.uid) != migration.copy)
            .map(|member| member.node)
            .collect();
        let mut places = Planner::new(self.state, self.observed, self.instant);
        match places.place(shard, &copies, shard.node) {
            Ok(node) => Ok(self.to(shard, migration, Some(node))),
            // Replicas go where there is room; else they stay.
            Err(_) if kind == OperationKind::MaintenanceOn && shard.role == Role::Replica => {
                Ok(self.to(shard, migration, None))
            }
            Err(error) => Err(error.description),
        }
    }

    /// To another node; `None`: it stays.
    fn to(&self, shard: &Shard, migration: &Migration, node: Option<NodeUid>) -> Step {
        let mut change = Change::of(self.state, self.now);
        if let Some(copy) = migration.copy.and_then(|copy| self.state.shard(copy)) {
            let mut doc = copy.doc.clone();
            doc.removed_by = Some(self.operation.uid.clone());
            doc.synced = None;
            change.replace(keys::shard(copy.uid), copy.revision, &doc);
        }
        let mut doc = self.operation.doc.clone();
        match (node, doc.migrations.first_mut()) {
            (Some(node), Some(first)) => {
                first.copy = None;
                first.node = node;
            }
            _ => {
                doc.migrations.remove(0);
            }
        }
        doc.step_since = Some(self.now);
        doc.waiting_on = None;
        change.replace(keys::operation(&doc.uid), self.operation.revision, &doc);
        let leaves = format!("node:{} leaves", migration.node);
        let becomes = match node {
            Some(node) => format!("redis:{} goes to node:{node}", shard.uid),
            None => format!("redis:{} stays where it is", shard.uid),
        };
        Step::Store {
            txn: change.into_txn(),
            reason: format!("{leaves}: {becomes}"),
        }
    }

    fn ended(&self, node: NodeUid) -> Step {
        let mut change = Change::of(self.state, self.now);
        let does = match self.state.node(node) {
            Some(_) => "leaves",
            None => "has left",
        };
        let reason = format!("node:{node} {does} the cluster: nothing is brought there");
        let error = (ErrorCode::NodeNotFound, reason.as_str());
        ending::given_up(self.state, &mut change, self.operation, error, self.now);
        Step::Store {
            txn: change.into_txn(),
            reason,
        }
    }
}
