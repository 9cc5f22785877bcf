//! How the store reaches another node. The caller implements it (HTTP/2 with mutual TLS, or
//! memory in a test); the store knows bodies of bytes alone.

use bytes::Bytes;
use futures::future::BoxFuture;
use model::NodeUid;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// No body that the store sends is larger, in bytes. A receiver should refuse more.
pub const MAX_BODY: usize = 64 * 1024 * 1024;

/// A member of the store: a voter or a learner.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// The node; a uid is never used twice, not even after a wipe.
    pub uid: NodeUid,
    /// Where it takes internode traffic: `ip:port`.
    pub address: String,
}

/// What a body is. The receiver passes both to [`Store::handle`](crate::Store::handle).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RpcKind {
    /// Would you vote for me? Changes nothing.
    PreVote,
    /// Vote for me.
    Vote,
    /// Entries of the log, or a heartbeat.
    Append,
    /// The whole state.
    Snapshot,
    /// Take over the leadership: the leader asks for it.
    TakeOver,
}

impl RpcKind {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::PreVote,
        Self::Vote,
        Self::Append,
        Self::Snapshot,
        Self::TakeOver,
    ];

    /// The word for it in a path.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PreVote => "pre_vote",
            Self::Vote => "vote",
            Self::Append => "append",
            Self::Snapshot => "snapshot",
            Self::TakeOver => "take_over",
        }
    }
}

impl fmt::Display for RpcKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for RpcKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| format!("{text:?} is not a request of the configuration store"))
    }
}

/// Why a call did not bring an answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TransportError {
    /// No connection.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// The other node refused.
    #[error("refused: {0}")]
    Refused(String),
}

/// Carries requests to other members.
pub trait Transport: Send + Sync + 'static {
    /// Sends `body` to `target` and returns the body of its answer, within `timeout`. The future
    /// may be dropped at any time. The implementation checks by its certificate that it talks to
    /// `target`; the body names sender and receiver too, and a wrong receiver refuses it.
    fn call(
        &self,
        target: &Member,
        rpc: RpcKind,
        body: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, TransportError>>;
}
