//! Whole clusters of real processes. Each file is one of the operator's questions.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it fails"
)]

mod all_clients;
mod bootstrap;
mod cut_moves;
mod cut_operations;
mod damaged_files;
mod databases;
mod finding;
mod full_disk;
mod hangs;
mod installed;
mod kept_clients;
mod kills;
mod load;
mod losses;
mod operators;
mod outages;
mod quorum;
mod replicas;
mod shards;
mod silent_network;
mod slave_ha;
mod storms;
mod story;
mod told;
mod tuning;
