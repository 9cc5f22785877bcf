//! Whether a primary can hand its role over, and what is stored before and after. Pure.

use crate::observed::{self, Observations};
use crate::operation::plan::pause;
use crate::placement::plan::proxies;
use crate::replica_set::{self, Fate, ReplicaSet};
use crate::state::{Change, ClusterState, Stored};
use jiff::Timestamp;
use model::documents::{
    Database, DatabaseStatus, EngineUsers, MoveReport, Operation, OperationKind, OperationStatus,
    Role, RoleMove, Severity, Shard, keys,
};
use model::limits::ACK_LAG_MAX;
use model::observation::{ShardObservation, StallKind};
use model::replication::SyncedRecord;
use model::{DatabaseUid, Epoch, ErrorCode, Generation, NodeUid, OperationUid, Revision, ShardUid};
use serde_json::json;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Instant;
use store::Txn;

/// One of the two engines of a move.
#[derive(Clone, Debug, PartialEq)]
pub struct Party {
    /// Which shard.
    pub shard: ShardUid,
    /// Its node.
    pub node: NodeUid,
    /// Generation that it was started from.
    pub generation: Generation,
    /// Its process.
    pub run_id: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its users.
    pub users: EngineUsers,
}

/// A move that may be begun.
#[derive(Clone, Debug, PartialEq)]
pub struct Move {
    /// On whose behalf.
    pub operation: OperationUid,
    /// Whose primary.
    pub database: DatabaseUid,
    /// The primary.
    pub old: Party,
    /// The replica that takes its role.
    pub new: Party,
    /// The primary's epoch; the new one's is the next.
    pub epoch: Epoch,
    /// Nodes whose proxies serve the database and are heard.
    pub proxies: Vec<NodeUid>,
}

/// Why a primary cannot hand its role over now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotNow {
    /// Whose remedy says what to do.
    pub code: ErrorCode,
    /// In words for the operator.
    pub reason: String,
}

impl NotNow {
    /// Something other than what the replicas have.
    pub fn of(reason: impl Into<String>) -> Self {
        Self {
            code: ErrorCode::MoveFailed,
            reason: reason.into(),
        }
    }
}

