//! The executor over a real store of one node: what is under way is not under way for ever.

use crate::world::World;
use bytes::Bytes;
use controller::database::execute::{Ended, Executor};
use controller::database::plan::Step;
use controller::leases::ProxyId;
use controller::observed::Observations;
use controller::reconcile::{Controller, NodeError, Nodes};
use controller::state::ClusterState;
use controller::switchover::plan::{Move, Party};
use futures::future::BoxFuture;
use model::command::AgentCommand;
use model::documents::{EngineUsers, OperationStatus};
use model::gate::{GateAnswer, GateCall};
use model::intent::{DatabaseSpec, Intent, MaintenanceWish, Pace};
use model::limits::NODE_SILENT;
use model::observation::ShardObservation;
use model::{
    DatabaseUid, Epoch, ErrorCode, Generation, NodeUid, OperationUid, Revision, Secret, ShardUid,
};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use store::{Member, RpcKind, Store, StoreConfig, Transport, TransportError, Txn};

/// There is nobody else.
struct Alone;

impl Transport for Alone {
    fn call(
        &self,
        _: &Member,
        _: RpcKind,
        _: Bytes,
        _: Duration,
    ) -> BoxFuture<'static, Result<Bytes, TransportError>> {
        Box::pin(std::future::ready(Err(TransportError::Unreachable(
            "alone".to_owned(),
        ))))
    }
}

async fn store(folder: &tempfile::TempDir) -> Store {
    let config = StoreConfig::new(NodeUid(1), folder.path());
    let store = Store::open(config, Arc::new(Alone)).await.unwrap();
    let me = Member {
        uid: NodeUid(1),
        address: "127.0.0.1:1".to_owned(),
    };
    store.initialize(me).await.unwrap();
    store.leadership().wait_for(Option::is_some).await.unwrap();
    store
}

/// The first `broken` orders break off in the middle.
#[derive(Debug)]
struct Breaks {
    broken: usize,
    asked: AtomicUsize,
}

impl Nodes for Breaks {
    fn order(
        &self,
        _: NodeUid,
        _: AgentCommand,
    ) -> BoxFuture<'static, Result<Option<ShardObservation>, NodeError>> {
        let number = self.asked.fetch_add(1, Ordering::SeqCst);
        let breaks = number < self.broken;
        Box::pin(async move {
            assert!(!breaks, "this order breaks off");
            Ok(None)
        })
    }

    fn gate(&self, _: NodeUid, _: GateCall) -> BoxFuture<'static, Result<GateAnswer, NodeError>> {
        panic!("nobody is gated here")
    }
}

fn order(shard: u64) -> Step {
    Step::Command {
        node: NodeUid(1),
        shard: ShardUid(shard),
        command: AgentCommand::KillEngine {
            shard: ShardUid(shard),
            generation: Generation(1),
            run_id: "run-1".into(),
        },
        reason: "a test".into(),
    }
}

fn moved() -> Step {
    let party = |shard: u64| Party {
        shard: ShardUid(shard),
        node: NodeUid(1),
        generation: Generation(1),
        run_id: format!("run-{shard}"),
        address: "127.0.0.1:1".parse().unwrap(),
        users: EngineUsers {
            cnm: Secret::new("c"),
            repl: Secret::new("r"),
            proxy: Secret::new("p"),
        },
    };
    Step::Move(Box::new(Move {
        operation: OperationUid("op-1".into()),
        database: DatabaseUid(1),
        old: party(1),
        new: party(2),
        epoch: Epoch(1),
        proxies: Vec::new(),
    }))
}

async fn ended(executor: &mut Executor) -> Ended {
    let ended = tokio::time::timeout(Duration::from_secs(20), executor.ended());
    ended.await.expect("what broke off counts as ended")
}

