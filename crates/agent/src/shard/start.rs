//! Seeing that the wanted engine runs, and starting it without a role.

use super::{
    COMMAND_PATIENCE, Doubt, Failures, PROBE_PATIENCE, ShardTask, blocking, not_yet, stale,
};
use crate::catalogue::CatalogueEngine;
use crate::engine_config::{self, DataPlan};
use crate::engine_process::{EngineProcess, Launch, ProcessStat, kill_lock_holders};
use crate::ledger::{Intent, Ledger, ProcessRecord};
use jiff::Timestamp;
use model::command::{AgentRefusal, EngineSpec};
use model::limits::SOCKET_PATH_MAX;
use model::observation::EngineState;
use model::secret::Secret;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// How long a started engine may take to answer, loading or not.
const START_PATIENCE: Duration = Duration::from_secs(10);
/// How long what still holds the lock may take to die.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
/// How long an engine may take to save its data when it is restarted.
const RESTART_PATIENCE: Duration = Duration::from_secs(30);
/// The same for one that does not answer anyway.
const HUNG_PATIENCE: Duration = Duration::from_secs(1);
/// Waits after failed starts: this, then doubled each time, up to the other.
const BACKOFF_MIN: Duration = Duration::from_millis(500);
/// Longest of them.
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// How much of the end of a log is looked at, bytes.
const LAST_WORDS: u64 = 16 * 1024;

impl ShardTask {
    /// `EnsureEngine`.
    pub(super) async fn ensure(&mut self, mut spec: EngineSpec) -> Result<(), AgentRefusal> {
        // Comes with the role, changes with each epoch, and is of no use here.
        spec.users.proxy = Secret::default();
        self.check_age(&spec)?;
        if self.engine.is_some() {
            let process = self
                .ledger
                .as_ref()
                .and_then(|ledger| ledger.process.as_ref());
            let fits = process.is_some_and(|p| p.engine == spec.engine && p.port == spec.port);
            let newer = self
                .ledger
                .as_ref()
                .is_some_and(|l| spec.generation > l.spec.generation);
            // A new generation of an engine that hangs can only mean that it is wanted anew.
            if fits && !(newer && self.is_out_of_order()) {
                return self.adjust(spec).await;
            }
        }
        let engine = self
            .shared
            .catalogue
            .find(&spec.engine)
            .map_err(AgentRefusal::failed)?;
        let engine = engine.clone();
        let socket = self.shared.config.node.shard_socket(self.shard);
        if socket.as_os_str().len() > SOCKET_PATH_MAX {
            return Err(AgentRefusal::failed(format!(
                "{} is longer than the {SOCKET_PATH_MAX} bytes that a socket's path may have",
                socket.display()
            )));
        }
        if let Some(Doubt::Unseen(why)) = &self.doubt {
            // It may serve clients.
            return not_yet(why.clone());
        }
        self.check_backoff(&spec)?;
        if self.engine.is_some() {
            let hangs = self.is_out_of_order();
            self.stop_engine(if hangs {
                HUNG_PATIENCE
            } else {
                RESTART_PATIENCE
            })
            .await?;
        }
        let result = self.start(spec.clone(), engine).await;
        if let Err(AgentRefusal::Failed { reason }) = &result {
            self.state = EngineState::Failed;
            self.error = Some(reason.clone());
            self.count_failure();
        }
        result
    }

    fn is_out_of_order(&self) -> bool {
        matches!(self.state, EngineState::Unresponsive | EngineState::Failed)
    }

    fn check_age(&self, spec: &EngineSpec) -> Result<(), AgentRefusal> {
        if let Some((known, operation)) = self.shared.tombstones.of(self.shard)
            && spec.generation <= known
        {
            return stale(format!(
                "shard {} was removed at generation {known} by operation {operation}",
                self.shard
            ));
        }
        let Some(ledger) = &self.ledger else {
            return Ok(());
        };
        if let Intent::Remove { operation } = &ledger.intent {
            return not_yet(format!("it is being removed by operation {operation}"));
        }
        let known = &ledger.spec;
        if spec.generation < known.generation {
            return stale(format!(
                "generation {} is known, {} was ordered",
                known.generation, spec.generation
            ));
        }
        if spec.database != known.database {
            return Err(AgentRefusal::failed(format!(
                "shard {} belongs to database {}, not to {}",
                self.shard, known.database, spec.database
            )));
        }
        let differs = spec.engine != known.engine || spec.port != known.port;
        if spec.generation == known.generation && differs {
            return Err(AgentRefusal::failed(format!(
                "generation {} is {} on port {}: another engine or port needs a new generation",
                known.generation, known.engine, known.port
            )));
        }
        Ok(())
    }

