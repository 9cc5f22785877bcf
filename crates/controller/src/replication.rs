//! Replicas follow their primary, and what makes them promotable is recorded.

pub(crate) mod damaged;
pub(crate) mod hanging;
pub mod plan;
pub(crate) mod request;
