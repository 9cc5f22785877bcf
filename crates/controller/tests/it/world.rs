//! A cluster in memory: the real state machine, fake agents, no time but what a test says.

use controller::database::plan::{self, Plan, Step};
use controller::observed::Observations;
use controller::request::{self, Fresh, Users};
use controller::state::ClusterState;
use jiff::Timestamp;
use model::command::AgentCommand;
use model::documents::{Cluster, ClusterSettings, EngineUsers, Node, Role, keys};
use model::ids::UserUid;
use model::intent::{DatabaseSpec, Intent, IntentOutcome};
use model::observation::{
    EngineState, HostFacts, NodeObservation, ProxyDatabaseObservation, ProxyObservation,
    ShardObservation,
};
use model::{ApiError, DatabaseUid, Epoch, NodeUid, OperationUid, Revision, Secret, ShardUid};
use serde_json::{Map, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};
use store::{State, Txn, TxnResult};

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
    pub(crate) proxies_follow: bool,
    start: Instant,
    processes: u64,
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
            proxies_follow: true,
            start: Instant::now(),
            processes: 0,
            operations: 0,
        }
    }

    pub(crate) fn cluster(&self) -> ClusterState {
        ClusterState::read(&self.state).unwrap().unwrap()
    }

    /// Observations as the primary node has them now: silent nodes were heard long ago.
    pub(crate) fn observed(&self) -> (Observations, Instant) {
        let now = self.start + Duration::from_secs(100);
        let mut observed = Observations::default();
        for (uid, node) in &self.nodes {
            let at = if self.silent.contains(uid) {
                self.start
            } else {
                now
            };
            observed.record(node.clone(), at);
        }
        (observed, now)
    }

    pub(crate) fn request(&mut self, intent: &Intent) -> Result<IntentOutcome, ApiError> {
        let (observed, instant) = self.observed();
        self.operations += 1;
        let fresh = Fresh {
            now: Timestamp::UNIX_EPOCH,
            instant,
            operation: OperationUid(format!("op-{}", self.operations)),
            users: &FixedUsers,
        };
        let (txn, outcome) = request::plan(&self.cluster(), &observed, intent, &fresh)?;
        let operations = txn.compare.len() + txn.put.len() + txn.delete.len();
        assert!(operations <= store::txn::MAX_OPS, "{operations} operations");
        assert!(matches!(
            self.state.apply(&txn).unwrap(),
            TxnResult::Applied { .. }
        ));
        Ok(outcome)
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
        plan::plan(&self.cluster(), &observed, now, Timestamp::UNIX_EPOCH)
    }

    /// Plans and carries out until there is nothing to do; returns the story.
    pub(crate) fn settle(&mut self) -> String {
        let mut story = String::new();
        for _ in 0..100 {
            let plan = self.plan();
            for (operation, wait) in &plan.waits {
                let _ = writeln!(story, "{operation} waits: {wait}");
            }
            let Some(step) = plan.steps.into_iter().next() else {
                return story;
            };
            let _ = writeln!(story, "{}", self.execute(step));
        }
        panic!("it does not end:\n{story}");
    }

    /// Carries the next step out.
    pub(crate) fn settle_one(&mut self) {
        if let Some(step) = self.plan().steps.into_iter().next() {
            self.execute(step);
        }
    }

    fn execute(&mut self, step: Step) -> String {
        match step {
            Step::Store { txn, reason } => {
                let applied = self.state.apply(&txn).unwrap();
                assert!(matches!(applied, TxnResult::Applied { .. }), "{applied:?}");
                self.proxies();
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
        }
    }

    fn order(&mut self, node: NodeUid, uid: ShardUid, command: AgentCommand) -> &'static str {
        self.processes += 1;
        let run_id = format!("run-{}", self.processes);
        let shards = &mut self.nodes.get_mut(&node).unwrap().shards;
        match command {
            AgentCommand::EnsureEngine(spec) => {
                let running = shards.iter_mut().find(|s| s.shard == uid);
                match running {
                    Some(seen) if seen.state == EngineState::Running => {
                        seen.generation = spec.generation;
                        return "reconfigures";
                    }
                    _ => {}
                }
                shards.retain(|s| s.shard != uid);
                shards.push(ShardObservation {
                    shard: uid,
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
                });
                "starts"
            }
            AgentCommand::MakePrimary { epoch, run_id, .. } => {
                let seen = shards.iter_mut().find(|s| s.shard == uid).unwrap();
                assert_eq!(
                    seen.run_id.as_ref(),
                    Some(&run_id),
                    "an order to another process"
                );
                assert!(seen.epoch.is_none_or(|old| old <= epoch), "an older epoch");
                seen.role = Some(Role::Primary);
                seen.epoch = Some(epoch);
                "makes primary"
            }
            AgentCommand::Configure { .. } => "configures",
            AgentCommand::RemoveEngine { .. } => {
                shards.retain(|s| s.shard != uid);
                let txn = plan::shard_removed(&self.cluster(), uid, Timestamp::UNIX_EPOCH);
                self.state
                    .apply(&txn.expect("only what is being deleted is removed"))
                    .unwrap();
                "removes"
            }
        }
    }

    /// Proxies serve what the store says.
    fn proxies(&mut self) {
        if !self.proxies_follow {
            return;
        }
        let cluster = self.cluster();
        for node in self.nodes.values_mut() {
            let databases = cluster
                .databases
                .iter()
                .map(|d| ProxyDatabaseObservation {
                    database: d.uid,
                    listening: true,
                    shards_connected: cluster.shards_of(d.uid).all(|s| s.is_serving()),
                    ..ProxyDatabaseObservation::default()
                })
                .collect();
            node.proxy = Some(ProxyObservation {
                databases,
                ..ProxyObservation::default()
            });
        }
    }

    /// The engine of a shard dies; its agent sees it.
    pub(crate) fn crash(&mut self, uid: ShardUid) {
        for node in self.nodes.values_mut() {
            for seen in node.shards.iter_mut().filter(|s| s.shard == uid) {
                seen.state = EngineState::Stopped;
                seen.role = None;
                seen.epoch = None;
                seen.run_id = None;
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

fn node(uid: NodeUid) -> Node {
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
        applied: Revision(0),
        state_hash: String::new(),
    }
}
