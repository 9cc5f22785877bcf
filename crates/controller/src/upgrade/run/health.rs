//! What was heard of a node and of the cluster, as far as a turn is concerned.

use crate::upgrade::plan;
use jiff::Timestamp;
use model::observation::NodeObservation;
use model::upgrade::UpgradeTarget;
use model::upgrade::run::{JobReport, NodeTurn, UpgradeRun};
use model::view::ClusterView;
use model::{ErrorCode, NodeUid, ShardUid};

/// Errors of a new proxy that are none of its own making: clients that come and go.
const ERRORS_ALLOWED: u64 = 10;
/// One error in so many commands is allowed beyond them.
const COMMANDS_FOR_ERROR: u64 = 10_000;
/// The median of the answers' times may be so many times what it was before,
const SLOWER_TIMES: u64 = 10;
/// and this much in any case, µs: a machine that is busy for a moment is no slow release.
const SLOW_FROM_US: u64 = 20_000;
/// A second of changes may be on its way to a node's store.
const BEHIND_MAX: u64 = 64;

/// What was heard of a node lately.
pub(super) fn heard(view: &ClusterView, node: NodeUid) -> Option<&NodeObservation> {
    view.is_heard(node)
        .then(|| view.observed(node).map(|seen| &seen.observation))
        .flatten()
}

/// What a node says of a turn by this name.
pub(super) fn report<'a>(seen: &'a NodeObservation, job: &str) -> Option<&'a JobReport> {
    seen.upgrade.turn.job.as_ref().filter(|job_| job_.id == job)
}

/// Whether a node is heard with the release, and its installer has told the cluster that it stays.
pub(super) fn is_at(view: &ClusterView, node: NodeUid, target: &UpgradeTarget) -> bool {
    heard(view, node).is_some_and(|seen| {
        seen.software_version == target.version && seen.build_id == target.build_id
    }) && settled(view, node, &target.version)
}

/// Whether a node is heard with a release other than the target, and no installer is at work.
pub(super) fn is_before(view: &ClusterView, node: NodeUid, target: &UpgradeTarget) -> bool {
    heard(view, node).is_some_and(|seen| {
        seen.software_version != target.version && settled(view, node, &seen.software_version)
    })
}

/// Whether an installer was cut short on a node, even at its very end: its record still names a step.
pub(super) fn is_unfinished(view: &ClusterView, node: NodeUid) -> bool {
    heard(view, node).is_some_and(|seen| seen.upgrade.turn.step.is_some())
}

/// No installer is at work on a node, and what it reported last is this version; a node that was never
/// upgraded has reported nothing.
fn settled(view: &ClusterView, node: NodeUid, version: &str) -> bool {
    let recorded = view.upgrade.nodes.iter().find(|named| named.node == node);
    recorded.is_none_or(|recorded| {
        recorded.under_way.is_none()
            && recorded
                .release
                .as_ref()
                .is_none_or(|release| release.version == version)
    })
}

/// Full syncs that each engine has given.
pub(super) fn full_syncs(view: &ClusterView) -> Vec<(ShardUid, u64)> {
    let shards = view
        .observed
        .iter()
        .flat_map(|seen| &seen.observation.shards);
    shards
        .filter_map(|shard| Some((shard.shard, shard.replication.as_ref()?.full_syncs)))
        .collect()
}

/// Half of the answers of shards to the commands of a node's proxy came within this in the last second, µs; blocking
/// commands and others with a connection of their own are left out. `None`: there were none.
pub(super) fn median_us(seen: &NodeObservation) -> Option<u64> {
    let second = seen.proxy.as_ref()?.latency.shared.last_second;
    (second.count > 0).then_some(second.p50_us)
}

