//! Failovers that an operator asked for and that end badly: what is told of them.

use crate::intents::with_demo;
use crate::world::World;
use controller::database::plan::Step;
use controller::switchover::plan::{NotNow, begin, refuse, undo};
use model::documents::{Operation, OperationStatus, Role};
use model::intent::Intent;
use model::observation::{EngineStall, EngineState, StallKind};
use model::{ErrorCode, ShardUid};

fn newest(world: &World) -> Operation {
    world.cluster().operations.last().unwrap().doc.clone()
}

fn failover(shards: &[u64]) -> Intent {
    Intent::FailoverShards {
        database: None,
        shards: shards.iter().copied().map(ShardUid).collect(),
        immediate: true,
    }
}

/// A failover that ends badly says why, which shard is the master now, and has a code whose remedy fits.
#[test]
fn a_failover_that_fails_says_what_is_so_now() {
    let next = |world: &World| match world.plan().steps.into_iter().next() {
        Some(Step::Move(wanted)) => wanted,
        other => panic!("a move is next: {other:?}"),
    };
    let why = NotNow::of("redis:2: the engine does not answer.");
    let mut world = with_demo(3, 1, true);
    world.request(&failover(&[1])).unwrap();
    let (wanted, now) = (next(&world), world.now);
    let refusal = refuse(&world.cluster(), ShardUid(1), &wanted.operation, &why, now);
    world.apply(&refusal.unwrap());
    let ended = newest(&world);
    assert_eq!(ended.status, OperationStatus::Failed);
    assert_eq!(ended.error_code, Some(ErrorCode::MoveFailed));
    insta::assert_snapshot!(ended.error.unwrap(), @"redis:2: the engine does not answer. Nothing was changed: redis:1 is still the master");

    // Begun and undone: the same, unless nobody knows whether the old master is there.
    for heard in [true, false] {
        world.request(&failover(&[1])).unwrap();
        let (wanted, now) = (next(&world), world.now);
        world.apply(&begin(&world.cluster(), &wanted, now).unwrap());
        let ends = (ShardUid(1), wanted.epoch.next());
        let undone = undo(&world.cluster(), ends, ("it did not", heard), now);
        world.apply(&undone.unwrap());
        let ended = newest(&world);
        assert_eq!(ended.error_code, Some(ErrorCode::MoveFailed));
        let error = ended.error.unwrap();
        let stays = error.contains("Nothing was changed: redis:1 is still the master");
        assert_eq!(stays, heard, "{error}");
        assert_eq!(error.contains("is not heard"), !heard, "{error}");
        world.settle();
    }
}

/// Of several the first was moved and stays so.
#[test]
fn a_failover_that_fails_later_says_what_was_moved() {
    let mut world = with_demo(3, 2, true);
    let primaries = world.cluster();
    let primaries = primaries.shards.iter().filter(|s| s.role == Role::Primary);
    let primaries: Vec<u64> = primaries.map(|shard| shard.uid.0).collect();
    world.request(&failover(&primaries)).unwrap();
    let wanted = loop {
        let step = world.plan().steps.into_iter().next().unwrap();
        match step {
            Step::Move(wanted) if wanted.old.shard.0 != primaries[0] => break wanted,
            step => drop(world.execute(step)),
        }
    };
    let (second, why) = (wanted.old.shard, NotNow::of("no"));
    let refusal = refuse(&world.cluster(), second, &wanted.operation, &why, world.now);
    world.apply(&refusal.unwrap());
    insta::assert_snapshot!(newest(&world).error.unwrap(), @"no. redis:2 is still the master; what was moved before stays: redis:3 in place of redis:1");
}

/// A primary that does not answer tells of no replica: that is no matter of theirs.
#[test]
fn a_failover_of_a_primary_that_does_not_answer_says_so() {
    for (kind, wanted) in [
        (
            StallKind::Silent,
            "redis:1 cannot hand over now: redis:1 does not answer. Nothing was changed",
        ),
        (
            StallKind::Busy,
            "redis:1 cannot hand over now: redis:1 is busy with a script or function that runs long. Nothing was \
             changed",
        ),
    ] {
        let mut world = with_demo(3, 1, true);
        let primary = world.seen(ShardUid(1));
        (primary.state, primary.replication) = (EngineState::Unresponsive, None);
        primary.stall = Some(EngineStall {
            kind,
            milliseconds: 1_000,
            questions: 1,
            process_state: Some('R'),
            cpu_ticks: Some(100),
        });
        let before = world.state.clone();
        let refused = world.request(&failover(&[1])).unwrap_err();
        assert_eq!(world.state, before);
        assert_eq!(refused.error_code, ErrorCode::MoveFailed);
        assert_eq!(refused.description, wanted);
    }
}
