//! Which shards were removed from this node, and at which generation: an order that was under way
//! meanwhile must not bring one back. Kept in `removed.json` beside the shards' folders.

use crate::ledger::replace_file;
use model::{Generation, OperationUid, ShardUid};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// Most tombstones kept. Shards are numbered upwards and never twice, so the lowest go first.
const KEPT: usize = 2_000;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Tombstone {
    generation: Generation,
    operation: OperationUid,
}

/// The shards that were removed.
#[derive(Debug)]
pub(crate) struct Tombstones {
    path: PathBuf,
    removed: Mutex<BTreeMap<ShardUid, Tombstone>>,
}

impl Tombstones {
    /// Reads them. A damaged file is set aside: it guards only against orders that were under way.
    pub(crate) fn read(path: PathBuf) -> Self {
        let removed = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                tracing::warn!("{}: {error}; starting a new one", path.display());
                BTreeMap::new()
            }),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!("{}: {error}; starting a new one", path.display());
                }
                BTreeMap::new()
            }
        };
        Self {
            path,
            removed: Mutex::new(removed),
        }
    }

    /// The generation and operation with which a shard was removed.
    pub(crate) fn of(&self, shard: ShardUid) -> Option<(Generation, OperationUid)> {
        let removed = self.removed.lock().unwrap_or_else(PoisonError::into_inner);
        removed
            .get(&shard)
            .map(|t| (t.generation, t.operation.clone()))
    }

    /// Adds one, durably. Blocks.
    pub(crate) fn add(
        &self,
        shard: ShardUid,
        generation: Generation,
        operation: OperationUid,
    ) -> io::Result<()> {
        let mut removed = self.removed.lock().unwrap_or_else(PoisonError::into_inner);
        removed.insert(
            shard,
            Tombstone {
                generation,
                operation,
            },
        );
        while removed.len() > KEPT {
            removed.pop_first();
        }
        replace_file(&self.path, &serde_json::to_vec(&*removed)?, 0o640)
    }
}
