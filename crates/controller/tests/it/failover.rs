//! Replica sets: created, synced, recorded, and what happens when one of them is gone.

use crate::world::World;
use controller::database::plan::{self, Step};
use controller::observed::Observations;
use model::documents::{OperationStatus, Role, Shard, ShardsPlacement, keys};
use model::intent::{DatabaseChange, DatabaseSpec, Intent};
use model::observation::KeeperObservation;
use model::{DatabaseUid, Epoch, ErrorCode, NodeUid, ShardUid};
use serde_json::json;
use std::time::{Duration, Instant};
use store::Txn;

pub(crate) const PRIMARY: ShardUid = ShardUid(1);
pub(crate) const REPLICA: ShardUid = ShardUid(2);

pub(crate) fn spec(count: u32) -> Intent {
    Intent::CreateDatabase(DatabaseSpec {
        name: "demo".into(),
        memory_size: 1 << 30,
        shards_count: Some(count),
        replication: Some(true),
        ..DatabaseSpec::default()
    })
}

pub(crate) fn created() -> World {
    let mut world = World::with_nodes(3);
    world.request(&spec(1)).unwrap();
    world.settle();
    world
}

pub(crate) fn shard(world: &World, uid: ShardUid) -> Shard {
    let cluster = world.cluster();
    cluster
        .shards
        .iter()
        .find(|s| s.uid == uid)
        .unwrap()
        .doc
        .clone()
}

