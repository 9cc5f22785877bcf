//! `/v1/bdbs`.

use super::{action, not_heard, observation};
use model::documents::{Database, EvictionPolicy, Persistence, ProxyPolicy, Role, Shard};
use model::intent::DatabaseSpec;
use model::observation::ProxyDatabaseObservation;
use model::rest::{Bdb, Endpoint, EndpointProxy, SHARD_KEY_RULES, ShardKeyRule, SnapshotPolicy};
use model::tuning::DatabaseTuning;
use model::view::ClusterView;
use model::{NodeUid, Secret};

/// Words of `aof_policy`.
pub const EVERY_SECOND: &str = "appendfsync-every-sec";
/// Words of `aof_policy`.
pub const EVERY_WRITE: &str = "appendfsync-always";

/// A database. `with_password`: whether the caller may see its password.
#[must_use]
pub fn info(view: &ClusterView, database: &Database, with_password: bool) -> Bdb {
    let mut shards: Vec<&Shard> = view
        .shards
        .iter()
        .filter(|shard| shard.database == database.uid)
        .collect();
    shards.sort_by_key(|shard| (shard.slots.first, shard.uid));
    let operation = database.operation.as_ref().and_then(|uid| {
        view.operations
            .iter()
            .find(|operation| operation.uid == *uid)
    });
    let none = || "N/A".to_owned();
    Bdb {
        uid: database.uid,
        name: database.name.clone(),
        kind: "redis".to_owned(),
        status: Some(database.status),
        port: database.port,
        memory_size: database.memory_size,
        shards_count: database.shards_count,
        sharding: database.shards_count > 1,
        shard_key_regex: shard_key_rules(database.shards_count),
        replication: database.replication,
        rack_aware: database.rack_aware,
        slave_ha: (database.slave_ha.enabled).unwrap_or(view.cluster.settings.slave_ha),
        slave_ha_priority: database.slave_ha.priority,
        eviction_policy: Some(database.eviction_policy),
        proxy_policy: Some(database.proxy_policy),
        shards_placement: Some(database.shards_placement),
        redis_version: database.engine.version.to_string(),
        engine: database.engine.name.as_str().to_owned(),
        max_connections: database.max_connections,
        endpoints: vec![endpoint(view, database, &shards)],
        shard_list: shards.iter().map(|shard| shard.uid).collect(),
        used_memory: shards.iter().map(|shard| used_memory(view, shard)).sum(),
        action_uid: database
            .operation
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        tags: database.tags.clone(),
        created_time: database.created.to_string(),
        last_changed_time: database.changed.to_string(),
        ssl: false,
        exec_state_machine: operation.map_or_else(none, |o| o.kind.operator_word().to_owned()),
        exec_state: operation.map_or_else(none, action::state),
        notify_keyspace_events: database.notify_keyspace_events.clone(),
        ..limited(
            &database.tuning,
            kept(
                database.persistence,
                database.password.as_ref(),
                with_password,
            ),
        )
    }
}

fn shard_key_rules(shards_count: u32) -> Vec<ShardKeyRule> {
    let rules = SHARD_KEY_RULES.iter().filter(|_| shards_count > 1);
    rules
        .map(|rule| ShardKeyRule {
            regex: (*rule).to_owned(),
        })
        .collect()
}

/// Persistence and password, which several fields show.
fn kept(persistence: Persistence, password: Option<&Secret>, with_password: bool) -> Bdb {
    let (data_persistence, aof_policy, snapshot_policy) = match persistence {
        Persistence::Disabled => ("disabled", EVERY_SECOND, Vec::new()),
        Persistence::AofEverySecond => ("aof", EVERY_SECOND, Vec::new()),
        Persistence::AofEveryWrite => ("aof", EVERY_WRITE, Vec::new()),
        Persistence::Snapshot { seconds, writes } => (
            "snapshot",
            EVERY_SECOND,
            vec![SnapshotPolicy {
                secs: seconds,
                writes,
            }],
        ),
    };
    let password = password.map(Secret::expose).filter(|text| !text.is_empty());
    Bdb {
        data_persistence: data_persistence.to_owned(),
        aof_policy: aof_policy.to_owned(),
        snapshot_policy,
        default_user: password.is_some(),
        authentication_redis_pass: password
            .filter(|_| with_password)
            .unwrap_or_default()
            .to_owned(),
        ..Bdb::default()
    }
}

/// Limits in the proxies.
fn limited(tuning: &DatabaseTuning, database: Bdb) -> Bdb {
    Bdb {
        max_client_pipeline: tuning.max_client_pipeline,
        max_commands_per_second: tuning.max_commands_per_second,
        max_bytes_per_second: tuning.max_bytes_per_second,
        client_buffer: tuning.client_buffer.to_string(),
        slowlog_log_slower_than: tuning.slowlog_log_slower_than,
        slowlog_max_len: tuning.slowlog_max_len,
        ..database
    }
}

