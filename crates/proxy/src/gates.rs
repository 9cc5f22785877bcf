//! Orders about gates ([`model::gate`]): they go to all workers, and are answered when all have done it.
//!
//! Which gates are closed is kept on disk, so that a server that starts does not send to a primary that
//! may be one no more. The file is not synced: it is for the end of the process, not of the machine,
//! after which no engine comes back under the same epoch.

use crate::bounds;
use crate::worker::{GateOutcome, GateTask, Message, WorkerHandle};
use anyhow::Context;
use model::gate::{Answer, GateOrder, Order};
use model::proxy::{ProxyConfig, ProxyDatabase};
use model::{DatabaseUid, Epoch, ShardUid};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};

/// A gate that is closed, or may be: nothing is sent to this primary under this epoch or an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Closed {
    /// The primary.
    pub(crate) shard: ShardUid,
    /// Its epoch.
    pub(crate) epoch: Epoch,
    /// After how long clients get an error, ms.
    pub(crate) patience_ms: u32,
}

/// An order, and the way for its answer: that of the connection it came over.
#[derive(Debug)]
pub(crate) struct Asked {
    /// The order.
    pub(crate) order: Order,
    /// Takes one answer.
    pub(crate) answers: mpsc::Sender<Answer>,
}

/// The gates that are closed, on disk as here.
#[derive(Debug)]
struct Kept {
    path: PathBuf,
    closed: BTreeMap<DatabaseUid, Vec<Closed>>,
}

/// What is known of gates on the control thread.
#[derive(Debug)]
pub(crate) struct Gates {
    kept: Arc<Mutex<Kept>>,
    /// Orders that may be under way.
    places: Arc<Semaphore>,
}

impl Gates {
    /// Those that were closed when the last server ended; `config` is what it served.
    pub(crate) fn load(path: PathBuf, config: Option<&ProxyConfig>) -> Self {
        let closed = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                tracing::error!(path = %path.display(), %error, "the closed gates cannot be read: all are closed until a new epoch");
                config.map(all_closed).unwrap_or_default()
            }),
            Err(_) => BTreeMap::new(),
        };
        let gates = Self {
            kept: Arc::new(Mutex::new(Kept { path, closed })),
            places: Arc::new(Semaphore::new(bounds::GATE_ORDERS)),
        };
        if let Some(config) = config {
            gates.forget_opened(config);
        }
        gates
    }

    /// The closed gates of a database.
    pub(crate) fn of(&self, database: DatabaseUid) -> Vec<Closed> {
        let kept = lock(&self.kept);
        kept.closed.get(&database).cloned().unwrap_or_default()
    }

    /// Whether no gate of a database is closed or being moved.
    pub(crate) fn are_open(&self, database: DatabaseUid) -> bool {
        self.of(database).is_empty() && self.places.available_permits() == bounds::GATE_ORDERS
    }

    /// Forgets the gates that a configuration, which is kept by now, has opened for ever. One that an order
    /// has opened stays noted until then: the configuration on disk still names the old primary.
    pub(crate) fn forget_opened(&self, config: &ProxyConfig) {
        let mut kept = lock(&self.kept);
        let before = kept.closed.clone();
        kept.closed.retain(|uid, gates| {
            let database = config.databases.iter().find(|known| known.uid == *uid);
            gates.retain(|gate| database.is_some_and(|database| names(database, *gate)));
            !gates.is_empty()
        });
        if kept.closed != before {
            kept.keep();
        }
    }

    /// Gives an order to all workers; it is answered when they have done it.
    pub(crate) async fn order(&self, asked: Asked, workers: &[WorkerHandle]) {
        let Asked { order, answers } = asked;
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            let refusal = "too many orders are under way; try again".to_owned();
            // The connection is gone, or does not read: then nobody waits for the answer.
            let _ = answers.try_send(refused(order.id, refusal));
            return;
        };
        let (sender, outcomes) = mpsc::channel(workers.len());
        for worker in workers {
            let mut message = Message::Gate(Box::new(GateTask {
                database: order.database,
                what: order.what.clone(),
                answer: sender.clone(),
            }));
            while let Err(back) = worker.tell(message) {
                message = back;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        drop(sender);
        let (kept, count) = (Arc::clone(&self.kept), workers.len());
        tokio::spawn(async move {
            let answer = gather(order.id, count, outcomes).await;
            if answer.refusal.is_none() {
                lock(&kept).note(order.database, &order.what);
            }
            let _ = answers.send(answer).await;
            drop(place);
        });
    }
}

impl Kept {
    /// Notes a gate that is closed, if that was the order.
    fn note(&mut self, database: DatabaseUid, what: &GateOrder) {
        let GateOrder::Hold {
            shard,
            epoch,
            patience_ms,
        } = *what
        else {
            return;
        };
        let gate = Closed {
            shard,
            epoch,
            patience_ms,
        };
        let gates = self.closed.entry(database).or_default();
        gates.retain(|known| known.shard != shard);
        gates.push(gate);
        self.keep();
    }

