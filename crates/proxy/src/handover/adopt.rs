//! The new server's side of handing over clients.

use super::clients::{FromNew, FromOld, Standing};
use super::give::{TELL, give_to};
use super::packet::{Packet, is_gone, may_die, read, receive_packet, send};
use super::record::{self, BATCH_MAX, BoxedRecord};
use super::{WITH_WINDOW, version};
use crate::listeners::Acceptor;
use crate::topology::Database;
use crate::worker::{Carried, Message, WorkerHandle};
use anyhow::{Context, bail};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::PidfdFlags;
use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// How often the server is asked whether it is ready.
const ASK: Duration = Duration::from_millis(3);
/// How long a process that was killed may take to be gone.
const DYING: Duration = Duration::from_secs(1);
/// Most sockets of a batch.
const SOCKETS_MAX: usize = 65_536;

/// The database of a client that is adopted, where it counts already; `None`: it cannot be served now.
pub(crate) type Verdict = Option<Arc<Database>>;

/// Clients that were received, each with its sockets; or why they cannot be taken.
type Received = Result<Vec<(BoxedRecord, Vec<OwnedFd>)>, String>;

/// What the new server's control thread is asked.
#[derive(Debug)]
pub(crate) enum Adopted {
    /// Whether clients may come.
    Ready(oneshot::Sender<bool>),
    /// Which of these may come.
    Check(
        Vec<BoxedRecord>,
        oneshot::Sender<(Vec<BoxedRecord>, Vec<Verdict>)>,
    ),
    /// How the old server stands.
    Standing(Standing),
    /// No more come.
    Over,
}

/// Takes the clients of the old server. Blocks until no more come: for a thread of its own.
pub(crate) fn adopt(connection: &OwnedFd, acceptor: &Acceptor, control: &mpsc::Sender<Adopted>) {
    let adopting = Adopting {
        connection: connection.as_fd(),
        acceptor,
        control,
        old: process_of(connection.as_fd()),
    };
    let mut count = 0;
    match adopting.run(&mut count) {
        Ok(kept) => tracing::info!(clients = count, kept, "clients are taken over"),
        Err(error) => {
            tracing::warn!(
                clients = count,
                "taking over clients has ended early: {error:#}"
            );
        }
    }
    // If it is gone, the server ends anyway.
    let _ = control.blocking_send(Adopted::Over);
}

/// The process at the other end.
fn process_of(connection: BorrowedFd<'_>) -> Option<OwnedFd> {
    let peer = rustix::net::sockopt::socket_peercred(connection).ok()?;
    rustix::process::pidfd_open(peer.pid, PidfdFlags::empty()).ok()
}

struct Adopting<'a> {
    connection: BorrowedFd<'a>,
    acceptor: &'a Acceptor,
    control: &'a mpsc::Sender<Adopted>,
    /// The old server's process.
    old: Option<OwnedFd>,
}

