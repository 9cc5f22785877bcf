//! The library's asynchronous half: many commands at once over one connection, and a connection that comes back.

use crate::side::{Side, until};
use crate::{On, Scenario};
use anyhow::{Context as _, ensure};
use futures::future::{join_all, try_join_all};
use futures::{FutureExt as _, StreamExt as _};
use redis::aio::MultiplexedConnection;
use redis::{AsyncCommands as _, RedisResult, Script, cmd, pipe};
use std::collections::BTreeSet;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "a_thousand_at_once",
        run: a_thousand_at_once,
        on: On::Both,
    },
    Scenario {
        name: "transactions_at_once",
        run: transactions_at_once,
        on: On::Both,
    },
    Scenario {
        name: "calls_that_are_cancelled",
        run: cancelled,
        on: On::Both,
    },
    Scenario {
        name: "scans_at_once",
        run: scans_at_once,
        on: On::Both,
    },
    Scenario {
        name: "scripts_at_once",
        run: scripts_at_once,
        on: On::Both,
    },
    Scenario {
        name: "a_connection_that_comes_back",
        run: comes_back,
        on: On::Both,
    },
    Scenario {
        name: "monitor",
        run: monitor,
        on: On::Both,
    },
];

fn a_thousand_at_once(side: &Side) -> anyhow::Result<()> {
    side.wait(async {
        let redis = side.multiplexed().await?;
        let calls = (0..1_000_u32).map(|n| {
            let (mut redis, key) = (redis.clone(), side.anywhere(&n.to_string()));
            async move {
                redis.set::<_, _, ()>(&key, n).await?;
                let back: u32 = redis.get(&key).await?;
                ensure!(back == n, "{back} for {n}");
                Ok(())
            }
        });
        try_join_all(calls).await?;
        let counter = side.key("counter");
        let counts = (0..1_000).map(|_| {
            let (mut redis, counter) = (redis.clone(), &counter);
            async move { redis.incr::<_, _, usize>(counter, 1).await }
        });
        // The library sends them in any order; each is carried out once.
        let counts: BTreeSet<usize> = try_join_all(counts).await?.into_iter().collect();
        ensure!(
            counts == (1..=1_000).collect(),
            "{} counts of 1000",
            counts.len()
        );
        Ok(())
    })
}

fn transactions_at_once(side: &Side) -> anyhow::Result<()> {
    side.wait(async {
        let redis = side.multiplexed().await?;
        let key = side.key("t");
        let work = (0..50_u32).map(|n| {
            let (mut redis, key, mine) = (redis.clone(), &key, side.key(&format!("h{n}")));
            async move {
                let mut transaction = pipe();
                transaction.atomic().incr(key, 1).ignore();
                for field in 0..20 {
                    transaction.hset(&mine, format!("f{field}"), n).ignore();
                }
                transaction.hlen(&mine);
                let (length,): (u32,) = transaction.query_async(&mut redis).await?;
                ensure!(length == 20);
                let values: BTreeSet<u32> = redis.hvals(&mine).await?;
                ensure!(values == BTreeSet::from([n]), "{values:?}");
                Ok(())
            }
        });
        try_join_all(work).await?;
        let count: u32 = redis.clone().get(&key).await?;
        ensure!(count == 50);
        Ok(())
    })
}

/// Calls whose answers nobody waits for must not shift the answers of the others.
fn cancelled(side: &Side) -> anyhow::Result<()> {
    side.wait(async {
        let redis = side.multiplexed().await?;
        for n in 0..300_u32 {
            let echo = |mut redis: MultiplexedConnection, text: String| async move {
                cmd("ECHO")
                    .arg(&text)
                    .query_async::<String>(&mut redis)
                    .await
            };
            let mut dropped = Box::pin(echo(redis.clone(), format!("dropped {n}")));
            // Polled once: sent or about to be.
            let early = (&mut dropped).now_or_never();
            drop(early);
            drop(dropped);
            let got = echo(redis.clone(), format!("{n}")).await?;
            ensure!(got == n.to_string(), "{got} for {n}");
        }
        Ok(())
    })
}

