//! Gates: how the primary node has proxies hold a replica set's commands while its primary moves.
//!
//! Orders travel with the configuration, from `cnm_exec` to `dmcproxy` over the unix socket of
//! [`crate::proxy`], each as a line `{"order": …}`; answers come back as lines `{"answer": …}`. A line
//! without these is a configuration, or an observation.
//!
//! A gate belongs to a replica set and to the epoch under which it was ordered. A proxy never lifts it
//! by itself: only a shard of a higher epoch opens it, by an order or by a configuration.

use crate::ids::{DatabaseUid, Epoch, ShardUid};
use crate::proxy::ProxyShard;
use serde::{Deserialize, Serialize};

/// An order to a proxy, or its answer, as a line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// From `cnm_exec`.
    Order(Order),
    /// From `dmcproxy`.
    Answer(Answer),
}

/// An order, with a number that its answer repeats.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// Counts orders on this connection.
    pub id: u64,
    /// The database.
    pub database: DatabaseUid,
    /// What to do.
    pub what: GateOrder,
}

/// What a proxy is to do about a replica set, which is named by its present primary.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "gate", rename_all = "snake_case")]
pub enum GateOrder {
    /// Open connections to the engine that is to become primary; nothing is sent to it yet. Answered
    /// when every worker has them, or with what is in the way.
    Prepare {
        /// The present primary.
        shard: ShardUid,
        /// Its epoch.
        epoch: Epoch,
        /// The engine under its next epoch.
        next: ProxyShard,
    },
    /// Forward nothing more. Answered when every worker holds and no reply is outstanding, so that
    /// nothing of this proxy reaches the present primary any more.
    Hold {
        /// The present primary.
        shard: ShardUid,
        /// Its epoch; another one is refused.
        epoch: Epoch,
        /// After how long clients get a retriable error instead of waiting on, ms. The gate stays.
        patience_ms: u32,
    },
    /// Go on with this primary, whose epoch is higher. Answered when every worker does.
    Release {
        /// The primary that was held.
        shard: ShardUid,
        /// The primary from now on: another engine, or the same one again under a new epoch.
        next: ProxyShard,
    },
}

/// What became of an order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The order's number.
    pub id: u64,
    /// Why it was not carried out; `None`: it was.
    #[serde(default)]
    pub refusal: Option<String>,
    /// After a release: how long commands were held, µs, the longest of all workers.
    #[serde(default)]
    pub held_us: u64,
    /// After a release: commands that waited behind the gate, or clients whose bytes did.
    #[serde(default)]
    pub waited: u64,
}

/// What the primary node asks a node to have its proxies do. That node knows best how they reach the
/// engines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GateCall {
    /// The database.
    pub database: DatabaseUid,
    /// The present primary.
    pub shard: ShardUid,
    /// Its epoch.
    pub epoch: Epoch,
    /// What to do.
    pub what: GateStep,
    /// The term of the primary node that says so; 0: one of an older release.
    #[serde(default)]
    pub term: u64,
    /// Processes of that node's proxies that may hold a lease, as far as this primary node knows: one of them
    /// that runs must carry the order out.
    #[serde(default)]
    pub leased: Vec<u32>,
}

/// After how long commands that wait behind a gate get an error that says to try again, ms.
pub const PATIENCE_MS: u32 = 5_000;

/// See [`GateOrder`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum GateStep {
    /// Open connections to this shard, as it will be in the next epoch.
    Prepare {
        /// The shard that is to become primary.
        next: ShardUid,
    },
    /// Forward nothing more.
    Hold {
        /// After how long clients get a retriable error, ms.
        patience_ms: u32,
    },
    /// Go on with this shard in the next epoch.
    Release {
        /// The shard that has become primary.
        next: ShardUid,
    },
}

/// How a proxy refuses an order about a database, or a primary of it, that it does not serve. Releases since 1.1.0 say
/// it in these words, and `cnm_exec` tells it by them from other refusals.
#[must_use]
pub fn not_served(database: DatabaseUid, primary: ShardUid) -> String {
    format!("database {database} with primary shard {primary} is not served here")
}

/// What all proxies of a node made of a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateAnswer {
    /// How many proxies there were.
    pub proxies: u32,
    /// No other proxy of this node is known that may be serving; `false` of an older release, which does
    /// not look.
    #[serde(default)]
    pub all: bool,
    /// See [`Answer::held_us`].
    pub held_us: u64,
    /// See [`Answer::waited`].
    pub waited: u64,
}
