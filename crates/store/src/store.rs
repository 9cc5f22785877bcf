//! The handle of the store.

use crate::config::{FatalHook, StoreConfig};
use crate::disk::Disk;
use crate::error::StoreError;
use crate::history::Changes;
use crate::log::Log;
use crate::machine::Machine;
use crate::network::{self, Network};
use crate::pacemaker::{self, Hearing};
use crate::raft::{Address, LogId, Metrics, Raft};
use crate::state::State;
use crate::status::{MemberStatus, Status};
use crate::transport::{Member, RpcKind, Transport};
use crate::txn::{Command, MAX_STATE, Txn, TxnResult, within};
use bytes::Bytes;
use model::{NodeUid, Revision};
use openraft::error::{CheckIsLeaderError, ClientWriteError, InitializeError, RaftError};
use openraft::{ServerState, SnapshotPolicy};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;
use tokio::sync::{Mutex, Semaphore, SemaphorePermit, watch};
use tokio::time::{Instant, timeout_at};

#[cfg(test)]
mod failing_disk;

/// So many requests may be under way at the leader.
pub(crate) const REQUESTS: u32 = 256;
/// A read that found no majority is tried again after so long.
const READ_AGAIN: Duration = Duration::from_millis(50);
/// A snapshot may take this many times as long as another request to a member.
const SNAPSHOT_TIMEOUTS: u64 = 10;

/// A member of the configuration store. Cheap to clone; all clones are the same member. It ends
/// with [`Store::shutdown`], or when the last clone is dropped.
#[derive(Clone)]
pub struct Store {
    pub(crate) node: Arc<Node>,
    _open: Arc<Open>,
}

/// Closes the store when the last handle is gone.
struct Open(Arc<Node>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.closing.send_replace(true);
    }
}

