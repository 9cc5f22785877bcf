//! Client-side caching: what was read is kept until the server says that it changed.

use crate::side::{PATIENCE, Side, config, texts, until};
use crate::{On, Scenario};
use anyhow::{Context as _, ensure};
use redis::caching::{CacheConfig, CacheMode};
use redis::{AsyncCommands as _, Commands as _, PushInfo, PushKind, Value, cmd};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "the_library_s_cache",
        run: cache,
        on: On::Version3,
    },
    Scenario {
        name: "tracking",
        run: tracking,
        on: On::Version3,
    },
    Scenario {
        name: "tracking_of_prefixes",
        run: prefixes,
        on: On::Version3,
    },
];

fn cache(side: &Side) -> anyhow::Result<()> {
    side.wait(async {
        for mode in [CacheMode::All, CacheMode::OptIn] {
            let config = config().set_cache_config(CacheConfig::new().set_mode(mode));
            let redis = side
                .client()?
                .get_multiplexed_async_connection_with_config(&config)
                .await?;
            let mut other = side.multiplexed().await?;
            let key = side.key(&format!("{mode:?}"));
            other.set::<_, _, ()>(&key, 1).await?;
            let get = |mut redis: redis::aio::MultiplexedConnection| {
                let mut get = cmd("GET");
                get.arg(&key)
                    .set_cache_config(redis::CommandCacheConfig::new().set_enable_cache(true));
                async move { get.query_async::<u32>(&mut redis).await }
            };
            for _ in 0..10 {
                ensure!(get(redis.clone()).await? == 1);
            }
            let counted = redis.get_cache_statistics().context("there is a cache")?;
            ensure!((counted.hit, counted.miss) == (9, 1), "{counted:?}");
            other.set::<_, _, ()>(&key, 2).await?;
            until("the change is seen", async || {
                Ok((get(redis.clone()).await? == 2).then_some(()))
            })
            .await?;
            let counted = redis.get_cache_statistics().context("there is a cache")?;
            ensure!(counted.invalidate == 1, "{counted:?}");
            // Several commands at once, some of them cached.
            let keys: Vec<String> = (0..20).map(|n| side.key(&format!("{mode:?}{n}"))).collect();
            let pairs: Vec<(&String, usize)> = keys.iter().zip(0..).collect();
            other.mset::<_, _, ()>(&pairs).await?;
            for _ in 0..3 {
                let values: Vec<usize> = redis.clone().mget(&keys).await?;
                ensure!(values == (0..20).collect::<Vec<usize>>());
            }
        }
        Ok(())
    })
}

/// The synchronous half hands out what is pushed.
#[expect(
    clippy::disallowed_methods,
    reason = "the library takes no other kind of channel"
)]
fn tracking(side: &Side) -> anyhow::Result<()> {
    let (sender, pushes) = std::sync::mpsc::channel::<PushInfo>();
    let (mut redis, mut other) = (side.connection()?, side.connection()?);
    redis.set_push_sender(sender);
    let keys: Vec<String> = ["a", "b"].map(|name| side.key(name)).to_vec();
    for key in &keys {
        other.set::<_, _, ()>(key, 1)?;
    }
    cmd("CLIENT").arg("TRACKING").arg("ON").exec(&mut redis)?;
    for key in &keys {
        ensure!(redis.get::<_, u32>(key)? == 1);
    }
    for key in &keys {
        other.set::<_, _, ()>(key, 2)?;
    }
    let mut announced = Vec::new();
    let end = std::time::Instant::now() + PATIENCE;
    while announced.len() < keys.len() && std::time::Instant::now() < end {
        cmd("PING").exec(&mut redis)?;
        announced.extend(
            pushes
                .try_iter()
                .filter(|push| push.kind == PushKind::Invalidate)
                .flat_map(names),
        );
    }
    ensure!(announced == keys, "{announced:?}");
    let info: Value = cmd("CLIENT").arg("TRACKINGINFO").query(&mut redis)?;
    side.see("CLIENT TRACKINGINFO", info);
    cmd("CLIENT").arg("TRACKING").arg("OFF").exec(&mut redis)?;
    Ok(())
}

fn prefixes(side: &Side) -> anyhow::Result<()> {
    side.wait(async {
        let (sender, mut pushes) = tokio::sync::broadcast::channel(1_024);
        let config = config().set_push_sender(sender);
        let mut redis = side
            .client()?
            .get_multiplexed_async_connection_with_config(&config)
            .await?;
        let prefix = side.key("p");
        cmd("CLIENT")
            .arg("TRACKING")
            .arg("ON")
            .arg("BCAST")
            .arg("PREFIX")
            .arg(&prefix)
            .exec_async(&mut redis)
            .await?;
        let mut other = side.multiplexed().await?;
        other.set::<_, _, ()>(side.key("q1"), "x").await?;
        other.set::<_, _, ()>(side.key("p1"), "x").await?;
        let push: PushInfo = tokio::time::timeout(PATIENCE, pushes.recv())
            .await?
            .context("the connection ended")?;
        ensure!(
            push.kind == PushKind::Invalidate && names(push.clone()) == [side.key("p1")],
            "{push:?}"
        );
        Ok(())
    })
}

/// The keys that a push announces.
fn names(push: PushInfo) -> Vec<String> {
    match push.data.first() {
        Some(Value::Array(keys)) => texts(keys),
        other => vec![format!("{other:?}")],
    }
}
