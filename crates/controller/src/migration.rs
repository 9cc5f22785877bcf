//! A shard is brought to another node: a copy is made there and synced, takes its place, and the shard is
//! removed.

pub(crate) mod back;
mod elsewhere;
pub mod plan;
pub(crate) mod request;
