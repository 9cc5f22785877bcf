//! A cluster in memory: the real state machine, fake agents, no time but what a test says.

use controller::database::deletion;
use controller::database::plan::{self, Plan, Step};
use controller::leases::ProxyId;
use controller::observed::Observations;
use controller::replica_set;
use controller::request::{self, Fresh, Users};
use controller::state::ClusterState;
use controller::switchover::plan::{self as switchover, Move};
use jiff::Timestamp;
use model::command::{AgentCommand, EngineSpec};
use model::documents::{Cluster, ClusterSettings, EngineUsers, Node, Role, keys};
use model::ids::UserUid;
use model::intent::{ClusterChange, DatabaseSpec, Intent, IntentOutcome};
use model::limits::FOLLOWS_FOR;
use model::observation::{
    EngineState, HostFacts, KeeperObservation, NodeObservation, ProxyDatabaseObservation,
    ProxyObservation, ShardObservation,
};
use model::replication::{PrimaryAddress, ReplicaSeen, ReplicationObservation, SyncedRecord};
use model::{ApiError, DatabaseUid, Epoch, NodeUid, OperationUid, Revision, Secret, ShardUid};
use serde_json::{Map, json};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::rc::Rc;
use std::time::{Duration, Instant};
use store::{State, Txn, TxnResult};

mod engines;
mod roles;

/// Longer than anything that is waited for.
const LONG: Duration = Duration::from_secs(100);

#[derive(Debug)]
struct FixedUsers;

impl Users for FixedUsers {
    fn draw(&self) -> EngineUsers {
        EngineUsers {
            cnm: Secret::new("c"),
            repl: Secret::new("r"),
            proxy: Secret::new("p"),
        }
    }
}

pub(crate) struct World {
    pub(crate) state: State,
    pub(crate) nodes: BTreeMap<NodeUid, NodeObservation>,
    pub(crate) silent: Vec<NodeUid>,
    /// Nodes with clients that stay as long as they may.
    pub(crate) busy: Vec<NodeUid>,
    /// For how long they have been so.
    pub(crate) silent_for: Duration,
    pub(crate) proxies_follow: bool,
    /// Whether proxies hold leases that they got before the newest change.
    pub(crate) proxies_lag: bool,
    /// Whether links that are down have been so for long.
    pub(crate) patient: bool,
    /// Whether replicas have only just begun to follow.
    pub(crate) links_are_new: bool,
    /// States of the store, the last one last.
    past: Vec<State>,
    /// How often the store was changed.
    writes: u64,
    read: RefCell<Option<(u64, Rc<ClusterState>)>>,
    /// Databases whose engines find their data again after a restart.
    pub(crate) persistent: Vec<DatabaseUid>,
    /// How far the data on disk go.
    disk: BTreeMap<ShardUid, u64>,
    /// Replicas whose record is forged.
    pub(crate) forged: BTreeSet<ShardUid>,
    /// Engines that hang: their agents get no answer, and nobody hears of them.
    pub(crate) hung: BTreeSet<ShardUid>,
    /// Nodes of which the first does not reach the second.
    pub(crate) apart: BTreeSet<(NodeUid, NodeUid)>,
    /// Wall-clock time: it passes only where a test says so.
    pub(crate) now: Timestamp,
    /// Nodes that vote.
    pub(crate) voters: BTreeSet<NodeUid>,
    start: Instant,
    pub(crate) processes: u64,
    operations: u64,
}

impl World {
    pub(crate) fn with_nodes(count: u64) -> Self {
        let now = Timestamp::UNIX_EPOCH;
        let cluster = Cluster {
            schema: 1,
            name: "test.local".into(),
            cluster_id: "id".into(),
            created: now,
            feature_level: 1,
            ca_certificate: String::new(),
            ca_key: Secret::default(),
            next_node: NodeUid(count + 1),
            next_database: DatabaseUid(1),
            next_shard: ShardUid(1),
            next_user: UserUid(1),
            next_event: 1,
            settings: ClusterSettings::default(),
            node_loss: None,
            extra: Map::new(),
        };
        let mut put = vec![(keys::CLUSTER.to_owned(), json!(cluster))];
        let mut nodes = BTreeMap::new();
        for uid in (1..=count).map(NodeUid) {
            put.push((keys::node(uid), json!(node(uid))));
            nodes.insert(uid, observation(uid));
        }
        let mut state = State::default();
        state
            .apply(&Txn {
                put,
                ..Txn::default()
            })
            .unwrap();
        Self {
            state,
            nodes,
            silent: Vec::new(),
            busy: Vec::new(),
            silent_for: LONG,
            proxies_follow: true,
            proxies_lag: false,
            patient: false,
            links_are_new: false,
            past: Vec::new(),
            writes: 0,
            read: RefCell::default(),
            persistent: Vec::new(),
            disk: BTreeMap::new(),
            forged: BTreeSet::new(),
            hung: BTreeSet::new(),
            apart: BTreeSet::new(),
            now,
            voters: (1..=count - (count + 1) % 2).map(NodeUid).collect(),
            start: Instant::now(),
            processes: 0,
            operations: 0,
        }
    }