    fn check_backoff(&self, spec: &EngineSpec) -> Result<(), AgentRefusal> {
        let Some(failures) = &self.failures else {
            return Ok(());
        };
        let left = failures.retry_at.saturating_duration_since(Instant::now());
        if left.is_zero() || failures.generation != spec.generation {
            return Ok(());
        }
        let reason = self.error.as_deref().unwrap_or("it does not start");
        not_yet(format!(
            "{reason}; start {} failed, the next one is tried in {:.1} s at the earliest",
            failures.count,
            left.as_secs_f32()
        ))
    }

    /// Takes note that a start failed.
    pub(super) fn count_failure(&mut self) {
        let Some(ledger) = &self.ledger else { return };
        let generation = ledger.spec.generation;
        let before = self
            .failures
            .filter(|failures| failures.generation == generation);
        let count = before.map_or(1, |failures| failures.count.saturating_add(1));
        let wait = BACKOFF_MIN.saturating_mul(1 << count.saturating_sub(1).min(16));
        let retry_at = Instant::now() + wait.min(BACKOFF_MAX);
        self.failures = Some(Failures {
            count,
            generation,
            retry_at,
        });
    }

    async fn start(
        &mut self,
        spec: EngineSpec,
        engine: CatalogueEngine,
    ) -> Result<(), AgentRefusal> {
        let folder = self.folder.clone();
        blocking(move || folder.create()).await.map_err(|error| {
            AgentRefusal::failed(format!("{}: {error}", self.folder.path().display()))
        })?;
        let lock = self.clear_folder().await?;
        // First the ledger: what is started now is found again after a crash, by the lock.
        let mut ledger = self
            .ledger
            .clone()
            .unwrap_or_else(|| Ledger::new(spec.clone()));
        ledger.spec = spec.clone();
        ledger.intent = Intent::Start {
            executable: engine.server.clone(),
        };
        ledger.process = None;
        ledger.unapplied = false;
        let plan = DataPlan::new(spec.settings.persistence, ledger.loads_from);
        self.record_whole(ledger).await?;
        let written = self.prepare_files(&spec, plan).await?;
        let log = self.log_path();
        self.log_mark = std::fs::metadata(&log).map_or(0, |metadata| metadata.len());
        let launch = Launch {
            executable: engine.server.clone(),
            library_dir: engine.library_dir.clone(),
            config: self.folder.config_path(),
            folder: self.folder.path().to_path_buf(),
            log,
            lock,
        };
        let pid = blocking(move || launch.start()).await.map_err(|error| {
            AgentRefusal::failed(format!(
                "{} cannot be run: {error}",
                engine.server.display()
            ))
        })?;
        self.take_charge(pid, &spec, &engine, (plan, written))
            .await?;
        self.wait_for_answer(spec.port).await
    }

    /// When the data that will be loaded were written last.
    async fn prepare_files(
        &self,
        spec: &EngineSpec,
        plan: DataPlan,
    ) -> Result<Option<Timestamp>, AgentRefusal> {
        let (folder, shared, spec) = (self.folder.clone(), self.shared.clone(), spec.clone());
        blocking(move || {
            plan.clean(folder.path())?;
            engine_config::write_files(&folder, &shared.config.node, &spec, plan)?;
            // An engine starts whether that is known or not.
            Ok(plan.written(folder.path()).unwrap_or_else(|error| {
                tracing::warn!("shard {}: how old its data are: {error}", folder.shard());
                None
            }))
        })
        .await
        .map_err(|error| {
            AgentRefusal::failed(format!(
                "preparing {}: {error}",
                self.folder.path().display()
            ))
        })
    }

