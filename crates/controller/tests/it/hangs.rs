//! Engines that hang, engines that are busy, and engines of which their agent knows nothing.

use crate::world::World;
use model::documents::{Role, Sensitivity, Shard};
use model::intent::{ClusterChange, DatabaseSpec, Intent};
use model::limits::{FAILOVERS_MAX, HANG_QUESTIONS, KILL_WITHIN, NODE_SILENT, NODE_SILENT_LOW};
use model::observation::{EngineStall, EngineState, StallKind};
use model::{DatabaseUid, Epoch, ShardUid};
use serde_json::Value;

const PRIMARY: ShardUid = ShardUid(1);
const REPLICA: ShardUid = ShardUid(2);

fn created(replication: bool) -> World {
    let mut world = World::with_nodes(3);
    let spec = DatabaseSpec {
        name: "demo".into(),
        memory_size: 1 << 30,
        replication: Some(replication),
        ..DatabaseSpec::default()
    };
    world.request(&Intent::CreateDatabase(spec)).unwrap();
    world.settle();
    world
}

fn low(world: &mut World) {
    let change = ClusterChange {
        failure_detection_sensitivity: Some(Sensitivity::Low),
        ..ClusterChange::default()
    };
    world.request(&Intent::UpdateCluster(change)).unwrap();
}

fn shard(world: &World, uid: ShardUid) -> Shard {
    world.cluster().shard(uid).unwrap().doc.clone()
}

/// Stopped, for so many seconds.
fn stopped(seconds: u64) -> EngineStall {
    EngineStall {
        kind: StallKind::Silent,
        milliseconds: seconds * 1_000,
        questions: HANG_QUESTIONS,
        process_state: Some('T'),
        cpu_ticks: Some(0),
    }
}

/// An agent sees an engine stall.
fn stalls(world: &mut World, uid: ShardUid, stall: EngineStall) {
    let seen = world.seen(uid);
    if stall.kind == StallKind::Silent {
        seen.state = EngineState::Unresponsive;
        seen.replication = None;
    }
    seen.stall = Some(stall);
}

/// It answers again, with what it had.
fn answers(world: &mut World, before: &model::observation::ShardObservation) {
    *world.seen(before.shard) = before.clone();
}

fn events(world: &World, kind: &str) -> Vec<Value> {
    let events = world.state.range("event/");
    events
        .map(|(_, entry)| entry.value.clone())
        .filter(|event| event["type"] == kind)
        .collect()
}

