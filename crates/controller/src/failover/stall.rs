//! Whether a shard's engine hangs, or is only busy. Pure.
//!
//! A primary that hangs may be ended and replaced, a replica ended and started again
//! ([`crate::replication::hanging`]). One that computes, loads, or says that it is busy is never
//! touched: what it has in memory may be nowhere else, and it will answer. Both are told of, once, and are
//! shown until the engine answers again. What an agent does not tell decides nothing.

use crate::observed::{self, Observations};
use crate::replica_set::ReplicaSet;
use crate::state::{Change, ClusterState, Stored};
use jiff::{SignedDuration, Timestamp};
use model::documents::{Role, Sensitivity, Severity, Shard, Stalled, keys};
use model::limits::{HANG_QUESTIONS, NODE_SILENT};
use model::observation::{EngineStall, EngineState, ShardObservation, StallKind};
use serde_json::json;
use std::time::{Duration, Instant};
use store::Txn;

/// What is made of an engine that has not served for long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// Whether it hangs; otherwise it is busy.
    pub hangs: bool,
    /// For how long.
    pub long: Duration,
    /// In words.
    pub reason: String,
}

/// Judges an engine by what its agent tells. `None`: it serves, or has not failed to for long enough, or looks as
/// if it hangs and has not been asked often enough: to call it busy now and hanging a second later helps nobody.
#[must_use]
pub fn judge(seen: &ShardObservation, sensitivity: Sensitivity) -> Option<Judged> {
    let stall = seen.stall.as_ref()?;
    let long = Duration::from_millis(stall.milliseconds);
    if long < sensitivity.engine_stalled() {
        return None;
    }
    let hangs = looks_hung(stall);
    if hangs && stall.questions < HANG_QUESTIONS {
        return None;
    }
    let seconds = long.as_secs();
    let does = match stall.kind {
        StallKind::Silent => format!("has not answered for {seconds} s: {}", process(stall)),
        StallKind::Busy => format!("runs a script or function that takes long, for {seconds} s"),
        StallKind::Loading => format!("has been loading its data for {seconds} s"),
        StallKind::Other => format!("has not served for {seconds} s"),
    };
    Some(Judged {
        hangs,
        long,
        reason: format!("redis:{} {does}", seen.shard),
    })
}

/// No answer from a process that is stopped, waits for a device, or does not compute.
fn looks_hung(stall: &EngineStall) -> bool {
    let held = matches!(stall.process_state, Some('T' | 't' | 'D'));
    stall.kind == StallKind::Silent
        && stall.process_state.is_some()
        && (held || stall.cpu_ticks == Some(0))
}

fn process(stall: &EngineStall) -> String {
    let state = stall
        .process_state
        .map_or("unknown".to_owned(), String::from);
    let ticks = stall
        .cpu_ticks
        .map_or("an unknown number of".to_owned(), |t| t.to_string());
    format!("process state {state}, {ticks} clock ticks of CPU used meanwhile")
}

/// A shard whose engine hangs by what was heard of it just now: what is made of it, and its process.
#[must_use]
pub fn hanging<'a>(
    state: &ClusterState,
    observed: &'a Observations,
    shard: &Shard,
    instant: Instant,
) -> Option<(Judged, &'a str)> {
    let seen = lately(observed, shard, instant)?;
    let judged = judge(seen, state.cluster.settings.failure_detection_sensitivity)?;
    let run_id = seen.run_id.as_deref()?;
    judged.hangs.then_some((judged, run_id))
}

