//! What the words of `CLIENT LIST`, `KILL`, `UNBLOCK`, `PAUSE` and `UNPAUSE` ask of every client of a database:
//! read alike where the client is that asks and at the proxies of other nodes.

use super::client::ClientId;
use super::filter::{Filter, Generation};
use super::gather::{Gather, KillStyle, Question};
use super::handle::{Message, WorkerHandle};
use super::pause::{Pause, Paused, read_pause};
use crate::texts;
use crate::topology::Topology;
use model::clients::{Answered, home_of};
use resp::number::strict_i64;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// What is wanted.
#[derive(Debug)]
pub(super) enum Wanted {
    /// An answer of every worker.
    Ask(Question),
    /// A pause of so much for so long, then an answer of every worker; `None`: that it ends.
    Pause(Option<(Paused, Duration)>),
}

/// Reads the words after `CLIENT`; `sub` is the first one in lower case. `None`: there is no such
/// subcommand, or it has another number of arguments.
///
/// # Errors
/// What the engine says to wrong ones.
pub(super) fn read(
    sub: &str,
    rest: &[&[u8]],
    generation: Generation,
    me: u64,
) -> Option<Result<Wanted, Vec<u8>>> {
    let more = |more: &[&[u8]]| more.len() < 2 || generation == Generation::Nine;
    Some(match (sub, rest) {
        ("list", _) => {
            Filter::of_list(rest, generation, me).map(|filter| Wanted::Ask(Question::List(filter)))
        }
        ("kill", [address]) => Ok(Wanted::Ask(Question::Kill(
            Filter::address(address),
            KillStyle::Address,
        ))),
        ("kill", [_, ..]) => Filter::of_kill(rest, generation, me)
            .map(|filter| Wanted::Ask(Question::Kill(filter, KillStyle::Filters))),
        ("unblock", [id, reason @ ..]) if more(reason) => {
            unblock(id, reason.first().copied()).map(Wanted::Ask)
        }
        ("unpause", []) => Ok(Wanted::Pause(None)),
        ("pause", [_, mode @ ..]) if more(mode) => {
            read_pause(rest, generation).map(|wanted| Wanted::Pause(Some(wanted)))
        }
        _ => return None,
    })
}

/// The arguments of `CLIENT UNBLOCK`.
fn unblock(id: &[u8], reason: Option<&[u8]>) -> Result<Question, Vec<u8>> {
    let error = match reason.map(<[u8]>::to_ascii_lowercase).as_deref() {
        None | Some(b"timeout") => false,
        Some(b"error") => true,
        Some(_) => {
            return Err(b"-ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR\r\n".to_vec());
        }
    };
    let id = strict_i64(id).ok_or_else(|| texts::NOT_AN_INTEGER.to_vec())?;
    Ok(Question::Unblock(u64::try_from(id).unwrap_or(0), error))
}

/// Begins a pause, or ends the one that there is.
pub(super) fn set_pause(pause: &Pause, wanted: Option<(Paused, Duration)>) {
    match wanted {
        Some((what, length)) => {
            let now = Instant::now();
            pause.begin(what, now + length, now);
        }
        None => pause.end(),
    }
}

impl Question {
    /// Whose clients are meant, as [`model::clients::home`] says; `None`: those of all nodes.
    pub(super) fn homes(&self) -> Option<Vec<u64>> {
        let of = |ids: &[u64]| {
            let homes: Option<Vec<u64>> = ids.iter().map(|id| home_of(*id)).collect();
            let mut homes = homes?;
            homes.sort_unstable();
            homes.dedup();
            Some(homes)
        };
        match self {
            Self::List(filter) | Self::Kill(filter, _) => of(filter.ids()?),
            Self::Unblock(id, _) => of(&[*id]),
            Self::Pause => None,
        }
    }

    /// Whether nobody else can be meant once so many were found.
    pub(super) fn is_found(&self, count: u64) -> bool {
        match self {
            Self::Kill(_, KillStyle::Address) | Self::Unblock(..) => count > 0,
            Self::Kill(filter, KillStyle::Filters) => {
                filter.ids().is_some_and(|ids| count >= ids.len() as u64)
            }
            Self::List(_) | Self::Pause => false,
        }
    }
}

/// Asks all workers what a client of another proxy wants to know. `Err`: that proxy has other words, or
/// none of its clients can be here.
pub(crate) fn ask_for_others(
    topology: &Topology,
    question: &model::clients::Question,
) -> Result<oneshot::Receiver<Answered>, Answered> {
    let nothing = || Answered {
        number: question.number,
        ..Answered::default()
    };
    let database = topology.databases.get(&question.database);
    let database = database.ok_or_else(nothing)?;
    let words: Vec<&[u8]> = question
        .words
        .iter()
        .map(|word| word.0.as_slice())
        .collect();
    let (sub, rest) = words.split_first().ok_or_else(nothing)?;
    let sub = texts::shown(sub).to_ascii_lowercase();
    let generation = Generation::of_major(question.engine);
    let wanted = read(&sub, rest, generation, question.me);
    let wanted = wanted.and_then(Result::ok).ok_or_else(nothing)?;
    let wanted = match wanted {
        Wanted::Ask(wanted) => wanted,
        Wanted::Pause(wanted) => {
            set_pause(&database.pause, wanted);
            Question::Pause
        }
    };
    let (sender, receiver) = oneshot::channel();
    let parts = topology.workers.len();
    let number = question.number;
    let gather = Gather::for_others((number, topology.node), sender, database.uid, wanted, parts);
    tell_all(&topology.workers, &Arc::new(gather), |_| true);
    Ok(receiver)
}

/// Tells workers of a question, those that `whom` names. Where an inbox is full, the answer is given without it.
pub(super) fn tell_all(
    workers: &[WorkerHandle],
    gather: &Arc<Gather>,
    whom: impl Fn(&WorkerHandle) -> bool,
) {
    for worker in workers.iter().filter(|worker| whom(worker)) {
        if worker.tell(Message::Gather(Arc::clone(gather))).is_err() {
            Gather::without_one(gather);
        }
    }
}

/// A question of a client that is to go to other proxies too.
#[derive(Debug)]
pub(crate) struct ForOthers {
    pub(crate) question: model::clients::Question,
    pub(crate) gather: Arc<Gather>,
    /// Nodes that serve the database too, as far as this proxy knows.
    pub(crate) elsewhere: Arc<[model::NodeUid]>,
    pub(crate) at: Instant,
}

/// Who has asked.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) id: ClientId,
    pub(super) worker: WorkerHandle,
}
