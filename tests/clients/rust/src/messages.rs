//! Channels and patterns, as version 2 and version 3 of the protocol have them.

use crate::side::{PATIENCE, Side, config, manager_config, patient, until};
use crate::{On, Scenario};
use anyhow::{Context as _, ensure};
use futures::StreamExt as _;
use redis::aio::ConnectionManager;
use redis::{AsyncCommands as _, Commands as _, Msg, PushInfo, PushKind, RedisResult, cmd};
use tokio::sync::broadcast::{Receiver, channel as push_channel};

/// More than any scenario is pushed before it looks.
const PUSHES: usize = 1_024;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "messages",
        run: messages,
        on: On::Both,
    },
    Scenario {
        name: "messages_at_once",
        run: messages_at_once,
        on: On::Both,
    },
    Scenario {
        name: "messages_between_answers",
        run: between_answers,
        on: On::Version3,
    },
    Scenario {
        name: "subscriptions_that_come_back",
        run: come_back,
        on: On::Version3,
    },
];

/// `Connection::as_pubsub`.
fn messages(side: &Side) -> anyhow::Result<()> {
    let mut listening = side.connection()?;
    let mut publisher = side.connection()?;
    let (news, other) = (side.key("news"), side.key("other"));
    {
        let mut subscribed = listening.as_pubsub();
        subscribed.subscribe(&news)?;
        subscribed.psubscribe(side.key("oth*"))?;
        for n in 0..100 {
            ensure!(publisher.publish::<_, _, i64>(&news, n)? == 1);
        }
        for n in 0..100 {
            let message = subscribed.get_message()?;
            ensure!(message.get_payload::<i64>()? == n && message.get_channel_name() == news);
        }
        publisher.publish::<_, _, ()>(&other, "by pattern")?;
        let message = subscribed.get_message()?;
        let found = (
            message.get_channel_name().to_owned(),
            message.get_payload::<String>()?,
        );
        ensure!(
            message.from_pattern() && found == (other.clone(), "by pattern".to_owned()),
            "{found:?}"
        );
        subscribed.unsubscribe(&news)?;
        subscribed.punsubscribe(side.key("oth*"))?;
    }
    // The same connection takes commands again.
    ensure!(cmd("PING").query::<String>(&mut listening)? == "PONG");
    ensure!(publisher.publish::<_, _, i64>(&news, "nobody")? == 0);
    patient(listening)?;
    Ok(())
}

/// A subscriber of its own, whose halves are two tasks.
fn messages_at_once(side: &Side) -> anyhow::Result<()> {
    side.wait(async {
        let (mut sink, mut stream) = side.client()?.get_async_pubsub().await?.split();
        let channels: Vec<String> = (0..20).map(|n| side.key(&format!("c{n}"))).collect();
        sink.subscribe(&channels).await?;
        let publisher = side.multiplexed().await?;
        let sent = channels.iter().map(|channel| {
            let mut publisher = publisher.clone();
            async move {
                for n in 0..50_u32 {
                    publisher.publish::<_, _, ()>(channel, n).await?;
                }
                Ok::<_, redis::RedisError>(())
            }
        });
        futures::future::try_join_all(sent).await?;
        let mut next = vec![0_u32; channels.len()];
        for _ in 0..channels.len() * 50 {
            let message: Msg = stream.next().await.context("the subscription ended")?;
            let at = channels
                .iter()
                .position(|channel| channel == message.get_channel_name());
            let next = &mut next[at.context("a message of no channel of mine")?];
            ensure!(
                message.get_payload::<u32>()? == *next,
                "messages of a channel are out of order"
            );
            *next += 1;
        }
        sink.unsubscribe(&channels).await?;
        Ok(())
    })
}

/// The next push of this kind; what it carries.
async fn pushed(pushes: &mut Receiver<PushInfo>, kind: PushKind) -> anyhow::Result<Vec<String>> {
    loop {
        let push = tokio::time::timeout(PATIENCE, pushes.recv())
            .await
            .context("nothing is pushed")?;
        let push = push.context("the connection ended")?;
        if push.kind == kind {
            return Ok(crate::side::texts(&push.data));
        }
    }
}

/// Messages come between the answers to commands of the same connection.
fn between_answers(side: &Side) -> anyhow::Result<()> {
    side.wait(async {
        let (sender, mut pushes) = push_channel(PUSHES);
        let config = config().set_push_sender(sender);
        let mut redis = side
            .client()?
            .get_multiplexed_async_connection_with_config(&config)
            .await?;
        let channel = side.key("c");
        redis.subscribe(&channel).await?;
        redis.psubscribe(side.key("p*")).await?;
        let mut publisher = side.multiplexed().await?;
        for n in 0..50_u32 {
            publisher.publish::<_, _, ()>(&channel, n).await?;
            redis.set::<_, _, ()>(side.key("a"), n).await?;
            ensure!(redis.get::<_, u32>(side.key("a")).await? == n);
        }
        for n in 0..50_u32 {
            ensure!(
                pushed(&mut pushes, PushKind::Message).await? == [channel.clone(), n.to_string()]
            );
        }
        publisher.publish::<_, _, ()>(side.key("p1"), "x").await?;
        let message = pushed(&mut pushes, PushKind::PMessage).await?;
        ensure!(
            message == [side.key("p*"), side.key("p1"), "x".to_owned()],
            "{message:?}"
        );
        redis.unsubscribe(&channel).await?;
        ensure!(publisher.publish::<_, _, u32>(&channel, "nobody").await? == 0);
        Ok(())
    })
}

/// `ConnectionManager` subscribes again after its connection was killed.
fn come_back(side: &Side) -> anyhow::Result<()> {
    side.wait(async {
        let (sender, mut pushes) = push_channel(PUSHES);
        let config = manager_config()
            .set_push_sender(sender)
            .set_automatic_resubscription();
        let client = side.client_of_one_node()?;
        let mut redis = ConnectionManager::new_with_config(client, config).await?;
        let mut killer = side.manager(side.client_of_one_node()?).await?;
        let channel = side.key("c");
        redis.subscribe(&channel).await?;
        let id: i64 = cmd("CLIENT").arg("ID").query_async(&mut redis).await?;
        let killed: i64 = cmd("CLIENT")
            .arg("KILL")
            .arg("ID")
            .arg(id)
            .query_async(&mut killer)
            .await?;
        ensure!(killed == 1);
        // The break shows in the next command; then it connects and subscribes again.
        until("it is subscribed again", async || {
            let _: RedisResult<String> = cmd("PING").query_async(&mut redis.clone()).await;
            let heard: u32 = killer.clone().publish(&channel, "again").await?;
            Ok((heard == 1).then_some(()))
        })
        .await?;
        ensure!(
            pushed(&mut pushes, PushKind::Message).await? == [channel.clone(), "again".to_owned()]
        );
        Ok(())
    })
}
