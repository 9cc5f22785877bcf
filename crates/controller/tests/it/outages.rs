//! What goes down and comes back is told once, whoever is the primary node; what is stopped in order is no failure.

use crate::failover::{PRIMARY, REPLICA, spec};
use crate::world::{World, node};
use controller::observed::Observations;
use controller::outages::plan::{Known, next};
use jiff::{SignedDuration, Timestamp};
use model::documents::{Event, Node, keys};
use model::intent::{DatabaseSpec, Intent};
use model::observation::{EngineState, HandoverCounts, ShardObservation};
use model::{NodeUid, ShardUid};
use serde_json::json;
use std::time::{Duration, Instant};
use store::{Txn, TxnResult};

const SECOND: Duration = Duration::from_secs(1);

/// A primary node, with what it has heard.
struct Leader {
    uid: NodeUid,
    observed: Observations,
    instant: Instant,
}

impl Leader {
    fn new(uid: u64, term: u64) -> Self {
        let instant = Instant::now();
        let mut observed = Observations::default();
        observed.leases.in_term(term, instant);
        Self {
            uid: NodeUid(uid),
            observed,
            instant,
        }
    }

    /// Seconds pass: every node that is not silent is heard in each, and what is to be told is told.
    fn hears(&mut self, world: &mut World, seconds: u64) {
        for _ in 0..seconds {
            self.instant += SECOND;
            world.now += SignedDuration::from_secs(1);
            for (uid, seen) in &world.nodes {
                if !world.silent.contains(uid) {
                    self.observed.record(seen.clone(), self.instant);
                }
            }
            self.tells(world);
        }
    }

    fn tells(&self, world: &mut World) {
        for _ in 0..10 {
            let state = world.cluster();
            let told = next(Known {
                state: &state,
                observed: &self.observed,
                me: self.uid,
                instant: self.instant,
                now: world.now,
            });
            let Some((txn, _)) = told else { return };
            let stored = world.commit(&txn);
            assert!(matches!(stored, TxnResult::Applied { .. }), "{stored:?}");
        }
        panic!("it does not come to an end");
    }
}

/// A database with a replica, or without; its primary is on the first node.
fn created(replication: bool) -> (World, Leader) {
    let mut world = World::with_nodes(3);
    let one = Intent::CreateDatabase(DatabaseSpec {
        name: "alone".into(),
        memory_size: 1 << 30,
        replication: Some(false),
        ..DatabaseSpec::default()
    });
    let wanted = if replication { spec(1) } else { one };
    world.request(&wanted).unwrap();
    world.settle();
    let mut leader = Leader::new(3, 1);
    leader.hears(&mut world, 10);
    assert_eq!(told(&world), [""; 0], "all is well");
    (world, leader)
}

fn all(world: &World) -> Vec<Event> {
    let ours = [
        "node_",
        "shard_down",
        "shard_serves_again",
        "proxy_",
        "primary_node_",
    ];
    let events = world.state.list::<Event>(keys::EVENTS).unwrap().into_iter();
    let events = events.map(|(event, _)| event);
    events
        .filter(|event| ours.iter().any(|kind| event.kind.starts_with(kind)))
        .collect()
}

/// Severity and kind of each.
fn told(world: &World) -> Vec<String> {
    let events = all(world).into_iter();
    events
        .map(|event| format!("{:?} {}", event.severity, event.kind))
        .collect()
}

fn last(world: &World, kind: &str) -> Event {
    let mut events = all(world).into_iter().rev();
    events.find(|event| event.kind == kind).unwrap()
}

fn since(event: &Event) -> Timestamp {
    event.facts["since"].as_str().unwrap().parse().unwrap()
}

/// A node dies: others' proxies lose their connections to it, too.
fn silent(world: &mut World, node: u64) {
    cut(world, node);
    let others: Vec<u64> = world.nodes.keys().map(|uid| uid.0).collect();
    for other in others.into_iter().filter(|other| *other != node) {
        connected(world, other, false);
    }
}

/// The primary node does not hear it any more; others do.
fn cut(world: &mut World, node: u64) {
    world.silent.push(NodeUid(node));
}

fn seen(world: &mut World, uid: ShardUid, change: impl FnOnce(&mut ShardObservation)) {
    change(world.seen(uid));
}

