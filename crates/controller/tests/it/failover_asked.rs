//! Failovers that wait, so as not to follow each other without end, and an operator who does not.

use crate::failover::{PRIMARY, REPLICA, created, shard};
use crate::hangs::events;
use crate::world::World;
use jiff::SignedDuration;
use model::documents::{OperationStatus, Role};
use model::intent::{DatabaseChange, Intent, IntentOutcome, Pace};
use model::limits::{FAILOVERS_MAX, FAILOVERS_WITHIN};
use model::{ApiError, DatabaseUid, ErrorCode, ShardUid};

/// A replica set that has lost its primary once more than may be within a minute, a second after each other: the one that
/// died last, and its replica, which has the data.
fn waiting() -> (World, ShardUid, ShardUid) {
    let mut world = created();
    for round in 0..=FAILOVERS_MAX {
        world.now += SignedDuration::from_secs(1);
        world.crash([PRIMARY, REPLICA][round % 2]);
        world.settle();
    }
    let old = [PRIMARY, REPLICA][FAILOVERS_MAX % 2];
    let new = [REPLICA, PRIMARY][FAILOVERS_MAX % 2];
    assert_eq!(shard(&world, old).role, Role::Primary);
    (world, old, new)
}

fn asked(world: &mut World, uid: ShardUid) -> Result<IntentOutcome, ApiError> {
    world.request(&Intent::FailoverShards {
        database: None,
        shards: vec![uid],
        immediate: false,
    })
}

#[test]
fn failovers_do_not_follow_each_other_without_end() {
    let (mut world, old, new) = waiting();
    let trouble = shard(&world, old).trouble.unwrap();
    // The first of them was in second 1.
    let wait = "2 failovers within 60 s: the next one waits until 1970-01-01T00:01:01Z";
    assert!(trouble.contains(wait), "{trouble}");
    let remedy = format!("`rladmin failover shard {old}` does not wait");
    assert!(trouble.contains(&remedy), "{trouble}");
    let within = i64::try_from(FAILOVERS_WITHIN.as_secs()).unwrap();
    world.now = jiff::Timestamp::UNIX_EPOCH + SignedDuration::from_secs(within);
    world.settle();
    assert_eq!(shard(&world, new).role, Role::Replica);
    world.now += SignedDuration::from_secs(1);
    world.settle();
    assert!(shard(&world, new).is_serving());
}

/// The times of the failovers are an hour ahead of the clock now: they bound nothing.
#[test]
fn a_clock_that_is_set_back_holds_up_no_failover() {
    let (mut world, _, new) = waiting();
    world.now -= SignedDuration::from_hours(1);
    world.settle();
    assert!(shard(&world, new).is_serving());
}

#[test]
fn an_operator_who_asks_for_it_does_not_wait() {
    let (mut world, old, new) = waiting();
    let outcome = asked(&mut world, old).unwrap();
    let story = world.settle();
    assert!(
        story.contains(&format!("redis:{new} becomes primary of epoch 4")),
        "{story}"
    );
    assert!(shard(&world, new).is_serving());
    assert_eq!(shard(&world, new).failovers.len(), 1, "it begins again");
    let cluster = world.cluster();
    let operation = cluster.operation(&outcome.operation.unwrap()).unwrap();
    assert_eq!(operation.status, OperationStatus::Completed);
    let ended = events(&world, "failover_wait_ended");
    assert_eq!(ended.len(), 1);
    assert_eq!(ended[0]["shard_uid"], old.0);
    // The one that serves hands over by plan, as ever.
    asked(&mut world, new).unwrap();
    assert!(world.settle().contains(" moves to "));
}

/// What works on the database waits for its primary, too.
#[test]
fn nor_while_something_else_works_on_the_database() {
    let (mut world, old, new) = waiting();
    let change = DatabaseChange {
        memory_size: Some(2 << 30),
        ..DatabaseChange::default()
    };
    let tuned = world.request(&Intent::UpdateDatabase {
        database: DatabaseUid(1),
        change: Box::new(change),
    });
    tuned.unwrap();
    world.settle();
    assert_eq!(asked(&mut world, old).unwrap().operation, None);
    world.settle();
    assert!(shard(&world, new).is_serving());
    assert_eq!(world.cluster().databases[0].operation, None);
}

/// Nobody can take its place: the reason is told, and what it waits for; nothing changes.
#[test]
fn what_an_operator_cannot_shorten_is_told() {
    let mut world = created();
    world.silent.push(shard(&world, REPLICA).node);
    world.crash(PRIMARY);
    world.settle();
    let before = world.state.clone();
    let refused = asked(&mut world, PRIMARY).unwrap_err();
    assert_eq!(refused.error_code, ErrorCode::MoveFailed);
    let told = &refused.description;
    assert!(
        told.contains("redis:1 has stopped; redis:2 has the data, but node:2 is not heard"),
        "{told}"
    );
    assert_eq!(world.state, before);
}

/// One that is on its way comes for who asks for it, too; it had no time to wait for.
#[test]
fn a_failover_that_is_on_its_way_is_what_was_asked_for() {
    let mut world = created();
    world.crash(PRIMARY);
    let outcome = asked(&mut world, PRIMARY).unwrap();
    world.settle();
    assert!(shard(&world, REPLICA).is_serving());
    let cluster = world.cluster();
    let operation = cluster.operation(&outcome.operation.unwrap()).unwrap();
    assert_eq!(operation.status, OperationStatus::Completed);
    assert_eq!(events(&world, "failover_wait_ended").len(), 0);
}

/// A replica with the data is on a node that is not heard, so its primary, which was started again, waits; until an
/// operator takes that node out of the cluster: then it goes on with its own data.
#[test]
fn a_record_on_a_node_that_is_removed_vetoes_nothing() {
    let mut world = created();
    let node = shard(&world, REPLICA).node;
    world.silent.push(node);
    world.crash(PRIMARY);
    world.settle();
    let held = shard(&world, PRIMARY);
    let remedy = format!("`rladmin node {node} remove`");
    assert!(held.trouble.unwrap().contains(&remedy));
    let remove = Intent::RemoveNode {
        node,
        pace: Pace::default(),
    };
    world.request(&remove).unwrap();
    let story = world.settle();
    let primary = shard(&world, PRIMARY);
    assert!(primary.is_serving() && primary.trouble.is_none(), "{story}");
    let cluster = world.cluster();
    assert!(cluster.node(node).is_none(), "{story}");
    let mut copies = cluster.shards.iter().filter(|s| s.role == Role::Replica);
    assert!(copies.all(|s| s.node != node && s.synced.is_some()));
}

/// Replication switched off would delete what is left of the data of a primary that is not there.
#[test]
fn replication_stays_on_while_a_primary_is_lost() {
    let off = Intent::UpdateDatabase {
        database: DatabaseUid(1),
        change: Box::new(DatabaseChange {
            replication: Some(false),
            ..DatabaseChange::default()
        }),
    };
    let mut world = created();
    world.falls_silent(shard(&world, PRIMARY).node);
    world.link(REPLICA, false, false);
    let refused = world.request(&off).unwrap_err();
    assert_eq!(refused.error_code, ErrorCode::NotReady);
    let advice = "redis:2, which would be deleted, has its data";
    assert!(refused.description.contains(advice), "{refused:?}");
    world.settle();
    assert!(shard(&world, REPLICA).is_serving());
    world.request(&off).unwrap();
}
