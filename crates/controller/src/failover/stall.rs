//! Whether a primary's engine hangs, or is only busy. Pure.
//!
//! One that hangs may be ended and replaced. One that computes, loads, or says that it is busy is never
//! touched: what it has in memory may be nowhere else, and it will answer. Both are told of, once, and are
//! shown until the engine answers again. What an agent does not tell decides nothing.

use crate::observed::{self, Observations};
use crate::replica_set::ReplicaSet;
use crate::state::{Change, ClusterState};
use jiff::{SignedDuration, Timestamp};
use model::documents::{Sensitivity, Severity, Stalled, keys};
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

/// Judges an engine by what its agent tells. `None`: it serves, or has not failed to for long enough.
#[must_use]
pub fn judge(seen: &ShardObservation, sensitivity: Sensitivity) -> Option<Judged> {
    let stall = seen.stall.as_ref()?;
    let long = Duration::from_millis(stall.milliseconds);
    if long < sensitivity.engine_stalled() {
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
        hangs: hangs(stall),
        long,
        reason: format!("redis:{} {does}", seen.shard),
    })
}

/// No answer, several times, from a process that is stopped, waits for a device, or does not compute.
fn hangs(stall: &EngineStall) -> bool {
    let held = matches!(stall.process_state, Some('T' | 't' | 'D'));
    stall.kind == StallKind::Silent
        && stall.questions >= HANG_QUESTIONS
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

/// A set's primary, if its engine hangs by what was heard of it just now.
#[must_use]
pub fn hanging(
    state: &ClusterState,
    observed: &Observations,
    set: &ReplicaSet<'_>,
    instant: Instant,
) -> Option<Judged> {
    let seen = lately(observed, set, instant)?;
    let the_one = seen.run_id.is_some() && seen.run_id == set.primary.run_id;
    judge(seen, state.cluster.settings.failure_detection_sensitivity)
        .filter(|judged| judged.hangs && the_one)
}

/// The transaction that tells of a primary that stalls, or no longer does, and why; `None`: nothing is new.
#[must_use]
pub fn news(
    state: &ClusterState,
    observed: &Observations,
    set: &ReplicaSet<'_>,
    instant: Instant,
    now: Timestamp,
) -> Option<(Txn, String)> {
    let primary = set.primary;
    let seen = lately(observed, set, instant)?;
    let judged = judge(seen, state.cluster.settings.failure_detection_sensitivity);
    let mut change = Change::of(state, now);
    let (stalled, reason) = match (judged, &primary.stalled) {
        // One that was told of as hanging is not told of again, whatever its process does.
        (Some(judged), known) if known.as_ref().is_none_or(|k| judged.hangs && !k.hangs) => {
            tell(&mut change, set, &judged);
            let reason = judged.reason.clone();
            (Some(stalled(&judged, now)), reason)
        }
        (None, Some(known)) if seen.state == EngineState::Running && seen.stall.is_none() => {
            let lasted = now.duration_since(known.since);
            change.event(
                Severity::Info,
                "shard_answers_again",
                &[
                    ("bdb_uid", json!(primary.database)),
                    ("shard_uid", json!(primary.uid)),
                    ("node_uid", json!(primary.node)),
                    (
                        "milliseconds",
                        json!(u64::try_from(lasted.as_millis()).ok()),
                    ),
                ],
            );
            (None, format!("redis:{} answers again", primary.uid))
        }
        _ => return None,
    };
    let mut doc = primary.doc.clone();
    doc.stalled = stalled;
    change.replace(keys::shard(doc.uid), primary.revision, &doc);
    Some((change.into_txn(), reason))
}

fn stalled(judged: &Judged, now: Timestamp) -> Stalled {
    let long = SignedDuration::try_from(judged.long).unwrap_or_default();
    Stalled {
        since: now.checked_sub(long).unwrap_or(now),
        hangs: judged.hangs,
        reason: judged.reason.clone(),
    }
}

fn tell(change: &mut Change, set: &ReplicaSet<'_>, judged: &Judged) {
    let primary = set.primary;
    let synced = set.replicas.iter().any(|replica| replica.synced.is_some());
    let (severity, kind, follows) = match (judged.hangs, synced) {
        (true, true) => (
            Severity::Error,
            "shard_hangs",
            "a replica takes its place as soon as one can",
        ),
        (true, false) => (
            Severity::Critical,
            "shard_hangs",
            "no replica has its data: it is not ended, since what it has in memory may be nowhere else",
        ),
        (false, _) => (
            Severity::Warning,
            "shard_busy",
            "a busy engine is left alone",
        ),
    };
    change.event(
        severity,
        kind,
        &[
            ("bdb_uid", json!(primary.database)),
            ("shard_uid", json!(primary.uid)),
            ("node_uid", json!(primary.node)),
            ("reason", json!(judged.reason)),
            (
                "milliseconds",
                json!(u64::try_from(judged.long.as_millis()).ok()),
            ),
            ("follows", json!(follows)),
        ],
    );
}

/// What its agent told of the primary, not long ago.
fn lately<'a>(
    observed: &'a Observations,
    set: &ReplicaSet<'_>,
    instant: Instant,
) -> Option<&'a ShardObservation> {
    let primary = set.primary;
    let silence = observed.silence(primary.node, instant)?;
    let node = observed.fresh(primary.node, instant)?;
    observed::shard(node, primary.uid).filter(|_| silence < NODE_SILENT)
}
