//! The move itself. Everything that must survive is stored before it is acted on; whatever ends this
//! task in the middle, [`settle`] finds out from the engines how far it came.
//!
//! 1. Both engines get the users of the next epoch, proxies open connections to the target.
//! 2. The move is stored.
//! 3. Proxies hold: nothing reaches the old primary any more.
//! 4. The old primary hands over (`FAILOVER TO`) while the target acknowledges every millisecond.
//! 5. Proxies go on with the target, in the next epoch.
//! 6. The target's agent takes the role over, and the store learns of it.

use super::plan::{self, Move, NotNow, Party};
use super::recovery::{self, Answer, OldPrimary, Recovery};
use crate::cut;
use crate::observed::Observations;
use crate::reconcile::{NodeError, Nodes};
use crate::state::ClusterState;
use model::command::{AgentCommand, AgentRefusal};
use model::documents::{RoleMove, Shard};
use model::gate::GateStep;
use model::limits::REPLICA_SILENT;
use model::observation::ShardObservation;
use model::replication::{HandOverTarget, ReplicationObservation};
use model::{Epoch, OperationUid, ShardUid};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use store::{Store, Txn, TxnResult};

/// How long users and connections may take to be there.
const PREPARE_WITHIN: Duration = Duration::from_secs(5);
/// How long proxies may take to hold: what is in flight must come back first. Longer than a commit to a
/// slow disk, shorter than any client's patience.
pub(super) const HOLD_WITHIN: Duration = Duration::from_millis(500);
/// How long the engines may take.
const HAND_OVER_MS: u32 = 2_000;
/// Between two looks at engines that are at it.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How long it is looked for the end of a move, before the planner is asked again.
const SETTLE_WITHIN: Duration = Duration::from_secs(20);
/// Tries to write what others write too.
const TRIES: usize = 10;

/// What a move needs of the world.
#[derive(Clone, Debug)]
pub(crate) struct Hands {
    pub(crate) store: Store,
    pub(crate) nodes: Arc<dyn Nodes>,
    pub(crate) observed: Arc<Mutex<Observations>>,
    /// This primary node's term when it began.
    pub(crate) term: u64,
    /// Whether what nobody answers to now is asked again after a pause.
    pub(crate) patient: bool,
}

/// Why a move is not begun.
struct NotBegun {
    reason: String,
    /// Whether it may be begun in a moment: a `cnm_exec` that is started again is back then, and of a replica set that
    /// has changed the planner says whether it can move.
    away: bool,
}

impl NotBegun {
    fn of(who: &str, error: &NodeError) -> Self {
        let away = match error {
            NodeError::Unreachable(_) => true,
            NodeError::Refused(refusal) => matches!(refusal, AgentRefusal::NotYet { .. }),
        };
        Self {
            reason: format!("{who}{error}"),
            away,
        }
    }
}

/// Carries a move out, to a stored end if that is possible. `false`: nothing was begun, and it is to be tried again.
pub(crate) async fn carry_out(hands: Hands, wanted: Move) -> bool {
    let old = wanted.old.shard;
    tracing::info!(shard = %old, to = %wanted.new.shard, "a move begins");
    let not_begun = match hands.prepare(&wanted).await {
        Ok(()) => hands.begin(&wanted).await.err(),
        Err(not_begun) => Some(not_begun),
    };
    match not_begun {
        Some(why) => hands.not_begun(&wanted, why).await,
        None => true,
    }
}

/// Finds out how a move ended that another process began, and stores it.
pub(crate) async fn settle(hands: Hands, old: Party, new: Party, moving: RoleMove) -> bool {
    let reason = "the primary node changed in the middle of the move";
    hands.settle(&old, &new, moving.epoch, reason).await;
    true
}

impl Hands {
    /// Says why a move was not begun, unless it may be in a moment: then it is `false`.
    async fn not_begun(&self, wanted: &Move, NotBegun { reason, away }: NotBegun) -> bool {
        let old = wanted.old.shard;
        tracing::warn!(shard = %old, "the move is not begun: {reason}");
        if self.store.status().term != self.term {
            // Nodes obey the newer term alone. Nothing is stored of the move: it is begun anew in that one, by
            // whoever leads then.
            return true;
        }
        if away && self.patient && self.waits(&wanted.operation, &reason).await {
            return false;
        }
        let why = NotNow::of(reason);
        let refusal =
            |state: &ClusterState, now| plan::refuse(state, old, &wanted.operation, &why, now);
        self.write(refusal).await;
        true
    }

