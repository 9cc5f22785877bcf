//! Faults in a cluster of real processes, judged by what its clients saw (`testkit::chaos`).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it fails"
)]

mod harness;
mod schedule;
