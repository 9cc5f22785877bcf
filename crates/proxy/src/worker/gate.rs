//! Gates: a shard's commands are held while its primary moves.
//!
//! | order | what a worker does |
//! |---|---|
//! | prepare | opens connections to the engine that is to be primary |
//! | hold | forwards nothing more; answers when nothing is outstanding |
//! | release | the prepared connections take over, and all that waited goes on |
//!
//! A closed gate makes the shard's links not ready, so the short way of most commands pays nothing for
//! it: what is to go there takes the long way, and ends in [`Worker::wait_at_gate`]. Only a shard of a
//! higher epoch opens it.
//!
//! | file | what |
//! |---|---|
//! | [`prepare`] | connections to the next primary |
//! | [`hold`] | closing: what is still outstanding |
//! | [`release`] | another primary takes over |
//! | [`keep`] | what a client's own connection holds, and setting up another one |
//! | [`blocked`] | blocking commands |
//! | [`messages`] | subscriptions |
//! | [`scripts`] | bodies of scripts |

mod blocked;
mod hold;
mod keep;
mod messages;
mod prepare;
mod release;
mod scripts;

pub(crate) use keep::Keep;
pub(crate) use messages::Moving;
pub(super) use prepare::same_place;
pub(crate) use scripts::Scripts;

use super::Worker;
use super::backend::{Next, Use};
use super::client::{ClientId, Wait};
use super::lanes::Flow;
use super::link::{Engine, LinkId};
use super::timers::Timer;
use crate::texts;
use model::gate::{GateOrder, not_served};
use model::proxy::ProxyShard;
use model::{DatabaseUid, Epoch, ShardUid};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::Sender;

/// An order, for one worker.
#[derive(Debug)]
pub(crate) struct Task {
    /// The database.
    pub(crate) database: DatabaseUid,
    /// What to do.
    pub(crate) what: GateOrder,
    /// Takes one outcome of each worker. If it is dropped, the order came to nothing.
    pub(crate) answer: Sender<Outcome>,
}

/// What became of an order in one worker.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Why it was not carried out.
    pub(crate) refusal: Option<String>,
    /// How long the gate was closed, µs.
    pub(crate) held_us: u64,
    /// Clients that waited.
    pub(crate) waited: u64,
}

/// What a worker has under way about gates.
#[derive(Debug)]
pub(crate) struct Gates {
    /// What marker channels begin with.
    prefix: Vec<u8>,
    /// Tells this worker's marker channels from others'.
    random: u64,
    /// Something has come that was waited for.
    look: bool,
    /// Clients whose subscriptions move after the primary, and the connections that they leave.
    late: Vec<(ClientId, usize)>,
    /// Orders to hold that wait for those clients.
    postponed: Vec<Task>,
    /// Shards whose gates close: at the end of every turn it is seen how far.
    closing: Vec<(usize, usize)>,
    /// Counts gates and what is prepared, so that a timer knows its own.
    count: u64,
}

impl Default for Gates {
    fn default() -> Self {
        Self {
            prefix: b"mainstay:move:".to_vec(),
            random: rand::random(),
            look: false,
            late: Vec::new(),
            postponed: Vec::new(),
            closing: Vec::new(),
            count: 0,
        }
    }
}

/// A shard's gate.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    prepared: Option<Prepared>,
    closed: Option<Closed>,
}

/// Connections to the engine that is to be primary.
#[derive(Debug)]
struct Prepared {
    shard: ProxyShard,
    /// The target that they belong to.
    target: u64,
    /// By version of the protocol.
    shared: [Option<usize>; 2],
    /// For single clients.
    spare: Vec<usize>,
    /// Connections that are not ready yet.
    opening: usize,
    /// Scripts are being loaded.
    loading: bool,
    /// What its engine said of itself.
    engine: Option<Engine>,
    /// Who waits for them.
    answer: Option<Sender<Outcome>>,
    number: u64,
}