    pub(crate) fn cluster(&self) -> Rc<ClusterState> {
        let mut read = self.read.borrow_mut();
        // Reading it is most of the work of a simulation.
        let fresh = || Rc::new(ClusterState::read(&self.state).unwrap().unwrap());
        match &*read {
            Some((writes, known)) if *writes == self.writes => Rc::clone(known),
            _ => {
                let known = fresh();
                *read = Some((self.writes, Rc::clone(&known)));
                known
            }
        }
    }

    /// Observations as the primary node has them now: silent nodes were heard long ago.
    pub(crate) fn observed(&self) -> (Observations, Instant) {
        let now = self.start + LONG;
        let mut observed = Observations::default();
        observed.leases.in_term(1, self.start);
        for node in self.nodes.keys().filter(|uid| !self.silent.contains(uid)) {
            let proxy = ProxyId {
                node: *node,
                process: 1,
            };
            let newest = self.state.revision.0;
            let applied = Revision(newest - u64::from(self.proxies_lag));
            if self.proxies_follow {
                observed.leases.give(proxy, applied, applied, now).unwrap();
            }
        }
        for (uid, node) in &self.nodes {
            let mut node = node.clone();
            self.without_the_hung(&mut node);
            if let Some(proxy) = node.proxy.as_mut().filter(|_| self.proxies_follow) {
                proxy.applied = Revision(self.state.revision.0);
            }
            let at = if self.silent.contains(uid) {
                now - self.silent_for
            } else {
                now
            };
            if self.patient {
                observed.record(node.clone(), at - Duration::from_secs(10));
            } else if !self.links_are_new {
                observed.record(node.clone(), at - FOLLOWS_FOR);
            }
            observed.record(node.clone(), at);
        }
        (observed, now)
    }

    pub(crate) fn request(&mut self, intent: &Intent) -> Result<IntentOutcome, ApiError> {
        let (observed, instant) = self.observed();
        self.request_by((&observed, instant), intent)
    }

    /// What a primary node makes of an intent that has heard this.
    pub(crate) fn request_by(
        &mut self,
        (observed, instant): (&Observations, Instant),
        intent: &Intent,
    ) -> Result<IntentOutcome, ApiError> {
        self.operations += 1;
        let fresh = Fresh {
            now: self.now,
            voters: self.voters.clone(),
            instant,
            operation: OperationUid(format!("op-{}", self.operations)),
            users: &FixedUsers,
        };
        let (txn, outcome) = request::plan(&self.cluster(), observed, intent, &fresh)?;
        let operations = txn.compare.len() + txn.put.len() + txn.delete.len();
        assert!(operations <= store::txn::MAX_OPS, "{operations} operations");
        assert!(matches!(self.commit(&txn), TxnResult::Applied { .. }));
        Ok(outcome)
    }

    /// A transaction in the store's log.
    pub(crate) fn commit(&mut self, txn: &Txn) -> TxnResult {
        self.past.push(self.state.clone());
        self.writes += 1;
        self.state.apply(txn).unwrap()
    }

    /// How many transactions the log has.
    pub(crate) fn tip(&self) -> usize {
        self.past.len()
    }

    /// The state after so many of them.
    pub(crate) fn state_after(&self, transactions: usize) -> &State {
        self.past.get(transactions).unwrap_or(&self.state)
    }

    /// Lost replicas are made anew after ten minutes, with these cool-downs, seconds.
    pub(crate) fn slave_ha(&mut self, cool_down: u32) {
        let change = ClusterChange {
            slave_ha: Some(true),
            slave_ha_grace_period: Some(600),
            slave_ha_cooldown_period: Some(cool_down),
            slave_ha_bdb_cooldown_period: Some(cool_down),
            ..ClusterChange::default()
        };
        self.request(&Intent::UpdateCluster(change)).unwrap();
    }

