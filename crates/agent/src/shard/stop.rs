//! Stopping an engine, fencing one off, and removing a shard.

use super::{COMMAND_PATIENCE, ShardTask, blocking, stale};
use crate::engine_client::EngineError;
use crate::ledger::{DataSource, Intent};
use model::command::AgentRefusal;
use model::{Generation, OperationUid};
use rustix::process::Signal;
use std::time::Duration;
use tokio::time::Instant;

/// How long an engine may take after SIGTERM, when it refused or ignored `SHUTDOWN`.
const TERM_PATIENCE: Duration = Duration::from_secs(2);
/// How long to wait before an engine that refused `SHUTDOWN` is told again.
const SHUTDOWN_AGAIN: Duration = Duration::from_millis(200);
/// How long the kernel may take to end a killed process.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

impl ShardTask {
    /// Stops the engine, its data saved as its persistence says; kills it when that takes longer
    /// than `patience`, and says why.
    pub(super) async fn stop_engine(
        &mut self,
        patience: Duration,
    ) -> Result<Option<String>, AgentRefusal> {
        if self.engine.is_none() {
            // One that cannot be looked at cannot be told to end.
            return Ok(self.doubt.as_ref().map(ToString::to_string));
        }
        self.record(|ledger| ledger.intent = Intent::Stop).await?;
        let deadline = Instant::now() + patience;
        let mut refusal = self.order_shutdown().await;
        // A slow script or a full disk may pass; an engine that was not told to end is not killed
        // before its time is over.
        while refusal.is_some() && Instant::now() < deadline {
            let gone = match &self.engine {
                Some(engine) => engine.ends_within(SHUTDOWN_AGAIN).await,
                None => true,
            };
            refusal = if gone {
                None
            } else {
                self.order_shutdown().await
            };
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let trouble = self.end(left, patience, refusal).await?;
        self.record(|ledger| {
            ledger.intent = Intent::Nothing;
            ledger.process = None;
        })
        .await?;
        Ok(trouble)
    }

    /// `SHUTDOWN`; what the engine said against it.
    async fn order_shutdown(&mut self) -> Option<String> {
        let loads_from = self
            .ledger
            .as_ref()
            .map(|l| l.loads_from)
            .unwrap_or_default();
        let save = if loads_from == DataSource::Snapshot {
            "SAVE"
        } else {
            "NOSAVE"
        };
        if loads_from == DataSource::Snapshot {
            // A change to the append-only file may not be complete: the engine would refuse to end
            // before it is.
            let _ = self.command(&["CONFIG", "SET", "appendonly", "no"]).await;
        }
        let client = match self.connected(COMMAND_PATIENCE).await {
            Ok(client) => client,
            Err(error) => return Some(error.to_string()),
        };
        // Saving may take long: then there is no answer, but an end.
        match client
            .call(&["SHUTDOWN", save], Duration::from_millis(200))
            .await
        {
            Ok(_) | Err(EngineError::Silent(_) | EngineError::Lost(_)) => None,
            Err(error @ EngineError::Refused(_)) => Some(error.to_string()),
        }
    }

    /// Waits for its end, then sees to it.
    async fn end(
        &mut self,
        left: Duration,
        patience: Duration,
        refusal: Option<String>,
    ) -> Result<Option<String>, AgentRefusal> {
        let Some(engine) = &self.engine else {
            return Ok(None);
        };
        if refusal.is_none() && engine.ends_within(left).await {
            self.bury();
            return Ok(None);
        }
        let mut trouble = refusal
            .unwrap_or_else(|| format!("it did not end within {} s", patience.as_secs_f32()));
        engine.signal(Signal::TERM);
        if !engine.ends_within(TERM_PATIENCE).await {
            trouble.push_str("; it was killed");
            engine.kill_group();
            if !engine.ends_within(KILL_PATIENCE).await {
                return Err(AgentRefusal::failed(format!(
                    "process {} does not die: {trouble}",
                    engine.pid()
                )));
            }
        }
        self.bury();
        tracing::warn!("shard {}: {trouble}", self.shard);
        Ok(Some(trouble))
    }

    /// `KillEngine`: when it is answered, neither this process nor a child of it lives. The epoch stays in
    /// the ledger: the next process is primary of a later one or none.
    pub(super) async fn kill_engine(
        &mut self,
        generation: Generation,
        run_id: &str,
    ) -> Result<(), AgentRefusal> {
        let Some(ledger) = &self.ledger else {
            return Ok(());
        };
        let known = ledger.spec.generation;
        if generation < known {
            return stale(format!(
                "generation {known} is known, {generation} was ordered"
            ));
        }
        let recorded = ledger.process.as_ref();
        let runs = recorded.and_then(|process| process.run_id.as_deref());
        if runs != Some(run_id) {
            // The one that was meant left the folder to its successor, or to nobody.
            return Ok(());
        }
        if let Some(engine) = &self.engine {
            engine.kill_group();
            if !engine.ends_within(KILL_PATIENCE).await {
                let pid = engine.pid();
                return Err(AgentRefusal::failed(format!("process {pid} does not die")));
            }
            self.bury();
            self.error = Some(format!("process {run_id} was ended by order"));
        }
        // Also what was not recognised as this engine, and its children.
        drop(self.clear_folder().await?);
        self.record(|ledger| {
            ledger.process = None;
            ledger.intent = Intent::Nothing;
        })
        .await
    }

    /// `RemoveEngine`.
    pub(super) async fn remove(
        &mut self,
        generation: Generation,
        operation: OperationUid,
    ) -> Result<(), AgentRefusal> {
        let known = self.ledger.as_ref().map(|ledger| ledger.spec.generation);
        if known.is_some_and(|known| generation < known) {
            return stale(format!(
                "generation {} is known, the removal of {generation} was ordered",
                known.unwrap_or_default()
            ));
        }
        if self.ledger.is_some() {
            let operation = operation.clone();
            self.record(|ledger| ledger.intent = Intent::Remove { operation })
                .await?;
        }
        self.finish_removal(generation, &operation).await
    }

    /// The rest of a removal that the ledger knows of; also after a crash.
    pub(super) async fn finish_removal(
        &mut self,
        generation: Generation,
        operation: &OperationUid,
    ) -> Result<(), AgentRefusal> {
        let (shared, shard, uid) = (self.shared.clone(), self.shard, operation.clone());
        blocking(move || shared.tombstones.add(shard, generation, uid))
            .await
            .map_err(AgentRefusal::failed)?;
        if let Some(engine) = &self.engine {
            // Its data go: nothing is worth waiting for.
            engine.kill_group();
            if !engine.ends_within(KILL_PATIENCE).await {
                let pid = engine.pid();
                return Err(AgentRefusal::failed(format!("process {pid} does not die")));
            }
            self.bury();
        }
        if self.folder.path().is_dir() {
            let lock = self.clear_folder().await?;
            let folder = self.folder.clone();
            blocking(move || {
                let deleted = folder.delete();
                drop(lock);
                deleted
            })
            .await
            .map_err(|error| {
                let path = self.folder.path().display();
                AgentRefusal::failed(format!("deleting {path}: {error}"))
            })?;
        }
        // The engine that made it was killed.
        let _ = std::fs::remove_file(self.shared.config.node.shard_socket(self.shard));
        tracing::info!("shard {}: removed by operation {operation}", self.shard);
        self.ledger = None;
        self.shared.publish(self.shard, None);
        Ok(())
    }
}
