//! Questions about the clients of a database, wherever they are: what a proxy of this node asks goes to its
//! other proxies and to the other nodes, and what another node asks goes to every proxy here. See
//! [`model::clients`].

use crate::member::Member;
use crate::proxies::Proxies;
use controller::placement::plan::proxies;
use controller::state::ClusterState;
use model::NodeUid;
use model::clients::{
    Answered, Gap, LIST_MAX, NODES_WAIT, OTHERS_WAIT, PROXIES_WAIT, QUESTIONS_MAX, Question,
};
use model::proxy::{FromProxy, ToProxy};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{timeout, timeout_at};

/// Most questions that wait for one proxy.
const ASKED_MAX: usize = 64;
/// Most questions of other nodes that are being answered: each may bring a long list.
const ANSWERING_MAX: usize = 16;
/// How long a proxy that has come may take to say whether it takes questions; those of 1.1.0 never do.
const SAYS_WITHIN: Duration = Duration::from_secs(5);

/// A question on its way to a proxy.
#[derive(Debug)]
struct Asked {
    question: Question,
    answer: oneshot::Sender<Answered>,
}

/// A proxy of this node.
#[derive(Clone, Debug)]
struct Taker {
    process: u32,
    asked: mpsc::Sender<Asked>,
    takes: Takes,
}

/// Whether it takes questions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Takes {
    Yes,
    /// It is of a release that does not.
    No,
    /// It has come then, and has not said so yet.
    Unknown(Instant),
}

impl Takes {
    /// Whether it has not answered, if it is not asked.
    fn is_missing(self) -> bool {
        matches!(self, Self::Unknown(since) if since.elapsed() < SAYS_WITHIN)
    }
}

/// The proxies of this node, by the number of their connection.
#[derive(Debug)]
pub struct Questions {
    proxies: Mutex<BTreeMap<u64, Taker>>,
    room: Semaphore,
}

impl Default for Questions {
    fn default() -> Self {
        Self {
            proxies: Mutex::default(),
            room: Semaphore::new(ANSWERING_MAX),
        }
    }
}

