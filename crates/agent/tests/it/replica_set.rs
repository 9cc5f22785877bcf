//! Engines of a replica set for a test, each on a node and with an agent of its own.

use crate::bench::*;
use agent::Agent;
use model::command::{AgentCommand, AgentRefusal};
use model::documents::Role;
use model::observation::ShardObservation;
use model::release::EngineId;
use model::replication::{HandOverTarget, PrimaryAddress, ReplicationObservation, SyncedRecord};
use model::{Epoch, Generation, ShardUid};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::Instant;

/// What an order brings.
pub(crate) type Answer = Result<Option<ShardObservation>, AgentRefusal>;

/// How the shard of another node is called: on its own node each is [`SHARD`].
const ANOTHER: ShardUid = ShardUid(2);

/// One engine of a replica set.
pub(crate) struct Member {
    pub(crate) agent: Agent,
    pub(crate) engine: EngineId,
    pub(crate) run_id: String,
    pub(crate) pid: u32,
    pub(crate) node: Node,
}

impl Member {
    /// An engine that runs and has no role.
    pub(crate) async fn start(engine: &EngineId) -> Self {
        Self::on(Node::new(), engine).await
    }

    pub(crate) async fn on(node: Node, engine: &EngineId) -> Self {
        let agent = node.agent().await;
        let shard = run(&agent, &spec(engine.clone())).await;
        Self {
            agent,
            engine: engine.clone(),
            run_id: shard.run_id.unwrap(),
            pid: shard.pid.unwrap(),
            node,
        }
    }

    /// The primary of an epoch.
    pub(crate) async fn primary(engine: &EngineId, epoch: u64) -> Self {
        let member = Self::start(engine).await;
        member
            .order(make_primary(&member.run_id, epoch))
            .await
            .unwrap();
        member
    }

    /// A replica of a primary, synced.
    pub(crate) async fn replica(engine: &EngineId, epoch: u64, of: &Self) -> Self {
        let member = Self::start(engine).await;
        member.order(member.follow(epoch, of)).await.unwrap();
        member.is_synced(epoch, of).await;
        member
    }

