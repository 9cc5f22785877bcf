//! Which node and port a shard gets.

pub mod plan;
pub(crate) mod racks;
