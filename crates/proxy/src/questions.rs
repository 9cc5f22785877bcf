//! Questions of clients that other proxies are to answer too, on their way to `cnm_exec` and back, and those of
//! other proxies' clients. See [`model::clients`].
//!
//! A question is one part of what its client's worker gathers; that part ends in time whatever happens. It is
//! kept apart from the connection, so that one that hangs keeps nobody waiting. Without a `cnm_exec` that takes
//! questions, the nodes that serve the database too have not answered, as far as this proxy knows of any.

use crate::listeners::Acceptor;
use crate::worker::{ForOthers, Gather, ask_for_others};
use model::NodeUid;
use model::clients::{
    Answered, Gap, LISTS_MAX, PROXIES_WAIT, QUESTION_WAIT, QUESTIONS_MAX, Question,
};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

/// Most questions that wait; the next ones are answered without other proxies.
const WAITING_MAX: usize = 256;
/// Most questions of other proxies' clients that are under way here; the next ones are not answered.
const ANSWERING_MAX: usize = 32;
/// How long a question of another proxy waits for clients that are between two processes.
const DIVIDED_WAIT: Duration = Duration::from_millis(200);
/// Between two looks whether they still are.
const DIVIDED_LOOK: Duration = Duration::from_millis(5);
/// How often the log is told that a list is not whole.
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// The questions of all clients.
#[derive(Clone, Debug, Default)]
pub(crate) struct Questions(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// In the order in which they came.
    pending: Vec<Pending>,
    last: u64,
    link: Link,
    told: Option<Instant>,
}

/// How `cnm_exec` stands to questions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Link {
    /// It is not there.
    #[default]
    Away,
    /// It has not said yet whether it takes them.
    Unknown,
    Takes,
    /// It is of a release that does not.
    TooOld,
}

#[derive(Debug)]
struct Pending {
    asked: ForOthers,
    /// Its number once it is sent, or that of the same one that is.
    sent: Option<u64>,
    /// How much of a list has come.
    length: usize,
}

impl ForOthers {
    /// The answer of those that serve the database too, when nobody says anything.
    pub(crate) fn unanswered(&self) -> Answered {
        let nodes = self.elsewhere.iter().copied();
        let gaps = nodes
            .filter(|node| self.question.is_for(*node))
            .map(|node| Gap {
                node,
                too_long: false,
            });
        Answered {
            gaps: gaps.collect(),
            ..Answered::default()
        }
    }
}

