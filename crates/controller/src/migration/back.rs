//! What comes back to a node (`maintenance_mode off`, a snapshot) while others are dead. What is on a dead node alone stays
//! there, and nobody waits for it: all else comes, then the operation ends and says what stays. Pure.

use crate::database::plan::Step;
use crate::observed::Observations;
use crate::operation::ending;
use crate::operation::plan::{is_known, of_database as running};
use crate::replica_set::{self, Doubt, ReplicaSet};
use crate::state::{Change, ClusterState, Stored};
use jiff::Timestamp;
use model::documents::{
    Database, Migration, Operation, OperationKind, OperationStatus, Persistence, Severity, Shard,
    keys,
};
use model::{ErrorCode, NodeUid, ShardUid};
use serde_json::json;
use std::collections::BTreeSet;
use std::time::Instant;

/// Whether an operation brings back what a node had.
pub(crate) fn comes_back(operation: &Operation) -> bool {
    matches!(
        operation.kind,
        OperationKind::MaintenanceOff | OperationKind::RestoreSnapshot
    )
}

/// The operation that brings back to a node what it had, if one works on a database.
fn of_database<'a>(state: &'a ClusterState, database: &Database) -> Option<&'a Stored<Operation>> {
    let running = running(state, database)?;
    (comes_back(running) && is_known(running).is_ok()).then_some(running)
}

/// Whether an operation that brings back what a node had passes a set over, as nobody has its data: its primary's node,
/// which is another one, has been silent for long, and no replica can take its place. One that is not heard either
/// cannot; of one that is heard it must be known. One that had the data and was started again may serve later with what it
/// has on disk ([`crate::failover`]), and to a node that is not heard nothing comes back: both are waited for.
pub(crate) fn is_passed_over(
    (state, observed): (&ClusterState, &Observations),
    database: &Database,
    set: &ReplicaSet<'_>,
    instant: Instant,
) -> bool {
    let silent = |shard: &Shard| observed.is_silent(shard.node, instant);
    let keeps = database.persistence != Persistence::Disabled;
    let cannot = |replica: &&Stored<Shard>| {
        let seen = replica_set::candidate(observed, replica, set.last_served(), instant);
        silent(replica)
            || match seen {
                None => true,
                Some(Err(Doubt::Gone(_))) => !keeps,
                Some(Ok(_) | Err(Doubt::Frozen(_))) => false,
            }
    };
    let to_whom = of_database(state, database).map(|running| running.node);
    let is_silent = |node: NodeUid| observed.is_silent(node, instant);
    to_whom.is_some_and(|node| node != Some(set.primary.node) && !node.is_some_and(is_silent))
        && silent(set.primary)
        && set.replicas.iter().all(cannot)
}

/// The next step of an operation that brings back what a node had, if it is about what stays on dead nodes.
pub(crate) fn next(
    (state, observed): (&ClusterState, &Observations),
    database: &Database,
    instant: Instant,
    now: Timestamp,
) -> Option<Step> {
    let operation = of_database(state, database)?;
    if operation.status != OperationStatus::Active {
        return None;
    }
    let sets = replica_set::of_database(state, database);
    let dead: Vec<&ReplicaSet<'_>> = sets
        .iter()
        .filter(|set| is_passed_over((state, observed), database, set, instant))
        .collect();
    let view = View {
        state,
        operation,
        dead,
        now,
    };
    view.next()
}

struct View<'a> {
    state: &'a ClusterState,
    operation: &'a Stored<Operation>,
    dead: Vec<&'a ReplicaSet<'a>>,
    now: Timestamp,
}

