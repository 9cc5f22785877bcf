//! The thread that owns the database.

use super::{DiskError, FatalHook, Job, Room, Slow, sql};
use crate::raft::Types;
use openraft::storage::LogFlushed;
use rusqlite::{Connection, params};
use std::io;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Entries that wait together are written together up to about so many bytes.
const BATCH_BYTES: usize = 8 * 1024 * 1024;

/// Does the jobs in order until it is stopped, or no handle is left, or the disk fails.
pub(super) fn run(
    connection: Connection,
    queue: mpsc::Receiver<Job>,
    (slow, room): (Slow, Arc<Room>),
    fatal: &FatalHook,
) {
    let worker = Worker {
        connection,
        slow,
        room,
    };
    let ended = worker.work(queue);
    if let Err(error @ DiskError::Failed(_)) = ended {
        fatal(&error.to_string());
    }
}

struct Worker {
    connection: Connection,
    slow: Slow,
    room: Arc<Room>,
}

type Rows = Vec<(u64, Vec<u8>)>;

impl Worker {
    fn work(mut self, mut queue: mpsc::Receiver<Job>) -> Result<(), DiskError> {
        let mut next = None;
        loop {
            let Some(job) = next.take().or_else(|| queue.blocking_recv()) else {
                return Ok(());
            };
            match job {
                Job::Append { rows, done } => next = self.append_all(rows, done, &mut queue)?,
                Job::Work(work) => work(&mut self.connection)?,
                Job::Stop(stopped) => {
                    drop(self);
                    // The caller may have stopped waiting.
                    let _ = stopped.send(());
                    return Ok(());
                }
            }
        }
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
        let written = self.append(&rows);
        for waiting in done {
            waiting.log_io_completed(match &written {
                Ok(()) => Ok(()),
                Err(error) => Err(io::Error::other(error.clone())),
            });
        }
        written.map(|()| next)
    }

    /// Writes entries in one transaction.
    fn append(&mut self, rows: &Rows) -> Result<(), DiskError> {
        let connection = &mut self.connection;
        let write = || {
            let transaction = connection.transaction()?;
            {
                let mut insert = transaction
                    .prepare_cached("INSERT OR REPLACE INTO log (idx, record) VALUES (?, ?)")?;
                for (index, record) in rows {
                    insert.execute(params![sql(*index), record])?;
                }
            }
            transaction.commit()
        };
        self.slow.write(|| self.room.wait_for(write))
    }
}
