//! Log, vote and snapshot in SQLite: one connection, on a thread of its own.
//!
//! Every write is a transaction that has reached the disk (`synchronous=FULL`) before it is
//! acknowledged; appends that wait together share one. A disk that is full is waited for, as for one that is slow without
//! end ([`room`]). Any other failure to read or write is fatal for the process: the hook of [`StoreConfig`] is called and
//! nothing is done any more.

use crate::config::{FatalHook, StoreConfig};
use crate::error::StoreError;
use crate::raft::{LogEntry, LogId, Types, Vote};
use crate::record::{
    self, ENTRY, LOG_ID, Reader, RecordError, SNAPSHOT_HEADER, STORE, SnapshotHeader, VOTE,
};
use openraft::storage::LogFlushed;
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};

mod room;
mod thread;

pub(crate) use room::Room;

/// So many requests may wait for the disk.
const QUEUE: usize = 256;
/// The name of the database in the store's folder.
const FILE: &str = "store.db";
/// A write that takes longer is logged: elections begin to take longer than usual then.
const LONG: Duration = Duration::from_millis(200);
/// How often a disk that is slow for a test is asked whether it still is.
const SLICE: Duration = Duration::from_millis(20);
/// How long a predecessor that still ends may hold the database.
const BUSY: Duration = Duration::from_secs(3);

/// Why a request to the disk failed.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum DiskError {
    #[error("{0}")]
    Failed(String),
    #[error("the store is closed")]
    Closed,
}

impl From<rusqlite::Error> for DiskError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<RecordError> for DiskError {
    fn from(error: RecordError) -> Self {
        Self::Failed(error.to_string())
    }
}

type Work = Box<dyn FnOnce(&mut Connection) -> Result<(), DiskError> + Send>;

enum Job {
    /// Rows of the log; those that wait together are written together.
    Append {
        rows: Vec<(u64, Vec<u8>)>,
        done: LogFlushed<Types>,
    },
    /// What is committed, to be written when it costs nothing.
    Committed(LogId),
    /// Anything else. Sends its own answer; an error is fatal.
    Work(Work),
    /// Answers when the database is closed.
    Stop(oneshot::Sender<()>),
}

/// The handle of the disk's thread.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    jobs: mpsc::Sender<Job>,
    slow: Slow,
    /// Whether there is room for what is to be written.
    pub(crate) room: Arc<Room>,
    /// The last entry that is in the snapshot on disk.
    snapshot_at: Arc<watch::Sender<SnapshotAt>>,
}

/// See [`Disk::has_snapshot`].
#[derive(Clone, Copy, Debug, PartialEq)]
enum SnapshotAt {
    Index(Option<u64>),
    /// One could not be written: the store ends.
    Failed,
}

/// The fault point: a slow disk. Always so slow, or, in debug builds, for as many milliseconds as a test writes into
/// the file `slow-disk` beside the database.
#[derive(Clone, Debug)]
struct Slow {
    always: Option<Duration>,
    file: Option<PathBuf>,
}

impl Slow {
    fn of(config: &StoreConfig) -> Self {
        Self {
            always: config.sync_delay,
            file: cfg!(debug_assertions).then(|| config.dir.join("slow-disk")),
        }
    }

    /// Writes, and logs if it took long.
    fn write<T>(&self, write: impl FnOnce() -> T) -> T {
        let before = Instant::now();
        let told = || std::fs::read_to_string(self.file.as_ref()?).ok();
        let now = || told()?.parse().ok().map(Duration::from_millis);
        while let Some(delay) = self.always.or_else(now)
            && let Some(rest) = delay.checked_sub(before.elapsed())
        {
            std::thread::sleep(rest.min(SLICE));
        }
        let result = write();
        let took = before.elapsed();
        if took > LONG {
            tracing::warn!(
                ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
                "the disk took long to write the configuration: changes and elections wait for it"
            );
        }
        result
    }
}

