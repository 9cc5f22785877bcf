//! The agent: finds the shards of this node when it starts, then hands each order to the task of
//! its shard, which does one thing at a time.

use crate::catalogue::Catalogue;
use crate::engine_process;
use crate::host;
use crate::shard::{Answer, Order, ShardTask};
use crate::shard_folder::{ShardFolder, delete_trash};
use crate::supervisord::Supervisord;
use crate::tombstones::Tombstones;
use anyhow::Context as _;
use model::ShardUid;
use model::command::{AgentCommand, AgentRefusal};
use model::limits::{ACK_LAG_MAX, SHARDS_PER_NODE_MAX};
use model::node_config::NodeConfig;
use model::observation::{HostFacts, ServiceObservation, ShardObservation, StallKind};
use model::release::EngineId;
use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

/// Most orders that wait for one shard.
const MAILBOX: usize = 8;
/// How long supervisord may take to list its processes.
const SERVICES_PATIENCE: Duration = Duration::from_secs(2);

/// What an agent must know.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// The node.
    pub node: NodeConfig,
    /// The release in force, links resolved: `<install>/releases/<version>`.
    pub release_dir: PathBuf,
    /// How often each engine is asked how it is.
    pub probe_every: Duration,
    /// After how long without an answer a living engine counts as unresponsive.
    pub unresponsive_after: Duration,
}

impl AgentConfig {
    /// The usual intervals: every second, 5 seconds.
    #[must_use]
    pub fn new(node: NodeConfig, release_dir: PathBuf) -> Self {
        Self {
            node,
            release_dir,
            probe_every: Duration::from_secs(1),
            unresponsive_after: Duration::from_secs(5),
        }
    }
}

/// How one engine ended in [`Agent::stop_all_engines`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Stopped {
    /// Which shard.
    pub shard: ShardUid,
    /// `None`: it ended by itself, with its data saved as its persistence says. Otherwise why it
    /// had to be killed, or that it could not be.
    pub trouble: Option<String>,
}

/// What the agent and the tasks of its shards share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: AgentConfig,
    pub(crate) catalogue: Catalogue,
    pub(crate) boot_id: String,
    pub(crate) tombstones: Tombstones,
    observations: Mutex<BTreeMap<ShardUid, ShardObservation>>,
    changed: watch::Sender<u64>,
}

impl Shared {
    /// Replaces what is known of a shard; `None`: it is not there any more. Nudges whoever waits
    /// when more changed than its counters.
    pub(crate) fn publish(&self, shard: ShardUid, observation: Option<ShardObservation>) {
        let before = {
            let mut all = lock(&self.observations);
            match observation.clone() {
                Some(now) => all.insert(shard, now),
                None => all.remove(&shard),
            }
        };
        if before.map(without_counters) != observation.map(without_counters) {
            self.changed
                .send_modify(|version| *version = version.wrapping_add(1));
        }
    }
}

fn without_counters(mut observation: ShardObservation) -> ShardObservation {
    observation.used_memory = 0;
    observation.fragmentation = 0.0;
    observation.keys = 0;
    observation.connections = 0;
    observation.loading_percent = 0.0;
    // Of one that hangs each second counts.
    if let Some(stall) = observation
        .stall
        .as_mut()
        .filter(|stall| stall.kind != StallKind::Silent)
    {
        stall.milliseconds = 0;
        stall.cpu_ticks = None;
        stall.process_state = None;
    }
    if let Some(replication) = &mut observation.replication {
        replication.offset = 0;
        replication.last_io_seconds = 0;
        replication.link_down_seconds = None;
        replication.full_syncs = 0;
        replication.partial_syncs = 0;
        for replica in &mut replication.replicas {
            replica.offset = 0;
            replica.lag_seconds = u64::from(replica.lag_seconds > ACK_LAG_MAX);
        }
    }
    observation
}

/// Hands on one node. Clones are the same agent; when the last one is dropped its tasks end and
/// the engines live on.
#[derive(Clone, Debug)]
pub struct Agent {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    shards: Mutex<BTreeMap<ShardUid, mpsc::Sender<Order>>>,
    stopping: AtomicBool,
}

