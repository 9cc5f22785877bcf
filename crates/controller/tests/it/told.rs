//! What is told of a failover: for how long nobody could write, what may be missing, and what is lost.

use crate::failover::{PRIMARY, REPLICA, created, shard, spec};
use crate::hangs::events;
use crate::intents::with_demo;
use crate::world::World;
use controller::database::plan::{self, Step};
use controller::observed::Observations;
use jiff::{SignedDuration, Timestamp};
use model::documents::{Persistence, Role};
use model::intent::{DatabaseSpec, Intent};
use model::limits::FAILOVERS_MAX;
use model::observation::EngineState;
use model::{Epoch, ShardUid};
use serde_json::Value;
use std::time::{Duration, Instant};

fn persistent(persistence: Persistence) -> World {
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
    world
}

fn only(world: &World, kind: &str) -> Value {
    let told = events(world, kind);
    assert_eq!(told.len(), 1, "{kind}: {told:?}");
    told[0].clone()
}

fn time(event: &Value, name: &str) -> Timestamp {
    event[name].as_str().unwrap().parse().unwrap()
}

fn passes(world: &mut World, seconds: i64) {
    world.now += SignedDuration::from_secs(seconds);
}

/// Both engines die at once, and the primary's end is heard first: the replica is named, and is gone too.
fn both_die(world: &mut World) {
    world.crash(PRIMARY);
    world.settle_one();
    assert_eq!(shard(world, REPLICA).role, Role::Primary);
    world.crash(REPLICA);
}

/// The engine of the old primary is started again, and has found this on disk.
fn comes_back(world: &mut World, written: Option<Timestamp>) {
    while world.seen(PRIMARY).state != EngineState::Running {
        world.settle_one();
    }
    world.seen(PRIMARY).data_written = written;
    world.settle();
    assert!(shard(world, PRIMARY).is_serving());
}

#[test]
fn a_role_that_comes_back_to_an_empty_engine_tells_that_all_is_lost() {
    let mut world = created();
    both_die(&mut world);
    comes_back(&mut world, None);
    let restarted = only(&world, "shard_restarted");
    assert_eq!(restarted["severity"], "CRITICAL");
    assert_eq!(restarted["data"], "lost: it begins empty");
    assert_eq!(restarted["epoch"], 3);
    let undone = only(&world, "shard_failover_undone");
    assert_eq!(
        (&undone["shard_uid"], &undone["new_shard_uid"]),
        (&2.into(), &1.into())
    );
}

#[test]
fn a_role_that_comes_back_to_an_old_snapshot_tells_since_when_writes_are_lost() {
    let snapshot = Persistence::Snapshot {
        seconds: 3_600,
        writes: 1,
    };
    let (old, fresh) = (Timestamp::UNIX_EPOCH, |world: &World| world.now);
    let mut world = persistent(snapshot);
    passes(&mut world, 40);
    both_die(&mut world);
    comes_back(&mut world, Some(old));
    let restarted = only(&world, "shard_restarted");
    assert_eq!(restarted["severity"], "CRITICAL");
    let data = restarted["data"].as_str().unwrap();
    assert!(
        data.starts_with("lost from 1970-01-01T00:00:00Z on"),
        "{data}"
    );
    assert_eq!(time(&restarted, "data_written"), old);
    assert_eq!(time(&restarted, "unproven_to"), world.now);

    // It was never saved.
    let mut world = persistent(snapshot);
    both_die(&mut world);
    comes_back(&mut world, None);
    let data = &only(&world, "shard_restarted")["data"];
    assert_eq!(data, "lost: nothing was on disk, it begins empty");

    // It was saved when it was stopped.
    let mut world = persistent(snapshot);
    passes(&mut world, 40);
    both_die(&mut world);
    let written = fresh(&world);
    comes_back(&mut world, Some(written));
    let restarted = only(&world, "shard_restarted");
    assert_eq!(restarted["data"], "as they were on disk");
    assert_eq!(restarted["severity"], "ERROR");
}

/// Its node was away, not its engine: it has all that it had.
#[test]
fn a_role_that_comes_back_to_the_process_that_had_it_loses_nothing() {
    let mut world = created();
    world.falls_silent(shard(&world, PRIMARY).node);
    world.link(REPLICA, false, false);
    world.settle_one();
    world.settle_one();
    assert_eq!(shard(&world, REPLICA).role, Role::Primary);
    world.crash(REPLICA);
    world.settle();
    passes(&mut world, 20);
    world.silent.clear();
    world.settle();
    assert_eq!(shard(&world, PRIMARY).serving, Some(Epoch(3)));
    assert_eq!(events(&world, "shard_restarted"), Vec::<Value>::new());
    only(&world, "shard_failover_undone");
    let took = only(&world, "shard_promoted")["milliseconds"].as_u64();
    assert!(took.unwrap() >= 20_000, "{took:?}");
}

