//! How a replica stands to its primary: what is observed, and what is recorded of it.

use crate::ids::{Epoch, ShardUid};
use crate::release::EngineId;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// A primary that a replica is to follow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrimaryAddress {
    /// Which shard it is.
    pub shard: ShardUid,
    /// Where its engine listens: its node's address and its own port.
    pub address: SocketAddr,
    /// The process that is meant.
    pub run_id: String,
    /// What it runs: an older engine never follows a newer one.
    pub engine: EngineId,
}

/// What makes a replica promotable: it held everything up to `offset_floor` of the history
/// `replication_id`, in the epoch `epoch` of its replica set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncedRecord {
    /// The replica's process.
    pub run_id: String,
    /// Replication id of its data.
    pub replication_id: String,
    /// Offset that it had at least.
    pub offset_floor: u64,
    /// Epoch in which it was recorded.
    pub epoch: Epoch,
}

/// The engine that a primary hands its role to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandOverTarget {
    /// Which shard.
    pub shard: ShardUid,
    /// Its address as the primary's `INFO replication` shows it.
    pub address: SocketAddr,
    /// The process that is meant.
    pub run_id: String,
}

/// What an engine's `INFO` says of its replication.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReplicationObservation {
    /// Whether the engine calls itself a primary; the role that it was given may be another.
    pub is_primary: bool,
    /// `master_replid`.
    pub replication_id: String,
    /// `master_replid2`; empty: it has none.
    pub replication_id2: String,
    /// `second_repl_offset`, -1: none.
    pub second_offset: i64,
    /// Of a primary `master_repl_offset`, of a replica `slave_repl_offset`.
    pub offset: u64,
    /// A replica: whether its link to its primary is up.
    pub link_up: bool,
    /// A replica: whether a full sync is under way.
    pub sync_in_progress: bool,
    /// A replica: seconds since it heard its primary, -1: it does not hear it.
    pub last_io_seconds: i64,
    /// A replica without a link: seconds since it lost it (`master_link_down_since_seconds`); `None`: it never had one,
    /// or its agent does not tell, as up to 1.1.0.
    pub link_down_seconds: Option<u64>,
    /// A replica: where its primary is.
    pub primary: Option<SocketAddr>,
    /// `master_failover_state`.
    pub failover_state: String,
    /// A primary: its replicas.
    pub replicas: Vec<ReplicaSeen>,
    /// `sync_full`: full syncs that it has given.
    pub full_syncs: u64,
    /// `sync_partial_ok`.
    pub partial_syncs: u64,
}

/// A replica, as its primary sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplicaSeen {
    /// Where it says that it listens.
    pub address: SocketAddr,
    /// Whether its state is `online`.
    pub online: bool,
    /// What it has acknowledged.
    pub offset: u64,
    /// Seconds since its last acknowledgement.
    pub lag_seconds: u64,
}

#[cfg(test)]
mod tests {
    use super::ReplicationObservation;

    /// As 1.1.0 tells, and as a newer release may.
    #[test]
    fn what_other_releases_tell_is_read() {
        let of = |more: &str| {
            let text = format!(
                r#"{{"is_primary":false,"replication_id":"ab","replication_id2":"","second_offset":-1,
                "offset":7,"link_up":false,"sync_in_progress":false,"last_io_seconds":-1,"primary":null,
                "failover_state":"no-failover","replicas":[],"full_syncs":0,"partial_syncs":0{more}}}"#
            );
            serde_json::from_str::<ReplicationObservation>(&text).unwrap()
        };
        assert_eq!((of("").offset, of("").link_down_seconds), (7, None));
        let newer = of(r#","link_down_seconds":5,"of_a_newer_release":true"#);
        assert_eq!(newer.link_down_seconds, Some(5));
    }
}
