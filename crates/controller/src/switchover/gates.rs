//! What a move has the proxies do: open connections, hold, go on.

use super::execute::{HOLD_WITHIN, Hands, LOOK_AGAIN};
use super::plan::{self, Move};
use crate::observed::Observations;
use crate::reconcile::NodeError;
use crate::state::ClusterState;
use futures::future::join_all;
use model::command::AgentRefusal;
use model::gate::{GateAnswer, GateCall, GateStep, PATIENCE_MS};
use model::lease::LeaseLength;
use model::{DatabaseUid, Epoch, NodeUid, ShardUid};
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long proxies may take to go on; those that do not are told again with their configuration.
const RELEASE_WITHIN: Duration = Duration::from_secs(2);
/// After how long a proxy that cannot be told anything has no lease either.
const LEASES_OVER: Duration = Duration::from_nanos(LeaseLength::PRODUCT.grantor);

/// Whose commands proxies are to hold or let go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gated<'a> {
    database: DatabaseUid,
    /// The primary, and its epoch.
    shard: ShardUid,
    epoch: Epoch,
    proxies: &'a [NodeUid],
}

impl<'a> From<&'a Move> for Gated<'a> {
    fn from(wanted: &'a Move) -> Self {
        Self {
            database: wanted.database,
            shard: wanted.old.shard,
            epoch: wanted.epoch,
            proxies: &wanted.proxies,
        }
    }
}

impl Hands {
    pub(super) async fn gates(
        &self,
        gated: Gated<'_>,
        what: GateStep,
        within: Duration,
    ) -> Vec<Result<GateAnswer, NodeError>> {
        let calls = gated.proxies.iter().map(|node| {
            let call = GateCall {
                database: gated.database,
                shard: gated.shard,
                epoch: gated.epoch,
                what,
                term: self.term,
                leased: self.observed().leases.processes(*node, Instant::now()),
            };
            let answer = self.nodes.gate(*node, call);
            async move {
                let answer = tokio::time::timeout(within, answer)
                    .await
                    .unwrap_or_else(|_| Err(NodeError::Unreachable("no answer in time".to_owned())))
                    .map_err(|error| of_proxy(*node, error))?;
                if self.may_serve(*node, answer) {
                    let reason = "it is not there, and may have a lease";
                    let reason = format!("proxy of node:{node}: {reason}");
                    return Err(NodeError::Unreachable(reason));
                }
                Ok(answer)
            }
        });
        join_all(calls).await
    }

    pub(super) fn observed(&self) -> MutexGuard<'_, Observations> {
        self.observed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a node that says that it has no proxy may have one all the same.
    fn may_serve(&self, node: NodeUid, answer: GateAnswer) -> bool {
        let (leases, now) = (&self.observed().leases, Instant::now());
        // The node knows best which of those processes run that have a lease from here.
        let unseen = !answer.all && leases.may_hold(node, now);
        answer.proxies == 0 && (unseen || leases.are_inherited(now))
    }

    pub(super) async fn hold(&self, gated: Gated<'_>) -> Result<(), String> {
        let hold = GateStep::Hold {
            patience_ms: PATIENCE_MS,
        };
        for answer in self.gates(gated, hold, HOLD_WITHIN).await {
            answer.map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    /// An undone move gives the old primary another epoch, and replies that come over connections of the last
    /// one count no more: what is in flight comes back first, as before a move.
    pub(super) async fn hold_before_undo(&self, old: ShardUid) {
        let state = self.store.barrier().await.map(|s| ClusterState::read(&s));
        let Ok(Ok(Some(state))) = state else {
            return;
        };
        let shard = state.shards.iter().find(|shard| shard.uid == old);
        let of = |database: DatabaseUid| state.databases.iter().find(|db| db.uid == database);
        let Some((shard, database)) = shard.and_then(|s| Some((s, of(s.database)?))) else {
            return;
        };
        let proxies = plan::with_clients(&state, &self.observed(), database);
        let gated = Gated {
            database: database.uid,
            shard: old,
            epoch: shard.epoch,
            proxies: &proxies,
        };
        let hold = GateStep::Hold {
            patience_ms: PATIENCE_MS,
        };
        let begun = Instant::now();
        loop {
            let answers = self.gates(gated, hold, HOLD_WITHIN).await;
            // A `cnm_exec` that has just started does not know the move yet, nor has its proxy come back.
            match answers.into_iter().find_map(Result::err) {
                None => return,
                // One that cannot be told to hold cannot ask for a lease either.
                Some(reason) if begun.elapsed() >= LEASES_OVER => {
                    tracing::warn!(shard = %old, %reason, "not every proxy holds before a move is undone");
                    return;
                }
                Some(_) => tokio::time::sleep(LOOK_AGAIN).await,
            }
        }
    }

    /// Who does not answer is told with its configuration, once the move is stored.
    pub(super) async fn release(&self, wanted: &Move) -> GateAnswer {
        let next = wanted.new.shard;
        let mut all = GateAnswer::default();
        for answer in self
            .gates(wanted.into(), GateStep::Release { next }, RELEASE_WITHIN)
            .await
        {
            match answer {
                Ok(answer) => {
                    all.proxies += answer.proxies;
                    all.held_us = all.held_us.max(answer.held_us);
                    all.waited += answer.waited;
                }
                Err(error) => tracing::warn!(%error, "a proxy was not released at once"),
            }
        }
        all
    }
}

/// Says whose proxy it is.
fn of_proxy(node: NodeUid, error: NodeError) -> NodeError {
    let whose = |reason: String| format!("proxy of node:{node}: {reason}");
    match error {
        NodeError::Unreachable(reason) => NodeError::Unreachable(whose(reason)),
        NodeError::Refused(AgentRefusal::Failed { reason }) => {
            NodeError::Refused(AgentRefusal::failed(whose(reason)))
        }
        refused @ NodeError::Refused(_) => refused,
    }
}
