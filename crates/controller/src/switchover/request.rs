//! An operator wants primaries to hand their role over. Pure: what is refused changes nothing.

use super::plan::{self, NotNow};
use crate::busy;
use crate::migration::request::begin;
use crate::observed::Observations;
use crate::operation::request::operation;
use crate::replica_set;
use crate::request::{Fresh, find};
use crate::state::{Change, ClusterState, Stored};
use model::documents::{Operation, OperationKind, Role, Shard};
use model::intent::IntentOutcome;
use model::{ApiError, DatabaseUid, ErrorCode, ShardUid};
use store::Txn;

pub(crate) fn failover_shards(
    state: &ClusterState,
    observed: &Observations,
    (database, shards, immediate): (Option<DatabaseUid>, &[ShardUid], bool),
    fresh: &Fresh<'_>,
) -> Result<(Txn, IntentOutcome), ApiError> {
    let first = shards.first().ok_or(ErrorCode::ShardUidsRequired)?;
    let found: Vec<&Stored<Shard>> = shards
        .iter()
        .map(|uid| shard(state, *uid))
        .collect::<Result<_, _>>()?;
    let owner = database.unwrap_or(shard(state, *first)?.database);
    let database = find(state, owner)?;
    if let Some(other) = found.iter().find(|shard| shard.database != owner) {
        return Err(ApiError::new(
            ErrorCode::FailoverShardsDifferentBdb,
            format!(
                "redis:{} is of database db:{}, not db:{owner}: name shards of one database",
                other.uid, other.database
            ),
        ));
    }
    busy::free(state, database)?;
    if let Some(replica) = found.iter().find(|shard| shard.role != Role::Primary) {
        return Err(ApiError::new(
            ErrorCode::ShardIsSlave,
            format!(
                "redis:{} is no master: name the one that has the role now",
                replica.uid
            ),
        ));
    }
    for set in replica_set::of_database(state, database) {
        if shards.contains(&set.primary.uid) {
            plan::check(
                (state, observed),
                (&set, database),
                None,
                &fresh.operation,
                fresh.instant,
            )
            .map_err(|why| not_possible(set.primary.uid, &why))?;
        }
    }
    let mut wanted = Vec::new();
    for uid in shards {
        if !wanted.contains(uid) {
            wanted.push(*uid);
        }
    }
    let operation = Operation {
        total: u32::try_from(wanted.len()).unwrap_or(u32::MAX),
        shards: wanted,
        immediate,
        ..operation(OperationKind::FailoverShards, owner, fresh)
    };
    let mut change = Change::of(state, fresh.now);
    begin(state, &mut change, database, &operation)?;
    let outcome = IntentOutcome {
        database: Some(owner),
        operation: Some(fresh.operation.clone()),
        ..IntentOutcome::default()
    };
    Ok((change.into_txn(), outcome))
}

fn shard(state: &ClusterState, uid: ShardUid) -> Result<&Stored<Shard>, ApiError> {
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
}

fn not_possible(primary: ShardUid, why: &NotNow) -> ApiError {
    let reason = &why.reason;
    ApiError::new(
        why.code,
        format!("redis:{primary} cannot hand over now: {reason}. Nothing was changed"),
    )
}
