//! Operations pause, go on and are given up; more than one at once is refused by name.

use crate::world::World;
use jiff::SignedDuration;
use model::documents::{DatabaseStatus, Operation, OperationStatus, Role, keys};
use model::intent::{
    DatabaseSpec, Intent, MaintenanceWish, MigrateWhat, Pace, Restore, SnapshotWhat,
};
use model::{ErrorCode, NodeUid, OperationUid, ShardUid};
use serde_json::json;
use store::{Txn, TxnResult};

fn created(name: &str, world: &mut World, replication: bool) {
    let spec = DatabaseSpec {
        name: name.into(),
        memory_size: 256 << 20,
        replication: Some(replication),
        ..DatabaseSpec::default()
    };
    world.request(&Intent::CreateDatabase(spec)).unwrap();
    world.settle();
}

fn world(replication: bool) -> World {
    let mut world = World::with_nodes(3);
    created("demo", &mut world, replication);
    world
}

fn migrate(world: &mut World, shard: u64, node: u64) -> OperationUid {
    let intent = Intent::MigrateShards {
        what: MigrateWhat::Shards {
            shards: vec![ShardUid(shard)],
        },
        node: NodeUid(node),
        override_policy: false,
    };
    world.request(&intent).unwrap().operation.unwrap()
}

fn on(node: u64, wish: MaintenanceWish, at_once: Option<u32>) -> Intent {
    Intent::MaintenanceOn {
        node: NodeUid(node),
        wish,
        pace: Pace {
            at_once,
            step_within_seconds: None,
        },
    }
}

fn retry(operation: &OperationUid) -> Intent {
    Intent::RetryOperation {
        operation: operation.clone(),
    }
}

fn abort(operation: &OperationUid) -> Intent {
    Intent::AbortOperation {
        operation: operation.clone(),
    }
}

fn refused(world: &mut World, intent: &Intent) -> (ErrorCode, String) {
    let before = world.state.clone();
    let error = world.request(intent).unwrap_err();
    assert_eq!(world.state, before, "what is refused changes nothing");
    (error.error_code, error.description)
}

fn newest(world: &World) -> Operation {
    world.cluster().operations.last().unwrap().doc.clone()
}

/// Where the copies of the database are: `redis:1 node:1 master`.
fn copies(world: &World) -> Vec<String> {
    let cluster = world.cluster();
    let shards = cluster.shards.iter();
    shards
        .map(|s| format!("redis:{} node:{} {:?}", s.uid, s.node, s.role))
        .collect()
}

fn pass(world: &mut World, minutes: i64) {
    world.now += SignedDuration::from_mins(minutes);
}

