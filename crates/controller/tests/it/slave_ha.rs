//! Lost replicas are made anew on another node.

use crate::world::World;
use controller::replica_set;
use jiff::SignedDuration;
use model::documents::{Database, Node, OperationStatus, Role, Shard, keys};
use model::intent::{ClusterChange, DatabaseChange, DatabaseSpec, Intent, SlaveHaChange};
use model::observation::EngineState;
use model::replication::ReplicaSeen;
use model::{DatabaseUid, ErrorCode, NodeUid, ShardUid};
use serde_json::json;
use store::Txn;

const GRACE: i64 = 600;

fn create(world: &mut World, name: &str, memory_size: u64) {
    let spec = DatabaseSpec {
        name: name.into(),
        memory_size,
        replication: Some(true),
        ..DatabaseSpec::default()
    };
    world.request(&Intent::CreateDatabase(spec)).unwrap();
    world.settle();
}

/// One database: its primary on the first node, its replica on the second.
fn created(nodes: u64) -> World {
    let mut world = World::with_nodes(nodes);
    create(&mut world, "demo", 1 << 30);
    world
}

fn passes(world: &mut World, seconds: i64) {
    world.now += SignedDuration::from_secs(seconds);
}

/// A node falls silent, and its primaries' engines do not hear of its replicas any more.
fn dies(world: &mut World, node: u64) {
    world.falls_silent(NodeUid(node));
    for seen in world.nodes.values_mut().flat_map(|n| &mut n.shards) {
        if let Some(replication) = &mut seen.replication {
            let gone = format!("127.0.0.{}:", 10 + node);
            replication
                .replicas
                .retain(|replica| !replica.address.to_string().starts_with(&gone));
        }
    }
}

/// All nodes are heard, and their replicas linked.
fn all_back(world: &mut World) {
    let kept: Vec<_> = world
        .nodes
        .values()
        .flat_map(|node| &node.shards)
        .filter_map(|seen| {
            let replication = seen.replication.as_ref()?;
            let to = replication.primary?;
            let cluster = world.cluster();
            let mine = replica_set::address(&cluster, cluster.shard(seen.shard)?)?;
            Some((to, mine, replication.offset))
        })
        .collect();
    let cluster = world.cluster();
    for (to, address, offset) in kept {
        let mut shards = cluster.shards.iter();
        let primary = shards.find(|s| replica_set::address(&cluster, s) == Some(to));
        let seen = world.seen(primary.unwrap().uid);
        let replicas = &mut seen.replication.as_mut().unwrap().replicas;
        if !replicas.iter().any(|replica| replica.address == address) {
            replicas.push(ReplicaSeen {
                address,
                online: true,
                offset,
                lag_seconds: 0,
            });
        }
    }
    world.mend();
    world.patient = false;
}

fn shards(world: &World) -> Vec<Shard> {
    let cluster = world.cluster();
    cluster.shards.iter().map(|s| s.doc.clone()).collect()
}

fn database(world: &World, uid: u64) -> Database {
    let cluster = world.cluster();
    cluster.database(DatabaseUid(uid)).unwrap().doc.clone()
}

fn events(world: &World) -> Vec<String> {
    let all = world.state.list::<model::documents::Event>(keys::EVENTS);
    let all = all.unwrap().into_iter();
    all.map(|(event, _)| event.kind)
        .filter(|kind| kind.starts_with("slave_ha"))
        .collect()
}

