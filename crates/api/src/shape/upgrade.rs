//! `/v1/upgrade`.

use super::observation;
use jiff::Timestamp;
use model::release::SupportedPaths;
use model::rest::{NodePath, PathRow, UpgradeDone, UpgradeNodeStatus, UpgradePaths, UpgradeStatus};
use model::upgrade::OpenUpgrade;
use model::upgrade::run::UpgradeRun;
use model::view::{ClusterView, Presence};
use semver::Version;

/// Where the cluster is.
#[must_use]
pub fn status(view: &ClusterView, now: Timestamp) -> UpgradeStatus {
    let upgrade = &view.upgrade;
    let open = upgrade.current.as_ref();
    let mut status = UpgradeStatus {
        feature_level: view.cluster.feature_level,
        state: "none".to_owned(),
        from: open.map(|open| open.from.clone()),
        to: open.map(|open| open.to.clone()),
        began: open.map(|open| open.began.to_string()),
        nodes: nodes(view, open),
        waiting_on: Vec::new(),
        hold_finalize: upgrade.hold_finalize,
        soak_seconds: upgrade.soak(),
        soak_left_seconds: None,
        last: upgrade.last.as_ref().map(|last| UpgradeDone {
            from: last.from.clone(),
            to: last.to.clone(),
            level_from: last.level_from,
            level_to: last.level_to,
            began: last.began.to_string(),
            ended: last.ended.to_string(),
        }),
        run: super::upgrade_run::run(view, now),
    };
    let Some(open) = open else {
        return status;
    };
    let (state, waiting_on) = stage(view, open, &mut status, now);
    state.clone_into(&mut status.state);
    status.waiting_on = waiting_on;
    status
}

fn stage(
    view: &ClusterView,
    open: &OpenUpgrade,
    status: &mut UpgradeStatus,
    now: Timestamp,
) -> (&'static str, Vec<String>) {
    if let Some(raising) = &open.raising {
        if view.cluster.feature_level < raising.to {
            let waits = missing(view, status);
            return ("raising", waits);
        }
        let behind = view.nodes.iter().filter(|node| {
            observation(view, node.uid).is_none_or(|seen| seen.upgrade.level < raising.to)
        });
        let behind = behind.map(|node| format!("node:{} has not read the level yet", node.uid));
        return ("confirming", behind.collect());
    }
    let Some(since) = open.all_new_since else {
        return ("nodes", missing(view, status));
    };
    let gone = now.as_second() - since.as_second();
    let left = i64::from(status.soak_seconds) - gone;
    status.soak_left_seconds = Some(u32::try_from(left).unwrap_or(0));
    if left <= 0 && status.hold_finalize && !open.asked {
        let command = "`rladmin cluster upgrade finalize`".to_owned();
        return ("held", vec![command]);
    }
    ("soak", Vec::new())
}

fn missing(view: &ClusterView, status: &UpgradeStatus) -> Vec<String> {
    // One command for all nodes does the rest.
    let by_itself = view.upgrade.run.as_ref().is_some_and(UpgradeRun::is_open);
    let to = status.to.clone().unwrap_or_default();
    let nodes = status.nodes.iter().filter(|node| node.state != "new");
    nodes
        .map(|node| match node.state.as_str() {
            "down" => format!("node:{} ({}) is not heard", node.uid, node.addr),
            "under way" => format!(
                "install.sh is at work on node:{} ({}); if it was cut short, run it there again",
                node.uid, node.addr
            ),
            _ if by_itself => format!(
                "node:{} ({}) runs {}",
                node.uid, node.addr, node.software_version
            ),
            _ => format!(
                "node:{} ({}) runs {}: run install.sh of {to} there",
                node.uid, node.addr, node.software_version
            ),
        })
        .collect()
}

fn nodes(view: &ClusterView, open: Option<&OpenUpgrade>) -> Vec<UpgradeNodeStatus> {
    view.nodes
        .iter()
        .map(|node| {
            let seen = observation(view, node.uid);
            let version = seen.map_or("", |seen| seen.software_version.as_str());
            let recorded = view
                .upgrade
                .nodes
                .iter()
                .find(|named| named.node == node.uid);
            let at_work = recorded.is_some_and(|named| named.under_way.is_some());
            let state = match open {
                _ if view.presence(node.uid) == Presence::NotYet => "unknown",
                _ if !view.is_heard(node.uid) => "down",
                _ if at_work => "under way",
                None => "ok",
                Some(open) if open.to == version => "new",
                Some(_) => "old",
            };
            UpgradeNodeStatus {
                uid: node.uid,
                addr: node.address.clone(),
                software_version: version.to_owned(),
                software_version_sha: seen.map(|seen| seen.build_id.clone()).unwrap_or_default(),
                feature_min: seen.map_or(0, |seen| seen.feature_min),
                feature_max: seen.map_or(0, |seen| seen.feature_max),
                state: state.to_owned(),
            }
        })
        .collect()
}

/// A table of supported paths, and every node's way to a version.
#[must_use]
pub fn paths(
    view: &ClusterView,
    release: &Version,
    table: &SupportedPaths,
    to: &Version,
) -> UpgradePaths {
    let nodes = view.nodes.iter().map(|node| {
        let seen = observation(view, node.uid);
        let from = seen.and_then(|seen| Version::parse(&seen.software_version).ok());
        let hops = from.as_ref().and_then(|from| {
            if from == to {
                Some(Vec::new())
            } else {
                table.hops(from, to)
            }
        });
        NodePath {
            uid: node.uid,
            from: from.map(|from| from.to_string()).unwrap_or_default(),
            possible: hops.is_some(),
            hops: hops
                .unwrap_or_default()
                .iter()
                .filter(|hop| *hop != to)
                .map(Version::to_string)
                .collect(),
        }
    });
    UpgradePaths {
        release: release.to_string(),
        to: to.to_string(),
        rows: table
            .path
            .iter()
            .map(|row| PathRow {
                from: row.from.to_string(),
                to: row.to.to_string(),
            })
            .collect(),
        nodes: nodes.collect(),
    }
}