/// What stands against the next turn, or against the gate: the plan's blockers.
pub(super) fn blockers(
    view: &ClusterView,
    run: &UpgradeRun,
    now: Timestamp,
) -> Vec<(ErrorCode, String)> {
    let plan = plan::plan(view, &run.target, now);
    plan.blockers()
        .map(|finding| (finding.code, finding.evidence.clone()))
        .collect()
}

/// Whether a finding is about how the cluster is.
pub(super) const fn is_of_health(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::NoQuorum
            | ErrorCode::UpgradeNodeDown
            | ErrorCode::UpgradeQuorumAtRisk
            | ErrorCode::UpgradeShardDown
            | ErrorCode::UpgradeReplicaMissing
            | ErrorCode::UpgradeReplicaSyncing
            | ErrorCode::UpgradeProxyNotServing
    )
}

/// What the gate behind a node's turn still waits for.
pub(super) fn gate(
    view: &ClusterView,
    run: &UpgradeRun,
    node: NodeUid,
    now: Timestamp,
) -> Vec<String> {
    let mut waits: Vec<String> = blockers(view, run, now)
        .into_iter()
        .filter(|(code, _)| is_of_health(*code))
        .map(|(_, evidence)| evidence)
        .collect();
    let (Some(seen), Some(turn)) = (heard(view, node), run.turn(node)) else {
        waits.push(format!("node:{node} is not heard"));
        return waits;
    };
    if seen.build_id != run.target.build_id {
        waits.push(format!("its cnm_exec runs build {}", seen.build_id));
    }
    if turn.started_before == Some(seen.started) {
        waits.push("its cnm_exec is the process from before".to_owned());
    }
    if seen.applied.0 + BEHIND_MAX < view.revision.0 {
        waits.push(format!(
            "its store is at revision {}, the cluster's at {}",
            seen.applied, view.revision
        ));
    }
    match &seen.proxy {
        Some(proxy) if proxy.build_id == run.target.build_id => {
            // Where the new release ran already when an operator had the turn tried again, he has seen what it had
            // counted by then: only what is counted now speaks against it.
            let seen_by_operator = turn.started_before.is_none();
            let counts = if seen_by_operator {
                &proxy.per_second
            } else {
                &proxy.since_start
            };
            let errors = &counts.errors;
            let lost = errors.unavailable + errors.outcome_unknown + errors.unread;
            if lost > ERRORS_ALLOWED + proxy.commands / COMMANDS_FOR_ERROR {
                waits.push(format!(
                    "clients of its new proxy got {lost} errors in {} commands",
                    proxy.commands
                ));
            }
        }
        Some(proxy) => waits.push(format!("its proxy runs build {}", proxy.build_id)),
        None => waits.push("its proxy is not heard".to_owned()),
    }
    // Each look is at another second: one in the band is enough.
    if let (Some(before), Some(median)) = (turn.median_before_us, median_us(seen))
        && median > SLOW_FROM_US.max(before.saturating_mul(SLOWER_TIMES))
    {
        waits.push(format!(
            "half of its proxy's commands take {median} µs or more, before its turn it was {before} µs"
        ));
    }
    waits
}

/// What speaks against the gate and does not pass: full syncs that were given since the turn began, but for those of
/// databases to which an operation has brought copies meanwhile.
pub(super) fn lasting(view: &ClusterView, turn: &NodeTurn) -> Vec<String> {
    let before = |shard| turn.full_syncs.iter().find(|(known, _)| *known == shard);
    let changed = |shard| {
        let database = view.shards.iter().find(|known| known.uid == shard);
        let mut since = view
            .operations
            .iter()
            .filter(|o| o.ended >= turn.began || o.ended.is_none());
        database.is_some_and(|shard| since.any(|operation| operation.database == shard.database))
    };
    full_syncs(view)
        .into_iter()
        .filter(|(shard, now)| before(*shard).is_some_and(|(_, before)| now > before))
        .filter(|(shard, _)| !changed(*shard))
        .map(|(shard, _)| format!("redis:{shard} had to give a full sync"))
        .collect()
}
