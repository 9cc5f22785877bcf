//! Who takes the place of a primary that is gone. Pure.
//!
//! A primary counts as gone when its own agent says so: its process has ended, or another one has been
//! started. The store names the new primary and its epoch first; then its agent is ordered, which
//! looks at the replica once more; then the store learns that it serves. Between the first and the last
//! nobody serves: proxies hold what clients send.
//!
//! A primary whose node is not heard may live, and so may clients that reach it. It is replaced when its
//! replicas have lost it too, and only after three things: it is stored that no proxy may use it; every
//! proxy has applied that or has no lease any more ([`crate::leases`]); and the promises of the replica's
//! engine are over, which its agent sees to (`docs/protocol.md`). Is it heard again before the second, it
//! goes on.
//!
//! After a power cut the replicas may be back as other processes, with the data that they had on disk, while the
//! primary's node is not: see [`super::restarted`].
//!
//! A primary whose engine hangs ([`super::stall`]) is replaced too, if a replica can take its place: it is
//! stored that no proxy may use it, its agent ends it, and then it is gone. An agent that does not get that
//! done is not waited for without end: the primary is replaced as one that is not heard.

use super::times::Lost;
use super::{restarted, stall, times};
use crate::database::deletion::is_lost;
use crate::observed::{self, Observations};
use crate::replica_set::{self, Candidate, Doubt, Fate, ReplicaSet};
use crate::state::{Change, ClusterState, Stored};
use jiff::Timestamp;
use model::Revision;
use model::command::AgentCommand;
use model::documents::{Fence, Role, Severity, Shard, keys};
use model::limits::{FAILOVERS_KEPT, FAILOVERS_MAX, FAILOVERS_WITHIN, KILL_WITHIN};
use model::observation::ShardObservation;
use serde_json::json;
use std::time::Instant;
use store::Txn;

/// What a replica set needs.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Its primary stays, or comes back by itself.
    Stays,
    /// Its primary is gone and may not be replaced yet; nor may it come back.
    Waits(String),
    /// Its agent is to end it, and why.
    Order(Box<AgentCommand>, String),
    /// A transaction, and why.
    Store(Txn, String),
}

/// Looks at one replica set.
#[must_use]
pub fn plan(
    state: &ClusterState,
    observed: &Observations,
    set: &ReplicaSet<'_>,
    instant: Instant,
    now: Timestamp,
) -> Verdict {
    if let Some((txn, reason)) = stall::news(state, observed, (set, set.primary), instant, now) {
        return Verdict::Store(txn, reason);
    }
    let Some(loss) = loss(state, observed, set, instant) else {
        return restored_or_back(state, observed, set, (instant, now));
    };
    let cause = loss.cause();
    let (best, frozen) = successor(state, observed, set, instant);
    let Some(best) = best else {
        if loss.may_live() {
            return restored_or_back(state, observed, set, (instant, now));
        }
        if !frozen.is_empty() {
            let reason = format!("{cause}; {}", frozen.join("; "));
            return held(state, observed, set, reason, (instant, now));
        }
        return nobody(state, observed, set, cause, (instant, now));
    };
    if let Some(until) = next_from(set, now) {
        let reason = format!(
            "{cause}; {FAILOVERS_MAX} failovers within {} s: the next one waits until {until:.0} (`rladmin failover \
             shard {}` does not wait)",
            FAILOVERS_WITHIN.as_secs(),
            set.primary.uid
        );
        return held(state, observed, set, reason, (instant, now));
    }
    let hangs = matches!(loss, Loss::Hangs(_));
    if loss.may_live()
        && let Some(verdict) = not_fenced(state, observed, set, (cause, hangs), (instant, now))
    {
        return verdict;
    }
    promotion(state, observed, set, &best, &loss, (instant, now))
}

