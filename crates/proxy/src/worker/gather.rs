//! Questions to all workers: `CLIENT LIST` and `CLIENT KILL` are about every connection of a
//! database, whichever worker has it. Where other proxies may have some, their answer is one more part.

use super::asked::{Client, ForOthers, Wanted, set_pause, tell_all};
use super::client::{ClientId, Wait};
use super::filter::Filter;
use super::{Message, Worker};
use crate::texts;
use crate::topology::Database;
use crate::wishes::tell_in_time;
use model::clients::{Answered, Gap, LIST_MAX, LISTS_MAX, Question as Asked, WORDS_MAX, Word};
use model::{DatabaseUid, NodeUid};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How long the answer to another node waits at most for what had been sent before a pause: less than that
/// node waits.
const FENCE_FOR_OTHERS: Duration = Duration::from_millis(400);

/// A question and the answers so far.
#[derive(Debug)]
pub(crate) struct Gather {
    asker: Asker,
    database: DatabaseUid,
    question: Question,
    missing: AtomicUsize,
    found: Mutex<Answered>,
}

#[derive(Debug)]
enum Asker {
    /// A client of this proxy.
    Here(Client),
    /// One of another proxy; this is the node here.
    Elsewhere(NodeUid, Mutex<Option<oneshot::Sender<Answered>>>),
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

impl Gather {
    /// A question of a client of another proxy; so many workers are to answer. `question`: its number, and
    /// the node here.
    pub(super) fn for_others(
        (number, node): (u64, NodeUid),
        answer: oneshot::Sender<Answered>,
        database: DatabaseUid,
        question: Question,
        workers: usize,
    ) -> Self {
        let found = Answered {
            number,
            ..Answered::default()
        };
        Self {
            asker: Asker::Elsewhere(node, Mutex::new(Some(answer))),
            database,
            question,
            missing: AtomicUsize::new(workers),
            found: Mutex::new(found),
        }
    }

