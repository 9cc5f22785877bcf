//! A small cluster by hand: three nodes, two databases, one operation.

use argon2::password_hash::PasswordHasher;
use argon2::{Algorithm, Argon2, Params, Version};
use jiff::Timestamp;
use model::documents::{
    Cluster, ClusterSettings, Database, DatabaseStatus, EngineUsers, EvictionPolicy,
    ManagementRole, Node, Operation, OperationKind, OperationStatus, Persistence, ProxyPolicy,
    Role, Shard, ShardsPlacement, SlotRange, Tag, User,
};
use model::ids::UserUid;
use model::intent::BootstrapStatus;
use model::node_config::{NodeConfig, Ports};
use model::observation::{
    EngineState, HostFacts, LatencySummary, LatencyWindows, NodeObservation, ProxyCounts,
    ProxyDatabaseObservation, ProxyErrors, ProxyLatency, ProxyObservation, ServiceObservation,
    ShardObservation, SlowCommand,
};
use model::release::EngineId;
use model::view::{ClusterView, Observed};
use model::{DatabaseUid, Epoch, Generation, NodeUid, OperationUid, Revision, Secret, ShardUid};
use serde_json::Map;
use std::path::Path;
use std::sync::OnceLock;

pub(crate) const GIB: u64 = 1 << 30;
pub(crate) const PASSWORD: &str = "correct horse";

pub(crate) fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn created() -> Timestamp {
    time("2030-01-01T10:00:00Z")
}

pub(crate) fn engine() -> EngineId {
    "valkey-9.1.2".parse().unwrap()
}

pub(crate) fn ca_pem() -> &'static str {
    static CA: OnceLock<String> = OnceLock::new();
    CA.get_or_init(|| crate::certificates::Authority::new().certificate())
}

/// Three nodes: 1 is primary node and local, 2 holds the shards, 3 has not been heard for 30 s.
pub(crate) fn view() -> ClusterView {
    ClusterView {
        revision: Revision(42),
        local_node: NodeUid(1),
        primary_node: Some(NodeUid(1)),
        has_quorum: true,
        voters: vec![NodeUid(1), NodeUid(2), NodeUid(3)],
        cluster: cluster(),
        nodes: (1..=3).map(node).collect(),
        databases: vec![database(1, "demo"), pending(2, "young")],
        shards: vec![shard(1, 1, 2), shard(2, 2, 2)],
        users: users(),
        operations: vec![operation("op-1", 1, OperationStatus::Completed), running()],
        upgrade: model::upgrade::Upgrade::default(),
        observed: vec![observed(1, 200), observed(2, 900), observed(3, 30_000)],
        primary_for_ms: None,
        removed: false,
    }
}

/// The same as node 3 sees it when it is cut off: nothing is fresh but itself.
pub(crate) fn view_without_quorum() -> ClusterView {
    ClusterView {
        local_node: NodeUid(3),
        primary_node: None,
        has_quorum: false,
        observed: vec![observed(1, 61_000), observed(2, 61_500), observed(3, 300)],
        ..view()
    }
}

pub(crate) fn cluster() -> Cluster {
    Cluster {
        schema: 1,
        name: "cluster.local".to_owned(),
        cluster_id: "5f2b0d7e-2c51-4a3c-9a35-1d4b6f0b7c11".to_owned(),
        created: created(),
        feature_level: 1,
        ca_certificate: ca_pem().to_owned(),
        ca_key: Secret::new("ca key"),
        next_node: NodeUid(4),
        next_database: DatabaseUid(3),
        next_shard: ShardUid(3),
        next_user: UserUid(9),
        next_event: 5,
        settings: ClusterSettings::default(),
        node_loss: None,
        extra: Map::new(),
    }
}

pub(crate) fn node(uid: u64) -> Node {
    Node {
        schema: 1,
        uid: NodeUid(uid),
        address: format!("127.0.1.{uid}"),
        external_address: Vec::new(),
        rack_id: (uid == 1).then(|| "rack-a".to_owned()),
        hostname: format!("host{uid}"),
        internode_port: 3342,
        https_port: 9443,
        memory_bytes: 4 * GIB,
        accept_servers: true,
        proxy: model::tuning::ProxySettings::default(),
        maintenance: None,
        snapshots: Vec::new(),
        leaving: false,
        joined: created(),
        extra: Map::new(),
    }
}

pub(crate) fn database(uid: u64, name: &str) -> Database {
    Database {
        schema: 1,
        uid: DatabaseUid(uid),
        name: name.to_owned(),
        port: 12_000 + u16::try_from(uid).unwrap(),
        memory_size: GIB,
        status: DatabaseStatus::Active,
        engine: engine(),
        shards_count: 1,
        replication: false,
        rack_aware: false,
        slave_ha: model::documents::SlaveHa::default(),
        persistence: Persistence::Snapshot {
            seconds: 3_600,
            writes: 1,
        },
        eviction_policy: EvictionPolicy::VolatileLru,
        proxy_policy: ProxyPolicy::Single,
        shards_placement: ShardsPlacement::Dense,
        password: Some(Secret::new("db secret")),
        max_connections: 0,
        tuning: model::tuning::DatabaseTuning::default(),
        notify_keyspace_events: String::new(),
        tags: vec![Tag {
            key: "team".to_owned(),
            value: "blue".to_owned(),
        }],
        leased: false,
        operation: None,
        created: created(),
        changed: created(),
        extra: Map::new(),
    }
}

