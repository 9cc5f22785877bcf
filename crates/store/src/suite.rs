//! The Raft library's own tests of a storage, on ours.

use crate::config::StoreConfig;
use crate::disk::Disk;
use crate::log::Log;
use crate::machine::Machine;
use crate::raft::{StorageError, Types};
use model::NodeUid;
use openraft::testing::{StoreBuilder, Suite};
use tempfile::TempDir;

struct Builder;

impl StoreBuilder<Types, Log, Machine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, Log, Machine), StorageError> {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(&StoreConfig::new(NodeUid(1), folder.path())).unwrap();
        // The suite deletes entries that no snapshot has.
        disk.has_any_snapshot();
        let machine = Machine::open(disk.clone(), None, 100).unwrap();
        Ok((folder, Log::new(disk), machine))
    }
}

#[test]
fn the_library_accepts_our_storage() {
    Suite::test_all(Builder).unwrap();
}
