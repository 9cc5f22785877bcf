//! Batches of clients on their way to the new server: who has which of them, and what becomes of them when the
//! other side ends.

use super::clients::{FromNew, FromOld};
use super::give::Giving;
use super::packet::{PACKET_MAX, SOCKETS_PER_PACKET, is_gone, may_die, receive, send, send_bytes};
use super::record;
use crate::worker::Carried;
use anyhow::{Context, bail};
use rustix::fs::MemfdFlags;
use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Records that are longer go by a file.
const INLINE_MAX: usize = PACKET_MAX - 1024;
/// Batches on the way at a time, if the new server lets them be: neither side waits for the other's answer, and
/// no client waits long.
const WINDOW: usize = 3;

/// What is on the way, the oldest first.
pub(super) struct Flight<'a> {
    connection: BorrowedFd<'a>,
    giving: &'a Giving,
    /// Most batches at a time.
    window: usize,
    /// Of the last batch that was sent.
    number: u64,
    batches: VecDeque<Batch>,
}

struct Batch {
    number: u64,
    clients: Vec<Carried>,
    /// The new server may have it: from here on only its word, or its end, says who has.
    committed: bool,
}

impl<'a> Flight<'a> {
    /// `ahead`: the new server takes a batch while it waits for the word about another.
    pub(super) const fn new(connection: BorrowedFd<'a>, giving: &'a Giving, ahead: bool) -> Self {
        Self {
            connection,
            giving,
            window: if ahead { WINDOW } else { 1 },
            number: 0,
            batches: VecDeque::new(),
        }
    }

    /// Whether the new server takes other messages while batches are on the way.
    pub(super) const fn is_ahead(&self) -> bool {
        self.window > 1
    }

    pub(super) fn has_room(&self) -> bool {
        self.batches.len() < self.window
    }

    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Sends clients; what cannot go goes back to the workers.
    ///
    /// # Errors
    /// The connection is of no use any more: [`Flight::give_up`] what is on the way.
    pub(super) fn send(&mut self, mut clients: Vec<Carried>) -> anyhow::Result<()> {
        // What the new server would not understand.
        let wrong = clients.extract_if(.., |client| match client.record.check() {
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
        self.giving.take_back(wrong);
        if clients.is_empty() {
            return Ok(());
        }
        let records: Vec<&record::ClientRecord> =
            clients.iter().map(|client| &*client.record).collect();
        match record::encode(&records) {
            Ok(body) => self.send_batch(clients, &body),
            Err(_) if clients.len() > 1 => {
                let rest = clients.split_off(clients.len() / 2);
                if let Err(error) = self.send(clients) {
                    self.giving.take_back(rest);
                    return Err(error);
                }
                self.send(rest)
            }
            Err(reason) => {
                tracing::warn!(reason, "a client cannot be handed over");
                self.giving.take_back(clients);
                Ok(())
            }
        }
    }

    fn send_batch(&mut self, clients: Vec<Carried>, body: &[u8]) -> anyhow::Result<()> {
        // A batch that was divided may be one more than there is room for.
        while !self.has_room() {
            if let Err(error) = self.hear() {
                self.giving.take_back(clients);
                return Err(error);
            }
        }
        let number = self.number + 1;
        match prepare(self.connection, &clients, number, body) {
            Ok(true) => {}
            Ok(false) => {
                // Too many descriptors are on the way: some go when others have arrived.
                self.giving.take_back(clients);
                return Ok(());
            }
            Err(error) => {
                self.giving.take_back(clients);
                return Err(error);
            }
        }
        self.number = number;
        self.batches.push_back(Batch {
            number,
            clients,
            committed: false,
        });
        may_die("old-prepared");
        Ok(())
    }

    /// Waits for what the new server says next, and does what follows.
    ///
    /// # Errors
    /// As of [`Flight::send`].
    pub(super) fn hear(&mut self) -> anyhow::Result<()> {
        match receive(self.connection)?.0 {
            FromNew::Adopted { number, refused } => self.commit(number, &refused),
            FromNew::Taken { number } => self.taken(number),
            FromNew::Ready => bail!("the new server is ready twice"),
        }
    }

    /// Clients are let go, but for those that the new server cannot serve now.
    fn commit(&mut self, adopted: u64, refused: &[usize]) -> anyhow::Result<()> {
        let next = self.batches.iter_mut().find(|batch| !batch.committed);
        let Some(batch) = next.filter(|batch| batch.number == adopted) else {
            bail!("the new server adopts batch {adopted}, which was not next");
        };
        may_die("old-adopted");
        let mut place = 0;
        let back = batch.clients.extract_if(.., |_| {
            place += 1;
            refused.contains(&(place - 1))
        });
        let back: Vec<Carried> = back.collect();
        // What is sent may arrive even if this does not hear so.
        batch.committed = true;
        self.giving.take_back(back);
        send(self.connection, &FromOld::Commit { number: adopted }, &[])?;
        may_die("old-committed");
        Ok(())
    }

    fn taken(&mut self, number: u64) -> anyhow::Result<()> {
        let first = self.batches.front();
        if !first.is_some_and(|batch| batch.committed && batch.number == number) {
            bail!("the new server has taken batch {number}, which was not next");
        }
        if let Some(batch) = self.batches.pop_front() {
            self.giving.settle(batch.clients);
        }
        may_die("old-taken");
        Ok(())
    }

    /// The connection is of no use any more: every client on the way is this server's again, or the other one's.
    pub(super) fn give_up(mut self, error: &anyhow::Error) {
        if is_gone(error) {
            // What it said before its end counts. What it has not taken it has not touched.
            while let Ok((said, _)) = receive::<FromNew>(self.connection) {
                if let FromNew::Taken { number } = said
                    && self.taken(number).is_err()
                {
                    break;
                }
            }
            for batch in self.batches {
                self.giving.take_back(batch.clients);
            }
            return;
        }
        for batch in self.batches {
            if batch.committed {
                // It lives, and may have taken them.
                self.giving.settle(batch.clients);
            } else {
                // It is not to wait for the commit.
                let number = batch.number;
                let _ = send(self.connection, &FromOld::Back { number }, &[]);
                self.giving.take_back(batch.clients);
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

/// A file in memory; the other side reads it from its beginning.
pub(super) fn file(bytes: &[u8]) -> anyhow::Result<OwnedFd> {
    let file = rustix::fs::memfd_create("clients", MemfdFlags::CLOEXEC)
        .context("making a file for clients")?;
    let mut file = File::from(file);
    file.write_all(bytes).context("writing clients down")?;
    Ok(file.into())
}
