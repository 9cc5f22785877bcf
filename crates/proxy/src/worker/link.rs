//! Connecting to shards and greeting them.

use super::allowance::AtRate;
use super::backend::{Backend, Phase, ShardStream, Use};
use super::client::{ClientId, Wait};
use super::fan::Part;
use super::gate::{Gate, Scripts};
use super::lease::Lapse;
use super::pause::Held;
use super::script_lane::Aside;
use super::timers::Timer;
use super::{Worker, backend_token};
use crate::bounds;
use crate::leases::Until;
use crate::stats::WorkerStats;
use crate::topology::Database;
use model::Epoch;
use model::proxy::{ProxyShard, ShardAddress};
use resp::value::Value;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Names a link: a shard of a database in one version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LinkId {
    pub(crate) served: usize,
    pub(crate) shard: usize,
    pub(crate) resp: u8,
}

/// A database as a worker serves it.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) database: Arc<Database>,
    /// What this worker counts of it.
    pub(crate) stats: Arc<WorkerStats>,
    /// One entry at least, even if no primary is known.
    pub(crate) shards: Vec<ShardLinks>,
    /// The last slot of each shard.
    pub(super) ends: Vec<u16>,
    /// What its engine said of itself in its greeting.
    pub(crate) engine: Option<Engine>,
    /// Which commands wait.
    pub(crate) pause: Held,
    /// Clients that wait for the database's rate.
    pub(super) at_rate: AtRate,
}

impl Served {
    /// The shard that has a slot.
    #[inline]
    pub(crate) fn shard_of(&self, slot: u16) -> usize {
        let shard = self.ends.partition_point(|end| *end < slot);
        shard.min(self.shards.len() - 1)
    }
}

/// The connections to one shard.
#[derive(Debug, Default)]
pub(crate) struct ShardLinks {
    pub(crate) target: Option<ProxyShard>,
    /// Counts targets: a connection belongs to one.
    pub(crate) number: u64,
    /// The highest number that was given.
    pub(super) numbers: u64,
    /// The highest epoch that was withheld: there is no way back to an earlier one.
    pub(super) least: Epoch,
    pub(crate) gate: Option<Box<Gate>>,
    /// Until when the target may be used, if that is bounded.
    pub(crate) lease: Option<Arc<Until>>,
    /// There is no lease now.
    pub(crate) lapse: Option<Lapse>,
    /// Bodies of its scripts.
    pub(crate) scripts: Scripts,
    /// The target may not know them.
    pub(crate) unloaded: bool,
    /// Why it is not reached.
    error: Option<String>,
    /// RESP2 and RESP3.
    pub(crate) links: [Link; 2],
}

/// The connections to one shard in one version of the protocol.
#[derive(Debug, Default)]
pub(crate) struct Link {
    /// The connection that all share.
    pub(crate) shared: Option<usize>,
    /// The one for scripts, if there are some.
    pub(super) scripts: Option<usize>,
    /// Those that scripts keep.
    pub(super) aside: Vec<Aside>,
    /// Whether that takes commands.
    pub(crate) ready: bool,
    pub(crate) down_since: Option<Instant>,
    pub(crate) retry_set: bool,
    /// Since when the shard's queue of connections is full, without one getting through.
    crowded_since: Option<Instant>,
    crowded_set: bool,
    pub(crate) pause: Duration,
    pub(crate) waiters: Vec<ClientId>,
    /// Connections for single clients that nobody uses now.
    pub(crate) idle: Vec<usize>,
    /// More of them that are being opened.
    pub(super) spares_opening: usize,
    pub(crate) reaping: bool,
}

impl Link {
    /// Whether commands have waited long enough.
    pub(crate) fn hold_is_over(&self) -> bool {
        self.down_since
            .is_some_and(|since| since.elapsed() >= bounds::HOLD)
    }
}

/// Why a connection is not opened.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum NotOpened {
    /// Too many are being opened at the same time: it may be tried again at once.
    #[error("the shard's queue of connections is full")]
    Crowded,
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

/// What an engine says of itself.
#[derive(Clone, Debug)]
pub(crate) struct Engine {
    pub(crate) server: Value,
    pub(crate) version: Value,
    pub(crate) modules: Value,
}

