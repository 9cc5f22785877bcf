//! Choice of a node and of ports. Pure.

use crate::observed::Observations;
use crate::state::ClusterState;
use model::documents::ProxyPolicy;
use model::limits::{DATABASE_MEMORY_MIN, ENDPOINT_PORTS, SHARD_PORTS, SHARDS_PER_NODE_MAX};
use model::release::EngineId;
use model::units::format_size;
use model::{ApiError, ErrorCode, NodeUid};
use std::collections::BTreeSet;
use std::time::Instant;

/// First port tried for a database without a wish.
const FIRST_ENDPOINT_PORT: u16 = 12_000;

/// The node for one primary shard: heard, taking shards, carrying the engine, with room; of these
/// the one with the most memory left, then with the fewest shards, then with the lowest uid.
///
/// # Errors
/// `insufficient_resources` with the reason for each node.
pub fn node_for_shard(
    state: &ClusterState,
    observed: &Observations,
    engine: &EngineId,
    memory: u64,
    now: Instant,
) -> Result<NodeUid, ApiError> {
    let mut reasons = Vec::new();
    let mut best: Option<(u64, std::cmp::Reverse<usize>, std::cmp::Reverse<NodeUid>)> = None;
    for node in &state.nodes {
        let shards = state.shards.iter().filter(|s| s.node == node.uid).count();
        let left = node
            .memory_bytes
            .saturating_sub(state.promised_memory(node.uid));
        let why_not = match observed.fresh(node.uid, now) {
            None => Some("is not heard".to_owned()),
            Some(_) if !node.accept_servers => Some("takes no shards".to_owned()),
            Some(seen) if !seen.engines.contains(engine) => {
                Some(format!("does not carry {engine}"))
            }
            Some(_) if shards >= SHARDS_PER_NODE_MAX as usize => {
                Some(format!("has {SHARDS_PER_NODE_MAX} shards already"))
            }
            Some(_) if left < memory => Some(format!("has {} left", format_size(left))),
            Some(_) => None,
        };
        if let Some(reason) = why_not {
            reasons.push(format!("node:{} {reason}", node.uid));
            continue;
        }
        let candidate = (left, std::cmp::Reverse(shards), std::cmp::Reverse(node.uid));
        best = best.max(Some(candidate));
    }
    best.map(|(_, _, uid)| uid.0).ok_or_else(|| {
        ApiError::new(
            ErrorCode::InsufficientResources,
            format!(
                "no node has room for {}: {}",
                format_size(memory),
                reasons.join("; ")
            ),
        )
    })
}

/// The port of an engine on a node: the lowest that no other shard has anywhere, so that a shard can
/// move without changing it.
///
/// # Errors
/// `insufficient_resources` when all are taken.
pub fn shard_port(state: &ClusterState) -> Result<u16, ApiError> {
    let taken: BTreeSet<u16> = state.shards.iter().map(|s| s.port).collect();
    SHARD_PORTS
        .clone()
        .find(|port| !taken.contains(port))
        .ok_or_else(|| {
            ApiError::new(
                ErrorCode::InsufficientResources,
                "every shard port is taken".to_owned(),
            )
        })
}

/// The port of a database: the wish if it is free, else the lowest free one.
///
/// # Errors
/// `port_unavailable`.
pub fn endpoint_port(state: &ClusterState, wish: Option<u16>) -> Result<u16, ApiError> {
    let taken = |port: u16| state.databases.iter().find(|d| d.port == port);
    if let Some(port) = wish {
        if !ENDPOINT_PORTS.contains(&port) {
            return Err(ApiError::new(
                ErrorCode::PortUnavailable,
                format!(
                    "port {port} is outside {}-{}: choose one inside, or leave it out",
                    ENDPOINT_PORTS.start(),
                    ENDPOINT_PORTS.end()
                ),
            ));
        }
        return match taken(port) {
            None => Ok(port),
            Some(other) => Err(ApiError::new(
                ErrorCode::PortUnavailable,
                format!(
                    "port {port} is taken by database '{}' (db:{}): choose another, or leave it out",
                    other.name, other.uid
                ),
            )),
        };
    }
    (FIRST_ENDPOINT_PORT..=*ENDPOINT_PORTS.end())
        .chain(*ENDPOINT_PORTS.start()..FIRST_ENDPOINT_PORT)
        .find(|port| taken(*port).is_none())
        .ok_or_else(|| ApiError::from(ErrorCode::PortUnavailable))
}

/// The engine of a new database: the newest that every heard node carries and that fits the wish.
///
/// # Errors
/// `invalid_version` with those that there are.
pub fn engine(
    state: &ClusterState,
    observed: &Observations,
    wish: Option<&str>,
    now: Instant,
) -> Result<EngineId, ApiError> {
    let mut common: Option<Vec<EngineId>> = None;
    for seen in state
        .nodes
        .iter()
        .filter_map(|n| observed.fresh(n.uid, now))
    {
        common = Some(match common {
            None => seen.engines.clone(),
            Some(engines) => engines
                .into_iter()
                .filter(|e| seen.engines.contains(e))
                .collect(),
        });
    }
    let Some(common) = common else {
        return Err(ApiError::new(
            ErrorCode::NotReady,
            "the primary node has heard no node yet: try again in a moment".to_owned(),
        ));
    };
    let fits = common
        .iter()
        .filter(|e| wish.is_none_or(|wish| e.matches(wish)));
    fits.max_by_key(|e| e.age_key()).cloned().ok_or_else(|| {
        let known: Vec<String> = common.iter().map(ToString::to_string).collect();
        let known = if known.is_empty() {
            "none".to_owned()
        } else {
            known.join(", ")
        };
        let wish = model::validate::shown(wish.unwrap_or("the newest"));
        ApiError::new(
            ErrorCode::InvalidVersion,
            format!("engine version '{wish}' is not available; every node carries: {known}"),
        )
    })
}

/// A memory limit that can be.
///
/// # Errors
/// `missing_memory_size` or `invalid_param`.
pub fn memory_size(bytes: u64) -> Result<u64, ApiError> {
    if bytes == 0 {
        return Err(ErrorCode::MissingMemorySize.into());
    }
    if bytes < DATABASE_MEMORY_MIN {
        return Err(ApiError::new(
            ErrorCode::InvalidParam,
            format!(
                "memory_size {bytes} is too small: at least {}",
                format_size(DATABASE_MEMORY_MIN)
            ),
        ));
    }
    Ok(bytes)
}

/// Nodes whose proxies serve a database.
#[must_use]
pub fn proxies(state: &ClusterState, database: &model::documents::Database) -> Vec<NodeUid> {
    let primaries = state
        .shards_of(database.uid)
        .filter(|s| s.role == model::documents::Role::Primary)
        .map(|s| s.node);
    let nodes: BTreeSet<NodeUid> = match database.proxy_policy {
        ProxyPolicy::Single => primaries.take(1).collect(),
        ProxyPolicy::AllMasterShards => primaries.collect(),
        ProxyPolicy::AllNodes => state.nodes.iter().map(|n| n.uid).collect(),
    };
    nodes.into_iter().collect()
}