impl Disk {
    /// Opens or makes the database and starts its thread. Blocks.
    pub(crate) fn open(config: &StoreConfig) -> Result<Self, StoreError> {
        let connection = open(config)
            .map_err(|error| StoreError::Storage(format!("{}: {error}", config.dir.display())))?;
        let present = snapshot_header(&connection)
            .map_err(|error| StoreError::Storage(format!("{}: {error}", config.dir.display())))?;
        let present = present.and_then(|header| header.meta.last_log_id);
        let snapshot_at = watch::Sender::new(SnapshotAt::Index(present.map(|id| id.index)));
        let (jobs, queue) = mpsc::channel(QUEUE);
        let slow = Slow::of(config);
        let room = Arc::new(Room::default());
        let of_thread = (slow.clone(), room.clone());
        let fatal = config.fatal.clone();
        std::thread::Builder::new()
            .name("store-disk".to_owned())
            .spawn(move || thread::run(connection, queue, of_thread, &fatal))
            .map_err(|error| StoreError::Storage(format!("thread for the disk: {error}")))?;
        Ok(Self {
            jobs,
            slow,
            room,
            snapshot_at: Arc::new(snapshot_at),
        })
    }

    async fn send(&self, job: Job) -> Result<(), DiskError> {
        self.jobs.send(job).await.map_err(|_| DiskError::Closed)
    }