    pub(crate) fn create(&mut self, name: &str) -> Result<IntentOutcome, ApiError> {
        self.request(&Intent::CreateDatabase(DatabaseSpec {
            name: name.into(),
            memory_size: 1 << 30,
            ..DatabaseSpec::default()
        }))
    }

    pub(crate) fn plan(&self) -> Plan {
        let (observed, now) = self.observed();
        plan::plan(&self.cluster(), &observed, now, self.now)
    }

    /// Plans and carries out until there is nothing to do; returns the story.
    pub(crate) fn settle(&mut self) -> String {
        self.settle_but(|_| false)
    }

    /// The same, but these steps come to nothing.
    pub(crate) fn settle_but(&mut self, in_vain: impl Fn(&Step) -> bool) -> String {
        let mut story = String::new();
        for _ in 0..300 {
            let plan = self.plan();
            for (operation, wait) in &plan.waits {
                let _ = writeln!(story, "{operation} waits: {wait}");
            }
            let Some(step) = plan.steps.into_iter().find(|step| !in_vain(step)) else {
                return story;
            };
            let _ = writeln!(story, "{}", self.execute(step));
        }
        panic!("it does not end:\n{story}");
    }

    /// What operations wait for is stored.
    pub(crate) fn note_waits(&mut self) {
        if let Some(txn) = plan::waits(&self.cluster(), &self.plan(), self.now) {
            self.apply(&txn);
        }
    }

    /// Carries all steps of the next plan out that can be: of several transactions the first.
    pub(crate) fn settle_all(&mut self) {
        let mut written = false;
        for step in self.plan().steps {
            if matches!(step, Step::Command { .. }) || !std::mem::replace(&mut written, true) {
                self.execute(step);
            }
        }
    }

    /// Carries the next step out.
    pub(crate) fn settle_one(&mut self) {
        if let Some(step) = self.plan().steps.into_iter().next() {
            self.execute(step);
        }
    }

    pub(crate) fn execute(&mut self, step: Step) -> String {
        match step {
            Step::Store { txn, reason } => {
                self.apply(&txn);
                format!("store: {reason}")
            }
            Step::Command {
                node,
                shard,
                command,
                reason,
            } => {
                assert!(
                    !self.silent.contains(&node),
                    "an order to a node that is not heard"
                );
                let word = self.order(node, shard, command);
                format!("node:{node} {word}: {reason}")
            }
            Step::Move(wanted) => self.move_role(&wanted),
            Step::Settle { old, new, moving } => {
                panic!("no move is left unsettled here: {old:?} {new:?} {moving:?}")
            }
        }
    }

