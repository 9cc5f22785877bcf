//! What a running replica needs: a primary to follow, and a record once it holds the primary's data.
//! Pure.
//!
//! A record is made when replica and primary agree that the link is up and that acknowledgements come.
//! It is removed while the primary serves: at once when the replica's process or history is another one,
//! and when the link has been down for [`UNSYNCED_AFTER`]. While the primary is not heard, nothing is
//! removed.

use crate::observed::{self, Observations};
use crate::replica_set::{self, ReplicaSet};
use crate::state::{Change, ClusterState, Stored};
use jiff::Timestamp;
use model::command::AgentCommand;
use model::documents::{Role, Severity, Shard, keys};
use model::limits::{ACK_LAG_MAX, NODE_SILENT, UNSYNCED_AFTER};
use model::observation::{EngineState, ShardObservation};
use model::replication::{PrimaryAddress, ReplicaSeen, SyncedRecord};
use serde_json::json;
use std::net::SocketAddr;
use std::time::Instant;
use store::Txn;

/// Up to here an engine's `slave_repl_offset` says nothing: it is 1 too while a full sync that was cut off
/// has taken its data away, and nothing else of what it tells shows that. So no record has a lower floor
/// than what comes after; a primary pings every second.
const NO_OFFSET: u64 = 1;

/// What a replica needs.
#[derive(Clone, Debug, PartialEq)]
pub enum Need {
    /// An order to its agent, and why.
    Order(AgentCommand, String),
    /// A transaction, and why.
    Store(Txn, String),
    /// Time, and for what.
    Wait(String),
    /// Nothing: it is recorded as synced.
    Nothing,
}

/// The primary of a replica, serving and heard.
pub(super) struct Primary<'a> {
    shard: &'a Stored<Shard>,
    seen: &'a ShardObservation,
    address: SocketAddr,
}

/// Looks at a replica whose engine runs.
#[must_use]
pub fn need(
    state: &ClusterState,
    observed: &Observations,
    (set, replica): (&ReplicaSet<'_>, &Stored<Shard>),
    seen: &ShardObservation,
    instant: Instant,
    now: Timestamp,
) -> Need {
    let primary = match serving_primary(state, observed, set, instant) {
        Ok(primary) => primary,
        Err(reason) => return Need::Wait(reason),
    };
    let Some(run_id) = seen.run_id.clone() else {
        return Need::Wait(format!("redis:{} has not told its run id", replica.uid));
    };
    let epoch = primary.shard.epoch;
    let record = replica.synced.as_ref();
    if let Some(record) = record
        && (record.run_id != run_id || record.epoch != epoch)
    {
        return without_record(state, replica, "another process or epoch", now);
    }
    let follows = seen.role == Some(Role::Replica)
        && seen.epoch == Some(epoch)
        && seen
            .replication
            .as_ref()
            .is_some_and(|r| r.primary == Some(primary.address));
    if !follows {
        return follow(&primary, replica, run_id);
    }
    let state_of_it = standing(&primary, state, replica, seen);
    match (record, state_of_it) {
        (None, Standing::Synced(_)) if let Err(why) = may_record(state, set, &primary) => {
            Need::Wait(format!("redis:{}: {why}", replica.uid))
        }
        (None, Standing::Synced(offset)) => with_record(
            state,
            replica,
            SyncedRecord {
                run_id,
                replication_id: history(seen),
                offset_floor: offset,
                epoch,
            },
            now,
        ),
        (None, Standing::Behind(reason) | Standing::Syncing(reason)) => Need::Wait(reason),
        // Its data are called otherwise since its primary is another one.
        (Some(old), Standing::Synced(offset)) if old.replication_id != history(seen) => {
            with_record(
                state,
                replica,
                SyncedRecord {
                    run_id,
                    replication_id: history(seen),
                    offset_floor: offset,
                    epoch,
                },
                now,
            )
        }
        (Some(_), Standing::Synced(_)) => Need::Nothing,
        (Some(_), Standing::Syncing(reason)) => without_record(state, replica, &reason, now),
        (Some(_), Standing::Behind(reason)) => {
            let since = observed.unlinked_since(replica.uid);
            let long = since
                .is_some_and(|since| instant.saturating_duration_since(since) >= UNSYNCED_AFTER);
            let late =
                sight(&primary, state, replica).is_none_or(|sight| sight.lag_seconds > ACK_LAG_MAX);
            if long || (since.is_none() && late) {
                without_record(state, replica, &reason, now)
            } else {
                Need::Wait(reason)
            }
        }
    }
}

/// A replica whose node is not heard, or whose engine does not run: its record goes if the primary,
/// which serves, does not see it either.
#[must_use]
pub fn unheard(
    state: &ClusterState,
    observed: &Observations,
    (set, replica): (&ReplicaSet<'_>, &Stored<Shard>),
    instant: Instant,
    now: Timestamp,
) -> Option<Need> {
    replica.synced.as_ref()?;
    let primary = serving_primary(state, observed, set, instant).ok()?;
    let seen = sight(&primary, state, replica);
    let there = seen.is_some_and(|seen| seen.online && seen.lag_seconds <= ACK_LAG_MAX);
    (!there).then(|| without_record(state, replica, "its primary does not see it", now))
}

pub(super) fn serving_primary<'a>(
    state: &ClusterState,
    observed: &'a Observations,
    set: &ReplicaSet<'a>,
    instant: Instant,
) -> Result<Primary<'a>, String> {
    let shard = set.primary;
    let waits = |why: &str| Err(format!("its primary redis:{} {why}", shard.uid));
    if !shard.is_serving() {
        return waits("has no role yet");
    }
    if shard.is_withheld() {
        return waits("may not be used");
    }
    let silence = observed.silence(shard.node, instant);
    let heard = silence.is_some_and(|silence| silence < NODE_SILENT);
    let Some(node) = observed.fresh(shard.node, instant).filter(|_| heard) else {
        return waits("is not heard");
    };
    let seen = observed::shard(node, shard.uid)
        .filter(|seen| seen.state == EngineState::Running && seen.run_id == shard.run_id)
        .filter(|seen| observed::is_primary_of(seen, shard.epoch));
    let Some(seen) = seen else {
        return waits("does not answer");
    };
    let Some(address) = replica_set::address(state, shard) else {
        return waits("has no address");
    };
    Ok(Primary {
        shard,
        seen,
        address,
    })
}