#[test]
fn a_primary_that_hangs_is_ended_and_replaced() {
    let mut world = created(true);
    world.write(PRIMARY, 1_000);
    stalls(&mut world, PRIMARY, stopped(4));
    assert_eq!(world.settle(), "", "not long enough");
    stalls(&mut world, PRIMARY, stopped(6));
    let story = world.settle();
    let story = story.replace(
        "redis:1 has not answered for 6 s: process state T, 0 clock ticks of CPU used meanwhile",
        "CAUSE",
    );
    insta::assert_snapshot!(story, @r"
    store: CAUSE
    store: CAUSE: no proxy may use redis:1
    node:1 ends: CAUSE: it is ended
    store: CAUSE; redis:1 has stopped: redis:2 becomes primary of epoch 2
    node:2 promotes: redis:2 has no role in epoch 2
    store: redis:2 is primary of epoch 2
    node:2 promises: redis:2 gives no promises to proxies yet
    node:1 starts: redis:1 has stopped
    node:1 follows: redis:1 does not follow redis:2 in epoch 2
    store: redis:1 is synced in epoch 2
    node:1 promises: redis:1 gives no promises to proxies yet
    ");
    assert_eq!(shard(&world, REPLICA).serving, Some(Epoch(2)));
    let old = shard(&world, PRIMARY);
    assert_eq!((old.role, old.stalled), (Role::Replica, None));
    let told = events(&world, "shard_hangs");
    assert_eq!(told.len(), 1);
    assert_eq!(told[0]["milliseconds"], 6_000);
    let failover = &events(&world, "shard_failover")[0];
    assert_eq!(failover["confirmed"], true);
    let cause = failover["cause"].as_str().unwrap();
    assert!(
        cause.contains("has not answered for 6 s: process state T"),
        "{cause}"
    );
}

#[test]
fn low_sensitivity_waits_longer() {
    let mut world = created(true);
    low(&mut world);
    stalls(&mut world, PRIMARY, stopped(14));
    assert_eq!(world.settle(), "");
    stalls(&mut world, PRIMARY, stopped(15));
    world.settle();
    assert_eq!(shard(&world, REPLICA).serving, Some(Epoch(2)));
}

/// By missed heartbeats too.
#[test]
fn low_sensitivity_gives_a_silent_node_more_time() {
    for (sensitivity, silence, withheld) in [
        (Sensitivity::High, NODE_SILENT, true),
        (Sensitivity::Low, NODE_SILENT, false),
        (Sensitivity::Low, NODE_SILENT_LOW, true),
    ] {
        let mut world = created(true);
        if sensitivity == Sensitivity::Low {
            low(&mut world);
        }
        world.proxies_lag = true;
        world.silent_for = silence;
        world.falls_silent(shard(&world, PRIMARY).node);
        world.link(REPLICA, false, false);
        world.settle_one();
        let is_withheld = shard(&world, PRIMARY).is_withheld();
        assert_eq!(is_withheld, withheld, "{sensitivity:?} {silence:?}");
    }
}

/// Each mark of a hang, taken away, leaves an engine alone that may be busy, or of which too little is known.
#[test]
fn an_engine_that_may_be_busy_is_told_of_and_left_alone() {
    let computes = EngineStall {
        process_state: Some('R'),
        cpu_ticks: Some(500),
        ..stopped(60)
    };
    let sleeps = EngineStall {
        process_state: Some('S'),
        cpu_ticks: Some(1),
        ..stopped(60)
    };
    let unknown = EngineStall {
        process_state: None,
        cpu_ticks: None,
        ..stopped(60)
    };
    let asked_once = EngineStall {
        questions: HANG_QUESTIONS - 1,
        ..stopped(60)
    };
    let busy = EngineStall {
        kind: StallKind::Busy,
        questions: 0,
        ..stopped(60)
    };
    let loads = EngineStall {
        kind: StallKind::Loading,
        ..stopped(60)
    };
    let newer = EngineStall {
        kind: StallKind::Other,
        ..stopped(60)
    };
    for stall in [computes, sleeps, unknown, asked_once, busy, loads, newer] {
        let mut world = created(true);
        let before = world.seen(PRIMARY).clone();
        stalls(&mut world, PRIMARY, stall.clone());
        let story = world.settle();
        assert_eq!(story.lines().count(), 1, "{stall:?}: {story}");
        let primary = shard(&world, PRIMARY);
        assert!(
            primary.is_usable() && !primary.stalled.unwrap().hangs,
            "{stall:?}"
        );
        assert_eq!((primary.role, primary.epoch), (Role::Primary, Epoch(1)));
        assert_eq!(world.settle(), "", "it is told of once: {stall:?}");
        assert_eq!(events(&world, "shard_busy").len(), 1);
        assert_eq!(events(&world, "shard_hangs").len(), 0);
        answers(&mut world, &before);
        assert_eq!(world.settle(), "store: redis:1 answers again\n");
        assert_eq!(shard(&world, PRIMARY).stalled, None);
        assert_eq!(events(&world, "shard_answers_again").len(), 1);
    }
}

/// One that sleeps and has used nothing hangs too: it waits for what does not come.
#[test]
fn an_engine_that_does_not_compute_hangs() {
    for (state, ticks) in [('S', 0), ('D', 7), ('t', 7)] {
        let mut world = created(true);
        let stall = EngineStall {
            process_state: Some(state),
            cpu_ticks: Some(ticks),
            ..stopped(6)
        };
        stalls(&mut world, PRIMARY, stall);
        world.settle();
        assert_eq!(shard(&world, REPLICA).serving, Some(Epoch(2)), "{state}");
    }
}

/// An agent of the last release tells only that it does not answer.
#[test]
fn what_is_not_told_decides_nothing() {
    let mut world = created(true);
    let seen = world.seen(PRIMARY);
    seen.state = EngineState::Unresponsive;
    seen.replication = None;
    assert_eq!(world.settle(), "");
}

/// What it has in memory may be nowhere else.
#[test]
fn a_primary_that_hangs_is_not_ended_when_nobody_can_take_its_place() {
    let alone = created(false);
    let mut unsynced = created(true);
    let replica = unsynced.seen(REPLICA).replication.as_mut().unwrap();
    (replica.sync_in_progress, replica.link_up) = (true, false);
    unsynced.settle();
    for mut world in [alone, unsynced] {
        let before = world.seen(PRIMARY).clone();
        stalls(&mut world, PRIMARY, stopped(600));
        let story = world.settle();
        assert_eq!(story.lines().count(), 1, "{story}");
        let primary = shard(&world, PRIMARY);
        assert!(primary.is_usable() && primary.stalled.unwrap().hangs);
        let told = &events(&world, "shard_hangs")[0];
        assert_eq!(told["severity"], "CRITICAL");
        assert!(
            told["follows"].as_str().unwrap().contains("no replica"),
            "{told}"
        );
        answers(&mut world, &before);
        world.settle();
        assert_eq!(shard(&world, PRIMARY).stalled, None);
        assert_eq!(world.epoch(PRIMARY), Epoch(1));
    }
}

/// The replica is there, but cannot be looked at: the primary may come back.
#[test]
fn a_primary_that_hangs_is_not_ended_for_a_replica_that_is_not_heard() {
    let mut world = created(true);
    world.silent.push(shard(&world, REPLICA).node);
    stalls(&mut world, PRIMARY, stopped(60));
    world.settle();
    assert!(shard(&world, PRIMARY).is_usable());
    world.silent.clear();
    world.settle();
    assert_eq!(shard(&world, REPLICA).serving, Some(Epoch(2)));
}

/// It answers between the decision and its end.
#[test]
fn a_primary_that_answers_again_in_time_goes_on() {
    let mut world = created(true);
    let before = world.seen(PRIMARY).clone();
    stalls(&mut world, PRIMARY, stopped(6));
    world.settle_one();
    world.settle_one();
    assert!(shard(&world, PRIMARY).is_withheld());
    answers(&mut world, &before);
    world.settle();
    let primary = shard(&world, PRIMARY);
    assert!(primary.is_usable() && primary.stalled.is_none());
    assert_eq!(world.epoch(PRIMARY), Epoch(1));
}

/// Its agent cannot end it: then it is fenced as one that is not heard.
#[test]
fn a_primary_that_cannot_be_ended_is_replaced_when_no_proxy_has_a_lease() {
    let mut world = created(true);
    stalls(&mut world, PRIMARY, stopped(6));
    world.settle_one();
    world.settle_one();
    assert!(shard(&world, PRIMARY).is_withheld());
    world.now += KILL_WITHIN;
    world.proxies_lag = true;
    let plan = world.plan();
    assert!(plan.steps.is_empty(), "a proxy may have a lease: {plan:?}");
    world.proxies_lag = false;
    world.settle_one();
    let new = shard(&world, REPLICA);
    assert_eq!(new.role, Role::Primary);
    assert_eq!(new.fence, Some(model::documents::Fence::Promises));
    assert_eq!(events(&world, "shard_failover")[0]["confirmed"], false);
}

#[test]
fn hangs_do_not_follow_each_other_without_end() {
    let mut world = created(true);
    for round in 0..FAILOVERS_MAX {
        let primary = [PRIMARY, REPLICA][round % 2];
        stalls(&mut world, primary, stopped(6));
        world.settle();
        assert_ne!(shard(&world, primary).role, Role::Primary);
    }
    let primary = [PRIMARY, REPLICA][FAILOVERS_MAX % 2];
    let before = world.seen(primary).clone();
    stalls(&mut world, primary, stopped(6));
    world.settle();
    let held = shard(&world, primary);
    assert!(held.is_usable() && held.trouble.unwrap().contains("failovers within 60 s"));
    // It was only slow: nothing keeps it from its role.
    answers(&mut world, &before);
    world.settle();
    assert_eq!(shard(&world, primary).trouble, None);
}

/// Its agent has lost its ledger, or cannot look: its engine may serve.
fn in_doubt(world: &mut World, uid: ShardUid) {
    let seen = world.seen(uid);
    (seen.state, seen.pid, seen.run_id) = (EngineState::Unresponsive, None, None);
    (seen.role, seen.epoch, seen.replication) = (None, None, None);
    seen.error = Some("its ledger is damaged".to_owned());
}

#[test]
fn a_primary_of_which_its_agent_knows_nothing_is_not_gone() {
    for last_release in [false, true] {
        let mut world = created(true);
        in_doubt(&mut world, PRIMARY);
        if last_release {
            let seen = world.seen(PRIMARY);
            (seen.state, seen.database) = (EngineState::Failed, DatabaseUid(0));
        }
        // Its replica hears it. Its agent is asked to look again.
        world.settle_one();
        let primary = shard(&world, PRIMARY);
        assert_eq!((primary.role, primary.epoch), (Role::Primary, Epoch(1)));
        assert!(primary.is_usable() && shard(&world, REPLICA).synced.is_some());
    }
}

/// Nobody hears it either: it is fenced first, as one whose node is not heard.
#[test]
fn a_primary_of_which_nobody_knows_anything_is_replaced_when_no_proxy_has_a_lease() {
    let mut world = created(true);
    world.link(REPLICA, false, false);
    in_doubt(&mut world, PRIMARY);
    world.proxies_lag = true;
    world.settle_one();
    assert!(shard(&world, PRIMARY).is_withheld());
    let plan = world.plan();
    assert!(plan.steps.is_empty(), "{plan:?}");
    world.proxies_lag = false;
    world.settle_one();
    let new = shard(&world, REPLICA);
    assert_eq!((new.role, new.epoch), (Role::Primary, Epoch(2)));
    assert_eq!(new.fence, Some(model::documents::Fence::Promises));
}

/// Its agent knows nothing of the replica that has the data: they count, and nothing begins without them.
#[test]
fn a_replica_of_which_its_agent_knows_nothing_vetoes() {
    let mut world = created(true);
    in_doubt(&mut world, REPLICA);
    world.crash(PRIMARY);
    world.settle_one();
    let primary = shard(&world, PRIMARY);
    assert_eq!((primary.role, primary.epoch), (Role::Primary, Epoch(1)));
    let trouble = primary.trouble.unwrap();
    assert!(
        trouble.contains("does not know whether redis:2 runs"),
        "{trouble}"
    );
}
