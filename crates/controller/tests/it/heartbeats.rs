//! What nodes tell, out of its order.

use crate::world::World;
use controller::database::plan;
use controller::observed::Observations;
use jiff::Timestamp;
use model::ShardUid;
use model::documents::{Role, Shard};
use model::intent::{DatabaseSpec, Intent};

const REPLICA: ShardUid = ShardUid(2);

/// A replicated database; its primary.
fn replicated() -> (World, Shard) {
    let mut world = World::with_nodes(3);
    let spec = DatabaseSpec {
        name: "one".into(),
        memory_size: 256 << 20,
        replication: Some(true),
        ..DatabaseSpec::default()
    };
    world.request(&Intent::CreateDatabase(spec)).unwrap();
    world.settle();
    let cluster = world.cluster();
    let primary = cluster.shards.iter().find(|s| s.role == Role::Primary);
    let primary = primary.unwrap().doc.clone();
    for node in world.nodes.values_mut() {
        node.host.uptime = 5;
    }
    (world, primary)
}

/// A heartbeat from before the primary was on its node says nothing of it: it would be taken for gone, and replaced
/// while it serves.
#[test]
fn what_was_told_before_counts_for_nothing() {
    let (world, primary) = replicated();
    let (mut observed, now) = world.observed();
    let fails_over = |observed: &Observations| {
        let plan = plan::plan(&world.cluster(), observed, now, world.now);
        format!("{:?}", plan.steps).contains(&format!("redis:{REPLICA} becomes primary"))
    };
    assert!(!fails_over(&observed));
    let mut old = world.nodes[&primary.node].clone();
    old.shards.retain(|seen| seen.shard != primary.uid);
    old.host.uptime = 4;
    observed.record(old.clone(), now);
    assert!(!fails_over(&observed), "an older one");
    old.host.uptime = 6;
    observed.record(old, now);
    assert!(fails_over(&observed), "a newer one");
}

#[test]
fn a_process_that_is_new_is_heard_whatever_its_clocks_say() {
    let (world, primary) = replicated();
    let node = primary.node;
    let (mut observed, now) = world.observed();
    let mut seen = world.nodes[&node].clone();
    let mut tell = |started: i64, uptime: u64| {
        seen.started = Timestamp::from_second(started).unwrap();
        seen.host.uptime = uptime;
        observed.record(seen.clone(), now);
        observed.fresh(node, now).unwrap().host.uptime
    };
    assert_eq!(tell(0, 6), 6);
    assert_eq!(tell(100, 9), 9);
    assert_eq!(tell(0, 7), 9, "the process before");
    assert_eq!(tell(100, 8), 9, "told before");
    assert_eq!(tell(50, 10), 10, "its time of day went back");
    assert_eq!(tell(120, 1), 1, "its host was started again");
}
