//! Questions to all workers: `CLIENT LIST` and `CLIENT KILL` are about every connection of a
//! database, whichever worker has it.

use super::client::{ClientId, Wait};
use super::filter::Filter;
use super::{Message, Worker, WorkerHandle};
use crate::topology::Database;
use model::DatabaseUid;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// A question and the answers so far.
#[derive(Debug)]
pub(crate) struct Gather {
    asker: ClientId,
    worker: WorkerHandle,
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
    /// The blocking command of the client with this id is to end: with an error, or as if its time
    /// were over.
    Unblock(u64, bool),
    /// The pause of the database has changed: obey.
    Pause,
}

/// How `CLIENT KILL` was written: that decides the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KillStyle {
    /// With one address: `+OK` or an error.
    Address,
    /// With filters: a number.
    Filters,
}

#[derive(Debug, Default)]
struct Found {
    lines: Vec<(u64, String)>,
    killed: u64,
}

impl Gather {
    /// One more part is to come.
    pub(super) fn one_more(&self) {
        self.missing.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn is_unblock(&self) -> bool {
        matches!(self.question, Question::Unblock(..))
    }
}

impl Worker {
    /// Asks all workers on behalf of a client.
    pub(super) fn ask(&mut self, index: usize, question: Question) {
        let database: &Database = &self.served[self.clients[index].served].database;
        let others = std::sync::Arc::clone(&self.others);
        let me = others.iter().find(|worker| worker.number() == self.number);
        let Some(me) = me else {
            return;
        };
        let gather = std::sync::Arc::new(Gather {
            asker: self.client_id(index),
            worker: me.clone(),
            database: database.uid,
            question,
            missing: AtomicUsize::new(others.len()),
            found: Mutex::default(),
        });
        self.wait_for_gather(index);
        for other in others.iter() {
            if other.number() == self.number {
                continue;
            }
            if other
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
        let chosen = self.fronts(|client| {
            Some(client.served) == served
                && match &gather.question {
                    Question::List(filter) | Question::Kill(filter, _) => filter.takes(client),
                    Question::Unblock(id, _) => client.session.id == *id,
                    Question::Pause => false,
                }
        });
        let mut found = Found::default();
        for index in chosen {
            let client = self.client_id(index);
            let asker = gather.worker.number() == self.number && client == gather.asker;
            match gather.question {
                Question::List(_) => {
                    let id = self.clients[index].session.id;
                    let last = if asker { "client|list" } else { "NULL" };
                    found.lines.push((id, self.client_line(index, last)));
                }
                Question::Kill(..) => {
                    found.killed += 1;
                    if !asker {
                        self.close_client(index);
                    }
                    if !asker && self.find(client).is_some() {
                        self.promise(index, gather);
                    }
                }
                Question::Pause => {}
                Question::Unblock(_, error) => {
                    let part = self.blocked_part(index);
                    if self.unblock(part, error) {
                        self.promise(part, gather);
                    }
                }
            }
        }
        if matches!(gather.question, Question::Pause) {
            self.take_pause(gather.database, gather);
        }
        {
            let mut all = gather.found.lock().unwrap_or_else(PoisonError::into_inner);
            all.lines.append(&mut found.lines);
            all.killed += found.killed;
        }
        self.part_done(gather, 0);
    }

    /// A part of an answer has come.
    pub(super) fn part_done(&mut self, gather: &std::sync::Arc<Gather>, killed: u64) {
        if killed > 0 {
            let mut all = gather.found.lock().unwrap_or_else(PoisonError::into_inner);
            all.killed += killed;
        }
        if gather.missing.fetch_sub(1, Ordering::AcqRel) == 1 {
            if gather.worker.number() == self.number {
                self.gathered(gather);
            } else if gather
                .worker
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
            Question::Pause => self.clients[index].owed = Some(crate::texts::OK.to_vec()),
            Question::Unblock(..) => {
                let answer = format!(":{}\r\n", found.killed);
                self.clients[index].owed = Some(answer.into_bytes());
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
                        // It may be the last that is said of a transaction.
                        self.give_exec(index);
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
