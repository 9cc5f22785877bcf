//! Limits and settings of the data path.

use crate::world::World;
use controller::database::plan::Step;
use model::command::AgentCommand;
use model::documents::{Database, DatabaseStatus, Event, keys};
use model::intent::{DatabaseChange, DatabaseSpec, Intent};
use model::tuning::{DatabaseTuning, ProxyChange, ProxyMode, TuningChange};
use model::{DatabaseUid, ErrorCode, NodeUid};

fn update(change: DatabaseChange) -> Intent {
    Intent::UpdateDatabase {
        database: DatabaseUid(1),
        change: Box::new(change),
    }
}

fn events(flags: &str) -> DatabaseChange {
    DatabaseChange {
        notify_keyspace_events: Some(flags.to_owned()),
        ..DatabaseChange::default()
    }
}

fn served(engine: &str) -> World {
    let mut world = World::with_nodes(1);
    let spec = DatabaseSpec {
        name: "demo".to_owned(),
        memory_size: 1 << 30,
        redis_version: Some(engine.to_owned()),
        ..DatabaseSpec::default()
    };
    world.request(&Intent::CreateDatabase(spec)).unwrap();
    world.settle();
    world
}

fn database(world: &World) -> Database {
    world.cluster().databases[0].doc.clone()
}

fn event(world: &World, kind: &str) -> Option<Event> {
    let events = world.state.list::<Event>(keys::EVENTS).unwrap();
    let mut events = events.into_iter().map(|(event, _)| event);
    events.find(|event| event.kind == kind)
}

#[test]
fn limits_are_for_the_proxies_alone() {
    let mut world = served("valkey-9.1");
    let generation = world.cluster().shards[0].generation;
    let change = DatabaseChange {
        tuning: TuningChange {
            max_client_pipeline: Some(100),
            max_commands_per_second: Some(5_000),
            client_buffer: Some("32MB".parse().unwrap()),
            ..TuningChange::default()
        },
        ..DatabaseChange::default()
    };
    assert!(
        world
            .request(&update(change.clone()))
            .unwrap()
            .operation
            .is_some()
    );
    world.settle();
    let wanted = DatabaseTuning {
        max_client_pipeline: 100,
        max_commands_per_second: 5_000,
        client_buffer: "32MB".parse().unwrap(),
        ..DatabaseTuning::default()
    };
    assert_eq!(database(&world).tuning, wanted);
    assert_eq!(
        world.cluster().shards[0].generation,
        generation,
        "no engine has to do anything"
    );
    assert_eq!(world.request(&update(change)).unwrap().operation, None);
    let wrong = DatabaseChange {
        tuning: TuningChange {
            slowlog_max_len: Some(1_000),
            ..TuningChange::default()
        },
        ..DatabaseChange::default()
    };
    let error = world.request(&update(wrong)).unwrap_err();
    assert_eq!(error.error_code, ErrorCode::InvalidParam);
    assert!(error.description.contains("slowlog_max_len"), "{error}");
}

#[test]
fn keyspace_events_reach_the_engines_before_it_is_done() {
    let mut world = served("valkey-9.1");
    let generation = world.cluster().shards[0].generation;
    let mut change = events("KEA");
    change.client = Some(("10.0.0.9:4711".to_owned(), NodeUid(1)));
    let operation = world.request(&update(change)).unwrap().operation;
    assert!(operation.is_some());
    let state = world.cluster();
    assert_eq!(state.databases[0].notify_keyspace_events, "AKE");
    assert_eq!(
        state.databases[0].status,
        DatabaseStatus::ActiveChangePending
    );
    assert_eq!(state.shards[0].generation, generation.next());
    let ordered = world.plan().steps.into_iter().any(|step| {
        matches!(step, Step::Command { command: AgentCommand::EnsureEngine(spec), .. }
            if spec.settings.notify_keyspace_events == "AKE")
    });
    assert!(ordered, "an agent is told");
    world.settle();
    assert_eq!(database(&world).status, DatabaseStatus::Active);
    let event = event(&world, "bdb_keyspace_events_changed").unwrap();
    assert_eq!(event.facts["old_val"], "");
    assert_eq!(event.facts["new_val"], "AKE");
    let by = event.facts["changed_by"].as_str().unwrap();
    assert!(
        by.contains("10.0.0.9:4711") && by.contains("node:1"),
        "{by}"
    );
    // The same in other words is no change.
    assert_eq!(
        world.request(&update(events("EAK"))).unwrap().operation,
        None
    );
    let error = world.request(&update(events("K!"))).unwrap_err();
    assert_eq!(error.error_code, ErrorCode::InvalidParam);
}

#[test]
fn proxies_of_one_node_and_of_all() {
    let mut world = World::with_nodes(3);
    let change = ProxyChange {
        mode: Some(ProxyMode::Static),
        threads: Some(4),
        ..ProxyChange::default()
    };
    let one = |node| Intent::UpdateProxy {
        node,
        change: change.clone(),
    };
    world.request(&one(Some(NodeUid(2)))).unwrap();
    let threads = |world: &World| -> Vec<u32> {
        world
            .cluster()
            .nodes
            .iter()
            .map(|node| node.proxy.threads)
            .collect()
    };
    assert_eq!(threads(&world), [0, 4, 0]);
    world.request(&one(None)).unwrap();
    assert_eq!(threads(&world), [4, 4, 4]);
    assert!(event(&world, "proxy_updated").is_some());
    let error = world.request(&one(Some(NodeUid(9)))).unwrap_err();
    assert_eq!(error.error_code, ErrorCode::NodeNotFound);
    let wrong = Intent::UpdateProxy {
        node: None,
        change: ProxyChange {
            scale_threshold: Some(20),
            ..ProxyChange::default()
        },
    };
    let error = world.request(&wrong).unwrap_err();
    assert_eq!(error.error_code, ErrorCode::InvalidParam);
    assert!(error.description.contains("scale_threshold 20"), "{error}");
}
