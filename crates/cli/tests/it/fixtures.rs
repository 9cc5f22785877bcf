//! A cluster of three nodes with two databases, as REST shows it.

use crate::fake_node::FakeNode;
use jiff::{SignedDuration, Timestamp};
use model::documents::{
    DatabaseStatus, EvictionPolicy, ProxyPolicy, Sensitivity, ShardsPlacement, Tag,
};
use model::observation::{LatencySummary, LatencyWindows, ProxyCounts, ProxyErrors, ProxyLatency};
use model::rest::{
    Bdb, ClusterInfo, ClusterPolicy, DatabaseVersion, Endpoint, EndpointProxy, LogEvent, NodeInfo,
    NodeStatus, Proxy, ProxyInfo, ServiceInfo, ShardInfo,
};
use model::tuning::ProxyMode;
use model::{DatabaseUid, NodeUid, ShardUid};
use serde_json::json;
use std::collections::BTreeMap;

/// A CA's fingerprint.
pub(crate) const FINGERPRINT: &str = "00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF";
const GB: u64 = 1 << 30;

/// What REST shows.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) info: ClusterInfo,
    pub(crate) nodes: Vec<NodeInfo>,
    pub(crate) status: BTreeMap<NodeUid, NodeStatus>,
    pub(crate) databases: Vec<Bdb>,
    pub(crate) shards: Vec<ShardInfo>,
    pub(crate) events: Vec<LogEvent>,
}

impl Cluster {
    /// All is well.
    pub(crate) fn well() -> Self {
        Self {
            info: info(),
            nodes: (1..=3).map(node).collect(),
            status: (1..=3).map(|uid| (NodeUid(uid), status(uid))).collect(),
            databases: vec![demo(), cache()],
            shards: vec![shard(1, 1, 1), shard(2, 2, 2)],
            events: Vec::new(),
        }
    }

    /// A node is not heard any more.
    pub(crate) fn silence(&mut self, uid: u64, seconds: f64) -> &mut Self {
        let heard = Some(seconds);
        let node = &mut self.nodes[uid as usize - 1];
        "down".clone_into(&mut node.status);
        node.last_heard_seconds = heard;
        let status = self.status.get_mut(&NodeUid(uid)).unwrap();
        "DOWN".clone_into(&mut status.node_status);
        status.last_heard_seconds = heard;
        for endpoint in self.databases.iter_mut().flat_map(|db| &mut db.endpoints) {
            for proxy in endpoint.proxies.iter_mut().filter(|p| p.node_uid.0 == uid) {
                proxy.ok = false;
                proxy.listening = false;
                proxy.error = Some(format!("node {uid} is not heard"));
            }
        }
        for shard in self
            .shards
            .iter_mut()
            .filter(|shard| shard.node_uid.0 == uid)
        {
            "unknown".clone_into(&mut shard.detailed_status);
            "inactive".clone_into(&mut shard.status);
            shard.error = Some(format!("node {uid} is not heard"));
        }
        self
    }

    /// `demo` has three shards on two nodes.
    /// The primary node is new and has not heard of this node yet.
    pub(crate) fn awaits(&mut self, uid: u64) -> &mut Self {
        self.silence(uid, 0.0);
        let node = &mut self.nodes[uid as usize - 1];
        "unknown".clone_into(&mut node.status);
        node.last_heard_seconds = None;
        let status = self.status.get_mut(&NodeUid(uid)).unwrap();
        "UNKNOWN".clone_into(&mut status.node_status);
        status.last_heard_seconds = None;
        for shard in self.shards.iter_mut().filter(|s| s.node_uid.0 == uid) {
            shard.error = Some(format!("node {uid} has not been heard yet"));
        }
        self
    }

