//! A transaction, its limits, and the form in which it is agreed on.

use crate::error::StoreError;
use model::Revision;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;

#[cfg(test)]
mod limits;

/// Longest key, in bytes.
pub const MAX_KEY: usize = 512;
/// Largest value as JSON text, in bytes.
pub const MAX_VALUE: usize = 1024 * 1024;
/// Most compares, puts and deletes in one transaction, together.
pub const MAX_OPS: usize = 256;
/// Largest transaction, in bytes of keys and values.
pub const MAX_TXN: usize = 4 * 1024 * 1024;
/// Largest state, in bytes of keys and values.
pub const MAX_STATE: usize = 48 * 1024 * 1024;

/// A change of the state, done whole or not at all. It knows nothing of the types of the values.
///
/// If every compare holds, the deletes and puts are done and get one new revision; otherwise
/// nothing is changed. No key may be written twice.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Txn {
    /// The key must have been written last at this revision; 0: it must not exist.
    pub compare: Vec<(String, u64)>,
    /// Values to write.
    pub put: Vec<(String, Value)>,
    /// Keys to delete. A key that does not exist is no error.
    pub delete: Vec<String>,
}

impl Txn {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Demands that `key` was written last at `revision`; 0: that it does not exist.
    #[must_use]
    pub fn expect(mut self, key: impl Into<String>, revision: u64) -> Self {
        self.compare.push((key.into(), revision));
        self
    }

    /// Writes a document.
    ///
    /// # Errors
    /// If it cannot be written as JSON.
    pub fn put<T: Serialize>(
        mut self,
        key: impl Into<String>,
        value: &T,
    ) -> Result<Self, StoreError> {
        let key = key.into();
        let value = serde_json::to_value(value)
            .map_err(|error| StoreError::Invalid(format!("value for {key}: {error}")))?;
        self.put.push((key, value));
        Ok(self)
    }

    /// Deletes a key.
    #[must_use]
    pub fn delete(mut self, key: impl Into<String>) -> Self {
        self.delete.push(key.into());
        self
    }
}

/// What became of a transaction.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum TxnResult {
    /// Done. The revision is the new one, or the present one if there was nothing to change.
    Applied {
        /// Revision of the state after it.
        revision: Revision,
    },
    /// A compare did not hold: nothing was changed.
    Conflict {
        /// The first key that differed.
        key: String,
        /// The revision that it was found at; 0: it does not exist.
        found: u64,
    },
}

/// A checked transaction with its values as text: what the log holds. All nodes keep the same text,
/// so the state is the same to the byte.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct Command {
    pub(crate) compare: Vec<(String, u64)>,
    pub(crate) put: Vec<(String, Arc<str>)>,
    pub(crate) delete: Vec<String>,
}

impl Command {
    /// Bytes of keys and values.
    pub(crate) fn size(&self) -> usize {
        self.compare.iter().map(|(key, _)| key.len()).sum::<usize>()
            + self
                .put
                .iter()
                .map(|(key, text)| key.len() + text.len())
                .sum::<usize>()
            + self.delete.iter().map(String::len).sum::<usize>()
    }
}

impl TryFrom<&Txn> for Command {
    type Error = StoreError;

    fn try_from(txn: &Txn) -> Result<Self, StoreError> {
        let ops = txn.compare.len() + txn.put.len() + txn.delete.len();
        within("the number of operations in a transaction", ops, MAX_OPS)?;
        let mut written = BTreeSet::new();
        for key in txn.put.iter().map(|(key, _)| key).chain(&txn.delete) {
            if !written.insert(key.as_str()) {
                return Err(StoreError::Invalid(format!("{key} is written twice")));
            }
        }
        for key in txn
            .compare
            .iter()
            .map(|(key, _)| key.as_str())
            .chain(written)
        {
            if key.is_empty() {
                return Err(StoreError::Invalid("a key is empty".to_owned()));
            }
            within("a key (bytes)", key.len(), MAX_KEY)?;
        }
        let mut put = Vec::with_capacity(txn.put.len());
        for (key, value) in &txn.put {
            put.push((key.clone(), text(key, value)?));
        }
        let command = Self {
            compare: txn.compare.clone(),
            put,
            delete: txn.delete.clone(),
        };
        within("the transaction (bytes)", command.size(), MAX_TXN)?;
        Ok(command)
    }
}

/// The value as text, which every node must be able to read again (a value may be nested too deep).
fn text(key: &str, value: &Value) -> Result<Arc<str>, StoreError> {
    let text = value.to_string();
    within(
        &format!("the value of {key} (bytes)"),
        text.len(),
        MAX_VALUE,
    )?;
    serde_json::from_str::<Value>(&text)
        .map_err(|error| StoreError::Invalid(format!("the value of {key}: {error}")))?;
    Ok(text.into())
}

pub(crate) fn within(what: &str, size: usize, limit: usize) -> Result<(), StoreError> {
    if size > limit {
        return Err(StoreError::TooLarge {
            what: what.to_owned(),
            size,
            limit,
        });
    }
    Ok(())
}
