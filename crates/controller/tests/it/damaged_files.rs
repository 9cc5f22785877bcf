//! Replicas whose files are damaged get their data anew, and nobody else does.

use crate::hangs::events;
use crate::world::World;
use controller::database::plan::Step;
use model::command::AgentCommand;
use model::documents::{Persistence, Role, Shard, keys};
use model::intent::{DatabaseSpec, Intent};
use model::limits::{LOAD_FAILURES, SET_ASIDE_EVERY};
use model::observation::EngineState;
use model::{Epoch, Generation, NodeUid, ShardUid};
use std::time::Duration;

const PRIMARY: ShardUid = ShardUid(1);
const REPLICA: ShardUid = ShardUid(2);

fn created(replication: bool) -> World {
    let mut world = World::with_nodes(3);
    let spec = DatabaseSpec {
        name: "demo".into(),
        memory_size: 1 << 30,
        replication: Some(replication),
        persistence: Some(Persistence::AofEverySecond),
        ..DatabaseSpec::default()
    };
    world.request(&Intent::CreateDatabase(spec)).unwrap();
    world.settle();
    world
}

fn shard(world: &World, uid: ShardUid) -> Shard {
    world.cluster().shard(uid).unwrap().doc.clone()
}

/// An engine that has ended, and could not load its files so many times.
fn fails(world: &mut World, uid: ShardUid, times: u32) {
    world.crash(uid);
    let seen = world.seen(uid);
    seen.state = EngineState::Failed;
    seen.load_failures = times;
    seen.error = Some("Bad file format".to_owned());
}

/// Its primary has noted that it is away.
fn unrecorded(world: &mut World, uid: ShardUid) {
    let start = |step: &Step| {
        matches!(
            step,
            Step::Command {
                command: AgentCommand::EnsureEngine(_),
                ..
            }
        )
    };
    let at = world.cluster().shard(uid).map(|shard| shard.node).unwrap();
    let address = controller::replica_set::address(&world.cluster(), &shard(world, uid));
    for seen in world.nodes.values_mut().flat_map(|n| &mut n.shards) {
        if let Some(replication) = &mut seen.replication {
            replication
                .replicas
                .retain(|replica| Some(replica.address) != address);
        }
    }
    let story = world.settle_but(start);
    assert!(shard(world, uid).synced.is_none(), "node:{at}: {story}");
}

fn damaged(world: &mut World) {
    fails(world, REPLICA, LOAD_FAILURES - 1);
    unrecorded(world, REPLICA);
    fails(world, REPLICA, LOAD_FAILURES);
}

/// Whether the next plan has anything to do with the files.
fn touches(world: &World) -> bool {
    world.plan().steps.iter().any(|step| match step {
        Step::Command { command, .. } => matches!(command, AgentCommand::SetAside { .. }),
        Step::Store { reason, .. } => reason.contains("set aside"),
        _ => false,
    })
}

