//! What plays `cnm_exec`: hands out a configuration, gives orders, and keeps what the proxy says.

use super::{PATIENCE, until};
use model::DatabaseUid;
use model::clients::{Answered, Question};
use model::gate::{Answer, GateOrder, Line, Order};
use model::lease::Refusal;
use model::observation::ProxyObservation;
use model::proxy::{FromProxy, Granted, Lease, LeaseOutcome, ProxyConfig, Renewal, ToProxy, Wish};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

/// What renewals of a lease are answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    #[default]
    Granted,
    Refused,
    Unknown,
    /// Nobody is there to ask, and will not be.
    NoQuorum,
    /// Nothing.
    Silent,
}

#[derive(Default)]
struct State {
    config: Option<ProxyConfig>,
    proxies: Vec<UnixStream>,
    observed: Vec<ProxyObservation>,
    /// What clients wished, and the proxy that said so.
    wishes: Vec<(Wish, UnixStream)>,
    orders: u64,
    answers: Vec<Answer>,
    policy: Policy,
    renewals: Vec<Renewal>,
    /// Questions wait for the test; otherwise there are no other proxies.
    others: bool,
    /// What clients asked, and the proxy that said so.
    questions: Vec<(Question, UnixStream)>,
    /// Proxies that said that they take questions.
    taking: usize,
    /// Pieces of answers.
    found: Vec<Answered>,
}

/// The local interface of a node, as far as a proxy uses it.
#[derive(Clone)]
pub struct Exec {
    state: Arc<Mutex<State>>,
    answered: Arc<Condvar>,
    socket: PathBuf,
}