    /// Writes down the process that was just started and looks after it.
    async fn take_charge(
        &mut self,
        pid: u32,
        spec: &EngineSpec,
        engine: &CatalogueEngine,
        (plan, data_written): (DataPlan, Option<Timestamp>),
    ) -> Result<(), AgentRefusal> {
        let process = EngineProcess::open(pid, pid)
            .map_err(|error| AgentRefusal::failed(format!("process {pid}: {error}")))?;
        // It is our child and not reaped, so that it is in /proc even if it has ended.
        let stat = ProcessStat::of(pid)
            .ok_or_else(|| AgentRefusal::failed(format!("process {pid} is gone")))?;
        let record = ProcessRecord {
            pid,
            process_group: pid,
            start_time: stat.start_time,
            boot_id: self.shared.boot_id.clone(),
            executable: engine.server.clone(),
            engine: spec.engine.clone(),
            generation: spec.generation,
            port: spec.port,
            run_id: None,
            started: Timestamp::now(),
        };
        self.state = EngineState::Starting;
        self.error = None;
        self.watch(process);
        let written = self
            .record(|ledger| {
                ledger.process = Some(record);
                ledger.loads_from = plan.loads_from;
                ledger.note_loaded(data_written);
            })
            .await;
        if written.is_err()
            && let Some(engine) = &self.engine
        {
            // An engine that nobody would find again must not stay.
            engine.kill_group();
            engine.ends_within(LOCK_PATIENCE).await;
            self.bury();
        }
        written
    }

    /// Waits until it answers, or ends.
    async fn wait_for_answer(&mut self, port: u16) -> Result<(), AgentRefusal> {
        let deadline = Instant::now() + START_PATIENCE;
        let mut pause = Duration::from_millis(2);
        loop {
            let Some(engine) = &self.engine else {
                return not_yet("the engine is gone");
            };
            if engine.ends_within(pause).await {
                return Err(self.failed_start(port));
            }
            pause = (pause * 2).min(Duration::from_millis(50));
            if let Ok(info) = self.ask(PROBE_PATIENCE).await {
                self.heard_from(info).await?;
                return Ok(());
            }
            if Instant::now() > deadline {
                return not_yet(format!(
                    "the engine was started, but does not answer within {} s",
                    START_PATIENCE.as_secs()
                ));
            }
        }
    }

    fn failed_start(&mut self, port: u16) -> AgentRefusal {
        let how = self
            .bury()
            .map_or_else(String::new, |how| format!(" ({how})"));
        self.note_damage();
        let address = self.shared.config.node.address;
        AgentRefusal::failed(format!(
            "the engine ended at its start on {address}:{port}{how}; its log ends with: {}",
            self.last_words()
        ))
    }

    /// Makes sure that no process of an earlier start has the folder, and takes its lock.
    pub(super) async fn clear_folder(&mut self) -> Result<File, AgentRefusal> {
        let group = self
            .ledger
            .as_ref()
            .and_then(|l| l.process.as_ref())
            .map(|p| p.process_group);
        let deadline = Instant::now() + LOCK_PATIENCE;
        loop {
            let folder = self.folder.clone();
            let lock = blocking(move || {
                let lock = folder.try_lock()?;
                if lock.is_none() {
                    let killed = kill_lock_holders(&folder.lock_path(), group)?;
                    if !killed.is_empty() {
                        tracing::warn!("shard {}: killed {killed:?}", folder.shard());
                    }
                }
                Ok(lock)
            });
            match lock.await {
                Ok(Some(lock)) => {
                    self.doubt = None;
                    return Ok(lock);
                }
                Ok(None) if Instant::now() < deadline => sleep(Duration::from_millis(10)).await,
                Ok(None) => {
                    return Err(AgentRefusal::failed(format!(
                        "{} is still locked {} s after its holders were killed",
                        self.folder.lock_path().display(),
                        LOCK_PATIENCE.as_secs()
                    )));
                }
                Err(error) => {
                    let path = self.folder.lock_path();
                    return Err(AgentRefusal::failed(format!("{}: {error}", path.display())));
                }
            }
        }
    }