    /// Users and connections are there: the move is stored, and done or undone.
    async fn begin(&self, wanted: &Move) -> Result<(), NotBegun> {
        cut::reached("prepared");
        let (old, epoch) = (wanted.old.shard, wanted.epoch.next());
        if !self
            .write(|state, now| plan::begin(state, wanted, now))
            .await
        {
            return Err(NotBegun {
                reason: "the replica set changed meanwhile".to_owned(),
                away: true,
            });
        }
        cut::reached("stored");
        let begun = Instant::now();
        let mut gates = Duration::ZERO;
        let done = match self.hold(wanted.into()).await {
            Ok(()) => {
                gates = begun.elapsed();
                cut::reached("held");
                self.hand_over(wanted).await
            }
            Err(reason) => Err(reason),
        };
        match done {
            Ok(seen) => {
                cut::reached("handed");
                let engines = begun.elapsed().saturating_sub(gates);
                let record = recovery::record(&seen, &wanted.old.run_id, epoch);
                let held = self.release(wanted).await;
                cut::reached("released");
                tracing::info!(shard = %old, held_us = held.held_us, waited = held.waited, ?gates, ?engines, "moved");
                if let Err(error) = self.take_over(&wanted.new, epoch).await {
                    tracing::warn!(%error, "the new primary's agent has not taken the role over yet");
                }
                cut::reached("taken");
                self.write(|state, now| {
                    plan::commit(state, (old, epoch), (held.held_us, record.clone()), now)
                })
                .await;
                cut::reached("committed");
            }
            Err(reason) => {
                tracing::warn!(shard = %old, "the move fails: {reason}");
                self.settle(&wanted.old, &wanted.new, epoch, &reason).await;
            }
        }
        Ok(())
    }

    /// Whether an operation waits until its move can be prepared; what for is stored.
    async fn waits(&self, operation: &OperationUid, reason: &str) -> bool {
        let state = ClusterState::read(&self.store.state());
        let waits = matches!(state, Ok(Some(state)) if plan::is_part_of_more(&state, operation));
        if waits {
            self.write(|state, now| plan::waits(state, operation, reason, now))
                .await;
        }
        waits
    }

    async fn order(
        &self,
        party: &Party,
        command: AgentCommand,
        within: Duration,
    ) -> Result<Option<ShardObservation>, NodeError> {
        let order = self.nodes.order(party.node, command);
        tokio::time::timeout(within, order)
            .await
            .unwrap_or_else(|_| Err(NodeError::Unreachable("no answer in time".to_owned())))
    }

    async fn prepare(&self, wanted: &Move) -> Result<(), NotBegun> {
        let users = |party: &Party| AgentCommand::PrepareEpoch {
            shard: party.shard,
            generation: party.generation,
            run_id: party.run_id.clone(),
            epoch: wanted.epoch.next(),
            users: party.users.clone(),
        };
        let (old, new) = tokio::join!(
            self.order(&wanted.old, users(&wanted.old), PREPARE_WITHIN),
            self.order(&wanted.new, users(&wanted.new), PREPARE_WITHIN),
        );
        for (party, answer) in [(&wanted.old, old), (&wanted.new, new)] {
            let who = format!("redis:{}: ", party.shard);
            answer.map_err(|error| NotBegun::of(&who, &error))?;
        }
        let next = wanted.new.shard;
        for answer in self
            .gates(wanted.into(), GateStep::Prepare { next }, PREPARE_WITHIN)
            .await
        {
            answer.map_err(|error| NotBegun::of("", &error))?;
        }
        Ok(())
    }

    /// The engines change roles; how the old one replicates then.
    async fn hand_over(&self, wanted: &Move) -> Result<ReplicationObservation, String> {
        let hand_over = AgentCommand::HandOver {
            shard: wanted.old.shard,
            generation: wanted.old.generation,
            run_id: wanted.old.run_id.clone(),
            epoch: wanted.epoch.next(),
            target: HandOverTarget {
                shard: wanted.new.shard,
                address: wanted.new.address,
                run_id: wanted.new.run_id.clone(),
            },
            deadline_ms: HAND_OVER_MS,
        };
        let press = AgentCommand::PressAcks {
            shard: wanted.new.shard,
            generation: wanted.new.generation,
            run_id: wanted.new.run_id.clone(),
            milliseconds: HAND_OVER_MS,
        };
        let within = Duration::from_millis(u64::from(HAND_OVER_MS)) + HOLD_WITHIN;
        let press = self.order(&wanted.new, press, within);
        tokio::pin!(press);
        let mut pressed = None;
        let old = {
            let hand_over = self.order(&wanted.old, hand_over, within);
            tokio::pin!(hand_over);
            loop {
                tokio::select! {
                    answer = &mut hand_over => break answer,
                    answer = &mut press, if pressed.is_none() => pressed = Some(answer),
                }
            }
        };
        if let Err(error) = old {
            // The other order ends by itself; nobody waits for it.
            return Err(format!("redis:{}: {error}", wanted.old.shard));
        }
        let new = match pressed {
            Some(answer) => answer,
            None => press.await,
        };
        let history = |seen: Result<Option<ShardObservation>, NodeError>, shard: ShardUid| {
            seen.map_err(|e| format!("redis:{shard}: {e}"))?
                .and_then(|seen| seen.replication)
                .ok_or_else(|| format!("redis:{shard} has not told how it replicates"))
        };
        let old = history(old, wanted.old.shard)?;
        let new = history(new, wanted.new.shard)?;
        if old.is_primary || !new.is_primary || old.replication_id != new.replication_id {
            return Err("the engines do not agree that the role was handed over".to_owned());
        }
        Ok(old)
    }

