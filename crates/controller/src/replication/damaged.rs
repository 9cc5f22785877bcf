//! A replica whose files cannot be loaded gets its data anew. Pure.
//!
//! Its engine ends at each start, and says why: the files are damaged. They are worth nothing as soon as its primary serves, which
//! has the data and will send them anyway; so they are set aside, and it starts without any. Until then they may be the last
//! copy, and who could mend them is an operator: nothing is done while the primary is not heard to serve in its
//! present epoch, nor while the replica has a record. A primary's own files are never touched. That it is done is
//! stored before it is ordered, and told; what is damaged again soon has another cause, and waits.

use super::plan::{Need, serving_primary};
use crate::observed::{self, Observations};
use crate::replica_set::ReplicaSet;
use crate::state::{Change, ClusterState, Stored};
use jiff::{SignedDuration, Timestamp};
use model::command::AgentCommand;
use model::documents::{Role, Severity, Shard, keys};
use model::limits::{LOAD_FAILURES, SET_ASIDE_EVERY};
use model::observation::{EngineState, ShardObservation};
use serde_json::json;
use std::time::Instant;

/// What a replica needs whose files are damaged; `None`: they are not as far as is known, or they stay.
#[must_use]
pub(crate) fn need(
    (state, observed): (&ClusterState, &Observations),
    (set, replica): (&ReplicaSet<'_>, &Stored<Shard>),
    (instant, now): (Instant, Timestamp),
) -> Option<Need> {
    let node = observed.fresh(replica.node, instant)?;
    let seen = observed::shard(node, replica.uid).filter(|seen| is_damaged(seen, replica))?;
    let why = seen.error.as_deref().unwrap_or("no reason known");
    let cause = format!("redis:{} does not start: {why}", replica.uid);
    // Its start is tried again meanwhile, as it would be without this.
    serving_primary(state, observed, set, instant).ok()?;
    if replica.synced.is_some() || set.primary.moving.is_some() || !is_behind(replica, set) {
        return None;
    }
    if let Some(decided) = replica.set_aside {
        if seen.set_aside.is_none_or(|done| done < decided) {
            return Some(Need::Order(
                order(set, replica, decided),
                format!("{cause}; its files are set aside"),
            ));
        }
        let every = SignedDuration::try_from(SET_ASIDE_EVERY).unwrap_or_default();
        let age = now.duration_since(decided);
        if age < every {
            return None;
        }
    }
    let mut doc = replica.doc.clone();
    doc.set_aside = Some(now);
    let mut change = Change::of(state, now);
    change.replace(keys::shard(doc.uid), replica.revision, &doc);
    change.event(
        Severity::Warning,
        "replica_files_set_aside",
        &[
            ("bdb_uid", json!(replica.database)),
            ("shard_uid", json!(replica.uid)),
            ("node_uid", json!(replica.node)),
            ("cause", json!(cause)),
            (
                "follows",
                json!(format!(
                    "it starts without data and gets all of them from its master; the files are kept in set-aside-{} in its folder, until that happens again",
                    now.as_millisecond()
                )),
            ),
        ],
    );
    let reason = format!("{cause}: its files are to be set aside");
    Some(Need::Store(change.into_txn(), reason))
}

/// Whether its agent knows that no engine runs, and that its files are why.
fn is_damaged(seen: &ShardObservation, replica: &Shard) -> bool {
    let fails = seen.state == EngineState::Failed && !seen.is_in_doubt();
    fails && seen.generation == replica.generation && seen.load_failures >= LOAD_FAILURES
}

/// Whether a later epoch than any that it has served in is served by its primary.
fn is_behind(replica: &Shard, set: &ReplicaSet<'_>) -> bool {
    let same = replica.epoch == set.primary.epoch && replica.role == Role::Replica;
    same && replica.serving < set.primary.serving
}

fn order(set: &ReplicaSet<'_>, replica: &Shard, decided: Timestamp) -> AgentCommand {
    AgentCommand::SetAside {
        shard: replica.uid,
        generation: replica.generation,
        epoch: set.primary.epoch,
        decided,
    }
}
