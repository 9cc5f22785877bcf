//! The serving process: starts the workers and the endpoints, follows the configuration, and ends
//! when it is told to, when a successor has taken over, or when it has waited for one in vain.

mod adopting;

use crate::client_ids::ClientIds;
use crate::control::Told;
use crate::environment::Environment;
use crate::gates::{self, Gates};
use crate::handover::{self, Adopted, Asked, Giving, Offered, Taken};
use crate::leases::Leases;
use crate::listeners::{Acceptor, Listeners};
use crate::questions::Questions;
use crate::scaling::Scaling;
use crate::stats::{ServerStats, Sum, Window, slow};
use crate::topology::Topology;
use crate::wishes::Wishes;
use crate::worker::{ForOthers, Message, WorkerHandle};
use crate::workers::Workers;
use crate::{beat, bounds, control, persisted};
use adopting::Readiness;
use anyhow::Context;
use model::Revision;
use model::observation::{ProxyDatabaseObservation, ProxyObservation};
use model::proxy::{ProxyConfig, ProxySettings, WISHES_MAX};
use rustix::process::{Resource, Rlimit};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

/// How often something is told and looked after.
const TICK: Duration = Duration::from_secs(1);
/// How long workers may take to apply a configuration before it is told that they have not.
const APPLY_WAIT: Duration = Duration::from_secs(5);
/// How long a new worker may take to reach the shards before it gets clients all the same.
const LINK_WAIT: Duration = Duration::from_millis(500);
/// How long clients that have something under way may go on after [`bounds::DRAIN`].
const LAST_WAIT: Duration = Duration::from_secs(5);

/// Serves until the end of the process's life.
///
/// # Errors
/// It cannot start.
pub fn serve(environment: &Environment, launched: bool) -> anyhow::Result<()> {
    let descriptors = raise_descriptors();
    let path = environment.config.handover_socket();
    let taken = match handover::take(&path, &environment.build_id) {
        Ok(taken) => taken,
        Err(error) => {
            tracing::warn!("no endpoints are taken over: {error:#}");
            None
        }
    };
    let ids = ClientIds::from(taken.as_ref().map_or(0, |taken| taken.next_client));
    let (wishes, wished) = mpsc::channel(WISHES_MAX);
    let (questions, asked) = mpsc::channel(WISHES_MAX);
    let ways = (wishes, questions);
    let stats = Arc::new(ServerStats::new(descriptors, ids, ways));
    let last = persisted::load(&persisted::path(environment));
    let settings = last.as_ref().map(|config| config.settings.clone());
    let mut workers = Workers::new(environment.config.address, Arc::clone(&stats));
    workers.resize(*settings.unwrap_or_default().range(cores()).start())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the control thread")?;
    let workers = runtime.block_on(async {
        let server = Server::new(environment, workers, stats, taken.as_ref(), last.as_ref());
        let wishes = Wishes::new(wished);
        server.run(taken, last, launched, (wishes, asked)).await
    })?;
    runtime.shutdown_background();
    workers.stop();
    tracing::info!("the server ends");
    Ok(())
}

/// As many descriptors as this process may have.
fn raise_descriptors() -> u64 {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(1 << 20).min(1 << 20);
    let raised = Rlimit {
        current: Some(most),
        maximum: limit.maximum,
    };
    if let Err(error) = rustix::process::setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the descriptor limit cannot be raised");
        return limit.current.unwrap_or(1024);
    }
    most
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Why a server is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Serving,
    /// The launcher has ended; a successor is waited for until then.
    Orphaned(Instant),
    /// No clients are accepted any more; those that are there may go on until then.
    Draining(Instant),
    /// Clients that have something under way may finish it until then.
    Ending(Instant),
}

struct Server {
    environment: Environment,
    workers: Workers,
    scaling: Scaling,
    stats: Arc<ServerStats>,
    acceptor: Arc<Acceptor>,
    listeners: Listeners,
    config: Option<ProxyConfig>,
    gates: Gates,
    leases: Leases,
    persisted: PathBuf,
    phase: Phase,
    /// A successor is being served: endpoints stay as they are.
    frozen: bool,
    /// A successor serves and takes the clients; if it ends before it has them all, this server serves again.
    succeeded: bool,
    launcher_ended: bool,
    told_to_end: bool,
    readiness: Readiness,
    observations: watch::Sender<Option<ProxyObservation>>,
    /// What all databases counted in the last second.
    window: Window,
}