#[test]
fn a_node_with_the_only_copy_of_a_database_dies_and_is_back() {
    let (mut world, mut leader) = created(false);
    let died = world.now;
    silent(&mut world, 1);
    leader.hears(&mut world, 3);
    assert_eq!(told(&world), [""; 0], "it does not count as down yet");
    leader.hears(&mut world, 5);
    let down = ["Error node_down", "Critical shard_down"];
    assert_eq!(told(&world), down);
    let node = last(&world, "node_down");
    assert_eq!((since(&node), &node.facts["node_uid"]), (died, &json!(1)));
    let shard = last(&world, "shard_down");
    assert_eq!(since(&shard), died);
    assert_eq!(shard.facts["bdb_name"], "alone");
    assert_eq!(
        shard.facts["cause"],
        "node:1 is not heard, and it has no replica"
    );

    // Another primary node knows what was told.
    let mut other = Leader::new(2, 2);
    other.hears(&mut world, 40);
    assert_eq!(told(&world)[2..], ["Info primary_node_changed"]);
    let who = last(&world, "primary_node_changed").facts;
    let both = (&who["node_uid"], &who["old_node_uid"]);
    assert_eq!(both, (&json!(2), &json!(3)));

    let back = world.now + SignedDuration::from_secs(1);
    world.silent.clear();
    other.hears(&mut world, 20);
    let again = ["Info shard_serves_again", "Info node_up"];
    assert_eq!(told(&world)[3..], again);
    let node = last(&world, "node_up");
    let times = (since(&node), &node.facts["down_since"]);
    assert_eq!(times, (back, &json!(died)));
}

/// An engine that runs and refuses writes, since its disk is full.
#[test]
fn a_master_refuses_writes_and_takes_them_again() {
    let (mut world, mut leader) = created(false);
    leader.hears(&mut world, 5);
    let full = || Some("it refuses writes: it cannot write its append-only file".to_owned());
    seen(&mut world, PRIMARY, |shard| shard.refuses_writes = full());
    leader.hears(&mut world, 4);
    assert_eq!(told(&world), [""; 0]);
    leader.hears(&mut world, 60);
    assert_eq!(told(&world), ["Critical shard_down"]);
    let facts = last(&world, "shard_down").facts;
    assert_eq!(
        facts["cause"],
        "redis:1: it refuses writes: it cannot write its append-only file"
    );
    assert!(
        facts["remedy"]
            .as_str()
            .unwrap()
            .starts_with("make room on the disk of node:1")
    );
    seen(&mut world, PRIMARY, |shard| shard.refuses_writes = None);
    leader.hears(&mut world, 20);
    assert_eq!(told(&world)[1..], ["Info shard_serves_again"]);
}

#[test]
fn a_node_that_comes_and_goes_is_told_of_once() {
    let (mut world, mut leader) = created(false);
    for _ in 0..10 {
        silent(&mut world, 2);
        leader.hears(&mut world, 6);
        world.silent.clear();
        leader.hears(&mut world, 3);
    }
    assert_eq!(told(&world), ["Error node_down"]);
    leader.hears(&mut world, 10);
    assert_eq!(told(&world), ["Error node_down", "Info node_up"]);
}

#[test]
fn a_node_that_joins_is_down_only_if_it_is_never_heard() {
    let (mut world, mut leader) = created(false);
    leader.hears(&mut world, 60);
    let joined = world.now;
    let fourth = NodeUid(4);
    world.commit(&Txn {
        put: vec![(keys::node(fourth), json!(node(fourth)))],
        ..Txn::default()
    });
    leader.observed.admitted(fourth, leader.instant);
    leader.hears(&mut world, 20);
    assert_eq!(told(&world), [""; 0]);
    leader.hears(&mut world, 20);
    assert_eq!(told(&world), ["Error node_down"]);
    assert_eq!(since(&last(&world, "node_down")), joined);
}

#[test]
fn a_primary_whose_replica_takes_its_place_is_not_down() {
    let (mut world, mut leader) = created(true);
    silent(&mut world, 1);
    leader.hears(&mut world, 3);
    world.link(REPLICA, false, false);
    let story = world.settle();
    assert!(story.contains("redis:2 becomes primary"), "{story}");
    leader.hears(&mut world, 60);
    assert_eq!(told(&world), ["Error node_down"]);
}

