//! The loop on the primary node: observe, plan, execute, again. Runs on every node and does nothing
//! where it is not the primary.

use crate::cut;
use crate::database::execute::Executor;
use crate::database::plan;
use crate::leases::ProxyId;
use crate::membership::plan::{heirs, wanted_voters};
use crate::observed::Observations;
use crate::outages::plan as outages;
use crate::request::{self, Fresh, RandomUsers};
use crate::state::{Change, ClusterState, Stored};
use crate::upgrade::data::MIGRATIONS;
use crate::upgrade::level::{self, Known};
use crate::upgrade::stop;
use futures::future::BoxFuture;
use model::command::{AgentCommand, AgentRefusal};
use model::documents::{Node, Role, Severity, keys};
use model::gate::{GateAnswer, GateCall};
use model::intent::{Intent, IntentOutcome};
use model::observation::ShardObservation;
use model::proxy::LeaseOutcome;
use model::upgrade::Upgrade;
use model::{ApiError, ErrorCode, NodeUid, OperationUid, Revision};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use store::{Member, State, Store, StoreError, TxnResult};
use tokio::sync::Notify;

/// How often the loop looks even when nothing happened: pauses end, nodes fall silent.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Shortest pause between two looks for which nothing but time is a reason.
const LOOK_SOON: Duration = Duration::from_millis(5);
/// Longest run of writes without looking at anything else.
const WRITES_IN_A_ROW: usize = 64;
/// How long a request waits until it is known which nodes are there: longer than from a late heartbeat until its node
/// is shown as down.
const HEAR_OUT: Duration = Duration::from_secs(3);
/// Pause between two looks whether every node is heard.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How long a change waits for its turn to be planned and written.
const TURN_WITHIN: Duration = Duration::from_secs(5);

/// The way to the agents of all nodes; `client` implements it.
pub trait Nodes: Send + Sync + std::fmt::Debug {
    /// Orders a node's agent and returns how the shard is afterwards; `None`: it is gone.
    fn order(
        &self,
        node: NodeUid,
        command: AgentCommand,
    ) -> BoxFuture<'static, Result<Option<ShardObservation>, NodeError>>;

    /// Has the proxies of a node hold a replica set's commands, or go on with them.
    fn gate(
        &self,
        node: NodeUid,
        call: GateCall,
    ) -> BoxFuture<'static, Result<GateAnswer, NodeError>>;
}

/// Why an order was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The node was not reached; the order may have been carried out.
    #[error("the node was not reached: {0}")]
    Unreachable(String),
    /// Its agent said no.
    #[error(transparent)]
    Refused(#[from] AgentRefusal),
}

/// The controller of one node.
#[derive(Clone, Debug)]
pub struct Controller {
    store: Store,
    observed: Arc<Mutex<Observations>>,
    nudge: Arc<Notify>,
    /// Held from reading to writing: who plans from a state writes before the next one reads.
    /// Without it, of many changes at once most would be planned in vain.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// Since when this node is the primary node; `None`: it is not, or has not noticed yet.
    primary_since: Arc<Mutex<Option<Instant>>>,
    /// The newest state that was read.
    read: Arc<Mutex<Option<Arc<ClusterState>>>>,
    /// The revision for which it was looked which one changed a primary last, and that one.
    ordered: Arc<Mutex<Option<(Revision, Revision)>>>,
    /// Nodes whose state differed from this one's: told once.
    different: Arc<Mutex<BTreeSet<NodeUid>>>,
}

