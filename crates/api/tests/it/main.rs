//! Tests of `cnm_http`: shapes and translations as pure functions, and the whole server over a real
//! unix socket and real HTTPS. `cnm_exec` is a stand-in that speaks its local protocol.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod auth;
mod bounds;
mod certificates;
mod exec_stand_in;
mod fixture;
mod http;
mod node_actions;
mod openapi;
mod process;
mod requests;
mod routes;
mod served;
mod shapes;
mod tuning;
mod upgrade;
