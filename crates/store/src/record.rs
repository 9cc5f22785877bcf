//! Our own records: what is on disk and, inside the messages of [`crate::wire`], between nodes.
//!
//! A record is a kind (one ASCII letter), a version, and fields: integers little-endian, text and
//! bytes with a length of 32 bits before them, options with a byte 0 or 1, lists with a count of 32
//! bits. A release reads the versions up to its own and says so if it meets a later one. The golden
//! tests below hold the bytes; whoever changes them breaks every cluster on disk.

use crate::raft::{
    Address, LogEntry, LogId, Membership, Payload, SnapshotMeta, StoredMembership, Vote,
};
use crate::txn::Command;
use openraft::CommittedLeaderId;
use std::collections::{BTreeMap, BTreeSet};

#[cfg(test)]
mod golden;

/// The version of every record that this release writes.
pub(crate) const VERSION: u8 = 1;

pub(crate) const STORE: u8 = b'N';
pub(crate) const VOTE: u8 = b'V';
pub(crate) const LOG_ID: u8 = b'L';
pub(crate) const ENTRY: u8 = b'E';
pub(crate) const SNAPSHOT_HEADER: u8 = b'H';
pub(crate) const SNAPSHOT_BODY: u8 = b'B';

/// Bytes that are not a record that this release can read.
#[derive(Debug, Clone, Eq, PartialEq, thiserror::Error)]
pub(crate) enum RecordError {
    #[error("record ends too early")]
    Truncated,
    #[error("record has {0} bytes too many")]
    TooLong(usize),
    #[error("record of kind {found:?} where {wanted:?} belongs")]
    Kind { wanted: char, found: char },
    #[error(
        "record {kind:?} has version {found}, this release reads versions up to {VERSION}: \
         it was written by a later release, install that one"
    )]
    Version { kind: char, found: u8 },
    #[error("record is damaged: {0}")]
    Damaged(&'static str),
}

/// Writes the fields of a record.
#[derive(Debug, Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn new(kind: u8) -> Self {
        Self(vec![kind, VERSION])
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.0.extend(value.to_le_bytes());
    }

    /// Every list and text is bounded far below 2^32 before it gets here.
    pub(crate) fn count(&mut self, count: usize) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.0.extend(count.to_le_bytes());
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.count(text.len());
        self.0.extend(text.as_bytes());
    }

    /// Bytes up to the end of the record.
    pub(crate) fn rest(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
    }

    pub(crate) fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        match value {
            None => self.u8(0),
            Some(value) => {
                self.u8(1);
                write(self, value);
            }
        }
    }

    pub(crate) fn log_id(&mut self, id: &LogId) {
        self.u64(id.leader_id.term);
        self.u64(id.leader_id.node_id);
        self.u64(id.index);
    }

    pub(crate) fn vote(&mut self, vote: &Vote) {
        self.u64(vote.leader_id.term);
        self.u64(vote.leader_id.node_id);
        self.u8(u8::from(vote.committed));
    }

    pub(crate) fn membership(&mut self, membership: &Membership) {
        let configs = membership.get_joint_config();
        self.count(configs.len());
        for voters in configs {
            self.count(voters.len());
            voters.iter().for_each(|uid| self.u64(*uid));
        }
        self.count(membership.nodes().count());
        for (uid, address) in membership.nodes() {
            self.u64(*uid);
            self.text(&address.0);
        }
    }

    pub(crate) fn stored_membership(&mut self, stored: &StoredMembership) {
        self.option(stored.log_id().as_ref(), Self::log_id);
        self.membership(stored.membership());
    }

    pub(crate) fn command(&mut self, command: &Command) {
        self.count(command.compare.len());
        for (key, revision) in &command.compare {
            self.text(key);
            self.u64(*revision);
        }
        self.count(command.put.len());
        for (key, text) in &command.put {
            self.text(key);
            self.text(text);
        }
        self.count(command.delete.len());
        command.delete.iter().for_each(|key| self.text(key));
    }

    pub(crate) fn entry(&mut self, entry: &LogEntry) {
        self.log_id(&entry.log_id);
        match &entry.payload {
            Payload::Blank => self.u8(0),
            Payload::Normal(command) => {
                self.u8(1);
                self.command(command);
            }
            Payload::Membership(membership) => {
                self.u8(2);
                self.membership(membership);
            }
        }
    }

    pub(crate) fn snapshot_header(&mut self, header: &SnapshotHeader) {
        self.text(&header.meta.snapshot_id);
        self.option(header.meta.last_log_id.as_ref(), Self::log_id);
        self.stored_membership(&header.meta.last_membership);
        self.u64(header.body_len);
        self.rest(&header.checksum);
    }
}

/// Reads the fields of a record.
#[derive(Debug)]
pub(crate) struct Reader<'a>(&'a [u8]);

type Read<T> = Result<T, RecordError>;

impl<'a> Reader<'a> {
    /// Checks kind and version.
    pub(crate) fn new(kind: u8, bytes: &'a [u8]) -> Read<Self> {
        let mut reader = Self(bytes);
        let found = reader.u8()?;
        if found != kind {
            let (wanted, found) = (char::from(kind), char::from(found));
            return Err(RecordError::Kind { wanted, found });
        }
        let version = reader.u8()?;
        if version == 0 || version > VERSION {
            return Err(RecordError::Version {
                kind: char::from(kind),
                found: version,
            });
        }
        Ok(reader)
    }

