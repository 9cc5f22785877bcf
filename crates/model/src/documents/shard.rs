//! One engine process of a database.

use super::slave_ha::Lost;
use crate::ids::{DatabaseUid, Epoch, Generation, NodeUid, OperationUid, ShardUid};
use crate::release::EngineId;
use crate::replication::SyncedRecord;
use crate::secret::Secret;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What a shard is in its replica set.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Takes writes. Printed `master`.
    Primary,
    /// Follows the primary. Printed `slave`.
    Replica,
}

impl Role {
    /// The operator's word for it.
    #[must_use]
    pub const fn operator_word(self) -> &'static str {
        match self {
            Self::Primary => "master",
            Self::Replica => "slave",
        }
    }
}

/// A range of hash slots, both ends included.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct SlotRange {
    /// First slot.
    pub first: u16,
    /// Last slot.
    pub last: u16,
}

/// One engine process of a database.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shard {
    /// Schema of this document: 1.
    pub schema: u32,
    /// Its id.
    pub uid: ShardUid,
    /// Its database.
    pub database: DatabaseUid,
    /// Its node.
    pub node: NodeUid,
    /// Its port on that node's address.
    pub port: u16,
    /// What it is.
    pub role: Role,
    /// Slots of its replica set.
    pub slots: SlotRange,
    /// Epoch of its replica set: raised whenever the primary changes or restarts.
    pub epoch: Epoch,
    /// Version of the wanted process: raised whenever it must be started anew.
    pub generation: Generation,
    /// Engine of this process.
    pub engine: EngineId,
    /// Memory limit of this process, bytes.
    pub memory_bytes: u64,
    /// Run id of the process that holds the role of `epoch`, once the agent confirmed it. Another
    /// run id means that the engine restarted and needs a new epoch.
    #[serde(default)]
    pub run_id: Option<String>,
    /// Epoch in which its agent has confirmed the role; proxies use the shard only when it is
    /// `epoch`.
    #[serde(default)]
    pub serving: Option<Epoch>,
    /// What makes it promotable: of a replica, or of a new primary whose promotion is not confirmed
    /// yet.
    #[serde(default)]
    pub synced: Option<SyncedRecord>,
    /// When the role of `epoch` was decided; `None`: at creation.
    #[serde(default)]
    pub role_since: Option<Timestamp>,
    /// Of a primary that is lost and not replaced yet, and of one named by a failover until it serves: when it, or its
    /// predecessor, was last known to take writes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_since: Option<Timestamp>,
    /// Whether nobody knew when that was: it is when it was found out then, and may have been long before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lost_before: bool,
    /// The last automatic failovers of its replica set, oldest first, at most
    /// [`crate::limits::FAILOVERS_KEPT`].
    #[serde(default)]
    pub failovers: Vec<Timestamp>,
    /// Why nobody has the role of its primary, if something keeps it: an alert.
    #[serde(default)]
    pub trouble: Option<String>,
    /// Of an engine that does not serve though its process is there: an alert, until it answers again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stalled: Option<Stalled>,
    /// Of a replica: when its engine was ended lately because it hung, oldest first, at most
    /// [`crate::limits::FAILOVERS_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ended: Vec<Timestamp>,
    /// Of a replica: when it was decided last that its files, which cannot be loaded, are set aside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_aside: Option<Timestamp>,
    /// Of a primary: the move of its role that was begun, until it is known how it ended.
    #[serde(default)]
    pub moving: Option<RoleMove>,
    /// What a failover of a primary that is not heard keeps it from.
    #[serde(default)]
    pub fence: Option<Fence>,
    /// The operation that removes it; it is no copy any more.
    #[serde(default)]
    pub removed_by: Option<OperationUid>,
    /// Of a replica: since when it has been lost, where such are made anew (`slave_ha`).
    #[serde(default)]
    pub lost: Option<Lost>,
    /// Passwords of the users inside the engine; `repl` and `proxy` are those of its replica set.
    pub users: EngineUsers,
    /// Fields of a newer release.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Shard {
    /// Whether it has its role: a primary whose agent confirmed that of this epoch.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        self.role == Role::Primary && self.serving == Some(self.epoch)
    }

    /// Whether proxies may use it.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.is_serving() && !self.is_withheld()
    }

    /// Whether it is a primary that proxies may not use because it is not heard and may be replaced.
    #[must_use]
    pub const fn is_withheld(&self) -> bool {
        matches!(self.fence, Some(Fence::Withheld { .. }))
    }

    /// The user that proxies use in this epoch.
    #[must_use]
    pub fn proxy_user(&self) -> String {
        proxy_user(self.epoch)
    }
}

