//! One task a shard. It alone touches the engine and its folder; it takes orders one by one, sees
//! the engine's death at once by its pidfd, and asks it once a second how it is.

mod acks;
mod adopt;
mod checks;
mod damage;
mod disk;
mod follow;
mod hand_over;
mod keeper;
mod observe;
mod probe;
mod promote;
mod retire;
mod settings;
mod start;
mod stop;

use crate::agent::Shared;
use crate::engine_client::EngineClient;
use crate::engine_info::EngineInfo;
use crate::engine_process::EngineProcess;
use crate::ledger::Ledger;
use crate::shard_folder::ShardFolder;
use model::command::{AgentCommand, AgentRefusal};
use model::observation::{EngineStall, EngineState, ShardObservation};
use model::{Generation, ShardUid};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior};

/// How long an engine may take to answer one command.
const COMMAND_PATIENCE: Duration = Duration::from_secs(3);
/// How long the task waits for the answer to a probe, away from its orders.
const PROBE_PATIENCE: Duration = Duration::from_secs(1);

/// How often links between engines are looked at while something depends on them.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A replica that hears its primary is looked at once in so many of these: that it does not is what a
/// failover waits for.
const LINKED_LOOKS: u32 = 3;

/// What an order brings.
pub(crate) type Answer = Result<Option<ShardObservation>, AgentRefusal>;

/// What a shard's task can be told.
#[derive(Debug)]
pub(crate) enum Order {
    /// By the controller.
    Command {
        command: Box<AgentCommand>,
        /// When it came; how long it waits here counts.
        arrived: Instant,
        answer: oneshot::Sender<Answer>,
    },
    /// By a task of the shard: how is it?
    See { answer: oneshot::Sender<Answer> },
    /// The node stops. The answer is what went wrong.
    Stop {
        patience: Duration,
        answer: oneshot::Sender<Option<String>>,
    },
}

/// Whether the task has still something to look after.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Life {
    GoesOn,
    Ends,
}

/// Why it is not known whether an engine runs. As long as it is not, nobody may take its place as if it
/// were gone: it may take writes.
#[derive(Clone, Debug, thiserror::Error)]
enum Doubt {
    /// It cannot be looked at.
    #[error("{0}")]
    Unseen(String),
    /// Somebody has its folder who is not the engine of the ledger, and no child of it.
    #[error("{0}")]
    Stranger(String),
}

/// Questions that the engine has left without an answer since its last one.
#[derive(Clone, Copy, Debug)]
struct Unanswered {
    /// When the first of them was asked.
    since: Instant,
    /// Processor time that the engine had used then.
    cpu: Option<u64>,
    /// How many it was given time for.
    questions: u32,
}

/// Starts that failed in a row.
#[derive(Clone, Copy, Debug)]
struct Failures {
    count: u32,
    generation: Generation,
    retry_at: Instant,
}

/// The task's state.
#[derive(Debug)]
pub(crate) struct ShardTask {
    shared: Arc<Shared>,
    folder: ShardFolder,
    shard: ShardUid,
    /// For tasks that have something to ask of this one.
    mailbox: mpsc::WeakSender<Order>,
    /// `PressAcks` under way.
    presses: Arc<Semaphore>,
    /// What is on disk; `None`: nothing was started here yet.
    ledger: Option<Ledger>,
    /// Why the ledger cannot be used.
    broken: Option<String>,
    /// Why it is not known whether an engine runs.
    doubt: Option<Doubt>,
    engine: Option<EngineProcess>,
    client: Option<EngineClient>,
    state: EngineState,
    error: Option<String>,
    info: Option<EngineInfo>,
    /// When it answered last, or was started.
    heard: Instant,
    /// When it answered last that it serves, or was started.
    well: Instant,
    unanswered: Option<Unanswered>,
    /// That it has not served lately.
    stall: Option<EngineStall>,
    /// Whether this process has ever answered this agent.
    answered: bool,
    /// Whether it has ever been seen with its data loaded.
    ran: bool,
    /// Whether the engine itself agrees with the role in the ledger.
    role_confirmed: bool,
    /// Who gets its promises.
    keeper: keeper::Keeper,
    /// Whether users of epochs that are over may be left.
    retiring: Option<retire::Retiring>,
    /// Whether a snapshot was asked for, to complete a change of persistence.
    snapshot_asked: bool,
    /// When its append-only file is written anew; that it must be is in the ledger.
    holed: Option<disk::Holed>,
    failures: Option<Failures>,
    /// Starts in a row that failed since the files are damaged.
    load_failures: u32,
    /// Length of the log when the process was started.
    log_mark: u64,
}

