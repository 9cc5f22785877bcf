//! A connection to a shard, and the order book that says whose replies come over it.

use super::client::ClientId;
use super::gate::Moving;
use super::link::LinkId;
use crate::accepted::View;
use crate::buffer::OutBuffer;
use crate::cursor::Mark;
use crate::leases::Until;
use crate::stats::slow::Head;
use crate::stats::{Answered, ErrorKind, Tally, WorkerStats};
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token, event};
use model::proxy::ShardAddress;
use resp::command::Subscription;
use resp::reply::ReplyFramer;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// After how long without traffic the host of a shard on another node is asked whether it is there, and how often.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(1));
/// After how long without an acknowledgement from that host a connection is lost: what is sent into a network that was
/// cut comes to no end by itself for minutes. An engine that computes or hangs is not meant, its kernel acknowledges
/// for it; but that also stops when its buffers are full, so while ours are it is given more time.
const UNHEARD: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(15));

/// A socket to a shard.
#[derive(Debug)]
pub(crate) enum ShardStream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl ShardStream {
    pub(crate) fn connect(address: &ShardAddress, source: std::net::IpAddr) -> io::Result<Self> {
        match address {
            ShardAddress::Unix(path) => UnixStream::connect(path).map(Self::Unix),
            ShardAddress::Tcp(address) => {
                let domain = socket2::Domain::for_address(*address);
                let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
                socket.set_nonblocking(true)?;
                socket.set_tcp_nodelay(true)?;
                let (idle, again) = KEEPALIVE;
                let keepalive = socket2::TcpKeepalive::new();
                socket.set_tcp_keepalive(&keepalive.with_time(idle).with_interval(again))?;
                socket.set_tcp_user_timeout(Some(UNHEARD.0))?;
                if address.is_ipv4() == source.is_ipv4() {
                    socket.bind(&std::net::SocketAddr::new(source, 0).into())?;
                }
                match socket.connect(&(*address).into()) {
                    Err(error)
                        if error.raw_os_error()
                            != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) =>
                    {
                        Err(error)
                    }
                    _ => Ok(Self::Tcp(TcpStream::from_std(socket.into()))),
                }
            }
        }
    }

    /// A socket that another process had, or this one before: connected, and not blocking.
    pub(crate) fn adopt(socket: OwnedFd, unix: bool) -> Self {
        if unix {
            Self::Unix(UnixStream::from_std(socket.into()))
        } else {
            Self::Tcp(TcpStream::from_std(socket.into()))
        }
    }

    /// What has not arrived by now must not arrive later: its clients are told that its outcome is not known, and
    /// send what comes after it another way. A kernel sends it for minutes, also after a network was cut.
    pub(crate) fn forget_unsent(&self) {
        if let Self::Tcp(stream) = self {
            // It can fail only for a socket that is closed.
            let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }

    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let both = Interest::READABLE | Interest::WRITABLE;
        self.source().register(registry, token, both)
    }

    /// Asks to be told when it can be written to, or no more. A local socket tells that each time the
    /// shard has read something: of use only while something waits.
    pub(crate) fn watch(
        &mut self,
        registry: &Registry,
        token: Token,
        writable: bool,
    ) -> io::Result<()> {
        if let Self::Tcp(stream) = self {
            let unheard = if writable { UNHEARD.1 } else { UNHEARD.0 };
            socket2::SockRef::from(&*stream).set_tcp_user_timeout(Some(unheard))?;
        }
        let interest = if writable {
            Interest::READABLE | Interest::WRITABLE
        } else {
            Interest::READABLE
        };
        self.source().reregister(registry, token, interest)
    }

    pub(crate) fn source(&mut self) -> &mut dyn event::Source {
        match self {
            Self::Unix(stream) => stream,
            Self::Tcp(stream) => stream,
        }
    }

    /// Whether connecting is over, and how.
    pub(crate) fn connected(&self) -> io::Result<bool> {
        let error = match self {
            Self::Unix(stream) => stream.take_error()?,
            Self::Tcp(stream) => stream.take_error()?,
        };
        if let Some(error) = error {
            return Err(error);
        }
        let peer = match self {
            Self::Unix(stream) => stream.peer_addr().map(drop),
            Self::Tcp(stream) => stream.peer_addr().map(drop),
        };
        match peer {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.read(buffer),
            Self::Tcp(stream) => stream.read(buffer),
        }
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.write(bytes),
            Self::Tcp(stream) => stream.write(bytes),
        }
    }
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The socket connects.
    Connecting,
    /// `HELLO`, and `SELECT` if wanted, are under way; so many replies are to come.
    Greeting(u32),
    /// It takes commands.
    Ready,
}

