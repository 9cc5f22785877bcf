//! Counters. Every worker writes only its own; readers add them up.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

/// Counters of the whole process.
#[derive(Debug)]
pub(crate) struct ServerStats {
    /// Client connections.
    pub(crate) connections: AtomicUsize,
    /// Sockets to clients and shards.
    pub(crate) sockets: AtomicUsize,
    /// Most sockets at a time, from the descriptor limit.
    pub(crate) sockets_max: usize,
    /// Id of the next client.
    pub(crate) next_client: AtomicU64,
}

impl ServerStats {
    /// For a process that may open `descriptors` files.
    #[must_use]
    pub(crate) fn new(descriptors: u64, next_client: u64) -> Self {
        let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
        Self {
            connections: AtomicUsize::new(0),
            sockets: AtomicUsize::new(0),
            sockets_max: descriptors.saturating_sub(128).max(16),
            next_client: AtomicU64::new(next_client.max(1)),
        }
    }

    /// Most clients: some descriptors stay for connections to shards.
    #[must_use]
    pub(crate) fn clients_max(&self) -> usize {
        self.sockets_max - self.sockets_max / 8
    }
}

/// Counters of one database.
#[derive(Debug)]
pub(crate) struct DatabaseStats {
    /// Client connections, those included that a worker has not taken yet.
    pub(crate) connections: AtomicUsize,
    workers: Box<[Cell]>,
}

/// What one worker writes, on a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Cell {
    commands: AtomicU64,
    connected: AtomicBool,
    error: Mutex<Option<String>>,
}

impl DatabaseStats {
    /// For so many workers.
    #[must_use]
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            connections: AtomicUsize::new(0),
            workers: (0..workers).map(|_| Cell::default()).collect(),
        }
    }

    /// Counts commands.
    pub(crate) fn add_commands(&self, worker: usize, count: u64) {
        self.workers[worker].commands.fetch_add(count, Relaxed);
    }

    /// Commands of all workers.
    #[must_use]
    pub(crate) fn commands(&self) -> u64 {
        self.workers
            .iter()
            .map(|cell| cell.commands.load(Relaxed))
            .sum()
    }

    /// A worker reaches the shard, or why not.
    pub(crate) fn set_link(&self, worker: usize, state: Result<(), String>) {
        let cell = &self.workers[worker];
        cell.connected.store(state.is_ok(), Relaxed);
        *cell.error.lock().unwrap_or_else(PoisonError::into_inner) = state.err();
    }

    /// Whether every worker reaches the shards, and why one does not.
    #[must_use]
    pub(crate) fn link(&self) -> (bool, Option<String>) {
        let error = self.workers.iter().find_map(|cell| {
            cell.error
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone()
        });
        (
            self.workers.iter().all(|cell| cell.connected.load(Relaxed)),
            error,
        )
    }
}