/// Looks whether a set's primary can hand its role over now, and to whom: the one that is wanted, or the
/// replica with the most data among those that are recorded as synced, and follow.
///
/// # Errors
/// Why not: a code, and words for the operator.
pub fn check(
    (state, observed): (&ClusterState, &Observations),
    (set, database): (&ReplicaSet<'_>, &Database),
    wanted: Option<ShardUid>,
    operation: &OperationUid,
    instant: Instant,
) -> Result<Move, NotNow> {
    let primary = set.primary;
    let name = format!("redis:{}", primary.uid);
    let unsynced = |reason: String| NotNow {
        code: ErrorCode::ReplicaNotSynced,
        reason,
    };
    if !primary.is_usable() {
        return Err(NotNow::of(format!("{name} does not serve now")));
    }
    let seen = match replica_set::fate(observed, primary, instant) {
        Fate::Alive(seen) if observed::is_primary_of(seen, primary.epoch) => seen,
        Fate::Unknown(reason) | Fate::Gone(reason) => return Err(NotNow::of(reason)),
        Fate::Alive(_) | Fate::NotYet => {
            return Err(NotNow::of(format!("{name} does not answer")));
        }
    };
    let mut reasons = Vec::new();
    let mut candidates = Vec::new();
    let replicas = set.replicas.iter().copied();
    for replica in replicas.filter(|shard| wanted.is_none_or(|uid| uid == shard.uid)) {
        match follows(state, observed, (primary, seen), replica, instant) {
            Ok(candidate) => candidates.push(candidate),
            Err(reason) => reasons.push(reason),
        }
    }
    let Some(best) = replica_set::best(&candidates) else {
        if reasons.is_empty() {
            return Err(unsynced(format!("{name} has no replica")));
        }
        // Who does not answer tells of no replica: they may follow all the same.
        if seen.replication.is_none() {
            let busy = seen.stall.as_ref().map(|stall| stall.kind) == Some(StallKind::Busy);
            let does = match busy {
                true => "is busy with a script or function that runs long",
                false => "does not answer",
            };
            return Err(NotNow::of(format!("{name} {does}")));
        }
        return Err(unsynced(reasons.join("; ")));
    };
    let (proxies, unheard): (Vec<NodeUid>, Vec<NodeUid>) = with_clients(state, observed, database)
        .into_iter()
        .partition(|node| observed.fresh(*node, instant).is_some());
    // Without one its clients are answered no more than those of a proxy that is gone.
    let leases = &observed.leases;
    if let Some(node) = unheard.iter().find(|node| leases.may_hold(**node, instant)) {
        return Err(NotNow::of(format!(
            "node:{node} is not heard, and its proxy may have a lease"
        )));
    }
    let run_id = best.shard.synced.as_ref().map(|r| r.run_id.clone());
    Ok(Move {
        operation: operation.clone(),
        database: database.uid,
        old: party(state, primary, primary.run_id.clone()).map_err(NotNow::of)?,
        new: party(state, best.shard, run_id).map_err(NotNow::of)?,
        epoch: primary.epoch,
        proxies,
    })
}

/// Nodes whose proxies may have clients of a database: those by its policy, and those that had them by it before
/// and keep them until they leave. A node that does not tell of a proxy may have one.
pub(super) fn with_clients(
    state: &ClusterState,
    observed: &Observations,
    database: &Database,
) -> Vec<NodeUid> {
    let mut nodes: BTreeSet<NodeUid> = proxies(state, database).into_iter().collect();
    let others = observed.iter().filter(|heard| {
        let proxy = heard.observation.proxy.as_ref();
        proxy.is_none_or(|proxy| proxy.databases.iter().any(|d| d.database == database.uid))
    });
    let others = others.map(|heard| heard.observation.node);
    nodes.extend(others.filter(|node| state.node(*node).is_some()));
    nodes.into_iter().collect()
}

fn party(state: &ClusterState, shard: &Shard, run_id: Option<String>) -> Result<Party, String> {
    let address = replica_set::address(state, shard);
    let (Some(address), Some(run_id)) = (address, run_id) else {
        return Err(format!("redis:{} is not known well enough", shard.uid));
    };
    Ok(Party {
        shard: shard.uid,
        node: shard.node,
        generation: shard.generation,
        run_id,
        address,
        users: shard.users.clone(),
    })
}

fn follows<'a>(
    state: &ClusterState,
    observed: &Observations,
    (primary, seen): (&Stored<Shard>, &ShardObservation),
    replica: &'a Stored<Shard>,
    instant: Instant,
) -> Result<replica_set::Candidate<'a>, String> {
    let name = format!("redis:{}", replica.uid);
    let candidate = replica_set::candidate(observed, replica, Some(primary.epoch), instant)
        .ok_or_else(|| format!("{name} is not synced"))?
        .map_err(|doubt| match doubt {
            replica_set::Doubt::Frozen(reason) | replica_set::Doubt::Gone(reason) => reason,
        })?;
    let address = replica_set::address(state, replica);
    let replicas = seen.replication.iter().flat_map(|r| &r.replicas);
    let sight = replicas
        .filter(|seen| Some(seen.address) == address)
        .find(|seen| seen.online && seen.lag_seconds <= ACK_LAG_MAX);
    if sight.is_none() || observed.unlinked_since(replica.uid).is_some() {
        return Err(format!("{name} does not follow redis:{} now", primary.uid));
    }
    Ok(candidate)
}

/// The transaction that begins a move: from here on it must be known how it ended. `None`: it may not begin
/// any more. Much may have happened while it was prepared: whoever was told that the operation was given up
/// sees no move of it.
#[must_use]
pub fn begin(state: &ClusterState, wanted: &Move, now: Timestamp) -> Option<Txn> {
    let operation = active(state, &wanted.operation)?;
    let primary = unmoved(state, wanted)?;
    let mut doc = primary.doc.clone();
    doc.moving = Some(RoleMove {
        operation: wanted.operation.clone(),
        target: wanted.new.shard,
        target_run_id: wanted.new.run_id.clone(),
        epoch: wanted.epoch.next(),
        begun: now,
    });
    let target = state.shards.iter().find(|s| s.uid == wanted.new.shard)?;
    target.synced.as_ref()?;
    let mut change = Change::of(state, now);
    change.replace(keys::shard(doc.uid), primary.revision, &doc);
    // Its record must still stand when the move is stored.
    change.replace(keys::shard(target.uid), target.revision, &target.doc);
    // And the operation must still be under way.
    let uid = &operation.uid;
    change.replace(keys::operation(uid), operation.revision, &operation.doc);
    Some(change.into_txn())
}

fn unmoved<'a>(state: &'a ClusterState, wanted: &Move) -> Option<&'a Stored<Shard>> {
    state.shards.iter().find(|shard| {
        shard.uid == wanted.old.shard
            && shard.is_serving()
            && shard.epoch == wanted.epoch
            && shard.run_id.as_ref() == Some(&wanted.old.run_id)
            && shard.moving.is_none()
    })
}

/// The primary of a move that was begun and of which it is not stored how it ended.
fn begun(state: &ClusterState, primary: ShardUid, epoch: Epoch) -> Option<&Stored<Shard>> {
    state.shards.iter().find(|shard| {
        shard.uid == primary && shard.moving.as_ref().is_some_and(|m| m.epoch == epoch)
    })
}

