//! Which node and port a shard gets.

pub(crate) mod copies;
pub mod plan;
pub(crate) mod racks;
mod refusal;
mod replicas;
