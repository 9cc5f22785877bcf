//! A replica that is lost is made anew on another node (`slave_ha`), after a grace time and with pauses.

pub mod plan;
pub(crate) mod request;
