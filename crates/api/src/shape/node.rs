//! `/v1/nodes` and `/v1/nodes/status`.

use super::{last_heard_seconds, observation};
use model::documents::{Node, Role, Shard, SnapshotShard};
use model::node_config::NodeConfig;
use model::observation::{HostFacts, NodeObservation, ServiceObservation};
use model::rest::{
    DatabaseVersion, NodeInfo, NodeSnapshotInfo, NodeStatus, ProxyInfo, ServiceInfo,
    SnapshotShardInfo,
};
use model::view::{ClusterView, Presence};
use model::{NodeUid, ShardUid, limits};
use std::collections::BTreeMap;

/// A node; `local` is the answering node's configuration: other nodes' folders are not known.
#[must_use]
pub fn info(view: &ClusterView, node: &Node, local: &NodeConfig) -> NodeInfo {
    let seen = observation(view, node.uid);
    let host = seen.map(|o| o.host.clone()).unwrap_or_default();
    let shards: Vec<ShardUid> = shards_of(view, node.uid).map(|shard| shard.uid).collect();
    let is_local = node.uid == view.local_node;
    let folder = |path: std::path::PathBuf| {
        if is_local {
            path.to_string_lossy().into_owned()
        } else {
            String::new()
        }
    };
    NodeInfo {
        uid: node.uid,
        addr: node.address.clone(),
        external_addr: node.external_address.clone(),
        status: match view.presence(node.uid) {
            Presence::Heard => "active",
            Presence::NotYet => "unknown",
            Presence::Silent => "down",
        }
        .to_owned(),
        rack_id: node.rack_id.clone().unwrap_or_default(),
        accept_servers: takes_shards(node),
        total_memory: total_memory(node, seen),
        hostname: hostname(node, seen),
        persistent_storage_path: folder(local.persist_dir()),
        ephemeral_storage_path: folder(local.tmp_dir()),
        shard_count: u32::try_from(shards.len()).unwrap_or(u32::MAX),
        shard_list: shards,
        software_version: seen.map(|o| o.software_version.clone()).unwrap_or_default(),
        software_version_sha: seen.map(|o| o.build_id.clone()).unwrap_or_default(),
        supported_database_versions: seen.map(engines).unwrap_or_default(),
        max_redis_servers: if takes_shards(node) {
            limits::SHARDS_PER_NODE_MAX
        } else {
            0
        },
        feature_min: seen.map_or(0, |o| o.feature_min),
        feature_max: seen.map_or(0, |o| o.feature_max),
        last_heard_seconds: last_heard_seconds(view, node.uid),
        services: seen.map(|o| services(&o.services)).unwrap_or_default(),
        proxy: seen.and_then(proxy),
        ..of_host(host)
    }
}

/// What a node tells of its host.
fn of_host(host: HostFacts) -> NodeInfo {
    NodeInfo {
        architecture: host.architecture,
        cores: host.cores,
        os_family: host.os_family,
        os_version: host.os_version,
        persistent_storage_size: host.persistent_size,
        persistent_storage_free: host.persistent_free,
        ephemeral_storage_size: host.ephemeral_size,
        uptime: host.uptime,
        ..NodeInfo::default()
    }
}

/// A node in maintenance mode, or one that leaves, counts for the quorum only.
const fn takes_shards(node: &Node) -> bool {
    node.accept_servers && node.maintenance.is_none() && !node.leaving
}

fn engines(seen: &NodeObservation) -> Vec<DatabaseVersion> {
    seen.engines
        .iter()
        .map(|engine| DatabaseVersion {
            db_type: engine.name.as_str().to_owned(),
            version: engine.version.to_string(),
        })
        .collect()
}

fn proxy(seen: &NodeObservation) -> Option<ProxyInfo> {
    seen.proxy.as_ref().map(|proxy| ProxyInfo {
        pid: proxy.pid,
        software_version: proxy.software_version.clone(),
        software_version_sha: proxy.build_id.clone(),
        applied_state_id: proxy.applied.0,
        threads: proxy.threads,
        connections: proxy.connections,
        in_flight: proxy.in_flight,
        per_second: proxy.per_second,
        since_start: proxy.since_start,
        latency: proxy.latency,
    })
}

/// Services by name.
#[must_use]
pub fn services(seen: &[ServiceObservation]) -> BTreeMap<String, ServiceInfo> {
    seen.iter()
        .map(|service| {
            let info = ServiceInfo {
                start_time: service.start_time.map(|time| time.to_string()),
                status: service.status.clone(),
                pid: service.pid,
            };
            (service.name.clone(), info)
        })
        .collect()
}

/// Every node's entry in `/v1/nodes/status`.
#[must_use]
pub fn statuses(view: &ClusterView) -> BTreeMap<NodeUid, NodeStatus> {
    view.nodes
        .iter()
        .map(|node| (node.uid, status(view, node)))
        .collect()
}