impl Worker {
    #[inline]
    pub(super) fn link(&self, id: LinkId) -> Option<&Link> {
        self.served
            .get(id.served)?
            .shards
            .get(id.shard)?
            .links
            .get(usize::from(id.resp - 2))
    }

    #[inline]
    pub(super) fn link_mut(&mut self, id: LinkId) -> Option<&mut Link> {
        let shard = self.served.get_mut(id.served)?.shards.get_mut(id.shard)?;
        shard.links.get_mut(usize::from(id.resp - 2))
    }

    /// The link of a client: the only shard of its database, or the shard of the leg.
    #[inline]
    pub(super) fn link_of(&self, client: usize) -> LinkId {
        let client = &self.clients[client];
        let shard = match &client.part {
            Part::Whole | Part::Front(_) => 0,
            Part::Leg(leg) => leg.shard,
        };
        LinkId {
            served: client.served,
            shard,
            resp: client.session.resp,
        }
    }

    /// Sees to it that a link has a shared connection, or will have one.
    pub(super) fn need(&mut self, id: LinkId) {
        // RESP3 is tried when somebody wants it, but the shard is down since RESP2 lost it.
        let shard_down = self
            .link(LinkId { resp: 2, ..id })
            .and_then(|link| link.down_since);
        let Some(link) = self.link_mut(id) else {
            return;
        };
        if link.down_since.is_none() && !link.ready {
            let since = shard_down.unwrap_or_else(Instant::now);
            link.down_since = Some(since);
            let left = bounds::HOLD.saturating_sub(since.elapsed());
            self.timers.set(left, Timer::Hold(id));
        }
        if self.is_closed(id) {
            return;
        }
        let Some(link) = self.link_mut(id) else {
            return;
        };
        if link.shared.is_some() || link.retry_set {
            return;
        }
        if link.pause > Duration::ZERO {
            link.retry_set = true;
            let pause = link.pause;
            self.timers.set(pause, Timer::Retry(id));
            return;
        }
        if self.served[id.served].shards[id.shard].target.is_none() {
            return;
        }
        match self.open(id, Use::Shared) {
            Ok(index) => {
                if let Some(link) = self.link_mut(id) {
                    link.shared = Some(index);
                }
            }
            Err(reason) => {
                let reason = reason.to_string();
                self.tell_trouble(id, false, &reason);
                self.link_failed(id, &reason);
            }
        }
    }

    pub(super) fn retry(&mut self, id: LinkId) {
        let Some(link) = self.link_mut(id) else {
            return;
        };
        link.retry_set = false;
        if link.shared.is_none() {
            let pause = std::mem::take(&mut link.pause);
            self.need(id);
            if let Some(link) = self.link_mut(id) {
                link.pause = link.pause.max(pause);
            }
        }
    }

    /// Connecting failed, or the connection was lost: another try follows.
    pub(super) fn link_failed(&mut self, id: LinkId, reason: &str) {
        if id.resp == 2 {
            self.report_link(id.served, id.shard, Some(reason.to_owned()));
        }
        let Some(link) = self.link_mut(id) else {
            return;
        };
        link.shared = None;
        link.ready = false;
        link.pause = (link.pause * 2).clamp(*bounds::RETRY.start(), *bounds::RETRY.end());
        if id.resp == 2 || !link.waiters.is_empty() {
            self.need(id);
        } else {
            // The next client that wants it finds it untried.
            link.down_since = None;
        }
    }

    /// A shard is reached, or why not. The database is reached when all its shards are.
    pub(super) fn report_link(&mut self, served: usize, shard: usize, error: Option<String>) {
        let known = &mut self.served[served];
        known.shards[shard].error = error;
        let error = known.shards.iter().find_map(|shard| shard.error.clone());
        let state = error.map_or(Ok(()), Err);
        known.database.stats.set_link(self.number, state);
    }

