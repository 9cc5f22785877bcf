//! Backup and restore: the state as versioned JSON, and a new store made of it.

use crate::config::StoreConfig;
use crate::disk::Disk;
use crate::error::StoreError;
use crate::machine;
use crate::raft::{Address, LogId, Membership, SnapshotMeta, StoredMembership};
use crate::state::{Entry, State};
use crate::store::Store;
use crate::transport::Member;
use crate::txn::{MAX_KEY, MAX_STATE, MAX_VALUE, within};
use model::Revision;
use openraft::CommittedLeaderId;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const KIND: &str = "mainstay configuration";
const VERSION: u32 = 1;
/// A restored state is this much newer than its backup: whoever saw a revision of the lost store
/// that is not in the backup must not take the restored one for old.
const REVISION_JUMP: u64 = 1 << 20;

#[derive(Serialize, Deserialize)]
struct Backup {
    kind: String,
    version: u32,
    revision: u64,
    entries: Vec<Item>,
}

#[derive(Serialize, Deserialize)]
struct Item {
    key: String,
    revision: u64,
    value: Value,
}

impl State {
    /// The state as a backup.
    ///
    /// # Errors
    /// If it cannot be written as JSON.
    pub fn export(&self) -> Result<Value, StoreError> {
        let entries = self
            .entries
            .iter()
            .map(|(key, entry)| Item {
                key: key.clone(),
                revision: entry.revision,
                value: entry.value.clone(),
            })
            .collect();
        let backup = Backup {
            kind: KIND.to_owned(),
            version: VERSION,
            revision: self.revision.0,
            entries,
        };
        serde_json::to_value(backup).map_err(|error| StoreError::Invalid(error.to_string()))
    }

    /// Reads a backup.
    ///
    /// # Errors
    /// If it is none, of a later release, or larger than a state may be.
    pub fn import(backup: &Value) -> Result<Self, StoreError> {
        let invalid = |what: String| StoreError::Invalid(format!("backup: {what}"));
        let version = backup.get("version").and_then(Value::as_u64);
        if backup.get("kind").and_then(Value::as_str) != Some(KIND) || version.is_none() {
            return Err(invalid(
                "this is not a backup of a Mainstay configuration".to_owned(),
            ));
        }
        if version != Some(u64::from(VERSION)) {
            return Err(invalid(format!(
                "it has version {}, this release reads version {VERSION}: restore it with the \
                 release that wrote it",
                version.unwrap_or_default()
            )));
        }
        let backup = Backup::deserialize(backup).map_err(|error| invalid(error.to_string()))?;
        let mut state = Self::empty(Revision(backup.revision));
        for Item {
            key,
            revision,
            value,
        } in backup.entries
        {
            let text = value.to_string();
            within("a key in the backup (bytes)", key.len(), MAX_KEY)?;
            within("a value in the backup (bytes)", text.len(), MAX_VALUE)?;
            if revision == 0 || revision > backup.revision || state.entries.contains_key(&key) {
                return Err(invalid(format!(
                    "{key} is there twice or has revision {revision}"
                )));
            }
            let entry = Entry::new(&key, text.into(), revision)?;
            state.insert(key, Arc::new(entry));
        }
        within("the backup (bytes)", state.size(), MAX_STATE)?;
        Ok(state)
    }
}

impl Store {
    /// Makes a new store of `state` in the empty folder of `config`, with `me` as its only member:
    /// when the majority is lost, or from a backup. The uid of `me` must never have been used.
    /// [`open`](Self::open) it afterwards. All revisions stay, but that of the state jumps ahead.
    ///
    /// # Errors
    /// If there is a store in the folder already, or it cannot be written.
    pub async fn restore(
        config: &StoreConfig,
        state: &State,
        me: Member,
    ) -> Result<(), StoreError> {
        config.check().map_err(StoreError::Invalid)?;
        if me.uid != config.node {
            let reason = format!("this is node {}, not node {}", config.node, me.uid);
            return Err(StoreError::Invalid(reason));
        }
        let settings = config.clone();
        let disk = tokio::task::spawn_blocking(move || Disk::open(&settings))
            .await
            .map_err(|error| StoreError::Storage(error.to_string()))??;
        let written = write(&disk, state, &me).await;
        disk.stop().await;
        written
    }
}

async fn write(disk: &Disk, state: &State, me: &Member) -> Result<(), StoreError> {
    let failed = |error: crate::disk::DiskError| StoreError::Storage(error.to_string());
    let (purged, last) = disk.log_ends().await.map_err(failed)?;
    let vote = disk.vote().await.map_err(failed)?;
    if purged.is_some() || last.is_some() || vote.is_some() {
        return Err(StoreError::Membership(
            "there is a store in this folder already: wipe the node first".to_owned(),
        ));
    }
    let mut restored = state.clone();
    restored.revision = Revision(state.revision.0.saturating_add(REVISION_JUMP));
    let membership = Membership::new(
        vec![BTreeSet::from([me.uid.0])],
        BTreeMap::from([(me.uid.0, Address(me.address.clone()))]),
    );
    // As if one entry had made all of it.
    let only = LogId::new(CommittedLeaderId::new(1, me.uid.0), 1);
    let meta = SnapshotMeta {
        last_log_id: Some(only),
        last_membership: StoredMembership::new(Some(only), membership),
        snapshot_id: "restored".to_owned(),
    };
    let (header, body) = machine::encode(&restored, meta);
    disk.save_snapshot(header, Arc::new(body))
        .await
        .map_err(failed)?;
    disk.purge(only).await.map_err(failed)
}
