//! Questions to all workers: `CLIENT LIST` and `CLIENT KILL` are about every connection of a
//! database, whichever worker has it.

use super::client::{Client, ClientId, Wait};
use super::{Message, Worker};
use crate::topology::Database;
use model::DatabaseUid;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// A question and the answers so far.
#[derive(Debug)]
pub(crate) struct Gather {
    asker: ClientId,
    worker: usize,
    database: DatabaseUid,
    question: Question,
    missing: AtomicUsize,
    found: Mutex<Found>,
}

/// What is asked.
#[derive(Debug)]
pub(super) enum Question {
    /// The lines of these clients.
    List(Filter),
    /// These clients are to be closed.
    Kill(Filter, KillStyle),
}

/// How `CLIENT KILL` was written: that decides the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KillStyle {
    /// With one address: `+OK` or an error.
    Address,
    /// With filters: a number.
    Filters,
}

/// Which clients.
#[derive(Debug, Default)]
pub(super) struct Filter {
    pub(super) ids: Option<Vec<u64>>,
    pub(super) peer: Option<SocketAddr>,
    pub(super) local: Option<SocketAddr>,
    /// `normal` or `pubsub`; any other type is none of ours.
    pub(super) kind: Option<Vec<u8>>,
    pub(super) user: Option<Vec<u8>>,
    /// The asker is left out.
    pub(super) skip: Option<u64>,
    /// Least age, seconds.
    pub(super) max_age: Option<u64>,
}

#[derive(Debug, Default)]
struct Found {
    lines: Vec<(u64, String)>,
    killed: u64,
}

impl Filter {
    fn takes(&self, client: &Client) -> bool {
        let session = &client.session;
        let kind: &[u8] = if session.own.subscriptions.any() {
            b"pubsub"
        } else {
            b"normal"
        };
        self.ids
            .as_ref()
            .is_none_or(|ids| ids.contains(&session.id))
            && self.peer.is_none_or(|peer| peer == session.peer)
            && self.local.is_none_or(|local| local == session.local)
            && self
                .kind
                .as_ref()
                .is_none_or(|wanted| wanted.eq_ignore_ascii_case(kind))
            && self.user.as_ref().is_none_or(|user| user == b"default")
            && self.skip != Some(session.id)
            && self
                .max_age
                .is_none_or(|age| session.created.elapsed().as_secs() >= age)
    }
}

impl Worker {
    /// Asks all workers on behalf of a client.
    pub(super) fn ask(&mut self, index: usize, question: Question) {
        let database: &Database = &self.served[self.clients[index].served].database;
        let gather = std::sync::Arc::new(Gather {
            asker: self.client_id(index),
            worker: self.number,
            database: database.uid,
            question,
            missing: AtomicUsize::new(self.others.len()),
            found: Mutex::default(),
        });
        self.wait_for_gather(index);
        for number in 0..self.others.len() {
            if number == self.number {
                continue;
            }
            if self.others[number]
                .tell(Message::Gather(std::sync::Arc::clone(&gather)))
                .is_err()
            {
                // Its inbox is full: the answer is given without it.
                gather.missing.fetch_sub(1, Ordering::AcqRel);
            }
        }
        self.contribute(&gather);
    }

    /// Adds this worker's part; whoever is last sends the whole back.
    pub(super) fn contribute(&mut self, gather: &std::sync::Arc<Gather>) {
        let served = self.by_uid.get(&gather.database).copied();
        let (filter, kill) = match &gather.question {
            Question::List(filter) => (filter, false),
            Question::Kill(filter, _) => (filter, true),
        };
        let chosen = self.fronts(|client| Some(client.served) == served && filter.takes(client));
        let mut found = Found::default();
        for index in chosen {
            if kill {
                found.killed += 1;
                let asker = gather.worker == self.number && self.client_id(index) == gather.asker;
                if !asker {
                    self.close_client(index);
                }
            } else {
                let session = &self.clients[index].session;
                found.lines.push((session.id, self.client_line(index)));
            }
        }
        {
            let mut all = gather.found.lock().unwrap_or_else(PoisonError::into_inner);
            all.lines.append(&mut found.lines);
            all.killed += found.killed;
        }
        if gather.missing.fetch_sub(1, Ordering::AcqRel) == 1 {
            if gather.worker == self.number {
                self.gathered(gather);
            } else if self.others[gather.worker]
                .tell(Message::Gathered(std::sync::Arc::clone(gather)))
                .is_err()
            {
                tracing::warn!("an answer of CLIENT LIST is lost: the worker's inbox is full");
            }
        }
    }

    /// Answers the client that asked.
    pub(super) fn gathered(&mut self, gather: &Gather) {
        let Some(index) = self.find(gather.asker) else {
            return;
        };
        if self.clients[index].wait != Wait::Gather {
            return;
        }
        let mut found =
            std::mem::take(&mut *gather.found.lock().unwrap_or_else(PoisonError::into_inner));
        self.clients[index].wait = Wait::Nothing;
        match &gather.question {
            Question::List(_) => {
                found.lines.sort_by_key(|(id, _)| *id);
                let lines: String = found.lines.into_iter().map(|(_, line)| line).collect();
                self.clients[index].owed = Some(self.as_text(index, lines.as_bytes()));
            }
            Question::Kill(filter, style) => {
                let itself = filter.takes(&self.clients[index]);
                let answer = match style {
                    KillStyle::Filters => format!(":{}\r\n", found.killed),
                    KillStyle::Address if found.killed > 0 => "+OK\r\n".to_owned(),
                    KillStyle::Address => "-ERR No such client\r\n".to_owned(),
                };
                if itself {
                    if self.settled(index) {
                        self.answer(index, answer.as_bytes());
                    }
                    self.farewell(index);
                    return;
                }
                self.clients[index].owed = Some(answer.into_bytes());
            }
        }
        self.queue_client(index);
    }
}
