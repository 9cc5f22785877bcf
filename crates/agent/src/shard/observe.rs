//! The shard as it is shown.

use super::ShardTask;
use crate::engine_process::EngineProcess;
use jiff::Timestamp;
use model::observation::{EngineState, ShardObservation};
use model::release::EngineId;
use model::{DatabaseUid, Generation};

impl ShardTask {
    pub(super) fn publish(&self) {
        if self.ledger.is_some() || self.broken.is_some() {
            self.shared.publish(self.shard, self.observation());
        }
    }

    /// The shard as it is shown; `None` when nothing was started here.
    pub(super) fn observation(&self) -> Option<ShardObservation> {
        let Some(ledger) = &self.ledger else {
            return self.broken.as_ref().and_then(|_| self.unknown());
        };
        let process = ledger.process.as_ref().filter(|_| self.engine.is_some());
        let info = self.info.clone().unwrap_or_default();
        let role = self.agreed_role();
        let answers = matches!(self.state, EngineState::Running | EngineState::Loading);
        Some(ShardObservation {
            shard: self.shard,
            database: ledger.spec.database,
            generation: process.map_or(ledger.spec.generation, |process| process.generation),
            state: self.shown_state(),
            role: role.map(|record| record.role),
            epoch: role.map(|record| record.epoch),
            pid: self.engine.as_ref().map(EngineProcess::pid),
            run_id: process.and_then(|process| process.run_id.clone()),
            engine: process
                .map_or(&ledger.spec.engine, |process| &process.engine)
                .clone(),
            used_memory: info.used_memory,
            fragmentation: info.fragmentation,
            keys: info.keys,
            connections: info.connections,
            loading_percent: if info.loading {
                info.loading_percent
            } else {
                0.0
            },
            error: self.error.clone(),
            replication: self
                .info
                .as_ref()
                .filter(|_| answers && process.is_some())
                .map(|info| info.replication.clone()),
            keeper: self.keeper.seen(),
            data_written: self.data_written(),
            stall: self.stall.clone(),
            refuses_writes: self.refuses_writes().filter(|_| answers),
            files_pending: self.engine.is_some() && self.files_pending(),
            load_failures: self.load_failures,
            set_aside: ledger.set_aside,
        })
    }

    /// See [`ShardObservation::data_written`].
    fn data_written(&self) -> Option<Timestamp> {
        let ledger = self.ledger.as_ref()?;
        let (process, loaded) = (ledger.process.as_ref()?, ledger.loaded.as_ref()?);
        let given = ledger.role.as_ref().map(|role| role.run_id.as_str());
        let same = given == Some(loaded.by.as_str()) && process.run_id.as_deref() != given;
        (same && self.engine.is_some()).then_some(loaded.written)
    }

    /// What is gone for sure is told from what may be there: the controller replaces only the former at once.
    fn shown_state(&self) -> EngineState {
        if self.doubt.is_some() {
            EngineState::Unresponsive
        } else {
            self.state
        }
    }

    /// The engine that runs, as it was started.
    pub(super) fn running_engine(&self) -> Option<EngineId> {
        let process = self.ledger.as_ref()?.process.as_ref()?;
        self.engine.as_ref().map(|_| process.engine.clone())
    }

    /// A shard of which nothing is known but its folder's name.
    fn unknown(&self) -> Option<ShardObservation> {
        let newest = self
            .shared
            .catalogue
            .engines()
            .last()
            .map(|engine| engine.id.clone());
        Some(ShardObservation {
            shard: self.shard,
            database: DatabaseUid(0),
            generation: Generation(0),
            state: self.shown_state(),
            role: None,
            epoch: None,
            pid: None,
            run_id: None,
            engine: newest.or_else(|| "valkey-0.0.0".parse::<EngineId>().ok())?,
            used_memory: 0,
            fragmentation: 0.0,
            keys: 0,
            connections: 0,
            loading_percent: 0.0,
            error: self.broken.clone(),
            replication: None,
            keeper: None,
            data_written: None,
            stall: None,
            files_pending: false,
            refuses_writes: None,
            load_failures: 0,
            set_aside: None,
        })
    }
}