impl Questions {
    fn with<T>(&self, work: impl FnOnce(&mut BTreeMap<u64, Taker>) -> T) -> T {
        work(&mut self.proxies.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A proxy has come.
    pub fn open(&self, connection: u64, process: u32) -> Conversation {
        let (asked, receiver) = mpsc::channel(ASKED_MAX);
        let takes = Takes::Unknown(Instant::now());
        let taker = Taker {
            process,
            asked,
            takes,
        };
        self.with(|proxies| proxies.insert(connection, taker));
        Conversation::new(connection, receiver)
    }

    /// A proxy has gone.
    pub fn close(&self, connection: u64) {
        self.with(|proxies| proxies.remove(&connection));
    }

    /// A proxy says whether it takes questions. What it has said once stays.
    pub fn says(&self, connection: u64, takes: bool) {
        self.with(|proxies| {
            if let Some(known) = proxies.get_mut(&connection)
                && known.takes != Takes::Yes
            {
                known.takes = if takes { Takes::Yes } else { Takes::No };
            }
        });
    }

    /// What the proxies find, but the one of `asker`. `false`: one that may have clients has not answered.
    async fn ask(
        &self,
        proxies: &Proxies,
        question: &Question,
        asker: Option<u64>,
    ) -> (Answered, bool) {
        let all = self.with(|proxies| proxies.clone());
        let connected: Vec<u32> = all.values().map(|taker| taker.process).collect();
        let mut whole = proxies.missing(&connected, &[]).is_none();
        let mut awaited = Vec::new();
        for (connection, taker) in &all {
            if Some(*connection) == asker || taker.takes == Takes::No {
                continue;
            }
            let (answer, receiver) = oneshot::channel();
            let question = question.clone();
            let asked = Asked { question, answer };
            match taker.takes {
                Takes::Yes if taker.asked.try_send(asked).is_ok() => awaited.push(receiver),
                Takes::Yes => whole = false,
                takes => whole &= !takes.is_missing(),
            }
        }
        let deadline = tokio::time::Instant::now() + PROXIES_WAIT;
        let mut found = Answered {
            number: question.number,
            ..Answered::default()
        };
        for receiver in awaited {
            match timeout_at(deadline, receiver).await {
                Ok(Ok(answered)) => found.add(answered),
                Err(_) => whole = false,
                // Its connection has ended: if it has too, it has no clients.
                Ok(Err(_)) => whole &= proxies.missing(&self.processes(), &[]).is_none(),
            }
        }
        (found, whole)
    }

    fn processes(&self) -> Vec<u32> {
        self.with(|proxies| proxies.values().map(|taker| taker.process).collect())
    }
}

/// A question that the proxy has not answered yet.
#[derive(Debug)]
struct Waiting {
    answer: oneshot::Sender<Answered>,
    so_far: Answered,
    length: usize,
}

/// What goes to and fro over the connection of one proxy.
#[derive(Debug)]
pub struct Conversation {
    connection: u64,
    asked: mpsc::Receiver<Asked>,
    last: u64,
    waiting: BTreeMap<u64, Waiting>,
    under_way: JoinSet<()>,
    pieces: (mpsc::Sender<Answered>, mpsc::Receiver<Answered>),
}

impl Conversation {
    fn new(connection: u64, asked: mpsc::Receiver<Asked>) -> Self {
        Self {
            connection,
            asked,
            last: 0,
            waiting: BTreeMap::new(),
            under_way: JoinSet::new(),
            // One at a time: it is not to wait before a lease.
            pieces: mpsc::channel(1),
        }
    }

    /// What the proxy is to be sent next.
    pub async fn next(&mut self) -> ToProxy {
        let asked = tokio::select! {
            Some(asked) = self.asked.recv() => asked,
            Some(answered) = self.pieces.1.recv() => return ToProxy::Answered { answered },
        };
        // Whoever waited for these has gone.
        self.waiting.retain(|_, known| !known.answer.is_closed());
        self.last += 1;
        let mut question = asked.question;
        let number = std::mem::replace(&mut question.number, self.last);
        let so_far = Answered {
            number,
            ..Answered::default()
        };
        let waiting = Waiting {
            answer: asked.answer,
            so_far,
            length: 0,
        };
        self.waiting.insert(self.last, waiting);
        ToProxy::Question { question }
    }

    /// The proxy says something about clients.
    pub fn hear(&mut self, member: &Arc<Member>, said: FromProxy) {
        match said {
            FromProxy::Question { question } => self.ask(member, question),
            FromProxy::Answered { answered } => self.answered(answered),
            FromProxy::Asks { takes_questions } => {
                member.questions.says(self.connection, takes_questions);
            }
            FromProxy::Observation(_)
            | FromProxy::Answer { .. }
            | FromProxy::Renewal { .. }
            | FromProxy::Wish { .. } => {}
        }
    }

    /// The proxy has found something.
    fn answered(&mut self, mut piece: Answered) {
        let (number, more) = (piece.number, piece.more);
        let Some(known) = self.waiting.get_mut(&number) else {
            return;
        };
        // One piece too much is enough to see that there is too much.
        if known.length > LIST_MAX {
            piece.clients = Vec::new();
        }
        known.length += piece.length();
        known.so_far.add(piece);
        if !more && let Some(known) = self.waiting.remove(&number) {
            // Whoever waited may have gone.
            let _ = known.answer.send(known.so_far);
        }
    }

    /// The proxy asks.
    fn ask(&mut self, member: &Arc<Member>, question: Question) {
        while self.under_way.try_join_next().is_some() {}
        if self.under_way.len() >= QUESTIONS_MAX {
            tracing::warn!("a proxy asks too much at a time: one question is not answered");
            return;
        }
        let (member, connection) = (Arc::clone(member), self.connection);
        let pieces = self.pieces.0.clone();
        self.under_way.spawn(async move {
            carry(&member, question, connection, pieces).await;
        });
    }
}

/// A node that is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    node: NodeUid,
    address: String,
    /// It serves the database, or is meant by name: without it the answer is not whole.
    counts: bool,
}

/// Who is asked beside this node.
fn targets(state: &ClusterState, me: NodeUid, question: &Question) -> Vec<Target> {
    let database = state.database(question.database);
    let serve = database.map_or_else(Vec::new, |database| proxies(state, database));
    let nodes = state.nodes.iter();
    nodes
        .filter(|node| node.uid != me && question.is_for(node.uid))
        .map(|node| Target {
            node: node.uid,
            address: node.internode_address(),
            counts: question.homes.is_some() || serve.contains(&node.uid),
        })
        .collect()
}

/// Sees to a question of a proxy of this node. What each node finds is passed on as it comes.
async fn carry(
    member: &Arc<Member>,
    question: Question,
    connection: u64,
    pieces: mpsc::Sender<Answered>,
) {
    let number = question.number;
    let state = ClusterState::read(&member.store.state());
    let targets = match state {
        Ok(Some(state)) => targets(&state, member.identity.node, &question),
        _ => Vec::new(),
    };
    let mut asked = JoinSet::new();
    let question = Arc::new(question);
    for target in targets {
        let (member, question) = (Arc::clone(member), Arc::clone(&question));
        asked.spawn(async move { ask_node(&member, &question, target).await });
    }
    if question.is_for(member.identity.node) {
        let (member, question) = (Arc::clone(member), Arc::clone(&question));
        asked.spawn(async move { here(&member, &question, Some(connection)).await });
    }
    while let Some(found) = asked.join_next().await {
        let mut found = found.unwrap_or_default();
        found.number = number;
        for piece in found.pieces(true) {
            if pieces.send(piece).await.is_err() {
                return;
            }
        }
    }
    let last = Answered {
        number,
        ..Answered::default()
    };
    // The proxy may have gone.
    let _ = pieces.send(last).await;
}

/// What another node finds. One of the release before knows of no question: it is left out, as it was there.
async fn ask_node(member: &Member, question: &Question, target: Target) -> Answered {
    let Target {
        node,
        address,
        counts,
    } = target;
    let wait = if counts { NODES_WAIT } else { OTHERS_WAIT };
    let found = member.internode.clients(&address, question, wait).await;
    match found {
        Ok(found) => Answered {
            gaps: if counts {
                found.gaps
            } else {
                too_long(found.gaps)
            },
            ..found
        },
        Err(client::internode::CallError::NoSuchCall { .. }) => Answered::default(),
        Err(error) => {
            tracing::debug!(%node, %error, "a node does not answer for its clients");
            let gap = Gap {
                node,
                too_long: false,
            };
            Answered {
                gaps: counts.then_some(gap).into_iter().collect(),
                ..Answered::default()
            }
        }
    }
}

/// Those that are told of in any case.
fn too_long(mut gaps: Vec<Gap>) -> Vec<Gap> {
    gaps.retain(|gap| gap.too_long);
    gaps
}

/// What this node's proxies find, but that of the connection that asks.
async fn here(member: &Member, question: &Question, asker: Option<u64>) -> Answered {
    let asked = member.questions.ask(&member.proxies, question, asker).await;
    let (mut found, whole) = asked;
    let too_long = found.length() > LIST_MAX;
    if too_long {
        found.clients = Vec::new();
    }
    if too_long || !whole {
        found.add(Answered {
            gaps: vec![Gap {
                node: member.identity.node,
                too_long,
            }],
            ..Answered::default()
        });
    }
    found
}

/// Answers another node.
pub async fn of_other_node(member: &Member, question: Question) -> Answered {
    let Ok(Ok(_place)) = timeout(PROXIES_WAIT, member.questions.room.acquire()).await else {
        let gap = Gap {
            node: member.identity.node,
            too_long: false,
        };
        return Answered {
            gaps: vec![gap],
            ..Answered::default()
        };
    };
    here(member, &question, None).await
}

#[cfg(test)]
mod tests;
