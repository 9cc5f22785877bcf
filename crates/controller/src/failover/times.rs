//! When a lost primary was last known to take writes, and what its replica may lack. Pure.
//!
//! What is told must be true, or a bound on the safe side. Much may lie between the loss and the promotion – a wait, another
//! primary node, an agent that was stopped –, so what was known first is stored with the primary
//! ([`model::documents::Shard::lost_since`]) and nothing that is found out later makes it younger.

use crate::observed::{self, Observations};
use crate::replica_set::{self, Fate, HEARD_WITHIN, ReplicaSet};
use crate::state::Stored;
use jiff::{SignedDuration, Timestamp};
use model::documents::Shard;
use model::limits::NODE_SILENT;
use std::time::{Duration, Instant};

/// When a primary was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lost {
    /// See [`Shard::lost_since`].
    pub(crate) since: Timestamp,
    /// See [`Shard::lost_before`].
    pub(crate) before: bool,
}

/// When a set's primary, which is lost, was last known to take writes: by its agent, or by an engine that follows it.
pub(crate) fn lost_since(
    observed: &Observations,
    set: &ReplicaSet<'_>,
    (instant, now): (Instant, Timestamp),
) -> Lost {
    let ago = lost_ago(observed, set, (instant, now));
    let found = Lost {
        since: before(now, ago.unwrap_or_default()),
        before: ago.is_none(),
    };
    match stored(set.primary) {
        Some(stored) if stored.since <= found.since => stored,
        _ => found,
    }
}

/// What is stored of a primary's loss.
pub(crate) fn stored(primary: &Shard) -> Option<Lost> {
    Some(Lost {
        since: primary.lost_since?,
        before: primary.lost_before,
    })
}

/// Since when nobody has been able to write to a set whose new primary begins to serve. `None`: nobody knows.
pub(crate) fn nobody_since(primary: &Shard) -> Option<Timestamp> {
    match stored(primary) {
        Some(lost) => (!lost.before).then_some(lost.since),
        None => primary.role_since,
    }
}

/// Stores, or forgets, when a primary was lost.
pub(crate) const fn note(primary: &mut Shard, lost: Option<Lost>) {
    match lost {
        Some(lost) => {
            primary.lost_since = Some(lost.since);
            primary.lost_before = lost.before;
        }
        None => {
            primary.lost_since = None;
            primary.lost_before = false;
        }
    }
}

/// For how long nobody has been able to write to a primary whose process is another one: since its agent told last that it
/// served, or since what is stored of its loss. `None`: no primary node has heard it before, as after a power cut.
pub(crate) fn unserved_for(
    observed: &Observations,
    primary: &Shard,
    (instant, now): (Instant, Timestamp),
) -> Option<Duration> {
    let told = observed.served_ago(primary.uid, instant);
    let stored = stored(primary).filter(|lost| !lost.before);
    let stored = stored.map(|lost| now.duration_since(lost.since));
    let stored = stored.and_then(|ago| Duration::try_from(ago).ok());
    told.into_iter().chain(stored).max()
}

/// `None`: nobody knows.
fn lost_ago(
    observed: &Observations,
    set: &ReplicaSet<'_>,
    (instant, now): (Instant, Timestamp),
) -> Option<Duration> {
    let primary = set.primary;
    if let Some(hung) = primary.stalled.as_ref().filter(|stalled| stalled.hangs) {
        let ago = now.duration_since(hung.since);
        return Some(Duration::try_from(ago).unwrap_or_default());
    }
    let told = observed.served_ago(primary.uid, instant);
    let is_gone = matches!(replica_set::fate(observed, primary, instant), Fate::Gone(_));
    // An agent tells of the end at once: between two heartbeats that came in time nobody was away.
    if is_gone && told.is_some_and(|ago| ago < NODE_SILENT) {
        return Some(Duration::ZERO);
    }
    let replicas = set.replicas.iter();
    let heard = replicas.filter_map(|shard| {
        let ago = replica_set::heard_its_primary_ago(observed, shard, instant);
        ago.filter(|_| is_recorded(observed, shard, instant))
    });
    let latest = told.into_iter().chain(heard).min();
    let silence = || observed.silence(primary.node, instant).filter(|_| !is_gone);
    latest.or_else(silence)
}

/// Whether the process of a replica is the one that was recorded: another one has never heard its primary, and
/// counts from its own start.
fn is_recorded(observed: &Observations, shard: &Shard, instant: Instant) -> bool {
    let seen = observed.fresh(shard.node, instant);
    let seen = seen.and_then(|node| observed::shard(node, shard.uid));
    let run_id = seen.and_then(|seen| seen.run_id.as_ref());
    let record = shard.synced.as_ref().map(|record| &record.run_id);
    record.is_some() && record == run_id
}

/// From when on something may be missing that the primary has acknowledged: its replica had heard it then.
pub(super) fn unproven_from(
    observed: &Observations,
    replica: &Stored<Shard>,
    lost: Timestamp,
    (instant, now): (Instant, Timestamp),
) -> Timestamp {
    let heard = replica_set::heard_its_primary_ago(observed, replica, instant);
    // An agent of 1.1.0 tells only that there is no link: it was seen so since then.
    let unlinked = observed.unlinked_since(replica.uid).map(|since| {
        let seen = instant.saturating_duration_since(since);
        seen.saturating_add(HEARD_WITHIN)
    });
    let latest = before(lost, HEARD_WITHIN);
    let known = heard.into_iter().chain(unlinked);
    known
        .map(|ago| before(now, ago))
        .fold(latest, Timestamp::min)
}

pub(super) fn before(now: Timestamp, ago: Duration) -> Timestamp {
    let ago = SignedDuration::try_from(ago).unwrap_or_default();
    now.checked_sub(ago).unwrap_or(now)
}
