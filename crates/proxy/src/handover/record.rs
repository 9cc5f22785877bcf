//! What is written of a client when it goes to another process: all that it is but its sockets.
//!
//! A batch is the records as JSON, so that the release before and after can read them, and behind that the
//! bytes that clients have sent or are to get, as they are. Times are told as how long ago they were: the
//! processes' clocks have nothing in common.
//!
//! What comes is not trusted: [`decode`] takes only what a worker can go on with.

mod bytes;
mod check;

pub(crate) use bytes::{BATCH_MAX, Bytes, decode, decode_scripts, encode, encode_scripts};

use crate::worker::session::{OwnState, ReplyMode};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// Most clients in a batch.
pub(crate) const CLIENTS_MAX: usize = 256;

/// A client's record on the heap: it is long, and goes from thread to thread.
pub(crate) type BoxedRecord = Box<ClientRecord>;

/// A client.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ClientRecord {
    /// Its database.
    pub(crate) database: u64,
    /// The last slot of each shard of that.
    pub(crate) ends: Vec<u16>,
    pub(crate) session: SessionRecord,
    pub(crate) flow: FlowRecord,
    /// When it left its worker, ns of `CLOCK_BOOTTIME`; 0: not known.
    #[serde(default)]
    pub(crate) left_at: u64,
    /// What only a client of a database with several shards has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) fan: Option<Box<FanRecord>>,
}

/// Bodies of scripts that a worker has seen at a shard.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ScriptsRecord {
    pub(crate) database: u64,
    /// The place of the shard.
    pub(crate) shard: usize,
    /// The oldest first.
    pub(crate) bodies: Vec<Bytes>,
}

/// What its connection means.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SessionRecord {
    pub(crate) id: u64,
    pub(crate) peer: SocketAddr,
    pub(crate) local: SocketAddr,
    /// How long ago it came, and sent something last; µs.
    pub(crate) created: u64,
    pub(crate) active: u64,
    pub(crate) received: u64,
    pub(crate) commands: u64,
    pub(crate) resp: u8,
    pub(crate) authenticated: bool,
    #[serde(default, skip_serializing_if = "Bytes::is_empty")]
    pub(crate) name: Bytes,
    #[serde(default, skip_serializing_if = "Bytes::is_empty")]
    pub(crate) lib_name: Bytes,
    #[serde(default, skip_serializing_if = "Bytes::is_empty")]
    pub(crate) lib_ver: Bytes,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) reply: ReplyMode,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) no_evict: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) redirect: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) own: OwnState,
}

impl Default for SessionRecord {
    fn default() -> Self {
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        Self {
            id: 0,
            peer: nowhere,
            local: nowhere,
            created: 0,
            active: 0,
            received: 0,
            commands: 0,
            resp: 2,
            authenticated: false,
            name: Bytes::default(),
            lib_name: Bytes::default(),
            lib_ver: Bytes::default(),
            reply: ReplyMode::default(),
            no_evict: false,
            redirect: false,
            own: OwnState::default(),
        }
    }
}

/// Where its commands go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum LaneRecord {
    #[default]
    Shared,
    Own,
    Gone,
}

/// Its bytes, and what is on the way: of a client, or of its part at one of several shards.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct FlowRecord {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) lane: LaneRecord,
    /// Its next command waits for its replies.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) barrier: bool,
    /// The connection to the shard that is its own: on its lane, or one that brings its last replies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) backend: Option<Box<BackendRecord>>,
    #[serde(skip_serializing_if = "Bytes::is_empty")]
    pub(crate) tail: Bytes,
    /// As [`RequestFramer::save`] has it.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) framer: [u64; 3],
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) scanned: usize,
    /// The rest of a long command goes to the shard (yes), or nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) streaming: Option<bool>,
    /// For how long whole commands have waited, µs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) held: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) keep: Option<Box<KeepRecord>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) owed: Option<Bytes>,
    #[serde(skip_serializing_if = "Bytes::is_empty")]
    pub(crate) out: Bytes,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) in_transaction: usize,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) writes: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) streams_write: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) later: Vec<LaterRecord>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) refused_own: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) heavy: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) ended: bool,
}