    /// Opens a connection to the shard of a link.
    ///
    /// # Errors
    /// Why it cannot be.
    pub(super) fn open(&mut self, id: LinkId, usage: Use) -> Result<usize, NotOpened> {
        let shard = &self.served[id.served].shards[id.shard];
        let target = shard.target.as_ref();
        let target = target.ok_or_else(|| NotOpened::Failed("no primary is known".to_owned()))?;
        let (address, user) = (target.address.clone(), target.user.clone());
        let (number, lease) = (shard.number, shard.lease.clone());
        let index = self.open_to(id, usage, (&address, &user), number)?;
        self.backends[index].lease = lease;
        Ok(index)
    }

    /// Opens a connection to an engine, as one of the target with this number.
    ///
    /// # Errors
    /// Why it cannot be.
    pub(super) fn open_to(
        &mut self,
        id: LinkId,
        usage: Use,
        (address, user): (&ShardAddress, &str),
        number: u64,
    ) -> Result<usize, NotOpened> {
        if self.stats.sockets.load(Ordering::Relaxed) >= self.stats.sockets_max {
            let reason = "the descriptor limit is reached".to_owned();
            return Err(NotOpened::Failed(reason));
        }
        let mut stream =
            ShardStream::connect(address, self.source).map_err(|error| match error.kind() {
                std::io::ErrorKind::WouldBlock => NotOpened::Crowded,
                _ => NotOpened::Failed(format!("the shard cannot be reached: {error}")),
            })?;
        let stats = Arc::clone(&self.served[id.served].stats);
        self.generation = self.generation.wrapping_add(1);
        let entry = self.backends.vacant_entry();
        let index = entry.key();
        stream
            .register(self.poll.registry(), backend_token(index))
            .map_err(|error| NotOpened::Failed(format!("the shard cannot be watched: {error}")))?;
        entry.insert(Backend {
            generation: self.generation,
            stream,
            link: id,
            stats,
            heard: 0,
            lease: None,
            target: number,
            phase: Phase::Connecting,
            engine_client: 0,
            usage,
            set_up: false,
            muted: false,
            moving: None,
            framer: resp::reply::ReplyFramer::default(),
            out: crate::buffer::OutBuffer::default(),
            book: std::collections::VecDeque::new(),
            captured: Vec::new(),
            error_line: Vec::new(),
            user: user.into(),
            passed_on: false,
            half_sent: false,
            held_up: None,
            script_watched: false,
            stalled: Vec::new(),
            ended: false,
            readable: false,
            writable: false,
            watched: true,
            dirty: false,
            queued: false,
        });
        self.stats.sockets.fetch_add(1, Ordering::Relaxed);
        self.timers
            .set(bounds::CONNECT, Timer::Connect(index, self.generation));
        Ok(index)
    }

    /// Goes on with connecting, if the socket is connected: greets.
    pub(super) fn connecting(&mut self, index: usize) {
        match self.backends[index].stream.connected() {
            Ok(false) => return,
            Ok(true) => {}
            Err(error) => {
                self.lose(index, &format!("the shard cannot be reached: {error}"));
                return;
            }
        }
        let resp = self.backends[index].link.resp;
        let Some(target) = self.target_of(index) else {
            self.lose(index, "no primary is known");
            return;
        };
        let mut greeting = Vec::new();
        let version = [b'0' + resp];
        let (user, password) = (target.user.as_bytes(), target.password.expose().as_bytes());
        resp::request::encode(
            [b"HELLO", &version[..], b"AUTH", user, password],
            &mut greeting,
        );
        let backend = &mut self.backends[index];
        backend.out.push(&greeting);
        backend.writable = true;
        backend.phase = Phase::Greeting(1);
        self.set_up_own(index);
        self.mark_backend(index);
    }

    /// One reply to the greeting is whole.
    pub(super) fn greeted(&mut self, index: usize) {
        let reply = std::mem::take(&mut self.backends[index].captured);
        let id = self.backends[index].link;
        match Value::decode(&reply) {
            _ if self.is_set_up(index) => {}
            Ok((Value::Error(text), _)) => {
                let text = String::from_utf8_lossy(&text).into_owned();
                self.lose(index, &format!("the shard refused the proxy: {text}"));
                return;
            }
            Ok((value @ (Value::Map(_) | Value::Array(_)), _)) => {
                match self.backends[index].usage {
                    Use::Next(_) => self.next_greeted(id, engine(&value)),
                    _ => self.served[id.served].engine = engine(&value),
                }
                if let Some(Value::Integer(number)) = field(&value, "id") {
                    self.backends[index].engine_client = number;
                }
            }
            _ => {}
        }
        let backend = &mut self.backends[index];
        match backend.phase {
            Phase::Greeting(left @ 2..) => backend.phase = Phase::Greeting(left - 1),
            _ => {
                backend.phase = Phase::Ready;
                self.ready(index);
            }
        }
    }

