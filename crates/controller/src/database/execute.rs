//! Carries steps out. Makes no choices: it orders agents, writes to the store, and remembers what is
//! under way and what has just failed.

use crate::cut;
use crate::database::deletion;
use crate::database::plan::Step;
use crate::observed::Observations;
use crate::reconcile::{NodeError, Nodes};
use crate::state::ClusterState;
use crate::switchover::execute as switchover;
use model::command::AgentCommand;
use model::observation::ShardObservation;
use model::{NodeUid, ShardUid};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use store::{Store, TxnResult};
use tokio::task::{Id, JoinError, JoinSet};

/// First pause after an order failed; doubled each time up to [`PAUSE_MAX`].
const PAUSE_FIRST: Duration = Duration::from_millis(250);
/// Longest pause between two tries of the same order.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// Most orders under way at once.
const ORDERS_MAX: usize = 32;
/// Most moves under way at once, of different replica sets.
const MOVES_MAX: usize = 4;

/// What has ended.
#[derive(Debug)]
pub enum Ended {
    /// An order to an agent.
    Order {
        /// Its node.
        node: NodeUid,
        /// The shard.
        shard: ShardUid,
        /// Whether it was to be removed.
        removal: bool,
        /// This primary node's term when it was ordered.
        term: u64,
        /// What the agent said.
        result: Box<Answer>,
    },
    /// A move between two shards; how, is in the store.
    Move {
        /// The two.
        parties: [ShardUid; 2],
        /// Whether it came to its end; if not, it is begun again after a pause.
        whole: bool,
    },
}

#[derive(Debug)]
struct Tried {
    under_way: bool,
    not_before: Instant,
    pause: Duration,
    /// Whether it was a move that broke off: the next one waits for the pause too.
    broke_off: bool,
}

/// What a task works on.
#[derive(Debug)]
enum Task {
    Order {
        node: NodeUid,
        shard: ShardUid,
        removal: bool,
        term: u64,
    },
    Move([ShardUid; 2]),
}

/// Orders under way and pauses after failures. In memory only: a new primary node orders again,
/// and agents answer a repeated order without repeating it.
#[derive(Debug)]
pub struct Executor {
    store: Store,
    nodes: Arc<dyn Nodes>,
    observed: Arc<Mutex<Observations>>,
    tried: BTreeMap<ShardUid, Tried>,
    orders: JoinSet<Answer>,
    moves: JoinSet<bool>,
    /// What the tasks of both work on: that is free again whatever ends a task.
    tasks: HashMap<Id, Task>,
}

type Answer = Result<Option<ShardObservation>, NodeError>;

impl Executor {
    /// An executor with nothing under way.
    #[must_use]
    pub fn new(store: Store, nodes: Arc<dyn Nodes>, observed: Arc<Mutex<Observations>>) -> Self {
        Self {
            store,
            nodes,
            observed,
            tried: BTreeMap::new(),
            orders: JoinSet::new(),
            moves: JoinSet::new(),
            tasks: HashMap::new(),
        }
    }

    /// Takes the steps of a plan that can be taken now. Returns whether the store was written, so
    /// that the rest has to be planned anew.
    pub async fn take(&mut self, steps: Vec<Step>, now: Instant) -> bool {
        let mut written = false;
        for step in steps {
            match step {
                Step::Store { txn, reason } if !written => {
                    written = self.write(txn, &reason).await;
                }
                Step::Store { .. } => {}
                Step::Command {
                    node,
                    shard,
                    command,
                    reason,
                } => {
                    self.order(node, shard, command, &reason, now);
                }
                Step::Move(wanted) => {
                    let parties = [wanted.old.shard, wanted.new.shard];
                    let hands = self.hands(parties);
                    self.move_role(parties, switchover::carry_out(hands, *wanted), now);
                }
                Step::Settle { old, new, moving } => {
                    let parties = [old.shard, new.shard];
                    let hands = self.hands(parties);
                    let work = switchover::settle(hands, *old, *new, moving);
                    self.move_role(parties, work, now);
                }
            }
        }
        written
    }

    fn hands(&self, parties: [ShardUid; 2]) -> switchover::Hands {
        let tired = |uid: &ShardUid| {
            let tried = self.tried.get(uid).filter(|tried| tried.broke_off);
            tried.is_some_and(|tried| tried.pause >= PAUSE_MAX)
        };
        switchover::Hands {
            patient: !parties.iter().any(tired),
            store: self.store.clone(),
            nodes: Arc::clone(&self.nodes),
            observed: Arc::clone(&self.observed),
            term: self.store.status().term,
        }
    }

    /// Begins what moves a role between two shards, if nothing of theirs is under way; nothing else of
    /// them is begun until it ends.
    fn move_role(
        &mut self,
        parties: [ShardUid; 2],
        work: impl Future<Output = bool> + Send + 'static,
        now: Instant,
    ) {
        let rests = |tried: &Tried| tried.broke_off && now < tried.not_before;
        let busy = |uid: &ShardUid| {
            let tried = self.tried.get(uid);
            tried.is_some_and(|tried| tried.under_way || rests(tried))
        };
        if parties.iter().any(busy) || self.moves.len() >= MOVES_MAX {
            return;
        }
        for uid in parties {
            let before = self.tried.get(&uid).filter(|tried| tried.broke_off);
            let tried = Tried {
                under_way: true,
                not_before: now,
                pause: before.map_or(PAUSE_FIRST, |tried| tried.pause),
                broke_off: before.is_some(),
            };
            self.tried.insert(uid, tried);
        }
        let task = self.moves.spawn(work);
        self.tasks.insert(task.id(), Task::Move(parties));
    }

