//! Finding the engine that lives when the agent starts, and taking note of its end.

use super::retire::Retiring;
use super::{Doubt, Life, ShardTask, blocking};
use crate::engine_process::{
    EngineProcess, NotAdopted, ProcessStat, executable_of, lock_holders, only_children_hold,
};
use crate::ledger::{Intent, ProcessRecord};
use jiff::Timestamp;
use model::observation::EngineState;
use std::io;
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;

/// How long the threads of a killed engine may take to end; if they take longer, it is looked at again a
/// second later.
const LAST_THREADS: Duration = Duration::from_millis(200);

impl ShardTask {
    /// Reads the ledger and adopts the engine that lives, after a start of the agent; again as long as it
    /// is not known whether one does.
    pub(super) async fn recover(&mut self) -> Life {
        self.broken = None;
        self.doubt = None;
        let known = self.error.take();
        let is_news = |error: &str| known.as_deref() != Some(error);
        match self.folder.read_ledger() {
            Ok(Some(ledger)) => self.ledger = Some(ledger),
            Ok(None) => {
                self.ledger = None;
                self.shared.publish(self.shard, None);
                return Life::Ends;
            }
            Err(error) => {
                let mut error = error.to_string();
                self.state = EngineState::Stopped;
                self.doubt = match self.is_locked().await {
                    Ok(false) => None,
                    Ok(true) => Some(Doubt::Unseen("an engine may run in its folder".to_owned())),
                    Err(doubt) => Some(doubt),
                };
                if let Some(doubt) = &self.doubt {
                    error = format!("{error}; {doubt}");
                }
                if is_news(&error) {
                    tracing::error!("shard {}: {error}", self.shard);
                }
                self.broken = Some(error.clone());
                self.error = Some(error);
                self.publish();
                return Life::GoesOn;
            }
        }
        self.state = EngineState::Stopped;
        if let Err(error) = self.adopt().await {
            if is_news(&error) {
                tracing::warn!("shard {}: {error}", self.shard);
            }
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

    /// Whether somebody has the folder's lock: otherwise no engine runs in it.
    async fn is_locked(&self) -> Result<bool, Doubt> {
        let folder = self.folder.clone();
        let locked = blocking(move || folder.is_locked()).await;
        locked.map_err(|error| {
            let path = self.folder.lock_path();
            let path = path.display();
            Doubt::Unseen(format!(
                "whether an engine runs is not known: {path}: {error}"
            ))
        })
    }

    /// Looks for the engine that an agent before this one started.
    ///
    /// # Errors
    /// Why there is none, although the lock is held or cannot be looked at. Whether an engine may run
    /// nevertheless is then in `doubt`.
    async fn adopt(&mut self) -> Result<(), String> {
        match self.is_locked().await {
            Ok(false) => return Ok(()),
            Ok(true) => {}
            Err(doubt) => {
                let why = doubt.to_string();
                self.doubt = Some(doubt);
                return Err(why);
            }
        }
        match self.holder().await {
            Ok(process) => {
                tracing::info!("shard {}: adopted process {}", self.shard, process.pid());
                self.state = EngineState::Starting;
                self.watch(process);
                let recorded = self.recorded_process();
                self.ran = recorded.is_some_and(|process| process.run_id.is_some());
                Ok(())
            }
            Err(NotAdopted::Unseen(why)) => {
                let why = format!("whether its engine runs is not known: {why}");
                self.doubt = Some(Doubt::Unseen(why.clone()));
                Err(why)
            }
            Err(NotAdopted::Other(why)) => {
                if self.is_freed().await {
                    return Ok(());
                }
                let why = format!(
                    "its folder is locked by a process that is not the engine of its ledger ({why}); \
                     it is killed when the engine is next started or removed"
                );
                self.doubt = self.who_holds(&why).await.err();
                Err(why)
            }
        }
    }

    /// The engine that the ledger records, which holds the lock.
    async fn holder(&mut self) -> Result<EngineProcess, NotAdopted> {
        let recorded = self.ledger.as_ref().map(|l| (&l.process, &l.intent));
        match recorded {
            Some((Some(record), _)) => EngineProcess::adopt(record, &self.shared.boot_id),
            // The agent died between the start and writing it down.
            Some((None, Intent::Start { executable })) => {
                let record = self.find_unrecorded(executable)?;
                let process = EngineProcess::adopt(&record, &self.shared.boot_id)?;
                self.record(|ledger| ledger.process = Some(record))
                    .await
                    .map_err(|refusal| NotAdopted::Unseen(refusal.to_string()))?;
                Ok(process)
            }
            _ => Err(NotAdopted::Other(
                "its ledger records no process".to_owned(),
            )),
        }
    }

    /// Whether the folder's lock is given up at once: an engine that was just killed holds it until the
    /// last of its threads has ended, when its first one is a zombie already and shows no descriptors.
    async fn is_freed(&self) -> bool {
        let recorded = self.recorded_process();
        let is_dead = |pid| ProcessStat::of(pid).is_none_or(ProcessStat::is_dead);
        if !recorded.is_some_and(|process| is_dead(process.pid)) {
            return false;
        }
        let freed = async {
            while !matches!(self.is_locked().await, Ok(false)) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(LAST_THREADS, freed).await.is_ok()
    }

    /// Whether the lock's holders are no more than what a dead engine left.
    async fn who_holds(&self, why: &str) -> Result<(), Doubt> {
        let stranger = || Doubt::Stranger(why.to_owned());
        let record = self.recorded_process().cloned().ok_or_else(stranger)?;
        let lock = self.folder.lock_path();
        match blocking(move || only_children_hold(&lock, &record)).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(stranger()),
            Err(error) => Err(Doubt::Unseen(format!("{why}; its holders: {error}"))),
        }
    }

    fn recorded_process(&self) -> Option<&ProcessRecord> {
        self.ledger.as_ref()?.process.as_ref()
    }

    /// The engine among the processes that hold the lock: it leads its group and runs the program
    /// that was about to be started.
    fn find_unrecorded(&self, executable: &Path) -> Result<ProcessRecord, NotAdopted> {
        let unseen = |error: io::Error| NotAdopted::Unseen(error.to_string());
        let other = |why: &str| NotAdopted::Other(why.to_owned());
        let ledger = self.ledger.as_ref().ok_or_else(|| other("no ledger"))?;
        let holders = lock_holders(&self.folder.lock_path()).map_err(unseen)?;
        let found = holders.into_iter().find_map(|pid| {
            let stat = ProcessStat::of(pid)?;
            let is_it = stat.group == pid && executable_of(pid).as_deref() == Some(executable);
            is_it.then_some((pid, stat))
        });
        let (pid, stat) = found.ok_or_else(|| other("no engine is found"))?;
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
        self.engine = Some(process);
        self.doubt = None;
        self.unanswered = None;
        self.stall = None;
        self.client = None;
        self.info = None;
        self.answered = false;
        self.ran = false;
        self.role_confirmed = false;
        self.retiring = Some(Retiring::default());
        self.snapshot_asked = false;
        self.heard = Instant::now();
        self.well = self.heard;
    }

    /// The engine has ended. Says how, if that is known.
    pub(super) fn bury(&mut self) -> Option<String> {
        let how = self.engine.take().and_then(|engine| engine.reap());
        self.keeper.lost();
        self.client = None;
        self.info = None;
        self.role_confirmed = false;
        self.unanswered = None;
        self.stall = None;
        self.state = EngineState::Stopped;
        self.error = None;
        how
    }

    /// The engine has ended though nobody asked it to.
    pub(super) fn buried(&mut self) {
        let never_ran = !self.ran;
        let how = self
            .bury()
            .map_or_else(String::new, |how| format!(" ({how})"));
        let said = self.last_words();
        self.error = Some(format!(
            "the engine has ended{how}; its log ends with: {said}"
        ));
        if never_ran {
            self.state = EngineState::Failed;
            self.note_damage();
            self.count_failure();
        }
        tracing::warn!(
            "shard {}: {}",
            self.shard,
            self.error.as_deref().unwrap_or_default()
        );
    }
}