/// The primary of the third crash within a minute waits: the store knows since when, whoever is the primary node.
#[test]
fn a_failover_that_waited_tells_for_how_long() {
    let mut world = created();
    let mut primary = PRIMARY;
    for _ in 0..=FAILOVERS_MAX {
        passes(&mut world, 1);
        primary = [PRIMARY, REPLICA]
            .into_iter()
            .find(|uid| shard(&world, *uid).role == Role::Primary)
            .unwrap();
        world.crash(primary);
        world.settle();
    }
    let died = world.now;
    assert!(shard(&world, primary).trouble.is_some());
    assert!(shard(&world, primary).lost_since.unwrap() <= died);
    // Long after its link is lost; this primary node hears of it only now.
    passes(&mut world, 58);
    world.link(other(primary), false, false);
    world.settle();
    assert_eq!(shard(&world, other(primary)).role, Role::Primary);
    let promoted = events(&world, "shard_promoted").pop().unwrap();
    let took = promoted["milliseconds"].as_u64().unwrap();
    assert!((58_000..=61_000).contains(&took), "{took}");
    let failover = events(&world, "shard_failover").pop().unwrap();
    let from = time(&failover, "unproven_from");
    assert!(
        from < died && from >= died - SignedDuration::from_secs(5),
        "{from}"
    );
    assert_eq!(time(&failover, "unproven_to"), world.now);
    let (old, new) = (shard(&world, primary), shard(&world, other(primary)));
    assert_eq!((old.lost_since, new.lost_since), (None, None));
}

fn other(uid: ShardUid) -> ShardUid {
    if uid == PRIMARY { REPLICA } else { PRIMARY }
}

/// What was stored when it was fenced counts, and not the silence that a new primary node has seen.
#[test]
fn a_fenced_primary_was_lost_before_another_primary_node_came() {
    let mut world = created();
    world.falls_silent(shard(&world, PRIMARY).node);
    world.link(REPLICA, false, false);
    world.silent_for = Duration::from_secs(5);
    world.proxies_lag = true;
    world.settle();
    let fenced = world.now;
    assert!(shard(&world, PRIMARY).is_withheld());
    passes(&mut world, 20);
    world.proxies_lag = false;
    world.settle();
    let promoted = only(&world, "shard_promoted")["milliseconds"].as_u64();
    assert!(promoted.unwrap() >= 25_000, "{promoted:?}");
    assert!(time(&only(&world, "shard_failover"), "unproven_from") < fenced);
    // One that is heard again in time is not lost any more.
    let mut world = created();
    world.falls_silent(shard(&world, PRIMARY).node);
    world.link(REPLICA, false, false);
    world.proxies_lag = true;
    world.settle();
    world.silent.clear();
    world.link(REPLICA, true, false);
    world.settle();
    assert_eq!(shard(&world, PRIMARY).lost_since, None);
}

/// The failover that the next plan of a primary node stores that has heard this.
fn planned(world: &mut World, observed: &Observations, instant: Instant) -> Value {
    let plan = plan::plan(&world.cluster(), observed, instant, world.now);
    for step in plan.steps {
        if let Step::Store { txn, .. } = step {
            world.apply(&txn);
        }
    }
    only(world, "shard_failover")
}

/// Who was stopped tells of the end late: what others heard last counts.
#[test]
fn an_end_that_is_told_late_was_not_just_now() {
    let mut world = created();
    passes(&mut world, 100);
    let start = Instant::now();
    let after = |seconds| start + Duration::from_secs(seconds);
    let mut observed = Observations::default();
    observed.in_term(1, start);
    for node in world.nodes.values() {
        observed.record(node.clone(), after(1));
    }
    world.crash(PRIMARY);
    let replica = world.seen(REPLICA).replication.as_mut().unwrap();
    (replica.link_up, replica.link_down_seconds) = (false, Some(5));
    for node in world.nodes.values() {
        observed.record(node.clone(), after(31));
    }
    let failover = planned(&mut world, &observed, after(31));
    let ago = |seconds| world.now - SignedDuration::from_secs(seconds);
    let lost = shard(&world, REPLICA).lost_since.unwrap();
    assert_eq!(
        lost,
        ago(7),
        "as its replica tells, in whole seconds and a heartbeat"
    );
    assert_eq!(time(&failover, "unproven_from"), ago(9));
    assert_eq!(time(&failover, "unproven_to"), world.now);
}

