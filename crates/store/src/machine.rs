//! The state machine: applies agreed entries to the state, makes and installs snapshots.

use crate::disk::Disk;
use crate::error::StoreError;
use crate::history::{Changes, History};
use crate::raft::{
    LogEntry, LogId, Payload, Snapshot, SnapshotMeta, StorageError, StorageIoError,
    StoredMembership, Types,
};
use crate::record::{self, Reader, SNAPSHOT_BODY, SnapshotHeader};
use crate::state::{Entry, State};
use crate::txn::TxnResult;
use model::Revision;
use openraft::storage::RaftStateMachine;
use openraft::{AnyError, OptionalSend, RaftSnapshotBuilder};
use sha2::{Digest, Sha256};
use std::io::Cursor;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::sync::watch;

/// The applied state, shared by the state machine and those who read it.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    inner: Arc<RwLock<Inner>>,
    revision: watch::Sender<Revision>,
    /// Next entry to be applied.
    applied: watch::Sender<u64>,
    disk: Disk,
    history: usize,
}

#[derive(Debug)]
struct Inner {
    state: Arc<State>,
    history: History,
    last: Option<LogId>,
    membership: StoredMembership,
}

impl Machine {
    /// Starts from the snapshot on disk, if there is one.
    pub(crate) fn open(
        disk: Disk,
        snapshot: Option<(SnapshotHeader, Vec<u8>)>,
        history: usize,
    ) -> Result<Self, StoreError> {
        let mut inner = Inner {
            state: Arc::default(),
            history: History::new(Revision(0), history),
            last: None,
            membership: StoredMembership::default(),
        };
        if let Some((header, body)) = snapshot {
            let state = decode(&header, &body)?;
            inner.history = History::new(state.revision, history);
            inner.state = Arc::new(state);
            inner.last = header.meta.last_log_id;
            inner.membership = header.meta.last_membership;
        }
        let revision = watch::Sender::new(inner.state.revision);
        let applied = watch::Sender::new(next_index(inner.last));
        Ok(Self {
            inner: Arc::new(RwLock::new(inner)),
            revision,
            applied,
            disk,
            history,
        })
    }

    pub(crate) fn state(&self) -> Arc<State> {
        self.read().state.clone()
    }