/// The replica that can take the place of a set's primary now, and why others cannot that may have its data. One whose
/// node an operator takes out of the cluster, unheard, is not waited for any more.
fn successor<'a>(
    state: &ClusterState,
    observed: &Observations,
    set: &ReplicaSet<'a>,
    instant: Instant,
) -> (Option<Candidate<'a>>, Vec<String>) {
    let mut candidates = Vec::new();
    let mut frozen = Vec::new();
    for &replica in &set.replicas {
        match replica_set::candidate(observed, replica, set.last_served(), instant) {
            Some(Ok(candidate)) => candidates.push(candidate),
            Some(Err(Doubt::Frozen(_))) if is_lost(state, observed, replica, instant) => {}
            Some(Err(Doubt::Frozen(reason))) => {
                frozen.push(match observed.fresh(replica.node, instant) {
                    Some(_) => reason,
                    None => format!(
                        "{reason} (if it does not come back: `rladmin node {} remove`)",
                        replica.node
                    ),
                })
            }
            Some(Err(Doubt::Gone(_))) | None => {}
        }
    }
    (replica_set::best(&candidates), frozen)
}

/// Until when the next failover of a set waits, having had [`FAILOVERS_MAX`] of them; `None`: it does not.
fn next_from(set: &ReplicaSet<'_>, now: Timestamp) -> Option<Timestamp> {
    let failovers = set.primary.failovers.iter();
    let recent: Vec<Timestamp> = failovers
        .copied()
        .filter(|then| is_recent(*then, now))
        .collect();
    let first = recent.get(recent.len().checked_sub(FAILOVERS_MAX)?)?;
    let until = first.checked_add(FAILOVERS_WITHIN);
    Some(until.unwrap_or(now))
}

/// Whether a set has lost its primary and a replica takes its place as soon as it may: an operator who asks for that does
/// not wait for what only keeps failovers from following each other without end.
pub(crate) fn is_coming(
    state: &ClusterState,
    observed: &Observations,
    set: &ReplicaSet<'_>,
    instant: Instant,
) -> bool {
    let lost = loss(state, observed, set, instant).is_some();
    lost && successor(state, observed, set, instant).0.is_some()
}

/// An operator has asked for a failover that is coming: it does not wait for its time any more. Whether it did.
pub(crate) fn asked_for(change: &mut Change, set: &ReplicaSet<'_>, now: Timestamp) -> bool {
    if next_from(set, now).is_none() {
        return false;
    }
    let mut doc = set.primary.doc.clone();
    doc.failovers.clear();
    doc.trouble = None;
    change.replace(keys::shard(doc.uid), set.primary.revision, &doc);
    change.event(
        Severity::Info,
        "failover_wait_ended",
        &[
            ("bdb_uid", json!(doc.database)),
            ("shard_uid", json!(doc.uid)),
            ("reason", json!(set.primary.trouble)),
        ],
    );
    true
}

/// What is missing before nobody can be answered by the primary any more; `None`: nothing.
fn not_fenced(
    state: &ClusterState,
    observed: &Observations,
    set: &ReplicaSet<'_>,
    (cause, hangs): (&str, bool),
    (instant, now): (Instant, Timestamp),
) -> Option<Verdict> {
    let Some(Fence::Withheld { since }) = set.primary.fence else {
        let lost = times::lost_since(observed, set, (instant, now));
        return Some(withhold(state, set, (cause, lost), now));
    };
    if hangs && now.duration_since(since).unsigned_abs() < KILL_WITHIN {
        return Some(kill(set, cause));
    }
    let revision = Revision(set.primary.revision);
    let reason = observed.leases.all_know(revision, instant).err()?;
    Some(Verdict::Waits(format!("{cause}; {reason}")))
}

/// Nobody has a record by which he could take the place of a primary that is not heard.
fn restored_or_back(
    state: &ClusterState,
    observed: &Observations,
    set: &ReplicaSet<'_>,
    (instant, now): (Instant, Timestamp),
) -> Verdict {
    match restarted::newest(state, observed, set, instant) {
        Some(next) => replace_by_restarted(state, observed, set, &next, (instant, now)),
        None => back(state, observed, set, instant, now),
    }
}

