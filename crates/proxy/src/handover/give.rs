//! The old server's side of handing over clients.

use super::clients::{DatabaseStanding, FromNew, FromOld, Standing};
use super::packet::{
    PACKET_MAX, SOCKETS_PER_PACKET, is_gone, is_late, may_die, receive, send, send_bytes,
};
use super::record;
use crate::listeners::Acceptor;
use crate::worker::{Away, Carried, Message, Parcel, WorkerHandle};
use anyhow::{Context, bail};
use rustix::fs::MemfdFlags;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

/// How often the new server is told how many clients are left.
const TELL: Duration = Duration::from_millis(100);
/// How long the new server may take to be ready.
const READY_WAIT: Duration = Duration::from_secs(30);
/// Records that are longer go by a file.
const INLINE_MAX: usize = PACKET_MAX - 1024;
/// Batches that wait for the new server.
const BATCHES: usize = 2;

/// What the handover's thread needs of the server.
#[derive(Debug)]
pub(crate) struct Giving {
    pub(crate) workers: Arc<[WorkerHandle]>,
    pub(crate) acceptor: Arc<Acceptor>,
    /// Clients that have not gone by then are kept.
    pub(crate) until: Instant,
}

/// What became of a batch.
enum Fate {
    /// It was sent, or came back.
    Settled,
    /// The connection is of no use any more.
    Broken(anyhow::Error),
}

