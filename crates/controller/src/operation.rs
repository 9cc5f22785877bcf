//! Operations that pause, go on, or are given up.

pub(crate) mod ending;
pub(crate) mod plan;
pub(crate) mod request;
