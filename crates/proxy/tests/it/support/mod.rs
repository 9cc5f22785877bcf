//! A node of real parts in a temporary folder: a real engine, a real `dmcproxy`, and a unix socket
//! that plays `cnm_exec`.

pub mod client;
pub mod engine;
pub mod exec;
pub mod node;
pub mod pair;
pub mod process;
pub mod random;
pub mod relay;

use std::time::{Duration, Instant};

/// How long anything may take before a test fails. Never a measure: only an end.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `condition` holds.
#[track_caller]
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