    /// The shared connection of a link takes commands.
    pub(super) fn link_ready(&mut self, id: LinkId) {
        if id.resp == 2 {
            self.report_link(id.served, id.shard, None);
            self.tell_reached(id);
        }
        if let Some(link) = self.link_mut(id) {
            link.ready = true;
            link.down_since = None;
            link.pause = Duration::ZERO;
        }
        self.keep_spares(id);
    }

    pub(super) fn ready(&mut self, index: usize) {
        let backend = &self.backends[index];
        let id = backend.link;
        match backend.usage {
            Use::Shared => {
                if self.has_lapsed(id) {
                    if id.resp == 2 {
                        let reason = self.lease_trouble(id.served, id.shard);
                        self.report_link(id.served, id.shard, Some(reason));
                    }
                    if let Some(link) = self.link_mut(id) {
                        link.pause = Duration::ZERO;
                    }
                } else {
                    self.link_ready(id);
                }
                let links = &mut self.served[id.served].shards[id.shard];
                if std::mem::take(&mut links.unloaded) {
                    self.load_scripts(index);
                }
                if !self.has_lapsed(id) {
                    self.wake_waiters(id);
                }
            }
            Use::Own(owner) => {
                if let Some(link) = self.link_mut(id) {
                    link.crowded_since = None;
                }
                if let Some(client) = self.find(owner)
                    && self.clients[client].wait == Wait::Link
                {
                    self.resume(client);
                }
            }
            Use::Next(what) => self.next_ready(index, what),
            Use::Idle(_) => self.spare_ready(index),
            Use::Leaving => {}
        }
    }

    /// A client waits for a place in the shard's queue of connections; `false`: nobody has got one
    /// for too long.
    pub(super) fn wait_in_crowd(&mut self, index: usize, id: LinkId) -> bool {
        let name = self.client_id(index);
        let Some(link) = self.link_mut(id) else {
            return false;
        };
        let since = *link.crowded_since.get_or_insert_with(Instant::now);
        if since.elapsed() >= bounds::HOLD {
            return false;
        }
        link.waiters.push(name);
        if !std::mem::replace(&mut link.crowded_set, true) {
            self.timers.set(bounds::CROWDED, Timer::Crowded(id));
        }
        self.clients[index].wait = Wait::Link;
        true
    }

    pub(super) fn less_crowded(&mut self, id: LinkId) {
        if let Some(link) = self.link_mut(id) {
            link.crowded_set = false;
        }
        self.wake_waiters(id);
    }

    /// Closes a connection that nobody has anything under way on.
    pub(super) fn drop_backend(&mut self, index: usize) {
        let mut backend = self.backends.remove(index);
        backend.take_book();
        let _ = self.poll.registry().deregister(backend.stream.source());
        self.stats.sockets.fetch_sub(1, Ordering::Relaxed);
        if matches!(backend.usage, Use::Idle(_)) {
            self.spare_gone(backend.link, index, backend.phase);
        }
        for id in backend.stalled {
            if let Some(client) = self.find(id)
                && self.clients[client].wait == Wait::Room
            {
                self.resume(client);
            }
        }
    }
}

fn field(greeting: &Value, name: &str) -> Option<Value> {
    greeting
        .pairs()
        .into_iter()
        .find(|(key, _)| key.text() == Some(name.as_bytes()))
        .map(|(_, value)| value.clone())
}

fn engine(greeting: &Value) -> Option<Engine> {
    Some(Engine {
        server: field(greeting, "server")?,
        version: field(greeting, "version")?,
        modules: field(greeting, "modules").unwrap_or(Value::Array(Vec::new())),
    })
}