    fn keep(&self) {
        if let Err(error) = store(&self.path, &self.closed) {
            tracing::error!("the closed gates are not kept: {error:#}");
        }
    }
}

/// Whether a database still has the primary of a gate under its epoch or an earlier one.
fn names(database: &ProxyDatabase, gate: Closed) -> bool {
    database
        .shards
        .iter()
        .any(|shard| shard.uid == gate.shard && shard.epoch <= gate.epoch)
}

/// Every shard's gate, with no patience.
fn all_closed(config: &ProxyConfig) -> BTreeMap<DatabaseUid, Vec<Closed>> {
    let of = |database: &ProxyDatabase| {
        let gates = database.shards.iter().map(|shard| Closed {
            shard: shard.uid,
            epoch: shard.epoch,
            patience_ms: 0,
        });
        (database.uid, gates.collect())
    };
    config.databases.iter().map(of).collect()
}

/// Where they are, beside the configuration.
pub(crate) fn path(config: &Path) -> PathBuf {
    config.with_file_name("proxy-gates.json")
}

fn store(path: &Path, closed: &BTreeMap<DatabaseUid, Vec<Closed>>) -> anyhow::Result<()> {
    let folder = path.parent().context("the path has no folder")?;
    let draft = path.with_extension("json.new");
    let write = || -> std::io::Result<()> {
        std::fs::create_dir_all(folder)?;
        let mut file = std::fs::File::options()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&draft)?;
        file.write_all(&serde_json::to_vec(closed)?)?;
        std::fs::rename(&draft, path)
    };
    write().with_context(|| format!("writing {}", path.display()))
}

fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

fn refused(id: u64, refusal: String) -> Answer {
    Answer {
        id,
        refusal: Some(refusal),
        held_us: 0,
        waited: 0,
    }
}

/// Puts the workers' outcomes together.
async fn gather(id: u64, count: usize, mut outcomes: mpsc::Receiver<GateOutcome>) -> Answer {
    let mut answer = Answer {
        id,
        refusal: None,
        held_us: 0,
        waited: 0,
    };
    for _ in 0..count {
        let Some(outcome) = outcomes.recv().await else {
            let text = "the database is not served any more".to_owned();
            answer.refusal.get_or_insert(text);
            break;
        };
        answer.held_us = answer.held_us.max(outcome.held_us);
        answer.waited += outcome.waited;
        if let Some(refusal) = outcome.refusal {
            answer.refusal.get_or_insert(refusal);
        }
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(shard: u64, epoch: u64) -> Closed {
        Closed {
            shard: ShardUid(shard),
            epoch: Epoch(epoch),
            patience_ms: 5,
        }
    }

    fn config(shard: u64, epoch: u64) -> ProxyConfig {
        let text = format!(
            r#"{{"revision":1,"cluster_id":"c","node":1,"databases":[{{"uid":1,"name":"d","listen":[],
            "password":null,"max_connections":0,"shards":[{{"uid":{shard},"epoch":{epoch},
            "slots":{{"first":0,"last":16383}},"address":{{"tcp":"127.0.0.1:1"}},"user":"u","password":"p"}}]}}]}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn closed_gates_are_known_after_a_restart_until_a_higher_epoch() {
        let folder = tempfile::tempdir().unwrap();
        let path = path(&folder.path().join("persist/proxy-config.json"));
        let gates = Gates::load(path.clone(), Some(&config(1, 3)));
        let hold = GateOrder::Hold {
            shard: ShardUid(1),
            epoch: Epoch(3),
            patience_ms: 5,
        };
        lock(&gates.kept).note(DatabaseUid(1), &hold);
        let gates = Gates::load(path.clone(), Some(&config(1, 3)));
        assert_eq!(gates.of(DatabaseUid(1)), [gate(1, 3)]);
        // The same primary again, or another one.
        for next in [config(1, 4), config(2, 4)] {
            let gates = Gates::load(path.clone(), Some(&config(1, 3)));
            lock(&gates.kept).note(DatabaseUid(1), &hold);
            gates.forget_opened(&next);
            assert_eq!(gates.of(DatabaseUid(1)), []);
            let gates = Gates::load(path.clone(), Some(&next));
            assert_eq!(gates.of(DatabaseUid(1)), []);
        }
    }

    #[test]
    fn what_cannot_be_read_closes_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("proxy-gates.json");
        std::fs::write(&path, "{").unwrap();
        let gates = Gates::load(path, Some(&config(7, 2)));
        let closed: Vec<ShardUid> = gates.of(DatabaseUid(1)).iter().map(|g| g.shard).collect();
        assert_eq!(closed, [ShardUid(7)]);
    }
}
