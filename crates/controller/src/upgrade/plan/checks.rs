//! What stands against an upgrade. Missing information vetoes where it matters: a node that is not heard is
//! a finding of its own, and what an older release does not tell of is not judged.

use super::{blocker, is_new, parsed, warning};
use jiff::Timestamp;
use model::documents::{Database, OperationStatus, Role, Shard};
use model::observation::{EngineState, NodeObservation};
use model::upgrade::{Finding, LevelRange, UpgradeTarget};
use model::view::ClusterView;
use model::{ErrorCode, NodeUid};
use std::collections::BTreeSet;

/// Room that is left on a disk beside the new release, bytes: for logs while it runs.
const DISK_MARGIN: u64 = 128 << 20;
/// Free memory under which an upgrade is refused, bytes: for a moment two proxies run.
const MEMORY_MIN: u64 = 128 << 20;
/// Free memory under which it is told, bytes.
const MEMORY_LOW: u64 = 512 << 20;
/// A certificate must be good for this long, hours.
const CERTIFICATE_HOURS: i64 = 24;
/// One that is not good for this long is told, hours.
const CERTIFICATE_SOON_HOURS: i64 = 30 * 24;
/// Clocks that are this far apart are told, ms: what heartbeats take on their way is in it.
const CLOCK_TOLD_MS: i64 = 2_000;
/// Clocks that are this far apart stand against it, ms.
const CLOCK_APART_MS: i64 = 30_000;

pub(super) fn all(view: &ClusterView, target: &UpgradeTarget, now: Timestamp) -> Vec<Finding> {
    let mut findings = Vec::new();
    versions(view, target, &mut findings);
    record(view, target, &mut findings);
    nodes(view, &mut findings);
    quorum(view, &mut findings);
    for node in &view.nodes {
        if let Some(seen) = heard(view, node.uid) {
            host(seen, view, target, now, &mut findings);
            proxy(seen, &mut findings);
        }
    }
    operations(view, &mut findings);
    for database in &view.databases {
        copies(view, database, target, &mut findings);
    }
    for shard in &view.shards {
        running(view, shard, &mut findings);
    }
    findings
}

fn heard(view: &ClusterView, node: NodeUid) -> Option<&NodeObservation> {
    view.is_heard(node)
        .then(|| view.observed(node).map(|seen| &seen.observation))
        .flatten()
}

/// From where to where: path, order, level.
fn versions(view: &ClusterView, target: &UpgradeTarget, findings: &mut Vec<Finding>) {
    let asked = |node: NodeUid| target.node.is_none_or(|wanted| wanted == node);
    let to = parsed(&target.version);
    for seen in view.observed.iter().map(|seen| &seen.observation) {
        let known = view.nodes.iter().any(|node| node.uid == seen.node);
        let (Some(from), Some(to), true) = (
            parsed(&seen.software_version),
            &to,
            known && asked(seen.node),
        ) else {
            continue;
        };
        if from > *to {
            findings.push(blocker(
                ErrorCode::UpgradeDowngrade,
                format!("node:{} runs {from}, the release is {to}", seen.node),
            ));
        } else if from < *to && !target.supported_paths.allows(&from, to) {
            let way = target.supported_paths.hops(&from, to).map_or_else(
                || "no way leads there".to_owned(),
                |hops| {
                    let hops: Vec<String> = hops.iter().map(ToString::to_string).collect();
                    format!("the way is {}, then {to}", hops.join(", then "))
                },
            );
            findings.push(blocker(
                ErrorCode::UpgradePathUnsupported,
                format!("node:{} runs {from}: {way}", seen.node),
            ));
        }
    }
    let levels = LevelRange {
        min: target.feature_min,
        max: target.feature_max,
    };
    let level = view.upgrade.binding_level(view.cluster.feature_level);
    if let Err(why) = levels.admits(level) {
        findings.push(blocker(ErrorCode::UpgradeLevelUnsupported, why));
    }
    if let (Some(node), Some(primary)) = (target.node, view.primary_node)
        && node != primary
        && !begun(view, target)
    {
        let address = view.nodes.iter().find(|known| known.uid == primary);
        let address = address.map_or("", |node| node.address.as_str());
        findings.push(blocker(
            ErrorCode::UpgradePrimaryFirst,
            format!(
                "the primary node, node:{primary} ({address}), does not run {} yet",
                target.version
            ),
        ));
    }
}

/// The primary node comes first only while no node runs the target yet: afterwards its part may have moved to
/// any of them, and any order will do.
fn begun(view: &ClusterView, target: &UpgradeTarget) -> bool {
    view.observed
        .iter()
        .any(|seen| is_new(&seen.observation.software_version, &target.version))
}