/// A replica that was started again takes the primary's place with the data that it had on disk.
fn replace_by_restarted(
    state: &ClusterState,
    observed: &Observations,
    set: &ReplicaSet<'_>,
    next: &restarted::Restarted<'_>,
    times: (Instant, Timestamp),
) -> Verdict {
    let (old, new) = (set.primary, next.shard);
    let cause = &next.cause;
    if let Some(verdict) = not_fenced(state, observed, set, (cause, false), times) {
        return verdict;
    }
    let as_primary = AsPrimary {
        run_id: Some(next.run_id.to_owned()),
        lost: Some(times::lost_since(observed, set, times)),
        ..AsPrimary::default()
    };
    let mut change = new_primary(state, set, new, as_primary, times.1);
    change.event(
        Severity::Critical,
        "shard_restored",
        &[
            ("bdb_uid", json!(old.database)),
            ("shard_uid", json!(old.uid)),
            ("node_uid", json!(old.node)),
            ("new_shard_uid", json!(new.uid)),
            ("new_node_uid", json!(new.node)),
            ("epoch", json!(old.epoch.next())),
            ("cause", json!(cause)),
            ("data_written", json!(next.written)),
        ],
    );
    let reason = format!(
        "{cause}: redis:{} becomes primary of epoch {} with what it had on disk at {}",
        new.uid,
        old.epoch.next(),
        next.written
    );
    Verdict::Store(change.into_txn(), reason)
}

/// Whether a set has lost its primary.
fn loss(
    state: &ClusterState,
    observed: &Observations,
    set: &ReplicaSet<'_>,
    instant: Instant,
) -> Option<Loss> {
    let sensitivity = state.cluster.settings.failure_detection_sensitivity;
    match replica_set::fate(observed, set.primary, instant) {
        Fate::Gone(cause) => {
            let hung = set.primary.stalled.as_ref().filter(|stalled| stalled.hangs);
            let before = hung.filter(|_| set.primary.is_withheld());
            let why = before.map(|stalled| format!("{}; {cause}", stalled.reason));
            return Some(Loss::Gone(why.unwrap_or(cause)));
        }
        Fate::NotYet => return None,
        // It was named, has not served, and lost meanwhile what it was named for.
        Fate::Alive(seen) if let Some(cause) = has_other_data(observed, set, seen, instant) => {
            return Some(Loss::Gone(cause));
        }
        Fate::Alive(_) | Fate::Unknown(_) => {}
    }
    if let Some(cause) = replica_set::unheard(observed, set, sensitivity, instant) {
        return Some(Loss::Unheard(cause));
    }
    let (judged, run_id) = stall::hanging(state, observed, set.primary, instant)?;
    (set.primary.run_id.as_deref() == Some(run_id)).then_some(Loss::Hangs(judged.reason))
}

/// The order that ends a primary that hangs: it is fenced when that is done.
fn kill(set: &ReplicaSet<'_>, cause: &str) -> Verdict {
    let primary = set.primary;
    let Some(run_id) = primary.run_id.clone() else {
        return Verdict::Stays;
    };
    let command = AgentCommand::KillEngine {
        shard: primary.uid,
        generation: primary.generation,
        run_id,
    };
    Verdict::Order(Box::new(command), format!("{cause}: it is ended"))
}

/// Why a new primary that has not served yet cannot be promoted any more.
fn has_other_data(
    observed: &Observations,
    set: &ReplicaSet<'_>,
    seen: &ShardObservation,
    instant: Instant,
) -> Option<String> {
    let primary = set.primary;
    if primary.serving == Some(primary.epoch) || observed::is_primary_of(seen, primary.epoch) {
        return None;
    }
    match replica_set::candidate(observed, primary, set.last_served(), instant)? {
        Err(Doubt::Gone(cause)) => Some(cause),
        Ok(_) | Err(Doubt::Frozen(_)) => None,
    }
}

/// How a primary was lost.
enum Loss {
    /// For sure.
    Gone(String),
    /// Nobody has heard of it for some time.
    Unheard(String),
    /// Its agent is heard: its engine hangs.
    Hangs(String),
}

impl Loss {
    fn cause(&self) -> &str {
        match self {
            Self::Gone(cause) | Self::Unheard(cause) | Self::Hangs(cause) => cause,
        }
    }

    /// Whether it may take writes still.
    const fn may_live(&self) -> bool {
        !matches!(self, Self::Gone(_))
    }
}

/// From now on no proxy may use the primary.
fn withhold(
    state: &ClusterState,
    set: &ReplicaSet<'_>,
    (cause, lost): (&str, Lost),
    now: Timestamp,
) -> Verdict {
    let mut doc = set.primary.doc.clone();
    times::note(&mut doc, Some(lost));
    doc.fence = Some(Fence::Withheld { since: now });
    let mut change = Change::of(state, now);
    change.replace(keys::shard(doc.uid), set.primary.revision, &doc);
    change.event(
        Severity::Warning,
        "shard_withheld",
        &[
            ("bdb_uid", json!(doc.database)),
            ("shard_uid", json!(doc.uid)),
            ("node_uid", json!(doc.node)),
            ("cause", json!(cause)),
        ],
    );
    let reason = format!("{cause}: no proxy may use redis:{}", doc.uid);
    Verdict::Store(change.into_txn(), reason)
}

