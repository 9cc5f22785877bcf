//! Changes of documents that a feature level needs. They run while the level rises, after which no node with
//! an older release is left, in small transactions; where they are is stored with each.

use crate::state::ClusterState;
use serde_json::Value;

/// Most documents that one transaction of a migration writes.
pub const BATCH_MAX: usize = 64;

/// A migration. Running it again, from the start or from any place, changes nothing more.
#[derive(Clone, Copy, Debug)]
pub struct DataMigration {
    /// Its name, in the record of the upgrade.
    pub name: &'static str,
    /// The level that needs it.
    pub level: u32,
    /// The next documents, from a place on.
    pub next: fn(&ClusterState, Option<&str>) -> Batch,
    /// Whether it is done, as the documents stand: they are read back before the level rises.
    pub holds: fn(&ClusterState) -> bool,
}

/// Some documents of a migration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// Key, the revision that was read, and the new document; at most [`BATCH_MAX`].
    pub documents: Vec<(String, u64, Value)>,
    /// Where it goes on; `None`: it is done.
    pub cursor: Option<String>,
}

/// Those of this release, in the order in which they run. Level 1 is the first: it has none.
pub const MIGRATIONS: &[DataMigration] = &[];