/// That a gate is closed.
#[derive(Debug)]
struct Closed {
    epoch: Epoch,
    since: Instant,
    /// Nothing is outstanding.
    held: bool,
    /// Clients have waited long enough: they get an error now.
    over: bool,
    /// Who waits for it to be held: each that has ordered it.
    answers: Vec<Sender<Outcome>>,
    /// Clients that have come to wait.
    waited: u64,
    /// Connections with a long command that is not whole, and how much its client had sent.
    halves: Vec<(usize, u64)>,
    /// When they are looked at next.
    look_at: Instant,
    number: u64,
}

impl Gate {
    fn is_closed(&self) -> bool {
        self.closed.is_some()
    }
}

/// Tells what became of an order.
fn tell(answer: Option<Sender<Outcome>>, outcome: Outcome) {
    if let Some(answer) = answer {
        // There is a place for each worker; nobody listens only if the server ends.
        let _ = answer.try_send(outcome);
    }
}

fn refuse(answer: Option<Sender<Outcome>>, refusal: impl Into<String>) {
    tell(
        answer,
        Outcome {
            refusal: Some(refusal.into()),
            ..Outcome::default()
        },
    );
}

impl Worker {
    /// Does what an order asks for, or says why not.
    pub(super) fn gate_order(&mut self, task: Task) {
        let Task {
            database,
            what,
            answer,
        } = task;
        let (GateOrder::Prepare { shard: uid, .. }
        | GateOrder::Hold { shard: uid, .. }
        | GateOrder::Release { shard: uid, .. }) = &what;
        let Some((served, shard)) = self.find_shard(database, *uid, &what) else {
            refuse(Some(answer), not_served(database, *uid));
            return;
        };
        match what {
            GateOrder::Prepare { epoch, next, .. } => {
                self.prepare(served, shard, epoch, next, answer);
            }
            // A closed gate would let nobody connect to where they go. What was published since the last move may
            // come over a connection from before that: until it has, no other move begins.
            GateOrder::Hold { .. } if self.moves_late(served, shard) => {
                let postponed = Task {
                    database,
                    what,
                    answer,
                };
                self.gates.postponed.push(postponed);
            }
            GateOrder::Hold {
                epoch, patience_ms, ..
            } => {
                let patience = Duration::from_millis(u64::from(patience_ms));
                self.hold_order(served, shard, epoch, patience, answer);
            }
            GateOrder::Release { next, .. } => self.release_order(served, shard, next, answer),
        }
    }

    /// The place of a primary. Its name is that of the target; while there is none, that of the
    /// configuration; of a release, which may have been carried out already, also that of the next primary.
    fn find_shard(
        &self,
        database: DatabaseUid,
        uid: ShardUid,
        what: &GateOrder,
    ) -> Option<(usize, usize)> {
        let served = *self.by_uid.get(&database)?;
        let known = &self.served[served];
        let is_target = |uid: ShardUid| {
            known
                .shards
                .iter()
                .position(|links| links.target.as_ref().is_some_and(|known| known.uid == uid))
        };
        let shard = is_target(uid).or_else(|| {
            let place = known
                .database
                .shards
                .iter()
                .position(|shard| shard.uid == uid)?;
            (known.shards.get(place)?.target.is_none()).then_some(place)
        });
        let shard = shard.or_else(|| match what {
            GateOrder::Release { next, .. } => is_target(next.uid),
            GateOrder::Prepare { .. } | GateOrder::Hold { .. } => None,
        });
        Some((served, shard?))
    }

    /// The epoch under which a shard is sent to now, or would be.
    pub(super) fn epoch_of(&self, served: usize, shard: usize) -> Option<Epoch> {
        let known = &self.served[served];
        let links = &known.shards[shard];
        match &links.target {
            Some(target) => Some(target.epoch),
            None => known.database.shards.get(shard).map(|shard| shard.epoch),
        }
    }

    pub(super) fn gate(&self, id: LinkId) -> Option<&Gate> {
        let links = self.served.get(id.served)?.shards.get(id.shard)?;
        links.gate.as_deref()
    }

    fn gate_mut(&mut self, served: usize, shard: usize) -> Option<&mut Gate> {
        let links = self.served.get_mut(served)?.shards.get_mut(shard)?;
        links.gate.as_deref_mut()
    }