    pub(crate) fn changes_since(&self, since: Revision) -> Changes {
        let inner = self.read();
        inner.history.since(since, inner.state.revision)
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Revision> {
        self.revision.subscribe()
    }

    /// Next entry to be applied.
    pub(crate) fn applied(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    // A panic while the lock is held stops the Raft task and with it the process; until then the
    // state is whole, because an entry is applied to it by calls that do not panic.
    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn apply_entries(
        &self,
        entries: impl Iterator<Item = LogEntry>,
    ) -> Result<Vec<Option<TxnResult>>, (LogId, StoreError)> {
        let mut results = Vec::new();
        let mut inner = self.write();
        let before = inner.state.revision;
        for entry in entries {
            let result = match entry.payload {
                Payload::Blank => None,
                Payload::Membership(membership) => {
                    inner.membership = StoredMembership::new(Some(entry.log_id), membership);
                    None
                }
                Payload::Normal(command) => {
                    let mut changes = Vec::new();
                    // Copies the map only if somebody still reads the state before this entry.
                    let result = Arc::make_mut(&mut inner.state)
                        .apply_command(&command, &mut changes)
                        .map_err(|error| (entry.log_id, error))?;
                    inner.history.push(changes);
                    Some(result)
                }
            };
            inner.last = Some(entry.log_id);
            results.push(result);
        }
        let (revision, next) = (inner.state.revision, next_index(inner.last));
        drop(inner);
        self.applied.send_replace(next);
        if revision != before {
            self.revision.send_replace(revision);
        }
        Ok(results)
    }

    fn replace(&self, meta: &SnapshotMeta, state: State) {
        let mut inner = self.write();
        let revision = state.revision;
        inner.history = History::new(revision, self.history);
        inner.state = Arc::new(state);
        inner.last = meta.last_log_id;
        inner.membership = meta.last_membership.clone();
        drop(inner);
        self.applied.send_replace(next_index(meta.last_log_id));
        self.revision.send_replace(revision);
    }
}

fn next_index(last: Option<LogId>) -> u64 {
    last.map_or(0, |id| id.index + 1)
}

/// Checks length and checksum of a snapshot and reads it.
pub(crate) fn decode(header: &SnapshotHeader, body: &[u8]) -> Result<State, StoreError> {
    if header.body_len != body.len() as u64 || header.checksum[..] != Sha256::digest(body)[..] {
        return Err(StoreError::Storage(
            "snapshot: length or checksum is wrong".to_owned(),
        ));
    }
    decode_body(body)
}

fn decode_body(body: &[u8]) -> Result<State, StoreError> {
    let (revision, entries) = Reader::whole(SNAPSHOT_BODY, body, |reader| {
        let revision = Revision(reader.u64()?);
        let entries = reader.list(16, |reader| {
            Ok((
                reader.text()?.to_owned(),
                reader.u64()?,
                Arc::<str>::from(reader.text()?),
            ))
        })?;
        Ok((revision, entries))
    })
    .map_err(|error| StoreError::Storage(format!("snapshot: {error}")))?;
    let mut state = State::empty(revision);
    for (key, written, text) in entries {
        let entry = Entry::new(&key, text, written)?;
        state.insert(key, Arc::new(entry));
    }
    Ok(state)
}

/// A snapshot of the state and its header.
pub(crate) fn encode(state: &State, meta: SnapshotMeta) -> (SnapshotHeader, Vec<u8>) {
    let body = record::write(SNAPSHOT_BODY, |writer| {
        writer.u64(state.revision.0);
        writer.count(state.entries.len());
        for (key, entry) in &state.entries {
            writer.text(key);
            writer.u64(entry.revision);
            writer.text(&entry.text);
        }
    });
    let checksum = Sha256::digest(&body).into();
    (
        SnapshotHeader {
            meta,
            body_len: body.len() as u64,
            checksum,
        },
        body,
    )
}

/// Makes a snapshot of the state as it was when the builder was made.
#[derive(Debug)]
pub(crate) struct Builder {
    state: Arc<State>,
    last: Option<LogId>,
    membership: StoredMembership,
    disk: Disk,
}

impl RaftSnapshotBuilder<Types> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot, StorageError> {
        // The name tells snapshots of the same entry apart: two nodes may each make one.
        let snapshot_id = format!("{}-{:08x}", next_index(self.last), rand::random::<u32>());
        let meta = SnapshotMeta {
            last_log_id: self.last,
            last_membership: self.membership.clone(),
            snapshot_id,
        };
        let (state, header_meta) = (self.state.clone(), meta.clone());
        let failed = |error: AnyError| StorageIoError::write_snapshot(None, error);
        let (header, body) = tokio::task::spawn_blocking(move || encode(&state, header_meta))
            .await
            .map_err(|error| failed(AnyError::new(&error)))?;
        let body = Arc::new(body);
        self.disk
            .save_snapshot(header, body.clone())
            .await
            .map_err(|error| failed(AnyError::new(&error)))?;
        let body = Arc::unwrap_or_clone(body);
        Ok(Snapshot {
            meta,
            snapshot: Box::new(Cursor::new(body)),
        })
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        let inner = self.read();
        Ok((inner.last, inner.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Option<TxnResult>>, StorageError>
    where
        I: IntoIterator<Item = LogEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.apply_entries(entries.into_iter())
            .map_err(|(id, error)| StorageIoError::apply(id, AnyError::new(&error)).into())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let inner = self.read();
        Builder {
            state: inner.state.clone(),
            last: inner.last,
            membership: inner.membership.clone(),
            disk: self.disk.clone(),
        }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError> {
        let failed = |error: AnyError| {
            StorageError::from(StorageIoError::write_snapshot(
                Some(meta.signature()),
                error,
            ))
        };
        let body = snapshot.into_inner();
        // Checksum and form were checked when it came in, before Raft was told of it.
        let state = decode_body(&body).map_err(|error| {
            self.disk.no_snapshot();
            failed(AnyError::new(&error))
        })?;
        let checksum = Sha256::digest(&body).into();
        let header = SnapshotHeader {
            meta: meta.clone(),
            body_len: body.len() as u64,
            checksum,
        };
        self.disk
            .save_snapshot(header, Arc::new(body))
            .await
            .map_err(|error| failed(AnyError::new(&error)))?;
        self.replace(meta, state);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, StorageError> {
        let failed = |error: AnyError| StorageIoError::read_snapshot(None, error);
        let found = self
            .disk
            .snapshot()
            .await
            .map_err(|error| failed(AnyError::new(&error)))?;
        Ok(found.map(|(header, body)| Snapshot {
            meta: header.meta,
            snapshot: Box::new(Cursor::new(body)),
        }))
    }
}