fn scans_at_once(side: &Side) -> anyhow::Result<()> {
    side.wait(async {
        let redis = side.multiplexed().await?;
        let wanted: BTreeSet<String> = (0..300).map(|n| side.anywhere(&n.to_string())).collect();
        let mut fill = pipe();
        for key in &wanted {
            fill.set(key, "x").ignore();
        }
        fill.exec_async(&mut redis.clone()).await?;
        let scans = (0..4).map(|_| {
            let (mut redis, pattern) = (redis.clone(), side.anywhere("*"));
            async move {
                let keys = redis.scan_match::<_, String>(&pattern).await?;
                let keys: Vec<RedisResult<String>> = keys.collect().await;
                keys.into_iter().collect::<RedisResult<BTreeSet<String>>>()
            }
        });
        for found in try_join_all(scans).await? {
            ensure!(found == wanted);
        }
        Ok(())
    })
}

fn scripts_at_once(side: &Side) -> anyhow::Result<()> {
    side.wait(async {
        let redis = side.multiplexed().await?;
        let text = format!(
            "-- {}\nredis.call('RPUSH', KEYS[1], ARGV[1]) return ARGV[1]",
            side.key("")
        );
        let script = Script::new(&text);
        // All of them find the script missing, and all load it.
        let calls = (0..40_u32).map(|n| {
            let (mut redis, script, key) = (redis.clone(), &script, side.key("l"));
            async move { script.key(key).arg(n).invoke_async::<u32>(&mut redis).await }
        });
        ensure!(try_join_all(calls).await? == (0..40).collect::<Vec<u32>>());
        let length: u32 = redis.clone().llen(side.key("l")).await?;
        ensure!(length == 40, "{length} of 40");
        Ok(())
    })
}

/// `ConnectionManager` connects again after its connection was killed.
fn comes_back(side: &Side) -> anyhow::Result<()> {
    side.wait(async {
        // CLIENT KILL knows the connections of one node.
        let mut redis = side.manager(side.client_of_one_node()?).await?;
        let mut killer = side.manager(side.client_of_one_node()?).await?;
        let id = |mut redis: redis::aio::ConnectionManager| async move {
            cmd("CLIENT").arg("ID").query_async::<i64>(&mut redis).await
        };
        let first = id(redis.clone()).await?;
        let killed: i64 = cmd("CLIENT")
            .arg("KILL")
            .arg("ID")
            .arg(first)
            .query_async(&mut killer)
            .await?;
        ensure!(killed == 1);
        let second = until("it is connected again", async || {
            Ok(id(redis.clone()).await.ok().filter(|now| *now != first))
        })
        .await?;
        ensure!(second != first);
        redis.set::<_, _, ()>(side.key("a"), "back").await?;
        // Many at once during the break: each is answered or fails, none with another's answer.
        let calls = (0..200_u32).map(|n| {
            let (mut redis, mut killer) = (redis.clone(), killer.clone());
            async move {
                if n == 100 {
                    let _: RedisResult<i64> = cmd("CLIENT")
                        .arg("KILL")
                        .arg("ID")
                        .arg(second)
                        .query_async(&mut killer)
                        .await;
                }
                (n, cmd("ECHO").arg(n).query_async::<u32>(&mut redis).await)
            }
        });
        for (n, got) in join_all(calls).await {
            ensure!(
                got.as_ref().is_ok_and(|got| *got == n) || got.is_err(),
                "{got:?} for {n}"
            );
        }
        until("it is connected again", async || {
            Ok(id(redis.clone()).await.ok())
        })
        .await?;
        let kept: String = redis.get(side.key("a")).await?;
        ensure!(kept == "back");
        Ok(())
    })
}

fn monitor(side: &Side) -> anyhow::Result<()> {
    side.wait(async {
        let monitor = side.client()?.get_async_monitor().await?;
        let mut lines = monitor.into_on_message::<String>();
        let key = side.key("seen");
        side.multiplexed().await?.set::<_, _, ()>(&key, "x").await?;
        loop {
            let line = lines.next().await.context("MONITOR ended")?;
            if line.contains(&key) {
                ensure!(line.to_ascii_uppercase().contains("\"SET\""), "{line}");
                return Ok(());
            }
        }
    })
}