    pub(crate) fn spread(&mut self) -> &mut Self {
        let ranges = ["0-5461", "5462-10922", "10923-16383"];
        let spread = ranges.iter().zip([(1, 1), (3, 2), (4, 1)]);
        self.shards.retain(|shard| shard.bdb_uid != DatabaseUid(1));
        self.shards
            .extend(spread.map(|(slots, (uid, node))| ShardInfo {
                assigned_slots: (*slots).to_owned(),
                ..shard(uid, 1, node)
            }));
        self.databases[0] = Bdb {
            shards_count: 3,
            sharding: true,
            shard_list: [1, 3, 4].map(ShardUid).to_vec(),
            shards_placement: Some(ShardsPlacement::Sparse),
            proxy_policy: Some(ProxyPolicy::AllMasterShards),
            endpoints: vec![endpoint(1, 12_000, ProxyPolicy::AllMasterShards, &[1, 2])],
            ..demo()
        };
        self
    }

    /// Something failed so many minutes ago.
    pub(crate) fn failed(&mut self, minutes: i64) -> &mut Self {
        let time = Timestamp::now() - SignedDuration::from_mins(minutes);
        self.events.push(LogEvent {
            time: time.to_string(),
            kind: "node_failed".to_owned(),
            severity: "ERROR".to_owned(),
            ..LogEvent::default()
        });
        self
    }

    /// Has a node show it.
    pub(crate) fn show(&self, node: &FakeNode) {
        node.answer("GET /v1/cluster", &self.info)
            .answer("GET /v1/nodes", &self.nodes)
            .answer("GET /v1/nodes/status", &self.status)
            .answer("GET /v1/bdbs", &self.databases)
            .answer("GET /v1/proxies", &[1, 2, 3].map(proxy_settings))
            .answer("GET /v1/shards", &self.shards)
            .answer("GET /v1/logs", &self.events);
        for database in &self.databases {
            node.answer(&format!("GET /v1/bdbs/{}", database.uid), database);
        }
    }
}

fn info() -> ClusterInfo {
    ClusterInfo {
        name: "cluster.local".to_owned(),
        created_time: "2026-08-01T12:00:00Z".to_owned(),
        cnm_https_port: 9443,
        cm_port: 8443,
        cm_session_timeout_minutes: 15,
        cluster_id: "6b0f2a52-6a8e-4f65-9b5e-0c5a4b7a9d11".to_owned(),
        feature_level: 1,
        ca_fingerprint: FINGERPRINT.to_owned(),
        primary_node: Some(NodeUid(1)),
        has_quorum: true,
        local_node: NodeUid(2),
        voters: (1..=3).map(NodeUid).collect(),
        state_id: 42,
        policy: ClusterPolicy {
            default_non_sharded_proxy_policy: Some(ProxyPolicy::Single),
            default_sharded_proxy_policy: Some(ProxyPolicy::AllMasterShards),
            default_shards_placement: Some(ShardsPlacement::Dense),
            default_provisioned_redis_version: None,
            rack_aware: Some(false),
            failure_detection_sensitivity: Some(Sensitivity::High),
            slave_ha: Some(false),
            slave_ha_grace_period: Some(600),
            slave_ha_cooldown_period: Some(3_600),
            slave_ha_bdb_cooldown_period: Some(7_200),
        },
        ..ClusterInfo::default()
    }
}

fn node(uid: u64) -> NodeInfo {
    let service = |pid| ServiceInfo {
        start_time: Some("2026-08-01T12:00:00Z".to_owned()),
        status: "RUNNING".to_owned(),
        pid: Some(pid),
    };
    NodeInfo {
        uid: NodeUid(uid),
        addr: format!("10.0.0.{uid}"),
        external_addr: if uid == 3 {
            vec!["192.0.2.3".to_owned()]
        } else {
            Vec::new()
        },
        status: "active".to_owned(),
        rack_id: if uid == 1 {
            "rack-a".to_owned()
        } else {
            String::new()
        },
        accept_servers: uid != 3,
        architecture: "x86_64".to_owned(),
        cores: 2,
        total_memory: 20_981_465_416,
        hostname: format!("host{uid}"),
        os_version: "Debian GNU/Linux 12 (bookworm)".to_owned(),
        persistent_storage_path: "/var/opt/mainstay/persist".to_owned(),
        persistent_storage_size: 100 * GB,
        persistent_storage_free: 80 * GB,
        ephemeral_storage_path: "/var/opt/mainstay/tmp".to_owned(),
        shard_count: if uid == 3 { 0 } else { 1 },
        software_version: "1.0.0".to_owned(),
        software_version_sha: "0123456789abcdef".to_owned(),
        supported_database_versions: [
            ("redis", "7.0.15"),
            ("valkey", "8.0.2"),
            ("valkey", "9.1.2"),
        ]
        .map(|(db_type, version)| DatabaseVersion {
            db_type: db_type.to_owned(),
            version: version.to_owned(),
        })
        .to_vec(),
        uptime: 260_000,
        max_redis_servers: 100,
        feature_min: 1,
        feature_max: 1,
        last_heard_seconds: Some(0.4),
        services: [("cnm_exec", 101), ("cnm_http", 102), ("dmcproxy", 103)]
            .map(|(name, pid)| (name.to_owned(), service(pid)))
            .into(),
        proxy: (uid != 3).then(proxy),
        ..NodeInfo::default()
    }
}

