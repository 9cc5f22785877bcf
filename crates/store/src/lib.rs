//! The configuration store (CCS): what the cluster is meant to be, kept the same on every node.
//!
//! A transaction ([`Txn`]) compares, puts and deletes JSON values under text keys; it is agreed on
//! by Raft, applied in the same order on every node, and can be watched. This is the only room that
//! knows Raft: no type of the Raft library leaves it, and what is written to disk or sent to
//! another node is a record of our own (`record`, `wire`).
//!
//! | file | what |
//! |---|---|
//! | [`store`] | the handle that the rest of the program uses |
//! | [`txn`], [`state`], [`history`] | a transaction, the state it changes, the changes to watch |
//! | [`config`], [`error`], [`status`] | tunables with defaults, what can go wrong, how it goes |
//! | `backup` | the state as versioned JSON, a new store made of it |
//! | [`transport`] | how another node is reached: implemented by the caller |
//! | `machine`, `log`, `disk` | state machine, log and SQLite under Raft |
//! | `record`, `wire` | the bytes on disk and between nodes, versioned, with golden tests |
//! | `network`, `pacemaker` | RPCs out; heartbeats and elections |
//! | `raft`, `runtime` | the types of the Raft library; tokio as it uses it |
//! | `membership`, `handover` | changes of members one at a time; moving the leadership |
//!
//! Elections are started by our own `pacemaker`: each voter has its own window by rank, and asks
//! the others first whether they would vote for it, so that a node that was cut off does not
//! depose a healthy leader when it comes back.

mod backup;
pub mod config;
mod disk;
pub mod error;
mod handover;
pub mod history;
mod log;
mod machine;
mod membership;
mod network;
mod pacemaker;
mod raft;
mod record;
mod runtime;
pub mod state;
pub mod status;
pub mod store;
#[cfg(test)]
mod suite;
pub mod transport;
pub mod txn;
mod wire;

pub use config::StoreConfig;
pub use error::StoreError;
pub use history::{Change, Changes};
pub use model::{NodeUid, Revision};
pub use state::{Entry, State};
pub use status::{MemberStatus, Status};
pub use store::Store;
pub use transport::{Member, RpcKind, Transport, TransportError};
pub use txn::{Txn, TxnResult};

/// Directive for a `tracing` filter: the Raft library reports every heartbeat at level `info`, and
/// every attempt to reach a node that is down as an error. What an operator should know, this crate
/// says itself.
pub const LOG_FILTER: &str = "openraft=off";