/// Hands all clients over. Blocks until they have gone, or the time is over.
///
/// # Errors
/// The new server has ended, or is not understood: the clients that it has not taken are served on.
pub(super) fn give(connection: BorrowedFd<'_>, giving: &Giving) -> anyhow::Result<()> {
    wait_until_ready(connection).context("the new server is not ready")?;
    let began = Instant::now();
    let before = giving.left();
    let (sender, batches) = sync_channel(BATCHES);
    for worker in giving.workers.iter() {
        tell(worker, || Message::Depart(Away { to: sender.clone() }));
    }
    drop(sender);
    let ended = giving.give_all(connection, &batches);
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

impl Giving {
    /// Clients of this process, those on the way included.
    fn left(&self) -> usize {
        self.acceptor.stats.connections.load(Ordering::Acquire)
    }

    fn give_all(
        &self,
        connection: BorrowedFd<'_>,
        batches: &Receiver<Parcel>,
    ) -> anyhow::Result<()> {
        let mut told: Option<Instant> = None;
        let mut number = 0;
        while self.left() > 0 && Instant::now() < self.until {
            if told.is_none_or(|told| told.elapsed() >= TELL) {
                send(connection, &FromOld::Standing(self.standing()), &[])?;
                told = Some(Instant::now());
            }
            match batches.recv_timeout(TELL) {
                Ok(Parcel::Scripts(scripts)) => send_scripts(connection, &scripts)?,
                Ok(Parcel::Clients(batch)) => {
                    for worker in self.workers.iter() {
                        worker.nudge();
                    }
                    if let Fate::Broken(error) = self.transfer(connection, batch, &mut number) {
                        return Err(error);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => bail!("the workers have ended"),
            }
        }
        Ok(())
    }

    fn standing(&self) -> Standing {
        let topology = self.acceptor.topology();
        let databases = topology.iter().flat_map(|all| all.databases.values());
        let databases = databases.map(|database| DatabaseStanding {
            database: database.uid.0,
            connections: database.stats.connections.load(Ordering::Relaxed),
            pause: database.pause.left(Instant::now()),
        });
        let applied = self.workers.iter().map(|worker| worker.applied().0);
        Standing {
            applied: applied.min().unwrap_or(0),
            databases: databases.collect(),
        }
    }

    fn transfer(
        &self,
        connection: BorrowedFd<'_>,
        mut batch: Vec<Carried>,
        number: &mut u64,
    ) -> Fate {
        // What the new server would not understand.
        let wrong = batch.extract_if(.., |client| match client.record.check() {
            Ok(()) => false,
            Err(reason) => {
                tracing::error!(
                    client = client.record.session.id,
                    reason,
                    "a client cannot be handed over"
                );
                true
            }
        });
        let wrong: Vec<Carried> = wrong.collect();
        self.take_back(wrong);
        if batch.is_empty() {
            return Fate::Settled;
        }
        let records: Vec<&record::ClientRecord> =
            batch.iter().map(|client| &client.record).collect();
        let body = match record::encode(&records) {
            Ok(body) => body,
            Err(_) if batch.len() > 1 => {
                let rest = batch.split_off(batch.len() / 2);
                return match self.transfer(connection, batch, number) {
                    Fate::Settled => self.transfer(connection, rest, number),
                    broken @ Fate::Broken(_) => {
                        self.take_back(rest);
                        broken
                    }
                };
            }
            Err(reason) => {
                tracing::warn!(reason, "a client cannot be handed over");
                self.take_back(batch);
                return Fate::Settled;
            }
        };
        *number += 1;
        self.send_batch(connection, batch, *number, &body)
    }

    fn send_batch(
        &self,
        connection: BorrowedFd<'_>,
        mut batch: Vec<Carried>,
        number: u64,
        body: &[u8],
    ) -> Fate {
        match prepare(connection, &batch, number, body) {
            Ok(true) => {}
            Ok(false) => {
                // Too many descriptors are on the way: some go when others have arrived.
                self.take_back(batch);
                return Fate::Settled;
            }
            Err(error) => {
                self.take_back(batch);
                return Fate::Broken(error);
            }
        }
        may_die("old-prepared");
        let refused = match adopted(connection, number) {
            Ok(refused) => refused,
            Err(error) => {
                // If it lives, it is not to wait for the commit.
                let _ = send(connection, &FromOld::Back { number }, &[]);
                self.take_back(batch);
                return Fate::Broken(error);
            }
        };
        may_die("old-adopted");
        let mut place = 0;
        let back: Vec<Carried> = batch
            .extract_if(.., |_| {
                place += 1;
                refused.contains(&(place - 1))
            })
            .collect();
        self.take_back(back);
        if let Err(error) = send(connection, &FromOld::Commit { number }, &[]) {
            self.take_back(batch);
            return Fate::Broken(error);
        }
        may_die("old-committed");
        match taken(connection, number) {
            Ok(()) => {
                self.settle(batch);
                may_die("old-taken");
                Fate::Settled
            }
            Err(error) => {
                if is_gone(&error) {
                    self.take_back(batch);
                } else {
                    // It lives, and may have taken them.
                    self.settle(batch);
                }
                Fate::Broken(error)
            }
        }
    }

    /// Clients are another process's. Closing a socket that another one has too tells the peer nothing.
    fn settle(&self, batch: Vec<Carried>) {
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
    fn take_back(&self, batch: Vec<Carried>) {
        give_to(&self.workers, batch);
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

/// Sends all that clients are. `false`: the system does not let more descriptors be on the way.
fn prepare(
    connection: BorrowedFd<'_>,
    batch: &[Carried],
    number: u64,
    body: &[u8],
) -> anyhow::Result<bool> {
    let file = (body.len() > INLINE_MAX).then(|| file(body)).transpose()?;
    let sockets = batch.iter().flat_map(|client| &client.sockets);
    let all: Vec<BorrowedFd<'_>> = file.iter().chain(sockets).map(AsFd::as_fd).collect();
    let mut message = FromOld::Batch {
        number,
        sockets: all.len() - usize::from(file.is_some()),
        length: body.len(),
        file: file.is_some(),
    };
    for (place, part) in all.chunks(SOCKETS_PER_PACKET).enumerate() {
        if let Err(error) = send(connection, &message, part) {
            let full = error.downcast_ref::<rustix::io::Errno>();
            if place == 0 && full == Some(&rustix::io::Errno::TOOMANYREFS) {
                return Ok(false);
            }
            return Err(error);
        }
        message = FromOld::More;
    }
    if file.is_none() {
        send_bytes(connection, body, &[])?;
    }
    Ok(true)
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

/// A file in memory; the other side reads it from its beginning.
fn file(bytes: &[u8]) -> anyhow::Result<OwnedFd> {
    let file = rustix::fs::memfd_create("clients", MemfdFlags::CLOEXEC)
        .context("making a file for clients")?;
    let mut file = File::from(file);
    file.write_all(bytes).context("writing clients down")?;
    Ok(file.into())
}

fn adopted(connection: BorrowedFd<'_>, number: u64) -> anyhow::Result<Vec<usize>> {
    match receive(connection)?.0 {
        FromNew::Adopted {
            number: known,
            refused,
        } if known == number => Ok(refused),
        other => bail!("the new server said {other:?} to batch {number}"),
    }
}

fn taken(connection: BorrowedFd<'_>, number: u64) -> anyhow::Result<()> {
    match receive(connection)?.0 {
        FromNew::Taken { number: known } if known == number => Ok(()),
        other => bail!("the new server said {other:?} to the commit of batch {number}"),
    }
}
