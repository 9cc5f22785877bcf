//! What can go wrong when the store is used.

use model::NodeUid;

/// An error of the store. Each says whether something may have been written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// This node does not lead the store: nothing was written, ask the leader.
    #[error("this node does not lead the configuration store{}", leads(*.leader))]
    NotLeader {
        /// The node that leads, as far as this one knows.
        leader: Option<NodeUid>,
    },
    /// This node leads, but hears no majority of the voters: nothing was written.
    #[error("no majority of the configuration store's voters answers: {0}")]
    NoQuorum(String),
    /// The time was up, or the leadership was lost meanwhile: a transaction may or may not be
    /// written, even later. Read before trying again.
    #[error("the configuration store did not answer in time; the outcome is unknown")]
    Timeout,
    /// The disk, or what is on it.
    #[error("configuration store: {0}")]
    Storage(String),
    /// The transaction is larger than the store takes: nothing was written.
    #[error("{what} is {size}, the configuration store takes at most {limit}")]
    TooLarge {
        /// What is too large.
        what: String,
        /// Its size (bytes or a count, as `what` says).
        size: usize,
        /// The limit, in the same unit.
        limit: usize,
    },
    /// The transaction or request makes no sense: nothing was written.
    #[error("refused by the configuration store: {0}")]
    Invalid(String),
    /// Too many requests wait: nothing was written.
    #[error("too many requests to the configuration store are under way")]
    Busy,
    /// A stored value does not have the expected form.
    #[error("value at {key} cannot be read: {reason}")]
    Decode {
        /// The key of the value.
        key: String,
        /// What the decoder said.
        reason: String,
    },
    /// Members cannot be changed this way now.
    #[error("members of the configuration store: {0}")]
    Membership(String),
    /// Leadership could not be handed over; this node goes on leading unless another was elected.
    #[error("leadership was not handed over: {0}")]
    HandOver(String),
    /// The store is being shut down; a transaction under way may or may not be written.
    #[error("the configuration store is shutting down")]
    ShuttingDown,
}

fn leads(leader: Option<NodeUid>) -> String {
    match leader {
        Some(uid) => format!(" (node {uid} does)"),
        None => " (nobody is known to)".to_owned(),
    }
}
