//! Making the running process a replica.
//!
//! 1. The ledger takes epoch and role: what the engine holds from here on is of that epoch.
//! 2. Users of other epochs lose `-@write`: an engine that was primary, or made itself one, takes
//!    nothing any more that would be lost.
//! 3. `REPLICAOF`, unless it follows that primary already: a second one could cost a full sync.
//! 4. Users of the past are deleted when nobody uses them any more.

use super::{ShardTask, not_yet, stale};
use crate::engine_info::{EngineInfo, is_at_rest};
use crate::engine_lineage::check_follows;
use crate::engine_users::{REPLICATION, no_writes};
use crate::ledger::RoleRecord;
use jiff::Timestamp;
use model::command::AgentRefusal;
use model::documents::{EngineUsers, Role};
use model::replication::PrimaryAddress;
use model::{Epoch, Generation};
use std::net::SocketAddr;

/// No password of anybody. An engine older than its primary's, which handed its role to it, keeps the
/// link that it has with it and gets no other: a full sync would cost it its data.
const NO_MORE_LINKS: &str = "older-than-its-primary";

impl ShardTask {
    /// `Follow`.
    pub(super) async fn follow(
        &mut self,
        generation: Generation,
        run_id: String,
        epoch: Epoch,
        primary: &PrimaryAddress,
        users: &EngineUsers,
    ) -> Result<(), AgentRefusal> {
        self.check_follow(generation, &run_id, epoch, primary)?;
        let info = self.ask_loaded(&run_id).await?;
        let Some(engine) = self.running_engine() else {
            return not_yet("it is gone");
        };
        if !is_at_rest(&info.replication) {
            return not_yet(format!(
                "it is handing its role over ({})",
                info.replication.failover_state
            ));
        }
        let follows = follows(&info, primary.address);
        let fits = check_follows(&engine, &primary.engine);
        if let (Err(why), false) = (&fits, follows) {
            return Err(AgentRefusal::failed(format!("{why}; nothing was changed")));
        }
        self.record_replica(epoch, run_id, primary.address).await?;
        for user in self.users_where(|of| of <= epoch).await? {
            self.command(&no_writes(&user)).await?;
        }
        self.serve_stale(false).await?;
        let password = match &fits {
            Ok(()) => users.repl.expose(),
            Err(_) => NO_MORE_LINKS,
        };
        self.command(&["CONFIG", "SET", "masteruser", REPLICATION])
            .await?;
        self.command(&["CONFIG", "SET", "masterauth", password])
            .await?;
        if !follows {
            let host = primary.address.ip().to_string();
            let port = primary.address.port().to_string();
            self.command(&["REPLICAOF", &host, &port]).await?;
        }
        self.ask_again().await?;
        self.kill_blocked().await
    }

    fn check_follow(
        &self,
        generation: Generation,
        run_id: &str,
        epoch: Epoch,
        primary: &PrimaryAddress,
    ) -> Result<(), AgentRefusal> {
        self.check_order(generation, run_id)?;
        self.check_epoch(epoch)?;
        let role = self.ledger.as_ref().and_then(|ledger| ledger.role.as_ref());
        if role.is_some_and(|role| role.role == Role::Primary && role.epoch == epoch) {
            return stale(format!(
                "in epoch {epoch} it was primary itself; it follows another one in a later epoch only"
            ));
        }
        if primary.shard == self.shard {
            return Err(AgentRefusal::failed("a shard cannot follow itself"));
        }
        Ok(())
    }

    /// Writes the role of a replica into the ledger.
    pub(super) async fn record_replica(
        &mut self,
        epoch: Epoch,
        run_id: String,
        primary: SocketAddr,
    ) -> Result<(), AgentRefusal> {
        let same = self.has_role(Role::Replica, epoch, &run_id);
        self.record(|ledger| {
            ledger.epoch = ledger.epoch.max(epoch);
            ledger.intent = crate::ledger::Intent::Nothing;
            let given = match &ledger.role {
                Some(role) if same => role.given,
                _ => Timestamp::now(),
            };
            ledger.role = Some(RoleRecord {
                role: Role::Replica,
                epoch,
                run_id,
                given,
                primary: Some(primary),
            });
        })
        .await?;
        self.role_confirmed = false;
        self.retiring = Some(super::retire::Retiring::default());
        Ok(())
    }
}

/// Whether an engine follows exactly this primary.
pub(super) fn follows(info: &EngineInfo, primary: SocketAddr) -> bool {
    !info.is_primary() && info.replication.primary == Some(primary)
}
