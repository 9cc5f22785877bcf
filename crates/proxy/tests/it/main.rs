//! The proxy as processes: a real engine behind a real `dmcproxy`.

#![allow(
    unreachable_pub,
    missing_debug_implementations,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "one test program"
)]

mod accepted;
mod broken_off;
mod caching;
mod concealed;
mod connections;
mod differential;
mod early;
mod endless;
mod families;
mod fault;
mod fault_messages;
mod flow;
mod fuzz;
mod fuzz_shards;
mod gate;
mod gate_messages;
mod gate_own;
mod gate_refusals;
mod gate_scripts;
mod gate_shards;
mod half_closed;
mod handover;
mod handover_bench;
mod handover_kills;
mod handover_load;
mod handover_more;
mod hostile;
mod hostile_bytes;
mod inside;
mod lease;
mod lease_epochs;
mod lease_gaps;
mod lease_promises;
mod lifecycle;
mod limits;
mod long_scripts;
mod loss;
mod loss_inside;
mod monitor;
mod odd_orders;
mod other_proxies;
mod own_connection;
mod pause;
mod scans;
mod seen;
mod sessions;
mod shards;
mod shards_messages;
mod splits;
mod storm;
mod subscribing;
mod support;
mod truth;
mod walk;
mod watched;
mod wishes;
mod workers;