/// A connection to a shard, and what is expected on it.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BackendRecord {
    /// The shard and its epoch.
    pub(crate) shard: u64,
    pub(crate) epoch: u64,
    pub(crate) unix: bool,
    /// How long ago a reply came last, µs.
    pub(crate) heard: u64,
    pub(crate) engine_client: i64,
    /// The user that it signed in as.
    pub(crate) user: String,
    /// As [`ReplyFramer::save`] has it.
    pub(crate) framer: Bytes,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) set_up: bool,
    /// Markers of others are hidden here: the beginning of a message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hides: Option<Bytes>,
    #[serde(default, skip_serializing_if = "Bytes::is_empty")]
    pub(crate) out: Bytes,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) book: Vec<RunRecord>,
    #[serde(default, skip_serializing_if = "Bytes::is_empty")]
    pub(crate) captured: Bytes,
    #[serde(default, skip_serializing_if = "Bytes::is_empty")]
    pub(crate) error_line: Bytes,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) passed_on: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) half_sent: bool,
}

/// A run of replies.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct RunRecord {
    pub(crate) count: u32,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) discard: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) effect: EffectRecord,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) rewrite: RewriteRecord,
    /// How long ago it was sent, and how long it had waited by then; µs.
    pub(crate) since: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) waited: u64,
    /// Commands by kind, and how many there were.
    pub(crate) left: Vec<u32>,
    pub(crate) sent: u32,
    /// The beginning of the first one; empty: it is not shown.
    #[serde(skip_serializing_if = "Bytes::is_empty")]
    pub(crate) head: Bytes,
}

/// A kind of subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum KindRecord {
    Channel,
    Pattern,
    Shard,
}

/// What a reply changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum EffectRecord {
    #[default]
    None,
    Blocking,
    Multi,
    Exec,
    Discard,
    Watch,
    Unwatch,
    Select(u32),
    Tracking(bool),
    Monitor,
    NoTouch(bool),
    /// So many confirmations; `None`: as many as there are subscriptions.
    Confirm(KindRecord, Option<u64>),
}

/// What is done with a reply.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum RewriteRecord {
    #[default]
    None,
    ConfigGet,
    Guard(Bytes),
    Text(Bytes),
}

/// What is done with an element of the reply to `EXEC`.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LaterRecord {
    pub(crate) at: usize,
    pub(crate) what: WhatRecord,
}

/// See [`LaterRecord`].
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum WhatRecord {
    Answer(Bytes),
    Effect(EffectRecord),
    ConfigGet,
}

/// What would be set up again at another primary.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct KeepRecord {
    #[serde(skip_serializing_if = "Bytes::is_empty")]
    pub(crate) queue: Bytes,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) queued: u32,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) overflow: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) tracking: Vec<Bytes>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) tracking_asked: Vec<Bytes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) caching: Option<Bytes>,
    pub(crate) names: [Vec<Bytes>; 3],
    /// The blocking command that is under way, and since how long it is; µs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) blocked: Option<(Bytes, u64)>,
}

/// What a client of several shards has.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct FanRecord {
    pub(crate) order: Vec<DueRecord>,
    pub(crate) legs: Vec<LegRecord>,
    pub(crate) unsent: Vec<(usize, Option<Bytes>)>,
    pub(crate) streaming: Option<usize>,
    pub(crate) transaction: QueueRecord,
    pub(crate) watched: Option<usize>,
    pub(crate) names: [Vec<Bytes>; 3],
    pub(crate) optin: Option<bool>,
    pub(crate) optin_asked: Option<bool>,
    pub(crate) caching: Option<Bytes>,
    pub(crate) mid: bool,
    pub(crate) messages: Vec<Bytes>,
}

/// A part of a client at one shard.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LegRecord {
    pub(crate) shard: usize,
    pub(crate) session: SessionRecord,
    pub(crate) flow: FlowRecord,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) replies: Vec<Bytes>,
    #[serde(default, skip_serializing_if = "Bytes::is_empty")]
    pub(crate) part: Bytes,
    #[serde(default, skip_serializing_if = "Bytes::is_empty")]
    pub(crate) message: Bytes,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) cached: bool,
}

/// What a client is due.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum DueRecord {
    Replies { shard: usize, count: u32 },
    Merged { shards: Vec<usize>, how: HowRecord },
    Text(Bytes),
}

/// How one reply is made of several.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum HowRecord {
    Merge(MergeRecord),
    Opening(MergeRecord),
    Confirmed(Bytes),
}

/// The ways of those commands that may take long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum MergeRecord {
    Same,
    AnySuccess,
    Sum,
    Minimum,
    Minima,
}

/// Where a transaction is.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum QueueRecord {
    #[default]
    No,
    Here(Vec<Bytes>),
    At(usize),
    Lost,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
