//! A node is emptied: for a while (maintenance mode), or for good (removal).

pub mod plan;
pub(crate) mod request;
pub(crate) mod snapshot;
mod work;

pub(crate) use work::data_is_there_alone;