/// A copy that could be promoted while somebody does not ask it for its promise would end in two
/// primaries: its record waits until every proxy needs a lease, and its primary's engine gives no promise
/// for another list of copies.
fn may_record(
    state: &ClusterState,
    set: &ReplicaSet<'_>,
    primary: &Primary<'_>,
) -> Result<(), &'static str> {
    let database = state.database(set.primary.database);
    if database.is_none_or(|database| !database.leased) {
        return Err("a proxy may still serve its database without a lease");
    }
    let user = set.keeper_user();
    match &primary.seen.keeper {
        Some(keeper) if keeper.alone && keeper.user == user => Ok(()),
        _ => Err("a proxy may still rest on promises that leave it out"),
    }
}

fn follow(primary: &Primary<'_>, replica: &Stored<Shard>, run_id: String) -> Need {
    let command = AgentCommand::Follow {
        shard: replica.uid,
        generation: replica.generation,
        run_id,
        epoch: primary.shard.epoch,
        primary: PrimaryAddress {
            shard: primary.shard.uid,
            address: primary.address,
            run_id: primary.shard.run_id.clone().unwrap_or_default(),
            engine: primary.seen.engine.clone(),
        },
        users: replica.users.clone(),
    };
    let reason = format!(
        "redis:{} does not follow redis:{} in epoch {}",
        replica.uid, primary.shard.uid, primary.shard.epoch
    );
    Need::Order(command, reason)
}

enum Standing {
    /// It has the primary's history up to this offset, and goes on.
    Synced(u64),
    /// It has it, or had it, and is not heard by the primary now.
    Behind(String),
    /// It is getting all data anew.
    Syncing(String),
}

fn standing(
    primary: &Primary<'_>,
    state: &ClusterState,
    replica: &Stored<Shard>,
    seen: &ShardObservation,
) -> Standing {
    let name = format!("redis:{}", replica.uid);
    let (Some(mine), Some(theirs)) = (&seen.replication, &primary.seen.replication) else {
        return Standing::Behind(format!("{name} has not told how it replicates"));
    };
    if mine.sync_in_progress {
        return Standing::Syncing(format!("{name} gets all data from its primary"));
    }
    if !mine.link_up {
        return Standing::Behind(format!("{name} has no link to its primary"));
    }
    if mine.replication_id != theirs.replication_id {
        return Standing::Behind(format!("{name} has not the history of its primary yet"));
    }
    match sight(primary, state, replica) {
        Some(_) if mine.offset <= NO_OFFSET => {
            Standing::Behind(format!("{name} has not heard of its primary yet"))
        }
        Some(sight) if sight.online && sight.lag_seconds <= ACK_LAG_MAX => {
            Standing::Synced(mine.offset)
        }
        _ => Standing::Behind(format!("the primary of {name} has not heard of it lately")),
    }
}

fn history(seen: &ShardObservation) -> String {
    let replication = seen.replication.as_ref();
    replication.map_or_else(String::new, |r| r.replication_id.clone())
}

/// The replica as its primary sees it.
fn sight<'a>(
    primary: &Primary<'a>,
    state: &ClusterState,
    replica: &Shard,
) -> Option<&'a ReplicaSeen> {
    let address = replica_set::address(state, replica)?;
    let replicas = &primary.seen.replication.as_ref()?.replicas;
    replicas.iter().find(|seen| seen.address == address)
}

fn with_record(
    state: &ClusterState,
    replica: &Stored<Shard>,
    record: SyncedRecord,
    now: Timestamp,
) -> Need {
    let reason = format!("redis:{} is synced in epoch {}", replica.uid, record.epoch);
    let mut doc = replica.doc.clone();
    doc.synced = Some(record);
    doc.trouble = None;
    doc.lost = None;
    let mut change = Change::of(state, now);
    change.replace(keys::shard(replica.uid), replica.revision, &doc);
    Need::Store(change.into_txn(), reason)
}

fn without_record(
    state: &ClusterState,
    replica: &Stored<Shard>,
    why: &str,
    now: Timestamp,
) -> Need {
    let mut doc = replica.doc.clone();
    doc.synced = None;
    let mut change = Change::of(state, now);
    change.replace(keys::shard(replica.uid), replica.revision, &doc);
    // In a new epoch every replica has to prove itself again: that is no news.
    let epoch = replica.synced.as_ref().map(|record| record.epoch);
    let severity = if epoch == Some(replica.epoch) {
        Severity::Warning
    } else {
        Severity::Info
    };
    change.event(
        severity,
        "replica_not_synced",
        &[
            ("bdb_uid", json!(replica.database)),
            ("shard_uid", json!(replica.uid)),
            ("node_uid", json!(replica.node)),
            ("reason", json!(why)),
        ],
    );
    let reason = format!("redis:{} is not synced any more: {why}", replica.uid);
    Need::Store(change.into_txn(), reason)
}
