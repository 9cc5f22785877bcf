//! What is refused, with which code, and that nothing changes then.

use crate::world::World;
use model::documents::Persistence;
use model::intent::{ClusterChange, DatabaseChange, DatabaseSpec, Intent};
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
    assert_eq!(
        refused(|s| s.shards_count = Some(2)),
        ErrorCode::InvalidSharding
    );
    assert_eq!(
        refused(|s| s.replication = Some(true)),
        ErrorCode::InvalidReplication
    );
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
