//! A worker: one thread with its own clients and its own connections to shards. Nothing of it is
//! shared with another worker, and there is no lock on the way of a command.
//!
//! A turn: wait for sockets; read replies and hand them out; read clients and append their commands
//! to the buffers of the shards; write once to every shard and every client that has something to
//! get.
//!
//! | file | what |
//! |---|---|
//! | [`client`], [`session`] | a client: its bytes; what its connection means |
//! | [`backend`] | a connection to a shard and its order book |
//! | [`targets`] | following the configuration |
//! | [`link`], [`loss`], [`troubles`] | connecting to shards; losing them; telling of it |
//! | [`requests`] | reading clients: where commands end |
//! | [`route`] | where a command goes |
//! | [`spares`] | own connections that wait for a client |
//! | [`lanes`] | shared connection, own connection, and the way between them |
//! | [`script_lane`] | scripts, which may take long, beside other commands |
//! | [`fan`] | clients of databases with several shards |
//! | [`replies`] | reading shards: whose reply it is |
//! | [`untaken`] | clients that do not take them |
//! | [`effects`], [`conceal`] | what replies change; what is not shown of them |
//! | [`local`], [`client_command`] | what the proxy answers itself |
//! | [`asked`] | what is asked of all clients of a database, here and at other proxies |
//! | [`config_set`] | what a client sets for the whole database |
//! | [`allowance`] | how many commands a client may send now |
//! | [`moving`] | clients that go to another worker |
//! | [`divided`] | questions about all clients while some are with another process |
//! | [`carry`], [`depart`] | a client as a record; clients that go to another process |
//! | [`queued`] | the same inside a transaction |
//! | [`pause`] | `CLIENT PAUSE` |
//! | [`filter`] | which connections `CLIENT LIST` and `CLIENT KILL` mean |
//! | [`measure`] | what is counted and timed |
//! | [`gather`] | questions to all workers |
//! | [`linger`] | looking for more before going to sleep |
//! | [`gate`] | holding commands while a primary moves |
//! | [`lease`] | until when shards of replicated databases may be used |
//! | [`leaving`] | clients that end at the engine first |
//! | [`handle`] | the way to a worker, for other threads |
//! | [`timers`] | what happens later |

mod allowance;
mod asked;
mod backend;
mod carry;
mod client;
mod client_command;
mod conceal;
mod config_set;
mod cursors;
mod depart;
mod divided;
mod effects;
mod fan;
mod filter;
mod gate;
mod gather;
mod handle;
mod lanes;
mod lease;
mod leaving;
mod linger;
mod link;
mod local;
mod loss;
mod measure;
mod moving;
mod own_words;
mod pause;
mod queued;
mod replies;
mod requests;
mod route;
mod script_lane;
pub(crate) mod session;
mod spares;
mod targets;
mod timers;
mod troubles;
mod untaken;

pub(crate) use asked::{ForOthers, ask_for_others};
pub(crate) use carry::Carried;
pub(crate) use client::ClientId;
pub(crate) use depart::{Away, Parcel};
pub(crate) use gate::{Outcome as GateOutcome, Task as GateTask};
pub(crate) use gather::Gather;
pub(crate) use handle::{Accepted, Message, WorkerHandle};
pub(crate) use pause::Pause;
pub(crate) use troubles::Troubles;

use crate::bounds;
use crate::stats::ServerStats;
use crate::topology::Database;
use backend::Backend;
use client::{Client, Wait};
use fan::Part;
use handle::WorkerState;
use linger::Awaited;
use link::Served;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token, Waker};
use model::DatabaseUid;
use session::Session;
use slab::Slab;
use std::collections::HashMap;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};
use timers::Timers;

const WAKE: Token = Token(0);
const EVENTS: usize = 1024;
/// What the clock of a worker begins with, µs: what a client did in an earlier process was before.
const CLOCK: u64 = 1 << 52;

/// See the module's text.
pub(crate) struct Worker {
    number: usize,
    poll: Poll,
    inbox: Receiver<Message>,
    /// All workers, this one too.
    others: Arc<[WorkerHandle]>,
    state: Arc<WorkerState>,
    stats: Arc<ServerStats>,
    /// Address that connections to other nodes come from.
    source: IpAddr,

    served: Slab<Served>,
    by_uid: HashMap<DatabaseUid, usize>,
    /// In boxes: a slab that grows would copy them, and its old places stay with the allocator.
    clients: Slab<Box<Client>>,
    backends: Slab<Backend>,
    generation: u32,
    timers: Timers,
    gates: gate::Gates,
    departing: Option<depart::Departing>,
    divided: divided::Divided,
    linger: linger::Linger,
    leases: lease::Leases,
    draining: bool,
    stopped: bool,
    /// When this turn began.
    now: Instant,
    /// The client whose command is looked at has sent more behind it.
    behind: bool,
    /// The same, in µs: [`CLOCK`] when the worker began.
    clock: u64,
    began: Instant,
    /// Since when the commands wait that are being looked at, by that clock; 0: they do not.
    held: u64,
    /// Commands that a rate lets pass of the client whose turn it is; 0: it has no turn.
    granted: u32,
    pauses: pause::Pauses,
    /// Since when how many slow commands were told of.
    slow_told: (u64, u32),
    /// How often commands of a client were looked at, and how many were taken.
    asked: (u64, u64),

