//! Counters. Every worker writes only its own; the control thread adds them up once a second. Nothing
//! here makes a worker wait: it writes what only it writes, without a lock, and what it has to say of
//! slow commands goes into a bounded queue.
//!
//! | file | what |
//! |---|---|
//! | [`counters`] | what a worker counts of a database |
//! | [`histogram`] | how long shards took |
//! | [`window`] | what was counted, in all and in the last second |
//! | [`slow`] | the slow log |

mod counters;
mod histogram;
pub(crate) mod slow;
mod window;

use histogram::{Histogram, Times};

pub(crate) use counters::{Answered, ErrorKind, Tally, WorkerStats};
pub(crate) use window::{Sum, Window};

use crate::client_ids::ClientIds;
use crate::wishes::Wished;
use crate::worker::ForOthers;
use model::observation::{HandoverCounts, ProxyCounts, ProxyDatabaseObservation};
use std::sync::atomic::{
    AtomicBool, AtomicU64, AtomicUsize, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;
use tokio::sync::mpsc;

/// Counters of the whole process.
#[derive(Debug)]
pub(crate) struct ServerStats {
    /// Client connections.
    pub(crate) connections: AtomicUsize,
    /// Sockets to clients and shards.
    pub(crate) sockets: AtomicUsize,
    /// Most sockets at a time, from the descriptor limit.
    pub(crate) sockets_max: usize,
    /// Clients on their way from or to another process. While there are any, no gate is held.
    pub(crate) carried: AtomicUsize,
    /// What another process gave to this one, and what it kept.
    pub(crate) handed: Handed,
    /// Another process gives clients to this one.
    pub(crate) takes_over: AtomicBool,
    /// This process gives its clients to another one.
    pub(crate) gives: AtomicBool,
    /// Numbers of clients.
    pub(crate) ids: ClientIds,
    /// Where workers tell of slow commands.
    pub(crate) slow: slow::Queue,
    /// Where workers tell of what clients wish of the whole database.
    pub(crate) wishes: mpsc::Sender<Wished>,
    /// Where workers tell of questions that other proxies are to answer too.
    pub(crate) questions: mpsc::Sender<ForOthers>,
}

/// What a handover has brought.
#[derive(Debug, Default)]
pub(crate) struct Handed {
    /// Whether there was one.
    any: AtomicBool,
    adopted: AtomicU64,
    kept: AtomicU64,
    /// The longest time between a client's two workers, ns.
    longest: AtomicU64,
    /// That time of each client.
    pauses: Histogram,
}

impl Handed {
    /// Clients are served here from now on; `left_at`: when each of them left its worker, ns, 0 if that is not known.
    /// One thread says so.
    pub(crate) fn adopted(&self, left_at: impl Iterator<Item = u64>) {
        let now = crate::leases::now().0;
        for left_at in left_at {
            self.adopted.fetch_add(1, Relaxed);
            if left_at > 0 {
                let pause = now.saturating_sub(left_at);
                self.longest.fetch_max(pause, Relaxed);
                self.pauses.add(pause / 1_000, 1);
            }
        }
        self.any.store(true, Release);
    }

    /// The other process keeps so many.
    pub(crate) fn kept(&self, count: u64) {
        self.kept.store(count, Relaxed);
        self.any.store(true, Release);
    }

    /// What is told of it.
    pub(crate) fn counts(&self) -> Option<HandoverCounts> {
        self.any.load(Acquire).then(|| {
            let mut pauses = Times::default();
            self.pauses.add_to(&mut pauses);
            let longest = self.longest.load(Relaxed) / 1_000;
            HandoverCounts {
                adopted: self.adopted.load(Relaxed),
                left: self.kept.load(Relaxed),
                longest_pause_us: longest,
                // Known to the middle of a bucket.
                p99_pause_us: (longest > 0).then(|| pauses.summary().p99_us.min(longest)),
            }
        })
    }
}

impl ServerStats {
    /// For a process that may open `descriptors` files.
    #[must_use]
    pub(crate) fn new(
        descriptors: u64,
        ids: ClientIds,
        (wishes, questions): (mpsc::Sender<Wished>, mpsc::Sender<ForOthers>),
    ) -> Self {
        let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
        Self {
            connections: AtomicUsize::new(0),
            sockets: AtomicUsize::new(0),
            carried: AtomicUsize::new(0),
            handed: Handed::default(),
            takes_over: AtomicBool::new(false),
            gives: AtomicBool::new(false),
            sockets_max: descriptors.saturating_sub(128).max(16),
            ids,
            slow: slow::Queue::default(),
            wishes,
            questions,
        }
    }

    /// Whether some clients of the databases may be with another process.
    #[must_use]
    pub(crate) fn is_divided(&self) -> bool {
        self.takes_over.load(Acquire) || self.gives.load(Acquire)
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
    /// Those that an earlier process still has; they count for the limit.
    pub(crate) elsewhere: AtomicUsize,
    /// Connections that were accepted; only the control thread accepts.
    pub(crate) accepted: AtomicU64,
    /// Connections that were too many.
    pub(crate) refused: AtomicU64,
    /// By the workers' numbers. A worker that takes the place of one that has ended goes on counting
    /// where that stopped. Written only when a worker comes.
    workers: RwLock<Vec<Arc<OfWorker>>>,
    /// Only the control thread looks here.
    shown: Mutex<Shown>,
}

/// One worker's part.
#[derive(Debug, Default)]
struct OfWorker {
    stats: Arc<WorkerStats>,
    link: LinkState,
}

/// Whether a worker reaches the shards. Written when that changes.
#[derive(Debug, Default)]
struct LinkState {
    connected: AtomicBool,
    error: Mutex<Option<String>>,
}

#[derive(Debug)]
struct Shown {
    window: Window,
    slow: slow::Ring,
}

impl Default for DatabaseStats {
    fn default() -> Self {
        Self {
            connections: AtomicUsize::new(0),
            elsewhere: AtomicUsize::new(0),
            accepted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            workers: RwLock::default(),
            shown: Mutex::new(Shown {
                window: Window::new(Instant::now()),
                slow: slow::Ring::default(),
            }),
        }
    }
}

impl DatabaseStats {
    fn part(&self, worker: usize) -> Arc<OfWorker> {
        let known = self.parts().get(worker).cloned();
        known.unwrap_or_else(|| {
            let mut parts = self.workers.write().unwrap_or_else(PoisonError::into_inner);
            if parts.len() <= worker {
                parts.resize_with(worker + 1, Arc::default);
            }
            Arc::clone(&parts[worker])
        })
    }

    fn parts(&self) -> std::sync::RwLockReadGuard<'_, Vec<Arc<OfWorker>>> {
        self.workers.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a worker writes.
    #[must_use]
    pub(crate) fn of_worker(&self, worker: usize) -> Arc<WorkerStats> {
        Arc::clone(&self.part(worker).stats)
    }

    /// A worker reaches the shard, or why not.
    pub(crate) fn set_link(&self, worker: usize, state: Result<(), String>) {
        let part = self.part(worker);
        let link = &part.link;
        link.connected.store(state.is_ok(), Relaxed);
        *link.error.lock().unwrap_or_else(PoisonError::into_inner) = state.err();
    }

    /// Whether each of these workers reaches the shards, and why one does not.
    #[must_use]
    pub(crate) fn link(&self, workers: &[usize]) -> (bool, Option<String>) {
        let links: Vec<Arc<OfWorker>> = workers.iter().map(|worker| self.part(*worker)).collect();
        let reached = links.iter().all(|part| part.link.connected.load(Relaxed));
        // Who reaches all has no error: no lock is needed to know that.
        let error = (!reached).then(|| {
            links.iter().find_map(|part| {
                part.link
                    .error
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clone()
            })
        });
        (reached, error.flatten())
    }

    /// From now on so many slow commands are kept.
    pub(crate) fn keep_slow_commands(&self, most: usize) {
        self.shown().slow.keep(most);
    }

    /// Keeps a slow command.
    pub(crate) fn keep_slow(&self, command: slow::Slow) {
        self.shown().slow.push(command);
    }

    /// What is told of it, but for its links. It is added to what is told of the whole proxy.
    #[must_use]
    pub(crate) fn observe(&self, now: Instant, whole: &mut Sum) -> ProxyDatabaseObservation {
        let mut sum = Sum {
            counts: ProxyCounts {
                accepted: self.accepted.load(Relaxed),
                refused: self.refused.load(Relaxed),
                ..ProxyCounts::default()
            },
            ..Sum::default()
        };
        for worker in self.parts().iter() {
            worker.stats.add_to(&mut sum);
        }
        whole.add(&sum);
        let mut shown = self.shown();
        let (commands, in_flight) = (sum.commands(), sum.in_flight);
        let since_start = sum.counts;
        shown.window.see(now, sum);
        ProxyDatabaseObservation {
            connections: self.connections.load(Relaxed) as u64,
            commands,
            in_flight,
            since_start,
            per_second: shown.window.per_second(),
            latency: shown.window.latency(),
            slow: shown.slow.newest(),
            ..ProxyDatabaseObservation::default()
        }
    }

    fn shown(&self) -> std::sync::MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use model::DatabaseUid;
    use resp::command::Kind;

    #[test]
    fn who_looks_keeps_no_worker_waiting() {
        let (server, database) = (
            ServerStats::new(
                1024,
                ClientIds::from(0),
                (mpsc::channel(1).0, mpsc::channel(1).0),
            ),
            DatabaseStats::default(),
        );
        let worker = database.of_worker(0);
        // The control thread is in the middle of looking at everything, and stays there.
        let _looking = database.shown();
        let _taking = server.slow.hold();
        for _ in 0..1000 {
            worker.count_requests(Tally::one(Kind::Read));
            worker.count_sent(1);
            worker.count_answered(Tally::one(Kind::Read), 1, Answered::Shared(20_000));
            worker.count_errors(ErrorKind::Engine, 1);
            server.slow.tell(slow::Slow {
                database: DatabaseUid(1),
                when: Timestamp::UNIX_EPOCH,
                peer: "127.0.0.1:1".parse().unwrap(),
                client_name: Vec::new(),
                head: slow::Head::EMPTY,
                pipelined: 1,
                shard_us: 20_000,
                behind_us: 0,
                proxy_us: 0,
            });
        }
        let mut sum = Sum::default();
        worker.add_to(&mut sum);
        assert_eq!((sum.commands(), sum.counts.errors.engine), (1000, 1000));
    }
}