#[test]
fn creation_ends_when_replicas_are_synced() {
    let mut world = World::with_nodes(3);
    world.request(&spec(1)).unwrap();
    insta::assert_snapshot!(world.settle(), @r"
    node:1 starts: redis:1 does not run on node:1
    store: redis:1 is a new process: epoch 1
    node:1 makes primary: redis:1 has no role in epoch 1
    store: redis:1 is primary of epoch 1
    node:1 promises: redis:1 gives no promises to proxies yet
    node:2 starts: redis:2 does not run on node:2
    node:2 follows: redis:2 does not follow redis:1 in epoch 1
    store: redis:2 is synced in epoch 1
    node:2 promises: redis:2 gives no promises to proxies yet
    store: database db:1 is served by every proxy
    ");
    let (primary, replica) = (shard(&world, PRIMARY), shard(&world, REPLICA));
    assert_eq!((primary.role, replica.role), (Role::Primary, Role::Replica));
    assert_ne!(primary.node, replica.node);
    assert_eq!(primary.slots, replica.slots);
    assert_eq!(primary.users.repl, replica.users.repl);
    // The limit of the database covers both.
    assert_eq!(primary.memory_bytes + replica.memory_bytes, 1 << 30);
    let record = replica.synced.unwrap();
    assert_eq!(record.epoch, Epoch(1));
    assert_eq!(world.settle(), "", "a settled cluster has nothing to do");
}

#[test]
fn no_two_copies_of_a_slot_are_on_one_node() {
    let mut world = World::with_nodes(3);
    world.request(&spec(12)).unwrap();
    let cluster = world.cluster();
    assert_eq!(cluster.shards.len(), 24);
    for primary in cluster.shards.iter().filter(|s| s.role == Role::Primary) {
        let replicas: Vec<_> = cluster
            .shards
            .iter()
            .filter(|s| s.role == Role::Replica && s.slots == primary.slots)
            .collect();
        assert_eq!(replicas.len(), 1);
        assert_ne!(replicas[0].node, primary.node);
    }
    let refused = World::with_nodes(1).request(&spec(1)).unwrap_err();
    assert_eq!(refused.error_code, ErrorCode::InsufficientResources);
    assert!(
        refused.description.contains("node:1 has the primary"),
        "{}",
        refused.description
    );
}

#[test]
fn a_crashed_primary_is_replaced_by_its_replica() {
    let mut world = created();
    world.write(PRIMARY, 1000);
    world.crash(PRIMARY);
    insta::assert_snapshot!(world.settle(), @r"
    store: redis:1 has stopped: redis:2 becomes primary of epoch 2
    node:2 promotes: redis:2 has no role in epoch 2
    store: redis:2 is primary of epoch 2
    node:2 promises: redis:2 gives no promises to proxies yet
    node:1 starts: redis:1 has stopped
    node:1 follows: redis:1 does not follow redis:2 in epoch 2
    store: redis:1 is synced in epoch 2
    node:1 promises: redis:1 gives no promises to proxies yet
    ");
    assert_eq!(shard(&world, REPLICA).serving, Some(Epoch(2)));
    assert_eq!(shard(&world, PRIMARY).role, Role::Replica);
    assert!(shard(&world, PRIMARY).synced.is_some());
}

/// It is back before anybody heard that it was gone: what it has now is less than its replica has.
#[test]
fn a_primary_that_restarts_at_once_is_replaced_too() {
    let mut world = created();
    let seen = world.seen(PRIMARY);
    seen.run_id = Some("another".into());
    seen.role = None;
    seen.epoch = None;
    seen.replication = None;
    world.settle();
    assert_eq!(shard(&world, REPLICA).serving, Some(Epoch(2)));
}

#[test]
fn an_unsynced_replica_is_never_promoted() {
    let mut world = created();
    let replica = world.seen(REPLICA).replication.as_mut().unwrap();
    (replica.sync_in_progress, replica.link_up) = (true, false);
    world.settle();
    assert_eq!(shard(&world, REPLICA).synced, None);
    world.crash(PRIMARY);
    let story = world.settle();
    assert!(
        story.contains("redis:1 is a new process: epoch 2"),
        "{story}"
    );
    assert_eq!(shard(&world, PRIMARY).serving, Some(Epoch(2)));
    assert_eq!(shard(&world, REPLICA).role, Role::Replica);
}

/// The replica with the data is on a node that is not heard: the primary may not begin without them.
#[test]
fn a_record_that_cannot_be_looked_at_vetoes() {
    let mut world = created();
    world.silent.push(shard(&world, REPLICA).node);
    world.crash(PRIMARY);
    let story = world.settle();
    assert!(story.contains("is not heard"), "{story}");
    let primary = shard(&world, PRIMARY);
    assert_eq!((primary.role, primary.epoch), (Role::Primary, Epoch(1)));
    assert!(
        primary
            .trouble
            .unwrap()
            .contains("redis:2 has the data, but node:")
    );
    world.silent.clear();
    world.settle();
    assert_eq!(shard(&world, REPLICA).serving, Some(Epoch(2)));
    assert_eq!(shard(&world, REPLICA).trouble, None);
}

/// Its node alone is silent; its replica hears it still.
#[test]
fn a_primary_that_its_replica_hears_is_not_replaced() {
    let mut world = created();
    world.silent.push(shard(&world, PRIMARY).node);
    assert_eq!(world.settle(), "");
    assert_eq!(world.epoch(PRIMARY), Epoch(1));
}

/// Nobody hears it: first no proxy may use it, then its replica takes its place.
#[test]
fn a_primary_that_nobody_hears_is_replaced() {
    let mut world = created();
    world.falls_silent(shard(&world, PRIMARY).node);
    world.link(REPLICA, false, false);
    insta::assert_snapshot!(world.settle(), @r"
    store: node:1 is not heard, and no replica hears redis:1: no proxy may use redis:1
    store: node:1 is not heard, and no replica hears redis:1: redis:2 becomes primary of epoch 2
    node:2 promotes: redis:2 has no role in epoch 2
    store: redis:2 is primary of epoch 2
    node:2 promises: redis:2 gives no promises to proxies yet
    ");
    let (old, new) = (shard(&world, PRIMARY), shard(&world, REPLICA));
    assert_eq!((old.role, old.fence), (Role::Replica, None));
    assert_eq!((new.serving, new.fence), (Some(Epoch(2)), None));
    world.silent.clear();
    assert!(world.settle().contains("redis:1 is synced in epoch 2"));
}

/// A proxy may still use it.
#[test]
fn a_primary_is_not_replaced_while_a_proxy_may_have_a_lease() {
    let mut world = created();
    world.falls_silent(shard(&world, PRIMARY).node);
    world.link(REPLICA, false, false);
    world.proxies_lag = true;
    assert_eq!(
        world.settle(),
        "store: node:1 is not heard, and no replica hears redis:1: no proxy may use redis:1\n"
    );
    let old = shard(&world, PRIMARY);
    assert!(old.is_withheld() && !old.is_usable() && old.is_serving());
    assert!(shard(&world, REPLICA).synced.is_some());
    // It is heard before anybody took its place.
    world.silent.clear();
    world.link(REPLICA, true, false);
    world.settle();
    assert!(shard(&world, PRIMARY).is_usable());
    assert_eq!(world.epoch(PRIMARY), Epoch(1));
}

/// Its node stays silent, but its replica hears it: nothing will take its place, so it goes on.
#[test]
fn a_withheld_primary_that_its_replica_hears_again_goes_on() {
    let mut world = created();
    world.falls_silent(shard(&world, PRIMARY).node);
    world.link(REPLICA, false, false);
    world.proxies_lag = true;
    world.settle();
    assert!(shard(&world, PRIMARY).is_withheld());
    world.link(REPLICA, true, false);
    world.settle();
    assert!(shard(&world, PRIMARY).is_usable());
    assert_eq!(world.epoch(PRIMARY), Epoch(1));
}

/// Who could be left without the lease is not known until each proxy has told.
#[test]
fn a_first_copy_is_recorded_when_every_proxy_needs_a_lease() {
    let mut world = World::with_nodes(3);
    world.create("demo").unwrap();
    world.settle();
    world.proxies_follow = false;
    switch(&mut world, true, Some(2 << 30)).unwrap();
    let story = world.settle();
    assert!(story.contains("without a lease"), "{story}");
    assert!(shard(&world, REPLICA).synced.is_none());
    world.proxies_follow = true;
    let story = world.settle();
    let leased = story.find("served only with a lease").unwrap();
    assert!(leased < story.find("redis:2 is synced").unwrap(), "{story}");
}

/// Somebody may rest on the promises of fewer copies than there are now.
#[test]
fn a_copy_is_recorded_when_no_promise_leaves_it_out() {
    let mut world = created();
    world.crash(REPLICA);
    world.settle_one();
    let user = world.seen(PRIMARY).keeper.clone().unwrap().user;
    let others = |user: &str, alone: bool| KeeperObservation {
        user: user.to_owned(),
        alone,
    };
    world.seen(PRIMARY).keeper = Some(others(&user, false));
    world.settle();
    assert!(shard(&world, REPLICA).synced.is_none());
    world.seen(PRIMARY).keeper = Some(others(&user, true));
    world.settle();
    assert!(shard(&world, REPLICA).synced.is_some());
}

/// The chosen replica dies before it serves: nobody has written in its epoch, so the old primary's own
/// data are the newest.
#[test]
fn a_target_that_dies_before_it_serves_gives_the_role_back() {
    let mut world = created();
    world.crash(PRIMARY);
    world.settle_one();
    assert_eq!(shard(&world, REPLICA).role, Role::Primary);
    world.crash(REPLICA);
    let story = world.settle();
    assert!(
        story.contains("redis:1 comes back with its own data"),
        "{story}"
    );
    assert_eq!(shard(&world, PRIMARY).serving, Some(Epoch(3)));
    assert!(shard(&world, REPLICA).synced.is_some());
}

#[test]
fn a_lost_replica_comes_back_and_is_recorded_again() {
    let mut world = created();
    world.crash(REPLICA);
    insta::assert_snapshot!(world.settle(), @r"
    node:2 starts: redis:2 has stopped
    store: redis:2 is not synced any more: another process or epoch
    node:2 follows: redis:2 does not follow redis:1 in epoch 1
    store: redis:2 is synced in epoch 1
    node:2 promises: redis:2 gives no promises to proxies yet
    ");
    assert_eq!(shard(&world, REPLICA).synced.unwrap().epoch, Epoch(1));
}

/// Both at once, without persistence: nothing is left, and nobody claims otherwise.
#[test]
fn when_all_copies_are_gone_the_primary_comes_back() {
    let mut world = created();
    world.crash(PRIMARY);
    world.crash(REPLICA);
    let story = world.settle();
    assert!(
        story.contains("redis:1 is a new process: epoch 2"),
        "{story}"
    );
    assert_eq!(shard(&world, PRIMARY).serving, Some(Epoch(2)));
    assert!(shard(&world, REPLICA).synced.is_some());
}

#[test]
fn a_silent_replica_that_its_primary_does_not_see_is_not_synced() {
    let mut world = created();
    let node: NodeUid = shard(&world, REPLICA).node;
    world.silent.push(node);
    world.settle();
    assert!(
        shard(&world, REPLICA).synced.is_some(),
        "its primary sees it"
    );
    let primary = world.seen(PRIMARY).replication.as_mut().unwrap();
    primary.replicas.clear();
    world.settle();
    assert_eq!(shard(&world, REPLICA).synced, None);
}

fn switch(world: &mut World, on: bool, memory_size: Option<u64>) -> Result<(), ErrorCode> {
    let change = DatabaseChange {
        replication: Some(on),
        memory_size,
        ..DatabaseChange::default()
    };
    let intent = Intent::UpdateDatabase {
        database: DatabaseUid(1),
        change: Box::new(change),
    };
    world.request(&intent).map(|_| ()).map_err(|e| e.error_code)
}

#[test]
fn replication_is_switched_off_and_on() {
    let mut world = created();
    switch(&mut world, false, None).unwrap();
    let story = world.settle();
    assert!(
        story.contains("removes: redis:2 is not wanted any more"),
        "{story}"
    );
    let state = world.cluster();
    assert_eq!(state.shards.len(), 1);
    assert_eq!(
        state.shards[0].memory_bytes,
        1 << 30,
        "it has all of it now"
    );
    // It uses more than half of the limit: its half would be too small.
    world.seen(PRIMARY).used_memory = 600 << 20;
    assert_eq!(
        switch(&mut world, true, None),
        Err(ErrorCode::InsufficientResources)
    );
    switch(&mut world, true, Some(2 << 30)).unwrap();
    world.settle();
    let replica = shard(&world, ShardUid(3));
    assert!(replica.synced.is_some());
    assert_eq!(replica.memory_bytes, 1 << 30);
    assert_ne!(replica.node, shard(&world, PRIMARY).node);
    assert_eq!(world.settle(), "");
}

fn with_memory(world: &mut World, bytes: u64) {
    let nodes = world.cluster().nodes.clone();
    let put = nodes.into_iter().map(|node| {
        let mut doc = node.doc;
        doc.memory_bytes = bytes;
        (keys::node(doc.uid), json!(doc))
    });
    let put = put.collect();
    world.apply(&Txn {
        put,
        ..Txn::default()
    });
}

/// Primaries on each of two nodes, without replicas.
fn alone() -> World {
    let mut world = World::with_nodes(2);
    let spec = DatabaseSpec {
        name: "demo".into(),
        memory_size: 2 << 30,
        shards_count: Some(2),
        shards_placement: Some(ShardsPlacement::Sparse),
        ..DatabaseSpec::default()
    };
    world.request(&Intent::CreateDatabase(spec)).unwrap();
    world.settle();
    world
}

/// Nothing is left on any node, but each primary gives half of its own away.
#[test]
fn replicas_take_the_room_that_their_primaries_give_away() {
    let mut world = alone();
    with_memory(&mut world, 1 << 30);
    switch(&mut world, true, None).unwrap();
    world.settle();
    let cluster = world.cluster();
    for node in &cluster.nodes {
        assert_eq!(cluster.shards_on(node.uid), 2);
        assert_eq!(cluster.promised_memory(node.uid), 1 << 30);
    }
}

/// Primaries grow by the same command: what they will have is not given to replicas too.
#[test]
fn room_that_primaries_will_have_is_not_promised_to_replicas() {
    let mut world = alone();
    // Each primary will have 2 GB, and there is 1 GB beside it.
    with_memory(&mut world, 3 << 30);
    let before = world.state.clone();
    assert_eq!(
        switch(&mut world, true, Some(8 << 30)),
        Err(ErrorCode::InsufficientResources)
    );
    assert_eq!(world.state, before);
    with_memory(&mut world, 4 << 30);
    switch(&mut world, true, Some(8 << 30)).unwrap();
    world.settle();
    let cluster = world.cluster();
    for node in &cluster.nodes {
        assert_eq!(cluster.promised_memory(node.uid), 4 << 30);
    }
}

/// As many as one transaction of the store can hold.
#[test]
fn replication_of_the_largest_database_is_switched_on() {
    let mut world = World::with_nodes(3);
    let spec = DatabaseSpec {
        name: "large".into(),
        memory_size: 1 << 30,
        shards_count: Some(model::limits::SHARDS_COUNT_MAX),
        ..DatabaseSpec::default()
    };
    world.request(&Intent::CreateDatabase(spec)).unwrap();
    while world.cluster().databases[0].operation.is_some() {
        world.settle_all();
    }
    switch(&mut world, true, None).unwrap();
}

fn failover(world: &mut World, shards: &[u64]) -> Result<(), ErrorCode> {
    asked(world, shards, false)
}

fn asked(world: &mut World, shards: &[u64], immediate: bool) -> Result<(), ErrorCode> {
    let intent = Intent::FailoverShards {
        database: None,
        shards: shards.iter().copied().map(ShardUid).collect(),
        immediate,
    };
    world.request(&intent).map(|_| ()).map_err(|e| e.error_code)
}

#[test]
fn a_replica_that_has_just_begun_to_follow_is_waited_for_unless_immediate() {
    for immediate in [false, true] {
        let mut world = created();
        world.links_are_new = true;
        let intent = Intent::FailoverShards {
            database: None,
            shards: vec![PRIMARY],
            immediate,
        };
        world.request(&intent).unwrap();
        let story = world.settle();
        assert_eq!(story.contains("redis:1 moves"), immediate, "{story}");
        let waits = "waits: redis:2 has followed for less than 2 s";
        assert_eq!(story.contains(waits), !immediate, "{story}");
        world.links_are_new = false;
        world.settle();
        assert_eq!(shard(&world, REPLICA).role, Role::Primary);
    }
}

#[test]
fn a_primary_hands_over_on_request() {
    let mut world = created();
    failover(&mut world, &[1]).unwrap();
    insta::assert_snapshot!(world.settle(), @r"
    redis:1 moves to redis:2
    node:2 promises: redis:2 gives no promises to proxies yet
    node:1 promises: redis:1 gives no promises to proxies yet
    store: database db:1 is served by every proxy
    ");
    let (old, new) = (shard(&world, PRIMARY), shard(&world, REPLICA));
    assert_eq!((old.role, new.role), (Role::Replica, Role::Primary));
    assert_eq!((old.moving, new.serving), (None, Some(Epoch(2))));
    assert!(old.synced.is_some());
    let cluster = world.cluster();
    let operation = cluster.operations.last().unwrap();
    assert_eq!(operation.status, OperationStatus::Completed);
    assert_eq!(
        (operation.moved[0].from, operation.moved[0].to),
        (PRIMARY, REPLICA)
    );
    assert!(new.failovers.is_empty(), "it was no failure");
}

#[test]
fn several_primaries_hand_over_one_after_the_other() {
    let mut world = World::with_nodes(3);
    world.request(&spec(4)).unwrap();
    world.settle();
    failover(&mut world, &[1, 3, 1]).unwrap();
    // One operation works on a database, whichever of its slots another one is about.
    assert_eq!(failover(&mut world, &[2]), Err(ErrorCode::Busy));
    let story = world.settle();
    assert_eq!(story.matches(" moves to ").count(), 2, "{story}");
    assert_eq!(world.cluster().databases[0].operation, None);
}

#[test]
fn what_cannot_be_handed_over_is_refused_and_nothing_changes() {
    let mut world = created();
    let unsynced = Err(ErrorCode::ReplicaNotSynced);
    // Who hurries is refused all the same: what `immediate` passes over is the time for which it has followed.
    for immediate in [false, true] {
        let before = world.state.clone();
        for (shards, code) in [
            (vec![], ErrorCode::ShardUidsRequired),
            (vec![9], ErrorCode::ShardNotExist),
            (vec![2], ErrorCode::ShardIsSlave),
        ] {
            assert_eq!(asked(&mut world, &shards, immediate), Err(code));
        }
        let replica = world.seen(REPLICA).replication.as_mut().unwrap();
        replica.link_up = false;
        assert_eq!(asked(&mut world, &[1], immediate), unsynced);
        world.seen(REPLICA).replication.as_mut().unwrap().link_up = true;
        world.seen(PRIMARY).replication.as_mut().unwrap().replicas[0].lag_seconds = 60;
        assert_eq!(asked(&mut world, &[1], immediate), unsynced);
        world.seen(PRIMARY).replication.as_mut().unwrap().replicas[0].lag_seconds = 0;
        assert_eq!(world.state, before);
        // All is well but for the record.
        let synced = shard(&world, REPLICA);
        record(&mut world, &synced, false);
        let without = world.state.clone();
        assert_eq!(asked(&mut world, &[1], immediate), unsynced);
        assert_eq!(world.state, without);
        record(&mut world, &synced, true);
    }
    failover(&mut world, &[1]).unwrap();
    assert_eq!(failover(&mut world, &[1]), Err(ErrorCode::Busy));
}

/// A shard as it is, with its record or without.
fn record(world: &mut World, shard: &Shard, kept: bool) {
    let mut doc = shard.clone();
    doc.synced = doc.synced.filter(|_| kept);
    world.apply(&Txn {
        put: vec![(keys::shard(doc.uid), json!(doc))],
        ..Txn::default()
    });
}

/// Between the request and its turn the replica loses its data: it is waited for, by name.
#[test]
fn a_move_waits_for_a_replica_that_syncs() {
    let mut world = created();
    failover(&mut world, &[1]).unwrap();
    let replica = world.seen(REPLICA).replication.as_mut().unwrap();
    (replica.link_up, replica.sync_in_progress) = (false, true);
    let story = world.settle();
    assert!(
        story.contains("waits: redis:2 gets all data from its primary"),
        "{story}"
    );
    assert_eq!(shard(&world, PRIMARY).serving, Some(Epoch(1)));
    let replica = world.seen(REPLICA).replication.as_mut().unwrap();
    (replica.link_up, replica.sync_in_progress) = (true, false);
    world.settle();
    assert_eq!(shard(&world, REPLICA).serving, Some(Epoch(2)));
}

/// This node led, another one did, now this one does again, all within the time for which a heartbeat counts.
/// Meanwhile the primary was started again. What was heard before proves nothing.
#[test]
fn what_was_heard_before_another_node_led_does_not_count() {
    let mut world = created();
    let before = world.nodes.clone();
    // Under the other one: no replica had the data, so the primary's new process began an epoch of its own.
    let mut doc = shard(&world, REPLICA);
    doc.synced = None;
    world.apply(&Txn {
        put: vec![(keys::shard(REPLICA), json!(doc))],
        ..Txn::default()
    });
    world.restart(PRIMARY);
    world.settle();
    let cluster = world.cluster();
    assert_eq!(shard(&world, PRIMARY).serving, Some(Epoch(2)));
    let replica = shard(&world, REPLICA);
    assert!(replica.synced.is_some());

    let start = Instant::now();
    let after = |milliseconds| start + Duration::from_millis(milliseconds);
    let mut observed = Observations::default();
    observed.in_term(1, start);
    for node in before.values() {
        observed.record(node.clone(), after(500));
    }
    observed.in_term(3, after(1_500));
    // The replica's node is the first to tell.
    observed.record(world.nodes[&replica.node].clone(), after(1_600));
    let plan = plan::plan(&cluster, &observed, after(1_700), world.now);
    let stores = |step: &&Step| matches!(step, Step::Store { .. });
    assert_eq!(plan.steps.iter().find(stores), None);
    // All have told: there is nothing to do either.
    for node in world.nodes.values() {
        observed.record(node.clone(), after(1_800));
    }
    let plan = plan::plan(&cluster, &observed, after(1_900), world.now);
    assert_eq!(plan.steps.iter().find(stores), None);
}

/// For how long a replica has followed, or not, counts from when this node leads: what was in between is not
/// known.
#[test]
fn links_count_from_when_this_node_leads() {
    let mut world = created();
    let second = Duration::from_secs(1);
    let start = Instant::now();
    let mut observed = Observations::default();
    let record = |observed: &mut Observations, world: &World, at: Instant| {
        for node in world.nodes.values() {
            observed.record(node.clone(), at);
        }
    };
    observed.in_term(1, start);
    record(&mut observed, &world, start);
    assert_eq!(observed.follows_for(REPLICA, start + second), second);
    observed.in_term(3, start + second);
    assert_eq!(
        observed.follows_for(REPLICA, start + second),
        Duration::ZERO
    );
    assert!(observed.last_offset(PRIMARY).is_none());
    world.link(REPLICA, false, false);
    record(&mut observed, &world, start + second);
    assert_eq!(observed.unlinked_since(REPLICA), Some(start + second));
    observed.in_term(3, start + 2 * second);
    assert_eq!(observed.unlinked_since(REPLICA), Some(start + second));
    observed.in_term(5, start + 2 * second);
    assert_eq!(observed.unlinked_since(REPLICA), None);
}