    /// Another agent in place of this one, as after a crash of `cnm_exec`; the engine lives on.
    pub(crate) async fn crash_agent(mut self, between: impl FnOnce(&Node)) -> Self {
        drop(self.agent);
        between(&self.node);
        self.agent = self.node.agent().await;
        self
    }

    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::new(self.node.config.node.address, PORT)
    }

    pub(crate) async fn order(&self, command: AgentCommand) -> Answer {
        self.agent.execute(command).await
    }

    pub(crate) fn seen(&self) -> ShardObservation {
        self.agent.shards().pop().unwrap()
    }

    pub(crate) fn replication(&self) -> ReplicationObservation {
        self.seen().replication.unwrap_or_default()
    }

    pub(crate) fn as_primary(&self) -> PrimaryAddress {
        PrimaryAddress {
            shard: ANOTHER,
            address: self.address(),
            run_id: self.run_id.clone(),
            engine: self.engine.clone(),
        }
    }

    pub(crate) fn follow(&self, epoch: u64, of: &Self) -> AgentCommand {
        AgentCommand::Follow {
            shard: SHARD,
            generation: Generation(1),
            run_id: self.run_id.clone(),
            epoch: Epoch(epoch),
            primary: of.as_primary(),
            users: users(epoch),
        }
    }

    pub(crate) fn promote(&self, epoch: u64, record: &SyncedRecord) -> AgentCommand {
        AgentCommand::Promote {
            shard: SHARD,
            generation: Generation(1),
            run_id: self.run_id.clone(),
            epoch: Epoch(epoch),
            record: record.clone(),
            users: users(epoch),
            wait_promises: false,
        }
    }

    /// Promises by a user whose password is that of the proxies.
    pub(crate) fn keep(&self, epoch: u64, user: &str) -> AgentCommand {
        AgentCommand::Keep {
            shard: SHARD,
            generation: Generation(1),
            run_id: self.run_id.clone(),
            epoch: Epoch(epoch),
            user: user.to_owned(),
            password: users(epoch).proxy,
        }
    }

    pub(crate) fn prepare(&self, epoch: u64) -> AgentCommand {
        AgentCommand::PrepareEpoch {
            shard: SHARD,
            generation: Generation(1),
            run_id: self.run_id.clone(),
            epoch: Epoch(epoch),
            users: users(epoch),
        }
    }

    pub(crate) fn hand_over(&self, epoch: u64, to: &Self, deadline_ms: u32) -> AgentCommand {
        AgentCommand::HandOver {
            shard: SHARD,
            generation: Generation(1),
            run_id: self.run_id.clone(),
            epoch: Epoch(epoch),
            target: to.as_target(),
            deadline_ms,
        }
    }

    pub(crate) fn as_target(&self) -> HandOverTarget {
        HandOverTarget {
            shard: ANOTHER,
            address: self.address(),
            run_id: self.run_id.clone(),
        }
    }

    pub(crate) fn press(&self, milliseconds: u32) -> AgentCommand {
        AgentCommand::PressAcks {
            shard: SHARD,
            generation: Generation(1),
            run_id: self.run_id.clone(),
            milliseconds,
        }
    }

    pub(crate) fn take_over(&self, epoch: u64) -> AgentCommand {
        AgentCommand::TakeOver {
            shard: SHARD,
            generation: Generation(1),
            run_id: self.run_id.clone(),
            epoch: Epoch(epoch),
            users: users(epoch),
        }
    }

    pub(crate) fn settle(&self, epoch: u64) -> AgentCommand {
        AgentCommand::SettleMove {
            shard: SHARD,
            generation: Generation(1),
            epoch: Epoch(epoch),
        }
    }

    pub(crate) fn abort(&self) -> AgentCommand {
        AgentCommand::AbortHandOver {
            shard: SHARD,
            generation: Generation(1),
            run_id: self.run_id.clone(),
        }
    }

    pub(crate) fn kill(&self) -> AgentCommand {
        AgentCommand::KillEngine {
            shard: SHARD,
            generation: Generation(1),
            run_id: self.run_id.clone(),
        }
    }

    /// What the controller would record of it now.
    pub(crate) fn record(&self, epoch: u64) -> SyncedRecord {
        let replication = self.replication();
        SyncedRecord {
            run_id: self.run_id.clone(),
            replication_id: replication.replication_id,
            offset_floor: replication.offset,
            epoch: Epoch(epoch),
        }
    }

    /// Waits until both ends agree that it follows and acknowledges.
    pub(crate) async fn is_synced(&self, epoch: u64, of: &Self) {
        self.looks(|shard| {
            let replication = shard.replication.clone().unwrap_or_default();
            is(shard, Role::Replica, epoch)
                && replication.link_up
                && !replication.sync_in_progress
                && replication.primary == Some(of.address())
        })
        .await;
        let address = self.address();
        of.looks(|shard| {
            let replication = shard.replication.clone().unwrap_or_default();
            replication
                .replicas
                .iter()
                .any(|seen| seen.address == address && seen.online)
        })
        .await;
    }

    /// Waits until its agent sees it so.
    pub(crate) async fn looks(
        &self,
        looks: impl Fn(&ShardObservation) -> bool,
    ) -> ShardObservation {
        seen(&self.agent, looks).await
    }

    /// Waits until it has everything that its primary has.
    pub(crate) async fn has_all_of(&self, primary: &Self) {
        let all: u64 = info(&mut primary.node.as_cnm(), "master_repl_offset")
            .parse()
            .unwrap();
        let mut cnm = self.node.as_cnm();
        eventually("the replica has everything", || {
            info(&mut cnm, "slave_repl_offset").parse::<u64>().unwrap() >= all
        })
        .await;
    }

    pub(crate) fn info(&self, field: &str) -> String {
        info(&mut self.node.as_cnm(), field)
    }

    pub(crate) fn users(&self) -> Vec<String> {
        say(&mut self.node.as_cnm(), "ACL USERS").unwrap()
    }
}

/// Whether a shard has this role.
pub(crate) fn is(shard: &ShardObservation, role: Role, epoch: u64) -> bool {
    shard.role == Some(role) && shard.epoch == Some(Epoch(epoch))
}

/// All pairs in which the first may be followed by the second: the same engine, and each with the next
/// newer one.
pub(crate) fn pairs() -> Vec<(EngineId, EngineId)> {
    let engines = engines();
    let same = engines.iter().map(|e| (e.clone(), e.clone()));
    let upward = engines
        .windows(2)
        .map(|two| (two[0].clone(), two[1].clone()));
    same.chain(upward).collect()
}

/// Orders both engines to hand the role over, as the controller does.
pub(crate) async fn hand_over(
    old: &Member,
    new: &Member,
    epoch: u64,
    deadline_ms: u32,
) -> (Answer, Answer) {
    tokio::join!(
        old.order(old.hand_over(epoch, new, deadline_ms)),
        new.order(new.press(deadline_ms)),
    )
}

/// A thread that does something again and again until a condition holds, or the time is over.
pub(crate) fn until_blocking(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < until, "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