/// A node's entry in `/v1/nodes/status`.
#[must_use]
pub fn status(view: &ClusterView, node: &Node) -> NodeStatus {
    let seen = observation(view, node.uid);
    let of_role = |role: Role| {
        shards_of(view, node.uid)
            .filter(|s| s.role == role)
            .map(|s| s.uid)
            .collect::<Vec<_>>()
    };
    let total = total_memory(node, seen);
    let promised: u64 = shards_of(view, node.uid)
        .map(|shard| shard.memory_bytes)
        .sum();
    let provisional = if takes_shards(node) {
        node.memory_bytes
    } else {
        0
    };
    let is_primary_node = view.primary_node == Some(node.uid);
    NodeStatus {
        cores: seen.map_or(0, |o| o.host.cores),
        free_provisional_ram: provisional.saturating_sub(promised),
        free_ram: seen.map_or(0, |o| o.host.free_memory.min(total)),
        hostname: hostname(node, seen),
        master_shards: of_role(Role::Primary),
        slave_shards: of_role(Role::Replica),
        node_overbooking_depth: overbooking_depth(view, node, seen),
        node_status: match view.presence(node.uid) {
            Presence::Heard => "OK",
            Presence::NotYet => "UNKNOWN",
            Presence::Silent => "DOWN",
        }
        .to_owned(),
        role: if is_primary_node { "master" } else { "slave" }.to_owned(),
        software_version: seen.map(|o| o.software_version.clone()).unwrap_or_default(),
        software_version_sha: seen.map(|o| o.build_id.clone()).unwrap_or_default(),
        total_memory: total,
        total_provisional_ram: provisional,
        addr: node.address.clone(),
        last_heard_seconds: last_heard_seconds(view, node.uid),
        maintenance_snapshot: maintenance_snapshot(node),
        leaving: node.leaving,
        disk_full: seen.is_some_and(|o| o.disk_full),
    }
}

/// Snapshots of what was on a node, oldest first; that of its maintenance mode last.
#[must_use]
pub fn snapshots(node: &Node) -> Vec<NodeSnapshotInfo> {
    let kept = node.snapshots.iter();
    kept.map(|kept| NodeSnapshotInfo {
        name: kept.name.clone(),
        node_uid: node.uid,
        created_time: kept.created.to_string(),
        shards: kept.shards.iter().map(snapshot_shard).collect(),
    })
    .chain(maintenance_snapshot(node))
    .collect()
}

fn maintenance_snapshot(node: &Node) -> Option<NodeSnapshotInfo> {
    let maintenance = node.maintenance.as_ref()?;
    Some(NodeSnapshotInfo {
        name: maintenance.name.clone(),
        node_uid: node.uid,
        created_time: maintenance.since.to_string(),
        shards: maintenance.snapshot.iter().map(snapshot_shard).collect(),
    })
}

fn snapshot_shard(shard: &SnapshotShard) -> SnapshotShardInfo {
    SnapshotShardInfo {
        bdb_uid: shard.database,
        assigned_slots: format!("{}-{}", shard.slots.first, shard.slots.last),
        role: match shard.role {
            Role::Primary => "master",
            Role::Replica => "slave",
        }
        .to_owned(),
    }
}

/// Free memory less what the node's shards may still grow by. What is free is the host's or the
/// node's share of it, whichever is less: several nodes may share a host.
fn overbooking_depth(view: &ClusterView, node: &Node, seen: Option<&NodeObservation>) -> i64 {
    let used_by = |shard: &Shard| {
        seen.and_then(|o| o.shards.iter().find(|s| s.shard == shard.uid))
            .map_or(0, |s| s.used_memory)
    };
    let (mut used, mut growth) = (0_u64, 0_u64);
    for shard in shards_of(view, node.uid) {
        let now = used_by(shard);
        used = used.saturating_add(now);
        growth = growth.saturating_add(shard.memory_bytes.saturating_sub(now));
    }
    let share = node.memory_bytes.saturating_sub(used);
    let free = seen.map_or(share, |o| o.host.free_memory.min(share));
    signed(free).saturating_sub(signed(growth))
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn shards_of(view: &ClusterView, node: NodeUid) -> impl Iterator<Item = &Shard> {
    view.shards.iter().filter(move |shard| shard.node == node)
}

fn total_memory(node: &Node, seen: Option<&NodeObservation>) -> u64 {
    seen.map(|o| o.host.total_memory)
        .filter(|bytes| *bytes > 0)
        .unwrap_or(node.memory_bytes)
}

fn hostname(node: &Node, seen: Option<&NodeObservation>) -> String {
    seen.map(|o| o.host.hostname.clone())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| node.hostname.clone())
}