    fn closed_mut(&mut self, served: usize, shard: usize) -> Option<&mut Closed> {
        self.gate_mut(served, shard)?.closed.as_mut()
    }

    /// Whether the gate of a shard is closed.
    #[inline]
    pub(super) fn is_closed(&self, id: LinkId) -> bool {
        self.gate(id).is_some_and(Gate::is_closed)
    }

    /// Whether a primary of a database moves, or is about to.
    pub(super) fn is_moving(&self, served: usize) -> bool {
        let busy = |gate: &Gate| gate.prepared.is_some() || gate.closed.is_some();
        let shards = &self.served[served].shards;
        shards
            .iter()
            .any(|links| links.gate.as_deref().is_some_and(busy))
    }

    /// Whether nothing at all may be sent to a shard any more.
    pub(super) fn is_held(&self, id: LinkId) -> bool {
        let closed = self.gate(id).and_then(|gate| gate.closed.as_ref());
        closed.is_some_and(|closed| closed.held)
    }

    /// Lets a client wait in front of a closed gate, or tells it that it has waited long enough.
    #[cold]
    pub(super) fn wait_at_gate(&mut self, index: usize, id: LinkId) -> Flow {
        let Some(closed) = self.closed_mut(id.served, id.shard) else {
            return Flow::Hold;
        };
        if closed.over {
            return self.answer_in_order(index, texts::MOVING);
        }
        closed.waited += 1;
        let name = self.client_id(index);
        if let Some(link) = self.link_mut(id) {
            link.waiters.push(name);
        }
        self.clients[index].wait = Wait::Link;
        Flow::Hold
    }

    /// What time brings to a gate.
    pub(super) fn gate_timer(&mut self, served: usize, shard: usize, number: u64) {
        let Some(gate) = self.gate_mut(served, shard) else {
            return;
        };
        if gate.prepared.as_ref().is_some_and(|p| p.number == number) && !gate.is_closed() {
            self.forget_prepared(served, shard, "nothing came of it");
            return;
        }
        if gate.closed.as_ref().is_some_and(|c| c.number == number) {
            self.patience_over(served, shard);
        }
    }

    /// Marker channels begin with the cluster's name, so that nobody's own channel is taken for one.
    pub(super) fn name_markers(&mut self, cluster: &str) {
        self.gates.prefix = format!("mainstay:move:{cluster}:").into_bytes();
    }

    fn next_number(&mut self) -> u64 {
        self.gates.count += 1;
        self.gates.count
    }

    fn links_of(&self, served: usize, shard: usize) -> [LinkId; 2] {
        [2, 3].map(|resp| LinkId {
            served,
            shard,
            resp,
        })
    }

    fn set_gate_timer(&mut self, after: Duration, served: usize, shard: usize, number: u64) {
        self.timers.set(after, Timer::Gate(served, shard, number));
    }

    /// A connection to the next primary was lost, or could not be had.
    pub(super) fn lost_prepared(&mut self, id: LinkId, index: usize, what: Next, reason: &str) {
        if let Next::Client(name) = what {
            self.forget_next(name);
            self.gates.look = true;
            return;
        }
        let Some(gate) = self.gate_mut(id.served, id.shard) else {
            return;
        };
        let Some(prepared) = &mut gate.prepared else {
            return;
        };
        prepared.spare.retain(|spare| *spare != index);
        if what == Next::Shared {
            let reason = format!("the next primary: {reason}");
            self.forget_prepared(id.served, id.shard, &reason);
        } else {
            self.one_prepared(id.served, id.shard);
        }
    }

    /// The engine and user that a connection is for.
    pub(super) fn target_of(&self, index: usize) -> Option<&ProxyShard> {
        let backend = &self.backends[index];
        let links = self
            .served
            .get(backend.link.served)?
            .shards
            .get(backend.link.shard)?;
        if backend.target == links.number {
            return links.target.as_ref();
        }
        let prepared = links.gate.as_ref()?.prepared.as_ref()?;
        (prepared.target == backend.target).then_some(&prepared.shard)
    }

    /// Whether a connection is for the next primary.
    fn is_prepared(&self, index: usize) -> bool {
        matches!(self.backends[index].usage, Use::Next(_))
    }
}
