//! Following a primary, and taking its place when it is gone.

use crate::bench::*;
use crate::replica_set::*;
use model::command::AgentCommand;
use model::documents::{Persistence, Role};
use model::observation::{EngineState, ShardObservation};
use model::{Generation, Secret};
use rustix::process::Signal;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_follows_and_syncs() {
    for (engine, newer) in pairs() {
        let primary = Member::primary(&engine, 3).await;
        let mut client = primary.node.as_proxy(3).unwrap();
        for number in 0..200 {
            set(&mut client, &format!("k{number}"), "v");
        }
        let replica = Member::replica(&newer, 3, &primary).await;
        replica.has_all_of(&primary).await;
        replica.looks(|shard| shard.keys == 200).await;
        let (before, pair) = (primary.info("sync_full"), format!("{engine} {newer}"));
        assert_eq!(before, "1", "{pair}");

        // The same order again costs nothing; nobody but the agent has a user there.
        let again = replica.order(replica.follow(3, &primary)).await;
        assert!(is(&again.unwrap().unwrap(), Role::Replica, 3), "{pair}");
        set(&mut client, "after", "v");
        replica.has_all_of(&primary).await;
        assert_eq!(primary.info("sync_full"), before, "{pair}");
        assert_eq!(primary.info("connected_slaves"), "1");
        assert_eq!(replica.users(), ["cnm", "default"]);
        let mut cnm = replica.node.as_cnm();
        assert!(say::<()>(&mut cnm, "SET x y").unwrap_err().code() == Some("READONLY"));

        // What counts is not in the looks at links.
        let counted = |shard: &ShardObservation| shard.replication.clone().unwrap().full_syncs == 1;
        let seen = primary.looks(counted).await.replication.unwrap();
        assert!(seen.is_primary && seen.replicas.len() == 1);
        assert_eq!(seen.replicas[0].address, replica.address());
        assert_eq!(seen.replication_id, replica.replication().replication_id);
    }
}