#[test]
fn a_node_whose_disk_is_full_is_told_of_once_and_again_when_there_is_room() {
    let (mut world, mut leader) = created(false);
    let full = |world: &mut World, is| {
        world.nodes.get_mut(&NodeUid(2)).unwrap().disk_full = is;
    };
    full(&mut world, true);
    leader.hears(&mut world, 20);
    assert_eq!(told(&world), ["Error node_disk_full"]);
    let facts = last(&world, "node_disk_full").facts;
    assert_eq!(facts["node_uid"], 2);
    assert!(facts["remedy"].as_str().unwrap().contains("make room"));
    // It is not heard for a moment, and another primary node hears it next.
    silent(&mut world, 2);
    leader.hears(&mut world, 2);
    world.silent.clear();
    let mut other = Leader::new(3, 2);
    other.hears(&mut world, 20);
    assert_eq!(told(&world).len(), 1);
    full(&mut world, false);
    other.hears(&mut world, 20);
    assert_eq!(told(&world)[1..], ["Info node_disk_has_room"]);
}

/// The network is cut between the primary node and the one with the master: others reach that as before.
#[test]
fn a_primary_that_others_reach_serves_on() {
    let (mut world, mut leader) = created(true);
    for uid in [2, 3] {
        connected(&mut world, uid, false);
    }
    cut(&mut world, 1);
    leader.hears(&mut world, 60);
    assert_eq!(told(&world), ["Error node_down"], "its replica hears it");
    world.link(REPLICA, false, false);
    leader.hears(&mut world, 20);
    assert_eq!(told(&world)[1..], ["Critical shard_down"]);

    let (mut world, mut leader) = created(false);
    connected(&mut world, 2, true);
    connected(&mut world, 3, false);
    cut(&mut world, 1);
    leader.hears(&mut world, 60);
    assert_eq!(told(&world), ["Error node_down"], "a proxy reaches it");
    connected(&mut world, 2, false);
    leader.hears(&mut world, 1);
    assert_eq!(told(&world)[1..], ["Critical shard_down"]);
}

/// Whether the proxy of a node has connections to the shards of the only database.
fn connected(world: &mut World, node: u64, is: bool) {
    let database = world.cluster().databases[0].uid;
    let seen = world.nodes.get_mut(&NodeUid(node)).unwrap();
    let proxy = seen.proxy.get_or_insert_default();
    proxy.databases = vec![model::observation::ProxyDatabaseObservation {
        database,
        shards_connected: is,
        ..Default::default()
    }];
}

#[test]
fn what_is_stopped_in_order_is_no_failure() {
    let (mut world, mut leader) = created(false);
    world.nodes.get_mut(&NodeUid(1)).unwrap().stopping = true;
    world.crash(PRIMARY);
    leader.hears(&mut world, 60);
    assert_eq!(told(&world), [""; 0], "it is stopping");
    silent(&mut world, 1);
    leader.hears(&mut world, 30);
    let down = ["Info node_stopped", "Warning shard_down"];
    assert_eq!(told(&world), down);

    for excuse in ["maintenance", "leaving"] {
        let (mut world, mut leader) = created(false);
        let key = keys::node(NodeUid(2));
        let (mut node, _) = world.state.get::<Node>(&key).unwrap().unwrap();
        node.leaving = excuse == "leaving";
        node.maintenance = (!node.leaving).then(|| model::documents::Maintenance {
            depth: 1,
            name: "m".into(),
            since: world.now,
            snapshot: Vec::new(),
        });
        world.apply(&Txn::new().put(key, &node).unwrap());
        silent(&mut world, 2);
        leader.hears(&mut world, 30);
        assert_eq!(told(&world), ["Warning node_down"], "{excuse}");
    }
}

/// An engine that does not start is tried again and again.
fn does_not_start(world: &mut World, leader: &mut Leader, uid: ShardUid, seconds: u64) {
    for second in 0..seconds {
        seen(world, uid, |seen| {
            seen.state = if second % 2 == 0 {
                EngineState::Failed
            } else {
                EngineState::Starting
            };
            seen.error = Some("Bad file format reading the append only file".into());
        });
        leader.hears(world, 1);
    }
}

