//! `/v1/cluster` and `/v1/cluster/policy`.

use client::join::pem_fingerprint;
use model::documents::ClusterSettings;
use model::node_config::Ports;
use model::rest::{ClusterInfo, ClusterPolicy, PrimaryHealthcheck};
use model::view::ClusterView;
use std::collections::BTreeSet;

/// The cluster; `ports` are the answering node's.
#[must_use]
pub fn info(view: &ClusterView, ports: &Ports) -> ClusterInfo {
    let cluster = &view.cluster;
    ClusterInfo {
        name: cluster.name.clone(),
        created_time: cluster.created.to_string(),
        cnm_https_port: ports.https,
        cm_port: ports.console,
        cm_session_timeout_minutes: cluster.settings.cm_session_timeout_minutes,
        upgrade_mode: runs_several_releases(view),
        cluster_id: cluster.cluster_id.clone(),
        feature_level: cluster.feature_level,
        ca_fingerprint: pem_fingerprint(&cluster.ca_certificate).unwrap_or_default(),
        ca_certificate: cluster.ca_certificate.clone(),
        primary_node: view.primary_node,
        has_quorum: view.has_quorum,
        local_node: view.local_node,
        removed: view.removed,
        voters: view.voters.clone(),
        state_id: view.revision.0,
        upgrade: upgrades(view).then(|| super::upgrade::status(view, jiff::Timestamp::now())),
        policy: policy(&cluster.settings),
    }
}

/// The cluster's settings.
#[must_use]
pub fn policy(settings: &ClusterSettings) -> ClusterPolicy {
    ClusterPolicy {
        default_non_sharded_proxy_policy: Some(settings.default_non_sharded_proxy_policy),
        default_sharded_proxy_policy: Some(settings.default_sharded_proxy_policy),
        default_shards_placement: Some(settings.default_shards_placement),
        default_provisioned_redis_version: Some(
            settings.default_redis_version.clone().unwrap_or_default(),
        ),
        rack_aware: Some(settings.rack_aware),
        failure_detection_sensitivity: Some(settings.failure_detection_sensitivity),
        slave_ha: Some(settings.slave_ha),
        slave_ha_grace_period: Some(settings.slave_ha_grace_period),
        slave_ha_cooldown_period: Some(settings.slave_ha_cooldown_period),
        slave_ha_bdb_cooldown_period: Some(settings.slave_ha_bdb_cooldown_period),
    }
}

/// Whether the asked node has a valid link to the primary node and to a quorum.
#[must_use]
pub fn healthcheck(view: &ClusterView) -> PrimaryHealthcheck {
    let active = view.has_quorum && view.primary_node.is_some();
    PrimaryHealthcheck {
        status: if active { "active" } else { "inactive" }.to_owned(),
    }
}

fn runs_several_releases(view: &ClusterView) -> bool {
    let running: BTreeSet<(&str, &str)> = view
        .observed
        .iter()
        .map(|o| {
            (
                o.observation.software_version.as_str(),
                o.observation.build_id.as_str(),
            )
        })
        .collect();
    running.len() > 1
}

/// Whether an upgrade is open, or one of all nodes that has not changed anything yet.
fn upgrades(view: &ClusterView) -> bool {
    let run = view.upgrade.run.as_ref();
    view.upgrade.current.is_some() || run.is_some_and(model::upgrade::run::UpgradeRun::is_open)
}
