//! A database's life, as a story of steps.

use crate::world::World;
use model::documents::{DatabaseStatus, EvictionPolicy, Persistence, ProxyPolicy, ShardsPlacement};
use model::intent::{DatabaseChange, DatabaseSpec, Intent};
use model::observation::EngineState;
use model::{DatabaseUid, Epoch, ErrorCode, NodeUid, ShardUid};

const DB: DatabaseUid = DatabaseUid(1);
const SHARD: ShardUid = ShardUid(1);

fn created() -> World {
    let mut world = World::with_nodes(3);
    world.create("demo").unwrap();
    world.settle();
    world
}

#[test]
fn creation_ends_when_every_proxy_serves() {
    let mut world = World::with_nodes(3);
    world.create("demo").unwrap();
    insta::assert_snapshot!(world.settle(), @r"
    node:1 starts: redis:1 does not run on node:1
    store: redis:1 is a new process: epoch 1
    node:1 makes primary: redis:1 has no role in epoch 1
    store: redis:1 is primary of epoch 1
    store: database db:1 is served by every proxy
    ");
    let state = world.cluster();
    assert_eq!(state.databases[0].status, DatabaseStatus::Active);
    assert!(state.operations[0].ended.is_some());
    assert_eq!(world.settle(), "", "a settled cluster has nothing to do");
}

#[test]
fn creation_waits_for_proxies_by_name() {
    let mut world = World::with_nodes(3);
    world.proxies_follow = false;
    world.create("demo").unwrap();
    let story = world.settle();
    assert!(
        story.ends_with("op-1 waits: the proxy of node:1 is not heard\n"),
        "{story}"
    );
    assert_eq!(world.cluster().databases[0].status, DatabaseStatus::Pending);
}

#[test]
fn a_crashed_engine_gets_a_new_epoch() {
    let mut world = created();
    world.crash(SHARD);
    insta::assert_snapshot!(world.settle(), @r"
    node:1 starts: redis:1 has stopped
    store: redis:1 is a new process: epoch 2
    node:1 makes primary: redis:1 has no role in epoch 2
    store: redis:1 is primary of epoch 2
    ");
    assert_eq!(world.epoch(SHARD), Epoch(2));
    let events = world.cluster().events.len();
    assert_eq!(events, 2, "bdb_created and shard_restarted");
}

/// It is tried again for ever, so the operation must say what is in the way.
#[test]
fn a_start_that_fails_is_tried_again_and_says_why() {
    let mut world = World::with_nodes(3);
    world.create("demo").unwrap();
    world.settle_one();
    for shard in world.nodes.values_mut().flat_map(|node| &mut node.shards) {
        shard.state = EngineState::Failed;
        shard.error = Some("the port is taken".to_owned());
    }
    let plan = world.plan();
    assert_eq!(plan.steps.len(), 1, "it is tried again");
    assert_eq!(plan.waits[0].1, "redis:1 does not start: the port is taken");
}

#[test]
fn between_two_epochs_no_proxy_uses_the_shard() {
    let mut world = created();
    world.crash(SHARD);
    while world.epoch(SHARD) == Epoch(1) {
        let plan = world.plan();
        assert_eq!(plan.steps.len(), 1);
        world.settle_one();
    }
    assert!(!world.cluster().shards[0].is_serving());
}

fn created_with(count: u32) -> World {
    let mut world = World::with_nodes(3);
    world
        .request(&Intent::CreateDatabase(DatabaseSpec {
            name: "demo".into(),
            memory_size: 1 << 30,
            shards_count: Some(count),
            shards_placement: Some(ShardsPlacement::Sparse),
            ..DatabaseSpec::default()
        }))
        .unwrap();
    world
}

#[test]
fn several_shards_each_get_their_role_before_the_database_serves() {
    let mut world = created_with(2);
    assert_eq!(
        world.cluster().databases[0].proxy_policy,
        ProxyPolicy::AllMasterShards
    );
    insta::assert_snapshot!(world.settle(), @"
    node:1 starts: redis:1 does not run on node:1
    store: redis:1 is a new process: epoch 1
    node:1 makes primary: redis:1 has no role in epoch 1
    store: redis:1 is primary of epoch 1
    node:2 starts: redis:2 does not run on node:2
    store: redis:2 is a new process: epoch 1
    node:2 makes primary: redis:2 has no role in epoch 1
    store: redis:2 is primary of epoch 1
    store: database db:1 is served by every proxy
    ");
    assert_eq!(world.cluster().databases[0].status, DatabaseStatus::Active);
    assert_eq!(world.settle(), "", "a settled cluster has nothing to do");
}

#[test]
fn a_database_waits_for_its_last_shard() {
    let mut world = created_with(2);
    world.settle_one();
    world.silent.push(NodeUid(2));
    let story = world.settle();
    assert!(
        story.ends_with("op-1 waits: node:2 is not heard\n"),
        "{story}"
    );
    assert_eq!(world.cluster().databases[0].status, DatabaseStatus::Pending);
}

/// Replica sets are each for themselves.
#[test]
fn a_crash_of_one_shard_changes_no_other() {
    let mut world = created_with(3);
    world.settle();
    world.crash(ShardUid(2));
    world.settle();
    let epochs: Vec<_> = (1..=3).map(|uid| world.epoch(ShardUid(uid))).collect();
    assert_eq!(epochs, [Epoch(1), Epoch(2), Epoch(1)]);
}

#[test]
fn a_change_of_memory_is_shared_among_the_shards_and_must_fit_each_node() {
    let mut world = created_with(4);
    world.settle();
    let mut change = |bytes: u64| {
        let change = DatabaseChange {
            memory_size: Some(bytes),
            ..DatabaseChange::default()
        };
        world
            .request(&Intent::UpdateDatabase {
                database: DB,
                change: Box::new(change),
            })
            .map(|_| {
                world.settle();
                let shards = &world.cluster().shards;
                shards.iter().map(|s| s.memory_bytes).collect::<Vec<_>>()
            })
            .map_err(|error| error.description)
    };
    let share = (1 << 30) / 2;
    assert_eq!(
        change((2 << 30) + 2),
        Ok(vec![share + 1, share + 1, share, share])
    );
    // Two of the four are on node:1, which has 4 GiB.
    assert_eq!(
        change(10 << 30),
        Err("node:1 has 4GB for its 2 shards, less than 5GB".to_owned())
    );
    assert_eq!(
        change(1 << 20),
        Err("memory_size 1048576 is too small: at least 16MB for 4 shards (4MB each)".to_owned())
    );
}

#[test]
fn deletion_removes_every_shard() {
    let mut world = created_with(4);
    world.settle();
    world
        .request(&Intent::DeleteDatabase { database: DB })
        .unwrap();
    world.settle();
    let state = world.cluster();
    assert!(state.databases.is_empty() && state.shards.is_empty());
    assert!(world.nodes.values().all(|node| node.shards.is_empty()));
}

#[test]
fn silence_vetoes() {
    let mut world = created();
    world.crash(SHARD);
    world.silent.push(NodeUid(1));
    assert!(world.plan().steps.is_empty());
    world
        .request(&Intent::DeleteDatabase { database: DB })
        .unwrap();
    let plan = world.plan();
    assert!(plan.steps.is_empty());
    assert_eq!(plan.waits[0].1, "node:1 is not heard");
}

#[test]
fn an_engine_that_does_not_answer_is_not_touched() {
    let mut world = created();
    for node in world.nodes.values_mut() {
        for shard in &mut node.shards {
            shard.state = EngineState::Unresponsive;
        }
    }
    assert!(world.plan().steps.is_empty());
}

#[test]
fn a_change_reconfigures_without_a_new_epoch() {
    let mut world = created();
    let change = DatabaseChange {
        memory_size: Some(2 << 30),
        eviction_policy: Some(EvictionPolicy::AllkeysLru),
        persistence: Some(Persistence::AofEverySecond),
        ..DatabaseChange::default()
    };
    world
        .request(&Intent::UpdateDatabase {
            database: DB,
            change: Box::new(change),
        })
        .unwrap();
    insta::assert_snapshot!(world.settle(), @r"
    node:1 reconfigures: redis:1 runs an older description
    store: database db:1 is served by every proxy
    ");
    assert_eq!(world.epoch(SHARD), Epoch(1));
    assert_eq!(world.cluster().shards[0].memory_bytes, 2 << 30);
}

/// The settings are in force at once, the files take as long as the data: the change ends with them.
#[test]
fn a_change_of_persistence_is_done_when_its_files_are_there() {
    let mut world = created();
    let change = DatabaseChange {
        persistence: Some(Persistence::Snapshot {
            seconds: 3600,
            writes: 1,
        }),
        ..DatabaseChange::default()
    };
    world
        .request(&Intent::UpdateDatabase {
            database: DB,
            change: Box::new(change),
        })
        .unwrap();
    world.seen(SHARD).files_pending = true;
    let waits = |world: &mut World| {
        world.settle();
        world.note_waits();
        world
            .cluster()
            .operations
            .last()
            .unwrap()
            .waiting_on
            .clone()
    };
    assert_eq!(
        waits(&mut world).as_deref(),
        Some("redis:1: the first files of its persistence are being written")
    );
    world.seen(SHARD).error = Some("the disk is full".to_owned());
    assert_eq!(
        waits(&mut world).as_deref(),
        Some("redis:1: the disk is full")
    );
    let seen = world.seen(SHARD);
    (seen.files_pending, seen.error) = (false, None);
    insta::assert_snapshot!(world.settle(), @"store: database db:1 is served by every proxy");
}

#[test]
fn deletion_removes_engines_first() {
    let mut world = created();
    world
        .request(&Intent::DeleteDatabase { database: DB })
        .unwrap();
    insta::assert_snapshot!(world.settle(), @r"
    node:1 removes: database db:1 is being deleted
    store: database db:1 has no shards left
    ");
    let state = world.cluster();
    assert!(state.databases.is_empty() && state.shards.is_empty());
    assert!(state.operations.iter().all(|o| o.ended.is_some()));
}

#[test]
fn nothing_is_deleted_without_an_operation_record() {
    let mut world = created();
    world
        .request(&Intent::DeleteDatabase { database: DB })
        .unwrap();
    let operation = world.cluster().databases[0].operation.clone().unwrap();
    let key = model::documents::keys::operation(&operation);
    world.apply(&store::Txn {
        delete: vec![key],
        ..store::Txn::default()
    });
    assert!(world.plan().steps.is_empty());
}

#[test]
fn uids_are_never_used_twice() {
    let mut world = created();
    world
        .request(&Intent::DeleteDatabase { database: DB })
        .unwrap();
    world.settle();
    let outcome = world.create("demo").unwrap();
    assert_eq!(outcome.database, Some(DatabaseUid(2)));
}

/// Less than what is used would have every write refused, unless keys may go.
#[test]
fn memory_does_not_shrink_below_what_is_used() {
    let mut world = World::with_nodes(1);
    world.create("demo").unwrap();
    world.settle();
    world.seen(ShardUid(1)).used_memory = 400 << 20;
    let shrink = |policy| Intent::UpdateDatabase {
        database: DatabaseUid(1),
        change: Box::new(DatabaseChange {
            memory_size: Some(300 << 20),
            eviction_policy: policy,
            ..DatabaseChange::default()
        }),
    };
    let before = world.state.clone();
    let refused = world.request(&shrink(None)).unwrap_err();
    assert_eq!(refused.error_code, ErrorCode::InsufficientResources);
    insta::assert_snapshot!(refused.description, @"redis:1 would get 300MB and uses 400MB: leave memory_size larger, delete keys first, or set an eviction_policy of all keys with the same command");
    assert_eq!(world.state, before);
    world
        .request(&shrink(Some(EvictionPolicy::AllkeysLru)))
        .unwrap();
}