impl ShardTask {
    pub(crate) fn new(
        shared: Arc<Shared>,
        folder: ShardFolder,
        mailbox: mpsc::WeakSender<Order>,
    ) -> Self {
        Self {
            shared,
            shard: folder.shard(),
            folder,
            mailbox,
            presses: Arc::new(Semaphore::new(acks::AT_ONCE)),
            ledger: None,
            broken: None,
            doubt: None,
            engine: None,
            client: None,
            state: EngineState::Stopped,
            error: None,
            info: None,
            heard: Instant::now(),
            well: Instant::now(),
            unanswered: None,
            stall: None,
            answered: false,
            ran: false,
            role_confirmed: false,
            keeper: keeper::Keeper::new(),
            retiring: None,
            snapshot_asked: false,
            holed: None,
            failures: None,
            load_failures: 0,
            log_mark: 0,
        }
    }

    /// Runs until the shard is removed or the agent is dropped. `ordered`: it was made for an
    /// order, so it waits for it though there is no folder yet.
    pub(crate) async fn run(
        mut self,
        mut orders: mpsc::Receiver<Order>,
        ready: oneshot::Sender<()>,
        ordered: bool,
    ) {
        let life = self.recover().await;
        // Nobody waits for it when it was made for an order.
        let _ = ready.send(());
        if life == Life::Ends && !ordered {
            return;
        }
        let every = self.shared.config.probe_every;
        // Spread over the interval, so that a hundred engines are not asked in the same instant.
        let spread = (self.shard.0 % 16) as u32;
        let mut ticks = tokio::time::interval_at(Instant::now() + every * spread / 16, every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looked = 0_u32;
        loop {
            let life = tokio::select! {
                // An order first: of an engine that hangs each question takes as long as the next one is away, and
                // the order may be to end it.
                biased;
                order = orders.recv() => match order {
                    Some(order) => self.take(order).await,
                    None => Life::Ends,
                },
                () = ended(self.engine.as_ref()) => {
                    self.buried();
                    Life::GoesOn
                }
                _ = ticks.tick(), if self.engine.is_some() || self.doubt.is_some() => {
                    self.tick().await
                }
                _ = looks.tick(), if self.is_watched() || self.is_linked() => {
                    looked = looked.wrapping_add(1);
                    if self.is_watched() || looked.is_multiple_of(LINKED_LOOKS) {
                        self.look_at_links().await;
                    }
                    Life::GoesOn
                }
            };
            if life == Life::Ends {
                return;
            }
            // An order that did not bring the shard into being leaves nothing to look after.
            if self.ledger.is_none() && self.broken.is_none() && orders.is_empty() {
                return;
            }
            self.publish();
        }
    }

    async fn tick(&mut self) -> Life {
        if self.doubt.is_some() {
            return self.recover().await;
        }
        self.probe().await;
        Life::GoesOn
    }

    async fn take(&mut self, order: Order) -> Life {
        match order {
            Order::Command {
                command,
                arrived,
                answer,
            } => {
                let command = match *command {
                    AgentCommand::PressAcks {
                        generation,
                        run_id,
                        milliseconds,
                        ..
                    } => {
                        self.press_acks(generation, run_id, milliseconds, answer);
                        return Life::GoesOn;
                    }
                    command => command,
                };
                let (result, life) = self.execute(command, arrived).await;
                if life == Life::GoesOn && self.ledger.is_some() {
                    self.publish();
                }
                let result =
                    result.map(|()| (life == Life::GoesOn).then(|| self.observation()).flatten());
                if let Err(refusal) = &result {
                    tracing::info!("shard {}: {refusal}", self.shard);
                }
                // Whoever asked may have gone.
                let _ = answer.send(result);
                self.finish().await;
                life
            }
            Order::See { answer } => {
                if self.look(PROBE_PATIENCE).await.is_err() {
                    self.probe().await;
                }
                let _ = answer.send(Ok(self.observation()));
                Life::GoesOn
            }
            Order::Stop { patience, answer } => {
                let trouble = match self.stop_engine(patience).await {
                    Ok(trouble) => trouble,
                    Err(refusal) => Some(refusal.to_string()),
                };
                self.publish();
                let _ = answer.send(trouble);
                Life::GoesOn
            }
        }
    }

    async fn execute(
        &mut self,
        command: AgentCommand,
        arrived: Instant,
    ) -> (Result<(), AgentRefusal>, Life) {
        let unclear = self.broken.is_some() || self.doubt.is_some();
        if unclear && self.recover().await == Life::GoesOn && self.broken.is_some() {
            let reason = self.broken.clone().unwrap_or_default();
            return (Err(AgentRefusal::Failed { reason }), Life::GoesOn);
        }
        let result = match command {
            AgentCommand::EnsureEngine(spec) => self.ensure(spec).await,
            AgentCommand::Configure {
                generation,
                settings,
                ..
            } => self.configure(generation, settings).await,
            AgentCommand::RemoveEngine {
                generation,
                operation,
                ..
            } => match self.remove(generation, operation).await {
                Ok(()) => return (Ok(()), Life::Ends),
                Err(refusal) => Err(refusal),
            },
            AgentCommand::KillEngine {
                generation, run_id, ..
            } => self.kill_engine(generation, &run_id).await,
            AgentCommand::SetAside {
                generation,
                epoch,
                decided,
                ..
            } => self.set_aside(generation, epoch, decided).await,
            role => self.execute_role(role, arrived).await,
        };
        (result, Life::GoesOn)
    }

    /// Orders about the role of the running process.
    async fn execute_role(
        &mut self,
        command: AgentCommand,
        arrived: Instant,
    ) -> Result<(), AgentRefusal> {
        match command {
            AgentCommand::MakePrimary {
                generation: of,
                run_id,
                epoch,
                users,
                ..
            } => self.make_primary(of, run_id, epoch, &users).await,
            AgentCommand::Promote {
                generation: of,
                run_id,
                epoch,
                record,
                users,
                wait_promises,
                ..
            } => {
                let how = (&record, wait_promises);
                self.promote(of, run_id, epoch, how, &users).await
            }
            keep @ AgentCommand::Keep { .. } => self.keep(keep).await,
            AgentCommand::Follow {
                generation: of,
                run_id,
                epoch,
                primary,
                users,
                ..
            } => self.follow(of, run_id, epoch, &primary, &users).await,
            AgentCommand::PrepareEpoch {
                generation: of,
                run_id,
                epoch,
                users,
                ..
            } => self.prepare_epoch(of, &run_id, epoch, &users).await,
            AgentCommand::HandOver {
                generation: of,
                run_id,
                epoch,
                target,
                deadline_ms,
                ..
            } => {
                let until = arrived + Duration::from_millis(u64::from(deadline_ms));
                self.hand_over(of, run_id, epoch, target, until).await
            }
            AgentCommand::TakeOver {
                generation: of,
                run_id,
                epoch,
                users,
                ..
            } => self.take_over(of, run_id, epoch, &users).await,
            AgentCommand::SettleMove { epoch, .. } => self.settle_move(epoch).await,
            AgentCommand::AbortHandOver {
                generation: of,
                run_id,
                ..
            } => self.abort_hand_over(of, &run_id).await,
            AgentCommand::EnsureEngine(_)
            | AgentCommand::Configure { .. }
            | AgentCommand::RemoveEngine { .. }
            | AgentCommand::KillEngine { .. }
            | AgentCommand::SetAside { .. }
            | AgentCommand::PressAcks { .. } => not_yet("it is no order about a role"),
        }
    }

    /// Changes the ledger, on disk first.
    async fn record(&mut self, change: impl FnOnce(&mut Ledger)) -> Result<(), AgentRefusal> {
        let Some(mut next) = self.ledger.clone() else {
            return Err(AgentRefusal::NotYet {
                reason: format!("shard {} was never started here", self.shard),
            });
        };
        change(&mut next);
        self.record_whole(next).await
    }

    async fn record_whole(&mut self, next: Ledger) -> Result<(), AgentRefusal> {
        if self.ledger.as_ref() == Some(&next) {
            return Ok(());
        }
        let (path, copy) = (self.folder.ledger_path(), next.clone());
        blocking(move || copy.write(&path)).await.map_err(|error| {
            let path = self.folder.ledger_path();
            AgentRefusal::failed(format!("{}: {error}; nothing was done", path.display()))
        })?;
        self.ledger = Some(next);
        Ok(())
    }
}

fn not_yet<T>(reason: impl Into<String>) -> Result<T, AgentRefusal> {
    Err(AgentRefusal::NotYet {
        reason: reason.into(),
    })
}

fn stale<T>(reason: impl Into<String>) -> Result<T, AgentRefusal> {
    Err(AgentRefusal::Stale {
        reason: reason.into(),
    })
}

/// Waits for the death of an engine; for ever when there is none.
async fn ended(engine: Option<&EngineProcess>) {
    match engine {
        Some(engine) => engine.ended().await,
        None => std::future::pending().await,
    }
}

/// Does work that blocks on a thread for such.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}