/// See [`Shard::stalled`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stalled {
    /// Since when, as far as can be told.
    pub since: Timestamp,
    /// Whether it hangs, so that it may be ended; otherwise it is busy, and is left alone.
    pub hangs: bool,
    /// What its agent saw, in words.
    pub reason: String,
}

/// See [`Shard::fence`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fence", rename_all = "snake_case")]
pub enum Fence {
    /// Of a primary that is not heard: no proxy may use it.
    Withheld {
        /// Since when.
        since: Timestamp,
    },
    /// Of a new primary in the place of one that is not heard: its agent waits until the promises of its
    /// engine are over. See [`crate::lease`].
    Promises,
}

/// The user by which a proxy asks the engine of a copy for its promise: one of an epoch and a list of
/// copies, so that who knows another list gets none. See [`crate::lease`].
#[must_use]
pub fn keeper_user(epoch: Epoch, copies: impl IntoIterator<Item = ShardUid>) -> String {
    let mut copies: Vec<ShardUid> = copies.into_iter().collect();
    copies.sort_unstable();
    let copies: Vec<String> = copies.iter().map(ToString::to_string).collect();
    format!("{KEEPER}{epoch}.{}", copies.join("-"))
}

/// How the names of [`keeper_user`] begin.
pub const KEEPER: &str = "keeper@";

/// A planned move of a primary's role that was begun: stored before the first proxy is gated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoleMove {
    /// On whose behalf.
    pub operation: OperationUid,
    /// The replica that is to become primary.
    pub target: ShardUid,
    /// Its process.
    pub target_run_id: String,
    /// The epoch in which it would be primary.
    pub epoch: Epoch,
    /// When it was begun.
    pub begun: Timestamp,
}

/// Name of the proxies' user of one epoch.
#[must_use]
pub fn proxy_user(epoch: Epoch) -> String {
    format!("proxy@e{epoch}")
}

/// ACL rules of that user: what clients may do, which is what is neither `@admin` nor `@dangerous` and
/// a little more; the same words in every engine. What would break the platform (roles, shutdown, saving, managed settings, users) is not
/// among them; the proxy answers those itself or refuses them by name.
pub const PROXY_RIGHTS: &[&str] = &[
    "~*",
    "&*",
    "+@all",
    "-@admin",
    "-@dangerous",
    "+flushall",
    "+flushdb",
    "+info",
    "+keys",
    "+monitor",
    "+restore",
    "+role",
    "+sort",
    "+swapdb",
    "+config|get",
    "+latency|history",
    "+latency|latest",
    "+latency|reset",
    "+slowlog|get",
    "+slowlog|len",
    "+slowlog|reset",
    "+client|caching",
    "+client|getname",
    "+client|getredir",
    "+client|id",
    "+client|info",
    "+client|kill",
    "+client|list",
    "+client|reply",
    "+client|setname",
    "+client|tracking",
    "+client|trackinginfo",
    "+client|unblock",
];

/// Passwords of the users inside an engine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EngineUsers {
    /// Of `cnm`, the agent's user.
    pub cnm: Secret,
    /// Of `repl`, the replication user.
    pub repl: Secret,
    /// Of `proxy@e<epoch>`.
    pub proxy: Secret,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A document as 1.1.0 stores it, which knows nothing of engines that stall.
    #[test]
    fn a_shard_of_the_last_release_reads_and_is_written_back_the_same() {
        let stored = json!({
            "schema": 1, "uid": 1, "database": 1, "node": 1, "port": 20000, "role": "primary",
            "slots": { "first": 0, "last": 16383 }, "epoch": 2, "generation": 1,
            "engine": "valkey-9.1.2", "memory_bytes": 1, "run_id": "r", "serving": 2,
            "synced": null, "role_since": null, "failovers": [], "trouble": null,
            "moving": null, "fence": { "fence": "withheld", "since": "2026-01-01T00:00:00Z" },
            "removed_by": null, "lost": null,
            "users": { "cnm": "c", "repl": "r", "proxy": "p" }, "of_a_newer_one": true
        });
        let mut shard: Shard = serde_json::from_value(stored.clone()).unwrap();
        assert_eq!((&shard.stalled, shard.ended.len()), (&None, 0));
        assert_eq!(json!(shard), stored);
        shard.ended = vec![Timestamp::UNIX_EPOCH];
        shard.stalled = Some(Stalled {
            since: Timestamp::UNIX_EPOCH,
            hangs: true,
            reason: "it is stopped".into(),
        });
        let read: Shard = serde_json::from_value(json!(shard)).unwrap();
        assert_eq!(read, shard);
    }
}
