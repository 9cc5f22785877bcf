//! Persisted pieces of work.

use super::shard::Role;
use crate::error_code::ErrorCode;
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
    /// `enslave_node`: the primaries of a node hand their role to replicas elsewhere.
    EnslaveNode,
    /// `snapshot_restore`: what was on a node when a snapshot was made comes back.
    RestoreSnapshot,
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
            Self::EnslaveNode => "enslave_node",
            Self::RestoreSnapshot => "snapshot_restore",
        }
    }

    /// Whether it brings roles or shards elsewhere: it pauses when a step takes too long. The others only wait for
    /// nodes and engines, and go on by themselves.
    #[must_use]
    pub const fn moves(self) -> bool {
        !matches!(
            self,
            Self::CreateDatabase | Self::UpdateDatabase | Self::DeleteDatabase
        )
    }

    /// Whether it can be aborted: what moves something stops where it is. A change is in force as soon as it is
    /// accepted; only the wait for all that it concerns ends.
    #[must_use]
    pub const fn can_be_given_up(self) -> bool {
        !matches!(self, Self::CreateDatabase | Self::DeleteDatabase)
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
    /// A step took too long, or failed: it goes on when an operator says so.
    Paused,
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
    /// Version of the planner that it needs: an older one leaves it alone. `None`: 1, as before there were
    /// versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planner_version: Option<u32>,
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
    /// Whether its migrations may put two copies of a slot on one node, or in one rack. `None`: a release made
    /// it that did not keep this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub override_policy: Option<bool>,
    /// Whether its migrations make lost replicas anew: those are not waited for.
    #[serde(default)]
    pub slave_ha: bool,
    /// The node that it is about, if it is part of an action on one.
    #[serde(default)]
    pub node: Option<NodeUid>,
    /// The action on a node that it is part of: one operation a database.
    #[serde(default)]
    pub group: Option<OperationUid>,
    /// How many operations of its group may be under way at once; `None`: all.
    #[serde(default)]
    pub at_once: Option<u32>,
    /// How many shards it had to do when it began.
    #[serde(default)]
    pub total: u32,
    /// When its last step was done; `None`: none was yet.
    #[serde(default)]
    pub step_since: Option<Timestamp>,
    /// How long a step may take until it pauses, seconds; `None`:
    /// [`crate::limits::STEP_WITHIN`].
    #[serde(default)]
    pub step_within_seconds: Option<u32>,
    /// What it waits for, in words.
    #[serde(default)]
    pub waiting_on: Option<String>,
    /// Why it was given up, or pauses.
    #[serde(default)]
    pub error: Option<String>,
    /// The code of that, whose remedy says what to do.
    #[serde(default)]
    pub error_code: Option<ErrorCode>,
    /// When it was asked for.
    pub created: Timestamp,
    /// When it ended.
    #[serde(default)]
    pub ended: Option<Timestamp>,
    /// Fields of a newer release.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Operation {
    /// See [`Operation::planner_version`].
    #[must_use]
    pub fn needs_planner(&self) -> u32 {
        self.planner_version.unwrap_or(1)
    }

    /// How far it is, percent.
    #[must_use]
    pub fn progress(&self) -> f64 {
        if self.status == OperationStatus::Completed {
            return 100.0;
        }
        let left = self.shards.len() + self.migrations.len();
        let left = u32::try_from(left).unwrap_or(u32::MAX);
        if self.total == 0 {
            return 0.0;
        }
        100.0 * f64::from(self.total.saturating_sub(left)) / f64::from(self.total)
    }

    /// Whether its step takes longer than it may.
    #[must_use]
    pub fn overdue(&self, now: Timestamp) -> bool {
        let since = self.step_since.unwrap_or(self.created);
        let within = self
            .step_within_seconds
            .map_or(crate::limits::STEP_WITHIN, |seconds| {
                std::time::Duration::from_secs(u64::from(seconds))
            });
        let took = now.duration_since(since);
        !took.is_negative() && took.unsigned_abs() > within
    }
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
    /// The role that the copy is to have in the end, though another one may have it by then. `None`: the one that the shard
    /// has when the copy is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A role that this release adds is stored only where one is wanted, and read again.
    #[test]
    fn a_migration_of_a_primary() {
        let (shard, node) = (ShardUid(7), NodeUid(2));
        for role in [None, Some(Role::Primary)] {
            let migration = Migration {
                shard,
                node,
                copy: None,
                role,
            };
            let stored = serde_json::to_value(&migration).unwrap();
            assert_eq!(stored.get("role").is_some(), role.is_some());
            let read: Migration = serde_json::from_value(stored).unwrap();
            assert_eq!(read, migration);
        }
    }

    /// What release 1.1.0 stored is read, and what is not said in it is not made up when it is stored again.
    #[test]
    fn an_operation_of_the_last_release() {
        let stored = serde_json::json!({
            "schema": 1, "uid": "0198c0de", "kind": "migrate_shards", "database": 3, "status": "active",
            "shards": [7], "migrations": [{"shard": 7, "node": 2, "copy": null}],
            "moved": [{"from": 5, "to": 9, "epoch": 4, "held_us": 812}],
            "immediate": false, "slave_ha": false, "node": null, "group": null, "at_once": null,
            "total": 2, "step_since": "2026-01-01T00:00:00Z", "step_within_seconds": 60,
            "waiting_on": "redis:9 gets all data from its primary", "error": null, "error_code": null,
            "created": "2026-01-01T00:00:00Z", "ended": null, "of_a_newer_release": {"kept": true},
        });
        let read: Operation = serde_json::from_value(stored.clone()).unwrap();
        assert_eq!((read.planner_version, read.override_policy), (None, None));
        assert_eq!(read.needs_planner(), 1);
        assert_eq!(serde_json::to_value(&read).unwrap(), stored);
    }
}
