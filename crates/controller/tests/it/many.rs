//! Actions on many databases at once.

use crate::world::World;
use controller::state::Stored;
use model::documents::{Operation, OperationStatus, keys};
use model::intent::{DatabaseSpec, Intent, IntentOutcome, MaintenanceWish, Pace};
use model::{DatabaseUid, ErrorCode, NodeUid};
use serde_json::json;
use store::Txn;

fn accepts(world: &mut World, nodes: &[u64], accepts: bool) {
    for uid in nodes.iter().copied().map(NodeUid) {
        let mut doc = world.cluster().node(uid).unwrap().doc.clone();
        doc.accept_servers = accepts;
        world.apply(&Txn {
            put: vec![(keys::node(uid), json!(doc))],
            ..Txn::default()
        });
    }
}

/// So many databases on the first node; there is room for them on the others.
fn many(count: u64) -> World {
    let mut world = World::with_nodes(3);
    accepts(&mut world, &[2, 3], false);
    for number in 1..=count {
        let spec = DatabaseSpec {
            name: format!("db-{number}"),
            memory_size: 8 << 20,
            ..DatabaseSpec::default()
        };
        world.request(&Intent::CreateDatabase(spec)).unwrap();
        world.settle();
    }
    accepts(&mut world, &[2, 3], true);
    world
}

fn empty(world: &mut World) -> IntentOutcome {
    let intent = Intent::MaintenanceOn {
        node: NodeUid(1),
        wish: MaintenanceWish::default(),
        pace: Pace::default(),
    };
    world.request(&intent).unwrap()
}

/// More databases than one transaction holds: none is left out. (That a transaction is not too large is
/// looked at where it is made.)
#[test]
fn an_action_on_a_node_with_many_databases() {
    let mut world = many(80);
    let outcome = empty(&mut world);
    assert_eq!(outcome.operations.len(), 80);
    let busy = |world: &World| {
        let cluster = world.cluster();
        cluster
            .databases
            .iter()
            .filter(|d| d.operation.is_some())
            .count()
    };
    assert_eq!(busy(&world), 20);
    world.settle_one();
    assert_eq!(busy(&world), 60);
    world.settle_one();
    assert_eq!(busy(&world), 80);
    for _ in 0..4_000 {
        if busy(&world) == 0 {
            break;
        }
        world.settle_all();
    }
    let cluster = world.cluster();
    assert!(cluster.shards.iter().all(|shard| shard.node != NodeUid(1)));
    let ended = |o: &&Stored<Operation>| o.status == OperationStatus::Completed;
    assert!(
        cluster
            .operations
            .iter()
            .filter(|o| o.group.is_some())
            .all(|o| ended(&o))
    );
}

#[test]
fn an_action_on_many_databases_is_given_up_in_parts() {
    let mut world = many(61);
    let outcome = empty(&mut world);
    // One of them is deleted before its turn comes.
    let last = DatabaseUid(61);
    world
        .request(&Intent::DeleteDatabase { database: last })
        .unwrap();
    for _ in 0..20 {
        world.settle_all();
    }
    let abort = Intent::AbortOperation {
        operation: outcome.operation.unwrap(),
    };
    let mut parts = 0;
    let error = loop {
        match world.request(&abort) {
            Ok(outcome) => assert!(outcome.operations.len() <= 24),
            Err(error) => break error,
        }
        parts += 1;
        assert!(parts < 10);
    };
    assert_eq!(error.error_code, ErrorCode::ActionEnded);
    let cluster = world.cluster();
    let mut of_last = cluster.operations.iter().filter(|o| o.database == last);
    assert!(of_last.any(|o| o.error_code == Some(ErrorCode::DbNotFound)));
    assert!(parts >= 2, "{parts}");
    for _ in 0..100 {
        world.settle_all();
    }
    let cluster = world.cluster();
    assert!(cluster.operations.iter().all(|o| o.ended.is_some()));
    assert_eq!(cluster.databases.len(), 60);
    assert!(cluster.databases.iter().all(|d| d.operation.is_none()));
}
