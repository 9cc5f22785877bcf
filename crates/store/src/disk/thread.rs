//! The thread that owns the database.

use super::{DiskError, FatalHook, Job, Room, Slow, set_meta, sql};
use crate::raft::{LogId, Types};
use crate::record::{self, LOG_ID};
use openraft::storage::LogFlushed;
use rusqlite::{Connection, params};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// What is committed is written after so long without anything else to write.
const IDLE: Duration = Duration::from_millis(50);
/// Entries that wait together are written together up to about so many bytes.
const BATCH_BYTES: usize = 8 * 1024 * 1024;

/// Does the jobs in order until it is stopped, or no handle is left, or the disk fails.
pub(super) fn run(
    connection: Connection,
    queue: mpsc::Receiver<Job>,
    (slow, room): (Slow, Arc<Room>),
    fatal: &FatalHook,
) {
    let timer = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    let worker = Worker {
        connection,
        slow,
        room,
        committed: None,
    };
    let ended = match timer {
        Ok(timer) => timer.block_on(worker.work(queue)),
        Err(error) => Err(DiskError::Failed(format!("runtime for the disk: {error}"))),
    };
    if let Err(error @ DiskError::Failed(_)) = ended {
        fatal(&error.to_string());
    }
}

struct Worker {
    connection: Connection,
    slow: Slow,
    room: Arc<Room>,
    /// Committed, but not yet on disk.
    committed: Option<LogId>,
}

type Rows = Vec<(u64, Vec<u8>)>;

impl Worker {
    async fn work(mut self, mut queue: mpsc::Receiver<Job>) -> Result<(), DiskError> {
        let mut next = None;
        loop {
            let job = match next.take() {
                Some(job) => job,
                None => match self.wait(&mut queue).await? {
                    Some(job) => job,
                    None => return self.append(Vec::new()),
                },
            };
            match job {
                Job::Append { rows, done } => next = self.append_all(rows, done, &mut queue)?,
                Job::Committed(committed) => self.committed = Some(committed),
                Job::Work(work) => {
                    self.append(Vec::new())?;
                    work(&mut self.connection)?;
                }
                Job::Stop(stopped) => {
                    self.append(Vec::new())?;
                    drop(self);
                    // The caller may have stopped waiting.
                    let _ = stopped.send(());
                    return Ok(());
                }
            }
        }
    }

    /// The next job; meanwhile, after a moment without one, writes what was held back.
    async fn wait(&mut self, queue: &mut mpsc::Receiver<Job>) -> Result<Option<Job>, DiskError> {
        if self.committed.is_some() {
            match tokio::time::timeout(IDLE, queue.recv()).await {
                Ok(job) => return Ok(job),
                Err(_) => self.append(Vec::new())?,
            }
        }
        Ok(queue.recv().await)
    }

    /// Writes these entries and those that wait behind them; returns the job after them.
    fn append_all(
        &mut self,
        mut rows: Rows,
        done: LogFlushed<Types>,
        queue: &mut mpsc::Receiver<Job>,
    ) -> Result<Option<Job>, DiskError> {
        let mut done = vec![done];
        let mut size: usize = rows.iter().map(|(_, record)| record.len()).sum();
        let mut next = None;
        while size < BATCH_BYTES {
            match queue.try_recv() {
                Ok(Job::Append {
                    rows: more,
                    done: also,
                }) => {
                    size += more.iter().map(|(_, record)| record.len()).sum::<usize>();
                    rows.extend(more);
                    done.push(also);
                }
                Ok(job) => {
                    next = Some(job);
                    break;
                }
                Err(_) => break,
            }
        }
        let written = self.append(rows);
        for waiting in done {
            waiting.log_io_completed(match &written {
                Ok(()) => Ok(()),
                Err(error) => Err(io::Error::other(error.clone())),
            });
        }
        written.map(|()| next)
    }

    /// Writes entries, and what was held back, in one transaction.
    fn append(&mut self, rows: Rows) -> Result<(), DiskError> {
        let committed = self.committed.take();
        if rows.is_empty() && committed.is_none() {
            return Ok(());
        }
        let committed =
            committed.map(|committed| record::write(LOG_ID, |to| to.log_id(&committed)));
        let connection = &mut self.connection;
        let write = || {
            let transaction = connection.transaction()?;
            {
                let mut insert = transaction
                    .prepare_cached("INSERT OR REPLACE INTO log (idx, record) VALUES (?, ?)")?;
                for (index, record) in &rows {
                    insert.execute(params![sql(*index), record])?;
                }
            }
            if let Some(record) = &committed {
                set_meta(&transaction, "committed", record)?;
            }
            transaction.commit()
        };
        self.slow.write(|| self.room.wait_for(write))
    }
}
