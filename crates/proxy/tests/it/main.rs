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
mod flow;
mod fuzz;
mod hostile;
mod lifecycle;
mod loss;
mod sessions;
mod shards;
mod support;
mod walk;
