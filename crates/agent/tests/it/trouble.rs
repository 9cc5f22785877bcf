//! Ports taken, engines unknown, engines that hang, ledgers that are damaged.

use crate::bench::*;
use model::command::AgentCommand;
use model::documents::Persistence;
use model::observation::{EngineState, ShardObservation, StallKind};
use rustix::process::Signal;
use std::fs;
use std::net::TcpListener;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_another_process_has() {
    for engine in engines() {
        let node = Node::new();
        let agent = node.agent().await;
        let foreign = TcpListener::bind((node.config.node.address, PORT)).unwrap();
        let wanted = AgentCommand::EnsureEngine(spec(engine.clone()));
        let reason = failed(agent.execute(wanted.clone()).await);
        assert!(reason.contains("in use"), "{engine}: {reason}");
        let shard = seen(&agent, |shard| shard.state == EngineState::Failed).await;
        assert_eq!(
            (shard.error.as_deref(), shard.pid),
            (Some(reason.as_str()), None)
        );
        // Not again at once, however often it is ordered.
        let again = not_yet(agent.execute(wanted.clone()).await);
        assert!(
            again.contains("start 1 failed") && again.contains("in use"),
            "{again}"
        );
        drop(foreign);
        eventually_runs(&agent, &wanted).await;
    }
}