impl Questions {
    /// Takes what workers ask, and ends what has waited too long.
    pub(crate) async fn tend(self, mut asked: mpsc::Receiver<ForOthers>) {
        loop {
            let first = self.with(|state| state.pending.first().map(|p| p.asked.at));
            let late = async {
                match first {
                    Some(at) => tokio::time::sleep_until((at + QUESTION_WAIT).into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                asked = asked.recv() => match asked {
                    Some(asked) => self.with(|state| state.take(asked)),
                    None => return,
                },
                () = late => self.with(|state| state.expire(Instant::now())),
            }
            self.0.changed.notify_one();
        }
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.0.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// `cnm_exec` is there, or is gone.
    pub(crate) fn connected(&self, connected: bool) {
        let link = if connected { Link::Unknown } else { Link::Away };
        self.with(|state| state.stands(link));
    }

    /// Whether it takes questions.
    pub(crate) fn takes(&self, takes: bool) {
        let link = if takes { Link::Takes } else { Link::TooOld };
        self.with(|state| state.stands(link));
        self.0.changed.notify_one();
    }

    /// It has answered.
    pub(crate) fn answered(&self, answered: &Answered) {
        self.with(|state| state.answered(answered));
        self.0.changed.notify_one();
    }

    /// What is to be sent next.
    pub(crate) async fn next(&self) -> Question {
        loop {
            if let Some(question) = self.with(State::next) {
                return question;
            }
            self.0.changed.notified().await;
        }
    }
}

impl State {
    fn take(&mut self, asked: ForOthers) {
        let pending = Pending {
            asked,
            sent: None,
            length: 0,
        };
        match self.link {
            Link::Unknown | Link::Takes if self.pending.len() < WAITING_MAX => {
                self.pending.push(pending);
            }
            _ => self.give_up(vec![pending]),
        }
    }

    fn stands(&mut self, link: Link) {
        self.link = link;
        if matches!(link, Link::Away | Link::TooOld) {
            let all = std::mem::take(&mut self.pending);
            self.give_up(all);
        }
    }

    fn expire(&mut self, now: Instant) {
        let late = |pending: &mut Pending| now >= pending.asked.at + QUESTION_WAIT;
        let late = self.pending.extract_if(.., late).collect();
        self.give_up(late);
    }

    /// These end without an answer.
    fn give_up(&mut self, ended: Vec<Pending>) {
        for pending in ended {
            let unanswered = pending.asked.unanswered();
            self.tell_of(&unanswered);
            pending.asked.gather.add(unanswered);
            Gather::others_done(&pending.asked.gather);
        }
    }

    fn next(&mut self) -> Option<Question> {
        if self.link != Link::Takes {
            return None;
        }
        let sent = self.pending.iter().filter_map(|pending| pending.sent);
        let sent: BTreeSet<u64> = sent.collect();
        if sent.len() >= QUESTIONS_MAX {
            return None;
        }
        let first = self.pending.iter().find(|pending| pending.sent.is_none())?;
        self.last += 1;
        let number = self.last;
        let question = Question {
            number,
            ..first.asked.question.clone()
        };
        for pending in &mut self.pending {
            if pending.sent.is_none() && pending.asked.question.is_same(&question) {
                pending.sent = Some(number);
            }
        }
        Some(question)
    }

    fn answered(&mut self, answered: &Answered) {
        let of = |pending: &Pending| pending.sent == Some(answered.number);
        if self.pending.iter().any(of) {
            self.tell_of(answered);
        }
        for pending in self.pending.iter_mut().filter(|pending| of(pending)) {
            let mut piece = answered.clone();
            pending.length += piece.length();
            if pending.length > LISTS_MAX {
                piece.gaps.push(Gap {
                    node: NodeUid(0),
                    too_long: true,
                });
            }
            pending.asked.gather.add(piece);
        }
        if !answered.more {
            for pending in self.pending.extract_if(.., |pending| of(pending)) {
                Gather::others_done(&pending.asked.gather);
            }
        }
    }

    /// Tells the log who is missing in an answer, now and then.
    fn tell_of(&mut self, answered: &Answered) {
        let now = Instant::now();
        let again = self.told.is_none_or(|told| now >= told + TELL_AGAIN);
        if again && let Some(gap) = answered.gaps.first() {
            self.told = Some(now);
            let (node, missing) = (gap.node, answered.gaps.len());
            tracing::warn!(%node, missing, "a node does not answer for its clients");
        }
    }
}

/// Answers questions of other proxies' clients, as long as a connection to `cnm_exec` lasts.
#[derive(Debug)]
pub(crate) struct Answering {
    acceptor: Arc<Acceptor>,
    pieces: mpsc::Sender<Answered>,
    under_way: JoinSet<()>,
}

impl Answering {
    /// What is found goes to `pieces`, one after the other.
    pub(crate) fn new(acceptor: Arc<Acceptor>, pieces: mpsc::Sender<Answered>) -> Self {
        Self {
            acceptor,
            pieces,
            under_way: JoinSet::new(),
        }
    }

    /// Answers a question, unless there are too many.
    pub(crate) fn take(&mut self, question: Question) {
        while self.under_way.try_join_next().is_some() {}
        if self.under_way.len() >= ANSWERING_MAX {
            tracing::warn!("too many questions of other proxies: one is not answered");
            return;
        }
        let (acceptor, pieces) = (Arc::clone(&self.acceptor), self.pieces.clone());
        self.under_way.spawn(async move {
            let found = tokio::time::timeout(PROXIES_WAIT, find(&acceptor, &question)).await;
            let Ok(Some(found)) = found else {
                return;
            };
            for piece in found.pieces(false) {
                if pieces.send(piece).await.is_err() {
                    return;
                }
            }
        });
    }
}

/// What all workers find. `None`: there are none any more.
async fn find(acceptor: &Acceptor, question: &Question) -> Option<Answered> {
    let until = Instant::now() + DIVIDED_WAIT;
    while acceptor.stats.is_divided() && Instant::now() < until {
        tokio::time::sleep(DIVIDED_LOOK).await;
    }
    let topology = acceptor.topology()?;
    match ask_for_others(&topology, question) {
        Ok(found) => found.await.ok(),
        Err(nothing) => Some(nothing),
    }
}
