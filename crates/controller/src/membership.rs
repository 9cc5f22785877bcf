//! Who votes on the configuration.

pub mod plan;