/// A copy's node falls silent: it is waited for, then the operation pauses, and goes on when an operator
/// says so.
#[test]
fn a_step_that_takes_too_long_pauses_and_is_tried_again() {
    let mut world = world(false);
    let operation = migrate(&mut world, 1, 3);
    world.settle_one();
    world.silent.push(NodeUid(3));
    pass(&mut world, 29);
    insta::assert_snapshot!(world.settle(), @"
    node:1 promises: redis:1 gives no promises to proxies yet
    op-2 waits: node:3 is not heard
    ");
    pass(&mut world, 2);
    insta::assert_snapshot!(world.settle(), @"
    store: SMMigrateShards pauses: node:3 is not heard
    op-2 waits: node:3 is not heard
    ");
    let paused = newest(&world);
    assert_eq!(paused.status, OperationStatus::Paused);
    assert_eq!(paused.error.as_deref(), Some("node:3 is not heard"));
    assert_eq!(paused.error_code, Some(ErrorCode::OperationPaused));
    // However long: nothing is skipped, and the database is busy still.
    pass(&mut world, 600);
    world.settle();
    assert_eq!(newest(&world), paused);
    let (code, why) = refused(
        &mut world,
        &Intent::MigrateShards {
            what: MigrateWhat::Shards {
                shards: vec![ShardUid(1)],
            },
            node: NodeUid(2),
            override_policy: false,
        },
    );
    assert_eq!(code, ErrorCode::Busy);
    insta::assert_snapshot!(why, @"database 'demo' (db:1) is busy with SMMigrateShards of db:1 (op-2), which pauses (node:3 is not heard): have it go on with `rladmin retry op-2`, or give it up with `rladmin abort op-2`");

    // Tried again in vain it has all of its time again.
    world.request(&retry(&operation)).unwrap();
    pass(&mut world, 29);
    world.settle();
    assert_eq!(newest(&world).status, OperationStatus::Active);
    let (code, why) = refused(&mut world, &retry(&operation));
    assert_eq!(code, ErrorCode::Busy);
    insta::assert_snapshot!(why, @"SMMigrateShards of db:1 (op-2) does not pause: it goes on by itself");
    world.silent.clear();
    world.settle();
    assert_eq!(newest(&world).status, OperationStatus::Completed);
    assert_eq!(copies(&world), ["redis:2 node:3 Primary"]);
    let (code, why) = refused(&mut world, &abort(&operation));
    assert_eq!(code, ErrorCode::ActionEnded);
    insta::assert_snapshot!(why, @"SMMigrateShards of db:1 (op-2) has ended: there is nothing to go on with or to give up");
    let (code, _) = refused(&mut world, &retry(&OperationUid("nothing".into())));
    assert_eq!(code, ErrorCode::ActionNotFound);
}

/// Before the hand-over began, the copy goes, and everything is as it was.
#[test]
fn a_move_that_has_not_handed_over_is_undone() {
    for paused in [false, true] {
        let mut world = world(false);
        let operation = migrate(&mut world, 1, 3);
        world.settle_one();
        if paused {
            world.silent.push(NodeUid(3));
            pass(&mut world, 31);
            world.settle();
            assert_eq!(newest(&world).status, OperationStatus::Paused);
            world.silent.clear();
        }
        world.request(&abort(&operation)).unwrap();
        let story = world.settle();
        assert!(story.contains("redis:2 is not wanted any more"), "{story}");
        assert_eq!(copies(&world), ["redis:1 node:1 Primary"]);
        let ended = newest(&world);
        assert_eq!(ended.status, OperationStatus::Failed);
        assert_eq!(ended.error_code, Some(ErrorCode::OperationAborted));
        let database = world.cluster().databases[0].doc.clone();
        assert_eq!(database.status, DatabaseStatus::Active);
        assert_eq!(database.operation, None);
        // And it can be begun again.
        migrate(&mut world, 1, 2);
        world.settle();
        assert_eq!(copies(&world), ["redis:3 node:2 Primary"]);
    }
}

/// After it, the copy is what counts: the shard that it replaced goes.
#[test]
fn a_move_that_has_handed_over_is_not_undone() {
    let mut world = world(false);
    let operation = migrate(&mut world, 1, 3);
    while world
        .cluster()
        .shards
        .iter()
        .all(|s| s.uid == ShardUid(1) || s.role == Role::Replica)
    {
        world.settle_one();
    }
    assert_eq!(newest(&world).status, OperationStatus::Active);
    world.request(&abort(&operation)).unwrap();
    world.settle();
    assert_eq!(copies(&world), ["redis:2 node:3 Primary"]);
    assert_eq!(world.settle(), "");
}

/// While a role is being handed over, what becomes of it is found out first.
#[test]
fn a_hand_over_under_way_is_not_given_up() {
    use controller::database::plan::Step;
    let mut world = world(true);
    let node = world.cluster().shards[0].node;
    let wish = MaintenanceWish::default();
    let operation = world.request(&on(node.0, wish, None)).unwrap();
    let operation = operation.operation.unwrap();
    let Some(Step::Move(wanted)) = world.plan().steps.into_iter().next() else {
        panic!("a move is next");
    };
    let now = world.now;
    let begun = controller::switchover::plan::begin(&world.cluster(), &wanted, now).unwrap();
    world.apply(&begun);
    let (code, why) = refused(&mut world, &abort(&operation));
    assert_eq!(code, ErrorCode::CannotAbort);
    insta::assert_snapshot!(why, @"maintenance_on of node:1 (op-2) cannot be given up: redis:1 is handing its role over, and how that ends is found out first. Try again in a moment");
    // The primary kept its role: the action pauses with that, and nothing of it is skipped.
    let ends = (wanted.old.shard, wanted.epoch.next());
    let undone =
        controller::switchover::plan::undo(&world.cluster(), ends, ("it did not", true), now);
    world.apply(&undone.unwrap());
    let paused = newest(&world);
    assert_eq!(paused.status, OperationStatus::Paused);
    assert_eq!(paused.error_code, Some(ErrorCode::MoveUndone));
    assert_eq!(paused.shards, [ShardUid(1)]);
}

/// A move that is still being prepared when its operation is given up, pauses or is overtaken by a deletion
/// does not begin, and what was said of the operation stays.
#[test]
fn a_move_that_was_prepared_meanwhile_does_not_begin() {
    use controller::database::plan::Step;
    use controller::switchover::plan::{NotNow, begin, refuse};
    enum Meanwhile {
        Abort,
        Pause,
        Delete,
    }
    for meanwhile in [Meanwhile::Abort, Meanwhile::Pause, Meanwhile::Delete] {
        let mut world = world(true);
        let node = world.cluster().shards[0].node;
        let wish = MaintenanceWish::default();
        let operation = world.request(&on(node.0, wish, None)).unwrap();
        let operation = operation.operation.unwrap();
        let Some(Step::Move(wanted)) = world.plan().steps.into_iter().next() else {
            panic!("a move is next");
        };
        let prepared = world.cluster();
        match meanwhile {
            Meanwhile::Abort => {
                world.request(&abort(&operation)).unwrap();
            }
            Meanwhile::Pause => {
                let mut doc = newest(&world);
                doc.status = OperationStatus::Paused;
                doc.error = Some("it took too long".to_owned());
                world.apply(&Txn {
                    put: vec![(keys::operation(&doc.uid), json!(doc))],
                    ..Txn::default()
                });
            }
            Meanwhile::Delete => {
                let database = model::DatabaseUid(1);
                world.request(&Intent::DeleteDatabase { database }).unwrap();
            }
        }
        let (now, before) = (world.now, newest(&world));
        assert_eq!(begin(&world.cluster(), &wanted, now), None);
        let (primary, why) = (wanted.old.shard, NotNow::of("too late"));
        let refusal = refuse(&world.cluster(), primary, &wanted.operation, &why, now);
        assert_eq!(refusal, None);
        assert_eq!(newest(&world), before);
        // Nor if it was planned from what was before.
        let planned = begin(&prepared, &wanted, now).unwrap();
        let stored = world.state.apply(&planned).unwrap();
        assert!(matches!(stored, TxnResult::Conflict { .. }), "{stored:?}");
        assert!(world.cluster().shards.iter().all(|s| s.moving.is_none()));
    }
}

#[test]
fn an_action_on_a_node_works_on_as_many_databases_as_it_may() {
    let mut world = World::with_nodes(3);
    for name in ["a", "b", "c", "d", "e", "f", "g"] {
        created(name, &mut world, false);
    }
    let before = copies(&world);
    let there = before
        .iter()
        .filter(|copy| copy.contains("node:1 "))
        .count();
    assert_eq!(there, 3);
    let outcome = world
        .request(&on(1, MaintenanceWish::default(), Some(1)))
        .unwrap();
    assert_eq!(outcome.operations.len(), 3);
    let running = |world: &World| {
        let cluster = world.cluster();
        let all = cluster.operations.iter();
        all.filter(|o| o.status == OperationStatus::Active).count()
    };
    assert_eq!(running(&world), 1);
    for _ in 0..200 {
        world.settle_one();
        assert!(running(&world) <= 1);
    }
    assert_eq!(running(&world), 0);
    assert!(copies(&world).iter().all(|copy| !copy.contains("node:1 ")));
    let all = world.cluster();
    let mine = all.operations.iter().filter(|o| o.group.is_some());
    for operation in mine {
        assert_eq!(operation.status, OperationStatus::Completed);
        assert_eq!(operation.node, Some(NodeUid(1)));
        assert_eq!((operation.total, operation.progress()), (1, 100.0));
    }
}

#[test]
fn an_action_on_a_node_is_given_up_whole() {
    let mut world = World::with_nodes(3);
    for name in ["a", "b", "c", "d", "e", "f"] {
        created(name, &mut world, false);
    }
    let before = copies(&world);
    let remove = Intent::RemoveNode {
        node: NodeUid(2),
        pace: Pace::default(),
    };
    let outcome = world.request(&remove).unwrap();
    world.settle_one();
    // By the name of one of its parts, too.
    world.request(&abort(&outcome.operations[1])).unwrap();
    world.settle();
    assert_eq!(copies(&world), before);
    let cluster = world.cluster();
    assert!(!cluster.node(NodeUid(2)).unwrap().leaving);
    assert!(cluster.databases.iter().all(|d| d.operation.is_none()));
}

#[test]
fn what_only_waits_does_not_pause_and_a_deletion_is_not_given_up() {
    let mut world = world(false);
    world.silent.push(NodeUid(1));
    let change = Intent::UpdateDatabase {
        database: model::DatabaseUid(1),
        change: Box::new(model::intent::DatabaseChange {
            memory_size: Some(512 << 20),
            ..model::intent::DatabaseChange::default()
        }),
    };
    let operation = world.request(&change).unwrap().operation.unwrap();
    pass(&mut world, 600);
    world.settle();
    assert_eq!(newest(&world).status, OperationStatus::Active);
    world.request(&abort(&operation)).unwrap();
    let delete = Intent::DeleteDatabase {
        database: model::DatabaseUid(1),
    };
    let operation = world.request(&delete).unwrap().operation.unwrap();
    world.settle();
    let (code, why) = refused(&mut world, &abort(&operation));
    assert_eq!(code, ErrorCode::CannotAbort);
    insta::assert_snapshot!(why, @"SMDeleteBDB of db:1 (op-4) cannot be given up: a deletion cannot be undone; it ends when the nodes that it waits for are back, or are taken out of the cluster (`rladmin node <node> remove`)");
}

fn enslave(node: u64, pass_over_busy: bool) -> Intent {
    Intent::EnslaveNode {
        node: NodeUid(node),
        demote_node: false,
        pass_over_busy,
        pace: Pace::default(),
    }
}

#[test]
fn primaries_of_a_node_become_replicas() {
    let mut world = world(true);
    created("alone", &mut world, false);
    let before = world.cluster().shards[0].doc.clone();
    let node = before.node.0;
    world.request(&enslave(node, false)).unwrap();
    insta::assert_snapshot!(world.settle(), @"
    redis:1 moves to redis:2
    node:2 promises: redis:2 gives no promises to proxies yet
    node:1 promises: redis:1 gives no promises to proxies yet
    store: database db:1 is served by every proxy
    ");
    // There is nothing left to do.
    let outcome = world.request(&enslave(node, false)).unwrap();
    assert_eq!(outcome.operation, None);
}

/// A node that is being stopped, in maintenance mode or not heard gets no primary: where all go down,
/// nobody hands anything around.
#[test]
fn a_node_that_goes_down_gets_no_primary() {
    let mut world = world(true);
    let shards = world.cluster().shards.clone();
    let (here, there) = (shards[0].node, shards[1].node);
    world.nodes.get_mut(&there).unwrap().stopping = true;
    let outcome = world.request(&enslave(here.0, true)).unwrap();
    assert_eq!(outcome.operations, []);
    world.nodes.get_mut(&there).unwrap().stopping = false;
    let wish = MaintenanceWish {
        keep_slave_shards: true,
        ..MaintenanceWish::default()
    };
    world.request(&on(there.0, wish, None)).unwrap();
    world.settle();
    let outcome = world.request(&enslave(here.0, true)).unwrap();
    assert_eq!(outcome.operations, []);
    world.silent.push(here);
    let (code, why) = refused(&mut world, &enslave(here.0, false));
    assert_eq!(code, ErrorCode::NodeDown);
    assert!(why.contains("is not heard"), "{why}");
}

/// Who goes down passes over what is busy; who asks otherwise is told.
#[test]
fn a_busy_database_is_passed_over_by_a_node_that_goes_down() {
    let mut world = world(true);
    let shards = world.cluster().shards.clone();
    let free = (1..=3)
        .find(|n| shards.iter().all(|s| s.node.0 != *n))
        .unwrap();
    migrate(&mut world, shards[1].uid.0, free);
    let node = shards[0].node.0;
    let (code, _) = refused(&mut world, &enslave(node, false));
    assert_eq!(code, ErrorCode::Busy);
    assert_eq!(world.request(&enslave(node, true)).unwrap().operations, []);
}

#[test]
fn snapshots_are_made_restored_and_forgotten() {
    let mut world = world(true);
    let node = world.cluster().shards[0].node;
    let snapshot = |name: &str, what| Intent::NodeSnapshot {
        node,
        name: name.to_owned(),
        what,
        pace: Pace::default(),
    };
    let before = copies(&world);
    world
        .request(&snapshot("before", SnapshotWhat::Create))
        .unwrap();
    let (code, _) = refused(&mut world, &snapshot("before", SnapshotWhat::Create));
    assert_eq!(code, ErrorCode::NameAlreadyExists);
    let (code, _) = refused(&mut world, &snapshot("a b", SnapshotWhat::Create));
    assert_eq!(code, ErrorCode::NameViolation);
    world.request(&enslave(node.0, false)).unwrap();
    world.settle();
    assert_ne!(copies(&world), before);
    world
        .request(&snapshot("before", SnapshotWhat::Restore))
        .unwrap();
    world.settle();
    assert_eq!(copies(&world), before);
    // Maintenance mode gives back what was there, or what a snapshot says.
    world
        .request(&on(node.0, MaintenanceWish::default(), None))
        .unwrap();
    world.settle();
    let (code, _) = refused(&mut world, &snapshot("before", SnapshotWhat::Restore));
    assert_eq!(code, ErrorCode::NodeInState);
    let of_maintenance = world.cluster().node(node).unwrap().maintenance.clone();
    let of_maintenance = of_maintenance.unwrap().name;
    let (code, _) = refused(&mut world, &snapshot(&of_maintenance, SnapshotWhat::Delete));
    assert_eq!(code, ErrorCode::NodeInState);
    let off = |name: &str| Intent::MaintenanceOff {
        node,
        restore: Restore::Named(name.to_owned()),
        pace: Pace::default(),
    };
    let (code, _) = refused(&mut world, &off("nothing"));
    assert_eq!(code, ErrorCode::SnapshotNotFound);
    world.request(&off("before")).unwrap();
    world.settle();
    let roles = |copies: Vec<String>| -> Vec<String> {
        let mut words: Vec<String> = copies
            .iter()
            .map(|copy| copy.split_once(' ').unwrap().1.to_owned())
            .filter(|copy| copy.starts_with(&format!("node:{node} ")))
            .collect();
        words.sort();
        words
    };
    assert_eq!(roles(copies(&world)), roles(before));
    world
        .request(&snapshot("before", SnapshotWhat::Delete))
        .unwrap();
    let (code, _) = refused(&mut world, &snapshot("before", SnapshotWhat::Delete));
    assert_eq!(code, ErrorCode::SnapshotNotFound);
    for number in 0..16 {
        let name = format!("s{number}");
        world
            .request(&snapshot(&name, SnapshotWhat::Create))
            .unwrap();
    }
    let (code, why) = refused(&mut world, &snapshot("one-more", SnapshotWhat::Create));
    assert_eq!(code, ErrorCode::InvalidParam);
    assert!(why.contains("delete one first"), "{why}");
}

/// Replicas stay but for those of some databases.
#[test]
fn replicas_of_some_databases_go_all_the_same() {
    let mut world = world(true);
    created("other", &mut world, true);
    let node = world.cluster().shards[0].node;
    let wish = MaintenanceWish {
        keep_slave_shards: true,
        evict_dbs: vec![model::DatabaseUid(1)],
        ..MaintenanceWish::default()
    };
    world.request(&on(node.0, wish, None)).unwrap();
    world.settle();
    let cluster = world.cluster();
    let there = cluster.shards.iter().filter(|s| s.node == node);
    assert!(
        there
            .clone()
            .all(|s| s.database.0 == 2 && s.role == Role::Replica)
    );
}

/// A newer release has begun it, and an older node leads: it leaves that alone, says so, and serves the
/// database as ever.
#[test]
fn what_needs_a_newer_planner_is_left_alone() {
    let mut world = world(true);
    let free = (1..=3)
        .find(|n| world.cluster().shards.iter().all(|s| s.node.0 != *n))
        .unwrap();
    let operation = migrate(&mut world, 1, free);
    let needs = |world: &mut World, version: Option<u32>| {
        let mut doc = newest(world);
        doc.planner_version = version;
        world.apply(&Txn {
            put: vec![(keys::operation(&doc.uid), json!(doc))],
            ..Txn::default()
        });
    };
    assert_eq!(newest(&world).planner_version, Some(1));
    needs(&mut world, Some(2));
    pass(&mut world, 600);
    insta::assert_snapshot!(world.settle(), @"op-2 waits: a primary node of a newer release: it needs planner version 2, this one's is 1 (`rladmin cluster master set <node>`, or upgrade this one)");
    assert_eq!(copies(&world).len(), 2);
    for intent in [retry(&operation), abort(&operation)] {
        let (code, why) = refused(&mut world, &intent);
        assert_eq!(code, ErrorCode::UpgradeNotComplete);
        assert!(why.contains("master set"), "{why}");
    }
    // A failover is nothing of an operation.
    world.restart(ShardUid(1));
    let story = world.settle();
    assert!(story.contains("redis:2 becomes primary"), "{story}");
    // What it has under way, it has still: nothing is removed, nothing is taken up.
    let mut doc = world.cluster().shards[0].doc.clone();
    doc.removed_by = Some(operation.clone());
    let removed = |world: &mut World, doc: &model::documents::Shard| {
        world.apply(&Txn {
            put: vec![(keys::shard(doc.uid), json!(doc))],
            ..Txn::default()
        });
    };
    removed(&mut world, &doc);
    let story = world.settle();
    assert!(!story.contains("removes"), "{story}");
    doc.removed_by = None;
    removed(&mut world, &doc);
    // As release 1.1.0 stored it.
    needs(&mut world, None);
    world.settle();
    assert_eq!(newest(&world).status, OperationStatus::Completed);
    assert!(
        copies(&world)
            .iter()
            .any(|c| c.contains(&format!("node:{free} ")))
    );
}

#[test]
fn a_deletion_that_needs_a_newer_planner_is_left_alone() {
    let mut world = world(false);
    let database = model::DatabaseUid(1);
    world.request(&Intent::DeleteDatabase { database }).unwrap();
    let mut doc = newest(&world);
    doc.planner_version = Some(2);
    world.apply(&Txn {
        put: vec![(keys::operation(&doc.uid), json!(doc))],
        ..Txn::default()
    });
    let story = world.settle();
    assert!(
        story.contains("waits: a primary node of a newer"),
        "{story}"
    );
    assert_eq!(copies(&world).len(), 1);
}

/// One of many that wait for their database is not taken up either.
#[test]
fn what_waits_for_its_turn_and_needs_a_newer_planner_is_left_alone() {
    for (version, taken) in [(2, false), (1, true)] {
        let mut world = world(false);
        let operation = migrate(&mut world, 1, 3);
        let mut doc = newest(&world);
        doc.planner_version = Some(version);
        doc.status = OperationStatus::Pending;
        let mut database = world.cluster().databases[0].doc.clone();
        (database.operation, database.status) = (None, DatabaseStatus::Active);
        world.apply(&Txn {
            put: vec![
                (keys::operation(&operation), json!(doc)),
                (keys::database(database.uid), json!(database)),
            ],
            ..Txn::default()
        });
        world.settle();
        let done = newest(&world).status == OperationStatus::Completed;
        assert_eq!(done, taken);
        assert_eq!(world.cluster().databases[0].operation, None);
    }
}