#[test]
fn a_primary_that_cannot_be_started_is_told_of_once_and_again_when_it_serves() {
    let (mut world, mut leader) = created(false);
    let before = world.seen(PRIMARY).clone();
    let ended = world.now;
    world.crash(PRIMARY);
    does_not_start(&mut world, &mut leader, PRIMARY, 5);
    assert_eq!(told(&world), [""; 0], "it is tried again");
    does_not_start(&mut world, &mut leader, PRIMARY, 5);
    assert_eq!(told(&world), ["Critical shard_down"]);
    let event = last(&world, "shard_down");
    assert_eq!(
        (since(&event), &event.facts["role"]),
        (ended, &json!("master"))
    );
    let cause = event.facts["cause"].as_str().unwrap();
    assert!(cause.contains("Bad file format"), "{cause}");
    let mut other = Leader::new(3, 2);
    does_not_start(&mut world, &mut other, PRIMARY, 60);
    assert_eq!(told(&world).len(), 1, "it was told");
    *world.seen(PRIMARY) = before;
    other.hears(&mut world, 1);
    assert_eq!(told(&world)[1..], ["Info shard_serves_again"]);
}

#[test]
fn a_replica_that_cannot_be_started_is_a_warning() {
    let (mut world, mut leader) = created(true);
    world.crash(REPLICA);
    does_not_start(&mut world, &mut leader, REPLICA, 60);
    assert_eq!(told(&world), ["Warning shard_down"]);
}

#[test]
fn an_engine_that_is_started_in_time_is_not_down() {
    let (mut world, mut leader) = created(false);
    let before = world.seen(PRIMARY).clone();
    world.crash(PRIMARY);
    leader.hears(&mut world, 20);
    seen(&mut world, PRIMARY, |seen| {
        seen.state = EngineState::Loading
    });
    leader.hears(&mut world, 600);
    *world.seen(PRIMARY) = before;
    leader.hears(&mut world, 1);
    assert_eq!(told(&world), [""; 0]);
}

/// All that a primary node knew before is gone with its process.
#[test]
fn nodes_and_engines_that_start_with_the_whole_cluster_are_not_down() {
    let (mut world, mut leader) = created(false);
    leader.hears(&mut world, 1);
    let before = world.seen(PRIMARY).clone();
    world.crash(PRIMARY);
    let mut leader = Leader::new(3, 7);
    silent(&mut world, 1);
    silent(&mut world, 2);
    leader.hears(&mut world, 20);
    world.silent.clear();
    leader.hears(&mut world, 20);
    *world.seen(PRIMARY) = before;
    leader.hears(&mut world, 20);
    assert_eq!(told(&world), [""; 0]);
    // One that does not come is told of, later.
    let mut leader = Leader::new(3, 8);
    silent(&mut world, 2);
    leader.hears(&mut world, 40);
    assert_eq!(told(&world), ["Error node_down"]);
}

#[test]
fn a_proxy_that_is_gone_and_back() {
    let (mut world, mut leader) = created(false);
    let proxy = |world: &mut World, node: u64, pid: Option<u32>, taken: bool| {
        let seen = world.nodes.get_mut(&NodeUid(node)).unwrap();
        let there = seen.proxy.take().unwrap_or_default();
        seen.proxy = pid.map(|pid| model::observation::ProxyObservation {
            pid,
            handover: taken.then(HandoverCounts::default),
            ..there
        });
    };
    // One replaces the other, and takes over what it has.
    proxy(&mut world, 1, Some(2), true);
    leader.hears(&mut world, 60);
    assert_eq!(told(&world), [""; 0]);
    // Killed, and started again; and again, within a minute.
    for pid in [3, 4] {
        proxy(&mut world, 1, None, false);
        leader.hears(&mut world, 2);
        proxy(&mut world, 1, Some(pid), false);
        leader.hears(&mut world, 10);
    }
    assert_eq!(told(&world), ["Warning proxy_restarted"]);
    let mut leader = Leader::new(3, 2);
    leader.hears(&mut world, 60);
    // Gone for good; the other one serves no database.
    let gone = world.now + SignedDuration::from_secs(1);
    proxy(&mut world, 1, None, false);
    proxy(&mut world, 2, None, false);
    leader.hears(&mut world, 60);
    let down = ["Error proxy_down", "Warning proxy_down"];
    assert_eq!(told(&world)[1..], down);
    assert_eq!(since(&last(&world, "proxy_down")), gone);
    proxy(&mut world, 1, Some(5), false);
    leader.hears(&mut world, 60);
    assert_eq!(told(&world)[3..], ["Info proxy_up"]);
}
