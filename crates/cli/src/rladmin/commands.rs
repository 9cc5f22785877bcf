//! The commands.

mod node;
mod slave_ha;
mod upgrade;
mod verify;

use super::grammar::{Command, Field, Kind, Operand, Verb};
use model::{limits, tuning};

const PROXY_POLICIES: Kind = Kind::Choice(&["single", "all-master-shards", "all-nodes"]);
const PLACEMENTS: Kind = Kind::Choice(&["dense", "sparse"]);
const SWITCH: Kind = Kind::Choice(&["enabled", "disabled"]);
const PERSISTENCE: Field = Field::one(
    "persistence",
    "",
    Kind::Choice(super::database::PERSISTENCE),
    "What survives a restart; aof syncs each second, snapshot is hourly.",
);
const EVICTION: Kind = Kind::Choice(&[
    "noeviction",
    "allkeys-lru",
    "allkeys-lfu",
    "allkeys-random",
    "volatile-lru",
    "volatile-lfu",
    "volatile-random",
    "volatile-ttl",
]);
/// Words after `extra`.
pub const EXTRAS: &[&str] = &[
    "all",
    "backups",
    "frag",
    "nodestats",
    "shardstats",
    "rack_id",
    "redis_version",
    "sha",
    "state_machine",
    "traffic",
    "traffic_manually_disabled",
    "watchdog",
    "compatible_redis_version",
    "min_redis_version",
    "module_id",
];
const THREADS: Kind = Kind::Number(0, *tuning::THREADS.end() as u64);
const MAX_CONNECTIONS: Kind = Kind::Number(0, u32::MAX as u64);

const DATABASE: Operand = Operand {
    name: "db:id|name",
    kind: Kind::Database,
    required: true,
    help: "The database.",
};

const PASSWORD_NOTE: &str = "Left out, the password is asked for. `password -` reads it from the \
    first line of standard input, so that it stands neither in the process list nor in a history.";

