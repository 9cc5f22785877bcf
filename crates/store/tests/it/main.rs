//! The store as its users see it: clusters in one process over a network in memory, folders on
//! disk, and a process that is killed.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by a panic"
)]

mod backup;
mod chaos;
mod cluster;
mod crash;
mod elections;
mod folder;
mod full_disk;
mod hand_over;
mod members;
mod partition;
mod snapshot;
mod watching;
