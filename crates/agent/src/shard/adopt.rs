//! Finding the engine that lives when the agent starts, and taking note of its end.

use super::retire::Retiring;
use super::{Life, ShardTask, blocking};
use crate::engine_process::{EngineProcess, ProcessStat, executable_of, lock_holders};
use crate::ledger::{Intent, ProcessRecord};
use jiff::Timestamp;
use model::observation::EngineState;
use std::path::Path;
use tokio::time::Instant;

impl ShardTask {
    /// Reads the ledger and adopts the engine that lives, after a start of the agent.
    pub(super) async fn recover(&mut self) -> Life {
        self.broken = None;
        match self.folder.read_ledger() {
            Ok(Some(ledger)) => self.ledger = Some(ledger),
            Ok(None) => {
                self.ledger = None;
                self.shared.publish(self.shard, None);
                return Life::Ends;
            }
            Err(error) => {
                tracing::error!("shard {}: {error}", self.shard);
                self.broken = Some(error.to_string());
                self.state = EngineState::Failed;
                self.error = Some(error.to_string());
                self.publish();
                return Life::GoesOn;
            }
        }
        self.state = EngineState::Stopped;
        self.error = None;
        if let Err(error) = self.adopt().await {
            tracing::warn!("shard {}: {error}", self.shard);
            self.error = Some(error);
        }
        let removal = self
            .ledger
            .as_ref()
            .and_then(|ledger| match &ledger.intent {
                Intent::Remove { operation } => Some((ledger.spec.generation, operation.clone())),
                _ => None,
            });
        if let Some((generation, operation)) = removal {
            tracing::info!("shard {}: going on with its removal", self.shard);
            match self.finish_removal(generation, &operation).await {
                Ok(()) => return Life::Ends,
                Err(refusal) => {
                    self.state = EngineState::Failed;
                    self.error = Some(refusal.to_string());
                }
            }
        }
        if self.engine.is_some() {
            self.probe().await;
        }
        self.publish();
        Life::GoesOn
    }

    /// Looks for the engine that an agent before this one started.
    pub(super) async fn adopt(&mut self) -> Result<(), String> {
        let folder = self.folder.clone();
        let locked = blocking(move || folder.is_locked())
            .await
            .map_err(|e| e.to_string())?;
        if !locked {
            return Ok(());
        }
        let Some(ledger) = &self.ledger else {
            return Ok(());
        };
        let process = match (&ledger.process, &ledger.intent) {
            (Some(record), _) => EngineProcess::adopt(record, &self.shared.boot_id),
            // The agent died between the start and writing it down.
            (None, Intent::Start { executable }) => {
                let record = self.find_unrecorded(executable)?;
                let process = EngineProcess::adopt(&record, &self.shared.boot_id);
                self.record(|ledger| ledger.process = Some(record))
                    .await
                    .map_err(|refusal| refusal.to_string())?;
                process
            }
            (None, _) => Err("its ledger records no process".to_owned()),
        };
        let process = process.map_err(|why| {
            format!(
                "its folder is locked by a process that is not the engine of its ledger ({why}); \
                 it is killed when the engine is next started or removed"
            )
        })?;
        tracing::info!("shard {}: adopted process {}", self.shard, process.pid());
        self.state = EngineState::Starting;
        self.watch(process);
        let recorded = self
            .ledger
            .as_ref()
            .and_then(|ledger| ledger.process.as_ref());
        self.ran = recorded.is_some_and(|process| process.run_id.is_some());
        Ok(())
    }

    /// The engine among the processes that hold the lock: it leads its group and runs the program
    /// that was about to be started.
    pub(super) fn find_unrecorded(&self, executable: &Path) -> Result<ProcessRecord, String> {
        let ledger = self.ledger.as_ref().ok_or("no ledger")?;
        let holders = lock_holders(&self.folder.lock_path()).map_err(|e| e.to_string())?;
        let found = holders.into_iter().find_map(|pid| {
            let stat = ProcessStat::of(pid)?;
            let is_it = stat.group == pid && executable_of(pid).as_deref() == Some(executable);
            is_it.then_some((pid, stat))
        });
        let (pid, stat) = found.ok_or("its folder is locked, but no engine is found")?;
        Ok(ProcessRecord {
            pid,
            process_group: stat.group,
            start_time: stat.start_time,
            boot_id: self.shared.boot_id.clone(),
            executable: executable.to_path_buf(),
            engine: ledger.spec.engine.clone(),
            generation: ledger.spec.generation,
            port: ledger.spec.port,
            run_id: None,
            started: Timestamp::now(),
        })
    }

    /// Looks after this process from now on.
    pub(super) fn watch(&mut self, process: EngineProcess) {
        self.cpu_then = ProcessStat::of(process.pid()).map_or(0, |stat| stat.cpu_ticks);
        self.engine = Some(process);
        self.client = None;
        self.info = None;
        self.answered = false;
        self.ran = false;
        self.role_confirmed = false;
        self.retiring = Some(Retiring::default());
        self.snapshot_asked = false;
        self.heard = Instant::now();
    }

    /// The engine has ended. Says how, if that is known.
    pub(super) fn bury(&mut self) -> Option<String> {
        let how = self.engine.take().and_then(|engine| engine.reap());
        self.client = None;
        self.info = None;
        self.role_confirmed = false;
        self.state = EngineState::Stopped;
        self.error = None;
        how
    }

    /// The engine has ended though nobody asked it to.
    pub(super) fn buried(&mut self) {
        let never_ran = !self.ran;
        self.keeper.lost();
        let how = self
            .bury()
            .map_or_else(String::new, |how| format!(" ({how})"));
        let said = self.last_words();
        self.error = Some(format!(
            "the engine has ended{how}; its log ends with: {said}"
        ));
        if never_ran {
            self.state = EngineState::Failed;
            self.count_failure();
        }
        tracing::warn!(
            "shard {}: {}",
            self.shard,
            self.error.as_deref().unwrap_or_default()
        );
    }
}
