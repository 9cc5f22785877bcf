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

use super::{ShardTask, not_yet, stale};
use crate::engine_info::{EngineInfo, is_at_rest};
use crate::engine_users::{epoch_of, epoch_user, no_writes, replication_user};
use crate::ledger::{Intent, RoleRecord};
use jiff::Timestamp;
use model::command::AgentRefusal;
use model::documents::{EngineUsers, Role};
use model::replication::SyncedRecord;
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
        self.ask_loaded(&run_id).await?;
        self.become_primary(run_id, epoch, users).await
    }

    /// `Promote`: the same, if its data are what was recorded of them.
    pub(super) async fn promote(
        &mut self,
        generation: Generation,
        run_id: String,
        epoch: Epoch,
        (record, wait_promises): (&SyncedRecord, bool),
        users: &EngineUsers,
    ) -> Result<(), AgentRefusal> {
        self.check_promotion(generation, &run_id, epoch)?;
        if !self.has_role(Role::Primary, epoch, &run_id) {
            self.withdraw_promises(wait_promises).await?;
        }
        let info = self.ask_loaded(&run_id).await?;
        // With the role in the ledger it was checked, and may have a history of its own by now.
        if !self.has_role(Role::Primary, epoch, &run_id) {
            check_data(&info, &run_id, record).map_err(|why| {
                AgentRefusal::failed(format!("it is not promoted: {why}; nothing was changed"))
            })?;
        }
        self.become_primary(run_id, epoch, users).await
    }

    async fn become_primary(
        &mut self,
        run_id: String,
        epoch: Epoch,
        users: &EngineUsers,
    ) -> Result<(), AgentRefusal> {
        let Some(engine) = self.running_engine() else {
            return not_yet("it is gone");
        };
        let (meant, role_was_given) =
            (run_id.clone(), self.has_role(Role::Primary, epoch, &run_id));
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
        let of_the_past = self.users_where(|of| of != epoch).await?;
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
                primary: None,
            };
            self.record(|ledger| {
                ledger.role = Some(role);
                ledger.intent = Intent::Nothing;
            })
            .await?;
        }
        self.serve_stale(false).await?;
        self.command(&replication_user(users)).await?;
        self.command(&epoch_user(&engine, epoch, &users.proxy))
            .await?;
        for user in &of_the_past {
            self.command(&["ACL", "DELUSER", user]).await?;
        }
        self.retiring = None;
        self.ask_again().await
    }

    /// The order means the running process, and a role that this process may still get.
    pub(super) fn check_promotion(
        &self,
        generation: Generation,
        run_id: &str,
        epoch: Epoch,
    ) -> Result<(), AgentRefusal> {
        if let Some(ledger) = &self.ledger
            && generation == ledger.spec.generation
        {
            self.check_epoch(epoch)?;
            if let Some(role) = &ledger.role
                && role.epoch == epoch
            {
                if role.role == Role::Replica {
                    return stale(format!(
                        "in epoch {epoch} it is a replica; its promotion needs a new epoch"
                    ));
                }
                if role.run_id != run_id {
                    return stale(format!(
                        "epoch {epoch} was given to process {}; a process that was started after \
                         it needs a new epoch",
                        role.run_id
                    ));
                }
            }
        }
        self.check_order(generation, run_id)
    }

    /// Whether the ledger gives this role to this process.
    pub(super) fn has_role(&self, role: Role, epoch: Epoch, run_id: &str) -> bool {
        let given = self.ledger.as_ref().and_then(|ledger| ledger.role.as_ref());
        given.is_some_and(|given| {
            given.role == role && given.epoch == epoch && given.run_id == run_id
        })
    }

    /// Users of epochs that are as described.
    pub(super) async fn users_where(
        &mut self,
        wanted: impl Fn(Epoch) -> bool,
    ) -> Result<Vec<String>, AgentRefusal> {
        let client = self
            .connected(super::COMMAND_PATIENCE)
            .await
            .map_err(AgentRefusal::failed)?;
        let mut users = client
            .list(&["ACL", "USERS"], super::COMMAND_PATIENCE)
            .await
            .map_err(AgentRefusal::failed)?;
        users.retain(|user| epoch_of(user).is_some_and(&wanted));
        Ok(users)
    }
}

/// Whether a replica holds what was recorded of it.
fn check_data(info: &EngineInfo, run_id: &str, record: &SyncedRecord) -> Result<(), String> {
    let replication = &info.replication;
    if record.run_id != run_id {
        return Err(format!(
            "what was recorded is of process {}, {run_id} runs",
            record.run_id
        ));
    }
    if replication.sync_in_progress {
        return Err("it is getting all data anew from its primary".to_owned());
    }
    if !is_at_rest(replication) {
        return Err(format!(
            "it is handing its role over ({})",
            replication.failover_state
        ));
    }
    // A history that it took up after the recorded one, from a primary that never served.
    let before = replication.replication_id2 == record.replication_id
        && u64::try_from(replication.second_offset).is_ok_and(|end| end > record.offset_floor);
    if replication.replication_id != record.replication_id && !before {
        return Err(format!(
            "its data are of history {}, {} was recorded",
            replication.replication_id, record.replication_id
        ));
    }
    if replication.offset < record.offset_floor {
        return Err(format!(
            "its data go up to offset {}, it had {} when it was recorded",
            replication.offset, record.offset_floor
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica() -> EngineInfo {
        let mut info = EngineInfo::default();
        info.replication.replication_id = "history".to_owned();
        info.replication.offset = 100;
        info.replication.second_offset = -1;
        info
    }

    #[test]
    fn data_are_compared_with_the_record() {
        let record = SyncedRecord {
            run_id: "run".to_owned(),
            replication_id: "history".to_owned(),
            offset_floor: 100,
            epoch: Epoch(1),
        };
        assert_eq!(check_data(&replica(), "run", &record), Ok(()));
        let empty = SyncedRecord {
            offset_floor: 0,
            ..record.clone()
        };
        let mut none = replica();
        none.replication.offset = 0;
        assert_eq!(check_data(&none, "run", &empty), Ok(()));
        let mut later = replica();
        later.replication.replication_id = "another".to_owned();
        later.replication.replication_id2 = "history".to_owned();
        later.replication.second_offset = 101;
        assert_eq!(check_data(&later, "run", &record), Ok(()));

        later.replication.second_offset = 100;
        let refused = |info: &EngineInfo, says: &str| {
            let why = check_data(info, "run", &record).unwrap_err();
            assert!(why.contains(says), "{why}");
        };
        refused(&later, "history another");
        let mut behind = replica();
        behind.replication.offset = 99;
        refused(&behind, "offset 99");
        let mut syncing = replica();
        syncing.replication.sync_in_progress = true;
        refused(&syncing, "anew");
        let mut giving = replica();
        giving.replication.failover_state = "failover-in-progress".to_owned();
        refused(&giving, "failover-in-progress");
        assert!(check_data(&replica(), "other", &record).is_err());
    }
}
