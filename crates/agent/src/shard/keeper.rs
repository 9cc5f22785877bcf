//! Promises to proxies: as long as an engine answers a proxy's `PING`, its copy is not promoted for the
//! length of a lease. See [`model::lease`].
//!
//! Proxies ask by a user of an epoch and of a list of copies. The agent gives that user and takes it away:
//! without it no promise is given any more, and those that were given are over a lease's length later. A
//! replica gives none while it does not hear its primary, so that they are over when it is to be promoted.
//! When that was is known to this process alone; after a start of the agent everything counts from there.

use super::{COMMAND_PATIENCE, ShardTask, not_yet};
use crate::engine_users::keeper;
use model::command::AgentCommand;
use model::command::AgentRefusal;
use model::documents::{KEEPER, Role};
use model::lease::LeaseLength;
use model::observation::KeeperObservation;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// How long after the end of a user its promises count.
const LENGTH: Duration = Duration::from_nanos(LeaseLength::PRODUCT.grantor);

/// Who gets promises of the running engine.
#[derive(Debug)]
pub(super) struct Keeper {
    /// The user by which they are given; `None`: none is, as far as is known.
    user: Option<String>,
    /// When another user was taken away last.
    withdrawn: Instant,
}

impl Keeper {
    /// Nothing is known of what was before.
    pub(super) fn new() -> Self {
        Self {
            user: None,
            withdrawn: Instant::now(),
        }
    }

    /// The process is gone, and with it its users.
    pub(super) fn lost(&mut self) {
        if self.user.take().is_some() {
            self.withdrawn = Instant::now();
        }
    }

    pub(super) fn seen(&self) -> Option<KeeperObservation> {
        self.user.clone().map(|user| KeeperObservation {
            user,
            alone: self.withdrawn.elapsed() >= LENGTH,
        })
    }
}

impl ShardTask {
    /// `Keep`.
    pub(super) async fn keep(&mut self, command: AgentCommand) -> Result<(), AgentRefusal> {
        let AgentCommand::Keep {
            generation,
            run_id,
            epoch,
            user,
            password,
            ..
        } = command
        else {
            return not_yet("it is no order about promises");
        };
        self.check_order(generation, &run_id)?;
        self.check_epoch(epoch)?;
        self.ask_loaded(&run_id).await?;
        match self.agreed_role() {
            Some(role) if role.epoch == epoch => {}
            _ => return not_yet(format!("it has no role in epoch {epoch}")),
        }
        if self.hears_nobody() {
            return not_yet("it does not hear its primary");
        }
        self.end_promises(Some(&user)).await?;
        self.command(&keeper(&user, &password)).await?;
        self.keeper.user = Some(user);
        Ok(())
    }

    /// Before a promotion: no promise is given any more, and if those that were given may be relied on,
    /// they are over.
    pub(super) async fn withdraw_promises(&mut self, wait: bool) -> Result<(), AgentRefusal> {
        self.end_promises(None).await?;
        if wait {
            sleep_until(self.keeper.withdrawn + LENGTH).await;
        }
        Ok(())
    }

    /// A replica that does not hear its primary promises nothing.
    pub(super) async fn doubt_promises(&mut self) -> Result<(), AgentRefusal> {
        if self.keeper.user.is_some() && self.hears_nobody() {
            self.end_promises(None).await?;
        }
        Ok(())
    }

    fn hears_nobody(&self) -> bool {
        let info = self.info.as_ref();
        let is_replica = self
            .agreed_role()
            .is_none_or(|role| role.role == Role::Replica);
        is_replica && info.is_none_or(|info| !info.replication.link_up)
    }

    /// Takes all users away that get promises, but one.
    async fn end_promises(&mut self, but: Option<&str>) -> Result<(), AgentRefusal> {
        let client = self
            .connected(COMMAND_PATIENCE)
            .await
            .map_err(AgentRefusal::failed)?;
        let users = client.list(&["ACL", "USERS"], COMMAND_PATIENCE).await;
        let users = users.map_err(AgentRefusal::failed)?;
        for user in users {
            if user.starts_with(KEEPER) && Some(user.as_str()) != but {
                self.command(&["ACL", "DELUSER", &user]).await?;
                self.keeper.withdrawn = Instant::now();
            }
        }
        if self.keeper.user.as_deref() != but {
            self.keeper.user = None;
        }
        Ok(())
    }
}
