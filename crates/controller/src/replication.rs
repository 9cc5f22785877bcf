//! Replicas follow their primary, and what makes them promotable is recorded.

pub mod plan;
pub(crate) mod request;