/// Nothing but links changes, and the probe never comes: the looks in between see it.
#[tokio::test(flavor = "multi_thread")]
async fn a_link_is_seen_to_go_and_come() {
    let mut node = Node::new();
    node.config.probe_every = Duration::from_secs(3600);
    let primary = Member::primary(&newest(), 1).await;
    let replica = Member::on(node, &newest()).await;
    replica.order(replica.follow(1, &primary)).await.unwrap();
    replica.is_synced(1, &primary).await;

    // What only counts is no news.
    let changed = primary.agent.changed();
    let before = *changed.borrow();
    let mut client = primary.node.as_proxy(1).unwrap();
    for round in 0..5 {
        let offset = primary.replication().offset;
        set(&mut client, "k", &round.to_string());
        primary
            .looks(|shard| shard.replication.clone().unwrap().offset > offset)
            .await;
    }
    assert_eq!(*changed.borrow(), before, "counters are no news");

    // A replica that does not answer any more is news, at its primary and by its process.
    kill_hard(replica.pid);
    replica
        .looks(|shard| shard.state == EngineState::Stopped && shard.replication.is_none())
        .await;
    primary
        .looks(|shard| shard.replication.clone().unwrap().replicas.is_empty())
        .await;
    assert_ne!(*changed.borrow(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_without_its_primary_answers_nobody() {
    for engine in engines() {
        let primary = Member::primary(&engine, 1).await;
        let replica = Member::replica(&engine, 1, &primary).await;
        kill_hard(primary.pid);
        let lost = replica
            .looks(|shard| !shard.replication.clone().unwrap().link_up)
            .await;
        assert!(is(&lost, Role::Replica, 1), "it still has its role");
        let mut cnm = replica.node.as_cnm();
        let refused = say::<redis::Value>(&mut cnm, "GET x").unwrap_err();
        assert_eq!(refused.code(), Some("MASTERDOWN"), "{engine}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_replica_does_not_follow() {
    let engines = engines();
    let (oldest, newest) = (&engines[0], &engines[engines.len() - 1]);
    let primary = Member::primary(newest, 5).await;
    let older = Member::start(oldest).await;
    let why = failed(older.order(older.follow(5, &primary)).await);
    assert!(why.contains("is older than its primary's"), "{why}");
    let seen = older.seen();
    assert_eq!((seen.role, seen.error), (None, None), "nothing was changed");

    let replica = Member::replica(newest, 5, &primary).await;
    stale(replica.order(replica.follow(4, &primary)).await);
    let mut other = replica.follow(5, &primary);
    if let AgentCommand::Follow { run_id, .. } = &mut other {
        *run_id = "another".to_owned();
    }
    stale(replica.order(other).await);
    let mut newer = replica.follow(5, &primary);
    if let AgentCommand::Follow { generation, .. } = &mut newer {
        *generation = Generation(2);
    }
    not_yet(replica.order(newer).await);
    // In the epoch in which it is primary it follows nobody.
    let why = stale(primary.order(primary.follow(5, &replica)).await);
    assert!(why.contains("it was primary itself"), "{why}");
    let mut itself = primary.as_primary();
    itself.shard = SHARD;
    let why = primary
        .order(AgentCommand::Follow {
            shard: SHARD,
            generation: Generation(1),
            run_id: primary.run_id.clone(),
            epoch: model::Epoch(6),
            primary: itself,
            users: users(6),
        })
        .await;
    assert!(failed(why).contains("itself"));
    assert!(is(&primary.seen(), Role::Primary, 5));
}

/// An engine that takes writes, as one that made itself primary after an undone move, is demoted: its
/// users lose their rights, and it gets the primary's data in place of its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_primary_of_the_past_is_demoted() {
    for engine in engines() {
        let primary = Member::primary(&engine, 2).await;
        let past = Member::primary(&engine, 1).await;
        set(&mut primary.node.as_proxy(2).unwrap(), "k", "good");
        let mut client = past.node.as_proxy(1).unwrap();
        set(&mut client, "k", "of the past");
        past.order(past.follow(2, &primary)).await.unwrap();
        let refused = say::<()>(&mut client, "SET k again").unwrap_err();
        assert_eq!(refused.code(), Some("NOPERM"), "{engine}");
        past.is_synced(2, &primary).await;
        let mut cnm = past.node.as_cnm();
        assert_eq!(get(&mut cnm, "k").as_deref(), Some("good"), "{engine}");
        // Its user goes with its last connection.
        assert!(past.users().contains(&"proxy@e1".to_owned()), "{engine}");
        drop(client);
        eventually("the user is gone", || {
            past.users() == ["cnm", "default", "repl"]
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_takes_the_place_of_its_primary() {
    for (engine, newer) in pairs() {
        let pair = format!("{engine} {newer}");
        let primary = Member::primary(&engine, 1).await;
        let first = Member::replica(&newer, 1, &primary).await;
        let second = Member::replica(&newer, 1, &primary).await;
        let mut client = primary.node.as_proxy(1).unwrap();
        for number in 0..100 {
            set(&mut client, &format!("k{number}"), "v");
        }
        first.has_all_of(&primary).await;
        second.has_all_of(&primary).await;
        let offset = primary.replication().offset;
        let record = first
            .looks(|shard| shard.replication.clone().unwrap().offset >= offset)
            .await;
        assert!(is(&record, Role::Replica, 1));
        let record = first.record(1);
        primary.order(primary.kill()).await.unwrap();

        let promoted = first.order(first.promote(2, &record)).await;
        let promoted = promoted.unwrap().unwrap();
        assert!(is(&promoted, Role::Primary, 2), "{pair}");
        let mut client = first.node.as_proxy(2).unwrap();
        assert_eq!(get(&mut client, "k99").as_deref(), Some("v"));
        set(&mut client, "k100", "v");
        // Again, though its history is another one by now.
        let again = first.order(first.promote(2, &record)).await;
        assert!(is(&again.unwrap().unwrap(), Role::Primary, 2));
        assert_eq!(get(&mut client, "k100").as_deref(), Some("v"));

        // Its sibling goes on from where it was.
        second.order(second.follow(2, &first)).await.unwrap();
        second.is_synced(2, &first).await;
        second.has_all_of(&first).await;
        assert_eq!(first.info("sync_full"), "0", "{pair}");
        assert_eq!(first.info("sync_partial_ok"), "1", "{pair}");
        second.looks(|shard| shard.keys == 101).await;

        // The old one, started again, is nothing until it is told; then it is a replica.
        if newer == engine {
            let back = run(&primary.agent, &spec(engine.clone())).await;
            assert_eq!((back.role, back.keys), (None, 0));
            let run_id = back.run_id.unwrap();
            let same = primary.order(make_primary(&run_id, 1)).await;
            assert!(stale(same).contains("needs a new epoch"));
            let back = Member { run_id, ..primary };
            back.order(back.follow(2, &first)).await.unwrap();
            back.is_synced(2, &first).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_promoted() {
    let engine = newest();
    let primary = Member::primary(&engine, 1).await;
    let replica = Member::replica(&engine, 1, &primary).await;
    let good = replica.record(1);
    kill_hard(primary.pid);
    let refused = |record, says: &'static str| {
        let replica = &replica;
        async move {
            let why = failed(replica.order(replica.promote(2, &record)).await);
            assert!(
                why.contains(says) && why.contains("nothing was changed"),
                "{why}"
            );
        }
    };
    let mut record = good.clone();
    record.run_id = "another".to_owned();
    refused(record, "what was recorded is of process another").await;
    let mut record = good.clone();
    record.replication_id = "f".repeat(40);
    refused(record, "its data are of history").await;
    let mut record = good.clone();
    record.offset_floor += 1_000_000;
    refused(record, "when it was recorded").await;
    let why = stale(replica.order(replica.promote(1, &good)).await);
    assert!(why.contains("it is a replica"), "{why}");
    stale(replica.order(replica.promote(0, &good)).await);
    assert!(is(&replica.seen(), Role::Replica, 1), "nothing was changed");
    assert_eq!(replica.users(), ["cnm", "default"]);

    // A process that does not answer is not promoted, and one that was started again never.
    kill(replica.pid, Signal::STOP);
    failed(replica.order(replica.promote(2, &good)).await);
    kill(replica.pid, Signal::CONT);
    kill_hard(replica.pid);
    replica
        .looks(|shard| shard.state == EngineState::Stopped)
        .await;
    run(&replica.agent, &spec(engine)).await;
    stale(replica.order(replica.promote(2, &good)).await);
}

/// A full sync is under way: what the replica holds is nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_syncing_replica_is_not_promoted() {
    for engine in engines() {
        let primary = Member::primary(&engine, 1).await;
        let mut client = primary.node.as_proxy(1).unwrap();
        for number in 0..1_000 {
            set(&mut client, &format!("k{number}"), "v");
        }
        // One key in 10 ms: the sync takes long enough to be met.
        say::<()>(
            &mut primary.node.as_cnm(),
            "CONFIG SET rdb-key-save-delay 10000",
        )
        .unwrap();
        let replica = Member::start(&engine).await;
        replica.order(replica.follow(1, &primary)).await.unwrap();
        replica
            .looks(|shard| shard.replication.clone().unwrap().sync_in_progress)
            .await;
        let why = failed(replica.order(replica.promote(2, &replica.record(1))).await);
        assert!(why.contains("anew"), "{engine}: {why}");
        assert!(is(&replica.seen(), Role::Replica, 1), "{engine}");
    }
}

/// The agent dies in the middle of a promotion, and the next one is told again.
#[tokio::test(flavor = "multi_thread")]
async fn a_promotion_that_was_cut_off_is_completed() {
    let engine = newest();
    let primary = Member::primary(&engine, 1).await;
    let replica = Member::replica(&engine, 1, &primary).await;
    let record = replica.record(1);
    kill_hard(primary.pid);
    let run_id = replica.run_id.clone();
    // Its engine was told, the ledger does not know the role yet.
    let replica = replica
        .crash_agent(|node| {
            change_ledger(node, |ledger| {
                ledger.epoch = model::Epoch(2);
                ledger.intent = agent::ledger::Intent::Promote {
                    epoch: model::Epoch(2),
                    run_id,
                };
            });
            say::<()>(&mut node.as_cnm(), "REPLICAOF NO ONE").unwrap();
        })
        .await;
    assert_eq!(replica.seen().role, None);
    stale(replica.order(replica.follow(1, &primary)).await);
    let promoted = replica.order(replica.promote(2, &record)).await;
    assert!(is(&promoted.unwrap().unwrap(), Role::Primary, 2));
    // The role is in the ledger, its user was not made.
    let replica = replica
        .crash_agent(|node| say::<()>(&mut node.as_cnm(), "ACL DELUSER proxy@e2").unwrap())
        .await;
    assert_eq!(replica.seen().role, None);
    replica.order(replica.promote(2, &record)).await.unwrap();
    set(&mut replica.node.as_proxy(2).unwrap(), "k", "v");
}

/// The ledger says replica, the engine was not told: that is no role, and the order again makes it one.
#[tokio::test(flavor = "multi_thread")]
async fn following_that_was_cut_off_is_completed() {
    let engine = newest();
    let primary = Member::primary(&engine, 1).await;
    let replica = Member::replica(&engine, 1, &primary).await;
    let replica = replica
        .crash_agent(|node| {
            say::<()>(&mut node.as_cnm(), "REPLICAOF 127.0.0.1 1").unwrap();
        })
        .await;
    assert_eq!(replica.seen().role, None);
    let replica = {
        replica.order(replica.follow(1, &primary)).await.unwrap();
        replica.is_synced(1, &primary).await;
        assert_eq!(
            primary.info("sync_full"),
            "1",
            "it goes on from where it was"
        );
        replica
    };
    // Known again after a crash, without an order.
    let replica = replica.crash_agent(|_| ()).await;
    assert!(is(&replica.seen(), Role::Replica, 1));
}

/// The fence.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_engine_is_gone_for_sure() {
    let engine = newest();
    let node = Node::new();
    let member = Member::on(node, &engine).await;
    member.order(make_primary(&member.run_id, 4)).await.unwrap();
    let mut other = member.kill();
    if let AgentCommand::KillEngine { run_id, .. } = &mut other {
        *run_id = "another".to_owned();
    }
    let alive = member.order(other).await.unwrap().unwrap();
    assert!(is(&alive, Role::Primary, 4), "another one is left alone");
    let mut stale_kill = member.kill();
    if let AgentCommand::KillEngine { generation, .. } = &mut stale_kill {
        *generation = Generation(0);
    }
    stale(member.order(stale_kill).await);

    // However it stands.
    kill(member.pid, Signal::STOP);
    let dead = member.order(member.kill()).await.unwrap().unwrap();
    assert_eq!(
        (dead.state, dead.role, dead.pid),
        (EngineState::Stopped, None, None)
    );
    assert_eq!(process_state(member.pid), None);
    assert!(!member.node.shard_folder().is_locked().unwrap());
    member.order(member.kill()).await.unwrap();

    let next = run(&member.agent, &spec(engine)).await;
    assert_ne!(next.pid, Some(member.pid));
    let again = member.order(member.kill()).await.unwrap().unwrap();
    assert_eq!(again.pid, next.pid, "it is another process");
    let run_id = next.run_id.unwrap();
    stale(member.order(make_primary(&run_id, 4)).await);
    stale(member.order(make_primary(&run_id, 3)).await);
    member.order(make_primary(&run_id, 5)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_keeps_its_role_beside_its_data() {
    for engine in engines() {
        let primary = Member::primary(&engine, 7).await;
        set(&mut primary.node.as_proxy(7).unwrap(), "k", "v");
        for persistence in [Persistence::AofEveryWrite, Persistence::Disabled] {
            let node = Node::new();
            let agent = node.agent().await;
            let mut wanted = spec(engine.clone());
            wanted.settings.persistence = persistence;
            let started = run(&agent, &wanted).await;
            let replica = Member {
                agent,
                engine: engine.clone(),
                run_id: started.run_id.unwrap(),
                pid: started.pid.unwrap(),
                node,
            };
            replica.order(replica.follow(7, &primary)).await.unwrap();
            replica.is_synced(7, &primary).await;
            replica.has_all_of(&primary).await;
            // After a sync the engine writes its file anew; until then it holds nothing.
            eventually("the file is written", || {
                replica.info("aof_rewrite_in_progress") == "0"
                    && replica.info("aof_rewrite_scheduled") == "0"
            })
            .await;
            let role = ledger(&replica.node).role.unwrap();
            assert_eq!(
                (role.role, role.epoch.0, role.primary),
                (Role::Replica, 7, Some(primary.address()))
            );
            kill_hard(replica.pid);
            replica
                .looks(|shard| shard.state == EngineState::Stopped)
                .await;
            let kept = persistence != Persistence::Disabled;
            let left = std::fs::read_dir(replica.node.shard_folder().path())
                .unwrap()
                .any(|entry| {
                    let name = entry.unwrap().file_name();
                    name.to_string_lossy().starts_with("dump")
                });
            assert!(kept || !left, "{engine}: a sync left its file");
            let again = run(&replica.agent, &wanted).await;
            assert_eq!(
                (again.role, again.keys),
                (None, u64::from(kept)),
                "{engine}"
            );
            assert_eq!(ledger(&replica.node).role.unwrap().epoch.0, 7);
        }
    }
}

/// A password with every awkward character, and the settings of a link.
#[tokio::test(flavor = "multi_thread")]
async fn settings_of_a_link() {
    for engine in engines() {
        let member = Member::primary(&engine, 1).await;
        let mut cnm = member.node.as_cnm();
        for (name, value) in [
            ("masteruser", "repl"),
            ("masterauth", users(1).repl.expose()),
            ("repl-timeout", "30"),
            ("repl-backlog-ttl", "0"),
            ("repl-backlog-size", &(256 * 1024 * 1024 / 100).to_string()),
            ("min-replicas-to-write", "0"),
            ("replica-serve-stale-data", "no"),
            ("repl-diskless-load", "disabled"),
            ("rdb-del-sync-files", "yes"),
        ] {
            let set: Vec<String> = say(&mut cnm, &format!("CONFIG GET {name}")).unwrap();
            assert_eq!(set[1], value, "{engine} {name}");
        }
        let limit: Vec<String> = say(&mut cnm, "CONFIG GET client-output-buffer-limit").unwrap();
        assert!(
            limit[1].contains("slave 268435456 67108864 60"),
            "{engine}: {limit:?}"
        );
        // A password that changed comes with the order.
        let mut changed = member.follow(2, &member);
        if let AgentCommand::Follow { users, primary, .. } = &mut changed {
            users.repl = Secret::new("another password");
            primary.address = "127.0.0.1:1".parse().unwrap();
        }
        member.order(changed).await.unwrap();
        let set: Vec<String> = say(&mut cnm, "CONFIG GET masterauth").unwrap();
        assert_eq!(set[1], "another password", "{engine}");
    }
}
