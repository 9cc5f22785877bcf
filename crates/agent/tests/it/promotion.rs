//! Roles, epochs and the users inside an engine.

use crate::bench::*;
use model::command::AgentCommand;
use model::documents::Role;
use model::observation::EngineState;
use model::{Epoch, Generation};

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_serves_its_epoch_only() {
    for engine in engines() {
        let node = Node::new();
        let agent = node.agent().await;
        let shard = serve(&agent, &spec(engine.clone()), 5).await;
        let run_id = shard.run_id.clone().unwrap();
        let mut old = node.as_proxy(5).unwrap();
        set(&mut old, "a", "1");
        assert_eq!(get(&mut old, "a").as_deref(), Some("1"));

        // Again: the same answer, and nobody is cut off.
        let again = agent
            .execute(make_primary(&run_id, 5))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(
            (again.role, again.epoch),
            (Some(Role::Primary), Some(Epoch(5)))
        );
        assert_eq!(get(&mut old, "a").as_deref(), Some("1"));

        assert!(stale(agent.execute(make_primary(&run_id, 4)).await).contains("epoch 5"));
        stale(agent.execute(make_primary("another-run-id", 6)).await);
        assert_eq!(get(&mut old, "a").as_deref(), Some("1"), "{engine}");

        let next = agent
            .execute(make_primary(&run_id, 6))
            .await
            .unwrap()
            .unwrap();
        assert_eq!((next.pid, next.epoch), (shard.pid, Some(Epoch(6))));
        assert!(say::<String>(&mut old, "SET a 2").is_err(), "{engine}");
        assert!(node.as_proxy(5).is_err(), "{engine}");
        let mut new = node.as_proxy(6).unwrap();
        assert_eq!(get(&mut new, "a").as_deref(), Some("1"));
        let users: Vec<String> = say(&mut node.as_cnm(), "ACL USERS").unwrap();
        assert_eq!(users, ["cnm", "default", "proxy@e6", "repl"]);
        assert!(
            node.connect("repl", "repl%20password%20%22%23%5C").is_ok(),
            "{engine}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_for_another_description_are_refused() {
    let node = Node::new();
    let agent = node.agent().await;
    not_yet(agent.execute(make_primary("x", 1)).await);
    let mut wanted = spec(newest());
    wanted.generation = Generation(2);
    let shard = run(&agent, &wanted).await;
    let run_id = shard.run_id.unwrap();
    let of_generation = |number| AgentCommand::MakePrimary {
        shard: SHARD,
        generation: Generation(number),
        run_id: run_id.clone(),
        epoch: Epoch(1),
        users: users(1),
    };
    stale(agent.execute(of_generation(1)).await);
    not_yet(agent.execute(of_generation(3)).await);
    agent.execute(of_generation(2)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_engine_is_no_primary() {
    let mut node = Node::new();
    // No probe: what is seen of the death comes from the process itself.
    node.config.probe_every = std::time::Duration::from_secs(3600);
    let agent = node.agent().await;
    let wanted = spec(newest());
    let shard = serve(&agent, &wanted, 1).await;
    let mut changed = agent.changed();
    changed.mark_unchanged();
    kill_hard(shard.pid.unwrap());
    tokio::time::timeout(DEADLINE, changed.changed())
        .await
        .unwrap()
        .unwrap();
    let dead = seen(&agent, |shard| shard.state == EngineState::Stopped).await;
    assert_eq!((dead.pid, dead.role, dead.run_id), (None, None, None));
    assert!(dead.error.unwrap().contains("signal 9"));
    assert_eq!(process_state(shard.pid.unwrap()), None, "it was reaped");
    not_yet(
        agent
            .execute(make_primary(shard.run_id.as_deref().unwrap(), 1))
            .await,
    );

    let again = run(&agent, &wanted).await;
    assert_eq!((again.role, again.epoch), (None, None));
    assert_ne!(again.run_id, shard.run_id);
    let run_id = again.run_id.unwrap();
    let same_epoch = agent.execute(make_primary(&run_id, 1)).await;
    assert!(stale(same_epoch).contains("needs a new epoch"));
    stale(
        agent
            .execute(make_primary(shard.run_id.as_deref().unwrap(), 2))
            .await,
    );
    let primary = agent
        .execute(make_primary(&run_id, 2))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (primary.role, primary.epoch),
        (Some(Role::Primary), Some(Epoch(2)))
    );
}

/// What clients need.
const ALLOWED: &str = "\
    KEYS *, FLUSHALL, FLUSHDB, INFO, SORT k, SWAPDB 0 1, ROLE, WAIT 0 1, CLIENT ID, \
    CLIENT LIST, CLIENT INFO, CLIENT GETNAME, CLIENT SETNAME n, CLIENT KILL ID 99999, \
    CLIENT UNBLOCK 99999, CLIENT TRACKINGINFO, CONFIG GET maxmemory, SLOWLOG GET, \
    LATENCY LATEST, SCRIPT EXISTS x, EVAL return 0, OBJECT HELP, MEMORY USAGE k, PUBLISH c m, \
    COMMAND COUNT, RESTORE k 0 x, SELECT 1, DBSIZE, SCAN 0, MULTI, DISCARD, HELLO 2";
/// What would break the platform.
const DENIED: &str = "\
    CONFIG SET maxmemory 0, CONFIG REWRITE, CONFIG RESETSTAT, ACL LIST, ACL SAVE, \
    SHUTDOWN NOSAVE, SAVE, BGSAVE, BGREWRITEAOF, REPLICAOF NO ONE, FAILOVER, PSYNC ? -1, SYNC, \
    REPLCONF ack 1, MIGRATE h 1 k 0 1, MODULE LIST, CLIENT PAUSE 1, CLIENT NO-EVICT on";

#[tokio::test(flavor = "multi_thread")]
async fn what_proxies_may_do() {
    for engine in engines() {
        let node = Node::new();
        let agent = node.agent().await;
        serve(&agent, &spec(engine.clone()), 1).await;
        let mut proxy = node.as_proxy(1).unwrap();
        let may = |proxy: &mut redis::Connection, words: &str| !matches!(say::<redis::Value>(proxy, words), Err(e) if e.code() == Some("NOPERM"));
        for words in ALLOWED.split(", ") {
            assert!(may(&mut proxy, words), "{engine}: {words}");
        }
        for words in DENIED.split(", ") {
            // PSYNC's refusal has another form; what counts is that it is refused.
            let answer = say::<redis::Value>(&mut proxy, words);
            let text = answer
                .as_ref()
                .map_or_else(|e| e.to_string(), |_| String::new());
            assert!(
                text.contains("NOPERM") || text.contains("permissions"),
                "{engine}: {words}: {answer:?}"
            );
        }
    }
}

/// Somebody with the password of `cnm` took the role away: that is seen, and the same order heals it.
#[tokio::test(flavor = "multi_thread")]
async fn a_role_is_lost_when_the_engine_gives_it_up() {
    let node = Node::new();
    let agent = node.agent().await;
    let shard = serve(&agent, &spec(newest()), 1).await;
    say::<()>(&mut node.as_cnm(), "REPLICAOF 127.0.0.1 1").unwrap();
    let lost = seen(&agent, |shard| shard.role.is_none()).await;
    assert!(lost.error.unwrap().contains("calls itself a replica"));
    let again = agent
        .execute(make_primary(shard.run_id.as_deref().unwrap(), 1))
        .await;
    let again = again.unwrap().unwrap();
    assert_eq!((again.role, again.error), (Some(Role::Primary), None));
}
