//! A client's connection: its bytes, and where its commands go.

use super::fan::Part;
use super::gate::Keep;
use super::queued::{Exec, Later};
use super::session::Session;
use crate::buffer::OutBuffer;
use crate::stats::WorkerStats;
use mio::net::TcpStream;
use resp::request::{RequestError, RequestFramer};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

/// Names a client of a worker. The generation tells it from earlier ones in the same place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClientId {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

impl ClientId {
    /// No client has this name.
    pub(crate) const NOBODY: Self = Self {
        index: u32::MAX,
        generation: 0,
    };
}

/// Where a client's commands go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Over the connection that all share.
    Shared,
    /// Over a connection of its own, in this place of the worker's backends.
    Own(usize),
    /// Its own connection was lost; another one is opened for its next command.
    Gone,
}

/// What a client waits for before its next command is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Nothing.
    Nothing,
    /// All its replies.
    Barrier,
    /// A connection to the shard.
    Link,
    /// Room in the buffer to the shard.
    Room,
    /// One of its legs, which waits for one of the above.
    Leg,
    /// Answers of the other workers, or of the cluster.
    Gather,
    /// All clients to be in one process again.
    Divided,
    /// The end of a `CLIENT PAUSE`.
    Paused,
    /// Its turn: its database is at its rate.
    Rate,
    /// Its last bytes to be written; then it is closed.
    Farewell,
    /// The engine to end its connection there; then it is closed.
    Leaving,
}

/// The rest of a long command that is not held.
#[derive(Debug)]
pub(crate) enum Streaming {
    /// It goes to the client's own connection.
    ToShard,
    /// It goes nowhere: it has been answered.
    Skip,
    /// What came of it is no command. That is said when the replies to the commands before it are there.
    Broken(RequestError),
}

/// How far a client is that is to go to another process. Times are µs of the worker's clock.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Departs {
    /// Since when none of its commands is taken, so that its replies come in; 0: they are taken.
    pub(crate) since: u64,
    /// Until when it is let be.
    pub(crate) not_before: u64,
    /// How often that was in vain.
    pub(crate) tries: u8,
}

/// One client.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) generation: u32,
    /// `None`: a leg, which has no socket.
    pub(crate) stream: Option<TcpStream>,
    /// Whether it is one of several.
    pub(crate) part: Part,
    /// Place of its database.
    pub(crate) served: usize,
    /// What the worker counts of that.
    pub(crate) stats: Arc<WorkerStats>,
    pub(crate) session: Session,
    pub(crate) lane: Lane,
    pub(crate) wait: Wait,

    /// Bytes of commands that were not looked at or are not whole.
    pub(crate) tail: Vec<u8>,
    pub(crate) framer: RequestFramer,
    /// Bytes of the tail that the framer has understood.
    pub(crate) scanned: usize,
    pub(crate) streaming: Option<Streaming>,
    /// Since when whole commands wait here: µs of the worker's clock; 0: none does.
    pub(crate) held: u64,

    /// What its own connection holds in the engine, if anything.
    pub(crate) keep: Option<Box<Keep>>,
    /// An answer that waits until nothing is half-way to the client.
    pub(crate) owed: Option<Vec<u8>>,
    pub(crate) out: OutBuffer,
    /// Replies that are still in the worker's receive buffer.
    pub(crate) slice: Range<usize>,
    /// Replies that are to come.
    pub(crate) in_flight: u32,
    /// The shared connection that they come over.
    pub(crate) via: usize,
    /// Of those, of blocking commands.
    pub(crate) blocking: u32,
    /// Commands that the engine has queued in its transaction.
    pub(crate) in_transaction: usize,
    /// A command that may write was sent since `MULTI`.
    pub(crate) writes: bool,
    /// The command that is being passed on as it comes may write.
    pub(crate) streams_write: bool,
    /// What is done with elements of the reply to `EXEC`.
    pub(crate) later: VecDeque<Later>,
    /// The reply to an `EXEC` that is being made.
    pub(crate) exec: Option<Box<Exec>>,
    /// Connections of its own that the engine is to end before it has left.
    pub(crate) leaving: usize,
    /// The shard let it have no connection of its own; its command gets an error.
    pub(crate) refused_own: bool,
    /// It took large replies too slowly: from now on it has a connection of its own, so that nobody
    /// waits behind it.
    pub(crate) heavy: bool,
    /// Connections to shards that are not read since this client takes its replies too slowly.
    pub(crate) paused: Vec<usize>,
    /// How often it was looked at since it took bytes last, while too much waits for it; 0: it is not looked at.
    pub(crate) unread: u8,
    /// All bytes that were written, to see whether it takes any.
    pub(crate) written: u64,

    pub(crate) readable: bool,
    pub(crate) writable: bool,
    /// The peer will send no more.
    pub(crate) ended: bool,
    /// In the worker's list of clients to write to.
    pub(crate) dirty: bool,
    /// In the worker's list of clients to go on with.
    pub(crate) queued: bool,
    /// What keeps it from taking commands, if it is to go to another process.
    pub(crate) departs: Departs,
}

impl Client {
    pub(crate) fn new(
        generation: u32,
        stream: Option<TcpStream>,
        served: usize,
        stats: Arc<WorkerStats>,
        session: Session,
        part: Part,
    ) -> Self {
        Self {
            generation,
            stream,
            part,
            served,
            stats,
            session,
            lane: Lane::Shared,
            wait: Wait::Nothing,
            tail: Vec::new(),
            framer: RequestFramer::default(),
            scanned: 0,
            streaming: None,
            held: 0,
            keep: None,
            owed: None,
            out: OutBuffer::default(),
            slice: 0..0,
            in_flight: 0,
            via: 0,
            blocking: 0,
            in_transaction: 0,
            writes: false,
            streams_write: false,
            later: VecDeque::new(),
            exec: None,
            leaving: 0,
            refused_own: false,
            heavy: false,
            paused: Vec::new(),
            unread: 0,
            written: 0,
            readable: false,
            writable: true,
            ended: false,
            dirty: false,
            queued: false,
            departs: Departs::default(),
        }
    }
}
