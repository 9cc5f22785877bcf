//! The agent against real engines. Each test has its own loopback address and folder.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails where it stands"
)]

mod adoption;
mod bench;
mod damaged_files;
mod full_disk;
mod hand_over;
mod keeper;
mod lifecycle;
mod load;
mod moves;
mod persistence;
mod promotion;
mod removal;
mod replica_set;
mod replication;
mod supervisord;
mod trouble;
