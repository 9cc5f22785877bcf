//! Everything that a node of a cluster runs: store, controller, both interfaces' state, heartbeats.

use crate::drain::STOPPING_FOR;
use crate::gates::Gates;
use crate::program::Program;
use crate::proxies::Proxies;
use crate::questions::Questions;
use crate::transport::{RaftTransport, Routes};
use crate::{finding, heartbeat, history, internode, levels, proxy_feed, removed, turns};
use agent::Agent;
use anyhow::Context as _;
use client::internode::{InternodeClient, NodeCertificates};
use controller::reconcile::Controller;
use jiff::Timestamp;
use model::NodeUid;
use model::history::History;
use model::node_config::NodeIdentity;
use model::upgrade::run::TurnObservation;
use model::view::Observed;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use store::{Store, StoreConfig};
use tokio::task::JoinSet;

/// What was last heard from the primary node.
#[derive(Clone, Debug, Default)]
pub struct LastKnown {
    /// When.
    pub at: Option<Instant>,
    /// What it had heard of every node then.
    pub observed: Vec<Observed>,
}

/// A node of a cluster.
pub struct Member {
    /// The program.
    pub program: Program,
    /// Who this node is.
    pub identity: NodeIdentity,
    /// The CA, for its fingerprint.
    pub ca_certificate: String,
    /// When the first of its certificates ends, if they can be read.
    pub certificates_until: Option<Timestamp>,
    /// The configuration store.
    pub store: Store,
    /// The controller; acts only on the primary node.
    pub controller: Controller,
    /// This node's agent.
    pub agent: Agent,
    /// The other nodes.
    pub internode: InternodeClient,
    /// What this node's proxies say.
    pub proxies: Proxies,
    /// Orders to them.
    pub gates: Gates,
    /// Questions to them.
    pub questions: Questions,
    /// What databases did a while ago, on the primary node.
    pub history: Mutex<History>,
    /// When this program started.
    pub started: Timestamp,
    /// This node's part in an upgrade of all nodes.
    pub turn: Mutex<TurnObservation>,
    last_known: Mutex<LastKnown>,
    /// When it was told that the node is being stopped.
    stopping: Mutex<Option<Instant>>,
    /// Whether it is known that the node was removed from the cluster.
    removed: AtomicBool,
    tasks: Mutex<JoinSet<()>>,
}

impl std::fmt::Debug for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Member")
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

/// Opens the store of a node.
///
/// # Errors
/// When it cannot be opened.
pub async fn open_store(
    program: &Program,
    node: NodeUid,
    client: &InternodeClient,
) -> anyhow::Result<Store> {
    let folder = program.config.store_dir();
    let config = StoreConfig::new(node, &folder);
    Store::open(config, Arc::new(RaftTransport(client.clone())))
        .await
        .with_context(|| format!("open the configuration store in {}", folder.display()))
}

impl Member {
    /// Starts everything but the local interface.
    ///
    /// # Errors
    /// When the internode address cannot be bound or the certificates cannot be used.
    pub async fn start(
        program: Program,
        agent: Agent,
        identity: NodeIdentity,
        certificates: &NodeCertificates,
        store: Store,
        client: InternodeClient,
    ) -> anyhow::Result<Arc<Self>> {
        controller::upgrade::stop::look_in(&program.config.var_dir);
        let listener = internode::bind(&program.config)?;
        let acceptor = internode::acceptor(certificates)?;
        let member = Arc::new(Self {
            controller: Controller::new(store.clone()),
            ca_certificate: certificates.ca.clone(),
            certificates_until: levels::certificates_until(&[
                &certificates.ca,
                &certificates.certificate,
            ])
            .unwrap_or_default(),
            identity,
            store,
            agent,
            internode: client,
            proxies: Proxies::default(),
            history: Mutex::default(),
            gates: Gates::default(),
            questions: Questions::default(),
            started: Timestamp::now(),
            turn: Mutex::default(),
            last_known: Mutex::new(LastKnown::default()),
            stopping: Mutex::default(),
            removed: AtomicBool::new(false),
            tasks: Mutex::new(JoinSet::new()),
            program,
        });
        let routes = Routes(Arc::downgrade(&member));
        let feed = proxy_feed::bind(&member.program.config)?;
        let mut tasks = member.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.spawn(internode::serve(Arc::clone(&member), listener, acceptor));
        tasks.spawn(proxy_feed::serve(Arc::clone(&member), feed));
        tasks.spawn(heartbeat::run(Arc::clone(&member)));
        tasks.spawn(history::run(Arc::clone(&member)));
        tasks.spawn(finding::run(Arc::clone(&member)));
        tasks.spawn(removed::run(Arc::clone(&member)));
        tasks.spawn(levels::watch(Arc::clone(&member)));
        tasks.spawn(levels::lead(Arc::clone(&member)));
        tasks.spawn(turns::lead(Arc::clone(&member)));
        tasks.spawn(turns::attend(Arc::clone(&member)));
        tasks.spawn(member.controller.clone().run(Arc::new(routes)));
        drop(tasks);
        Ok(member)
    }

    /// Takes in what the primary node knows.
    pub fn remember(&self, observed: Vec<Observed>) {
        let known = LastKnown {
            at: Some(Instant::now()),
            observed,
        };
        *self
            .last_known
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = known;
    }

    /// What was last heard from the primary node.
    #[must_use]
    pub fn last_known(&self) -> LastKnown {
        self.last_known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The node is being stopped: others hear that it is no place for a primary.
    pub fn stops(&self) {
        *self.stopping.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Whether the node is being stopped.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        let since = *self.stopping.lock().unwrap_or_else(PoisonError::into_inner);
        since.is_some_and(|since| since.elapsed() < STOPPING_FOR)
    }

    /// The node was removed from the cluster: that is for ever.
    pub fn note_removed(&self) {
        if !self.removed.swap(true, Ordering::Relaxed) {
            let (node, cluster) = (self.identity.node, &self.identity.cluster_name);
            tracing::warn!(%node, %cluster, "this node was removed from its cluster");
        }
    }

    /// Whether the node was removed from the cluster, as far as it knows.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Relaxed)
    }

    /// Ends: the leadership goes to another voter first, so that nobody has to find out by silence.
    pub async fn shut_down(&self) {
        let status = self.store.status();
        if status.is_leader {
            let heard = self.controller.observations();
            let now = Instant::now();
            let mut nodes: Vec<_> = status
                .voters
                .iter()
                .map(|m| m.member.uid)
                .filter(|uid| *uid != status.node && heard.fresh(*uid, now).is_some())
                .collect();
            levels::newest_first(self, &mut nodes);
            if let Some(next) = nodes.first().copied() {
                let handed =
                    tokio::time::timeout(Duration::from_secs(3), self.store.hand_over(next)).await;
                tracing::info!(to = %next, ?handed, "handed the leadership over");
            }
        }
        self.tasks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .abort_all();
        self.store.shutdown().await;
    }
}
