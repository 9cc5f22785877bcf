//! A primary hands its role to a replica: `FAILOVER TO`.
//!
//! 1. `PrepareEpoch`, on both engines: the ledger takes the next epoch, then its users are made, so that
//!    proxies can connect beforehand; at the primary those of the one after too, in which it goes on if the
//!    move is undone.
//! 2. `HandOver`, on the old primary: it stops writes, waits until the replica has everything, becomes its
//!    replica and lets it become primary, or gives up. Its own state decides which of the two happened; the
//!    agent only watches. Nothing is written meanwhile: clients are waiting.
//! 3. `TakeOver`, on the new primary, once it says that it is one.
//!
//! No client is let to the target before the old primary is a completed replica. So whatever is undone
//! until then, even while it is in progress, loses nothing.

use super::follow::follows;
use super::{COMMAND_PATIENCE, ShardTask, not_yet, stale};
use crate::engine_client::EngineError;
use crate::engine_info::{EngineInfo, is_at_rest};
use crate::engine_users::{epoch_user, no_writes, replication_user};
use crate::ledger::RoleRecord;
use jiff::Timestamp;
use model::command::AgentRefusal;
use model::documents::{EngineUsers, Role, proxy_user};
use model::own_words::INFO;
use model::replication::{HandOverTarget, ReplicationObservation};
use model::{Epoch, Generation};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

/// `master_failover_state` while the replica catches up.
const CATCHES_UP: &str = "waiting-for-sync";
/// Longest time that an order may give an engine.
const TIME_MAX: Duration = Duration::from_secs(60);
/// The engine looks at its own time-out ten times a second.
const ENGINE_TICK: Duration = Duration::from_millis(100);
/// How long an engine may take to give up when it is told to.
const ABORT_PATIENCE: Duration = Duration::from_secs(1);
/// Between two looks at an engine that hands over.
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// So many of the first looks come without a pause: on an idle machine the move is over by then. More
/// would take the time of the engines that are looked at.
const AT_ONCE: u32 = 5;
/// How often it is seen to whether the target still listens.
const TARGET_EVERY: Duration = Duration::from_millis(100);
/// How long a connection to it may take.
const TARGET_PATIENCE: Duration = Duration::from_millis(50);

/// How fast an engine in a move is asked again and again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    looks: u32,
}

impl Pace {
    /// From now on.
    pub(super) fn start() -> Self {
        Self { looks: 0 }
    }

    /// Until it is asked again.
    pub(super) async fn wait(&mut self) {
        self.looks = self.looks.saturating_add(1);
        if self.looks > AT_ONCE {
            sleep(LOOK_EVERY).await;
        }
    }
}

/// How a handing over stands, by the engine that hands over.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Standing {
    /// It waits for the replica to have everything.
    CatchesUp,
    /// It has become a replica, which the target does not know or has not answered yet.
    InProgress,
    /// It is the target's replica.
    Done,
    /// It has become the target's replica, and has no link to it: it gets all data anew, or the target is
    /// gone.
    Unlinked,
    /// It is primary, and nothing is under way.
    Primary,
}

impl ShardTask {
    /// `PrepareEpoch`.
    pub(super) async fn prepare_epoch(
        &mut self,
        generation: Generation,
        run_id: &str,
        epoch: Epoch,
        users: &EngineUsers,
    ) -> Result<(), AgentRefusal> {
        self.check_order(generation, run_id)?;
        self.check_epoch(epoch)?;
        self.check_unsettled(epoch)?;
        self.ask_loaded(run_id).await?;
        let Some(role) = self.agreed_role() else {
            return not_yet("it has no role yet");
        };
        if role.epoch >= epoch {
            return stale(format!(
                "it has its role in epoch {}, users of epoch {epoch} were ordered",
                role.epoch
            ));
        }
        let role = role.role;
        let Some(engine) = self.running_engine() else {
            return not_yet("it is gone");
        };
        self.record(|ledger| ledger.prepared = ledger.prepared.max(epoch))
            .await?;
        self.serve_stale(true).await?;
        self.command(&replication_user(users)).await?;
        self.command(&epoch_user(&engine, epoch, &users.proxy))
            .await?;
        if role == Role::Primary {
            // If the move is undone while this agent is away, the engine goes on in the epoch after.
            self.command(&epoch_user(&engine, epoch.next(), &users.proxy))
                .await?;
        }
        Ok(())
    }

