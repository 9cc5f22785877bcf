//! Who serves when all were started again and the primary's node does not come back. Pure.
//!
//! A restarted replica is another process: it has no record that counts, and is never promoted beside a primary that may
//! come back. So it is waited for the primary's node as long as for any node that may come back
//! (`slave_ha_grace_period`). After that the replica whose data on disk are the newest serves, and a critical event says
//! how old they are: what was acknowledged after that is lost, unless an operator brings the node back before.

use crate::observed::{self, Observations};
use crate::replica_set::{self, Doubt, ReplicaSet};
use crate::state::{ClusterState, Stored};
use jiff::Timestamp;
use model::documents::{Persistence, Shard};
use model::observation::EngineState;
use std::time::{Duration, Instant};

/// A replica that was started again and can serve.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Restarted<'a> {
    /// Its document.
    pub(super) shard: &'a Stored<Shard>,
    /// Its process.
    pub(super) run_id: &'a str,
    /// When its data on disk were written last.
    pub(super) written: Timestamp,
    /// Why it may.
    pub(super) cause: String,
}

/// The restarted replica with the newest data, if one may serve now. `None` as well while anything is not known: the
/// primary's node has been silent for less than the grace time, or a replica that had the data is not heard or has
/// not told how old they are.
pub(super) fn newest<'a>(
    state: &ClusterState,
    observed: &'a Observations,
    set: &ReplicaSet<'a>,
    instant: Instant,
) -> Option<Restarted<'a>> {
    let primary = set.primary;
    let served = set.last_served()?;
    let keeps = state.database(primary.database)?.persistence != Persistence::Disabled;
    let settings = &state.cluster.settings;
    let grace = Duration::from_secs(settings.slave_ha_grace_period.into());
    let grace = grace.max(settings.failure_detection_sensitivity.node_silent());
    let silence = observed.silence(primary.node, instant)?;
    if !keeps || primary.serving != Some(served) || silence < grace {
        return None;
    }
    let mut best = None;
    for &replica in &set.replicas {
        match replica_set::candidate(observed, replica, Some(served), instant) {
            None => continue,
            // It was not started again: it may have been promoted without this, and its data are newer.
            Some(Ok(_) | Err(Doubt::Frozen(_))) => return None,
            Some(Err(Doubt::Gone(_))) => {}
        }
        let seen = observed::shard(observed.fresh(replica.node, instant)?, replica.uid)?;
        let roleless = seen.state == EngineState::Running && seen.role.is_none();
        let written = seen.data_written.filter(|_| roleless)?;
        let found = (written, std::cmp::Reverse(replica.uid));
        let newer = best.as_ref().is_none_or(|(known, _, _)| found > *known);
        if newer {
            best = Some((found, replica, seen.run_id.as_deref()?));
        }
    }
    let ((written, _), shard, run_id) = best?;
    let cause = format!(
        "node:{} has not been heard for {} s, and every replica of redis:{} was started again",
        primary.node,
        grace.as_secs(),
        primary.uid
    );
    Some(Restarted {
        shard,
        run_id,
        written,
        cause,
    })
}
