//! A replica that is to become primary acknowledges every millisecond: by itself it would do so once a
//! second, and its primary does not ask while it waits for it. In a task and over a connection of its
//! own, so that the shard's other orders go on.

use super::hand_over::Pace;
use super::{Answer, COMMAND_PATIENCE, Order, ShardTask, not_yet, stale};
use crate::engine_client::{EngineClient, EngineError};
use crate::engine_info::{EngineInfo, replication};
use crate::engine_users::AGENT;
use model::Generation;
use model::command::AgentRefusal;
use model::own_words::INFO;
use model::secret::Secret;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// Longest time that an order may ask for.
const TIME_MAX: Duration = Duration::from_secs(60);
/// How many of these orders may be under way for a shard: the one that counts, and one whose sender gave up.
pub(super) const AT_ONCE: usize = 2;

/// What such a task needs.
struct Press {
    socket: PathBuf,
    password: Secret,
    run_id: String,
    until: Instant,
}

impl ShardTask {
    /// `PressAcks`. Answers by itself, later.
    pub(super) fn press_acks(
        &self,
        generation: Generation,
        run_id: String,
        milliseconds: u32,
        answer: oneshot::Sender<Answer>,
    ) {
        let ready = self.check_order(generation, &run_id).and_then(|()| {
            let permit = self.presses.clone().try_acquire_owned();
            permit.or_else(|_| not_yet(format!("{AT_ONCE} such orders are under way")))
        });
        let permit = match ready {
            Ok(permit) => permit,
            Err(refusal) => {
                // Whoever asked may have gone.
                let _ = answer.send(Err(refusal));
                return;
            }
        };
        let Some(ledger) = &self.ledger else { return };
        let time = Duration::from_millis(u64::from(milliseconds)).min(TIME_MAX);
        let press = Press {
            socket: self.shared.config.node.shard_socket(self.shard),
            password: ledger.spec.users.cnm.clone(),
            run_id,
            until: Instant::now() + time,
        };
        let mailbox = self.mailbox.clone();
        tokio::spawn(async move {
            let pressed = press.run(&answer).await;
            drop(permit);
            let result = match pressed {
                Ok(()) => see(&mailbox).await,
                Err(refusal) => Err(refusal),
            };
            // Whoever asked may have gone.
            let _ = answer.send(result);
        });
    }
}

impl Press {
    /// Until it is primary, or the time is over, or nobody waits any more.
    async fn run(&self, answer: &oneshot::Sender<Answer>) -> Result<(), AgentRefusal> {
        let failed = |error: EngineError| AgentRefusal::failed(error);
        let mut client =
            EngineClient::connect(&self.socket, AGENT, &self.password, COMMAND_PATIENCE)
                .await
                .map_err(failed)?;
        let text = client
            .text(&[INFO, "server"], COMMAND_PATIENCE)
            .await
            .map_err(failed)?;
        let run_id = EngineInfo::parse(&text).run_id;
        if run_id != self.run_id {
            return stale(format!("process {run_id} runs, {} was meant", self.run_id));
        }
        let mut pace = Pace::start();
        while Instant::now() < self.until && !answer.is_closed() {
            pace.wait().await;
            let left = self.until.saturating_duration_since(Instant::now());
            client
                .tell(&["REPLCONF", "GETACK", "*"], left)
                .await
                .map_err(failed)?;
            match client.text(&[INFO, "replication"], left).await {
                Ok(text) if replication(&text).is_primary => break,
                // It loads, hangs, or is busy: the time is bounded.
                Ok(_) | Err(EngineError::Silent(_) | EngineError::Refused(_)) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(())
    }
}

/// The shard as it is then.
async fn see(mailbox: &mpsc::WeakSender<Order>) -> Answer {
    let Some(mailbox) = mailbox.upgrade() else {
        return not_yet("the agent is being stopped");
    };
    let (answer, answered) = oneshot::channel();
    if mailbox.send(Order::See { answer }).await.is_err() {
        return not_yet("the shard is being removed");
    }
    drop(mailbox);
    answered
        .await
        .unwrap_or_else(|_| not_yet("the shard is being removed"))
}