    async fn write(&self, txn: store::Txn, reason: &str) -> bool {
        match self.store.txn(txn).await {
            Ok(TxnResult::Applied { revision }) => {
                tracing::info!(%revision, "{reason}");
                cut::reached("step");
                true
            }
            // Somebody wrote first: plan anew from what is there now.
            Ok(TxnResult::Conflict { key, .. }) => {
                tracing::debug!(key, "planned from an older state");
                true
            }
            Err(error) => {
                tracing::warn!(%error, "cannot write: {reason}");
                false
            }
        }
    }

    fn order(
        &mut self,
        node: NodeUid,
        shard: ShardUid,
        command: AgentCommand,
        reason: &str,
        now: Instant,
    ) {
        let waits = self
            .tried
            .get(&shard)
            .is_some_and(|t| t.under_way || now < t.not_before);
        if waits || self.orders.len() >= ORDERS_MAX {
            return;
        }
        tracing::info!(%node, %shard, "{reason}");
        let tried = self.tried.entry(shard).or_insert(Tried {
            under_way: true,
            not_before: now,
            pause: PAUSE_FIRST,
            broke_off: false,
        });
        tried.under_way = true;
        tried.broke_off = false;
        let nodes = Arc::clone(&self.nodes);
        let removal = matches!(command, AgentCommand::RemoveEngine { .. });
        let task = self
            .orders
            .spawn(async move { nodes.order(node, command).await });
        let work = Task::Order {
            node,
            shard,
            removal,
            term: self.store.status().term,
        };
        self.tasks.insert(task.id(), work);
    }

    /// Waits for an order to end; for ever while none is under way. May be given up at any moment:
    /// what has ended is then returned the next time.
    pub async fn ended(&mut self) -> Ended {
        loop {
            let ended = tokio::select! {
                Some(joined) = self.orders.join_next_with_id(), if !self.orders.is_empty() => {
                    self.order_ended(joined)
                }
                Some(joined) = self.moves.join_next_with_id(), if !self.moves.is_empty() => {
                    self.move_ended(joined)
                }
                else => return std::future::pending().await,
            };
            if let Some(ended) = ended {
                return ended;
            }
        }
    }

    fn order_ended(&mut self, joined: Result<(Id, Answer), JoinError>) -> Option<Ended> {
        let (id, result) = joined.unwrap_or_else(|error| {
            tracing::error!(%error, "an order ended without an answer");
            (error.id(), Err(NodeError::Unreachable(error.to_string())))
        });
        match self.tasks.remove(&id)? {
            Task::Order {
                node,
                shard,
                removal,
                term,
            } => Some(Ended::Order {
                node,
                shard,
                removal,
                term,
                result: Box::new(result),
            }),
            Task::Move(_) => None,
        }
    }

    fn move_ended(&mut self, joined: Result<(Id, bool), JoinError>) -> Option<Ended> {
        let (id, whole) = joined.unwrap_or_else(|error| {
            tracing::error!(%error, "a move broke off: how it ended is found out anew");
            (error.id(), false)
        });
        match self.tasks.remove(&id)? {
            Task::Move(parties) => Some(Ended::Move { parties, whole }),
            Task::Order { .. } => None,
        }
    }

    /// Takes in what the agent said.
    pub async fn take_in(&mut self, ended: Ended) {
        let (node, shard, removal, term, result) = match ended {
            Ended::Order {
                node,
                shard,
                removal,
                term,
                result,
            } => (node, shard, removal, term, *result),
            Ended::Move { parties, whole } => {
                for uid in parties {
                    if whole {
                        self.tried.remove(&uid);
                        continue;
                    }
                    self.rests(uid);
                    if let Some(tried) = self.tried.get_mut(&uid) {
                        tried.broke_off = true;
                    }
                }
                return;
            }
        };
        match result {
            Ok(seen) => {
                self.tried.remove(&shard);
                let gone = removal && seen.is_none();
                // What was true before another primary node led may be true no more.
                if term == self.store.status().term {
                    self.observed
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .record_shard(node, shard, seen, Instant::now());
                }
                if gone {
                    self.forget(shard).await;
                }
            }
            Err(error) => {
                tracing::warn!(%node, %shard, %error, "an order was not carried out");
                self.rests(shard);
            }
        }
    }

    /// Nothing is under way of a shard any more; what failed is tried again after a pause.
    fn rests(&mut self, shard: ShardUid) {
        if let Some(tried) = self.tried.get_mut(&shard) {
            tried.under_way = false;
            tried.not_before = Instant::now() + tried.pause;
            tried.pause = (tried.pause * 2).min(PAUSE_MAX);
        }
    }

    async fn forget(&self, shard: ShardUid) {
        for _ in 0..5 {
            let state = match ClusterState::read(&self.store.state()) {
                Ok(Some(state)) => state,
                Ok(None) => return,
                Err(error) => return tracing::error!(%error, "cannot read the store"),
            };
            let Some(txn) = deletion::shard_removed(&state, shard, jiff::Timestamp::now()) else {
                return;
            };
            match self.store.txn(txn).await {
                Ok(TxnResult::Applied { .. }) => return cut::reached("step"),
                Ok(TxnResult::Conflict { .. }) => {}
                Err(error) => {
                    return tracing::warn!(%error, %shard, "cannot forget a removed shard");
                }
            }
        }
    }
}