async fn eventually_runs(agent: &agent::Agent, wanted: &AgentCommand) {
    let until = tokio::time::Instant::now() + DEADLINE;
    loop {
        match agent.execute(wanted.clone()).await {
            Ok(_) => break,
            Err(refusal) => assert!(tokio::time::Instant::now() < until, "{refusal}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let shard = seen(agent, |shard| shard.state == EngineState::Running).await;
    assert_eq!(shard.error, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_the_release_does_not_carry() {
    let node = Node::new();
    let agent = node.agent().await;
    let wanted = spec("valkey-99.0.0".parse().unwrap());
    let reason = failed(agent.execute(AgentCommand::EnsureEngine(wanted)).await);
    assert!(reason.contains("does not carry valkey-99.0.0"), "{reason}");
    assert!(reason.contains(&newest().to_string()), "{reason}");
    assert!(agent.shards().is_empty() && !node.shard_folder().path().exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_engine_is_told_from_a_dead_one() {
    let mut node = Node::new();
    node.config.unresponsive_after = Duration::from_millis(200);
    let agent = node.agent().await;
    let shard = serve(&agent, &spec(newest()), 1).await;
    let pid = shard.pid.unwrap();
    kill(pid, Signal::STOP);
    let hung = seen(&agent, |shard| shard.state == EngineState::Unresponsive).await;
    assert_eq!(hung.pid, Some(pid));
    let error = hung.error.unwrap();
    assert!(error.contains("process state T, 0 clock ticks"), "{error}");
    let several = |shard: &ShardObservation| {
        let stall = shard.stall.as_ref();
        stall.is_some_and(|stall| stall.questions > 2)
    };
    let stall = seen(&agent, several).await.stall.unwrap();
    assert_eq!(stall.kind, StallKind::Silent);
    assert_eq!((stall.process_state, stall.cpu_ticks), (Some('T'), Some(0)));
    // Two of the questions have had a second each.
    assert!(stall.milliseconds >= 2_000, "{stall:?}");
    // It can be neither promoted nor left without an answer.
    let refused = agent
        .execute(make_primary(shard.run_id.as_deref().unwrap(), 2))
        .await;
    assert!(failed(refused).contains("does not answer"));
    kill(pid, Signal::CONT);
    let back = seen(&agent, |shard| shard.state == EngineState::Running).await;
    assert_eq!(
        (back.pid, back.error, back.role),
        (Some(pid), None, shard.role)
    );
    assert_eq!(back.stall, None);
    // One connection of the agent's all the while.
    let mut cnm = node.as_cnm();
    let list: String = say(&mut cnm, "CLIENT LIST").unwrap();
    assert_eq!(list.matches("user=cnm").count(), 2, "{list}");
    // A new generation of it means: anew.
    kill(pid, Signal::STOP);
    // What it left unanswered before counts no more.
    let once = |shard: &ShardObservation| {
        let stall = shard.stall.as_ref();
        stall.is_some_and(|stall| stall.questions == 1)
    };
    seen(&agent, once).await;
    seen(&agent, |shard| shard.state == EngineState::Unresponsive).await;
    let mut newer = spec(newest());
    newer.generation = newer.generation.next();
    let anew = run(&agent, &newer).await;
    assert_ne!(anew.pid, Some(pid));
    assert_eq!(process_state(pid), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_script_is_no_hang() {
    let mut node = Node::new();
    node.config.unresponsive_after = Duration::from_secs(20);
    let agent = node.agent().await;
    serve(&agent, &spec(newest()), 1).await;
    say::<()>(&mut node.as_cnm(), "CONFIG SET lua-time-limit 10").unwrap();
    let mut proxy = node.as_proxy(1).unwrap();
    let script = std::thread::spawn(move || {
        redis::cmd("EVAL")
            .arg("while true do end")
            .arg(0)
            .query::<redis::Value>(&mut proxy)
    });
    let says_busy = |error: &Option<String>| error.as_ref().is_some_and(|e| e.contains("script"));
    let busy = seen(&agent, |shard| says_busy(&shard.error)).await;
    assert_eq!(busy.state, EngineState::Running);
    assert_eq!(busy.stall.unwrap().kind, StallKind::Busy);
    say::<()>(&mut node.as_cnm(), "SCRIPT KILL").unwrap();
    assert!(script.join().unwrap().is_err());
    let well = seen(&agent, |shard| shard.error.is_none()).await;
    assert_eq!(well.stall, None);
}

/// It does not even say that it is busy; but it computes.
#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_computes_is_told_from_one_that_hangs() {
    let node = Node::new();
    let agent = node.agent().await;
    let pid = serve(&agent, &spec(newest()), 1).await.pid.unwrap();
    let mut cnm = node.as_cnm();
    let name = if newest().version.major < 7 {
        "lua-time-limit"
    } else {
        "busy-reply-threshold"
    };
    say::<()>(&mut cnm, &format!("CONFIG SET {name} 600000")).unwrap();
    let mut proxy = node.as_proxy(1).unwrap();
    let script = std::thread::spawn(move || {
        redis::cmd("EVAL")
            .arg("while true do end")
            .arg(0)
            .exec(&mut proxy)
    });
    let several = |shard: &ShardObservation| {
        let stall = shard.stall.as_ref();
        stall.is_some_and(|stall| stall.questions > 2)
    };
    let stall = seen(&agent, several).await.stall.unwrap();
    assert_eq!(stall.kind, StallKind::Silent);
    assert!(stall.cpu_ticks.unwrap() > 0, "{stall:?}");
    assert!(!matches!(stall.process_state, Some('T' | 'D')), "{stall:?}");
    kill(pid, Signal::KILL);
    assert!(script.join().unwrap().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_ledger_stops_everything_and_deletes_nothing() {
    let whole = {
        let node = Node::new();
        let agent = node.agent().await;
        run(&agent, &spec(newest())).await;
        fs::read_to_string(node.shard_folder().ledger_path()).unwrap()
    };
    let node = Node::new();
    let mut wanted = spec(newest());
    wanted.settings.persistence = Persistence::AofEveryWrite;
    let agent = node.agent().await;
    let shard = serve(&agent, &wanted, 1).await;
    set(&mut node.as_proxy(1).unwrap(), "a", "kept");
    drop(agent);
    let good = fs::read(node.shard_folder().ledger_path()).unwrap();
    let names = || {
        let mut names: Vec<_> = fs::read_dir(node.shard_folder().path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        names
    };
    let before = names();
    for (damage, says) in [
        (whole[..whole.len() / 2].to_owned(), "is damaged"),
        (String::new(), "is damaged"),
        (
            whole.replacen("\"schema\": 1", "\"schema\": 9", 1),
            "has schema 9",
        ),
        (whole.replacen("\"spec\"", "\"spek\"", 1), "is damaged"),
    ] {
        fs::write(node.shard_folder().ledger_path(), damage).unwrap();
        let agent = node.agent().await;
        let seen = &agent.shards()[0];
        // Its engine is there and takes writes: nobody may count it as gone.
        assert_eq!(
            (seen.shard, seen.state, seen.pid),
            (SHARD, EngineState::Unresponsive, None)
        );
        assert!(seen.is_in_doubt(), "{seen:?}");
        assert!(seen.error.as_ref().unwrap().contains(says), "{seen:?}");
        set(&mut node.as_proxy(1).unwrap(), "a", "kept");
        for command in [
            AgentCommand::EnsureEngine(wanted.clone()),
            make_primary(shard.run_id.as_deref().unwrap(), 2),
            remove(),
        ] {
            assert!(failed(agent.execute(command).await).contains(says));
        }
    }
    // The ledger gone, the files there.
    fs::remove_file(node.shard_folder().ledger_path()).unwrap();
    let agent = node.agent().await;
    assert!(failed(agent.execute(remove()).await).contains("no ledger"));
    fs::write(node.shard_folder().ledger_path(), &good).unwrap();
    assert_eq!(names(), before);
    // Restored, the next order finds all as it was, the living engine too.
    let again = run(&agent, &wanted).await;
    assert_eq!((again.pid, again.role), (shard.pid, shard.role));
    assert_eq!(
        get(&mut node.as_proxy(1).unwrap(), "a").as_deref(),
        Some("kept")
    );
}

/// Nobody orders anything: the agent looks again by itself.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_an_engine_is_seen_without_its_ledger() {
    let node = Node::new();
    let pid = run(&node.agent().await, &spec(newest())).await.pid.unwrap();
    fs::write(node.shard_folder().ledger_path(), "{").unwrap();
    let agent = node.agent().await;
    assert!(agent.shards()[0].is_in_doubt());
    kill(pid, Signal::KILL);
    let gone = seen(&agent, |shard| shard.state == EngineState::Stopped).await;
    assert!(!gone.is_in_doubt(), "{gone:?}");
    assert!(gone.error.unwrap().contains("is damaged"));
}

/// It cannot be seen whether an engine runs: as little as without descriptors.
#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_cannot_be_looked_at_is_neither_gone_nor_touched() {
    let node = Node::new();
    let wanted = spec(newest());
    let before = serve(&node.agent().await, &wanted, 1).await;
    let (lock, aside) = (node.file("lock"), node.file("aside"));
    fs::rename(&lock, &aside).unwrap();
    // A link to itself cannot be opened by anybody.
    std::os::unix::fs::symlink(&lock, &lock).unwrap();
    let agent = node.agent().await;
    let unseen = &agent.shards()[0];
    assert_eq!(unseen.state, EngineState::Unresponsive);
    assert!(unseen.is_in_doubt(), "{unseen:?}");
    let refused = not_yet(agent.execute(AgentCommand::EnsureEngine(wanted)).await);
    assert!(refused.contains("is not known"), "{refused}");
    let unseen = &agent.shards()[0];
    assert!(unseen.is_in_doubt(), "{unseen:?}");
    set(&mut node.as_proxy(1).unwrap(), "a", "1");
    let stopped = node.agent().await.stop_all_engines(DEADLINE).await;
    let trouble = stopped[0].trouble.as_ref().unwrap();
    assert!(trouble.contains("is not known"), "{trouble}");
    fs::rename(&aside, &lock).unwrap();
    let again = seen(&agent, |shard| shard.state == EngineState::Running).await;
    assert_eq!((again.pid, again.role), (before.pid, before.role));
}

/// What cannot be written down is not done.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_done_without_the_ledger() {
    let node = Node::new();
    let agent = node.agent().await;
    let shard = run(&agent, &spec(newest())).await;
    // A folder where the new ledger would be written.
    fs::create_dir(node.file("ledger.new")).unwrap();
    let run_id = shard.run_id.unwrap();
    let mut newer = spec(newest());
    newer.generation = newer.generation.next();
    newer.port += 1;
    for command in [
        make_primary(&run_id, 1),
        AgentCommand::EnsureEngine(newer),
        remove(),
    ] {
        assert!(failed(agent.execute(command).await).contains("nothing was done"));
        assert!(process_state(shard.pid.unwrap()).is_some_and(|state| state != 'Z'));
        assert_eq!(info(&mut node.as_cnm(), "role"), "slave");
    }
    fs::remove_dir(node.file("ledger.new")).unwrap();
    agent.execute(make_primary(&run_id, 1)).await.unwrap();
}
