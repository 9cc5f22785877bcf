//! The endpoints of databases: opening them, accepting clients, choosing a worker.

use crate::stats::ServerStats;
use crate::texts;
use crate::topology::{Database, Topology};
use crate::worker::{Accepted, Message, WorkerHandle};
use model::DatabaseUid;
use model::proxy::ProxyConfig;
use std::collections::HashMap;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::AbortHandle;

/// Clients that the kernel keeps for us before they are accepted.
const BACKLOG: i32 = 4096;

/// After how long without traffic a client is asked whether it is there, as the engines do.
const KEEPALIVE: Duration = Duration::from_secs(300);

/// How often it is told that clients are refused.
const TELL_REFUSALS: Duration = Duration::from_secs(10);

/// What every accepting task needs.
#[derive(Debug)]
pub(crate) struct Acceptor {
    /// Those that get new clients.
    pub(crate) workers: Mutex<Arc<[WorkerHandle]>>,
    pub(crate) stats: Arc<ServerStats>,
    pub(crate) topology: Mutex<Option<Arc<Topology>>>,
    /// When it was told last that clients are refused.
    pub(crate) refusals_told: Mutex<Option<Instant>>,
}

#[derive(Debug)]
struct Endpoint {
    database: Arc<AtomicU64>,
    socket: TcpListener,
    task: AbortHandle,
}

/// The open endpoints.
#[derive(Debug)]
pub(crate) struct Listeners {
    acceptor: Arc<Acceptor>,
    open: HashMap<SocketAddr, Endpoint>,
    /// Open, but not accepted from here: taken from the server before this one and not wanted by a configuration
    /// yet, or given to the one after it.
    inherited: HashMap<SocketAddr, TcpListener>,
    wanted: Vec<(SocketAddr, DatabaseUid)>,
    errors: HashMap<SocketAddr, String>,
}

impl Listeners {
    pub(crate) fn new(acceptor: Arc<Acceptor>, inherited: Vec<TcpListener>) -> Self {
        let inherited = inherited
            .into_iter()
            .filter_map(|socket| socket.local_addr().ok().map(|address| (address, socket)))
            .collect();
        Self {
            acceptor,
            open: HashMap::new(),
            inherited,
            wanted: Vec::new(),
            errors: HashMap::new(),
        }
    }

    /// Opens and closes endpoints as a configuration wants it.
    pub(crate) fn follow(&mut self, config: &ProxyConfig) {
        self.wanted = config
            .databases
            .iter()
            .flat_map(|database| {
                database
                    .listen
                    .iter()
                    .map(|address| (*address, database.uid))
            })
            .collect();
        let wanted: HashMap<SocketAddr, DatabaseUid> = self.wanted.iter().copied().collect();
        self.open.retain(|address, endpoint| {
            let keep = wanted.contains_key(address);
            if !keep {
                tracing::info!(%address, "an endpoint is closed");
                endpoint.task.abort();
            }
            keep
        });
        self.errors
            .retain(|address, _| wanted.contains_key(address));
        self.open_missing();
        self.inherited.clear();
    }

    /// Tries again what could not be opened.
    pub(crate) fn open_missing(&mut self) {
        for (address, uid) in self.wanted.clone() {
            if let Some(endpoint) = self.open.get(&address) {
                endpoint.database.store(uid.0, Ordering::Relaxed);
                continue;
            }
            let socket = match self.inherited.remove(&address) {
                Some(socket) => Ok(socket),
                None => listen(address),
            };
            match socket.and_then(|socket| self.start(address, uid, socket)) {
                Ok(()) => {
                    self.errors.remove(&address);
                    tracing::info!(%address, database = %uid, "an endpoint is open");
                }
                Err(error) => {
                    let text = format!("cannot listen on {address}: {error}");
                    if self.errors.insert(address, text).is_none() {
                        tracing::warn!(%address, database = %uid, %error, "an endpoint cannot be opened; it is tried again");
                    }
                }
            }
        }
    }

    fn start(
        &mut self,
        address: SocketAddr,
        uid: DatabaseUid,
        socket: TcpListener,
    ) -> std::io::Result<()> {
        socket.set_nonblocking(true)?;
        let database = Arc::new(AtomicU64::new(uid.0));
        let accepting = tokio::net::TcpListener::from_std(socket.try_clone()?)?;
        let task = tokio::spawn(accept(
            accepting,
            address,
            Arc::clone(&database),
            Arc::clone(&self.acceptor),
        ));
        self.open.insert(
            address,
            Endpoint {
                database,
                socket,
                task: task.abort_handle(),
            },
        );
        Ok(())
    }

    /// Whether a database's endpoints are open, and why one is not.
    pub(crate) fn state(&self, uid: DatabaseUid) -> (bool, Option<String>) {
        let mut of_it = self
            .wanted
            .iter()
            .filter(|(_, wanted)| *wanted == uid)
            .map(|(a, _)| a);
        let error = of_it
            .clone()
            .find_map(|address| self.errors.get(address).cloned());
        (of_it.all(|address| self.open.contains_key(address)), error)
    }

    /// The sockets, for a successor.
    pub(crate) fn sockets(&self) -> std::io::Result<Vec<TcpListener>> {
        self.open
            .values()
            .map(|endpoint| endpoint.socket.try_clone())
            .collect()
    }

