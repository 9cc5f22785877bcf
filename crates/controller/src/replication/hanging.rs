//! A replica whose engine hangs is ended, so that it is started again and gets its data from its primary. Pure.
//!
//! It is judged as a primary is ([`crate::failover::stall`]). Nothing is lost by its end: its primary serves, is heard,
//! and has not heard of it for so long that its record is gone. While that is not so it is left alone, since what it
//! has in memory may be nowhere else. That it is ended is stored before it is ordered; an engine that hangs
//! again and again is ended no more often than primaries are replaced.

use super::plan::{Need, serving_primary};
use crate::failover::plan::is_recent;
use crate::failover::stall;
use crate::observed::Observations;
use crate::replica_set::ReplicaSet;
use crate::state::{Change, ClusterState, Stored};
use jiff::Timestamp;
use model::command::AgentCommand;
use model::documents::{Shard, keys};
use model::limits::{FAILOVERS_MAX, FAILOVERS_WITHIN};
use std::time::Instant;

/// What a replica needs whose engine hangs; `None`: it does not.
#[must_use]
pub(crate) fn need(
    state: &ClusterState,
    observed: &Observations,
    (set, replica): (&ReplicaSet<'_>, &Stored<Shard>),
    instant: Instant,
    now: Timestamp,
) -> Option<Need> {
    let (judged, run_id) = stall::hanging(state, observed, replica, instant)?;
    let cause = &judged.reason;
    if let Err(reason) = serving_primary(state, observed, set, instant) {
        return Some(Need::Wait(format!("{cause}; {reason}")));
    }
    if replica.synced.is_some() {
        let reason = format!("{cause}; its primary has heard of it lately");
        return Some(Need::Wait(reason));
    }
    let since = stall::since(&judged, now);
    if replica.ended.last().is_some_and(|then| *then > since) {
        let command = AgentCommand::KillEngine {
            shard: replica.uid,
            generation: replica.generation,
            run_id: run_id.to_owned(),
        };
        return Some(Need::Order(command, format!("{cause}: it is ended")));
    }
    let mut doc = replica.doc.clone();
    doc.ended.retain(|then| is_recent(*then, now));
    if doc.ended.len() >= FAILOVERS_MAX {
        let reason = format!(
            "{cause}; it was ended {} times within {} s: the next time waits until that is over",
            doc.ended.len(),
            FAILOVERS_WITHIN.as_secs()
        );
        return Some(Need::Wait(reason));
    }
    doc.ended.push(now);
    let mut change = Change::of(state, now);
    change.replace(keys::shard(doc.uid), replica.revision, &doc);
    let reason = format!("{cause}: it is to be ended and started again");
    Some(Need::Store(change.into_txn(), reason))
}