    fn order(&mut self, node: NodeUid, uid: ShardUid, command: AgentCommand) -> &'static str {
        self.processes += 1;
        let run_id = format!("run-{}", self.processes);
        let shards = &mut self.nodes.get_mut(&node).unwrap().shards;
        match command {
            AgentCommand::EnsureEngine(spec) => ensure(shards, spec, run_id),
            AgentCommand::MakePrimary { epoch, run_id, .. } => {
                let seen = shards.iter_mut().find(|s| s.shard == uid).unwrap();
                // The same process has its data still.
                let found = self.disk.get(&uid).copied().unwrap_or(0);
                let offset = seen.replication.as_ref().map_or(found, |r| r.offset);
                // It has pinged.
                make_primary(seen, epoch, &run_id, offset.max(14));
                "makes primary"
            }
            AgentCommand::Promote {
                epoch,
                run_id,
                record,
                ..
            } => {
                let seen = shards.iter_mut().find(|s| s.shard == uid).unwrap();
                promote(seen, epoch, &run_id, &record)
            }
            AgentCommand::Follow {
                epoch,
                run_id,
                primary,
                ..
            } => {
                self.follow(node, uid, epoch, &run_id, &primary);
                "follows"
            }
            AgentCommand::Keep { epoch, user, .. } => {
                let seen = shards.iter_mut().find(|s| s.shard == uid).unwrap();
                assert_eq!(seen.epoch, Some(epoch), "a role of another epoch");
                seen.keeper = Some(KeeperObservation { user, alone: true });
                "promises"
            }
            AgentCommand::Configure { .. } => "configures",
            AgentCommand::KillEngine { run_id, .. } => {
                let seen = shards.iter().find(|s| s.shard == uid).unwrap();
                assert_eq!(seen.run_id, Some(run_id), "an order to another process");
                self.may_be_ended(uid);
                self.crash(uid);
                "ends"
            }
            AgentCommand::SetAside { epoch, decided, .. } => {
                self.sets_aside(uid, epoch, decided);
                "sets aside"
            }
            AgentCommand::RemoveEngine { .. } => {
                shards.retain(|s| s.shard != uid);
                let txn = deletion::shard_removed(&self.cluster(), uid, self.now);
                self.commit(&txn.expect("only what is being deleted is removed"));
                "removes"
            }
            other => panic!("nobody orders this yet: {other:?}"),
        }
    }

    /// A move without trouble.
    pub(crate) fn move_role(&mut self, wanted: &Move) -> String {
        let now = self.now;
        let epoch = wanted.epoch.next();
        let begin = switchover::begin(&self.cluster(), wanted, now).unwrap();
        self.apply(&begin);
        self.handed_over(wanted);
        self.take_over(wanted.new.shard, epoch);
        let ends = (wanted.old.shard, epoch);
        let record = self.record(wanted.old.shard, epoch);
        let commit = switchover::commit(&self.cluster(), ends, (900, record), now).unwrap();
        self.apply(&commit);
        format!(
            "redis:{} moves to redis:{}",
            wanted.old.shard, wanted.new.shard
        )
    }

    pub(crate) fn apply(&mut self, txn: &Txn) {
        let applied = self.commit(txn);
        assert!(matches!(applied, TxnResult::Applied { .. }), "{applied:?}");
        self.proxies();
    }

    /// Syncs at once, as engines without data do.
    fn follow(
        &mut self,
        node: NodeUid,
        uid: ShardUid,
        epoch: Epoch,
        run_id: &str,
        primary: &PrimaryAddress,
    ) {
        let cluster = self.cluster();
        let shard = |uid| cluster.shards.iter().find(|s| s.uid == uid).unwrap();
        let mine = replica_set::address(&cluster, shard(uid)).unwrap();
        let theirs = shard(primary.shard);
        assert_eq!(
            replica_set::address(&cluster, theirs),
            Some(primary.address)
        );
        let before = self.history(uid).unwrap_or_default();
        let there = &mut self.nodes.get_mut(&theirs.node).unwrap().shards;
        let seen = there.iter_mut().find(|s| s.shard == theirs.uid).unwrap();
        assert_eq!(seen.run_id.as_deref(), Some(primary.run_id.as_str()));
        let source = seen.replication.as_mut().unwrap();
        source.replicas.retain(|r| r.address != mine);
        source.replicas.push(ReplicaSeen {
            address: mine,
            online: true,
            offset: source.offset,
            lag_seconds: 0,
        });
        let replication = ReplicationObservation {
            is_primary: false,
            replication_id2: before,
            replication_id: source.replication_id.clone(),
            offset: source.offset,
            link_up: true,
            primary: Some(primary.address),
            ..ReplicationObservation::default()
        };
        let shards = &mut self.nodes.get_mut(&node).unwrap().shards;
        let seen = shards.iter_mut().find(|s| s.shard == uid).unwrap();
        assert_eq!(seen.run_id.as_deref(), Some(run_id));
        seen.role = Some(Role::Replica);
        seen.epoch = Some(epoch);
        seen.replication = Some(replication);
    }

    /// Proxies serve what the store says.
    pub(crate) fn proxies(&mut self) {
        if !self.proxies_follow {
            return;
        }
        let cluster = self.cluster();
        for node in self.nodes.values_mut() {
            let known = cluster.node(node.node);
            let leaves = known.is_none_or(|n| n.leaving && cluster.shards_on(n.uid) == 0);
            let databases = cluster
                .databases
                .iter()
                .map(|d| ProxyDatabaseObservation {
                    database: d.uid,
                    listening: true,
                    drains: Some(leaves),
                    connections: self.busy.contains(&node.node).into(),
                    shards_connected: cluster
                        .shards_of(d.uid)
                        .filter(|s| s.role == Role::Primary)
                        .all(|s| s.is_usable()),
                    ..ProxyDatabaseObservation::default()
                })
                .collect();
            node.proxy = Some(ProxyObservation {
                databases,
                leases: true,
                ..ProxyObservation::default()
            });
        }
    }

    /// A node is not heard any more.
    pub(crate) fn falls_silent(&mut self, node: NodeUid) {
        self.silent.push(node);
    }

    /// The engine of a shard dies; its agent sees it.
    pub(crate) fn crash(&mut self, uid: ShardUid) {
        self.save(uid);
        self.hung.remove(&uid);
        for node in self.nodes.values_mut() {
            for seen in node.shards.iter_mut().filter(|s| s.shard == uid) {
                seen.state = EngineState::Stopped;
                seen.pid = None;
                seen.stall = None;
                seen.role = None;
                seen.epoch = None;
                seen.run_id = None;
                seen.replication = None;
                seen.keeper = None;
            }
        }
    }

    pub(crate) fn epoch(&self, uid: ShardUid) -> Epoch {
        self.cluster()
            .shards
            .iter()
            .find(|s| s.uid == uid)
            .unwrap()
            .epoch
    }
}

