//! The old server's side of handing over clients.

use super::clients::{DatabaseStanding, FromNew, FromOld, Standing};
use super::flight::{Flight, file};
use super::packet::{TEST_ENV, is_late, receive, send};
use super::record;
use crate::listeners::Acceptor;
use crate::worker::{Away, Carried, Message, Parcel, WorkerHandle};
use anyhow::{Context, bail};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

/// How often the new server is told how many clients are left.
pub(super) const TELL: Duration = Duration::from_millis(100);
/// How long the new server may take to be ready.
const READY_WAIT: Duration = Duration::from_secs(30);
/// Most databases that are told of: the message is one packet.
const STANDING_MAX: usize = 1000;
/// Batches that wait for the new server.
const BATCHES: usize = 1;

/// What the handover's thread needs of the server.
#[derive(Debug)]
pub(crate) struct Giving {
    pub(crate) workers: Arc<[WorkerHandle]>,
    pub(crate) acceptor: Arc<Acceptor>,
    /// Clients that have not gone by then are kept.
    pub(crate) until: Instant,
}

/// Hands all clients over. Blocks until they have gone, or the time is over. `ahead`: the new server takes a batch
/// while it waits for the word about another.
///
/// # Errors
/// The new server has ended, or is not understood: the clients that it has not taken are served on.
pub(super) fn give(connection: BorrowedFd<'_>, giving: &Giving, ahead: bool) -> anyhow::Result<()> {
    wait_until_ready(connection).context("the new server is not ready")?;
    let began = Instant::now();
    let before = giving.left();
    let (sender, batches) = sync_channel(BATCHES);
    let waiting = Arc::new(AtomicUsize::new(0));
    for worker in giving.workers.iter() {
        tell(worker, || {
            Message::Depart(Away {
                to: sender.clone(),
                waiting: Arc::clone(&waiting),
            })
        });
    }
    drop(sender);
    let mut flight = Flight::new(connection, giving, ahead);
    let ended = giving.give_all(connection, (&batches, &waiting), &mut flight);
    if let Err(error) = &ended {
        flight.give_up(error);
    }
    for worker in giving.workers.iter() {
        tell(worker, || Message::Stay);
    }
    // Those that were packed meanwhile.
    while let Ok(parcel) = batches.recv_timeout(super::packet::ANSWER_WAIT) {
        if let Parcel::Clients(batch) = parcel {
            giving.take_back(batch);
        }
    }
    let kept = giving.left();
    let took_ms = began.elapsed().as_millis();
    match ended {
        Ok(()) if kept == 0 => {
            tracing::info!(clients = before, took_ms, "all clients are handed over");
        }
        Ok(()) => tracing::warn!(
            clients = before,
            kept,
            took_ms,
            "clients are kept that could not be handed over in time: they are drained"
        ),
        Err(error) => return Err(error.context(format!("{kept} clients are kept"))),
    }
    // It knows when it gets nothing.
    let _ = send(connection, &FromOld::Over { kept }, &[]);
    Ok(())
}

/// Its configuration, its shards or its lease may take longer than a usual answer.
fn wait_until_ready(connection: BorrowedFd<'_>) -> anyhow::Result<()> {
    let asked = Instant::now();
    loop {
        match receive(connection) {
            Ok((FromNew::Ready, _)) => return Ok(()),
            Ok((other, _)) => bail!("it said {other:?}"),
            Err(error) if is_late(&error) && asked.elapsed() < READY_WAIT => {}
            Err(error) => return Err(error),
        }
    }
}

