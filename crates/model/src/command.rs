//! What the controller on the primary node orders an agent to do. Every order carries a generation
//! or an epoch; an agent refuses what is older than what it knows.

use crate::documents::{EngineUsers, EvictionPolicy, Persistence};
use crate::ids::{DatabaseUid, Epoch, Generation, OperationUid, ShardUid};
use crate::release::EngineId;
use crate::replication::{HandOverTarget, PrimaryAddress, SyncedRecord};
use crate::secret::Secret;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// An order to one node's agent. All are idempotent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum AgentCommand {
    /// See that the engine of this generation runs, without a role if it must be started.
    EnsureEngine(EngineSpec),
    /// Make the running process the primary of an epoch: users of that epoch, `REPLICAOF NO ONE`.
    MakePrimary {
        /// Which.
        shard: ShardUid,
        /// Generation that it was started from.
        generation: Generation,
        /// The process that is meant; another one refuses.
        run_id: String,
        /// Epoch of the role.
        epoch: Epoch,
        /// Passwords of the users of that epoch.
        users: EngineUsers,
    },
    /// Change limits and policies of the running process.
    Configure {
        /// Which.
        shard: ShardUid,
        /// Generation that it was started from.
        generation: Generation,
        /// The new settings.
        settings: EngineSettings,
    },
    /// Make the running process a replica of a primary, in an epoch of their replica set.
    Follow {
        /// Which.
        shard: ShardUid,
        /// Generation that it was started from.
        generation: Generation,
        /// The process that is meant; another one refuses.
        run_id: String,
        /// Epoch of the role.
        epoch: Epoch,
        /// Whom it follows.
        primary: PrimaryAddress,
        /// Password of the replication user among them, the same in a whole replica set.
        users: EngineUsers,
    },
    /// Make the running replica the primary of an epoch, its primary being gone: as `MakePrimary`, if
    /// its data are what was recorded of them, and more.
    Promote {
        /// Which.
        shard: ShardUid,
        /// Generation that it was started from.
        generation: Generation,
        /// The process that is meant; another one refuses.
        run_id: String,
        /// Epoch of the role.
        epoch: Epoch,
        /// What was recorded of it.
        record: SyncedRecord,
        /// Passwords of the users of that epoch.
        users: EngineUsers,
        /// Whether its promises may still be relied on: it is not done before they are over.
        #[serde(default)]
        wait_promises: bool,
    },
    /// Give promises by this user and by no other. See [`crate::lease`].
    Keep {
        /// Which.
        shard: ShardUid,
        /// Generation that it was started from.
        generation: Generation,
        /// The process that is meant; another one refuses.
        run_id: String,
        /// Epoch of the role that it has; in another one it refuses.
        epoch: Epoch,
        /// The user.
        user: String,
        /// Its password.
        password: Secret,
    },
    /// Write down that the role may go to the next epoch, and make its users beside those of the present
    /// one: on both engines of a move, before it. A move without it is refused.
    PrepareEpoch {
        /// Which.
        shard: ShardUid,
        /// Generation that it was started from.
        generation: Generation,
        /// The process that is meant; another one refuses.
        run_id: String,
        /// The next epoch.
        epoch: Epoch,
        /// Passwords of its users.
        users: EngineUsers,
    },
    /// The running primary hands its role to a replica (`FAILOVER TO`), which `PressAcks` hurries.
    /// Answered when it has become a replica, or has given up and is primary as before.
    HandOver {
        /// Which: the old primary.
        shard: ShardUid,
        /// Generation that it was started from.
        generation: Generation,
        /// The process that is meant; another one refuses.
        run_id: String,
        /// Epoch in which the target is primary.
        epoch: Epoch,
        /// The replica.
        target: HandOverTarget,
        /// How long it may take, ms, from the order's arrival.
        deadline_ms: u32,
    },
    /// Have the replica acknowledge every millisecond, until it is primary or the time is over.
    PressAcks {
        /// Which: the replica.
        shard: ShardUid,
        /// Generation that it was started from.
        generation: Generation,
        /// The process that is meant; another one refuses.
        run_id: String,
        /// How long, ms.
        milliseconds: u32,
    },
    /// The replica that a primary handed its role to takes it over: ledger and users.
    TakeOver {
        /// Which: the new primary.
        shard: ShardUid,
        /// Generation that it was started from.
        generation: Generation,
        /// The process that is meant; another one refuses.
        run_id: String,
        /// Epoch of the role.
        epoch: Epoch,
        /// Passwords of the users of that epoch.
        users: EngineUsers,
    },
    /// Recovery of a move: refuse from now on what belongs to moves up to this epoch.
    SettleMove {
        /// Which.
        shard: ShardUid,
        /// Generation that it was started from.
        generation: Generation,
        /// Highest epoch whose moves are refused.
        epoch: Epoch,
    },
    /// Recovery of a move: `FAILOVER ABORT`, while it waits for the replica to catch up, or for a target
    /// that is gone. Nothing is done when no move is under way in the engine.
    AbortHandOver {
        /// Which: the old primary.
        shard: ShardUid,
        /// Generation that it was started from.
        generation: Generation,
        /// The process that is meant; another one refuses.
        run_id: String,
    },
    /// Fence: end this process, however it stands. Answered when it is gone for sure.
    KillEngine {
        /// Which.
        shard: ShardUid,
        /// Generation that it was started from.
        generation: Generation,
        /// The process that is meant; another one is left alone.
        run_id: String,
    },
    /// A replica's files cannot be loaded, again and again, and its primary has the data: keep them beside, and start
    /// without any the next time. Refused while an engine runs, or by one that knows of no such failures, or of a
    /// role that this epoch does not end.
    SetAside {
        /// Which.
        shard: ShardUid,
        /// Generation that it was started from.
        generation: Generation,
        /// Epoch in which its primary serves.
        epoch: Epoch,
        /// When it was decided; what was decided before or at the same time is done no second time.
        decided: Timestamp,
    },
    /// Stop the process and delete its folder. Only on behalf of an operation.
    RemoveEngine {
        /// Which.
        shard: ShardUid,
        /// Generation that is removed; a newer one stays.
        generation: Generation,
        /// The operation that wants it.
        operation: OperationUid,
    },
}

