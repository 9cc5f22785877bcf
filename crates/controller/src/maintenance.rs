//! A node is emptied: for a while (maintenance mode), or for good (removal).

pub mod plan;
pub(crate) mod request;
pub(crate) mod snapshot;
mod work;