    /// Where the engine's output goes.
    pub(super) fn log_path(&self) -> PathBuf {
        self.shared
            .config
            .node
            .log_dir()
            .join(format!("redis-{}.log", self.shard))
    }

    /// What the engine said last, since it was started.
    pub(super) fn last_words(&self) -> String {
        read_last_words(&self.log_path(), self.log_mark)
            .unwrap_or_else(|| "nothing was written".to_owned())
    }

    /// One command to the engine, over a connection that is made if need be.
    pub(super) async fn command<S: AsRef<str>>(&mut self, words: &[S]) -> Result<(), AgentRefusal> {
        self.command_within(words, COMMAND_PATIENCE).await
    }

    /// The same, with another patience.
    pub(super) async fn command_within<S: AsRef<str>>(
        &mut self,
        words: &[S],
        patience: Duration,
    ) -> Result<(), AgentRefusal> {
        let patience = patience.min(COMMAND_PATIENCE);
        let client = self
            .connected(patience)
            .await
            .map_err(AgentRefusal::failed)?;
        match timeout(patience * 2, client.call(words, patience)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => {
                // Never the whole command: it may hold a password's hash.
                let name = words.first().map(AsRef::as_ref).unwrap_or_default();
                let what = words.get(1).map(AsRef::as_ref).unwrap_or_default();
                Err(AgentRefusal::failed(format!("{name} {what}: {error}")))
            }
            Err(_) => not_yet("the engine does not answer"),
        }
    }
}

/// The end of a log, as far as it is after the mark.
pub(super) fn read_end(path: &Path, mark: u64) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    // Rotated meanwhile: all of it is newer.
    let mark = if mark > length { 0 } else { mark };
    file.seek(SeekFrom::Start(mark.max(length.saturating_sub(LAST_WORDS))))
        .ok()?;
    let mut bytes = Vec::new();
    file.take(LAST_WORDS).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The last lines of a log that say something: warnings if there are any, else whatever is last.
fn read_last_words(path: &Path, mark: u64) -> Option<String> {
    let text = read_end(path, mark)?;
    // What it says of the host's settings at each start explains nothing; a line of its
    // configuration may hold a password.
    let advice = |line: &&str| line.contains(" # WARNING") || line.contains("masterauth");
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !advice(line))
        .collect();
    // `pid:role time mark text`, where the mark of a warning is `#`.
    let grave = |line: &&&str| line.contains(" # ") || line.contains("FATAL");
    let warnings: Vec<&str> = lines.iter().filter(grave).copied().collect();
    let is_config = lines
        .iter()
        .any(|line| line.contains("FATAL CONFIG FILE ERROR"));
    let chosen = if warnings.is_empty() || is_config {
        &lines
    } else {
        &warnings
    };
    let from = chosen.len().saturating_sub(3);
    let said = chosen[from..]
        .iter()
        .map(|line| without_stamp(line))
        .collect::<Vec<_>>();
    (!said.is_empty()).then(|| said.join(" | ").chars().take(500).collect())
}

/// A log line without its pid and time.
fn without_stamp(line: &str) -> &str {
    line.split_once(" # ")
        .or_else(|| line.split_once(" * "))
        .map_or(line, |(_, text)| text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn last_words_of_a_log() {
        let mut log = tempfile::NamedTempFile::new().unwrap();
        writeln!(log, "1:M 1 Jan 2026 00:00:00.000 # of the start before").unwrap();
        let mark = log.as_file().metadata().unwrap().len();
        assert_eq!(read_last_words(log.path(), mark), None);
        writeln!(log, "2:C 1 Jan 2026 00:00:00.000 * starting\n").unwrap();
        assert_eq!(
            read_last_words(log.path(), mark).as_deref(),
            Some("starting")
        );
        writeln!(
            log,
            "2:M 1 Jan 2026 00:00:00.000 # Failed listening, aborting."
        )
        .unwrap();
        assert_eq!(
            read_last_words(log.path(), mark).as_deref(),
            Some("Failed listening, aborting.")
        );
        assert_eq!(read_last_words(Path::new("/no/such/file"), 0), None);
    }
}