/// What the store knows of upgrades.
fn record(view: &ClusterView, target: &UpgradeTarget, findings: &mut Vec<Finding>) {
    if let Some(open) = &view.upgrade.current
        && open.to != target.version
    {
        findings.push(blocker(
            ErrorCode::UpgradeNotFinalized,
            format!("the upgrade from {} to {} is under way", open.from, open.to),
        ));
    }
    for at in &view.upgrade.nodes {
        // What was said of a node that has left says nothing any more.
        let there = view.nodes.iter().any(|node| node.uid == at.node);
        let Some(under_way) = at.under_way.as_ref().filter(|_| there) else {
            continue;
        };
        if target.node == Some(at.node) {
            continue;
        }
        findings.push(blocker(
            ErrorCode::UpgradeInstallerRunning,
            format!(
                "install.sh is at work on node:{} (to {}, since {})",
                at.node, under_way.to.version, under_way.began
            ),
        ));
    }
}

fn nodes(view: &ClusterView, findings: &mut Vec<Finding>) {
    for node in &view.nodes {
        if !view.is_heard(node.uid) {
            let since = view.observed(node.uid).map_or_else(
                || "the primary node, which may have just become it, has not heard it".to_owned(),
                |seen| format!("it was heard {} s ago", seen.age_ms / 1000),
            );
            findings.push(blocker(
                ErrorCode::UpgradeNodeDown,
                format!("node:{} ({}) is down: {since}", node.uid, node.address),
            ));
        }
        if let Some(maintenance) = &node.maintenance {
            findings.push(blocker(
                ErrorCode::UpgradeNodeInMaintenance,
                format!(
                    "node:{} has been in maintenance mode since {}",
                    node.uid, maintenance.since
                ),
            ));
        }
        if node.leaving {
            findings.push(blocker(
                ErrorCode::UpgradeNodeInMaintenance,
                format!("node:{} leaves the cluster", node.uid),
            ));
        }
    }
}

/// The configuration must go on while the cnm_exec of a node restarts.
fn quorum(view: &ClusterView, findings: &mut Vec<Finding>) {
    if !view.has_quorum {
        findings.push(blocker(
            ErrorCode::NoQuorum,
            "no quorum confirmed what is known of the cluster".to_owned(),
        ));
        return;
    }
    let voters = view.voters.len();
    let majority = voters / 2 + 1;
    let there = view
        .voters
        .iter()
        .filter(|uid| view.is_heard(**uid))
        .count();
    if voters < 3 {
        findings.push(warning(
            ErrorCode::UpgradeQuorumAtRisk,
            format!(
                "{voters} of the nodes vote on the configuration: while one restarts, nothing can be \
                 configured"
            ),
        ));
    } else if there.saturating_sub(1) < majority {
        findings.push(blocker(
            ErrorCode::UpgradeQuorumAtRisk,
            format!("{there} of {voters} voters are heard, {majority} are needed without the one that restarts"),
        ));
    }
}

/// Room, certificates and clock of a node.
fn host(
    seen: &NodeObservation,
    view: &ClusterView,
    target: &UpgradeTarget,
    now: Timestamp,
    findings: &mut Vec<Finding>,
) {
    let node = seen.node;
    let mb = |bytes: u64| bytes >> 20;
    let free = seen.upgrade.install_free;
    let need = target.unpacked_bytes + DISK_MARGIN;
    let there = is_new(&seen.software_version, &target.version);
    if !there && free > 0 && free < need {
        findings.push(blocker(
            ErrorCode::UpgradeDiskShort,
            format!(
                "node:{node} has {} MB free for programs, {} MB are needed",
                mb(free),
                mb(need)
            ),
        ));
    }
    let memory = seen.host.free_memory;
    if !there && memory > 0 && memory < MEMORY_LOW {
        let evidence = format!("node:{node} has {} MB of memory free", mb(memory));
        findings.push(if memory < MEMORY_MIN {
            blocker(ErrorCode::UpgradeMemoryShort, evidence)
        } else {
            warning(ErrorCode::UpgradeMemoryShort, evidence)
        });
    }
    if let Some(until) = seen.upgrade.certificates_until {
        let hours = (until.as_second() - now.as_second()) / 3600;
        if hours < CERTIFICATE_SOON_HOURS {
            let evidence = format!("a certificate of node:{node} is good until {until}");
            findings.push(if hours < CERTIFICATE_HOURS {
                blocker(ErrorCode::UpgradeCertificateExpires, evidence)
            } else {
                warning(ErrorCode::UpgradeCertificateExpires, evidence)
            });
        }
    }
    let ahead = view.observed(node).map_or(0, |seen| seen.clock_ahead_ms);
    if ahead.abs() >= CLOCK_TOLD_MS {
        let side = if ahead > 0 { "ahead of" } else { "behind" };
        let evidence = format!(
            "the clock of node:{node} is {} s {side} the primary node's",
            ahead.abs() / 1000
        );
        findings.push(if ahead.abs() >= CLOCK_APART_MS {
            blocker(ErrorCode::UpgradeClockApart, evidence)
        } else {
            warning(ErrorCode::UpgradeClockApart, evidence)
        });
    }
}