/// The engine process that is wanted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EngineSpec {
    /// Which shard.
    pub shard: ShardUid,
    /// Its database.
    pub database: DatabaseUid,
    /// Version of this description.
    pub generation: Generation,
    /// The engine.
    pub engine: EngineId,
    /// Its port on the node's address.
    pub port: u16,
    /// Limits and policies.
    pub settings: EngineSettings,
    /// Passwords; at start only `cnm` exists.
    pub users: EngineUsers,
}

/// Limits and policies of an engine process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EngineSettings {
    /// `maxmemory`, bytes.
    pub memory_bytes: u64,
    /// `maxmemory-policy`.
    pub eviction_policy: EvictionPolicy,
    /// What survives a restart.
    pub persistence: Persistence,
    /// `notify-keyspace-events`.
    #[serde(default)]
    pub notify_keyspace_events: String,
}

/// Why an agent did not do it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "refusal", rename_all = "snake_case")]
pub enum AgentRefusal {
    /// The order is older than what the agent knows.
    #[error("the order is stale: {reason}")]
    Stale {
        /// What is newer.
        reason: String,
    },
    /// It cannot be done now; the same order may succeed later.
    #[error("not yet: {reason}")]
    NotYet {
        /// What is missing.
        reason: String,
    },
    /// It failed.
    #[error("{reason}")]
    Failed {
        /// How.
        reason: String,
    },
}

impl AgentRefusal {
    /// A failure with its reason.
    pub fn failed(reason: impl std::fmt::Display) -> Self {
        Self::Failed {
            reason: format!("{reason:#}"),
        }
    }
}
