//! What the controller on the primary node orders an agent to do. Every order carries a generation
//! or an epoch; an agent refuses what is older than what it knows.

use crate::documents::{EngineUsers, EvictionPolicy, Persistence};
use crate::ids::{DatabaseUid, Epoch, Generation, OperationUid, ShardUid};
use crate::release::EngineId;
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