impl Adopting<'_> {
    /// Returns how many clients the old server keeps.
    fn run(&self, count: &mut usize) -> anyhow::Result<usize> {
        while !self.ask(Adopted::Ready)? {
            std::thread::sleep(ASK);
        }
        send(self.connection, &FromNew::Ready, &[])?;
        may_die("new-ready");
        let mut waiting = VecDeque::new();
        let ended = self.take_all(&mut waiting, count);
        if let Err(error) = &ended
            && is_gone(error)
            && !waiting.is_empty()
            && self.old_is_dead()
        {
            tracing::warn!("the old server has died: its last clients go on here");
            for (_, batch) in waiting {
                *count += batch.serve();
            }
        }
        ended
    }

    /// Takes what comes until no more does. `waiting`: batches that were adopted and not committed, the oldest
    /// first.
    fn take_all<'b>(
        &'b self,
        waiting: &mut VecDeque<(u64, Batch<'b>)>,
        count: &mut usize,
    ) -> anyhow::Result<usize> {
        loop {
            let packet = receive_packet(self.connection)?;
            match read::<FromOld>(&packet)? {
                FromOld::Standing(standing) => {
                    self.control
                        .blocking_send(Adopted::Standing(standing))
                        .context("the server is ending")?;
                }
                FromOld::Batch {
                    number,
                    sockets,
                    length,
                    file,
                } => {
                    let got = self.receive_batch(packet, sockets, (length, file))?;
                    may_die("new-prepared");
                    waiting.push_back((number, self.adopt_batch(number, got)?));
                }
                FromOld::Commit { number } => {
                    let Some((known, batch)) = waiting.pop_front() else {
                        bail!("the old server commits batch {number}, which is not here");
                    };
                    if known != number {
                        bail!("the old server commits batch {number}, and {known} was next");
                    }
                    *count += self.take_batch(number, batch)?;
                }
                FromOld::Scripts { length } => self.take_scripts(packet, length)?,
                FromOld::Over { kept } => {
                    self.acceptor.stats.handed.kept(kept as u64);
                    return Ok(kept);
                }
                other => bail!("the old server said {other:?}"),
            }
        }
    }

    fn take_scripts(&self, packet: Packet, length: usize) -> anyhow::Result<()> {
        if length > BATCH_MAX {
            bail!("the old server sends too much at a time");
        }
        let body = read_file(packet.sockets.into_iter().next(), length)?;
        match record::decode_scripts(&body) {
            Ok(scripts) => {
                let scripts: Arc<[_]> = scripts.into();
                for worker in self.acceptor.all_workers().iter() {
                    // One that has no room knows fewer scripts.
                    let _ = worker.tell(Message::Scripts(Arc::clone(&scripts)));
                }
            }
            Err(reason) => tracing::warn!(reason, "scripts cannot be taken over"),
        }
        Ok(())
    }

    fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Adopted) -> anyhow::Result<T> {
        let (answer, answered) = oneshot::channel();
        self.control
            .blocking_send(question(answer))
            .context("the server is ending")?;
        answered.blocking_recv().context("the server is ending")
    }

    /// Receives the rest of a batch: the records and their sockets. Inside, why it cannot be taken.
    fn receive_batch(
        &self,
        first: Packet,
        count: usize,
        (length, file): (usize, bool),
    ) -> anyhow::Result<Received> {
        let Packet {
            mut sockets,
            mut cut,
            ..
        } = first;
        let count = count + usize::from(file);
        if count > SOCKETS_MAX || length > BATCH_MAX {
            bail!("the old server sends too much at a time");
        }
        let mut came = sockets
            .len()
            .max(super::packet::SOCKETS_PER_PACKET.min(count));
        while came < count {
            let packet = receive_packet(self.connection)?;
            let (FromOld::More, more) = (read(&packet)?, packet.sockets) else {
                bail!("the old server sent something else than sockets");
            };
            cut |= packet.cut;
            came += more
                .len()
                .max(super::packet::SOCKETS_PER_PACKET.min(count - came));
            sockets.extend(more);
        }
        let inline = match file {
            true => None,
            false => Some(receive_packet(self.connection)?.bytes),
        };
        if cut || sockets.len() != count {
            return Ok(Err("too few descriptors are free".to_owned()));
        }
        let mut sockets = sockets.into_iter();
        let body = match inline {
            Some(body) => body,
            None => read_file(sockets.next(), length)?,
        };
        let records = match record::decode(&body) {
            Ok(records) => records,
            Err(reason) => return Ok(Err(reason)),
        };
        let wanted: usize = records.iter().map(|record| record.sockets()).sum();
        if wanted != sockets.len() {
            return Ok(Err("the sockets are not those of the records".to_owned()));
        }
        let own = |record: BoxedRecord| {
            let own = sockets.by_ref().take(record.sockets()).collect();
            (record, own)
        };
        Ok(Ok(records.into_iter().map(own).collect()))
    }

    /// Adopts a batch, and says so. It is served when the old server has let it go.
    fn adopt_batch(&self, number: u64, got: Received) -> anyhow::Result<Batch<'_>> {
        if version() < WITH_WINDOW && self.hears_more() {
            bail!("the old server said more before it heard of batch {number}");
        }
        let (clients, refused) = match got {
            Ok(clients) => self.check(clients)?,
            Err(reason) => {
                tracing::warn!(reason, "clients cannot be taken over");
                (Vec::new(), (0..record::CLIENTS_MAX).collect())
            }
        };
        let batch = Batch {
            acceptor: self.acceptor,
            clients,
        };
        match send(self.connection, &FromNew::Adopted { number, refused }, &[]) {
            Ok(()) => {}
            // What it sent before its end is still to be read.
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(error),
        }
        may_die("new-adopted");
        Ok(batch)
    }

    /// Earlier releases, as which tests have this process speak, understand nothing else between a batch and the word
    /// about it, however long they take.
    fn hears_more(&self) -> bool {
        // At the end of the old server there is something to read, too.
        let flags = wait_for(&self.connection, 3 * TELL / 2);
        flags.contains(PollFlags::IN) && !flags.contains(PollFlags::HUP)
    }

    /// Takes a batch that was committed; returns how many clients that are.
    fn take_batch(&self, number: u64, batch: Batch<'_>) -> anyhow::Result<usize> {
        may_die("new-committed");
        let told = send(self.connection, &FromNew::Taken { number }, &[]);
        may_die("new-taken");
        // Whatever became of that: the old server has let them go.
        let count = batch.serve();
        match told {
            Err(error) if !is_gone(&error) => Err(error),
            _ => Ok(count),
        }
    }

    /// Asks which clients can be served. Returns them, and the places of the others.
    fn check(
        &self,
        clients: Vec<(BoxedRecord, Vec<OwnedFd>)>,
    ) -> anyhow::Result<(Vec<Carried>, Vec<usize>)> {
        let (records, sockets): (Vec<_>, Vec<_>) = clients.into_iter().unzip();
        let (records, verdicts) = self.ask(|answer| Adopted::Check(records, answer))?;
        let (mut adopted, mut refused) = (Vec::new(), Vec::new());
        let all = records.into_iter().zip(sockets).zip(verdicts);
        for (place, ((record, sockets), verdict)) in all.enumerate() {
            match verdict {
                Some(database) => adopted.push(Carried {
                    record,
                    sockets,
                    database,
                }),
                None => refused.push(place),
            }
        }
        Ok((adopted, refused))
    }

    /// Whether the old process, which has closed its end, has died.
    fn old_is_dead(&self) -> bool {
        let Some(process) = &self.old else {
            return false;
        };
        !wait_for(process, DYING).is_empty()
    }
}