    /// Does something with the database and brings its result.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, DiskError> + Send + 'static,
    ) -> Result<T, DiskError> {
        let (answer, answered) = oneshot::channel();
        let work: Work = Box::new(move |connection| {
            let result = work(connection);
            let failed = result.as_ref().err().cloned();
            // Nobody waits any more if the task was dropped.
            let _ = answer.send(result);
            failed.map_or(Ok(()), Err)
        });
        self.send(Job::Work(work)).await?;
        answered.await.map_err(|_| DiskError::Closed)?
    }

    /// Writes in one transaction.
    async fn write(
        &self,
        work: impl Fn(&Transaction<'_>) -> rusqlite::Result<()> + Send + 'static,
    ) -> Result<(), DiskError> {
        let (slow, room) = (self.slow.clone(), self.room.clone());
        self.call(move |connection| {
            slow.write(|| {
                room.wait_for(|| {
                    let transaction = connection.transaction()?;
                    work(&transaction)?;
                    transaction.commit()
                })
            })
        })
        .await
    }

    /// Returns when the rows are in the queue; `done` is called when they are on disk.
    pub(crate) async fn append(
        &self,
        entries: &[LogEntry],
        done: LogFlushed<Types>,
    ) -> Result<(), DiskError> {
        let rows = entries
            .iter()
            .map(|entry| {
                (
                    entry.log_id.index,
                    record::write(ENTRY, |to| to.entry(entry)),
                )
            })
            .collect();
        self.send(Job::Append { rows, done }).await
    }

    /// The entries with `start` ≤ index < `end`; stops after about `bytes`, but not before one.
    pub(crate) async fn entries(
        &self,
        start: u64,
        end: u64,
        bytes: usize,
    ) -> Result<Vec<LogEntry>, DiskError> {
        self.call(move |connection| {
            let mut found = Vec::new();
            let mut size = 0;
            let mut select = connection
                .prepare_cached("SELECT record FROM log WHERE idx >= ? AND idx < ? ORDER BY idx")?;
            let mut rows = select.query(params![sql(start), sql(end)])?;
            while size < bytes
                && let Some(row) = rows.next()?
            {
                let record = row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?;
                size += record.len();
                found.push(Reader::whole(ENTRY, record, Reader::entry)?);
            }
            Ok(found)
        })
        .await
    }

    /// Last purged entry, last entry of the log.
    pub(crate) async fn log_ends(&self) -> Result<(Option<LogId>, Option<LogId>), DiskError> {
        self.call(|connection| {
            let purged = meta(connection, "purged", LOG_ID, |from| from.log_id())?;
            let last = connection
                .query_row(
                    "SELECT record FROM log ORDER BY idx DESC LIMIT 1",
                    [],
                    |row| row.get::<_, Vec<u8>>(0),
                )
                .optional()?
                .map(|record| Reader::whole(ENTRY, &record, Reader::entry))
                .transpose()?;
            Ok((purged, last.map(|entry| entry.log_id)))
        })
        .await
    }

    pub(crate) async fn vote(&self) -> Result<Option<Vote>, DiskError> {
        self.call(|connection| meta(connection, "vote", VOTE, |from| from.vote()))
            .await
    }

    pub(crate) async fn save_vote(&self, vote: Vote) -> Result<(), DiskError> {
        let record = record::write(VOTE, |to| to.vote(&vote));
        self.write(move |transaction| set_meta(transaction, "vote", &record))
            .await
    }

    pub(crate) async fn committed(&self) -> Result<Option<LogId>, DiskError> {
        // The thread writes what it holds back before it does any work.
        self.call(|connection| meta(connection, "committed", LOG_ID, |from| from.log_id()))
            .await
    }

    pub(crate) async fn save_committed(&self, committed: LogId) -> Result<(), DiskError> {
        self.send(Job::Committed(committed)).await
    }

    /// Deletes the entries from `index` on.
    pub(crate) async fn truncate(&self, index: u64) -> Result<(), DiskError> {
        self.write(move |transaction| {
            transaction
                .execute("DELETE FROM log WHERE idx >= ?", [sql(index)])
                .map(drop)
        })
        .await
    }

    /// Deletes the entries up to `upto`, inclusive.
    pub(crate) async fn purge(&self, upto: LogId) -> Result<(), DiskError> {
        let record = record::write(LOG_ID, |to| to.log_id(&upto));
        self.write(move |transaction| {
            transaction.execute("DELETE FROM log WHERE idx <= ?", [sql(upto.index)])?;
            set_meta(transaction, "purged", &record)
        })
        .await
    }

    /// Waits until the snapshot on disk has the entry `index`. One that has come from the leader is written beside what
    /// Raft does, which deletes the entries that it replaces at once: without either the node could not start any more.
    ///
    /// # Errors
    /// It could not be written.
    pub(crate) async fn has_snapshot(&self, index: u64) -> Result<(), DiskError> {
        let mut at = self.snapshot_at.subscribe();
        let there = |at: &SnapshotAt| match at {
            SnapshotAt::Failed => true,
            SnapshotAt::Index(at) => *at >= Some(index),
        };
        match at.wait_for(there).await.map(|at| *at) {
            Ok(SnapshotAt::Index(_)) => Ok(()),
            Ok(SnapshotAt::Failed) | Err(_) => Err(DiskError::Closed),
        }
    }

    #[cfg(test)]
    pub(crate) fn has_any_snapshot(&self) {
        self.snapshot_at
            .send_replace(SnapshotAt::Index(Some(u64::MAX)));
    }

    /// No snapshot comes any more: nobody waits for one.
    pub(crate) fn no_snapshot(&self) {
        self.snapshot_at.send_replace(SnapshotAt::Failed);
    }

    /// Replaces the snapshot in one transaction, unless the one on disk is of a later entry.
    pub(crate) async fn save_snapshot(
        &self,
        header: SnapshotHeader,
        body: Arc<Vec<u8>>,
    ) -> Result<(), DiskError> {
        let index = header.meta.last_log_id.map(|id| id.index);
        let saved = self.write_snapshot(header, body).await;
        self.snapshot_at.send_modify(|at| match (&saved, at) {
            (Ok(()), SnapshotAt::Index(known)) => *known = index.max(*known),
            (Err(_), at) => *at = SnapshotAt::Failed,
            (Ok(()), SnapshotAt::Failed) => {}
        });
        saved
    }

    async fn write_snapshot(
        &self,
        header: SnapshotHeader,
        body: Arc<Vec<u8>>,
    ) -> Result<(), DiskError> {
        let (slow, room) = (self.slow.clone(), self.room.clone());
        self.call(move |connection| {
            let present = snapshot_header(connection)?;
            if present.is_some_and(|present| present.meta.last_log_id > header.meta.last_log_id) {
                return Ok(());
            }
            let record = record::write(SNAPSHOT_HEADER, |to| to.snapshot_header(&header));
            slow.write(|| {
                room.wait_for(|| {
                    let transaction = connection.transaction()?;
                    transaction.execute(
                        "INSERT OR REPLACE INTO snapshot (id, header, body) VALUES (1, ?, ?)",
                        params![record, body.as_slice()],
                    )?;
                    transaction.commit()
                })
            })
        })
        .await
    }

    /// The snapshot on disk.
    pub(crate) async fn snapshot(&self) -> Result<Option<(SnapshotHeader, Vec<u8>)>, DiskError> {
        self.call(|connection| {
            let Some(header) = snapshot_header(connection)? else {
                return Ok(None);
            };
            let body = connection.query_row("SELECT body FROM snapshot", [], |row| row.get(0))?;
            Ok(Some((header, body)))
        })
        .await
    }

    /// Closes the database; waits for it.
    pub(crate) async fn stop(&self) {
        let (stop, stopped) = oneshot::channel();
        if self.send(Job::Stop(stop)).await.is_ok() {
            // An error says that the thread has ended: that is what was asked for.
            let _ = stopped.await;
        }
    }
}