fn proxy() -> ProxyInfo {
    ProxyInfo {
        pid: 104,
        software_version: "1.0.0".to_owned(),
        software_version_sha: "0123456789abcdef".to_owned(),
        applied_state_id: 42,
        threads: 1,
        connections: 7,
        in_flight: 2,
        per_second: ProxyCounts {
            read_req: 800,
            write_req: 150,
            other_req: 50,
            accepted: 3,
            ingress_bytes: 1 << 20,
            egress_bytes: 5 << 20,
            ..ProxyCounts::default()
        },
        since_start: ProxyCounts {
            accepted: 120,
            refused: 1,
            slow: 4,
            errors: ProxyErrors {
                engine: 17,
                outcome_unknown: 2,
                ..ProxyErrors::default()
            },
            ..ProxyCounts::default()
        },
        latency: ProxyLatency {
            shared: LatencyWindows {
                last_second: LatencySummary {
                    count: 1_000,
                    p50_us: 92,
                    p99_us: 1_472,
                    max_us: 20_479,
                },
                ..LatencyWindows::default()
            },
            ..ProxyLatency::default()
        },
    }
}

fn status(uid: u64) -> NodeStatus {
    let provisional = if uid == 3 { 0 } else { 17_201_321_902 };
    NodeStatus {
        cores: 2,
        free_provisional_ram: provisional / 2,
        free_ram: 16_009_490_104,
        hostname: format!("host{uid}"),
        master_shards: if uid == 3 {
            Vec::new()
        } else {
            vec![ShardUid(uid)]
        },
        node_overbooking_depth: if uid == 2 {
            -1_610_612_736
        } else {
            11_703_985_274
        },
        node_status: "OK".to_owned(),
        role: if uid == 1 { "master" } else { "slave" }.to_owned(),
        software_version: "1.0.0".to_owned(),
        software_version_sha: "0123456789abcdef".to_owned(),
        total_memory: 20_981_465_416,
        total_provisional_ram: provisional,
        addr: format!("10.0.0.{uid}"),
        last_heard_seconds: Some(0.4),
        ..NodeStatus::default()
    }
}

/// A node's proxy, as it is set.
pub(crate) fn proxy_settings(uid: u64) -> Proxy {
    Proxy {
        uid: NodeUid(uid),
        threads: if uid == 2 { 3 } else { 0 },
        dynamic_threads_scaling: uid != 2,
        threads_usage_threshold: 80,
        duration_usage_threshold: 30,
        mode: if uid == 2 {
            ProxyMode::Static
        } else {
            ProxyMode::Dynamic
        },
        ..Proxy::default()
    }
}

