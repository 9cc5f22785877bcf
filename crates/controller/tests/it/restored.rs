//! All were started again, and the node with a primary does not come back.

use crate::failover::{PRIMARY, REPLICA, shard, spec};
use crate::world::World;
use jiff::Timestamp;
use model::Epoch;
use model::documents::{Event, Persistence, Role, keys};
use model::intent::{ClusterChange, DatabaseSpec, Intent};
use model::replication::ReplicationObservation;
use serde_json::json;
use store::Txn;

/// Power was cut for all nodes, and the primary's does not come back: its replica has its data from the disk.
fn after_a_power_cut(persistence: Persistence) -> World {
    let mut world = World::with_nodes(3);
    let Intent::CreateDatabase(database) = spec(1) else {
        unreachable!("it creates one")
    };
    let database = DatabaseSpec {
        persistence: Some(persistence),
        ..database
    };
    world.request(&Intent::CreateDatabase(database)).unwrap();
    world.settle();
    world.falls_silent(shard(&world, PRIMARY).node);
    world.crash(REPLICA);
    world.settle();
    // As an engine is started: it follows nobody, and serves nobody.
    let seen = world.seen(REPLICA);
    seen.data_written = Some(Timestamp::UNIX_EPOCH);
    seen.replication = Some(ReplicationObservation {
        last_io_seconds: -1,
        second_offset: -1,
        ..ReplicationObservation::default()
    });
    world
}

fn wait_for_nodes(world: &mut World, seconds: u32) {
    let change = ClusterChange {
        slave_ha_grace_period: Some(seconds),
        ..ClusterChange::default()
    };
    world.request(&Intent::UpdateCluster(change)).unwrap();
}

#[test]
fn a_restarted_replica_serves_when_the_primary_does_not_come_back() {
    let mut world = after_a_power_cut(Persistence::AofEverySecond);
    // It is waited for longer than the node has been silent.
    assert_eq!(world.settle(), "");
    assert_eq!(world.epoch(PRIMARY), Epoch(1));
    wait_for_nodes(&mut world, 60);
    insta::assert_snapshot!(world.settle(), @r"
    store: node:1 has not been heard for 60 s, and every replica of redis:1 was started again: no proxy may use redis:1
    store: node:1 has not been heard for 60 s, and every replica of redis:1 was started again: redis:2 becomes primary of epoch 2 with what it had on disk at 1970-01-01T00:00:00Z
    node:2 makes primary: redis:2 has no role in epoch 2
    store: redis:2 is primary of epoch 2
    node:2 promises: redis:2 gives no promises to proxies yet
    ");
    let (old, new) = (shard(&world, PRIMARY), shard(&world, REPLICA));
    assert_eq!((old.role, new.serving), (Role::Replica, Some(Epoch(2))));
    let events = world.state.list::<Event>(keys::EVENTS).unwrap();
    assert!(
        events
            .iter()
            .any(|(event, _)| event.kind == "shard_restored")
    );
    world.silent.clear();
    assert!(world.settle().contains("redis:1 is synced in epoch 2"));
}

#[test]
fn a_restarted_replica_serves_only_when_all_is_known() {
    // A proxy may still use the primary.
    let mut world = after_a_power_cut(Persistence::AofEverySecond);
    wait_for_nodes(&mut world, 60);
    world.proxies_lag = true;
    world.settle();
    assert_eq!(world.epoch(PRIMARY), Epoch(1));
    // The primary's node comes back after all.
    world.silent.clear();
    world.settle();
    assert!(shard(&world, PRIMARY).is_usable());

    // How old the data are is not known, or there are none.
    let mut world = after_a_power_cut(Persistence::AofEverySecond);
    world.seen(REPLICA).data_written = None;
    wait_for_nodes(&mut world, 60);
    assert_eq!(world.settle(), "");
    let mut world = after_a_power_cut(Persistence::Disabled);
    wait_for_nodes(&mut world, 60);
    assert_eq!(world.settle(), "");

    // It had no record when all stopped: what it has on disk may be anything.
    let mut world = after_a_power_cut(Persistence::AofEverySecond);
    let mut unsynced = shard(&world, REPLICA);
    unsynced.synced = None;
    world.apply(&Txn {
        put: vec![(keys::shard(REPLICA), json!(unsynced))],
        ..Txn::default()
    });
    wait_for_nodes(&mut world, 60);
    assert_eq!(world.settle(), "");
}