/// A primary that was withheld, and not replaced, is used again when its node or a replica hears it, or when
/// nobody can take its place. What kept one from being replaced that is there after all is over.
fn back(
    state: &ClusterState,
    observed: &Observations,
    set: &ReplicaSet<'_>,
    instant: Instant,
    now: Timestamp,
) -> Verdict {
    let held = set.primary.trouble.is_some() && set.primary.is_serving();
    let there = || {
        matches!(
            replica_set::fate(observed, set.primary, instant),
            Fate::Alive(_)
        )
    };
    if !(set.primary.is_withheld() || held && there()) {
        return Verdict::Stays;
    }
    if let Fate::Alive(seen) = replica_set::fate(observed, set.primary, instant)
        && seen.run_id.is_none()
    {
        // It is being started, and may be another process.
        return Verdict::Stays;
    }
    if let Fate::Unknown(reason) = replica_set::fate(observed, set.primary, instant)
        && set.replicas.iter().any(|replica| replica.synced.is_some())
        && !replica_set::is_heard_by_a_replica(observed, set, instant)
    {
        return Verdict::Waits(format!("{reason}, and it cannot be replaced yet"));
    }
    let mut doc = set.primary.doc.clone();
    doc.fence = None;
    doc.trouble = None;
    times::note(&mut doc, None);
    let mut change = Change::of(state, now);
    change.replace(keys::shard(doc.uid), set.primary.revision, &doc);
    let reason = format!("redis:{} is heard again", doc.uid);
    Verdict::Store(change.into_txn(), reason)
}

/// Whether it counts against what may be done within [`FAILOVERS_WITHIN`]. One that is later than now was noted before
/// the clock was set back, or by a node whose clock is ahead: of that nothing is known if it is much later.
pub(crate) fn is_recent(then: Timestamp, now: Timestamp) -> bool {
    now.duration_since(then).unsigned_abs() < FAILOVERS_WITHIN
}

/// What keeps a set without a primary is stored once, as an alert that the tools show.
fn held(
    state: &ClusterState,
    observed: &Observations,
    set: &ReplicaSet<'_>,
    reason: String,
    (instant, now): (Instant, Timestamp),
) -> Verdict {
    if set.primary.trouble.is_some() {
        return Verdict::Waits(reason);
    }
    let mut doc = set.primary.doc.clone();
    // Whoever ends the wait knows when it began, be it another primary node.
    let lost = times::lost_since(observed, set, (instant, now));
    times::note(&mut doc, Some(lost));
    doc.trouble = Some(reason.clone());
    let mut change = Change::of(state, now);
    change.replace(keys::shard(doc.uid), set.primary.revision, &doc);
    change.event(
        Severity::Critical,
        "failover_waits",
        &[
            ("bdb_uid", json!(doc.database)),
            ("shard_uid", json!(doc.uid)),
            ("reason", json!(reason)),
        ],
    );
    Verdict::Store(change.into_txn(), reason)
}

/// No replica has the data. The primary comes back with its own, if it was the one that served; one
/// that was to be promoted and never did gives the role back to it.
fn nobody(
    state: &ClusterState,
    observed: &Observations,
    set: &ReplicaSet<'_>,
    cause: &str,
    (instant, now): (Instant, Timestamp),
) -> Verdict {
    let served = set.last_served();
    let unconfirmed = set.primary.serving != Some(set.primary.epoch);
    let server = set
        .replicas
        .iter()
        .filter(|shard| shard.serving == served && served.is_some())
        .find(|shard| !is_lost(state, observed, shard, instant));
    let (true, Some(server)) = (unconfirmed, server) else {
        return Verdict::Stays;
    };
    let reason = format!(
        "{cause}, before it served: redis:{} comes back with its own data",
        server.uid
    );
    let as_primary = AsPrimary {
        lost: times::stored(set.primary),
        ..AsPrimary::default()
    };
    let mut change = new_primary(state, set, server, as_primary, now);
    // What has become of its data is told when its process is known.
    change.event(
        Severity::Error,
        "shard_failover_undone",
        &[
            ("bdb_uid", json!(set.primary.database)),
            ("shard_uid", json!(set.primary.uid)),
            ("node_uid", json!(set.primary.node)),
            ("new_shard_uid", json!(server.uid)),
            ("new_node_uid", json!(server.node)),
            ("epoch", json!(set.primary.epoch.next())),
            ("cause", json!(cause)),
        ],
    );
    Verdict::Store(change.into_txn(), reason)
}