impl Agent {
    /// Looks at this node's shards, adopts the engines that live, finishes deletions that were
    /// under way, and starts watching. Starts no engine: that is ordered.
    ///
    /// # Errors
    /// When the folder of the shards, the logs or the sockets, or the release's engines cannot be used. A
    /// single shard in trouble is no error: its observation says what is wrong.
    pub async fn start(config: AgentConfig) -> anyhow::Result<Self> {
        let node = &config.node;
        for folder in [node.shards_dir(), node.log_dir(), node.socket_dir.clone()] {
            DirBuilder::new()
                .recursive(true)
                .mode(0o750)
                .create(&folder)
                .with_context(|| format!("making the folder {}", folder.display()))?;
        }
        let catalogue = Catalogue::read(&config.release_dir)
            .context("looking for the engines of this release")?;
        let boot_id = engine_process::boot_id().context("reading the host's boot id")?;
        for trash in ShardFolder::list_trash(&config.node)? {
            tracing::info!("finishing the deletion of {}", trash.display());
            delete_trash(&trash).with_context(|| format!("deleting {}", trash.display()))?;
        }
        let folders = ShardFolder::list(&config.node)
            .with_context(|| format!("reading {}", config.node.shards_dir().display()))?;
        let tombstones = Tombstones::read(config.node.shards_dir().join("removed.json"));
        let shared = Arc::new(Shared {
            config,
            catalogue,
            boot_id,
            tombstones,
            observations: Mutex::default(),
            changed: watch::channel(0).0,
        });
        let inner = Inner {
            shared,
            shards: Mutex::default(),
            stopping: AtomicBool::new(false),
        };
        let agent = Self {
            inner: Arc::new(inner),
        };
        let mut ready = Vec::new();
        for folder in folders {
            ready.push(agent.spawn(folder));
        }
        for ready in ready {
            // An error: there is no shard in that folder, so its task has ended.
            let _ = ready.await;
        }
        Ok(agent)
    }

