//! What the control thread does when clients of the server before come over.

use super::Server;
use crate::gates::Gates;
use crate::handover::record::{BackendRecord, BoxedRecord, ClientRecord};
use crate::handover::{Adopted, Standing, Verdict};
use crate::topology::{Database, Topology};
use crate::worker::WorkerHandle;
use model::{DatabaseUid, Revision};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long the configuration of `cnm_exec` is waited for before the one on disk will do.
const CONFIG_WAIT: Duration = Duration::from_secs(1);
/// How long shards and leases are waited for.
const READY_WAIT: Duration = Duration::from_secs(5);

/// When this server began, and what it has heard of others.
#[derive(Debug)]
pub(super) struct Readiness {
    began: Instant,
    /// The configuration of `cnm_exec` has come.
    heard: bool,
    /// The revision that the server before serves, while it gives its clients away.
    before: Option<Revision>,
}

impl Readiness {
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            heard: false,
            before: None,
        }
    }

    /// The revision that is served on this node, if this server serves that one: the server before may be
    /// behind.
    pub(super) fn applied(&self, own: Revision) -> Revision {
        self.before.map_or(own, |before| before.min(own))
    }

    pub(super) const fn heard(&mut self) {
        self.heard = true;
    }
}

impl Server {
    pub(super) fn adopt(&mut self, question: Adopted) {
        match question {
            // Whoever asked may be gone.
            Adopted::Ready(answer) => drop(answer.send(self.is_ready())),
            Adopted::Check(records, answer) => {
                let verdicts = self.check(&records);
                if let Err((records, verdicts)) = answer.send((records, verdicts)) {
                    self.not_adopted(&records, &verdicts);
                }
            }
            Adopted::Standing(standing) => {
                self.note_standing(&standing);
                self.readiness.before = Some(Revision(standing.applied));
            }
            Adopted::Over => {
                self.note_standing(&Standing::default());
                self.readiness.before = None;
                self.stats.takes_over.store(false, Ordering::Release);
            }
        }
    }

    /// Whether clients may come: the newest configuration is served, as far as can be known.
    fn is_ready(&self) -> bool {
        let waited = self.readiness.began.elapsed();
        let topology = self.acceptor.topology();
        let all = topology.iter().flat_map(|all| all.databases.values());
        let numbers = self.numbers();
        let mut all = all;
        let usable = all.all(|database| {
            database.stats.link(&numbers).0 && (database.shards.is_empty() || is_leased(database))
        });
        (self.readiness.heard || waited >= CONFIG_WAIT) && (usable || waited >= READY_WAIT)
    }

    /// Says which clients can be served here. Those count from now on.
    fn check(&self, records: &[BoxedRecord]) -> Vec<Verdict> {
        let topology = self.acceptor.topology();
        let verdict = |record: &BoxedRecord| {
            let database = database(topology.as_deref()?, record)?;
            if self.leaving() || !may_come(&database, record, &self.gates) {
                return None;
            }
            let (sockets, stats) = (record.sockets(), &self.stats);
            if stats.sockets.load(Ordering::Acquire) + sockets > stats.sockets_max {
                return None;
            }
            stats.carried.fetch_add(1, Ordering::AcqRel);
            stats.sockets.fetch_add(sockets, Ordering::AcqRel);
            stats.connections.fetch_add(1, Ordering::AcqRel);
            let of_it = &database.stats;
            of_it.connections.fetch_add(1, Ordering::AcqRel);
            let elsewhere = of_it.elsewhere.load(Ordering::Acquire);
            // Only this thread writes it.
            of_it
                .elsewhere
                .store(elsewhere.saturating_sub(1), Ordering::Release);
            Some(database)
        };
        records.iter().map(verdict).collect()
    }

    fn not_adopted(&self, records: &[BoxedRecord], verdicts: &[Verdict]) {
        for (record, database) in records.iter().zip(verdicts) {
            if let Some(database) = database {
                let stats = &self.stats;
                stats.carried.fetch_sub(1, Ordering::AcqRel);
                stats.sockets.fetch_sub(record.sockets(), Ordering::AcqRel);
                stats.connections.fetch_sub(1, Ordering::AcqRel);
                database.stats.connections.fetch_sub(1, Ordering::AcqRel);
            }
        }
    }

    /// Notes what the old server still has; what is not named it has not.
    pub(super) fn note_standing(&self, standing: &Standing) {
        let Some(topology) = self.acceptor.topology() else {
            return;
        };
        for database in topology.databases.values() {
            let known = standing
                .databases
                .iter()
                .find(|at| at.database == database.uid.0);
            let count = known.map_or(0, |at| at.connections);
            database.stats.elsewhere.store(count, Ordering::Release);
            if let Some(pause) = known.and_then(|at| at.pause) {
                database.pause.take_over(pause);
            }
        }
        for worker in self.workers.all().iter() {
            WorkerHandle::nudge(worker);
        }
    }
}

fn is_leased(database: &Database) -> bool {
    let lease = database.lease.as_ref();
    lease.is_none_or(|lease| lease.sets.iter().all(|until| until.holds_now()))
}

fn database(topology: &Topology, record: &ClientRecord) -> Option<Arc<Database>> {
    let database = topology.databases.get(&DatabaseUid(record.database));
    database.cloned()
}

/// Whether a client can be served under what is served here now.
fn may_come(database: &Database, record: &ClientRecord, gates: &Gates) -> bool {
    let ends = database.shards.iter().map(|shard| shard.slots.last);
    // Without a primary the shards are as they were.
    let fits = database.shards.is_empty() || ends.eq(record.ends.iter().copied());
    let current = |(place, backend): (usize, &BackendRecord)| {
        database.shards.get(place).is_some_and(|shard| {
            shard.serving && (shard.uid.0, shard.epoch.0) == (backend.shard, backend.epoch)
        })
    };
    fits && is_leased(database) && gates.are_open(database.uid) && record.backends().all(current)
}