    client_queue: Vec<usize>,
    backend_queue: Vec<usize>,
    dirty_clients: Vec<usize>,
    dirty_backends: Vec<usize>,
    /// Clients that are closed at the end of the turn.
    doomed: Vec<ClientId>,
    /// Answers that wait for what the engine says about a client.
    promised: Vec<(ClientId, Arc<Gather>)>,
    /// Clients of which more is kept than they may leave untaken, for the sake of others.
    relieved: Vec<ClientId>,
    /// Clients whose replies are in the receive buffer of the shard that is being read.
    touched: Vec<usize>,
    receive: Vec<u8>,
    reply_receive: Vec<u8>,
    /// What one client has sent at once, by shard.
    burst: fan::Burst,
}

/// A worker that is not running yet, and the way to it.
pub(crate) struct Prepared {
    poll: Poll,
    inbox: Receiver<Message>,
    handle: WorkerHandle,
}

impl Prepared {
    /// # Errors
    /// The system has no poller left.
    pub(crate) fn new(number: usize) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        let (sender, inbox) = sync_channel(bounds::INBOX);
        let handle = WorkerHandle::new(number, sender, waker);
        Ok(Self {
            poll,
            inbox,
            handle,
        })
    }

    pub(crate) fn handle(&self) -> WorkerHandle {
        self.handle.clone()
    }

    /// Makes it a worker. It learns of the others with the first topology.
    pub(crate) fn into_worker(self, stats: Arc<ServerStats>, source: IpAddr) -> Worker {
        Worker {
            number: self.handle.number(),
            poll: self.poll,
            inbox: self.inbox,
            others: Arc::new([]),
            state: self.handle.state(),
            stats,
            source,
            served: Slab::new(),
            by_uid: HashMap::new(),
            clients: Slab::new(),
            backends: Slab::new(),
            generation: 0,
            timers: Timers::default(),
            gates: gate::Gates::default(),
            departing: None,
            divided: divided::Divided::default(),
            linger: linger::Linger::default(),
            leases: lease::Leases::default(),
            draining: false,
            stopped: false,
            now: Instant::now(),
            behind: false,
            clock: CLOCK,
            began: Instant::now(),
            held: 0,
            granted: 0,
            pauses: pause::Pauses::default(),
            slow_told: (0, 0),
            asked: (0, 0),
            client_queue: Vec::new(),
            backend_queue: Vec::new(),
            dirty_clients: Vec::new(),
            dirty_backends: Vec::new(),
            doomed: Vec::new(),
            promised: Vec::new(),
            relieved: Vec::new(),
            touched: Vec::new(),
            receive: vec![0; bounds::RECEIVE],
            reply_receive: vec![0; bounds::REPLY_RECEIVE],
            burst: fan::Burst::default(),
        }
    }
}

