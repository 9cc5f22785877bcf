//! What is refused, with which code, and that nothing changes then.

use crate::world::World;
use model::documents::Persistence;
use model::intent::{ClusterChange, DatabaseChange, DatabaseSpec, Intent};
use model::limits::{SHARD_MEMORY_MIN, SHARDS_COUNT_MAX};
use model::{DatabaseUid, ErrorCode};

fn refused(change: impl FnOnce(&mut DatabaseSpec)) -> ErrorCode {
    let mut world = World::with_nodes(3);
    world.create("taken").unwrap();
    world.settle();
    let before = world.state.hash();
    let mut spec = DatabaseSpec {
        name: "fresh".into(),
        memory_size: 1 << 30,
        ..DatabaseSpec::default()
    };
    change(&mut spec);
    let error = world.request(&Intent::CreateDatabase(spec)).unwrap_err();
    assert_eq!(
        world.state.hash(),
        before,
        "a refused request changes nothing"
    );
    assert!(error.description.len() > 10, "{error}");
    error.error_code
}

#[test]
fn databases_that_cannot_be() {
    assert_eq!(
        refused(|s| s.name = "taken".into()),
        ErrorCode::NameAlreadyExists
    );
    assert_eq!(
        refused(|s| s.name = String::new()),
        ErrorCode::MissingDbName
    );
    assert_eq!(refused(|s| s.name = "a b".into()), ErrorCode::NameViolation);
    assert_eq!(
        refused(|s| s.port = Some(12_000)),
        ErrorCode::PortUnavailable
    );
    assert_eq!(
        refused(|s| s.port = Some(9_443)),
        ErrorCode::PortUnavailable
    );
    assert_eq!(refused(|s| s.memory_size = 0), ErrorCode::MissingMemorySize);
    assert_eq!(refused(|s| s.memory_size = 1), ErrorCode::InvalidParam);
    assert_eq!(
        refused(|s| s.memory_size = 1 << 50),
        ErrorCode::InsufficientResources
    );
    assert_eq!(
        refused(|s| s.redis_version = Some("5.0".into())),
        ErrorCode::InvalidVersion
    );
    for count in [0, SHARDS_COUNT_MAX + 1, 512, u32::MAX] {
        assert_eq!(
            refused(|s| s.shards_count = Some(count)),
            ErrorCode::InvalidSharding
        );
    }
    let share_too_small = |s: &mut DatabaseSpec| {
        s.shards_count = Some(4);
        s.memory_size = 4 * SHARD_MEMORY_MIN - 1;
    };
    assert_eq!(refused(share_too_small), ErrorCode::InvalidParam);
    assert_eq!(
        refused(|s| s.uid = Some(DatabaseUid(1))),
        ErrorCode::UidExists
    );
    let nothing = Persistence::Snapshot {
        seconds: 0,
        writes: 1,
    };
    assert_eq!(
        refused(|s| s.persistence = Some(nothing)),
        ErrorCode::InvalidDataPersistence
    );
}

/// What is wrong with a request is told before what the cluster has no room for.
#[test]
fn a_wrong_value_is_told_before_a_lack_of_room() {
    let too_much = || DatabaseSpec {
        memory_size: 1 << 50,
        ..DatabaseSpec::default()
    };
    let nothing = Persistence::Snapshot {
        seconds: 0,
        writes: 1,
    };
    let (mut port, mut uid, mut snapshot, mut events) =
        (too_much(), too_much(), too_much(), too_much());
    port.port = Some(1);
    uid.uid = Some(DatabaseUid(1));
    snapshot.persistence = Some(nothing);
    events.notify_keyspace_events = Some("?".into());
    for (spec, code) in [
        (too_much(), ErrorCode::InsufficientResources),
        (port, ErrorCode::PortUnavailable),
        (uid, ErrorCode::UidExists),
        (snapshot, ErrorCode::InvalidDataPersistence),
        (events, ErrorCode::InvalidParam),
    ] {
        let named = DatabaseSpec {
            name: "fresh".into(),
            ..spec
        };
        assert_eq!(refused(|s| *s = named), code);
    }
}

#[test]
fn one_change_at_a_time() {
    let mut world = World::with_nodes(1);
    world.create("demo").unwrap();
    let change = DatabaseChange {
        max_connections: Some(5),
        ..DatabaseChange::default()
    };
    let update = Intent::UpdateDatabase {
        database: DatabaseUid(1),
        change: Box::new(change),
    };
    assert_eq!(
        world.request(&update).unwrap_err().error_code,
        ErrorCode::Busy
    );
    world.settle();
    assert!(world.request(&update).unwrap().operation.is_some());
    world.settle();
    let again = world.request(&update).unwrap();
    assert_eq!(again.operation, None, "the same again is no change");
}

#[test]
fn what_does_not_exist() {
    let mut world = World::with_nodes(1);
    let gone = Intent::DeleteDatabase {
        database: DatabaseUid(7),
    };
    assert_eq!(
        world.request(&gone).unwrap_err().error_code,
        ErrorCode::DbNotFound
    );
    let version = ClusterChange {
        default_redis_version: Some("1.0".into()),
        ..ClusterChange::default()
    };
    let error = world.request(&Intent::UpdateCluster(version)).unwrap_err();
    assert_eq!(error.error_code, ErrorCode::InvalidVersion);
}

/// The reason names what would do.
#[test]
fn a_share_that_is_too_small_says_what_is_enough() {
    let mut world = World::with_nodes(1);
    let error = world
        .request(&Intent::CreateDatabase(DatabaseSpec {
            name: "demo".into(),
            memory_size: 5 << 20,
            shards_count: Some(2),
            ..DatabaseSpec::default()
        }))
        .unwrap_err();
    assert_eq!(
        error.description,
        "memory_size 5242880 is too small: at least 8MB for 2 shards (4MB each)"
    );
}