#[test]
fn a_replica_on_a_lost_node_is_made_anew_after_the_grace_time() {
    let mut world = created(3);
    world.slave_ha(3_600);
    dies(&mut world, 2);
    insta::assert_snapshot!(world.settle(), @r"
    store: redis:2 is not synced any more: its primary does not see it
    store: lost or found: redis:2
    ");
    passes(&mut world, GRACE - 1);
    assert_eq!(world.settle(), "", "the grace time is not over");
    passes(&mut world, 1);
    insta::assert_snapshot!(world.settle(), @r"
    store: lost, and made anew elsewhere: redis:2 of db:1
    store: redis:3 becomes a copy of redis:2 on node:3
    node:1 promises: redis:1 gives no promises to proxies yet
    node:3 starts: redis:3 does not run on node:3
    node:3 follows: redis:3 does not follow redis:1 in epoch 1
    store: redis:3 is synced in epoch 1
    node:3 promises: redis:3 gives no promises to proxies yet
    store: redis:2 has a copy in its place
    node:1 promises: redis:1 gives no promises to proxies yet
    node:3 promises: redis:3 gives no promises to proxies yet
    store: redis:2 has moved
    store: database db:1 is served by every proxy
    ");
    let all = shards(&world);
    assert_eq!(all.len(), 3, "what is on the lost node is remembered");
    assert_eq!((all[2].node, all[2].role), (NodeUid(3), Role::Replica));
    assert!(all[2].synced.is_some() && all[1].removed_by.is_some());
    assert_eq!(database(&world, 1).operation, None);
    assert_eq!(events(&world), ["slave_ha_started", "slave_ha_completed"]);
    world.silent.clear();
    insta::assert_snapshot!(world.settle(), @"node:2 removes: redis:2 is not wanted any more");
    assert_eq!(shards(&world).len(), 2);
    assert_eq!(world.settle(), "");
}

/// It is turned on long after the node died: the event tells when that was.
#[test]
fn the_event_names_the_loss_and_not_when_that_began_to_count() {
    let mut world = created(3);
    let died = world.now;
    let outages = json!({"nodes": {"2": {"since": died}}});
    world.apply(&Txn::new().put(keys::OUTAGES, &outages).unwrap());
    dies(&mut world, 2);
    passes(&mut world, 1_000);
    world.slave_ha(3_600);
    world.settle();
    passes(&mut world, GRACE - 1);
    world.settle();
    assert_eq!(
        events(&world),
        [""; 0],
        "the grace time counts from when it is on"
    );
    passes(&mut world, 1);
    world.settle();
    let started = crate::hangs::events(&world, "slave_ha_started");
    assert_eq!(started[0]["lost_since"], json!(died));
}

#[test]
fn all_lost_replicas_of_a_database_one_after_the_other() {
    let mut world = World::with_nodes(3);
    let spec = DatabaseSpec {
        name: "demo".into(),
        memory_size: 1 << 30,
        shards_count: Some(3),
        replication: Some(true),
        ..DatabaseSpec::default()
    };
    world.request(&Intent::CreateDatabase(spec)).unwrap();
    world.settle();
    world.slave_ha(3_600);
    let of = |world: &World, role| {
        let all = shards(world).into_iter();
        let nodes = all.filter(|s| s.role == role && s.removed_by.is_none());
        nodes.map(|s| s.node.0).collect::<Vec<_>>()
    };
    assert_eq!(of(&world, Role::Primary), [1, 1, 1]);
    assert_eq!(of(&world, Role::Replica), [2, 3, 2]);
    dies(&mut world, 2);
    world.settle();
    passes(&mut world, GRACE);
    world.settle();
    assert_eq!(of(&world, Role::Replica), [3, 3, 3]);
    assert_eq!(events(&world), ["slave_ha_started", "slave_ha_completed"]);
    world.silent.clear();
    world.settle();
    assert_eq!(shards(&world).len(), 6);
}

#[test]
fn who_is_back_in_time_stays() {
    let mut world = created(3);
    world.slave_ha(0);
    dies(&mut world, 2);
    world.settle();
    assert!(shards(&world)[1].lost.is_some());
    passes(&mut world, GRACE - 1);
    all_back(&mut world);
    world.settle();
    let all = shards(&world);
    assert!(all[1].lost.is_none() && all[1].synced.is_some());
    passes(&mut world, GRACE);
    assert_eq!(world.settle(), "");
    assert_eq!(shards(&world).len(), 2);
}

#[test]
fn off_unless_an_operator_wants_it() {
    let mut world = created(3);
    dies(&mut world, 2);
    world.settle();
    passes(&mut world, 10 * GRACE);
    assert_eq!(world.settle(), "");
    let on = |on: Option<bool>| Intent::UpdateDatabase {
        database: DatabaseUid(1),
        change: Box::new(DatabaseChange {
            slave_ha: SlaveHaChange {
                enabled: on,
                as_cluster: on.is_none(),
                priority: Some(3),
            },
            ..DatabaseChange::default()
        }),
    };
    // While its replica is away a change of a database does not end; nor is anything begun until then.
    all_back(&mut world);
    world.settle();
    world.request(&on(Some(true))).unwrap();
    world.settle();
    assert_eq!(database(&world, 1).slave_ha.priority, 3);
    dies(&mut world, 2);
    world.settle();
    passes(&mut world, GRACE);
    world.settle();
    assert_eq!(shards(&world).len(), 3, "its own word counts");

    let mut world = created(3);
    world.slave_ha(0);
    world.request(&on(Some(false))).unwrap();
    world.settle();
    dies(&mut world, 2);
    world.settle();
    passes(&mut world, GRACE);
    assert_eq!(world.settle(), "");
    all_back(&mut world);
    world.settle();
    world.request(&on(None)).unwrap();
    world.settle();
    assert_eq!(database(&world, 1).slave_ha.enabled, None);
    dies(&mut world, 2);
    world.settle();
    passes(&mut world, GRACE);
    world.settle();
    assert_eq!(shards(&world).len(), 3, "it is as the cluster says again");
}

#[test]
fn an_operators_maintenance_is_no_loss() {
    let mut world = created(3);
    world.slave_ha(0);
    dies(&mut world, 2);
    world.settle();
    let mut doc: Node = world.cluster().node(NodeUid(2)).unwrap().doc.clone();
    doc.leaving = true;
    world.apply(&Txn {
        put: vec![(keys::node(NodeUid(2)), json!(doc))],
        ..Txn::default()
    });
    world.settle();
    assert!(shards(&world)[1].lost.is_none());
    passes(&mut world, GRACE);
    assert_eq!(world.settle(), "");
}

#[test]
fn an_engine_that_does_not_come_back_counts_as_lost() {
    let mut world = created(3);
    world.slave_ha(0);
    world.crash(ShardUid(2));
    world.seen(ShardUid(2)).state = EngineState::Failed;
    world
        .seen(ShardUid(1))
        .replication
        .as_mut()
        .unwrap()
        .replicas
        .clear();
    let mut steps = 0;
    // Its node would start it again; here it never comes back.
    while let Some(step) = world
        .plan()
        .steps
        .into_iter()
        .find(|step| matches!(step, controller::database::plan::Step::Store { .. }))
    {
        world.execute(step);
        steps += 1;
        assert!(steps < 10);
    }
    assert!(shards(&world)[1].lost.is_some());
    passes(&mut world, GRACE);
    for _ in 0..30 {
        let steps = world.plan().steps;
        let step = steps.into_iter().find(|step| {
            !matches!(step, controller::database::plan::Step::Command { shard, command, .. }
                if *shard == ShardUid(2)
                    && matches!(command, model::command::AgentCommand::EnsureEngine(_)))
        });
        let Some(step) = step else { break };
        world.execute(step);
    }
    let all = shards(&world);
    assert_eq!(all.len(), 2, "{all:?}");
    assert_eq!((all[1].node, all[1].role), (NodeUid(3), Role::Replica));
    assert!(all[1].synced.is_some());
}

#[test]
fn without_room_it_is_told_once_an_hour() {
    let mut world = created(2);
    world.slave_ha(0);
    dies(&mut world, 2);
    world.settle();
    passes(&mut world, GRACE);
    insta::assert_snapshot!(world.settle(), @"store: lost, and cannot be made anew: redis:2");
    let trouble = shards(&world)[1].trouble.clone();
    insta::assert_snapshot!(
        trouble.unwrap(),
        @"lost, and not made anew yet: no node can take redis:2 (512MB): node:1 has a copy already; node:2 is the one that it leaves"
    );
    passes(&mut world, 3_599);
    assert_eq!(world.settle(), "");
    passes(&mut world, 1);
    world.settle();
    assert_eq!(events(&world), ["slave_ha_waits", "slave_ha_waits"]);
    all_back(&mut world);
    world.settle();
    assert_eq!(shards(&world)[1].trouble, None);
}

#[test]
fn racks_are_kept() {
    let mut world = World::with_nodes(4);
    for (uid, rack) in [(1, "a"), (2, "b"), (3, "a"), (4, "b")] {
        let mut doc: Node = world.cluster().node(NodeUid(uid)).unwrap().doc.clone();
        doc.rack_id = Some(rack.into());
        // The other node of the primary's rack would be the best.
        doc.memory_bytes = if uid == 3 { 64 << 30 } else { doc.memory_bytes };
        world.apply(&Txn {
            put: vec![(keys::node(doc.uid), json!(doc))],
            ..Txn::default()
        });
    }
    let aware = ClusterChange {
        rack_aware: Some(true),
        ..ClusterChange::default()
    };
    world.request(&Intent::UpdateCluster(aware)).unwrap();
    create(&mut world, "demo", 1 << 30);
    world.slave_ha(0);
    let before = shards(&world);
    let (primary, replica) = (before[0].node, before[1].node);
    assert_eq!(primary, NodeUid(3));
    dies(&mut world, replica.0);
    world.settle();
    passes(&mut world, GRACE);
    world.settle();
    let other = if replica == NodeUid(2) { 4 } else { 2 };
    assert_eq!(shards(&world)[2].node, NodeUid(other));
}

#[test]
fn a_few_at_once_by_priority_and_size() {
    let mut world = World::with_nodes(3);
    for (name, size) in [("a", 3), ("b", 2), ("c", 2), ("d", 1), ("e", 4), ("f", 4)] {
        create(&mut world, name, size << 28);
    }
    world.slave_ha(0);
    let first = Intent::UpdateDatabase {
        database: DatabaseUid(5),
        change: Box::new(DatabaseChange {
            slave_ha: SlaveHaChange {
                priority: Some(1),
                ..SlaveHaChange::default()
            },
            ..DatabaseChange::default()
        }),
    };
    world.request(&first).unwrap();
    world.settle();
    let lost: Vec<u64> = shards(&world)
        .iter()
        .filter(|s| s.role == Role::Replica && s.node == NodeUid(2))
        .map(|s| s.database.0)
        .collect();
    dies(&mut world, 2);
    for _ in 0..40 {
        world.settle_one();
    }
    passes(&mut world, GRACE);
    let mut order: Vec<u64> = Vec::new();
    for _ in 0..200 {
        let steps = world.plan().steps;
        let Some(step) = steps.into_iter().next_back() else {
            break;
        };
        world.execute(step);
        let cluster = world.cluster();
        let running = cluster.operations.iter();
        let running: Vec<u64> = running
            .filter(|o| o.slave_ha && o.status == OperationStatus::Active)
            .map(|o| o.database.0)
            .collect();
        assert!(running.len() <= model::limits::SLAVE_HA_AT_ONCE);
        for uid in running {
            if !order.contains(&uid) {
                order.push(uid);
            }
        }
    }
    let mut expected = vec![5, 4, 3, 2, 1, 6];
    expected.retain(|uid| lost.contains(uid));
    order.truncate(expected.len());
    assert_eq!(order, expected);
}

#[test]
fn another_node_waits_for_the_cool_down() {
    let mut world = World::with_nodes(4);
    create(&mut world, "one", 1 << 30);
    create(&mut world, "two", 1 << 30);
    world.slave_ha(3_600);
    let all = shards(&world);
    let replicas: Vec<&Shard> = all.iter().filter(|s| s.role == Role::Replica).collect();
    let (first, second) = (replicas[0].node, replicas[1].node);
    assert_ne!(first, second);
    dies(&mut world, first.0);
    world.settle();
    passes(&mut world, GRACE);
    world.settle();
    assert_eq!(shards(&world).len(), 5);
    let mut primaries = all.iter().filter(|s| s.role == Role::Primary);
    assert!(primaries.all(|s| s.node != second || s.database == DatabaseUid(1)));
    dies(&mut world, second.0);
    world.settle();
    passes(&mut world, GRACE);
    insta::assert_snapshot!(world.settle(), @"store: lost, and cannot be made anew: redis:4");
    passes(&mut world, 3_600);
    world.settle();
    let lost = shards(&world)
        .iter()
        .any(|s| s.lost.is_some() && s.removed_by.is_none());
    assert!(!lost, "{:#?}", shards(&world));
}

#[test]
fn a_copy_that_is_lost_too_gets_another_place() {
    let mut world = created(4);
    world.slave_ha(0);
    dies(&mut world, 2);
    world.settle();
    passes(&mut world, GRACE);
    world.settle_one();
    world.settle_one();
    let copy = shards(&world)[2].clone();
    dies(&mut world, copy.node.0);
    world.settle();
    passes(&mut world, GRACE);
    world.settle();
    let all = shards(&world);
    let well = all.iter().filter(|s| s.removed_by.is_none());
    let nodes: Vec<NodeUid> = well.map(|s| s.node).collect();
    assert_eq!(nodes.len(), 2);
    assert!(!nodes.contains(&NodeUid(2)) && !nodes.contains(&copy.node));
    assert_eq!(database(&world, 1).operation, None);
    world.silent.clear();
    world.settle();
    assert_eq!(shards(&world).len(), 2);
}

#[test]
fn times_out_of_range_are_refused() {
    let mut world = World::with_nodes(1);
    let change = ClusterChange {
        slave_ha_grace_period: Some(u32::MAX),
        ..ClusterChange::default()
    };
    let error = world.request(&Intent::UpdateCluster(change)).unwrap_err();
    assert_eq!(error.error_code, ErrorCode::InvalidParam);
    assert!(error.description.contains("slave_ha_grace_period"));
}

/// What the last release stored is read, and means that nothing is made anew.
#[test]
fn documents_of_the_last_release() {
    let mut world = created(2);
    let mut put = Vec::new();
    for (key, entry) in &world.state.entries {
        let mut value = entry.value.clone();
        if let Some(fields) = value.as_object_mut() {
            for field in ["slave_ha", "lost", "node_loss"] {
                fields.remove(field);
            }
            if let Some(settings) = fields.get_mut("settings").and_then(|s| s.as_object_mut()) {
                settings.retain(|name, _| !name.starts_with("slave_ha"));
            }
        }
        put.push((key.clone(), value));
    }
    world.apply(&Txn {
        put,
        ..Txn::default()
    });
    let settings = world.cluster().cluster.settings.clone();
    assert!(!settings.slave_ha);
    assert_eq!(settings.slave_ha_grace_period, 600);
    assert_eq!(world.settle(), "");
}