impl Exec {
    pub fn start(socket: &Path) -> Self {
        let listener = UnixListener::bind(socket).unwrap();
        let state: Arc<Mutex<State>> = Arc::default();
        let exec = Self {
            state: Arc::clone(&state),
            answered: Arc::default(),
            socket: socket.to_owned(),
        };
        let answered = Arc::clone(&exec.answered);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                {
                    let mut known = state.lock().unwrap();
                    if let Some(config) = &known.config {
                        send(&stream, config);
                    }
                    known.proxies.push(stream.try_clone().unwrap());
                }
                let (state, answered) = (Arc::clone(&state), Arc::clone(&answered));
                std::thread::spawn(move || {
                    let back = stream.try_clone().unwrap();
                    for line in BufReader::new(stream).lines() {
                        let Ok(line) = line else { return };
                        let said = serde_json::from_str(&line).unwrap();
                        let mut state = state.lock().unwrap();
                        match said {
                            FromProxy::Observation(seen) => state.observed.push(*seen),
                            FromProxy::Wish { wish } => {
                                state.wishes.push((wish, back.try_clone().unwrap()));
                            }
                            FromProxy::Question { question } => {
                                let number = question.number;
                                if !state.others {
                                    tell(&back, number, Answered::default());
                                }
                                state.questions.push((question, back.try_clone().unwrap()));
                            }
                            FromProxy::Answered { answered } => state.found.push(answered),
                            FromProxy::Asks { .. } => state.taking += 1,
                            FromProxy::Renewal { renewal } => {
                                state.renewals.push(renewal);
                                if let Some(outcome) = state.policy.outcome() {
                                    let number = renewal.number;
                                    let lease = Lease {
                                        number,
                                        outcome,
                                        no_quorum: state.policy == Policy::NoQuorum,
                                    };
                                    send(&back, &ToProxy::Lease { lease });
                                }
                            }
                            FromProxy::Answer { answer } => {
                                state.answers.push(answer);
                                answered.notify_all();
                            }
                        }
                    }
                });
            }
        });
        exec
    }

    /// From now on renewals are answered so.
    pub fn leases(&self, policy: Policy) {
        self.state.lock().unwrap().policy = policy;
    }

    /// How often the lease was asked for.
    pub fn renewals(&self) -> usize {
        self.state.lock().unwrap().renewals.len()
    }

    /// What the last renewal said that all workers have applied.
    pub fn renewed(&self) -> u64 {
        let state = self.state.lock().unwrap();
        state.renewals.last().map_or(0, |last| last.applied.0)
    }

    /// It is gone, with all its connections, until [`Exec::come_back`].
    pub fn go_away(&self) {
        std::fs::rename(&self.socket, self.socket.with_extension("away")).unwrap();
        self.hang_up();
    }

    pub fn come_back(&self) {
        std::fs::rename(self.socket.with_extension("away"), &self.socket).unwrap();
    }

    /// Hands out a configuration, now and to every proxy that comes.
    pub fn publish(&self, config: &ProxyConfig) {
        let mut state = self.state.lock().unwrap();
        state.config = Some(config.clone());
        state.proxies.retain(|proxy| send(proxy, config));
    }

    /// Gives an order about the first database to the proxy that came last; returns its number.
    pub fn order(&self, what: GateOrder) -> u64 {
        let mut state = self.state.lock().unwrap();
        state.orders += 1;
        let id = state.orders;
        let line = Line::Order(Order {
            id,
            database: DatabaseUid(1),
            what,
        });
        let mut line = serde_json::to_vec(&line).unwrap();
        line.push(b'\n');
        let mut proxy = state.proxies.last().expect("no proxy has come");
        proxy.write_all(&line).unwrap();
        id
    }

    /// The answer to an order, if it has come.
    pub fn answer_to(&self, id: u64) -> Option<Answer> {
        let state = self.state.lock().unwrap();
        state.answers.iter().find(|answer| answer.id == id).cloned()
    }

    /// Gives an order and waits for its answer.
    pub fn ordered(&self, what: GateOrder) -> Answer {
        let id = self.order(what);
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.state.lock().unwrap();
        loop {
            if let Some(answer) = state.answers.iter().find(|answer| answer.id == id) {
                return answer.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "an order is not answered");
            state = self.answered.wait_timeout(state, left).unwrap().0;
        }
    }

    /// Cuts all connections of proxies, and waits until one has come again.
    pub fn cut(&self) {
        let old: Vec<UnixStream> = std::mem::take(&mut self.state.lock().unwrap().proxies);
        for proxy in old {
            let _ = proxy.shutdown(std::net::Shutdown::Both);
        }
        until("the proxy comes back", || {
            !self.state.lock().unwrap().proxies.is_empty()
        });
    }

    /// The last thing that a proxy said.
    pub fn last(&self) -> Option<ProxyObservation> {
        self.state.lock().unwrap().observed.last().cloned()
    }

    /// What clients have wished so far.
    pub fn wishes(&self) -> Vec<Wish> {
        let state = self.state.lock().unwrap();
        state.wishes.iter().map(|(wish, _)| wish.clone()).collect()
    }

    /// Says what became of a wish.
    pub fn grant(&self, number: u64, refusal: Option<&str>) {
        let state = self.state.lock().unwrap();
        let mut wishes = state.wishes.iter();
        let (_, proxy) = wishes.find(|(wish, _)| wish.number == number).unwrap();
        let granted = Granted {
            number,
            refusal: refusal.map(str::to_owned),
        };
        assert!(send(proxy, &ToProxy::Granted { granted }));
    }

    /// From now on questions wait for [`Exec::tell`].
    pub fn has_others(&self) {
        self.state.lock().unwrap().others = true;
    }

    /// What clients have asked so far.
    pub fn questions(&self) -> Vec<Question> {
        let state = self.state.lock().unwrap();
        let questions = state.questions.iter();
        questions.map(|(question, _)| question.clone()).collect()
    }

    /// Waits for so many questions; the last one.
    pub fn asked(&self, count: usize) -> Question {
        until("so many questions have come", || {
            self.questions().len() >= count
        });
        self.questions().swap_remove(count - 1)
    }

    /// Says what other proxies have found.
    pub fn tell(&self, number: u64, answered: Answered) {
        let state = self.state.lock().unwrap();
        let mut questions = state.questions.iter().rev();
        let (_, proxy) = questions.find(|(q, _)| q.number == number).unwrap();
        assert!(tell(proxy, number, answered));
    }

    /// A client of another proxy asks the one that came last; what that finds.
    pub fn asks(&self, question: &Question) -> Answered {
        let number = question.number;
        {
            let state = self.state.lock().unwrap();
            let question = question.clone();
            let proxy = state.proxies.last().expect("no proxy has come");
            assert!(send(proxy, &ToProxy::Question { question }));
        }
        let mut whole = Answered {
            number,
            ..Answered::default()
        };
        until("the proxy answers", || {
            let mut state = self.state.lock().unwrap();
            let mut last = false;
            for piece in std::mem::take(&mut state.found) {
                assert_eq!(piece.number, number);
                last = !piece.more;
                whole.add(piece);
            }
            last
        });
        whole
    }

    /// How many connections of proxies take questions, or did.
    pub fn taking(&self) -> usize {
        self.state.lock().unwrap().taking
    }

    /// Ends the connections of all proxies.
    pub fn hang_up(&self) {
        for proxy in &self.state.lock().unwrap().proxies {
            let _ = proxy.shutdown(std::net::Shutdown::Both);
        }
    }

    /// How often proxies have said something.
    pub fn count(&self) -> usize {
        self.state.lock().unwrap().observed.len()
    }

    /// Every server process that has said something.
    pub fn servers(&self) -> Vec<u32> {
        let mut pids: Vec<u32> = self
            .state
            .lock()
            .unwrap()
            .observed
            .iter()
            .map(|observed| observed.pid)
            .collect();
        pids.sort_unstable();
        pids.dedup();
        pids
    }
}

impl Policy {
    fn outcome(self) -> Option<LeaseOutcome> {
        match self {
            Self::Granted => Some(LeaseOutcome::Granted),
            Self::Refused => Some(LeaseOutcome::Refused(Refusal::NotConfirmed)),
            Self::Unknown | Self::NoQuorum => Some(LeaseOutcome::Unknown),
            Self::Silent => None,
        }
    }
}

fn tell(proxy: &UnixStream, number: u64, answered: Answered) -> bool {
    let answered = Answered { number, ..answered };
    send(proxy, &ToProxy::Answered { answered })
}

fn send(mut proxy: &UnixStream, message: &impl serde::Serialize) -> bool {
    let mut line = serde_json::to_vec(message).unwrap();
    line.push(b'\n');
    proxy.write_all(&line).is_ok()
}