/// What all tasks of this member share.
pub(crate) struct Node {
    pub(crate) config: StoreConfig,
    pub(crate) raft: Raft,
    /// What Raft said last, and when.
    told: std::sync::Mutex<(watch::Receiver<Metrics>, Instant)>,
    pub(crate) machine: Machine,
    pub(crate) disk: Disk,
    pub(crate) network: Network,
    pub(crate) leadership: watch::Sender<Option<NodeUid>>,
    /// Leadership is being handed over: requests are refused.
    pub(crate) paused: AtomicBool,
    /// Leadership is being handed over: no heartbeats, so that the voters are free to vote.
    pub(crate) silent: AtomicBool,
    /// Which leader is being heard.
    pub(crate) hearing: Hearing,
    /// Held by the entries of a leader that Raft is at.
    pub(crate) appending: Arc<Mutex<()>>,
    /// Held by the snapshot of a leader that Raft is at.
    pub(crate) installing: Arc<Mutex<()>>,
    /// Rounds of questions in a row that no majority has answered, while no leader is heard.
    pub(crate) unanswered: AtomicU32,
    /// Other voters that have answered the last round of questions, while no leader is heard.
    pub(crate) answering: std::sync::Mutex<Vec<NodeUid>>,
    /// One for each request under way at the leader.
    pub(crate) requests: Semaphore,
    /// Held by whoever changes the members, or hands over.
    pub(crate) changing: Mutex<()>,
    pub(crate) closing: watch::Sender<bool>,
    pub(crate) closed: watch::Sender<bool>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("config", &self.node.config)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the folder, or makes it, and takes part in the store as soon as others (or
    /// [`initialize`](Self::initialize)) make this node a member.
    ///
    /// # Errors
    /// If the folder cannot be used: in use by another process, of another node, damaged, or
    /// written by a later release.
    pub async fn open(
        mut config: StoreConfig,
        transport: Arc<dyn Transport>,
    ) -> Result<Self, StoreError> {
        config.check().map_err(StoreError::Invalid)?;
        config.fatal = only_once(config.fatal);
        let settings = config.clone();
        let disk = tokio::task::spawn_blocking(move || Disk::open(&settings))
            .await
            .map_err(|error| StoreError::Storage(error.to_string()))??;
        let unreadable =
            |error: String| StoreError::Storage(format!("{}: {error}", config.dir.display()));
        let snapshot = disk
            .snapshot()
            .await
            .map_err(|error| unreadable(error.to_string()))?;
        let machine = Machine::open(disk.clone(), snapshot, config.history)?;
        let network = Network::new(&config, transport);
        let raft = Raft::new(
            config.node.0,
            Arc::new(raft_config(&config)),
            network.clone(),
            Log::new(disk.clone()),
            machine.clone(),
        )
        .await
        .map_err(|error| unreadable(error.to_string()))?;
        let node = Arc::new(Node {
            config,
            told: std::sync::Mutex::new((raft.metrics(), Instant::now())),
            raft,
            machine,
            disk,
            network,
            leadership: watch::Sender::new(None),
            paused: AtomicBool::new(false),
            silent: AtomicBool::new(false),
            hearing: Hearing::default(),
            appending: Arc::default(),
            installing: Arc::default(),
            unanswered: AtomicU32::new(0),
            answering: std::sync::Mutex::default(),
            requests: Semaphore::new(REQUESTS as usize),
            changing: Mutex::new(()),
            closing: watch::Sender::new(false),
            closed: watch::Sender::new(false),
        });
        tokio::spawn(pacemaker::run(node.clone()));
        Ok(Self {
            _open: Arc::new(Open(node.clone())),
            node,
        })
    }

    /// Makes this node the first and only member; returns when it leads. Does nothing if it is a
    /// member already.
    ///
    /// # Errors
    /// If this folder is part of a store in which the node has another address, or does not occur.
    pub async fn initialize(&self, me: Member) -> Result<(), StoreError> {
        let node = &self.node;
        if me.uid != node.config.node {
            return Err(StoreError::Invalid(format!(
                "this is node {}, not node {}",
                node.config.node, me.uid
            )));
        }
        let members = BTreeMap::from([(me.uid.0, Address(me.address.clone()))]);
        match node.raft.initialize(members).await {
            Ok(()) => {
                let deadline = Instant::now() + node.config.request_timeout;
                let mut metrics = node.raft.metrics();
                let leads = metrics.wait_for(|metrics| metrics.state == ServerState::Leader);
                timeout_at(deadline, leads)
                    .await
                    .map_err(|_| StoreError::Timeout)?
                    .map_err(|_| StoreError::ShuttingDown)?;
            }
            Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {
                let present = node.member(me.uid);
                if present.as_ref() != Some(&me) {
                    return Err(StoreError::Membership(format!(
                        "node {} is part of a store already, as {}; wipe the node to make a new \
                         cluster with it",
                        me.uid,
                        present.map_or("no member".to_owned(), |member| member.address)
                    )));
                }
            }
            Err(RaftError::APIError(error)) => {
                return Err(StoreError::Membership(error.to_string()));
            }
            Err(RaftError::Fatal(error)) => return Err(ended(&error)),
        }
        Ok(())
    }

    /// Does a transaction: at the leader only. When it returns, [`state`](Self::state) of this node
    /// has it.
    ///
    /// # Errors
    /// [`NotLeader`](StoreError::NotLeader), [`NoQuorum`](StoreError::NoQuorum),
    /// [`Busy`](StoreError::Busy), [`TooLarge`](StoreError::TooLarge),
    /// [`Invalid`](StoreError::Invalid): nothing was written. [`Timeout`](StoreError::Timeout),
    /// [`ShuttingDown`](StoreError::ShuttingDown): unknown, it may be written even later.
    pub async fn txn(&self, txn: Txn) -> Result<TxnResult, StoreError> {
        let node = &self.node;
        let command = Command::try_from(&txn)?;
        let deadline = Instant::now() + node.config.request_timeout;
        let _request = node.request(deadline).await?;
        node.wait_for_quorum(deadline).await?;
        within(
            "the state (bytes)",
            node.machine.state().size() + command.size(),
            MAX_STATE,
        )?;
        let written = node
            .raft
            .client_write_ff(command)
            .await
            .map_err(|error| ended(&error))?;
        match timeout_at(deadline, written).await {
            Err(_) => Err(StoreError::Timeout),
            Ok(Err(_)) => Err(StoreError::ShuttingDown),
            Ok(Ok(Ok(response))) => response
                .data
                .ok_or_else(|| StoreError::Storage("a transaction without a result".to_owned())),
            // This node led when the transaction was handed to Raft. If it was cut from the log here,
            // it may still be in another node's, which may yet come to lead.
            Ok(Ok(Err(ClientWriteError::ForwardToLeader(_)))) => Err(StoreError::Timeout),
            Ok(Ok(Err(ClientWriteError::ChangeMembershipError(error)))) => {
                Err(StoreError::Membership(error.to_string()))
            }
        }
    }

    /// The state with everything that was acknowledged before this call, anywhere: at the leader
    /// only, which asks a majority whether it still leads.
    ///
    /// # Errors
    /// [`NotLeader`](StoreError::NotLeader); [`NoQuorum`](StoreError::NoQuorum) if no majority
    /// answers in time.
    pub async fn barrier(&self) -> Result<Arc<State>, StoreError> {
        let node = &self.node;
        let deadline = Instant::now() + node.config.request_timeout;
        let _request = node.request(deadline).await?;
        let next = loop {
            let asked = timeout_at(deadline, node.raft.get_read_log_id()).await;
            match asked {
                Ok(Ok((read, _))) => break read.map_or(0, |read| read.index + 1),
                Ok(Err(RaftError::Fatal(error))) => return Err(ended(&error)),
                Ok(Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(to)))) => {
                    return Err(StoreError::NotLeader {
                        leader: to.leader_id.map(NodeUid),
                    });
                }
                Ok(Err(RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(few)))) => {
                    if Instant::now() + READ_AGAIN >= deadline {
                        return Err(StoreError::NoQuorum(format!("only {:?} answer", few.got)));
                    }
                    tokio::time::sleep(READ_AGAIN).await;
                }
                Err(_) => return Err(StoreError::NoQuorum("no answer in time".to_owned())),
            }
        };
        let mut applied = node.machine.applied();
        match timeout_at(deadline, applied.wait_for(|applied| *applied >= next)).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return Err(StoreError::ShuttingDown),
            Err(_) => {
                return Err(StoreError::NoQuorum(
                    "entries wait to be agreed on".to_owned(),
                ));
            }
        }
        Ok(node.machine.state())
    }

    /// The state as this node has it now; it may lag behind, but never goes back while it is open.
    #[must_use]
    pub fn state(&self) -> Arc<State> {
        self.node.machine.state()
    }

    /// Tells that the revision of the local state has changed.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Revision> {
        self.node.machine.watch()
    }

    /// What changed in the local state after `revision`: in order, without a gap.
    #[must_use]
    pub fn changes_since(&self, revision: Revision) -> Changes {
        self.node.machine.changes_since(revision)
    }

    /// Who leads, whenever that changes. A leader that hears no majority, or waits for its disk for long, says who
    /// is heard to lead instead of it, if anybody is.
    #[must_use]
    pub fn leadership(&self) -> watch::Receiver<Option<NodeUid>> {
        self.node.leadership.subscribe()
    }

    /// How the store does, as this node sees it.
    #[must_use]
    pub fn status(&self) -> Status {
        let node = &self.node;
        let metrics = node.metrics();
        let membership = metrics.membership_config.membership();
        let last_log = metrics.last_log_index.unwrap_or(0);
        let (mut voters, mut learners) = (Vec::new(), Vec::new());
        let voting: BTreeSet<u64> = membership.voter_ids().collect();
        for (uid, Address(address)) in membership.nodes() {
            let matched = metrics
                .replication
                .as_ref()
                .and_then(|all| all.get(uid).copied().flatten())
                .map(|id| id.index);
            let list = if voting.contains(uid) {
                &mut voters
            } else {
                &mut learners
            };
            list.push(MemberStatus {
                member: Member {
                    uid: NodeUid(*uid),
                    address: address.clone(),
                },
                matched,
                lag: matched.map(|matched| last_log.saturating_sub(matched)),
            });
        }
        let leader = *node.leadership.borrow();
        Status {
            node: node.config.node,
            leader,
            is_leader: metrics.state == ServerState::Leader && node.has_quorum(&metrics),
            term: metrics.current_term,
            heard_term: metrics.current_term.max(node.hearing.term()),
            voters,
            learners,
            changing: membership.get_joint_config().len() > 1,
            last_log,
            applied: metrics.last_applied.map_or(0, |id| id.index),
            revision: node.machine.state().revision,
            snapshot: metrics.snapshot.map(|id| id.index),
            quorum_age_ms: node.quorum_age(&metrics).map(millis),
            no_quorum: node.lacks_quorum(&metrics),
            answering: lock(&node.answering).clone(),
            disk_full: node.disk.room.is_full(),
        }
    }

    /// Does what another member asks for: the caller's server passes what [`Transport::call`]
    /// carried.
    ///
    /// # Errors
    /// If the body is damaged, for another node, of a later release, or the store is closed.
    pub async fn handle(&self, rpc: RpcKind, body: Bytes) -> Result<Bytes, StoreError> {
        network::handle(&self.node, rpc, &body).await
    }

    /// Ends this member and closes its folder; returns when that is done. A leader should
    /// [`hand_over`](Self::hand_over) first.
    pub async fn shutdown(&self) {
        self.node.closing.send_replace(true);
        self.node.disk.room.give_up();
        let mut closed = self.node.closed.subscribe();
        // It fails only if the sender is gone, and this handle holds it.
        let _ = closed.wait_for(|closed| *closed).await;
    }
}

