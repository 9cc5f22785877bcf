//! Limits and policies of a running engine, and changes of its persistence.
//!
//! Where the data are (`loads_from` in the ledger) changes only when the new files are complete;
//! until then a restart loads the old ones.

use super::{COMMAND_PATIENCE, PROBE_PATIENCE, ShardTask, not_yet};
use crate::engine_config::{self, DataPlan, live_settings, source_of};
use crate::engine_users::{AGENT, password_rule, replication_user};
use crate::ledger::DataSource;
use model::Generation;
use model::command::{AgentRefusal, EngineSettings, EngineSpec};
use model::observation::EngineState;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long an order waits for a change of persistence to be complete.
const SETTLE_PATIENCE: Duration = Duration::from_secs(10);

impl ShardTask {
    /// `Configure`.
    pub(super) async fn configure(
        &mut self,
        generation: Generation,
        settings: EngineSettings,
    ) -> Result<(), AgentRefusal> {
        let known = self.check_description(generation)?.clone();
        if self.engine.is_none() || !self.answered {
            return not_yet("the engine does not run");
        }
        let spec = EngineSpec { settings, ..known };
        self.adjust(spec).await?;
        self.wait_until_settled().await
    }

    /// Brings the running process to a description that needs no other process.
    pub(super) async fn adjust(&mut self, spec: EngineSpec) -> Result<(), AgentRefusal> {
        let Some(ledger) = &self.ledger else {
            return not_yet("it was never started here");
        };
        let half_done = ledger.unapplied;
        if ledger.spec == spec && !half_done {
            return Ok(());
        }
        if ledger.spec.settings == spec.settings && ledger.spec.users == spec.users && !half_done {
            // Nothing but its number: no need to speak to the engine.
            return self.record_generation(spec).await;
        }
        if !self.answered {
            return not_yet("the engine does not answer yet");
        }
        let password = password_rule(&spec.users.cnm);
        if ledger.spec.users.cnm != spec.users.cnm {
            // Both are good until the ledger has the new one, so that we never lock ourselves out.
            self.command(&["ACL", "SETUSER", AGENT, &password]).await?;
        }
        let disabled = source_of(spec.settings.persistence) == DataSource::Nothing;
        let wanted = spec.clone();
        self.record(|ledger| {
            ledger.spec = wanted;
            ledger.unapplied = true;
            if disabled {
                ledger.loads_from = DataSource::Nothing;
            }
        })
        .await?;
        self.apply(&spec, &password).await?;
        self.rewrite_files(&spec).await?;
        self.record_generation(spec).await
    }

    async fn record_generation(&mut self, spec: EngineSpec) -> Result<(), AgentRefusal> {
        self.record(|ledger| {
            if let Some(process) = &mut ledger.process {
                process.generation = spec.generation;
            }
            ledger.spec = spec;
            ledger.unapplied = false;
        })
        .await
    }

    async fn apply(&mut self, spec: &EngineSpec, password: &str) -> Result<(), AgentRefusal> {
        self.snapshot_asked = false;
        self.command(&["ACL", "SETUSER", AGENT, "resetpass", password])
            .await?;
        self.command(&["CONFIG", "SET", "masterauth", spec.users.repl.expose()])
            .await?;
        if self.role_confirmed {
            self.command(&replication_user(&spec.users)).await?;
        }
        for (name, value) in live_settings(&spec.settings) {
            self.command(&["CONFIG", "SET", name, &value]).await?;
        }
        if source_of(spec.settings.persistence) == DataSource::Nothing {
            self.command(&["CONFIG", "SET", "appendonly", "no"]).await?;
        }
        Ok(())
    }

    /// So that the files in the folder say what runs; the next start writes them anew.
    async fn rewrite_files(&self, spec: &EngineSpec) -> Result<(), AgentRefusal> {
        let holds = self
            .ledger
            .as_ref()
            .map(|ledger| ledger.loads_from)
            .unwrap_or_default();
        let plan = DataPlan::new(spec.settings.persistence, holds);
        let (folder, shared, spec) = (self.folder.clone(), self.shared.clone(), spec.clone());
        super::blocking(move || {
            engine_config::write_files(&folder, &shared.config.node, &spec, plan)
        })
        .await
        .map_err(AgentRefusal::failed)
    }