    async fn take_over(
        &self,
        new: &Party,
        epoch: Epoch,
    ) -> Result<Option<ShardObservation>, NodeError> {
        let command = AgentCommand::TakeOver {
            shard: new.shard,
            generation: new.generation,
            run_id: new.run_id.clone(),
            epoch,
            users: new.users.clone(),
        };
        self.order(new, command, PREPARE_WITHIN).await
    }

    /// Both agents refuse from here on what belongs to the move; then the old engine decides.
    async fn settle(&self, old: &Party, new: &Party, epoch: Epoch, reason: &str) {
        let begun = Instant::now();
        let deadline = Duration::from_millis(u64::from(HAND_OVER_MS)) + HOLD_WITHIN;
        let mut held = false;
        while begun.elapsed() < SETTLE_WITHIN {
            let stop = |party: &Party| AgentCommand::SettleMove {
                shard: party.shard,
                generation: party.generation,
                epoch,
            };
            let (old_seen, new_seen) = tokio::join!(
                self.order(old, stop(old), PREPARE_WITHIN),
                self.order(new, stop(new), PREPARE_WITHIN),
            );
            let old_is = recovery::old_primary(answered(&old_seen), &old.run_id);
            let new_is = recovery::target(answered(&new_seen), &new.run_id);
            let action = recovery::decide(old_is, new_is, begun.elapsed() > deadline);
            tracing::info!(shard = %old.shard, ?action, "settling a move: {reason}");
            let ends = (old.shard, epoch);
            let record = recovery::process(answered(&old_seen), &old.run_id)
                .flatten()
                .and_then(|seen| recovery::record(seen, &old.run_id, epoch));
            let stored = match action {
                // The gates open by the commit, never before it.
                Recovery::Forward { .. } => {
                    if let Err(error) = self.take_over(new, epoch).await {
                        tracing::warn!(%error, "the role is not taken over yet");
                    }
                    self.write(|state, now| plan::commit(state, ends, (0, record.clone()), now))
                        .await
                }
                Recovery::Undo | Recovery::Failover { .. } => {
                    if !std::mem::replace(&mut held, true) {
                        self.hold_before_undo(old.shard).await;
                    }
                    let heard = action == Recovery::Undo;
                    let undone = self
                        .write(|state, now| plan::undo(state, ends, (reason, heard), now))
                        .await;
                    if undone && old_is == OldPrimary::Unreachable {
                        let over = begun + deadline;
                        self.go_on_unheard((old, new), epoch, over).await;
                    }
                    undone
                }
                Recovery::Abort => self.abort(old).await,
                Recovery::KillTargetAndAbort => {
                    let kill = AgentCommand::KillEngine {
                        shard: new.shard,
                        generation: new.generation,
                        run_id: new.run_id.clone(),
                    };
                    self.ordered(new, kill).await && self.abort(old).await
                }
                Recovery::Poll => false,
            };
            if stored {
                return;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// A move was undone without a word of the old primary's agent, which alone could give it the role of the
    /// new epoch. If its engine is there it serves without: the users of that epoch were made when the move was
    /// prepared, and a failover that was begun is over by `over`.
    ///
    /// First no proxy may have a lease any more that does not know of the new epoch: one that an earlier leader
    /// has let go on with the target answers nobody from then on. What the target says counts only after that.
    async fn go_on_unheard(&self, (old, new): (&Party, &Party), undone: Epoch, over: Instant) {
        let epoch = undone.next();
        let begun = Instant::now();
        while begun.elapsed() < SETTLE_WITHIN {
            tokio::time::sleep(LOOK_AGAIN).await;
            let Ok(Some(state)) = ClusterState::read(&self.store.state()) else {
                return;
            };
            let now = Instant::now();
            let Some(revision) = plan::unserved(&state, old.shard, epoch) else {
                return;
            };
            let heard = self.observed().silence(old.node, now);
            if heard.is_some_and(|silence| silence < begun.elapsed()) {
                // Its agent is back.
                return;
            }
            let fenced = self.observed().leases.all_know(revision, now).is_ok();
            if !fenced || now < over {
                continue;
            }
            let stop = AgentCommand::SettleMove {
                shard: new.shard,
                generation: new.generation,
                epoch: undone,
            };
            let seen = self.order(new, stop, PREPARE_WITHIN).await;
            let follows = hears(answered(&seen), &new.run_id, old.address);
            if follows
                && self
                    .write(|state, now| plan::serve_unheard(state, old.shard, epoch, now))
                    .await
            {
                tracing::info!(shard = %old.shard, %epoch, "it serves without its agent");
                return;
            }
        }
    }

    async fn abort(&self, old: &Party) -> bool {
        let abort = AgentCommand::AbortHandOver {
            shard: old.shard,
            generation: old.generation,
            run_id: old.run_id.clone(),
        };
        self.ordered(old, abort).await
    }

    /// An order on the way to an end: it is not the end.
    async fn ordered(&self, party: &Party, command: AgentCommand) -> bool {
        if let Err(error) = self.order(party, command, PREPARE_WITHIN).await {
            tracing::warn!(%error, "settling a move");
        }
        false
    }

    /// Writes what a planner makes of the newest state. Whether it was written; `false` as well when
    /// there is nothing to write.
    async fn write(
        &self,
        planned: impl Fn(&ClusterState, jiff::Timestamp) -> Option<Txn> + Send,
    ) -> bool {
        for _ in 0..TRIES {
            let state = match self
                .store
                .barrier()
                .await
                .map(|state| ClusterState::read(&state))
            {
                Ok(Ok(Some(state))) => state,
                Ok(Ok(None)) => return false,
                Ok(Err(error)) | Err(error) => {
                    tracing::warn!(%error, "cannot read the store in a move");
                    return false;
                }
            };
            let Some(txn) = planned(&state, jiff::Timestamp::now()) else {
                return false;
            };
            match self.store.txn(txn).await {
                Ok(TxnResult::Applied { .. }) => return true,
                Ok(TxnResult::Conflict { .. }) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot write to the store in a move");
                    return false;
                }
            }
        }
        false
    }
}

/// What an agent answered; `None`: nothing.
fn answered(answer: &Result<Option<ShardObservation>, NodeError>) -> Answer<'_> {
    answer.as_ref().ok().map(Option::as_ref)
}

/// Whether a process follows an engine, and hears it.
fn hears(answer: Answer<'_>, run_id: &str, primary: SocketAddr) -> bool {
    recovery::process(answer, run_id)
        .flatten()
        .is_some_and(|seen| {
            let linked = seen.link_up && seen.last_io_seconds < REPLICA_SILENT;
            !seen.is_primary && linked && seen.primary == Some(primary)
        })
}

/// A party to a move, from what is stored.
pub(crate) fn party(state: &ClusterState, shard: &Shard, run_id: &str) -> Option<Party> {
    Some(Party {
        shard: shard.uid,
        node: shard.node,
        generation: shard.generation,
        run_id: run_id.to_owned(),
        address: crate::replica_set::address(state, shard)?,
        users: shard.users.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn answer(state: &str, pid: Option<u32>, run_id: Option<&str>) -> ShardObservation {
        serde_json::from_value(json!({
            "shard": 1, "database": 7, "generation": 1, "state": state, "role": null,
            "epoch": null, "pid": pid, "run_id": run_id, "engine": "valkey-9.1.2",
            "used_memory": 0, "fragmentation": 0.0, "keys": 0, "connections": 0,
            "loading_percent": 0.0, "error": null, "replication": {
                "is_primary": true, "replication_id": "h", "replication_id2": "", "offset": 1,
                "primary": null, "link_up": false, "sync_in_progress": false,
                "last_io_seconds": 0, "failover_state": "", "replicas": [],
                "full_syncs": 0, "partial_syncs": 0
            }
        }))
        .unwrap()
    }

    /// It may be there and take writes: a recovery may not go on as if it were gone.
    #[test]
    fn an_old_primary_of_which_its_agent_knows_nothing_is_not_gone() {
        let standing = |seen| recovery::old_primary(answered(&Ok(Some(seen))), "r");
        let unknown = answer("unresponsive", None, None);
        assert_eq!(standing(unknown), OldPrimary::Unreachable);
        let stopped = answer("stopped", None, None);
        assert_eq!(standing(stopped), OldPrimary::Gone);
        let runs = answer("running", Some(1), Some("r"));
        assert_eq!(standing(runs), OldPrimary::Primary);
    }
}