impl Node {
    /// What Raft said last. It says nothing while it waits for the disk.
    pub(crate) fn metrics(&self) -> Metrics {
        let mut told = lock(&self.told);
        let (metrics, at) = &mut *told;
        let metrics = metrics.borrow_and_update();
        if metrics.has_changed() {
            *at = Instant::now();
        }
        metrics.clone()
    }

    /// For how long no majority has answered this leader. What Raft said of it grows old, unless this is the only voter.
    fn quorum_age(&self, metrics: &Metrics) -> Option<Duration> {
        let age = Duration::from_millis(metrics.millis_since_quorum_ack?);
        let mut voters = metrics.membership_config.voter_ids();
        let alone = voters.all(|uid| uid == self.config.node.0);
        Some(match alone {
            true => age,
            false => age.saturating_add(lock(&self.told).1.elapsed()),
        })
    }

    /// Whether Raft has said nothing for longer than a leader may be silent.
    pub(crate) fn is_stuck(&self) -> bool {
        lock(&self.told).1.elapsed() > self.config.leader_silence()
    }

    pub(crate) fn last_log(&self) -> Option<LogId> {
        self.raft.data_metrics().borrow().last_log
    }

    pub(crate) fn member(&self, uid: NodeUid) -> Option<Member> {
        let metrics = self.metrics();
        let Address(address) = metrics
            .membership_config
            .membership()
            .get_node(&uid.0)?
            .clone();
        Some(Member { uid, address })
    }