    /// Carries out an order. Idempotent; orders for one shard are done one after the other, each
    /// within bounds, so the caller may wait. The answer is the shard as it is then; `None` after a
    /// removal.
    ///
    /// # Errors
    /// [`AgentRefusal::Stale`]: never again; `NotYet`: later; `Failed`: it was tried, or cannot be.
    pub async fn execute(
        &self,
        command: AgentCommand,
    ) -> Result<Option<ShardObservation>, AgentRefusal> {
        let shard = shard_of(&command);
        let arrived = Instant::now();
        // The task of a shard that was just removed may still be in the map: then a second try.
        for _ in 0..2 {
            if self.inner.stopping.load(Ordering::Acquire) {
                return not_yet("this node's engines are being stopped");
            }
            let Some(mailbox) = self.mailbox(shard, &command)? else {
                return self.unknown(shard, command).await;
            };
            let (answer, answered) = oneshot::channel::<Answer>();
            match mailbox.try_send(Order::Command {
                command: Box::new(command.clone()),
                arrived,
                answer,
            }) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(_)) => {
                    return not_yet(format!("{MAILBOX} orders already wait for shard {shard}"));
                }
                Err(mpsc::error::TrySendError::Closed(_)) => {
                    self.forget(shard, &mailbox);
                    continue;
                }
            }
            match answered.await {
                Ok(answer) => return answer,
                Err(_) => self.forget(shard, &mailbox),
            }
        }
        not_yet(format!("shard {shard} is being removed"))
    }

    /// The engines of this node as they were seen last, by shard.
    #[must_use]
    pub fn shards(&self) -> Vec<ShardObservation> {
        lock(&self.inner.shared.observations)
            .values()
            .cloned()
            .collect()
    }

    /// Changes whenever a shard changes in more than its counters; a death is seen at once.
    #[must_use]
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.inner.shared.changed.subscribe()
    }

    /// The host.
    #[must_use]
    pub fn host(&self) -> HostFacts {
        host::facts(&self.inner.shared.config.node)
    }

    /// Engines that this release carries, oldest first.
    #[must_use]
    pub fn engines(&self) -> Vec<EngineId> {
        self.inner
            .shared
            .catalogue
            .engines()
            .iter()
            .map(|engine| engine.id.clone())
            .collect()
    }

    /// The node's services; none when supervisord does not answer.
    pub async fn services(&self) -> Vec<ServiceObservation> {
        let supervisord = Supervisord::of(&self.inner.shared.config.node, SERVICES_PATIENCE);
        supervisord.processes().await.unwrap_or_else(|error| {
            tracing::debug!("{error}");
            Vec::new()
        })
    }

    /// Stops every engine, for the stop of the node: each saves its data as its persistence says
    /// within `patience`, then it is killed. From now on orders are refused.
    pub async fn stop_all_engines(&self, patience: Duration) -> Vec<Stopped> {
        self.inner.stopping.store(true, Ordering::Release);
        let mailboxes: Vec<_> = lock(&self.inner.shards)
            .iter()
            .map(|(shard, m)| (*shard, m.clone()))
            .collect();
        let mut waiting = Vec::new();
        for (shard, mailbox) in mailboxes {
            waiting.push(tokio::spawn(async move {
                let (answer, answered) = oneshot::channel();
                if mailbox
                    .send(Order::Stop { patience, answer })
                    .await
                    .is_err()
                {
                    return None;
                }
                let trouble = answered.await.ok()?;
                Some(Stopped { shard, trouble })
            }));
        }
        let mut all = Vec::new();
        for stopped in waiting {
            all.extend(stopped.await.ok().flatten());
        }
        all
    }

    /// The mailbox of a shard; a new task for one that an order wants to exist.
    fn mailbox(
        &self,
        shard: ShardUid,
        command: &AgentCommand,
    ) -> Result<Option<mpsc::Sender<Order>>, AgentRefusal> {
        let mut shards = lock(&self.inner.shards);
        if let Some(mailbox) = shards.get(&shard) {
            return Ok(Some(mailbox.clone()));
        }
        if !matches!(command, AgentCommand::EnsureEngine(_)) {
            return Ok(None);
        }
        shards.retain(|_, mailbox| !mailbox.is_closed());
        if shards.len() >= SHARDS_PER_NODE_MAX as usize {
            return Err(AgentRefusal::failed(format!(
                "this node has {} shards, which is the most that one can have",
                shards.len()
            )));
        }
        drop(shards);
        let folder = ShardFolder::of(&self.inner.shared.config.node, shard);
        drop(self.spawn_for_order(folder));
        Ok(lock(&self.inner.shards).get(&shard).cloned())
    }

    /// An order for a shard that is not here.
    async fn unknown(
        &self,
        shard: ShardUid,
        command: AgentCommand,
    ) -> Result<Option<ShardObservation>, AgentRefusal> {
        let AgentCommand::RemoveEngine {
            generation,
            operation,
            ..
        } = command
        else {
            return not_yet(format!("this node has no shard {shard}"));
        };
        if self
            .inner
            .shared
            .tombstones
            .of(shard)
            .is_none_or(|(known, _)| known < generation)
        {
            let shared = self.inner.shared.clone();
            crate::shard::blocking(move || shared.tombstones.add(shard, generation, operation))
                .await
                .map_err(AgentRefusal::failed)?;
        }
        Ok(None)
    }

    fn forget(&self, shard: ShardUid, mailbox: &mpsc::Sender<Order>) {
        let mut shards = lock(&self.inner.shards);
        if shards
            .get(&shard)
            .is_some_and(|known| known.same_channel(mailbox))
        {
            shards.remove(&shard);
        }
    }

    fn spawn(&self, folder: ShardFolder) -> oneshot::Receiver<()> {
        self.spawn_task(folder, false)
    }

    fn spawn_for_order(&self, folder: ShardFolder) -> oneshot::Receiver<()> {
        self.spawn_task(folder, true)
    }

    fn spawn_task(&self, folder: ShardFolder, ordered: bool) -> oneshot::Receiver<()> {
        let mut shards = lock(&self.inner.shards);
        let (ready, is_ready) = oneshot::channel();
        let shard = folder.shard();
        // Two first orders at once: one task.
        if shards.get(&shard).is_none_or(mpsc::Sender::is_closed) {
            let (mailbox, orders) = mpsc::channel(MAILBOX);
            let task = ShardTask::new(self.inner.shared.clone(), folder, mailbox.downgrade());
            shards.insert(shard, mailbox);
            tokio::spawn(task.run(orders, ready, ordered));
        }
        is_ready
    }
}

fn shard_of(command: &AgentCommand) -> ShardUid {
    match command {
        AgentCommand::EnsureEngine(spec) => spec.shard,
        AgentCommand::MakePrimary { shard, .. }
        | AgentCommand::Configure { shard, .. }
        | AgentCommand::Follow { shard, .. }
        | AgentCommand::Promote { shard, .. }
        | AgentCommand::Keep { shard, .. }
        | AgentCommand::PrepareEpoch { shard, .. }
        | AgentCommand::HandOver { shard, .. }
        | AgentCommand::PressAcks { shard, .. }
        | AgentCommand::TakeOver { shard, .. }
        | AgentCommand::SettleMove { shard, .. }
        | AgentCommand::AbortHandOver { shard, .. }
        | AgentCommand::KillEngine { shard, .. }
        | AgentCommand::SetAside { shard, .. }
        | AgentCommand::RemoveEngine { shard, .. } => *shard,
    }
}

fn not_yet<T>(reason: impl Into<String>) -> Result<T, AgentRefusal> {
    Err(AgentRefusal::NotYet {
        reason: reason.into(),
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that holds one of these locks can leave its contents half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
