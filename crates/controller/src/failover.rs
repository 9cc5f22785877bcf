//! Unplanned: a primary is gone, a replica takes its place.

pub mod plan;
mod restarted;
pub mod stall;
pub(crate) mod times;
