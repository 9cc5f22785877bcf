//! An upgrade as it would go, and everything that stands against it. Pure, and nothing is changed by it: the
//! operator's `plan`, and what install.sh asks before it begins, are this one list.

mod checks;
mod steps;

use super::order;
use model::upgrade::{
    FINDINGS_MAX, Gravity, PlannedComponent, PlannedNode, UpgradePlan, UpgradeTarget,
};
use model::view::ClusterView;
use semver::Version;

/// Plans an upgrade of the cluster, or says what stands against the turn of one node.
#[must_use]
pub fn plan(view: &ClusterView, target: &UpgradeTarget, now: jiff::Timestamp) -> UpgradePlan {
    let mut findings = checks::all(view, target, now);
    findings.sort_by_key(|finding| finding.severity);
    findings.truncate(FINDINGS_MAX);
    let nodes = nodes(view, target);
    let level_from = view.cluster.feature_level;
    let level_to = target.feature_max.max(level_from);
    UpgradePlan {
        steps: steps::all(view, target, &nodes),
        nodes,
        findings,
        version: target.version.clone(),
        build_id: target.build_id.clone(),
        level_from,
        level_to,
        point_of_no_return: if level_to > level_from {
            format!(
                "the last step, when the feature level rises from {level_from} to {level_to}; before it, \
                 install.sh --rollback takes each node back"
            )
        } else {
            format!(
                "none: both releases speak feature level {level_from}, install.sh --rollback takes a node \
                 back at any time"
            )
        },
    }
}

/// The nodes, in the order of their turns: the primary node first, while no node runs the target.
fn nodes(view: &ClusterView, target: &UpgradeTarget) -> Vec<PlannedNode> {
    let mut nodes: Vec<PlannedNode> = view
        .nodes
        .iter()
        .map(|node| {
            let seen = view.observed(node.uid).map(|seen| &seen.observation);
            let at_work = view
                .upgrade
                .nodes
                .iter()
                .any(|named| named.node == node.uid && named.under_way.is_some());
            let there = seen.is_some_and(|seen| seen.software_version == target.version);
            let component = |name: &str, from: Option<&str>| PlannedComponent {
                name: name.to_owned(),
                from: from.map(str::to_owned),
                to: target.version.clone(),
            };
            let version = seen.map(|seen| seen.software_version.as_str());
            let proxy = seen
                .and_then(|seen| seen.proxy.as_ref())
                .map(|proxy| proxy.software_version.as_str());
            PlannedNode {
                uid: node.uid,
                address: node.address.clone(),
                primary: view.primary_node == Some(node.uid),
                state: if at_work {
                    "under way"
                } else if there {
                    "done"
                } else {
                    "to do"
                }
                .to_owned(),
                components: vec![
                    component("cnm_http", version),
                    component("cnm_exec", version),
                    component("dmcproxy", proxy),
                    component("mainstay-node", version),
                ],
            }
        })
        .collect();
    nodes.sort_by_key(|node| {
        let turn = match node.state.as_str() {
            "done" => 0,
            "under way" => 1,
            _ => 2,
        };
        (turn, !node.primary, node.uid)
    });
    nodes
}

/// Whether a node runs the target, or something newer.
fn is_new(version: &str, target: &str) -> bool {
    order::compare(version, target).is_ge()
}

fn parsed(text: &str) -> Option<Version> {
    Version::parse(text).ok()
}

/// A finding that refuses the upgrade.
fn blocker(code: model::ErrorCode, evidence: String) -> model::upgrade::Finding {
    finding(Gravity::Blocker, code, evidence)
}

/// A finding to know.
fn warning(code: model::ErrorCode, evidence: String) -> model::upgrade::Finding {
    finding(Gravity::Warning, code, evidence)
}

fn finding(severity: Gravity, code: model::ErrorCode, evidence: String) -> model::upgrade::Finding {
    model::upgrade::Finding {
        severity,
        code,
        evidence,
        remedy: code.remedy().to_owned(),
    }
}