    /// One more part is to come.
    pub(super) fn one_more(&self) {
        self.missing.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn is_unblock(&self) -> bool {
        matches!(self.question, Question::Unblock(..))
    }

    /// How long it may wait of `patience`.
    pub(super) fn patience(&self, patience: Duration) -> Duration {
        match self.asker {
            Asker::Here(_) => patience,
            Asker::Elsewhere(..) => patience.min(FENCE_FOR_OTHERS),
        }
    }

    fn is_of(&self, worker: usize) -> bool {
        matches!(&self.asker, Asker::Here(asker) if asker.worker.number() == worker)
    }

    /// Adds to what was found.
    pub(crate) fn add(&self, part: Answered) {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.add(part);
        // It will not be shown: it is too long.
        if found.gaps.iter().any(|gap| gap.too_long) {
            found.clients = Vec::new();
        }
    }

    /// A part is there; `true`: it was the last one.
    fn is_whole(&self) -> bool {
        self.missing.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// A part will not come.
    pub(super) fn without_one(gather: &Arc<Self>) {
        if gather.is_whole() {
            Self::send_back(gather);
        }
    }

    /// What other proxies say has come to its end: on their thread.
    pub(crate) fn others_done(gather: &Arc<Self>) {
        if !gather.is_whole() {
            return;
        }
        if let Asker::Here(asker) = &gather.asker {
            let message = Message::Gathered(Arc::clone(gather));
            tell_in_time(asker.worker.clone(), message, "CLIENT");
        }
    }

    /// The whole goes to whoever asked.
    fn send_back(gather: &Arc<Self>) {
        match &gather.asker {
            Asker::Here(asker) => {
                let message = Message::Gathered(Arc::clone(gather));
                if asker.worker.tell(message).is_err() {
                    tracing::warn!("an answer of CLIENT LIST is lost: the worker's inbox is full");
                }
            }
            Asker::Elsewhere(node, answer) => {
                let mut whole = gather.take_found();
                if whole.length() > LIST_MAX {
                    whole.clients = Vec::new();
                    whole.gaps.push(Gap {
                        node: *node,
                        too_long: true,
                    });
                }
                let mut answer = answer.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(answer) = answer.take() {
                    // Whoever waited may have gone.
                    let _ = answer.send(whole);
                }
            }
        }
    }

    fn take_found(&self) -> Answered {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let number = found.number;
        let mut whole = std::mem::take(&mut *found);
        whole.number = number;
        whole
    }
}

impl Worker {
    /// Asks all clients of a client's database, wherever they are. `words` are those after `CLIENT`.
    pub(super) fn ask_for(&mut self, index: usize, wanted: Wanted, words: &[&[u8]]) {
        let question = match &wanted {
            Wanted::Ask(question) => question,
            Wanted::Pause(_) => &Question::Pause,
        };
        let for_others = match self.for_others(index, question, words) {
            Ok(for_others) => for_others,
            Err(text) => return self.answer(index, text),
        };
        let question = match wanted {
            Wanted::Ask(question) => question,
            Wanted::Pause(wanted) => {
                let served = self.clients[index].served;
                set_pause(&self.served[served].database.pause, wanted);
                Question::Pause
            }
        };
        self.ask(index, question, for_others);
    }

    /// What other proxies are to be asked; `None`: all that are meant are here.
    ///
    /// # Errors
    /// What the client hears instead.
    fn for_others(
        &self,
        index: usize,
        question: &Question,
        words: &[&[u8]],
    ) -> Result<Option<Asked>, &'static [u8]> {
        let homes = question.homes();
        let mine = self.stats.ids.home();
        let all_here = homes
            .as_ref()
            .is_some_and(|homes| homes.iter().all(|home| *home == mine));
        if all_here && !self.stats.is_divided() {
            return Ok(None);
        }
        if words.iter().map(|word| word.len() + 2).sum::<usize>() > WORDS_MAX {
            return Err(TOO_MANY_WORDS);
        }
        let client = &self.clients[index];
        let about_me = matches!(question, Question::Kill(..))
            || words
                .iter()
                .any(|word| word.eq_ignore_ascii_case(b"SKIPME"));
        Ok(Some(Asked {
            number: 0,
            database: self.served[client.served].database.uid,
            me: if about_me { client.session.id } else { 0 },
            engine: self.generation_of(index).major(),
            words: words.iter().map(|word| Word(word.to_vec())).collect(),
            homes,
        }))
    }

    /// Asks all workers on behalf of a client, and other proxies as far as they are to be asked.
    fn ask(&mut self, index: usize, question: Question, for_others: Option<Asked>) {
        let database: &Database = &self.served[self.clients[index].served].database;
        let elsewhere = Arc::clone(&database.elsewhere);
        let others = Arc::clone(&self.others);
        let me = others.iter().find(|worker| worker.number() == self.number);
        let Some(me) = me else {
            return;
        };
        let gather = Arc::new(Gather {
            asker: Asker::Here(Client {
                id: self.client_id(index),
                worker: me.clone(),
            }),
            database: database.uid,
            question,
            missing: AtomicUsize::new(others.len() + usize::from(for_others.is_some())),
            found: Mutex::default(),
        });
        self.wait_for_gather(index);
        if let Some(question) = for_others {
            let asked = ForOthers {
                question,
                gather: Arc::clone(&gather),
                elsewhere,
                at: Instant::now(),
            };
            if let Err(back) = self.stats.questions.try_send(asked) {
                let asked = back.into_inner();
                gather.add(asked.unanswered());
                Gather::without_one(&gather);
            }
        }
        tell_all(&others, &gather, |other| other.number() != self.number);
        self.contribute(&gather);
    }

    /// Adds this worker's part; whoever is last sends the whole back.
    pub(super) fn contribute(&mut self, gather: &Arc<Gather>) {
        let served = self.by_uid.get(&gather.database).copied();
        let chosen = self.fronts(|client| {
            Some(client.served) == served
                && match &gather.question {
                    Question::List(filter) | Question::Kill(filter, _) => filter.takes(client),
                    Question::Unblock(id, _) => client.session.id == *id,
                    Question::Pause => false,
                }
        });
        let mut found = Answered::default();
        for index in chosen {
            let client = self.client_id(index);
            let asker = self.is_asker(gather, client);
            match gather.question {
                Question::List(_) => {
                    let id = self.clients[index].session.id;
                    let last = if asker { "client|list" } else { "NULL" };
                    found.clients.push((id, self.client_line(index, last)));
                }
                Question::Kill(..) => {
                    found.count += 1;
                    if !asker {
                        self.close_client(index);
                    }
                    if !asker && self.find(client).is_some() {
                        self.promise(index, gather);
                    }
                }
                Question::Pause => {}
                Question::Unblock(_, error) => {
                    for part in self.blocked_parts(index) {
                        if self.unblock(part, error) {
                            self.promise(part, gather);
                        }
                    }
                }
            }
        }
        if matches!(gather.question, Question::Pause) {
            self.take_pause(gather.database, gather);
        }
        gather.add(found);
        self.part_done(gather, 0);
    }

    fn is_asker(&self, gather: &Gather, client: ClientId) -> bool {
        match &gather.asker {
            Asker::Here(asker) => gather.is_of(self.number) && asker.id == client,
            Asker::Elsewhere(..) => false,
        }
    }

    /// A part of an answer has come.
    pub(super) fn part_done(&mut self, gather: &Arc<Gather>, count: u64) {
        if count > 0 {
            gather.add(Answered {
                count,
                ..Answered::default()
            });
        }
        match gather.is_whole() {
            true if gather.is_of(self.number) => self.gathered(gather),
            true => Gather::send_back(gather),
            false => {}
        }
    }

    /// Answers the client that asked.
    pub(super) fn gathered(&mut self, gather: &Gather) {
        let Asker::Here(asker) = &gather.asker else {
            return;
        };
        let Some(index) = self.find(asker.id) else {
            return;
        };
        if self.clients[index].wait != Wait::Gather {
            return;
        }
        self.clients[index].wait = Wait::Nothing;
        let mut found = gather.take_found();
        // A client that changes its process meanwhile may be in both.
        found.clients.sort_by_key(|(id, _)| *id);
        found.clients.dedup_by_key(|(id, _)| *id);
        let answer = match (refusal(&gather.question, &found), &gather.question) {
            (Some(refusal), _) => refusal.into_bytes(),
            (None, Question::List(_)) => {
                let lines: String = found.clients.into_iter().map(|(_, line)| line).collect();
                self.as_text(index, lines.as_bytes())
            }
            (None, Question::Pause) => texts::OK.to_vec(),
            (None, Question::Kill(_, KillStyle::Address)) if found.count > 0 => texts::OK.to_vec(),
            (None, Question::Kill(_, KillStyle::Address)) => b"-ERR No such client\r\n".to_vec(),
            // Its command may block at several shards.
            (None, Question::Unblock(..)) => format!(":{}\r\n", found.count.min(1)).into_bytes(),
            (None, Question::Kill(..)) => format!(":{}\r\n", found.count).into_bytes(),
        };
        let itself = match &gather.question {
            Question::Kill(filter, _) => filter.takes(&self.clients[index]),
            _ => false,
        };
        if itself {
            if self.settled(index) {
                self.answer(index, &answer);
                // It may be the last that is said of a transaction.
                self.give_exec(index);
            }
            self.farewell(index);
            return;
        }
        self.clients[index].owed = Some(answer);
        self.queue_client(index);
    }
}

/// So many words cannot be passed on.
const TOO_MANY_WORDS: &[u8] =
    b"-ERR more than 1 MiB of words cannot be passed on to other proxies; name fewer clients\r\n";

/// What is said instead of the answer when it would not be true: somebody has not answered. Of `LIST` what
/// was heard is shown, but nothing that is cut off.
fn refusal(question: &Question, found: &Answered) -> Option<String> {
    let too_long = found.gaps.iter().find(|gap| gap.too_long);
    match (question, too_long) {
        (Question::List(_), Some(gap)) => {
            let (whose, most) = match gap.node {
                NodeUid(0) => ("of other nodes".to_owned(), LISTS_MAX >> 20),
                node => (format!("of node:{node}"), LIST_MAX >> 20),
            };
            Some(format!(
                "-ERR the list {whose} is longer than {most} MiB; ask for fewer clients, as with \
                 CLIENT LIST ID or TYPE\r\n"
            ))
        }
        (Question::List(_), None) => None,
        (_, None) if found.gaps.is_empty() => None,
        (question, _) if question.is_found(found.count) => None,
        _ => {
            let mut nodes: Vec<u64> = found.gaps.iter().map(|gap| gap.node.0).collect();
            nodes.sort_unstable();
            let nodes: Vec<String> = nodes.iter().map(|node| format!("node:{node}")).collect();
            let nodes = nodes.join(", ");
            let done = match question {
                Question::Kill(_, KillStyle::Filters) => {
                    format!("{} clients of the others were closed", found.count)
                }
                Question::Pause => "the others did as they were told".to_owned(),
                _ => "no others have such a client".to_owned(),
            };
            Some(format!(
                "-TRYAGAIN no answer came in time about the clients of {nodes}; {done}\r\n"
            ))
        }
    }
}