impl Controller {
    /// A controller over a store.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self {
            store,
            observed: Arc::new(Mutex::new(Observations::default())),
            nudge: Arc::new(Notify::new()),
            turn: Arc::default(),
            primary_since: Arc::default(),
            read: Arc::default(),
            ordered: Arc::default(),
            different: Arc::default(),
        }
    }

    /// A node was admitted to the cluster.
    pub fn admitted(&self, node: NodeUid) {
        self.observed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .admitted(node, Instant::now());
    }

    /// What was heard of all nodes.
    #[must_use]
    pub fn observations(&self) -> Observations {
        self.observed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The same of a primary node, in its term.
    fn heard_in_term(&self, term: u64) -> Observations {
        let mut observed = self.observed.lock().unwrap_or_else(PoisonError::into_inner);
        observed.in_term(term, Instant::now());
        observed.clone()
    }

    /// Takes in a heartbeat.
    pub fn heard(&self, observation: model::observation::NodeObservation) {
        let ahead = observation.taken.as_millisecond() - jiff::Timestamp::now().as_millisecond();
        let status = self.store.status();
        let mut observed = self.observed.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if status.is_leader {
            // Before it is taken in: else what is heard first would count as heard before.
            observed.in_term(status.term, now);
        }
        observed.record_clock(observation.node, ahead);
        observed.record(observation, now);
        drop(observed);
        self.nudge.notify_one();
    }

    /// Another node has answered as the primary node.
    pub fn led(&self, node: NodeUid) {
        let mut observed = self.observed.lock().unwrap_or_else(PoisonError::into_inner);
        observed.led(node, Instant::now());
    }

    /// A proxy wants its lease. It gets one if a quorum confirms, after it asked, that this is the primary
    /// node, and if it has applied every change of who is primary.
    pub async fn lease(&self, proxy: ProxyId, applied: Revision) -> LeaseOutcome {
        if self.store.barrier().await.is_err() {
            return LeaseOutcome::Unknown;
        }
        // Whoever plans after this has seen it, and whoever stored before is seen here.
        let mut observed = self.observed.lock().unwrap_or_else(PoisonError::into_inner);
        let status = self.store.status();
        let ordered = self.ordered();
        let (true, Ok(ordered)) = (status.is_leader, ordered) else {
            return LeaseOutcome::Unknown;
        };
        let now = Instant::now();
        observed.in_term(status.term, now);
        match observed.leases.give(proxy, applied, ordered, now) {
            Ok(news) => {
                if news {
                    self.nudge.notify_one();
                }
                LeaseOutcome::Granted
            }
            Err(refusal) => LeaseOutcome::Refused(refusal),
        }
    }

    /// The newest revision in which a primary was changed. It is looked for once a revision.
    fn ordered(&self) -> Result<Revision, StoreError> {
        let state = self.store.state();
        let mut known = self.ordered.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((revision, ordered)) = *known
            && revision == state.revision
        {
            return Ok(ordered);
        }
        let read = self.read(&state)?;
        let shards = read.iter().flat_map(|read| &read.shards);
        let primaries = shards.filter(|shard| shard.role == Role::Primary);
        let newest = primaries.map(|shard| shard.revision).max();
        let ordered = Revision(newest.unwrap_or(0));
        *known = Some((state.revision, ordered));
        Ok(ordered)
    }

    /// The documents of a state of the store; `None` before the cluster exists. They are read once a
    /// revision, and of them what was written since.
    ///
    /// # Errors
    /// When a document cannot be read.
    pub fn read(&self, state: &State) -> Result<Option<Arc<ClusterState>>, StoreError> {
        let earlier = self
            .read
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if let Some(known) = earlier.as_ref().filter(|s| s.revision == state.revision) {
            return Ok(Some(Arc::clone(known)));
        }
        let read = ClusterState::read_after(earlier.as_deref(), state)?.map(Arc::new);
        let mut known = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(read) = &read
            && known
                .as_ref()
                .is_none_or(|old| old.revision < read.revision)
        {
            *known = Some(Arc::clone(read));
        }
        Ok(read)
    }

    /// The turn to read, plan and write; they are given in the order in which they are asked for.
    /// It saves vain work alone: that nothing is lost is what transactions compare for.
    ///
    /// # Errors
    /// `not_ready` when too many changes are waiting; nothing was changed.
    pub async fn turn(&self) -> Result<tokio::sync::MutexGuard<'_, ()>, ApiError> {
        tokio::time::timeout(TURN_WITHIN, self.turn.lock())
            .await
            .map_err(|_| {
                ApiError::new(
                    ErrorCode::NotReady,
                    "too many changes are waiting, this one was not made: try again in a moment"
                        .to_owned(),
                )
            })
    }

    /// Waits until it is known what an intent needs to know of nodes. One that has just become the primary node knows
    /// nothing of the others: what they carry and whether they live. And a node whose heartbeat is late is busy, or
    /// has died: that shows in a moment.
    async fn hear_out(&self, intent: &Intent) {
        let deadline = Instant::now() + HEAR_OUT;
        while Instant::now() < deadline {
            let since = *self
                .primary_since
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let new = since.is_none_or(|since| since.elapsed() <= HEAR_OUT);
            let unheard = needs_nodes(intent) && new && !self.all_heard();
            if !(unheard || counts_on_nodes(intent) && self.one_is_late()) {
                return;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Whether a node has been silent for too long to be counted on, and is not shown as down yet.
    fn one_is_late(&self) -> bool {
        let Ok(Some(state)) = self.read(&self.store.state()) else {
            return false;
        };
        let observed = self.observations();
        let (now, within) = (Instant::now(), state.node_silent());
        let mut nodes = state.nodes.iter().map(|node| node.uid);
        nodes.any(|node| {
            observed.fresh(node, now).is_some() && observed.heard(node, within, now).is_none()
        })
    }

    fn all_heard(&self) -> bool {
        let Ok(nodes) = self.store.state().list::<Node>(keys::NODES) else {
            return false;
        };
        let observed = self.observations();
        let now = Instant::now();
        nodes
            .iter()
            .all(|(node, _)| observed.fresh(node.uid, now).is_some())
    }

    /// Carries out an intent: plans a transaction from the newest state and writes it, again from
    /// the start if somebody wrote in between.
    ///
    /// # Errors
    /// Why it is refused; `no_quorum`, `no_primary` or `timeout` from the store.
    pub async fn request(&self, intent: &Intent) -> Result<IntentOutcome, ApiError> {
        let dry_run = matches!(intent, Intent::CreateDatabase(spec) if spec.dry_run);
        // Without a quorum everybody is told at once, not one after the other.
        self.store.barrier().await.map_err(|e| store_error(&e))?;
        self.hear_out(intent).await;
        let mut done: Option<IntentOutcome> = None;
        for _ in 0..20 {
            let _turn = self.turn().await?;
            let state = self.store.barrier().await.map_err(|e| store_error(&e))?;
            let state = self
                .read(&state)
                .map_err(|e| store_error(&e))?
                .ok_or_else(|| ApiError::from(ErrorCode::NotMember))?;
            let fresh = self.fresh();
            let planned = request::plan(&state, &self.observations(), intent, &fresh);
            let (txn, outcome) = match (planned, done.take()) {
                // All parts of it have been given up.
                (Err(error), Some(done)) if error.error_code == ErrorCode::ActionEnded => {
                    return Ok(done);
                }
                (planned, before) => {
                    done = before;
                    planned?
                }
            };
            if dry_run || (txn.put.is_empty() && txn.delete.is_empty()) {
                return Ok(if dry_run {
                    IntentOutcome::default()
                } else {
                    outcome
                });
            }
            let stored = stop::stored(&self.store, &state.upgrade.doc, txn).await;
            match stored.map_err(|e| store_error(&e))? {
                TxnResult::Applied { .. } => {
                    cut::reached("step");
                    self.nudge.notify_one();
                    let mut all = done.take().map_or_else(Vec::new, |done| done.operations);
                    let more = request::has_more(intent, &outcome);
                    all.extend(outcome.operations);
                    let outcome = IntentOutcome {
                        operations: all,
                        ..outcome
                    };
                    if !more {
                        return Ok(outcome);
                    }
                    done = Some(outcome);
                }
                TxnResult::Conflict { .. } => {}
            }
        }
        Err(ErrorCode::WrongClusterStateId.into())
    }

    /// Whether an intent would be refused; changes nothing.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub async fn check(&self, intent: &Intent) -> Result<(), ApiError> {
        let state = self.store.barrier().await.map_err(|e| store_error(&e))?;
        self.hear_out(intent).await;
        let state = self
            .read(&state)
            .map_err(|e| store_error(&e))?
            .ok_or_else(|| ApiError::from(ErrorCode::NotMember))?;
        request::plan(&state, &self.observations(), intent, &self.fresh()).map(|_| ())
    }

    fn fresh(&self) -> Fresh<'static> {
        let status = self.store.status();
        Fresh {
            now: jiff::Timestamp::now(),
            instant: Instant::now(),
            operation: OperationUid::fresh(),
            voters: status.voters.iter().map(|m| m.member.uid).collect(),
            users: &RandomUsers,
        }
    }

    /// Runs until the task is dropped.
    pub async fn run(self, nodes: Arc<dyn Nodes>) {
        let mut executor = Executor::new(self.store.clone(), nodes, Arc::clone(&self.observed));
        let mut revisions = self.store.watch();
        let mut leader = self.store.leadership();
        let mut was_primary = false;
        loop {
            let primary = self.store.status().is_leader;
            if primary != was_primary {
                tracing::info!(primary, "this node's part in the cluster changed");
                was_primary = primary;
                *self
                    .primary_since
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner) = primary.then(Instant::now);
            }
            if primary {
                self.compare_states().await;
                self.round(&mut executor).await;
                self.membership().await;
                self.upgrade().await;
                self.outages().await;
            }
            tokio::select! {
                () = self.nudge.notified() => {}
                _ = revisions.changed() => {}
                // Leases of an earlier primary node, and silence, count from when this one notices.
                _ = leader.changed() => {}
                ended = executor.ended() => {
                    let _turn = self.turn.lock().await;
                    executor.take_in(ended).await;
                }
                () = tokio::time::sleep(self.next_look()) => {}
            }
        }
    }

    /// When the loop looks though nothing happened: at the latest when time alone may have changed what is
    /// to be done.
    fn next_look(&self) -> Duration {
        let observed = self.observed.lock().unwrap_or_else(PoisonError::into_inner);
        let news = observed.next_news(Instant::now());
        news.map_or(LOOK_EVERY, |news| news.clamp(LOOK_SOON, LOOK_EVERY))
    }

    async fn round(&self, executor: &mut Executor) {
        for _ in 0..WRITES_IN_A_ROW {
            let _turn = self.turn.lock().await;
            let state = match self.read(&self.store.state()) {
                Ok(Some(state)) => state,
                Ok(None) => return,
                Err(error) => return tracing::error!(%error, "cannot read the store"),
            };
            let now = jiff::Timestamp::now();
            let status = self.store.status();
            if !status.is_leader {
                return;
            }
            let observed = self.heard_in_term(status.term);
            let mut plan = plan::plan(&state, &observed, Instant::now(), now);
            let steps = std::mem::take(&mut plan.steps);
            if steps.is_empty() {
                self.write_waits(&state, &plan, now).await;
                return;
            }
            // A quorum must confirm this node before it orders anybody: a primary node that was
            // replaced without noticing orders nothing.
            if let Err(error) = self.store.barrier().await {
                return tracing::warn!(%error, "not confirmed as primary node: nothing is done");
            }
            if !executor.take(steps, Instant::now()).await {
                self.write_waits(&state, &plan, now).await;
                return;
            }
        }
    }

    /// Follows an upgrade, and raises the feature level when every node is ready.
    async fn upgrade(&self) {
        for _ in 0..WRITES_IN_A_ROW {
            let _turn = self.turn.lock().await;
            let decided = self.confirmed(|state| self.upgrade_step(state)).await;
            let Some((state, (txn, reason))) = decided else {
                return;
            };
            tracing::info!(reason, "upgrade");
            let before = state.get::<Upgrade>(keys::UPGRADE).ok().flatten();
            let before = before.map(|(doc, _)| doc).unwrap_or_default();
            match stop::stored(&self.store, &before, txn).await {
                Ok(_) => self.nudge.notify_one(),
                Err(error) => return tracing::warn!(%error, "cannot write of the upgrade"),
            }
        }
    }

    /// What was decided from memory is decided again from what a quorum confirms: a primary node that was replaced without
    /// noticing decides nothing.
    async fn confirmed<T>(
        &self,
        decide: impl Fn(&store::State) -> Option<T>,
    ) -> Option<(Arc<store::State>, T)> {
        decide(&self.store.state())?;
        let state = self.store.barrier().await.ok()?;
        let decided = decide(&state)?;
        Some((state, decided))
    }

    fn upgrade_step(&self, state: &store::State) -> Option<(store::Txn, String)> {
        let state = ClusterState::read(state).ok()??;
        let observed = self.observations();
        let known = Known {
            state: &state,
            observed: &observed,
            instant: Instant::now(),
            now: jiff::Timestamp::now(),
        };
        level::step(&known, MIGRATIONS)
    }

    /// Tells what has gone down, and what is back.
    async fn outages(&self) {
        for _ in 0..WRITES_IN_A_ROW {
            let _turn = self.turn.lock().await;
            let decided = self.confirmed(|state| self.news(state)).await;
            let Some((_, (txn, reason))) = decided else {
                return;
            };
            tracing::info!(reason, "outages");
            if let Err(error) = self.store.txn(txn).await {
                return tracing::warn!(%error, "cannot tell what is down");
            }
        }
    }

    fn news(&self, state: &store::State) -> Option<(store::Txn, String)> {
        let state = self.read(state).ok()??;
        let status = self.store.status();
        if !status.is_leader {
            return None;
        }
        let observed = self.heard_in_term(status.term);
        let (instant, now) = (Instant::now(), jiff::Timestamp::now());
        outages::next(outages::Known {
            state: &state,
            observed: &observed,
            me: status.node,
            instant,
            now,
        })
    }

    /// Every node that has applied the same revision must hold the same state; one that does not
    /// has a damaged store.
    async fn compare_states(&self) {
        let state = self.store.state();
        let hash = state.hash();
        let differs = |heard: &crate::observed::Heard| {
            heard.observation.applied == state.revision && heard.observation.state_hash != hash
        };
        let observed = self.observations();
        let news: Vec<NodeUid> = {
            let mut told = self
                .different
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let nodes = observed.iter().filter(|heard| differs(heard));
            nodes
                .map(|heard| heard.observation.node)
                .filter(|uid| told.insert(*uid))
                .collect()
        };
        let Ok(Some(read)) = self.read(&state) else {
            return;
        };
        for node in news {
            tracing::error!(%node, revision = %state.revision, "its configuration store differs");
            let mut change = Change::of(&read, jiff::Timestamp::now());
            change.event(
                Severity::Critical,
                "node_configuration_differs",
                &[("node_uid", serde_json::json!(node))],
            );
            if let Err(error) = self.store.txn(change.into_txn()).await {
                tracing::warn!(%error, "cannot note it as an event");
            }
        }
    }

    async fn write_waits(&self, state: &ClusterState, plan: &plan::Plan, now: jiff::Timestamp) {
        if let Some(txn) = plan::waits(state, plan, now)
            && let Err(error) = self.store.txn(txn).await
        {
            tracing::warn!(%error, "cannot note what operations wait for");
        }
    }

    /// Brings the store's members in line with the stored nodes: first every node a learner, then
    /// the wanted voters; one change at a time.
    async fn membership(&self) {
        let Ok(Some(state)) = self.read(&self.store.state()) else {
            return;
        };
        let status = self.store.status();
        let voters: BTreeSet<NodeUid> = status.voters.iter().map(|m| m.member.uid).collect();
        let members: BTreeSet<NodeUid> = status
            .learners
            .iter()
            .map(|m| m.member.uid)
            .chain(voters.clone())
            .collect();
        let nodes: BTreeSet<NodeUid> = state.nodes.iter().map(|n| n.uid).collect();
        // A change that an earlier primary node, or this one, began and did not end comes first: until then all else waits.
        let half_done = self.store.voters_to_be();
        let stay = half_done.as_ref().unwrap_or(&nodes);
        if !stay.contains(&status.node) {
            // This node has left the cluster, or is to vote no more: another one goes on, whichever can.
            for next in heirs(&self.observations(), (&voters, stay), Instant::now()) {
                match self.store.hand_over(next).await {
                    Ok(()) => break,
                    Err(error) => {
                        tracing::warn!(%error, to = %next, "cannot hand the leadership over");
                    }
                }
            }
            return;
        }
        let result = if let Some(wanted) = half_done {
            tracing::info!(?wanted, "completing a change of the voters");
            self.store.set_voters(wanted).await
        } else if let Some(node) = state.nodes.iter().find(|n| !members.contains(&n.uid)) {
            tracing::info!(node = %node.uid, "a node joins the configuration store");
            self.store
                .add_learner(Member {
                    uid: node.uid,
                    address: node.internode_address(),
                })
                .await
        } else if let Some(gone) = members.difference(&nodes).find(|uid| !voters.contains(uid)) {
            tracing::info!(node = %gone, "a node leaves the configuration store");
            self.store.remove_member(*gone).await
        } else {
            let ready = self.ready(&state);
            let Some(wanted) = wanted_voters(status.node, &nodes, &voters, &ready) else {
                return;
            };
            tracing::info!(?wanted, "changing the voters");
            self.store.set_voters(wanted).await
        };
        match result {
            Ok(_) => self.nudge.notify_one(),
            Err(error) => tracing::warn!(%error, "cannot change the store's members"),
        }
    }

    /// Nodes that were heard with a store that has applied their own admission.
    fn ready(&self, state: &ClusterState) -> BTreeSet<NodeUid> {
        let observed = self.observations();
        let now = Instant::now();
        let applied = |node: &Stored<Node>| {
            observed
                .fresh(node.uid, now)
                .is_some_and(|seen| seen.applied.0 >= node.revision)
        };
        state
            .nodes
            .iter()
            .filter(|n| applied(n))
            .map(|n| n.uid)
            .collect()
    }
}