impl View<'_> {
    fn stays(&self, shard: ShardUid) -> bool {
        let mut members = self.dead.iter().flat_map(|set| set.members());
        members.any(|member| member.uid == shard)
    }

    fn next(&self) -> Option<Step> {
        let (roles_left, roles): (Vec<ShardUid>, Vec<ShardUid>) = {
            let roles = self.operation.shards.iter().copied();
            roles.partition(|shard| self.stays(*shard))
        };
        let (left, moves): (Vec<Migration>, Vec<Migration>) = {
            let moves = self.operation.migrations.iter().cloned();
            moves.partition(|migration| self.stays(migration.shard))
        };
        if left.is_empty() && roles_left.is_empty() {
            return None;
        }
        if moves.is_empty() && roles.is_empty() {
            return Some(self.ended(&left, &roles_left));
        }
        self.put_last((moves, left), (roles, roles_left))
    }

    /// What can come comes first. Of what cannot, a copy that was begun is given up.
    fn put_last(
        &self,
        (mut moves, left): (Vec<Migration>, Vec<Migration>),
        (mut roles, roles_left): (Vec<ShardUid>, Vec<ShardUid>),
    ) -> Option<Step> {
        let mut change = Change::of(self.state, self.now);
        for migration in left {
            let begun = migration.copy.and_then(|copy| self.state.shard(copy));
            if let Some(copy) = begun.filter(|copy| copy.removed_by.is_none()) {
                let mut doc = copy.doc.clone();
                doc.removed_by = Some(self.operation.uid.clone());
                doc.synced = None;
                change.replace(keys::shard(copy.uid), copy.revision, &doc);
            }
            moves.push(Migration {
                copy: None,
                ..migration
            });
        }
        roles.extend(roles_left);
        let mut doc = self.operation.doc.clone();
        (doc.migrations, doc.shards) = (moves, roles);
        if doc == self.operation.doc {
            return None;
        }
        doc.step_since = Some(self.now);
        doc.waiting_on = None;
        change.replace(keys::operation(&doc.uid), self.operation.revision, &doc);
        let nodes = self.nodes();
        Some(Step::Store {
            txn: change.into_txn(),
            reason: format!("{nodes} not heard: what can come back comes first"),
        })
    }

    /// `node:2 is`, `node:2 and node:3 are`.
    fn nodes(&self) -> String {
        let nodes: BTreeSet<NodeUid> = self.dead.iter().map(|set| set.primary.node).collect();
        let names: Vec<String> = nodes.iter().map(|node| format!("node:{node}")).collect();
        let verb = if names.len() == 1 { "is" } else { "are" };
        format!("{} {verb}", names.join(" and "))
    }

    fn ended(&self, left: &[Migration], roles: &[ShardUid]) -> Step {
        let mut stays: Vec<ShardUid> = left.iter().map(|migration| migration.shard).collect();
        let remedy = match (self.operation.node, stays.is_empty()) {
            (Some(node), false) => {
                let these: Vec<String> = stays.iter().map(ToString::to_string).collect();
                let these = these.join(" ");
                format!(
                    ". Once it is back, `rladmin migrate shard {these} target_node {node}` brings that over"
                )
            }
            _ => String::new(),
        };
        stays.extend(
            roles
                .iter()
                .filter(|role| !left.iter().any(|m| m.shard == **role)),
        );
        let names: Vec<String> = stays.iter().map(|shard| format!("redis:{shard}")).collect();
        let (names, nodes) = (names.join(", "), self.nodes());
        let reason = format!(
            "all came back that could. What {names} had did not, since nobody else has it: {nodes} not heard{remedy}"
        );
        let mut change = Change::of(self.state, self.now);
        let error = (ErrorCode::NodeDown, reason.as_str());
        ending::given_up(self.state, &mut change, self.operation, error, self.now);
        change.event(
            Severity::Warning,
            "shards_not_restored",
            &[
                ("action_uid", json!(self.operation.uid)),
                ("action", json!(self.operation.kind.operator_word())),
                ("bdb_uid", json!(self.operation.database)),
                ("node_uid", json!(self.operation.node)),
                ("shards", json!(stays)),
                ("reason", json!(reason)),
            ],
        );
        Step::Store {
            txn: change.into_txn(),
            reason,
        }
    }
}
