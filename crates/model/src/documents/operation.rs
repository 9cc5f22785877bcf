//! Persisted pieces of work.

use crate::ids::{DatabaseUid, Epoch, NodeUid, OperationUid, ShardUid};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What an operation does.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationKind {
    /// `SMCreateBDB`.
    CreateDatabase,
    /// `SMUpdateBDB`.
    UpdateDatabase,
    /// `SMDeleteBDB`.
    DeleteDatabase,
    /// `SMFailoverShards`: primaries hand their role to a replica, one after the other.
    FailoverShards,
    /// `SMMigrateShards`: shards are brought to other nodes, one after the other.
    MigrateShards,
    /// `maintenance_on`: a node is emptied.
    MaintenanceOn,
    /// `maintenance_off`: what was on a node comes back.
    MaintenanceOff,
    /// `remove`: a node is emptied for good.
    RemoveNode,
}

impl OperationKind {
    /// The operator's name of it.
    #[must_use]
    pub const fn operator_word(self) -> &'static str {
        match self {
            Self::CreateDatabase => "SMCreateBDB",
            Self::UpdateDatabase => "SMUpdateBDB",
            Self::DeleteDatabase => "SMDeleteBDB",
            Self::FailoverShards => "SMFailoverShards",
            Self::MigrateShards => "SMMigrateShards",
            Self::MaintenanceOn => "maintenance_on",
            Self::MaintenanceOff => "maintenance_off",
            Self::RemoveNode => "remove",
        }
    }
}

/// Where an operation is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum OperationStatus {
    /// Not started.
    Pending,
    /// Under way.
    Active,
    /// Done.
    Completed,
    /// Given up.
    Failed,
}

/// A persisted piece of work on a database.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Operation {
    /// Schema of this document: 1.
    pub schema: u32,
    /// Its id.
    pub uid: OperationUid,
    /// What it does.
    pub kind: OperationKind,
    /// The database that it works on.
    pub database: DatabaseUid,
    /// Where it is.
    pub status: OperationStatus,
    /// Shards that it still has to do.
    #[serde(default)]
    pub shards: Vec<ShardUid>,
    /// Shards that it still has to bring to another node, one after the other.
    #[serde(default)]
    pub migrations: Vec<Migration>,
    /// What it has done, oldest first.
    #[serde(default)]
    pub moved: Vec<MoveReport>,
    /// Whether replicas need not have followed for a while first (`immediate`); they must be recorded
    /// as synced all the same.
    #[serde(default)]
    pub immediate: bool,
    /// What it waits for, in words.
    #[serde(default)]
    pub waiting_on: Option<String>,
    /// Why it was given up.
    #[serde(default)]
    pub error: Option<String>,
    /// When it was asked for.
    pub created: Timestamp,
    /// When it ended.
    #[serde(default)]
    pub ended: Option<Timestamp>,
    /// Fields of a newer release.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// A shard that is brought to another node: a copy is made there and synced, takes the shard's place, and
/// the shard is removed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Migration {
    /// The shard.
    pub shard: ShardUid,
    /// The node.
    pub node: NodeUid,
    /// The copy, once it was decided.
    #[serde(default)]
    pub copy: Option<ShardUid>,
}

/// A move of a role that an operation has done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MoveReport {
    /// The old primary.
    pub from: ShardUid,
    /// The new one.
    pub to: ShardUid,
    /// Its epoch.
    pub epoch: Epoch,
    /// How long proxies held commands, the longest of them; µs.
    pub held_us: u64,
}
