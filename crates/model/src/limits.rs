//! Bounds. Every input, queue and wait of the platform has one; those that several programs share
//! stand here.

use std::ops::RangeInclusive;
use std::time::Duration;

/// Longest cluster name, in bytes (RFC 1123 as operators of the field know it).
pub const CLUSTER_NAME_MAX: usize = 64;
/// Longest database name, in bytes.
pub const DATABASE_NAME_MAX: usize = 64;
/// Longest user name (e-mail), in bytes.
pub const USER_NAME_MAX: usize = 256;
/// Password length, in bytes.
pub const PASSWORD_LEN: RangeInclusive<usize> = 1..=256;
/// Ports of database endpoints.
pub const ENDPOINT_PORTS: RangeInclusive<u16> = 10_000..=19_999;
/// Ports of engines.
pub const SHARD_PORTS: RangeInclusive<u16> = 20_000..=29_999;
/// Smallest memory limit of a shard, in bytes: an engine needs 1 MiB for itself, and its connections
/// count too.
pub const SHARD_MEMORY_MIN: u64 = 4 * 1024 * 1024;
/// Most primary shards of a database. A change of a database is one transaction of the store, which
/// takes 256 operations: two for a shard, and each primary may get a replica.
pub const SHARDS_COUNT_MAX: u32 = 60;
/// Most nodes in a cluster.
pub const NODES_MAX: usize = 35;
/// Most databases in a cluster.
pub const DATABASES_MAX: usize = 1_000;
/// Most engines on a node.
pub const SHARDS_PER_NODE_MAX: u32 = 100;
/// Most voters of the configuration store; the others are learners.
pub const VOTERS_MAX: usize = 7;
/// Largest body that REST and the local interfaces accept, in bytes.
pub const BODY_MAX: usize = 1024 * 1024;
/// Most events kept.
pub const EVENTS_MAX: usize = 1_000;
/// Most finished operations kept.
pub const OPERATIONS_KEPT: usize = 200;
/// Longest path of a unix socket, in bytes (`sun_path` less its end).
pub const SOCKET_PATH_MAX: usize = 107;
/// Hash slots of a database.
pub const SLOTS: u16 = 16_384;
/// How often a node tells the primary node of itself.
pub const HEARTBEAT_EVERY: Duration = Duration::from_millis(1_000);
/// After how long without a heartbeat a node is shown as down.
pub const HEARTBEAT_LOST: Duration = Duration::from_millis(4_000);
/// How long `rladmin` and `install.sh` wait for a database or a node to become ready.
pub const READY_WAIT: Duration = Duration::from_secs(60);
/// How many automatic failovers of a replica set are remembered.
pub const FAILOVERS_KEPT: usize = 8;
/// Most automatic failovers of a replica set within [`FAILOVERS_WITHIN`]; then it waits, with an alert.
pub const FAILOVERS_MAX: usize = 2;
/// See [`FAILOVERS_MAX`].
pub const FAILOVERS_WITHIN: Duration = Duration::from_secs(60);
/// After how long without a heartbeat the primaries of a node may be replaced, if their replicas have lost
/// them too; with high sensitivity ([`crate::documents::Sensitivity`]). Nobody counts as heard for longer.
pub const NODE_SILENT: Duration = Duration::from_millis(1_500);
/// The same with low sensitivity.
pub const NODE_SILENT_LOW: Duration = Duration::from_millis(4_500);
/// After how long without an answer an engine counts as hanging if it does not compute either, or as busy;
/// with high sensitivity.
pub const ENGINE_STALLED: Duration = Duration::from_secs(5);
/// The same with low sensitivity.
pub const ENGINE_STALLED_LOW: Duration = Duration::from_secs(15);
/// How many questions in a row an engine that hangs must have left without an answer: time alone may have
/// passed while its agent was stopped.
pub const HANG_QUESTIONS: u32 = 3;
/// How many starts in a row must have failed since its files are damaged before those of a replica are set aside.
pub const LOAD_FAILURES: u32 = 3;
/// How often that is done with a replica at most: what is damaged again so soon has another cause.
pub const SET_ASIDE_EVERY: Duration = Duration::from_secs(600);
/// How long the agent of an engine that hangs may take to end it; after that its primary is replaced as if
/// it were not heard. Longer than an agent waits for the end of a process.
pub const KILL_WITHIN: Duration = Duration::from_secs(15);
/// How long a replica may hear nothing from its primary before it counts as having lost it, seconds. A
/// primary pings its replicas every second.
pub const REPLICA_SILENT: i64 = 3;
/// How long a replica must be without its primary, which serves, before it counts as not synced.
pub const UNSYNCED_AFTER: Duration = Duration::from_secs(3);
/// How long a replica must have followed without a break before a role is moved to it by plan.
pub const FOLLOWS_FOR: Duration = Duration::from_secs(2);
/// Longest time since a replica's last acknowledgement that still counts as synced, seconds.
pub const ACK_LAG_MAX: u64 = 3;
/// How long a step of an operation that moves roles or shards may take until the operation pauses.
pub const STEP_WITHIN: Duration = Duration::from_mins(30);
/// Longest and shortest such time that an operator may name, seconds.
pub const STEP_WITHIN_SECONDS: RangeInclusive<u32> = 1..=86_400;
/// Longest and shortest grace time and cool-down of `slave_ha`, seconds.
pub const SLAVE_HA_SECONDS: RangeInclusive<u32> = 0..=30 * 86_400;
/// Highest priority of a database in `slave_ha`.
pub const SLAVE_HA_PRIORITY_MAX: u32 = 1_000;
/// Most databases whose lost replicas are made anew at once.
pub const SLAVE_HA_AT_ONCE: usize = 4;
/// How often it is told that a lost replica cannot be made anew.
pub const SLAVE_HA_TOLD_EVERY: Duration = Duration::from_hours(1);
/// Most operations of an action on a node that an operator may have run at once.
pub const AT_ONCE_MAX: u32 = 100;
/// Most snapshots kept of a node.
pub const NODE_SNAPSHOTS_MAX: usize = 16;
/// How long a node that is being stopped may take to give its primaries away.
pub const DRAIN_WITHIN: Duration = Duration::from_secs(25);