/// What a connection is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// By everybody.
    Shared,
    /// It was shared, and only finishes what is in flight.
    Leaving,
    /// By one client.
    Own(ClientId),
    /// By nobody, since then.
    Idle(Instant),
    /// For this, when its engine is primary.
    Next(Next),
}

/// What a connection to the next primary is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// All.
    Shared,
    /// Some client.
    Spare,
    /// This client.
    Client(ClientId),
}

/// What a reply changes in the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    None,
    Blocking,
    Multi,
    Exec,
    /// `EXEC` with arguments, or while nothing but subscriptions is possible: the engine refuses it, and lets go of
    /// what is queued and watched.
    ExecRefused,
    Discard,
    /// A command of a transaction that was opened before, and is opened again at the new primary.
    Replayed,
    Watch,
    Unwatch,
    Select(u32),
    Tracking(bool),
    Monitor,
    NoTouch(bool),
    /// The engine has ended the connection of a client that leaves.
    Freed,
    /// The engine has let a blocking command go, or there was none.
    Unblocked,
    /// The same, asked for by a gate that closes.
    LetGo,
    /// It is what a shard says to a command of a transaction that may be another shard's.
    Asked,
    /// Confirmations of (un)subscriptions: so many, or as many as there are.
    Confirm(Subscription, Confirm),
}

/// How many confirmations come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Confirm {
    /// So many.
    Count(u64),
    /// One for each subscription of the kind, or one if there is none.
    All,
}

/// What is done with a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rewrite {
    /// It is passed on.
    None,
    /// Secrets are blanked.
    ConfigGet,
    /// This goes to the client if the engine says that the proxy's user may not do it.
    Guard(Box<[u8]>),
    /// This goes to the client instead.
    Text(Box<[u8]>),
    /// It is a reply of `COMMAND`: what clients cannot use is left out.
    Commands(View),
    /// It is the reply to an `EXEC` of which the proxy answers a part. The client does not get it as it is.
    Exec,
    /// It tells the newest entry of a stream; the number is that of the stream in its command.
    LastId(usize),
    /// It begins with a cursor of the engine, which is marked; the rest is passed on as it comes.
    Cursor(Mark),
}

/// A run of replies for one client: one entry of the order book.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) client: ClientId,
    pub(crate) count: u32,
    /// The client does not want them (`CLIENT REPLY`).
    pub(crate) discard: bool,
    pub(crate) effect: Effect,
    pub(crate) rewrite: Rewrite,
    pub(crate) seen: Seen,
}

/// What is measured of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// When it was given to the connection: µs of the worker's clock.
    pub(crate) since: u64,
    /// How long it had waited in the proxy by then, µs.
    pub(crate) waited: u64,
    /// Commands whose replies are to come.
    pub(crate) left: Tally,
    /// Commands that it had.
    pub(crate) count: u32,
    /// The beginning of the first one.
    pub(crate) head: Head,
}

impl Run {
    /// Whether the reply is looked into as a whole.
    pub(crate) fn captured(&self) -> bool {
        !matches!(self.rewrite, Rewrite::None | Rewrite::Cursor(_))
    }

    /// The mark for the cursor that the client gets.
    pub(crate) fn mark(&self) -> Option<Mark> {
        match self.rewrite {
            Rewrite::Cursor(mark) if !self.discard => Some(mark),
            _ => None,
        }
    }

