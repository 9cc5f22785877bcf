//! Promises to proxies: who gets them, and that a promotion waits for them.

use crate::bench::*;
use crate::replica_set::*;
use model::command::AgentCommand;
use model::documents::Role;
use model::lease::LeaseLength;
use std::time::{Duration, Instant};

const USER: &str = "keeper@3.1-2";
const OTHER: &str = "keeper@3.1-2-7";

fn asks(member: &Member, user: &str) -> redis::RedisResult<String> {
    let mut client = member.node.connect(user, "proxy-password-3")?;
    say(&mut client, "PING")
}

#[tokio::test(flavor = "multi_thread")]
async fn only_one_list_of_copies_gets_promises() {
    for engine in engines() {
        let primary = Member::primary(&engine, 3).await;
        let replica = Member::replica(&engine, 3, &primary).await;
        for member in [&primary, &replica] {
            assert_eq!(member.seen().keeper, None, "{engine}");
            assert!(asks(member, USER).is_err());
            not_yet(member.order(member.keep(4, USER)).await);
            stale(member.order(member.keep(2, USER)).await);
            let seen = member.order(member.keep(3, USER)).await.unwrap().unwrap();
            assert_eq!(seen.keeper.unwrap().user, USER);
            assert_eq!(asks(member, USER).unwrap(), "PONG");
            member
                .looks(|shard| shard.keeper.as_ref().is_some_and(|keeper| keeper.alone))
                .await;
            let mut client = member.node.connect(USER, "proxy-password-3").unwrap();
            assert!(say::<()>(&mut client, "GET a").is_err(), "{engine}");
            // The same again changes nothing.
            let seen = member.order(member.keep(3, USER)).await.unwrap().unwrap();
            assert!(seen.keeper.unwrap().alone);
            assert_eq!(say::<String>(&mut client, "PING").unwrap(), "PONG");

            let seen = member.order(member.keep(3, OTHER)).await.unwrap().unwrap();
            let keeper = seen.keeper.unwrap();
            assert_eq!((keeper.user.as_str(), keeper.alone), (OTHER, false));
            assert!(say::<String>(&mut client, "PING").is_err(), "{engine}");
            assert!(asks(member, USER).is_err() && asks(member, OTHER).is_ok());
        }
    }
}

/// Whatever agents ask an engine, who watches its commands can tell it from what clients ask.
#[tokio::test(flavor = "multi_thread")]
async fn what_agents_ask_is_spelled_as_the_platforms() {
    for engine in engines() {
        let primary = Member::primary(&engine, 3).await;
        let mut watching = primary
            .node
            .connect("proxy@e3", "proxy-password-3")
            .unwrap();
        say::<()>(&mut watching, "MONITOR").unwrap();
        // It is probed and asked for changes, and replicated.
        primary.order(primary.keep(3, USER)).await.unwrap();
        let _replica = Member::replica(&engine, 3, &primary).await;
        let mut client = primary
            .node
            .connect("proxy@e3", "proxy-password-3")
            .unwrap();
        say::<()>(&mut client, "DBSIZE").unwrap();
        let mut own = 0;
        loop {
            let line: String = redis::from_redis_value(watching.recv_response().unwrap()).unwrap();
            let (_, command) = line.split_once("] \"").unwrap();
            let name = command.split('"').next().unwrap();
            match name {
                "DBSIZE" => break,
                // Those that no client of a proxy can send.
                "AUTH" | "HELLO" => {}
                // What the library that this test uses says about itself.
                "CLIENT" => assert!(command.contains("SETINFO"), "{engine}: {line}"),
                _ => {
                    assert!(
                        model::own_words::is_own(name.as_bytes()),
                        "{engine}: {line}"
                    );
                    own += 1;
                }
            }
        }
        assert!(own > 0, "{engine}");
    }
}

/// An agent that was started again takes nothing on trust.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_start_of_the_agent_earlier_promises_count() {
    let primary = Member::primary(&newest(), 3).await;
    primary.order(primary.keep(3, USER)).await.unwrap();
    primary
        .looks(|shard| shard.keeper.as_ref().is_some_and(|keeper| keeper.alone))
        .await;
    let primary = primary.crash_agent(|_| {}).await;
    primary
        .looks(|shard| shard.role == Some(Role::Primary))
        .await;
    assert_eq!(primary.seen().keeper, None);
    assert!(asks(&primary, USER).is_ok(), "the engine has gone on");
    let seen = primary.order(primary.keep(3, USER)).await.unwrap().unwrap();
    assert!(!seen.keeper.unwrap().alone, "others may have had some");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_without_its_primary_promises_nothing() {
    let primary = Member::primary(&newest(), 3).await;
    let replica = Member::replica(&newest(), 3, &primary).await;
    replica.order(replica.keep(3, USER)).await.unwrap();
    kill_hard(primary.pid);
    replica.looks(|shard| shard.keeper.is_none()).await;
    assert!(asks(&replica, USER).is_err());
    not_yet(replica.order(replica.keep(3, USER)).await);
}

/// A proxy may rest on a promise for as long as a lease: before that nobody becomes primary.
#[tokio::test(flavor = "multi_thread")]
async fn a_promotion_waits_for_promises() {
    for engine in engines() {
        let primary = Member::primary(&engine, 3).await;
        let replica = Member::replica(&engine, 3, &primary).await;
        replica.order(replica.keep(3, USER)).await.unwrap();
        let mut client = replica.node.connect(USER, "proxy-password-3").unwrap();
        let mut order = replica.promote(4, &replica.record(3));
        if let AgentCommand::Promote { wait_promises, .. } = &mut order {
            *wait_promises = true;
        }
        let asked = Instant::now();
        assert_eq!(say::<String>(&mut client, "PING").unwrap(), "PONG");
        let agent = replica.agent.clone();
        let promotion = tokio::spawn(async move { agent.execute(order).await });
        let rests_until = asked + Duration::from_nanos(LeaseLength::PRODUCT.holder);
        let mut cnm = replica.node.as_cnm();
        while Instant::now() < rests_until {
            let role = info(&mut cnm, "role");
            // Between the question and its answer the time may have passed.
            if Instant::now() < rests_until {
                assert_eq!(role, "slave", "{engine}");
                assert!(!promotion.is_finished());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let seen = promotion.await.unwrap().unwrap().unwrap();
        assert_eq!(seen.role, Some(Role::Primary), "{engine}");
        assert_eq!(seen.keeper, None);
        assert!(say::<String>(&mut client, "PING").is_err());
    }
}
