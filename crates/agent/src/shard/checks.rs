//! What an order about the running process must satisfy before anything is done.

use super::{COMMAND_PATIENCE, ShardTask, not_yet, stale};
use crate::engine_info::EngineInfo;
use crate::ledger::Intent;
use model::command::{AgentRefusal, EngineSpec};
use model::{Epoch, Generation};

impl ShardTask {
    /// The order means the description that is in force here, and the process that runs.
    pub(super) fn check_order(
        &self,
        generation: Generation,
        run_id: &str,
    ) -> Result<(), AgentRefusal> {
        self.check_description(generation)?;
        if self.engine.is_none() {
            return not_yet("the engine does not run");
        }
        match self.recorded_run_id() {
            Some(running) if running != run_id => {
                stale(format!("process {running} runs, {run_id} was meant"))
            }
            Some(_) => Ok(()),
            None => not_yet("the engine does not answer yet"),
        }
    }

    /// The order means the description that is in force here, which it returns.
    pub(super) fn check_description(
        &self,
        generation: Generation,
    ) -> Result<&EngineSpec, AgentRefusal> {
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
        Ok(&ledger.spec)
    }

    /// The order belongs to no epoch that is over.
    pub(super) fn check_epoch(&self, epoch: Epoch) -> Result<(), AgentRefusal> {
        match &self.ledger {
            Some(ledger) if epoch < ledger.epoch => stale(format!(
                "epoch {} is known, {epoch} was ordered",
                ledger.epoch
            )),
            _ => Ok(()),
        }
    }

    /// The order belongs to no move that was settled.
    pub(super) fn check_unsettled(&self, epoch: Epoch) -> Result<(), AgentRefusal> {
        match &self.ledger {
            Some(ledger) if epoch <= ledger.settled => stale(format!(
                "moves up to epoch {} are settled, one to {epoch} was ordered",
                ledger.settled
            )),
            _ => Ok(()),
        }
    }

    /// What the engine says now; it is the process that was meant and has its data loaded.
    pub(super) async fn ask_loaded(&mut self, run_id: &str) -> Result<EngineInfo, AgentRefusal> {
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
        Ok(info)
    }

    /// The same in less time, if this process has been asked before: clients are waiting.
    pub(super) async fn look_loaded(&mut self, run_id: &str) -> Result<EngineInfo, AgentRefusal> {
        let known = self
            .info
            .as_ref()
            .is_some_and(|info| info.run_id == run_id && !info.loading);
        if known && self.look(COMMAND_PATIENCE).await.is_ok() {
            return self.info.clone().map_or_else(|| not_yet("it is gone"), Ok);
        }
        self.ask_loaded(run_id).await
    }

    /// Asks it once more, after a change.
    pub(super) async fn ask_again(&mut self) -> Result<(), AgentRefusal> {
        let info = self
            .ask(COMMAND_PATIENCE)
            .await
            .map_err(AgentRefusal::failed)?;
        self.heard_from(info).await
    }

    fn recorded_run_id(&self) -> Option<&str> {
        let process = self.ledger.as_ref()?.process.as_ref()?;
        process.run_id.as_deref()
    }
}
