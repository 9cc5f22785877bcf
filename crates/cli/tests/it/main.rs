//! The tools as an operator runs them: real processes, a real unix socket.
#![expect(
    clippy::unwrap_used,
    reason = "a fixture that cannot be made fails its test"
)]

mod cluster;
mod failures;
mod fake_node;
mod fixtures;
mod help;
mod installed_node;
mod internode_port;
mod migrate;
mod node_remove;
mod rladmin;
mod rlcheck;
mod status;
mod tuning;
