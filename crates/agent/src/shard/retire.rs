//! Users of epochs that are over. They lose the right to write at the change of a role; they are deleted
//! when no connection uses them any more, so that what is still being read or listened to is not cut
//! off in a planned move.

use super::{COMMAND_PATIENCE, ShardTask};
use crate::engine_users::no_writes;
use model::command::AgentRefusal;
use model::documents::Role;
use model::{Epoch, observation::EngineState};
use std::time::Duration;
use tokio::time::Instant;

/// After how long connections of users of the past are cut off.
const GRACE: Duration = Duration::from_secs(60);
/// Up to how many connections of an engine are listed again and again: each costs the engine a few µs.
const LISTED_MAX: u64 = 1_000;

/// What is left to do about users of the past.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Retiring {
    /// When they lost their rights; `None`: that is still to be done.
    since: Option<Instant>,
}

impl ShardTask {
    /// Users whose epoch is over, by the role that ledger and engine agree on.
    async fn past_users(&mut self) -> Result<Vec<String>, AgentRefusal> {
        let Some(role) = self.agreed_role() else {
            return Ok(Vec::new());
        };
        let (epoch, kind) = (role.epoch, role.role);
        // Later ones were made for a move that may be under way. A replica serves nobody.
        let is_past = move |of: Epoch| of < epoch || (kind == Role::Replica && of == epoch);
        self.users_where(is_past).await
    }

    /// Users of the past can write no more. Called at the change; whatever fails is done later.
    pub(super) async fn revoke_past(&mut self) -> Result<(), AgentRefusal> {
        for user in self.past_users().await? {
            self.command(&no_writes(&user)).await?;
        }
        self.retiring = Some(Retiring {
            since: Some(Instant::now()),
        });
        Ok(())
    }

    /// Takes the next step. Called after each good probe.
    pub(super) async fn dismiss_users(&mut self) -> Result<(), AgentRefusal> {
        let Some(retiring) = self.retiring else {
            return Ok(());
        };
        if self.agreed_role().is_none() || self.state != EngineState::Running {
            return Ok(());
        }
        let first = retiring.since.is_none();
        if first {
            self.revoke_past().await?;
        }
        let past = self.past_users().await?;
        if past.is_empty() {
            self.retiring = None;
            return Ok(());
        }
        let over = retiring.since.is_some_and(|since| since.elapsed() > GRACE);
        let many = self
            .info
            .as_ref()
            .is_some_and(|info| info.connections > LISTED_MAX);
        let used = match (over, many) {
            (true, _) => Vec::new(),
            (false, true) => return Ok(()),
            (false, false) => self.connections_of(&past).await?,
        };
        for user in past.iter().filter(|user| !used.contains(user)) {
            self.command(&["ACL", "DELUSER", user]).await?;
        }
        Ok(())
    }

    /// Which of these users have connections.
    async fn connections_of(&mut self, users: &[String]) -> Result<Vec<String>, AgentRefusal> {
        let clients = self.client_list().await?;
        let has = |user: &&String| clients.iter().any(|client| client.user == **user);
        Ok(users.iter().filter(has).cloned().collect())
    }

    /// Up to 7.0 what a client that blocks is given later is not checked against its user's rights any
    /// more: such clients of the past are cut off.
    pub(super) async fn kill_blocked(&mut self) -> Result<(), AgentRefusal> {
        let checks_again = self
            .running_engine()
            .is_some_and(|engine| (engine.version.major, engine.version.minor) >= (7, 2));
        if checks_again {
            return Ok(());
        }
        let past = self.past_users().await?;
        if past.is_empty() {
            return Ok(());
        }
        let clients = self.client_list().await?;
        for client in clients
            .iter()
            .filter(|client| client.blocks && past.contains(&client.user))
        {
            self.command(&["CLIENT", "KILL", "ID", &client.id]).await?;
        }
        Ok(())
    }

    async fn client_list(&mut self) -> Result<Vec<Client>, AgentRefusal> {
        let client = self
            .connected(COMMAND_PATIENCE)
            .await
            .map_err(AgentRefusal::failed)?;
        let text = client
            .text(&["CLIENT", "LIST"], COMMAND_PATIENCE)
            .await
            .map_err(AgentRefusal::failed)?;
        Ok(text.lines().map(Client::parse).collect())
    }
}

/// A line of `CLIENT LIST`.
#[derive(Debug, Default, PartialEq)]
struct Client {
    id: String,
    user: String,
    blocks: bool,
}

impl Client {
    fn parse(line: &str) -> Self {
        let mut client = Self::default();
        for (name, value) in line.split(' ').filter_map(|part| part.split_once('=')) {
            match name {
                "id" => value.clone_into(&mut client.id),
                "user" => value.clone_into(&mut client.user),
                "flags" => client.blocks = value.contains('b'),
                _ => {}
            }
        }
        client
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_client_list() {
        let line = "id=7 addr=/x:0 name= age=1 idle=0 flags=bU db=0 cmd=blpop user=proxy@e3 resp=2";
        let client = Client {
            id: "7".to_owned(),
            user: "proxy@e3".to_owned(),
            blocks: true,
        };
        assert_eq!(Client::parse(line), client);
        assert_eq!(Client::parse(""), Client::default());
    }
}
