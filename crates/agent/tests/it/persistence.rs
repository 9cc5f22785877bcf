//! What survives: every kind of persistence on every engine, after a stop and after a kill.

use crate::bench::*;
use agent::Agent;
use model::Generation;
use model::command::{AgentCommand, EngineSettings, EngineSpec};
use model::documents::Persistence;
use model::observation::EngineState;
use model::release::EngineId;
use std::fs;
use std::time::Duration;

const SNAPSHOT: Persistence = Persistence::Snapshot {
    seconds: 3600,
    writes: 1_000_000,
};
const KINDS: [Persistence; 4] = [
    Persistence::Disabled,
    Persistence::AofEverySecond,
    Persistence::AofEveryWrite,
    SNAPSHOT,
];

/// Does what makes the writes so far durable under this kind of persistence.
async fn harden(node: &Node, persistence: Persistence) {
    let mut cnm = node.as_cnm();
    match persistence {
        Persistence::Disabled | Persistence::AofEveryWrite => {}
        Persistence::AofEverySecond => {
            eventually("the append-only file is written", || {
                info(&mut cnm, "aof_buffer_length") == "0"
            })
            .await;
        }
        Persistence::Snapshot { .. } => say::<()>(&mut cnm, "SAVE").unwrap(),
    }
}

async fn crash(agent: &Agent, pid: u32) {
    kill_hard(pid);
    seen(agent, |shard| shard.state == EngineState::Stopped).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn data_outlive_the_process_as_promised() {
    for engine in engines() {
        for persistence in KINDS {
            outlives(&engine, persistence).await;
        }
    }
}

async fn outlives(engine: &EngineId, persistence: Persistence) {
    let about = format!("{engine} {persistence:?}");
    let node = Node::new();
    let mut wanted = spec(engine.clone());
    wanted.settings.persistence = persistence;
    let kept = (persistence != Persistence::Disabled).then_some("kept");

    let agent = node.agent().await;
    let shard = serve(&agent, &wanted, 1).await;
    set(&mut node.as_proxy(1).unwrap(), "before the kill", "kept");
    harden(&node, persistence).await;
    if persistence == Persistence::Disabled {
        // As a full sync leaves it.
        say::<()>(&mut node.as_cnm(), "SAVE").unwrap();
        assert!(node.file("dump.rdb").exists(), "{about}");
    }
    crash(&agent, shard.pid.unwrap()).await;

    let shard = serve(&agent, &wanted, 2).await;
    let mut proxy = node.as_proxy(2).unwrap();
    assert_eq!(
        get(&mut proxy, "before the kill").as_deref(),
        kept,
        "{about}"
    );
    set(&mut proxy, "before the stop", "kept");
    let stopped = agent.stop_all_engines(Duration::from_secs(20)).await;
    assert_eq!(stopped[0].trouble, None, "{about}");
    assert_eq!(process_state(shard.pid.unwrap()), None);
    drop(agent);

    // All is started anew, the agent too.
    let agent = node.agent().await;
    serve(&agent, &wanted, 3).await;
    let mut proxy = node.as_proxy(3).unwrap();
    assert_eq!(
        get(&mut proxy, "before the kill").as_deref(),
        kept,
        "{about}"
    );
    assert_eq!(
        get(&mut proxy, "before the stop").as_deref(),
        kept,
        "{about}"
    );
}

/// Of a process that has loaded data and has no role yet, it is known how old they are, however often it is started.
#[tokio::test(flavor = "multi_thread")]
async fn how_old_the_data_are_is_told() {
    for engine in engines() {
        for persistence in KINDS {
            let about = format!("{engine} {persistence:?}");
            let node = Node::new();
            let mut wanted = spec(engine.clone());
            wanted.settings.persistence = persistence;
            let agent = node.agent().await;
            let shard = serve(&agent, &wanted, 1).await;
            assert_eq!(shard.data_written, None, "{about}: it has none on disk");
            let begun = jiff::Timestamp::now();
            set(&mut node.as_proxy(1).unwrap(), "k", "v");
            harden(&node, persistence).await;
            crash(&agent, shard.pid.unwrap()).await;

            let shard = run(&agent, &wanted).await;
            let written = shard.data_written;
            if persistence == Persistence::Disabled {
                assert_eq!(written, None, "{about}");
                continue;
            }
            // A file's time has the kernel's tick.
            let tick = jiff::SignedDuration::from_millis(20);
            assert!(written.is_some_and(|at| at > begun - tick), "{about}");
            agent.stop_all_engines(Duration::from_secs(20)).await;
            drop(agent);
            let agent = node.agent().await;
            let shard = run(&agent, &wanted).await;
            assert_eq!(shard.data_written, written, "{about}: nothing was written");
            drop(agent);
            let agent = node.agent().await;
            let again = seen(&agent, |again| again.run_id == shard.run_id).await;
            assert_eq!(
                again.data_written, written,
                "{about}: the agent was restarted"
            );
            let shard = serve(&agent, &wanted, 2).await;
            assert_eq!(shard.data_written, None, "{about}: it has a role");
        }
    }
}

/// Every change from one kind to another, while it runs; a kill right after it was confirmed.
#[tokio::test(flavor = "multi_thread")]
async fn persistence_changes_while_it_runs() {
    for engine in engines() {
        for from in KINDS {
            for to in KINDS.into_iter().filter(|to| *to != from) {
                changes(&engine, from, to).await;
            }
        }
    }
}

async fn changes(engine: &EngineId, from: Persistence, to: Persistence) {
    let about = format!("{engine} {from:?} → {to:?}");
    let node = Node::new();
    let agent = node.agent().await;
    let mut wanted = spec(engine.clone());
    wanted.settings.persistence = from;
    let shard = serve(&agent, &wanted, 1).await;
    let mut proxy = node.as_proxy(1).unwrap();
    set(&mut proxy, "before", "kept");
    wanted.settings.persistence = to;
    configure(&agent, &wanted.settings).await;
    set(&mut proxy, "after", "kept");
    harden(&node, to).await;
    crash(&agent, shard.pid.unwrap()).await;

    serve(&agent, &wanted, 2).await;
    let mut proxy = node.as_proxy(2).unwrap();
    let kept = (to != Persistence::Disabled).then_some("kept");
    assert_eq!(get(&mut proxy, "before").as_deref(), kept, "{about}");
    assert_eq!(get(&mut proxy, "after").as_deref(), kept, "{about}");
}

async fn configure(agent: &Agent, settings: &EngineSettings) {
    let command = AgentCommand::Configure {
        shard: SHARD,
        generation: Generation(1),
        settings: settings.clone(),
    };
    agent.execute(command).await.unwrap();
}

/// A restart with another kind starts from the files that hold the data. An engine that is simply
/// started with `appendonly yes` beside a snapshot would be empty.
#[tokio::test(flavor = "multi_thread")]
async fn persistence_changes_at_a_restart() {
    for engine in engines() {
        for (from, to) in [
            (SNAPSHOT, Persistence::AofEveryWrite),
            (Persistence::AofEveryWrite, SNAPSHOT),
        ] {
            let about = format!("{engine} {from:?} → {to:?}");
            let node = Node::new();
            let agent = node.agent().await;
            let mut wanted = spec(engine.clone());
            wanted.settings.persistence = from;
            let shard = serve(&agent, &wanted, 1).await;
            set(&mut node.as_proxy(1).unwrap(), "a", "kept");
            harden(&node, from).await;
            crash(&agent, shard.pid.unwrap()).await;

            wanted.settings.persistence = to;
            wanted.generation = Generation(2);
            let shard = serve(&agent, &wanted, 2).await;
            let mut proxy = node.as_proxy(2).unwrap();
            assert_eq!(get(&mut proxy, "a").as_deref(), Some("kept"), "{about}");
            set(&mut proxy, "b", "kept");
            let append_only = if to == SNAPSHOT { "0" } else { "1" };
            let mut cnm = node.as_cnm();
            eventually("the change is complete", || {
                let ledger = node.shard_folder().read_ledger().unwrap().unwrap();
                ledger.loads_from == source(to) && info(&mut cnm, "aof_enabled") == append_only
            })
            .await;
            harden(&node, to).await;
            crash(&agent, shard.pid.unwrap()).await;

            serve(&agent, &wanted, 3).await;
            let mut proxy = node.as_proxy(3).unwrap();
            for key in ["a", "b"] {
                assert_eq!(
                    get(&mut proxy, key).as_deref(),
                    Some("kept"),
                    "{about} {key}"
                );
            }
        }
    }
}

fn source(persistence: Persistence) -> agent::ledger::DataSource {
    match persistence {
        Persistence::Snapshot { .. } => agent::ledger::DataSource::Snapshot,
        _ => agent::ledger::DataSource::AppendOnlyFile,
    }
}

/// The ledger said that the data are in the snapshot, and the agent died before it told the engine.
#[tokio::test(flavor = "multi_thread")]
async fn an_append_only_file_that_nobody_wants_is_given_up() {
    for engine in engines() {
        let node = Node::new();
        let agent = node.agent().await;
        let mut wanted = spec(engine.clone());
        wanted.settings.persistence = Persistence::AofEveryWrite;
        let shard = serve(&agent, &wanted, 1).await;
        set(&mut node.as_proxy(1).unwrap(), "a", "kept");
        harden(&node, SNAPSHOT).await;
        drop(agent);
        wanted.settings.persistence = SNAPSHOT;
        change_ledger(&node, |ledger| {
            ledger.spec.settings.persistence = SNAPSHOT;
            ledger.loads_from = source(SNAPSHOT);
        });
        let mut cnm = node.as_cnm();
        assert_eq!(info(&mut cnm, "aof_enabled"), "1", "{engine}");

        let agent = node.agent().await;
        eventually("it is told", || info(&mut cnm, "aof_enabled") == "0").await;
        crash(&agent, shard.pid.unwrap()).await;
        serve(&agent, &wanted, 2).await;
        let kept = get(&mut node.as_proxy(2).unwrap(), "a");
        assert_eq!(kept.as_deref(), Some("kept"), "{engine}");
    }
}

/// A stop while the append-only file is still being written for the first time: the data are saved
/// where the next start looks for them.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_in_the_middle_of_a_change_loses_nothing() {
    for engine in engines() {
        let node = Node::new();
        let agent = node.agent().await;
        let mut wanted = spec(engine.clone());
        wanted.settings.persistence = SNAPSHOT;
        serve(&agent, &wanted, 1).await;
        let mut proxy = node.as_proxy(1).unwrap();
        for number in 0..200 {
            set(&mut proxy, &format!("k{number}"), "kept");
        }
        // A child that writes one key takes 0.1 s: the change will not be complete in time.
        say::<()>(&mut node.as_cnm(), "CONFIG SET rdb-key-save-delay 100000").unwrap();
        let mut newer: EngineSpec = wanted.clone();
        newer.generation = Generation(2);
        newer.settings.persistence = Persistence::AofEverySecond;
        agent
            .execute(AgentCommand::EnsureEngine(newer.clone()))
            .await
            .unwrap();
        let mut cnm = node.as_cnm();
        eventually("a rewrite is under way", || {
            info(&mut cnm, "aof_rewrite_in_progress") == "1"
        })
        .await;
        say::<()>(&mut cnm, "CONFIG SET rdb-key-save-delay 0").unwrap();
        let stopped = agent.stop_all_engines(Duration::from_secs(20)).await;
        assert_eq!(stopped[0].trouble, None, "{engine}");
        drop(agent);
        let agent = node.agent().await;
        serve(&agent, &newer, 2).await;
        let keys: u64 = say(&mut node.as_proxy(2).unwrap(), "DBSIZE").unwrap();
        assert_eq!(keys, 200, "{engine}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_role_while_it_loads() {
    let node = Node::new();
    let agent = node.agent().await;
    let mut wanted = spec(newest());
    wanted.settings.persistence = SNAPSHOT;
    wanted.settings.memory_bytes = 1 << 30;
    serve(&agent, &wanted, 1).await;
    let script = "for i=1,1000000 do redis.call('SET','key:'..i,i) end";
    let mut proxy = node.as_proxy(1).unwrap();
    redis::cmd("EVAL")
        .arg(script)
        .arg(0)
        .exec(&mut proxy)
        .unwrap();
    agent.stop_all_engines(Duration::from_secs(60)).await;
    drop(agent);

    let agent = node.agent().await;
    let shard = agent
        .execute(AgentCommand::EnsureEngine(wanted))
        .await
        .unwrap()
        .unwrap();
    let run_id = shard.run_id.unwrap();
    loop {
        match agent.execute(make_primary(&run_id, 2)).await {
            Ok(_) => break,
            refused => assert!(not_yet(refused).contains("loads its data")),
        }
    }
    let keys: u64 = say(&mut node.as_proxy(2).unwrap(), "DBSIZE").unwrap();
    assert_eq!(keys, 1_000_000);
}

/// Damaged data are a failed start with the engine's own words, and stay where they are.
#[tokio::test(flavor = "multi_thread")]
async fn damaged_data_are_not_touched() {
    let node = Node::new();
    let agent = node.agent().await;
    let mut wanted = spec(newest());
    wanted.settings.persistence = SNAPSHOT;
    let shard = serve(&agent, &wanted, 1).await;
    set(&mut node.as_proxy(1).unwrap(), "a", "1");
    harden(&node, SNAPSHOT).await;
    crash(&agent, shard.pid.unwrap()).await;
    fs::write(node.file("dump.rdb"), "no snapshot").unwrap();

    let result = agent
        .execute(AgentCommand::EnsureEngine(wanted.clone()))
        .await;
    let reason = match result {
        Err(refusal) => refusal.to_string(),
        // It answered before it came to the damage.
        Ok(_) => seen(&agent, |shard| shard.pid.is_none())
            .await
            .error
            .unwrap(),
    };
    assert!(reason.contains("ended"), "{reason}");
    assert_eq!(agent.shards()[0].state, EngineState::Failed);
    let again = not_yet(agent.execute(AgentCommand::EnsureEngine(wanted)).await);
    assert!(again.contains("start 1 failed"), "{again}");
    assert_eq!(fs::read(node.file("dump.rdb")).unwrap(), b"no snapshot");
}