/// How often agents were asked.
fn asked(nodes: &Breaks) -> usize {
    nodes.asked.load(Ordering::SeqCst)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_breaks_off_is_given_again() {
    let folder = tempfile::tempdir().unwrap();
    let nodes = Arc::new(Breaks {
        broken: 1,
        asked: AtomicUsize::new(0),
    });
    let observed = Arc::new(Mutex::new(Observations::default()));
    let mut executor = Executor::new(store(&folder).await, nodes.clone(), observed);
    let now = Instant::now();
    executor.take(vec![order(1)], now).await;
    let broke_off = ended(&mut executor).await;
    let failed = matches!(&broke_off, Ended::Order { shard, result, .. } if *shard == ShardUid(1) && result.is_err());
    assert!(failed, "{broke_off:?}");
    executor.take_in(broke_off).await;
    // Not at once: it would break off again and again.
    executor.take(vec![order(1)], now).await;
    assert_eq!(asked(&nodes), 1);
    executor
        .take(vec![order(1)], now + Duration::from_secs(60))
        .await;
    let done = ended(&mut executor).await;
    let carried_out = matches!(&done, Ended::Order { result, .. } if result.is_ok());
    assert!(carried_out, "{done:?}");
    assert_eq!(asked(&nodes), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_of_a_move_that_breaks_off_are_free() {
    let folder = tempfile::tempdir().unwrap();
    let nodes = Arc::new(Breaks {
        broken: usize::MAX,
        asked: AtomicUsize::new(0),
    });
    let observed = Arc::new(Mutex::new(Observations::default()));
    let mut executor = Executor::new(store(&folder).await, nodes.clone(), observed);
    executor.take(vec![moved()], Instant::now()).await;
    let broke_off = ended(&mut executor).await;
    let both = [ShardUid(1), ShardUid(2)];
    let freed = matches!(broke_off, Ended::Move { parties, whole: false } if parties == both);
    assert!(freed, "{broke_off:?}");
    executor.take_in(broke_off).await;
    let before = asked(&nodes);
    let later = Instant::now() + Duration::from_secs(60);
    executor.take(vec![order(1), order(2)], later).await;
    for _ in 0..2 {
        let ended = ended(&mut executor).await;
        executor.take_in(ended).await;
    }
    assert_eq!(asked(&nodes), before + 2);
    // And another move of them begins.
    executor.take(vec![moved()], later).await;
    let again = ended(&mut executor).await;
    assert!(matches!(again, Ended::Move { .. }), "{again:?}");
}

/// A node whose `cnm_exec` is being started again.
#[derive(Debug)]
struct Away;

impl Nodes for Away {
    fn order(
        &self,
        _: NodeUid,
        _: AgentCommand,
    ) -> BoxFuture<'static, Result<Option<ShardObservation>, NodeError>> {
        let away = NodeError::Unreachable("nobody listens".to_owned());
        Box::pin(std::future::ready(Err(away)))
    }

    fn gate(&self, _: NodeUid, _: GateCall) -> BoxFuture<'static, Result<GateAnswer, NodeError>> {
        panic!("nobody is gated here")
    }
}

/// What a world has stored.
async fn stored(store: &Store, world: &World) {
    let all = world.state.range("");
    let put = all.map(|(key, entry)| (key.clone(), entry.value.clone()));
    let txn = Txn {
        put: put.collect(),
        ..Txn::default()
    };
    store.txn(txn).await.unwrap();
}

/// An operation goes on when an agent that was away is back, and pauses when that lasts.
#[tokio::test(flavor = "multi_thread")]
async fn an_operation_waits_for_an_agent_that_is_away_before_a_move() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder).await;
    let mut world = World::with_nodes(3);
    let spec = DatabaseSpec {
        name: "demo".into(),
        memory_size: 1 << 30,
        replication: Some(true),
        ..DatabaseSpec::default()
    };
    world.request(&Intent::CreateDatabase(spec)).unwrap();
    world.settle();
    let empty = Intent::MaintenanceOn {
        node: NodeUid(1),
        wish: MaintenanceWish::default(),
        pace: Pace::default(),
    };
    let operation = world.request(&empty).unwrap().operations.remove(0);
    stored(&store, &world).await;
    let step = world.plan().steps.remove(0);
    assert!(matches!(step, Step::Move(_)), "{step:?}");
    let observed = Arc::new(Mutex::new(Observations::default()));
    let mut executor = Executor::new(store.clone(), Arc::new(Away), observed);
    let mut tries = 0;
    let paused = loop {
        tries += 1;
        let later = Instant::now() + Duration::from_secs(60) * tries;
        executor.take(vec![step.clone()], later).await;
        let ended = ended(&mut executor).await;
        let goes_on = matches!(ended, Ended::Move { whole: false, .. });
        executor.take_in(ended).await;
        let state = ClusterState::read(&store.state()).unwrap().unwrap();
        let now = state.operation(&operation).unwrap().doc.clone();
        if now.status != OperationStatus::Active {
            break now;
        }
        assert!(goes_on && tries < 10, "{now:?}");
        assert!(now.waiting_on.unwrap().contains("nobody listens"));
    };
    assert!(tries > 3, "{tries}");
    assert_eq!(paused.status, OperationStatus::Paused);
    assert_eq!(paused.error_code, Some(ErrorCode::MoveUndone));
}