fn pending(uid: u64, name: &str) -> Database {
    Database {
        status: DatabaseStatus::Pending,
        persistence: Persistence::Disabled,
        proxy_policy: ProxyPolicy::AllNodes,
        password: None,
        tags: Vec::new(),
        operation: Some(OperationUid("op-2".to_owned())),
        ..database(uid, name)
    }
}

pub(crate) fn shard(uid: u64, database: u64, node: u64) -> Shard {
    Shard {
        schema: 1,
        uid: ShardUid(uid),
        database: DatabaseUid(database),
        node: NodeUid(node),
        port: 20_000 + u16::try_from(uid).unwrap(),
        role: Role::Primary,
        slots: SlotRange {
            first: 0,
            last: 16_383,
        },
        epoch: Epoch(3),
        generation: Generation(1),
        engine: engine(),
        memory_bytes: GIB,
        run_id: None,
        serving: Some(Epoch(3)),
        synced: None,
        role_since: None,
        lost_since: None,
        lost_before: false,
        failovers: Vec::new(),
        trouble: None,
        stalled: None,
        ended: Vec::new(),
        set_aside: None,
        moving: None,
        fence: None,
        removed_by: None,
        lost: None,
        users: EngineUsers {
            cnm: Secret::new("c"),
            repl: Secret::new("r"),
            proxy: Secret::new("p"),
        },
        extra: Map::new(),
    }
}

pub(crate) fn operation(uid: &str, database: u64, status: OperationStatus) -> Operation {
    Operation {
        schema: 1,
        uid: OperationUid(uid.to_owned()),
        kind: OperationKind::CreateDatabase,
        database: DatabaseUid(database),
        status,
        shards: Vec::new(),
        migrations: Vec::new(),
        moved: Vec::new(),
        immediate: false,
        override_policy: None,
        planner_version: None,
        slave_ha: false,
        node: None,
        group: None,
        at_once: None,
        total: 0,
        step_since: None,
        step_within_seconds: None,
        waiting_on: None,
        error: None,
        error_code: None,
        created: created(),
        ended: None,
        extra: Map::new(),
    }
}

fn running() -> Operation {
    Operation {
        waiting_on: Some("shard 2 to start on node 2".to_owned()),
        ..operation("op-2", 2, OperationStatus::Active)
    }
}

pub(crate) fn observed(node: u64, age_ms: u64) -> Observed {
    Observed {
        observation: observation(node),
        age_ms,
        clock_ahead_ms: 0,
    }
}

fn observation(node: u64) -> NodeObservation {
    let host = HostFacts {
        hostname: format!("host{node}"),
        ..host()
    };
    NodeObservation {
        node: NodeUid(node),
        taken: time("2030-01-01T12:00:00Z"),
        software_version: "1.0.0".to_owned(),
        build_id: "0123456789abcdef".to_owned(),
        feature_min: 1,
        feature_max: 1,
        started: time("2030-01-01T09:00:00Z"),
        host,
        engines: vec!["redis-7.0.15".parse().unwrap(), engine()],
        shards: if node == 2 {
            vec![shard_observation()]
        } else {
            Vec::new()
        },
        proxy: Some(proxy(node)),
        services: vec![ServiceObservation {
            name: "cnm_exec".to_owned(),
            status: "RUNNING".to_owned(),
            pid: Some(100),
            start_time: Some(time("2030-01-01T09:00:00Z")),
        }],
        stopping: false,
        disk_full: false,
        upgrade: model::upgrade::UpgradeObservation::default(),
        applied: Revision(42),
        state_hash: "00".to_owned(),
    }
}

pub(crate) fn host() -> HostFacts {
    HostFacts {
        hostname: "host1".to_owned(),
        architecture: "x86_64".to_owned(),
        os_family: "debian".to_owned(),
        os_version: "Debian GNU/Linux 12 (bookworm)".to_owned(),
        cores: 2,
        total_memory: 4 * GIB,
        free_memory: 3 * GIB,
        persistent_size: 100 * GIB,
        persistent_free: 60 * GIB,
        ephemeral_size: 100 * GIB,
        ephemeral_free: 60 * GIB,
        uptime: 86_400,
        boot_id: "b".to_owned(),
    }
}

pub(crate) fn shard_observation() -> ShardObservation {
    ShardObservation {
        shard: ShardUid(1),
        database: DatabaseUid(1),
        generation: Generation(1),
        state: EngineState::Running,
        role: Some(Role::Primary),
        epoch: Some(Epoch(3)),
        pid: Some(4_242),
        run_id: Some("r1".to_owned()),
        engine: engine(),
        used_memory: 2_181_038,
        fragmentation: 1.25,
        keys: 1_000,
        connections: 5,
        replication: None,
        keeper: None,
        data_written: None,
        stall: None,
        files_pending: false,
        refuses_writes: None,
        load_failures: 0,
        set_aside: None,
        loading_percent: 0.0,
        error: None,
    }
}

