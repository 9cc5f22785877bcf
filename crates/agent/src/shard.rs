//! One task a shard. It alone touches the engine and its folder; it takes orders one by one, sees
//! the engine's death at once by its pidfd, and asks it once a second how it is.

mod probe;
mod promote;
mod settings;
mod start;
mod stop;

use crate::agent::Shared;
use crate::engine_client::EngineClient;
use crate::engine_info::EngineInfo;
use crate::engine_process::{EngineProcess, ProcessStat, executable_of, lock_holders};
use crate::ledger::{Intent, Ledger, ProcessRecord};
use crate::shard_folder::ShardFolder;
use jiff::Timestamp;
use model::command::{AgentCommand, AgentRefusal};
use model::observation::{EngineState, ShardObservation};
use model::release::EngineId;
use model::{DatabaseUid, Generation, ShardUid};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior};

/// How long an engine may take to answer one command.
const COMMAND_PATIENCE: Duration = Duration::from_secs(3);
/// How long the task waits for the answer to a probe, away from its orders.
const PROBE_PATIENCE: Duration = Duration::from_secs(1);

/// What an order brings.
pub(crate) type Answer = Result<Option<ShardObservation>, AgentRefusal>;

/// What a shard's task can be told.
#[derive(Debug)]
pub(crate) enum Order {
    /// By the controller.
    Command {
        command: AgentCommand,
        answer: oneshot::Sender<Answer>,
    },
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
    /// What is on disk; `None`: nothing was started here yet.
    ledger: Option<Ledger>,
    /// Why the ledger cannot be used.
    broken: Option<String>,
    engine: Option<EngineProcess>,
    client: Option<EngineClient>,
    state: EngineState,
    error: Option<String>,
    info: Option<EngineInfo>,
    /// When it answered last, or was started.
    heard: Instant,
    /// Processor time that it had used then.
    cpu_then: u64,
    /// Whether this process has ever answered this agent.
    answered: bool,
    /// Whether it has ever been seen with its data loaded.
    ran: bool,
    /// Whether the engine itself agrees with the role in the ledger.
    role_confirmed: bool,
    /// Whether a snapshot was asked for, to complete a change of persistence.
    snapshot_asked: bool,
    failures: Option<Failures>,
    /// Length of the log when the process was started.
    log_mark: u64,
}

