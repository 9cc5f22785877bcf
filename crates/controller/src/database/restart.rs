//! The process that is to have a primary's role is not the one of the current epoch. Pure.

use crate::failover::times;
use crate::observed::Observations;
use crate::replica_set::ReplicaSet;
use crate::state::{Change, ClusterState};
use jiff::{SignedDuration, Timestamp};
use model::documents::{Persistence, Role, Severity, Shard, keys};
use model::observation::ShardObservation;
use serde_json::json;
use std::time::{Duration, Instant};
use store::Txn;

/// A snapshot that is older than this when its primary was lost lacks something: less is the difference of two clocks,
/// and the time that an engine takes to save and stop.
const AS_GOOD_AS_NOW: SignedDuration = SignedDuration::from_secs(5);

/// The transaction by which a process begins an epoch of its own, with data of its own, and why. If clients have written
/// before, it is told what has become of that: whichever way the role came to this process.
pub(super) fn new_process(
    (state, observed): (&ClusterState, &Observations),
    set: &ReplicaSet<'_>,
    (seen, run_id): (&ShardObservation, &str),
    (instant, now): (Instant, Timestamp),
) -> (Txn, String) {
    let shard = set.primary;
    let mut doc = shard.doc.clone();
    let mut change = Change::of(state, now);
    if doc.run_id.is_some() {
        doc.epoch = doc.epoch.next();
        doc.role_since = Some(now);
    }
    // A new process was given no role: the one that served gets its own back, after one that was to follow it never served.
    let is_the_same = doc.run_id.is_none() && seen.role == Some(Role::Primary);
    let has_served = doc.run_id.is_some() || set.last_served().is_some();
    if has_served && !is_the_same {
        let lost = times::lost_since(observed, set, (instant, now));
        let unserved = times::unserved_for(observed, shard, (instant, now));
        restarted(
            state,
            &mut change,
            (&doc, seen),
            (lost.since, unserved, now),
        );
    }
    if !is_the_same {
        times::note(&mut doc, None);
    }
    doc.run_id = Some(run_id.to_owned());
    doc.synced = None;
    doc.trouble = None;
    doc.stalled = None;
    // It begins with data of its own: what replicas have is of another history.
    for replica in &set.replicas {
        let member = Shard {
            synced: None,
            epoch: doc.epoch,
            ..replica.doc.clone()
        };
        if member != replica.doc {
            change.replace(keys::shard(member.uid), replica.revision, &member);
        }
    }
    change.replace(keys::shard(shard.uid), shard.revision, &doc);
    let reason = format!("redis:{} is a new process: epoch {}", shard.uid, doc.epoch);
    (change.into_txn(), reason)
}

/// Tells with what data a primary begins again, and for how long nobody could write.
fn restarted(
    state: &ClusterState,
    change: &mut Change,
    (shard, seen): (&Shard, &ShardObservation),
    (lost, unserved, now): (Timestamp, Option<Duration>, Timestamp),
) {
    let took = unserved.map(|unserved| unserved.as_millis());
    let persistence = state
        .database(shard.database)
        .map_or(Persistence::Disabled, |database| database.persistence);
    let (severity, data) = data(persistence, seen, lost);
    change.event(
        severity,
        "shard_restarted",
        &[
            ("bdb_uid", json!(shard.database)),
            ("shard_uid", json!(shard.uid)),
            ("node_uid", json!(shard.node)),
            ("epoch", json!(shard.epoch)),
            ("data", json!(data)),
            ("data_written", json!(seen.data_written)),
            ("unproven_to", json!(now)),
            (
                "milliseconds",
                json!(took.and_then(|ms| u64::try_from(ms).ok())),
            ),
        ],
    );
}

/// What it has of what was written before, and how bad that is.
fn data(persistence: Persistence, seen: &ShardObservation, lost: Timestamp) -> (Severity, String) {
    let on_disk = "as they were on disk".to_owned();
    match (persistence, seen.data_written) {
        (Persistence::Disabled, _) => (Severity::Critical, "lost: it begins empty".to_owned()),
        (_, None) if seen.keys == 0 => {
            let text = "lost: nothing was on disk, it begins empty";
            (Severity::Critical, text.to_owned())
        }
        (Persistence::Snapshot { .. }, Some(written))
            if lost.duration_since(written) > AS_GOOD_AS_NOW =>
        {
            let text = format!("lost from {written:.0} on: it begins with its last snapshot");
            (Severity::Critical, text)
        }
        _ => (Severity::Error, on_disk),
    }
}