#[test]
fn a_replica_whose_files_are_damaged_gets_its_data_anew() {
    let mut world = created(true);
    damaged(&mut world);
    let story = world.settle();
    let story = story.replace("redis:2 does not start: Bad file format", "CAUSE");
    insta::assert_snapshot!(story, @r"
    store: CAUSE: its files are to be set aside
    node:2 sets aside: CAUSE; its files are set aside
    node:2 starts: redis:2 has stopped
    node:2 follows: redis:2 does not follow redis:1 in epoch 1
    store: redis:2 is synced in epoch 1
    node:2 promises: redis:2 gives no promises to proxies yet
    ");
    let told = events(&world, "replica_files_set_aside");
    assert_eq!(told.len(), 1);
    assert_eq!(told[0]["severity"], "WARNING");
    assert_eq!(told[0]["shard_uid"], 2);
    let cause = told[0]["cause"].as_str().unwrap();
    assert!(cause.contains("Bad file format"), "{cause}");
    assert!(shard(&world, PRIMARY).is_usable());
}

/// Once it was its primary: what it has is of an epoch that is over.
#[test]
fn a_primary_that_was_replaced_gets_its_data_anew() {
    let mut world = created(true);
    fails(&mut world, PRIMARY, LOAD_FAILURES);
    let story = world.settle();
    let promoted = story.find("redis:2 is primary of epoch 2");
    let aside = story.find("node:1 sets aside");
    assert!(promoted.is_some() && promoted < aside, "{story}");
    let old = shard(&world, PRIMARY);
    assert_eq!((old.role, old.epoch), (Role::Replica, Epoch(2)));
    assert!(old.synced.is_some());
}

#[test]
fn what_is_not_known_vetoes() {
    type Veto = fn(&mut World);
    let vetoes: [(&str, Veto); 11] = [
        ("too few starts have failed", |world| {
            world.seen(REPLICA).load_failures = LOAD_FAILURES - 1;
        }),
        ("an agent that does not tell", |world| {
            world.seen(REPLICA).load_failures = 0;
        }),
        ("its agent knows nothing", |world| {
            world.seen(REPLICA).state = EngineState::Unresponsive;
        }),
        ("it may run", |world| world.seen(REPLICA).pid = Some(1)),
        ("an older description", |world| {
            world.seen(REPLICA).generation = Generation(0);
        }),
        ("nobody hears it", |world| world.falls_silent(NodeUid(2))),
        ("nobody hears its primary", |world| {
            world.falls_silent(NodeUid(1));
        }),
        ("its primary has ended", |world| world.crash(PRIMARY)),
        ("its primary is another process", |world| {
            world.restart(PRIMARY);
        }),
        ("its primary has another role", |world| {
            world.seen(PRIMARY).epoch = Some(Epoch(7));
        }),
        ("its primary hangs", |world| {
            world.seen(PRIMARY).state = EngineState::Unresponsive;
        }),
    ];
    for (what, veto) in vetoes {
        let mut world = created(true);
        damaged(&mut world);
        assert!(touches(&world), "{what}");
        veto(&mut world);
        assert!(!touches(&world), "{what}");
        // Nor when it was decided before.
        let mut world = created(true);
        damaged(&mut world);
        world.settle_one();
        assert!(touches(&world), "{what}");
        veto(&mut world);
        assert!(!touches(&world), "{what}, decided");
    }
}

/// Its data may be the ones that count.
#[test]
fn a_record_vetoes() {
    let mut world = created(true);
    fails(&mut world, REPLICA, LOAD_FAILURES);
    assert!(shard(&world, REPLICA).synced.is_some());
    assert!(!touches(&world));
}

#[test]
fn the_files_of_a_primary_stay() {
    for replication in [false, true] {
        let mut world = created(replication);
        if replication {
            // Nobody can take its place.
            fails(&mut world, REPLICA, LOAD_FAILURES - 1);
            unrecorded(&mut world, REPLICA);
        }
        fails(&mut world, PRIMARY, 100);
        if replication {
            fails(&mut world, REPLICA, 100);
        }
        assert!(!touches(&world), "{replication}");
        assert_eq!(shard(&world, PRIMARY).role, Role::Primary);
    }
}

/// An epoch in which it has served is one that could be needed.
#[test]
fn a_replica_that_has_served_in_a_later_epoch_keeps_its_files() {
    let mut world = created(true);
    damaged(&mut world);
    let cluster = world.cluster();
    let stored = cluster.shard(REPLICA).unwrap();
    let mut doc = stored.doc.clone();
    doc.serving = Some(Epoch(1));
    let mut change = controller::state::Change::of(&cluster, world.now);
    change.replace(keys::shard(REPLICA), stored.revision, &doc);
    world.apply(&change.into_txn());
    assert!(!touches(&world));
}

#[test]
fn what_is_damaged_again_soon_waits() {
    let mut world = created(true);
    damaged(&mut world);
    world.settle();
    damaged(&mut world);
    assert!(!touches(&world));
    world.now += SET_ASIDE_EVERY - Duration::from_secs(1);
    assert!(!touches(&world));
    world.now += Duration::from_secs(1);
    assert!(touches(&world));
    let story = world.settle();
    assert!(story.contains("node:2 sets aside"), "{story}");
    assert_eq!(events(&world, "replica_files_set_aside").len(), 2);
}