/// One that is told at once was just now.
#[test]
fn an_end_that_is_told_at_once_is_not_made_longer() {
    let mut world = created();
    let start = Instant::now();
    let mut observed = Observations::default();
    observed.in_term(1, start);
    for node in world.nodes.values() {
        observed.record(node.clone(), start);
    }
    let then = start + Duration::from_millis(700);
    world.crash(PRIMARY);
    let node = shard(&world, PRIMARY).node;
    observed.record(world.nodes[&node].clone(), then);
    planned(&mut world, &observed, then);
    assert_eq!(shard(&world, REPLICA).lost_since, Some(world.now));
}

/// A primary without a replica is started again: since its agent told of it last nobody could write.
#[test]
fn a_restart_tells_for_how_long_nobody_could_write() {
    for heard in [true, false] {
        let mut world = with_demo(1, 1, false);
        let start = Instant::now();
        let mut observed = Observations::default();
        observed.in_term(1, start);
        let node = shard(&world, PRIMARY).node;
        if heard {
            observed.record(world.nodes[&node].clone(), start);
        }
        world.restart(PRIMARY);
        let then = start + Duration::from_millis(7_300);
        observed.record(world.nodes[&node].clone(), then);
        let plan = plan::plan(&world.cluster(), &observed, then, world.now);
        for step in plan.steps {
            if let Step::Store { txn, .. } = step {
                world.apply(&txn);
            }
        }
        let took = only(&world, "shard_restarted")["milliseconds"].as_u64();
        assert_eq!(took, heard.then_some(7_300));
    }
}

/// All nodes were powered off. Who has the newest data is not heard at first, and a failover waits: nobody knows for how
/// long nobody could write, and the beginning of the wait is not when that began.
#[test]
fn a_wait_after_a_power_cut_is_not_when_it_began() {
    let mut world = persistent(Persistence::AofEverySecond);
    let start = Instant::now();
    let mut observed = Observations::default();
    observed.in_term(7, start);
    world.crash(PRIMARY);
    let node = |world: &World, uid| world.nodes[&shard(world, uid).node].clone();
    observed.record(node(&world, PRIMARY), start);
    stores(&mut world, &observed, start);
    only(&world, "failover_waits");
    let waits = shard(&world, PRIMARY);
    assert_eq!(
        (waits.lost_since, waits.lost_before),
        (Some(world.now), true)
    );

    // The other one was started again too, so nothing is waited for any more.
    world.restart(REPLICA);
    passes(&mut world, 3);
    let then = start + Duration::from_secs(3);
    let seen = world.seen(PRIMARY);
    seen.state = EngineState::Starting;
    for uid in [PRIMARY, REPLICA] {
        observed.record(node(&world, uid), then);
    }
    stores(&mut world, &observed, then);
    let seen = world.seen(PRIMARY);
    seen.state = EngineState::Running;
    seen.run_id = Some("another".to_owned());
    observed.record(node(&world, PRIMARY), then);
    stores(&mut world, &observed, then);
    let took = only(&world, "shard_restarted")["milliseconds"].clone();
    assert_eq!(took, Value::Null);
    assert!(!shard(&world, PRIMARY).lost_before);
}

/// A wait of which the primary node knew when it began is told by the next one, also when the engine was seen starting.
#[test]
fn a_wait_that_another_primary_node_began_tells_for_how_long() {
    let mut world = created();
    let start = Instant::now();
    let mut observed = Observations::default();
    observed.in_term(1, start);
    let node = |world: &World, uid| world.nodes[&shard(world, uid).node].clone();
    for uid in [PRIMARY, REPLICA] {
        observed.record(node(&world, uid), start);
    }
    let (lost, at) = (world.now, start + Duration::from_secs(5));
    passes(&mut world, 5);
    world.crash(PRIMARY);
    observed.record(node(&world, PRIMARY), at);
    stores(&mut world, &observed, at);
    only(&world, "failover_waits");
    let waits = shard(&world, PRIMARY);
    assert_eq!((waits.lost_since, waits.lost_before), (Some(lost), false));

    let mut observed = Observations::default();
    observed.in_term(2, at);
    world.restart(REPLICA);
    world.seen(PRIMARY).state = EngineState::Starting;
    passes(&mut world, 55);
    for uid in [PRIMARY, REPLICA] {
        observed.record(node(&world, uid), at);
    }
    stores(&mut world, &observed, at);
    let seen = world.seen(PRIMARY);
    seen.state = EngineState::Running;
    seen.run_id = Some("another".to_owned());
    observed.record(node(&world, PRIMARY), at);
    stores(&mut world, &observed, at);
    let took = only(&world, "shard_restarted")["milliseconds"].as_u64();
    assert_eq!(took, Some(60_000));
}

/// Writes what a primary node plans that has heard this.
fn stores(world: &mut World, observed: &Observations, instant: Instant) {
    let plan = plan::plan(&world.cluster(), observed, instant, world.now);
    for step in plan.steps {
        if let Step::Store { txn, .. } = step {
            world.apply(&txn);
        }
    }
}
