//! What goes down and comes back is told: nodes, shards that do not serve, proxies, the primary node itself.
//!
//! What is down is stored in one document with the events that tell of it, in one transaction: so each is told once,
//! whoever is the primary node, and a new one goes on from there.
//!
//! | what | is told when | and is back when |
//! |---|---|---|
//! | a node | it counts as down everywhere: not heard for [`HEARTBEAT_LOST`](model::limits::HEARTBEAT_LOST) at the least | it has been heard for some seconds without a break |
//! | a primary | its node is down, or its engine does not start, and nobody has taken its place | it serves |
//! | a replica | its engine does not start, on a node that is heard | it runs as a replica |
//! | a proxy | its node is heard, and has not heard of it for some seconds | it is heard |
//! | the primary node | it is another one than the last of which it was told | – |
//!
//! What is stopped in order, maintained, upgraded or removed is no error.

pub mod plan;
mod watched;

pub use watched::Watched;