/// The transaction after the target has become primary of `epoch`. `old_record`: what the old primary
/// has, if it is known to be its replica now.
#[must_use]
pub fn commit(
    state: &ClusterState,
    (primary, epoch): (ShardUid, Epoch),
    (held_us, old_record): (u64, Option<SyncedRecord>),
    now: Timestamp,
) -> Option<Txn> {
    let old = begun(state, primary, epoch)?;
    let moving = old.moving.clone()?;
    let mut change = Change::of(state, now);
    for member in members(state, old) {
        let mut doc = member.doc.clone();
        doc.epoch = epoch;
        doc.role_since = Some(now);
        doc.trouble = None;
        if member.uid == moving.target {
            doc.role = Role::Primary;
            doc.run_id = Some(moving.target_run_id.clone());
            doc.serving = Some(epoch);
            doc.synced = None;
            doc.failovers.clone_from(&old.failovers);
        } else if member.uid == old.uid {
            doc.role = Role::Replica;
            doc.run_id = None;
            doc.moving = None;
            doc.synced.clone_from(&old_record);
            doc.failovers.clear();
        } else {
            replica_set::carry_record(&mut doc, old.serving, epoch);
        }
        change.replace(keys::shard(member.uid), member.revision, &doc);
    }
    let report = MoveReport {
        from: old.uid,
        to: moving.target,
        epoch,
        held_us,
    };
    change.event(
        Severity::Info,
        "shard_moved",
        &[
            ("bdb_uid", json!(old.database)),
            ("shard_uid", json!(old.uid)),
            ("new_shard_uid", json!(moving.target)),
            ("epoch", json!(epoch)),
            ("held_us", json!(held_us)),
        ],
    );
    if let Some(operation) = operation(state, &moving.operation) {
        let mut doc = operation.doc.clone();
        doc.shards.retain(|uid| *uid != old.uid);
        doc.moved.push(report);
        doc.waiting_on = None;
        doc.step_since = Some(now);
        change.replace(keys::operation(&operation.uid), operation.revision, &doc);
    }
    Some(change.into_txn())
}

/// The transaction after a move that did not happen: the old primary has an epoch of its own after the
/// move's, in which no gate is closed. If it is there it goes on; if it is gone, the failover finds the
/// records of the epoch in which it served. The operation ends with the reason. `heard`: whether the old primary's
/// engine was seen to be there.
#[must_use]
pub fn undo(
    state: &ClusterState,
    (primary, epoch): (ShardUid, Epoch),
    (reason, heard): (&str, bool),
    now: Timestamp,
) -> Option<Txn> {
    let old = begun(state, primary, epoch)?;
    let moving = old.moving.clone()?;
    let mut change = Change::of(state, now);
    for member in members(state, old) {
        let mut doc = member.doc.clone();
        doc.epoch = epoch.next();
        doc.role_since = Some(now);
        doc.moving = None;
        change.replace(keys::shard(member.uid), member.revision, &doc);
    }
    let stays = if heard {
        Stays::Serving
    } else {
        Stays::Unheard
    };
    give_up(
        state,
        &mut change,
        (old, stays),
        &moving.operation,
        &NotNow::of(reason),
        now,
    );
    Some(change.into_txn())
}

/// The revision of a primary that has not served in this epoch yet.
#[must_use]
pub fn unserved(state: &ClusterState, primary: ShardUid, epoch: Epoch) -> Option<Revision> {
    let mut shards = state.shards.iter();
    let shard = shards.find(|shard| shard.uid == primary)?;
    let unserved = shard.role == Role::Primary && shard.epoch == epoch && !shard.is_serving();
    unserved.then_some(Revision(shard.revision))
}

/// The transaction by which a primary serves whose move was undone and whose agent does not answer.
#[must_use]
pub fn serve_unheard(
    state: &ClusterState,
    primary: ShardUid,
    epoch: Epoch,
    now: Timestamp,
) -> Option<Txn> {
    unserved(state, primary, epoch)?;
    let primary = state.shards.iter().find(|shard| shard.uid == primary)?;
    let mut change = Change::of(state, now);
    for member in members(state, primary) {
        let mut doc = member.doc.clone();
        if member.uid == primary.uid {
            doc.serving = Some(epoch);
        } else {
            replica_set::carry_record(&mut doc, primary.serving, epoch);
        }
        change.replace(keys::shard(member.uid), member.revision, &doc);
    }
    Some(change.into_txn())
}

