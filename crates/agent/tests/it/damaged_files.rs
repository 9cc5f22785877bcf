//! Files that an engine cannot load: that is told from what else keeps it from starting, and they are set aside by order.

use crate::bench::*;
use agent::Agent;
use agent::ledger::DataSource;
use jiff::Timestamp;
use model::command::{AgentCommand, EngineSpec};
use model::documents::Persistence;
use model::limits::LOAD_FAILURES;
use model::observation::{EngineState, ShardObservation};
use model::release::EngineId;
use model::{Epoch, Generation};
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::{Instant, sleep};

const SNAPSHOT: Persistence = Persistence::Snapshot {
    seconds: 3600,
    writes: 1_000_000,
};

fn order(generation: u64, epoch: u64, decided: Timestamp) -> AgentCommand {
    AgentCommand::SetAside {
        shard: SHARD,
        generation: Generation(generation),
        epoch: Epoch(epoch),
        decided,
    }
}

/// Writes nonsense over every file with data.
fn damage(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() && name == "appendonlydir" {
            found.extend(damage(&path));
        } else if name == "dump.rdb" || name.contains(".aof") && !name.ends_with(".manifest") {
            fs::write(&path, "*3\r\n$3\r\nSET\r\nno command\r\n".repeat(9)).unwrap();
            found.push(path);
        }
    }
    found
}

/// Orders its start until the agent has seen something.
async fn tries(
    agent: &Agent,
    wanted: &EngineSpec,
    looks: impl Fn(&ShardObservation) -> bool,
) -> ShardObservation {
    let until = Instant::now() + DEADLINE;
    loop {
        // It fails, or waits until it may be tried again.
        let _ = agent
            .execute(AgentCommand::EnsureEngine(wanted.clone()))
            .await;
        let seen = agent.shards().remove(0);
        if looks(&seen) {
            return seen;
        }
        assert!(Instant::now() < until, "never seen, but {seen:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_files_are_told_and_set_aside_by_order() {
    for engine in engines() {
        for persistence in [Persistence::AofEveryWrite, SNAPSHOT] {
            sets_aside(&engine, persistence).await;
        }
    }
}

async fn sets_aside(engine: &EngineId, persistence: Persistence) {
    let about = format!("{engine} {persistence:?}");
    let node = Node::new();
    let mut wanted = spec(engine.clone());
    wanted.settings.persistence = persistence;
    let agent = node.agent().await;
    let shard = serve(&agent, &wanted, 1).await;
    set(&mut node.as_proxy(1).unwrap(), "key", "value");
    if persistence == SNAPSHOT {
        say::<()>(&mut node.as_cnm(), "SAVE").unwrap();
    }
    kill_hard(shard.pid.unwrap());
    seen(&agent, |shard| shard.state == EngineState::Stopped).await;
    assert!(!damage(node.shard_folder().path()).is_empty(), "{about}");

    let decided = Timestamp::now();
    let once = tries(&agent, &wanted, |shard| shard.load_failures > 0).await;
    assert_eq!(
        (once.state, once.set_aside),
        (EngineState::Failed, None),
        "{about}"
    );
    let few = not_yet(agent.execute(order(1, 2, decided)).await);
    assert!(few.contains("1 times in a row"), "{about}: {few}");
    tries(&agent, &wanted, |shard| {
        shard.load_failures >= LOAD_FAILURES
    })
    .await;
    let own = stale(agent.execute(order(1, 1, decided)).await);
    assert!(own.contains("primary of epoch 1"), "{about}: {own}");
    stale(agent.execute(order(0, 2, decided)).await);
    not_yet(agent.execute(order(2, 2, decided)).await);
    assert_eq!(agent.shards()[0].load_failures, LOAD_FAILURES, "{about}");

    let done = agent.execute(order(1, 2, decided)).await.unwrap().unwrap();
    assert_eq!(
        (done.state, done.load_failures),
        (EngineState::Stopped, 0),
        "{about}"
    );
    assert_eq!(done.set_aside, Some(decided), "{about}");
    assert_eq!(ledger(&node).loads_from, DataSource::Nothing, "{about}");
    let aside = node.file(&format!("set-aside-{}", decided.as_millisecond()));
    let kept = damage(&aside);
    assert!(!kept.is_empty(), "{about}: {aside:?}");
    // As after a crash of the agent.
    drop(agent);
    let agent = node.agent().await;
    assert_eq!(agent.shards()[0].set_aside, Some(decided), "{about}");
    let anew = run(&agent, &wanted).await;
    assert_eq!((anew.keys, anew.data_written), (0, None), "{about}");

    // Once is once; and nothing happens to an engine that runs.
    agent.execute(order(1, 2, decided)).await.unwrap();
    let later = not_yet(agent.execute(order(1, 2, Timestamp::now())).await);
    assert!(later.contains("may run"), "{about}: {later}");
    let shard = serve(&agent, &wanted, 2).await;
    assert_eq!(shard.pid, anew.pid, "{about}");
    set(&mut node.as_proxy(2).unwrap(), "key", "anew");
    drop(agent);
    for file in kept {
        assert!(file.exists(), "{about}: {file:?}");
    }
}

/// Nothing is wrong with its files.
#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_does_not_start_for_another_reason_keeps_its_files() {
    let node = Node::new();
    let mut wanted = spec(newest());
    wanted.settings.persistence = Persistence::AofEveryWrite;
    let agent = node.agent().await;
    let shard = serve(&agent, &wanted, 1).await;
    set(&mut node.as_proxy(1).unwrap(), "key", "value");
    kill_hard(shard.pid.unwrap());
    seen(&agent, |shard| shard.state == EngineState::Stopped).await;
    let mut listener = None;
    eventually("the port is free", || {
        listener = TcpListener::bind((node.config.node.address, PORT)).ok();
        listener.is_some()
    })
    .await;
    let failed = tries(&agent, &wanted, |shard| shard.state == EngineState::Failed).await;
    assert_eq!(failed.load_failures, 0, "{failed:?}");
    not_yet(agent.execute(order(1, 2, Timestamp::now())).await);
    drop(listener);
    tries(&agent, &wanted, |shard| shard.state == EngineState::Running).await;
    serve(&agent, &wanted, 2).await;
    let mut proxy = node.as_proxy(2).unwrap();
    assert_eq!(get(&mut proxy, "key").as_deref(), Some("value"));
}