fn ensure(shards: &mut Vec<ShardObservation>, spec: EngineSpec, run_id: String) -> &'static str {
    let running = shards.iter_mut().find(|s| s.shard == spec.shard);
    match running {
        Some(seen) if seen.state == EngineState::Running => {
            seen.generation = spec.generation;
            return "reconfigures";
        }
        _ => {}
    }
    let before = shards.iter().find(|s| s.shard == spec.shard);
    let set_aside = before.and_then(|seen| seen.set_aside);
    shards.retain(|s| s.shard != spec.shard);
    shards.push(ShardObservation {
        set_aside,
        ..started(spec, run_id)
    });
    "starts"
}

pub(crate) fn started(spec: EngineSpec, run_id: String) -> ShardObservation {
    ShardObservation {
        shard: spec.shard,
        database: spec.database,
        generation: spec.generation,
        state: EngineState::Running,
        role: None,
        epoch: None,
        pid: Some(1),
        run_id: Some(run_id),
        engine: spec.engine,
        used_memory: 0,
        fragmentation: 1.0,
        keys: 0,
        connections: 0,
        loading_percent: 0.0,
        error: None,
        replication: None,
        keeper: None,
        data_written: None,
        stall: None,
        files_pending: false,
        refuses_writes: None,
        load_failures: 0,
        set_aside: None,
    }
}

fn promote(
    seen: &mut ShardObservation,
    epoch: Epoch,
    run_id: &str,
    record: &SyncedRecord,
) -> &'static str {
    let replication = seen.replication.clone().unwrap();
    assert_eq!(record.run_id, run_id, "a record of another process");
    // What an agent looks at once more.
    let same = record.replication_id == replication.replication_id
        || record.replication_id == replication.replication_id2;
    if replication.sync_in_progress || !same || replication.offset < record.offset_floor {
        return "refuses to promote";
    }
    make_primary(seen, epoch, run_id, replication.offset);
    "promotes"
}

fn make_primary(seen: &mut ShardObservation, epoch: Epoch, run_id: &str, offset: u64) {
    assert_eq!(
        seen.run_id.as_deref(),
        Some(run_id),
        "an order to another process"
    );
    assert!(seen.epoch.is_none_or(|old| old <= epoch), "an older epoch");
    seen.role = Some(Role::Primary);
    seen.epoch = Some(epoch);
    seen.keeper = None;
    seen.replication = Some(ReplicationObservation {
        is_primary: true,
        replication_id: format!("history-{}-{epoch}", seen.shard),
        offset,
        ..ReplicationObservation::default()
    });
}

pub(crate) fn node(uid: NodeUid) -> Node {
    Node {
        schema: 1,
        uid,
        address: format!("127.0.0.{}", 10 + uid.0),
        external_address: Vec::new(),
        rack_id: None,
        hostname: format!("host{uid}"),
        internode_port: 3342,
        https_port: 9443,
        memory_bytes: 4 << 30,
        accept_servers: true,
        proxy: model::tuning::ProxySettings::default(),
        maintenance: None,
        snapshots: Vec::new(),
        leaving: false,
        joined: Timestamp::UNIX_EPOCH,
        extra: Map::new(),
    }
}

fn observation(uid: NodeUid) -> NodeObservation {
    NodeObservation {
        node: uid,
        taken: Timestamp::UNIX_EPOCH,
        software_version: "1.0.0".into(),
        build_id: "b".into(),
        feature_min: 1,
        feature_max: 1,
        started: Timestamp::UNIX_EPOCH,
        host: HostFacts::default(),
        engines: ["redis-7.0.15", "valkey-9.1.2"]
            .map(|e| e.parse().unwrap())
            .to_vec(),
        shards: Vec::new(),
        proxy: None,
        services: Vec::new(),
        stopping: false,
        disk_full: false,
        upgrade: model::upgrade::UpgradeObservation::default(),
        applied: Revision(0),
        state_hash: String::new(),
    }
}
