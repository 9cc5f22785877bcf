//! Carries steps out. Makes no choices: it orders agents, writes to the store, and remembers what is
//! under way and what has just failed.

use crate::database::plan::{self, Step};
use crate::observed::Observations;
use crate::reconcile::{NodeError, Nodes};
use crate::state::ClusterState;
use model::command::AgentCommand;
use model::observation::ShardObservation;
use model::{NodeUid, ShardUid};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use store::{Store, TxnResult};
use tokio::task::JoinSet;

/// First pause after an order failed; doubled each time up to [`PAUSE_MAX`].
const PAUSE_FIRST: Duration = Duration::from_millis(250);
/// Longest pause between two tries of the same order.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// Most orders under way at once.
const ORDERS_MAX: usize = 32;

/// An order that has ended.
#[derive(Debug)]
pub struct Ended {
    node: NodeUid,
    shard: ShardUid,
    removal: bool,
    result: Result<Option<ShardObservation>, NodeError>,
}

#[derive(Debug)]
struct Tried {
    under_way: bool,
    not_before: Instant,
    pause: Duration,
}

/// Orders under way and pauses after failures. In memory only: a new primary node orders again,
/// and agents answer a repeated order without repeating it.
#[derive(Debug)]
pub struct Executor {
    store: Store,
    nodes: Arc<dyn Nodes>,
    observed: Arc<Mutex<Observations>>,
    tried: BTreeMap<ShardUid, Tried>,
    orders: JoinSet<Ended>,
}

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
            }
        }
        written
    }

    async fn write(&self, txn: store::Txn, reason: &str) -> bool {
        match self.store.txn(txn).await {
            Ok(TxnResult::Applied { revision }) => {
                tracing::info!(%revision, "{reason}");
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
        });
        tried.under_way = true;
        let nodes = Arc::clone(&self.nodes);
        let removal = matches!(command, AgentCommand::RemoveEngine { .. });
        self.orders.spawn(async move {
            let result = nodes.order(node, command).await;
            Ended {
                node,
                shard,
                removal,
                result,
            }
        });
    }

    /// Waits for an order to end; for ever while none is under way. May be given up at any moment:
    /// what has ended is then returned the next time.
    pub async fn ended(&mut self) -> Ended {
        while let Some(joined) = self.orders.join_next().await {
            match joined {
                Ok(ended) => return ended,
                Err(error) => tracing::error!(%error, "an order ended without an answer"),
            }
        }
        std::future::pending().await
    }

    /// Takes in what the agent said.
    pub async fn take_in(&mut self, ended: Ended) {
        let Ended {
            node,
            shard,
            removal,
            result,
        } = ended;
        match result {
            Ok(seen) => {
                self.tried.remove(&shard);
                let gone = removal && seen.is_none();
                self.observed
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .record_shard(node, shard, seen);
                if gone {
                    self.forget(shard).await;
                }
            }
            Err(error) => {
                tracing::warn!(%node, %shard, %error, "an order was not carried out");
                if let Some(tried) = self.tried.get_mut(&shard) {
                    tried.under_way = false;
                    tried.not_before = Instant::now() + tried.pause;
                    tried.pause = (tried.pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    async fn forget(&self, shard: ShardUid) {
        for _ in 0..5 {
            let state = match ClusterState::read(&self.store.state()) {
                Ok(Some(state)) => state,
                Ok(None) => return,
                Err(error) => return tracing::error!(%error, "cannot read the store"),
            };
            let Some(txn) = plan::shard_removed(&state, shard, jiff::Timestamp::now()) else {
                return;
            };
            match self.store.txn(txn).await {
                Ok(TxnResult::Applied { .. }) => return,
                Ok(TxnResult::Conflict { .. }) => {}
                Err(error) => {
                    return tracing::warn!(%error, %shard, "cannot forget a removed shard");
                }
            }
        }
    }
}