/// An answer to an order of an earlier term may be older than what was heard since.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_from_before_another_node_led_is_no_news() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder).await;
    let term = store.status().term;
    let mut world = World::with_nodes(1);
    world.create("demo").unwrap();
    world.settle();
    let heard = world.nodes[&NodeUid(1)].clone();
    let mut seen = heard.shards[0].clone();
    seen.run_id = Some("an older process".into());
    let observed = Arc::new(Mutex::new(Observations::default()));
    observed.lock().unwrap().record(heard, Instant::now());
    let nodes = Arc::new(Breaks {
        broken: 0,
        asked: AtomicUsize::new(0),
    });
    let mut executor = Executor::new(store, nodes, Arc::clone(&observed));
    for (ordered_in, counts) in [(term - 1, false), (term, true)] {
        let answer = Ended::Order {
            node: NodeUid(1),
            shard: ShardUid(1),
            removal: false,
            term: ordered_in,
            result: Box::new(Ok(Some(seen.clone()))),
        };
        executor.take_in(answer).await;
        let observed = observed.lock().unwrap();
        let node = observed.fresh(NodeUid(1), Instant::now()).unwrap();
        assert_eq!(node.shards[0].run_id == seen.run_id, counts);
    }
}

/// A heartbeat may be the first that a node hears of its being the primary node: it counts.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_heartbeat_of_a_term_counts() {
    let folder = tempfile::tempdir().unwrap();
    let controller = Controller::new(store(&folder).await);
    let heard = World::with_nodes(1).nodes[&NodeUid(1)].clone();
    controller.heard(heard);
    let proxy = ProxyId {
        node: NodeUid(1),
        process: 1,
    };
    controller.lease(proxy, Revision(0)).await;
    let observed = controller.observations();
    assert!(observed.leases.since().is_some());
    assert!(observed.fresh(NodeUid(1), Instant::now()).is_some());
}

/// A node whose heartbeat is late is waited for, and counts once that has come.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_heartbeat_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder).await;
    let world = World::with_nodes(1);
    stored(&store, &world).await;
    let controller = Controller::new(store);
    let beat = || controller.heard(world.nodes[&NodeUid(1)].clone());
    let observed = || controller.observations();
    let is_late = || {
        let heard = observed()
            .heard(NodeUid(1), NODE_SILENT, Instant::now())
            .is_some();
        !heard
    };
    let create = Intent::CreateDatabase(DatabaseSpec {
        name: "demo".into(),
        memory_size: 1 << 30,
        ..DatabaseSpec::default()
    });
    for _ in 0..5 {
        beat();
        let deadline = Instant::now() + Duration::from_secs(30);
        while !is_late() {
            assert!(Instant::now() < deadline, "it is heard without a heartbeat");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let mut request = Box::pin(controller.request(&create));
        let soon = tokio::time::timeout(Duration::from_millis(200), &mut request).await;
        // On a machine that stood still the node has become one that is down.
        if observed().fresh(NodeUid(1), Instant::now()).is_some() {
            assert!(soon.is_err(), "it is not known yet: {soon:?}");
            beat();
            request.await.unwrap();
            return;
        }
    }
    panic!("the node was never late");
}
