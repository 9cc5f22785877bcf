//! The state: every key with its value and the revision that wrote it.

use crate::error::StoreError;
use crate::history::Change;
use crate::txn::{Command, Txn, TxnResult};
use model::Revision;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::Arc;

#[cfg(test)]
mod properties;

/// A value and when it was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The value.
    pub value: Value,
    /// Revision of the transaction that wrote it.
    pub revision: u64,
    /// The value as it was agreed on; what is hashed and what a snapshot holds.
    pub(crate) text: Arc<str>,
}

impl Entry {
    /// # Errors
    /// If the text is not JSON. Transactions are checked for that before they are agreed on.
    pub(crate) fn new(key: &str, text: Arc<str>, revision: u64) -> Result<Self, StoreError> {
        let value = serde_json::from_str(&text).map_err(|error| StoreError::Decode {
            key: key.to_owned(),
            reason: error.to_string(),
        })?;
        Ok(Self {
            value,
            revision,
            text,
        })
    }
}

/// The state at one revision.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// Revision of the transaction that wrote last; 0: none did.
    pub revision: Revision,
    /// Every key, in order.
    pub entries: BTreeMap<String, Arc<Entry>>,
    digest: Digests,
    size: usize,
}

/// Sum of the digests of all entries: independent of order, changed without reading the others.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Digests([u64; 4]);

impl Digests {
    fn of(key: &str, entry: &Entry) -> [u64; 4] {
        let mut hasher = Sha256::new();
        hasher.update((key.len() as u64).to_le_bytes());
        hasher.update(key.as_bytes());
        hasher.update(entry.revision.to_le_bytes());
        hasher.update(entry.text.as_bytes());
        let digest = hasher.finalize();
        let mut lanes = [0; 4];
        for (lane, bytes) in lanes.iter_mut().zip(digest.chunks_exact(8)) {
            *lane = bytes
                .iter()
                .rev()
                .fold(0, |sum, byte| (sum << 8) | u64::from(*byte));
        }
        lanes
    }

    fn add(&mut self, key: &str, entry: &Entry) {
        for (lane, add) in self.0.iter_mut().zip(Self::of(key, entry)) {
            *lane = lane.wrapping_add(add);
        }
    }

    fn remove(&mut self, key: &str, entry: &Entry) {
        for (lane, sub) in self.0.iter_mut().zip(Self::of(key, entry)) {
            *lane = lane.wrapping_sub(sub);
        }
    }
}

impl State {
    /// A state without entries, to insert them as they were at `revision`.
    pub(crate) fn empty(revision: Revision) -> Self {
        Self {
            revision,
            ..Self::default()
        }
    }

    /// The document at `key` and the revision that wrote it.
    ///
    /// # Errors
    /// If the value is not such a document.
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<(T, u64)>, StoreError> {
        self.entries
            .get(key)
            .map(|entry| document(key, entry))
            .transpose()
    }

    /// The documents under all keys that begin with `prefix`, in the order of the keys.
    ///
    /// # Errors
    /// If a value is not such a document.
    pub fn list<T: DeserializeOwned>(&self, prefix: &str) -> Result<Vec<(T, u64)>, StoreError> {
        self.range(prefix)
            .map(|(key, entry)| document(key, entry))
            .collect()
    }

    /// The keys that begin with `prefix` and their entries, in order.
    pub fn range<'a>(
        &'a self,
        prefix: &'a str,
    ) -> impl Iterator<Item = (&'a String, &'a Arc<Entry>)> {
        self.entries
            .range::<str, _>((
                std::ops::Bound::Included(prefix),
                std::ops::Bound::Unbounded,
            ))
            .take_while(move |(key, _)| key.starts_with(prefix))
    }

    /// Hash of revision, keys, values and their revisions, in hex: equal on all nodes that are at
    /// the same revision, or one of them is broken. Costs the same for any size.
    #[must_use]
    pub fn hash(&self) -> String {
        let mut hasher = Sha256::new();
        hasher.update(b"mainstay state 1");
        hasher.update(self.revision.0.to_le_bytes());
        hasher.update((self.entries.len() as u64).to_le_bytes());
        for lane in self.digest.0 {
            hasher.update(lane.to_le_bytes());
        }
        hex::encode(hasher.finalize())
    }

    /// Bytes of all keys and values.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// Does a transaction to this state, as the store would. For planning and for tests.
    ///
    /// # Errors
    /// If the transaction is refused.
    pub fn apply(&mut self, txn: &Txn) -> Result<TxnResult, StoreError> {
        self.apply_command(&Command::try_from(txn)?, &mut Vec::new())
    }

    /// Does an agreed transaction: the same in every release for ever.
    ///
    /// The revision goes up by one if something is put, or a key that exists is deleted; each
    /// change is added to `changes`.
    pub(crate) fn apply_command(
        &mut self,
        command: &Command,
        changes: &mut Vec<Change>,
    ) -> Result<TxnResult, StoreError> {
        for (key, wanted) in &command.compare {
            let found = self.entries.get(key).map_or(0, |entry| entry.revision);
            if found != *wanted {
                return Ok(TxnResult::Conflict {
                    key: key.clone(),
                    found,
                });
            }
        }
        let next = self.revision.next();
        let mut puts = Vec::with_capacity(command.put.len());
        for (key, text) in &command.put {
            puts.push((key, Arc::new(Entry::new(key, text.clone(), next.0)?)));
        }
        let mut changed = !puts.is_empty();
        for key in &command.delete {
            if self.remove(key) {
                changed = true;
                changes.push(Change {
                    revision: next,
                    key: key.clone(),
                    value: None,
                });
            }
        }
        for (key, entry) in puts {
            self.insert(key.clone(), entry.clone());
            changes.push(Change {
                revision: next,
                key: key.clone(),
                value: Some(entry),
            });
        }
        if changed {
            self.revision = next;
        }
        Ok(TxnResult::Applied {
            revision: self.revision,
        })
    }

    pub(crate) fn insert(&mut self, key: String, entry: Arc<Entry>) {
        self.remove(&key);
        self.digest.add(&key, &entry);
        self.size += key.len() + entry.text.len();
        self.entries.insert(key, entry);
    }

    fn remove(&mut self, key: &str) -> bool {
        let Some(entry) = self.entries.remove(key) else {
            return false;
        };
        self.digest.remove(key, &entry);
        self.size -= key.len() + entry.text.len();
        true
    }
}

fn document<T: DeserializeOwned>(key: &str, entry: &Entry) -> Result<(T, u64), StoreError> {
    let value =
        <T as Deserialize>::deserialize(&entry.value).map_err(|error| StoreError::Decode {
            key: key.to_owned(),
            reason: error.to_string(),
        })?;
    Ok((value, entry.revision))
}
