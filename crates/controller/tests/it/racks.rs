//! Copies in different racks.

use crate::world::World;
use model::documents::Node;
use model::documents::keys;
use model::intent::{
    ClusterChange, DatabaseChange, DatabaseSpec, Intent, MaintenanceWish, MigrateWhat, Pace,
};
use model::{DatabaseUid, ErrorCode, NodeUid, ShardUid};
use serde_json::json;
use store::Txn;

/// Nodes in these racks.
fn world(racks: &[&str]) -> World {
    let mut world = World::with_nodes(racks.len() as u64);
    for (index, rack) in racks.iter().enumerate() {
        let uid = NodeUid(index as u64 + 1);
        let doc: Node = world.cluster().node(uid).unwrap().doc.clone();
        let doc = Node {
            rack_id: Some((*rack).to_owned()).filter(|rack| !rack.is_empty()),
            ..doc
        };
        world.apply(&Txn {
            put: vec![(keys::node(uid), json!(doc))],
            ..Txn::default()
        });
    }
    world
}

fn ask(world: &mut World, intent: &Intent) -> Result<(), (ErrorCode, String)> {
    let before = world.state.clone();
    let answer = world.request(intent);
    if answer.is_err() {
        assert_eq!(world.state, before, "what is refused changes nothing");
    }
    let asked = answer
        .map(|_| ())
        .map_err(|e| (e.error_code, e.description));
    world.settle();
    asked
}

fn aware(on: bool) -> Intent {
    Intent::UpdateCluster(ClusterChange {
        rack_aware: Some(on),
        ..ClusterChange::default()
    })
}

fn create(shards: u32, rack_aware: Option<bool>) -> Intent {
    Intent::CreateDatabase(DatabaseSpec {
        name: format!("d{shards}"),
        memory_size: 256 << 20,
        shards_count: Some(shards),
        replication: Some(true),
        rack_aware,
        ..DatabaseSpec::default()
    })
}

/// The racks of each range's copies.
fn racks(world: &World) -> Vec<Vec<String>> {
    let cluster = world.cluster();
    let rack = |node| cluster.node(node).unwrap().rack_id.clone().unwrap();
    let primaries = cluster
        .shards
        .iter()
        .filter(|s| s.role == model::documents::Role::Primary);
    primaries
        .map(|primary| {
            let same = cluster.shards.iter().filter(|s| s.slots == primary.slots);
            same.map(|shard| rack(shard.node)).collect()
        })
        .collect()
}

fn all_apart(world: &World) {
    for set in racks(world) {
        assert_eq!(set.len(), 2);
        assert_ne!(set[0], set[1]);
    }
}

fn migrate(shard: u64, node: u64, override_policy: bool) -> Intent {
    Intent::MigrateShards {
        what: MigrateWhat::Shards {
            shards: vec![ShardUid(shard)],
        },
        node: NodeUid(node),
        override_policy,
    }
}

#[test]
fn copies_are_in_different_racks() {
    let mut world = world(&["a", "a", "b", "b"]);
    let (code, _) = ask(&mut world, &create(6, Some(true))).unwrap_err();
    assert_eq!(code, ErrorCode::NotRackAware);
    ask(&mut world, &aware(true)).unwrap();
    ask(&mut world, &create(6, None)).unwrap();
    all_apart(&world);
    assert!(world.cluster().databases[0].rack_aware);
    // A node is emptied into its own rack, whatever room there is elsewhere.
    for node in 1..=4 {
        let on = Intent::MaintenanceOn {
            node: NodeUid(node),
            wish: MaintenanceWish::default(),
            pace: Pace::default(),
        };
        ask(&mut world, &on).unwrap();
        assert!(world.cluster().shards.iter().all(|s| s.node.0 != node));
        all_apart(&world);
        let off = Intent::MaintenanceOff {
            node: NodeUid(node),
            restore: model::intent::Restore::Newest,
            pace: Pace::default(),
        };
        ask(&mut world, &off).unwrap();
        all_apart(&world);
    }
    let (code, why) = ask(&mut world, &aware(false)).unwrap_err();
    assert_eq!(code, ErrorCode::InvalidParam);
    assert!(why.contains("never turned off"), "{why}");
}

fn moved(node: u64, rack: &str) -> Intent {
    Intent::UpdateNode {
        node: NodeUid(node),
        rack_id: Some(rack.into()),
    }
}