/// Served by all nodes.
pub(crate) fn demo() -> Bdb {
    Bdb {
        uid: DatabaseUid(1),
        name: "demo".to_owned(),
        kind: "redis".to_owned(),
        status: Some(DatabaseStatus::Active),
        port: 12_000,
        memory_size: GB,
        shards_count: 1,
        data_persistence: "aof".to_owned(),
        aof_policy: "appendfsync-every-sec".to_owned(),
        eviction_policy: Some(EvictionPolicy::VolatileLru),
        proxy_policy: Some(ProxyPolicy::AllNodes),
        shards_placement: Some(ShardsPlacement::Dense),
        max_commands_per_second: 5_000,
        max_bytes_per_second: 10 << 20,
        client_buffer: "16MB:1MB:10".to_owned(),
        slowlog_log_slower_than: 10_000,
        slowlog_max_len: 128,
        notify_keyspace_events: "AKE".to_owned(),
        redis_version: "9.1.2".to_owned(),
        engine: "valkey".to_owned(),
        authentication_redis_pass: "s3cret".to_owned(),
        endpoints: vec![endpoint(1, 12_000, ProxyPolicy::AllNodes, &[1, 2, 3])],
        shard_list: vec![ShardUid(1)],
        used_memory: 2_181_038,
        tags: vec![Tag {
            key: "team".to_owned(),
            value: "web".to_owned(),
        }],
        created_time: "2026-08-01T12:10:00Z".to_owned(),
        last_changed_time: "2026-08-01T12:11:00Z".to_owned(),
        exec_state_machine: "N/A".to_owned(),
        exec_state: "N/A".to_owned(),
        ..Bdb::default()
    }
}

/// Served by one node; an older engine; a change is under way.
pub(crate) fn cache() -> Bdb {
    Bdb {
        uid: DatabaseUid(2),
        name: "cache".to_owned(),
        status: Some(DatabaseStatus::ActiveChangePending),
        port: 12_001,
        memory_size: 512 << 20,
        data_persistence: "disabled".to_owned(),
        eviction_policy: Some(EvictionPolicy::AllkeysLru),
        proxy_policy: Some(ProxyPolicy::Single),
        shards_placement: Some(ShardsPlacement::Sparse),
        redis_version: "7.0.15".to_owned(),
        engine: "redis".to_owned(),
        authentication_redis_pass: String::new(),
        endpoints: vec![endpoint(2, 12_001, ProxyPolicy::Single, &[2])],
        shard_list: vec![ShardUid(2)],
        used_memory: 0,
        action_uid: "0198c0de-0000-7000-8000-000000000002".to_owned(),
        tags: Vec::new(),
        exec_state_machine: "SMUpdateBDB".to_owned(),
        exec_state: "configure".to_owned(),
        ..demo()
    }
}

fn endpoint(bdb: u64, port: u16, policy: ProxyPolicy, nodes: &[u64]) -> Endpoint {
    Endpoint {
        uid: format!("{bdb}:1"),
        addr: nodes.iter().map(|uid| format!("10.0.0.{uid}")).collect(),
        addr_type: "internal".to_owned(),
        dns_name: format!("redis-{port}.cluster.local"),
        port,
        proxy_policy: Some(policy),
        proxies: nodes
            .iter()
            .map(|uid| EndpointProxy {
                node_uid: NodeUid(*uid),
                ok: true,
                listening: true,
                error: None,
                connections: 3,
            })
            .collect(),
    }
}

pub(crate) fn shard(uid: u64, bdb: u64, node: u64) -> ShardInfo {
    let info = json!({
        "used_memory": 2_181_038, "mem_frag_ratio": 1.234, "no_of_keys": 1000, "connected_clients": 5
    });
    ShardInfo {
        uid: ShardUid(uid),
        bdb_uid: DatabaseUid(bdb),
        bdb_name: if bdb == 1 { "demo" } else { "cache" }.to_owned(),
        node_uid: NodeUid(node),
        role: "master".to_owned(),
        assigned_slots: "0-16383".to_owned(),
        status: "active".to_owned(),
        detailed_status: "ok".to_owned(),
        port: 20_000,
        pid: Some(200 + u32::try_from(uid).unwrap()),
        engine: if bdb == 1 {
            "valkey-9.1.2"
        } else {
            "redis-7.0.15"
        }
        .to_owned(),
        epoch: 1,
        redis_info: info.as_object().unwrap().clone(),
        ..ShardInfo::default()
    }
}