/// The transaction that ends an operation which cannot begin its next move. Nothing was changed. `None`: it
/// is not under way any more, and who ended or paused it has said why.
#[must_use]
pub fn refuse(
    state: &ClusterState,
    primary: ShardUid,
    uid: &OperationUid,
    why: &NotNow,
    now: Timestamp,
) -> Option<Txn> {
    active(state, uid)?;
    // Of one that is gone nobody can hand a role over: the next plan passes it over.
    let primary = state.shard(primary)?;
    let mut change = Change::of(state, now);
    give_up(state, &mut change, (primary, Stays::Serving), uid, why, now);
    Some(change.into_txn())
}

/// Whether a move belongs to an operation of more steps, which is not given up when one of them fails: nothing is skipped.
#[must_use]
pub fn is_part_of_more(state: &ClusterState, uid: &OperationUid) -> bool {
    active(state, uid).is_some_and(|operation| is_of_more(operation))
}

fn is_of_more(operation: &Operation) -> bool {
    operation.kind.moves() && operation.kind != OperationKind::FailoverShards
}

/// The transaction that says what an operation waits for before its next move can begin.
#[must_use]
pub fn waits(
    state: &ClusterState,
    uid: &OperationUid,
    reason: &str,
    now: Timestamp,
) -> Option<Txn> {
    let operation = active(state, uid)?;
    if operation.waiting_on.as_deref() == Some(reason) {
        return None;
    }
    let mut doc = operation.doc.clone();
    doc.waiting_on = Some(reason.to_owned());
    let mut change = Change::of(state, now);
    change.replace(keys::operation(uid), operation.revision, &doc);
    Some(change.into_txn())
}

fn members<'a>(
    state: &'a ClusterState,
    primary: &'a Stored<Shard>,
) -> impl Iterator<Item = &'a Stored<Shard>> {
    state
        .shards_of(primary.database)
        .filter(|shard| shard.slots == primary.slots && shard.removed_by.is_none())
}

fn operation<'a>(state: &'a ClusterState, uid: &OperationUid) -> Option<&'a Stored<Operation>> {
    state.operations.iter().find(|o| o.uid == *uid)
}

fn active<'a>(state: &'a ClusterState, uid: &OperationUid) -> Option<&'a Stored<Operation>> {
    operation(state, uid).filter(|operation| operation.status == OperationStatus::Active)
}

/// How a primary is whose move did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stays {
    /// As it was.
    Serving,
    /// Nobody knows: it may be gone.
    Unheard,
}

/// What is so after a move that did not happen, in words: who gave the order must not have to find out.
fn outcome(operation: &Operation, primary: &Shard, stays: Stays) -> String {
    let mut text = match (stays, primary.role) {
        // Another operation, or a failover, has been quicker.
        (_, Role::Replica) => format!("redis:{} is no master any more", primary.uid),
        (Stays::Serving, _) if operation.moved.is_empty() => {
            format!(
                "Nothing was changed: redis:{} is still the master",
                primary.uid
            )
        }
        (Stays::Serving, _) => format!("redis:{} is still the master", primary.uid),
        (Stays::Unheard, _) => format!(
            "redis:{} has kept its role, but its engine is not heard: if it is gone a replica takes its place",
            primary.uid
        ),
    };
    if !operation.moved.is_empty() {
        let moved = operation.moved.iter();
        let moved = moved.map(|one| format!("redis:{} in place of redis:{}", one.to, one.from));
        let moved: Vec<String> = moved.collect();
        text.push_str(&format!(
            "; what was moved before stays: {}",
            moved.join(", ")
        ));
    }
    text
}

fn give_up(
    state: &ClusterState,
    change: &mut Change,
    (primary, stays): (&Shard, Stays),
    uid: &OperationUid,
    NotNow { code, reason }: &NotNow,
    now: Timestamp,
) {
    let database = primary.database;
    let running = operation(state, uid).filter(|operation| operation.ended.is_none());
    if let Some(operation) = running {
        if is_of_more(operation) {
            let code = ErrorCode::MoveUndone;
            return pause(change, operation, (code, reason), now);
        }
        let mut doc = operation.doc.clone();
        doc.status = OperationStatus::Failed;
        let outcome = outcome(operation, primary, stays);
        doc.error = Some(format!("{}. {outcome}", reason.trim_end_matches('.')));
        doc.error_code = Some(*code);
        doc.waiting_on = None;
        doc.ended = Some(now);
        change.replace(keys::operation(&operation.uid), operation.revision, &doc);
    }
    if let Some(database) = state.database(database)
        && database.operation.as_ref() == Some(uid)
    {
        let mut doc = database.doc.clone();
        doc.operation = None;
        doc.status = DatabaseStatus::Active;
        change.replace(keys::database(database.uid), database.revision, &doc);
    }
    change.event(
        Severity::Warning,
        "shard_move_failed",
        &[("bdb_uid", json!(database)), ("reason", json!(reason))],
    );
}
