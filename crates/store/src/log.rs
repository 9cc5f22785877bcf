//! The log and the vote, as Raft asks for them.

use crate::disk::{Disk, DiskError};
use crate::raft::{LogEntry, LogId, StorageError, StorageIoError, Types, Vote};
use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{AnyError, LogState, OptionalSend, RaftLogReader};
use std::fmt::Debug;
use std::ops::{Bound, RangeBounds};

/// About so many bytes of entries go into one request to another node; one entry always does.
const BATCH_BYTES: usize = 1024 * 1024;

/// The log on disk.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    disk: Disk,
}

impl Log {
    pub(crate) fn new(disk: Disk) -> Self {
        Self { disk }
    }
}

fn read_failed(error: DiskError) -> StorageError {
    StorageIoError::read_logs(AnyError::new(&error)).into()
}

fn write_failed(error: DiskError) -> StorageError {
    StorageIoError::write_logs(AnyError::new(&error)).into()
}

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<LogEntry>, StorageError> {
        let start = match range.start_bound() {
            Bound::Included(index) => *index,
            Bound::Excluded(index) => index.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(index) => index.saturating_add(1),
            Bound::Excluded(index) => *index,
            Bound::Unbounded => u64::MAX,
        };
        self.disk
            .entries(start, end, usize::MAX)
            .await
            .map_err(read_failed)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<LogEntry>, StorageError> {
        self.disk
            .entries(start, end, BATCH_BYTES)
            .await
            .map_err(read_failed)
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, StorageError> {
        let (purged, last) = self.disk.log_ends().await.map_err(read_failed)?;
        Ok(LogState {
            last_purged_log_id: purged,
            last_log_id: last.or(purged),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        self.disk.save_vote(*vote).await.map_err(write_failed)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        self.disk.vote().await.map_err(read_failed)
    }

    /// Written with the next entries, when the disk is idle, or before Raft reads the entries that are to be applied,
    /// which it does after each commit. So it is on disk before anything of it is acknowledged, and it must be: a
    /// leader that is started again in its own term confirms reads by it before any other entry is committed, and
    /// what a node said that its proxies have applied is counted on after a loss of power (`docs/protocol.md`).
    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        match committed {
            Some(committed) => self
                .disk
                .save_committed(committed)
                .await
                .map_err(write_failed),
            None => Ok(()),
        }
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        self.disk.committed().await.map_err(read_failed)
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: LogFlushed<Types>,
    ) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = LogEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<LogEntry> = entries.into_iter().collect();
        self.disk
            .append(&entries, callback)
            .await
            .map_err(write_failed)
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.disk.truncate(log_id.index).await.map_err(write_failed)
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        let there = self.disk.has_snapshot(log_id.index).await;
        there.map_err(write_failed)?;
        self.disk.purge(log_id).await.map_err(write_failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StoreConfig;
    use crate::machine;
    use crate::raft::SnapshotMeta;
    use crate::state::State;
    use model::NodeUid;
    use openraft::{CommittedLeaderId, StoredMembership};
    use std::sync::Arc;
    use std::time::Duration;

    /// A snapshot that came from the leader is on its way to the disk when Raft deletes what it replaces: a node that was
    /// killed between the two could not start any more.
    #[tokio::test]
    async fn entries_stay_until_the_snapshot_is_on_disk() {
        for comes in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            let disk = Disk::open(&StoreConfig::new(NodeUid(1), folder.path())).unwrap();
            let last = LogId::new(CommittedLeaderId::new(1, 1), 5);
            let mut log = Log::new(disk.clone());
            let purge = tokio::spawn(async move { log.purge(last).await });
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert_eq!(disk.log_ends().await.unwrap().0, None);
            if comes {
                let meta = SnapshotMeta {
                    last_log_id: Some(last),
                    last_membership: StoredMembership::default(),
                    snapshot_id: "x".to_owned(),
                };
                let (header, body) = machine::encode(&State::default(), meta);
                disk.save_snapshot(header, Arc::new(body)).await.unwrap();
                purge.await.unwrap().unwrap();
                assert_eq!(disk.log_ends().await.unwrap().0, Some(last));
            } else {
                disk.no_snapshot();
                assert!(purge.await.unwrap().is_err());
                assert_eq!(disk.log_ends().await.unwrap().0, None);
            }
            disk.stop().await;
        }
    }
}
