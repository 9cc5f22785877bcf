//! Asking the engine how it is.

use super::follow::follows;
use super::{COMMAND_PATIENCE, PROBE_PATIENCE, ShardTask, Unanswered, not_yet};
use crate::engine_client::{EngineClient, EngineError};
use crate::engine_info::{EngineInfo, is_at_rest};
use crate::engine_process::ProcessStat;
use crate::engine_users::AGENT;
use crate::ledger::{Intent, RoleRecord};
use model::command::AgentRefusal;
use model::documents::{Role, proxy_user};
use model::observation::{EngineStall, EngineState, StallKind};
use model::own_words::INFO;
use std::io;
use std::time::Duration;
use tokio::time::Instant;

impl ShardTask {
    /// Once a second: how is it, and is something left to do?
    pub(super) async fn probe(&mut self) {
        if self.engine.is_none() {
            return;
        }
        let asked = Unanswered {
            since: Instant::now(),
            cpu: self.process_stat().map(|stat| stat.cpu_ticks),
            questions: 0,
        };
        match self.ask(PROBE_PATIENCE).await {
            Ok(info) => {
                if let Err(refusal) = self.heard_from(info).await {
                    self.error = Some(refusal.to_string());
                } else if self.state == EngineState::Running {
                    self.settle_persistence().await;
                    self.fill_holes().await;
                    self.finish().await;
                }
            }
            Err(error) if error.is_busy() => {
                self.note_answer();
                self.state = EngineState::Running;
                self.stalls(StallKind::Busy, self.well.elapsed());
                self.error = Some(format!(
                    "it runs a script or function that is slow: {error}"
                ));
            }
            Err(error) => self.not_heard(asked, &error),
        }
    }

    /// Its `INFO`. Does not judge.
    pub(super) async fn ask(&mut self, patience: Duration) -> Result<EngineInfo, EngineError> {
        let client = self.connected(patience).await?;
        Ok(EngineInfo::parse(&client.text(&[INFO], patience).await?))
    }

    /// The connection; a new one if there is none.
    pub(super) async fn connected(
        &mut self,
        patience: Duration,
    ) -> Result<&mut EngineClient, EngineError> {
        if self.client.as_ref().is_some_and(EngineClient::is_lost) {
            self.client = None;
        }
        if self.client.is_none() {
            let ledger = self.ledger.as_ref().filter(|_| self.engine.is_some());
            let none = || EngineError::Lost(io::ErrorKind::NotConnected.into());
            let password = &ledger.ok_or_else(none)?.spec.users.cnm;
            let socket = self.shared.config.node.shard_socket(self.shard);
            self.client = Some(EngineClient::connect(&socket, AGENT, password, patience).await?);
        }
        self.client
            .as_mut()
            .ok_or_else(|| EngineError::Lost(io::ErrorKind::NotConnected.into()))
    }

    /// Takes in what it said. Writes down its run id when it is heard for the first time, and asks
    /// it about the role that the ledger gives it.
    pub(super) async fn heard_from(&mut self, info: EngineInfo) -> Result<(), AgentRefusal> {
        let pid = self
            .engine
            .as_ref()
            .map(crate::engine_process::EngineProcess::pid);
        let recorded = self
            .ledger
            .as_ref()
            .and_then(|ledger| ledger.process.clone());
        let (Some(pid), Some(recorded)) = (pid, recorded) else {
            return not_yet("it is gone");
        };
        let known = recorded.run_id.as_deref();
        if info.process_id != pid || known.is_some_and(|known| known != info.run_id) {
            self.client = None;
            self.role_confirmed = false;
            self.state = EngineState::Failed;
            return Err(AgentRefusal::failed(format!(
                "process {} with run id {} answers on its socket, {pid} with {} was expected",
                info.process_id,
                info.run_id,
                known.unwrap_or("any"),
            )));
        }
        if known.is_none() {
            let run_id = info.run_id.clone();
            self.record(|ledger| {
                if let Some(process) = &mut ledger.process {
                    process.run_id = Some(run_id);
                }
                if matches!(ledger.intent, Intent::Start { .. }) {
                    ledger.intent = Intent::Nothing;
                }
            })
            .await?;
        }
        self.note_answer();
        if info.loading {
            self.state = EngineState::Loading;
            self.stalls(StallKind::Loading, self.well.elapsed());
        } else {
            self.state = EngineState::Running;
            self.well = Instant::now();
            self.stall = None;
            self.ran = true;
            self.failures = None;
            self.load_failures = 0;
        }
        self.error = None;
        self.info = Some(info);
        self.confirm_role().await
    }

    /// The role that the ledger gives this process, if the engine agrees.
    pub(super) fn agreed_role(&self) -> Option<&RoleRecord> {
        let info = self.info.as_ref()?;
        let role = self.ledger.as_ref()?.role.as_ref()?;
        let agrees = match role.role {
            Role::Primary => self.role_confirmed && info.is_primary(),
            Role::Replica => {
                role.primary.is_some_and(|primary| follows(info, primary))
                    && is_at_rest(&info.replication)
            }
        };
        (agrees && role.run_id == info.run_id).then_some(role)
    }