/// Waits until there is something to read; empty: there is not.
fn wait_for(file: &impl AsFd, limit: Duration) -> PollFlags {
    let mut wanted = [PollFd::new(file, PollFlags::IN)];
    let time = Timespec::try_from(limit).ok();
    match rustix::event::poll(&mut wanted, time.as_ref()) {
        Ok(1..) => wanted[0].revents(),
        _ => PollFlags::empty(),
    }
}

/// Clients that count here and are not served yet. If they are not to be, they count no more.
struct Batch<'a> {
    acceptor: &'a Acceptor,
    clients: Vec<Carried>,
}

impl Batch<'_> {
    /// Serves them; returns how many they are.
    fn serve(mut self) -> usize {
        let clients = std::mem::take(&mut self.clients);
        let left_at = clients.iter().map(|client| client.record.left_at);
        self.acceptor.stats.handed.adopted(left_at);
        let count = clients.len();
        let workers: Vec<WorkerHandle> = self.acceptor.all_workers().to_vec();
        // Each worker its part.
        let part = clients.len().div_ceil(workers.len().max(1)).max(1);
        let mut clients = clients.into_iter();
        loop {
            let some: Vec<Carried> = clients.by_ref().take(part).collect();
            if some.is_empty() {
                return count;
            }
            give_to(&workers, some);
        }
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        let stats = &self.acceptor.stats;
        for client in self.clients.drain(..) {
            client
                .database
                .stats
                .connections
                .fetch_sub(1, Ordering::AcqRel);
            stats.connections.fetch_sub(1, Ordering::AcqRel);
            stats
                .sockets
                .fetch_sub(client.sockets.len(), Ordering::AcqRel);
            stats.carried.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

fn read_file(file: Option<OwnedFd>, length: usize) -> anyhow::Result<Vec<u8>> {
    let file = File::from(file.context("the file with the clients is missing")?);
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, 0)
        .context("reading the clients")?;
    Ok(bytes)
}
