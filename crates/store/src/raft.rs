//! The types that the Raft library is set up with. They stay in this crate.

use crate::txn::{Command, TxnResult};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io::Cursor;

/// Where a member takes internode traffic.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct Address(pub(crate) String);

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

openraft::declare_raft_types!(
    pub(crate) Types:
        D = Command,
        R = Option<TxnResult>,
        NodeId = u64,
        Node = Address,
        Entry = openraft::Entry<Types>,
        SnapshotData = Cursor<Vec<u8>>,
        AsyncRuntime = crate::runtime::Runtime,
);

pub(crate) type Raft = openraft::Raft<Types>;
pub(crate) type Metrics = openraft::RaftMetrics<u64, Address>;
pub(crate) type LogId = openraft::LogId<u64>;
pub(crate) type Vote = openraft::Vote<u64>;
pub(crate) type LogEntry = openraft::Entry<Types>;
pub(crate) type Payload = openraft::EntryPayload<Types>;
pub(crate) type Membership = openraft::Membership<u64, Address>;
pub(crate) type StoredMembership = openraft::StoredMembership<u64, Address>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<u64, Address>;
pub(crate) type Snapshot = openraft::Snapshot<Types>;
pub(crate) type StorageError = openraft::StorageError<u64>;
pub(crate) type StorageIoError = openraft::StorageIOError<u64>;
