//! The tools as an operator runs them: real processes, a real unix socket.

mod cluster;
mod fake_node;
mod fixtures;
mod help;
mod rladmin;
mod rlcheck;
mod status;