    /// Where the data are, and where they are wanted; `None` when that is the same.
    fn unsettled(&self) -> Option<(DataSource, DataSource)> {
        let ledger = self.ledger.as_ref()?;
        let wanted = source_of(ledger.spec.settings.persistence);
        (ledger.loads_from != wanted).then_some((ledger.loads_from, wanted))
    }

    /// See [`model::observation::ShardObservation::files_pending`].
    pub(super) fn files_pending(&self) -> bool {
        let unsettled = self.unsettled();
        unsettled.is_some_and(|(_, wanted)| wanted != DataSource::Nothing)
    }

    async fn wait_until_settled(&mut self) -> Result<(), AgentRefusal> {
        let deadline = Instant::now() + SETTLE_PATIENCE;
        while self.unsettled().is_some() {
            if Instant::now() > deadline || self.state != EngineState::Running {
                return not_yet(self.error.clone().unwrap_or_else(|| {
                    "the settings are in force; the files of the new persistence are still being \
                     written"
                        .to_owned()
                }));
            }
            // Without a role it can write no snapshot; it will when it has one.
            if !self.role_confirmed && self.snapshot_asked_in_vain() {
                return Ok(());
            }
            self.probe().await;
            if self.unsettled().is_some() {
                sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    fn snapshot_asked_in_vain(&self) -> bool {
        matches!(self.unsettled(), Some((_, DataSource::Snapshot))) && !self.snapshot_asked
    }

    /// Takes the next step of a change of persistence. Called after each good probe.
    pub(super) async fn settle_persistence(&mut self) {
        let result = match self.unsettled() {
            None => self.leave_append_only().await,
            Some((_, DataSource::Nothing)) => return,
            Some((_, DataSource::AppendOnlyFile)) => self.settle_append_only().await,
            Some((_, DataSource::Snapshot)) => self.settle_snapshot().await,
        };
        if let Err(refusal) = result {
            self.error = Some(format!("changing its persistence: {refusal}"));
        }
    }

    /// `appendonly yes` writes the whole file in a child; only then it holds the data.
    async fn settle_append_only(&mut self) -> Result<(), AgentRefusal> {
        let Some(info) = &self.info else {
            return Ok(());
        };
        if !info.append_only {
            return self.command(&["CONFIG", "SET", "appendonly", "yes"]).await;
        }
        if info.rewriting {
            return Ok(());
        }
        if info.rewrite_ok {
            return self
                .record(|l| l.loads_from = DataSource::AppendOnlyFile)
                .await;
        }
        // From 7.0 on the engine tries again by itself; 6.2 does so too, but says nothing of it.
        Err(AgentRefusal::failed(
            "the engine could not write its append-only file; see its log",
        ))
    }

    async fn settle_snapshot(&mut self) -> Result<(), AgentRefusal> {
        let Some(info) = self.info.clone() else {
            return Ok(());
        };
        if info.saving {
            return Ok(());
        }
        if !self.snapshot_asked {
            let client = self
                .connected(COMMAND_PATIENCE)
                .await
                .map_err(AgentRefusal::failed)?;
            // SCHEDULE: after an append-only rewrite, if one is under way.
            return match client.call(&["BGSAVE", "SCHEDULE"], PROBE_PATIENCE).await {
                Ok(_) => {
                    self.snapshot_asked = true;
                    Ok(())
                }
                Err(error) if error.is_for_want_of_a_role() => Ok(()),
                Err(error) => Err(AgentRefusal::failed(error)),
            };
        }
        if info.rewriting {
            return Ok(());
        }
        if !info.save_ok {
            self.snapshot_asked = false;
            return Err(AgentRefusal::failed(
                "the engine could not write its snapshot; see its log",
            ));
        }
        self.record(|ledger| ledger.loads_from = DataSource::Snapshot)
            .await?;
        self.snapshot_asked = false;
        self.command(&["CONFIG", "SET", "appendonly", "no"]).await
    }

    /// The ledger says that the data are in the snapshot before the engine is told: whether it was, only the engine
    /// knows. An append-only file that nobody wants would refuse writes when the disk is full.
    async fn leave_append_only(&mut self) -> Result<(), AgentRefusal> {
        let in_snapshot = self
            .ledger
            .as_ref()
            .is_some_and(|ledger| ledger.loads_from == DataSource::Snapshot);
        if !in_snapshot || self.info.as_ref().is_none_or(|info| !info.append_only) {
            return Ok(());
        }
        self.command(&["CONFIG", "SET", "appendonly", "no"]).await
    }
}