    /// Whether a majority answered this leader lately, and it leads. One that cannot write does not: it may not have
    /// written down that another one does, and what it last knew of answers stays as it was.
    pub(crate) fn has_quorum(&self, metrics: &Metrics) -> bool {
        let age = self.quorum_age(metrics);
        let leads = age.is_some_and(|age| age < self.config.leader_silence());
        leads && self.hearing.term() <= metrics.current_term && !self.disk.room.is_full()
    }

    /// A place for a request at the leader.
    pub(crate) async fn request(
        &self,
        deadline: Instant,
    ) -> Result<SemaphorePermit<'_>, StoreError> {
        if *self.closing.borrow() {
            return Err(StoreError::ShuttingDown);
        }
        let metrics = self.metrics();
        if metrics.state != ServerState::Leader || self.paused.load(Ordering::Acquire) {
            let leader = metrics.current_leader.map(NodeUid);
            let leader = leader.filter(|leader| *leader != self.config.node);
            return Err(StoreError::NotLeader { leader });
        }
        let place = match timeout_at(deadline, self.requests.acquire()).await {
            Ok(Ok(place)) => place,
            Ok(Err(_)) => return Err(StoreError::ShuttingDown),
            Err(_) => return Err(StoreError::Busy),
        };
        // A hand-over that took all places may have begun while this one waited.
        if self.paused.load(Ordering::Acquire) {
            return Err(StoreError::NotLeader { leader: None });
        }
        Ok(place)
    }

    /// Returns at once if a majority answered lately.
    pub(crate) async fn wait_for_quorum(&self, deadline: Instant) -> Result<(), StoreError> {
        let mut news = self.raft.metrics();
        loop {
            let metrics = self.metrics();
            if metrics.state != ServerState::Leader {
                return Err(StoreError::NotLeader {
                    leader: metrics.current_leader.map(NodeUid),
                });
            }
            if self.has_quorum(&metrics) {
                return Ok(());
            }
            match timeout_at(deadline, news.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(StoreError::ShuttingDown),
                Err(_) => return Err(StoreError::NoQuorum("not heard for a while".to_owned())),
            }
        }
    }
}

/// The library's own timers are off, see [`pacemaker`]: what is called a heartbeat interval here is
/// how long it waits for an answer.
fn raft_config(config: &StoreConfig) -> openraft::Config {
    let rpc = millis(config.rpc_timeout).max(1);
    openraft::Config {
        cluster_name: "mainstay".to_owned(),
        heartbeat_interval: rpc,
        // Also how long it waits for a vote.
        election_timeout_min: millis(config.lease) - 1,
        // Also for how long a voter that heard the leader votes for nobody else.
        election_timeout_max: millis(config.lease),
        install_snapshot_timeout: rpc.saturating_mul(SNAPSHOT_TIMEOUTS),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(config.snapshot_every),
        max_in_snapshot_log_to_keep: config.keep_entries,
        replication_lag_threshold: config.snapshot_every.saturating_mul(2),
        enable_heartbeat: false,
        enable_elect: false,
        ..openraft::Config::default()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Nothing that holds it leaves it half changed.
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A disk that fails ends Raft too: the first of them to notice says so.
fn only_once(fatal: FatalHook) -> FatalHook {
    let called = AtomicBool::new(false);
    Arc::new(move |reason| {
        if !called.swap(true, Ordering::AcqRel) {
            fatal(reason);
        }
    })
}

/// An error of Raft that says only that it has ended.
pub(crate) fn stopped<E: std::error::Error>(error: RaftError<u64, E>) -> StoreError {
    match error {
        RaftError::Fatal(error) => ended(&error),
        RaftError::APIError(error) => StoreError::Storage(error.to_string()),
    }
}

pub(crate) fn ended(error: &openraft::error::Fatal<u64>) -> StoreError {
    match error {
        openraft::error::Fatal::Stopped => StoreError::ShuttingDown,
        error => StoreError::Storage(error.to_string()),
    }
}