/// SQLite's integers are signed; an index never gets that far, and `u64::MAX` means "no end".
fn sql(index: u64) -> i64 {
    i64::try_from(index).unwrap_or(i64::MAX)
}

fn meta<T>(
    connection: &Connection,
    key: &str,
    kind: u8,
    read: impl FnOnce(&mut Reader<'_>) -> Result<T, RecordError>,
) -> Result<Option<T>, DiskError> {
    let record: Option<Vec<u8>> = connection
        .query_row("SELECT record FROM meta WHERE key = ?", [key], |row| {
            row.get(0)
        })
        .optional()?;
    Ok(record
        .map(|record| Reader::whole(kind, &record, read))
        .transpose()?)
}

fn set_meta(transaction: &Transaction<'_>, key: &str, record: &[u8]) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("INSERT OR REPLACE INTO meta (key, record) VALUES (?, ?)")?
        .execute(params![key, record])
        .map(drop)
}

fn snapshot_header(connection: &Connection) -> Result<Option<SnapshotHeader>, DiskError> {
    let record: Option<Vec<u8>> = connection
        .query_row("SELECT header FROM snapshot", [], |row| row.get(0))
        .optional()?;
    Ok(record
        .map(|record| Reader::whole(SNAPSHOT_HEADER, &record, Reader::snapshot_header))
        .transpose()?)
}

fn open(config: &StoreConfig) -> Result<Connection, DiskError> {
    make_private(&config.dir)
        .map_err(|error| DiskError::Failed(format!("cannot make the folder: {error}")))?;
    let mut connection = Connection::open(config.dir.join(FILE))?;
    connection.busy_timeout(BUSY)?;
    prepare(&mut connection, config).map_err(|error| match error {
        DiskError::Failed(reason) if reason.contains("locked") => DiskError::Failed(format!(
            "{FILE} is in use by another process (is cnm_exec running twice?): {reason}"
        )),
        error => error,
    })?;
    Ok(connection)
}

/// Only its owner may read the folder and the file, whoever made them and with whatever mask: the
/// state holds secrets. SQLite gives the journal the mode of the database.
fn make_private(dir: &Path) -> io::Result<()> {
    use std::fs::{DirBuilder, OpenOptions, Permissions, set_permissions};
    use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    set_permissions(dir, Permissions::from_mode(0o700))?;
    // Made here, so that it never has another mode; an empty file is an empty database.
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(dir.join(FILE))?;
    for name in [FILE.to_owned(), format!("{FILE}-wal")] {
        match set_permissions(dir.join(name), Permissions::from_mode(0o600)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn prepare(connection: &mut Connection, config: &StoreConfig) -> Result<(), DiskError> {
    // Exclusive before the first access: then the journal needs no shared memory, and a second
    // process is refused for as long as this one lives.
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if mode != "wal" {
        return Err(DiskError::Failed(format!(
            "the journal is {mode:?} where WAL is needed"
        )));
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "journal_size_limit", 16 * 1024 * 1024)?;
    let transaction = connection.transaction()?;
    transaction.execute_batch(
        "CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, record BLOB NOT NULL);
         CREATE TABLE IF NOT EXISTS log (idx INTEGER PRIMARY KEY, record BLOB NOT NULL);
         CREATE TABLE IF NOT EXISTS snapshot
             (id INTEGER PRIMARY KEY CHECK (id = 1), header BLOB NOT NULL, body BLOB NOT NULL);",
    )?;
    match meta(&transaction, "store", STORE, |from| from.u64())? {
        Some(node) if node == config.node.0 => {}
        Some(node) => {
            return Err(DiskError::Failed(format!(
                "the folder belongs to node {node}, this is node {}",
                config.node
            )));
        }
        None => {
            let record = record::write(STORE, |to| to.u64(config.node.0));
            set_meta(&transaction, "store", &record)?;
        }
    }
    Ok(transaction.commit()?)
}