impl ShardTask {
    pub(crate) fn new(shared: Arc<Shared>, folder: ShardFolder) -> Self {
        Self {
            shared,
            shard: folder.shard(),
            folder,
            ledger: None,
            broken: None,
            engine: None,
            client: None,
            state: EngineState::Stopped,
            error: None,
            info: None,
            heard: Instant::now(),
            cpu_then: 0,
            answered: false,
            ran: false,
            role_confirmed: false,
            snapshot_asked: false,
            failures: None,
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
        loop {
            let life = tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => self.take(order).await,
                    None => Life::Ends,
                },
                () = ended(self.engine.as_ref()) => {
                    self.buried();
                    Life::GoesOn
                }
                _ = ticks.tick(), if self.engine.is_some() => {
                    self.probe().await;
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

    async fn take(&mut self, order: Order) -> Life {
        match order {
            Order::Command { command, answer } => {
                let (result, life) = self.execute(command).await;
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
                life
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

    async fn execute(&mut self, command: AgentCommand) -> (Result<(), AgentRefusal>, Life) {
        if self.broken.is_some() && self.recover().await == Life::GoesOn && self.broken.is_some() {
            let reason = self.broken.clone().unwrap_or_default();
            return (Err(AgentRefusal::Failed { reason }), Life::GoesOn);
        }
        match command {
            AgentCommand::EnsureEngine(spec) => (self.ensure(spec).await, Life::GoesOn),
            AgentCommand::MakePrimary {
                generation,
                run_id,
                epoch,
                users,
                ..
            } => (
                self.make_primary(generation, run_id, epoch, &users).await,
                Life::GoesOn,
            ),
            AgentCommand::Configure {
                generation,
                settings,
                ..
            } => (self.configure(generation, settings).await, Life::GoesOn),
            AgentCommand::RemoveEngine {
                generation,
                operation,
                ..
            } => match self.remove(generation, operation).await {
                Ok(()) => (Ok(()), Life::Ends),
                Err(refusal) => (Err(refusal), Life::GoesOn),
            },
        }
    }

    /// Reads the ledger and adopts the engine that lives, after a start of the agent.
    async fn recover(&mut self) -> Life {
        self.broken = None;
        match self.folder.read_ledger() {
            Ok(Some(ledger)) => self.ledger = Some(ledger),
            Ok(None) => {
                self.ledger = None;
                self.shared.publish(self.shard, None);
                return Life::Ends;
            }
            Err(error) => {
                tracing::error!("shard {}: {error}", self.shard);
                self.broken = Some(error.to_string());
                self.state = EngineState::Failed;
                self.error = Some(error.to_string());
                self.publish();
                return Life::GoesOn;
            }
        }
        self.state = EngineState::Stopped;
        self.error = None;
        if let Err(error) = self.adopt().await {
            tracing::warn!("shard {}: {error}", self.shard);
            self.error = Some(error);
        }
        let removal = self
            .ledger
            .as_ref()
            .and_then(|ledger| match &ledger.intent {
                Intent::Remove { operation } => Some((ledger.spec.generation, operation.clone())),
                _ => None,
            });
        if let Some((generation, operation)) = removal {
            tracing::info!("shard {}: going on with its removal", self.shard);
            match self.finish_removal(generation, &operation).await {
                Ok(()) => return Life::Ends,
                Err(refusal) => {
                    self.state = EngineState::Failed;
                    self.error = Some(refusal.to_string());
                }
            }
        }
        if self.engine.is_some() {
            self.probe().await;
        }
        self.publish();
        Life::GoesOn
    }

    /// Looks for the engine that an agent before this one started.
    async fn adopt(&mut self) -> Result<(), String> {
        let folder = self.folder.clone();
        let locked = blocking(move || folder.is_locked())
            .await
            .map_err(|e| e.to_string())?;
        if !locked {
            return Ok(());
        }
        let Some(ledger) = &self.ledger else {
            return Ok(());
        };
        let process = match (&ledger.process, &ledger.intent) {
            (Some(record), _) => EngineProcess::adopt(record, &self.shared.boot_id),
            // The agent died between the start and writing it down.
            (None, Intent::Start { executable }) => {
                let record = self.find_unrecorded(executable)?;
                let process = EngineProcess::adopt(&record, &self.shared.boot_id);
                self.record(|ledger| ledger.process = Some(record))
                    .await
                    .map_err(|refusal| refusal.to_string())?;
                process
            }
            (None, _) => Err("its ledger records no process".to_owned()),
        };
        let process = process.map_err(|why| {
            format!(
                "its folder is locked by a process that is not the engine of its ledger ({why}); \
                 it is killed when the engine is next started or removed"
            )
        })?;
        tracing::info!("shard {}: adopted process {}", self.shard, process.pid());
        self.state = EngineState::Starting;
        self.watch(process);
        let recorded = self
            .ledger
            .as_ref()
            .and_then(|ledger| ledger.process.as_ref());
        self.ran = recorded.is_some_and(|process| process.run_id.is_some());
        Ok(())
    }

    /// The engine among the processes that hold the lock: it leads its group and runs the program
    /// that was about to be started.
    fn find_unrecorded(&self, executable: &Path) -> Result<ProcessRecord, String> {
        let ledger = self.ledger.as_ref().ok_or("no ledger")?;
        let holders = lock_holders(&self.folder.lock_path()).map_err(|e| e.to_string())?;
        let found = holders.into_iter().find_map(|pid| {
            let stat = ProcessStat::of(pid)?;
            let is_it = stat.group == pid && executable_of(pid).as_deref() == Some(executable);
            is_it.then_some((pid, stat))
        });
        let (pid, stat) = found.ok_or("its folder is locked, but no engine is found")?;
        Ok(ProcessRecord {
            pid,
            process_group: stat.group,
            start_time: stat.start_time,
            boot_id: self.shared.boot_id.clone(),
            executable: executable.to_path_buf(),
            engine: ledger.spec.engine.clone(),
            generation: ledger.spec.generation,
            port: ledger.spec.port,
            run_id: None,
            started: Timestamp::now(),
        })
    }

    /// Looks after this process from now on.
    fn watch(&mut self, process: EngineProcess) {
        self.cpu_then = ProcessStat::of(process.pid()).map_or(0, |stat| stat.cpu_ticks);
        self.engine = Some(process);
        self.client = None;
        self.info = None;
        self.answered = false;
        self.ran = false;
        self.role_confirmed = false;
        self.snapshot_asked = false;
        self.heard = Instant::now();
    }

    /// The engine has ended. Says how, if that is known.
    fn bury(&mut self) -> Option<String> {
        let how = self.engine.take().and_then(|engine| engine.reap());
        self.client = None;
        self.info = None;
        self.role_confirmed = false;
        self.state = EngineState::Stopped;
        self.error = None;
        how
    }

    /// The engine has ended though nobody asked it to.
    fn buried(&mut self) {
        let never_ran = !self.ran;
        let how = self
            .bury()
            .map_or_else(String::new, |how| format!(" ({how})"));
        let said = self.last_words();
        self.error = Some(format!(
            "the engine has ended{how}; its log ends with: {said}"
        ));
        if never_ran {
            self.state = EngineState::Failed;
            self.count_failure();
        }
        tracing::warn!(
            "shard {}: {}",
            self.shard,
            self.error.as_deref().unwrap_or_default()
        );
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

    fn publish(&self) {
        if self.ledger.is_some() || self.broken.is_some() {
            self.shared.publish(self.shard, self.observation());
        }
    }

    /// The shard as it is shown; `None` when nothing was started here.
    fn observation(&self) -> Option<ShardObservation> {
        let Some(ledger) = &self.ledger else {
            return self.broken.as_ref().and_then(|_| self.unknown());
        };
        let process = ledger.process.as_ref().filter(|_| self.engine.is_some());
        let info = self.info.clone().unwrap_or_default();
        let role = ledger
            .role
            .as_ref()
            .filter(|_| self.role_confirmed && info.is_primary);
        Some(ShardObservation {
            shard: self.shard,
            database: ledger.spec.database,
            generation: process.map_or(ledger.spec.generation, |process| process.generation),
            state: self.state,
            role: role.map(|record| record.role),
            epoch: role.map(|record| record.epoch),
            pid: self.engine.as_ref().map(EngineProcess::pid),
            run_id: process.and_then(|process| process.run_id.clone()),
            engine: process
                .map_or(&ledger.spec.engine, |process| &process.engine)
                .clone(),
            used_memory: info.used_memory,
            fragmentation: info.fragmentation,
            keys: info.keys,
            connections: info.connections,
            loading_percent: if info.loading {
                info.loading_percent
            } else {
                0.0
            },
            error: self.error.clone(),
        })
    }

    /// A shard of which nothing is known but its folder's name.
    fn unknown(&self) -> Option<ShardObservation> {
        let newest = self
            .shared
            .catalogue
            .engines()
            .last()
            .map(|engine| engine.id.clone());
        Some(ShardObservation {
            shard: self.shard,
            database: DatabaseUid(0),
            generation: Generation(0),
            state: EngineState::Failed,
            role: None,
            epoch: None,
            pid: None,
            run_id: None,
            engine: newest.or_else(|| "valkey-0.0.0".parse::<EngineId>().ok())?,
            used_memory: 0,
            fragmentation: 0.0,
            keys: 0,
            connections: 0,
            loading_percent: 0.0,
            error: self.broken.clone(),
        })
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