/// Whether what an intent becomes depends on which nodes are heard.
const fn needs_nodes(intent: &Intent) -> bool {
    counts_on_nodes(intent)
        || matches!(
            intent,
            Intent::FailoverShards { .. }
                | Intent::AbortOperation { .. }
                | Intent::NodeRelease { .. }
                | Intent::FinalizeUpgrade
        )
}

/// Whether an intent brings shards to nodes, or leaves a cluster to fewer of them.
const fn counts_on_nodes(intent: &Intent) -> bool {
    match intent {
        Intent::CreateDatabase(_)
        | Intent::MaintenanceOn { .. }
        | Intent::MaintenanceOff { .. }
        | Intent::RemoveNode { .. }
        | Intent::EnslaveNode { .. }
        | Intent::MigrateShards { .. } => true,
        Intent::UpdateDatabase { change, .. } => change.replication.is_some(),
        _ => false,
    }
}

/// A store's error as the outside sees it.
#[must_use]
pub fn store_error(error: &StoreError) -> ApiError {
    let code = match error {
        StoreError::NotLeader { .. } => ErrorCode::NoPrimary,
        StoreError::NoQuorum(_) => ErrorCode::NoQuorum,
        StoreError::Timeout | StoreError::ShuttingDown => ErrorCode::Timeout,
        StoreError::Busy => ErrorCode::NotReady,
        StoreError::TooLarge { .. } => ErrorCode::InvalidParam,
        _ => ErrorCode::InternalError,
    };
    ApiError::new(code, format!("{error}. {}", code.remedy()))
}