    /// After an adoption the ledger alone is not believed: the engine must say that it is a
    /// primary and have the user of that epoch.
    async fn confirm_role(&mut self) -> Result<(), AgentRefusal> {
        let (Some(info), Some(ledger)) = (&self.info, &self.ledger) else {
            return Ok(());
        };
        let Some(role) = ledger
            .role
            .as_ref()
            .filter(|role| role.run_id == info.run_id && role.role == Role::Primary)
        else {
            return Ok(());
        };
        if self.role_confirmed {
            if !info.is_primary() && ledger.prepared <= role.epoch {
                self.error = Some(format!(
                    "it was made primary of epoch {}, but calls itself a replica",
                    role.epoch
                ));
            }
            return Ok(());
        }
        if info.loading || !info.is_primary() {
            return Ok(());
        }
        let wanted = proxy_user(role.epoch);
        let client = self
            .connected(COMMAND_PATIENCE)
            .await
            .map_err(AgentRefusal::failed)?;
        let users = client.list(&["ACL", "USERS"], COMMAND_PATIENCE).await;
        let users = users.map_err(AgentRefusal::failed)?;
        self.role_confirmed = users.contains(&wanted);
        Ok(())
    }

    /// What is left to do after an order, once it is answered, and after each good probe.
    pub(super) async fn finish(&mut self) {
        if self.engine.is_none() || self.state != EngineState::Running {
            return;
        }
        let mut result = self.resolve_hand_over().await;
        if result.is_ok() {
            result = self.doubt_promises().await;
        }
        if result.is_ok() {
            result = self.dismiss_users().await;
        }
        if let Err(refusal) = result {
            tracing::warn!("shard {}: {refusal}", self.shard);
            self.error = Some(refusal.to_string());
        }
    }

    /// Whether its links are looked at ten times a second: those of a replica that is not synced, of a
    /// primary with replicas, and of one whose role moves. The controller waits for them.
    pub(super) fn is_watched(&self) -> bool {
        let running = matches!(self.state, EngineState::Running | EngineState::Loading);
        let Some(info) = self
            .info
            .as_ref()
            .filter(|_| running && self.engine.is_some())
        else {
            return false;
        };
        let replication = &info.replication;
        let follows_somebody = self
            .ledger
            .as_ref()
            .and_then(|ledger| ledger.role.as_ref())
            .is_some_and(|role| role.role == Role::Replica && role.run_id == info.run_id);
        if replication.is_primary {
            !replication.replicas.is_empty() || !is_at_rest(replication)
        } else {
            !is_at_rest(replication)
                || (follows_somebody && (!replication.link_up || replication.sync_in_progress))
        }
    }

    /// Whether it is a replica that hears its primary.
    pub(super) fn is_linked(&self) -> bool {
        let running = self.state == EngineState::Running && self.engine.is_some();
        let info = self.info.as_ref().filter(|_| running);
        info.is_some_and(|info| !info.replication.is_primary && info.replication.link_up)
    }

    /// Looks at its links only. A failure is the probe's business.
    pub(super) async fn look_at_links(&mut self) {
        if self.look(PROBE_PATIENCE).await.is_err() {
            return;
        }
        self.note_answer();
        let mut result = self.resolve_hand_over().await;
        if result.is_ok() {
            result = self.doubt_promises().await;
        }
        if let Err(refusal) = result {
            tracing::warn!("shard {}: {refusal}", self.shard);
        }
    }

    fn note_answer(&mut self) {
        self.heard = Instant::now();
        self.answered = true;
        self.unanswered = None;
        let is_silent = |stall: &EngineStall| stall.kind == StallKind::Silent;
        if self.stall.as_ref().is_some_and(is_silent) {
            self.stall = None;
        }
    }

    /// It did not answer. For a while that means nothing; then it says what the process does, so
    /// that a busy engine is not taken for a dead one.
    fn not_heard(&mut self, asked: Unanswered, error: &EngineError) {
        let stat = self.process_stat();
        let unanswered = self.unanswered.get_or_insert(asked);
        match error {
            EngineError::Silent(_) => unanswered.questions = unanswered.questions.saturating_add(1),
            // That is an answer, if none to what was asked.
            EngineError::Refused(_) => unanswered.questions = 0,
            // Not the engine, but the way to it.
            EngineError::Lost(_) => {}
        }
        let unanswered = *unanswered;
        if unanswered.questions > 0 {
            self.stalls(StallKind::Silent, unanswered.since.elapsed());
        }
        let silent = self.heard.elapsed();
        if silent < self.shared.config.unresponsive_after {
            return;
        }
        let doing = stat.map_or_else(
            || "its process is gone".to_owned(),
            |stat| {
                let ticks = stat.cpu_ticks.saturating_sub(unanswered.cpu.unwrap_or(0));
                format!(
                    "process state {}, {ticks} clock ticks of CPU used meanwhile",
                    stat.state
                )
            },
        );
        self.state = EngineState::Unresponsive;
        self.error = Some(format!(
            "no answer for {} s: {error}; {doing}",
            silent.as_secs()
        ));
    }

    /// It has not served for this long.
    fn stalls(&mut self, kind: StallKind, long: Duration) {
        let stat = self.process_stat();
        let used = |then: u64| Some(stat?.cpu_ticks.saturating_sub(then));
        self.stall = Some(EngineStall {
            kind,
            milliseconds: u64::try_from(long.as_millis()).unwrap_or(u64::MAX),
            questions: self.unanswered.map_or(0, |unanswered| unanswered.questions),
            process_state: stat.map(|stat| stat.state),
            cpu_ticks: self
                .unanswered
                .and_then(|unanswered| unanswered.cpu)
                .and_then(used),
        });
    }

    fn process_stat(&self) -> Option<ProcessStat> {
        ProcessStat::of(self.engine.as_ref()?.pid())
    }
}
