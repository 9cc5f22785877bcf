//! The proxy as processes: a real engine behind a real `dmcproxy`.

#![allow(
    unreachable_pub,
    missing_debug_implementations,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "one test program"
)]

mod connections;
mod differential;
mod families;
mod fault;
mod flow;
mod fuzz;
mod fuzz_shards;
mod half_closed;
mod hostile;
mod hostile_bytes;
mod lifecycle;
mod loss;
mod own_connection;
mod seen;
mod sessions;
mod shards;
mod shards_messages;
mod splits;
mod storm;
mod support;
mod truth;
mod walk;