/// What a dry run would have created. What the cluster chooses (uid, port, engine) is left at 0 or
/// empty.
#[must_use]
pub fn preview(view: &ClusterView, spec: &DatabaseSpec) -> Bdb {
    let settings = &view.cluster.settings;
    let shards_count = spec.shards_count.unwrap_or(1);
    let default_policy = if shards_count > 1 {
        settings.default_sharded_proxy_policy
    } else {
        settings.default_non_sharded_proxy_policy
    };
    // The request was checked: it fits.
    let tuning = DatabaseTuning::default().changed(&spec.tuning);
    let version = spec
        .redis_version
        .as_ref()
        .or(settings.default_redis_version.as_ref());
    Bdb {
        uid: spec.uid.unwrap_or_default(),
        name: spec.name.clone(),
        kind: "redis".to_owned(),
        port: spec.port.unwrap_or_default(),
        memory_size: spec.memory_size,
        shards_count,
        sharding: shards_count > 1,
        shard_key_regex: shard_key_rules(shards_count),
        replication: spec.replication.unwrap_or_default(),
        rack_aware: spec.rack_aware.unwrap_or(settings.rack_aware),
        slave_ha: spec.slave_ha.enabled.unwrap_or(settings.slave_ha),
        slave_ha_priority: spec.slave_ha.priority.unwrap_or(0),
        eviction_policy: Some(spec.eviction_policy.unwrap_or(EvictionPolicy::VolatileLru)),
        proxy_policy: Some(spec.proxy_policy.unwrap_or(default_policy)),
        shards_placement: Some(
            spec.shards_placement
                .unwrap_or(settings.default_shards_placement),
        ),
        redis_version: version.cloned().unwrap_or_default(),
        max_connections: spec.max_connections.unwrap_or_default(),
        tags: spec.tags.clone(),
        exec_state_machine: "N/A".to_owned(),
        exec_state: "N/A".to_owned(),
        notify_keyspace_events: spec.notify_keyspace_events.clone().unwrap_or_default(),
        ..limited(
            &tuning.unwrap_or_default(),
            kept(
                spec.persistence.unwrap_or(Persistence::Disabled),
                spec.password.as_ref(),
                true,
            ),
        )
    }
}

fn used_memory(view: &ClusterView, shard: &Shard) -> u64 {
    observation(view, shard.node)
        .and_then(|node| node.shards.iter().find(|s| s.shard == shard.uid))
        .map_or(0, |s| s.used_memory)
}

fn endpoint(view: &ClusterView, database: &Database, shards: &[&Shard]) -> Endpoint {
    let mut proxies: Vec<EndpointProxy> = proxy_nodes(view, database.proxy_policy, shards)
        .into_iter()
        .map(|node| proxy(view, database, node))
        .collect();
    // An address that works now comes first: tools take the first one.
    proxies.sort_by_key(|proxy| (!proxy.ok, !proxy.listening, proxy.node_uid));
    let addr = proxies
        .iter()
        .filter_map(|proxy| view.nodes.iter().find(|node| node.uid == proxy.node_uid))
        .map(|node| node.address.clone())
        .collect();
    Endpoint {
        uid: format!("{}:1", database.uid),
        addr,
        addr_type: "internal".to_owned(),
        dns_name: format!("redis-{}.{}", database.port, view.cluster.name),
        port: database.port,
        proxy_policy: Some(database.proxy_policy),
        proxies,
    }
}

/// Nodes whose proxies serve a database under a policy, by uid.
#[must_use]
pub fn proxy_nodes(view: &ClusterView, policy: ProxyPolicy, shards: &[&Shard]) -> Vec<NodeUid> {
    let mut primaries: Vec<&&Shard> = shards
        .iter()
        .filter(|shard| shard.role == Role::Primary)
        .collect();
    primaries.sort_by_key(|shard| (shard.slots.first, shard.uid));
    let mut nodes: Vec<NodeUid> = match policy {
        ProxyPolicy::Single => primaries
            .first()
            .map(|shard| shard.node)
            .into_iter()
            .collect(),
        ProxyPolicy::AllMasterShards => primaries.iter().map(|shard| shard.node).collect(),
        ProxyPolicy::AllNodes => view.nodes.iter().map(|node| node.uid).collect(),
    };
    nodes.sort_unstable();
    nodes.dedup();
    nodes
}

fn proxy(view: &ClusterView, database: &Database, node: NodeUid) -> EndpointProxy {
    let seen = observation(view, node).and_then(|o| o.proxy.as_ref());
    let here = seen.and_then(|p| p.databases.iter().find(|d| d.database == database.uid));
    let error = if !view.is_heard(node) {
        Some(not_heard(view, node))
    } else if seen.is_none() {
        Some(format!("the proxy of node {node} does not answer"))
    } else {
        here.map_or_else(
            || Some(format!("the proxy of node {node} does not serve it yet")),
            proxy_error,
        )
    };
    EndpointProxy {
        node_uid: node,
        ok: error.is_none(),
        listening: view.is_heard(node) && here.is_some_and(|d| d.listening && d.error.is_none()),
        error,
        connections: here.map_or(0, |d| d.connections),
    }
}

fn proxy_error(seen: &ProxyDatabaseObservation) -> Option<String> {
    if seen.listening && seen.shards_connected {
        return None;
    }
    Some(seen.error.clone().unwrap_or_else(|| {
        if seen.listening {
            "it does not reach the shards"
        } else {
            "it does not listen yet"
        }
        .to_owned()
    }))
}
