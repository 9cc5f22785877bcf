//! What becomes of a planned move whose intent stands and whose leader is not at it any more. Pure.
//!
//! The old primary decides: no gate opens under the move's epoch before its engine is a completed
//! replica of the target, so as long as it is not one, no client has written to the target.

use model::Epoch;
use model::observation::{EngineState, ShardObservation};
use model::replication::{ReplicationObservation, SyncedRecord};

/// The old primary's engine, as its agent tells after it has stored the leader's generation.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum OldPrimary {
    /// Its agent does not answer.
    Unreachable,
    /// The process that the intent names is not there any more.
    Gone,
    /// `role:master`, `master_failover_state:no-failover`.
    Primary,
    /// `master_failover_state:waiting-for-sync`: it still is the primary, and holds writes.
    WaitingForSync,
    /// `master_failover_state:failover-in-progress`: it has demoted itself, and the target may have
    /// taken over or not. It prints `role:slave` already.
    InProgress,
    /// `role:slave`, `master_failover_state:no-failover`: the target took over, it is complete.
    Completed,
}

/// The engine that was to become primary, as its agent tells.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Target {
    /// Its agent does not answer.
    Unreachable,
    /// The process that the intent names is not there any more.
    Gone,
    /// It follows.
    Replica,
    /// `role:master`.
    Primary,
}

/// What the leader does next.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Recovery {
    /// Commit the target as primary of the move's epoch and open the gates.
    Forward {
        /// Gates may open before the commit: the old primary is completed, so that every leader that
        /// finds the intent comes to the same end. Otherwise another one may undo meanwhile, and the
        /// commit comes first.
        gates_may_open_first: bool,
    },
    /// Commit the old primary under the epoch after the move's, then open the gates.
    Undo,
    /// `FAILOVER ABORT` at the old primary, then look again.
    Abort,
    /// Look again.
    Poll,
    /// Kill the target's process if its agent answers, then [`Recovery::Abort`].
    KillTargetAndAbort,
    /// An unplanned failover, under the epoch after the move's. The old primary is a candidate if it was
    /// completed: the intent is its record.
    Failover {
        /// Whether it is.
        old_is_candidate: bool,
    },
}

/// What an agent answers about a shard: nothing, that it has none, or how it is.
pub type Answer<'a> = Option<Option<&'a ShardObservation>>;

/// The record of an old primary that has become a completed replica; `None`: it is none yet.
#[must_use]
pub fn record(seen: &ReplicationObservation, run_id: &str, epoch: Epoch) -> Option<SyncedRecord> {
    (!seen.is_primary && seen.link_up && !seen.sync_in_progress).then(|| SyncedRecord {
        run_id: run_id.to_owned(),
        replication_id: seen.replication_id.clone(),
        offset_floor: seen.offset,
        epoch,
    })
}

/// What an agent answered about a process: `None`: no answer to that; `Some(None)`: it is gone.
#[must_use]
pub fn process<'a>(answer: Answer<'a>, run_id: &str) -> Option<Option<&'a ReplicationObservation>> {
    let seen = answer?;
    if seen.is_some_and(ShardObservation::is_in_doubt) {
        return None;
    }
    let meant = seen.filter(|seen| {
        seen.run_id.as_deref() == Some(run_id)
            && !matches!(seen.state, EngineState::Stopped | EngineState::Failed)
    });
    match meant {
        None => Some(None),
        // A process that does not say how it replicates is as good as not heard.
        Some(seen) => seen.replication.as_ref().map(Some),
    }
}

/// How the old primary's process stands by that.
#[must_use]
pub fn old_primary(answer: Answer<'_>, run_id: &str) -> OldPrimary {
    match process(answer, run_id) {
        None => OldPrimary::Unreachable,
        Some(None) => OldPrimary::Gone,
        Some(Some(seen)) => match (seen.failover_state.as_str(), seen.is_primary) {
            ("waiting-for-sync", _) => OldPrimary::WaitingForSync,
            ("failover-in-progress", _) => OldPrimary::InProgress,
            (_, true) => OldPrimary::Primary,
            (_, false) => OldPrimary::Completed,
        },
    }
}

/// How the target's process stands by that.
#[must_use]
pub fn target(answer: Answer<'_>, run_id: &str) -> Target {
    match process(answer, run_id) {
        None => Target::Unreachable,
        Some(None) => Target::Gone,
        Some(Some(seen)) if seen.is_primary => Target::Primary,
        Some(Some(_)) => Target::Replica,
    }
}

/// Decides from what both agents say.
#[must_use]
pub const fn decide(old: OldPrimary, target: Target, deadline_passed: bool) -> Recovery {
    match (old, target) {
        // The target did take over: that is a fact to be stored, and if it is not heard now, the ordinary
        // detection of lost nodes takes it from there.
        (OldPrimary::Completed, Target::Primary | Target::Unreachable) => Recovery::Forward {
            gates_may_open_first: true,
        },
        (OldPrimary::Unreachable | OldPrimary::Gone, Target::Primary) => Recovery::Forward {
            gates_may_open_first: false,
        },
        (OldPrimary::Completed, Target::Gone) => Recovery::Failover {
            old_is_candidate: true,
        },
        // Both cannot be: the target was asked before it took over.
        (OldPrimary::Completed, Target::Replica) => Recovery::Poll,
        (OldPrimary::Unreachable | OldPrimary::Gone, _) => Recovery::Failover {
            old_is_candidate: false,
        },
        (OldPrimary::Primary, _) => Recovery::Undo,
        (OldPrimary::WaitingForSync, _) => Recovery::Abort,
        (OldPrimary::InProgress, _) if deadline_passed => Recovery::KillTargetAndAbort,
        (OldPrimary::InProgress, _) => Recovery::Poll,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: [OldPrimary; 6] = [
        OldPrimary::Unreachable,
        OldPrimary::Gone,
        OldPrimary::Primary,
        OldPrimary::WaitingForSync,
        OldPrimary::InProgress,
        OldPrimary::Completed,
    ];
    const TARGET: [Target; 4] = [
        Target::Unreachable,
        Target::Gone,
        Target::Replica,
        Target::Primary,
    ];

    #[test]
    fn a_primary_without_a_failover_keeps_its_role_whatever_the_target_says() {
        for target in TARGET {
            assert_eq!(decide(OldPrimary::Primary, target, true), Recovery::Undo);
        }
    }

    #[test]
    fn the_target_gets_the_role_only_if_the_old_primary_is_completed_or_cannot_tell() {
        for old in OLD {
            for target in TARGET {
                let Recovery::Forward {
                    gates_may_open_first,
                } = decide(old, target, true)
                else {
                    continue;
                };
                let completed = old == OldPrimary::Completed;
                let cannot_tell = matches!(old, OldPrimary::Unreachable | OldPrimary::Gone);
                assert!(completed || cannot_tell, "{old:?} {target:?}");
                assert_eq!(gates_may_open_first, completed, "{old:?} {target:?}");
            }
        }
    }

    #[test]
    fn nothing_is_aborted_in_progress_before_the_deadline() {
        for target in TARGET {
            assert_eq!(
                decide(OldPrimary::InProgress, target, false),
                Recovery::Poll
            );
            assert_eq!(
                decide(OldPrimary::InProgress, target, true),
                Recovery::KillTargetAndAbort
            );
        }
    }
}