    /// Whether the replies are passed on as they are, and change nothing.
    #[inline]
    pub(crate) fn is_plain(&self) -> bool {
        self.effect == Effect::None && self.rewrite == Rewrite::None
    }
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) generation: u32,
    pub(crate) stream: ShardStream,
    pub(crate) link: LinkId,
    pub(crate) stats: Arc<WorkerStats>,
    /// When a reply came last: µs of the worker's clock.
    pub(crate) heard: u64,
    /// Until when it may be used, if that is bounded.
    pub(crate) lease: Option<Arc<Until>>,
    /// Which target of the link it belongs to.
    pub(crate) target: u64,
    pub(crate) phase: Phase,
    /// The engine's number of it.
    pub(crate) engine_client: i64,
    pub(crate) usage: Use,
    /// It was told what its client's last connection was; errors of that are no reason to close it.
    pub(crate) set_up: bool,
    /// It is not read: its client has got all that is to come from it, or gets the rest later.
    pub(crate) muted: bool,
    /// Its subscriptions move.
    pub(crate) moving: Option<Box<Moving>>,
    pub(crate) framer: ReplyFramer,
    pub(crate) out: OutBuffer,
    pub(crate) book: VecDeque<Run>,
    /// A reply that is looked into as a whole.
    pub(crate) captured: Vec<u8>,
    /// The beginning of an error that is not whole, or of a line of `MONITOR`.
    pub(crate) error_line: Vec<u8>,
    /// The user that it signed in as.
    pub(crate) user: Box<str>,
    /// Bytes of the reply that is being read which the client already has.
    pub(crate) passed_on: bool,
    /// Part of a command has been sent, the rest follows.
    pub(crate) half_sent: bool,
    /// The last client that was too slow here while others waited behind its replies, and since when there has been
    /// one: µs of the worker's clock.
    pub(crate) held_up: Option<(ClientId, u64)>,
    /// It will be looked whether a script keeps it.
    pub(crate) script_watched: bool,
    /// Clients that wait for room in `out`.
    pub(crate) stalled: Vec<ClientId>,
    /// The engine will send no more.
    pub(crate) ended: bool,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    /// The poller tells when it can be written to.
    pub(crate) watched: bool,
    pub(crate) dirty: bool,
    pub(crate) queued: bool,
}

impl Backend {
    /// Notes that a reply for `run` will come.
    #[inline]
    pub(crate) fn expect(&mut self, run: Run) {
        self.stats.count_sent(run.count);
        if let Some(last) = self.book.back_mut()
            && last.client == run.client
            && last.discard == run.discard
            && last.is_plain()
            && run.is_plain()
            && last.seen.since == run.seen.since
        {
            last.count += run.count;
            last.seen.count += run.count;
            last.seen.left.add_all(run.seen.left);
        } else {
            self.book.push_back(run);
        }
    }

    /// Whose error the reply is, if it is one; it is for this run.
    pub(crate) fn error_kind(&self, rewrite: &Rewrite) -> ErrorKind {
        match rewrite {
            Rewrite::Text(_) => ErrorKind::Refused,
            Rewrite::Guard(_) if self.captured.starts_with(b"-NOPERM") => ErrorKind::Refused,
            Rewrite::None
            | Rewrite::ConfigGet
            | Rewrite::Commands(_)
            | Rewrite::Guard(_)
            | Rewrite::Exec
            | Rewrite::LastId(_)
            | Rewrite::Cursor(_) => ErrorKind::Engine,
        }
    }

    /// Empties the order book: what is in it gets no reply of the shard.
    pub(crate) fn take_book(&mut self) -> VecDeque<Run> {
        let book = std::mem::take(&mut self.book);
        for run in &book {
            self.stats
                .count_answered(run.seen.left, run.count, Answered::Untimed);
        }
        book
    }

    /// Whether nothing is under way on it, so that another may use it.
    pub(crate) fn clean(&self) -> bool {
        self.phase == Phase::Ready
            && self.book.is_empty()
            && self.out.is_empty()
            && self.framer.at_start()
            && !self.half_sent
    }
}