    /// Accepts no more, but keeps the sockets: a successor has them, too, and may end before it is settled.
    /// [`Self::follow`] accepts again.
    pub(crate) fn park(&mut self) {
        for (address, endpoint) in self.open.drain() {
            endpoint.task.abort();
            self.inherited.insert(address, endpoint.socket);
        }
    }

    /// Of what is parked, closes what a configuration does not want any more.
    pub(crate) fn forget(&mut self, config: &ProxyConfig) {
        let wanted = |address: &SocketAddr| {
            config
                .databases
                .iter()
                .any(|database| database.listen.contains(address))
        };
        self.inherited.retain(|address, _| wanted(address));
    }

    /// Accepts no more.
    pub(crate) fn close(&mut self) {
        for (_, endpoint) in self.open.drain() {
            endpoint.task.abort();
        }
        self.inherited.clear();
        self.wanted.clear();
    }
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

async fn accept(
    listener: tokio::net::TcpListener,
    local: SocketAddr,
    database: Arc<AtomicU64>,
    acceptor: Arc<Acceptor>,
) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                if let Ok(stream) = stream.into_std() {
                    let uid = DatabaseUid(database.load(Ordering::Relaxed));
                    acceptor.admit(stream, peer, local, uid).await;
                }
            }
            Err(error) => {
                // Out of descriptors, or the client left already.
                tracing::warn!(%local, %error, "a client cannot be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

impl Acceptor {
    /// New clients go to these from now on.
    pub(crate) fn set_workers(&self, workers: Arc<[WorkerHandle]>) {
        *self.workers.lock().unwrap_or_else(PoisonError::into_inner) = workers;
    }

    /// Those that get clients.
    pub(crate) fn all_workers(&self) -> Arc<[WorkerHandle]> {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&workers)
    }

    /// What is served now.
    pub(crate) fn topology(&self) -> Option<Arc<Topology>> {
        let topology = self.topology.lock().unwrap_or_else(PoisonError::into_inner);
        topology.clone()
    }

    /// Gives a client to the worker with the fewest.
    fn give(&self, client: Accepted) -> Result<(), Message> {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        let client = Message::Client(client);
        match workers.iter().min_by_key(|worker| worker.clients()) {
            Some(worker) => worker.give(client),
            None => Err(client),
        }
    }

    fn database(&self, uid: DatabaseUid) -> Option<Arc<Database>> {
        let topology = self.topology.lock().unwrap_or_else(PoisonError::into_inner);
        topology.as_ref()?.databases.get(&uid).cloned()
    }

    /// What has as many clients as it may have, and how many those are.
    fn full(&self, database: &Database) -> Option<(&'static str, usize)> {
        let of_database = match usize::try_from(database.max_connections) {
            Ok(0) | Err(_) => usize::MAX,
            Ok(most) => most,
        };
        let connections = database.stats.connections.load(Ordering::Relaxed)
            + database.stats.elsewhere.load(Ordering::Relaxed);
        let all = self.stats.connections.load(Ordering::Relaxed);
        let sockets = self.stats.sockets.load(Ordering::Relaxed);
        let limits = [
            ("max_connections of the database", connections, of_database),
            (
                "the descriptors of the process for clients",
                all,
                self.stats.clients_max(),
            ),
            (
                "the descriptors of the process",
                sockets,
                self.stats.sockets_max,
            ),
        ];
        let mut reached = limits.into_iter().filter(|(_, there, most)| there >= most);
        reached.next().map(|(limit, there, _)| (limit, there))
    }

    fn tell_refusal(&self, database: &Database, (limit, clients): (&'static str, usize)) {
        let mut told = self
            .refusals_told
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if told.is_some_and(|told| told.elapsed() < TELL_REFUSALS) {
            return;
        }
        *told = Some(Instant::now());
        let (uid, name) = (database.uid, &database.name);
        tracing::warn!(database = %uid, %name, limit, clients, "clients are refused: as many are there as may be");
    }

    async fn admit(
        &self,
        stream: std::net::TcpStream,
        peer: SocketAddr,
        local: SocketAddr,
        uid: DatabaseUid,
    ) {
        let Some(database) = self.database(uid) else {
            return;
        };
        if let Some(full) = self.full(&database) {
            database.stats.refused.fetch_add(1, Ordering::Relaxed);
            self.tell_refusal(&database, full);
            let mut stream = stream;
            // It may have left already; there is nobody else to tell.
            let _ = stream.write(texts::MAX_CLIENTS);
            return;
        }
        let keepalive = socket2::TcpKeepalive::new().with_time(KEEPALIVE);
        let socket = socket2::SockRef::from(&stream);
        if let Err(error) = stream
            .set_nodelay(true)
            .and_then(|()| socket.set_tcp_keepalive(&keepalive))
        {
            tracing::debug!(%peer, %error, "a client left at once");
            return;
        }
        database.stats.accepted.fetch_add(1, Ordering::Relaxed);
        database.stats.connections.fetch_add(1, Ordering::Relaxed);
        self.stats.connections.fetch_add(1, Ordering::Relaxed);
        self.stats.sockets.fetch_add(1, Ordering::Relaxed);
        let id = self.stats.ids.next();
        let mut client = Accepted {
            id,
            stream,
            peer,
            local,
            database,
        };
        loop {
            match self.give(client) {
                Ok(()) => return,
                Err(Message::Client(back)) => client = back,
                Err(_) => return,
            }
            // The inbox is full: the kernel keeps further clients meanwhile.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}