impl Worker {
    /// Serves until it is told to stop.
    ///
    /// # Errors
    /// The poller failed.
    pub(crate) fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        let thread = rustix::thread::gettid().as_raw_nonzero().get();
        let thread = u64::try_from(thread).unwrap_or(0);
        self.state.thread.store(thread, Ordering::Relaxed);
        while !self.stopped {
            let timeout = self.timeout();
            if !self.looks_a_while(&mut events, timeout)? {
                match self.poll.poll(&mut events, timeout) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    other => other?,
                }
            }
            self.tell_time();
            self.state.turned(self.asked);
            self.take_events(&events);
            self.fire_timers();
            self.read_all();
            // What has come meanwhile goes to the shards with the same write.
            for _ in 0..bounds::REPOLLS {
                self.poll.poll(&mut events, Some(Duration::ZERO))?;
                if events.is_empty() {
                    break;
                }
                self.take_events(&events);
                self.read_all();
            }
            self.linger.turn_ends();
            self.write_all();
            if self.gates_close() {
                self.tend_gates();
                self.write_all();
            }
            self.depart();
        }
        // The process may go on without this worker.
        let backends: Vec<usize> = self.backends.iter().map(|(index, _)| index).collect();
        for index in backends {
            self.drop_backend(index);
        }
        Ok(())
    }

    fn tell_time(&mut self) {
        self.now = Instant::now();
        let passed = self.now.saturating_duration_since(self.began);
        self.clock = u64::try_from(passed.as_micros()).map_or(u64::MAX, |passed| CLOCK + passed);
        self.tell_moment();
    }

    /// Looks for events before it sleeps, if that is worth it; `true`: there are some.
    #[inline]
    fn looks_a_while(
        &mut self,
        events: &mut Events,
        timeout: Option<Duration>,
    ) -> io::Result<bool> {
        if !self.linger.is_worth_it() || timeout.is_some_and(|timeout| timeout <= linger::LOOK) {
            return Ok(false);
        }
        let began = Instant::now();
        let (found, looked) = loop {
            self.poll.poll(events, Some(Duration::ZERO))?;
            let looked = began.elapsed();
            if !events.is_empty() || looked >= linger::LOOK {
                break (!events.is_empty(), looked);
            }
        };
        self.linger.was(found);
        self.state.looked(looked);
        Ok(found)
    }

    fn take_events(&mut self, events: &Events) {
        let mut woken = false;
        for event in events {
            match event.token() {
                WAKE => woken = true,
                Token(token) if token % 2 == 0 => {
                    self.linger.saw(Awaited::Shard);
                    self.client_event(token / 2 - 1, event);
                }
                Token(token) => {
                    self.linger.saw(Awaited::Client);
                    self.backend_event(token / 2 - 1, event);
                }
            }
        }
        if woken {
            self.take_messages();
        }
    }

    fn timeout(&self) -> Option<Duration> {
        if !self.client_queue.is_empty() || !self.backend_queue.is_empty() {
            return Some(Duration::ZERO);
        }
        self.timers
            .next()
            .into_iter()
            .chain(self.next_pause_at())
            .min()
            .map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// Replies first: they free clients. Then requests.
    fn read_all(&mut self) {
        for index in std::mem::take(&mut self.backend_queue) {
            self.read_backend(index);
        }
        for index in std::mem::take(&mut self.client_queue) {
            self.read_client(index);
        }
        for id in std::mem::take(&mut self.doomed) {
            if let Some(index) = self.find(id) {
                self.close_client(index);
            }
        }
    }

    /// One write a socket.
    fn write_all(&mut self) {
        self.check_fences();
        while !self.dirty_backends.is_empty() {
            for index in std::mem::take(&mut self.dirty_backends) {
                self.flush_backend(index);
            }
        }
        for index in std::mem::take(&mut self.dirty_clients) {
            self.flush_client(index);
        }
    }

    fn take_messages(&mut self) {
        while let Ok(message) = self.inbox.try_recv() {
            match message {
                Message::Client(accepted) => self.accept(accepted),
                Message::Moved(moved) => self.take_in(*moved),
                Message::Carried(clients) => {
                    for client in clients {
                        self.take_carried(client);
                    }
                }
                Message::Scripts(scripts) => self.take_scripts(&scripts),
                Message::Depart(away) => self.begin_departing(away),
                Message::Stay => self.stay(),
                Message::Share { with, keep } => self.share(&with, keep),
                Message::Wished(client, refusal) => self.wished(client, refusal.as_deref()),
                Message::Topology(topology) => self.apply(&topology),
                Message::Leases => self.look_at_leases(),
                Message::Gather(gather) => self.contribute(&gather),
                Message::ForgetScripts(uid) => self.forget_scripts(uid),
                Message::Gate(task) => self.gate_order(*task),
                Message::Gathered(gather) => self.gathered(&gather),
                Message::Drain => self.drain(),
                Message::Stop => self.stopped = true,
            }
        }
        self.follow_pauses();
    }

    fn accept(&mut self, accepted: Accepted) {
        let Accepted {
            id,
            stream,
            peer,
            local,
            database,
        } = accepted;
        let Some(&served) = self.by_uid.get(&database.uid) else {
            self.not_admitted(&database);
            return;
        };
        let authenticated = self.served[served].database.password.is_none();
        let session = Session::new(id, peer, local, authenticated);
        self.admit(served, stream, session);
    }

    /// A client came whose database was removed meanwhile.
    fn not_admitted(&self, database: &Database) {
        database.stats.connections.fetch_sub(1, Ordering::Relaxed);
        self.stats.connections.fetch_sub(1, Ordering::Relaxed);
        self.stats.sockets.fetch_sub(1, Ordering::Relaxed);
        self.state.clients.fetch_sub(1, Ordering::Relaxed);
    }

    /// A client is here from now on.
    fn admit(&mut self, served: usize, stream: std::net::TcpStream, session: Session) {
        let part = match self.served[served].shards.len() {
            1 => Part::Whole,
            _ => Part::Front(Box::default()),
        };
        self.insert(served, stream, session, part);
    }

    /// The same, of a client that has a part already. `None`: it cannot be served.
    fn insert(
        &mut self,
        served: usize,
        stream: std::net::TcpStream,
        session: Session,
        part: Part,
    ) -> Option<usize> {
        let (peer, resp) = (session.peer, session.resp);
        self.generation = self.generation.wrapping_add(1);
        let mut stream = TcpStream::from_std(stream);
        let entry = self.clients.vacant_entry();
        let index = entry.key();
        let both = Interest::READABLE | Interest::WRITABLE;
        let registered = self
            .poll
            .registry()
            .register(&mut stream, client_token(index), both);
        let stats = Arc::clone(&self.served[served].stats);
        let client = Client::new(self.generation, Some(stream), served, stats, session, part);
        entry.insert(Box::new(client));
        if let Err(error) = registered {
            tracing::warn!(%peer, %error, "a client cannot be watched");
            self.close_client(index);
            return None;
        }
        self.expect_own(served, resp);
        Some(index)
    }

    fn client_event(&mut self, index: usize, event: &mio::event::Event) {
        let Some(client) = self.clients.get_mut(index) else {
            return;
        };
        if event.is_error() || event.is_write_closed() {
            self.close_client(index);
            return;
        }
        if event.is_readable() || event.is_read_closed() {
            client.readable = true;
            client.ended |= event.is_read_closed();
            if self.close_if_blocked(index) {
                return;
            }
            self.queue_client(index);
        }
        let Some(client) = self.clients.get_mut(index) else {
            return;
        };
        if event.is_writable() && !client.writable {
            client.writable = true;
            self.mark_client(index);
        }
    }

    fn backend_event(&mut self, index: usize, event: &mio::event::Event) {
        let Some(backend) = self.backends.get_mut(index) else {
            return;
        };
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            backend.readable = true;
            backend.ended |= event.is_read_closed() || event.is_error();
        }
        if event.is_writable() || event.is_error() {
            backend.writable = true;
            self.mark_backend(index);
        }
        self.queue_backend(index);
    }

    /// Goes on with a client in this turn or the next one.
    fn queue_client(&mut self, index: usize) {
        let index = self.front_of(index);
        let client = &mut self.clients[index];
        if !client.queued {
            client.queued = true;
            self.client_queue.push(index);
        }
    }

    fn queue_backend(&mut self, index: usize) {
        let backend = &mut self.backends[index];
        if !backend.queued {
            backend.queued = true;
            self.backend_queue.push(index);
        }
    }

    #[inline]
    fn mark_client(&mut self, index: usize) {
        let client = &mut self.clients[index];
        if !client.dirty {
            client.dirty = true;
            self.dirty_clients.push(index);
        }
    }

    #[inline]
    fn mark_backend(&mut self, index: usize) {
        let backend = &mut self.backends[index];
        if !backend.dirty {
            backend.dirty = true;
            self.dirty_backends.push(index);
        }
    }

    /// The client's name, if it is still there.
    fn client_id(&self, index: usize) -> ClientId {
        ClientId {
            index: index as u32,
            generation: self.clients[index].generation,
        }
    }

    fn find(&self, id: ClientId) -> Option<usize> {
        let index = id.index as usize;
        self.clients
            .get(index)
            .filter(|client| client.generation == id.generation)
            .map(|_| index)
    }

    /// What a client waited for has come: its next command is looked at.
    fn resume(&mut self, index: usize) {
        self.clients[index].wait = Wait::Nothing;
        if self.is_parked(index) {
            self.send_parked(index);
            return;
        }
        let front = self.front_of(index);
        if front != index {
            if self.clients[front].wait != Wait::Leg {
                return;
            }
            self.clients[front].wait = Wait::Nothing;
        }
        self.queue_client(index);
    }

    /// Writes what waits for a client, once.
    fn flush_client(&mut self, index: usize) {
        let Some(client) = self.clients.get_mut(index) else {
            return;
        };
        client.dirty = false;
        while let Some(stream) = &mut client.stream
            && client.writable
            && !client.out.is_empty()
        {
            let pending = client.out.pending();
            match stream.write(pending) {
                Ok(written) => {
                    client.writable = written == pending.len();
                    client.written += written as u64;
                    client.stats.count_egress(written);
                    client.out.advance(written, 0);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => client.writable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.close_client(index);
                    return;
                }
            }
        }
        self.after_flush(index);
    }

    fn queue_if_open(&mut self, index: usize) {
        if self.clients[index].wait == Wait::Nothing {
            self.queue_client(index);
        }
    }

    /// The clients with a socket that `wanted` takes.
    fn fronts(&self, wanted: impl Fn(&Client) -> bool) -> Vec<usize> {
        self.clients
            .iter()
            .filter(|(_, client)| !matches!(client.part, Part::Leg(_)) && wanted(client))
            .map(|(index, _)| index)
            .collect()
    }
}

fn client_token(index: usize) -> Token {
    Token((index + 1) * 2)
}

fn backend_token(index: usize) -> Token {
    Token((index + 1) * 2 + 1)
}