fn tell(worker: &WorkerHandle, message: impl Fn() -> Message) {
    while worker.tell(message()).is_err() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Tests have it told at every opportunity.
fn tell_after() -> Duration {
    match std::env::var(TEST_ENV).as_deref() {
        Ok("tells") => Duration::ZERO,
        _ => TELL,
    }
}

impl Giving {
    /// Clients of this process, those on the way included.
    fn left(&self) -> usize {
        self.acceptor.stats.connections.load(Ordering::Acquire)
    }

    fn give_all(
        &self,
        connection: BorrowedFd<'_>,
        (batches, waiting): (&Receiver<Parcel>, &AtomicUsize),
        flight: &mut Flight<'_>,
    ) -> anyhow::Result<()> {
        let mut told: Option<Instant> = None;
        let tell = tell_after();
        while self.left() > 0 && Instant::now() < self.until {
            // A server that takes one batch at a time understands nothing else until it has taken it.
            let may_tell = flight.is_empty() || flight.is_ahead();
            if may_tell && told.is_none_or(|told| told.elapsed() >= tell) {
                send(connection, &FromOld::Standing(self.standing()), &[])?;
                told = Some(Instant::now());
            }
            let parcel = if flight.is_empty() {
                batches.recv_timeout(TELL).map_err(|error| match error {
                    RecvTimeoutError::Timeout => TryRecvError::Empty,
                    RecvTimeoutError::Disconnected => TryRecvError::Disconnected,
                })
            } else if flight.has_room() {
                batches.try_recv()
            } else {
                Err(TryRecvError::Empty)
            };
            if parcel.is_ok() {
                waiting.fetch_sub(1, Ordering::Relaxed);
                for worker in self.workers.iter() {
                    worker.nudge();
                }
            }
            match parcel {
                Ok(Parcel::Scripts(scripts)) => send_scripts(connection, &scripts)?,
                Ok(Parcel::Clients(batch)) => flight.send(batch)?,
                Err(TryRecvError::Empty) if flight.is_empty() => {}
                Err(TryRecvError::Empty) => flight.hear()?,
                Err(TryRecvError::Disconnected) => bail!("the workers have ended"),
            }
        }
        while !flight.is_empty() {
            flight.hear()?;
        }
        Ok(())
    }

    fn standing(&self) -> Standing {
        standing(&self.acceptor, &self.workers)
    }

    /// Clients are another process's. Closing a socket that another one has too tells the peer nothing.
    pub(super) fn settle(&self, batch: Vec<Carried>) {
        let stats = &self.acceptor.stats;
        for client in batch {
            let sockets = client.sockets.len();
            let connections = &client.database.stats.connections;
            drop(client.sockets);
            connections.fetch_sub(1, Ordering::AcqRel);
            stats.sockets.fetch_sub(sockets, Ordering::AcqRel);
            stats.connections.fetch_sub(1, Ordering::AcqRel);
            stats.carried.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// This process goes on with clients.
    pub(super) fn take_back(&self, batch: Vec<Carried>) {
        give_to(&self.workers, batch);
    }
}

/// How a server stands. A database that is not named has no clients and no pause.
pub(crate) fn standing(acceptor: &Acceptor, workers: &[WorkerHandle]) -> Standing {
    let topology = acceptor.topology();
    let databases = topology.iter().flat_map(|all| all.databases.values());
    let databases = databases.map(|database| DatabaseStanding {
        database: database.uid.0,
        connections: database.stats.connections.load(Ordering::Relaxed),
        pause: database.pause.left(Instant::now()),
    });
    let named = databases.filter(|known| known.connections > 0 || known.pause.is_some());
    let applied = workers.iter().map(|worker| worker.applied().0);
    Standing {
        applied: applied.min().unwrap_or(0),
        databases: named.take(STANDING_MAX).collect(),
    }
}

/// Gives clients to the worker that has the fewest.
pub(super) fn give_to(workers: &[WorkerHandle], mut batch: Vec<Carried>) {
    while !batch.is_empty() {
        let Some(worker) = workers.iter().min_by_key(|worker| worker.clients()) else {
            return;
        };
        match worker.give_all(batch) {
            Ok(()) => return,
            Err(back) => {
                batch = back;
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

fn send_scripts(
    connection: BorrowedFd<'_>,
    scripts: &[record::ScriptsRecord],
) -> anyhow::Result<()> {
    match record::encode_scripts(scripts) {
        Ok(body) => {
            let length = body.len();
            let file = file(&body)?;
            send(connection, &FromOld::Scripts { length }, &[file.as_fd()])
        }
        Err(reason) => {
            tracing::warn!(reason, "scripts cannot be handed over");
            Ok(())
        }
    }
}