    /// Reads a whole record: nothing may be left over.
    pub(crate) fn whole<T>(
        kind: u8,
        bytes: &'a [u8],
        read: impl FnOnce(&mut Self) -> Read<T>,
    ) -> Read<T> {
        let mut reader = Self::new(kind, bytes)?;
        let value = read(&mut reader)?;
        reader.end()?;
        Ok(value)
    }

    pub(crate) fn end(&self) -> Read<()> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(RecordError::TooLong(self.0.len()))
        }
    }

    fn take(&mut self, len: usize) -> Read<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(len).ok_or(RecordError::Truncated)?;
        self.0 = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        self.take(N)?.try_into().map_err(|_| RecordError::Truncated)
    }

    pub(crate) fn u8(&mut self) -> Read<u8> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u64(&mut self) -> Read<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A count of things of at least `size` bytes each: more than can follow is refused before
    /// room is made for them.
    pub(crate) fn count(&mut self, size: usize) -> Read<usize> {
        let count = u32::from_le_bytes(self.array()?) as usize;
        if count.saturating_mul(size) > self.0.len() {
            return Err(RecordError::Truncated);
        }
        Ok(count)
    }

    pub(crate) fn text(&mut self) -> Read<&'a str> {
        let len = self.count(1)?;
        std::str::from_utf8(self.take(len)?).map_err(|_| RecordError::Damaged("text is not UTF-8"))
    }

    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    pub(crate) fn flag(&mut self) -> Read<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(RecordError::Damaged("a flag is neither 0 nor 1")),
        }
    }

    pub(crate) fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Read<T>) -> Read<Option<T>> {
        if self.flag()? {
            read(self).map(Some)
        } else {
            Ok(None)
        }
    }

    pub(crate) fn list<T>(
        &mut self,
        size: usize,
        mut read: impl FnMut(&mut Self) -> Read<T>,
    ) -> Read<Vec<T>> {
        let count = self.count(size)?;
        (0..count).map(|_| read(self)).collect()
    }

    pub(crate) fn log_id(&mut self) -> Read<LogId> {
        let (term, node) = (self.u64()?, self.u64()?);
        Ok(LogId::new(CommittedLeaderId::new(term, node), self.u64()?))
    }

    pub(crate) fn vote(&mut self) -> Read<Vote> {
        let mut vote = Vote::new(self.u64()?, self.u64()?);
        vote.committed = self.flag()?;
        Ok(vote)
    }

    pub(crate) fn membership(&mut self) -> Read<Membership> {
        let configs = self.list(4, |reader| {
            Ok(reader
                .list(8, Self::u64)?
                .into_iter()
                .collect::<BTreeSet<u64>>())
        })?;
        let nodes = self.list(12, |reader| {
            Ok((reader.u64()?, Address(reader.text()?.to_owned())))
        })?;
        let nodes: BTreeMap<u64, Address> = nodes.into_iter().collect();
        // The library adds a node without an address for a voter that has none; one that was
        // written by us has its address.
        Ok(Membership::new(configs, nodes))
    }

    pub(crate) fn stored_membership(&mut self) -> Read<StoredMembership> {
        let log_id = self.option(Self::log_id)?;
        Ok(StoredMembership::new(log_id, self.membership()?))
    }

    pub(crate) fn command(&mut self) -> Read<Command> {
        Ok(Command {
            compare: self.list(12, |reader| Ok((reader.text()?.to_owned(), reader.u64()?)))?,
            put: self.list(8, |reader| {
                Ok((reader.text()?.to_owned(), reader.text()?.into()))
            })?,
            delete: self.list(4, |reader| Ok(reader.text()?.to_owned()))?,
        })
    }

    pub(crate) fn entry(&mut self) -> Read<LogEntry> {
        let log_id = self.log_id()?;
        let payload = match self.u8()? {
            0 => Payload::Blank,
            1 => Payload::Normal(self.command()?),
            2 => Payload::Membership(self.membership()?),
            _ => return Err(RecordError::Damaged("an entry of an unknown sort")),
        };
        Ok(LogEntry { log_id, payload })
    }

    pub(crate) fn snapshot_header(&mut self) -> Read<SnapshotHeader> {
        let snapshot_id = self.text()?.to_owned();
        let last_log_id = self.option(Self::log_id)?;
        let last_membership = self.stored_membership()?;
        let meta = SnapshotMeta {
            last_log_id,
            last_membership,
            snapshot_id,
        };
        Ok(SnapshotHeader {
            meta,
            body_len: self.u64()?,
            checksum: self.array()?,
        })
    }
}

/// What a snapshot's body is, and how to tell whether it is whole.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct SnapshotHeader {
    pub(crate) meta: SnapshotMeta,
    /// Bytes of the body.
    pub(crate) body_len: u64,
    /// SHA-256 of the body.
    pub(crate) checksum: [u8; 32],
}

pub(crate) fn write(kind: u8, fields: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::new(kind);
    fields(&mut writer);
    writer.finish()
}
