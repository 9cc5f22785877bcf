//! Giving the running process the role of primary.
//!
//! The order of the steps, and why:
//! 1. The ledger takes the epoch, so that older orders are refused from here on.
//! 2. Users of other epochs lose `-@write`: no proxy of the past can write any more.
//! 3. `REPLICAOF NO ONE`.
//! 4. The ledger takes the role. No user of the new epoch exists yet, so that there is no write of
//!    an epoch of which the ledger beside the data does not know.
//! 5. The users of the new epoch are made: only now can clients come.
//! 6. Users of other epochs are deleted; that cuts their connections.
//!
//! A crash between any two leaves an engine that serves nobody in the new epoch, and the same order
//! again completes it.

use super::{COMMAND_PATIENCE, ShardTask, not_yet, stale};
use crate::engine_users::{epoch_user, is_of_other_epoch, no_writes, replication_user};
use crate::ledger::{Intent, RoleRecord};
use jiff::Timestamp;
use model::command::AgentRefusal;
use model::documents::{EngineUsers, Role};
use model::{Epoch, Generation};

impl ShardTask {
    /// `MakePrimary`.
    pub(super) async fn make_primary(
        &mut self,
        generation: Generation,
        run_id: String,
        epoch: Epoch,
        users: &EngineUsers,
    ) -> Result<(), AgentRefusal> {
        self.check_promotion(generation, &run_id, epoch)?;
        let info = self
            .ask(COMMAND_PATIENCE)
            .await
            .map_err(AgentRefusal::failed)?;
        self.heard_from(info).await?;
        let Some(info) = self.info.clone() else {
            return not_yet("it does not answer");
        };
        if info.run_id != run_id {
            return stale(format!("process {} runs, {run_id} was meant", info.run_id));
        }
        if info.loading {
            return not_yet(format!("it loads its data ({:.0} %)", info.loading_percent));
        }
        let ledger = self.ledger.as_ref();
        let engine = ledger
            .and_then(|l| l.process.as_ref())
            .map(|p| p.engine.clone());
        let Some(engine) = engine else {
            return not_yet("it is gone");
        };
        let (meant, role_was_given) = (run_id.clone(), self.has_role(epoch, &run_id));
        self.record(|ledger| {
            ledger.epoch = epoch;
            if !role_was_given {
                ledger.intent = Intent::Promote {
                    epoch,
                    run_id: meant,
                };
            }
        })
        .await?;
        let of_the_past = self.users_of_other_epochs(epoch).await?;
        for user in &of_the_past {
            self.command(&no_writes(user)).await?;
        }
        self.command(&["REPLICAOF", "NO", "ONE"]).await?;
        if !role_was_given {
            let role = RoleRecord {
                role: Role::Primary,
                epoch,
                run_id,
                given: Timestamp::now(),
            };
            self.record(|ledger| {
                ledger.role = Some(role);
                ledger.intent = Intent::Nothing;
            })
            .await?;
        }
        self.command(&replication_user(users)).await?;
        self.command(&epoch_user(&engine, epoch, &users.proxy))
            .await?;
        for user in &of_the_past {
            self.command(&["ACL", "DELUSER", user]).await?;
        }
        let info = self
            .ask(COMMAND_PATIENCE)
            .await
            .map_err(AgentRefusal::failed)?;
        self.heard_from(info).await
    }

    fn check_promotion(
        &self,
        generation: Generation,
        run_id: &str,
        epoch: Epoch,
    ) -> Result<(), AgentRefusal> {
        let Some(ledger) = &self.ledger else {
            return not_yet(format!("shard {} was never started here", self.shard));
        };
        if let Intent::Remove { operation } = &ledger.intent {
            return not_yet(format!("it is being removed by operation {operation}"));
        }
        let known = ledger.spec.generation;
        if generation < known {
            return stale(format!(
                "generation {known} is known, {generation} was ordered"
            ));
        }
        if generation > known {
            return not_yet(format!(
                "generation {generation} was not ordered yet, only {known}"
            ));
        }
        if epoch < ledger.epoch {
            return stale(format!(
                "epoch {} is known, {epoch} was ordered",
                ledger.epoch
            ));
        }
        if let Some(role) = &ledger.role
            && role.epoch == epoch
            && role.run_id != run_id
        {
            return stale(format!(
                "epoch {epoch} was given to process {}; a process that was started after it needs \
                 a new epoch",
                role.run_id
            ));
        }
        if self.engine.is_none() {
            return not_yet("the engine does not run");
        }
        let running = ledger
            .process
            .as_ref()
            .and_then(|process| process.run_id.as_deref());
        match running {
            Some(running) if running != run_id => {
                stale(format!("process {running} runs, {run_id} was meant"))
            }
            Some(_) => Ok(()),
            None => not_yet("the engine does not answer yet"),
        }
    }

    fn has_role(&self, epoch: Epoch, run_id: &str) -> bool {
        let role = self.ledger.as_ref().and_then(|ledger| ledger.role.as_ref());
        role.is_some_and(|role| {
            role.role == Role::Primary && role.epoch == epoch && role.run_id == run_id
        })
    }

    async fn users_of_other_epochs(&mut self, epoch: Epoch) -> Result<Vec<String>, AgentRefusal> {
        let client = self
            .connected(COMMAND_PATIENCE)
            .await
            .map_err(AgentRefusal::failed)?;
        let mut users = client
            .list(&["ACL", "USERS"], COMMAND_PATIENCE)
            .await
            .map_err(AgentRefusal::failed)?;
        users.retain(|user| is_of_other_epoch(user, epoch));
        Ok(users)
    }
}