impl Server {
    fn new(
        environment: &Environment,
        workers: Workers,
        stats: Arc<ServerStats>,
        taken: Option<&Taken>,
        last: Option<&ProxyConfig>,
    ) -> Self {
        let inherited = taken.map_or_else(Vec::new, |taken| {
            taken
                .listeners
                .iter()
                .filter_map(|socket| socket.try_clone().ok())
                .collect()
        });
        let acceptor = Arc::new(Acceptor {
            workers: Mutex::new(workers.serving()),
            stats: Arc::clone(&stats),
            topology: Mutex::new(None),
            refusals_told: Mutex::new(None),
        });
        Self {
            environment: environment.clone(),
            workers,
            scaling: Scaling::default(),
            stats,
            listeners: Listeners::new(Arc::clone(&acceptor), inherited),
            acceptor,
            config: None,
            gates: Gates::load(gates::path(&persisted::path(environment)), last),
            leases: Leases::new(environment.config.address),
            persisted: persisted::path(environment),
            phase: Phase::Serving,
            frozen: false,
            succeeded: false,
            launcher_ended: false,
            told_to_end: false,
            readiness: Readiness::new(),
            observations: watch::Sender::new(None),
            window: Window::new(Instant::now()),
        }
    }

    async fn run(
        mut self,
        taken: Option<Taken>,
        last: Option<ProxyConfig>,
        launched: bool,
        (wishes, asked): (Wishes, mpsc::Receiver<ForOthers>),
    ) -> anyhow::Result<Workers> {
        tokio::spawn(self.leases.clone().tend());
        let others = Questions::default();
        tokio::spawn(others.clone().tend(asked));
        if let Some(config) = last {
            self.apply(config, false).await;
        }
        let (questions, mut asked) = mpsc::channel(4);
        self.open_desk(questions)?;
        let (adopting, mut adopted) = mpsc::channel(4);
        if let Some(taken) = taken {
            self.commit(taken, adopting).await?;
        }
        let (sender, mut told) = mpsc::channel(4);
        tokio::spawn(control::keep_connected(
            self.environment.config.proxy_socket(),
            sender,
            self.observations.subscribe(),
            wishes,
            (self.leases.clone(), others, Arc::clone(&self.acceptor)),
        ));
        let mut orphaned = watch_launcher(launched)?;
        if launched {
            beat::start(&self.acceptor).context("starting the thread that beats")?;
        }
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        // Without its supervisor's terminal the server goes on.
        let mut hangup = signal(SignalKind::hangup())?;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(message) = told.recv() => match message {
                    Told::Config(config) => {
                        self.apply(*config, true).await;
                        self.readiness.heard();
                    }
                    Told::Order(asked) => self.gates.order(asked, &self.workers.all()).await,
                },
                Some(question) = adopted.recv() => self.adopt(question),
                Some(question) = asked.recv() => {
                    let given = matches!(question, Asked::Given);
                    self.answer(question).await;
                    if given && self.is_empty() {
                        return Ok(self.workers);
                    }
                }
                _ = terminate.recv() => self.told_to_end(),
                _ = interrupt.recv() => self.told_to_end(),
                _ = hangup.recv() => {}
                Some(()) = orphaned.recv() => self.orphaned(),
                _ = tick.tick() => {
                    if self.tick().await {
                        return Ok(self.workers);
                    }
                }
            }
        }
    }

    /// Serves in place of the old server, and takes over its clients.
    async fn commit(
        &self,
        mut taken: Taken,
        adopting: mpsc::Sender<Adopted>,
    ) -> anyhow::Result<()> {
        let standing = std::mem::take(&mut taken.standing);
        let connection = match tokio::task::spawn_blocking(move || taken.commit()).await? {
            Ok(Some(connection)) => connection,
            Ok(None) => return Ok(()),
            Err(error) => {
                tracing::warn!("the old server did not confirm the handover: {error:#}");
                return Ok(());
            }
        };
        self.note_standing(&standing);
        self.stats.takes_over.store(true, Ordering::Release);
        let acceptor = Arc::clone(&self.acceptor);
        std::thread::Builder::new()
            .name("adopt".to_owned())
            .spawn(move || handover::adopt(&connection, &acceptor, &adopting))
            .context("starting the thread that takes over clients")?;
        Ok(())
    }

    fn open_desk(&self, questions: mpsc::Sender<Asked>) -> anyhow::Result<()> {
        let desk = handover::open_desk(&self.environment.config.handover_socket())?;
        let build_id = self.environment.build_id.clone();
        let stats = Arc::clone(&self.stats);
        std::thread::Builder::new()
            .name("handover".to_owned())
            .spawn(move || desk.serve(&build_id, &stats.takes_over, &questions))
            .context("starting the handover thread")?;
        Ok(())
    }

    /// Serves a configuration, unless it is older than the one that is served.
    async fn apply(&mut self, config: ProxyConfig, keep: bool) {
        if let Some(current) = &self.config
            && current.cluster_id == config.cluster_id
            && config.revision < current.revision
        {
            tracing::warn!(revision = %config.revision, served = %current.revision, "an older configuration is ignored");
            return;
        }
        let changed = self.config.as_ref() != Some(&config);
        if changed {
            self.stats.ids.of(config.node);
            self.spread(&config).await;
            if self.leaving() {
                self.listeners.forget(&config);
            } else if !self.frozen {
                self.listeners.follow(&config);
            }
            if keep && !self.leaving() {
                // A slow disk must not keep the lease from being renewed.
                let (path, kept) = (self.persisted.clone(), config.clone());
                let stored =
                    tokio::task::spawn_blocking(move || persisted::store(&path, &kept)).await;
                match stored.map_err(anyhow::Error::from).flatten() {
                    Ok(()) => self.gates.forget_opened(&config),
                    Err(error) => tracing::error!("the configuration is not kept: {error:#}"),
                }
            }
            tracing::info!(revision = %config.revision, databases = config.databases.len(), "a configuration is served");
            self.config = Some(config);
            self.scale().await;
        }
        self.observe();
    }

    /// Gives a configuration to all workers and waits until they serve it.
    async fn spread(&self, config: &ProxyConfig) {
        let topology = {
            let mut current = self
                .acceptor
                .topology
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let workers = self.workers.all();
            self.leases.follow(config, &workers);
            let made = Arc::new(Topology::new(
                config,
                current.as_deref(),
                workers,
                (&self.gates, &self.leases),
            ));
            *current = Some(Arc::clone(&made));
            made
        };
        let deadline = Instant::now() + APPLY_WAIT;
        for worker in topology.workers.iter() {
            let mut message = Message::Topology(Arc::clone(&topology));
            while let Err(back) = worker.tell(message) {
                message = back;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        let behind = |worker: &WorkerHandle| worker.edition() < topology.edition;
        while topology.workers.iter().any(behind) {
            if Instant::now() > deadline {
                tracing::error!(revision = %config.revision, "a worker does not apply the configuration");
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.leases.applied(config.revision);
    }

    /// Follows the number of workers that there should be.
    async fn scale(&mut self) {
        let Some(settings) = self.config.as_ref().map(|config| config.settings.clone()) else {
            return;
        };
        if self.leaving() {
            return;
        }
        let (now, running) = (Instant::now(), self.workers.count());
        let load = self.workers.load(now);
        let wanted = self.scaling.wanted(now, &settings, cores(), running, load);
        if wanted != running {
            self.resize(running, wanted, &settings).await;
        }
        if self.workers.any_retires() {
            self.workers.share_clients();
            self.end_empty().await;
        }
    }

    async fn resize(&mut self, running: usize, wanted: usize, settings: &ProxySettings) {
        tracing::info!(running, wanted, mode = ?settings.mode, "the number of workers changes");
        if let Err(error) = self.workers.resize(wanted) {
            tracing::error!("a worker cannot be started: {error:#}");
        }
        if wanted < running {
            self.acceptor.set_workers(self.workers.serving());
        }
        self.spread_again().await;
        if wanted > running {
            self.wait_until_linked().await;
            self.acceptor.set_workers(self.workers.serving());
        }
        self.workers.share_clients();
    }

    /// Tells every worker which others there are.
    async fn spread_again(&self) {
        if let Some(config) = &self.config {
            self.spread(config).await;
        }
    }

    /// A new worker gets clients when it reaches the shards, or after a while all the same.
    async fn wait_until_linked(&self) {
        let topology = self.acceptor.topology();
        let databases = topology
            .iter()
            .flat_map(|topology| topology.databases.values());
        let numbers = self.numbers();
        let deadline = Instant::now() + LINK_WAIT;
        for database in databases {
            while !database.stats.link(&numbers).0 && Instant::now() < deadline {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }

    /// Numbers of the workers that get new clients.
    fn numbers(&self) -> Vec<usize> {
        self.workers
            .serving()
            .iter()
            .map(WorkerHandle::number)
            .collect()
    }

    /// Ends workers that are too many and have no clients left.
    async fn end_empty(&mut self) {
        while let Some(worker) = self.workers.take_empty() {
            // Whoever knew of it has told it what it had to tell when this returns.
            self.spread_again().await;
            if let Err(worker) = worker.stop() {
                self.workers.take_back(worker);
                self.spread_again().await;
                return;
            }
        }
    }

    fn leaving(&self) -> bool {
        matches!(self.phase, Phase::Draining(_) | Phase::Ending(_))
    }

    async fn answer(&mut self, question: Asked) {
        match question {
            Asked::Offer(answer) => {
                self.frozen = true;
                let listeners = self.listeners.sockets().unwrap_or_else(|error| {
                    tracing::error!(%error, "the endpoints cannot be handed over");
                    Vec::new()
                });
                // A successor that is gone meanwhile is noticed by the handover thread.
                let _ = answer.send(Offered {
                    listeners,
                    next_client: self.stats.ids.after(),
                    sockets: self.stats.sockets.load(Ordering::Relaxed),
                    standing: handover::standing(&self.acceptor, &self.workers.all()),
                });
            }
            Asked::Commit { clients, done } => {
                self.drain("a successor serves");
                self.succeeded = clients;
                self.stats.gives.store(clients, Ordering::Release);
                if !clients {
                    self.close_endpoints();
                }
                let _ = done.send(());
            }
            Asked::Give(answer) => {
                let until = match self.phase {
                    Phase::Draining(until) => until,
                    _ => Instant::now() + bounds::drain(),
                };
                // The thread that asked waits for it.
                let _ = answer.send(Giving {
                    workers: self.workers.all(),
                    acceptor: Arc::clone(&self.acceptor),
                    until,
                });
            }
            Asked::Given => {
                self.stats.gives.store(false, Ordering::Release);
                self.close_endpoints();
            }
            Asked::Abandoned { alone } => {
                self.frozen = false;
                self.stats.gives.store(false, Ordering::Release);
                if alone {
                    self.serve_again();
                }
                if let Some(config) = self.config.clone()
                    && !self.leaving()
                {
                    self.listeners.follow(&config);
                }
            }
        }
    }

    /// Whether there are no clients, here or on the way.
    fn is_empty(&self) -> bool {
        self.stats.connections.load(Ordering::Acquire) == 0
    }

    fn orphaned(&mut self) {
        self.launcher_ended = true;
        if self.phase == Phase::Serving {
            tracing::info!("the launcher has ended; the server waits for a successor");
            self.phase = Phase::Orphaned(Instant::now() + bounds::SUCCESSOR);
        }
    }

    /// The successor has ended before it had taken all clients: those that are left, and new ones, are served here.
    fn serve_again(&mut self) {
        if !std::mem::take(&mut self.succeeded) || !matches!(self.phase, Phase::Draining(_)) {
            return;
        }
        tracing::warn!("the successor has ended: clients are accepted here again");
        self.phase = if self.launcher_ended {
            Phase::Orphaned(Instant::now() + bounds::SUCCESSOR)
        } else {
            Phase::Serving
        };
    }

    /// The first time, clients may go on for the drain time. Told again, it does not wait for them: each connection is
    /// closed when it has the replies that are under way.
    fn told_to_end(&mut self) {
        if !std::mem::replace(&mut self.told_to_end, true) {
            self.leave("it was told to end");
        } else if matches!(self.phase, Phase::Draining(_)) {
            // At once: the lease, without which no reply is given, may be over soon.
            self.end_clients();
        }
    }

    /// Each client is closed when it has the replies that are under way.
    fn end_clients(&mut self) {
        self.close_endpoints();
        for worker in self.workers.all().iter() {
            // It has until the last moment to hear of it.
            let _ = worker.tell(Message::Drain);
        }
        self.phase = Phase::Ending(Instant::now() + LAST_WAIT);
    }

    /// Drains for good.
    fn leave(&mut self, reason: &str) {
        self.drain(reason);
        self.close_endpoints();
    }

    /// Nobody is accepted here again.
    fn close_endpoints(&mut self) {
        self.succeeded = false;
        self.listeners.close();
    }

    fn drain(&mut self, reason: &str) {
        if !self.leaving() {
            tracing::info!(
                reason,
                clients = self.stats.connections.load(Ordering::Relaxed),
                "no clients are accepted any more"
            );
            self.listeners.park();
            self.phase = Phase::Draining(Instant::now() + bounds::drain());
            // A successor speaks for the node now.
            self.observations.send_replace(None);
        } else if let Phase::Draining(until) = &mut self.phase {
            // Another successor, after one that ended before it had taken all clients.
            *until = Instant::now() + bounds::drain();
        }
    }

    /// Looks whether a worker that was late has applied the configuration by now.
    fn look_at_applied(&self) {
        if let Some(topology) = self.acceptor.topology()
            && topology
                .workers
                .iter()
                .all(|worker| worker.edition() >= topology.edition)
        {
            self.leases.applied(topology.revision);
        }
    }

    /// Looks after what time brings; `true`: the server ends.
    async fn tick(&mut self) -> bool {
        self.look_at_applied();
        let now = Instant::now();
        match self.phase {
            Phase::Serving => {}
            Phase::Orphaned(until) if now >= until => self.leave("no successor came"),
            Phase::Orphaned(_) => {}
            Phase::Draining(until) if now >= until => self.end_clients(),
            Phase::Ending(until) if now >= until => return true,
            Phase::Draining(_) | Phase::Ending(_) => {}
        }
        if self.leaving() {
            return self.is_empty();
        }
        if !self.frozen {
            self.listeners.open_missing();
        }
        self.scale().await;
        self.observe();
        false
    }

    /// Takes what workers tell of slow commands.
    fn keep_slow(&self, topology: &Topology) {
        for command in self.stats.slow.drain() {
            if let Some(database) = topology.databases.get(&command.database) {
                database.stats.keep_slow(command);
            }
        }
    }

    /// Notes what is to be told to `cnm_exec`.
    fn observe(&mut self) {
        let (Some(config), false) = (&self.config, self.leaving()) else {
            return;
        };
        let Some(topology) = self.acceptor.topology() else {
            return;
        };
        let numbers = self.numbers();
        let applied = topology
            .workers
            .iter()
            .map(WorkerHandle::applied)
            .min()
            .unwrap_or(Revision(0));
        let applied = self.readiness.applied(applied);
        self.keep_slow(&topology);
        let now = Instant::now();
        let mut whole = Sum::default();
        let mut databases: Vec<_> = config
            .databases
            .iter()
            .filter_map(|database| topology.databases.get(&database.uid))
            .map(|database| {
                let (listening, not_listening) = self.listeners.state(database.uid);
                let (shards_connected, not_connected) = database.stats.link(&numbers);
                let seen = database.stats.observe(now, &mut whole);
                ProxyDatabaseObservation {
                    database: database.uid,
                    listening,
                    shards_connected,
                    drains: Some(database.drains),
                    error: not_listening.or(not_connected),
                    ..seen
                }
            })
            .collect();
        slow::tell_newest(&mut databases);
        let (commands, in_flight, since_start) = (whole.commands(), whole.in_flight, whole.counts);
        self.window.see(now, whole);
        self.observations.send_replace(Some(ProxyObservation {
            pid: std::process::id(),
            software_version: self.environment.version.clone(),
            build_id: self.environment.build_id.clone(),
            applied,
            threads: u32::try_from(self.workers.count()).unwrap_or(u32::MAX),
            gates: true,
            leases: true,
            questions: true,
            connections: self.stats.connections.load(Ordering::Relaxed) as u64,
            commands,
            in_flight,
            since_start,
            per_second: self.window.per_second(),
            latency: self.window.latency(),
            handover: self.stats.handed.counts(),
            databases,
        }));
    }
}

/// Standard input is a socket of the launcher: its end is the launcher's.
fn watch_launcher(launched: bool) -> anyhow::Result<mpsc::Receiver<()>> {
    let (sender, receiver) = mpsc::channel(1);
    if launched {
        std::thread::Builder::new()
            .name("launcher".to_owned())
            .spawn(move || {
                let end = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
                tracing::debug!(?end, "the launcher has ended");
                // Nobody hears of it only when the server ends itself.
                let _ = sender.blocking_send(());
            })
            .context("starting the launcher's watch")?;
    }
    Ok(receiver)
}
