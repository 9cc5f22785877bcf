//! The way to a worker, for other threads.

use super::Gather;
use super::carry::Carried;
use super::client::ClientId;
use super::depart::Away;
use super::gate::Task;
use super::moving::Moved;
use crate::handover::record::ScriptsRecord;
use crate::topology::{Database, Topology};
use mio::Waker;
use model::{DatabaseUid, Revision};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::Duration;

/// A connection that was accepted.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) id: u64,
    pub(crate) stream: std::net::TcpStream,
    pub(crate) peer: SocketAddr,
    pub(crate) local: SocketAddr,
    /// Its database as of the moment when it was accepted.
    pub(crate) database: Arc<Database>,
}

/// What a worker is told.
#[derive(Debug)]
pub(crate) enum Message {
    /// Serve this client.
    Client(Accepted),
    /// Serve this client, which another worker has served.
    Moved(Box<Moved>),
    /// Serve these clients, which another process has served, or which come back from there.
    Carried(Vec<Carried>),
    /// Scripts that another process has seen.
    Scripts(Arc<[ScriptsRecord]>),
    /// Give clients to another process.
    Depart(Away),
    /// Give it no more.
    Stay,
    /// Give clients to these workers as long as there are more than `keep`.
    Share {
        with: Arc<[WorkerHandle]>,
        keep: u64,
    },
    /// What this client wished is in force, or why not.
    Wished(ClientId, Option<String>),
    /// Serve this from the next turn on.
    Topology(Arc<Topology>),
    /// A lease has run out, or is there again.
    Leases,
    /// Add to an answer.
    Gather(Arc<Gather>),
    /// A client has had the scripts of this database forgotten.
    ForgetScripts(DatabaseUid),
    /// Do something about a gate.
    Gate(Box<Task>),
    /// An answer that was asked for is complete.
    Gathered(Arc<Gather>),
    /// Close clients that have nothing under way; the others as soon as they have not.
    Drain,
    /// Close everything and end.
    Stop,
}

/// The way to a worker, for other threads.
#[derive(Clone, Debug)]
pub(crate) struct WorkerHandle {
    number: usize,
    inbox: SyncSender<Message>,
    waker: Arc<Waker>,
    state: Arc<WorkerState>,
}

/// What others may see of a worker.
#[derive(Debug, Default)]
pub(crate) struct WorkerState {
    pub(crate) applied: AtomicU64,
    /// Edition of the topology that it serves.
    pub(crate) edition: AtomicU64,
    /// Its thread, as the system names it; 0: it does not run yet.
    pub(crate) thread: AtomicU64,
    pub(crate) clients: AtomicU64,
    /// How long it has looked for events instead of going to sleep, ns.
    looked: AtomicU64,
    /// How many turns it has had; it alone writes.
    turns: AtomicU64,
    /// How often commands of a client were looked at, and how many were taken; it alone writes.
    asked: (AtomicU64, AtomicU64),
}

impl WorkerState {
    pub(super) fn looked(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.looked.fetch_add(nanos, Ordering::Relaxed);
    }

    /// A turn is over. `asked`: see there.
    pub(super) fn turned(&self, asked: (u64, u64)) {
        let turns = self.turns.load(Ordering::Relaxed);
        self.turns.store(turns.wrapping_add(1), Ordering::Relaxed);
        self.asked.0.store(asked.0, Ordering::Relaxed);
        self.asked.1.store(asked.1, Ordering::Relaxed);
    }
}

impl WorkerHandle {
    pub(super) fn new(number: usize, inbox: SyncSender<Message>, waker: Arc<Waker>) -> Self {
        Self {
            number,
            inbox,
            waker,
            state: Arc::default(),
        }
    }

    /// Its number among those that run at a time.
    pub(crate) fn number(&self) -> usize {
        self.number
    }

    /// Edition of the topology that it serves.
    pub(crate) fn edition(&self) -> u64 {
        self.state.edition.load(Ordering::Acquire)
    }

    /// What it has used of a processor for its clients, ns; `None`: the system does not say. Another worker would not
    /// take its looking off it.
    pub(crate) fn processor_time(&self) -> Option<u64> {
        let thread = self.state.thread.load(Ordering::Relaxed);
        let text = std::fs::read_to_string(format!("/proc/self/task/{thread}/schedstat")).ok()?;
        let used: u64 = text.split_ascii_whitespace().next()?.parse().ok()?;
        Some(used.saturating_sub(self.state.looked.load(Ordering::Relaxed)))
    }

    pub(super) fn state(&self) -> Arc<WorkerState> {
        Arc::clone(&self.state)
    }

    /// Tells it something.
    ///
    /// # Errors
    /// Its inbox is full, or it has ended; the message comes back.
    pub(crate) fn tell(&self, message: Message) -> Result<(), Message> {
        match self.inbox.try_send(message) {
            Ok(()) => {
                // A waker fails only without memory; the worker then wakes for the next socket.
                let _ = self.waker.wake();
                Ok(())
            }
            Err(TrySendError::Full(message) | TrySendError::Disconnected(message)) => Err(message),
        }
    }

    /// Gives it a client, which counts from now on.
    ///
    /// # Errors
    /// Its inbox is full; the client comes back.
    pub(crate) fn give(&self, client: Message) -> Result<(), Message> {
        self.state.clients.fetch_add(1, Ordering::Relaxed);
        self.tell(client).inspect_err(|_| {
            self.state.clients.fetch_sub(1, Ordering::Relaxed);
        })
    }

    /// Gives it clients of another process, which count from now on.
    ///
    /// # Errors
    /// Its inbox is full; they come back.
    pub(crate) fn give_all(&self, clients: Vec<Carried>) -> Result<(), Vec<Carried>> {
        let count = clients.len() as u64;
        self.state.clients.fetch_add(count, Ordering::Relaxed);
        self.tell(Message::Carried(clients)).map_err(|back| {
            self.state.clients.fetch_sub(count, Ordering::Relaxed);
            match back {
                Message::Carried(clients) => clients,
                _ => Vec::new(),
            }
        })
    }

    /// How many turns it has had.
    pub(crate) fn turns(&self) -> u64 {
        self.state.turns.load(Ordering::Relaxed)
    }

    /// How often commands of a client were looked at, and how many were taken.
    pub(crate) fn asked(&self) -> (u64, u64) {
        let (looks, taken) = &self.state.asked;
        (looks.load(Ordering::Relaxed), taken.load(Ordering::Relaxed))
    }

    /// Wakes it: it has a turn.
    pub(crate) fn nudge(&self) {
        let _ = self.waker.wake();
    }

    /// Clients that it has or was given.
    pub(crate) fn clients(&self) -> u64 {
        self.state.clients.load(Ordering::Relaxed)
    }

    /// Revision that it serves.
    pub(crate) fn applied(&self) -> Revision {
        Revision(self.state.applied.load(Ordering::Acquire))
    }
}
