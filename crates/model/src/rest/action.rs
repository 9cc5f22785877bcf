//! Actions: what is under way, on a database or a node.

use super::Moved;
use crate::documents::OperationStatus;
use crate::error_code::ErrorCode;
use crate::ids::{DatabaseUid, NodeUid, OperationUid};
use serde::{Deserialize, Serialize};

object! {
    /// What goes with an action on a node. Fields that an action does not know are refused.
    #[serde(deny_unknown_fields, default)]
    pub struct NodeActionRequest {
        /// `maintenance_on`: replicas stay on the node.
        pub keep_slave_shards: Option<bool>,
        /// `maintenance_on`: `false` is as `keep_slave_shards`.
        pub evict_ha_replica: Option<bool>,
        /// `maintenance_on`: databases whose replicas go all the same.
        pub evict_dbs: Option<Vec<DatabaseUid>>,
        /// `maintenance_on`: what is there now replaces the snapshot of an earlier time.
        pub overwrite_snapshot: Option<bool>,
        /// `maintenance_on`, `enslave_node`: the node gives the part of the primary node away.
        pub demote_node: Option<bool>,
        /// `maintenance_off`: shards stay where they are.
        pub skip_shards_restore: Option<bool>,
        /// `maintenance_off`: this snapshot comes back, not the one of `maintenance_on`.
        pub snapshot_name: Option<String>,
        /// How many databases are worked on at once; absent: all.
        pub max_concurrent_actions: Option<u32>,
        /// How long a step may take until the action pauses, seconds.
        pub retry_timeout_seconds: Option<u32>,
    }
}

object! {
    /// How fast a node's snapshot is restored.
    #[serde(deny_unknown_fields, default)]
    pub struct PaceRequest {
        /// How many databases are worked on at once; absent: all.
        pub max_concurrent_actions: Option<u32>,
        /// How long a step may take until the action pauses, seconds.
        pub retry_timeout_seconds: Option<u32>,
    }
}

object! {
    /// What was begun: an action on a node, or operations on databases.
    pub struct ActionsStarted {
        /// The action, or the first operation.
        pub action_uid: Option<OperationUid>,
        /// All operations, one a database.
        pub action_uids: Vec<OperationUid>,
    }
}

object! {
    /// Something in `/v1/actions`: an action on a node (under `actions`) or an operation on a database
    /// (under `state-machines`).
    pub struct StateMachine {
        /// Its id.
        pub action_uid: String,
        /// `bdb:1` or `node:1`.
        pub object_name: String,
        /// Where it is.
        pub status: Option<OperationStatus>,
        /// `SMCreateBDB`, `SMUpdateBDB`, `SMDeleteBDB`, `maintenance_on`, ….
        pub name: String,
        /// What it waits for.
        pub state: String,
        /// Why it was given up, or pauses.
        pub error: Option<String>,
        /// Ours: the code of that.
        #[serde(default)]
        pub error_code: Option<ErrorCode>,
        /// Ours: what to do about it.
        #[serde(default)]
        pub remedy: Option<String>,
        /// Percent.
        pub progress: f64,
        /// The node of an action.
        #[serde(default)]
        pub node_uid: Option<NodeUid>,
        /// Ours: the action that an operation is part of.
        #[serde(default)]
        pub task_id: Option<OperationUid>,
        /// Ours: when it was asked for, RFC 3339.
        pub creation_time: String,
        /// Ours: roles that it has moved.
        #[serde(default)]
        pub moved: Vec<Moved>,
    }
}

object! {
    /// `GET /v1/actions`.
    pub struct Actions {
        /// Actions on nodes.
        pub actions: Vec<StateMachine>,
        /// Operations on databases.
        #[serde(rename = "state-machines")]
        pub state_machines: Vec<StateMachine>,
    }
}

object! {
    /// A snapshot of what was on a node.
    pub struct NodeSnapshotInfo {
        /// Its name.
        pub name: String,
        /// Its node.
        pub node_uid: NodeUid,
        /// When it was made, RFC 3339.
        pub created_time: String,
        /// Ours: what was on the node.
        #[serde(default)]
        pub shards: Vec<SnapshotShardInfo>,
    }
}

object! {
    /// A shard that was on a node.
    pub struct SnapshotShardInfo {
        /// Its database.
        pub bdb_uid: DatabaseUid,
        /// Its slots, `0-16383`.
        pub assigned_slots: String,
        /// `master` or `slave`.
        pub role: String,
    }
}