/// The transaction that tells of a shard of a set that stalls, or no longer does, and why; `None`: nothing is new.
#[must_use]
pub fn news(
    state: &ClusterState,
    observed: &Observations,
    (set, shard): (&ReplicaSet<'_>, &Stored<Shard>),
    instant: Instant,
    now: Timestamp,
) -> Option<(Txn, String)> {
    let seen = lately(observed, shard, instant)?;
    let judged = judge(seen, state.cluster.settings.failure_detection_sensitivity);
    // A replica that loads what its primary sends is as it should be.
    let judged = judged.filter(|_| shard.role == Role::Primary || !loads(seen));
    let mut change = Change::of(state, now);
    let (stalled, reason) = match (judged, &shard.stalled) {
        // One that was told of as hanging is not told of again, whatever its process does.
        (Some(judged), known) if known.as_ref().is_none_or(|k| judged.hangs && !k.hangs) => {
            tell(&mut change, (set, shard), &judged);
            let reason = judged.reason.clone();
            (Some(stalled(&judged, now)), reason)
        }
        (None, Some(known)) if seen.state == EngineState::Running && seen.stall.is_none() => {
            let lasted = now.duration_since(known.since);
            change.event(
                Severity::Info,
                "shard_answers_again",
                &[
                    ("bdb_uid", json!(shard.database)),
                    ("shard_uid", json!(shard.uid)),
                    ("node_uid", json!(shard.node)),
                    (
                        "milliseconds",
                        json!(u64::try_from(lasted.as_millis()).ok()),
                    ),
                ],
            );
            (None, format!("redis:{} answers again", shard.uid))
        }
        _ => return None,
    };
    let mut doc = shard.doc.clone();
    doc.stalled = stalled;
    change.replace(keys::shard(doc.uid), shard.revision, &doc);
    Some((change.into_txn(), reason))
}

fn loads(seen: &ShardObservation) -> bool {
    let kind = seen.stall.as_ref().map(|stall| stall.kind);
    kind == Some(StallKind::Loading)
}

fn stalled(judged: &Judged, now: Timestamp) -> Stalled {
    Stalled {
        since: since(judged, now),
        hangs: judged.hangs,
        reason: judged.reason.clone(),
    }
}

/// Since when it has not served, as far as can be told.
pub(crate) fn since(judged: &Judged, now: Timestamp) -> Timestamp {
    let long = SignedDuration::try_from(judged.long).unwrap_or_default();
    now.checked_sub(long).unwrap_or(now)
}

fn tell(change: &mut Change, (set, shard): (&ReplicaSet<'_>, &Stored<Shard>), judged: &Judged) {
    let kind = if judged.hangs {
        "shard_hangs"
    } else {
        "shard_busy"
    };
    let (severity, follows) = follows(set, shard, judged.hangs);
    change.event(
        severity,
        kind,
        &[
            ("bdb_uid", json!(shard.database)),
            ("shard_uid", json!(shard.uid)),
            ("node_uid", json!(shard.node)),
            ("reason", json!(judged.reason)),
            (
                "milliseconds",
                json!(u64::try_from(judged.long.as_millis()).ok()),
            ),
            ("follows", json!(follows)),
        ],
    );
}

/// How bad it is, and what becomes of it.
fn follows(set: &ReplicaSet<'_>, shard: &Shard, hangs: bool) -> (Severity, &'static str) {
    if !hangs {
        return (Severity::Warning, "a busy engine is left alone");
    }
    let synced = set.replicas.iter().any(|replica| replica.synced.is_some());
    match (shard.role, synced) {
        (Role::Primary, true) => (
            Severity::Error,
            "a replica takes its place as soon as one can",
        ),
        (Role::Primary, false) => (
            Severity::Critical,
            "no replica has its data: it is not ended, since what it has in memory may be nowhere else",
        ),
        (Role::Replica, _) => (
            Severity::Warning,
            "it is ended and started again as soon as its primary serves and does without it",
        ),
    }
}

/// What its agent told of a shard, not long ago.
fn lately<'a>(
    observed: &'a Observations,
    shard: &Shard,
    instant: Instant,
) -> Option<&'a ShardObservation> {
    let silence = observed.silence(shard.node, instant)?;
    let node = observed.fresh(shard.node, instant)?;
    observed::shard(node, shard.uid).filter(|_| silence < NODE_SILENT)
}