#[test]
fn a_node_is_in_another_rack_from_now_on() {
    // Racks are said when the cluster is there already.
    let mut world = world(&["", "", ""]);
    let (code, why) = ask(&mut world, &aware(true)).unwrap_err();
    assert_eq!(code, ErrorCode::RackIdRequired);
    assert!(why.contains("rack_id set"), "{why}");
    for (node, rack) in [(1, "a"), (2, "b"), (3, "c")] {
        ask(&mut world, &moved(node, rack)).unwrap();
    }
    let (code, _) = ask(&mut world, &moved(9, "a")).unwrap_err();
    assert_eq!(code, ErrorCode::NodeNotFound);
    assert!(ask(&mut world, &moved(1, "1 rack")).is_err());
    ask(&mut world, &aware(true)).unwrap();
    ask(&mut world, &create(1, None)).unwrap();
    let nodes: Vec<u64> = world.cluster().shards.iter().map(|s| s.node.0).collect();
    let other = if nodes[1] == 2 { "b" } else { "c" };
    let (code, why) = ask(&mut world, &moved(nodes[0], other)).unwrap_err();
    assert_eq!(code, ErrorCode::RackAwarenessViolation);
    assert!(why.contains("redis:1 and redis:2"), "{why}");
    let free = 6 - nodes[0] - nodes[1];
    ask(&mut world, &moved(free, other)).unwrap();
    ask(&mut world, &moved(nodes[0], "z")).unwrap();
    // While a shard is on its way to a node, its rack stays.
    world.request(&migrate(2, free, false)).unwrap();
    let (code, _) = world
        .request(&moved(free, "y"))
        .map(|_| ())
        .map_err(|e| (e.error_code, e.description))
        .unwrap_err();
    assert_eq!(code, ErrorCode::Busy);
    world.settle();
    all_apart(&world);
}

#[test]
fn an_operator_may_insist() {
    let mut world = world(&["a", "a", "b"]);
    ask(&mut world, &aware(true)).unwrap();
    ask(&mut world, &create(1, None)).unwrap();
    let shards: Vec<_> = world
        .cluster()
        .shards
        .iter()
        .map(|s| (s.uid, s.node))
        .collect();
    let (in_b, _) = shards
        .iter()
        .find(|(_, node)| node.0 == 3)
        .copied()
        .unwrap();
    let free = (1..=2)
        .find(|n| shards.iter().all(|(_, node)| node.0 != *n))
        .unwrap();
    let (code, why) = ask(&mut world, &migrate(in_b.0, free, false)).unwrap_err();
    assert_eq!(code, ErrorCode::RackAwarenessViolation);
    assert!(why.contains("would be in rack 'a'"), "{why}");
    ask(&mut world, &migrate(in_b.0, free, true)).unwrap();
    assert_eq!(racks(&world), [["a", "a"]]);
    // And may not say afterwards that all is well.
    let change = |rack_aware| Intent::UpdateDatabase {
        database: DatabaseUid(1),
        change: Box::new(DatabaseChange {
            rack_aware: Some(rack_aware),
            ..DatabaseChange::default()
        }),
    };
    ask(&mut world, &change(false)).unwrap();
    let (code, _) = ask(&mut world, &change(true)).unwrap_err();
    assert_eq!(code, ErrorCode::RackAwarenessViolation);
    let uid = world.cluster().shards.last().unwrap().uid;
    ask(&mut world, &migrate(uid.0, 3, false)).unwrap();
    ask(&mut world, &change(true)).unwrap();
    all_apart(&world);
}

#[test]
fn where_there_is_no_other_rack_each_node_says_why() {
    let mut world = world(&["a", "a", "b"]);
    ask(&mut world, &aware(true)).unwrap();
    world.silent.push(NodeUid(3));
    let (code, why) = ask(&mut world, &create(1, None)).unwrap_err();
    assert_eq!(code, ErrorCode::NodeDown);
    insta::assert_snapshot!(why, @"no other node can take a replica of 128MB: node:1 has the primary; node:2 is in the primary's rack 'a'; node:3 is not heard. Bring node:3 back, or add a node");
    // Without that wish there is room.
    ask(&mut world, &create(1, Some(false))).unwrap();
    let mut none = self::world(&["a", ""]);
    let (code, why) = ask(&mut none, &aware(true)).unwrap_err();
    assert_eq!(code, ErrorCode::RackIdRequired);
    assert!(why.starts_with("without a rack: node:2."), "{why}");
}
