//! Engines that hang, engines that are busy, and engines of which their agent knows nothing.

use crate::world::World;
use controller::database::plan::Step;
use model::command::AgentCommand;
use model::documents::{Role, Sensitivity, Shard};
use model::intent::{ClusterChange, DatabaseSpec, Intent, MigrateWhat};
use model::limits::{
    FAILOVERS_MAX, FAILOVERS_WITHIN, HANG_QUESTIONS, KILL_WITHIN, NODE_SILENT, NODE_SILENT_LOW,
};
use model::observation::{EngineStall, EngineState, StallKind};
use model::{DatabaseUid, Epoch, NodeUid, ShardUid};
use serde_json::{Value, json};
use std::time::Duration;

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

pub(crate) fn events(world: &World, kind: &str) -> Vec<Value> {
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
    for stall in [computes, sleeps, unknown, busy, loads, newer] {
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

/// One that looks as if it hangs is not called busy first: nothing is said until it was asked often enough.
#[test]
fn an_engine_that_may_hang_is_told_of_when_that_is_decided() {
    for uid in [PRIMARY, REPLICA] {
        for (state, ticks) in [('T', 0), ('t', 3), ('D', 7), ('S', 0)] {
            let mut world = created(true);
            let stall = EngineStall {
                process_state: Some(state),
                cpu_ticks: Some(ticks),
                ..stopped(6)
            };
            let asked_twice = EngineStall {
                questions: HANG_QUESTIONS - 1,
                ..stall.clone()
            };
            stalls(&mut world, uid, asked_twice);
            assert_eq!(world.settle(), "", "redis:{uid} {state}");
            assert_eq!(shard(&world, uid).stalled, None);
            stalls(&mut world, uid, stall);
            world.settle();
            assert_eq!(events(&world, "shard_hangs").len(), 1);
            assert_eq!(events(&world, "shard_busy").len(), 0);
        }
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

/// A replica hangs, and its primary hears nothing of it.
fn replica_hangs(world: &mut World, uid: ShardUid, seconds: u64) {
    stalls(world, uid, stopped(seconds));
    for seen in world.nodes.values_mut().flat_map(|n| &mut n.shards) {
        if let Some(replication) = &mut seen.replication {
            for replica in &mut replication.replicas {
                replica.lag_seconds = seconds;
            }
        }
    }
}

#[test]
fn a_replica_that_hangs_is_ended_and_started_again() {
    let mut world = created(true);
    world.slave_ha(3_600);
    replica_hangs(&mut world, REPLICA, 4);
    insta::assert_snapshot!(world.settle(), @"store: redis:2 is not synced any more: its primary does not see it");
    stalls(&mut world, REPLICA, stopped(6));
    let story = world.settle();
    let story = story.replace(
        "redis:2 has not answered for 6 s: process state T, 0 clock ticks of CPU used meanwhile",
        "CAUSE",
    );
    insta::assert_snapshot!(story, @r"
    store: CAUSE
    store: CAUSE: it is to be ended and started again
    node:2 ends: CAUSE: it is ended
    node:2 starts: redis:2 has stopped
    store: redis:2 answers again
    node:2 follows: redis:2 does not follow redis:1 in epoch 1
    store: redis:2 is synced in epoch 1
    node:2 promises: redis:2 gives no promises to proxies yet
    ");
    let replica = shard(&world, REPLICA);
    assert_eq!((replica.role, replica.epoch), (Role::Replica, Epoch(1)));
    assert!(replica.stalled.is_none() && replica.lost.is_none());
    let told = events(&world, "shard_hangs");
    assert_eq!((told.len(), &told[0]["severity"]), (1, &json!("WARNING")));
    assert!(told[0]["follows"].as_str().unwrap().contains("ended"));
    assert_eq!(events(&world, "shard_answers_again").len(), 1);
    assert!(shard(&world, PRIMARY).is_usable());
}

#[test]
fn low_sensitivity_gives_a_replica_more_time() {
    let mut world = created(true);
    low(&mut world);
    replica_hangs(&mut world, REPLICA, 14);
    let story = world.settle();
    assert!(!story.contains("ends"), "{story}");
    stalls(&mut world, REPLICA, stopped(15));
    let story = world.settle();
    assert!(story.contains("node:2 ends"), "{story}");
}

/// What it loads is what its primary sends it; what else keeps it busy is told of.
#[test]
fn a_replica_that_may_be_busy_is_left_alone() {
    let computes = EngineStall {
        process_state: Some('R'),
        cpu_ticks: Some(500),
        ..stopped(60)
    };
    let unknown = EngineStall {
        process_state: None,
        cpu_ticks: None,
        ..stopped(60)
    };
    let loads = EngineStall {
        kind: StallKind::Loading,
        ..stopped(60)
    };
    for (stall, told) in [(computes, 1), (unknown, 1), (loads, 0)] {
        let mut world = created(true);
        let before = world.seen(REPLICA).clone();
        replica_hangs(&mut world, REPLICA, 60);
        if stall.kind == StallKind::Loading {
            world.seen(REPLICA).state = EngineState::Loading;
        }
        world.seen(REPLICA).stall = Some(stall.clone());
        let story = world.settle();
        assert!(!story.contains("ended"), "{stall:?}: {story}");
        assert_eq!(events(&world, "shard_busy").len(), told, "{stall:?}");
        assert_eq!(events(&world, "shard_hangs").len(), 0);
        assert_eq!(world.seen(REPLICA).run_id, before.run_id);
        assert_eq!(shard(&world, REPLICA).synced, None);
        answers(&mut world, &before);
        let primary = world.seen(PRIMARY).replication.as_mut().unwrap();
        primary.replicas[0].lag_seconds = 0;
        world.settle();
        let replica = shard(&world, REPLICA);
        assert!(replica.stalled.is_none() && replica.synced.is_some());
    }
}

/// What it has in memory may be nowhere else, whether it was recorded or not.
#[test]
fn a_replica_that_hangs_is_not_ended_while_its_primary_does_not_serve() {
    type Fault = fn(&mut World);
    let faults: [(&str, usize, Fault); 3] = [
        ("the primary hangs too", 2, |world| {
            stalls(world, PRIMARY, stopped(60));
        }),
        ("the primary has ended", 1, |world| world.crash(PRIMARY)),
        ("nobody hears the primary", 1, |world| {
            world.falls_silent(NodeUid(1));
        }),
    ];
    for ((what, told, fault), recorded) in faults.into_iter().flat_map(|f| [(f, true), (f, false)])
    {
        let mut world = created(true);
        let process = world.run_id(REPLICA);
        if !recorded {
            replica_hangs(&mut world, REPLICA, 4);
            world.settle();
        }
        assert_eq!(shard(&world, REPLICA).synced.is_some(), recorded);
        fault(&mut world);
        stalls(&mut world, REPLICA, stopped(60));
        let story = world.settle();
        // A primary that has ended comes back without one that was not recorded, and then that one is ended.
        let serves = story.find("store: redis:1 is primary of epoch 2");
        let before = &story[..serves.unwrap_or(story.len())];
        assert!(!before.contains("node:2 ends"), "{what}: {story}");
        assert_eq!(serves.is_some(), what.contains("has ended") && !recorded);
        if serves.is_none() {
            assert_eq!(world.run_id(REPLICA), process, "{what}");
        }
        if recorded {
            assert!(shard(&world, REPLICA).synced.is_some(), "{what}");
            assert_eq!(events(&world, "shard_hangs").len(), told, "{what}");
        }
    }
}

/// Its record would make it a primary: it is taken away first.
#[test]
fn a_replica_that_hangs_is_not_ended_while_it_is_recorded() {
    let mut world = created(true);
    stalls(&mut world, REPLICA, stopped(60));
    let story = world.settle();
    assert!(shard(&world, REPLICA).synced.is_some());
    assert_eq!(story.lines().count(), 1, "it is told of: {story}");
}

#[test]
fn a_replica_is_not_ended_again_and_again_without_end() {
    let mut world = created(true);
    for _ in 0..FAILOVERS_MAX {
        replica_hangs(&mut world, REPLICA, 6);
        let story = world.settle();
        assert!(story.contains("node:2 ends"), "{story}");
        assert!(shard(&world, REPLICA).synced.is_some());
        world.now += Duration::from_secs(10);
    }
    replica_hangs(&mut world, REPLICA, 6);
    let story = world.settle();
    assert!(!story.contains("ended"), "{story}");
    world.now += FAILOVERS_WITHIN;
    stalls(&mut world, REPLICA, stopped(66));
    let story = world.settle();
    assert!(story.contains("node:2 ends"), "{story}");
    assert_eq!(shard(&world, REPLICA).ended.len(), 1);
}

/// It waits for a device that does not come back: what works on its database says so, and pauses.
#[test]
fn what_waits_for_a_replica_that_hangs_says_so() {
    let mut world = created(true);
    let target = NodeUid(3);
    let migrate = Intent::MigrateShards {
        what: MigrateWhat::Shards {
            shards: vec![PRIMARY],
        },
        node: target,
        override_policy: false,
    };
    let operation = world.request(&migrate).unwrap().operation.unwrap();
    replica_hangs(&mut world, REPLICA, 6);
    for _ in 0..3 {
        world.settle_one();
    }
    let plan = world.plan();
    let ends = |step: &Step| {
        matches!(
            step,
            Step::Command {
                command: AgentCommand::KillEngine { .. },
                ..
            }
        )
    };
    assert!(plan.steps.iter().any(ends), "{plan:?}");
    let (waits, reason) = &plan.waits[0];
    assert_eq!(waits, &operation);
    assert!(reason.contains("has not answered for 6 s"), "{reason}");
    // It ends after all: the operation goes on.
    world.settle();
    let cluster = world.cluster();
    assert_eq!(cluster.databases[0].operation, None);
    assert!(
        cluster
            .shards
            .iter()
            .any(|s| s.node == target && s.is_usable())
    );
}

/// Its node cannot end it: it is made anew elsewhere, and nothing waits until it has gone.
#[test]
fn a_replica_that_cannot_be_ended_is_made_anew_elsewhere() {
    let mut world = created(true);
    world.slave_ha(3_600);
    let in_vain = |step: &Step| matches!(step, Step::Command { shard: REPLICA, .. });
    replica_hangs(&mut world, REPLICA, 6);
    world.settle_but(in_vain);
    assert!(shard(&world, REPLICA).lost.is_some());
    world.now += Duration::from_secs(600);
    stalls(&mut world, REPLICA, stopped(606));
    let story = world.settle_but(in_vain);
    assert!(
        story.contains("redis:3 becomes a copy of redis:2 on node:3"),
        "{story}"
    );
    let cluster = world.cluster();
    assert_eq!(cluster.databases[0].operation, None, "{story}");
    let copy = shard(&world, ShardUid(3));
    assert!(copy.synced.is_some(), "{story}");
    assert!(shard(&world, REPLICA).removed_by.is_some());
    assert_eq!(events(&world, "slave_ha_completed").len(), 1);
    // What is left of it goes as soon as that can be.
    let story = world.settle();
    assert!(story.contains("node:2 removes"), "{story}");
    assert_eq!(world.cluster().shards.len(), 2);
}
