//! An operator wants shards on another node. Pure: what is refused changes nothing.

use super::plan::copy_of;
use crate::busy;
use crate::maintenance::{data_is_there_alone, request::find as find_node};
use crate::observed::Observations;
use crate::operation::request::operation;
use crate::placement::copies;
use crate::placement::plan::Coming;
use crate::request::{Fresh, find as find_database};
use crate::state::{Change, ClusterState, Stored};
use model::documents::{
    Database, DatabaseStatus, Migration, Operation, OperationKind, OperationStatus, Role, Shard,
    keys,
};
use model::intent::{IntentOutcome, MigrateWhat};
use model::{ApiError, DatabaseUid, ErrorCode, NodeUid, OperationUid};
use std::collections::{BTreeMap, BTreeSet};
use store::Txn;

/// Most databases that one request works on: two operations of a transaction for each, two more for those
/// that are taken at once.
const AT_MOST: usize = 100;
/// Up to here all of them are taken at once.
const ALL_AT_ONCE: usize = 60;
/// Of more, as many.
const FIRST_OF_MANY: usize = 20;

/// Brings shards to another node, one operation a database.
pub(crate) fn migrate(
    (state, observed): (&ClusterState, &Observations),
    (what, node, override_policy): (&MigrateWhat, NodeUid, bool),
    fresh: &Fresh<'_>,
) -> Result<(Txn, IntentOutcome), ApiError> {
    find_node(state, node)?;
    let chosen = chosen(state, what)?;
    if let MigrateWhat::Node { node: from, .. } = what
        && *from == node
    {
        return Err(refused(format!(
            "node:{node} is where they are: choose another target"
        )));
    }
    let owners: BTreeSet<DatabaseUid> = chosen.iter().map(|shard| shard.database).collect();
    for owner in owners {
        busy::free(state, find_database(state, owner)?)?;
    }
    let moved = moved(chosen, what, node)?;
    let both = (state, observed);
    all_are_heard(both, &moved, fresh)?;
    may_all_be_there(both, &moved, (node, override_policy), fresh)?;
    let mut wanted: BTreeMap<DatabaseUid, Vec<Migration>> = BTreeMap::new();
    for shard in moved {
        let moves = wanted.entry(shard.database).or_default();
        moves.push(brought(shard, node));
    }
    let mut change = Change::of(state, fresh.now);
    let mut beginner = Beginner::of(wanted.len())?;
    let mut operations = Vec::new();
    for (uid, migrations) in wanted {
        let database = state.database(uid).ok_or(ErrorCode::DbNotFound)?;
        let name = if operations.is_empty() {
            fresh.operation.clone()
        } else {
            OperationUid(format!("{}-{uid}", fresh.operation))
        };
        let operation = Operation {
            uid: name,
            total: u32::try_from(migrations.len()).unwrap_or(u32::MAX),
            migrations,
            override_policy: Some(override_policy),
            ..operation(OperationKind::MigrateShards, uid, fresh)
        };
        operations.push(beginner.begin(state, &mut change, database, operation)?);
    }
    let outcome = IntentOutcome {
        database: None,
        operation: operations.first().cloned(),
        operations,
    };
    Ok((change.into_txn(), outcome))
}

/// Begins the operations of one request, each on a database of its own. A transaction of the store is
/// bounded: of many databases only the first are taken at once, the others' operations wait for that
/// ([`crate::operation::plan::taken`]).
pub(crate) struct Beginner {
    databases: usize,
    begun: usize,
}

impl Beginner {
    /// For so many databases.
    ///
    /// # Errors
    /// `invalid_param`: more than [`AT_MOST`].
    pub(crate) fn of(databases: usize) -> Result<Self, ApiError> {
        if databases > AT_MOST {
            return Err(refused(format!(
                "that would be work on {databases} databases, more than {AT_MOST} at once: migrate shards of \
                 some of them first (`rladmin migrate db <db> …`)"
            )));
        }
        Ok(Self {
            databases,
            begun: 0,
        })
    }

    /// The next one.
    ///
    /// # Errors
    /// `busy`: something works on the database.
    pub(crate) fn begin(
        &mut self,
        state: &ClusterState,
        change: &mut Change,
        database: &Stored<Database>,
        operation: Operation,
    ) -> Result<OperationUid, ApiError> {
        self.begun += 1;
        if self.databases <= ALL_AT_ONCE || self.begun <= FIRST_OF_MANY {
            begin(state, change, database, &operation)?;
            return Ok(operation.uid);
        }
        busy::free(state, database)?;
        Ok(Self::queue(change, operation))
    }

    /// One that waits until nothing else works on its database.
    pub(crate) fn queue(change: &mut Change, mut operation: Operation) -> OperationUid {
        operation.status = OperationStatus::Pending;
        change.create(keys::operation(&operation.uid), &operation);
        operation.uid
    }
}

