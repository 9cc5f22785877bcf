//! An operator wants primaries to hand their role over. Pure: what is refused changes nothing.

use super::plan::{self, NotNow};
use crate::busy;
use crate::failover::plan as failover;
use crate::migration::request::begin;
use crate::observed::Observations;
use crate::operation::request::operation;
use crate::replica_set;
use crate::request::{Fresh, find};
use crate::state::{Change, ClusterState, Stored};
use model::documents::{Database, DatabaseStatus, Operation, OperationKind, Role, Shard};
use model::intent::IntentOutcome;
use model::{ApiError, DatabaseUid, ErrorCode, ShardUid};
use store::Txn;

pub(crate) fn failover_shards(
    state: &ClusterState,
    observed: &Observations,
    (database, shards, immediate): (Option<DatabaseUid>, &[ShardUid], bool),
    fresh: &Fresh<'_>,
) -> Result<(Txn, IntentOutcome), ApiError> {
    let (database, found) = named(state, database, shards)?;
    let owner = database.uid;
    let mut sets = replica_set::of_database(state, database);
    sets.retain(|set| shards.contains(&set.primary.uid));
    let (coming, there): (Vec<_>, Vec<_>) = sets
        .into_iter()
        .partition(|set| failover::is_coming(state, observed, set, fresh.instant));
    let mut change = Change::of(state, fresh.now);
    let mut ended = 0;
    for set in &coming {
        ended += usize::from(failover::asked_for(&mut change, set, fresh.now));
    }
    // What works on the database waits for the primary that comes: nothing of it is in the way of that.
    let all_come = found.iter().all(|shard| {
        let mut sets = coming.iter();
        sets.any(|set| set.primary.uid == shard.uid)
    });
    let may_be_busy = ended > 0 && all_come && database.status != DatabaseStatus::DeletePending;
    if let Err(busy) = busy::free(state, database) {
        let outcome = IntentOutcome {
            database: Some(owner),
            ..IntentOutcome::default()
        };
        return may_be_busy
            .then(|| (change.into_txn(), outcome))
            .ok_or(busy);
    }
    if let Some(replica) = found.iter().find(|shard| shard.role != Role::Primary) {
        return Err(ApiError::new(
            ErrorCode::ShardIsSlave,
            format!(
                "redis:{} is no master: name the one that has the role now",
                replica.uid
            ),
        ));
    }
    for set in &there {
        let (both, uid) = ((set, &database.doc), &fresh.operation);
        plan::check((state, observed), both, None, uid, fresh.instant)
            .map_err(|why| not_possible(set.primary, &why))?;
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
    begin(state, &mut change, database, &operation)?;
    let outcome = IntentOutcome {
        database: Some(owner),
        operation: Some(fresh.operation.clone()),
        ..IntentOutcome::default()
    };
    Ok((change.into_txn(), outcome))
}

/// The shards that are meant, and their database.
fn named<'a>(
    state: &'a ClusterState,
    database: Option<DatabaseUid>,
    shards: &[ShardUid],
) -> Result<(&'a Stored<Database>, Vec<&'a Stored<Shard>>), ApiError> {
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
    Ok((database, found))
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

fn not_possible(primary: &Shard, why: &NotNow) -> ApiError {
    let reason = match &primary.trouble {
        Some(trouble) if !trouble.starts_with(&why.reason) => format!("{}; {trouble}", why.reason),
        Some(trouble) => trouble.clone(),
        None => why.reason.clone(),
    };
    ApiError::new(
        why.code,
        format!(
            "redis:{} cannot hand over now: {reason}. Nothing was changed",
            primary.uid
        ),
    )
}