fn promotion(
    state: &ClusterState,
    observed: &Observations,
    set: &ReplicaSet<'_>,
    best: &Candidate<'_>,
    loss: &Loss,
    (instant, now): (Instant, Timestamp),
) -> Verdict {
    let cause = loss.cause();
    let record = best.shard.synced.as_ref();
    let lost = times::lost_since(observed, set, (instant, now));
    let from = times::unproven_from(observed, best.shard, lost.since, (instant, now));
    let as_primary = AsPrimary {
        run_id: record.map(|record| record.run_id.clone()),
        history: Some(&best.history),
        fence: loss.may_live().then_some(Fence::Promises),
        lost: Some(lost),
    };
    let mut change = new_primary(state, set, best.shard, as_primary, now);
    let last_heard = observed.last_offset(set.primary.uid);
    change.event(
        Severity::Error,
        "shard_failover",
        &[
            ("bdb_uid", json!(set.primary.database)),
            ("shard_uid", json!(set.primary.uid)),
            ("node_uid", json!(set.primary.node)),
            ("new_shard_uid", json!(best.shard.uid)),
            ("new_node_uid", json!(best.shard.node)),
            ("epoch", json!(set.primary.epoch.next())),
            ("cause", json!(cause)),
            ("offset", json!(best.offset)),
            ("last_known_offset", json!(last_heard)),
            ("unproven_from", json!(from)),
            ("unproven_to", json!(now)),
            ("confirmed", json!(!loss.may_live())),
        ],
    );
    let reason = format!(
        "{cause}: redis:{} becomes primary of epoch {}",
        best.shard.uid,
        set.primary.epoch.next()
    );
    Verdict::Store(change.into_txn(), reason)
}

/// What is known of a shard that gets the role.
#[derive(Debug, Default)]
struct AsPrimary<'a> {
    /// Its process.
    run_id: Option<String>,
    /// What its data are called now.
    history: Option<&'a str>,
    /// What it must wait for.
    fence: Option<Fence>,
    /// When the one before it was lost.
    lost: Option<Lost>,
}

/// Gives the role to another shard, in the next epoch of the set. Records stay: until the new primary
/// serves, they are of the last epoch in which anybody wrote.
fn new_primary(
    state: &ClusterState,
    set: &ReplicaSet<'_>,
    next: &Stored<Shard>,
    known: AsPrimary<'_>,
    now: Timestamp,
) -> Change {
    let epoch = set.primary.epoch.next();
    let mut failovers = set.primary.failovers.clone();
    failovers.push(now);
    let surplus = failovers.len().saturating_sub(FAILOVERS_KEPT);
    failovers.drain(..surplus);
    let mut change = Change::of(state, now);
    for member in set.members() {
        let mut doc = member.doc.clone();
        doc.epoch = epoch;
        doc.role_since = Some(now);
        doc.trouble = None;
        doc.stalled = None;
        doc.fence = None;
        times::note(&mut doc, None);
        if member.uid == next.uid {
            doc.role = Role::Primary;
            doc.fence.clone_from(&known.fence);
            times::note(&mut doc, known.lost);
            // A record of another process says nothing of this one.
            let run_id = known.run_id.as_ref();
            doc.synced = doc.synced.filter(|record| Some(&record.run_id) == run_id);
            if let (Some(record), Some(history)) = (&mut doc.synced, known.history) {
                // Its agent compares with what its data are called now.
                history.clone_into(&mut record.replication_id);
            }
            doc.run_id.clone_from(&known.run_id);
            doc.failovers.clone_from(&failovers);
        } else {
            doc.role = Role::Replica;
            doc.failovers.clear();
            if member.uid == set.primary.uid {
                doc.run_id = None;
                doc.synced = None;
            }
        }
        change.replace(keys::shard(member.uid), member.revision, &doc);
    }
    change
}