    /// A primary before 7.0 that hands over drops its replicas first. A replica without its primary answers
    /// nobody, not even the old primary that asks it to take over; and an old primary that is no replica yet
    /// answers none of its others that come back, which then need all data anew. So both must, for as long
    /// as a move may come. No client is led to either meanwhile.
    pub(super) async fn serve_stale(&mut self, yes: bool) -> Result<(), AgentRefusal> {
        let value = if yes { "yes" } else { "no" };
        self.command(&["CONFIG", "SET", "replica-serve-stale-data", value])
            .await
    }

    /// `HandOver`. `until`: when its time is over.
    pub(super) async fn hand_over(
        &mut self,
        generation: Generation,
        run_id: String,
        epoch: Epoch,
        target: HandOverTarget,
        until: Instant,
    ) -> Result<(), AgentRefusal> {
        self.check_order(generation, &run_id)?;
        let info = self.look_loaded(&run_id).await?;
        let done = self.has_role(Role::Replica, epoch, &run_id);
        if done && follows(&info, target.address) {
            return Ok(());
        }
        self.check_epoch(epoch)?;
        self.check_unsettled(epoch)?;
        let until = until.min(Instant::now() + TIME_MAX);
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return stale("its time was over before it began");
        }
        let address = target.address;
        let begun = !is_at_rest(&info.replication) && self.may_be_handed_over() == Some(epoch);
        if !begun {
            self.check_hand_over(&info, epoch, address)?;
            self.order_failover(address, left).await?;
        }
        self.watch_hand_over(address, until).await
    }

    /// The epoch to which the role that the ledger gives this process may be handed over.
    fn may_be_handed_over(&self) -> Option<Epoch> {
        let info = self.info.as_ref()?;
        let ledger = self.ledger.as_ref()?;
        let role = ledger.role.as_ref()?;
        let may = role.role == Role::Primary
            && role.run_id == info.run_id
            && role.epoch < ledger.prepared;
        may.then_some(ledger.prepared)
    }

    fn check_hand_over(
        &self,
        info: &EngineInfo,
        epoch: Epoch,
        address: SocketAddr,
    ) -> Result<(), AgentRefusal> {
        match self.agreed_role() {
            Some(role) if role.role == Role::Primary && role.epoch < epoch => {}
            Some(role) => {
                let kind = match role.role {
                    Role::Primary => "primary",
                    Role::Replica => "a replica",
                };
                return stale(format!(
                    "it is {kind} of epoch {}: there is nothing to hand over to epoch {epoch}",
                    role.epoch
                ));
            }
            None => return not_yet("it has no role that it could hand over"),
        }
        if self.may_be_handed_over() != Some(epoch) {
            return not_yet(format!("users of epoch {epoch} were not made here"));
        }
        let unchanged = |why: String| AgentRefusal::failed(format!("{why}; nothing was changed"));
        if !is_at_rest(&info.replication) {
            let state = &info.replication.failover_state;
            return Err(unchanged(format!(
                "another FAILOVER is under way ({state})"
            )));
        }
        let replicas = &info.replication.replicas;
        match replicas.iter().find(|seen| seen.address == address) {
            Some(seen) if seen.online => Ok(()),
            Some(_) => Err(unchanged(format!("{address} is not synced yet"))),
            None => {
                let known: Vec<_> = replicas.iter().map(|r| r.address.to_string()).collect();
                Err(unchanged(format!(
                    "{address} is none of its replicas ({})",
                    known.join(", ")
                )))
            }
        }
    }

    async fn order_failover(
        &mut self,
        target: SocketAddr,
        left: Duration,
    ) -> Result<(), AgentRefusal> {
        // Its time must be over before ours, so that we still see what it did.
        let engine_time = left.saturating_sub(ENGINE_TICK * 2).max(left / 2);
        let milliseconds = engine_time.as_millis().max(1).to_string();
        let (host, port) = (target.ip().to_string(), target.port().to_string());
        let words = ["FAILOVER", "TO", &host, &port, "TIMEOUT", &milliseconds];
        let ordered = self.command_within(&words, left).await;
        if ordered.is_err() && self.look(COMMAND_PATIENCE).await.is_ok() {
            // It may have begun all the same, when only its answer did not come.
            self.resolve_hand_over().await?;
        }
        ordered
    }

    async fn watch_hand_over(
        &mut self,
        target: SocketAddr,
        until: Instant,
    ) -> Result<(), AgentRefusal> {
        let mut target_seen = Instant::now();
        let mut aborted = false;
        let mut pace = Pace::start();
        loop {
            let left = until.saturating_duration_since(Instant::now()) + ABORT_PATIENCE;
            self.look(left).await.map_err(broken_off)?;
            let replication = self.replication();
            match standing(&replication, Some(target)) {
                Standing::Done => return self.handed_over().await,
                Standing::Primary => {
                    return Err(AgentRefusal::failed(
                        "the engine gave up and is primary as before: the replica did not catch \
                         up or did not answer in time",
                    ));
                }
                Standing::CatchesUp if Instant::now() >= until && !aborted => {
                    aborted = true;
                    self.command(&["FAILOVER", "ABORT"]).await?;
                }
                Standing::CatchesUp | Standing::InProgress
                    if target_seen.elapsed() >= TARGET_EVERY && !aborted =>
                {
                    target_seen = Instant::now();
                    if is_gone(target).await {
                        aborted = true;
                        self.command(&["FAILOVER", "ABORT"]).await?;
                    }
                }
                Standing::CatchesUp | Standing::InProgress | Standing::Unlinked => {
                    let patience = if aborted {
                        ABORT_PATIENCE
                    } else {
                        Duration::ZERO
                    };
                    if Instant::now() >= until + patience {
                        return Err(AgentRefusal::failed(format!(
                            "at the end of its time the engine is still at it (failover state {}): \
                             the replica does not answer",
                            replication.failover_state
                        )));
                    }
                    pace.wait().await;
                }
            }
        }
    }

    /// The engine has become the target's replica. The ledger learns of it after the answer: clients are
    /// waiting.
    async fn handed_over(&mut self) -> Result<(), AgentRefusal> {
        let role = self.ledger.as_ref().and_then(|ledger| ledger.role.as_ref());
        if let Some(role) = role.filter(|role| role.role == Role::Primary) {
            let user = proxy_user(role.epoch);
            self.command(&no_writes(&user)).await?;
        }
        self.error = None;
        Ok(())
    }

    /// Brings the ledger up to what became of a handing over: after its answer, after a start of the agent,
    /// and whenever an engine that was stuck has moved on. What the engine says is enough.
    pub(super) async fn resolve_hand_over(&mut self) -> Result<(), AgentRefusal> {
        let (Some(epoch), Some(info)) = (self.may_be_handed_over(), &self.info) else {
            return Ok(());
        };
        let Some(target) = info.replication.primary else {
            return Ok(());
        };
        match standing(&info.replication, None) {
            Standing::Done => {
                let run_id = info.run_id.clone();
                self.record_replica(epoch, run_id, target).await?;
                self.serve_stale(false).await?;
                self.kill_blocked().await
            }
            Standing::InProgress if is_gone(target).await => {
                self.command(&["FAILOVER", "ABORT"]).await?;
                self.look(COMMAND_PATIENCE)
                    .await
                    .map_err(AgentRefusal::failed)
            }
            _ => Ok(()),
        }
    }

    /// `SettleMove`. The answer to it is what recovery decides by.
    pub(super) async fn settle_move(&mut self, epoch: Epoch) -> Result<(), AgentRefusal> {
        self.record(|ledger| ledger.settled = ledger.settled.max(epoch))
            .await?;
        if self.engine.is_none() {
            return Ok(());
        }
        self.ask_again().await?;
        self.serve_stale(false).await?;
        self.resolve_hand_over().await
    }

    /// `AbortHandOver`.
    pub(super) async fn abort_hand_over(
        &mut self,
        generation: Generation,
        run_id: &str,
    ) -> Result<(), AgentRefusal> {
        self.check_order(generation, run_id)?;
        let info = self.ask_loaded(run_id).await?;
        if !is_at_rest(&info.replication) {
            self.command(&["FAILOVER", "ABORT"]).await?;
            let until = Instant::now() + ABORT_PATIENCE;
            loop {
                self.look(COMMAND_PATIENCE)
                    .await
                    .map_err(AgentRefusal::failed)?;
                if is_at_rest(&self.replication()) {
                    break;
                }
                if Instant::now() > until {
                    return not_yet("it does not give up at once");
                }
                sleep(LOOK_EVERY).await;
            }
        }
        self.resolve_hand_over().await
    }

    /// `TakeOver`.
    pub(super) async fn take_over(
        &mut self,
        generation: Generation,
        run_id: String,
        epoch: Epoch,
        users: &EngineUsers,
    ) -> Result<(), AgentRefusal> {
        self.check_promotion(generation, &run_id, epoch)?;
        let info = self.ask_loaded(&run_id).await?;
        if !info.is_primary() || !is_at_rest(&info.replication) {
            return not_yet(format!(
                "it is no primary: it follows {}",
                info.replication
                    .primary
                    .map_or_else(|| "nobody".to_owned(), |primary| primary.to_string())
            ));
        }
        let Some(engine) = self.running_engine() else {
            return not_yet("it is gone");
        };
        if !self.has_role(Role::Primary, epoch, &run_id) {
            let role = RoleRecord {
                role: Role::Primary,
                epoch,
                run_id,
                given: Timestamp::now(),
                primary: None,
            };
            self.role_confirmed = false;
            self.record(|ledger| {
                ledger.epoch = epoch;
                ledger.role = Some(role);
                ledger.intent = crate::ledger::Intent::Nothing;
            })
            .await?;
        }
        self.command(&replication_user(users)).await?;
        self.command(&epoch_user(&engine, epoch, &users.proxy))
            .await?;
        self.serve_stale(false).await?;
        self.ask_again().await?;
        self.revoke_past().await?;
        self.kill_blocked().await
    }

    /// Asks it how it replicates, and nothing else.
    pub(super) async fn look(&mut self, patience: Duration) -> Result<(), EngineError> {
        let patience = patience.min(COMMAND_PATIENCE);
        let client = self.connected(patience).await?;
        let text = client.text(&[INFO, "replication"], patience).await?;
        match &mut self.info {
            Some(info) => info.refresh_replication(&text),
            None => return Err(EngineError::Lost(io::ErrorKind::NotConnected.into())),
        }
        Ok(())
    }

    fn replication(&self) -> ReplicationObservation {
        self.info
            .as_ref()
            .map(|info| info.replication.clone())
            .unwrap_or_default()
    }
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "it is what turns one error into another"
)]
fn broken_off(error: EngineError) -> AgentRefusal {
    AgentRefusal::failed(format!(
        "the engine does not say how the handing over ended: {error}"
    ))
}

/// `target`: whose replica it is to become, if that is known.
fn standing(seen: &ReplicationObservation, target: Option<SocketAddr>) -> Standing {
    if !is_at_rest(seen) {
        // While it is in progress it already calls itself a replica, and has no link.
        return if seen.failover_state == CATCHES_UP {
            Standing::CatchesUp
        } else {
            Standing::InProgress
        };
    }
    match seen.primary {
        _ if seen.is_primary => Standing::Primary,
        Some(primary) if target.is_none_or(|t| t == primary) && seen.link_up => Standing::Done,
        _ => Standing::Unlinked,
    }
}

/// Whether nobody listens there: then there is no process that could have become primary.
async fn is_gone(target: SocketAddr) -> bool {
    matches!(
        timeout(TARGET_PATIENCE, TcpStream::connect(target)).await,
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused
    )
}