/// Every command, in the order of help.
pub const COMMANDS: &[Command] = &[
    Command {
        words: &["cluster", "create"],
        verb: Verb::ClusterCreate,
        operand: None,
        fields: &[
            Field::one(
                "name",
                "fqdn",
                Kind::ClusterName,
                "The cluster's name, for its life.",
            )
            .required(),
            Field::one(
                "username",
                "email",
                Kind::Email,
                "E-mail of the first admin.",
            )
            .required(),
            Field::one(
                "password",
                "password",
                Kind::Password,
                "The admin's password; '-': stdin.",
            ),
            Field::one("rack_id", "rack", Kind::Rack, "Rack of this node."),
            Field::one(
                "addr",
                "ip",
                Kind::Address,
                "This node's address, if only to confirm it.",
            ),
            Field::many(
                "external_addr",
                "ip",
                Kind::Address,
                "Its addresses as seen from outside.",
            ),
        ],
        some_field: false,
        summary: "Makes this node the first of a new cluster.",
        notes: &[
            "Prints the fingerprint of the cluster's CA: other nodes need it to join.",
            PASSWORD_NOTE,
        ],
    },
    Command {
        words: &["cluster", "join"],
        verb: Verb::ClusterJoin,
        operand: None,
        fields: &[
            Field::many(
                "nodes",
                "ip",
                Kind::AddressOfNode,
                "Nodes of the cluster, tried in order.",
            )
            .required(),
            Field::one("username", "email", Kind::Email, "E-mail of an admin.").required(),
            Field::one(
                "password",
                "password",
                Kind::Password,
                "The admin's password; '-': stdin.",
            ),
            Field::one(
                "ca_fingerprint",
                "sha256",
                Kind::Fingerprint,
                "Fingerprint of the cluster's CA.",
            ),
            Field::one(
                "trusted_ca",
                "file",
                Kind::Text,
                "The CA's certificate (PEM) instead.",
            ),
            Field::one("rack_id", "rack", Kind::Rack, "Rack of this node."),
            Field::one(
                "addr",
                "ip",
                Kind::Address,
                "This node's address, if only to confirm it.",
            ),
            Field::many(
                "external_addr",
                "ip",
                Kind::Address,
                "Its addresses as seen from outside.",
            ),
        ],
        some_field: false,
        summary: "Makes this node a member of a cluster.",
        notes: &[
            "The password leaves this node only after the other node proved that its certificate \
             comes from the expected CA. Without ca_fingerprint and trusted_ca the fingerprint that \
             was found is shown and asked about; -y does not answer that question. \
             `rladmin info cluster` on a member shows it.",
            PASSWORD_NOTE,
        ],
    },
    Command {
        words: &["cluster", "config"],
        verb: Verb::ClusterConfig,
        operand: None,
        fields: &[Field::one(
            "cm_session_timeout_minutes",
            "minutes",
            Kind::Number(0, 1_440),
            "Idle time after which the console signs out; 0: never.",
        )],
        some_field: true,
        summary: "Changes settings of the cluster's services.",
        notes: &[],
    },
    Command {
        words: &["cluster", "master"],
        verb: Verb::ClusterMaster,
        operand: None,
        fields: &[Field::one(
            "set",
            "node",
            Kind::Node,
            "Makes this node the primary node.",
        )],
        some_field: false,
        summary: "Shows the primary node, or makes another node it.",
        notes: &[],
    },
    Command {
        words: &["cluster", "running_actions"],
        verb: Verb::ClusterRunningActions,
        operand: None,
        fields: &[],
        some_field: false,
        summary: "Lists what is under way.",
        notes: &[],
    },
    upgrade::STATUS,
    upgrade::PLAN,
    upgrade::PATHS,
    upgrade::FINALIZE,
    upgrade::CONFIG,
    upgrade::START,
    upgrade::WATCH,
    upgrade::PAUSE,
    upgrade::RESUME,
    upgrade::ROLLBACK,
    upgrade::REPORT,
    Command {
        words: &["create", "db"],
        verb: Verb::CreateDatabase,
        operand: Some(Operand {
            name: "name",
            kind: Kind::DatabaseName,
            required: true,
            help: "Its name: 1-64 letters, digits, '-', '_', '.'.",
        }),
        fields: &[
            Field::one(
                "memory_size",
                "size",
                Kind::Size,
                "Its memory limit, such as 512MB.",
            )
            .required(),
            Field::one(
                "port",
                "port",
                Kind::Number(
                    *limits::ENDPOINT_PORTS.start() as u64,
                    *limits::ENDPOINT_PORTS.end() as u64,
                ),
                "Port of its endpoint; left out: the next free one.",
            ),
            Field::one(
                "redis_version",
                "version",
                Kind::Text,
                "Its engine: 9.1, valkey-9.1 or redis-7.0; left out: the cluster's default.",
            ),
            PERSISTENCE,
            Field::one(
                "eviction_policy",
                "policy",
                EVICTION,
                "What happens when it is full.",
            ),
            Field::one(
                "proxy_policy",
                "",
                PROXY_POLICIES,
                "Which proxies serve it.",
            ),
            Field::one(
                "password",
                "password",
                Kind::Password,
                "Password of its clients; '-': stdin.",
            ),
            Field::one(
                "max_connections",
                "number",
                MAX_CONNECTIONS,
                "Most clients per proxy; 0: no limit.",
            ),
            Field::one(
                "shards_count",
                "number",
                Kind::Number(1, limits::SHARDS_COUNT_MAX as u64),
                "Number of primary shards, for its life; left out: 1.",
            ),
            Field::one(
                "replication",
                "",
                SWITCH,
                "Whether each primary shard has a replica.",
            ),
            Field::one(
                "rack_aware",
                "",
                SWITCH,
                "Whether a replica is in another rack; left out: as the cluster.",
            ),
            Field::one(
                "shards_placement",
                "",
                PLACEMENTS,
                "How its shards are spread; left out: the cluster's default.",
            ),
            Field::one(
                "uid",
                "number",
                Kind::Number(1, u32::MAX as u64),
                "Its id, if you insist.",
            ),
        ],
        some_field: false,
        summary: "Creates a database and waits until it serves.",
        notes: &[
            "Prints its endpoint, and an address that answers now.",
            "The memory limit is that of all shards together, in equal shares. dense: on as few nodes \
             as hold the shards; sparse: in turn over all nodes with room.",
        ],
    },
    Command {
        words: &["delete", "db"],
        verb: Verb::DeleteDatabase,
        operand: Some(DATABASE),
        fields: &[],
        some_field: false,
        summary: "Deletes a database and all of its data.",
        notes: &["Asks first; -y answers yes."],
    },
    upgrade::EXPLAIN,
    Command {
        words: &["failover"],
        verb: Verb::Failover,
        operand: None,
        fields: &[
            Field::one("db", "db", Kind::Database, "The database of the shards."),
            Field::many("shard", "shard", Kind::Shard, "The masters.").required(),
            Field::flag(
                "immediate",
                "Does not wait until a replica has followed for a while; it must have all data in any case.",
            ),
        ],
        some_field: false,
        summary: "Masters hand their role to a replica, without an error to clients.",
        notes: &["One after the other. Prints for each how long commands were held."],
    },
    Command {
        words: &["info", "cluster"],
        verb: Verb::InfoCluster,
        operand: None,
        fields: &[],
        some_field: false,
        summary: "Shows the cluster's settings.",
        notes: &[],
    },
    Command {
        words: &["info", "db"],
        verb: Verb::InfoDatabase,
        operand: Some(Operand {
            required: false,
            ..DATABASE
        }),
        fields: &[],
        some_field: false,
        summary: "Shows the settings of a database, or of all.",
        notes: &[],
    },
    Command {
        words: &["info", "node"],
        verb: Verb::InfoNode,
        operand: Some(Operand {
            name: "node",
            kind: Kind::Node,
            required: false,
            help: "The node; left out: all.",
        }),
        fields: &[],
        some_field: false,
        summary: "Shows facts of a node, or of all.",
        notes: &[],
    },
    Command {
        words: &["info", "proxy"],
        verb: Verb::InfoProxy,
        operand: Some(Operand {
            name: "node|all",
            kind: Kind::NodeOrAll,
            required: true,
            help: "Whose proxy.",
        }),
        fields: &[],
        some_field: false,
        summary: "Shows facts of a node's proxy, or of all.",
        notes: &[],
    },
    Command {
        words: &["migrate"],
        verb: Verb::Migrate,
        operand: None,
        fields: &[
            Field::many("shard", "shard", Kind::Shard, "These shards."),
            Field::one(
                "db",
                "db",
                Kind::Database,
                "The shards of a database; with shard: whose they are.",
            ),
            Field::one("node", "node", Kind::Node, "The shards on a node."),
            Field::flag("all_shards", "With db or node: all of them."),
            Field::flag("all_master_shards", "With db or node: its masters."),
            Field::flag("all_slave_shards", "With db or node: its replicas."),
            Field::one("target_node", "node", Kind::Node, "Where to.").required(),
            Field::flag("preserve_roles", "Roles stay in any case; accepted."),
            Field::flag(
                "override_policy",
                "The node may have another copy of their slots.",
            ),
        ],
        some_field: false,
        summary: "Brings shards to another node, without an error to clients.",
        notes: &[
            "A copy is made there and synced, takes the shard's place, and the shard is removed; of each \
             database one after the other.",
        ],
    },
    node::MAINTENANCE_ON,
    node::MAINTENANCE_OFF,
    node::ENSLAVE,
    node::RACK,
    node::REMOVE,
    node::SNAPSHOT_CREATE,
    node::SNAPSHOT_DELETE,
    node::SNAPSHOT_RESTORE,
    node::SNAPSHOT_LIST,
    node::RETRY,
    node::ABORT,
    Command {
        words: &["status"],
        verb: Verb::Status,
        operand: Some(Operand {
            name: "",
            kind: Kind::Choice(&["nodes", "databases", "endpoints", "shards", "modules"]),
            required: false,
            help: "Only this section.",
        }),
        fields: &[
            Field::one("node", "node", Kind::Node, "Only what is on this node."),
            Field::one(
                "db",
                "db:id|name",
                Kind::Database,
                "Only what belongs to this database.",
            ),
            Field::many(
                "extra",
                "columns",
                Kind::Choice(EXTRAS),
                "More columns; all: all of them.",
            ),
            Field::many(
                "sort",
                "COLUMN",
                Kind::Text,
                "Sorts by these columns, the first counts most.",
            ),
            Field::flag("issues_only", "Hides what is well."),
        ],
        some_field: false,
        summary: "Shows cluster, nodes, databases, endpoints and shards.",
        notes: &[
            "'*' marks the node that you are on. Without a quorum the first line says so, and what \
             is shown is what this node knew last.",
            "extra: all, backups, frag, nodestats, rack_id, redis_version, sha, state_machine, \
             traffic_manually_disabled, watchdog. Not in all: shardstats (keys, connections, engine and \
             process of each shard), traffic (what clients did in the last second).",
        ],
    },
    Command {
        words: &["tune", "cluster"],
        verb: Verb::TuneCluster,
        operand: None,
        fields: &[
            Field::one(
                "default_redis_version",
                "x.y",
                Kind::Text,
                "Engine of new databases; 'newest': the newest that every node carries.",
            ),
            Field::one(
                "default_non_sharded_proxy_policy",
                "",
                PROXY_POLICIES,
                "Proxy policy of new databases with one shard.",
            ),
            Field::one(
                "default_sharded_proxy_policy",
                "",
                PROXY_POLICIES,
                "Proxy policy of new databases with several shards.",
            ),
            Field::one(
                "default_shards_placement",
                "",
                PLACEMENTS,
                "Placement of new databases.",
            ),
            Field::one(
                "rack_aware",
                "",
                SWITCH,
                "Whether databases have replicas in other racks; never off again.",
            ),
            Field::one(
                "failure_detection_sensitivity",
                "",
                Kind::Choice(&["high", "low"]),
                "How fast failures are judged; low: where the network stutters.",
            ),
            slave_ha::ON,
            slave_ha::GRACE,
            slave_ha::COOL_DOWN,
            slave_ha::DATABASE_COOL_DOWN,
        ],
        some_field: true,
        summary: "Changes the cluster's policy.",
        notes: &[],
    },
    Command {
        words: &["tune", "db"],
        verb: Verb::TuneDatabase,
        operand: Some(DATABASE),
        fields: &[
            Field::one(
                "replication",
                "",
                SWITCH,
                "Whether each primary shard has a replica; memory_size covers both.",
            ),
            Field::one(
                "rack_aware",
                "",
                SWITCH,
                "Whether a replica is in another rack.",
            ),
            slave_ha::OWN,
            slave_ha::PRIORITY,
            Field::one(
                "memory_size",
                "size",
                Kind::Size,
                "Its memory limit, such as 512MB.",
            ),
            Field::one(
                "eviction_policy",
                "policy",
                EVICTION,
                "What happens when it is full.",
            ),
            Field::one(
                "max_connections",
                "number",
                MAX_CONNECTIONS,
                "Most clients per proxy; 0: no limit.",
            ),
            Field::one(
                "proxy_policy",
                "",
                PROXY_POLICIES,
                "Which proxies serve it.",
            ),
            PERSISTENCE,
            Field::one(
                "password",
                "password",
                Kind::Password,
                "Password of its clients; '-': stdin.",
            ),
            Field::flag("no_password", "Takes the password away."),
            Field::one(
                "max_client_pipeline",
                "number",
                Kind::Number(0, *tuning::CLIENT_PIPELINE.end() as u64),
                "Most commands of one client without a reply; 0: no limit.",
            ),
            Field::one(
                "max_commands_per_second",
                "number",
                Kind::Number(0, *tuning::COMMANDS_PER_SECOND.end()),
                "Most commands a second, all proxies together; 0: no limit.",
            ),
            Field::one(
                "max_bytes_per_second",
                "size",
                Kind::Size,
                "Most bytes a second, commands and replies; 0: no limit.",
            ),
            Field::one(
                "client_buffer",
                "hard:soft:seconds",
                Kind::ClientBuffer,
                "What is kept for a client that reads slowly.",
            ),
            Field::one(
                "slowlog_log_slower_than",
                "microseconds",
                Kind::Number(0, *tuning::SLOWER_THAN_US.end()),
                "From which time on a command is slow; 0: every command.",
            ),
            Field::one(
                "slowlog_max_len",
                "number",
                Kind::Number(0, *tuning::SLOWLOG_LEN.end() as u64),
                "Slow commands that each proxy keeps.",
            ),
            Field::one(
                "notify_keyspace_events",
                "flags",
                Kind::KeyspaceEvents,
                "Keyspace events, such as KEA; 'none': none.",
            ),
        ],
        some_field: true,
        summary: "Changes a database while it serves.",
        notes: &[
            "No client loses its connection. Above a rate the proxies read commands later: nothing is \
             refused. A rate is shared evenly among the proxies that serve the database.",
            "client_buffer: above 'soft' bytes of unread replies a client's commands are not read, above \
             'hard' its replies stay with the shard. If others wait behind them, up to 64 MiB more are kept, \
             and then it is closed within a second. One that takes nothing is closed after six times so many \
             seconds. 16MB:1MB:10 unless changed; one size alone is 'hard', 'soft' is then a sixteenth.",
        ],
    },
    Command {
        words: &["tune", "proxy"],
        verb: Verb::TuneProxy,
        operand: Some(Operand {
            name: "node|all",
            kind: Kind::NodeOrAll,
            required: true,
            help: "Whose proxy.",
        }),
        fields: &[
            Field::one(
                "mode",
                "",
                Kind::Choice(&["dynamic", "static"]),
                "Whether the number of threads follows the load.",
            ),
            Field::one(
                "threads",
                "number",
                THREADS,
                "Worker threads, in dynamic mode the least; 0: half of the cores.",
            ),
            Field::one(
                "max_threads",
                "number",
                THREADS,
                "Most worker threads in dynamic mode; 0: three quarters of the cores.",
            ),
            Field::one(
                "scale_threshold",
                "percent",
                Kind::Number(
                    *tuning::SCALE_THRESHOLD.start() as u64,
                    *tuning::SCALE_THRESHOLD.end() as u64,
                ),
                "How busy threads must be before one more is started …",
            ),
            Field::one(
                "scale_duration",
                "seconds",
                Kind::Number(
                    *tuning::SCALE_DURATION.start() as u64,
                    *tuning::SCALE_DURATION.end() as u64,
                ),
                "… and for how long.",
            ),
        ],
        some_field: true,
        summary: "Changes a node's proxy, or all, while they serve.",
        notes: &[
            "Clients stay connected. A thread more gets clients of the others; one less gives its \
             clients to the others and ends when it has none.",
        ],
    },
    verify::BALANCE,
    verify::RACK_AWARE,
    Command {
        words: &["help"],
        verb: Verb::Help,
        operand: None,
        fields: &[],
        some_field: false,
        summary: "Lists the commands; `help <command>` explains one.",
        notes: &[],
    },
    Command {
        words: &["exit"],
        verb: Verb::Exit,
        operand: None,
        fields: &[],
        some_field: false,
        summary: "Leaves the shell (Ctrl-D too).",
        notes: &[],
    },
];