/// Has an operation work on a database.
pub(crate) fn begin(
    state: &ClusterState,
    change: &mut Change,
    database: &Stored<Database>,
    operation: &Operation,
) -> Result<(), ApiError> {
    busy::free(state, database)?;
    let mut doc = database.doc.clone();
    doc.status = DatabaseStatus::ActiveChangePending;
    doc.operation = Some(operation.uid.clone());
    change.replace(keys::database(database.uid), database.revision, &doc);
    change.create(keys::operation(&operation.uid), operation);
    Ok(())
}

fn chosen<'a>(
    state: &'a ClusterState,
    what: &MigrateWhat,
) -> Result<Vec<&'a Stored<Shard>>, ApiError> {
    let with_role = |role: &Option<Role>, shard: &Shard| role.is_none_or(|r| r == shard.role);
    match what {
        MigrateWhat::Shards { shards } if shards.is_empty() => {
            Err(ErrorCode::ShardUidsRequired.into())
        }
        MigrateWhat::Shards { shards } => {
            let find = |uid| {
                let found = state.shards.iter().find(|s| s.uid == uid);
                found.ok_or_else(|| {
                    ApiError::new(
                        ErrorCode::ShardNotExist,
                        format!(
                            "there is no shard redis:{uid}: {}",
                            ErrorCode::ShardNotExist.remedy()
                        ),
                    )
                })
            };
            let mut all = Vec::new();
            for uid in shards {
                let shard = find(*uid)?;
                if !all.iter().any(|known: &&Stored<Shard>| known.uid == *uid) {
                    all.push(shard);
                }
            }
            Ok(all)
        }
        MigrateWhat::Database { database, role } => {
            find_database(state, *database)?;
            let shards = state.shards_of(*database);
            Ok(shards.filter(|s| with_role(role, s)).collect())
        }
        MigrateWhat::Node { node, role } => {
            find_node(state, *node)?;
            let there = state.shards.iter().filter(|s| s.node == *node);
            Ok(there.filter(|s| with_role(role, s)).collect())
        }
    }
}

fn brought(shard: &Shard, node: NodeUid) -> Migration {
    Migration {
        shard: shard.uid,
        node,
        copy: None,
        role: (shard.role == Role::Primary).then_some(Role::Primary),
    }
}

/// The shards that are to be brought to a node and are not there already.
fn moved<'a>(
    chosen: Vec<&'a Stored<Shard>>,
    what: &MigrateWhat,
    node: NodeUid,
) -> Result<Vec<&'a Stored<Shard>>, ApiError> {
    let (there, moved): (Vec<_>, Vec<_>) = chosen.into_iter().partition(|shard| shard.node == node);
    // Of all shards of a database or a node, those that are there already stay.
    if let (Some(shard), MigrateWhat::Shards { .. }) = (there.first(), what) {
        return Err(refused(format!(
            "redis:{} is on node:{node} already: choose another node",
            shard.uid
        )));
    }
    if moved.is_empty() {
        return Err(refused(format!("there is nothing to bring to node:{node}")));
    }
    Ok(moved)
}

/// Nothing can be brought away from a node that is not heard.
fn all_are_heard(
    (state, observed): (&ClusterState, &Observations),
    moved: &[&Stored<Shard>],
    fresh: &Fresh<'_>,
) -> Result<(), ApiError> {
    let heard = |node| observed.heard(node, state.node_silent(), fresh.instant);
    let unheard = |shard: &&&Stored<Shard>| heard(shard.node).is_none();
    let Some(shard) = moved.iter().find(unheard) else {
        return Ok(());
    };
    // Until then a replica may yet take over.
    if observed.is_silent(shard.node, fresh.instant)
        && let Some(error) = data_is_there_alone(state, shard.node)
    {
        return Err(error);
    }
    Err(ApiError::new(
        ErrorCode::NodeDown,
        format!(
            "redis:{} is on node:{node}, which is not heard, so it cannot be brought away: bring the node \
             back, or take it out of the cluster with `rladmin node {node} remove`",
            shard.uid,
            node = shard.node
        ),
    ))
}

/// Whether all of them may be there together: what counts is how it is when the last one has come.
fn may_all_be_there(
    (state, observed): (&ClusterState, &Observations),
    moved: &[&Stored<Shard>],
    (node, override_policy): (NodeUid, bool),
    fresh: &Fresh<'_>,
) -> Result<(), ApiError> {
    let moves: Vec<Migration> = moved.iter().map(|shard| brought(shard, node)).collect();
    let mut coming = Coming::to(state, node);
    for shard in moved {
        if !override_policy {
            copies::apart(state, shard, &moves)?;
        }
        copy_of((state, observed), shard, (node, coming), fresh.instant)?;
        coming.add(shard.memory_bytes);
    }
    Ok(())
}

fn refused(reason: String) -> ApiError {
    ApiError::new(ErrorCode::InvalidParam, reason)
}