fn proxy(seen: &NodeObservation, findings: &mut Vec<Finding>) {
    let Some(proxy) = &seen.proxy else {
        findings.push(blocker(
            ErrorCode::UpgradeProxyNotServing,
            format!("the proxy of node:{} is not heard", seen.node),
        ));
        return;
    };
    for database in &proxy.databases {
        let why = match (
            &database.error,
            database.listening,
            database.shards_connected,
        ) {
            (Some(error), _, _) => error.as_str(),
            (None, false, _) => "it does not listen",
            (None, true, false) => "it is not connected to the shards",
            (None, true, true) => continue,
        };
        findings.push(blocker(
            ErrorCode::UpgradeProxyNotServing,
            format!(
                "the proxy of node:{}, db:{}: {why}",
                seen.node, database.database
            ),
        ));
    }
}

fn operations(view: &ClusterView, findings: &mut Vec<Finding>) {
    for operation in &view.operations {
        if !matches!(
            operation.status,
            OperationStatus::Pending | OperationStatus::Active | OperationStatus::Paused
        ) {
            continue;
        }
        findings.push(blocker(
            ErrorCode::UpgradeOperationRunning,
            format!(
                "{} on db:{} is {} ({}){}",
                operation.kind.operator_word(),
                operation.database,
                match operation.status {
                    OperationStatus::Paused => "paused",
                    _ => "under way",
                },
                operation.uid,
                operation
                    .waiting_on
                    .as_ref()
                    .map_or_else(String::new, |on| format!(", waiting: {on}"))
            ),
        ));
    }
}

/// Every database has all its copies, and an engine that the target carries.
fn copies(
    view: &ClusterView,
    database: &Database,
    target: &UpgradeTarget,
    findings: &mut Vec<Finding>,
) {
    let shards: Vec<&Shard> = view
        .shards
        .iter()
        .filter(|shard| shard.database == database.uid && shard.removed_by.is_none())
        .collect();
    let engines: BTreeSet<String> = shards
        .iter()
        .filter(|shard| !target.engines.contains(&shard.engine))
        .map(|shard| shard.engine.to_string())
        .collect();
    for engine in engines {
        findings.push(blocker(
            ErrorCode::UpgradeEngineDropped,
            format!("db:{} ({}) runs {engine}", database.uid, database.name),
        ));
    }
    if !database.replication {
        return;
    }
    for primary in shards.iter().filter(|shard| shard.role == Role::Primary) {
        let has_copy = shards
            .iter()
            .any(|shard| shard.role == Role::Replica && shard.slots == primary.slots);
        if !has_copy {
            findings.push(blocker(
                ErrorCode::UpgradeReplicaMissing,
                format!(
                    "db:{} ({}): redis:{} has no replica",
                    database.uid, database.name, primary.uid
                ),
            ));
        }
    }
}

/// Every engine runs, and replicas have what their primaries have.
fn running(view: &ClusterView, shard: &Shard, findings: &mut Vec<Finding>) {
    let seen = view.observed(shard.node).and_then(|node| {
        node.observation
            .shards
            .iter()
            .find(|seen| seen.shard == shard.uid)
    });
    let name = format!(
        "redis:{} of db:{} on node:{}",
        shard.uid, shard.database, shard.node
    );
    let Some(seen) = seen.filter(|seen| seen.state == EngineState::Running) else {
        let state = seen.map_or("not seen".to_owned(), |seen| {
            format!("{:?}", seen.state).to_lowercase()
        });
        findings.push(blocker(
            ErrorCode::UpgradeShardDown,
            format!("{name} is {state}"),
        ));
        return;
    };
    if let Some(trouble) = &shard.trouble {
        findings.push(blocker(
            ErrorCode::UpgradeShardDown,
            format!("{name}: {trouble}"),
        ));
    }
    if shard.role != Role::Replica {
        return;
    }
    let replication = seen.replication.as_ref();
    let why = match replication {
        None => "it does not say how it replicates",
        Some(replication) if replication.sync_in_progress => "it is syncing",
        Some(replication) if !replication.link_up => "it has no link to its master",
        Some(_) if shard.synced.is_none() => "it is not known to have all data",
        Some(_) => return,
    };
    findings.push(blocker(
        ErrorCode::UpgradeReplicaSyncing,
        format!("{name}: {why}"),
    ));
}
