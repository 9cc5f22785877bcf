//! The pools that are used with the library.

use crate::side::{PATIENCE, Side, config, fails};
use crate::{On, Scenario};
use anyhow::{Context as _, ensure};
use futures::future::try_join_all;
use redis::aio::MultiplexedConnection;
use redis::{AsyncCommands as _, Client, Cmd, Commands as _, RedisError, cmd, pipe};
use std::collections::BTreeSet;
use std::sync::Mutex;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "r2d2",
        run: with_r2d2,
        on: On::Both,
    },
    Scenario {
        name: "bb8",
        run: with_bb8,
        on: On::Both,
    },
    Scenario {
        name: "deadpool",
        run: with_deadpool,
        on: On::Both,
    },
];

fn with_r2d2(side: &Side) -> anyhow::Result<()> {
    let pool = r2d2::Pool::builder()
        .max_size(10)
        .connection_timeout(PATIENCE)
        .build(side.client()?)
        .context("fill the pool")?;
    let ids = Mutex::new(BTreeSet::new());
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..30_u32)
            .map(|n| {
                let (pool, ids, key) = (&pool, &ids, side.key(&n.to_string()));
                scope.spawn(move || {
                    for round in 0..10_u32 {
                        let mut redis = pool.get()?;
                        redis.set::<_, _, ()>(&key, n * 100 + round)?;
                        ensure!(redis.get::<_, u32>(&key)? == n * 100 + round);
                        let id: u64 = cmd("CLIENT").arg("ID").query(&mut *redis)?;
                        ids.lock()
                            .map_err(|_| anyhow::anyhow!("a thread panicked"))?
                            .insert(id);
                    }
                    Ok(())
                })
            })
            .collect();
        for thread in threads {
            thread
                .join()
                .map_err(|_| anyhow::anyhow!("a thread panicked"))??;
        }
        anyhow::Ok(())
    })?;
    let ids = ids
        .into_inner()
        .map_err(|_| anyhow::anyhow!("a thread panicked"))?;
    ensure!((2..=10).contains(&ids.len()), "{} connections", ids.len());
    // A connection that was ended is replaced.
    let mut redis = pool.get()?;
    fails(
        redis.lpush::<_, _, redis::Value>(side.key("0"), "x"),
        "WRONGTYPE",
    )?;
    ensure!(redis.get::<_, u32>(side.key("0"))? == 9);
    Ok(())
}

/// What the library's own manager does, with more patience than half a second.
struct Patient(Client);

impl bb8::ManageConnection for Patient {
    type Connection = MultiplexedConnection;
    type Error = RedisError;

    async fn connect(&self) -> Result<Self::Connection, RedisError> {
        self.0
            .get_multiplexed_async_connection_with_config(&config())
            .await
    }

    async fn is_valid(&self, redis: &mut Self::Connection) -> Result<(), RedisError> {
        Cmd::ping().query_async(redis).await
    }

    fn has_broken(&self, redis: &mut Self::Connection) -> bool {
        <Client as bb8::ManageConnection>::has_broken(&self.0, redis)
    }
}

fn with_bb8(side: &Side) -> anyhow::Result<()> {
    side.wait(async {
        let manager = Patient(side.client()?);
        let pool = bb8::Pool::builder()
            .max_size(10)
            .connection_timeout(PATIENCE)
            .build(manager)
            .await?;
        let work = (0..50_u32).map(|n| {
            let (pool, key) = (pool.clone(), side.key(&n.to_string()));
            async move {
                for round in 0..10_u32 {
                    let mut redis = pool
                        .get()
                        .await
                        .map_err(|error| anyhow::anyhow!("{error}"))?;
                    redis.set::<_, _, ()>(&key, n * 100 + round).await?;
                    ensure!(redis.get::<_, u32>(&key).await? == n * 100 + round);
                }
                Ok(())
            }
        });
        try_join_all(work).await?;
        let state = pool.state();
        ensure!((1..=10).contains(&state.connections), "{state:?}");
        Ok(())
    })
}

fn with_deadpool(side: &Side) -> anyhow::Result<()> {
    side.wait(async {
        let info = side.client()?.get_connection_info().clone();
        let manager = deadpool_redis::Manager::new_with_config(info, config())?;
        let pool = deadpool_redis::Pool::builder(manager)
            .max_size(10)
            .build()?;
        let work = (0..50_u32).map(|n| {
            let (pool, key) = (pool.clone(), side.key(&n.to_string()));
            async move {
                for round in 0..5_u32 {
                    let mut redis = pool.get().await?;
                    // A watched key that is left behind: the pool forgets it before the next one's turn.
                    cmd("WATCH").arg(&key).exec_async(&mut redis).await?;
                    redis.set::<_, _, ()>(&key, n * 100 + round).await?;
                    drop(redis);
                    let mut redis = pool.get().await?;
                    let (back,): (Option<u32>,) =
                        pipe().atomic().get(&key).query_async(&mut redis).await?;
                    ensure!(back == Some(n * 100 + round), "{back:?}");
                }
                Ok(())
            }
        });
        try_join_all(work).await?;
        ensure!(pool.status().size <= 10);
        Ok(())
    })
}