fn counts(times: u64) -> ProxyCounts {
    ProxyCounts {
        read_req: 4 * times,
        write_req: 2 * times,
        other_req: times,
        read_res: 4 * times,
        write_res: 2 * times,
        read_us: 800 * times,
        write_us: 601 * times,
        ingress_bytes: 300 * times,
        egress_bytes: 500 * times,
        accepted: times,
        slow: 1,
        errors: ProxyErrors {
            engine: times,
            refused: 2,
            ..ProxyErrors::default()
        },
        ..ProxyCounts::default()
    }
}

fn latency() -> ProxyLatency {
    let shared = LatencySummary {
        count: 60,
        p50_us: 190,
        p99_us: 420,
        max_us: 511,
    };
    ProxyLatency {
        shared: LatencyWindows {
            last_second: shared,
            since_start: LatencySummary {
                count: 6_000,
                max_us: 20_479,
                ..shared
            },
        },
        own: LatencyWindows::default(),
    }
}

fn slow_command() -> SlowCommand {
    SlowCommand {
        id: 1,
        when: "2026-08-01T12:00:00Z".parse().unwrap(),
        client: "10.0.0.9:50000".to_owned(),
        client_name: "billing".to_owned(),
        command: "ZUNIONSTORE".to_owned(),
        key: Some("all".to_owned()),
        pipelined: 1,
        total_us: 21_000,
        shard_us: 20_000,
        behind_us: 0,
        proxy_us: 1_000,
    }
}

fn proxy(node: u64) -> ProxyObservation {
    let demo = ProxyDatabaseObservation {
        database: DatabaseUid(1),
        listening: true,
        shards_connected: true,
        drains: Some(false),
        error: None,
        connections: 7,
        commands: 70,
        in_flight: 3,
        since_start: counts(1_000),
        per_second: counts(10),
        latency: latency(),
        slow: vec![slow_command()],
    };
    ProxyObservation {
        pid: 300,
        software_version: "1.0.0".to_owned(),
        build_id: "0123456789abcdef".to_owned(),
        applied: Revision(42),
        threads: 2,
        gates: true,
        leases: true,
        questions: true,
        connections: 7,
        commands: 70,
        in_flight: 3,
        since_start: counts(1_000),
        per_second: counts(10),
        latency: latency(),
        handover: None,
        databases: if node == 2 { vec![demo] } else { Vec::new() },
    }
}

/// Everyone's password is [`PASSWORD`]; the hash is the cheapest that argon2 makes.
pub(crate) fn hash(password: &str) -> Secret {
    let params = Params::new(Params::MIN_M_COST, 1, 1, None).unwrap();
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    Secret::new(
        argon2
            .hash_password(password.as_bytes())
            .unwrap()
            .to_string(),
    )
}

pub(crate) const ROLES: [(&str, ManagementRole); 7] = [
    ("admin@example.com", ManagementRole::Admin),
    ("cluster_member@example.com", ManagementRole::ClusterMember),
    ("cluster_viewer@example.com", ManagementRole::ClusterViewer),
    ("db_member@example.com", ManagementRole::DbMember),
    ("db_viewer@example.com", ManagementRole::DbViewer),
    ("user_manager@example.com", ManagementRole::UserManager),
    ("none@example.com", ManagementRole::None),
];

fn users() -> Vec<User> {
    static HASH: OnceLock<Secret> = OnceLock::new();
    let users = ROLES
        .iter()
        .zip(1..)
        .map(|((email, management), uid)| User {
            schema: 1,
            uid: UserUid(uid),
            email: (*email).to_owned(),
            name: (*email).to_owned(),
            password_hash: HASH.get_or_init(|| hash(PASSWORD)).clone(),
            management: *management,
            extra: Map::new(),
        });
    users.collect()
}

pub(crate) fn bootstrap(state: &str) -> BootstrapStatus {
    BootstrapStatus {
        state: state.to_owned(),
        start_time: None,
        end_time: None,
        error_code: None,
        error_details: None,
        node: (state == "completed").then_some(NodeUid(1)),
        software_version: "1.0.0".to_owned(),
        host: host(),
        address: "127.0.1.1".to_owned(),
        ca_fingerprint: None,
        removed: false,
    }
}

pub(crate) fn config(folder: &Path, address: &str) -> NodeConfig {
    NodeConfig {
        install_id: "test".to_owned(),
        address: address.parse().unwrap(),
        install_dir: folder.join("install"),
        config_dir: folder.join("config"),
        var_dir: folder.join("var"),
        socket_dir: folder.join("run"),
        os_user: "mainstay".to_owned(),
        os_group: "mainstay".to_owned(),
        memory_bytes: None,
        ports: Ports::default(),
    }
}
